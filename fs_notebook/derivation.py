"""From a derived feature's text to its definition: what names in FROM mean in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fs_notebook.catalog import CatalogState, Definition
from fs_notebook.catalog.model import AnyDefinition, DerivedDefinition
from fs_notebook.errors import DefinitionError, UsageError, unknown_name
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import (
    compile_derived,
    parse_requests,
    shape_of,
)


class Derivation:
    """What a cell's FROM means: streams to fold, or features to derive others from.

    A stream's name means the stream wherever rows are folded; where nothing is folded and the
    name is a feature as well, it is refused.

    Parameters
    ----------
    state
        The catalog.
    is_stream
        Tells whether a name is a stream or another source of rows.
    """

    def __init__(self, state: CatalogState, is_stream: Callable[[str], bool]) -> None:
        self.state = state
        self.is_stream = is_stream
        self._found: dict[str, AnyDefinition] = {}

    def is_derived(self, name: str, text: str, *, request: str | None) -> bool:
        """Tell whether `text` derives features from features.

        Raises
        ------
        UsageError
            If a name in FROM could mean two things, or FROM mixes streams and features.
        """
        shape = shape_of(text)
        features = [t for t in shape.tables if self._is_feature(t)]
        streams = [t for t in shape.tables if "@" not in t and self.is_stream(t)]
        both = [t for t in features if t in streams]
        if shape.folds or not shape.tables:
            chosen = bool(features) and not streams
        elif both:
            raise UsageError(
                f"{both[0]!r} is a stream and a feature group, and nothing here says which.",
                remedy=f"name one of the group's features in FROM instead of {both[0]!r}",
            )
        else:
            # Nothing is folded and no name is a stream: it is meant to be derived.
            chosen = bool(features) or not streams
        if chosen and streams:
            raise UsageError(
                "FROM mixes streams and features.",
                found=f"{streams[0]!r} is a stream, {features[0]!r} a feature",
                remedy="fold the stream in a feature of its own, then derive from both",
            )
        if request is not None and not chosen:
            raise UsageError(
                f"{name!r} folds a stream: a request has no values for it.",
                found=f"--request {request!r}",
                remedy="derive a feature from it that reads the request value",
            )
        return chosen

    def _is_feature(self, name: str) -> bool:
        base = name.partition("@")[0]
        return base in self.state.groups or base in self.state.owners

    def _definition(self, name: str) -> AnyDefinition:
        base, _, number = name.partition("@")
        if not self._is_feature(name):
            state = self.state
            known = {*state.groups, *state.owners, *state.sources, *state.views}
            raise unknown_name(
                "feature, group, stream or view", name, known, remedy="define it with %%feature"
            )
        group = self.state.group(base)
        if not number:
            return group.latest
        if not number.isdecimal():
            raise UsageError("A version is a number.", found=name, remedy=f'"{base}@1"')
        return group.version(int(number)).definition

    def compile(
        self,
        name: str,
        text: str,
        *,
        entity: Sequence[str],
        request: str | None,
        windows: Mapping[str, str | None],
    ) -> DerivedDefinition:
        """Compile a derived feature group, with what it pins.

        `windows` are the options that only what is folded can have.
        """
        if odd := [f"--{n} {v}" for n, v in windows.items() if v not in (None, "left")]:
            raise UsageError(
                f"{name!r} is derived: it has no window of its own.",
                found=", ".join(odd),
                remedy="leave it out; windows are those of the features that it reads",
            )

        def find(asked: str) -> Given:
            definition = self._definition(asked)
            if definition.name == name:
                raise DefinitionError(
                    f"{name!r} would be derived from itself.",
                    remedy="another name for what is derived",
                )
            self._found[definition.name] = definition
            base = asked.partition("@")[0]
            only = base if base != definition.name else None
            return Given(definition.name, definition.plan, only)

        plan = compile_derived(
            text, name=name, find_group=find, entity=entity, requests=parse_requests(request)
        )
        pinned: dict[tuple[str, str], Definition] = {}
        for definition in self._found.values():
            inner = (
                definition.inputs if isinstance(definition, DerivedDefinition) else (definition,)
            )
            pinned |= {(d.name, d.fingerprint): d for d in inner}
        needed = sorted({(i.group, i.fingerprint) for i in plan.inputs})
        return DerivedDefinition(
            name=name, text=text, plan=plan, inputs=tuple(pinned[n] for n in needed),
            origins=tuple(sorted(self._found)),
        )  # fmt: skip
