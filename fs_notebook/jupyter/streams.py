"""How uploads and streams look in a notebook."""

from __future__ import annotations

from shlex import quote
from typing import Any

from fs_notebook.errors import UsageError
from fs_notebook.inspection import Description, Peek
from fs_notebook.jupyter.display import figures
from fs_notebook.jupyter.table import Column, Table, card, tag
from fs_notebook.jupyter.values import clean, count, moment, short
from fs_notebook.letters import DeadLetters
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
        notes = []
        if u.repeated:
            again = "--again appends once more what was uploaded before."
            notes.append(tag("p", again, class_="fsn-foot"))
        if u.key is not None:
            line = f"%feature declare {quote(u.stream)} --key {quote(u.key)}"
            said = f"No key is declared. If events are of a {clean(u.key)}: "
            notes.append(
                tag("p", said, tag("code", clean(line, length_max=400)), class_="fsn-foot")
            )
        return card(f"Upload to {name}", title, figures(shown), *notes)

    def __repr__(self) -> str:
        return repr(self.uploaded)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


class DeadLetterCard:
    """The events of a stream that could not be read: figures, and a table of the newest."""

    def __init__(self, found: DeadLetters) -> None:
        self.found = found

    def html(self) -> str:
        """Return the card as HTML."""
        f = self.found
        name = clean(f.stream)
        title = tag("p", tag("strong", name), tag("span", "dead letters"), class_="fsn-title")
        figs = [("dead letters", count(f.total)), ("good events", count(f.events))]
        table = None
        if f.total:
            newest = len(f.letters)
            label = "all" if newest == f.total else f"the newest {count(newest)}"
            table = Table(f.rows(), title=f"Dead letters, {label}").markup()
        return card(f"Dead letters of {name}", title, figures(figs), table)

    def __repr__(self) -> str:
        return repr(self.found)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


def columns_of(text: str) -> list[tuple[str, str]]:
    """Return names and types of ``user VARCHAR, amount DOUBLE``; types may hold commas."""
    columns: list[tuple[str, str]] = []
    depth, start = 0, 0
    for end, char in enumerate([*text, ","]):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            name, _, kind = text[start:end].strip().partition(" ")
            if not name or not kind.strip():
                raise UsageError(
                    "--columns takes names and types.", found=text,
                    remedy="--columns 'user VARCHAR, amount DOUBLE'",
                )  # fmt: skip
            columns.append((name, kind.strip()))
            start = end + 1
    return columns


def pairs_of(text: str, option: str) -> dict[str, str]:
    """Return what ``device=key,trace=property trace-id`` says."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise UsageError(
            f"{option} takes columns and where they lie.", found=text,
            remedy=f"{option} \"device=key,trace=property trace-id\"",
        )  # fmt: skip
    return {name.strip(): value.strip() for name, _, value in pairs}


class PeekTable(Table):
    """Some events of a stream, each with its position."""

    def __init__(self, peek: Peek) -> None:
        columns = [
            Column("0", "position", kind="code"),
            Column("1", "published", "UTC"),
            *(
                Column(
                    str(n), name, f"{kind}, event time" if name == peek.stream.time else str(kind)
                )
                for n, (name, kind) in enumerate(peek.stream.columns, 3)
            ),
        ]
        rows = [{str(n): v for n, v in enumerate(row)} for row in peek.events.iter_rows()]
        dead = f", {count(peek.dead)} more could not be decoded" if peek.dead else ""
        super().__init__(
            rows, columns=columns, title=f"{peek.stream.name}: {peek.what}{dead}",
            empty="No event is there.",
        )  # fmt: skip


class DescriptionCard:
    """What is known of a stream: its figures, then its columns."""

    def __init__(self, description: Description) -> None:
        self.description = description

    def html(self) -> str:
        """Return the card as HTML."""
        d = self.description
        name = clean(d.stream.name)
        title = tag("p", tag("strong", name), tag("span", "stream"), class_="fsn-title")
        shown = [(clean(n), clean(text, length_max=200)) for n, text in d.figures()]
        rows = [{"column": n, "type": str(t)} for n, t in d.stream.columns]
        return card(f"Stream {name}", title, figures(shown), Table(rows).markup())

    def __repr__(self) -> str:
        return repr(self.description)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}
