"""Fold states into packed values, and back: what a worker writes and a reader finishes."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import msgpack
import polars as pl

from fs_notebook.compute import buckets, single
from fs_notebook.compute.fold import MOMENT, NEWEST, VALID_UNTIL, Fold, State
from fs_notebook.errors import IntegrityError
from fs_notebook.online.codec import Packed, pack_key, pack_value, unpack_key, unpack_value
from fs_notebook.online.lean import Lean
from fs_notebook.types import TIME

_TEMPORAL = (pl.Datetime, pl.Date, pl.Duration)
_MARK = b"\xc1"
"""Begins a bucket's key: the one byte with which no packed key can begin."""

_NUMBER = struct.Struct(">q")
_WIDE = 1
"""The tag of an integer that does not fit 64 bits, stored as its decimal text."""


def bucket_key(key: bytes, bucket: int) -> bytes:
    """Return the key under which an entity's bucket is stored."""
    return _MARK + _NUMBER.pack(bucket) + key


def is_bucket(key: bytes) -> bool:
    """Tell the key of a bucket from that of an entity."""
    return key.startswith(_MARK)


def entity_of(key: bytes) -> bytes:
    """Return the key of the entity that a bucket is of."""
    return key[len(_MARK) + _NUMBER.size :]


class StateCodec:
    """Packs the states of one plan, an entity a value.

    The events of a split entity's buckets (see `compute.buckets`) lie in values of their own,
    whose keys `is_bucket` tells from those of entities.
    """

    split_rows = 2_000
    """Recent events of an entity above which they are split into buckets."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        skip = len(fold.keys)
        self._recent = list(fold.recent_schema)[skip:]
        self._by = [*fold.keys, buckets.BUCKET]
        self._lean = Lean(fold)

    def keys_of(self, frame: pl.DataFrame) -> list[bytes]:
        """Return the packed key of each row of `frame`, which has the fold's key columns."""
        return list(map(pack_key, _rows(frame, self.fold.keys)))

    def frame_of(self, keys: Sequence[bytes]) -> pl.DataFrame:
        """Return a frame of the fold's key columns, one row a packed key."""
        return pl.DataFrame(
            [unpack_key(k) for k in keys], schema=self.fold.key_schema, orient="row"
        )  # fmt: skip

    def encode(self, state: State) -> dict[bytes, bytes]:
        """Return one packed value for each entity of `state`.

        The values in front are those at t = newest + 1: they depend on the log alone, so the
        same log gives the same bytes, whoever writes them and when.
        """
        finished = _physical(self.fold.values(state, now_us=None))
        outputs = self.fold.plan.features
        lifetime = _physical(state.lifetime)
        assert finished.height == lifetime.height
        # Fold.values keeps the order of the lifetime frame: row by row they are the same entity.
        keys = self.keys_of(state.lifetime)
        recent, parts = self._recent_lists(state), self._bucket_lists(state)
        skip, left_out = len(self.fold.keys), self._lean.left_out
        lean = self._lean.is_lean(lifetime, finished)
        short = _short(finished, outputs)
        heads = _rows(finished, [NEWEST, VALID_UNTIL])
        values = _rows(finished, outputs)
        kept = _rows(lifetime, self._lean.kept)
        packed: dict[bytes, bytes] = {}
        rows = zip(keys, heads, values, kept, lean, short, strict=True)
        for at, (key, (newest, until), value, fields, is_lean, is_short) in enumerate(rows):
            if is_lean:
                body = [fields, recent.get(key), parts.get(key), left_out]
            else:
                body = [lifetime.row(at)[skip:], recent.get(key), parts.get(key)]
            packed[key] = pack_value(newest, until, value, _pack(body), short=is_short)
        return packed

    def _recent_lists(self, state: State) -> dict[bytes, tuple[Any, ...]]:
        recent = state.recent
        if state.buckets is not None:
            recent = recent.join(state.buckets, on=self.fold.keys, how="anti")
        return self._lists(recent)

    def _lists(self, recent: pl.DataFrame) -> dict[bytes, tuple[Any, ...]]:
        """Return recent events by entity, a list a column."""
        if recent.is_empty():
            return {}
        by = self.fold.keys
        columns = [pl.col(c) for c in self._recent]
        grouped = _physical(recent).group_by(by, maintain_order=True).agg(columns)
        originals = recent.select(by).unique(subset=by, keep="first", maintain_order=True)
        rows = (row[len(by) :] for row in grouped.iter_rows())
        return dict(zip(self.keys_of(originals), rows, strict=True))

    def _bucket_lists(self, state: State) -> dict[bytes, list[tuple[Any, ...]]]:
        found: dict[bytes, list[tuple[Any, ...]]] = {}
        if state.buckets is None:
            return found
        skip = len(self.fold.keys)
        ordered = state.buckets.sort(buckets.BUCKET)
        rows = _physical(ordered).iter_rows()
        for key, row in zip(self.keys_of(ordered), rows, strict=True):
            found.setdefault(key, []).append(row[skip:])
        return found

    def decode(self, keys: Sequence[bytes], blobs: Sequence[bytes | None]) -> State:
        """Return the states that `encode` packed, of those `keys` that have one."""
        lifetime: list[tuple[Any, ...]] = []
        recent: list[tuple[Any, ...]] = []
        parts: list[tuple[Any, ...]] = []
        for key, blob in zip(keys, blobs, strict=True):
            if blob is None:
                continue
            name = unpack_key(key)
            value = unpack_value(blob)
            fields, lists, split, *left_out = _unpack(value.state)
            if left_out:
                fields = self._whole(value, fields, left_out[0])
            lifetime.append((*name, *fields))
            if lists is not None:
                recent.append((*name, *lists))
            parts += [(*name, *row) for row in split or ()]
        skip = len(self.fold.keys)
        split_frame = _restored(parts, buckets.schema(self.fold), skip) if parts else None
        return State(self._frame(lifetime), self._exploded(recent), split_frame)

    def _whole(self, value: Packed, kept: list[Any], left_out: int) -> tuple[Any, ...]:
        if left_out != self._lean.left_out or len(kept) != len(self._lean.kept):
            raise IntegrityError(
                "A stored state has other fields than its plan.",
                found=f"{len(kept)} fields beside {left_out} values",
                remedy="promote the feature again to rebuild it from the ledger",
            )
        return self._lean.whole([value.newest_us, value.valid_until_us, *value.values], kept)

    def needed(self, state: State, frame: pl.DataFrame) -> list[bytes]:
        """Return the keys of the buckets without which projected rows cannot be folded in."""
        if state.buckets is None:
            return []
        keys = self.fold.keys
        newest = frame.group_by(keys).agg(pl.col(TIME).max().alias("__here"))
        moments = state.lifetime.join(newest, on=keys, how="left").select(
            *keys, (pl.max_horizontal(NEWEST, "__here") + 1).alias(MOMENT)
        )
        touched = buckets.touched_by(self.fold, state.buckets, frame)
        there = touched.join(state.buckets, on=self._by, how="semi")
        return self._bucket_keys([buckets.cut_through(self.fold, state.buckets, moments), there])

    def needed_by(self, state: State, now_us: int | None) -> frozenset[bytes]:
        """Return the keys of the buckets without which values at `now_us` cannot be finished.

        None for `now_us` means just after each entity's newest event.
        """
        if state.buckets is None:
            return frozenset()
        if state.lifetime.height == 1:
            (key,) = self.keys_of(state.lifetime)
            t = single.moment_of(state, now_us)
            return frozenset(bucket_key(key, n) for n in single.cut(self.fold, state, t))
        moment = pl.col(NEWEST) + 1
        if now_us is not None:
            moment = pl.max_horizontal(moment, pl.lit(now_us, dtype=pl.Int64))
        moments = state.lifetime.select(*self.fold.keys, moment.alias(MOMENT))
        through = buckets.cut_through(self.fold, state.buckets, moments)
        return frozenset(self._bucket_keys([through]))

    def _bucket_keys(self, parts: list[pl.DataFrame]) -> list[bytes]:
        wanted = pl.concat(parts).unique()
        names = self.keys_of(wanted)
        return [bucket_key(k, b) for k, b in zip(names, wanted[buckets.BUCKET], strict=True)]

    def with_buckets(
        self, state: State, keys: Sequence[bytes], blobs: Sequence[bytes | None]
    ) -> State:
        """Return `state` with the events of buckets beside it."""
        parts = [state.recent]
        for key, blob in zip(keys, blobs, strict=True):
            if blob is not None:
                parts.append(self._bucket_rows(unpack_key(entity_of(key)), blob))
        return State(state.lifetime, pl.concat(parts), state.buckets)

    def _bucket_blobs(self, rows: pl.DataFrame) -> dict[bytes, bytes]:
        """Return one Arrow stream for each bucket of `rows`: columns, since they are many."""
        blobs: dict[bytes, bytes] = {}
        for name, part in rows.partition_by(self._by, as_dict=True).items():
            sink = io.BytesIO()
            _physical(part.select(self._recent)).write_ipc_stream(sink)
            *key, bucket = name
            blobs[bucket_key(pack_key(key), bucket)] = sink.getvalue()
        return blobs

    def _bucket_rows(self, name: tuple[Any, ...], blob: bytes) -> pl.DataFrame:
        try:
            events = pl.read_ipc_stream(blob)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise IntegrityError(
                "Stored events of a bucket cannot be read.",
                found=str(error).splitlines()[0],
                remedy="promote the feature again to rebuild it from the ledger",
            ) from None
        schema = self.fold.recent_schema
        keys = [
            pl.lit(v, dtype=schema[k]).alias(k) for k, v in zip(self.fold.keys, name, strict=True)
        ]
        return events.select(*keys, *(pl.col(c).cast(schema[c]) for c in self._recent))

    def changes(
        self, before: State, after: State, frame: pl.DataFrame
    ) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return what to put and what to delete, after projected rows were folded in.

        Splits the entities whose recent events have become many.
        """
        after, fresh = self._split(after)
        puts = self.encode(after)
        if after.buckets is None:
            return puts, []
        touched = buckets.touched_by(self.fold, after.buckets, frame)
        written = pl.concat([touched, fresh.select(self._by)]).unique()
        written = written.join(after.buckets, on=self._by, how="semi")
        number = buckets.bucket_of(self.fold.bucket_us or 1, pl.col(TIME))
        rows = after.recent.with_columns(number).join(written, on=self._by, how="semi")
        puts |= self._bucket_blobs(rows)
        if before.buckets is None:
            return puts, []
        gone = before.buckets.join(after.buckets, on=self._by, how="anti")
        return puts, self._bucket_keys([gone.select(self._by)])

    def _split(self, state: State) -> tuple[State, pl.DataFrame]:
        """Return the state with busy entities split, and the buckets that this made."""
        nothing = pl.DataFrame(schema=buckets.schema(self.fold))
        if self.fold.bucket_us is None or state.recent.height <= self.split_rows:
            return state, nothing
        keys = self.fold.keys
        sizes = state.recent.group_by(keys).len().filter(pl.col("len") > self.split_rows)
        if state.buckets is not None:
            sizes = sizes.join(state.buckets, on=keys, how="anti")
        if sizes.is_empty():
            return state, nothing
        made = buckets.partials(self.fold, state.recent.join(sizes, on=keys, how="semi"))
        known = made if state.buckets is None else pl.concat([state.buckets, made])
        return State(state.lifetime, state.recent, known), made

    def _frame(self, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        return _restored(rows, self.fold.lifetime_schema, len(self.fold.keys))

    def _exploded(self, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        schema = self.fold.recent_schema
        if not rows:
            return pl.DataFrame(schema=schema)
        skip = len(self.fold.keys)
        listed: dict[str, pl.DataType] = {
            name: dtype if i < skip else pl.List(storage(dtype))
            for i, (name, dtype) in enumerate(schema.items())
        }
        frame = pl.DataFrame(rows, schema=listed, orient="row").explode(self._recent)
        return _typed(frame, schema, skip)


def _rows(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of some columns; without a query, whose start costs a small frame much."""
    columns = [frame.get_column(name).to_list() for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * frame.height


def _short(values: pl.DataFrame, names: Sequence[str]) -> list[bool]:
    """Return for each row whether 32 bits hold each of its floats exactly."""
    floats = [name for name in names if values.schema[name] == pl.Float64]
    if not floats:
        return [False] * values.height
    columns = [pl.col(n) for n in floats]
    same = [c.cast(pl.Float32, strict=False).cast(pl.Float64).eq_missing(c) for c in columns]
    return values.select(pl.all_horizontal(same)).to_series().to_list()


def storage(dtype: pl.DataType) -> pl.DataType:
    """Return the type that carries `dtype` in a stored value.

    Times are integers and decimals text, inside lists and structs too.
    """
    if dtype == pl.Decimal:
        return pl.String()
    if dtype == pl.Date:
        return pl.Int32()
    if isinstance(dtype, _TEMPORAL):
        return pl.Int64()
    if isinstance(dtype, pl.List):
        assert isinstance(dtype.inner, pl.DataType)
        return pl.List(storage(dtype.inner))
    if isinstance(dtype, pl.Struct):
        inner = [(f.name, f.dtype) for f in dtype.fields]
        return pl.Struct([pl.Field(n, storage(t)) for n, t in inner if isinstance(t, pl.DataType)])
    return dtype


def _physical(frame: pl.DataFrame) -> pl.DataFrame:
    casts = [
        pl.col(name).cast(storage(dtype))
        for name, dtype in frame.schema.items()
        if storage(dtype) != dtype
    ]
    return frame.with_columns(casts) if casts else frame


def _restored(
    rows: list[tuple[Any, ...]], schema: dict[str, pl.DataType], skip: int
) -> pl.DataFrame:
    stored = {n: t if i < skip else storage(t) for i, (n, t) in enumerate(schema.items())}
    return _typed(pl.DataFrame(rows, schema=stored, orient="row"), schema, skip)


def _typed(frame: pl.DataFrame, schema: dict[str, pl.DataType], skip: int) -> pl.DataFrame:
    casts = [
        pl.col(name).cast(dtype)
        for i, (name, dtype) in enumerate(schema.items())
        if i >= skip and storage(dtype) != dtype
    ]
    return frame.with_columns(casts) if casts else frame


def _pack(value: list[Any]) -> bytes:
    try:
        return bytes(msgpack.packb(value))
    except OverflowError:
        return bytes(msgpack.packb(_widened(value)))


def _widened(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_widened(v) for v in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return msgpack.ExtType(_WIDE, str(value).encode())
    return value


def _unpack(state: bytes) -> list[Any]:
    """Return fields, recent events and buckets, and how many fields are left out, if any are."""
    try:
        parts: list[Any] = msgpack.unpackb(state, ext_hook=_narrowed)
        if len(parts) not in (3, 4):
            raise ValueError(f"{len(parts)} parts")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise IntegrityError(
            "A stored state cannot be read.",
            found=str(error),
            remedy="promote the feature again to rebuild it from the ledger",
        ) from None
    return parts


def _narrowed(tag: int, data: bytes) -> Any:
    if tag == _WIDE:
        return int(data)
    raise ValueError(f"unknown tag {tag}")
