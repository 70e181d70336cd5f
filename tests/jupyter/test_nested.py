"""Features that are lists and structs, on display and before a model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import Preview, preview
from fs_notebook.jupyter.chart import distribution
from fs_notebook.jupyter.display import preview_html
from fs_notebook.jupyter.values import show
from fs_notebook.language.relation import SourceColumns
from fs_notebook.language.sql import compile_sql
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.log.protocol import Stream
from fs_notebook.model.columns import PLACES_MAX, encode
from fs_notebook.types import Type

DAY = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "facts", "drawn"),
    [
        ([[1, 2], [2, 2, 3], []], ("lists of 0 to 3", "no nulls", "in them: 1 to 3"), True),
        ([["a", "b"], ["a", None]], ("lists of 2", "no nulls", "in them: 2 different"), True),
        ([[0.5, 0.25]] * 3 + [None], ("lists of 2", "25% null", "in them: 0.25 to 0.5"), True),
        ([[DAY], [DAY]], ("lists of 1", "no nulls", "in them: every value is 2024"), False),
        ([[], [None]], ("lists of 0 to 1", "no nulls", "nothing in them"), False),
        ([{"a": 1, "b": "x"}, None], ("structs of a, b", "50% null"), False),
        ([[{"a": 1}]], ("lists of 1", "no nulls", "in them: structs of a"), False),
    ],
)
def test_distributions_of_lists_and_structs(
    values: list[Any], facts: tuple[str, ...], drawn: bool
) -> None:
    found = distribution(pl.Series("x", values))
    assert len(found.facts) >= len(facts)
    for told, wanted in zip(found.facts, facts, strict=False):
        assert told.startswith(wanted)
    assert (found.spec is not None) == drawn
    assert (found.svg() is not None) == drawn


def test_values_on_one_line() -> None:
    assert show({"a": 1234, "b": None, "c": [1.5, "x"]}) == "{a: 1,234, b: ·, c: [1.5, x]}"
    assert len(show({"long": "x" * 500})) <= 80


@pytest.fixture
def previewed(tmp_path: Any) -> Preview:
    stream = Stream(
        "reads", (("user", Type.VARCHAR), ("n", Type.BIGINT), ("ts", Type.TIMESTAMP)), "ts"
    )
    log = EmbeddedLog(tmp_path / "ledger")
    log.create(stream)
    log.append(stream, pl.DataFrame({"user": ["a", "a", "b"], "n": [1, 2, 3], "ts": [DAY] * 3}))
    plan = compile_sql(
        "SELECT user, LAST_N(n, 2) AS two, LAST({'n': n, 'at': ts}) AS pair, "
        "LAST(ONE_HOT(n, [1, 3])) AS hot FROM reads GROUP BY user",
        name="x", find_source=lambda _: SourceColumns("reads", stream.columns, "ts"),
    )  # fmt: skip
    made = preview("x", plan, stream, log, clock=SYSTEM)
    log.close()
    return made


def test_a_preview_shows_them(previewed: Preview) -> None:
    page = preview_html(previewed)
    for text in ("[2, 1]", "{n: 2, at: 2024-01-01 00:00:00}", "BIGINT[]", "[0, 1]", "structs of"):
        assert text in page
    assert "two BIGINT[]" in repr(previewed)


def test_a_model_sees_places_and_fields(previewed: Preview) -> None:
    matrix = encode(previewed.frame, ["two", "pair", "hot"], learnt_from=np.arange(2))
    assert matrix.names == ("two[1]", "two[2]", "pair.n", "pair.at", "hot[1]", "hot[2]")
    us = DAY.timestamp() * 1e6
    expected = [[2, 1, 2, us, 0, 0], [3, np.nan, 3, us, 0, 1]]
    np.testing.assert_array_equal(matrix.values, expected)


def test_a_model_knows_long_lists_by_their_length() -> None:
    frame = pl.DataFrame({"x": [[0] * (PLACES_MAX + 1), [1, 2]]})
    matrix = encode(frame, ["x"], learnt_from=np.arange(2))
    assert (matrix.names, matrix.values.tolist()) == (("len(x)",), [[PLACES_MAX + 1], [2]])
    # What later rows hold beyond the places that were learnt is not seen.
    assert encode(frame, ["x"], learnt_from=np.array([1])).names == ("x[1]", "x[2]")


def test_a_model_sees_what_a_one_hot_feature_tells() -> None:
    rows = 400
    kind = [n * 7 % 3 for n in range(rows)]
    frame = pl.DataFrame({
        "hot": [[int(k == o) for o in range(3)] for k in kind],
        "clicked": [k == 1 for k in kind],
    })  # fmt: skip
    matrix = encode(frame, ["hot"], learnt_from=np.arange(rows))
    assert matrix.values.shape == (rows, 3)
    np.testing.assert_array_equal(matrix.values[:, 1], frame["clicked"].cast(pl.Float64))
