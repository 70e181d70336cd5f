"""Unions on both ledgers: from a view to a served value, and beside joins and statistics."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fs_notebook.errors import DefinitionError
from fs_notebook.jupyter.display import ViewCard
from fs_notebook.session import Session
from tests.support.sessions import BEGIN, read_events, until

VIEW = """
SELECT user, readtime AS amount, 'read' AS kind, ts FROM read_events WHERE readtime >= 3
UNION ALL SELECT buyer, price * 10, 'buy', at FROM buys
"""
SQL = """
SELECT user, SUM(amount) AS total, COUNT(*) AS n, LAST(kind) AS newest,
       COUNT(*) FILTER (WHERE kind = 'buy') AS bought
FROM acts GROUP BY user
"""


def buys(first: int, count: int) -> list[dict[str, Any]]:
    """Return `count` purchases numbered from `first`, each half a minute after a read."""
    return [
        {"buyer": f"u{n % 5}", "price": n, "at": BEGIN + timedelta(minutes=n, seconds=30)}
        for n in range(first, first + count)
    ]


def expected(reads: int, bought: int) -> dict[str, list[Any]]:
    rows = [(e["ts"], e["user"], e["readtime"], "read") for e in read_events(0, reads)
            if e["readtime"] >= 3]  # fmt: skip
    rows += [(e["at"], e["buyer"], e["price"] * 10, "buy") for e in buys(0, bought)]
    found: dict[str, list[Any]] = {}
    for _, user, amount, kind in sorted(rows):
        mine = found.setdefault(user, [0, 0, None, 0])
        mine[0] += amount
        mine[1] += 1
        mine[2] = kind
        mine[3] += kind == "buy"
    return found


def upload(session: Session) -> None:
    session.upload(read_events(0, 40), "read_events", time="ts", key="user", partitions=2)
    session.upload(buys(0, 30), "buys", time="at")


def test_a_union_goes_all_the_way(session: Session) -> None:
    upload(session)
    rows = session.create_view("acts", VIEW, limit=200)
    assert [(n, str(t)) for n, t in rows.types] == [
        ("user", "VARCHAR"), ("amount", "BIGINT"), ("kind", "VARCHAR"), ("ts", "TIMESTAMP"),
    ]  # fmt: skip
    assert rows.time == "ts"
    assert rows.frame.height == 37 + 30
    assert "read_events + buys" in ViewCard(rows).html()
    wanted = expected(40, 30)
    preview = session.feature("acting", SQL)
    names = ("total", "n", "newest", "bought")
    assert {r["user"]: [r[n] for n in names] for r in preview.frame.rows(named=True)} == wanted
    users = sorted(wanted)
    late = [BEGIN + timedelta(days=1)] * len(users)
    labels = pl.DataFrame({"user": users, "asked_at": late})
    trained = session.training_set(labels, ["acting"]).to_polars()
    assert trained.select(names).rows() == [tuple(wanted[u]) for u in users]

    session.promote("acting")
    served = session.serve(["acting"], user=users)
    assert [[served[n][i] for n in names] for i in range(len(users))] == [wanted[u] for u in users]
    session.append(buys(30, 6), "buys")
    session.append(read_events(40, 8), "read_events")
    wanted = expected(48, 36)
    until(lambda: session.serve("n", user=users)["n"] == [wanted[u][1] for u in users])
    served = session.serve(["acting"], user=users)
    assert [[served[n][i] for n in names] for i in range(len(users))] == [wanted[u] for u in users]
    verified = session.verify("acting")
    assert verified.ok
    assert verified.entities == len(users)


def test_a_feature_of_a_union_keeps_its_streams(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    session.create_view("acts", VIEW)
    one = session.define("acting", SQL)
    assert session.define("acting", SQL.replace("acts", f"({VIEW}) a")).fingerprint == (
        one.fingerprint
    )
    session.create_view("acts", VIEW.replace(">= 3", ">= 4"))
    assert session.define("acting", SQL).fingerprint != one.fingerprint


def test_windows_over_a_union(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    session.create_view("acts", VIEW)
    text = (
        "SELECT user, SUM(amount) OVER (PARTITION BY user ORDER BY ts RANGE BETWEEN "
        "INTERVAL '10' MINUTE PRECEDING AND CURRENT ROW) AS recent FROM acts"
    )
    session.define("recently", text)
    moments = [BEGIN + timedelta(minutes=m) for m in (0, 7, 15, 31, 90)]
    labels = pl.DataFrame({"user": ["u1"] * 5, "asked_at": moments})
    got = session.training_set(labels, ["recently"]).to_polars()["recent"].to_list()
    rows = [(e["ts"], e["readtime"]) for e in read_events(0, 40)
            if e["user"] == "u1" and e["readtime"] >= 3]  # fmt: skip
    rows += [(e["at"], e["price"] * 10) for e in buys(0, 30) if e["buyer"] == "u1"]
    wanted = []
    for t in moments:
        inside = [v for at, v in rows if t - timedelta(minutes=10) <= at < t]
        wanted.append(sum(inside) if inside else None)
    assert got == wanted
    assert sum(v is not None for v in wanted) >= 3


def test_a_union_is_joined_as_a_stream_is(session: Session) -> None:
    upload(session)
    session.create_view("acts", VIEW)
    people = [{"user": f"u{n}", "town": "Oslo" if n % 2 else "Rome", "level": n} for n in range(6)]
    session.upload(people, "people", key="user", table=True)
    preview = session.feature(
        "towns",
        "SELECT p.town, SUM(a.amount + p.level) AS total, COUNT(*) AS n FROM acts a "
        "JOIN people p ON a.user = p.user WHERE a.amount < 200 AND p.level > 0 GROUP BY p.town",
    )
    found: dict[str, list[int]] = {}
    acts = [(e["user"], e["readtime"]) for e in read_events(0, 40) if e["readtime"] >= 3]
    acts += [(e["buyer"], e["price"] * 10) for e in buys(0, 30)]
    for user, amount in acts:
        number = int(user[1:])
        if amount < 200 and 0 < number < 6:
            mine = found.setdefault("Oslo" if number % 2 else "Rome", [0, 0])
            mine[0] += amount + number
            mine[1] += 1
    shown = {r["town"]: [r["total"], r["n"]] for r in preview.frame.rows(named=True)}
    assert shown == found
    session.promote("towns")
    assert session.serve("n", town=["Oslo"])["n"] == [found["Oslo"][1]]
    assert session.verify("towns").ok


def test_statistics_of_a_union_are_of_all_of_it(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    session.create_view("acts", VIEW)
    text = "SELECT user, SUM(MIN_MAX_SCALE(amount)) AS scaled FROM acts GROUP BY user"
    preview = session.feature("scaled", text)
    amounts = [e["readtime"] for e in read_events(0, 40) if e["readtime"] >= 3]
    amounts += [e["price"] * 10 for e in buys(0, 30)]
    low, high = min(amounts), max(amounts)
    total = sum((a - low) / (high - low) for a in amounts)
    assert preview.frame["scaled"].sum() == pytest.approx(total)
    # The branches are another's: what was measured before is not taken for it.
    session.create_view("acts", VIEW.replace("price * 10", "price * 1000"))
    session.define("scaled", text)
    amounts = [a if i < 37 else a * 100 for i, a in enumerate(amounts)]
    low, high = min(amounts), max(amounts)
    total = sum((a - low) / (high - low) for a in amounts)
    assert session.preview("scaled").frame["scaled"].sum() == pytest.approx(total)


def test_polars_reads_a_union_like_a_stream(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    session.create_view("acts", VIEW)
    sql = session.define("total", "SELECT user, SUM(amount * 2) AS total FROM acts GROUP BY user")
    polars = session.define(
        "total", (pl.col("amount") * 2).sum().alias("total"), stream="acts", entity="user"
    )
    assert polars.fingerprint == sql.fingerprint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (("SELECT user, Z_SCORE(readtime) AS z FROM read_events UNION ALL "
         "SELECT buyer, 1.0 FROM buys"), "pinned by the feature"),
        (("SELECT r.user FROM read_events r JOIN buys b ON r.user = b.buyer UNION ALL "
         "SELECT buyer FROM buys"), "join stands inside"),
        ("SELECT user FROM read_events UNION ALL SELECT user FROM nothing", "nothing"),
    ],
)  # fmt: skip
def test_what_is_no_union_changes_nothing(embedded_session: Session, text: str, says: str) -> None:
    upload(embedded_session)
    with pytest.raises(Exception, match=says) as caught:
        embedded_session.create_view("v", text)
    if "nothing" not in says:
        assert isinstance(caught.value, DefinitionError)
    assert embedded_session.row_views() == []
