"""How uploads and streams look in a notebook."""

from __future__ import annotations

from typing import Any

from fs_notebook.jupyter.display import figures
from fs_notebook.jupyter.table import card, tag
from fs_notebook.jupyter.values import clean, count, moment, short
from fs_notebook.views import Uploaded


class UploadCard:
    """What an upload did: what was appended, what was there already."""

    def __init__(self, uploaded: Uploaded) -> None:
        self.uploaded = uploaded

    def html(self) -> str:
        """Return the card as HTML."""
        u = self.uploaded
        name = clean(u.stream)
        title = tag(
            "p",
            tag("strong", name),
            tag("span", "new stream" if u.created else "uploaded"),
            class_="fsn-title",
        )
        shown = [("events appended", count(u.rows))]
        if u.id is not None:
            shown.append((f"skipped: {clean(u.id)} known", count(u.known)))
        if u.files > 1 or u.files_repeated:
            again = f", {count(u.files_repeated)} uploaded before" if u.files_repeated else ""
            shown.append(("files", count(u.files) + again))
        if u.repeated:
            shown.append(("events uploaded before", count(u.repeated)))
        if u.before is not None:
            shown.append(("last uploaded, UTC", moment(u.before)))
        if u.rows:
            rate = f" ({short(u.rows / u.seconds)} events/s)" if u.seconds > 0 else ""
            shown.append(("time taken", f"{u.seconds:.2f} s{rate}"))
        shown.append(("now at", u.position))
        note = None
        if u.repeated:
            note = tag(
                "p", "--again appends once more what was uploaded before.", class_="fsn-foot"
            )
        return card(f"Upload to {name}", title, figures(shown), note)

    def __repr__(self) -> str:
        return repr(self.uploaded)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}
