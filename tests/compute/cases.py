"""Every aggregate on every kind of argument that it takes, and logs to fold."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from fs_notebook.compute.fold import Fold
from fs_notebook.kernel import AGGREGATES
from fs_notebook.language.sql import SourceColumns, compile_sql
from fs_notebook.online.states import storage
from fs_notebook.types import TIME, Type, type_of

SECOND = 1_000_000
WINDOW_S = 5
MONEY, LONG = Type("DECIMAL(9,2)"), Type("DECIMAL(38,9)")
COLUMNS = {
    "i": Type.BIGINT, "f": Type.DOUBLE, "s": Type.VARCHAR, "b": Type.BOOLEAN, "d": Type.TIMESTAMP,
    "m": MONEY, "h": LONG,
}  # fmt: skip
SOURCE = SourceColumns(
    "events", (("user", Type.VARCHAR), *COLUMNS.items(), ("t", Type.TIMESTAMP)), "t"
)
SCHEMA = {
    "user": pl.String, "i": pl.Int64, "f": pl.Float64, "s": pl.String, "b": pl.Boolean,
    "d": pl.Int64, "m": MONEY.polars, "h": LONG.polars, "t": pl.Int64,
}  # fmt: skip


def scaled(whole: int, places: int) -> Decimal:
    """Return a whole number of last places as a decimal, with no rounding on the way."""
    return Decimal(f"{whole}e-{places}")


@dataclass(frozen=True)
class Case:
    """An aggregate applied to columns of the log."""

    name: str
    args: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({','.join(self.args)})"

    @property
    def types(self) -> tuple[Type, ...]:
        return tuple(COLUMNS[a] for a in self.args)

    @property
    def params(self) -> tuple[Any, ...]:
        return tuple(p.example for p in AGGREGATES[self.name].parameters)

    @property
    def sql(self) -> str:
        """How it is written, by its own name."""
        constants = [
            f"INTERVAL {p.example} MICROSECOND" if p.type is Type.INTERVAL else str(p.example)
            for p in AGGREGATES[self.name].parameters
        ]
        inside = ", ".join([*self.args, *constants])
        return f"{self.name}({'*' if self.name == 'count' and not self.args else inside})"

    def fold(self, *, window_s: int | None = None, closed: str = "left", over: str = "") -> Fold:
        """Compile the case to a fold: over a lifetime, a window, or what `over` says."""
        return fold_of(f"{self.sql} AS x", window_s=window_s, closed=closed, group=over)


def fold_of(
    columns: str, *, window_s: int | None = None, closed: str = "left", group: str = ""
) -> Fold:
    text = f"SELECT user, {columns} FROM events GROUP BY user{group}"
    window_us = None if window_s is None else window_s * SECOND
    return Fold(
        compile_sql(text, name="x", find_source=lambda name: SOURCE, closed=closed,
                    window_us=window_us)
    )  # fmt: skip


def all_cases() -> list[Case]:
    """Return each aggregate with every list of columns that it takes."""
    found = []
    for name, kind in AGGREGATES.items():
        for count in range(3):
            for args in itertools.product(COLUMNS, repeat=count):
                types = tuple(COLUMNS[a] for a in args)
                fits = kind.result(types) is not None
                # Of pairs these are enough: a number beside a number, text beside a number.
                if fits and (count < 2 or args in {("f", "i"), ("i", "f"), ("s", "f")}):
                    case = Case(name, args)
                    # Long decimals differ from others where they are added, kept or counted.
                    if args != ("h",) or _is_exact(case):
                        found.append(case)
    return found


def chosen_cases() -> list[Case]:
    """Return each aggregate on a few kinds of argument: numbers, and what differs most."""
    chosen: dict[str, list[Case]] = {}
    preferred = [(), ("f",), ("s",), ("b",), ("s", "f"), ("f", "i")]
    ranked = {args: place for place, args in enumerate(preferred)}
    for case in sorted(all_cases(), key=lambda c: ranked.get(c.args, len(ranked))):
        mine = chosen.setdefault(case.name, [])
        if len(mine) < 2:
            mine.append(case)
    decimals = [c for c in all_cases() if c.args in {("m",), ("h",)} and _is_exact(c)]
    times = [Case("min", ("d",)), Case("last_n", ("d",)), Case("histogram", ("d",))]
    plainly = [case for mine in chosen.values() for case in mine]
    return plainly + decimals + times + [Case("sum", ("i",))]


def _is_exact(case: Case) -> bool:
    """Tell whether an aggregate's value is that of a decimal, or says how decimals are counted."""
    kind = AGGREGATES[case.name].result(case.types)
    return kind is not None and (kind.holds_decimal or case.name in MEANS)


MEANS = ("avg", "avg_distinct", "n_unique", "approx_n_unique", "quantile_cont", "var_pop")


def plain(values: pl.Series) -> list[Any]:
    """Return a feature's values with times as integer microseconds."""
    if values.dtype != pl.Null and type_of(values.dtype).holds_decimal:
        return list(values.to_list())
    return list(values.cast(storage(values.dtype)).to_list())


money = st.one_of(
    st.sampled_from([Decimal("0.10"), Decimal("0.1"), Decimal("-2.25"), Decimal("9999999.99")]),
    st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: scaled(n, 2)),
)
# Two dozen of them fit 38 digits together, and no half of them fits 64 bits.
long = st.one_of(
    st.sampled_from([Decimal(0), Decimal("1e-9"), Decimal("-1e-9"), Decimal(-(10**27))]),
    st.integers(-(10**36), 10**36).map(lambda n: scaled(n, 9)),
)
floats = st.one_of(
    st.none(),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, -0.0]),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)),
    st.integers(-4, 12).map(float),
)
# A third of the times lie on multiples of the window, so that boundaries are hit exactly.
times = st.one_of(
    st.integers(0, 4).map(lambda n: n * WINDOW_S * SECOND),
    st.integers(0, 20).map(lambda n: n * SECOND),
    st.integers(0, 20 * SECOND),
)
events = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "a", "b", "ü\u2028", "", None]),
        "i": st.one_of(st.none(), st.integers(-3, 9), st.integers(-(2**40), 2**40)),
        "f": floats,
        "s": st.one_of(st.none(), st.sampled_from(["x", "y", ""]), st.text(max_size=2)),
        "b": st.one_of(st.none(), st.booleans()),
        "d": st.one_of(st.none(), st.integers(-3, 3).map(lambda n: n * SECOND)),
        "m": st.one_of(st.none(), money),
        "h": st.one_of(st.none(), long),
        "t": times,
    }
)


def logs(*, max_size: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(events, max_size=max_size)


def plain_log(count: int, *, users: int = 2, nulls: bool = False) -> list[dict[str, Any]]:
    """Return a log made from one seed: with few different times, and no nulls unless asked."""
    rng = random.Random(count)
    none = dict.fromkeys(COLUMNS)
    return [
        {
            "user": "ab"[rng.randrange(users)],
            "i": rng.randrange(-50, 50), "f": round(rng.uniform(-9, 9), 2),
            "s": rng.choice("pqrs"), "b": rng.random() < 0.5, "d": rng.randrange(9) * SECOND,
            "m": scaled(rng.randrange(-900, 900), 2), "h": scaled(rng.randrange(10**32), 9),
            **(none if nulls else {}),
            "t": rng.randrange(60) * SECOND,
        }
        for _ in range(count)
    ]  # fmt: skip


def frame_of(log: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(log, schema=SCHEMA, orient="row")
    stamp = pl.Datetime("us", "UTC")
    return frame.with_columns(
        pl.col("d").cast(stamp), pl.col("t").cast(stamp), pl.col("t").cast(stamp).alias(TIME)
    )


def positions(first: int, last: int) -> pl.DataFrame:
    """Return the positions of the log's events [first, last): spread over two ledgers."""
    at = range(first, last)
    return pl.DataFrame(
        {"__partition": [0 for _ in at], "__ledger": [n // 7 for n in at],
         "__entry": [n % 7 // 2 for n in at], "__batch": [n % 7 % 2 for n in at]},
        schema=dict.fromkeys(("__partition", "__ledger", "__entry", "__batch"), pl.Int64),
    )  # fmt: skip


def projected(
    fold: Fold, log: list[dict[str, Any]], first: int = 0, last: int | None = None
) -> pl.DataFrame:
    """Project the events [first, last) of a log, with their positions."""
    last = len(log) if last is None else last
    rows = frame_of(log[first:last])
    return fold.project(rows, lambda: positions(first, last))[0]


def values_of(fold: Fold, lifetime: pl.DataFrame) -> dict[Any, Any]:
    """Return each entity's value of feature x, of a lifetime."""
    from fs_notebook.compute.fold import State

    values = fold.values(State(lifetime, fold.empty.recent), now_us=30 * SECOND)
    return dict(zip(values["__k0"], values["x"].to_list(), strict=True))


def scale(log: list[dict[str, Any]]) -> float:
    """Return the size of the numbers of a log, which rounding errors are relative to."""
    numbers = [abs(float(e[c])) for e in log for c in ("i", "f", "m", "h") if e[c] is not None]
    return max([1.0, *(n for n in numbers if n < 1e300)])
