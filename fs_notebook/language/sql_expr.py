"""SQL expressions, as sqlglot parses them, into typed expressions of the plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlglot import exp

from fs_notebook.clock import to_us
from fs_notebook.errors import DefinitionError, FeatureStoreError, near_names, unknown_name
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.calls import ALIASES, is_aggregate
from fs_notebook.language.casts import cast_type, written_decimal
from fs_notebook.language.expr import Call, Column, Expr, Literal
from fs_notebook.language.functions import CASTS, FUNCTIONS, PARTS, castable, result_type
from fs_notebook.language.sql_calls import qualified, special_call
from fs_notebook.types import Type

UNITS_US = {
    "MICROSECOND": 1,
    "MILLISECOND": 1_000,
    "SECOND": 1_000_000,
    "MINUTE": 60_000_000,
    "HOUR": 3_600_000_000,
    "DAY": 86_400_000_000,
    "WEEK": 7 * 86_400_000_000,
}

TRUNCATE_UNITS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")

_BINARY: dict[type[exp.Expr], str] = {
    exp.Add: "add",
    exp.Sub: "subtract",
    exp.Mul: "multiply",
    exp.Div: "divide",
    exp.IntDiv: "int_divide",
    exp.Mod: "modulo",
    exp.EQ: "eq",
    exp.NEQ: "ne",
    exp.LT: "lt",
    exp.LTE: "le",
    exp.GT: "gt",
    exp.GTE: "ge",
    exp.And: "and",
    exp.Or: "or",
    exp.Like: "like",
    exp.StartsWith: "starts_with",
    exp.Contains: "contains",
    exp.Pow: "power",
}
_UNARY: dict[type[exp.Expr], str] = {
    exp.Neg: "negate",
    exp.Not: "not",
    exp.Abs: "abs",
    exp.Sign: "sign",
    exp.Floor: "floor",
    exp.Ceil: "ceil",
    exp.Sqrt: "sqrt",
    exp.Exp: "exp",
    exp.Ln: "ln",
    exp.Lower: "lower",
    exp.Upper: "upper",
    exp.Sin: "sin",
    exp.Cos: "cos",
    exp.IsNan: "is_nan",
    exp.Second: "second",
    exp.Year: "year",
    exp.Quarter: "quarter",
    exp.Month: "month",
    exp.Week: "week",
    exp.Day: "day",
    exp.DayOfMonth: "day",
    exp.DayOfWeek: "dow",
    exp.DayOfWeekIso: "isodow",
    exp.DayOfYear: "doy",
    exp.Hour: "hour",
    exp.Minute: "minute",
    exp.TimeToUnix: "epoch",
}
_VARIADIC: dict[type[exp.Expr], str] = {
    exp.Coalesce: "coalesce",
    exp.Greatest: "greatest",
    exp.Least: "least",
}
_NAMED = {
    "LOG10": "log10", "LOG2": "log2", "CONTAINS": "contains", "ROUND_EVEN": "round_even",
}  # fmt: skip
_CALLED = re.compile(r"[A-Za-z_]\w*\s*\(\s*(?:DISTINCT\s+)?$", re.IGNORECASE)


def place(node: exp.Expr, text: str) -> tuple[int | None, int | None]:
    """Return the line and column (from 1) in `text` where `node` begins, if the parser kept it."""
    starts = [n.meta["start"] for n in node.walk() if n.meta.get("start") is not None]
    if not starts or min(starts) > len(text):
        return None, None
    before = text[: min(starts)]
    if (
        node.meta.get("start") is None
        and isinstance(node, exp.Func)
        and (called := _CALLED.search(before)) is not None
    ):
        # The parser keeps no place of most functions' names: it is just before their argument.
        before = before[: called.start()]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def refuse(
    node: exp.Expr, text: str, message: str, *, found: str | None = None, remedy: str
) -> DefinitionError:
    """Build the error that points at `node` in `text`."""
    line, column = place(node, text)
    shown = found if found is not None else node.sql(dialect="duckdb")
    return DefinitionError(message, found=shown, remedy=remedy, line=line, column=column, text=text)


def interval_us(node: exp.Expr, text: str) -> int:
    """Return the microseconds of ``INTERVAL '7' DAY`` and its kin."""
    remedy = "INTERVAL '7' DAY; units: SECOND, MINUTE, HOUR, DAY, WEEK"
    if not isinstance(node, exp.Interval):
        raise refuse(node, text, "This is not an interval.", remedy=remedy)
    unit = node.args.get("unit")
    name = unit.name.upper().rstrip("S") if unit is not None else ""
    if name in ("MONTH", "YEAR", "QUARTER"):
        raise refuse(
            node, text, f"A {name.lower()} has no fixed length.", remedy="INTERVAL '30' DAY"
        )
    value = node.this
    sign = 1
    if isinstance(value, exp.Neg):
        value, sign = value.this, -1
    try:
        us = float(value.name) * UNITS_US[name] * sign
    except (KeyError, ValueError):
        raise refuse(node, text, "This interval cannot be read.", remedy=remedy) from None
    if us != int(us):
        raise refuse(node, text, "This interval is finer than a microsecond.", remedy=remedy)
    return int(us)


@dataclass(frozen=True)
class Translator:
    """Turns sqlglot's tree of one statement into typed expressions.

    Attributes
    ----------
    text
        The user's own text, for errors that point into it.
    columns
        What a row has.
    source
        What errors call the thing that has them.
    on_aggregate
        Called for an aggregate (or a window over one); None where none may stand.
    bindings
        What columns stand for, where rows are transformed before.
    qualified
        What columns with an alias before them stand for, where several streams are joined.
    """

    text: str
    columns: tuple[tuple[str, Type], ...]
    source: str
    on_aggregate: Callable[[exp.Expr], Expr] | None = None
    bindings: Mapping[str, Expr] = field(default_factory=dict)
    qualified: Mapping[str, Expr] = field(default_factory=dict)

    def column(self, node: exp.Column) -> Expr:
        """Return what a column stands for: itself, or what its row's transform puts there."""
        qualified = f"{node.table}.{node.name}"
        if node.table and qualified in self.qualified:
            return self.qualified[qualified]
        name = self.name_of(node)
        return self.bindings[name] if name in self.bindings else Column(name, self._type_of(name))

    def label(self, node: exp.Column) -> str:
        """Return what a column is called without what stands before its point."""
        return node.name if f"{node.table}.{node.name}" in self.qualified else self.name_of(node)

    def _type_of(self, name: str) -> Type:
        return next(kind for known, kind in self.columns if known == name)

    def name_of(self, node: exp.Column) -> str:
        """Resolve a column: by its exact name, else by the only one that differs in case."""
        names = [name for name, _ in self.columns]
        name = node.name
        if name not in names and not node.this.args.get("quoted"):
            alike = [n for n in names if n.casefold() == name.casefold()]
            name = alike[0] if len(alike) == 1 else name
        if name in names:
            return name
        line, column = place(node, self.text)
        if len(meant := [q for q in self.qualified if q.endswith(f".{name}")]) > 1:
            raise DefinitionError(
                f"The column {name!r} is in more than one of the joined streams.",
                found=", ".join(meant), remedy="one of these", line=line, column=column,
                text=self.text,
            )  # fmt: skip
        error = unknown_name(f"column in {self.source!r}", node.name, names)
        raise DefinitionError(
            error.message,
            found=error.found,
            remedy=error.remedy or "one of those names",
            line=line,
            column=column,
            text=self.text,
        )

    def __call__(self, node: exp.Expr | None) -> Expr:
        if node is None:
            # The parser takes some operators without what they stand before.
            raise DefinitionError(
                "An operator has nothing to work on.", remedy="an expression behind it",
                text=self.text,
            )  # fmt: skip
        try:
            return self._translate(node)
        except DefinitionError as error:
            if error.line is None:
                error.line, error.column = place(node, self.text)
                error.text = self.text
            raise

    def call(self, function: str, *args: Expr) -> Call:
        """Apply a function, coercing text literals beside times, and check the types."""
        if function in ("eq", "ne", "lt", "le", "gt", "ge", "in", "subtract", "coalesce"):
            kinds = {a.type for a in args}
            if kinds == {Type.VARCHAR, Type.TIMESTAMP} or kinds == {Type.VARCHAR, Type.DATE}:
                target = (kinds - {Type.VARCHAR}).pop()
                args = tuple(_temporal_literal(a, target) for a in args)
        if function == "in":
            args = (args[0], *membership(args[1:]))
        return Call(function, args, result_type(function, [a.type for a in args]))

    def _translate(self, node: exp.Expr) -> Expr:
        kind = type(node)
        if isinstance(node, exp.Paren):
            return self(node.this)
        if isinstance(node, exp.Column):
            return qualified(self, node) or self.column(node)
        if isinstance(node, (exp.Literal, exp.Boolean, exp.Null, exp.Interval)):
            return self._literal(node)
        if isinstance(node, (exp.Window, exp.Filter)) or is_aggregate(node):
            return self._aggregate(node)
        if isinstance(node, exp.Like) and not (
            isinstance(node.expression, exp.Literal) and node.expression.args.get("is_string")
        ):
            raise refuse(
                node, self.text, "LIKE takes a pattern that is written out.",
                remedy="genre LIKE 'news%', or CONTAINS(a, b), STARTS_WITH(a, b)",
            )  # fmt: skip
        if kind in _BINARY:
            return self.call(_BINARY[kind], self(node.this), self(node.expression))
        if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
            inner = self._literal(node.this)
            if isinstance(inner.value, (int, float)):
                return Literal(-inner.value, inner.type)
        if kind in _UNARY and not any(v for k, v in node.args.items() if k != "this"):
            return self.call(_UNARY[kind], self(node.this))
        if kind in _VARIADIC:
            return self.call(_VARIADIC[kind], self(node.this), *map(self, node.expressions))
        return special_call(self, node) or self._special(node)

    def _aggregate(self, node: exp.Expr) -> Expr:
        inner = node
        while isinstance(inner, (exp.Window, exp.Filter)):
            inner = inner.this
        if self.on_aggregate is None:
            raise refuse(
                node,
                self.text,
                "An aggregate cannot stand here.",
                remedy="WHERE, GROUP BY and an aggregate's own argument work on single rows",
            )
        return self.on_aggregate(node)

    def _literal(self, node: exp.Expr) -> Literal:
        if isinstance(node, exp.Interval):
            return Literal(interval_us(node, self.text), Type.INTERVAL)
        if isinstance(node, exp.Boolean):
            return Literal(bool(node.this), Type.BOOLEAN)
        if isinstance(node, exp.Null):
            raise refuse(
                node,
                self.text,
                "A bare NULL has no type.",
                remedy="leave out the ELSE, or write CAST(NULL AS DOUBLE)",
            )
        if node.args.get("is_string"):
            return Literal(node.name, Type.VARCHAR)
        try:
            value = int(node.name)
        except ValueError:
            return Literal(float(node.name), Type.DOUBLE)
        if not -(2**63) <= value < 2**63:
            raise refuse(
                node, self.text, "This number does not fit 64 bits.", remedy=f"{float(value)!r}"
            )
        return Literal(value, Type.BIGINT)

    def _special(self, node: exp.Expr) -> Expr:
        if isinstance(node, exp.Is):
            return self._is(node)
        if isinstance(node, exp.Between):
            value = self(node.this)
            low, high = self(node.args["low"]), self(node.args["high"])
            return self.call("and", self.call("ge", value, low), self.call("le", value, high))
        if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
            return self.call("in", self(node.this), *map(self, node.expressions))
        if isinstance(node, exp.If):
            return self._case(None, [node], node.args.get("false"))
        if isinstance(node, exp.Case):
            return self._case(node.this, node.args["ifs"], node.args.get("default"))
        if isinstance(node, exp.Nullif):
            left = self(node.this)
            same = self.call("eq", left, self(node.expression))
            return self.call("case", same, null_of(left.type), left)
        if isinstance(node, (exp.Cast, exp.TryCast)):
            return self._cast(node)
        if isinstance(node, exp.Round):
            return self._round("round", [node.this, node.args.get("decimals")], node)
        if isinstance(node, exp.Substring):
            parts = [node.this, node.args.get("start"), node.args.get("length")]
            return self.call("substring", *(self(p) for p in parts if p is not None))
        if isinstance(node, (exp.DPipe, exp.Concat)):
            parts = (
                [node.this, node.expression] if isinstance(node, exp.DPipe) else node.expressions
            )
            return self.call("concat", *map(self, parts))
        if isinstance(node, exp.Extract):
            return self.part(node.name.lower(), self(node.expression), node)
        if isinstance(node, (exp.TimestampTrunc, exp.DateTrunc)):
            unit = Literal(node.args["unit"].name.lower(), Type.VARCHAR)
            if unit.value not in TRUNCATE_UNITS:
                raise refuse(
                    node, self.text, "There is no such unit of time.",
                    found=str(unit.value), remedy=", ".join(TRUNCATE_UNITS),
                )  # fmt: skip
            return self.call("date_trunc", unit, self(node.this))
        if isinstance(node, exp.Anonymous) and node.name.upper() in _NAMED:
            name = _NAMED[node.name.upper()]
            if name == "round_even":
                return self._round(name, node.expressions, node)
            return self.call(name, *map(self, node.expressions))
        raise self._unsupported(node)

    def _round(self, name: str, parts: Sequence[exp.Expr | None], node: exp.Expr) -> Expr:
        args = [self(p) for p in parts if p is not None]
        digits = args[1:2]
        if digits and not (isinstance(digits[0], Literal) and 0 <= _whole(digits[0]) <= 15):
            raise refuse(
                node, self.text, f"{name.upper()} takes a number of digits from 0 to 15.",
                remedy=f"{name.upper()}(x, 2)",
            )  # fmt: skip
        return self.call(name, *args)

    def part(self, name: str, moment: Expr, node: exp.Expr) -> Call:
        """Take a part, e.g. the hour, out of a time."""
        if name not in PARTS:
            raise refuse(
                node, self.text, "A time has no such part.", found=name, remedy=", ".join(PARTS)
            )
        return self.call(name, moment)

    def _is(self, node: exp.Is) -> Expr:
        if isinstance(node.expression, exp.Null):
            return self.call("is_null", self(node.this))
        if isinstance(node.expression, exp.Boolean):
            truth = Literal(False, Type.BOOLEAN)
            filled = self.call("coalesce", self(node.this), truth)
            if node.expression.this:
                return filled
            other = self.call("not", self(node.this))
            return self.call("coalesce", other, truth)
        raise self._unsupported(node)

    def _case(
        self, subject: exp.Expr | None, ifs: list[exp.Expr], default: exp.Expr | None
    ) -> Expr:
        value = self(subject) if subject is not None else None
        args: list[Expr] = []
        for branch in ifs:
            test = self(branch.this)
            args.append(test if value is None else self.call("eq", value, test))
            args.append(self(branch.args["true"]))
        if default is None or isinstance(default, exp.Null):
            args.append(null_of(args[1].type))
        else:
            args.append(self(default))
        return self.call("case", *args)

    def _cast(self, node: exp.Expr) -> Expr:
        target = cast_type(node.args["to"])
        if target is None:
            raise refuse(
                node,
                self.text,
                "There is no such type to cast to.",
                found=node.args["to"].sql(dialect="duckdb"),
                remedy=", ".join([*(t.value for t in CASTS if CASTS[t]), "DECIMAL(18,2)"]),
            )
        if isinstance(node.this, exp.Null):
            return null_of(target)
        if target.is_decimal and (constant := written_decimal(node.this, target)) is not None:
            return constant
        value = self(node.this)
        if value.type is target:
            return value
        if (
            isinstance(value, Literal)
            and value.type is Type.VARCHAR
            and target
            in (
                Type.TIMESTAMP,
                Type.DATE,
            )
        ):
            return _temporal_literal(value, target)
        if not castable(value.type, target):
            raise refuse(
                node,
                self.text,
                f"A {value.type} cannot be cast to {target}.",
                remedy="a cast between numbers, text, booleans and times that has a meaning",
            )
        return Call(f"cast_{target.value}", (value,), target)

    def _unsupported(self, node: exp.Expr) -> FeatureStoreError:
        if isinstance(node, exp.Anonymous):
            known = [*(n.upper() for n in FUNCTIONS), *(n.upper() for n in (*AGGREGATES, *ALIASES))]
            near = near_names(node.name.upper(), known)
            remedy = f"did you mean {' or '.join(near)}?" if near else "a function of the language"
            return refuse(
                node,
                self.text,
                f"There is no function {node.name}.",
                found=node.sql(dialect="duckdb"),
                remedy=remedy,
            )
        return refuse(
            node,
            self.text,
            "This part of SQL is not in the feature language.",
            remedy="arithmetic, comparisons, CASE, text and time functions over the row's columns",
        )


def _whole(literal: Literal) -> int:
    return literal.value if isinstance(literal.value, int) else -1


def null_of(kind: Type) -> Literal:
    """Return a typed NULL."""
    return Literal(None, kind)


def membership(options: Sequence[Expr]) -> list[Expr]:
    """Return the options of IN, constants sorted and once each: their order means nothing."""
    constants = {o for o in options if isinstance(o, Literal)}
    ordered = sorted(constants, key=lambda o: (o.type.value, str(type(o.value)), o.value))
    return [*ordered, *(o for o in options if not isinstance(o, Literal))]


def _temporal_literal(value: Expr, target: Type) -> Expr:
    if not (isinstance(value, Literal) and isinstance(value.value, str)):
        return value
    try:
        if target is Type.DATE:
            return Literal((date.fromisoformat(value.value) - date(1970, 1, 1)).days, target)
        return Literal(to_us(datetime.fromisoformat(value.value)), target)
    except ValueError:
        raise DefinitionError(
            f"{value.value!r} is not a {target.value.lower()}.",
            remedy="'2013-01-31' or '2013-01-31 12:00:00', UTC unless it says otherwise",
        ) from None
