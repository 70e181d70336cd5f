"""A slow, obvious reference: Python lists and loops, no shared code with the package."""

from __future__ import annotations

import math
from typing import Any


def nan_last(value: Any) -> tuple[int, Any]:
    """Sort key by which NaN is greater than every other number."""
    return (1, 0) if isinstance(value, float) and math.isnan(value) else (0, value)


def aggregate(function: str, values: list[Any], rows: int) -> Any:
    """Fold the non-null `values`; COUNT(*) takes `rows`."""
    if function == "count_star":
        return rows
    if function == "count":
        return len(values)
    if not values:
        return None
    match function:
        case "sum":
            return sum(values) if isinstance(values[0], int) else float_sum(values)
        case "avg":
            if isinstance(values[0], int):
                return sum(values) / len(values)
            return float_sum(values) / len(values)
        case "min":
            return min(values, key=nan_last)
        case "max":
            return max(values, key=nan_last)
    raise AssertionError(function)


def float_sum(values: list[float]) -> float:
    """Sum exactly where that is finite, by IEEE rules where it is not."""
    if all(math.isfinite(v) for v in values):
        return math.fsum(values)
    total = 0.0
    for v in values:
        total += v
    return total


def value(
    events: list[dict[str, Any]],
    *,
    entity: Any,
    t: int,
    function: str,
    column: str,
    window: int | None,
    closed: str = "left",
) -> Any:
    """Return the value of one aggregate of one entity at time `t`."""
    inside = []
    for event in events:
        if event["user"] is None or event["user"] != entity:
            continue
        at = event["t"]
        if closed == "left":
            counts = at < t and (window is None or at >= t - window)
        else:
            counts = at <= t and (window is None or at > t - window)
        if counts:
            inside.append(event)
    values = [e[column] for e in inside if e[column] is not None]
    return aggregate(function, values, len(inside))


def same(a: Any, b: Any) -> bool:
    """Integers and text bit for bit, floats within 1e-9 relative, NaN equal to NaN."""
    if a is None or b is None:
        return a is b
    if isinstance(a, float) and isinstance(b, float):
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b) and type(a) is type(b)
