"""Decimals into streams: through JSON and Arrow messages, files, frames and rows, exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.errors import UsageError
from fs_notebook.files.texts import text_to
from fs_notebook.ingest import declare, fit, to_frame
from fs_notebook.log.decode import decode_arrow, decode_json
from fs_notebook.log.framing import messages
from fs_notebook.log.payloads import declared
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type, conform, list_of, struct_of
from tests.compute.cases import scaled
from tests.support.logs import Ledger, read_all

MONEY = Type("DECIMAL(10,2)")
LONG = Type("DECIMAL(38,9)")
STREAM = Stream("x", (("ts", Type.TIMESTAMP), ("m", MONEY), ("h", LONG)), time="ts")
TS = "2024-01-01T00:00:00Z"
NESTED = Stream(
    "x", (("ms", list_of(MONEY)), ("one", struct_of([("price", MONEY), ("n", Type.BIGINT)])))
)


def read_json(*values: str) -> tuple[list[Any], dict[int, str]]:
    frame, bad = decode_json([f'{{"m":{v}}}'.encode() for v in values], STREAM)
    return frame["m"].to_list(), bad


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"12.30"', "12.30"), ('"12.3"', "12.3"), ('"-0.5"', "-0.5"), ("12.3", "12.3"),
        ("12.300", "12.3"), ("7", "7"), ("-0.0", "0"), ("1e2", "100"), ('"1e2"', "100"),
        ('"0E-9"', "0"), ("0.07", "0.07"), ("12345678.900000000000000", "12345678.9"),
        ('"99999999.99"', "99999999.99"), ("99999999.99", "99999999.99"), ("null", None),
    ],
)  # fmt: skip
def test_texts_and_numbers_are_read_exactly(text: str, value: str | None) -> None:
    want = None if value is None else Decimal(value)
    assert read_json(text) == ([want], {})
    # The same beside an event that makes the reader look at each one.
    found, bad = read_json(text, '"x"')
    assert (found, list(bad)) == ([want], [1])


@pytest.mark.parametrize(
    "text",
    ['"x"', '"12,30"', '" 1"', '""', "true", "[1]", "1.005", '"1.005"', "100000000",
     '"100000000.00"', "1e300", "1.0000000000000001", '"NaN"', "12345678901234567890123"],
)  # fmt: skip
def test_fault_27_what_is_no_such_decimal_is_malformed_and_spoils_nothing(text: str) -> None:
    found, bad = read_json("1", text, '"2.50"')
    assert found == [Decimal(1), Decimal("2.5")]
    assert list(bad) == [1]
    assert "'m' holds" in bad[1]
    assert "DECIMAL(10,2)" in bad[1]
    # In every company: alone, and beside what is malformed for another reason.
    assert read_json(text)[0] == []
    frame, others = decode_json([f'{{"m":{text}}}'.encode(), b"{"], STREAM)
    assert (frame.height, sorted(others)) == (0, [0, 1])


@given(
    values=st.lists(
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: scaled(n, 9)) | st.none(),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_messages_carry_every_digit(values: list[Decimal | None]) -> None:
    stamp = datetime(2024, 1, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        {"ts": [stamp] * len(values), "m": [None] * len(values), "h": values},
        schema={n: t.polars for n, t in STREAM.columns},
    )
    sent = [m.payload for m in messages(STREAM, rows)]
    assert len(sent) == len(values)
    assert [json.loads(p)["h"] for p in sent] == [None if v is None else f"{v:.9f}" for v in values]
    frame, bad = decode_json(sent, STREAM)
    assert not bad
    assert frame.equals(rows)


def test_lists_and_structs_of_decimals() -> None:
    good = {"ms": ["1.10", 2, None, 3.5], "one": {"price": "9.99", "n": 1}}
    bad = [{"ms": ["1.10", "x"]}, {"one": {"price": 1.005}}, {"ms": [True]}]
    frame, malformed = decode_json([json.dumps(e).encode() for e in (good, *bad, {})], NESTED)
    assert frame.to_dicts() == [
        {"ms": [Decimal("1.10"), Decimal(2), None, Decimal("3.5")],
         "one": {"price": Decimal("9.99"), "n": 1}},
        {"ms": None, "one": None},
    ]  # fmt: skip
    assert sorted(malformed) == [1, 2, 3]
    (again,) = [m.payload for m in messages(NESTED, frame[:1])]
    assert decode_json([again], NESTED)[0].equals(frame[:1])


def arrow(values: Sequence[Any], dtype: Any) -> bytes:
    frame = pl.DataFrame({"m": pl.Series(values, dtype=dtype)})
    payload = frame.write_ipc_stream(None)
    return payload.getvalue()


@pytest.mark.parametrize(
    ("values", "dtype", "good"),
    [
        ([Decimal("1.10"), None], pl.Decimal(10, 2), True),
        ([Decimal("1.1")], pl.Decimal(38, 1), True),
        ([Decimal("1.100")], pl.Decimal(38, 3), True),
        ([Decimal("1.105")], pl.Decimal(38, 3), False),
        ([Decimal("123456789.00")], pl.Decimal(38, 2), False),
        ([12, None], pl.Int64, True),
        ([10**9], pl.Int64, False),
        (["1.10", None], pl.String, True),
        (["1.105"], pl.String, False),
        ([1.5], pl.Float64, False),
    ],
)
def test_arrow_batches_are_taken_where_nothing_is_lost(
    values: list[Any], dtype: Any, good: bool
) -> None:
    frame, reason = decode_arrow(arrow(values, dtype), STREAM)
    raw = pl.DataFrame({"m": pl.Series(values, dtype=dtype)})
    other, bad = declared(raw, STREAM)
    if good:
        assert frame is not None
        want = [None if v is None else Decimal(v) for v in values]
        assert frame["m"].to_list() == other["m"].to_list() == want
        assert frame.schema["m"] == other.schema["m"] == MONEY.polars
    else:
        assert frame is None
        assert "'m' is" in reason
        assert list(bad) == [0]


def test_frames_of_every_make_become_decimal_columns() -> None:
    rows = [{"m": Decimal("1.1"), "n": 1}, {"m": Decimal("2.25"), "n": 2}]
    made = {
        "rows": to_frame(rows),
        "columns": to_frame({"m": [r["m"] for r in rows], "n": [1, 2]}),
        "pandas": to_frame(pd.DataFrame(rows)),
        "arrow": to_frame(pa.table({"m": pa.array([r["m"] for r in rows], pa.decimal128(9, 2))})),
        "polars": to_frame(pl.DataFrame({"m": pl.Series([1, 2], dtype=pl.Decimal(9, 2))})),
    }
    kinds = {
        name: declare(conform(f), "x", time=None, key=["m"], partitions=1).type_of("m").value
        for name, f in made.items()
    }
    # What Python and pandas hold says nothing of how many digits will come.
    assert kinds == {
        "rows": "DECIMAL(38,2)", "columns": "DECIMAL(38,2)", "pandas": "DECIMAL(38,2)",
        "arrow": "DECIMAL(9,2)", "polars": "DECIMAL(9,2)",
    }  # fmt: skip
    for name in ("rows", "columns", "pandas", "arrow"):
        assert made[name]["m"].to_list() == [Decimal("1.1"), Decimal("2.25")], name


@pytest.mark.parametrize(
    "values",
    [["NaN"], ["Infinity"], ["1e-40"], ["1e-30", "1e20"], ["1" * 39]],
)
@pytest.mark.parametrize("shape", ["rows", "columns"])
def test_python_decimals_that_fit_no_type_are_refused(values: list[str], shape: str) -> None:
    """Polars makes null of what does not fit, or panics."""
    numbers = [Decimal(v) for v in values]
    with pytest.raises(UsageError, match="'m'"):
        to_frame([{"m": n} for n in numbers] if shape == "rows" else {"m": numbers})


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([Decimal("1.100")], ["1.1"]), ([1, None], ["1", None]), (["1.10", "2"], ["1.1", "2"]),
        ([Decimal("1.105")], None), ([1.5], None), (["x"], None), ([10**9], None),
        ([None], [None]),
    ],
)  # fmt: skip
def test_an_upload_fits_a_decimal_column_exactly_or_not_at_all(
    values: list[Any], want: list[str | None] | None
) -> None:
    stream = Stream("x", (("m", MONEY),))
    frame = to_frame({"m": values})
    if want is None:
        with pytest.raises(UsageError, match="'m' of 'x' is DECIMAL"):
            fit(frame, stream)
        return
    found = fit(frame, stream)
    assert found.schema == {"m": MONEY.polars}
    assert found["m"].to_list() == [None if v is None else Decimal(v) for v in want]


def test_a_double_column_takes_decimals_as_it_did() -> None:
    stream = Stream("x", (("v", Type.DOUBLE),))
    assert fit(to_frame({"v": [Decimal("1.25")]}), stream)["v"].to_list() == [1.25]


def test_csv_text_is_read_by_the_declaration() -> None:
    texts = pl.Series("m", ["0.10", " 12345678.90 ", None])
    assert text_to(texts, MONEY).to_list() == [Decimal("0.1"), Decimal("12345678.9"), None]
    with pytest.raises(UsageError, match=r"DECIMAL\(10,2\)"):
        text_to(pl.Series("m", ["1.005"]), MONEY)


def test_a_ledger_gives_back_what_it_was_given(ledger: Ledger) -> None:
    log, columns = ledger.log, (*STREAM.columns, *NESTED.columns)
    stream = ledger.stream(columns=columns, time="ts", key=(), partitions=1)
    stamp = datetime(2024, 1, 1, tzinfo=UTC)
    rows = pl.DataFrame(
        [
            {"ts": stamp, "m": Decimal("0.10"), "h": scaled(10**38 - 1, 9),
             "ms": [Decimal("1.25"), None], "one": {"price": Decimal("9.99"), "n": 1}},
            {"ts": stamp, "m": None, "h": scaled(-1, 9), "ms": [], "one": None},
        ],
        schema={n: t.polars for n, t in stream.columns}, orient="row",
    )  # fmt: skip
    for count in (1, 2_000):
        start = log.end(stream.name)
        log.append(stream, pl.concat([rows] * count))
        batches = read_all(log, stream, start=start, end=log.end(stream.name))
        found = pl.concat([b.rows for b in batches]).select(stream.names)
        assert found.equals(pl.concat([rows] * count))


def test_files_follow_the_declaration(tmp_path: Path) -> None:
    from fs_notebook.files import open_file

    (tmp_path / "x.csv").write_text("m\n0.10\n12345678.90\n")
    (tmp_path / "x.ndjson").write_text('{"m":"0.10"}\n{"m":12345678.90}\n')
    pl.DataFrame({"m": pl.Series(["0.10", "12345678.90"]).cast(pl.Decimal(10, 2))}).write_parquet(
        tmp_path / "x.parquet"
    )
    stream = Stream("x", (("m", MONEY),))
    for name in ("x.csv", "x.ndjson", "x.parquet"):
        file = open_file(tmp_path / name)
        (raw,) = file.raw(0, 10)
        found = fit(file.typed(raw, stream), stream)
        assert found["m"].to_list() == [Decimal("0.1"), Decimal("12345678.9")], name
