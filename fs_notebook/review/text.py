"""One thing of the catalog as one text: a TOML header in comments, then what its author wrote.

    -- fs-notebook feature
    -- name = "reading_time"
    -- entity = ["user"]
    -- ---
    SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user;

Nothing in a file is ever executed: SQL is parsed, Polars is kept as the tree that the catalog has.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fs_notebook.catalog.about import Deprecation, Notes, Words
from fs_notebook.catalog.definition import AnyDefinition, Definition
from fs_notebook.catalog.model import Group, View
from fs_notebook.errors import UsageError
from fs_notebook.log.protocol import Stream

FEATURE, VIEW, STREAM = "feature", "view", "stream"
SIGN = "fs-notebook"
_FENCE = "---"
_COMMENTS = {"sql": "--", "polars": "#"}
# What `%%feature` calls them; none of them changes words.
OPTIONS = ("window", "closed", "resolution", "ttl", "request")


@dataclass(frozen=True)
class Filed:
    """What a file says.

    Attributes
    ----------
    kind
        ``"feature"`` (a group), ``"view"`` or ``"stream"``.
    text
        SQL or Python as its author wrote it.
    options
        Of a feature, as `%%feature` takes them.
    polars
        The tree behind Polars; its text is for reading only.
    stream
        A stream's declaration.
    """

    kind: str
    name: str
    text: str = ""
    language: str = "sql"
    words: Words = field(default_factory=Words)
    entity: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    deprecated: tuple[str | None, str | None] | None = None
    polars: Mapping[str, Any] | None = None
    stream: Mapping[str, Any] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    """What is there to be read only: version, fingerprint, sources."""


def filed_group(group: Group, sources: tuple[str, ...]) -> Filed:
    """Return what a file says of a group: of its draft, or else of the version that is wanted."""
    d: AnyDefinition = group.latest
    said = {n: d.options.get(n) for n in OPTIONS}
    options = {n: v for n, v in said.items() if v not in (None, "", "left")}
    if d.options.get("stream"):
        options["stream"] = d.options["stream"]
    known = group.by_fingerprint(d.fingerprint)
    return Filed(
        FEATURE, group.name, d.text, d.language, Words.of(d),
        tuple(d.options.get("entity") or ()), options, _why(group.deprecated),
        d.options.get("polars") if isinstance(d, Definition) else None,
        about={
            "version": 0 if known is None else known.number, "fingerprint": d.fingerprint[:16],
            "features": [f"{o.name} {o.type.value}" for o in d.plan.outputs],
            "sources": list(sources),
        },
    )  # fmt: skip


def filed_view(view: View, notes: Notes) -> Filed:
    """Return what a file says of a view."""
    words = Words(notes.words.owner, view.description, notes.words.tags)
    polars = None if view.polars is None else view.polars.to_json()
    language = "sql" if polars is None else "polars"
    return Filed(
        VIEW, view.name, view.text, language, words, deprecated=_why(notes.deprecated),
        polars=polars, about={"sources": list(view.streams or (view.source,))},
    )  # fmt: skip


def filed_stream(stream: Stream, notes: Notes, description: str | None) -> Filed:
    """Return what a file says of a stream's declaration."""
    words = Words(notes.words.owner, description, notes.words.tags)
    declared = {n: v for n, v in stream.to_dict().items() if n != "name" and v not in (None, [])}
    return Filed(STREAM, stream.name, words=words, deprecated=_why(notes.deprecated),
                 stream=declared)  # fmt: skip


def _why(deprecated: Deprecation | None) -> tuple[str | None, str | None] | None:
    return None if deprecated is None else (deprecated.reason, deprecated.instead)


def to_text(filed: Filed) -> str:
    """Return the file's text; the same thing gives the same text, to the byte."""
    header: dict[str, Any] = {"name": filed.name}
    if filed.entity:
        header["entity"] = list(filed.entity)
    if filed.words.description:
        header["description"] = filed.words.description
    if filed.words.owner:
        header["owner"] = filed.words.owner
    if filed.words.tags:
        header["tags"] = list(filed.words.tags)
    header |= filed.options
    if filed.deprecated is not None:
        reason, instead = filed.deprecated
        header["deprecated"] = reason or ""
        header |= {"instead": instead} if instead else {}
    if filed.stream is not None:
        header |= filed.stream
    header |= filed.about
    if filed.polars is not None:
        # What tells that the Python was edited, which means nothing to an import.
        header["text"] = _digest(filed.text)
    lines = [f"{key} = {_toml(value)}" for key, value in header.items()]
    if filed.kind == STREAM:
        return "\n".join([f"# {SIGN} {filed.kind}", *lines]) + "\n"
    mark = _COMMENTS[filed.language]
    head = [f"{mark} {line}" for line in (f"{SIGN} {filed.kind}", *lines, _FENCE)]
    return "\n".join([*head, filed.text.strip("\n")]) + "\n"


def is_ours(text: str) -> bool:
    """Tell whether a file was written by an export, or in its form."""
    first = text.split("\n", 1)[0]
    return any(first.startswith(f"{mark} {SIGN} ") for mark in ("--", "#"))


def from_text(text: str, polars: str | None = None) -> Filed:
    """Return what a file says.

    Parameters
    ----------
    polars
        The text of the tree's file, where there is one.

    Raises
    ------
    UsageError
        If it is not in the form of an export; says which line is odd.
    """
    if not is_ours(text):
        raise UsageError(
            "This is no file of a catalog's export.", found=text.split("\n", 1)[0][:80],
            remedy=f"-- {SIGN} feature, then a header in comments, -- ---, and the SQL",
        )  # fmt: skip
    text = text.replace("\r\n", "\n")
    mark = "--" if text.startswith("--") else "#"
    kind = text.split("\n", 1)[0].removeprefix(f"{mark} {SIGN} ").strip()
    if kind not in (FEATURE, VIEW, STREAM):
        raise UsageError("The file is of no known kind.", found=kind[:80], remedy=FEATURE)
    if kind == STREAM:
        header, body = _parsed(text), ""
    else:
        head, fence, body = text.partition(f"\n{mark} {_FENCE}\n")
        if not fence:
            raise UsageError(
                "The file's header has no end.", remedy=f"a line {mark} {_FENCE} after it"
            )
        lines = head.split("\n")[1:]
        if odd := [line for line in lines if not line.startswith(mark)]:
            raise UsageError("The file's header holds what is no comment.", found=odd[0][:80],
                             remedy=f"{mark} name = \"…\"")  # fmt: skip
        header = _parsed("\n".join(line.removeprefix(mark).strip() for line in lines))
    return _filed(kind, header, body.rstrip("\n"), "polars" if mark == "#" else "sql", polars)


def _filed(
    kind: str, header: dict[str, Any], body: str, language: str, polars: str | None
) -> Filed:
    name = header.get("name")
    if not isinstance(name, str) or not name:
        raise UsageError("The file's header has no name.", remedy='name = "reading_time"')
    texts = ("description", "owner", "deprecated", "instead", *OPTIONS, "text")
    for key in texts:
        if not isinstance(header.get(key, ""), str):
            raise UsageError(f"In the header of {name!r} {key} is a text.", found=repr(header[key]),
                             remedy=f"{key} = \"…\"")  # fmt: skip
    for key in ("entity", "tags"):
        found = header.get(key, [])
        if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
            raise UsageError(f"In the header of {name!r} {key} is a list of texts.",
                             found=repr(found)[:80], remedy=f'{key} = ["user"]')  # fmt: skip
    words = Words(header.get("owner") or None, header.get("description") or None,
                  tuple(header.get("tags", ())))  # fmt: skip
    deprecated = None
    if "deprecated" in header:
        deprecated = (header["deprecated"] or None, header.get("instead") or None)
    if kind == STREAM:
        own = ("name", "description", "owner", "tags", "deprecated", "instead")
        declared = {k: v for k, v in header.items() if k not in own}
        return Filed(kind, name, words=words, deprecated=deprecated, stream=declared)
    options = {k: header[k] for k in (*OPTIONS, "stream") if k in header}
    tree = None
    if language == "polars":
        if polars is None:
            raise UsageError(
                f"The tree of {name!r} is missing: Python is never run by an import.",
                remedy="the file that the export wrote beside it, or run its cell in a notebook",
            )
        if header.get("text") != _digest(body):
            raise UsageError(
                f"The Python of {name!r} was edited: it is there to be read, and is never run.",
                remedy="run the changed cell in a notebook, then export again",
            )
        tree = _tree(name, polars)
    return Filed(kind, name, body, language, words, tuple(header.get("entity", ())), options,
                 deprecated, tree)  # fmt: skip


def tree_text(filed: Filed) -> str:
    """Return the text of the file that holds the tree behind Polars."""
    return json.dumps(filed.polars, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _tree(name: str, text: str) -> Mapping[str, Any]:
    try:
        tree = json.loads(text)
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise UsageError(f"The tree of {name!r} is no JSON object.", remedy="export it again")
    return tree


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("The file's header is no TOML.", found=str(error),
                         remedy='name = "reading_time"') from None  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip("\n").encode()).hexdigest()[:16]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON text is a TOML one but for the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(v) for v in value)}]"
    return str(value)
