"""Two versions side by side as a widget: definitions, how far their values differ, their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.catalog.differences import Difference
from fs_notebook.catalog.model import Group
from fs_notebook.compute.preview import OnProgress
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.jupyter.display import CHARTS_SHOWN
from fs_notebook.jupyter.values import show
from fs_notebook.jupyter.widgets.figures import Json, chart_json
from fs_notebook.jupyter.widgets.panel import Panel, action, script, synced, told
from fs_notebook.model.spread import spread_of

if TYPE_CHECKING:
    from fs_notebook.comparison import Comparison
    from fs_notebook.session import Session

DRAFT = "draft"


class SideBySide(Panel):
    """Two versions of a group. See `fs.side_by_side`.

    Attributes
    ----------
    result
        How far the values differ: what `fs.compare` returns; None where they cannot be compared.
    """

    _esm = script("sql", "beside")

    name = synced("")
    labels = synced([])
    """What the two are called: ``["v1", "v2"]``."""
    choices = synced([])
    """What else could be compared."""
    texts = synced([])
    """Both definitions."""
    diff = synced(None)
    outcome = synced(None)
    """How far the values differ: `line`, `figures`, `notes`, `rows`, `examples`, `charts`."""
    refusal = synced(None)
    """Why the values are not compared."""

    def __init__(
        self, first: str, second: str | int | None = None, *, session: Session | None = None
    ) -> None:
        self.result: Comparison | None = None
        self._difference: Difference | None = None
        super().__init__(session)
        try:
            name, before, after = self._asked_for(first, second)
            self._choose(name, before, after)
        except FeatureStoreError:
            self.close()
            raise

    def _asked_for(self, first: str, second: str | int | None) -> tuple[str, str, str]:
        """Return which group is meant, and which two of its versions."""
        state = self.session.catalog.refresh()
        name, at, number = first.partition("@")
        group = state.group(name)
        before = number if at else None
        after: str | None = None
        if isinstance(second, str):
            other, at, number = second.partition("@")
            if not at and (other.isdecimal() or other == DRAFT):
                after = other
            elif state.group(other).name != group.name:
                raise UsageError(
                    "Two versions of one feature are compared.",
                    found=f"{group.name} and {state.group(other).name}",
                    remedy=f'fs.side_by_side("{group.name}@1", "{group.name}@2")',
                )
            else:
                after = number if at else None
        elif second is not None:
            after = str(second)
        found = self.session.diff(name, before, after)
        return group.name, found.before, found.after

    @action(before=str, after=str)
    def choose(self, before: str, after: str) -> None:
        """Compare two other versions."""
        self._choose(self.name, before, after)

    def _choose(self, name: str, before: str, after: str) -> None:
        session = self.session
        found = self._difference = session.diff(name, before, after)
        group = session.catalog.refresh().group(name)
        choices = [f"v{v.number}" for v in group.versions]
        choices += [DRAFT] if group.draft is not None else []
        self.result = None
        self.show(
            name=group.name, labels=[found.before, found.after], choices=choices,
            texts=[_text(group, found.before), _text(group, found.after)],
            diff=found.to_dict(), outcome=None, refusal=None,
        )  # fmt: skip
        pair = [found.before, found.after]
        if DRAFT in pair:
            self.show(refusal={
                "message": "A draft has no values online.", "found": None,
                "remedy": f"%feature preview {group.name} shows its values",
            })  # fmt: skip
            return
        numbers = [int(label.removeprefix("v")) for label in pair]
        self.begin("comparing", lambda report: self._compare(group.name, numbers, report))

    @action()
    def again(self) -> None:
        """Compare once more: the values are those of now."""
        self._choose(self.name, *self.labels)

    def _compare(self, name: str, numbers: list[int], report: OnProgress) -> None:
        try:
            found = self.session.compare(name, numbers, on_progress=report)
        except UsageError as error:
            # The definitions stand beside each other all the same.
            self.show(refusal=told(error))
            return
        self.result = found
        self.show(outcome=outcome_json(found))

    def __repr__(self) -> str:
        parts = [self._difference, self.result]
        said = "\n".join(repr(part) for part in parts if part is not None)
        if self.refusal is not None:
            said += f"\nvalues not compared: {self.refusal['message']}"
        return said


def _text(group: Group, label: str) -> str:
    if label == DRAFT and group.draft is not None:
        return group.draft.text
    return group.version(int(label.removeprefix("v"))).definition.text


def outcome_json(found: Comparison) -> Json:
    """Return a comparison as its card has it, and both distributions of each feature."""
    labels = [f"v{n}" for n in found.versions]
    charts = []
    for one in found.features[:CHARTS_SHOWN]:
        first, second = (found.column(one.feature, n).alias(one.feature) for n in (0, 1))
        both = spread_of(_together(first, second))
        then, now = (None if both is None else both.again(side) for side in (first, second))
        drawn = chart_json(second, one.types[1], now, then, (labels[1], labels[0]))
        charts.append({**drawn, "facts": [f"{one.percent_equal} equal"], "psi": None})
    return {
        "line": found.line, "serving": found.serving,
        "figures": [list(pair) for pair in found.figures()], "notes": found.notes(),
        "rows": _table(found.rows()), "examples": _table(found.examples()), "charts": charts,
    }  # fmt: skip


def _together(first: pl.Series, second: pl.Series) -> pl.Series:
    """Return both versions' values as one column; of different types the first one's alone."""
    return first if first.dtype != second.dtype else pl.concat([first, second])


def _table(rows: list[dict[str, Any]]) -> Json:
    names = list(rows[0]) if rows else []
    return {"columns": names, "rows": [[show(row.get(n)) for n in names] for row in rows]}
