"""What text in a CSV file says, and what it cannot."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import UsageError
from fs_notebook.files.texts import text_to
from fs_notebook.types import Type


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        (Type.BIGINT, ["1", " -2 ", None], [1, -2, None]),
        (Type.DOUBLE, ["1", "2.5e3", "inf"], [1.0, 2500.0, float("inf")]),
        (Type.BOOLEAN, ["true", "False", None], [True, False, None]),
        (Type.DATE, ["2024-02-29"], [date(2024, 2, 29)]),
        (Type.INTERVAL, ["1000000"], [timedelta(seconds=1)]),
        (Type.VARCHAR, [" a ", None], [" a ", None]),
        (
            Type.TIMESTAMP,
            ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.5+02:00", "2024-01-02 03:04",
             "2024-01-02"],
            [at(2024, 1, 2, 3, 4, 5), at(2024, 1, 2, 1, 4, 5, 500_000), at(2024, 1, 2, 3, 4),
             at(2024, 1, 2)],
        ),
        (Type.TIMESTAMP, ["31/01/2013 12:00", "02/03/2013 12:00"],
         [at(2013, 1, 31, 12), at(2013, 3, 2, 12)]),
        (Type.TIMESTAMP, ["2013-01-31 12:00:00.000001", None],
         [at(2013, 1, 31, 12, 0, 0, 1), None]),
    ],
)  # fmt: skip
def test_text_becomes_what_it_says(kind: Type, texts: list[Any], values: list[Any]) -> None:
    series = text_to(pl.Series("x", texts, pl.String), kind)
    assert series.dtype == kind.polars
    assert series.to_list() == values


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Type.BIGINT, "1.5"),
        (Type.BIGINT, "9223372036854775808"),
        (Type.DOUBLE, "1,5"),
        (Type.BOOLEAN, "yes"),
        (Type.DATE, "2024-02-30"),
        (Type.TIMESTAMP, "soon"),
        # Seconds, milliseconds and microseconds are easily mistaken.
        (Type.TIMESTAMP, "1700000000"),
    ],
)
def test_text_that_says_something_else_is_named(kind: Type, text: str) -> None:
    with pytest.raises(UsageError, match=f"'x' holds a value that is no {kind}") as caught:
        text_to(pl.Series("x", [None, text], pl.String), kind)
    assert caught.value.found == repr(text)


def test_a_csv_file_holds_no_lists() -> None:
    with pytest.raises(UsageError, match="NDJSON, Parquet or Arrow"):
        text_to(pl.Series("x", ["[1]"]), Type("BIGINT[]"))
