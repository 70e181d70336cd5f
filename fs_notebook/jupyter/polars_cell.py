"""A Polars feature cell, run where every cell runs: in the user's own kernel."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import polars

import fs_notebook
from fs_notebook.errors import DefinitionError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_REMEDY = 'a last line like pl.col("readtime").sum()'


def value_of(text: str, shell: InteractiveShell) -> Any:
    """Run a cell's body in the user's namespace and return the value of its last line.

    ``pl`` is Polars there and ``fs`` this package, even where the notebook has not imported them.
    What the code itself raises comes through as it is, with its own lines in the traceback.

    Raises
    ------
    DefinitionError
        If the body is no Python, or its last line is no expression.
    """
    source: str = shell.transform_cell(text)  # type: ignore[no-untyped-call]
    file = shell.compile.cache(source)
    try:
        body = ast.parse(source, file).body
    except SyntaxError as error:
        raise DefinitionError(
            "This is not Python.", found=error.msg, remedy=_REMEDY, line=error.lineno,
            column=error.offset, text=source,
        ) from None  # fmt: skip
    if not body or not isinstance(body[-1], ast.Expr):
        raise DefinitionError(
            "The cell's last line is no expression.",
            found="nothing" if not body else ast.unparse(body[-1]).splitlines()[0][:80],
            remedy=_REMEDY,
        )
    names = shell.user_ns
    lent = {n: value for n, value in (("pl", polars), ("fs", fs_notebook)) if n not in names}
    names.update(lent)
    try:
        exec(compile(ast.Module(body[:-1], []), file, "exec"), names)
        return eval(compile(ast.Expression(body[-1].value), file, "eval"), names)
    finally:
        for name, value in lent.items():
            if names.get(name) is value:
                del names[name]
