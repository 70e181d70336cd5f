"""The shared catalog: a fold over its own stream in the same ledger."""

from fs_notebook.catalog.catalog import Catalog
from fs_notebook.catalog.entries import Source, View
from fs_notebook.catalog.model import CatalogState, Definition, Group, Version

__all__ = ["Catalog", "CatalogState", "Definition", "Group", "Source", "Version", "View"]
