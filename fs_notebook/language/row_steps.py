"""What is done to the rows of a stream in Polars, as it is kept: steps with their expressions.

What it means is in `polars_rows`, which needs a parser: whoever only keeps it does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fs_notebook.language.polars_text import named_text
from fs_notebook.language.polars_tree import Node

if TYPE_CHECKING:
    from fs_notebook.language.relation import Relation, Resolver

_STEPS = ("filter", "select", "with_columns", "drop", "rename", "join")


@dataclass(frozen=True)
class RowStep:
    """One thing that is done to rows.

    Attributes
    ----------
    kind
        The method's name.
    exprs
        The expressions that it takes, each with the name that it is given, if any.
    names, others
        Of drop the columns; of rename the old and the new names; of join the other stream's key
        columns, and its name and how.
    """

    kind: str
    exprs: tuple[tuple[str | None, Node], ...] = ()
    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def to_json(self) -> list[Any]:
        """Return the canonical form, fit for `json.dumps`."""
        exprs = [[name, node.to_json()] for name, node in self.exprs]
        return [self.kind, exprs, list(self.names), list(self.others)]

    @classmethod
    def from_json(cls, data: Any) -> RowStep:
        """Return the step that `to_json` wrote."""
        kind, exprs, names, others = data
        if kind not in _STEPS:
            raise ValueError(f"there is no step {kind!r}")
        nodes = tuple((name, Node.from_json(node)) for name, node in exprs)
        return cls(kind, nodes, tuple(names), tuple(others))

    def __str__(self) -> str:
        """Return Python that says the same."""
        args = [named_text(name, node) for name, node in self.exprs]
        if self.kind == "drop":
            args = [repr(n) for n in self.names]
        elif self.kind == "rename":
            args = [repr(dict(zip(self.names, self.others, strict=True)))]
        elif self.kind == "join":
            other, how = self.others
            args = [f"fs.stream({other!r})", f"left_on=[{', '.join(args)}]",
                    f"right_on={list(self.names)!r}", f"how={how!r}"]  # fmt: skip
        return f".{self.kind}({', '.join(args)})"


@dataclass(frozen=True)
class PolarsRows:
    """The rows of a stream or a view, and what is done to them, step by step."""

    stream: str
    steps: tuple[RowStep, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the canonical form, fit for `json.dumps`."""
        return {"stream": self.stream, "steps": [s.to_json() for s in self.steps]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolarsRows:
        """Return the rows that `to_json` wrote."""
        return cls(data["stream"], tuple(RowStep.from_json(s) for s in data["steps"]))

    def __str__(self) -> str:
        """Return Python that says the same."""
        return f"fs.stream({self.stream!r})" + "".join(map(str, self.steps))

    def relation(self, resolver: Resolver, text: str = "") -> Relation:
        """Return the rows.

        Parameters
        ----------
        resolver
            Finds the stream or the view, and what is joined.
        text
            What the user wrote, for errors that point into it.

        Raises
        ------
        DefinitionError
            If a step is no row transform, or a column is not there; says why.
        UnknownName
            If there is no such stream or view.
        """
        # The parser takes a fifth of a second to load: workers do without.
        from fs_notebook.language.polars_rows import relation_of

        return relation_of(self, resolver, text)
