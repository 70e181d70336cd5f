"""A stream out of one ledger into a folder or file, and from there into another."""

from fs_notebook.transfer.exporting import export_stream
from fs_notebook.transfer.importing import import_stream
from fs_notebook.transfer.manifest import Transferred

__all__ = ["Transferred", "export_stream", "import_stream"]
