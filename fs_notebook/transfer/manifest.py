"""What lies in an exported stream's folder: its declaration, its parts and their digests."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from fs_notebook.errors import IntegrityError, UsageError
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START, Cut

MANIFEST = "stream.json"
FORMAT = 1
ARCHIVE = ".tar"


@dataclass(frozen=True)
class Transferred:
    """What an export or an import did.

    Attributes
    ----------
    rows
        Events of the stream, those of former tries with them.
    dead
        Events that could not be decoded; they are not among them.
    digest
        Of all the parts; the same in an export and its import.
    positions
        The file that maps old positions to new ones; None for an export.
    """

    stream: str
    where: Path
    rows: int
    dead: int
    digest: str
    positions: Path | None = None

    def __repr__(self) -> str:
        doing = "exported to" if self.positions is None else "imported from"
        text = f"{self.rows:,} events of {self.stream} {doing} {self.where}"
        if self.dead:
            text += f"; {self.dead:,} that could not be decoded are left out"
        if self.positions is not None:
            text += f"; positions old and new: {self.positions}"
        return f"{text}; digest {self.digest[:16]}"


@dataclass(frozen=True)
class Part:
    """A file of events."""

    file: str
    rows: int
    digest: str

    def path(self, folder: Path) -> Path:
        return folder / self.file

    def read(self, folder: Path) -> pl.DataFrame:
        """Return its events.

        Raises
        ------
        IntegrityError
            If it is missing, or not what was written.
        """
        path = self.path(folder)
        if not path.exists() or digest_of_bytes(path) != self.digest:
            raise IntegrityError(
                f"The part {self.file!r} of the export is not what was written.",
                found="another digest" if path.exists() else "no such file",
                remedy="copy it again, or export the stream again",
            )
        return pl.read_parquet(path)


@dataclass(frozen=True)
class Manifest:
    """What an export holds so far.

    Attributes
    ----------
    stream
        The declaration.
    source
        The ledger's address without names and passwords, and the stream's identity there.
    end
        The cut that was frozen when the export began.
    at
        How far it came; it is whole at `end`.
    dead
        How many events could not be decoded, and the first of them: position and reason.
    """

    stream: Stream
    source: str
    end: Cut
    at: Cut = START
    parts: tuple[Part, ...] = ()
    dead: int = 0
    letters: tuple[tuple[str, str], ...] = field(default=())

    @property
    def whole(self) -> bool:
        return self.at == self.end

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def digest(self) -> str:
        """Of all parts, in order, 64 hexadecimal digits."""
        return hashlib.sha256("\n".join(p.digest for p in self.parts).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write it so that it is there whole, or as it was before."""
        data = {
            "format": FORMAT,
            "stream": self.stream.to_dict(),
            "source": self.source,
            "end": self.end.to_json(),
            "at": self.at.to_json(),
            "parts": [[p.file, p.rows, p.digest] for p in self.parts],
            "dead": self.dead,
            "letters": [list(letter) for letter in self.letters],
            "rows": self.rows,
            "digest": self.digest,
        }
        write_whole(folder / MANIFEST, json.dumps(data, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return what `write` wrote, None where nothing was.

        Raises
        ------
        UsageError
            If the file says something else, or contradicts itself.
        """
        path = folder / MANIFEST
        if not path.exists():
            return None
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            found = cls(
                Stream.from_dict(data["stream"]), data["source"], Cut.from_json(data["end"]),
                Cut.from_json(data["at"]), tuple(Part(*part) for part in data["parts"]),
                data["dead"], tuple((at, why) for at, why in data["letters"]),
            )  # fmt: skip
            told = (data["format"], data["rows"], data["digest"])
            names_safe = all(Path(p.file).name == p.file for p in found.parts)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UsageError(
                f"{path.name!r} is no description of an exported stream.",
                found=f"{type(error).__name__}: {error}", remedy="export the stream again",
            ) from None  # fmt: skip
        if told != (FORMAT, found.rows, found.digest) or not names_safe:
            raise IntegrityError(
                f"{path.name!r} contradicts itself.",
                found="another format, count or digest than its parts make",
                remedy="copy it again, or export the stream again",
            )
        return found

    def grown(self, part: Part | None, at: Cut, letters: list[tuple[str, str]]) -> Manifest:
        """Return it with one more part and some more dead letters, at `at`."""
        parts = self.parts if part is None else (*self.parts, part)
        kept = (*self.letters, *letters)[:_LETTERS_MAX]
        dead = self.dead + len(letters)
        return replace(self, parts=parts, at=at, dead=dead, letters=kept)


_LETTERS_MAX = 100


def digest_of_bytes(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole and durable, or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
