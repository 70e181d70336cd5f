"""Made-up data: the same for a seed, in the order of arrival, and with what its texts promise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from fs_notebook import datasets
from fs_notebook.errors import UsageError

SMALL = {"users": 20, "articles": 60, "days": 8}
BANK = {"accounts": 60, "merchants": 30, "days": 20}


def test_a_seed_gives_the_same_newspaper_again() -> None:
    one, same, other = (datasets.reading(**SMALL, seed=s) for s in (3, 3, 4))
    for name in ("articles", "read_events", "recommendations"):
        assert getattr(one, name).equals(getattr(same, name))
        assert not getattr(one, name).equals(getattr(other, name))


def test_until_moves_whole_days_and_nothing_else() -> None:
    one = datasets.reading(**SMALL)
    moved = datasets.reading(**SMALL, until=datetime(2025, 5, 17, 13, 45, tzinfo=UTC))
    days = datetime(2025, 5, 17, tzinfo=UTC) - datetime(2024, 3, 1, tzinfo=UTC)
    shifted = one.read_events.with_columns(pl.col("ts") + days)
    assert shifted.equals(moved.read_events)
    assert moved.read_events["ts"].max() < datetime(2025, 5, 17, tzinfo=UTC)


def test_readers_have_tastes_and_some_events_are_late() -> None:
    paper = datasets.reading(users=40, articles=80, days=20)
    late = paper.read_events.select(pl.col("ts").cum_max() - pl.col("ts")).to_series()
    assert 0 < (late > timedelta(hours=1)).mean() < 0.1
    rows = paper.articles.filter(pl.col("article").is_duplicated()).sort("article", "at")
    assert (rows["words"].diff().gather_every(2, 1) > 0).all()
    read = paper.read_events.join(paper.articles.unique("article"), on="article")
    shares = read.group_by("user", "genre").len().sort("len").group_by("user").agg(
        share=pl.col("len").max() / pl.col("len").sum()
    )  # fmt: skip
    # Of eight genres that all were read alike, none had much more than an eighth.
    assert shares["share"].mean() > 0.3
    assert paper.recommendations["clicked"].mean() == pytest.approx(0.13, abs=0.05)


def test_payments_are_exact_and_fraud_is_reported_later() -> None:
    bank, same = datasets.payments(**BANK, seed=2), datasets.payments(**BANK, seed=2)
    assert bank.transactions.equals(same.transactions)
    assert bank.transactions.schema["amount"] == pl.Decimal(12, 2)
    assert bank.transactions["ts"].is_sorted()
    both = bank.reports.join(bank.transactions, on="tx", suffix="_paid")
    assert both.height == bank.reports.height > 0
    delay = both["reported_at"] - both["ts"]
    assert timedelta(days=1) <= delay.min() < delay.max() <= timedelta(days=6)
    # A label is what is known by the end: each fraud among them has been reported.
    assert set(bank.labels.filter("fraud")["tx"]) <= set(bank.reports["tx"])
    assert set(bank.labels["pattern"]) == {"", "testing", "takeover", "merchant"}


def test_bulletins_say_what_the_figures_say() -> None:
    said = datasets.bulletins().join(
        datasets.weather(), left_on=["issued_at", "origin"], right_on=["observed_at", "origin"]
    )
    wet = pl.col("text").str.contains("heavy rain|light showers")
    assert said.select((wet == (pl.col("precip") > 0)).all()).item()


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)at least one user.*users=0"):
        datasets.reading(users=0)
    with pytest.raises(UsageError, match=r"(?s)at least ten accounts.*days=3"):
        datasets.payments(days=3)
