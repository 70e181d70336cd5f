"""How an explanation looks in a notebook."""

from __future__ import annotations

from fs_notebook.explanation import Explanation
from fs_notebook.jupyter.display import figures
from fs_notebook.jupyter.table import Column, Table, card, tag
from fs_notebook.jupyter.values import clean


def explanation_html(found: Explanation) -> str:
    """Return an explanation as HTML: figures, values beside the online ones, then events."""
    name = clean(found.name)
    title = tag("p", tag("strong", name), tag("span", clean(found.entity)), class_="fsn-title")
    shown = [(clean(n), clean(text, length_max=200)) for n, text in found.figures()]
    values = None
    if found.values:
        rows = [dict(zip(("feature", "value", "online"), r, strict=True)) for r in found.compared()]
        values = Table(rows, title="Values").markup()
    events = None
    if not found.inputs:
        # Expressions may be called alike once they are cut short, so columns go by number.
        columns = [
            Column(str(i), clean(n), kind="code" if i == 0 else "")
            for i, n in enumerate(found.events.columns)
        ]
        lines = [{str(i): v for i, v in enumerate(row)} for row in found.events.iter_rows()]
        events = Table(
            lines, columns=columns, title=f"Events, {found.extent}",
            empty="No event of it is there.",
        ).markup()  # fmt: skip
    whole = card(f"Explanation of {name}", title, figures(shown), values, events)
    return whole + "".join(explanation_html(part) for part in found.inputs)
