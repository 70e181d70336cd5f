"""The main job, end to end: define, preview, promote, serve, verify, roll back."""

from __future__ import annotations

import math
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
import redis

from fs_notebook.errors import (
    ConflictError,
    DefinitionError,
    FeatureStoreError,
    IntegrityError,
    NameTaken,
    UnknownName,
    UsageError,
)
from fs_notebook.session import Session
from fs_notebook.views import Status
from tests.support.sessions import BEGIN, SUM_SQL, read_events, until

WINDOWED = """
SELECT user,
       SUM(readtime) OVER w AS read_2h,
       COUNT(*) OVER w AS reads_2h,
       AVG(readtime) OVER (PARTITION BY user) AS mean_read
FROM read_events
WINDOW w AS (PARTITION BY user ORDER BY ts
             RANGE BETWEEN INTERVAL '2' HOUR PRECEDING AND CURRENT ROW)
"""


def totals(events: list[dict[str, Any]]) -> dict[str, int]:
    result: dict[str, int] = {}
    for event in events:
        result[event["user"]] = result.get(event["user"], 0) + event["readtime"]
    return result


def test_from_hypothesis_to_production(session: Session) -> None:
    events = read_events(0, 500)
    uploaded = session.upload(events, "read_events", time="ts", key="user")
    assert (uploaded.rows, uploaded.created) == (500, True)

    preview = session.feature("reading_time", SUM_SQL, entity="user")
    assert dict(preview.frame.select("user", "total_readtime").iter_rows()) == totals(events)
    assert (preview.entities, preview.events, preview.folded) == (7, 500, 500)
    assert preview.types == {"total_readtime": "BIGINT"}
    assert (preview.first, preview.last) == (BEGIN, BEGIN + timedelta(minutes=499))

    status = session.promote("reading_time")
    assert (status.state, status.version, status.serving, status.error) == ("live", 1, True, None)
    users = [f"u{n}" for n in range(7)]
    served = session.serve(["total_readtime"], user=[*users, "nobody"])
    assert dict(zip(users, served["total_readtime"], strict=False)) == totals(events)
    assert served.status()["total_readtime"][-1] == "not found"
    assert served["total_readtime"][-1] is None

    more = read_events(500, 3)
    session.append(more, "read_events")
    wanted = totals([*events, *more])
    until(
        lambda: (
            session.serve("total_readtime", user=users)["total_readtime"]
            == [wanted[u] for u in users]
        ),
        what="the appended events to be served",
    )
    outcome = session.verify("reading_time")
    assert outcome.ok
    assert (outcome.entities, outcome.values, outcome.events) == (7, 7, 503)


def test_windows_are_served_as_previewed_and_trained(session: Session) -> None:
    events = read_events(0, 400)
    session.upload(events, "read_events", time="ts", key="user")
    preview = session.feature("recent", WINDOWED)
    at = preview.at
    labels = pl.DataFrame({"user": [f"u{n}" for n in range(7)], "asked_at": [at] * 7})
    training = session.training_set(labels, ["recent"]).to_polars()
    columns = ["read_2h", "reads_2h", "mean_read"]
    assert training.sort("user").select(columns).equals(preview.frame.select(columns))
    mine = [e for e in events if e["user"] == "u3"]
    inside = [e["readtime"] for e in mine if at - timedelta(hours=2) <= e["ts"] < at]
    row = preview.frame.row(by_predicate=pl.col("user") == "u3", named=True)
    assert (row["read_2h"], row["reads_2h"]) == (sum(inside), len(inside))
    assert math.isclose(row["mean_read"], sum(e["readtime"] for e in mine) / len(mine))
    session.promote("recent")
    # All of it lies years back: the windows are empty now, the lifetime mean is not.
    served = session.serve(["recent"], user=["u3"])
    assert (served["read_2h"], served["reads_2h"]) == ([None], [0])
    assert served["mean_read"] == [row["mean_read"]]
    assert session.verify("recent").ok


def test_second_version_bootstraps_in_the_shadow_and_rolls_back(session: Session) -> None:
    session.upload(read_events(0, 100), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    session.promote("reading_time")
    one = session.serve("total_readtime", user="u1")["total_readtime"]
    session.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime * 2)"))
    assert session.serve("total_readtime", user="u1")["total_readtime"] == one
    status = session.promote("reading_time")
    assert (status.version, status.state) == (2, "live")
    two = session.serve("total_readtime", user="u1")["total_readtime"]
    assert two == [2 * one[0]]
    back = session.rollback("reading_time")
    assert (back.version, back.serving) == (1, True)
    assert session.serve("total_readtime", user="u1")["total_readtime"] == one
    # The former version stayed warm: what arrives now is in both.
    session.append({"user": "u1", "readtime": 1, "ts": BEGIN}, "read_events")
    until(lambda: session.serve("total_readtime", user="u1")["total_readtime"] == [one[0] + 1])
    session.rollback("reading_time")
    until(lambda: session.serve("total_readtime", user="u1")["total_readtime"] == [two[0] + 2])
    assert session.verify("reading_time").version == 2


def test_fault_22_promote_on_an_empty_stream_is_live_from_the_first_event(
    session: Session,
) -> None:
    session.upload(pl.DataFrame(read_events(0, 1)).clear(), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    status = session.promote("reading_time")
    assert (status.state, status.events) == ("live", 0)
    session.append(read_events(5, 1), "read_events")
    until(lambda: session.serve("total_readtime", user="u5")["total_readtime"] == [5])


def test_promote_again_changes_nothing(session: Session) -> None:
    session.upload(read_events(0, 10), "read_events", time="ts")
    session.define("reading_time", SUM_SQL)
    first = session.promote("reading_time")
    session.define("reading_time", "-- the same\n" + SUM_SQL.lower().replace("total", "total"))
    again = session.promote("reading_time")
    assert (first.version, again.version) == (1, 1)
    assert [s.version for s in session.status("reading_time")] == [1]


def test_composite_keys_and_other_types(session: Session) -> None:
    rows = [
        {"user": "ü ", "article": n % 2, "ts": BEGIN + timedelta(minutes=n), "x": n / 2}
        for n in range(10)
    ]
    session.upload(rows, "reads", time="ts")
    session.define(
        "per_article",
        "SELECT user, article, MAX(ts) AS last_read, MIN(x) AS least FROM reads GROUP BY 1, 2",
        entity=["reader", "article"],
    )
    session.promote("per_article")
    served = session.serve(["per_article"], reader=["ü ", "ü"], article=[1, 1])
    assert served["last_read"] == [BEGIN + timedelta(minutes=9), None]
    assert served["least"] == [0.5, None]
    assert served.to_polars().schema["last_read"] == pl.Datetime("us", "UTC")
    assert session.verify("per_article").ok


@pytest.fixture
def ready(embedded_session: Session) -> Session:
    embedded_session.upload(read_events(0, 10), "read_events", time="ts")
    embedded_session.define("reading_time", SUM_SQL)
    return embedded_session


@pytest.mark.parametrize(
    ("sql", "error", "says"),
    [
        ("SELECT user, SUM(readtme) AS x FROM read_events GROUP BY user", DefinitionError,
         "did you mean 'readtime'"),
        ("SELECT user, SUM(readtime) AS x FROM read_event GROUP BY user", UnknownName,
         "did you mean 'read_events'"),
        ("SELECT SUM(readtime) AS x FROM read_events", DefinitionError, "No key"),
        ("SELECT user, SUMM(readtime) AS x FROM read_events GROUP BY user", DefinitionError,
         "SUM"),
        ("SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user", NameTaken,
         "exists in the group 'reading_time'"),
        ("SELECT user, SUM(readtime) AS 'a b' FROM read_events GROUP BY user", UsageError,
         "letters, digits"),
    ],
)  # fmt: skip
def test_bad_definitions_change_nothing(
    ready: Session, sql: str, error: type[Exception], says: str
) -> None:
    before = ready.catalog.refresh().events
    with pytest.raises(error, match=r"(?s).*" + says):
        ready.define("other", sql)
    assert ready.catalog.refresh().events == before


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ([{"user": "a"}], {}, "event's time"),
        ([{"user": "a", "t": "soon"}], {"time": "t"}, "no time"),
        ([{"user": "a", "t": 5}], {"time": "t"}, "holds no times"),
        ([{"user": "a", "t": BEGIN}], {"time": "at"}, "no column"),
        ([{"user": b"a", "t": BEGIN}], {}, "do not carry"),
        (7, {}, "nothing that can be uploaded"),
        (pd.DataFrame([["a", "b", BEGIN]], columns=["u", "u", "t"]), {}, "different names"),
        (pl.Series([1, 2]), {}, "nothing that can be uploaded"),
        ("nowhere.parquet", {}, "There is no file"),
    ],
)  # fmt: skip
def test_bad_uploads_make_no_stream(
    embedded_session: Session, data: Any, options: dict[str, str], says: str
) -> None:
    with pytest.raises((UsageError, UnknownName), match=says):
        embedded_session.upload(data, "s", **options)
    assert embedded_session.streams() == []
    assert not embedded_session.log.exists("s")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"user": "a", "readtime": 1}, "1 events have no time"),
        ({"user": "a", "readtime": "x", "ts": BEGIN}, "is BIGINT"),
        ({"user": "a", "reading": 1, "ts": BEGIN}, "did you mean 'readtime'"),
        ({"user": "a", "readtime": 2**70, "ts": BEGIN}, "64 bits|does not fit"),
    ],
)
def test_events_that_do_not_fit_are_refused_whole(
    ready: Session, row: dict[str, Any], says: str
) -> None:
    before = ready.log.end("read_events")
    with pytest.raises(UsageError, match=says):
        ready.append([*read_events(0, 2), row], "read_events")
    assert ready.log.end("read_events") == before


def test_reads_say_what_is_wrong(ready: Session) -> None:
    with pytest.raises(UnknownName, match="total_readtime"):
        ready.serve("total_readtime", user="u1")
    ready.promote("reading_time")
    with pytest.raises(UnknownName, match="did you mean 'total_readtime'"):
        ready.serve("total_readtim", user="u1")
    with pytest.raises(UsageError, match="feature of user"):
        ready.serve("total_readtime", usr="u1")
    with pytest.raises(UsageError, match="VARCHAR"):
        ready.serve("total_readtime", user=7)


def test_rollback_without_a_former_version_is_refused(ready: Session) -> None:
    with pytest.raises(UsageError, match="no former version"):
        ready.rollback("reading_time")
    ready.promote("reading_time")
    with pytest.raises(UsageError, match="only v1"):
        ready.rollback("reading_time")


def test_fault_32_of_two_notebooks_that_promote_at_once_one_is_told_who_and_when(
    ready: Session,
) -> None:
    other = Session(ready.connection, actor="bob")
    mine = ready.catalog.refresh
    ready.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 1)"))

    def overtaken() -> Any:
        # What this notebook looked at is old by the time it writes.
        state = mine()
        ready.catalog.refresh = mine  # type: ignore[method-assign]
        other.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 2)"))
        other.promote("reading_time")
        return state

    ready.catalog.refresh = overtaken  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="changed by somebody else") as caught:
        ready.promote("reading_time")
    group = ready.catalog.refresh().group("reading_time")
    assert caught.value.found == f"bob, {group.at:%Y-%m-%d %H:%M:%S} UTC"
    # Bob's is what serves, and the only version that there is.
    assert ready.serve("total_readtime", user="u1")["total_readtime"] == [sum((1 + 2, 8 + 2))]
    assert [v.number for v in group.versions] == [1]
    other.close()


def test_status_is_plain_and_complete(ready: Session) -> None:
    ready.promote("reading_time")
    (status,) = ready.status()
    assert isinstance(status, Status)
    assert status.lag == 0
    assert status.position == "0:0:9:0"
    assert status.rate is not None
    assert "reading_time v1 live (serving)" in repr(status)


def test_labels_that_call_the_entity_otherwise(ready: Session) -> None:
    labels = pl.DataFrame({"reader": ["u1", "u2", "u1"], "at": [BEGIN + timedelta(hours=9)] * 3})
    for entity in ("reader", {"user": "reader"}):
        rows = ready.training_set(labels, ["total_readtime"], entity=entity).to_dict()
        assert rows["total_readtime"] == [1 + 8, 2 + 9, 1 + 8]
        assert list(rows) == ["reader", "at", "total_readtime"]
    with pytest.raises(UsageError, match="user"):
        ready.training_set(labels, ["total_readtime"])


def test_a_served_vector_in_every_shape(ready: Session) -> None:
    ready.promote("reading_time")
    served = ready.serve(["total_readtime"], user=["u1", "nobody"])
    assert served.to_dict() == {"user": ["u1", "nobody"], "total_readtime": [1 + 8, None]}
    assert served.to_polars().schema["total_readtime"] == pl.Int64
    assert list(served.to_pandas().columns) == ["user", "total_readtime"]
    assert served.status()["total_readtime"].to_list() == ["present", "not found"]
    assert "1 not found" in repr(served)


def test_retire_frees_the_state_of_a_version_that_does_not_serve(ready: Session) -> None:
    ready.promote("reading_time")
    ready.define("reading_time", SUM_SQL.replace("SUM(readtime)", "SUM(readtime + 1)"))
    ready.promote("reading_time")
    with pytest.raises(UsageError, match="v2 of 'reading_time' serves"):
        ready.retire("reading_time", 2)
    one = ready.catalog.refresh().group("reading_time").version(1).definition.shard
    assert ready.store.state(one) is not None
    ready.retire("reading_time", 1)
    assert ready.store.state(one) is None
    assert [s.version for s in ready.status("reading_time")] == [2]
    with pytest.raises(UsageError, match="no former version"):
        ready.rollback("reading_time")
    # What was retired can be promoted again: it is built anew.
    ready.define("reading_time", SUM_SQL)
    assert ready.promote("reading_time").version == 1
    assert ready.verify("reading_time").ok


def test_fault_26_an_overflow_is_told_by_promote_and_status(ready: Session) -> None:
    """The worker stops at the event that overflows and says so; nothing is wrapped."""
    ready.append([{"user": "u1", "readtime": 2**62, "ts": BEGIN}] * 2, "read_events")
    with pytest.raises(FeatureStoreError, match="64 bits"):
        ready.promote("reading_time")
    (status,) = ready.status("reading_time")
    assert status.state == "failing"
    assert "64 bits" in str(status.error)
    assert ready.view("reading_time")["state"] == "failing"


@pytest.mark.parametrize(
    "data",
    [
        pl.DataFrame({"user": ["a"], "readtime": [3], "day": [date(2024, 1, 1)]}),
        pl.LazyFrame({"user": ["a"], "readtime": [3], "day": [BEGIN]}),
        pd.DataFrame({"user": ["a"], "readtime": [3], "day": [BEGIN]}, index=[7]),
        {"user": ["a"], "readtime": [3], "day": [BEGIN]},
        {"user": "a", "readtime": 3, "day": BEGIN},
    ],
    ids=["polars-date", "lazy", "pandas", "columns", "one-event"],
)
def test_what_people_have_can_be_uploaded(embedded_session: Session, data: Any) -> None:
    embedded_session.upload(data, "read_events")
    preview = embedded_session.feature("reading_time", SUM_SQL)
    assert preview.frame.to_dicts() == [{"user": "a", "total_readtime": 3}]
    assert preview.last == BEGIN


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_files_can_be_uploaded(embedded_session: Session, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"reads.{suffix}"
    getattr(pl.DataFrame(read_events(0, 14)), f"write_{suffix}")(path)
    embedded_session.upload(path, "read_events", time="ts")
    frame = embedded_session.feature("reading_time", SUM_SQL).frame
    assert frame["total_readtime"].to_list() == [n + n + 7 for n in range(7)]


def test_a_feature_is_not_called_as_its_key(ready: Session) -> None:
    with pytest.raises(DefinitionError, match="as its key"):
        ready.define("x", "SELECT user, COUNT(*) AS user FROM read_events GROUP BY user")


def test_an_interrupted_upload_goes_on_where_it_stopped(
    embedded_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 35."""
    monkeypatch.setattr("fs_notebook.sources.UPLOAD_ROWS_MAX", 10)
    rows = pl.DataFrame(read_events(0, 35))

    def interrupt(progress: Any) -> None:
        if progress.events == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded_session.upload(rows, "read_events", once=True, on_progress=interrupt)
    rest = embedded_session.upload(rows, "read_events", once=True)
    assert rest.rows == 15
    preview = embedded_session.feature("reading_time", SUM_SQL)
    assert (preview.folded, preview.frame["total_readtime"].sum()) == (35, sum(range(35)))
    assert embedded_session.upload(rows, "read_events", once=True).rows == 0


def test_the_catalogs_own_stream_is_not_for_uploads(embedded_session: Session) -> None:
    with pytest.raises(UsageError, match="catalog's own"):
        embedded_session.upload(read_events(0, 1), "fs_catalog")
    assert embedded_session.features() == []


def test_fault_26_nan_and_infinity_come_through_log_worker_and_serving(session: Session) -> None:
    """NaN equals itself and is greater than all else, in preview, training and serving."""
    nan, inf = float("nan"), float("inf")
    readings = {"a": [1.0, nan, 2.0], "b": [inf, 5.0], "c": [-inf, inf], "d": [None, -inf]}
    events = [
        {"place": place, "x": x, "ts": BEGIN + timedelta(minutes=n)}
        for place, xs in readings.items()
        for n, x in enumerate(xs)
    ]
    session.upload(pl.DataFrame(events), "readings", time="ts")
    preview = session.feature(
        "weather",
        "SELECT place, SUM(x) AS total, MIN(x) AS least, MAX(x) AS most, COUNT(x) AS n, "
        "COUNT(DISTINCT x) AS kinds, LAST(x) AS latest FROM readings GROUP BY place",
    )
    assert preview.dead == 0
    wanted = {
        "a": (nan, 1.0, nan, 3, 3, 2.0), "b": (inf, 5.0, inf, 2, 2, 5.0),
        "c": (nan, -inf, inf, 2, 2, inf), "d": (-inf, -inf, -inf, 1, 1, -inf),
    }  # fmt: skip
    names = ("total", "least", "most", "n", "kinds", "latest")

    def shown(rows: Any) -> dict[str, list[str]]:
        return {row["place"]: [str(row[name]) for name in names] for row in rows}

    expected = {place: [str(value) for value in values] for place, values in wanted.items()}
    assert shown(preview.frame.rows(named=True)) == expected
    session.promote("weather")
    served = session.serve(list(names), place=list(wanted))
    assert shown(served.rows) == expected
    assert shown(served.to_polars().rows(named=True)) == expected
    labels = [{"place": place, "ts": BEGIN + timedelta(hours=1)} for place in wanted]
    assert shown(session.training_set(labels, list(names)).to_polars().rows(named=True)) == expected
    outcome = session.verify("weather")
    assert (outcome.ok, outcome.values) == (True, len(wanted) * len(names))


def test_fault_28_keys_are_not_floats(embedded_session: Session) -> None:
    """-0.0, NaN and 1e-17 apart are no identities."""
    embedded_session.upload([{"place": 1.5, "ts": BEGIN}], "visits")
    with pytest.raises(DefinitionError, match="cannot be DOUBLE"):
        embedded_session.define("v", "SELECT place, COUNT(*) AS n FROM visits GROUP BY place")
    embedded_session.feature(
        "v", "SELECT CAST(place AS VARCHAR) AS place, COUNT(*) AS n FROM visits GROUP BY 1"
    )


def define(session: Session, plus: int) -> None:
    session.define("reading_time", SUM_SQL.replace("SUM(readtime)", f"SUM(readtime + {plus})"))


def test_a_cold_version_serves_only_when_it_has_caught_up(ready: Session) -> None:
    for plus in (1, 2, 3):
        define(ready, plus)
        ready.promote("reading_time")
    # The worker of v1 is stopped; what arrives now is not in its state.
    until(lambda: [s.version for s in ready.status("reading_time")] == [2, 3])
    ready.append(read_events(10, 2000), "read_events")
    define(ready, 1)
    assert ready.promote("reading_time").version == 1
    wanted = sum(n + 1 for n in range(2010) if n % 7 == 1)
    assert ready.serve("total_readtime", user="u1")["total_readtime"] == [wanted]


def test_promote_goes_to_what_was_promoted_last(ready: Session) -> None:
    for plus in (1, 2):
        define(ready, plus)
        ready.promote("reading_time")
    define(ready, 1)
    assert ready.promote("reading_time").version == 1
    assert ready.promote("reading_time").version == 1
    ready.rollback("reading_time")
    # By name it is now the version that was returned to, for training as well.
    assert ready.catalog.refresh().group("reading_time").latest.plan.fingerprint == (
        ready.catalog.refresh().group("reading_time").version(2).fingerprint
    )
    assert ready.promote("reading_time").version == 2


def test_a_name_that_serves_is_not_free(ready: Session) -> None:
    ready.promote("reading_time")
    ready.define("reading_time", "SELECT user, COUNT(*) AS reads FROM read_events GROUP BY user")
    with pytest.raises(NameTaken, match="total_readtime"):
        ready.define("other", SUM_SQL)


def test_a_description_can_be_changed(ready: Session) -> None:
    ready.promote("reading_time")
    ready.define("reading_time", SUM_SQL, description="Better words", tags="reading, time")
    view = ready.view("reading_time")
    assert (view["description"], view["tags"]) == ("Better words", ["reading", "time"])
    assert (view["version"], view["state"]) == (1, "live")
    assert ready.catalog.refresh().group("reading_time").draft is None


def test_two_versions_of_a_group_are_not_mixed_up(ready: Session) -> None:
    for plus in (1, 2):
        define(ready, plus)
        ready.promote("reading_time")
    labels = pl.DataFrame({"user": ["u1"], "at": [BEGIN + timedelta(hours=9)]})
    names = ["total_readtime@2", "total_readtime@1", "total_readtime"]
    rows = ready.training_set(labels, names)
    assert rows.features == tuple(names)
    assert rows.to_dict() == labels.to_dict(as_series=False) | {
        "total_readtime@2": [1 + 8 + 4], "total_readtime@1": [1 + 8 + 2],
        "total_readtime": [1 + 8 + 4],
    }  # fmt: skip
    assert len(set(rows.versions.values())) == 2
    with pytest.raises(UnknownName, match="version of 'reading_time'"):
        ready.training_set(labels, ["total_readtime@3"])
    with pytest.raises(UsageError, match="A version is a number"):
        ready.training_set(labels, ["total_readtime@"])


@pytest.mark.parametrize(
    ("key", "fits", "wrong"),
    [
        ("day", date(2024, 1, 1), "2024-01-01"),
        ("day", date(2024, 1, 1), BEGIN),
        ("ts", BEGIN, "2024-01-01T00:00:00Z"),
        ("ok", True, 1),
        ("n", 0, True),
        ("n", 0, "0"),
    ],
)
def test_keys_of_another_type_are_refused_not_missed(
    embedded_session: Session, key: str, fits: Any, wrong: Any
) -> None:
    row = {"ts": BEGIN, "day": date(2024, 1, 1), "ok": True, "n": 0}
    embedded_session.upload([row], "s", time="ts")
    embedded_session.define("g", f"SELECT {key}, COUNT(*) AS c FROM s GROUP BY {key}")
    embedded_session.promote("g")
    assert embedded_session.serve("c", **{key: [fits]})["c"] == [1]
    with pytest.raises(UsageError, match=f"'{key}' is a"):
        embedded_session.serve("c", **{key: [wrong]})


def test_a_catalog_survives_what_others_write_into_it(ready: Session) -> None:
    from fs_notebook.catalog.catalog import STREAM

    row = {"kind": "x", "name": "n", "body": "not json", "actor": "me", "at": BEGIN}
    schema = {n: t.polars for n, t in STREAM.columns}
    ready.log.append(STREAM, pl.DataFrame([row], schema=schema))
    assert [v["name"] for v in ready.features()] == ["reading_time"]
    again = Session(ready.connection)
    assert [v["name"] for v in again.features()] == ["reading_time"]
    again.close()


@pytest.mark.parametrize("fault", ["30: damaged", "10: evicted", "10: no position"])
def test_fault_10_30_a_rebuild_is_offered_and_promoting_again_is_it(
    ready: Session, fault: str
) -> None:
    ready.promote("reading_time")
    shard = ready.catalog.refresh().group("reading_time").version(1).definition.shard
    client = redis.from_url(ready.store.url)
    stored = [k for k in client.scan_iter() if b":e:" in k and shard.encode() in k]
    assert len(stored) == 7
    if fault == "30: damaged":
        client.mset(dict.fromkeys(stored, b"no value of ours"))
    elif fault == "10: evicted":
        client.delete(*stored)
    else:
        client.delete(b"fs:{%s}:m" % shard.encode())
    if "position" not in fault:
        with pytest.raises(IntegrityError, match="damaged") as caught:
            ready.serve("total_readtime", user="u1")
        assert "promote" in str(caught.value.remedy)
    ready.append(read_events(10, 7), "read_events")

    def told() -> str | None:
        (status,) = ready.status("reading_time")
        return status.error if status.state == "failing" else None

    error = until(told, what="the damage to be told")
    assert "rebuild the feature from the ledger: promote it again" in error
    ready.promote("reading_time")
    wanted = sum(n for n in range(17) if n % 7 == 1)
    assert ready.serve("total_readtime", user="u1")["total_readtime"] == [wanted]
    assert ready.verify("reading_time").ok
    client.close()
