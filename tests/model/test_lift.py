"""A feature that knows something helps, one that knows nothing does not, and both are said."""

from __future__ import annotations

import json
import signal
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from fs_notebook.clock import SYSTEM
from fs_notebook.compute.preview import Progress
from fs_notebook.errors import UnknownName, UsageError
from fs_notebook.model.chart import svg_of
from fs_notebook.model.lift import Lift
from fs_notebook.model.measure import measure_lift, measure_lifts
from fs_notebook.model.training import TrainingSet

pytestmark = pytest.mark.timeout(90)

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
FEATURES = ("knows", "noise", "partly")


def planted(rows: int = 4000, seed: int = 7) -> pl.DataFrame:
    """Return labels of which `knows` and the label column `base` decide, and `noise` does not."""
    rng = np.random.default_rng(seed)
    base, knows, noise = rng.normal(size=(3, rows))
    chance = 1 / (1 + np.exp(-(base + 1.5 * knows)))
    return pl.DataFrame(
        {
            "user": [f"u{n}" for n in range(rows)],
            "at": [BEGIN + timedelta(minutes=n) for n in range(rows)],
            "base": base,
            "kind": pl.Series(rng.choice(["x", "y", "z"], rows)).cast(pl.Categorical),
            "clicked": rng.random(rows) < chance,
            "amount": 3 * base + 4 * knows + rng.normal(size=rows),
            "knows": knows,
            "noise": noise,
            "partly": np.where(rng.random(rows) < 0.7, np.nan, knows),
        }
    ).with_columns(pl.col("partly").fill_nan(None))


def training_of(frame: pl.DataFrame, features: tuple[str, ...] = FEATURES) -> TrainingSet:
    return TrainingSet(
        frame=frame, label_columns=tuple(c for c in frame.columns if c not in features),
        features=features, time="at", keys=("user",), versions={"g": "0" * 64}, cuts={},
        first=None, last=None, events=0, seconds=0.0,
    )  # fmt: skip


def lift_of(frame: pl.DataFrame, **options: Any) -> Lift:
    given: dict[str, Any] = {
        "target": "clicked", "candidate": ["knows"], "baseline": ["base"], "bootstraps": 200,
        "clock": SYSTEM, "folds": 1,
    }  # fmt: skip
    return measure_lift(training_of(frame), **given | options)


def test_a_feature_that_knows_helps() -> None:
    lift = lift_of(planted())
    assert lift.verdict == "helps"
    assert (lift.task, lift.metric) == ("classification", "ROC AUC")
    assert 0 < lift.low < lift.difference < lift.high
    assert lift.difference == pytest.approx(lift.with_ - lift.without)
    # What the true chances themselves would reach, less what `base` alone can.
    assert lift.low < 0.16 < lift.high
    assert [c.name for c in lift.controls] == ["shuffled", "random"]
    for control in lift.controls:
        assert control.low < 0.01 < control.margin_low
        assert control.margin == pytest.approx(lift.difference - control.difference)
    assert lift.error_with is not None
    assert lift.error_without is not None
    assert lift.error_with < lift.error_without
    assert lift.rows_train == 3000
    assert lift.rows_test == 1000
    assert lift.split == BEGIN + timedelta(minutes=3000)


@pytest.mark.parametrize(
    ("target", "model"),
    [
        ("clicked", "HistGradientBoostingClassifier"),
        ("kind", "HistGradientBoostingClassifier"),
        ("amount", "HistGradientBoostingRegressor"),
    ],
)
def test_gradient_boosting_is_the_model_unless_another_is_named(target: str, model: str) -> None:
    lift = lift_of(planted(400), target=target, bootstraps=20)
    assert lift.model.partition("(")[0] == model
    assert model in repr(lift)
    assert lift.to_dict()["model"] == lift.model


def test_what_turns_around_after_the_split_hurts_and_is_ranked_last() -> None:
    """It has told the label in all that was learnt from, and tells the other one now."""
    code = pl.col("clicked").cast(pl.Float64) - 0.5
    turned = pl.when(pl.col("at") < BEGIN + timedelta(minutes=3000)).then(code).otherwise(-code)
    frame = planted().with_columns(turned=turned + pl.col("noise") / 2)
    lift = lift_of(frame.with_columns(knows="turned"))
    assert lift.verdict == "hurts"
    assert lift.low < lift.difference < lift.high < 0
    assert lift.reason == "the interval lies below 0"
    assert "knows: hurts" in repr(lift)
    assert "hurts" in lift._repr_html_()
    lifts = measure_lifts(
        training_of(frame, ("turned", *FEATURES)), target="clicked", baseline=["base"], folds=1,
        candidates=[["turned"], ["noise"], ["knows"]], bootstraps=200, clock=SYSTEM,
    )  # fmt: skip
    assert [one.name for one in lifts] == ["knows", "noise", "turned"]
    assert [one.verdict for one in lifts] == ["helps", "no evidence", "hurts"]
    assert lifts["turned"].high < 0


def test_both_models_are_tested_on_the_same_draws() -> None:
    """What errors they share is in no interval of their difference."""
    rng = np.random.default_rng(2)
    frame = planted().with_columns(
        amount=pl.col("base") + pl.col("knows") / 4 + pl.Series(rng.normal(scale=3, size=4000))
    )
    lift = lift_of(
        frame, target="amount", metric="neg_mean_absolute_error", model=LinearRegression(),
        bootstraps=1000,
    )  # fmt: skip
    # The same two models by hand, and intervals of draws that each has for itself.
    base, knows, amount = (frame[c].to_numpy() for c in ("base", "knows", "amount"))
    errors = []
    for columns in ([base], [base, knows]):
        x = np.column_stack([*columns, np.ones(4000)])
        weights = np.linalg.lstsq(x[:3000], amount[:3000], rcond=None)[0]
        errors.append(np.abs(amount - x @ weights)[3000:])
    assert lift.difference == pytest.approx(errors[0].mean() - errors[1].mean())
    draws = [e[rng.integers(0, 1000, (1000, 1000))].mean(axis=1) for e in errors]
    low, high = np.quantile(draws[0] - draws[1], [0.025, 0.975])
    assert 0 < lift.high - lift.low < (high - low) / 3
    # A constant changes no prediction: on the same draws there is no difference at all.
    constant = lift_of(frame.with_columns(knows=1.0), target="amount", model=LinearRegression())
    assert (constant.low, constant.difference, constant.high) == (0.0, 0.0, 0.0)
    boosted = lift_of(frame.with_columns(knows=1.0))
    assert (boosted.low, boosted.difference, boosted.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pure_noise_does_not_help(seed: int) -> None:
    lift = lift_of(planted(seed=seed), candidate=["noise"], seed=seed)
    assert lift.verdict != "helps"
    assert abs(lift.difference) < 0.03


def test_a_regression() -> None:
    lift = lift_of(planted(), target="amount", candidate=["knows", "noise"])
    assert (lift.task, lift.metric, lift.verdict) == ("regression", "R²", "helps")
    assert lift.error_name == "mean absolute error"
    # amount = 3 base + 4 knows + noise: of a variance of 26, base explains 9, both 25.
    assert lift.without == pytest.approx(9 / 26, abs=0.08)
    assert lift.with_ == pytest.approx(25 / 26, abs=0.08)
    importances = dict(lift.importances)
    assert list(importances) == ["knows", "base", "noise"]
    assert importances["knows"] > 0.5
    assert abs(importances["noise"]) < 0.05


def test_the_model_learns_from_earlier_labels_only() -> None:
    """What only the later labels show cannot be learnt."""
    rng = np.random.default_rng(5)
    frame = planted().with_columns(clicked=pl.Series(rng.random(4000) < 0.5))
    late = pl.col("at") >= BEGIN + timedelta(minutes=3000)
    leak = pl.when(late).then(pl.col("clicked").cast(pl.Float64)).otherwise(pl.col("noise"))
    lift = lift_of(frame.with_columns(knows=leak).sample(fraction=1, shuffle=True, seed=1))
    assert lift.with_ < 0.8
    assert lift.split == BEGIN + timedelta(minutes=3000)


def test_labels_at_the_boundary_are_all_tested() -> None:
    frame = planted(1000).with_columns(
        at=pl.Series([BEGIN + timedelta(hours=n // 100) for n in range(1000)])
    )
    lift = lift_of(frame)
    assert (lift.rows_train, lift.rows_test) == (700, 300)
    assert lift.split == BEGIN + timedelta(hours=7)


def test_default_baseline_is_what_labels_and_other_features_offer() -> None:
    frame = planted(600).with_columns(
        many=pl.col("user"), seen=pl.col("at").dt.date(), one=pl.lit("same"), flag=True
    )
    lift = lift_of(frame, baseline=None)
    assert lift.baseline == ("base", "kind", "amount", "flag", "noise", "partly")


def test_without_any_baseline_the_rival_is_a_constant() -> None:
    lift = lift_of(planted(), baseline=[])
    assert lift.without == 0.5
    assert lift.verdict == "helps"
    assert "nothing (a constant)" in repr(lift)
    assert lift_of(planted(), baseline=[], target="amount").without == pytest.approx(0, abs=0.01)


def test_nulls_texts_and_infinities_are_taken() -> None:
    frame = planted().with_columns(
        base=pl.when(pl.col("base") > 2).then(float("inf")).otherwise("base"),
        knows=pl.when(pl.col("knows") > 0).then(pl.lit("yes")).otherwise(pl.lit("no")),
    )
    # A text that only the later labels have is as good as a null.
    unseen = pl.when(pl.col("at") > BEGIN + timedelta(minutes=3900)).then(pl.lit("new"))
    lift = lift_of(frame.with_columns(knows=unseen.otherwise("knows")), baseline=["base", "kind"])
    assert lift.verdict == "helps"
    lift = lift_of(frame, candidate=["partly"])
    assert lift.verdict == "helps"
    assert any("partly is null for" in note for note in lift.notes)


@pytest.mark.parametrize(
    "target",
    [
        pl.when(pl.col("clicked")).then(pl.lit("yes")).otherwise(pl.lit("no")),
        pl.when(pl.col("clicked")).then(pl.lit("yes")).otherwise(pl.lit("no")).cast(pl.Categorical),
        pl.col("clicked").cast(pl.Int8) * 2 - 1,
        pl.col("clicked").cast(pl.Float32),
    ],
)
def test_two_values_of_any_kind_are_two_classes(target: pl.Expr) -> None:
    frame = planted(1500)
    lift = lift_of(frame.with_columns(answer=target), target="answer")
    assert lift.with_ == lift_of(frame).with_
    assert lift.task == "classification"


def test_same_seed_same_result() -> None:
    frame = planted(2000)
    one, two = lift_of(frame, seed=3), lift_of(frame, seed=3)
    assert replace(one, seconds=0) == replace(two, seconds=0)
    assert lift_of(frame, seed=4).controls != one.controls


def test_any_scikit_learn_model() -> None:
    lift = lift_of(planted(), model=LogisticRegression())
    assert lift.model == "LogisticRegression"
    assert lift.verdict == "helps"
    with pytest.raises(UsageError, match=r"(?s)LogisticRegression could not be fitted.*NaN"):
        lift_of(planted(), candidate=["partly"], model=LogisticRegression())
    with pytest.raises(UsageError, match="no scikit-learn estimator"):
        lift_of(planted(), model=object())


def test_a_leak_is_suspicious() -> None:
    frame = planted().with_columns(knows=pl.col("clicked").cast(pl.Float64))
    lift = lift_of(frame)
    assert lift.verdict == "suspicious: leak"
    assert lift.reason.startswith("too good: with it ROC AUC is 1.0000")
    assert lift_of(planted()).notes == ()


def test_a_constant_candidate_is_noted() -> None:
    lift = lift_of(planted().with_columns(knows=1.0))
    assert lift.notes == ("knows has the same value for all labels",)
    assert (lift.difference, lift.verdict) == (0.0, "no evidence")


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (planted(99), {}, "99 labels are too few"),
        (planted(200).with_columns(at=pl.lit(BEGIN)), {}, "nothing to learn from"),
        (planted(200).with_columns(clicked=True), {}, "one value only"),
        (
            planted(200).with_columns(clicked=pl.when(pl.col("base") > 0).then(pl.col("clicked"))),
            {},
            r"not known for \d+ of 200",
        ),
        (
            planted(200).with_columns(clicked=pl.col("at") < BEGIN + timedelta(minutes=50)),
            {},
            r"(?s)later labels have hardly any clicked = True.*50 × False, 0 × True",
        ),
        (
            planted(200).with_columns(clicked=pl.col("at") > BEGIN + timedelta(minutes=160)),
            {},
            "earlier labels have hardly any clicked = True",
        ),
        (
            planted(200).with_columns(
                day=pl.col("at").dt.date() + pl.duration(days=pl.col("base"))
            ),
            {"target": "day"},
            r"neither of classes nor a number.*\n.*Date",
        ),
        (planted(200), {"task": "ranking"}, "which column says of which query"),
        (planted(200), {"query": "sesion"}, "no column 'sesion'"),
        (planted(200), {"query": "kind", "task": "regression"}, "Rows of one query are ranked"),
        (planted(200), {"query": "user"}, "have no user with both better and worse rows"),
        (planted(200).with_columns(q=None), {"query": "q"}, "is null for 200 labels"),
        (planted(200), {"query": "kind", "target": "amount"}, r"from 0 on"),
        (planted(200), {"task": "regression", "target": "kind"}, "not a number"),
        (planted(200), {"task": "classification", "target": "amount"}, "too many values"),
        (planted(200), {"metric": "r2"}, "not one of two classes"),
        (planted(200), {"metric": "neg_log_loss", "model": LinearSVC()}, "needs probabilities"),
        (planted(200), {"group": "nobody"}, "no column 'nobody'"),
        (planted(200), {"group": "kind"}, "Too few values of 'kind'"),
        (planted(200), {"folds": 9}, "too few labels to test in fold 1 of 9"),
        (
            planted(400).with_columns(
                clicked=pl.col("clicked") & (pl.col("at") > BEGIN + timedelta(minutes=230))
            ),
            {"folds": 3},
            "earlier labels of fold 1 have hardly any clicked = True",
        ),
        (planted(200), {"target": "knows"}, "cannot be what it is predicted from"),
        (planted(200), {"baseline": ["knows"]}, "both candidate and baseline"),
        (planted(200), {"candidate": []}, "needs a candidate"),
        (planted(200), {"test_share": 1.0}, "between 0 and 1"),
        (planted(200), {"bootstraps": 5}, "20 to 100,000"),
        (planted(200).with_columns(knows=pl.lit(b"x")), {}, "no model takes"),
    ],
)
def test_what_cannot_be_measured(frame: pl.DataFrame, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        lift_of(frame, **options)


def test_several_classes() -> None:
    number = pl.when(pl.col("amount") < -2).then(0).when(pl.col("amount") < 2).then(1).otherwise(2)
    frame = planted(2000).with_columns(
        number=number, grade=number.replace_strict({0: "low", 1: "middle", 2: "high"}),
    )  # fmt: skip
    lift = lift_of(frame, target="grade")
    assert (lift.task, lift.metric) == ("classification", "ROC AUC (one vs rest)")
    assert lift.classes == ("high", "low", "middle")
    assert lift.verdict == "helps"
    assert lift.error_with is not None
    assert lift.error_without is not None
    assert lift.error_with < lift.error_without
    assert {len(d.groups) for d in lift.distributions} == {3}
    # Whole numbers are a regression unless it is said that they are classes.
    assert lift_of(frame, target="number", bootstraps=20).task == "regression"
    classes = lift_of(frame, target="number", task="classification", metric="accuracy")
    assert classes.classes == ("0", "1", "2")
    assert classes.verdict == "helps"
    assert lift_of(frame, target="grade", candidate=["noise"]).verdict == "no evidence"
    rival = lift_of(frame, target="grade", baseline=[], bootstraps=50)
    assert rival.without == pytest.approx(0.5)


def sessions(rows: int = 1600) -> pl.DataFrame:
    return planted(rows).with_columns(
        session=pl.Series([f"s{n // 8}" for n in range(rows)]),
        relevance=pl.col("clicked").cast(pl.Int64) * (1 + (pl.col("knows") > 1).cast(pl.Int64)),
    )


@pytest.mark.parametrize("metric", ["ndcg@10", "ndcg", "map", "mrr@3"])
def test_a_ranking(metric: str) -> None:
    lift = lift_of(sessions(), query="session", metric=metric, folds=2)
    assert (lift.task, lift.query, lift.verdict) == ("ranking", "session", "helps")
    assert lift.scorer == metric
    assert 0.4 < lift.without < lift.with_ < 1
    assert "ranked within each session" in repr(lift)
    assert "calibration" not in lift.specs()


def test_a_ranker_is_given_its_queries() -> None:
    seen: list[Any] = []

    class Ranker(BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any, group: Any = None) -> Any:
            seen.append((len(x), list(group)))
            self.weights_ = np.linalg.lstsq(x, y, rcond=None)[0]
            return self

        def predict(self, x: Any) -> Any:
            return x @ self.weights_

    lift = lift_of(sessions(), query="session", target="relevance", model=Ranker())
    assert lift.verdict == "helps"
    for rows, groups in seen:
        assert sum(groups) == rows
        assert set(groups) == {8}


def test_folds_are_scored_and_pooled_by_their_rows() -> None:
    lift = lift_of(planted(), folds=4)
    assert lift.verdict == "helps"
    assert [f.rows_train for f in lift.folds] == [2000, 2500, 3000, 3500]
    assert sum(f.rows_test for f in lift.folds) == lift.rows_test == 2000
    rows = [f.rows_test for f in lift.folds]
    assert lift.with_ == pytest.approx(np.average([f.with_ for f in lift.folds], weights=rows))
    for fold, after in zip(lift.folds, lift.folds[1:], strict=False):
        assert fold.until < after.at
        assert fold.low <= fold.difference <= fold.high
    # One fold alone is less sure than all.
    assert lift.high - lift.low < min(f.high - f.low for f in lift.folds)


def test_by_groups_a_feature_of_the_group_alone_is_no_evidence() -> None:
    """Whoever has a user's earlier labels knows his later ones by the user's number."""
    rng = np.random.default_rng(3)
    rows, users = 3000, 120
    user = rng.integers(0, users, rows)
    taste = rng.random(users)[user]
    frame = planted(rows).with_columns(
        user=pl.Series(user), clicked=pl.Series(rng.random(rows) < taste), knows=pl.Series(user),
    )  # fmt: skip
    apart = lift_of(frame, group="user", folds=3)
    assert apart.verdict != "helps"
    assert lift_of(frame, folds=3).verdict == "helps"
    assert "never both" in repr(apart)
    # The interval of the same lift is wider where a user's rows are drawn together.
    known = frame.with_columns(knows=pl.Series(taste))
    assert lift_of(known, group="user", folds=3).verdict == "helps"


def test_few_groups_are_noted() -> None:
    frame = planted(2000).with_columns(user=pl.Series([f"u{n % 45}" for n in range(2000)]))
    lift = lift_of(frame, group="user")
    assert any("only 15 values of user were tested" in note for note in lift.notes)


def test_candidates_are_ranked_beside_one_baseline() -> None:
    frame = planted(2400).drop("amount").with_columns(leak=pl.col("clicked").cast(pl.Float64))
    training = training_of(frame, (*FEATURES, "leak"))
    lifts = measure_lifts(
        training, target="clicked", candidates=[["noise"], ["leak"], ["partly"], ["knows"]],
        folds=2, bootstraps=200, clock=SYSTEM,
    )  # fmt: skip
    assert [lift.name for lift in lifts] == ["knows", "partly", "leak", "noise"]
    assert [lift.verdict for lift in lifts] == [
        "helps", "helps", "suspicious: leak", "no evidence",
    ]  # fmt: skip
    # None of the others is in the baseline, nor the keys and the time.
    assert {lift.baseline for lift in lifts} == {("base", "kind")}
    assert len({lift.without for lift in lifts}) == 1
    assert lifts["partly"] is lifts[1]
    with pytest.raises(UnknownName, match="did you mean 'noise'"):
        lifts["noize"]
    shown, told = lifts._repr_html_(), repr(lifts)
    assert "2 of 4 candidates help to predict clicked" in told
    assert "leak: too good" in told
    assert "<svg" in shown
    assert "95% for 4 at once" in shown
    assert "HConcatChart" in type(lifts.chart()).__name__
    assert len(json.loads(json.dumps(lifts.to_dict()))["lifts"]) == 4
    alone = measure_lift(
        training, target="clicked", candidate=["knows"], baseline=["base", "kind"],
        folds=2, bootstraps=200, clock=SYSTEM,
    )  # fmt: skip
    # What holds for four at once is less sure than what holds for one.
    both = lifts["knows"]
    assert alone.difference == both.difference
    assert both.high - both.low > alone.high - alone.low
    for wrong, says in (([], "needs a candidate"), ([["knows"], ["knows"]], "named twice")):
        with pytest.raises(UsageError, match=says):
            measure_lifts(training, target="clicked", candidates=wrong, clock=SYSTEM)


def test_an_interrupt_in_a_fit_ends_it() -> None:
    class Interrupted(LogisticRegression):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return super().fit(x, y)

    with pytest.raises(KeyboardInterrupt):
        lift_of(planted(400), model=Interrupted())


def test_everything_is_told_and_can_be_kept() -> None:
    lift = lift_of(planted(2000), folds=2, candidate=["knows", "kind"], baseline=["base"])
    kept = json.loads(json.dumps(lift.to_dict()))
    assert set(kept) == {f.name for f in fields(Lift)}
    assert [c["name"] for c in kept["controls"]] == ["shuffled", "random"]
    assert [d["column"] for d in kept["drifts"]] == ["knows", "kind"]
    for name, shares in kept["distributions"][0]["groups"]:
        assert name.startswith("clicked = ")
        assert sum(shares) == pytest.approx(1)
    assert datetime.fromisoformat(kept["folds"][0]["at"]) == lift.folds[0].at
    # Predictions of a model that learns chances come true.
    for curve in lift.calibration:
        assert sum(n for _, _, n in curve.points) == lift.rows_test
    points = next(c for c in lift.calibration if c.what == "with").points
    assert max(abs(p - t) for p, t, _ in points) < 0.15
    assert set(lift.specs()) == {
        "lift", "folds", "calibration", "importance", "distribution", "drift",
    }  # fmt: skip
    charts = lift.charts()
    assert set(charts) == set(lift.specs())
    assert svg_of(charts["drift"]) == svg_of(lift.specs()["drift"])
    shown = lift._repr_html_()
    assert shown.count("<details") == shown.count("</details>") == 5
    assert "graphics-symbol" not in shown
    assert "http://" not in shown.replace("http://www.w3.org", "")


def test_a_candidate_of_nulls_alone_is_measured() -> None:
    lift = lift_of(planted().with_columns(knows=pl.lit(None, pl.Float64)))
    assert (lift.difference, lift.verdict) == (0.0, "no evidence")
    assert "knows is null for 100% of the labels" in lift.notes


def test_names_that_are_not_there_are_suggested() -> None:
    with pytest.raises(UnknownName, match="did you mean 'clicked'"):
        lift_of(planted(200), target="cliked")
    with pytest.raises(UnknownName, match="did you mean 'classification'"):
        lift_of(planted(200), task="clasification")
    for option in ("candidate", "baseline"):
        with pytest.raises(UnknownName, match="did you mean 'noise'"):
            lift_of(planted(200), **{option: ["noize"]})


def test_progress_grows_to_the_bootstrap() -> None:
    told: list[Progress] = []
    lift_of(planted(400), on_progress=told.append)
    assert list(dict.fromkeys(t.what for t in told)) == [
        "preparing", "fitting without", "fitting with", "fitting with shuffled",
        "fitting with random numbers", "bootstrapping", "measuring importance",
    ]  # fmt: skip
    assert told[-1].share is not None
    assert 0.7 < told[-1].share <= 1
    shares = [t.share for t in told if t.share is not None]
    assert shares == sorted(shares)


def test_display_is_a_card_with_a_drawing_and_escapes_names() -> None:
    frame = planted(600).rename({"knows": "<script>k", "clicked": "<b>c", "base": "<i>base"})
    training = training_of(frame, ("<script>k", "noise", "partly"))
    lift = measure_lift(
        training, target="<b>c", candidate=["<script>k", "noise"], baseline=["<i>base"],
        bootstraps=50, clock=SYSTEM,
    )  # fmt: skip
    shown = lift._repr_html_()
    assert "<svg" in shown
    assert "&lt;script&gt;k" in shown
    for bad in ("<script", "<b>", "<i>", "http://localhost"):
        assert bad not in shown
    assert "<script>k, noise" in repr(lift)
    assert json.loads(json.dumps(lift.to_dict()))["verdict"] == lift.verdict


def test_chart_is_an_altair_chart_that_draws_alike() -> None:
    lift = lift_of(planted(600))
    chart = lift.chart()
    assert "HConcatChart" in type(chart).__name__
    drawn = svg_of(chart)
    for words in ("knows", "shuffled (control)", f"{lift.with_:.4f}", f"{lift.without:.4f}"):
        assert words in drawn
    assert "shuffled (control)" in svg_of(lift.spec())


@pytest.mark.parametrize(
    ("candidate", "called"),
    [(["knows"], "knows"), (["knows", "noise"], "these 2 features"), (["k" * 40], "this feature")],
)
def test_the_drawing_has_room_for_its_labels_and_one_name(
    candidate: list[str], called: str
) -> None:
    frame = planted(600).rename({"knows": candidate[0], "noise": "noise"})
    training = training_of(frame, (candidate[0], "noise"))
    lift = measure_lift(
        training, target="clicked", candidate=candidate, bootstraps=50, clock=SYSTEM
    )
    shown = lift._repr_html_()
    assert f">{called}</text>" in shown
    assert f'<svg role="img" aria-label="Chart: {", ".join(candidate)} ' in shown
    # Marks with a role and no name of their own would be read out one by one.
    assert "graphics-symbol" not in shown


def test_drawing_fetches_nothing() -> None:
    spec = {
        "data": {"url": "http://127.0.0.1:9/data.json"},
        "mark": "point",
        "encoding": {"x": {"field": "a", "type": "quantitative"}},
    }
    with pytest.raises(UsageError, match="could not be drawn"):
        svg_of(spec)
