"""The aggregate algebra: the only semantics. Pure.

`AGGREGATES` has every aggregate of the language by its name.
"""

from fs_notebook.kernel.algebra import (
    Aggregate,
    Field,
    Fieldwise,
    Framewise,
    Grouped,
    Parameter,
    Row,
    Scalar,
    merge_expr,
)
from fs_notebook.kernel.registry import AGGREGATES

__all__ = [
    "AGGREGATES",
    "Aggregate",
    "Field",
    "Fieldwise",
    "Framewise",
    "Grouped",
    "Parameter",
    "Row",
    "Scalar",
    "merge_expr",
]
