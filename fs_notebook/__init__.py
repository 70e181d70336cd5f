"""A feature is a fold over an ordered log.

A preview, a training row and an online value are that one fold, stopped at different positions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fs_notebook._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension"]

# Where each public name lives. They load when they are first asked for, so that `%load_ext` and
# the Jupyter server pay only for what they use.
_PUBLIC = {
    "Connection": "fs_notebook.worker.connection",
    "FeatureEncoder": "fs_notebook.model.encoder",
    "FeatureStoreError": "fs_notebook.errors",
    "Session": "fs_notebook.session",
    "connect": "fs_notebook.current",
    "functions": "fs_notebook.language.reference",
    "get_session": "fs_notebook.current",
    "stream": "fs_notebook.language.polars_frame",
    "register_embedder": "fs_notebook.embedders",
    **dict.fromkeys(
        ("browse", "live_value", "promote_panel", "side_by_side", "slice_picker"),
        "fs_notebook.jupyter.widgets",
    ),
}

# The methods of the current session that are functions of the package as well: `fs.serve(…)`.
_OF_SESSION = (
    "about", "append", "async_reader", "backfill", "compare", "create_view", "dead_letters",
    "declare", "define", "delete_training_set", "deprecate", "describe", "diff", "edit",
    "encoder", "explain", "export_catalog", "export_stream", "feature", "feature_set",
    "feature_sets", "features", "health", "import_catalog", "import_stream", "lift", "lineage",
    "models", "outlook", "past", "peek", "portrait", "preview", "promote", "reader",
    "register_model", "registered_model", "remove_model", "rename_training_set", "retire",
    "retire_feature_set", "rollback", "row_views", "save_training_set", "search", "serve",
    "status", "stop", "streams", "timeline", "training_pieces", "training_set",
    "training_set_again", "training_sets", "upload", "uses", "verify", "view_rows", "wait",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _OF_SESSION:
        return getattr(importlib.import_module("fs_notebook.current").get_session(), name)
    home = _PUBLIC.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_OF_SESSION})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the `%feature` magics to this shell; `%load_ext fs_notebook` calls it."""
    importlib.import_module("fs_notebook.jupyter").load_ipython_extension(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take out what loading put in; `%unload_ext fs_notebook` calls it."""
    importlib.import_module("fs_notebook.jupyter").unload_ipython_extension(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "fs-notebook"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    extension = importlib.import_module("fs_notebook.server.extension")
    return [{"module": "fs_notebook.server.extension", "app": extension.FeatureStoreExtension}]
