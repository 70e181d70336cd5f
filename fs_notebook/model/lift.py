"""Lift: what a candidate feature adds to a model, measured on labels later than it learnt from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fs_notebook.errors import plain
from fs_notebook.model import pictures
from fs_notebook.model.card import Section, Table, card, count, moment
from fs_notebook.model.chart import altair_of, svg_of
from fs_notebook.model.drift import Drift
from fs_notebook.model.shapes import Curve, Distribution
from fs_notebook.model.verdict import HELPS, HURTS, LEAK, Control


@dataclass(frozen=True)
class FoldScore:
    """The metric in one fold: on labels of [at, until], after learning from all before.

    `low` and `high` are the 95% interval of the fold's own difference.
    """

    at: datetime
    until: datetime
    rows_train: int
    rows_test: int
    without: float
    with_: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Lift:
    """What a candidate adds to a model.

    Attributes
    ----------
    name
        The candidate: its columns, joined by commas.
    target, task, classes
        The column to predict; ``"classification"``, ``"regression"`` or ``"ranking"``; its classes.
    metric, scorer
        ``"ROC AUC"``, and the name that it is asked for by, ``"roc_auc"``; more is better.
    without, with_, difference
        The metric on the test rows without and with the candidate, and with less without: means
        over the folds by their rows.
    low, high
        The 95% interval of `difference`: a paired bootstrap over blocks of test rows, or over the
        values of `group`. It holds for all `compared` candidates at once.
    controls
        What a column that knows nothing brings: the candidate's values shuffled, random numbers.
    verdict, reason
        ``"helps"``, ``"no evidence"``, ``"hurts"`` or ``"suspicious: leak"``, and why:
        see `verdict.decide`.
    suspicions
        Each thing that looks like a leak of the label, with its evidence.
    error_name, error_without, error_with
        ``"log loss"`` or ``"mean absolute error"``, less is better; None where there is none.
    folds
        The same for each fold.
    rows_train, rows_test, split
        Labels that the last fold learnt from; labels tested in all folds; the time of the first
        of these, UTC.
    importances
        Column → how much of the metric is lost when it alone is shuffled in the last fold's test
        rows, candidate and baseline alike, most first.
    calibration, distributions, drifts
        What the pictures show.
    """

    name: str
    target: str
    task: str
    metric: str
    scorer: str
    without: float
    with_: float
    difference: float
    low: float
    high: float
    controls: tuple[Control, ...]
    verdict: str
    reason: str
    suspicions: tuple[str, ...]
    error_name: str
    error_without: float | None
    error_with: float | None
    folds: tuple[FoldScore, ...]
    rows_train: int
    rows_test: int
    split: datetime
    candidate: tuple[str, ...]
    baseline: tuple[str, ...]
    group: str | None
    query: str | None
    classes: tuple[str, ...]
    model: str
    seed: int
    bootstraps: int
    compared: int
    seconds: float
    notes: tuple[str, ...] = ()
    importances: tuple[tuple[str, float], ...] = ()
    calibration: tuple[Curve, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    drifts: tuple[Drift, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, fit for `json.dumps`: times as ISO texts."""
        found: dict[str, Any] = _plain(dataclasses.asdict(self))
        return found

    def specs(self) -> dict[str, dict[str, Any]]:
        """Return the pictures as Vega-Lite specifications, by name.

        ``"lift"`` is always there; ``"folds"``, ``"calibration"``, ``"importance"``,
        ``"distribution"`` and ``"drift"`` where there is something to draw.
        """
        return pictures.lift_specs(self)

    def spec(self) -> dict[str, Any]:
        """Return the main picture as a Vega-Lite specification."""
        return pictures.lift_spec(self)

    def chart(self) -> Any:
        """Return the main picture as an Altair chart, to be changed and combined."""
        return altair_of(self.spec())

    def charts(self) -> dict[str, Any]:
        """Return all pictures as Altair charts, by their names in `specs`."""
        return {name: altair_of(spec) for name, spec in self.specs().items()}

    @property
    def sentence(self) -> str:
        """The verdict in a few words."""
        return {
            HELPS: f"helps to predict {self.target}",
            HURTS: f"hurts in predicting {self.target}",
            LEAK: f"suspicious: a leak of {self.target}?",
        }.get(self.verdict, f"no evidence that it helps to predict {self.target}")

    @property
    def _how(self) -> str:
        labels = f"{count(self.rows_test)} labels from {moment(self.split)} UTC on"
        if len(self.folds) == 1:
            return f"learnt from {count(self.rows_train)} labels before, tested on {labels}"
        first = self.folds[0].rows_train
        return (
            f"tested on {labels}, in {len(self.folds)} walk-forward folds that learnt from the "
            f"{count(first)} to {count(self.rows_train)} labels before each"
        )

    def __repr__(self) -> str:
        controls = "; ".join(
            f"{_CONTROLS.get(c.name, c.name)} {c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f})"
            for c in self.controls
        )
        adds = f"{self.difference:+.4f} (95% {self.low:+.4f} to {self.high:+.4f}{self._together})"
        what = f"{self.metric} {self.without:.4f} without, {self.with_:.4f} with: {adds}"
        beside = f"by {self.model}, beside {_base(self)}{self._apart}; {self.seconds:.1f} s"
        lines = [
            f"{self.name}: {self.sentence} ({self.reason}). {what}.",
            f"Controls: {controls}.",
            f"{self._how[0].upper()}{self._how[1:]}, {beside}.",
        ]
        if len(self.folds) > 1:
            each = ", ".join(f"{f.difference:+.4f}" for f in self.folds)
            lines.append(f"Folds: {each}.")
        lines += [
            f"Drift of {d.column}: PSI {d.psi:.3f}, KS {d.ks:.3f}, JS {d.js:.3f}."
            for d in self.drifts
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(map(plain, lines))

    @property
    def _together(self) -> str:
        return f", for {self.compared} candidates at once" if self.compared > 1 else ""

    @property
    def _apart(self) -> str:
        parts = [f"ranked within each {self.query}"] if self.query else []
        if self.group:
            parts.append(f"each {self.group} learnt from or tested on, never both")
        return "".join(f"; {p}" for p in parts)

    def _repr_html_(self) -> str:
        figures = [
            (f"{self.metric} without", f"{self.without:.4f}"),
            (f"{self.metric} with", f"{self.with_:.4f}"),
            ("difference", f"{self.difference:+.4f}"),
            (f"95% interval{self._together}", f"{self.low:+.4f} to {self.high:+.4f}"),
        ]
        figures += [
            (f"{_CONTROLS.get(c.name, c.name)}",
             f"{c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f})") for c in self.controls
        ]  # fmt: skip
        if self.error_without is not None and self.error_with is not None:
            figures.append((self.error_name, f"{self.error_without:.4f} → {self.error_with:.4f}"))
        tested = f"{count(self.rows_test)} labels from {moment(self.split)} UTC on"
        few, most = self.folds[0].rows_train, self.rows_train
        learnt = count(most) if few == most else f"{count(few)} to {count(most)}"
        folds = f", in {len(self.folds)} folds" if len(self.folds) > 1 else ""
        figures += [
            ("learnt from", f"{learnt} labels before{' each fold' if folds else ''}"),
            ("tested on", tested + folds),
            *([("ranked within each", self.query)] if self.query else []),
            *([("never on both sides", self.group)] if self.group else []),
            ("model", self.model),
            ("beside", _base(self)),
            ("took", f"{self.seconds:.1f} s"),
        ]
        specs = self.specs()
        main = svg_of(specs.pop("lift"))
        told = self._told
        sections = [
            Section(title, told[name], svg_of(specs[name]),
                    self._fold_table if name == "folds" else None)
            for name, title in pictures.TITLES.items() if name in specs
        ]  # fmt: skip
        return card(
            self.name, figures, subtitle=f"{self.sentence}: {self.reason}", notes=self.notes,
            svg=main, sections=sections,
        )  # fmt: skip

    @property
    def _told(self) -> Mapping[str, str]:
        """What each folded picture says in words."""
        better = sum(f.difference > 0 for f in self.folds)
        top = self.importances[0] if self.importances else ("", 0.0)
        return {
            "folds": f"better with it in {better} of {len(self.folds)}",
            "calibration": "how far predictions come true",
            "importance": f"most is lost without {top[0]}: {top[1]:+.4f}",
            "distribution": ", ".join(d.column for d in self.distributions),
            "drift": "; ".join(
                f"{d.column}: PSI {d.psi:.3f}, KS {d.ks:.3f}, JS {d.js:.3f}" for d in self.drifts
            ),
        }

    @property
    def _fold_table(self) -> Table:
        return (
            ("fold", "from (UTC)", "learnt from", "tested", "without", "with", "adds", "95%"),
            [
                (str(i + 1), moment(f.at), count(f.rows_train), count(f.rows_test),
                 f"{f.without:.4f}", f"{f.with_:.4f}", f"{f.difference:+.4f}",
                 f"{f.low:+.4f} to {f.high:+.4f}")
                for i, f in enumerate(self.folds)
            ],
        )  # fmt: skip


_CONTROLS = {"shuffled": "shuffled, it adds", "random": "random numbers add"}


def _base(lift: Lift) -> str:
    return ", ".join(lift.baseline) or "nothing (a constant)"


def _plain(value: Any) -> Any:
    """Return what `json.dumps` takes: lists for tuples, ISO texts for times."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.isoformat() if isinstance(value, datetime) else value
