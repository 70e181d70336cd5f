"""Every aggregate through every room: previewed, trained, promoted, served, verified."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from fs_notebook.kernel import AGGREGATES
from fs_notebook.session import Session
from tests.compute import naive
from tests.compute.cases import Case, chosen_cases
from tests.support.sessions import BEGIN, until

USERS = ("ann", "bob", "ü ' \" <b>")
# Over lifetimes these change with t, and a reader's t is now.
TIMED = {"time_since_last", "rate", "decayed_sum", "decayed_count"}
# Decimals have a journey of their own: see test_decimals.
CASES = [c for c in chosen_cases() if c.name not in TIMED and not {"m", "h"} & {*c.args}]


def events(first: int, count: int) -> list[dict[str, Any]]:
    """Return events with few different times: position has to decide."""
    rng = random.Random(first)
    return [
        {
            "user": rng.choice(USERS), "i": rng.randrange(-5, 9),
            "f": rng.choice([None, 0.5, 2.25, -1.5]), "s": rng.choice(["x", "y", "z", None]),
            "b": rng.random() < 0.5, "d": BEGIN + timedelta(days=rng.randrange(3)),
            "t": BEGIN + timedelta(minutes=(first + n) // 40),
        }
        for n in range(count)
    ]  # fmt: skip


def sql() -> str:
    columns = ",\n  ".join(f"{c.sql} AS x{n}" for n, c in enumerate(CASES))
    return f"SELECT user,\n  {columns}\nFROM events GROUP BY user"


def check(log: list[dict[str, Any]], row: dict[str, Any], t: int) -> None:
    """Compare a row with the naive fold of a log in the order in which it was appended."""
    plain = [{**e, "t": us(e["t"]), "d": us(e["d"])} for e in log]
    for n, case in enumerate(CASES):
        if case.args[:1] == ("d",) or order_matters(case):
            continue
        want = naive.value(plain, entity=row["user"], t=t, name=case.name, args=case.args,
                           params=case.params, when=naive.When())  # fmt: skip
        got = row[f"x{n}"]
        if case.name in ("approx_n_unique", "approx_quantile"):
            assert naive.near(got, want, 0.05), case
        else:
            assert naive.alike(got, want, scale=10.0, power=2), (case, got, want)


def order_matters(case: Case) -> bool:
    """Whether positions decide, which here are spread over partitions."""
    return AGGREGATES[case.name].ordered


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def rows_of(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {r["user"]: r for r in frame.rows(named=True)}


def test_every_aggregate_in_every_path(session: Session) -> None:
    log = events(0, 400)
    # No key: events of a user lie in all partitions, and times are equal across them.
    session.upload(log[:150], "events", time="t", partitions=3)
    session.upload(log[150:], "events")
    preview = session.feature("all_of_them", sql())
    shown = rows_of(preview.frame)
    assert set(shown) == set(USERS)
    later = log[-1]["t"] + timedelta(hours=1)
    for row in shown.values():
        check(log, row, us(later))
    labels = pl.DataFrame({"user": [*USERS, "nobody"], "at": [later] * 4})
    features = [f"x{n}" for n in range(len(CASES))]
    trained = rows_of(session.training_set(labels, ["all_of_them"]).to_polars())
    session.promote("all_of_them")
    served = rows_of(session.serve(["all_of_them"], user=list(USERS)).to_polars())
    for user in USERS:
        for n, name in enumerate(features):
            values = [t[user][name] for t in (shown, trained, served)]
            assert naive.alike(values[1], values[0], scale=10.0, power=2), (CASES[n], values)
            assert naive.alike(values[2], values[0], scale=10.0, power=2), (CASES[n], values)
    empty = session.serve(["all_of_them"], user=["nobody"]).to_polars().row(0, named=True)
    assert {n: trained["nobody"][n] for n in features} == {n: empty[n] for n in features}
    assert session.verify("all_of_them").ok
    more = events(400, 60)
    session.append(more, "events")
    counted = CASES.index(Case("count", ()))
    wanted = sum(e["user"] == "ann" for e in [*log, *more])
    until(lambda: session.serve(f"x{counted}", user="ann")[f"x{counted}"] == [wanted])
    outcome = session.verify("all_of_them")
    assert outcome.ok, outcome
    again = rows_of(session.preview("all_of_them").frame)
    fresh = rows_of(session.serve(["all_of_them"], user=list(USERS)).to_polars())
    for user in USERS:
        check([*log, *more], fresh[user], us(later))
        for n, name in enumerate(features):
            same = naive.alike(fresh[user][name], again[user][name], scale=10.0, power=2)
            assert same, (CASES[n], fresh[user][name], again[user][name])
