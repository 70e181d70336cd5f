"""How a verification looks in a notebook."""

from __future__ import annotations

from typing import Any

from fs_notebook.jupyter.display import figures
from fs_notebook.jupyter.table import Table, card, tag
from fs_notebook.jupyter.values import clean, count
from fs_notebook.worker.verify import Verification


class VerificationCard:
    """The outcome of `verify`: one line, and a table of the first differences if there are any."""

    def __init__(self, verification: Verification) -> None:
        self.verification = verification

    def html(self) -> str:
        """Return the card as HTML."""
        v = self.verification
        name = clean(v.name)
        outcome = "equal to the ledger" if v.ok else f"{count(v.mismatches)} mismatches"
        kind = "live" if v.ok else "failing"
        title = tag(
            "p",
            tag("strong", f"{name} v{v.version}"),
            tag("span", outcome, class_=f"fsn-state fsn-{kind}"),
            class_="fsn-title",
        )
        shown = [
            ("mismatches", count(v.mismatches)),
            ("values compared", count(v.values)),
            ("entities", _entities(v)),
            ("events replayed", count(v.events)),
            ("to position", v.position),
        ]
        table = None
        if v.examples:
            first = len(v.examples)
            label = f"first {first} of {count(v.mismatches)}" if first < v.mismatches else "all"
            table = Table(v.examples, title=f"Mismatches, {label}").markup()
        return card(f"Verification of {name}", title, figures(shown), table)

    def __repr__(self) -> str:
        return repr(self.verification)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


def verification_html(verification: Verification) -> str:
    """Return a verification as HTML; see `VerificationCard`."""
    return VerificationCard(verification).html()


def _entities(v: Verification) -> str:
    if v.sampled_from is None:
        return count(v.entities)
    return f"{count(v.entities)} of {count(v.sampled_from)}, a sample (seed {v.seed})"
