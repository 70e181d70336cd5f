"""From a cell's text to one SELECT over one stream, by sqlglot."""

from __future__ import annotations

import itertools

import sqlglot
from sqlglot import Token, TokenType, exp

from fs_notebook.errors import DefinitionError
from fs_notebook.language.sql_expr import refuse

_REFUSED: dict[str, tuple[str, str]] = {
    "having": ("HAVING looks at finished groups.", "WHERE, or CASE inside the aggregate"),
    "order": ("ORDER BY has no meaning: a fold has its order.", "leave it out"),
    "limit": ("LIMIT would drop entities.", "leave it out; --sample makes a preview smaller"),
    "offset": ("OFFSET would drop entities.", "leave it out"),
    "qualify": ("QUALIFY looks at finished windows.", "WHERE, or FILTER (WHERE …)"),
    "distinct": ("SELECT DISTINCT has no meaning for a fold.", "leave it out"),
    "laterals": ("A lateral view cannot be folded.", "one row in, one row out"),
    "sample": ("TABLESAMPLE would drop events.", "--sample makes a preview smaller"),
}


_DIALECT = sqlglot.Dialect.get_or_raise("duckdb")
# Left to itself sqlglot moves constant places in lists to count from 0, and others not.
_DIALECT.INDEX_OFFSET = 0


def _tokens(text: str) -> list[Token]:
    """Return the tokens of `text`; SESSION before a bracket is a function's name here."""
    tokens = list(_DIALECT.tokenize(text))
    for token, following in itertools.pairwise(tokens):
        named = token.text.upper() == "SESSION"
        if named and following.token_type == TokenType.L_PAREN:
            token.token_type = TokenType.VAR
    _mark_requests(tokens)
    return tokens


_ENDS = (
    TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING, TokenType.NUMBER, TokenType.R_PAREN,
    TokenType.R_BRACKET, TokenType.COLON,
)  # fmt: skip


def _mark_requests(tokens: list[Token]) -> None:
    """Make ``:name`` the named parameter that ``$name`` is: alone the parser may take it for more.

    A colon right behind a value is something else: a slice, or an alias before its expression.
    """
    before: Token | None = None
    for token, following in itertools.pairwise(tokens):
        apart = before is None or before.end + 1 < token.start or before.token_type not in _ENDS
        # Behind an opening bracket it is a slice that leaves out its begin.
        slices = before is not None and before.token_type == TokenType.L_BRACKET
        named = following.start == token.end + 1 and following.text.isidentifier() and not slices
        if token.token_type == TokenType.COLON and named and apart:
            token.token_type = TokenType.PARAMETER
        before = token


def parse_select(text: str) -> exp.Select:
    """Return the one SELECT that `text` is; refuse what no feature is made of."""
    select = parse_joined(text)
    check_clauses(select, text)
    return select


def parse_rows(text: str) -> exp.Query:
    """Return what a view is: one SELECT, or several put together."""
    rows = _parse(text)
    if not isinstance(rows, (exp.Select, exp.SetOperation)):
        raise refuse(rows, text, "A view is a SELECT.", remedy="SELECT … FROM stream WHERE …")
    return rows


def check_clauses(select: exp.Query, text: str) -> None:
    """Refuse the clauses that neither a feature nor a row transform is made of."""
    for clause, (message, remedy) in _REFUSED.items():
        if (node := select.args.get(clause)) not in (None, [], False):
            first = node[0] if isinstance(node, list) else node
            raise refuse(
                first if isinstance(first, exp.Expr) else select, text, message, remedy=remedy
            )


def _parse(text: str) -> exp.Expr:
    try:
        statements = [s for s in _DIALECT.parser().parse(_tokens(text), text) if s is not None]
    except sqlglot.errors.SqlglotError as error:
        details = getattr(error, "errors", None) or [{}]
        first = details[0]
        raise DefinitionError(
            "This is not SQL.",
            found=first.get("description") or str(error).splitlines()[0],
            remedy="SELECT key, SUM(x) AS name FROM stream GROUP BY key",
            line=first.get("line"),
            column=(first.get("col") or 0) - len(first.get("highlight") or "") + 1 or None,
            text=text,
        ) from None
    except RecursionError:
        raise DefinitionError(
            "This SQL is nested too deeply.", remedy="fewer brackets inside brackets"
        ) from None
    if not statements:
        raise DefinitionError(
            "The cell has no SQL.", remedy="SELECT key, SUM(x) AS name FROM stream GROUP BY key"
        )
    if len(statements) > 1:
        raise DefinitionError(
            "A feature is one SELECT.",
            found=f"{len(statements)} statements",
            remedy="one cell for each feature group",
        )
    statement = statements[0]
    for bracket in statement.find_all(exp.Bracket):
        # So that errors show places in lists as they were written.
        bracket.set("offset", 1)
    return statement


def parse_joined(text: str) -> exp.Select:
    """Return the one SELECT that `text` is, whatever its clauses: the caller refuses some."""
    select = _parse(text)
    if not isinstance(select, exp.Select):
        raise refuse(
            select,
            text,
            "A feature is a SELECT over one stream.",
            remedy="SELECT key, SUM(x) AS name FROM stream GROUP BY key",
        )
    return select
