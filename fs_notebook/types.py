"""The types that columns, expressions and features have, by their SQL names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import polars as pl

from fs_notebook.errors import UsageError

TIME = "__time"
"""The column of event times that every batch carries: UTC microseconds, never null."""

ORDER = ("__order_high", "__order_low")
"""The columns of positions, as two integers that sort like them, where a fold asks for them."""


class Type:
    """A column's type: a scalar, a list (``BIGINT[]``) or a struct (``STRUCT("a" BIGINT)``).

    ``DECIMAL(precision,scale)`` is a scalar too: `precision` digits, `scale` of them behind the
    point.

    Types of one name are one object, so that ``is`` compares them.

    Parameters
    ----------
    value
        The SQL name.

    Raises
    ------
    ValueError
        If there is no such type.

    Attributes
    ----------
    element
        What a list holds; None for other types.
    fields
        Names and types of a struct's fields; empty for other types.
    precision, scale
        How many digits a decimal has, and how many of them behind the point; 0 for other types.

    Examples
    --------
    >>> Type("BIGINT[]").element is Type.BIGINT
    True
    """

    BIGINT: ClassVar[Type]
    DOUBLE: ClassVar[Type]
    VARCHAR: ClassVar[Type]
    BOOLEAN: ClassVar[Type]
    TIMESTAMP: ClassVar[Type]
    DATE: ClassVar[Type]
    INTERVAL: ClassVar[Type]

    value: str
    element: Type | None
    fields: tuple[tuple[str, Type], ...]
    precision: int
    scale: int

    __slots__ = ("element", "fields", "precision", "scale", "value")
    _known: ClassVar[dict[str, Type]] = {}

    def __new__(cls, value: str) -> Type:
        known = cls._known.get(value)
        return known if known is not None else _parsed(value)

    def __reduce__(self) -> tuple[type[Type], tuple[str]]:
        return (Type, (self.value,))

    def __repr__(self) -> str:
        return f"Type({self.value!r})"

    def __str__(self) -> str:
        return self.value

    @property
    def is_number(self) -> bool:
        return self is Type.BIGINT or self is Type.DOUBLE or self.is_decimal

    @property
    def is_decimal(self) -> bool:
        return self.precision > 0

    @property
    def is_temporal(self) -> bool:
        return self in (Type.TIMESTAMP, Type.DATE, Type.INTERVAL)

    @property
    def is_scalar(self) -> bool:
        return self.element is None and not self.fields

    @property
    def holds_temporal(self) -> bool:
        """Whether it is a time, or a list or struct of some."""
        return self.is_temporal or any(t.holds_temporal for t in self._inner)

    @property
    def holds_decimal(self) -> bool:
        """Whether it is a decimal, or a list or struct of some."""
        return self.is_decimal or any(t.holds_decimal for t in self._inner)

    @property
    def _inner(self) -> list[Type]:
        return [self.element] if self.element is not None else [t for _, t in self.fields]

    @property
    def polars(self) -> pl.DataType:
        """The Polars type that carries it: timestamps are microseconds, UTC."""
        if self.element is not None:
            return pl.List(self.element.polars)
        if self.fields:
            return pl.Struct([pl.Field(n, t.polars) for n, t in self.fields])
        if self.is_decimal:
            return pl.Decimal(self.precision, self.scale)
        return _POLARS[self.value]


def _made(
    value: str,
    element: Type | None,
    fields: tuple[tuple[str, Type], ...] = (),
    digits: tuple[int, int] = (0, 0),
) -> Type:
    made: Type = object.__new__(Type)
    made.value, made.element, made.fields = value, element, fields
    made.precision, made.scale = digits
    return Type._known.setdefault(value, made)


PRECISION_MAX = 38
"""How many digits a decimal can have."""


def decimal_of(precision: int, scale: int) -> Type:
    """Return the type of decimals of `precision` digits, `scale` of them behind the point.

    Raises
    ------
    ValueError
        If there is no such type: the precision is 1 to 38, the scale 0 to the precision.

    Examples
    --------
    >>> decimal_of(10, 2)
    Type('DECIMAL(10,2)')
    """
    if not (1 <= precision <= PRECISION_MAX and 0 <= scale <= precision):
        raise ValueError(f"there is no type DECIMAL({precision},{scale})")
    return _made(f"DECIMAL({precision},{scale})", None, (), (precision, scale))


def list_of(element: Type) -> Type:
    """Return the type of lists of `element`."""
    return _made(f"{element.value}[]", element)


def struct_of(fields: Sequence[tuple[str, Type]]) -> Type:
    """Return the type of structs with these fields, in this order."""
    if not fields:
        raise ValueError("a struct has at least one field")
    text = ", ".join(
        f'"{name.replace(chr(34), chr(34) * 2)}" {kind.value}' for name, kind in fields
    )
    return _made(f"STRUCT({text})", None, tuple(fields))


_FIELD = re.compile(r'\s*"((?:[^"]|"")*)"\s+')
_DECIMAL = re.compile(r"DECIMAL\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")


def _parsed(value: str) -> Type:
    if value.endswith("[]"):
        return list_of(Type(value[:-2]))
    if decimal := _DECIMAL.fullmatch(value):
        return decimal_of(int(decimal[1]), int(decimal[2]))
    if not (value.startswith("STRUCT(") and value.endswith(")")):
        raise ValueError(f"there is no type {value!r}")
    inner, fields, at = value[7:-1], [], 0
    while at < len(inner):
        match = _FIELD.match(inner, at)
        if match is None:
            raise ValueError(f"there is no type {value!r}")
        end = _end_of_type(inner, match.end())
        fields.append((match[1].replace('""', '"'), Type(inner[match.end() : end].strip())))
        at = end + 1
    return struct_of(fields)


def _end_of_type(text: str, at: int) -> int:
    """Return where the type that begins at `at` ends: at a comma outside brackets and quotes."""
    depth, quoted = 0, False
    for i in range(at, len(text)):
        if text[i] == '"':
            quoted = not quoted
        elif not quoted and text[i] in "()":
            depth += 1 if text[i] == "(" else -1
        elif not quoted and text[i] == "," and depth == 0:
            return i
    return len(text)


_POLARS: dict[str, pl.DataType] = {
    "BIGINT": pl.Int64(),
    "DOUBLE": pl.Float64(),
    "VARCHAR": pl.String(),
    "BOOLEAN": pl.Boolean(),
    "TIMESTAMP": pl.Datetime("us", "UTC"),
    "DATE": pl.Date(),
    "INTERVAL": pl.Duration("us"),
}
for _name in _POLARS:
    setattr(Type, _name, _made(_name, None))


def type_name(dtype: pl.DataType) -> str:
    """Return what the language calls a Polars dtype; Polars' own name where it has no such type."""
    try:
        return type_of(dtype).value
    except UsageError:
        return str(dtype)


def type_of(dtype: pl.DataType, *, column: str = "") -> Type:
    """Return the type that carries a Polars dtype.

    Raises
    ------
    UsageError
        If no type does; the message names the column.
    """
    if dtype.is_integer():
        return Type.BIGINT
    if dtype.is_float():
        return Type.DOUBLE
    if isinstance(dtype, pl.Decimal):
        return decimal_of(dtype.precision or PRECISION_MAX, dtype.scale)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return Type.VARCHAR
    if dtype == pl.Boolean:
        return Type.BOOLEAN
    if dtype == pl.Datetime:
        return Type.TIMESTAMP
    if dtype == pl.Date:
        return Type.DATE
    if dtype == pl.Duration:
        return Type.INTERVAL
    if isinstance(dtype, (pl.List, pl.Array)):
        inner = dtype.inner
        assert isinstance(inner, pl.DataType)
        # A list of nothing but nulls, or an empty one, is taken as one of text.
        return list_of(Type.VARCHAR if inner == pl.Null else type_of(inner, column=column))
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return struct_of(
            [(f.name, type_of(f.dtype, column=f"{column}.{f.name}")) for f in dtype.fields]  # type: ignore[arg-type]
        )
    raise UsageError(
        f"Column {column!r} has a type that streams do not carry.",
        found=str(dtype),
        remedy="cast it to a number, text, boolean, time, list or struct, or leave the column out",
    )


def conform(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with each column in its canonical Polars type.

    Integers become 64 bits, floats double, times UTC microseconds (naive ones are taken as
    UTC), categories text; decimals stay what they are; a column of nothing but nulls becomes
    text.

    Raises
    ------
    UsageError
        If a column has no type, or a value does not fit its canonical one.
    """
    casts: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        target = pl.String() if dtype == pl.Null else type_of(dtype, column=name).polars
        if dtype == target:
            continue
        column = pl.col(name)
        if isinstance(dtype, pl.Datetime):
            zoned = (
                column.dt.replace_time_zone("UTC")
                if dtype.time_zone is None
                else column.dt.convert_time_zone("UTC")
            )
            casts.append(zoned.dt.cast_time_unit("us"))
        else:
            casts.append(column.cast(target))
    try:
        return frame.with_columns(casts) if casts else frame
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            "A value does not fit the type that streams carry.",
            found=str(error).splitlines()[0],
            remedy="integers have 64 bits, signed; cast larger ones to DOUBLE or text first",
        ) from None
