"""Widgets: the catalog, a stream's history, a promotion, two versions and live values, to act on.

They show what the session says and do what it does; nothing is computed here a second way. Each
loads its library when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs_notebook.jupyter.widgets.beside import SideBySide
    from fs_notebook.jupyter.widgets.browser import CatalogBrowser
    from fs_notebook.jupyter.widgets.live import LiveValue
    from fs_notebook.jupyter.widgets.promoting import PromotePanel
    from fs_notebook.jupyter.widgets.slices import SlicePicker
    from fs_notebook.session import Session


def browse(query: str = "", *, session: Session | None = None) -> CatalogBrowser:
    """Return the feature catalog as a widget: search, filters, and a card for each feature.

    Parameters
    ----------
    query
        What to look for at first, as for `fs.search`: ``"tag:reading entity:user clicks"``.
    session
        Whose catalog; default: the current session's, whichever that is at the time.

    Raises
    ------
    UsageError
        If there is no such filter.
    """
    from fs_notebook.jupyter.widgets.browser import CatalogBrowser

    return CatalogBrowser(query, session=session)


def slice_picker(
    stream: str, feature: str | None = None, *, session: Session | None = None
) -> SlicePicker:
    """Return a stream's events over time as a widget, to choose a slice of history for previews.

    ``picker.value`` is what was chosen: ``fs.preview("reading_time", **picker.value)``.

    Parameters
    ----------
    stream
        The stream's name.
    feature
        The feature or group that the widget's own preview is of; default: the first that reads
        the stream.

    Raises
    ------
    UnknownName
        If there is no such stream or feature.
    """
    from fs_notebook.jupyter.widgets.slices import SlicePicker

    return SlicePicker(stream, feature, session=session)


def promote_panel(name: str, *, session: Session | None = None) -> PromotePanel:
    """Return a promotion as a widget: what it will do, its progress, its lag, and the way back.

    Raises
    ------
    UnknownName
        If there is no such feature or group.
    """
    from fs_notebook.jupyter.widgets.promoting import PromotePanel

    return PromotePanel(name, session=session)


def side_by_side(
    first: str, second: str | int | None = None, *, session: Session | None = None
) -> SideBySide:
    """Return two versions of a feature as a widget: definitions, values, distributions.

    ``fs.side_by_side("reading_time@1", "reading_time@2")``, ``fs.side_by_side("reading_time")``:
    what serves, and the newest other version that is kept current.

    Raises
    ------
    UsageError
        If the two are not of one group.
    UnknownName
        If there is no such feature, or no such version.
    """
    from fs_notebook.jupyter.widgets.beside import SideBySide

    return SideBySide(first, second, session=session)


def live_value(
    features: str | Sequence[str], *, session: Session | None = None, **entity: Any
) -> LiveValue:
    """Return an entity's online values as a widget that is read again every second.

    ``fs.live_value(["total_readtime", "reads_7d"], user="u7")``; what derived features read of
    the request stands beside the entity.

    Raises
    ------
    UnknownName
        If nothing serves a feature of that name.
    UsageError
        If a part of the entity's key is missing.
    """
    from fs_notebook.jupyter.widgets.live import LiveValue

    return LiveValue(features, entity, session=session)
