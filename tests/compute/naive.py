"""A slow, obvious reference: Python lists and loops, no shared code with the package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any


def nan_last(value: Any) -> tuple[int, Any]:
    """Sort key by which NaN is greater than every other number."""
    return (1, 0) if isinstance(value, float) and math.isnan(value) else (0, value)


def float_sum(values: list[float]) -> float:
    """Sum exactly where that is finite, by IEEE rules where it is not."""
    if all(math.isfinite(v) for v in values):
        return math.fsum(values)
    total = 0.0
    for v in values:
        total += v
    return total


def total(values: list[Any]) -> Any:
    """Sum exactly: floats as far as they can be, integers and decimals to the last digit."""
    if _is_float(values):
        return float_sum(values)
    with localcontext(Context(prec=200)):
        return sum(values)


def average(values: list[Any]) -> float:
    with localcontext(Context(prec=200)):
        mean = total(values) / len(values)
    return float(mean)


@dataclass(frozen=True)
class Inside:
    """The events that count, in (time, position) order, and the time of the question."""

    events: list[dict[str, Any]]
    args: tuple[str, ...]
    params: tuple[Any, ...]
    t: int
    length_us: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The events where no argument is null."""
        return [e for e in self.events if all(e[a] is not None for a in self.args)]

    @property
    def values(self) -> list[Any]:
        return [e[self.args[0]] for e in self.rows]

    @property
    def numbers(self) -> list[float]:
        return [float(v) for v in self.values]

    @property
    def counts(self) -> list[tuple[Any, int]]:
        """Each distinct value and how often it came, in ascending order."""
        keys = ["nan" if isinstance(v, float) and math.isnan(v) else v for v in self.values]
        counted = Counter(keys)
        pairs = [(float("nan") if k == "nan" and _is_float(self.values) else k, n)
                 for k, n in counted.items()]  # fmt: skip
        return sorted(pairs, key=lambda p: nan_last(p[0]))


def _is_float(values: list[Any]) -> bool:
    return any(isinstance(v, float) for v in values)


Reference = Callable[[Inside], Any]


def _unless_empty(function: Callable[[Inside], Any]) -> Reference:
    return lambda i: function(i) if i.values else None


def _central(numbers: list[float], power: int) -> float:
    if not all(math.isfinite(x) for x in numbers):
        return float("nan")
    mean = math.fsum(numbers) / len(numbers)
    return math.fsum((x - mean) ** power for x in numbers)


def _variance(i: Inside, less: int) -> float | None:
    numbers = i.numbers
    return _central(numbers, 2) / (len(numbers) - less) if len(numbers) > less else None


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _skewness(i: Inside) -> float | None:
    x, n = i.numbers, len(i.numbers)
    m2 = _central(x, 2) if x else 0.0
    if n < 3 or not (m2 > 0 or math.isnan(m2)):
        return None
    return n * math.sqrt(n - 1) / (n - 2) * _central(x, 3) / m2**1.5


def _kurtosis(i: Inside) -> float | None:
    x, n = i.numbers, len(i.numbers)
    m2 = _central(x, 2) if x else 0.0
    if n < 4 or not (m2 > 0 or math.isnan(m2)):
        return None
    plain = n * _central(x, 4) / m2**2 - 3
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * plain + 6)


def _covariance(i: Inside, less: int) -> float | None:
    x, y = ([float(e[a]) for e in i.rows] for a in i.args)
    if len(x) <= less:
        return None
    if not all(math.isfinite(v) for v in (*x, *y)):
        return float("nan")
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    total = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return total / (len(x) - less)


def _correlation(i: Inside) -> float | None:
    x, y = ([float(e[a]) for e in i.rows] for a in i.args)
    spreads = [_central(v, 2) if v else 0.0 for v in (x, y)]
    if any(math.isnan(s) for s in spreads):
        return None if any(s == 0 for s in spreads) else float("nan")
    if min(spreads) <= 0:
        return None
    covariance = _covariance(i, 0)
    assert covariance is not None
    return covariance * len(x) / math.sqrt(spreads[0]) / math.sqrt(spreads[1])


def _quantile(i: Inside) -> float | None:
    values = sorted(i.numbers, key=nan_last)
    if not values:
        return None
    place = (len(values) - 1) * i.params[0]
    low, high = values[math.floor(place)], values[math.ceil(place)]
    if low == high or place % 1 == 0:
        return low
    return low + (high - low) * (place % 1)


def _quantile_disc(i: Inside) -> Any:
    values = sorted(i.values, key=nan_last)
    return values[max(math.ceil(len(values) * i.params[0]) - 1, 0)]


def _frequent(i: Inside) -> list[tuple[Any, int]]:
    return sorted(i.counts, key=lambda p: (-p[1], nan_last(p[0])))[: i.params[0]]


def _pairs(pairs: list[tuple[Any, int]]) -> list[dict[str, Any]]:
    return [{"value": v, "count": n} for v, n in pairs]


def _shares(i: Inside) -> list[float]:
    total = sum(n for _, n in i.counts)
    return [n / total for _, n in i.counts]


def _bins(i: Inside) -> list[int]:
    low, high, bins = i.params
    found = [0] * bins
    for x in i.numbers:
        if low <= x <= high:
            found[
                bins - 1 if x == high else min(int((x - low) * (bins / (high - low))), bins - 1)
            ] += 1
    return found


def _newest_distinct(i: Inside) -> list[Any]:
    kept: list[Any] = []
    for value in reversed(i.values):
        if not any(same(value, k) for k in kept):
            kept.append(value)
    return sorted(kept[: i.params[0]], key=nan_last)


def _session_length(i: Inside) -> float | None:
    times = [e["t"] for e in i.events]
    if not times:
        return None
    begin = times[-1]
    for time in reversed(times):
        if begin - time > i.params[0]:
            break
        begin = time
    return (times[-1] - begin) / 1e6


def _weights(i: Inside) -> list[float]:
    return [2.0 ** -((i.t - e["t"]) / i.params[0]) for e in i.rows]


def _decayed_sum(i: Inside) -> float:
    return float_sum([w * float(v) for w, v in zip(_weights(i), i.values, strict=True)])


def _decayed_avg(i: Inside) -> float:
    # Whatever t is, the weights' ratios are the same: beside the newest event none vanishes.
    newest = max(e["t"] for e in i.rows)
    weights = [2.0 ** -((newest - e["t"]) / i.params[0]) for e in i.rows]
    total = float_sum([w * float(v) for w, v in zip(weights, i.values, strict=True)])
    return total / math.fsum(weights)


def _by(i: Inside, *, greatest: bool) -> Any:
    # The first of equals wins: events are in order.
    rows = sorted(i.rows, key=lambda e: nan_last(e[i.args[1]]))
    best = rows[-1 if greatest else 0][i.args[1]]
    if isinstance(best, Decimal):
        return next(e[i.args[0]] for e in i.rows if e[i.args[1]] == best)
    return next(e[i.args[0]] for e in i.rows if same(float(e[i.args[1]]), float(best)))


def _rate(i: Inside) -> float | None:
    if i.length_us is not None:
        return len(i.rows) / (i.length_us / 1e6)
    times = [e["t"] for e in i.rows]
    return len(times) / ((i.t - min(times)) / 1e6) if times and min(times) < i.t else None


def _distinct_sum(i: Inside) -> Any:
    return total([v for v, _ in i.counts])


REFERENCES: dict[str, Reference] = {
    "count": lambda i: len(i.rows),
    "sum": _unless_empty(lambda i: total(i.values)),
    "avg": _unless_empty(lambda i: average(i.values)),
    "min": _unless_empty(lambda i: min(i.values, key=nan_last)),
    "max": _unless_empty(lambda i: max(i.values, key=nan_last)),
    "bool_or": _unless_empty(lambda i: any(i.values)),
    "bool_and": _unless_empty(lambda i: all(i.values)),
    "histogram_bins": _bins,
    "time_since_last": lambda i: (i.t - i.rows[-1]["t"]) / 1e6 if i.rows else None,
    "rate": _rate,
    "decayed_sum": _unless_empty(_decayed_sum),
    "decayed_count": lambda i: math.fsum(_weights(i)),
    "decayed_avg": _unless_empty(_decayed_avg),
    "var_pop": lambda i: _variance(i, 0),
    "var_samp": lambda i: _variance(i, 1),
    "stddev_pop": lambda i: _root(_variance(i, 0)),
    "stddev_samp": lambda i: _root(_variance(i, 1)),
    "skewness": _skewness,
    "kurtosis": _kurtosis,
    "covar_pop": lambda i: _covariance(i, 0),
    "covar_samp": lambda i: _covariance(i, 1),
    "corr": _correlation,
    "n_unique": lambda i: len(i.counts),
    "approx_n_unique": lambda i: len(i.counts),
    "sum_distinct": _unless_empty(_distinct_sum),
    "avg_distinct": _unless_empty(lambda i: average([v for v, _ in i.counts])),
    "mode": _unless_empty(lambda i: min(i.counts, key=lambda p: (-p[1], nan_last(p[0])))[0]),
    "top_k": _unless_empty(lambda i: [v for v, _ in _frequent(i)]),
    "top_k_counts": _unless_empty(lambda i: _pairs(_frequent(i))),
    "histogram": _unless_empty(lambda i: _pairs(i.counts)),
    "entropy": _unless_empty(lambda i: -math.fsum(p * math.log2(p) for p in _shares(i))),
    "gini_simpson": _unless_empty(lambda i: 1 - math.fsum(p * p for p in _shares(i))),
    "quantile_cont": _quantile,
    "quantile_disc": _unless_empty(_quantile_disc),
    "approx_quantile": _unless_empty(lambda i: float(_quantile_disc(i))),
    "last": _unless_empty(lambda i: i.values[-1]),
    "first": _unless_empty(lambda i: i.values[0]),
    "last_n": _unless_empty(lambda i: i.values[::-1][: i.params[0]]),
    "first_n": _unless_empty(lambda i: i.values[: i.params[0]]),
    "collect_list": _unless_empty(lambda i: i.values[-i.params[0] :]),
    "collect_set": _unless_empty(_newest_distinct),
    "arg_max": _unless_empty(lambda i: _by(i, greatest=True)),
    "arg_min": _unless_empty(lambda i: _by(i, greatest=False)),
    "session_length": _session_length,
}
"""For each aggregate its value, from its definition."""


@dataclass(frozen=True)
class When:
    """Which events count at t, by the words of the semantics."""

    window: int | None = None
    closed: str = "left"
    slide: int | None = None
    gap: int | None = None

    def inside(self, events: list[dict[str, Any]], t: int) -> list[dict[str, Any]]:
        end = t if self.slide is None else t // self.slide * self.slide
        # Stable: of one time the position decides, and the log is in its order.
        ordered = sorted(events, key=lambda e: e["t"])
        if self.closed == "left":
            seen = [e for e in ordered if e["t"] < end]
            kept = [e for e in seen if self.window is None or e["t"] >= end - self.window]
        else:
            seen = [e for e in ordered if e["t"] <= end]
            kept = [e for e in seen if self.window is None or e["t"] > end - self.window]
        return kept if self.gap is None else self._session(seen, t)

    def _session(self, seen: list[dict[str, Any]], t: int) -> list[dict[str, Any]]:
        assert self.gap is not None
        session: list[dict[str, Any]] = []
        before = t
        for event in reversed(seen):
            if before - event["t"] > self.gap:
                break
            session.insert(0, event)
            before = event["t"]
        return session

    def end(self, t: int) -> int:
        return t if self.slide is None else t // self.slide * self.slide


def value(
    events: list[dict[str, Any]],
    *,
    entity: Any,
    t: int,
    name: str,
    args: tuple[str, ...],
    params: tuple[Any, ...] = (),
    when: When,
) -> Any:
    """Return the value of one aggregate of one entity at time `t`."""
    mine = [e for e in events if e["user"] is not None and e["user"] == entity]
    inside = Inside(when.inside(mine, t), args, params, when.end(t), when.window)
    return REFERENCES[name](inside)


def same(a: Any, b: Any) -> bool:
    """Integers and text bit for bit, floats within 1e-9 relative, NaN equal to NaN."""
    return alike(a, b, scale=1.0) and type(a) is type(b)


def alike(a: Any, b: Any, *, scale: float, power: int = 1) -> bool:
    """Tell whether two values are equal, floats within 1e-9 of their own size or of `scale`."""
    if a is None or b is None:
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(alike(x, y, scale=scale) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k], scale=scale) for k in a)
    if isinstance(a, float) and isinstance(b, float):
        if math.isnan(a) or math.isnan(b):
            return math.isnan(a) and math.isnan(b)
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9 * scale**power)
    return bool(a == b)


def near(a: float, b: float, relative: float) -> bool:
    """Tell whether an approximation is as near as it promises; of small counts within one."""
    if math.isnan(b) or math.isinf(b) or b == 0:
        return alike(float(a), float(b), scale=0.0)
    return abs(a - b) <= relative * abs(b) + (1 if isinstance(b, int) else 0)


def shape_alike(a: float | None, b: float | None) -> bool:
    """Tell whether two ratios of moments are equal, as far as rounding leaves them a meaning."""
    if a is None or b is None:
        return a is b
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
