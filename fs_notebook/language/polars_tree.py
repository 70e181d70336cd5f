"""A Polars expression as a tree of plain values: what the catalog keeps of it, and no code.

Polars writes an expression as JSON in some thirty shapes. Here they become one, `Node`, so that
what it means and how it reads are tables by `Node.kind`. Python functions are refused before
anything is kept; what they were pickled into is never read. Constants become the language's own:
64-bit integers, floats, text, booleans, times in UTC microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

import polars as pl

from fs_notebook.decimals import text_of, type_of_decimal
from fs_notebook.errors import DefinitionError, UsageError
from fs_notebook.types import Type, decimal_of, type_of

DEPTH_MAX = 80
"""How many expressions may stand inside each other."""
BYTES_MAX = 1_000_000
"""How long an expression's serialised form may be."""
OPTIONS_MAX = 1_000
"""How many constants `is_in` may be given."""

# Whose name is only the room of a method: {"Boolean": "IsNull"} is the method is_null.
NAMESPACES = {
    "ArrayExpr": "arr.", "BinaryExpr": "bin.", "Bitwise": "bitwise_", "Boolean": "",
    "Business": "dt.", "CategoricalExpr": "cat.", "ListExpr": "list.", "Pow": "",
    "Range": "", "RollingExpr": "rolling_", "RollingExprBy": "rolling_", "StringExpr": "str.",
    "StructExpr": "struct.", "TemporalExpr": "dt.", "Trigonometry": "",
}  # fmt: skip
_PYTHON = ("AnonymousFunction", "AnonymousAgg", "PythonUdf", "FfiPlugin", "PluginV1", "PluginV2")
_CASTS = {
    "Int64": Type.BIGINT, "Float64": Type.DOUBLE, "String": Type.VARCHAR,
    "Boolean": Type.BOOLEAN, "Date": Type.DATE,
}  # fmt: skip
_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_UNITS = {"Nanoseconds": 1_000, "Microseconds": 1, "Milliseconds": 1_000}


@dataclass(frozen=True, slots=True)
class Node:
    """One expression: what it is, what it is made of, and its plain options.

    Attributes
    ----------
    kind
        ``"column"``, ``"literal"``, ``"binary.Plus"``, ``"agg.Sum"``, ``"fn.Boolean.IsNull"``: the
        name that Polars gives it.
    inputs
        The expressions that it is applied to.
    option
        What else it is given, fit for `json.dumps`: a column's name, a constant with its type.
    """

    kind: str
    inputs: tuple[Node, ...] = ()
    option: Any = None

    def walk(self) -> Iterator[Node]:
        """Yield this node and everything inside it."""
        yield self
        for node in self.inputs:
            yield from node.walk()

    def to_json(self) -> list[Any]:
        """Return the canonical tree, fit for `json.dumps`."""
        return [self.kind, [n.to_json() for n in self.inputs], self.option]

    @classmethod
    def from_json(cls, data: list[Any]) -> Node:
        """Return the node that `to_json` wrote."""
        return cls(data[0], tuple(cls.from_json(n) for n in data[1]), data[2])


def tree_of(expr: pl.Expr) -> Node:
    """Return the tree of a Polars expression.

    Raises
    ------
    DefinitionError
        If it holds a Python function, a constant of a foreign type, or is too large.
    """
    try:
        text = expr.meta.serialize(format="json")
    except Exception as error:  # noqa: BLE001
        # Polars pickles a user's function here, and that can fail in any way at all.
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DefinitionError(
            "This expression cannot be stored.", found=found[:200],
            remedy="expressions of columns and constants, without Python functions",
        ) from None  # fmt: skip
    if len(text) > BYTES_MAX:
        raise DefinitionError(
            "This expression is too large.", found=f"{len(text):,} bytes",
            remedy="put long lists of constants into a stream of their own",
        )  # fmt: skip
    try:
        return _node(json.loads(text), 0)
    except RecursionError:
        raise _too_deep() from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise DefinitionError(
            "Polars serialises this expression in a way that is not known here.",
            found=f"Polars {pl.__version__}: {text[:120]}", remedy="another way of writing it",
        ) from None  # fmt: skip


def _too_deep() -> DefinitionError:
    return DefinitionError(
        "This expression is nested too deeply.", found=f"more than {DEPTH_MAX} levels",
        remedy="several features, or fewer steps",
    )  # fmt: skip


def _node(data: Any, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise _too_deep()
    if isinstance(data, str):
        return Node("len" if data == "Len" else data)
    if not isinstance(data, dict) or len(data) != 1:
        raise DefinitionError(
            "Polars serialises this expression in a way that is not known here.",
            found=json.dumps(data)[:120], remedy="another way of writing it",
        )  # fmt: skip
    ((kind, body),) = data.items()
    match kind:
        case "Column":
            return Node("column", (), str(body))
        case "Literal":
            return _literal(body)
        case "Alias":
            return Node("alias", (_node(body[0], depth + 1),), str(body[1]))
        case "BinaryExpr":
            sides = (_node(body["left"], depth + 1), _node(body["right"], depth + 1))
            return Node(f"binary.{body['op']}", sides)
        case "Ternary":
            parts = (body["predicate"], body["truthy"], body["falsy"])
            return Node("ternary", tuple(_node(p, depth + 1) for p in parts))
        case "Agg":
            return _aggregate(body, depth)
        case "Cast":
            return Node("cast", (_node(body["expr"], depth + 1),), _cast(body))
        case "Function":
            inputs = tuple(_node(n, depth + 1) for n in body["input"])
            return Node(*_function(body["function"], inputs))
    if kind in _PYTHON:
        raise DefinitionError(
            "A Python function cannot be stored: the catalog holds no code.",
            found="map_elements, map_batches, or a plugin",
            remedy="Polars' own methods: when/then/otherwise, str, dt, arithmetic",
        )
    return _other(kind, body, depth)


def _other(kind: str, body: Any, depth: int) -> Node:
    """Read what has its inputs under names of their own."""
    parts: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
        "Filter": ("filter", ("input", "by"), ()),
        "Slice": ("slice", ("input", "offset", "length"), ()),
        "SortBy": ("sort_by", ("expr",), ()),
        "Gather": ("gather", ("expr", "idx"), ("returns_scalar",)),
        "Rolling": ("rolling", ("function", "index_column"), ("period", "offset", "closed_window")),
    }
    if kind not in parts:
        inner = next((body[k] for k in ("expr", "input", "function") if k in body), None) if (
            isinstance(body, dict)) else body  # fmt: skip
        readable = isinstance(inner, (dict, str)) and kind != "Selector"
        return Node(kind, (_node(inner, depth + 1),) if readable else ())
    name, inputs, options = parts[kind]
    nodes = [_node(body[i], depth + 1) for i in inputs]
    option: Any = {o: body[o] for o in options} or None
    if kind == "SortBy":
        nodes += [_node(n, depth + 1) for n in body["by"]]
        option = any(body["sort_options"]["descending"])
    return Node(name, tuple(nodes), option)


def _aggregate(body: Any, depth: int) -> Node:
    ((name, inner),) = body.items()
    option: Any = None
    if isinstance(inner, list):
        # The standard deviation's degrees of freedom stand beside its argument.
        inner, option = inner
    elif isinstance(inner, dict) and "input" in inner:
        option = {k: v for k, v in inner.items() if k != "input"}
        inner = inner["input"]
    return Node(f"agg.{name}", (_node(inner, depth + 1),), option)


def _function(function: Any, inputs: tuple[Node, ...]) -> tuple[str, tuple[Node, ...], Any]:
    name, option = function, None
    if isinstance(function, dict):
        ((name, option),) = function.items()
        if name in NAMESPACES:
            inner = option
            if isinstance(inner, dict):
                ((inner, option),) = inner.items()
            else:
                option = None
            name = f"{name}.{inner}"
    if name in _PYTHON:
        raise DefinitionError(
            "A plugin cannot be stored: the catalog holds no code.",
            remedy="Polars' own methods",
        )
    return f"fn.{name}", inputs, option


def _cast(body: Any) -> dict[str, Any]:
    dtype = body["dtype"].get("Literal") if isinstance(body["dtype"], dict) else None
    kind = _CASTS.get(dtype) if isinstance(dtype, str) else None
    if isinstance(dtype, dict) and dtype.get("Datetime", [None])[0] == "Microseconds":
        zone = dtype["Datetime"][1]
        kind = Type.TIMESTAMP if zone in (None, {"inner": "UTC"}) else None
    if isinstance(dtype, dict) and "Decimal" in dtype:
        kind = decimal_of(*dtype["Decimal"])
    shown = dtype if isinstance(dtype, str) else json.dumps(dtype)
    return {"to": kind.value if kind else None, "polars": shown, "mode": body["options"]}


def literal(value: Any, kind: Type | None) -> Node:
    """Return a constant's node; `kind` is None for a null without a type."""
    return Node("literal", (), [value, None if kind is None else kind.value])


def _literal(body: Any) -> Node:
    ((family, inner),) = body.items() if isinstance(body, dict) else [(str(body), None)]
    if family == "Series" and isinstance(inner, list):
        return _constants(inner)
    if family not in ("Dyn", "Scalar") or not isinstance(inner, dict):
        raise _foreign(family)
    ((kind, value),) = inner.items()
    if kind == "List" and isinstance(value, list) and family == "Scalar":
        return _constants(value)
    if kind == "Null":
        return literal(None, _null_type(value))
    if kind == "Int" or kind in _INTEGERS:
        return _integer(value)
    if kind in ("Float", "Float64"):
        if not isinstance(value, (int, float)):
            raise DefinitionError(
                "Polars does not store NaN and infinity as constants.",
                remedy='pl.col("x").is_nan(), is_finite(), fill_nan(0)',
            )
        return literal(float(value), Type.DOUBLE)
    if kind in ("Str", "String"):
        return literal(str(value), Type.VARCHAR)
    if kind == "Boolean":
        return literal(bool(value), Type.BOOLEAN)
    if kind == "Date":
        return literal(int(value), Type.DATE)
    if kind == "Decimal":
        unscaled, _, scale = value
        return _decimal(Decimal(f"{int(unscaled)}e-{int(scale)}"))
    if kind in ("Datetime", "Duration"):
        return literal(_us(*value[:2]), Type.TIMESTAMP if kind == "Datetime" else Type.INTERVAL)
    raise _foreign(kind)


def _foreign(kind: str) -> DefinitionError:
    return DefinitionError(
        "This constant has a type that the language does not know.", found=kind,
        remedy="numbers (pl.Int64, pl.Float64, Decimal), text, booleans, dates, times, durations",
    )  # fmt: skip


def _null_type(dtype: Any) -> Type | None:
    if dtype == "Null":
        return None
    kind = _cast({"dtype": {"Literal": dtype}, "options": ""})["to"]
    if kind is None:
        raise _foreign(json.dumps(dtype))
    return Type(kind)


def _decimal(value: Decimal) -> Node:
    """Return a decimal's node: of as many digits as it has, whatever Polars keeps it in."""
    kind = type_of_decimal(value)
    assert kind is not None
    return literal(text_of(value, kind), kind)


def _integer(value: int) -> Node:
    if not -(2**63) <= value < 2**63:
        raise DefinitionError(
            "This number does not fit 64 bits.", found=str(value)[:60],
            remedy=f"{float(value)!r}" if abs(value) < 2**1000 else "a smaller number",
        )  # fmt: skip
    return literal(value, Type.BIGINT)


def _us(value: int, unit: str) -> int:
    if unit == "Milliseconds":
        return int(value) * _UNITS[unit]
    whole, rest = divmod(int(value), _UNITS[unit])
    if rest:
        raise DefinitionError(
            "This time is finer than a microsecond.", found=f"{value} ns",
            remedy="a time of whole microseconds",
        )  # fmt: skip
    return whole


def _constants(data: list[int]) -> Node:
    """Read a list of constants: Polars writes it as an Arrow stream of one column."""
    series = pl.read_ipc_stream(bytes(data)).to_series()
    if len(series) > OPTIONS_MAX:
        raise DefinitionError(
            f"A list holds {OPTIONS_MAX:,} constants at most.", found=f"{len(series):,}",
            remedy="put them into a column of the stream",
        )  # fmt: skip
    if series.dtype == pl.Null:
        return Node("list", (literal(None, None),) * len(series))
    try:
        kind = type_of(series.dtype)
    except UsageError:
        raise _foreign(f"a list of {series.dtype}") from None
    if kind.is_decimal:
        return Node("list", tuple(literal(v, kind) if v is None else _decimal(v) for v in series))
    if not kind.is_scalar or series.dtype == pl.Float32:
        raise _foreign(f"a list of {series.dtype}")
    if isinstance(series.dtype, (pl.Datetime, pl.Duration)):
        unit = {"ns": "Nanoseconds", "us": "Microseconds", "ms": "Milliseconds"}
        known = unit[str(series.dtype.time_unit)]
        plain = [v if v is None else _us(v, known) for v in series.to_physical().to_list()]
    elif kind in (Type.VARCHAR, Type.BOOLEAN):
        plain = series.cast(kind.polars).to_list()
    else:
        plain = series.to_physical().to_list()
    if kind is Type.DOUBLE and not all(v is None or isfinite(v) for v in plain):
        raise DefinitionError(
            "A list of constants holds NaN or infinity.", remedy="is_nan(), is_infinite()"
        )
    if kind is Type.BIGINT:
        return Node("list", tuple(literal(v, kind) if v is None else _integer(v) for v in plain))
    return Node("list", tuple(literal(v, kind) for v in plain))
