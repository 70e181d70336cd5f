"""From features to a model's columns: what is learnt of the training rows, and applied anywhere.

Everything a column becomes is decided by the rows that it was learnt from, and kept as plain data:
a served value and the training row of the same value give the same numbers, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fs_notebook.errors import UsageError, unknown_name

Floats = npt.NDArray[np.float64]

NUMBER, TIME, SPAN, TEXT, LIST, LENGTH, STRUCT, NOTHING = (
    "number", "time", "span", "text", "list", "length", "struct", "nothing",
)  # fmt: skip
INDICATOR, NAN = "indicator", "nan"
ONE_HOT, CODE = "one_hot", "code"

PLACES_MAX = 1_024
"""A list with more places than this is known to a model by its length only."""

CATEGORY_CHARS_MAX = 200
"""A longer text is no category: it is counted among the others."""

COUNTED_MAX = 100_000
"""How many texts of one column are counted at a time; the rarest are forgotten beyond it."""

_DAY_US = 86_400_000_000
_LARGE = {"float64": 1e300, "float32": 3e38}


@dataclass(frozen=True)
class Options:
    """How columns are encoded.

    Attributes
    ----------
    nulls
        ``"indicator"``: a null is the training rows' mean, and a column beside it tells where it
        was null, if any of them was; ``"nan"``: a null is NaN, for models that take it.
    text
        ``"one_hot"``: a column for each category; ``"code"``: the category's number from 1, 0 for
        a null and for what the training rows did not have.
    categories_max
        How many categories a text has at most, the most frequent ones.
    dtype
        ``"float64"`` or ``"float32"``.
    """

    nulls: str = INDICATOR
    text: str = ONE_HOT
    categories_max: int = 50
    dtype: str = "float64"

    def __post_init__(self) -> None:
        allowed = {"nulls": (INDICATOR, NAN), "text": (ONE_HOT, CODE), "dtype": tuple(_LARGE)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UsageError(
                    f"{name} of an encoder is {' or '.join(map(repr, values))}.",
                    found=repr(getattr(self, name)), remedy=f"{name}={values[0]!r}",
                )  # fmt: skip
        if self.categories_max < 1:
            raise UsageError("A text has one category at least.", found=str(self.categories_max),
                             remedy="categories_max=50")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What one column, one place of a list or one field of a struct becomes.

    Attributes
    ----------
    kind
        What its values are.
    nulls
        Whether the training rows had nulls here.
    fill
        Their mean, that stands for a null: of a number, of days or of seconds.
    origin_us
        Of times: their earliest, in microseconds since the epoch. A time is the days since then.
    categories, others
        Of texts: the categories in alphabetical order, and whether there were more.
    places, length
        Of lists: one part a place, and whether their lengths differ.
    fields
        Of structs: name → part.
    """

    kind: str
    nulls: bool = False
    fill: float = 0.0
    origin_us: int = 0
    categories: tuple[str, ...] = ()
    others: bool = False
    places: tuple[Part, ...] = ()
    length: bool = False
    fields: tuple[tuple[str, Part], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it, fit for `json.dumps`, without what is as ever."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        said |= {"places": [p.to_dict() for p in self.places]}
        said |= {"fields": [(n, p.to_dict()) for n, p in self.fields]}
        return {name: value for name, value in said.items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Part:
        """Return the part that `to_dict` wrote."""
        return cls(**{
            **data,
            "categories": tuple(data.get("categories", ())),
            "places": tuple(map(cls.from_dict, data.get("places", ()))),
            "fields": tuple((n, cls.from_dict(p)) for n, p in data.get("fields", ())),
        })  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """What features become before a model; plain data, learnt once.

    Attributes
    ----------
    columns
        The features in their order, and what each becomes.
    options
        How.
    """

    columns: tuple[tuple[str, Part], ...]
    options: Options = field(default_factory=Options)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features that it reads."""
        return tuple(name for name, _ in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """What the encoded columns are called, in order."""
        return tuple(n for name, part in self.columns for n in _names(name, part, self.options))

    def apply(self, frame: pl.DataFrame) -> npt.NDArray[Any]:
        """Return the features of a frame as numbers.

        Returns
        -------
        ndarray of shape (rows, len(names))
            Of the options' dtype. Infinities are its largest numbers.

        Raises
        ------
        UnknownName
            If a feature is missing.
        UsageError
            If one is of another kind than it was.
        """
        out = np.empty((frame.height, len(self.names)), dtype=self.options.dtype)
        most, at = _LARGE[self.options.dtype], 0
        for name, part in self.columns:
            if name not in frame.columns:
                raise unknown_name(
                    "column to encode", name, frame.columns, remedy="give all that it was learnt of"
                )
            for block in _blocks(name, part, frame.get_column(name), self.options):
                width = block.shape[1]
                np.clip(block, -most, most, out=out[:, at : at + width], casting="unsafe")
                at += width
        assert at == out.shape[1]
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, fit for `json.dumps`."""
        return {
            "columns": [[n, p.to_dict()] for n, p in self.columns],
            "options": asdict(self.options),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Encoding:
        """Return the encoding that `to_dict` wrote."""
        columns = tuple((n, Part.from_dict(p)) for n, p in data["columns"])
        return cls(columns, Options(**data["options"]))

    def __str__(self) -> str:
        told = []
        for name, part in self.columns:
            made = list(_names(name, part, self.options))
            shown = ", ".join(made[:4]) + (f", … ({len(made)})" if len(made) > 4 else "")
            told.append(f"{name} → {shown or 'nothing'}")
        return "\n".join(told)


class Learner:
    """Learns an encoding of rows that come in batches, of any sizes.

    Parameters
    ----------
    columns
        Which columns, in which order; None: all that the first batch has.
    options
        How they are to be encoded.
    """

    def __init__(self, columns: Sequence[str] | None, options: Options) -> None:
        self.options = options
        self.rows = 0
        self._seen: dict[str, _Seen] | None = None
        self._columns = columns

    def take(self, frame: pl.DataFrame) -> None:
        """Learn of some more rows."""
        if self._seen is None:
            names = frame.columns if self._columns is None else self._columns
            self._seen = {name: _Seen() for name in names}
        for name, seen in self._seen.items():
            if name not in frame.columns:
                raise unknown_name("column to encode", name, frame.columns)
            seen.take(name, frame.get_column(name))
        self.rows += frame.height

    def encoding(self) -> Encoding:
        """Return what was learnt.

        Raises
        ------
        UsageError
            If there were no rows, or two encoded columns would have one name.
        """
        if not self.rows or self._seen is None:
            raise UsageError("An encoder learns of rows, and there are none.",
                             remedy="fit it on the training rows")  # fmt: skip
        parts = ((n, s.part(self.rows, self.options)) for n, s in self._seen.items())
        made = Encoding(tuple(parts), self.options)
        names = made.names
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise UsageError(
                "Two encoded columns would have one name.", found=", ".join(twice[:5]),
                remedy="rename a feature",
            )  # fmt: skip
        return made


class _Seen:
    """What was seen so far of a column, a place or a field: sums that batches add to."""

    def __init__(self) -> None:
        self.kind = NOTHING
        self.present = 0
        self.totals: list[float] = []
        self.low: int | None = None
        self.counts: dict[str, int] = {}
        self.places: list[_Seen] = []
        self.lengths: set[int] = set()
        self.fields: dict[str, _Seen] = {}

    def take(self, name: str, column: pl.Series) -> None:
        kind = kind_of(name, column.dtype)
        if kind == NOTHING:
            return
        if self.kind not in (NOTHING, kind) and not (self.kind == LENGTH and kind == LIST):
            raise _other_kind(name, self.kind, column.dtype)
        self.kind = self.kind if self.kind == LENGTH else kind
        if kind == LIST:
            self._take_lists(name, _lists(column))
        elif kind == STRUCT:
            self.present += column.len() - column.null_count()
            for inner in column.struct.fields:
                self.fields.setdefault(inner, _Seen()).take(
                    f"{name}.{inner}", column.struct.field(inner)
                )
        elif kind == TEXT:
            self._take_texts(column)
        else:
            self._take_numbers(kind, column)

    def _take_numbers(self, kind: str, column: pl.Series) -> None:
        values = _numbers(kind, column, 0)
        values = values[~np.isnan(values)]
        self.present += values.size
        finite = values[np.isfinite(values)]
        self.totals += [math.fsum(finite.tolist()), float(finite.size)]
        if kind == TIME:
            low = _microseconds(column).min()
            if isinstance(low, int):
                self.low = low if self.low is None else min(low, self.low)

    def _take_texts(self, column: pl.Series) -> None:
        texts = column.cast(pl.String).drop_nulls()
        self.present += texts.len()
        for text, count in texts.value_counts(name="n").iter_rows():
            self.counts[text] = self.counts.get(text, 0) + count
        if len(self.counts) > COUNTED_MAX:
            ranked = sorted(self.counts.items(), key=lambda c: (-c[1], c[0]))
            self.counts = dict(ranked[: COUNTED_MAX // 2])

    def _take_lists(self, name: str, column: pl.Series) -> None:
        self.present += column.len() - column.null_count()
        self.lengths |= set(column.list.len().drop_nulls().unique().to_list())
        most = max(self.lengths, default=0)
        if self.kind == LENGTH or most > PLACES_MAX:
            self.kind, self.places = LENGTH, []
            return
        self.places += [_Seen() for _ in range(most - len(self.places))]
        for n, place in enumerate(self.places):
            place.take(f"{name}[{n + 1}]", column.list.get(n, null_on_oob=True))

    def part(self, rows: int, options: Options) -> Part:
        """Return what it becomes, of so many rows."""
        lacking = self.present < rows
        if self.kind == LENGTH:
            return Part(LENGTH, lacking)
        if self.kind == LIST:
            places = tuple(p.part(rows, options) for p in self.places)
            return Part(LIST, lacking, places=places, length=lacking or len(self.lengths) > 1)
        if self.kind == STRUCT:
            fields = tuple((n, f.part(rows, options)) for n, f in self.fields.items())
            return Part(STRUCT, lacking, fields=fields)
        if self.kind == TEXT:
            usable = [c for c in self.counts.items() if len(c[0]) <= CATEGORY_CHARS_MAX]
            ranked = sorted(usable, key=lambda c: (-c[1], c[0]))[: options.categories_max]
            others = len(ranked) < len(self.counts)
            return Part(
                TEXT, lacking, categories=tuple(sorted(c for c, _ in ranked)), others=others
            )
        if self.kind == NOTHING:
            return Part(NOTHING, True)
        number, origin = math.fsum(self.totals[1::2]), self.low or 0
        mean = math.fsum(self.totals[::2]) / number if number else 0.0
        if self.kind == TIME:
            mean -= origin / _DAY_US if number else 0.0
        return Part(self.kind, lacking, mean if math.isfinite(mean) else 0.0, origin)


def kind_of(name: str, dtype: pl.DataType) -> str:
    """Return what a column's values are to a model.

    Raises
    ------
    UsageError
        If no model takes them.
    """
    if dtype.is_numeric() or dtype == pl.Boolean:
        return NUMBER
    if dtype == pl.String or isinstance(dtype, (pl.Categorical, pl.Enum)):
        return TEXT
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        return TIME
    if dtype in (pl.Duration, pl.Time):
        return SPAN
    if isinstance(dtype, (pl.List, pl.Array)):
        return LIST
    if isinstance(dtype, pl.Struct):
        return STRUCT
    if dtype == pl.Null:
        return NOTHING
    raise UsageError(
        f"The column {name!r} has a type that no model takes.", found=str(dtype),
        remedy="leave it out, or make numbers of it",
    )  # fmt: skip


def _names(name: str, part: Part, options: Options, *, inside: bool = False) -> Iterator[str]:
    """Yield what a column's encoded columns are called, in the order of `_blocks`."""
    if part.kind == NOTHING:
        return
    if part.kind == STRUCT:
        for inner, one in part.fields:
            yield from _names(f"{name}.{inner}", one, options, inside=inside)
        return
    if part.kind in (LIST, LENGTH):
        if part.kind == LENGTH or part.length:
            yield f"len({name})"
        for n, place in enumerate(part.places):
            # The list's length tells which of its places are there.
            yield from _names(f"{name}[{n + 1}]", place, options, inside=True)
        return
    if part.kind == TEXT and options.text == CODE:
        yield name
        return
    if part.kind == TEXT:
        yield from (f"{name}={c}" for c in part.categories)
        if part.others:
            yield f"{name} is other"
    else:
        yield name
    if part.nulls and not inside and (part.kind == TEXT or options.nulls == INDICATOR):
        yield f"{name} is null"


def _blocks(
    name: str, part: Part, column: pl.Series, options: Options, *, inside: bool = False
) -> Iterator[Floats]:
    """Yield a column's encoded columns, side by side, some at a time."""
    if part.kind == NOTHING:
        return
    kind = kind_of(name, column.dtype)
    rows = column.len()
    if kind not in (NOTHING, part.kind) and not (kind == LIST and part.kind == LENGTH):
        raise _other_kind(name, part.kind, column.dtype)
    if part.kind == STRUCT:
        there = {f.name for f in column.dtype.fields} if kind == STRUCT else set()  # type: ignore[attr-defined]
        for inner, one in part.fields:
            values = column.struct.field(inner) if inner in there else _nulls(rows)
            yield from _blocks(f"{name}.{inner}", one, values, options, inside=inside)
        return
    if part.kind in (LIST, LENGTH):
        lists = _lists(column) if kind == LIST else pl.repeat(None, rows, dtype=_LISTS, eager=True)
        if part.kind == LENGTH or part.length:
            yield _floats(lists.list.len().fill_null(0).cast(pl.Float64))[:, None]
        for n, place in enumerate(part.places):
            values = lists.list.get(n, null_on_oob=True) if kind == LIST else _nulls(rows)
            yield from _blocks(f"{name}[{n + 1}]", place, values, options, inside=True)
        return
    shown = part.nulls and not inside
    if part.kind == TEXT:
        yield from _texts(part, column, options, nulls=shown)
        return
    numbers = _numbers(part.kind, column, part.origin_us)
    absent = np.isnan(numbers)
    if options.nulls == INDICATOR:
        numbers = np.where(absent, part.fill, numbers)
    yield numbers[:, None]
    if shown and options.nulls == INDICATOR:
        yield absent.astype(np.float64)[:, None]


def _texts(part: Part, column: pl.Series, options: Options, *, nulls: bool) -> Iterator[Floats]:
    """Yield a text's code, or its one-hot columns; `nulls`: and where it is null."""
    rows = column.len()
    ranks = pl.DataFrame({"v": pl.Series(part.categories, dtype=pl.String)}).with_row_index("r", 1)
    found = column.cast(pl.String).alias("v").to_frame()
    codes = found.join(ranks, on="v", how="left", maintain_order="left").get_column("r")
    code = codes.fill_null(0).to_numpy().astype(np.int64)
    if options.text == CODE:
        yield code.astype(np.float64)[:, None]
        return
    absent = column.is_null().to_numpy()
    hot = np.zeros((rows, len(part.categories) + 1))
    hot[np.arange(rows), code] = 1.0
    yield hot[:, 1:]
    if part.others:
        yield ((code == 0) & ~absent).astype(np.float64)[:, None]
    if nulls:
        yield absent.astype(np.float64)[:, None]


_LISTS = pl.List(pl.Null)


def _lists(column: pl.Series) -> pl.Series:
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _nulls(rows: int) -> pl.Series:
    return pl.repeat(None, rows, dtype=pl.Null, eager=True)


def _microseconds(column: pl.Series) -> pl.Series:
    return column.cast(pl.Datetime("us")).to_physical()


def _numbers(kind: str, column: pl.Series, origin_us: int) -> Floats:
    """Return numbers; times as days since an origin, lengths and times of day as seconds."""
    if column.dtype == pl.Null:
        return np.full(column.len(), np.nan)
    if kind == TIME:
        return _floats((_microseconds(column) - origin_us).cast(pl.Float64)) / _DAY_US
    if column.dtype == pl.Time:
        return _floats(column.to_physical().cast(pl.Float64)) / 1e9
    if kind == SPAN:
        return _floats(column.cast(pl.Duration("us")).to_physical().cast(pl.Float64)) / 1e6
    return _floats(column.cast(pl.Float64))


def _floats(column: pl.Series) -> Floats:
    return np.asarray(column.fill_null(float("nan")).to_numpy(), dtype=np.float64)


def _other_kind(name: str, kind: str, dtype: pl.DataType) -> UsageError:
    return UsageError(
        f"The column {name!r} was {_AS_TOLD[kind]} when it was learnt.", found=str(dtype),
        remedy="give the type that the training rows have, or learn anew",
    )  # fmt: skip


_AS_TOLD = {
    NUMBER: "a number", TIME: "a time", SPAN: "a length of time", TEXT: "a text", LIST: "a list",
    LENGTH: "a list", STRUCT: "a struct",
}  # fmt: skip
