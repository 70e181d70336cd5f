"""Made-up card payments, with fraud of three kinds that features can find."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.datasets.times import beginning_us, moments
from fs_notebook.errors import UsageError

COUNTRIES = ("AT", "CH", "CZ", "DE", "FR", "IT", "PL")
CATEGORIES = ("cafe", "clothing", "electronics", "fuel", "groceries", "jewellery", "travel")
_PRICES = (6.0, 55.0, 160.0, 60.0, 35.0, 240.0, 190.0)

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Row = tuple[int, int, float, float, str]


@dataclass(frozen=True)
class Payments:
    """Card payments, who pays, who is paid, and what turned out to be fraud.

    Attributes
    ----------
    accounts
        `account`, `country`, `segment`, `at`: a row when it is opened, another after a move.
    merchants
        `merchant`, `category`, `country`.
    transactions
        `tx`, `account`, `merchant`, `amount` as a decimal of two places, `ts`: in order.
    reports
        `tx`, `account`, `merchant`, `reported_at`: fraud becomes known days after the payment.
    labels
        `tx`, `account`, `merchant`, `amount` as a number, `ts`, `fraud`: what came of each
        payment that is old enough for it to be known, and `pattern`, how it was planted.
    """

    accounts: pl.DataFrame
    merchants: pl.DataFrame
    transactions: pl.DataFrame
    reports: pl.DataFrame
    labels: pl.DataFrame


@dataclass(frozen=True)
class _Shops:
    category: _Ints
    country: _Ints
    popularity: _Floats
    shady: _Ints


def payments(
    *,
    accounts: int = 400,
    merchants: int = 120,
    days: int = 45,
    until: datetime | None = None,
    seed: int = 0,
) -> Payments:
    """Return the last `days` of a bank's card payments, drawn from `seed`.

    Planted frauds: ``testing`` tries a stolen card with many small payments within minutes at
    many merchants, then buys; ``takeover`` spends several times the account's usual amount,
    abroad; ``merchant`` charges cards again and again at one of a few shady merchants.

    Parameters
    ----------
    until
        The last day ends at the midnight, UTC, before it; default: 1 March 2024.

    Raises
    ------
    UsageError
        If there are to be fewer than ten accounts, twenty merchants or ten days.
    """
    if accounts < 10 or merchants < 20 or days < 10:
        raise UsageError(
            "A bank has at least ten accounts, twenty merchants and ten days.",
            found=f"accounts={accounts}, merchants={merchants}, days={days}",
            remedy="datasets.payments()",
        )
    random = np.random.default_rng(seed)
    first_us = beginning_us(days, until)
    shops = _shops(random, merchants)
    home = random.integers(len(COUNTRIES), size=accounts)
    wealth = random.lognormal(0.0, 0.5, size=accounts)
    rows: list[_Row] = []
    for account in range(accounts):
        _usual(random, shops, account, int(home[account]), wealth[account], days, rows)
        if random.random() < 0.16:
            _testing(random, shops, account, days, rows)
        if random.random() < 0.22:
            _takeover(random, shops, account, int(home[account]), wealth[account], days, rows)
    for shady in shops.shady:
        _merchant(random, int(shady), accounts, days, rows)
    table = _table(rows, days, first_us)
    fraud = table.filter(pl.col("fraud"))
    delay_us = pl.Series((random.uniform(1, 6, fraud.height) * 86_400_000_000).astype(np.int64))
    last = first_us + days * 86_400_000_000
    reports = fraud.select(
        "tx",
        "account",
        "merchant",
        (pl.col("ts") + delay_us.cast(pl.Duration("us"))).alias("reported_at"),
    ).filter(pl.col("reported_at").dt.timestamp("us") < last)
    return Payments(
        accounts=_accounts(random, home, days, first_us),
        merchants=_merchants(shops),
        transactions=table.select(
            "tx", "account", "merchant", pl.col("amount").cast(pl.Decimal(12, 2)), "ts"
        ),
        reports=reports.sort("reported_at"),
        labels=table.filter(pl.col("ts").dt.timestamp("us") < last - 6 * 86_400_000_000),
    )


def _shops(random: np.random.Generator, merchants: int) -> _Shops:
    category = random.integers(len(CATEGORIES), size=merchants)
    return _Shops(
        category=category,
        country=random.integers(len(COUNTRIES), size=merchants),
        popularity=random.pareto(1.5, size=merchants) + 0.05,
        shady=random.choice(merchants, size=3, replace=False),
    )


def _price(random: np.random.Generator, shops: _Shops, merchant: int, wealth: float) -> float:
    usual = _PRICES[int(shops.category[merchant])] * wealth
    return float(usual * random.lognormal(0.0, 0.6))


def _usual(
    random: np.random.Generator, shops: _Shops, account: int, home: int, wealth: float,
    days: int, rows: list[_Row],
) -> None:  # fmt: skip
    """Append what the owner pays: mostly at home, by day, at merchants that are liked."""
    count = random.poisson(random.gamma(4.0, 0.3) * days)
    weight = shops.popularity * np.where(shops.country == home, 1.0, 0.06)
    weight = weight * random.lognormal(0.0, 1.0, size=weight.size)
    chosen = random.choice(weight.size, size=count, p=weight / weight.sum())
    hour = random.normal(14.0, 4.0, size=count) % 24
    for merchant, day in zip(chosen, random.integers(days, size=count) + hour / 24, strict=True):
        amount = _price(random, shops, int(merchant), wealth)
        rows.append((account, int(merchant), amount, float(day), ""))
        # A shopping street: two or three payments within the hour are nothing odd.
        if random.random() < 0.12:
            other = int(random.choice(weight.size, p=weight / weight.sum()))
            later = float(day) + random.uniform(3, 50) / 1_440
            rows.append((account, other, _price(random, shops, other, wealth), later, ""))


def _testing(
    random: np.random.Generator, shops: _Shops, account: int, days: int, rows: list[_Row]
) -> None:
    at = float(random.uniform(3, days))
    for _ in range(int(random.integers(5, 10))):
        merchant = int(random.integers(shops.category.size))
        rows.append((account, merchant, float(random.uniform(1, 12)), at, "testing"))
        at += random.uniform(20, 90) / 86_400
    for _ in range(2):
        at += random.uniform(60, 900) / 86_400
        merchant = int(random.integers(shops.category.size))
        rows.append((account, merchant, float(random.uniform(80, 400)), at, "testing"))


def _takeover(
    random: np.random.Generator, shops: _Shops, account: int, home: int, wealth: float,
    days: int, rows: list[_Row],
) -> None:  # fmt: skip
    at = float(random.uniform(10, days))
    abroad = np.flatnonzero(shops.country != home)
    for _ in range(int(random.integers(1, 5))):
        merchant = int(random.choice(abroad))
        amount = float(60 * wealth * random.uniform(3, 9))
        rows.append((account, merchant, amount, at, "takeover"))
        at += random.uniform(0.5, 6) / 24


def _merchant(
    random: np.random.Generator, merchant: int, accounts: int, days: int, rows: list[_Row]
) -> None:
    begins = random.uniform(5, days / 2)
    for _ in range(int(random.integers(35, 55))):
        account = int(random.integers(accounts))
        at = float(random.uniform(begins, days))
        rows.append((account, merchant, float(random.uniform(15, 120)), at, "merchant"))


def _table(rows: list[_Row], days: int, first_us: int) -> pl.DataFrame:
    rows = sorted((r for r in rows if r[3] < days), key=lambda r: r[3])
    account, merchant, amount, at, pattern = map(list, zip(*rows, strict=True))
    return pl.DataFrame(
        {
            "tx": [f"t{n}" for n in range(len(rows))],
            "account": [f"a{a}" for a in account],
            "merchant": [f"m{m}" for m in merchant],
            "amount": np.round(np.maximum(amount, 0.5), 2),
            "ts": moments(at, first_us),
            "fraud": [bool(p) for p in pattern],
            "pattern": pattern,
        }
    )


def _accounts(random: np.random.Generator, home: _Ints, days: int, first_us: int) -> pl.DataFrame:
    count = home.size
    opened = pl.DataFrame(
        {
            "account": [f"a{a}" for a in range(count)],
            "country": [COUNTRIES[c] for c in home],
            "segment": random.choice(["private", "student", "business"], size=count),
            "at": moments(-random.uniform(30, 1_500, size=count), first_us),
        }
    )
    promoted = np.flatnonzero(random.random(count) < 0.1)
    again = opened[promoted].with_columns(
        pl.lit("premium").alias("segment"),
        moments(random.uniform(1, days - 1, size=promoted.size), first_us).alias("at"),
    )
    return pl.concat([opened, again]).sort("at", "account")


def _merchants(shops: _Shops) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "merchant": [f"m{m}" for m in range(shops.category.size)],
            "category": [CATEGORIES[c] for c in shops.category],
            "country": [COUNTRIES[c] for c in shops.country],
        }
    )
