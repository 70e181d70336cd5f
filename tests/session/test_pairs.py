"""Interval joins on both ledgers: from a cell or a view to a served and verified value."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fs_notebook.session import Session
from tests.support.sessions import BEGIN, read_events, until

NAMES = ("n", "total", "newest")
ON = "ON r.user = b.buyer AND r.ts BETWEEN b.at - INTERVAL '12' MINUTE AND b.at"
SQL = f"""
SELECT b.buyer, COUNT(*) AS n, SUM(r.readtime * b.price) AS total, LAST(r.readtime) AS newest
FROM buys b JOIN read_events r {ON}
WHERE b.price > 2 AND r.readtime <> 9 GROUP BY b.buyer
"""


def buys(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"buyer": f"u{n % 5}", "price": n, "at": BEGIN + timedelta(minutes=n, seconds=30)}
        for n in range(first, first + count)
    ]


def upload(session: Session, reads: int = 40, bought: int = 30) -> None:
    session.upload(read_events(0, reads), "read_events", time="ts", key="user", partitions=2)
    session.upload(buys(0, bought), "buys", time="at")


def expected(reads: int, bought: int) -> dict[str, tuple[Any, ...]]:
    pairs: dict[str, list[tuple[Any, ...]]] = {}
    for b in buys(0, bought):
        for r in read_events(0, reads):
            near = timedelta(0) <= b["at"] - r["ts"] <= timedelta(minutes=12)
            if near and r["user"] == b["buyer"] and b["price"] > 2 and r["readtime"] != 9:
                pair = (b["at"], r["ts"], r["readtime"], b["price"])
                pairs.setdefault(b["buyer"], []).append(pair)
    return {
        user: (len(mine), sum(r * p for *_, r, p in mine), max(mine)[2])
        for user, mine in pairs.items()
    }


def test_pairs_go_all_the_way(session: Session) -> None:
    upload(session)
    wanted = expected(40, 30)
    users = sorted(wanted)
    preview = session.feature("bought", SQL)
    assert {r["buyer"]: tuple(r[n] for n in NAMES) for r in preview.frame.rows(named=True)} == (
        wanted
    )
    late = [BEGIN + timedelta(days=1)] * len(users)
    labels = pl.DataFrame({"buyer": users, "asked_at": late})
    trained = session.training_set(labels, ["bought"]).to_polars()
    assert trained.select(NAMES).rows() == [wanted[u] for u in users]

    session.promote("bought")
    served = session.serve(["bought"], buyer=users)
    assert [tuple(served[n][i] for n in NAMES) for i in range(len(users))] == [
        wanted[u] for u in users
    ]
    # Whichever of the two comes last makes the pair.
    session.append(buys(30, 6), "buys")
    session.append(read_events(40, 8), "read_events")
    session.append(buys(36, 12), "buys")
    wanted = expected(48, 48)
    until(lambda: session.serve("n", buyer=users)["n"] == [wanted[u][0] for u in users])
    served = session.serve(["bought"], buyer=users)
    assert [tuple(served[n][i] for n in NAMES) for i in range(len(users))] == [
        wanted[u] for u in users
    ]
    verified = session.verify("bought")
    assert verified.ok
    assert verified.entities == len(users)


def test_a_view_of_pairs_is_read_like_a_stream(embedded_session: Session) -> None:
    session = embedded_session
    upload(session)
    view = f"SELECT b.buyer, r.readtime, b.price, b.at FROM buys b JOIN read_events r {ON}"
    rows = session.create_view("tempted", view, limit=500)
    assert rows.time == "at"
    assert rows.frame.columns == ["buyer", "readtime", "price", "at"]
    text = (
        "SELECT buyer, COUNT(*) AS n, SUM(readtime * price) AS total, LAST(readtime) AS newest "
        " FROM tempted WHERE price > 2 AND readtime <> 9 GROUP BY buyer"
    )
    assert session.define("bought", text).fingerprint == session.define("bought", SQL).fingerprint
    polars = session.define(
        "spent", (pl.col("readtime") * pl.col("price")).sum().alias("t"), stream="tempted",
        entity="buyer",
    )  # fmt: skip
    sql = session.define(
        "spent", "SELECT buyer, SUM(readtime * price) AS t FROM tempted GROUP BY buyer"
    )
    assert polars.fingerprint == sql.fingerprint


def test_what_was_known_of_a_pair_is_joined_to_it(session: Session) -> None:
    """A temporal join beside an interval: as of the moment at which there was a pair."""
    session.upload(
        [{"article": 1, "genre": "old", "since": BEGIN},
         {"article": 1, "genre": "new", "since": BEGIN + timedelta(minutes=10)}],
        "articles", time="since", key="article",
    )  # fmt: skip
    clicks = [{"user": "ann", "article": 1, "ts": BEGIN + timedelta(minutes=m)} for m in (2, 9)]
    session.upload(clicks, "clicks", time="ts")
    seen = [{"user": "ann", "at": BEGIN + timedelta(minutes=m)} for m in (1, 8, 11)]
    session.upload(seen, "seen", time="at")
    sql = """
    SELECT c.user, COUNT(*) FILTER (WHERE a.genre = 'old') AS old,
           COUNT(*) FILTER (WHERE a.genre = 'new') AS new
    FROM clicks c JOIN seen s ON c.user = s.user
      AND s.at BETWEEN c.ts - INTERVAL '3' MINUTE AND c.ts + INTERVAL '3' MINUTE
    LEFT JOIN articles a ON c.article = a.article GROUP BY c.user
    """
    # (2, 1) and (9, 8) were pairs before the article changed, (9, 11) was one after it.
    assert session.feature("genres", sql).frame.rows() == [("ann", 2, 1)]
    session.promote("genres")
    assert session.serve(["genres"], user="ann").to_dict() == {
        "user": ["ann"], "old": [2], "new": [1],
    }  # fmt: skip
    assert session.verify("genres").ok


def test_a_window_is_over_the_time_of_the_pair(embedded_session: Session) -> None:
    session = embedded_session
    session.upload([{"k": "a", "x": 1, "ts": BEGIN}], "one", time="ts")
    session.upload([{"k": "a", "at": BEGIN + timedelta(minutes=5)}], "two", time="at")
    on = "ON o.k = t.k AND t.at BETWEEN o.ts - INTERVAL '9' MINUTE AND o.ts + INTERVAL '9' MINUTE"
    text = f"SELECT o.k, COUNT(*) AS n FROM one o JOIN two t {on} GROUP BY o.k"
    defined = session.define("near", text, window="10m")
    moments = [BEGIN + timedelta(minutes=m) for m in (4, 5, 6, 15, 16)]
    labels = pl.DataFrame({"k": ["a"] * 5, "asked": moments})
    assert session.training_set(labels, ["near"]).to_polars()["n"].to_list() == [0, 0, 1, 1, 0]
    over = ("OVER (PARTITION BY {} RANGE BETWEEN INTERVAL '10' MINUTE PRECEDING "
            "AND CURRENT ROW)")  # fmt: skip
    # ORDER BY must name that time: neither stream's own is it.
    with pytest.raises(Exception, match="event time"):
        session.define("near", f"SELECT SUM(o.x) {over.format('o.k ORDER BY o.ts')} AS n "
                            f"FROM one o JOIN two t {on}")  # fmt: skip
    view = f"SELECT o.k, o.x, GREATEST(o.ts, t.at) AS moment FROM one o JOIN two t {on}"
    assert session.create_view("near_each_other", view).time == "moment"
    again = session.define(
        "near", f"SELECT k, COUNT(*) {over.format('k ORDER BY moment')} AS n FROM near_each_other"
    )
    assert again.fingerprint == defined.fingerprint
