"""What the session says, as JSON that the front end draws: figures, tables, charts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl

from fs_notebook.clock import to_us
from fs_notebook.compute.preview import Preview
from fs_notebook.jupyter.chart import distribution
from fs_notebook.jupyter.display import CHARTS_SHOWN, ROWS_SHOWN, preview_figures, preview_notes
from fs_notebook.jupyter.values import show
from fs_notebook.model.card import percent
from fs_notebook.model.spread import Spread, spread_of
from fs_notebook.outlooks import DERIVED, FOLD, SERVES, WARM, Outlook
from fs_notebook.portraits import Health, Likeness, Past, Portrait

NAMES_MAX = 8
Json = dict[str, Any]


def spread_json(found: Spread | None, kind: str) -> Json | None:
    """Return a spread as the front end draws it; None where there is nothing to draw."""
    if found is None:
        return None
    names = list(found.names)
    counts = list(found.counts)
    return {"names": names, "edges": list(found.edges), "counts": counts, "nulls": found.nulls,
            "is_time": kind in ("TIMESTAMP", "DATE")}  # fmt: skip


def chart_json(
    values: pl.Series, kind: str, now: Spread | None, then: Spread | None = None,
    labels: Sequence[str] = ("now", "training"),
) -> Json:  # fmt: skip
    """Return a feature's distribution, what there is to say of it, and another beside it."""
    return {
        "feature": values.name, "type": kind, "facts": list(distribution(values).facts),
        "now": spread_json(now, kind), "then": spread_json(then, kind), "labels": list(labels),
    }  # fmt: skip


def portrait_json(found: Portrait) -> Json:
    """Return a group's values now and in training."""
    return {
        "name": found.name, "what": found.what, "notes": list(found.notes),
        "charts": [_likeness(one) for one in found.likenesses[:CHARTS_SHOWN]],
        "more": max(len(found.likenesses) - CHARTS_SHOWN, 0),
    }  # fmt: skip


def _likeness(one: Likeness) -> Json:
    labels = ("now", "training" if one.training is None else f"in {one.training}")
    now, then = one.drawn()
    drawn = chart_json(one.values.alias(one.feature), one.type, now, then, labels)
    if one.beyond:
        drawn["facts"].append(f"{percent(one.beyond)} beyond training's range")
    measures = {"psi": one.psi, "ks": one.ks, "js": one.js}
    return {**drawn, **measures, "training": one.training}


def past_json(found: Sequence[Past]) -> list[Json]:
    """Return features over time."""
    return [
        {"feature": p.feature, "at_us": [to_us(t) for t in p.at], "low": list(p.low),
         "median": list(p.median), "high": list(p.high), "entities": p.entities}
        for p in found[:CHARTS_SHOWN]
    ]  # fmt: skip


def health_json(found: Health) -> Json:
    """Return how a version is doing; times in microseconds since the epoch."""
    return {
        "version": found.version, "serving": found.serving, "state": found.state,
        "lag": found.lag, "lag_s": found.lag_s, "rate": found.rate, "events": found.events,
        "progress": found.progress, "position": found.position, "error": found.error,
        "tries": found.tries, "verified": found.verified,
        "folded_us": _us(found.folded_at), "reported_us": _us(found.reported_at),
    }  # fmt: skip


def _us(at: datetime | None) -> int | None:
    return None if at is None else to_us(at)


def preview_json(found: Preview) -> Json:
    """Return a preview as its card has it: figures, notes, first rows, distributions."""
    head = found.frame.head(ROWS_SHOWN)
    kinds = found.types
    keys = head.width - len(found.plan.features)
    columns = [
        {"name": name, "under": "key" if n < keys else kinds.get(name, ""),
         "right": n >= keys and head.dtypes[n].is_numeric()}
        for n, name in enumerate(head.columns)
    ]  # fmt: skip
    rows = [[show(v, grouped=n >= keys) for n, v in enumerate(row)] for row in head.iter_rows()]
    features = found.plan.features[:CHARTS_SHOWN]
    return {
        "name": found.name, "figures": [list(pair) for pair in preview_figures(found)],
        "notes": preview_notes(found), "columns": columns, "rows": rows, "keys": keys,
        "entities": found.entities,
        "charts": [chart_json(found.frame[f], kinds[f], spread_of(found.frame[f]))
                   for f in features],
    }  # fmt: skip


def number_of(value: Any) -> float | None:
    """Return a finite number to draw, None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = float(value)
    return number if abs(number) < float("inf") else None


def outlook_lines(found: Outlook) -> list[tuple[str, str]]:
    """Return label and text of each line of the question before a promotion."""
    users = [_nodes(found), _readers(found)]
    lines = [
        ("Version", _version(found)),
        ("Changes", "; ".join(found.changes)),
        ("History to fold", _history(found)),
        ("Time", _time(found)),
        ("Used by", "; ".join(u for u in users if u) or "nobody so far"),
        ("Mind", "; ".join(found.notes)),
    ]
    return [(label, text) for label, text in lines if text]


def _version(found: Outlook) -> str:
    if found.work == SERVES:
        return f"v{found.version}, which serves already: nothing changes"
    if found.serving is None:
        return f"v{found.version}"
    return f"v{found.version}; v{found.serving} serves until it is live, and can be returned to"


def _history(found: Outlook) -> str:
    streams = ", ".join(found.streams)
    if found.work == FOLD:
        if found.events is None:
            return f"all of {streams}"
        return f"{found.events:,} {'event' if found.events == 1 else 'events'} of {streams}"
    return {
        WARM: "none: its state was kept up to date",
        DERIVED: f"none: it is computed from {', '.join(found.depends_on)}",
    }.get(found.work, "")


def _time(found: Outlook) -> str:
    if found.work == SERVES:
        return ""
    if found.work != FOLD:
        return "at once"
    if found.seconds is None:
        return "not known beforehand"
    return about_words(found.seconds)


def about_words(seconds: float) -> str:
    """Return a length of time as somebody would say it who does not know better."""
    if seconds < 8:
        return "a few seconds"
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    if seconds < 90 * 60:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {math.ceil(seconds / 3600)} h"


def _nodes(found: Outlook) -> str:
    return _listed([n.name if n.kind == "group" else f"{n.name} ({n.kind})" for n in found.used_by])


def _readers(found: Outlook) -> str:
    return _listed([f"{u.who} on {u.host} ({u.kind}, {u.reads:,}×)" for u in found.readers])


def _listed(names: Sequence[str]) -> str:
    shown, more = ", ".join(names[:NAMES_MAX]), len(names) - NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def serving_snippet(view: Mapping[str, Any]) -> str:
    """Return Python that asks for all features of a group, given as a `GroupView`."""
    features = ", ".join(_quoted(f["name"]) for f in view["features"])
    keys = [*view["entity"], *(r["name"] for r in view.get("requests") or ())]
    plain = [f'{k}=["…"]' for k in keys if re.fullmatch(r"[A-Za-z_]\w*", k, re.ASCII)]
    odd = [f'{_quoted(k)}: ["…"]' for k in keys if f'{k}=["…"]' not in plain]
    given = [*plain, *([f"**{{{', '.join(odd)}}}"] if odd else [])]
    return f"fs.serve([{features}], {', '.join(given)})"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
