"""Streams with lists and structs, through every room on both ledgers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from fs_notebook.session import Session
from tests.support.sessions import BEGIN, connection, session, until

__all__ = ["connection", "session"]


def carts(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "user": f"u{n % 3}", "ts": BEGIN + timedelta(minutes=n),
            "cart": [{"sku": f"s{k}", "n": n + k} for k in range(n % 4)],
            "place": {"city": ["Ulm", None, "Bonn"][n % 3], "at": BEGIN + timedelta(days=n)},
            "tags": [f"t{n % 5}", "all"],
        }
        for n in range(first, first + count)
    ]  # fmt: skip


SQL = """
SELECT user,
       SUM(cart[1].n)                              AS firsts,
       SUM(LEN(cart))                              AS items,
       COUNT(*) FILTER (WHERE place.city = 'Ulm')  AS in_ulm,
       LAST(cart[-1])                              AS newest_item,
       LAST_N(tags[1], 3)                          AS newest_tags,
       MAX(place.at)                               AS latest,
       LEN(COLLECT_SET(tags[1], 100)) / COUNT(*)   AS variety
FROM carts GROUP BY user
"""


def wanted(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the features of one user are, by Python's own means."""
    firsts = [e["cart"][0]["n"] for e in events if e["cart"]]
    tags = [e["tags"][0] for e in events]
    return {
        "firsts": sum(firsts), "items": sum(len(e["cart"]) for e in events),
        "in_ulm": sum(e["place"]["city"] == "Ulm" for e in events),
        "newest_item": [e["cart"][-1] for e in events if e["cart"]][-1],
        "newest_tags": tags[-3:][::-1], "latest": max(e["place"]["at"] for e in events),
        "variety": len(set(tags)) / len(events),
    }  # fmt: skip


@pytest.mark.timeout(240)
def test_nested_events_are_folded_trained_and_served(session: Session) -> None:
    events = carts(0, 1_500)
    session.upload(pl.DataFrame(events).to_pandas(), "carts", time="ts", key="user")
    kinds = {n: t.value for n, t in session.source("carts").columns}
    assert kinds["cart"] == 'STRUCT("sku" VARCHAR, "n" BIGINT)[]'
    assert kinds["place"] == 'STRUCT("city" VARCHAR, "at" TIMESTAMP)'
    # A few more, which go as JSON where there are messages.
    events += carts(1_500, 30)
    session.upload(carts(1_500, 30), "carts")
    preview = session.feature("cart", SQL)
    for row in preview.frame.to_dicts():
        mine = [e for e in events if e["user"] == row["user"]]
        assert row == {"user": row["user"], **wanted(mine)}
    session.promote("cart")
    users = ["u0", "u1", "u2"]
    labels = [{"user": u, "ts": BEGIN + timedelta(minutes=1_530)} for u in users]
    trained = session.training_set(labels, ["cart"]).to_polars()
    served = session.serve(["cart"], user=users)
    for name in wanted(events):
        assert served[name] == trained[name].to_list() == preview.frame.sort("user")[name].to_list()
    session.upload(carts(1_530, 3), "carts")
    events += carts(1_530, 3)
    mine = [e for e in events if e["user"] == "u0"]
    until(
        lambda: (
            {n: v[0] for n, v in session.serve(["cart"], user="u0").to_dict().items()}
            == {"user": "u0", **wanted(mine)}
        ),
        what="the new events",
    )
    assert session.verify("cart").ok
