"""Feature operations: what models need done to values. Names and type rules.

``MIN_MAX_SCALE(x)``, ``Z_SCORE(x)``, ``QUANTILE_BIN(x, n)`` and ``EMBED(text, 'model')`` leave
something open: statistics, or an embedder's version. `language.pinning` puts them in as constants
before a plan is folded, so that a plan says by itself all that its values depend on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from fs_notebook.decimals import number_of
from fs_notebook.errors import DefinitionError
from fs_notebook.language.expr import Call, Expr, Literal
from fs_notebook.language.rules import Table, common
from fs_notebook.types import Type, list_of

BUCKETS_MAX = 2**31
EDGES_MAX = 1_000
OPTIONS_MAX = 1_000
QUANTILES_MAX = 100
OPEN = {"min_max_scale": 1, "z_score": 1, "quantile_bin": 2, "embed": 2}
"""Operation → how many arguments it has while it is open."""


def _clip(types: Sequence[Type]) -> Type | None:
    fits = len(types) == 3 and all(t.is_number or t in _ORDERED for t in types)
    return common(types) if fits else None


_ORDERED = (Type.TIMESTAMP, Type.DATE, Type.INTERVAL)


def _scale(types: Sequence[Type]) -> Type | None:
    fits = len(types) in (1, 3) and all(t.is_number for t in types)
    return Type.DOUBLE if fits else None


def _bin(types: Sequence[Type]) -> Type | None:
    fits = len(types) > 1 and all(t.is_number for t in types)
    return Type.BIGINT if fits else None


def _quantile_bin(types: Sequence[Type]) -> Type | None:
    fits = len(types) == 2 and types[0].is_number and types[1] is Type.BIGINT
    return Type.BIGINT if fits else None


def _one_hot(types: Sequence[Type]) -> Type | None:
    fits = len(types) > 1 and types[0].is_scalar and common(types) is types[0]
    return list_of(Type.BIGINT) if fits else None


def _hash_bucket(types: Sequence[Type]) -> Type | None:
    # Equal decimals of different types would lie in different buckets.
    scalar = len(types) == 2 and types[0].is_scalar and not types[0].is_decimal
    return Type.BIGINT if scalar and types[1] is Type.BIGINT else None


def _embed(types: Sequence[Type]) -> Type | None:
    wanted = [Type.VARCHAR, Type.VARCHAR, Type.VARCHAR, Type.BIGINT]
    fits = len(types) in (2, 4) and list(types) == wanted[: len(types)]
    return list_of(Type.DOUBLE) if fits else None


TABLE: Table = [
    ("clip", "CLIP(x, low, high)", _clip),
    ("bin", "BIN(x, [edge, …])", _bin),
    ("one_hot", "ONE_HOT(x, [a, b, …])", _one_hot),
    ("hash_bucket", "HASH_BUCKET(x, count)", _hash_bucket),
    ("min_max_scale", "MIN_MAX_SCALE(x [, low, high])", _scale),
    ("z_score", "Z_SCORE(x [, mean, deviation])", _scale),
    ("quantile_bin", "QUANTILE_BIN(x, count)", _quantile_bin),
    ("embed", "EMBED(text, 'model')", _embed),
]


def is_open(expr: Expr) -> bool:
    """Tell whether `expr` is an operation that still leaves something open."""
    return isinstance(expr, Call) and OPEN.get(expr.function) == len(expr.args)


def check_constants(call: Call) -> Call:
    """Return `call` if the constants that its function takes are such, and within bounds.

    Raises
    ------
    DefinitionError
        If not; says what is taken.
    """
    check = _CHECKS.get(call.function)
    if check is not None:
        check(call.args[1:])
    return call


def _values(args: Sequence[Expr], usage: str) -> list[object]:
    values = [
        number_of(a.value, a.type) if a.type.is_decimal else a.value
        for a in args
        if isinstance(a, Literal) and a.value is not None
    ]
    if len(values) != len(args):
        raise DefinitionError(
            f"{usage} takes constants there.", found="an expression or NULL",
            remedy="numbers or texts that are written out",
        )  # fmt: skip
    return list(values)


def _check_clip(args: Sequence[Expr]) -> None:
    low, high = args
    if isinstance(low, Literal) and isinstance(high, Literal):
        values = _values(args, "CLIP(x, low, high)")
        if not values[0] <= values[1]:  # type: ignore[operator]
            raise DefinitionError(
                "CLIP(x, low, high) has its low end above its high one.",
                found=f"{values[0]} and {values[1]}", remedy="CLIP(x, 0, 1)",
            )  # fmt: skip


def _check_bin(args: Sequence[Expr]) -> None:
    edges = [float(v) for v in _values(args, "BIN(x, [edge, …])")]  # type: ignore[arg-type]
    rising = all(a < b for a, b in itertools.pairwise(edges))
    if not rising or len(edges) > EDGES_MAX:
        raise DefinitionError(
            f"BIN takes at most {EDGES_MAX:,} edges, each above the one before.",
            found=", ".join(f"{e:g}" for e in edges[:20]), remedy="BIN(x, [0, 10, 100])",
        )  # fmt: skip


def _check_one_hot(args: Sequence[Expr]) -> None:
    options = _values(args, "ONE_HOT(x, [a, b, …])")
    if len(set(options)) != len(options) or len(options) > OPTIONS_MAX:
        raise DefinitionError(
            f"ONE_HOT takes at most {OPTIONS_MAX:,} values, each once.",
            found=", ".join(map(str, options[:20])), remedy="ONE_HOT(genre, ['news', 'sport'])",
        )  # fmt: skip


def _check_scale(args: Sequence[Expr]) -> None:
    _values(args, "MIN_MAX_SCALE and Z_SCORE")


def _bounded(usage: str, low: int, high: int, args: Sequence[Expr]) -> None:
    (count,) = _values(args, usage)
    if not isinstance(count, int) or not low <= count <= high:
        raise DefinitionError(
            f"{usage} takes a whole number from {low} to {high:,}.", found=str(count),
            remedy=usage.replace("count", "8"),
        )  # fmt: skip


def _check_embed(args: Sequence[Expr]) -> None:
    _values(args, "EMBED(text, 'model')")


_CHECKS = {
    "clip": _check_clip,
    "bin": _check_bin,
    "one_hot": _check_one_hot,
    "min_max_scale": _check_scale,
    "z_score": _check_scale,
    "hash_bucket": lambda args: _bounded("HASH_BUCKET(x, count)", 1, BUCKETS_MAX, args),
    "quantile_bin": lambda args: _bounded("QUANTILE_BIN(x, count)", 2, QUANTILES_MAX, args),
    "embed": _check_embed,
}
