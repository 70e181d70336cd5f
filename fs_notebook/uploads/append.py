"""Appending pieces to a stream, each slice durable for itself, noted so that it can go on.

What is uploaded `once` is known by its content. Before each slice the catalog is told how many
rows are dealt with, how many come next and where the stream ends: whoever goes on, after an
interrupt or a kill, knows which rows may be there unnoted, and looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import urlsplit

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.entries import Upload
from fs_notebook.catalog.model import UPLOADED
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, Progress
from fs_notebook.errors import ConflictError, FeatureStoreError, Interrupted, UsageError
from fs_notebook.ingest import digest_of
from fs_notebook.log.protocol import EventLog, Stream
from fs_notebook.position import START, Cut
from fs_notebook.processes import interrupts_held
from fs_notebook.uploads.pieces import Piece

_TRIES_MAX = 20


@dataclass(frozen=True)
class Appended:
    """What became of an upload.

    Attributes
    ----------
    rows
        Events appended now.
    known
        Events that were not, since their id was there already.
    repeated, pieces_repeated, before
        Events and pieces that were uploaded before, and when the last of them was.
    """

    rows: int = 0
    known: int = 0
    repeated: int = 0
    pieces_repeated: int = 0
    before: datetime | None = None


@dataclass
class _Course:
    """A piece on its way: `rows` of it are dealt with, `chain` is their digest."""

    piece: Piece
    digest: str | None
    rows: int = 0
    chain: str = ""
    doubt: int = 0
    cut: Cut = START
    unnoted: bool = False
    begun_at: int = 0

    @property
    def left(self) -> float:
        """What of its weight is still to be done."""
        about = max(self.piece.rows_about, self.rows, 1)
        return self.piece.weight * (1 - self.rows / about)


class Appender:
    """Appends pieces to one stream.

    Parameters
    ----------
    rows_max
        The most rows that become durable together: what an interrupt waits for.
    """

    def __init__(
        self, catalog: Catalog, log: EventLog, stream: Stream, *, clock: Clock, rows_max: int,
        on_progress: OnProgress,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._log = log
        self._stream = stream
        self._clock = clock
        self._rows_max = rows_max
        self._on_progress = on_progress
        self._appended = 0
        self._known = 0
        # A broker lets nobody else write meanwhile, so there it is not asked for.
        self._guarded = urlsplit(log.url).scheme == "embedded"
        self._begun_s = clock.monotonic_s()

    def run(self, pieces: Sequence[Piece], *, once: bool) -> Appended:
        """Append what is not there yet.

        Raises
        ------
        UsageError
            If a row does not fit; says what was appended before it.
        Interrupted
            If the user interrupts; says how far it came.
        """
        courses: list[_Course] = []
        repeated, before = [], []
        for piece in pieces:
            digest = self._digest(piece) if once else None
            noted = self._noted().get(digest) if digest is not None else None
            same = next((c for c in courses if digest is not None and c.digest == digest), None)
            if same is not None:
                repeated.append(piece.rows_about)
            elif noted is not None and self._is_whole(noted, piece):
                repeated.append(noted.rows)
                before.append(noted.at)
            else:
                courses.append(self._course(piece, digest, noted))
        self._begun_s = self._clock.monotonic_s()
        for number, course in enumerate(courses):
            self._follow(courses, number, course)
        return Appended(
            self._appended, self._known, sum(repeated), len(repeated), max(before, default=None)
        )

    def _noted(self) -> Mapping[str, Upload]:
        return self._catalog.refresh().source(self._stream.name).uploads

    def _digest(self, piece: Piece) -> str:
        if piece.name is not None:
            self._report(None, f"looking at {piece.name}")
        return piece.digest()

    def _is_whole(self, noted: Upload, piece: Piece) -> bool:
        return noted.whole or (piece.name is None and noted.rows == piece.rows_about)

    def _course(self, piece: Piece, digest: str | None, noted: Upload | None) -> _Course:
        if digest is not None and noted is None and piece.name is not None:
            noted = self._same_beginning(piece)
        if noted is None:
            return _Course(piece, digest)
        return _Course(
            piece, digest, noted.rows, noted.chain, noted.next, noted.cut, begun_at=noted.rows
        )

    def _same_beginning(self, piece: Piece) -> Upload | None:
        """Return how far the upload of a file came that has another ending by now."""
        begun = [
            u for u in self._noted().values() if u.file == piece.name and not u.whole and u.chain
        ]
        if not begun:
            return None
        chain, rows, chains = "", 0, {0: ""}
        last = max(u.rows for u in begun)
        with suppress(UsageError):
            for part in piece.slices(0, self._rows_max):
                if rows >= last:
                    break
                rows += part.height
                chain = _linked(chain, part)
                chains[rows] = chain
        same = [u for u in begun if chains.get(u.rows) == u.chain]
        return max(same, key=lambda u: u.rows, default=None)

    def _follow(self, courses: Sequence[_Course], number: int, course: _Course) -> None:
        """Append the rest of one piece, in slices that are durable each for itself."""
        try:
            for part in course.piece.slices(course.rows, self._rows_max):
                self._step(course, part)
                self._report(_share(courses, number), _what(courses, number))
            self._note(course, whole=True)
        except KeyboardInterrupt:
            self._settle(course)
            raise Interrupted(self._left_behind(courses, number)) from None
        except UsageError as error:
            self._settle(course)
            raise self._told(error, course) from None

    def _step(self, course: _Course, part: pl.DataFrame) -> None:
        rows = part
        if self._stream.id is not None:
            rows = part.unique(self._stream.id, keep="first", maintain_order=True)
        elif course.doubt:
            doubt = part.head(course.doubt)
            rows = pl.concat([self._missing(doubt, course.cut), part.slice(course.doubt)])
            course.doubt = max(course.doubt - part.height, 0)
        if course.digest is not None:
            self._note(course, next_=part.height)
        cut = START
        for _ in range(_TRIES_MAX):
            expected: Cut | None = None
            if self._stream.id is not None:
                end = self._log.end(self._stream.name)
                rows = self._unknown(rows, cut, end)
                cut, expected = end, end if self._guarded and rows.height else None
            try:
                self._store(course, part, rows, expected)
                return
            except ConflictError:
                # Somebody appended since: maybe the very same events.
                if expected is None:
                    raise
        raise ConflictError(
            f"Others append to {self._stream.name!r} too fast for ids to be compared.",
            found=f"{_TRIES_MAX} lost races", remedy="run it again",
        )  # fmt: skip

    def _store(
        self, course: _Course, part: pl.DataFrame, rows: pl.DataFrame, expected: Cut | None
    ) -> None:
        """Append `rows`, which is what of `part` is new."""
        # An interrupt between storing and counting would make what is told wrong.
        with interrupts_held():
            if rows.height:
                self._log.append(self._stream, rows, expected=expected)
            course.rows += part.height
            self._appended += rows.height
            self._known += 0 if self._stream.id is None else part.height - rows.height
            course.unnoted = True
            if course.digest is not None:
                course.chain = _linked(course.chain, part)

    def _unknown(self, rows: pl.DataFrame, start: Cut, end: Cut) -> pl.DataFrame:
        """Return those of `rows` whose id is nobody's in (start, end].

        The same event has the same event time: only that stretch of history is read.
        """
        column = self._stream.id
        assert column is not None
        low, high = self._times(rows)
        found = [
            batch.rows.select(column).join(rows.select(column), on=column, how="semi")
            for batch in self._log.read(
                self._stream, start=start, end=end, columns=[column], time_from_us=low,
                time_to_us=high,
            )
        ]  # fmt: skip
        if not found:
            return rows
        return rows.join(pl.concat(found), on=column, how="anti", maintain_order="left")

    def _times(self, rows: pl.DataFrame) -> tuple[int | None, int | None]:
        """Return the bounds [from, to) of the rows' event times, where they have their own."""
        if self._stream.time is None or not rows.height:
            return None, None
        times = rows[self._stream.time].to_physical()
        return int(times.min()), int(times.max()) + 1  # type: ignore[arg-type]

    def _missing(self, rows: pl.DataFrame, cut: Cut) -> pl.DataFrame:
        """Return those of `rows` that were not stored behind `cut`, each as often as it is."""
        low, high = self._times(rows)
        mine = _numbered(rows)
        end = self._log.end(self._stream.name)
        stored: list[pl.DataFrame] = []
        for batch in self._log.read(
            self._stream, start=cut, end=end, time_from_us=low, time_to_us=high
        ):
            there = batch.rows.select(self._stream.names)
            hashes = there.select(pl.struct(pl.all()).hash().alias(_HASH))
            stored.append(hashes.join(mine, on=_HASH, how="semi"))
        if not stored:
            return rows
        counts = pl.concat(stored).group_by(_HASH).len(_COUNT)
        kept = mine.join(counts, on=_HASH, how="left", maintain_order="left").select(
            pl.col(_NUMBER) > pl.col(_COUNT).fill_null(0)
        )
        return rows.filter(kept.to_series())

    def _note(self, course: _Course, *, whole: bool = False, next_: int = 0) -> None:
        if course.digest is None:
            return
        body: dict[str, object] = {
            "digest": course.digest, "rows": course.rows, "chain": course.chain,
        }  # fmt: skip
        body |= {"file": course.piece.name} if course.piece.name is not None else {}
        body |= {"whole": True} if whole else {}
        if next_:
            cut = self._log.end(self._stream.name)
            body |= {"next": next_, "cut": cut.to_json()}
        with interrupts_held():
            self._catalog.record(UPLOADED, self._stream.name, body)
            course.unnoted = False

    def _settle(self, course: _Course) -> None:
        """Note what is stored and was not noted; where that fails, the next try looks for it."""
        if course.unnoted:
            with suppress(FeatureStoreError):
                self._note(course)

    def _report(self, share: float | None, what: str) -> None:
        elapsed_s = self._clock.monotonic_s() - self._begun_s
        self._on_progress(Progress(share, self._appended, elapsed_s, what))

    def _left_behind(self, courses: Sequence[_Course], number: int) -> str:
        course = courses[number]
        stream = self._stream.name
        if course.piece.name is None:
            told = f"{course.rows:,} of {course.piece.rows_about:,} events are in {stream!r}."
        else:
            told = (
                f"{self._appended:,} events were appended to {stream!r}: {number:,} of "
                f"{len(courses):,} files, and {course.piece.name} up to its row {course.rows:,}."
            )
        rest = f"append the rest, from row {course.rows:,} on"
        if course.digest is not None:
            rest = "run it again: it goes on from there"
        elif course.piece.name is not None:
            rest += f" of {course.piece.name}"
        return f"Interrupted: {told}\n  Try: {rest}"

    def _told(self, error: UsageError, course: _Course) -> UsageError:
        if not self._appended and not course.rows:
            return error
        told = f"{self._appended:,} events before that were appended to {self._stream.name!r}"
        found = told if error.found is None else f"{error.found}; {told}"
        remedy = error.remedy
        if course.digest is not None:
            again = f"run it again then: it goes on from row {course.rows + 1:,}"
            remedy = again if remedy is None else f"{remedy}; {again}"
        return UsageError(error.message, found=found, remedy=remedy)


_HASH, _NUMBER, _COUNT = "__hash", "__number", "__count"


def _numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """Return each row's hash, and the how-manieth of its kind it is, from 1."""
    hashes = rows.select(pl.struct(pl.all()).hash().alias(_HASH))
    return hashes.with_columns(pl.col(_HASH).cum_count().over(_HASH).alias(_NUMBER))


def _linked(chain: str, part: pl.DataFrame) -> str:
    return sha256((chain + digest_of(part)).encode()).hexdigest()


def _share(courses: Sequence[_Course], number: int) -> float:
    total = sum(_whole(c) for c in courses)
    left = sum(c.left for c in courses[number:])
    return 1.0 if not total else min(max(1 - left / total, 0.0), 1.0)


def _whole(course: _Course) -> float:
    # What a former try stored is no pace of this one.
    about = max(course.piece.rows_about, course.begun_at, 1)
    return course.piece.weight * (1 - course.begun_at / about)


def _what(courses: Sequence[_Course], number: int) -> str:
    name = courses[number].piece.name
    if name is None:
        return "uploading"
    return name if len(courses) == 1 else f"{name} ({number + 1} of {len(courses)})"
