"""The notebook's face: magics, displays, progress. Importing this loads no heavy library."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_NAME = "fs"

# Plain results of the Python API that have a rich display in a notebook: where each type lives,
# and the function of this room that draws it. Both load when the first one is shown.
_RICH = (
    ("fs_notebook.explanation", "Explanation", "explained.explanation_html"),
    ("fs_notebook.comparison.outcome", "Comparison", "compared.comparison_html"),
    ("fs_notebook.compute.preview", "Preview", "display.preview_html"),
    ("fs_notebook.online.vector", "FeatureVector", "served.vector_html"),
    ("fs_notebook.worker.verify", "Verification", "verified.verification_html"),
    ("fs_notebook.views", "Status", "display.one_status_html"),
    ("fs_notebook.curation", "About", "catalogued.about_html"),
    ("fs_notebook.curation", "Curated", "catalogued.curated_html"),
    ("fs_notebook.catalog.search", "Found", "catalogued.found_html"),
    ("fs_notebook.catalog.graph", "Lineage", "catalogued.lineage_html"),
    ("fs_notebook.catalog.differences", "Difference", "catalogued.difference_html"),
    ("fs_notebook.review.outcome", "Imported", "catalogued.imported_html"),
)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register `%feature` and `%%feature`; put the package into the namespace as `fs`."""
    from fs_notebook.jupyter import completion
    from fs_notebook.jupyter.magics import FeatureMagics

    shell.register_magics(FeatureMagics)
    completion.install(shell)
    html = _html(shell)
    for module, kind, function in _RICH:
        html.for_type_by_name(module, kind, _drawn_by(function))
    if _NAME not in shell.user_ns:
        shell.user_ns[_NAME] = importlib.import_module("fs_notebook")


def _html(shell: InteractiveShell) -> Any:
    assert shell.display_formatter is not None
    return shell.display_formatter.formatters["text/html"]


def _drawn_by(function: str) -> Callable[[Any], str]:
    module, _, name = function.partition(".")

    def draw(value: Any) -> str:
        html: str = getattr(importlib.import_module(f"fs_notebook.jupyter.{module}"), name)(value)
        return html

    return draw


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Put everything back."""
    from fs_notebook.jupyter import completion

    completion.remove(shell)
    for kind in ("line", "cell"):
        for name in ("feature", "view"):
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop("FeatureMagics", None)
    html = _html(shell)
    for module, kind, _ in _RICH:
        html.deferred_printers.pop((module, kind), None)
        html.type_printers.pop(getattr(sys.modules.get(module), kind, None), None)
    if shell.user_ns.get(_NAME) is importlib.import_module("fs_notebook"):
        del shell.user_ns[_NAME]
