"""Features on features, from a cell to serving: the fraud example, versions, rollback, lineage."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from fs_notebook.errors import (
    DefinitionError,
    FeatureStoreError,
    NameTaken,
    UnknownName,
    UsageError,
)
from fs_notebook.model.written import WrittenTrainingSet
from fs_notebook.session import Session
from tests.support.sessions import read_events, until

NOW = datetime.now(UTC).replace(microsecond=0)
DAYS_30 = timedelta(days=30)
SPENDING = """
SELECT user, AVG(amount) OVER month AS mean_amount_30d, COUNT(*) OVER month AS payments_30d
FROM payments
WINDOW month AS (PARTITION BY user ORDER BY ts
                 RANGE BETWEEN INTERVAL '30' DAY PRECEDING AND CURRENT ROW)
"""
READING = "SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user"
RATIO = """
SELECT user, :amount / NULLIF(mean_amount_30d, 0) AS amount_ratio,
       COALESCE(total_readtime, 0) + 1 AS reads_more
FROM spending JOIN reading_time USING (user)
"""


def payments(first: int, count: int) -> list[dict[str, Any]]:
    """Return payments of three users, some older than thirty days."""
    return [
        {"user": f"u{n % 3}", "amount": float(n + 1), "ts": NOW - timedelta(days=45 - n)}
        for n in range(first, first + count)
    ]


def mean_30d(log: list[dict[str, Any]], user: str, t: datetime) -> float | None:
    mine = [e["amount"] for e in log if e["user"] == user and t - timedelta(days=30) <= e["ts"] < t]
    return sum(mine) / len(mine) if mine else None


@pytest.fixture
def fraud(embedded_session: Session) -> Session:
    """A session with two streams, two stored groups, and a ratio that is derived from both."""
    session = embedded_session
    session.upload(payments(0, 40), "payments", time="ts")
    session.upload(read_events(0, 20), "read_events", time="ts")
    session.define("spending", SPENDING)
    session.define("reading_time", READING)
    session.define("amount_ratio", RATIO, entity="user", tags="fraud")
    return session


def close(got: Any, want: Any) -> bool:
    if got is None or want is None:
        return got is want
    return math.isclose(got, want, rel_tol=1e-9)


def test_the_fraud_example_end_to_end(fraud: Session) -> None:
    log = payments(0, 40)
    preview = fraud.preview("amount_ratio", with_={"amount": "12.5"})
    assert preview.types == {"amount_ratio": "DOUBLE", "reads_more": "BIGINT"}
    assert preview.at == log[-1]["ts"] + timedelta(microseconds=1)
    rows = {r["user"]: r for r in preview.frame.to_dicts()}
    assert set(rows) == {f"u{n}" for n in range(7)}
    for user, row in rows.items():
        mean = mean_30d(log, user, preview.at)
        assert close(row["amount_ratio"], None if mean is None else 12.5 / mean), user
        reads = sum(e["readtime"] for e in read_events(0, 20) if e["user"] == user)
        assert row["reads_more"] == reads + 1
    assert "request values: amount DOUBLE = 12.5" in preview.notes
    assert fraud.preview("amount_ratio").frame["amount_ratio"].to_list() == [None] * 7
    assert fraud.preview("amount_ratio", sample=2).entities == 2

    labels = pl.DataFrame(
        {
            "user": ["u1", "u2", "nobody", "u1"],
            "amount": [12.5, 3.0, 1.0, None],
            "at": [NOW - timedelta(days=d) for d in (0, 10, 0, 44)],
        }
    )
    trained = fraud.training_set(labels, ["amount_ratio"])
    assert trained.frame.columns == ["user", "amount", "at", "amount_ratio"]
    for row in trained.frame.to_dicts():
        mean = mean_30d(log, row["user"], row["at"])
        want = None if mean is None or row["amount"] is None else row["amount"] / mean
        assert close(row["amount_ratio"], want), row
    assert list(trained.versions) == ["amount_ratio"]
    beside = fraud.training_set(labels, ["payments_30d", "amount_ratio", "total_readtime"])
    assert beside.features == ("payments_30d", "amount_ratio", "total_readtime")
    assert beside.frame["amount_ratio"].to_list() == trained.frame["amount_ratio"].to_list()

    with pytest.raises(UsageError, match=r"(?s)not promoted.*promote reading_time.*--with-inputs"):
        fraud.promote("amount_ratio")
    assert fraud.status() == []
    status = fraud.promote("amount_ratio", with_inputs=True)
    assert (status.state, status.version, status.serving, status.pid) == ("live", 1, True, None)
    assert "spending" in str(status.depends_on)
    users = ["u1", "u2", "nobody"]
    served = fraud.serve(["amount_ratio", "payments_30d"], user=users, amount=[12.5, 3.0, 1.0])
    for row, amount in zip(served, [12.5, 3.0, 1.0], strict=True):
        mean = mean_30d(log, row["user"], datetime.now(UTC))
        assert close(row["amount_ratio"], None if mean is None else amount / mean)
    assert served.status()["amount_ratio"].to_list() == ["present", "present", "not found"]
    assert "1 not found" in served._repr_html_()

    more = [{"user": "u1", "amount": 1000.0, "ts": NOW}]
    fraud.append(more, "payments")
    mean = mean_30d([*log, *more], "u1", datetime.now(UTC))
    assert mean is not None
    until(
        lambda: close(
            fraud.serve("amount_ratio", user="u1", amount=5)["amount_ratio"][0], 5 / mean
        ),
        what="the payment to be in the ratio",
    )
    outcome = fraud.verify("amount_ratio")
    assert outcome.ok
    assert outcome.events == 41 + 20
    some = fraud.verify("amount_ratio", sample=1, seed=3)
    assert (some.ok, some.entities, some.sampled_from, some.seed) == (True, 1, 7, 3)
    assert {s.name: s.state for s in fraud.status()} == dict.fromkeys(
        ["amount_ratio", "reading_time", "spending"], "live"
    )


def test_derived_on_each_pair_of_ledger_and_store(session: Session) -> None:
    log = payments(0, 40)
    session.upload(log, "payments", time="ts", key="user", partitions=2)
    session.upload(read_events(0, 20), "read_events", time="ts", key="user")
    session.define("spending", SPENDING)
    session.define("reading_time", READING)
    session.define("amount_ratio", RATIO)
    assert session.promote("amount_ratio", with_inputs=True).state == "live"
    labels = pl.DataFrame(
        {
            "user": ["u0", "u1", "u6"],
            "amount": [1.5, 2.5, 3.5],
            "at": [NOW + timedelta(hours=1)] * 3,
        }
    )
    trained = session.training_set(labels, ["amount_ratio", "reads_more"]).to_dict()
    asked = {n: trained[n] for n in ("user", "amount")}
    served = session.serve(["amount_ratio", "reads_more"], **asked).to_dict()
    for n in ("amount_ratio", "reads_more"):
        assert all(map(close, served[n], trained[n]))
    assert served["reads_more"] == [0 + 7 + 14 + 1, 1 + 8 + 15 + 1, 6 + 13 + 1]
    assert session.verify("amount_ratio").ok


def test_lineage_is_in_the_catalog(fraud: Session) -> None:
    fraud.define("twice", "SELECT user, amount_ratio * 2 AS twice FROM amount_ratio")
    view = fraud.view("amount_ratio")
    assert view["depends_on"] == ["reading_time (draft)", "spending (draft)"]
    assert view["used_by"] == ["twice"]
    assert view["streams"] == ["payments", "read_events"]
    assert view["requests"] == [{"name": "amount", "type": "DOUBLE"}]
    assert fraud.view("spending")["used_by"] == ["amount_ratio", "twice"]
    # What is derived of derived features depends on the stored ones that it reads.
    assert fraud.view("twice")["depends_on"] == ["spending (draft)"]
    assert fraud.view("twice")["streams"] == ["payments"]
    assert [v["name"] for v in fraud.features("fraud")] == ["amount_ratio"]
    assert {v["name"] for v in fraud.features("payments")} == {"amount_ratio", "spending", "twice"}


def test_derived_of_derived_is_served(fraud: Session) -> None:
    fraud.define("twice", "SELECT user, amount_ratio * 2 AS twice FROM amount_ratio")
    # Of the derived one in between nothing need be promoted.
    fraud.promote("twice", with_inputs=True)
    assert {s.name for s in fraud.status()} == {"spending", "twice"}
    (got,) = fraud.serve("twice", user="u1", amount=3)["twice"]
    mean = mean_30d(payments(0, 40), "u1", datetime.now(UTC))
    assert mean is not None
    assert close(got, 2 * 3 / mean)
    with pytest.raises(FeatureStoreError, match="no served feature named 'amount_ratio'"):
        fraud.serve("amount_ratio", user="u1", amount=3)


def test_a_version_means_its_inputs_versions(fraud: Session) -> None:
    fraud.promote("amount_ratio", with_inputs=True)
    one = fraud.serve(["amount_ratio", "reads_more"], user="u1", amount=3).to_dict()
    for plus in (1, 2):
        sql = READING.replace("SUM(readtime)", f"SUM(readtime + {plus})")
        fraud.define("reading_time", sql)
        fraud.promote("reading_time")
    # Two newer versions serve, and the first one is not their former one any more.
    assert fraud.serve(["amount_ratio", "reads_more"], user="u1", amount=3).to_dict() == one
    assert [s.version for s in fraud.status("reading_time")] == [1, 2, 3]
    both = fraud.serve(["reads_more", "total_readtime"], user="u1", amount=3)
    assert both["total_readtime"][0] == both["reads_more"][0] - 1 + 2 * 3
    fraud.append([{"user": "u1", "readtime": 100, "ts": NOW}], "read_events")
    until(
        lambda: fraud.serve("reads_more", user="u1")["reads_more"] == [one["reads_more"][0] + 100],
        what="the pinned version to go on",
    )
    with pytest.raises(UsageError, match=r"(?s)v1 of 'reading_time' is needed.*amount_ratio v1"):
        fraud.retire("reading_time", 1)
    assert any("was changed since" in note for note in fraud.preview("amount_ratio").notes)
    assert fraud.verify("amount_ratio").ok

    # The same cell again means the present version.
    fraud.define("amount_ratio", RATIO)
    assert fraud.promote("amount_ratio").version == 2
    newer = fraud.serve("reads_more", user="u1")["reads_more"]
    assert newer == [one["reads_more"][0] + 100 + 2 * 4]
    back = fraud.rollback("amount_ratio")
    assert (back.version, back.serving, back.state) == (1, True, "live")
    assert fraud.serve("reads_more", user="u1")["reads_more"] == [one["reads_more"][0] + 100]
    assert fraud.view("amount_ratio")["depends_on"] == ["reading_time v1", "spending v1"]
    fraud.rollback("amount_ratio")
    fraud.retire("amount_ratio", 1)
    fraud.retire("reading_time", 1)
    assert [s.version for s in fraud.status("reading_time")] == [2, 3]
    assert fraud.serve("reads_more", user="u1")["reads_more"] == newer
    with pytest.raises(UsageError, match="no former version"):
        fraud.rollback("amount_ratio")


def test_what_is_pinned_and_gone_is_told(fraud: Session) -> None:
    fraud.define("spending", SPENDING.replace("AVG(amount)", "AVG(amount + 1)"))
    with pytest.raises(UsageError, match=r"(?s)was changed since.*run the cell of 'amount_ratio'"):
        fraud.promote("amount_ratio", with_inputs=True)
    # It can still be previewed and trained on: a definition holds what it pins.
    assert fraud.preview("amount_ratio", with_={"amount": 1}).entities == 7


def test_a_draft_that_folds_what_serves(fraud: Session) -> None:
    fraud.promote("spending")
    with pytest.raises(UsageError) as caught:
        fraud.promote("amount_ratio")
    assert "spending" not in str(caught.value.found)
    assert "%feature promote reading_time" in str(caught.value.remedy)
    fraud.promote("reading_time")
    assert fraud.promote("amount_ratio").state == "live"
    assert fraud.promote("amount_ratio").version == 1


def test_lift_of_a_derived_feature(
    fraud: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 400
    users = [f"u{n % 3}" for n in range(rows)]
    at = [NOW - timedelta(days=20) + timedelta(minutes=n) for n in range(rows)]
    amounts = [float((n * 37) % 61) for n in range(rows)]
    log = payments(0, 40)
    means = [mean_30d(log, u, t) or 1.0 for u, t in zip(users, at, strict=True)]
    labels = pl.DataFrame(
        {
            "user": users, "at": at, "amount": amounts,
            # One in ten is told wrongly: what predicts without any error is suspicious.
            "fraud": [
                (a / m > 1.5) != (n % 10 == 3)
                for n, (a, m) in enumerate(zip(amounts, means, strict=True))
            ],
        }
    )  # fmt: skip
    lift = fraud.lift("amount_ratio", labels, "fraud", baseline=[])
    assert lift.candidate == ("amount_ratio",)
    assert lift.verdict == "helps"
    made = fraud.training_set(labels, ["amount_ratio", "spending"])
    again = fraud.lift("amount_ratio", made, "fraud", baseline=[], base=["mean_amount_30d"])
    assert again.baseline == ("mean_amount_30d",)
    same = fraud.lift(
        "amount_ratio", fraud.training_set(labels, "amount_ratio"), "fraud", baseline=[]
    )
    assert (same.with_, same.without, same.low) == (lift.with_, lift.without, lift.low)
    written = fraud.training_set(labels, "amount_ratio", out=tmp_path / "made.parquet")
    filed = fraud.lift("amount_ratio", written, "fraud", baseline=[])
    assert (filed.with_, filed.without, filed.low) == (lift.with_, lift.without, lift.low)
    frame = fraud.training_set(labels, "amount_ratio").frame
    assert written.part().frame.equals(frame)
    assert written.part(150).frame.equals(frame.gather_every(3))
    together = written.part(200, together="user").frame
    assert together.equals(frame.filter(pl.col("user").is_in(together.get_column("user"))))
    with pytest.raises(UnknownName, match="usr"):
        written.part(together="usr")
    monkeypatch.setattr(WrittenTrainingSet, "part", partialmethod(WrittenTrainingSet.part, 250))
    (some,) = fraud.lift(["amount_ratio"], written, "fraud", baseline=[])
    assert some.notes[0] == "measured with 200 labels, an even part of 400"
    assert fraud.lift("amount_ratio", written, "fraud", baseline=[]).notes == some.notes
    with pytest.raises(UsageError, match="it has no mean_amount_30d"):
        fraud.lift("mean_amount_30d", fraud.training_set(labels, "amount_ratio"), "fraud")
    with pytest.raises(UsageError, match="as it is"):
        fraud.lift("amount_ratio", made, "fraud", lag="5m")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT user, x FROM spendin", r"(?s)named 'spendin'.*'spending'"),
        ("SELECT user, amount_rato * 2 AS y FROM amount_ratio", r"(?s)'amount_rato'.*line 1"),
        ("SELECT user, COUNT(*) AS n FROM spending GROUP BY user", "folds nothing"),
        ("SELECT user, mean_amount_30d + 1 AS y FROM \"spending@7\"", "no version of 'spending'"),
        ("SELECT user, y + 1 AS z FROM derived", "derived from itself"),
        ("SELECT user, mean_amount_30d - amount AS y FROM spending, payments", "mixes streams"),
        ("SELECT user, mean_amount_30d * 2 AS total_readtime FROM spending", "exists in the group"),
    ],
)  # fmt: skip
def test_what_cannot_be_derived(fraud: Session, sql: str, message: str) -> None:
    fraud.define("derived", "SELECT user, payments_30d + 1 AS y FROM spending")
    with pytest.raises(FeatureStoreError, match=message):
        fraud.define("derived", sql)


def test_options_that_do_not_fit(fraud: Session) -> None:
    with pytest.raises(UsageError, match="folds a stream"):
        fraud.define("reading_time", READING, request="amount DOUBLE")
    with pytest.raises(
        UsageError, match=r"(?s)no window and no time to live of its own.*--window 7d"
    ):
        fraud.define("amount_ratio", RATIO, window="7d")
    with pytest.raises(UsageError, match="reads no request values"):
        fraud.preview("spending", with_={"amount": 1})
    with pytest.raises(FeatureStoreError, match="'amount'"):
        fraud.preview("amount_ratio", with_={"amuont": 1})
    with pytest.raises(UsageError, match="is a DOUBLE"):
        fraud.preview("amount_ratio", with_={"amount": "much"})
    labels = pl.DataFrame({"user": ["u1"], "amounts": [1.0], "at": [NOW]})
    with pytest.raises(UsageError, match="rename 'amounts' to 'amount'"):
        fraud.training_set(labels, "amount_ratio")
    with pytest.raises(UsageError, match="cannot be the request value 'amount'"):
        fraud.training_set(labels.with_columns(amount=pl.lit("x")), "amount_ratio")
    # What does not read the value does not ask for it.
    assert fraud.training_set(labels, "reads_more").rows == 1


def test_labels_from_pandas_with_gaps(fraud: Session) -> None:
    """Whole numbers beside a missing one are floats in pandas; missing is null, not NaN."""
    fraud.define(
        "counted", "SELECT user, CAST(:k AS BIGINT) * payments_30d AS y, :x + 1 AS z FROM spending"
    )
    labels = pd.DataFrame(
        {"user": ["u1", "u1", "u2"], "k": [2.0, None, 3.0], "x": [1, 2, 3], "at": [NOW] * 3},
        index=[7, 8, 9],
    )
    trained = fraud.training_set(labels, "counted")
    count = len([e for e in payments(0, 40) if e["user"] == "u1" and e["ts"] >= NOW - DAYS_30])
    assert trained.frame["y"].to_list()[:2] == [2 * count, None]
    assert trained.frame["z"].to_list() == [2.0, 3.0, 4.0]
    assert list(trained.to_pandas().index) == [7, 8, 9]
    with pytest.raises(UsageError, match="cannot be the request value 'k'"):
        fraud.training_set(labels.assign(k=[0.5, 1.0, 2.0]), "counted")


def test_a_derived_preview_of_no_events(embedded_session: Session) -> None:
    session = embedded_session
    session.upload([{"user": "a", "shop": None, "x": 1, "ts": NOW}], "events")
    session.define("users", "SELECT user, SUM(x) AS sum_x FROM events GROUP BY user")
    session.define("shops", "SELECT shop, COUNT(*) AS n FROM events GROUP BY shop")
    both = session.feature("both", "SELECT sum_x - n AS y FROM users CROSS JOIN shops")
    assert (both.entities, both.null_keys) == (0, 1)
    assert both.frame.schema == {"user": pl.String, "shop": pl.String, "y": pl.Int64}
    early = session.preview("both", to=NOW - timedelta(days=1))
    assert (early.entities, early.events) == (0, 0)


def test_a_request_value_that_is_called_as_the_entity(fraud: Session) -> None:
    fraud.define(
        "own", "SELECT user, CASE WHEN :user = user THEN payments_30d ELSE -1 END AS own "
        "FROM spending", request="user VARCHAR",
    )  # fmt: skip
    fraud.promote("own", with_inputs=True)
    with pytest.raises(UsageError, match="needs the request value 'user'"):
        fraud.serve("own", user=["u1", "u2"])
    served = fraud.serve("own", user=["u1", "u2"], request={"user": "u1"})["own"]
    assert served[0] > 0
    assert served[1] == -1


def test_a_stream_and_a_group_of_one_name(fraud: Session) -> None:
    """Rows are folded of the stream, as before; what could be either is refused."""
    for _ in range(2):
        # Once there is a group of that name, too.
        fraud.define("payments", "SELECT user, COUNT(*) + 1 AS n FROM payments GROUP BY user")
    with pytest.raises(UsageError, match="is a stream and a feature group"):
        fraud.define("more", "SELECT user, n + 1 AS more FROM payments")
    fraud.define("more", "SELECT user, n + 1 AS more FROM n")
    assert fraud.view("more")["depends_on"] == ["payments (draft)"]


def test_names_of_derived_features_are_taken_too(fraud: Session) -> None:
    with pytest.raises(NameTaken, match="amount_ratio"):
        fraud.define("x", "SELECT user, COUNT(*) AS amount_ratio FROM payments GROUP BY user")
    with pytest.raises(DefinitionError, match="as its key"):
        fraud.define("x", "SELECT payments_30d + 1 AS user FROM spending")
