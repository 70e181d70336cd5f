"""The verbs of `%feature` that act on the catalog itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fs_notebook.errors import UsageError

if TYPE_CHECKING:
    from fs_notebook.session import Session

FOUND_MAX = 50


def _session() -> Session:
    from fs_notebook.current import get_session

    return get_session()


def _show(value: Any) -> None:
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


class CurationMagics:
    """Search, words, deprecation, differences, lineage, files: each verb a method."""

    def _catalog(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.catalogued import SearchTable
        from fs_notebook.views import views_of

        session = _session()
        found = session.search(" ".join(options.words), limit=FOUND_MAX)
        state = session.catalog.refresh()
        names = [e.name for e in found.entries if e.kind == "group" and e.name in state.groups]
        groups = {view["name"]: view for view in views_of(state, session.store, names)}
        _show(SearchTable(found, groups))

    def _about(self, options: argparse.Namespace) -> None:
        _show(_session().about(options.name))

    def _lineage(self, options: argparse.Namespace) -> None:
        _show(_session().lineage(options.name))

    def _diff(self, options: argparse.Namespace) -> None:
        _show(_session().diff(options.name, options.before, options.after))

    def _tag(self, options: argparse.Namespace) -> None:
        add: list[str] = []
        remove: list[str] = []
        for word in options.tags:
            if word[:1] not in ("+", "-") or len(word) < 2:
                raise UsageError("A tag comes with + and goes with -.", found=word,
                                 remedy=f"%feature tag {options.name} +core -old")  # fmt: skip
            (add if word[0] == "+" else remove).append(word[1:])
        _show(_session().edit(options.name, add=add, remove=remove))

    def _owner(self, options: argparse.Namespace) -> None:
        _show(_session().edit(options.name, owner=options.owner))

    def _describe(self, options: argparse.Namespace) -> None:
        session = _session()
        if options.text is not None:
            _show(session.edit(options.name, description=options.text))
            return
        state = session.catalog.refresh()
        known = {*state.groups, *state.owners, *state.views, *state.training_sets}
        if options.name in known and options.name not in state.sources:
            _show(session.about(options.name))
            return
        from fs_notebook.jupyter.streams import DescriptionCard

        _show(DescriptionCard(session.describe(options.name)))

    def _deprecate(self, options: argparse.Namespace) -> None:
        _show(_session().deprecate(
            options.name, reason=options.reason, instead=options.instead, undo=options.undo
        ))  # fmt: skip

    def _export(self, options: argparse.Namespace) -> None:
        print(repr(_session().export_catalog(options.folder)))

    def _import(self, options: argparse.Namespace) -> None:
        _show(_session().import_catalog(options.folder, apply=options.apply))
