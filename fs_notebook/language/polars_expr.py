"""Polars expressions over one row, or over finished aggregates, into expressions of the plan.

What a method means is the language's own row function wherever the two agree, so that a plan and
its fingerprint equal those of the SQL that says the same. Where Polars means something else there
is either a longer expression with exactly that meaning (``//`` and ``%`` that floor, casts that cut
off, rounding half to even), or the language's rule holds:

- division by zero is null, and so are the logarithm of what is not positive and the root of what
  is negative (Polars: infinity, NaN);
- ``floor``, ``ceil`` and ``**`` give DOUBLE;
- NaN is greater than every other number, in ``pl.max_horizontal`` too;
- integers that overflow are an error, never a wrap;
- a text that does not parse casts to null, by ``cast(strict=True)`` too;
- a product of decimals has the places of both, a quotient is DOUBLE, and a cast to fewer places
  rounds half away from zero (Polars: rounded to the places of one, a decimal, half to even);
- times are UTC microseconds; a time without a zone is taken as UTC.

Everything else is refused: the error shows the method and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fs_notebook.errors import DefinitionError, unknown_name
from fs_notebook.language.expr import Call, Expr
from fs_notebook.language.functions import result_type
from fs_notebook.language.polars_text import method_of, near_methods, shortened
from fs_notebook.language.polars_tree import Node
from fs_notebook.types import Type

SIZE_MAX = 5_000
"""How many parts one translated expression may have."""

_CALLS = {
    "binary.Minus": "subtract", "binary.Multiply": "multiply", "binary.TrueDivide": "divide",
    "binary.Eq": "eq", "binary.NotEq": "ne", "binary.Lt": "lt", "binary.LtEq": "le",
    "binary.Gt": "gt", "binary.GtEq": "ge", "binary.And": "and", "binary.Or": "or",
    "fn.Abs": "abs", "fn.Sign": "sign", "fn.Floor": "floor", "fn.Ceil": "ceil", "fn.Exp": "exp",
    "fn.Pow.Sqrt": "sqrt", "fn.Pow.Generic": "power", "fn.Boolean.IsNull": "is_null",
    "fn.Boolean.Not": "not", "fn.FillNull": "coalesce", "fn.Coalesce": "coalesce",
    "fn.MaxHorizontal": "greatest", "fn.MinHorizontal": "least",
    "fn.StringExpr.Lowercase": "lower", "fn.StringExpr.Uppercase": "upper",
    "fn.StringExpr.LenChars": "length", "fn.StringExpr.StartsWith": "starts_with",
    "fn.TemporalExpr.Year": "year", "fn.TemporalExpr.Quarter": "quarter",
    "fn.TemporalExpr.Month": "month", "fn.TemporalExpr.Week": "week",
    "fn.TemporalExpr.Day": "day", "fn.TemporalExpr.WeekDay": "isodow",
    "fn.TemporalExpr.OrdinalDay": "doy", "fn.TemporalExpr.Hour": "hour",
    "fn.TemporalExpr.Minute": "minute",
}  # fmt: skip

INSTEAD = {
    "fn.Log1p": '(1 + pl.col("x")).log()',
    "fn.Pow.Cbrt": 'pl.col("x") ** (1 / 3)',
    "fn.SumHorizontal": 'pl.col("a") + pl.col("b")',
    "fn.MeanHorizontal": '(pl.col("a") + pl.col("b")) / 2',
    "fn.StringExpr.LenBytes": "str.len_chars()",
    "fn.StringExpr.Tail": "str.slice(offset, length) from the front",
    "fn.TemporalExpr.TimeStamp": (
        '(pl.col("ts") - pl.datetime(1970, 1, 1, time_zone="UTC"))'
        ".dt.total_seconds(fractional=True)"
    ),
    "fn.TemporalExpr.ReplaceTimeZone": "leave it out: times are UTC",
    "Over": "--entity says whose feature it is; --window, or .rolling(…), how far back",
    "Selector": 'one expression a feature: [pl.col(c).sum().alias(f"{c}_sum") for c in ("a", "b")]',
    "RenameAlias": '.alias("name")',
    "KeepName": '.alias("name")',
    "Explode": "one row in, one row out",
    "Element": 'pl.col("x")',
    "Sort": 'pl.col("x").sort_by the event time; the fold has its order already',
    "fn.Shift": "a fold has no neighbours; write the change into the stream",
    "fn.Diff": "a fold has no neighbours; write the change into the stream",
    "fn.CumSum": "the feature is the running total already: .sum()",
    "fn.ValueCounts": "SQL: HISTOGRAM(x), TOP_K_COUNTS(x, 3)",
    "fn.TopK": "SQL: TOP_K(x, 3) has the most frequent values; .max() the greatest",
    "fn.Hist": "SQL: HISTOGRAM_BINS(x, low, high, bins)",
    "fn.EwmMean": "SQL: DECAYED_AVG",
    "fn.EwmMeanBy": "SQL: DECAYED_AVG",
    "fn.Boolean.HasNulls": ".is_null().any()",
    "fn.Product": ".log().sum().exp(), of numbers above 0",
    "agg.Implode": ".tail(1000): lists have bounds",
    "agg.Item": ".last()",
}
"""What to write instead of what the language has not, where that can be said."""


@dataclass(frozen=True)
class PolarsTranslator:
    """Turns one tree into a typed expression.

    Attributes
    ----------
    handlers
        What is more than a call of one function, by the kind of node.
    columns
        What a row has: names, and the expressions over the stream's columns that give them.
    source
        What errors call the thing that has them.
    text
        The user's own text, for errors that point into it; empty where there is none.
    on_aggregate
        Called for every node first where aggregates may stand; gives None for what is none. Bare
        columns cannot stand there.
    """

    handlers: Mapping[str, Handler]
    columns: Mapping[str, Expr]
    source: str
    text: str = ""
    on_aggregate: Callable[[Node], Expr | None] | None = None
    sizes: dict[int, tuple[Expr, int]] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, node: Node) -> Expr:
        if self.on_aggregate is not None:
            aggregated = self.on_aggregate(node)
            if aggregated is not None:
                return aggregated
        expr = self._translate(node)
        self._weigh(expr, node)
        return expr

    def _weigh(self, expr: Expr, node: Node) -> None:
        """Refuse what would be too large written out: parts are shared here, not in a plan."""
        size = 1 + sum(self._size(a) for a in expr.args) if isinstance(expr, Call) else 1
        self.sizes[id(expr)] = (expr, size)
        if size > SIZE_MAX:
            raise self.refuse(
                node, "This expression is too large.", remedy="several features, or fewer steps"
            )

    def _size(self, expr: Expr) -> int:
        if not isinstance(expr, Call):
            return 1
        if id(expr) not in self.sizes:
            self.sizes[id(expr)] = (expr, 1 + sum(map(self._size, expr.args)))
        return self.sizes[id(expr)][1]

    def refuse(
        self, node: Node, message: str, *, remedy: str, found: str | None = None
    ) -> DefinitionError:
        """Build the error that shows `node`, and its place in the text where that can be told."""
        line, column = self.place(node)
        return DefinitionError(
            message, found=found if found is not None else shortened(node), remedy=remedy,
            line=line, column=column, text=self.text or None,
        )  # fmt: skip

    def place(self, node: Node) -> tuple[int | None, int | None]:
        """Return the line and column, from 1, where the text says what `node` is."""
        if node.kind == "column":
            found = re.search(rf"[\"'.]({re.escape(str(node.option))})\b", self.text)
        else:
            called = re.escape(method_of(node.kind).rpartition(".")[2])
            calls = list(re.finditer(rf"\.({called})\s*\(", self.text))
            # Of several calls alike, nothing says which one it is.
            found = calls[0] if len(calls) == 1 else None
        if found is None:
            return None, None
        before = self.text[: found.start(1)]
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def call(self, node: Node, function: str, *args: Expr) -> Expr:
        """Apply a row function and check the types."""
        try:
            kind = result_type(function, [a.type for a in args])
        except DefinitionError as error:
            raise self.refuse(
                node, f"The types do not fit {method_of(node.kind)}.",
                found=f"{shortened(node)} of {', '.join(a.type.value for a in args)}",
                remedy='cast them: pl.col("x").cast(pl.Float64), or compare like with like',
            ) from error  # fmt: skip
        return Call(function, args, kind)

    def condition(self, node: Node) -> Expr:
        """Translate what must be true or false."""
        expr = self(node)
        if expr.type is not Type.BOOLEAN:
            raise self.refuse(
                node, "A condition is true or false.",
                found=f"{shortened(node)}, which is {expr.type}",
                remedy='a comparison: pl.col("x") > 0',
            )  # fmt: skip
        return expr

    def _translate(self, node: Node) -> Expr:
        special = self.handlers.get(node.kind)
        if special is not None:
            return special(self, node)
        function = _CALLS.get(node.kind)
        if function is not None:
            return self.call(node, function, *map(self, node.inputs))
        aggregate = node.kind.startswith("agg.") or node.kind in AGGREGATE_KINDS
        if aggregate and node.kind not in INSTEAD:
            raise self.refuse(
                node, "An aggregate cannot stand here.",
                remedy="a condition and an aggregate's own argument work on single rows",
            )  # fmt: skip
        remedy = INSTEAD.get(node.kind, "")
        if not remedy:
            near = near_methods(node.kind)
            remedy = f"did you mean {' or '.join(near)}?" if near else (
                "arithmetic, comparisons, when/then, str and dt methods, aggregates")  # fmt: skip
        raise self.refuse(
            node, f"The method {method_of(node.kind)} is not in the feature language.",
            remedy=remedy,
        )  # fmt: skip

    def column(self, node: Node) -> Expr:
        """Resolve a column by its exact name."""
        name = str(node.option)
        if self.on_aggregate is not None:
            raise self.refuse(
                node, "A column stands beside an aggregate, outside of it.",
                remedy=f"wrap it: pl.col({name!r}).max()",
            )  # fmt: skip
        if name in self.columns:
            return self.columns[name]
        error = unknown_name(f"column in {self.source!r}", name, self.columns)
        raise self.refuse(
            node, error.message, found=error.found, remedy=error.remedy or "one of those names"
        )


AGGREGATE_KINDS = frozenset({
    "len", "slice", "gather", "filter", "rolling", "sort_by", "fn.ApproxNUnique", "fn.ArgMax",
    "fn.ArgMin", "fn.Boolean.All", "fn.Boolean.Any", "fn.Correlation", "fn.DropNans",
    "fn.DropNulls", "fn.Entropy", "fn.Kurtosis", "fn.MaxBy", "fn.MinBy", "fn.Mode",
    "fn.NullCount", "fn.Quantile", "fn.Reverse", "fn.Skew", "fn.Unique", "fn.UniqueCounts",
})  # fmt: skip
"""What belongs to an aggregate: it stands over many rows."""


Handler = Callable[[PolarsTranslator, Node], Expr]
