"""What is stored of an entity: all of its state, and nothing twice."""

from __future__ import annotations

from typing import Any

import msgpack
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold, State
from fs_notebook.errors import IntegrityError
from fs_notebook.log.frames import position_frame
from fs_notebook.log.protocol import Stream
from fs_notebook.online.codec import pack_key, pack_value, unpack_value
from fs_notebook.online.states import StateCodec
from fs_notebook.types import TIME, Type
from tests.benchmarks.data import define

FLOATS = 50
STREAM = Stream(
    "reads",
    (("user", Type.VARCHAR), ("n", Type.BIGINT), ("w", Type.VARCHAR), ("x", Type.DOUBLE)),
)
SQL = (
    "SELECT user, SUM(x) AS total, SUM(n) AS whole, AVG(x) AS mean, MIN(x) AS low, MAX(w) AS word, "
    "COUNT(*) AS rows, COUNT(x) AS known, SUM(x) + 1 AS more, LAST(x) AS last "
    "FROM reads GROUP BY user"
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "u3"]),
        st.none() | st.integers(-(2**40), 2**40),
        st.none() | st.text(max_size=3),
        st.none() | st.floats() | st.sampled_from([0.5, -0.0, 1e300, 3.0]),
    ),
    max_size=12,
)


def folded(fold: Fold, stream: Stream, rows: list[tuple[Any, ...]]) -> State:
    schema = {name: kind.polars for name, kind in stream.columns}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    times = pl.Series(TIME, range(frame.height), dtype=pl.Int64)
    at = pl.int_range(frame.height, dtype=pl.Int64, eager=True)
    positions = position_frame(partition=0, ledger=at, entry=at, batch=at)
    frame = frame.with_columns(times.cast(pl.Datetime("us", "UTC")))
    projected, _ = fold.project(frame, lambda: positions)
    return fold.add_projected(fold.empty, projected).state


@given(ROWS)
def test_a_state_comes_back_as_it_was(rows: list[tuple[Any, ...]]) -> None:
    fold = Fold(define("g", SQL, STREAM).plan)
    codec = StateCodec(fold)
    state = folded(fold, STREAM, rows)
    stored = codec.encode(state)
    back = codec.decode(list(stored), list(stored.values()))
    assert back.lifetime.equals(state.lifetime)
    assert codec.encode(back) == stored


def _wide(aggregate: str) -> tuple[Fold, Stream]:
    columns = tuple((f"x{i}", Type.DOUBLE) for i in range(FLOATS))
    stream = Stream("wide", (("user", Type.VARCHAR), *columns))
    features = ", ".join(f"{aggregate}(x{i}) AS f{i}" for i in range(FLOATS))
    return Fold(
        define("g", f"SELECT user, {features} FROM wide GROUP BY user", stream).plan
    ), stream


@pytest.mark.parametrize(
    ("aggregate", "value", "bytes_max"),
    [("SUM", 1.5, 400), ("MAX", 1.5, 400), ("SUM", 0.1, 550), ("MAX", 0.1, 500)],
)
def test_fifty_floats_are_small(aggregate: str, value: float, bytes_max: int) -> None:
    """Doubles that 32 bits hold exactly take 32; any fifty others are 400 bytes by themselves."""
    fold, stream = _wide(aggregate)
    stored = StateCodec(fold).encode(folded(fold, stream, [("u1", *[value] * FLOATS)]))
    ((key, blob),) = stored.items()
    assert len(key) + len(blob) <= bytes_max
    assert unpack_value(blob).values == (value,) * FLOATS


def test_a_state_of_the_former_layout_is_read() -> None:
    """Stored before fields were left out: all of them are in the body."""
    fold, stream = _wide("SUM")
    state = folded(fold, stream, [("u1", *[0.1] * FLOATS)])
    fields = state.lifetime.select(pl.exclude(fold.keys)).row(0)
    blob = pack_value(0, None, [0.1] * FLOATS, msgpack.packb([fields, None, None]))
    back = StateCodec(fold).decode([pack_key(("u1",))], [blob])
    assert back.lifetime.equals(state.lifetime)


@pytest.mark.parametrize("body", [[[1], None, None, 51], [[1] * 50, None, None, 7], [1, 2], 3])
def test_a_state_of_another_plan_is_refused(body: Any) -> None:
    fold, _ = _wide("SUM")
    blob = pack_value(0, None, [0.1] * FLOATS, msgpack.packb(body))
    with pytest.raises(IntegrityError, match="stored"):
        StateCodec(fold).decode([pack_key(("u1",))], [blob])
