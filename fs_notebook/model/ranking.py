"""How well predictions order the rows of each query: NDCG, MAP and MRR, over weighted queries.

A query of which all rows are equally relevant is ordered well by anything: it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fs_notebook.model.scores import Floats, Metric

Ints = npt.NDArray[np.int64]
_TIES_SEED = 11


@dataclass(frozen=True, eq=False)
class Ranked:
    """The rows of all queries that tell anything, best score first within each query.

    Attributes
    ----------
    relevance
        Of each row, ordered.
    query
        Of each row, ordered: the number of its query, ascending.
    rank
        Of each row, ordered: its place in its query, from 1.
    tied
        Of each row, ordered: the number of its run of equal scores in one query, ascending.
    first
        Of each query, the row number that its weight is read from.
    """

    relevance: Floats
    query: Ints
    rank: Ints
    tied: Ints
    first: Ints


def ranked(truth: Floats, predicted: Floats, query: Ints) -> Ranked:
    """Return rows ordered by query, then by score; equal scores in a fixed arbitrary order."""
    chance = np.random.default_rng(_TIES_SEED).permutation(truth.size)
    order = np.lexsort((chance, -predicted, query))
    codes, starts = np.unique(query[order], return_index=True)
    low = np.minimum.reduceat(truth[order], starts) if codes.size else np.empty(0)
    high = np.maximum.reduceat(truth[order], starts) if codes.size else np.empty(0)
    sizes = np.diff(np.append(starts, order.size))
    telling = high > low
    kept = np.repeat(telling, sizes)
    rank = (np.arange(order.size) - np.repeat(starts, sizes) + 1)[kept]
    order = order[kept]
    number = np.repeat(np.cumsum(telling) - 1, sizes)[kept]
    scores = predicted[order]
    fresh = np.ones(order.size, bool)
    fresh[1:] = (scores[1:] != scores[:-1]) | (number[1:] != number[:-1])
    firsts = np.flatnonzero(rank == 1)
    return Ranked(truth[order], number, rank, np.cumsum(fresh) - 1, order[firsts])


def _mean(of: Ranked, values: Floats) -> Metric:
    """Return the mean of one value a query, weighted by its rows' weight."""

    def weighted(weights: Floats) -> float:
        mine = weights[of.first]
        total = mine.sum()
        return float(mine @ values / total) if total else float("nan")

    return weighted


def _sums(of: Ranked, values: Floats) -> Floats:
    return np.bincount(of.query, values, minlength=of.first.size).astype(np.float64)


def ndcg(k: int | None) -> Callable[[Floats, Floats, Any], Metric]:
    """Return the normalised discounted cumulative gain among the first `k` (None: all) rows.

    The gain is the relevance itself, the discount 1 / log2(rank + 1), as in scikit-learn's
    `ndcg_score` (Järvelin and Kekäläinen 2002). Rows of equal score share the mean gain of their
    places (McSherry and Najork 2008).
    """

    def make(truth: Floats, predicted: Floats, query: Any) -> Metric:
        of = ranked(truth, predicted, query)
        if not of.first.size:
            return _mean(of, np.empty(0))
        discount = 1.0 / np.log2(of.rank + 1)
        if k is not None:
            discount[of.rank > k] = 0.0
        runs = np.bincount(of.tied)
        mean = (np.bincount(of.tied, of.relevance) / runs)[of.tied]
        ideal = ranked(truth, truth, query)
        best = _sums(ideal, ideal.relevance * discount)
        return _mean(of, _sums(of, mean * discount) / best)

    return make


def average_precision_at(k: int | None) -> Callable[[Floats, Floats, Any], Metric]:
    """Return the mean over queries of the average precision among the first `k` rows.

    Relevant is what is above 0. The sum of precisions at relevant rows is divided by the number
    of relevant rows, or by `k` where that is less (Manning, Raghavan and Schütze 2008, 8.4).
    """

    def make(truth: Floats, predicted: Floats, query: Any) -> Metric:
        of = ranked((truth > 0).astype(np.float64), predicted, query)
        if not of.first.size:
            return _mean(of, np.empty(0))
        running = np.cumsum(of.relevance)
        begin = np.flatnonzero(of.rank == 1)
        before = (running[begin] - of.relevance[begin])[of.query]
        precision = (running - before) / of.rank * of.relevance
        relevant = _sums(of, of.relevance)
        if k is not None:
            precision[of.rank > k] = 0.0
            relevant = np.minimum(relevant, k)
        return _mean(of, _sums(of, precision) / relevant)

    return make


def reciprocal_rank_at(k: int | None) -> Callable[[Floats, Floats, Any], Metric]:
    """Return the mean over queries of 1 / rank of the first relevant row among the first `k`.

    Voorhees 1999 (TREC-8); 0 where none of them is relevant.
    """

    def make(truth: Floats, predicted: Floats, query: Any) -> Metric:
        of = ranked((truth > 0).astype(np.float64), predicted, query)
        if not of.first.size:
            return _mean(of, np.empty(0))
        found = of.relevance / of.rank
        if k is not None:
            found[of.rank > k] = 0.0
        return _mean(of, np.maximum.reduceat(found, np.flatnonzero(of.rank == 1)))

    return make
