"""What CAST names, and the decimals that are written out: constants of the plan."""

from __future__ import annotations

from sqlglot import exp

from fs_notebook.decimals import read, text_of
from fs_notebook.errors import DefinitionError
from fs_notebook.language.expr import Literal
from fs_notebook.types import Type, decimal_of

_CAST_TYPES = {
    exp.DType.BIGINT: Type.BIGINT,
    exp.DType.INT: Type.BIGINT,
    exp.DType.SMALLINT: Type.BIGINT,
    exp.DType.TINYINT: Type.BIGINT,
    exp.DType.DOUBLE: Type.DOUBLE,
    exp.DType.FLOAT: Type.DOUBLE,
    exp.DType.VARCHAR: Type.VARCHAR,
    exp.DType.TEXT: Type.VARCHAR,
    exp.DType.BOOLEAN: Type.BOOLEAN,
    exp.DType.TIMESTAMP: Type.TIMESTAMP,
    exp.DType.TIMESTAMPNTZ: Type.TIMESTAMP,
    exp.DType.TIMESTAMPTZ: Type.TIMESTAMP,
    exp.DType.DATE: Type.DATE,
}


def cast_type(node: exp.Expr) -> Type | None:
    """Return the type that a CAST names; None where there is none. DECIMAL alone has 18 digits."""
    if node.this not in (exp.DType.DECIMAL, exp.DType.BIGDECIMAL):
        return _CAST_TYPES.get(node.this)
    digits = [p.name for p in node.expressions] or ["18", "3"]
    try:
        precision, *scale = map(int, digits)
        return decimal_of(precision, *(scale or [0]))
    except (TypeError, ValueError):
        return None


def written_decimal(node: exp.Expr, target: Type) -> Literal | None:
    """Return the decimal that a number or text which is written out is; None for what is none.

    The text itself is read, so that no digit goes through a DOUBLE.
    """
    negative = isinstance(node, exp.Neg)
    inner = node.this if negative else node
    written = inner.name if isinstance(inner, exp.Literal) else ""
    return decimal_literal(f"-{written}" if negative else written, target)


def decimal_literal(text: str, target: Type) -> Literal | None:
    """Return the constant that `text`, rounded to `target`, is; None where it is no number.

    Raises
    ------
    DefinitionError
        If it does not fit.
    """
    value = read(text)
    if value is None:
        return None
    fitted = text_of(value, target, rounded=True)
    if fitted is None:
        raise DefinitionError(
            f"This number does not fit {target}.", found=text,
            remedy=f"more digits before the point: DECIMAL(38,{target.scale})",
        )  # fmt: skip
    return Literal(fitted, target)
