"""Payloads to frames: what is good, what is malformed, and neither spoils the other."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.log.decode import decode_arrow, decode_json
from fs_notebook.log.protocol import Stream
from fs_notebook.types import Type

STREAM = Stream(
    "x",
    (
        ("user", Type.VARCHAR),
        ("n", Type.BIGINT),
        ("v", Type.DOUBLE),
        ("ok", Type.BOOLEAN),
        ("ts", Type.TIMESTAMP),
        ("day", Type.DATE),
    ),
    time="ts",
)
GOOD = b'{"user":"a","n":1,"v":2.5,"ok":true,"ts":"2026-01-01T00:00:00Z","day":"2026-01-02"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:00:00.123456+02:00", datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-01T00:00:00.5", datetime(2026, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ("2026-01-01 00:00:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01 02:00:00+0200", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T10:30", datetime(2026, 1, 1, 10, 30, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        (1_700_000_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_iso_text_or_microseconds(text: object, expected: datetime | None) -> None:
    frame, bad = decode_json([json.dumps({"ts": text}).encode(), GOOD], STREAM)
    assert not bad
    assert frame.get_column("ts").to_list()[0] == expected


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty payload"),
        (b"  \n ", "empty payload"),
        (b"{", "no JSON"),
        (b'{"n":1} x', "no JSON"),
        (b'{"n":1}\n{"n":2}', "no JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"n":1.5}', "'n' holds '1.5', declared BIGINT"),
        (b'{"n":"1"}', "'n'"),
        (b'{"n":true}', "'n'"),
        (b'{"n":9223372036854775808}', "'n'"),
        (b'{"v":NaN}', "NaN"),
        (b'{"v":-Infinity}', "Infinity"),
        (b'{"v":"x"}', "'v'"),
        (b'{"ok":1}', "'ok'"),
        (b'{"ts":"yesterday"}', "'ts' holds no time"),
        (b'{"ts":1.5}', "'ts'"),
        (b'{"day":"2026-13-01"}', "'day' holds no time"),
        (b'{"user":"\xff\xfe"}', "UTF-8"),
        (b"\xff\xff\xff\xff", "UTF-8"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_fault_27_one_malformed_event_does_not_spoil_the_rest(payload: bytes, reason: str) -> None:
    frame, bad = decode_json([GOOD, payload, GOOD], STREAM)
    assert list(bad) == [1]
    assert reason in bad[1]
    assert frame.height == 2
    assert frame.equals(decode_json([GOOD, GOOD], STREAM)[0])


def test_missing_is_null_and_undeclared_is_ignored() -> None:
    frame, bad = decode_json([b"{}", b'{"n":null,"more":{"x":[1]}}', b'{"n":\n7}'], STREAM)
    assert not bad
    assert frame.get_column("n").to_list() == [None, None, 7]
    assert frame.schema == {n: t.polars for n, t in STREAM.columns}


def test_two_lines_in_one_payload_do_not_hide_an_empty_one() -> None:
    frame, bad = decode_json([GOOD, b"", GOOD + b"\n" + GOOD, GOOD], STREAM)
    assert sorted(bad) == [1, 2]
    assert frame.height == 2


def test_nothing_decodes_to_nothing() -> None:
    frame, bad = decode_json([], STREAM)
    assert frame.height == 0
    assert frame.columns == list(STREAM.names)
    assert not bad


EVENT = st.fixed_dictionaries(
    {},
    optional={
        "user": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "n": st.none() | st.integers(-(2**63), 2**63 - 1),
        "v": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "ok": st.none() | st.booleans(),
        "ts": st.none()
        | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
            lambda d: d.isoformat()
        ),
        "day": st.none() | st.dates(date(1970, 1, 1), date(2200, 1, 1)).map(str),
    },
)
JUNK = st.sampled_from([b"", b"{", b"[]", b'{"n":"1"}', b'{"ts":"x"}', b"\xff", b"{}\n{}"])


@given(st.lists(st.tuples(st.booleans(), EVENT, JUNK), max_size=30))
def test_bulk_decoding_is_decoding_one_by_one(
    mix: list[tuple[bool, dict[str, object], bytes]],
) -> None:
    payloads = [json.dumps(event).encode() if good else junk for good, event, junk in mix]
    frame, bad = decode_json(payloads, STREAM)
    assert sorted(bad) == [i for i, (good, _, _) in enumerate(mix) if not good]
    good_events = [event for good, event, _ in mix if good]
    for name in ("user", "n", "v", "ok"):
        assert frame.get_column(name).to_list() == [e.get(name) for e in good_events]
    singly = [decode_json([p], STREAM)[0] for i, p in enumerate(payloads) if i not in bad]
    assert frame.equals(pl.concat(singly) if singly else frame.clear(), null_equal=True)


def test_arrow_is_cast_and_completed() -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"n": [1, 2], "user": ["a", None], "more": [0, 0]}).cast(
        {"n": pl.Int16}
    ).write_ipc_stream(buffer)
    frame, reason = decode_arrow(buffer.getvalue(), STREAM)
    assert frame is not None
    assert reason == ""
    assert frame.schema == {n: t.polars for n, t in STREAM.columns}
    assert frame.get_column("n").to_list() == [1, 2]
    assert frame.get_column("v").to_list() == [None, None]


@pytest.mark.parametrize("cut", [4, 9, 60, -30])
def test_fault_27_torn_arrow_is_malformed(cut: int) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"n": [1, 2], "user": ["a", "b"]}).write_ipc_stream(buffer, compression="lz4")
    frame, reason = decode_arrow(buffer.getvalue()[:cut], STREAM)
    assert frame is None or frame.height == 0
    assert frame is not None or "Arrow" in reason


def test_fault_27_arrow_of_another_type_is_malformed() -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"n": ["x"]}).write_ipc_stream(buffer)
    frame, reason = decode_arrow(buffer.getvalue(), STREAM)
    assert frame is None
    assert "Arrow" in reason
