"""Training sets that are written to a Parquet file a slice at a time, never held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fs_notebook.errors import UsageError, unknown_name
from fs_notebook.log.protocol import EventLog
from fs_notebook.model.asked import AsOf, Chosen
from fs_notebook.model.card import bytes_text, card, count
from fs_notebook.model.derived import AnyWanted
from fs_notebook.model.digest import column_parts, columns_digest, set_fingerprint
from fs_notebook.model.encoding import Encoding
from fs_notebook.model.export import Numbers
from fs_notebook.model.late import Lateness
from fs_notebook.model.leaks import Leak
from fs_notebook.model.pieces import Piece, TrainingPieces
from fs_notebook.model.sharded import How, sharded_slices
from fs_notebook.model.spread import COLUMNS_MAX, spreads_of
from fs_notebook.model.summary import span_text, summary_tables, summary_text
from fs_notebook.model.training import TrainingSet
from fs_notebook.position import Cut

if TYPE_CHECKING:
    from fs_notebook.model.encoder import FeatureEncoder
    from fs_notebook.model.torch_rows import TrainingStream

BATCH_ROWS = 65_536
SPREAD_ROWS_MAX = 1_000_000
"""Of more rows than that a part tells how they are spread."""
PART_ROWS_MAX = 1_000_000
"""What of it is measured with in memory, unless more is asked for."""
PIECE_ROWS = 4 * BATCH_ROWS
"""What one process of several reads of it at a time."""


@dataclass(frozen=True, eq=False)
class WrittenTrainingSet:
    """Labels and features in a Parquet file, in the labels' order, and how they were made.

    Attributes
    ----------
    path
        The file: the labels' columns, then one column a feature.
    rows
        How many labels.
    label_columns, features
        The names of the two kinds of columns.
    time, keys
        Which label columns are the time and the entities' keys.
    versions
        Feature group → fingerprint of its plan.
    cuts
        Stream → the cut it was read up to.
    first, last
        The labels' oldest and newest time, UTC; None if there are no labels.
    events
        Events read.
    seconds
        How long it took.
    as_of
        Which events count for a label.
    coverage, nulls
        Feature → the share of labels for which it saw any event, and for which it is null.
    leaks, notes
        What looks like a leak, and what else to look at before a model learns of it.
    late, same_time
        How late the streams' events are published; group → the share of labels that have an event
        at their very time, where such events count.
    engine
        Who computed it.
    schema
        Column → its type, as the labels and features have it.
    chosen, entity, origin, name, encoding, set, tasks
        As of a `TrainingSet`.
    """

    path: Path
    rows: int
    label_columns: tuple[str, ...]
    features: tuple[str, ...]
    time: str
    keys: tuple[str, ...]
    versions: Mapping[str, str]
    cuts: Mapping[str, Cut]
    first: datetime | None
    last: datetime | None
    events: int
    seconds: float
    as_of: AsOf
    coverage: Mapping[str, float]
    nulls: Mapping[str, float]
    notes: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    late: tuple[Lateness, ...] = ()
    same_time: Mapping[str, float] = field(default_factory=dict)
    engine: str = "local"
    schema: Mapping[str, pl.DataType] = field(default_factory=dict, repr=False)
    chosen: tuple[Chosen, ...] = field(default=(), repr=False)
    entity: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    encoding: Encoding | None = field(default=None, repr=False)
    set: str | None = None
    tasks: tuple[tuple[int, ...], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return self.rows

    def scan(self) -> pl.LazyFrame:
        """Return the rows, unread."""
        return pl.scan_parquet(self.path)

    def batches(self, *, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, about so many at a time, in bounded memory."""
        yield from self.scan().collect_batches(
            chunk_size=rows, maintain_order=True, engine="streaming"
        )

    def to_polars(self) -> pl.DataFrame:
        """Return all rows, which have to fit memory."""
        return pl.read_parquet(self.path)

    def part(self, rows: int = PART_ROWS_MAX, *, together: str | None = None) -> TrainingSet:
        """Return an even share of the rows, about so many, as a training set in memory.

        Parameters
        ----------
        rows
            How many: of more than that every n-th one is taken.
        together
            A column whose rows of one value are taken all or none: of every n-th value, chosen by
            their hashes.

        Raises
        ------
        UsageError
            If there is no such column, or the share is no share.
        """
        if rows < 1:
            raise UsageError("A part has one row or more.", found=str(rows), remedy="rows=100_000")
        step = max(-(-self.rows // rows), 1)
        scan = self.scan().cast(pl.Schema(self.schema))
        if together is not None and together not in self.schema:
            raise unknown_name("column", together, self.schema)
        if step > 1 and together is not None:
            scan = scan.filter(pl.col(together).hash(0) % step == 0)
        elif step > 1:
            scan = scan.gather_every(step)
        frame = scan.collect(engine="streaming")
        names = {f.name for f in fields(TrainingSet)} & {f.name for f in fields(self)}
        return TrainingSet(frame=frame, **{name: getattr(self, name) for name in names})

    @cached_property
    def fingerprint(self) -> str:
        """As of a `TrainingSet`, 64 hexadecimal digits; read from the file the first time."""
        return set_fingerprint(self)

    @cached_property
    def labels_fingerprint(self) -> str:
        """As of a `TrainingSet`, 64 hexadecimal digits; read from the file the first time."""
        return self._digest(self.label_columns)

    def digest_of(self, column: str) -> str:
        """Return SHA-256 of a column's name, type and values, in hexadecimal digits."""
        return self._digest([column])

    def _digest(self, columns: Sequence[str]) -> str:
        # The file may have a column in another type than the labels: the digest is of theirs.
        types = {name: self.schema[name] for name in columns}
        return columns_digest(types, self.rows, partial(column_parts, self.scan()))

    @property
    def spreads(self) -> dict[str, Any]:
        """As of a `TrainingSet`, a column at a time; of many rows, of every n-th."""
        step = self.rows // SPREAD_ROWS_MAX + 1
        found: dict[str, Any] = {}
        for name in self.features[:COLUMNS_MAX]:
            found |= spreads_of(self.scan().select(name).gather_every(step).collect(), [name])
        return found

    @property
    def pieces(self) -> TrainingPieces:
        """The same rows, to be read a piece at a time by one process or several."""
        starts = range(0, self.rows, PIECE_ROWS)
        return TrainingPieces(
            folder=self.path.parent.absolute(),
            pieces=tuple(
                Piece(self.path.name, min(PIECE_ROWS, self.rows - start), start) for start in starts
            ),
            schema={n: str(t) for n, t in self.scan().collect_schema().items()},
            label_columns=self.label_columns,
            features=self.features,
            name=self.name,
            encoding=self.encoding,
        )

    def encoder(self, **options: Any) -> FeatureEncoder:
        """Return an encoder of its features, fitted a batch at a time: `TrainingPieces.encoder`."""
        return self.pieces.encoder(**options)

    def arrays(
        self, target: str | None = None, **options: Any
    ) -> Iterator[tuple[Numbers, Numbers | None]]:
        """Yield batches as arrays, for a `partial_fit`: `TrainingPieces.arrays`."""
        return self.pieces.arrays(target, **options)

    def to_torch(self, target: str | None = None, **options: Any) -> TrainingStream:
        """Return a PyTorch `IterableDataset` of batches: `TrainingPieces.to_torch`."""
        return self.pieces.to_torch(target, **options)

    def to_tf(self, target: str | None = None, **options: Any) -> Any:
        """Return a `tf.data.Dataset` of batches: `TrainingPieces.to_tf`."""
        return self.pieces.to_tf(target, **options)

    @property
    def _size(self) -> str:
        return bytes_text(self.path.stat().st_size) if self.path.exists() else "gone"

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return (
            f"training set{name} in {self.path} ({self._size}): {summary_text(self)}\n"
            ".scan() reads it lazily, .batches(), .to_torch() and .to_tf() a part at a time"
        )

    def _repr_html_(self) -> str:
        figures = [
            ("labels", count(self.rows)),
            ("features", count(len(self.features))),
            (f"time ({self.time})", span_text(self)),
            ("features are", str(self.as_of)),
            ("file", self._size),
            ("events read", count(self.events)),
            ("took", f"{self.seconds:.2f} s"),
            ("computed", "by Ray" if self.engine == "ray" else "here"),
        ]
        if self.name:
            figures += [
                ("saved as", self.name),
                ("labels' fingerprint", self.labels_fingerprint[:12]),
                ("fingerprint", self.fingerprint[:12]),
            ]
        tables = summary_tables(self, self.schema)
        return card(
            "Training set", figures, subtitle=str(self.path), notes=self.notes, tables=tables
        )


def check_out(out: str | Path) -> Path:
    """Return the Parquet file that is meant, once it can be written.

    Raises
    ------
    UsageError
        If it is no Parquet file's name, or its folder is not there.
    """
    path = Path(out).expanduser()
    if path.suffix not in (".parquet", ".pq"):
        raise UsageError(
            "A training set is written to a Parquet file.", found=str(out),
            remedy=f"out={str(path.with_suffix('.parquet'))!r}",
        )  # fmt: skip
    if not path.parent.is_dir():
        raise UsageError(
            f"There is no folder {str(path.parent)!r} to write a training set into.",
            remedy="make it first",
        )
    return path


def write_training_set(
    labels: Any,
    wanted: AnyWanted,
    log: EventLog,
    out: str | Path,
    *,
    how: How,
    order: Callable[[Sequence[str]], Sequence[str]] = tuple,
    notes: Sequence[str] = (),
    **options: Any,
) -> WrittenTrainingSet:
    """Write what `training_set_of` returns to a Parquet file, in memory of bounded size.

    The file is there once it is whole; one of that name is replaced then.

    Parameters
    ----------
    labels
        A Parquet file's path or a Polars lazy frame, which are read a slice at a time, or a table.
    wanted, log, options
        As for `training_set_of`.
    out
        The file to write.
    how
        How the work is shared out.
    order
        Gives the features' columns in the order that is wanted.
    notes
        What is to be said of it besides.

    Raises
    ------
    UsageError
        If the file cannot be there, or is the labels' own.
    """
    path = check_out(out)
    if isinstance(labels, (str, Path)) and Path(labels).resolve() == path.resolve():
        raise UsageError(
            "A training set cannot be written over its own labels.", found=str(out),
            remedy="another name",
        )  # fmt: skip
    tally = _Tally()
    with (
        sharded_slices(labels, wanted, log, how=how, **options) as (head, slices),
        parquet_writer(path, head.ordered(order(head.features)).frame) as write,
    ):
        for one in slices:
            part = one.ordered(order(one.features))
            tally.add(part)
            write(part.frame)
    made = tally.last
    return WrittenTrainingSet(
        path=path,
        rows=tally.rows,
        label_columns=made.label_columns,
        features=made.features,
        time=made.time,
        keys=made.keys,
        versions=made.versions,
        cuts=made.cuts,
        first=min(tally.firsts, default=None),
        last=max(tally.lasts, default=None),
        events=made.events,
        seconds=made.seconds,
        as_of=made.as_of,
        coverage=tally.shares(tally.covered),
        nulls=tally.shares(tally.nulls),
        notes=(*notes, *(leak.text for leak in tally.leaks)),
        leaks=tally.leaks,
        late=made.late,
        same_time=made.same_time,
        engine=how.engine,
        schema=dict(made.frame.schema),
        chosen=made.chosen,
        entity=made.entity,
        tasks=made.tasks,
    )


class _Tally:
    """What is known of all slices once they have gone by."""

    def __init__(self) -> None:
        self.rows = 0
        self.firsts: list[datetime] = []
        self.lasts: list[datetime] = []
        self.covered: dict[str, int] = {}
        self.nulls: dict[str, int] = {}
        self.leaks: tuple[Leak, ...] = ()

    def add(self, part: TrainingSet) -> None:
        # What is true of a column in every row is true of it in every slice.
        self.leaks = tuple(k for k in self.leaks if k in part.leaks) if self.rows else part.leaks
        self.last = part
        self.rows += part.rows
        if part.first is not None and part.last is not None:
            self.firsts.append(part.first)
            self.lasts.append(part.last)
        for feature in part.features:
            some = int(part.covered[feature].sum())
            nulls = part.frame.get_column(feature).null_count()
            self.covered[feature] = self.covered.get(feature, 0) + some
            self.nulls[feature] = self.nulls.get(feature, 0) + nulls

    def shares(self, counts: Mapping[str, int]) -> dict[str, float]:
        return {name: n / max(self.rows, 1) for name, n in counts.items()}


@contextmanager
def parquet_writer(path: Path, head: pl.DataFrame) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Give what appends frames of the types of `head` to a file, which is there once it is whole.

    Raises
    ------
    UsageError
        If a column's type cannot be in a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = head.to_arrow().schema
    unfinished = path.with_name(f".{path.name}.unfinished")

    def write(frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        writer.write_table(table if table.schema.equals(schema) else table.cast(schema))

    try:
        try:
            writer = pq.ParquetWriter(unfinished, schema, compression="zstd")
        except pa.ArrowNotImplementedError as error:
            raise UsageError(
                "The labels have a column that no Parquet file holds.", found=str(error),
                remedy="cast it, or leave it out",
            ) from None  # fmt: skip
        with writer:
            yield write
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
