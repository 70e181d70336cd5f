"""The `%%feature` cell: one header line of options, then the definition. Parsed in one place."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from fs_notebook.errors import UsageError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
MAGIC = "%%feature"
_POLARS = re.compile(r"\bpl\.(?:col|len|lit|when|sum|count)\(|\bfs\.stream\(")
_SELECT = re.compile(r"\bselect\b", re.IGNORECASE)


class OptionParser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"{self.prog}: {message}.", remedy=" ".join(self.format_usage().split()[1:])
        )

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or f"{self.prog} ended.", remedy=self.format_usage().strip())


@dataclass(frozen=True)
class Cell:
    """A parsed `%%feature` cell."""

    name: str
    text: str
    source: str
    entity: tuple[str, ...] = ()
    window: str | None = None
    closed: str = "left"
    resolution: str | None = None
    ttl: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    language: str = "sql"
    stream: str | None = None
    last: str | None = None
    from_: str | None = None
    to: str | None = None
    sample: str | None = None
    request: str | None = None
    with_: tuple[str, ...] = ()
    refresh_statistics: bool = False


def cell_parser() -> OptionParser:
    """Return the parser of the header line's options."""
    parser = OptionParser(prog=MAGIC, add_help=False)
    parser.add_argument("name", help="the feature group's name")
    parser.add_argument("--entity", "-e", help="what the key's columns are called: user,article")
    parser.add_argument("--window", help="the window of aggregates that say none: 7d, 12h")
    parser.add_argument("--closed", choices=["left", "right"], default="left",
                        help="left: [t - window, t); right: (t - window, t]")  # fmt: skip
    parser.add_argument("--resolution", help="floor the windows' tails to multiples of: 1h, 5m")
    parser.add_argument("--ttl", help="null once an entity's newest event is older: 30d, 12h")
    parser.add_argument("--description", "-d", help="one sentence for the catalog")
    parser.add_argument("--tags", help="for the catalog: reading,ranking")
    parser.add_argument("--owner", help="who answers for it; default: who promotes it")
    parser.add_argument("--language", "-l", choices=["sql", "polars"], default="sql",
                        help="polars: the cell's last line is a Polars expression")  # fmt: skip
    parser.add_argument("--stream", "-s", help="what a Polars feature reads; SQL says it in FROM")
    parser.add_argument("--request", help="types of request values: amount DOUBLE, day DATE")
    parser.add_argument("--refresh-statistics", action="store_true",
                        help="measure anew what is pinned: of Z_SCORE(x) and its kin")  # fmt: skip
    add_slice(parser)
    return parser


def add_slice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a preview's slice of history."""
    parser.add_argument("--last", help="only the stream's newest stretch: 30d, 12h")
    parser.add_argument("--from", dest="from_", help="only events at or after this time")
    parser.add_argument("--to", help="only events before this time")
    parser.add_argument("--sample", help="at most so many entities (1000), or a share (5%%)")
    parser.add_argument("--with", dest="with_", action="append", default=[],
                        help="a request value for the preview: amount=12.5")  # fmt: skip


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the parts of ``a,b``, stripped, without empty ones."""
    return tuple(p.strip() for p in (text or "").split(",") if p.strip())


def parse_sample(text: str | None) -> float | None:
    """Return 1000.0 for ``1000`` and 0.05 for ``5%``."""
    if text is None:
        return None
    try:
        if text.endswith("%"):
            return min(float(text[:-1]) / 100, 1 - 1e-9)
        count = float(text)
    except ValueError:
        count = -1.0
    if count <= 0 or (count >= 1 and count != int(count)):
        raise UsageError("--sample is not a number of entities.", found=repr(text),
                         remedy="--sample 1000, or --sample 5%")  # fmt: skip
    return count


def split_values(texts: Iterable[str]) -> dict[str, str]:
    """Return name → value of texts like ``amount=12.5``."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or name.strip() in values:
            raise UsageError("--with gives a request value, once.", found=repr(text),
                             remedy="--with amount=12.5")  # fmt: skip
        values[name.strip()] = value.strip()
    return values


def check_name(name: str, *, what: str = "A feature's name") -> str:
    """Return `name` if it can name a feature; raise `UsageError` otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(
            f"{what} has letters, digits and underscores only.",
            found=repr(name)[:120],
            remedy="reading_time",
        )
    return name


def split_line(line: str, *, magic: str = MAGIC) -> list[str]:
    """Split a header line as a shell does."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{magic}: {error}.", found=line, remedy="close the quotes") from None


def parse_cell(line: str, body: str) -> Cell:
    """Parse a cell from its header (without ``%%feature``) and its body."""
    options = cell_parser().parse_args(split_line(line))
    if options.language == "sql" and _POLARS.search(body) and not _SELECT.search(body):
        raise UsageError(
            "This looks like Polars, not like SQL.", found=body.strip().splitlines()[-1][:80],
            remedy=f"{MAGIC} {options.name} -l polars …",
        )  # fmt: skip
    return Cell(
        name=check_name(options.name), text=body.strip("\n"),
        source=f"{MAGIC} {line.strip()}\n{body}", entity=split_names(options.entity),
        window=options.window, closed=options.closed, resolution=options.resolution,
        ttl=options.ttl, description=options.description,
        tags=split_names(options.tags), owner=options.owner, language=options.language,
        stream=options.stream,
        last=options.last, from_=options.from_, to=options.to, sample=options.sample,
        request=options.request, with_=tuple(options.with_),
        refresh_statistics=options.refresh_statistics,
    )  # fmt: skip


def parse_source(source: str) -> Cell:
    """Parse a whole cell, as it stands in the notebook."""
    first, _, body = source.lstrip().partition("\n")
    if first.split(" ", 1)[0].strip() != MAGIC:
        raise UsageError(
            "This is no feature cell.", found=first[:80], remedy="%%feature NAME, then SQL"
        )
    return parse_cell(first.removeprefix(MAGIC), body)
