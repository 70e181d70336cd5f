"""The verbs of `%feature` that open widgets."""

from __future__ import annotations

import argparse
from typing import Any

from fs_notebook.language.cell import split_names


class WidgetMagics:
    """Browse, slice, live, and the panels of promote and compare: each a method."""

    shell: Any

    @property
    def _rich(self) -> bool:
        # Whoever has a kernel draws HTML; a terminal does not.
        return getattr(self.shell, "kernel", None) is not None

    def _open(self, widget: Any, into: str | None = None) -> None:
        """Show a widget; a terminal, which has no place for one, is told what it says."""
        from IPython.display import display

        if into is not None:
            self.shell.user_ns[into] = widget
        if self._rich:
            display(widget)  # type: ignore[no-untyped-call]
            return
        widget.settle()
        print(repr(widget))
        if into is None:
            widget.close()

    def _browse(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.widgets import browse

        self._open(browse(" ".join(options.words)))

    def _slice(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.options import check_into
        from fs_notebook.jupyter.widgets import slice_picker

        check_into(options.into)
        self._open(slice_picker(options.stream, options.name), options.into)

    def _live(self, options: argparse.Namespace) -> None:
        from fs_notebook.current import get_session
        from fs_notebook.jupyter.widgets import live_value
        from fs_notebook.jupyter.widgets.live import entity_of

        features = split_names(options.features)
        self._open(live_value(features, **entity_of(get_session(), features, options.entity)))

    def _open_promotion(self, name: str) -> None:
        from fs_notebook.jupyter.widgets import promote_panel

        self._open(promote_panel(name))

    def _open_versions(self, name: str, versions: str | None) -> None:
        from fs_notebook.comparison import parse_versions
        from fs_notebook.jupyter.widgets import side_by_side

        pair = parse_versions(versions)
        if pair is None:
            self._open(side_by_side(name))
        else:
            self._open(side_by_side(f"{name}@{pair[0]}", pair[1]))
