"""Each fold learns from what came before it; groups and queries stay on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fs_notebook.clock import to_us
from fs_notebook.errors import UsageError
from fs_notebook.model import folds as module
from fs_notebook.model.folds import splits_of

pytestmark = pytest.mark.timeout(60)


@settings(max_examples=80)
@given(
    rows=st.integers(600, 1200), distinct=st.integers(120, 2000), folds=st.integers(1, 6),
    share=st.sampled_from([None, 0.3, 0.6]), seed=st.integers(0, 5),
)  # fmt: skip
def test_walk_forward(rows: int, distinct: int, folds: int, share: Any, seed: int) -> None:
    times = np.random.default_rng(seed).integers(0, distinct, rows) * 1_000_000
    splits = splits_of(times, folds=folds, test_share=share)
    assert len(splits) == folds
    for split in splits:
        assert times[split.train].max() < times[split.test].min() == to_us(split.at)
        assert times[split.test].max() == to_us(split.until)
        # All that came before is learnt from.
        assert split.train.size == (times < to_us(split.at)).sum()
        assert (split.thinned, split.parted) == (0, 0)
    tested = np.concatenate([s.test for s in splits])
    assert np.unique(tested).size == tested.size == (times >= to_us(splits[0].at)).sum()
    wanted = share or (0.25 if folds == 1 else 0.5)
    assert tested.size >= int(rows * wanted) - 1


@pytest.mark.parametrize("folds", [1, 3])
def test_no_group_is_learnt_from_and_tested_on(folds: int) -> None:
    rng = np.random.default_rng(1)
    times = np.arange(3000) * 1_000_000
    groups = rng.integers(0, 90, 3000)
    splits = splits_of(times, folds=folds, test_share=None, groups=groups, group_name="user")
    tested: set[int] = set()
    for split in splits:
        mine = set(groups[split.test].tolist())
        assert mine.isdisjoint(groups[split.train].tolist())
        assert times[split.train].max() < times[split.test].min()
        assert split.parted > 0
        tested |= mine
    if folds == 3:
        # Each fold tests another third.
        assert len(tested) == 90


def test_groups_that_come_once_are_all_kept() -> None:
    times, groups = np.arange(1000) * 1_000_000, np.arange(1000) // 4
    for split in splits_of(times, folds=4, test_share=None, groups=groups, group_name="session"):
        # At most the one group that the boundary cuts is given to one side.
        assert split.parted <= 6


def test_a_querys_rows_stay_together_at_its_first_time() -> None:
    rng = np.random.default_rng(2)
    queries = np.arange(1200) // 6
    times = (queries * 10 + rng.integers(0, 60, 1200)) * 1_000_000
    splits = splits_of(times, folds=3, test_share=0.5, queries=queries)
    seen = [set(queries[s.test].tolist()) for s in splits]
    for split, mine in zip(splits, seen, strict=True):
        assert mine.isdisjoint(queries[split.train].tolist())
        assert all((queries[split.test] == q).sum() == 6 for q in mine)
    assert set.union(*seen) == set(range(min(set.union(*seen)), 200))


def test_many_labels_are_thinned_and_queries_with_all_their_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TRAIN_ROWS_MAX", 300)
    monkeypatch.setattr(module, "TEST_ROWS_MAX", 200)
    times, queries = np.arange(2000) * 1_000_000, np.arange(2000) // 5
    (split,) = splits_of(times, folds=1, test_share=0.5)
    assert (split.train.size, split.test.size, split.thinned) == (300, 200, 1500)
    (split,) = splits_of(times, folds=1, test_share=0.5, queries=queries)
    assert split.test.size == pytest.approx(200, rel=0.3)
    assert (np.unique(queries[split.test], return_counts=True)[1] == 5).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"folds": 0}, "1 to 20 folds"),
        ({"folds": 21}, "1 to 20 folds"),
        ({"test_share": 1.5}, "between 0 and 1"),
        ({"times": np.arange(50)}, "50 labels are too few"),
        ({"times": np.zeros(300, int)}, "nothing to learn from"),
        ({"times": np.arange(300) // 100, "folds": 4}, "too few times for 4 folds"),
        ({"times": np.arange(300), "folds": 20}, "too few labels to test in fold 1 of 20"),
        ({"times": np.arange(300), "test_share": 0.99}, "too few labels to learn from"),
        ({"groups": np.arange(400) % 12}, r"(?s)Too few values of 'user'.*4 to test"),
    ],
)
def test_what_cannot_be_split(options: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"times": np.arange(400), "folds": 1, "test_share": None}
    given |= {"group_name": "user"} | options
    with pytest.raises(UsageError, match=says):
        splits_of(given.pop("times"), **given)
