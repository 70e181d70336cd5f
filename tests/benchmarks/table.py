"""The table of results: each figure beside its rival's, with its aim, its noise and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.harness import Duel

AT_LEAST, AT_MOST = "≥", "≤"
HEAD = ("work", "ours", "rival", "ratio", "of pairs", "aim", "peak MB, ours", "peak MB, rival")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    name, rival
        What was done, and by whom else.
    sense
        ``"≥"`` where the ratio is one of speeds (ours ÷ rival's), ``"≤"`` where it is of times.
    aim
        What the ratio should be; None where the figure only informs.
    count
        Events of one run, for figures that read best as events a second.
    """

    name: str
    rival: str
    sense: str
    aim: float | None
    duel: Duel
    count: int | None = None

    @property
    def ratio(self) -> float:
        return self._turned(self.duel.times()[0])

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most of the ratios of neighbouring runs."""
        low, high = sorted(map(self._turned, self.duel.times()[1:]))
        return low, high

    @property
    def met(self) -> bool:
        if self.aim is None:
            return True
        return self.ratio >= self.aim if self.sense == AT_LEAST else self.ratio <= self.aim

    def cells(self) -> tuple[str, ...]:
        duel = self.duel
        low, high = self.spread
        aim = "–"
        if self.aim is not None:
            aim = f"{self.sense} {self.aim:g} {'met' if self.met else 'MISSED'}"
        return (
            self.name,
            self._shown(duel.ours.median),
            f"{self._shown(duel.rival.median)} ({self.rival})",
            f"{self.ratio:.2f}",
            f"{low:.2f}–{high:.2f}",
            aim,
            f"{duel.ours.peak_mb:.0f} (+{max(duel.ours.peak_mb - duel.ours.held_mb, 0):.0f})",
            f"{duel.rival.peak_mb:.0f} (+{max(duel.rival.peak_mb - duel.rival.held_mb, 0):.0f})",
        )

    def _turned(self, times: float) -> float:
        return 1 / times if self.sense == AT_LEAST else times

    def _shown(self, seconds: float) -> str:
        if self.count is not None:
            return f"{seconds:.2f} s, {self.count / seconds / 1000:,.0f}k/s"
        return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.3f} s"


def markdown(rows: Sequence[Row], *, notes: Sequence[str]) -> str:
    """Return the table, aligned to be read as plain text too, and the notes under it."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    shown = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    shown.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join([*shown, "", *(f"- {note}" for note in notes), ""])
