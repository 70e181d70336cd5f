"""The session's part that exports the catalog to files, and imports it from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.about import GROUP, Notes, Words
from fs_notebook.catalog.about import STREAM as STREAM_KIND
from fs_notebook.catalog.about import VIEW as VIEW_KIND
from fs_notebook.catalog.differences import difference, text_diff, word_changes
from fs_notebook.catalog.lineage import streams_of
from fs_notebook.definitions import Definitions
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.language.polars_plan import PolarsDefinition
from fs_notebook.language.row_steps import PolarsRows
from fs_notebook.log.protocol import Stream
from fs_notebook.review.outcome import (
    CHANGED,
    NEW,
    REFUSED,
    SAME,
    Exported,
    Imported,
    Step,
)
from fs_notebook.review.text import (
    FEATURE,
    STREAM,
    VIEW,
    Filed,
    filed_group,
    filed_stream,
    filed_view,
    from_text,
    is_ours,
    to_text,
    tree_text,
)

FOLDERS = {STREAM: "streams", VIEW: "views", FEATURE: "features"}
KIND_OF = {STREAM: STREAM_KIND, VIEW: VIEW_KIND, FEATURE: GROUP}
FILE_BYTES_MAX = 4_000_000
FILES_MAX = 100_000
_ENDS = {"sql": ".sql", "polars": ".py"}
_TREE = ".polars.json"
_NAME = re.compile(r"\w+")


class ReviewCalls:
    """The methods of a `Session` that write the catalog to files and read it from them."""

    catalog: Catalog
    _definitions: Definitions

    def export_catalog(self, folder: str | Path) -> Exported:
        """Write the catalog's features, views and streams to files, for review in git.

        A file each: what its author wrote, under a header of what is said of it. The same catalog
        gives the same bytes; files of what is gone are removed, others are left alone.
        """
        place = Path(folder)
        wanted = dict(_files(self.catalog.refresh()))
        written, same = [], 0
        for name, text in wanted.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.read_bytes() == text.encode():
                same += 1
                continue
            path.write_bytes(text.encode())
            written.append(name)
        removed = []
        for path in _found(place):
            name = path.relative_to(place).as_posix()
            if name not in wanted and is_ours(path.read_text("utf-8", "replace")):
                path.unlink()
                path.with_name(path.stem + _TREE).unlink(missing_ok=True)
                removed.append(name)
        return Exported(place, tuple(written), same, tuple(removed))

    def import_catalog(self, folder: str | Path, *, apply: bool = False) -> Imported:
        """Compare an export's files with the catalog, and take over what differs if told to.

        Features become drafts: nothing is promoted, and nothing in a file is executed. What the
        files have not is left as it is. An import of what was just exported changes nothing.

        Parameters
        ----------
        apply
            Take it over; by default it is only said what would change.
        """
        place = Path(folder)
        if not place.is_dir():
            raise UsageError("There is no such folder.", found=str(place),
                             remedy="fs-notebook catalog export DIR makes one")  # fmt: skip
        filed, odd = _read(place)
        steps = [self._step_of(one) for one in filed]
        if not apply:
            return Imported(place, (*_brought(filed, steps), *odd), applied=False)
        waiting = list(range(len(filed)))
        while waiting:
            # What reads from something that comes later in the files waits for it.
            left = []
            for n in waiting:
                steps[n] = self._step_of(filed[n])
                if steps[n].action in (NEW, CHANGED):
                    steps[n] = self._taken_over(filed[n], steps[n])
                if steps[n].action == REFUSED:
                    left.append(n)
            if len(left) == len(waiting):
                break
            waiting = left
        return Imported(place, (*steps, *odd), applied=True)

    def _step_of(self, filed: Filed) -> Step:
        """Return what importing one thing would change."""
        state = self.catalog.refresh()
        compare: dict[str, Callable[[CatalogState, Filed], Step]] = {
            FEATURE: self._feature_step, VIEW: _compared_view, STREAM: _compared_stream,
        }  # fmt: skip
        try:
            return compare[filed.kind](state, filed)
        except FeatureStoreError as error:
            return Step(filed.kind, filed.name, REFUSED, (str(error),))
        except (KeyError, TypeError, ValueError) as error:
            # A tree or a declaration that no export wrote.
            said = f"what it holds cannot be read: {type(error).__name__} {error}"
            return Step(filed.kind, filed.name, REFUSED, (said[:300],))

    def _feature_step(self, state: CatalogState, filed: Filed) -> Step:
        group = state.groups.get(filed.name)
        if group is not None and _says_the_same(filed_group(group, ()), filed):
            # Compiled anew it could mean something else by now: other inputs, a table that grew.
            said = word_changes(Words.of(group.latest), filed.words)
            words = (*said, *_deprecation(group.deprecated, filed))
            return Step(FEATURE, filed.name, CHANGED if words else SAME, words)
        definition = self._definitions.compile(filed.name, _given(filed), **_options(filed))
        state.check_names(definition, actor=self.catalog.actor)
        if group is None:
            return Step(FEATURE, filed.name, NEW, tuple(_said(filed)), _added(filed))
        latest = group.latest
        found = difference(latest, definition, labels=("catalog", "file"))
        words = (*found.words, *_deprecation(group.deprecated, filed))
        changed = words or found.lines or not found.same
        action = CHANGED if changed else SAME
        return Step(FEATURE, filed.name, action, words, found.lines)

    def _taken_over(self, filed: Filed, step: Step) -> Step:
        session: Any = self
        try:
            if filed.kind == STREAM:
                if step.action == NEW:
                    _declare(session, filed)
            elif filed.kind == VIEW:
                if step.action == NEW or step.lines:
                    session.create_view(
                        filed.name, _given(filed), description=filed.words.description, limit=1,
                        written=filed.text,
                    )  # fmt: skip
            elif step.action == NEW or step.lines or _means_otherwise(step):
                session.define(filed.name, _given(filed), **_options(filed))
            self._reworded(session, filed)
        except FeatureStoreError as error:
            return Step(filed.kind, filed.name, REFUSED, (str(error),))
        return step

    def _reworded(self, session: Any, filed: Filed) -> None:
        kind = KIND_OF[filed.kind]
        session.edit(
            filed.name, kind=kind, owner=filed.words.owner or "",
            description=filed.words.description or "", tags=list(filed.words.tags),
        )  # fmt: skip
        notes = self.catalog.refresh().notes.get((kind, filed.name), Notes())
        if filed.deprecated is not None:
            reason, instead = filed.deprecated
            session.deprecate(filed.name, kind=kind, reason=reason, instead=instead)
        elif notes.deprecated is not None:
            session.deprecate(filed.name, kind=kind, undo=True)


def _brought(filed: list[Filed], steps: list[Step]) -> Iterator[Step]:
    """Yield steps; what cannot be checked before the same import brought more is not refused."""
    new = {f.name for f, step in zip(filed, steps, strict=True) if step.action == NEW}
    waiting = list(zip(filed, steps, strict=True))
    found = True
    while found:
        found = False
        for one, step in waiting:
            words = set(_NAME.findall(f"{one.text} {one.options.get('stream', '')}"))
            if step.action == REFUSED and one.name not in new and words & new:
                new.add(one.name)
                found = True
    for one, step in waiting:
        if step.action == REFUSED and one.name in new:
            said = ("reads what this import brings: checked when that is there", *_said(one))
            yield replace(step, action=NEW, words=said, lines=_added(one))
        else:
            yield step


def _says_the_same(one: Filed, other: Filed) -> bool:
    """Tell whether two files define the same, whatever else they say."""
    pairs = [
        (f.text.strip("\n"), f.language, f.entity, dict(f.options), f.polars) for f in (one, other)
    ]
    return pairs[0] == pairs[1]


def _means_otherwise(step: Step) -> bool:
    """Tell whether a step changes more than words, as options of the header do."""
    words = ("owner:", "description:", "tags:", "deprecated", "no longer deprecated")
    return any(not w.startswith(words) for w in step.words)


def _given(filed: Filed) -> object:
    """Return what a definition is compiled of: SQL, or Polars' tree."""
    if filed.polars is None:
        return filed.text
    if filed.kind == VIEW:
        return PolarsRows.from_json(filed.polars)
    return PolarsDefinition.from_json(filed.polars)


def _options(filed: Filed) -> dict[str, Any]:
    return {
        "stream": None, "window": None, "closed": "left", "resolution": None, "ttl": None,
        "request": None, **filed.options, "entity": list(filed.entity), **filed.words.to_dict(),
        "written": filed.text if filed.polars is not None else None, "refresh_statistics": False,
    }  # fmt: skip


def _said(filed: Filed) -> Iterator[str]:
    for name, value in filed.words.to_dict().items():
        if value:
            yield f"{name}: {', '.join(value) if isinstance(value, tuple) else value}"


def _added(filed: Filed) -> tuple[str, ...]:
    return text_diff("", filed.text, labels=("catalog", "file"))


def _deprecation(known: Any, filed: Filed) -> Iterator[str]:
    before = None if known is None else (known.reason, known.instead)
    if before != filed.deprecated:
        if filed.deprecated is None:
            yield "no longer deprecated"
        else:
            yield f"deprecated: {filed.deprecated[0] or 'no reason given'}"


def _compared_view(state: CatalogState, filed: Filed) -> Step:
    view = state.views.get(filed.name)
    if view is None:
        _given(filed)
        return Step(VIEW, filed.name, NEW, tuple(_said(filed)), _added(filed))
    notes = state.notes.get((VIEW_KIND, filed.name), Notes())
    before = Words(notes.words.owner, view.description, notes.words.tags)
    words = [*word_changes(before, filed.words), *_deprecation(notes.deprecated, filed)]
    lines = text_diff(view.text, filed.text, labels=("catalog", "file"))
    return Step(VIEW, filed.name, CHANGED if words or lines else SAME, tuple(words), lines)


def _compared_stream(state: CatalogState, filed: Filed) -> Step:
    source = state.sources.get(filed.name)
    stream = Stream.from_dict({"time": None, "key": [], **(filed.stream or {}), "name": filed.name})
    if source is None:
        columns = ", ".join(f"{n} {t}" for n, t in stream.columns)
        return Step(STREAM, filed.name, NEW, (columns, *_said(filed)))
    if source.stream != stream:
        told = text_diff(_declared(source.stream), _declared(stream), labels=("catalog", "file"))
        why = "a declaration is changed by %feature declare, which looks at the stream"
        return Step(STREAM, filed.name, REFUSED, (why,), told)
    notes = state.notes.get((STREAM_KIND, filed.name), Notes())
    before = Words(notes.words.owner, source.description, notes.words.tags)
    words = [*word_changes(before, filed.words), *_deprecation(notes.deprecated, filed)]
    return Step(STREAM, filed.name, CHANGED if words else SAME, tuple(words))


def _declared(stream: Stream) -> str:
    return "\n".join(f"{name} = {value}" for name, value in stream.to_dict().items())


def _declare(session: Any, filed: Filed) -> None:
    said = {"time": None, "key": [], **(filed.stream or {}), "name": filed.name}
    stream = Stream.from_dict(said)
    session.declare(
        filed.name, [(n, t.value) for n, t in stream.columns if n not in dict(stream.meta)],
        time=stream.time, key=list(stream.key) or None, partitions=stream.partitions,
        format=None if stream.format == "json" else stream.format, schema=stream.schema,
        meta=dict(stream.meta) or None, json_only=stream.json_only or None,
        ahead=None if stream.ahead_us is None else f"{stream.ahead_us} us",
    )  # fmt: skip


def _files(state: CatalogState) -> Iterator[tuple[str, str]]:
    """Yield each file's name and text."""
    filed = [
        filed_stream(source.stream, state.notes.get((STREAM_KIND, n), Notes()), source.description)
        for n, source in state.sources.items()
    ]
    filed += [
        filed_view(view, state.notes.get((VIEW_KIND, n), Notes()))
        for n, view in state.views.items()
    ]
    filed += [filed_group(group, streams_of(group.latest)) for group in state.groups.values()]
    for one in sorted(filed, key=lambda f: (f.kind, f.name)):
        # A topic's name may hold what a file's cannot.
        base = f"{FOLDERS[one.kind]}/{quote(one.name, safe='')}"
        end = ".toml" if one.kind == STREAM else _ENDS[one.language]
        yield base + end, to_text(one)
        if one.polars is not None:
            yield base + _TREE, tree_text(one)


def _found(place: Path) -> list[Path]:
    """Return the files of an export's folders, streams first."""
    ends = (".toml", ".sql", ".py")
    found = [
        path
        for folder in FOLDERS.values()
        for path in sorted((place / folder).glob("*"))
        if path.suffix in ends and path.is_file()
    ]
    if len(found) > FILES_MAX:
        raise UsageError(f"An import reads at most {FILES_MAX:,} files.", found=f"{len(found):,}")
    return found


def _read(place: Path) -> tuple[list[Filed], list[Step]]:
    """Return what the files say, and what is wrong with those that say nothing."""
    filed: list[Filed] = []
    odd: list[Step] = []
    for path in _found(place):
        name = path.relative_to(place).as_posix()
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise UsageError(f"The file is larger than {FILE_BYTES_MAX:,} bytes.")
            tree = path.with_name(path.stem + _TREE)
            polars = None
            with suppress(FileNotFoundError):
                polars = tree.read_text("utf-8")
            filed.append(from_text(path.read_text("utf-8"), polars))
        except (FeatureStoreError, OSError, UnicodeDecodeError) as error:
            odd.append(Step("file", name, REFUSED, (str(error),)))
    return filed, odd
