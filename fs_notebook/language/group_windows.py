"""TUMBLE, HOP and SESSION in GROUP BY, by the names and arguments of streaming SQL.

As a feature such a group is what the streaming query would last have said by t: of TUMBLE and HOP
the newest window that had ended, of SESSION the one that is open.
"""

from __future__ import annotations

from sqlglot import exp

from fs_notebook.language.plan import Window
from fs_notebook.language.relation import Relation
from fs_notebook.language.sql_expr import Translator, interval_us, refuse

_USAGE = {
    "TUMBLE": "TUMBLE(ts, INTERVAL '1' HOUR)",
    "HOP": "HOP(ts, INTERVAL '15' MINUTE, INTERVAL '1' HOUR): every 15 minutes, an hour long",
    "SESSION": "SESSION(ts, INTERVAL '30' MINUTE): ended by a gap of more than 30 minutes",
}


def window_name(node: exp.Expr) -> str:
    """Return TUMBLE, HOP or SESSION where `node` calls one of them, else nothing."""
    name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
    return name if name in _USAGE else ""


def group_window(node: exp.Expr, row: Translator, relation: Relation, closed: str) -> Window:
    """Return the window that a call in GROUP BY means.

    Raises
    ------
    DefinitionError
        If it is called in another way, or not on the stream's event time.
    """
    name, text = window_name(node), row.text
    args = node.expressions
    if len(args) != (3 if name == "HOP" else 2):
        raise refuse(node, text, f"{name} is called in another way.", remedy=_USAGE[name])
    by, time = args[0], relation.time
    if not isinstance(by, exp.Column) or not relation.is_time(row.column(by)):
        raise refuse(
            node, text, f"{name} cuts the stream's event time.", found=by.sql(dialect="duckdb"),
            remedy=f"{name}({time}, …)" if time else "declare the stream's time column first",
        )  # fmt: skip
    spans = [interval_us(a, text) for a in args[1:]]
    if min(spans) <= 0:
        raise refuse(node, text, "A window has a length above zero.", remedy=_USAGE[name])
    if name == "SESSION":
        return Window(None, closed, gap_us=spans[0])
    return Window(spans[-1], closed, slide_us=spans[0])
