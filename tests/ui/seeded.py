"""Catalogs that were filled before the browser looks at them, through the session's own API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from fs_notebook.catalog.catalog import STREAM
from fs_notebook.catalog.model import DRAFTED, VALIDATED
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = {name: kind.polars for name, kind in STREAM.columns}
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><b>bold</b>"
SUM = "SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user"
LONG = (
    "SELECT user, SUM(minutes) AS long_minutes, COUNT(*) AS long_reads\n"
    "FROM long_reads -- a view\nGROUP BY user"
)


def events(count: int) -> pl.DataFrame:
    """Return reading events of twenty users, one a minute."""
    return pl.DataFrame([
        {"user": f"u{n % 20}", "article": f"a{n % 70}", "readtime": n % 90,
         "ts": BEGIN + timedelta(minutes=n)}
        for n in range(count)
    ])  # fmt: skip


def fill(home: Path) -> None:
    """Fill a home: a group with three versions, others made of it, one deprecated, one hostile."""
    session = Session(Connection(home), actor="ann")
    session.upload(events(5_000), "read_events", time="ts")
    session.create_view(
        "long_reads",
        "SELECT user, readtime / 60.0 AS minutes, ts FROM read_events WHERE readtime >= 30",
        description="Half a minute and more",
    )
    session.define("reading_time", SUM, tags=["reading"], owner="ann",
                   description="Time spent reading")  # fmt: skip
    session.promote("reading_time")
    labels = events(5_000).select("user", "ts").tail(3_000)
    session.training_set(labels, ["reading_time"], name="spring")
    session.define("reading_time", SUM.replace("SUM(readtime)", "SUM(readtime * 2)"),
                   tags=["reading"], owner="ann", description="Time spent reading")  # fmt: skip
    session.promote("reading_time")
    lift = {"target": "bought", "metric": "ROC AUC", "difference": 0.0512, "low": 0.031,
            "high": 0.0702, "verdict": "helps"}  # fmt: skip
    served = session.catalog.refresh().groups["reading_time"].latest.fingerprint
    session.catalog.record(VALIDATED, "reading_time", {**lift, "fingerprint": served})
    session.define("reading_ratio",
                   "SELECT total_readtime / 1000.0 AS reading_ratio FROM total_readtime",
                   tags=["ratio"], owner="bob")  # fmt: skip
    session.promote("reading_ratio")
    session.define("reading_time", SUM.replace("SUM(", "MAX("), tags=["reading", "draft"],
                   owner="ann", description="Time spent reading")  # fmt: skip
    session.define("long_time", LONG, owner="bob", tags=["reading"])
    session.define(
        "article_views",
        "SELECT article, COUNT(*) AS views FROM read_events GROUP BY article",
        tags=["popularity"], owner=HOSTILE, description=HOSTILE,
    )  # fmt: skip
    session.define("old_time", SUM.replace("total_readtime", "old_readtime"), owner="ann")
    session.deprecate("old_time", reason="counts twice", instead="reading_time")
    session.serve("total_readtime", user=["u1", "u2"])
    session.close()


def fill_many(home: Path, count: int) -> None:
    """Fill a home with so many drafts, whose names, features, entities, tags and owners differ."""
    session = Session(Connection(home), actor="ann")
    session.upload(events(10), "read_events", time="ts")
    session.define("group_00000", SUM.replace("total_readtime", "value_00000"), entity="who_0")
    text = json.dumps(session.catalog.refresh().groups["group_00000"].latest.to_dict())
    rows = []
    for n in range(1, count):
        body = json.loads(text.replace("00000", f"{n:05d}").replace("who_0", f"who_{n % 7}"))
        body |= {"tags": [f"tag{n % 13}"], "owner": f"owner{n % 5}", "cell": None}
        rows.append((DRAFTED, body["name"], json.dumps({"definition": body}), "ann", BEGIN))
    session.log.append(STREAM, pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    session.close()
