"""Features before a model: learnt once, the same columns for whatever is transformed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.model.encoder import FeatureEncoder
from fs_notebook.model.encoding import COUNTED_MAX

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TYPES: dict[str, pl.DataType] = {
    "count": pl.Int64(), "mean": pl.Float64(), "new": pl.Boolean(), "paid": pl.Decimal(12, 2),
    "genre": pl.String(), "at": pl.Datetime("us", "UTC"), "day": pl.Date(),
    "since": pl.Duration("us"), "hour": pl.Time(), "last": pl.List(pl.String),
    "vector": pl.Array(pl.Float64, 3), "place": pl.Struct({"city": pl.String, "x": pl.Float64}),
    "tags": pl.List(pl.Struct({"tag": pl.String, "n": pl.Int64})),
}  # fmt: skip
TEXTS = st.sampled_from(["news", "sport", "", "is null", "ünï"]) | st.text(max_size=3)
TAGS = st.fixed_dictionaries({"tag": st.none() | TEXTS, "n": st.integers(0, 9)})
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "count": st.integers(-(2**63), 2**63 - 1),
    "mean": st.floats(allow_nan=True, allow_infinity=True),
    "new": st.booleans(),
    "paid": st.decimals(-(10**9), 10**9, places=2),
    "genre": TEXTS,
    "at": st.timedeltas(timedelta(0), timedelta(days=9999)).map(lambda after: BEGIN + after),
    "day": st.dates(date(1970, 1, 1), date(2100, 1, 1)),
    "since": st.timedeltas(timedelta(0), timedelta(days=999)),
    "hour": st.times(),
    "last": st.lists(st.none() | TEXTS, max_size=3),
    "vector": st.lists(st.floats(-9, 9), min_size=3, max_size=3),
    "place": st.fixed_dictionaries({"city": st.none() | TEXTS, "x": st.none() | st.floats(-9, 9)}),
    "tags": st.lists(TAGS, max_size=2),
}
ROWS = st.lists(
    st.fixed_dictionaries({n: st.none() | values for n, values in VALUES.items()}),
    min_size=1, max_size=6,
)  # fmt: skip
OPTIONS = st.fixed_dictionaries({
    "nulls": st.sampled_from(["indicator", "nan"]),
    "text": st.sampled_from(["one_hot", "code"]),
    "categories_max": st.integers(1, 4),
    "dtype": st.sampled_from(["float64", "float32"]),
})  # fmt: skip


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPES)


def names(encoder: FeatureEncoder) -> list[str]:
    return list(encoder.get_feature_names_out())


@settings(max_examples=50)
@given(ROWS, ROWS, OPTIONS)
def test_a_row_is_encoded_alike_wherever_it_comes_from(
    learnt: list[dict[str, Any]], other: list[dict[str, Any]], options: dict[str, Any]
) -> None:
    encoder = FeatureEncoder(**options).fit(frame_of(learnt))
    rows = frame_of([*learnt, *other])
    whole = encoder.transform(rows)
    assert whole.shape == (rows.height, len(names(encoder)))
    assert whole.dtype == options["dtype"]
    assert np.isfinite(whole).all() or options["nulls"] == "nan"
    # One at a time, in another order of columns, beside columns that are none of its own.
    alone = [
        encoder.transform(row.select(*reversed(row.columns), pl.lit("x").alias("more")))
        for row in rows.iter_slices(1)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    # What is written down and read again is the same encoder.
    again = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert names(again) == names(encoder)
    np.testing.assert_array_equal(whole, again.transform(rows))
    assert again.get_params() == encoder.get_params() | {"columns": list(TYPES)}


@settings(max_examples=20)
@given(st.lists(ROWS, min_size=2, max_size=3))
def test_it_learns_in_batches_what_it_learns_at_once(batches: list[list[dict[str, Any]]]) -> None:
    frames = [frame_of(rows) for rows in batches]
    at_once = FeatureEncoder().fit(pl.concat(frames))
    in_batches = FeatureEncoder()
    for frame in frames:
        in_batches.partial_fit(frame)
    assert names(in_batches) == names(at_once)
    left, right = (e.transform(pl.concat(frames)) for e in (at_once, in_batches))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-6)


def test_what_each_type_becomes() -> None:
    learnt = pl.DataFrame(
        {
            "n": [1, None, 5], "x": [float("nan"), 2.0, float("inf")], "new": [True, False, None],
            "paid": [Decimal("1.50"), None, Decimal("2.50")], "genre": ["b", None, "a"],
            "at": [BEGIN, None, BEGIN + timedelta(days=2)], "hour": [time(1), time(2), time(3)],
            "last": [["p", "q"], [], ["p"]], "vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            "place": [{"city": "A"}, None, {"city": "B"}], "empty": [None, None, None],
        },
        schema_overrides={"empty": pl.Float64},
    )  # fmt: skip
    encoder = FeatureEncoder().fit(learnt)
    shown = dict(zip(names(encoder), encoder.transform(learnt).T.tolist(), strict=True))
    assert shown == {
        "n": [1, 3, 5], "n is null": [0, 1, 0],
        "x": [2, 2, 1e300], "x is null": [1, 0, 0],
        "new": [1, 0, 0.5], "new is null": [0, 0, 1],
        "paid": [1.5, 2, 2.5], "paid is null": [0, 1, 0],
        "genre=a": [0, 0, 1], "genre=b": [1, 0, 0], "genre is null": [0, 1, 0],
        "at": [0, 1, 2], "at is null": [0, 1, 0],
        "hour": [3600, 7200, 10800],
        "len(last)": [2, 0, 1], "last[1]=p": [1, 0, 1], "last[2]=q": [1, 0, 0],
        "vector[1]": [1, 3, 5], "vector[2]": [2, 4, 6],
        "place.city=A": [1, 0, 0], "place.city=B": [0, 0, 1], "place.city is null": [0, 1, 0],
        "empty": [0, 0, 0], "empty is null": [1, 1, 1],
    }  # fmt: skip


def test_what_the_training_rows_did_not_have_changes_no_column() -> None:
    encoder = FeatureEncoder(categories_max=1).fit({"genre": ["a", "a", "b"], "n": [1, 2, 3]})
    assert names(encoder) == ["genre=a", "genre is other", "n"]
    rows = {"genre": ["new", None, "b", "a"], "n": [None, 2, None, 4]}
    assert encoder.transform(rows).tolist() == [[0, 1, 2], [0, 0, 2], [0, 1, 2], [1, 0, 4]]
    codes = FeatureEncoder(text="code", nulls="nan").fit({"genre": ["b", "a", "b"], "n": [1, 2, 3]})
    assert codes.transform(rows)[:, 0].tolist() == [0, 0, 2, 1]
    assert np.isnan(codes.transform(rows)[0, 1])
    # A longer list is cut, a list of other places is told by its length.
    lists = FeatureEncoder().fit({"last": [[1], [2, 3]]})
    assert lists.transform({"last": [[7, 8, 9], None]}).tolist() == [[3, 7, 8], [0, 1.5, 3]]


def test_very_long_lists_and_many_texts_are_bounded() -> None:
    long = pl.DataFrame({"v": [[1.0] * 1_025, [2.0]], "t": ["x" * 201, "short"]})
    encoder = FeatureEncoder().fit(long)
    assert names(encoder) == ["len(v)", "t=short", "t is other"]
    assert encoder.transform(long).tolist() == [[1025, 0, 1], [1, 1, 0]]
    many = pl.DataFrame({"t": [*map(str, range(COUNTED_MAX + 10)), "0", "0", "7"]})
    encoder = FeatureEncoder(categories_max=2).fit(many)
    assert names(encoder) == ["t=0", "t=7", "t is other"]


def test_what_does_not_fit_is_told() -> None:
    encoder = FeatureEncoder().fit({"n": [1, 2], "genre": ["a", "b"]})
    with pytest.raises(UnknownName, match=r"(?s)column to encode named 'genre'.*genres"):
        encoder.transform({"n": [1], "genres": ["a"]})
    with pytest.raises(UsageError, match=r"(?s)'n' was a number when it was learnt.*String"):
        encoder.transform({"n": ["1"], "genre": ["a"]})
    with pytest.raises(UsageError, match=r"(?s)'genre' was a text.*Int64"):
        encoder.partial_fit({"n": [1], "genre": [1]})
    with pytest.raises(UsageError, match=r"by their names.*\n.*shape \(1, 2\)"):
        encoder.transform(np.ones((1, 2)))
    with pytest.raises(UsageError, match="and there are none"):
        FeatureEncoder().fit(pl.DataFrame(schema={"n": pl.Int64}))
    with pytest.raises(UsageError, match=r"(?s)a type that no model takes.*Binary"):
        FeatureEncoder().fit({"n": [b"1"]})
    with pytest.raises(UsageError, match=r"(?s)would have one name.*n is null"):
        FeatureEncoder().fit({"n": [1, None], "n is null": [1, 2]})
    for odd in ({"nulls": "zero"}, {"text": "hash"}, {"dtype": "int8"}, {"categories_max": 0}):
        with pytest.raises(UsageError):
            FeatureEncoder(**odd).fit({"n": [1]})  # type: ignore[arg-type]


def test_scikit_learn_takes_it_for_one_of_its_own() -> None:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({
        "genre": rng.choice(["a", "b", "c"], 200), "n": rng.normal(size=200), "other": [1] * 200
    }).with_columns(n=pl.when(pl.col("n") > 1.5).then(None).otherwise(pl.col("n")))  # fmt: skip
    clicked = (frame["genre"] == "a").to_numpy() ^ (rng.random(200) < 0.1)
    model = make_pipeline(FeatureEncoder(["genre", "n"]), StandardScaler(), LogisticRegression())
    for table in (frame, frame.to_pandas()):
        fitted = clone(model).fit(table, clicked)
        assert fitted.score(table, clicked) > 0.8
        assert list(fitted[:-1].get_feature_names_out()) == [
            "genre=a", "genre=b", "genre=c", "n", "n is null",
        ]  # fmt: skip
        assert cross_val_score(model, table, clicked, cv=3).min() > 0.7
    both = [fitted[:-1].transform(t) for t in (frame, frame.to_pandas())]
    np.testing.assert_array_equal(*both)
    beside = ColumnTransformer([("e", FeatureEncoder(), ["genre"])], remainder="passthrough")
    assert list(beside.fit(frame).get_feature_names_out())[:2] == ["e__genre=a", "e__genre=b"]
    for library in ("pandas", "polars"):
        shown = FeatureEncoder().set_output(transform=library).fit(frame).transform(frame)
        assert type(shown).__module__.startswith(library)
        assert list(shown.columns) == ["genre=a", "genre=b", "genre=c", "n", "n is null", "other"]
