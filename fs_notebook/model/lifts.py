"""Several candidates' lifts beside one baseline, ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fs_notebook.errors import plain, unknown_name
from fs_notebook.model import pictures
from fs_notebook.model.card import card, count, moment
from fs_notebook.model.chart import altair_of, svg_of
from fs_notebook.model.lift import Lift
from fs_notebook.model.verdict import HELPS, LEAK, ORDER


@dataclass(frozen=True)
class Lifts(Sequence[Lift]):
    """Lifts of several candidates, each by itself beside the same baseline, best first.

    A sequence; ``lifts["total_readtime"]`` is that candidate's. Intervals hold for all at once.

    Attributes
    ----------
    lifts
        Ranked by verdict, then by what they add.
    """

    lifts: tuple[Lift, ...]

    @classmethod
    def ranked(cls, lifts: Sequence[Lift]) -> Lifts:
        """Return the lifts in their order: helps, suspicious, no evidence, hurts."""
        return cls(tuple(sorted(lifts, key=lambda o: (ORDER.index(o.verdict), -o.difference))))

    def __len__(self) -> int:
        return len(self.lifts)

    def __iter__(self) -> Iterator[Lift]:
        return iter(self.lifts)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            named = {lift.name: lift for lift in self.lifts}
            if key not in named:
                raise unknown_name("candidate", key, named)
            return named[key]
        return self.lifts[key]

    @property
    def seconds(self) -> float:
        """How long all of them took together."""
        return max(lift.seconds for lift in self.lifts)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, fit for `json.dumps`."""
        return {"lifts": [lift.to_dict() for lift in self.lifts]}

    def spec(self) -> dict[str, Any]:
        """Return the picture of all candidates as a Vega-Lite specification."""
        return pictures.ranked_spec(self.lifts)

    def chart(self) -> Any:
        """Return the picture of all candidates as an Altair chart."""
        return altair_of(self.spec())

    @property
    def _sentence(self) -> str:
        helping = [lift.name for lift in self.lifts if lift.verdict == HELPS]
        what = f"{len(helping)} of {len(self.lifts)} candidates help"
        return f"{what} to predict {self.lifts[0].target}"

    @property
    def _notes(self) -> tuple[str, ...]:
        leaks = [f"{o.name}: {o.reason}" for o in self.lifts if o.verdict == LEAK]
        return tuple(dict.fromkeys([*leaks, *(n for o in self.lifts for n in o.notes)]))

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (str(i + 1), o.name, o.verdict, f"{o.with_:.4f}", f"{o.difference:+.4f}",
             f"{o.low:+.4f} to {o.high:+.4f}",
             f"{min(c.margin_low for c in o.controls):+.4f}")
            for i, o in enumerate(self.lifts)
        ]  # fmt: skip

    def _headings(self) -> tuple[str, ...]:
        metric = self.lifts[0].metric
        return ("", "candidate", "verdict", metric, "adds", "95%, all at once",
                "beyond controls at least")  # fmt: skip

    def __repr__(self) -> str:
        first = self.lifts[0]
        rows = [[plain(cell) for cell in row] for row in (self._headings(), *self._rows())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            (
                f"{self._sentence}. {first.metric} {first.without:.4f} without any; "
                f"{count(first.rows_test)} labels tested from {moment(first.split)} UTC on, "
                f"by {first.model}; {self.seconds:.1f} s."
            )
        ]
        lines += [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"note: {note}" for note in self._notes]
        return "\n".join(map(plain, lines))

    def _repr_html_(self) -> str:
        first = self.lifts[0]
        folds = f", in {len(first.folds)} folds" if len(first.folds) > 1 else ""
        figures = [
            (f"{first.metric} without any", f"{first.without:.4f}"),
            ("intervals", f"95% for {len(self.lifts)} at once"),
            ("tested on", f"{count(first.rows_test)} labels from {moment(first.split)} UTC on"
             + folds),
            *([("ranked within each", first.query)] if first.query else []),
            *([("never on both sides", first.group)] if first.group else []),
            ("model", first.model),
            ("beside", ", ".join(first.baseline) or "nothing (a constant)"),
            ("took", f"{self.seconds:.1f} s"),
        ]  # fmt: skip
        return card(
            "Lift", figures, subtitle=self._sentence, notes=self._notes, svg=svg_of(self.spec()),
            tables=[(self._headings(), self._rows())],
        )  # fmt: skip
