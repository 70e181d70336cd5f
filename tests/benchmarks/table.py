"""The table of results: each figure beside its rival's, with its aim, its noise and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.harness import Duel

AT_LEAST, AT_MOST = "≥", "≤"
FIGURES = ("work", "figure", "aim")
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

    def cells(self) -> tuple[str, ...]:
        duel = self.duel
        low, high = self.spread
        return (
            self.name,
            self._shown(duel.ours.median),
            f"{self._shown(duel.rival.median)} ({self.rival})",
            f"{self.ratio:.2f}",
            f"{low:.2f}–{high:.2f}",
            judged(self.ratio, self.sense, self.aim),
            f"{duel.ours.peak_mb:.0f} (+{max(duel.ours.peak_mb - duel.ours.held_mb, 0):.0f})",
            f"{duel.rival.peak_mb:.0f} (+{max(duel.rival.peak_mb - duel.rival.held_mb, 0):.0f})",
        )

    def _turned(self, times: float) -> float:
        return 1 / times if self.sense == AT_LEAST else times

    def _shown(self, seconds: float) -> str:
        if self.count is not None:
            return f"{seconds:.2f} s, {self.count / seconds / 1000:,.0f}k/s"
        return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else f"{seconds:.3f} s"


@dataclass(frozen=True)
class Figure:
    """A figure that stands alone: nobody else's is beside it.

    Attributes
    ----------
    name
        What was done.
    value, unit
        What came of it.
    sense, aim
        What it should be; `aim` is None where it only informs.
    """

    name: str
    value: float
    unit: str
    sense: str = AT_MOST
    aim: float | None = None

    def cells(self) -> tuple[str, ...]:
        shown = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return (self.name, f"{shown} {self.unit}", judged(self.value, self.sense, self.aim))


def judged(value: float, sense: str, aim: float | None) -> str:
    """Return an aim, and whether a value meets it."""
    if aim is None:
        return "–"
    met = value >= aim if sense == AT_LEAST else value <= aim
    return f"{sense} {aim:g} {'met' if met else 'MISSED'}"


def markdown(rows: Sequence[Row], figures: Sequence[Figure], *, notes: Sequence[str]) -> str:
    """Return both tables, aligned to be read as plain text too, and the notes under them."""
    shown = [
        *_table([HEAD, *(row.cells() for row in rows)]), "",
        *_table([FIGURES, *(figure.cells() for figure in figures)]), "",
    ]  # fmt: skip
    return "\n".join([*shown, *(f"- {note}" for note in notes), ""])


def _table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    shown.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return shown
