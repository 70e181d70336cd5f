"""Money through every room: uploaded, previewed, trained, promoted, served, verified."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import polars as pl
import pytest

from fs_notebook.errors import OverflowInFold, UsageError
from fs_notebook.jupyter.chart import distribution
from fs_notebook.model.columns import encode
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, connection, session, until

__all__ = ["connection", "session"]

USERS = ["ann", "bob", "cy"]
SQL = """
SELECT user,
       SUM(amount)                                          AS total,
       SUM(amount * rate)                                   AS charged,
       AVG(amount)                                          AS mean,
       MIN(amount)                                          AS least,
       MAX(amount)                                          AS most,
       LAST(amount)                                         AS newest,
       LAST_N(amount, 2)                                    AS newest_two,
       MODE(amount)                                         AS usual,
       COUNT(DISTINCT amount)                               AS prices,
       ROUND(SUM(amount) * CAST('0.19' AS DECIMAL(3,2)), 2) AS tax,
       SUM(large)                                           AS grand
FROM orders WHERE amount > CAST(0.05 AS DECIMAL(3,2)) GROUP BY user
"""
RECENT = (
    "SELECT user, SUM(amount) AS recent FROM orders WHERE amount > CAST(0.05 AS DECIMAL(3,2)) "
    "GROUP BY user"
)


def orders(first: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(first)
    return [
        {
            "user": USERS[n % 3], "ts": BEGIN + timedelta(minutes=n),
            "amount": Decimal(rng.choice([rng.randrange(1, 10_000), 10, 1999])).scaleb(-2),
            "rate": Decimal(rng.randrange(1, 20_000)).scaleb(-4),
            # The digits of a double are not enough for them, nor those of 64 bits.
            "large": Decimal(f"{rng.randrange(10**30)}.{rng.randrange(100):02d}"),
        }
        for n in range(first, first + count)
    ]  # fmt: skip


def wanted(log: list[dict[str, Any]], user: str, until_: Any) -> dict[str, Any]:
    """Return what the features are by Python's own decimals, just before a time."""
    mine = [e for e in log if e["user"] == user and e["ts"] < until_]
    mine = [e for e in mine if e["amount"] > Decimal("0.05")]
    amounts = [e["amount"] for e in mine]
    late = [e["amount"] for e in mine if e["ts"] >= until_ - timedelta(hours=2)]
    counts = {a: amounts.count(a) for a in amounts}
    with localcontext(Context(prec=80)):
        return {
            "total": sum(amounts), "charged": sum(e["amount"] * e["rate"] for e in mine),
            "mean": float(sum(amounts) / len(amounts)), "least": min(amounts),
            "most": max(amounts), "newest": amounts[-1], "newest_two": amounts[:-3:-1],
            "usual": min(counts, key=lambda a: (-counts[a], a)), "prices": len(counts),
            "recent": sum(late) if late else None,
            "tax": (sum(amounts) * Decimal("0.19")).quantize(Decimal("0.01"), "ROUND_HALF_UP"),
            "grand": sum(e["large"] for e in mine),
        }  # fmt: skip


def lasting(log: list[dict[str, Any]], user: str, until_: Any) -> dict[str, Any]:
    """Return the same of what has no window."""
    return {n: v for n, v in wanted(log, user, until_).items() if n != "recent"}


def same(got: dict[str, Any], want: dict[str, Any]) -> bool:
    rest = {n: got[n] for n in want if n != "mean"}
    types = all(type(got[n]) is type(v) for n, v in want.items())
    return types and rest == {n: v for n, v in want.items() if n != "mean"} and (
        got["mean"] == pytest.approx(want["mean"], rel=1e-12)
    )  # fmt: skip


@pytest.mark.timeout(240)
def test_money_is_exact_in_every_room(session: Session) -> None:
    schema = {"amount": pl.Decimal(10, 2), "rate": pl.Decimal(6, 4), "large": pl.Decimal(38, 2)}
    log = orders(0, 1_500)
    session.upload(pl.DataFrame(log, schema_overrides=schema), "orders", time="ts", key="user")
    kinds = {n: t.value for n, t in session.source("orders").columns}
    assert kinds["amount"] == "DECIMAL(10,2)"
    # A few as Python's dicts: they go as JSON where there are messages.
    log += orders(1_500, 30)
    session.upload(orders(1_500, 30), "orders")

    preview = session.feature("money", SQL)
    newest = {u: max(e["ts"] for e in log if e["user"] == u) for u in USERS}
    after = {u: t + timedelta(microseconds=1) for u, t in newest.items()}
    shown = {r["user"]: r for r in preview.frame.rows(named=True)}
    for user in USERS:
        assert same(shown[user], lasting(log, user, after[user])), shown[user]

    labels = [{"user": u, "ts": BEGIN + timedelta(minutes=m)} for m in (200, 900, 1_531)
              for u in USERS]  # fmt: skip
    session.feature("lately", RECENT, window="2h")
    trained = session.training_set(labels, ["money", "lately"]).to_polars()
    assert trained.schema["total"] == pl.Decimal(38, 2)
    assert trained.schema["charged"] == pl.Decimal(38, 6)
    for label, row in zip(labels, trained.rows(named=True), strict=True):
        want = wanted(log, label["user"], label["ts"])
        assert same(row, want), (label, row, want)

    session.promote("money")

    def served_equals(log: list[dict[str, Any]]) -> bool:
        found = session.serve(["money"], user=USERS)
        assert found.to_polars().schema["grand"] == pl.Decimal(38, 2)
        end = BEGIN + timedelta(days=30)
        return all(same(row, lasting(log, row["user"], end)) for row in found.rows)

    assert served_equals(log)
    assert session.serve(["money"], user="nobody")["total"] == [None]
    more = orders(1_530, 9)
    session.upload(more, "orders")
    until(lambda: served_equals([*log, *more]), what="the new orders")
    assert session.verify("money").ok
    session.promote("lately")
    assert session.serve(["lately"], user=USERS)["recent"] == [None] * 3
    assert session.verify("lately").ok


def test_a_polars_cell_over_decimals(embedded_session: Session) -> None:
    session = embedded_session
    log = orders(0, 300)
    session.upload(
        pl.DataFrame(log, schema_overrides={"amount": pl.Decimal(10, 2)}), "orders", time="ts"
    )
    amount = pl.col("amount")
    preview = session.feature(
        "spent",
        {
            "spent": amount.sum(),
            "above": amount.filter(amount > Decimal("19.99")).sum(),
            "rounded": amount.cast(pl.Decimal(12, 1)).sum(),
            "cents": (amount * 100).cast(pl.Int64).sum(),
            "some": amount.filter(amount.is_in([Decimal("0.10"), Decimal("19.99")])).len(),
        },
        entity="user",
    )
    for row in preview.frame.rows(named=True):
        amounts = [e["amount"] for e in log if e["user"] == row["user"]]
        tenth = [a.quantize(Decimal("0.1"), "ROUND_HALF_UP") for a in amounts]
        assert row == {
            "user": row["user"], "spent": sum(amounts),
            "above": sum(a for a in amounts if a > Decimal("19.99")), "rounded": sum(tenth),
            "cents": int(sum(amounts) * 100),
            "some": sum(a in (Decimal("0.10"), Decimal("19.99")) for a in amounts),
        }  # fmt: skip
    text = "SELECT user, SUM(amount) AS x FROM orders GROUP BY user"
    in_sql = session.feature("spent_sql", text).frame.sort("user")
    assert in_sql["x"].to_list() == preview.frame.sort("user")["spent"].to_list()


def test_an_overflow_names_the_feature(embedded_session: Session) -> None:
    session = embedded_session
    large = Decimal("9" * 36 + ".99")
    rows = [{"user": "u", "ts": BEGIN, "amount": large}] * 2
    session.upload(rows, "orders", time="ts")
    with pytest.raises(OverflowInFold, match="grand_total has more digits"):
        session.feature("g", "SELECT user, SUM(amount) AS grand_total FROM orders GROUP BY user")
    with pytest.raises(OverflowInFold, match="row expression of doubled has more digits"):
        session.feature("d", "SELECT user, LAST(amount * 2) AS doubled FROM orders GROUP BY user")
    half = session.feature("m", "SELECT user, AVG(amount) AS mean FROM orders GROUP BY user")
    assert half.frame["mean"].to_list() == [pytest.approx(float(large))]


def test_a_declared_stream_takes_what_is_exact(embedded_session: Session) -> None:
    session = embedded_session
    session.upload(
        pl.DataFrame({"ts": [BEGIN], "amount": pl.Series([1], dtype=pl.Decimal(10, 2))}),
        "orders", time="ts",
    )  # fmt: skip
    session.upload([{"ts": BEGIN, "amount": 2}, {"ts": BEGIN, "amount": 3}], "orders")
    session.upload([{"ts": BEGIN, "amount": "4.50"}], "orders")
    with pytest.raises(UsageError, match="DECIMAL"):
        session.upload([{"ts": BEGIN, "amount": 4.5}], "orders")
    with pytest.raises(UsageError, match="DECIMAL"):
        session.upload([{"ts": BEGIN, "amount": Decimal("4.505")}], "orders")
    text = "SELECT 1 AS everything, SUM(amount) AS total FROM orders GROUP BY 1"
    assert session.feature("total", text).frame["total"].to_list() == [Decimal("10.50")]


def test_statistics_and_models_take_decimals(embedded_session: Session) -> None:
    session = embedded_session
    log = orders(0, 300)
    session.upload(
        pl.DataFrame(log, schema_overrides={"amount": pl.Decimal(10, 2)}), "orders", time="ts"
    )
    scaled = session.feature(
        "scaled",
        "SELECT user, MAX(MIN_MAX_SCALE(amount)) AS top, AVG(Z_SCORE(amount)) AS z, "
        "MAX(QUANTILE_BIN(amount, 4)) AS bin, Z_SCORE(SUM(amount)) AS beside "
        "FROM orders GROUP BY user",
    )
    assert scaled.frame["top"].max() == pytest.approx(1.0)
    assert scaled.frame["bin"].to_list() == [3, 3, 3]
    rows = session.feature("t", "SELECT user, SUM(amount) AS total FROM orders GROUP BY user")
    assert rows.frame.schema["total"] == pl.Decimal(38, 2)
    drawn = distribution(rows.frame["total"])
    assert drawn.spec is not None
    assert drawn.type == "DECIMAL(38,2)"
    labels = [{"user": u, "ts": BEGIN + timedelta(minutes=m)} for m in range(60, 240)
              for u in USERS]  # fmt: skip
    trained = session.training_set(labels, ["t"]).to_polars()
    matrix = encode(trained, ["total"], learnt_from=np.arange(trained.height))
    assert matrix.values[:, 0].tolist() == trained["total"].cast(pl.Float64).to_list()


def test_derived_features_of_decimals_and_of_the_requests_own(embedded_session: Session) -> None:
    session = embedded_session
    log = orders(0, 300)
    session.upload(
        pl.DataFrame(log, schema_overrides={"amount": pl.Decimal(10, 2)}), "orders", time="ts"
    )
    session.feature("spent", "SELECT user, SUM(amount) AS total FROM orders GROUP BY user")
    text = (
        "SELECT user, total + CAST(:amount AS DECIMAL(10,2)) AS after, total * 2 AS twice, "
        ":fee * total AS charged, total / :fee AS times FROM spent"
    )
    session.feature("derived", text, request="fee DECIMAL(5, 4)")
    labels = [{"user": u, "ts": BEGIN + timedelta(days=1), "amount": Decimal("0.10"),
               "fee": Decimal("0.0190")} for u in USERS]  # fmt: skip
    trained = session.training_set(labels, ["derived"]).to_polars()
    session.promote("spent")
    session.promote("derived")
    given = {"amount": Decimal("0.10"), "fee": Decimal("0.019")}
    served = session.serve(["derived"], user=USERS, **given)
    for user, row, other in zip(USERS, trained.rows(named=True), served.rows, strict=True):
        total = sum(e["amount"] for e in log if e["user"] == user)
        want = {"after": total + given["amount"], "twice": total * 2,
                "charged": total * given["fee"]}  # fmt: skip
        for found in (row, other):
            assert {n: found[n] for n in want} == want
            assert all(isinstance(found[n], Decimal) for n in want)
            assert found["times"] == pytest.approx(float(total) / 0.019)
    for wrong in (0.1, Decimal("0.101"), "x"):
        with pytest.raises(UsageError, match="amount"):
            session.serve(["derived"], user="ann", fee=given["fee"], amount=wrong)
    assert session.verify("derived").ok
