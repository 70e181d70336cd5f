"""What can stand where the cursor is: verbs, options, streams, columns, features, versions.

IPython asks for it at Tab, in a terminal and through a kernel alike. No completion connects to
anything: before there is a session, verbs and options are all there is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fs_notebook.catalog.model import CatalogState

SHOWN_MAX = 300
REFRESH_S = 0.3
_FRAGMENT = re.compile(r"[\w@.]*$")
_FROM = re.compile(
    r"\b(?:FROM|JOIN)\s+([A-Za-z_]\w*)(?:\s+(?:AS\s+)?([A-Za-z_]\w*))?", re.IGNORECASE
)
_AFTER_FROM = re.compile(r"\b(?:FROM|JOIN)\s+\w*$", re.IGNORECASE)
_QUOTED = re.compile(r"""(?:pl\.col\(|fs\.stream\()[^()]*["'](\w*)$""")
_CALL = re.compile(r"""\bfs\.(\w+)\((?:[^()]*[\[,(\s])?["']([\w@]*)$""")
_OF_FEATURES = frozenset({
    "about", "compare", "deprecate", "diff", "edit", "explain", "health", "lift", "lineage",
    "live_value", "past", "portrait", "preview", "promote", "promote_panel", "retire", "rollback",
    "serve", "side_by_side", "status", "training_set", "uses", "verify", "wait",
})  # fmt: skip
_OF_STREAMS = frozenset({
    "dead_letters", "declare", "describe", "export_stream", "peek", "slice_picker", "stream",
    "timeline",
})  # fmt: skip
_KEYWORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "JOIN", "LEFT JOIN", "ON", "USING", "AS", "OVER",
    "WINDOW", "PARTITION BY", "ORDER BY", "RANGE BETWEEN INTERVAL", "PRECEDING AND CURRENT ROW",
    "FILTER (WHERE", "DISTINCT", "CASE WHEN", "THEN", "ELSE", "END", "CAST(", "INTERVAL", "AND",
    "OR", "NOT", "IN", "IS NULL", "UNION ALL", "WITH",
)  # fmt: skip


@dataclass(frozen=True)
class Completions:
    """What can stand in place of `fragment`, which ends at the cursor: (text, what it is)."""

    fragment: str
    found: tuple[tuple[str, str], ...]


class Names:
    """The names that completions are made of, as the session's catalog last had them.

    Parameters
    ----------
    state
        The catalog; None where there is no session.
    variables
        The names of the notebook's variables.
    """

    def __init__(self, state: CatalogState | None, variables: Iterable[str] = ()) -> None:
        self.state = state
        self.variables = tuple(variables)

    def features(self) -> Iterator[tuple[str, str]]:
        """Yield groups and features."""
        if self.state is not None:
            yield from ((name, "group") for name in self.state.groups)
            yield from ((name, "feature") for name in self.state.owners)

    def versions(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield the versions of a feature or group, as numbers."""
        state = self.state
        group = None if state is None else state.groups.get(state.owners.get(name, name))
        if group is not None:
            for v in group.versions:
                is_serving = group.serving is not None and group.serving.number == v.number
                yield (
                    str(v.number),
                    "retired" if v.retired else "serves" if is_serving else "version",
                )

    def pinned(self, fragment: str) -> Iterator[tuple[str, str]]:
        """Yield features, or the versions of one where ``name@`` is begun."""
        name, at, _ = fragment.partition("@")
        if not at:
            yield from self.features()
        else:
            yield from ((f"{name}@{number}", kind) for number, kind in self.versions(name))

    def streams(self) -> Iterator[tuple[str, str]]:
        """Yield streams."""
        if self.state is not None:
            yield from ((name, "stream") for name in self.state.sources)

    def views(self) -> Iterator[tuple[str, str]]:
        """Yield views."""
        if self.state is not None:
            yield from ((name, "view") for name in self.state.views)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield what rows can be read from: streams and views."""
        yield from self.streams()
        yield from self.views()

    def things(self) -> Iterator[tuple[str, str]]:
        """Yield all that has a name in the catalog."""
        yield from self.features()
        yield from self.rows()
        yield from self.training_sets()

    def training_sets(self) -> Iterator[tuple[str, str]]:
        """Yield saved training sets."""
        if self.state is not None:
            yield from ((name, "training set") for name in self.state.training_sets)

    def labels(self) -> Iterator[tuple[str, str]]:
        """Yield what can be labels: variables, streams, views."""
        yield from ((name, "variable") for name in self.variables)
        yield from self.rows()

    def columns(self, source: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield the columns of a stream, a view or a group; without one, of all streams."""
        if self.state is None:
            return
        if source is None:
            for one in self.state.sources.values():
                yield from ((name, kind.value) for name, kind in one.stream.columns)
        elif source in self.state.groups:
            facts = self.state.groups[source].latest.facts
            yield from ((name, "key") for name in facts.entity)
            yield from zip(facts.features, facts.types, strict=True)
        elif source in self.state.views:
            view = self.state.views[source]
            for name in view.streams or (view.source,):
                yield from self.columns(name)
            # What the view itself calls its columns stands in its text.
            yield from ((n, "view column") for n in re.findall(r"\bAS\s+(\w+)", view.text, re.I))
        elif source in self.state.sources:
            stream = self.state.sources[source].stream
            yield from ((name, kind.value) for name, kind in stream.columns)

    def words(self, what: str) -> Iterator[tuple[str, str]]:
        """Yield the tags or owners that anything has."""
        for notes in () if self.state is None else self.state.notes.values():
            words = notes.words
            yield from ((w, what) for w in (words.tags if what == "tag" else [words.owner or ""]))


def complete(text: str, line: int, column: int, names: Names) -> Completions | None:
    """Return what can stand at a place in a cell; None where that is not for us to say.

    Parameters
    ----------
    text
        The whole cell.
    line, column
        Where the cursor is, from 0.
    """
    lines = text.split("\n")
    before = lines[line][:column] if line < len(lines) else ""
    first = next((n for n, one in enumerate(lines) if one.strip()), 0)
    head = lines[first].lstrip()
    for magic in ("%%feature", "%%view"):
        if head.startswith(magic + " "):
            if line == first:
                return _header(
                    before.lstrip().removeprefix(magic), names, is_view=magic == "%%view"
                )
            return _body(text, "\n".join([*lines[first + 1 : line], before]), head, names)
    verb_line = re.match(r"\s*%feature(\s.*)$", before)
    if verb_line is not None:
        return _verb_line(verb_line.group(1), names)
    call = _CALL.search(before)
    if call is not None:
        method, fragment = call.groups()
        if method in _OF_FEATURES:
            return _chosen(fragment, names.pinned(fragment))
        if method in _OF_STREAMS:
            return _chosen(fragment, names.streams())
    return None


def _chosen(fragment: str, found: Iterable[tuple[str, str]]) -> Completions:
    """Return those that begin as the fragment does, whatever its case; each once, in order."""
    folded = fragment.casefold()
    hits: dict[str, str] = {}
    for name, kind in found:
        if name and name.casefold().startswith(folded):
            hits.setdefault(name, kind)
    return Completions(fragment, tuple(sorted(hits.items()))[:SHOWN_MAX])


def _split(before: str) -> tuple[list[str], str]:
    """Return the finished words of a line, and the one that is being written."""
    words = before.split()
    return (words, "") if not before or before[-1].isspace() else (words[:-1], words[-1])


def _verb_line(before: str, names: Names) -> Completions:
    from fs_notebook.jupyter.options import ALIASES, VERBS, parser_of

    words, fragment = _split(before)
    if not words:
        return _chosen(fragment, ((verb, about) for verb, (about, _) in VERBS.items()))
    verb = ALIASES.get(words[0], words[0])
    if verb not in VERBS:
        return Completions(fragment, ())
    if verb in ("catalog", "browse"):
        return _filters(fragment, names)
    if verb == "tag" and len(words) > 1:
        sign = fragment[:1] if fragment[:1] in "+-" else "+"
        return _chosen(fragment, ((sign + w, kind) for w, kind in names.words("tag")))
    return _options(parser_of(verb), verb, words[1:], fragment, names)


def _header(before: str, names: Names, *, is_view: bool) -> Completions:
    from fs_notebook.jupyter.options import view_parser
    from fs_notebook.language.cell import cell_parser

    words, fragment = _split(before)
    parser = view_parser() if is_view else cell_parser()
    return _options(parser, "view" if is_view else "cell", words, fragment, names)


def _options(
    parser: argparse.ArgumentParser, verb: str, words: Sequence[str], fragment: str, names: Names
) -> Completions:
    actions = parser._actions
    by_option = {option: a for a in actions for option in a.option_strings}
    last = by_option.get(words[-1]) if words else None
    if last is not None and last.nargs != 0:
        part, found = _values(last, verb, words, fragment, names)
        return _chosen(part, found)
    if fragment.startswith("-"):
        options = ((o, a.help or "") for o, a in by_option.items() if o.startswith("--"))
        return _chosen(fragment, ((o, text.replace("%%", "%")) for o, text in options))
    positional = [a for a in actions if not a.option_strings]
    given = _positionals(words, by_option)
    if not positional or (given >= len(positional) and positional[-1].nargs not in ("+", "*")):
        return _chosen(fragment, ((o, a.help or "") for o, a in by_option.items() if o[:2] == "--"))
    action = positional[min(given, len(positional) - 1)]
    part, found = _values(action, verb, words, fragment, names)
    return _chosen(part, found)


def _positionals(words: Sequence[str], by_option: Mapping[str, argparse.Action]) -> int:
    """Return how many of the finished words are no options and no options' values."""
    count, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word in by_option:
            skip = by_option[word].nargs != 0
        else:
            count += 1
    return count


_STREAM_VERBS = frozenset({"peek", "dead", "declare"})
_THING_VERBS = frozenset({"about", "lineage", "describe", "tag", "owner", "deprecate"})


def _values(
    action: argparse.Action, verb: str, words: Sequence[str], fragment: str, names: Names
) -> tuple[str, Iterable[tuple[str, str]]]:
    """Return the part of a word that is completed, and what can stand there."""
    part = fragment.rpartition(",")[2]
    if action.choices:
        return fragment, ((str(c), "choice") for c in action.choices)
    said = dict(pairwise(words))
    source = said.get("--stream") or said.get("-s") or said.get("--labels")
    given: Mapping[str, Callable[[], Iterable[tuple[str, str]]]] = {
        "stream": names.streams,
        "labels": names.labels,
        "data": lambda: ((name, "variable") for name in names.variables),
        "time": lambda: names.columns(source),
        "key": lambda: names.columns(source),
        "id": lambda: names.columns(source),
        "target": lambda: names.columns(source),
        "baseline": lambda: names.columns(source),
        "base": lambda: names.pinned(part),
        "features": lambda: names.pinned(part),
        "entity": lambda: _entities(names, verb),
        "tags": lambda: names.words("tag"),
        "owner": lambda: names.words("owner"),
        "instead": names.features,
        "again": names.training_sets,
        "into": lambda: ((name, "variable") for name in names.variables),
        "log": lambda: (("embedded:", "ledger"), ("pulsar://", "ledger")),
        "redis": lambda: (("embedded:", "store"), ("redis://", "store"), ("rediss://", "store")),
        "versions": lambda: _versions(names, words, fragment),
        "version": lambda: _versions(names, words, fragment),
        "before": lambda: _versions(names, words, fragment, draft=True),
        "after": lambda: _versions(names, words, fragment, draft=True),
        "verb": _verbs,
        "words": _functions,
        "name": lambda: _of_verb(verb, names, part),
    }  # fmt: skip
    find = given.get(action.dest)
    is_list = action.dest in ("key", "base", "baseline", "features", "tags", "versions") or (
        action.dest == "name" and verb == "lift"
    )
    return (part if is_list else fragment), () if find is None else find()


def _of_verb(verb: str, names: Names, part: str) -> Iterable[tuple[str, str]]:
    if verb in _STREAM_VERBS:
        return names.streams()
    if verb in _THING_VERBS:
        return names.things()
    if verb in ("views", "view"):
        return names.views()
    if verb == "cell":
        # Its own groups are what a cell defines anew.
        return ((n, k) for n, k in names.features() if k == "group")
    return names.features()


def _entities(names: Names, verb: str) -> Iterator[tuple[str, str]]:
    if names.state is not None:
        for group in names.state.groups.values():
            yield from ((e, "entity") for e in group.latest.facts.entity)
    if verb == "cell":
        yield from names.columns()


def _versions(
    names: Names, words: Sequence[str], fragment: str, *, draft: bool = False
) -> Iterator[tuple[str, str]]:
    for word in words:
        yield from names.versions(word)
    if draft:
        yield "draft", "the draft"


def _verbs() -> Iterator[tuple[str, str]]:
    from fs_notebook.jupyter.options import VERBS

    yield from ((verb, about) for verb, (about, _) in VERBS.items())


def _functions() -> Iterator[tuple[str, str]]:
    from fs_notebook.language.reference import functions

    for row in functions(""):
        yield str(row["name"]), "function"


def _filters(fragment: str, names: Names) -> Completions:
    from fs_notebook.catalog.search import FILTERS

    sign = "-" if fragment.startswith("-") else ""
    name, colon, value = fragment.removeprefix(sign).partition(":")
    if not colon:
        found = [(f"{sign}{f}:", "filter") for f in FILTERS]
        return _chosen(fragment, [*found, *([] if sign else names.things())])
    values: Mapping[str, Callable[[], Iterable[tuple[str, str]]]] = {
        "tag": lambda: names.words("tag"), "owner": lambda: names.words("owner"),
        "source": names.streams, "entity": lambda: _entities(names, "catalog"),
        "feature": names.features, "name": names.things,
        "status": lambda: ((s, "status") for s in
                           ("draft", "promoted", "live", "deprecated", "retired")),
        "kind": lambda: ((k, "kind") for k in ("group", "view", "stream")),
        "type": lambda: ((t.casefold(), "type") for _, t in names.columns()),
    }  # fmt: skip
    return _chosen(value, values.get(name, tuple)())


def _body(text: str, before: str, head: str, names: Names) -> Completions | None:
    if re.search(r"\s(?:-l|--language)[ =]polars\b", head):
        quoted = _QUOTED.search(before)
        if quoted is None:
            # Python: the shell's own completions know more.
            return None
        if before[: quoted.start() + 10].endswith("fs.stream("):
            return _chosen(quoted.group(1), names.rows())
        of = re.search(r"(?:--stream|-s)[ =](\w+)", head) or re.search(
            r"""fs\.stream\(["'](\w+)""", text
        )
        return _chosen(quoted.group(1), names.columns(of.group(1) if of else None))
    found = _FRAGMENT.search(before)
    fragment = found.group() if found is not None else ""
    if _AFTER_FROM.search(before):
        return _chosen(fragment, [*names.rows(), *names.features()])
    sources = {alias or name: name for name, alias in _FROM.findall(text)}
    sources |= {name: name for name, _ in _FROM.findall(text)}
    qualifier, dot, rest = fragment.rpartition(".")
    if dot:
        return _chosen(rest, names.columns(sources.get(qualifier)) if qualifier in sources else ())
    # Before FROM is written any stream may be meant.
    named = list(dict.fromkeys(sources.values())) or [None]
    columns = [c for name in named for c in names.columns(name)]
    words = [(k if not fragment.islower() else k.lower(), "keyword") for k in _KEYWORDS]
    functions = [(n.upper() if not fragment.islower() else n, k) for n, k in _functions()]
    chosen = _chosen(fragment, [*columns, *((s, "source") for s in sources), *functions, *words])
    # Columns first: that is what is looked for most.
    own = {name for name, _ in columns} | sources.keys()
    ranked = sorted(chosen.found, key=lambda item: (item[0] not in own, item[0]))
    return Completions(fragment, tuple(ranked))


class Matcher:
    """What IPython asks at Tab."""

    matcher_api_version = 2
    matcher_identifier = "fs_notebook"
    matcher_priority = 1_000.0

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        # IPython also looks for the name that a function has.
        self.__qualname__ = self.matcher_identifier

    def __call__(self, context: Any) -> dict[str, Any]:
        nothing: dict[str, Any] = {"completions": [], "suppress": False}
        if "%" not in context.full_text and "fs." not in context.full_text:
            return nothing
        from IPython.core.completer import SimpleCompletion

        names = Names(known_state(), self._variables())
        column = len(context.text_until_cursor)
        found = complete(context.full_text, context.cursor_line, column, names)
        if found is None or not found.found:
            return nothing
        # JupyterLab breaks a line at each blank and shows the first line only.
        shown = [
            SimpleCompletion(text=text, type=kind[:60].replace(" ", "\u00a0"))
            for text, kind in found.found
        ]
        return {
            "completions": shown, "matched_fragment": found.fragment, "suppress": True,
            "ordered": True,
        }  # fmt: skip

    def _variables(self) -> list[str]:
        hidden = self._shell.user_ns_hidden
        return [
            n for n, value in self._shell.user_ns.items()
            if not n.startswith("_") and n not in hidden and hasattr(type(value), "columns")
        ]  # fmt: skip


def known_state() -> CatalogState | None:
    """Return the catalog as the current session has it; waits a moment for what is newer."""
    import sys
    import threading

    module = sys.modules.get("fs_notebook.current")
    session = None if module is None else module._current
    if session is None:
        return None
    # A broker that does not answer must not hold up the keyboard.
    thread = threading.Thread(target=_refreshed, args=(session.catalog,), daemon=True)
    thread.start()
    thread.join(REFRESH_S)
    state: CatalogState = session.catalog.known
    return state


def _refreshed(catalog: Any) -> None:
    from contextlib import suppress

    with suppress(Exception):
        catalog.refresh()


def install(shell: InteractiveShell) -> None:
    """Let the shell ask for our completions."""
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        remove(shell)
        completer.custom_matchers.append(Matcher(shell))


def remove(shell: InteractiveShell) -> None:
    """Take them out again."""
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        kept = [m for m in completer.custom_matchers if not isinstance(m, Matcher)]
        completer.custom_matchers[:] = kept
