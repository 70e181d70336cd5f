"""Errors that point into the cell: line and column, with carets under the word.

The lines are the cell's own: its first is the one with the magic. In a notebook the pointing is a
card, in a terminal text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError as ShellUsageError

from fs_notebook.errors import (
    DefinitionError,
    FeatureStoreError,
    NameTaken,
    UnknownName,
    UsageError,
)

LINE_MAX = 1_000
_QUOTED = re.compile(r"'([^'\n]{1,200})'")
_BEFORE, _AFTER = r"(?<![\w.@/-])", r"(?![\w/-])"


@dataclass(frozen=True)
class Place:
    """Where in a cell an error is: lines and columns count from 1."""

    line: int
    column: int
    length: int
    text: str
    """The whole line."""

    @property
    def caret(self) -> str:
        """What stands under the line: carets under the word, tabs kept."""
        before = self.text[: self.column - 1]
        return "".join("\t" if c == "\t" else " " for c in before) + "^" * max(self.length, 1)


def place_in(cell: str, error: FeatureStoreError) -> Place | None:
    """Return where in a cell an error is, None where it does not say.

    Parameters
    ----------
    cell
        The whole cell, or the line of a line magic.
    """
    if isinstance(error, DefinitionError) and error.line is not None and error.text:
        return _said(cell, error.text, error.line, error.column or 1)
    head, _, body = cell.partition("\n")
    for word in _words(error):
        # What a definition names is looked for where definitions are: below the header.
        texts = [(body, 1), (head, 0)] if isinstance(error, UnknownName) else [(head, 0), (body, 1)]
        for text, above in texts:
            found = _whole_word(text, word, is_sql=above == 1)
            if found is not None:
                return _at(cell, found[0] + above, found[1], len(word))
    return None


def _said(cell: str, text: str, line: int, column: int) -> Place | None:
    """Return the place of a line and column of the definition's text, if that is in the cell."""
    _, newline, body = cell.partition("\n")
    stripped = text.strip("\n")
    start = body.find(stripped) if newline else -1
    if start < 0:
        # The text of a view that the cell reads: its own lines are shown by the error itself.
        return None
    skipped = text[: len(text) - len(text.lstrip("\n"))].count("\n")
    number = body[:start].count("\n") + line - skipped
    shown = cell.splitlines()
    if not 0 <= number < len(shown):
        return None
    rest = shown[number][column - 1 :]
    word = re.match(r"\w+|\S", rest)
    return _at(cell, number, column - 1, len(word.group()) if word else 1)


def _at(cell: str, line: int, column: int, length: int) -> Place | None:
    lines = cell.splitlines()
    if not line < len(lines):
        return None
    return Place(line + 1, column + 1, length, lines[line])


def _words(error: FeatureStoreError) -> Iterator[str]:
    """Yield the words of an error that may stand in the cell, the likeliest first."""
    if isinstance(error, UnknownName):
        yield from _QUOTED.findall(error.message)[-1:]
        yield from _QUOTED.findall(error.message)[:1]
    elif isinstance(error, (NameTaken, UsageError)):
        _, unknown, rest = error.message.partition("unrecognized arguments: ")
        if unknown:
            yield rest.split()[0].rstrip(".")
        choice = re.search(r"invalid \w+(?: value)?: '([^']+)'", error.message)
        if choice:
            yield choice.group(1)
        if error.found and " " not in error.found.strip():
            yield error.found.strip().strip("'\"")
        yield from _QUOTED.findall(error.message)
        option = re.match(r"(--[\w-]+) ", error.message)
        if option:
            yield option.group(1)


def _whole_word(text: str, word: str, *, is_sql: bool) -> tuple[int, int] | None:
    """Return line and column, from 0, of a word in a text; SQL's comments are passed over."""
    if not word or "\n" in word:
        return None
    pattern = re.compile(_BEFORE + re.escape(word) + _AFTER)
    for number, line in enumerate(text.splitlines()):
        found = pattern.search(line.partition("--")[0] if is_sql else line)
        if found is not None:
            return number, found.start()
    return None


def told(error: FeatureStoreError, place: Place | None) -> str:
    """Return an error's text, pointing into the cell where its place is known."""
    if place is None:
        return str(error)
    said = FeatureStoreError.__str__(error)
    prefix = f"  line {place.line}: "
    return f"{said}\n{prefix}{place.text}\n{' ' * len(prefix)}{place.caret}"


class ErrorCard:
    """An error that points into a cell, as a card; its text says the same."""

    def __init__(self, error: FeatureStoreError, place: Place) -> None:
        self.error = error
        self.place = place

    def html(self) -> str:
        """Return the card as HTML."""
        from fs_notebook.jupyter.table import card, tag
        from fs_notebook.jupyter.values import clean

        error, place = self.error, self.place
        # A character stays a character, so that places hold.
        shown = clean(place.text, length_max=LINE_MAX)
        start, end = place.column - 1, place.column - 1 + place.length
        mark = tag("mark", shown[start:end] or " ",
                   style="background:rgba(214,58,48,.25);color:inherit;"
                         "text-decoration:underline wavy #d63a30")  # fmt: skip
        pre = tag(
            "pre", tag("span", f"{place.line:>3} │ ", class_="fsn-soft"), shown[:start], mark,
            shown[end:], f"\n    │ {place.caret}", class_="fsn-code",
            aria_label=f"line {place.line}, column {place.column}",
        )  # fmt: skip
        said = [("Found", error.found), ("Try", error.remedy)]
        return card(
            "Error", tag("p", tag("strong", clean(error.message, length_max=600))), pre,
            *(tag("p", tag("span", f"{n}: ", class_="fsn-soft"), clean(v, length_max=600))
              for n, v in said if v),
        )  # fmt: skip

    def __repr__(self) -> str:
        return told(self.error, self.place)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


@contextmanager
def pointed_errors(cell: str = "", *, rich: bool = False) -> Iterator[None]:
    """Show this package's errors as the shell shows a usage error: what, found, try; no trace.

    Parameters
    ----------
    cell
        The cell that they may point into.
    rich
        Whether what shows the cell draws HTML: then where the error is stands in a card.
    """
    try:
        yield
    except FeatureStoreError as error:
        place = place_in(cell, error) if cell else None
        if place is None or not rich:
            raise ShellUsageError(told(error, place)) from None
        from IPython.display import display

        display(ErrorCard(error, place))  # type: ignore[no-untyped-call]
        at = f"line {place.line}, column {place.column}"
        raise ShellUsageError(f"{error.message} ({at})") from None
    except KeyboardInterrupt as interrupt:
        # What was left behind says so itself: see `errors.Interrupted`.
        said = str(interrupt) or "Interrupted; nothing was left half done."
        raise ShellUsageError(said) from None
