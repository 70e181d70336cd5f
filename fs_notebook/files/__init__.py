"""Files of events: which ones a path means, and their rows in slices of bounded size."""

from fs_notebook.files.find import find_files
from fs_notebook.files.readers import KINDS, DataFile, open_file

__all__ = ["KINDS", "DataFile", "find_files", "open_file"]
