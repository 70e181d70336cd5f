"""The aggregate algebra: the only semantics. Pure."""

from fs_notebook.kernel.aggregates import AGGREGATES, Aggregate, Field

__all__ = ["AGGREGATES", "Aggregate", "Field"]
