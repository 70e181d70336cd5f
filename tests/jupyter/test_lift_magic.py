"""`%feature lift`: one candidate, several, a ranking by groups, an interrupt; what they show."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from IPython.core.interactiveshell import InteractiveShell
from sklearn.linear_model import LogisticRegression

from fs_notebook.current import get_session
from fs_notebook.errors import UnknownName
from fs_notebook.model.lift import Lift
from fs_notebook.model.lifts import Lifts
from tests.jupyter.test_magics import fails, run, shell, shows
from tests.support.sessions import BEGIN

__all__ = ["shell"]
pytestmark = pytest.mark.timeout(90)

READS = 900


@pytest.fixture
def store(shell: InteractiveShell) -> InteractiveShell:
    """Return a shell with reads of which one column decides who clicks, and the labels."""
    rng = np.random.default_rng(5)
    interest, noise = rng.normal(size=(2, READS))
    at = [BEGIN + timedelta(minutes=n) for n in range(READS)]
    user = [f"u{n % 60}" for n in range(READS)]
    shell.user_ns["events"] = pl.DataFrame(
        {"user": user, "ts": at, "interest": interest, "noise": noise}
    )
    shell.user_ns["clicks"] = pl.DataFrame(
        {
            "user": user, "at": [t + timedelta(seconds=9) for t in at],
            "session": [f"{u}-{n // 360}" for n, u in enumerate(user)],
            "hour": [float(t.hour) for t in at],
            "clicked": rng.random(READS) < 1 / (1 + np.exp(-2 * interest)),
        }
    )  # fmt: skip
    shell.user_ns["linear"] = LogisticRegression()
    shows(shell, "%feature upload events --stream read_events --time ts")
    for name, column in (("last_interest", "interest"), ("last_noise", "noise")):
        sql = f"SELECT user, LAST({column}) AS {name} FROM read_events GROUP BY user"
        shows(shell, f"%%feature {name}_group --entity user\n{sql}")
    return shell


LINE = "%feature lift last_interest --labels clicks --target clicked --model linear"


def test_one_candidate_in_folds(store: InteractiveShell) -> None:
    _, shown = run(store, f"{LINE} --baseline hour --folds 5 --bootstraps 100 --into found")
    (data,) = [o.data for o in shown.outputs if "helps" in o.data.get("text/plain", "")]
    text, page = data["text/plain"], data["text/html"]
    assert text.startswith("last_interest: helps to predict clicked (its interval lies above 0")
    assert "in 5 walk-forward folds" in text
    assert "by LogisticRegression, beside hour" in text
    assert "Drift of last_interest: PSI" in text
    for title in ("Folds", "Calibration", "Importance", "Values by label", "Drift"):
        assert f"{title} <span" in page
    assert page.count("<svg ") == 6
    assert "<script" not in page
    found = store.user_ns["found"]
    assert isinstance(found, Lift)
    assert len(found.folds) == 5
    (kept,) = get_session().catalog.refresh().group("last_interest").lifts
    assert kept["verdict"] == "helps"


def test_several_are_ranked_and_together_are_one(store: InteractiveShell) -> None:
    line = LINE.replace("lift last_interest", "lift last_noise last_interest,last_noise")
    told = shows(store, f"{line} --folds 2 --bootstraps 100 --into found")
    found = store.user_ns["found"]
    assert isinstance(found, Lifts)
    assert [lift.name for lift in found] == ["last_interest, last_noise", "last_noise"]
    assert "1 of 2 candidates help to predict clicked" in told
    assert found["last_noise"].verdict == "no evidence"
    kept = get_session().catalog.refresh().group("last_noise").lifts
    assert [k["verdict"] for k in kept] == ["helps", "no evidence"]
    json.dumps(found.to_dict())


def test_a_ranking_where_users_are_kept_apart(store: InteractiveShell) -> None:
    told = shows(
        store, f"{LINE} --task ranking --query session --group user --metric ndcg@3 --folds 2"
    )
    assert "NDCG@3" in told
    assert "ranked within each session; each user learnt from or tested on, never both" in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--folds 40", "1 to 20 folds"),
        ("--query sesion", "did you mean 'session'"),
        ("--task ranking", "query='session'"),
        ("--metric ndcg", "not one of two classes"),
        ("--group hour", "Too few values of 'hour'"),
        ("--into 2x", "names a variable"),
        ("--model nothing", "no scikit-learn estimator"),
        ("--metric roc_au", "did you mean 'roc_auc'"),
    ],
)
def test_what_cannot_be_asked(store: InteractiveShell, options: str, says: str) -> None:
    assert says in fails(store, f"{LINE} {options}")


def test_an_interrupt_ends_it_and_nothing_is_recorded(store: InteractiveShell) -> None:
    class Interrupted(LogisticRegression):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().fit(x, y)

    store.user_ns["linear"] = Interrupted()
    assert "Interrupted; nothing was left half done" in fails(store, LINE)
    assert get_session().catalog.refresh().group("last_interest").lifts == ()
    store.user_ns["linear"] = LogisticRegression()
    assert "last_interest: helps" in shows(store, f"{LINE} --folds 1 --bootstraps 50")


def test_in_python(store: InteractiveShell) -> None:
    session, clicks = get_session(), store.user_ns["clicks"]
    options: dict[str, Any] = {"model": LogisticRegression(), "folds": 1, "bootstraps": 50}
    both = session.lift(
        ["last_noise", ("last_interest", "last_noise")], clicks, "clicked", **options
    )
    assert [lift.candidate for lift in both] == [("last_interest", "last_noise"), ("last_noise",)]
    one = session.lift("last_interest,last_noise", clicks, "clicked", **options)
    assert one.candidate == ("last_interest", "last_noise")
    with pytest.raises(UnknownName, match="did you mean 'folds'"):
        session.lift("last_noise", clicks, "clicked", fold=3)
