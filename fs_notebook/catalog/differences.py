"""What changed from one definition to another: in plain words, and as a diff of texts. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fs_notebook.catalog.about import WORDS, Words
from fs_notebook.catalog.definition import AnyDefinition, Definition, DerivedDefinition
from fs_notebook.errors import plain
from fs_notebook.language import expr as ex
from fs_notebook.language.derived import DerivedPlan
from fs_notebook.language.plan import Aggregation, Plan, span_text


@dataclass(frozen=True)
class Difference:
    """How two definitions of a feature group differ.

    Attributes
    ----------
    name
        The group.
    before, after
        What the two are called: ``v1``, ``draft``.
    same
        Whether they mean the same, so that they are one version.
    words
        What changed, a sentence each.
    lines
        A unified diff of the two texts; empty where those are the same.
    """

    name: str
    before: str
    after: str
    same: bool
    words: tuple[str, ...]
    lines: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it fit for `json.dumps`."""
        return {
            "name": self.name, "before": self.before, "after": self.after, "same": self.same,
            "words": list(self.words), "lines": list(self.lines),
        }  # fmt: skip

    def __repr__(self) -> str:
        meaning = "the same meaning" if self.same else "another meaning"
        told = [f"{self.name}: {self.before} → {self.after}, {meaning}"]
        told += [f"  {w}" for w in self.words] or ["  nothing changed"]
        return "\n".join(map(plain, [*told, *self.lines]))


def difference(
    before: AnyDefinition, after: AnyDefinition, *, labels: tuple[str, str] = ("before", "after")
) -> Difference:
    """Return what changed from one definition of a group to another.

    Parameters
    ----------
    labels
        What the two are called.
    """
    lines = text_diff(before.text, after.text, labels=labels)
    words = [*_meaning_changes(before, after), *word_changes(before, after)]
    same = before.fingerprint == after.fingerprint
    if lines and same:
        words.insert(0, "the text only: it means the same")
    return Difference(after.name, *labels, same, tuple(words), lines)


def text_diff(before: str, after: str, *, labels: tuple[str, str]) -> tuple[str, ...]:
    """Return a unified diff of two texts, without line ends; empty if they are the same."""
    old, new = before.strip().splitlines(), after.strip().splitlines()
    return tuple(difflib.unified_diff(old, new, *labels, lineterm="", n=2))


def word_changes(before: AnyDefinition | Words, after: AnyDefinition | Words) -> Iterator[str]:
    """Yield what is said otherwise: owner, description, tags."""
    for name in WORDS:
        old, new = getattr(before, name), getattr(after, name)
        if name == "tags":
            changed = [f"+{t}" for t in new if t not in old] + [
                f"-{t}" for t in old if t not in new
            ]
            if changed:
                yield f"tags: {' '.join(changed)}"
        elif old != new:
            yield f"{name}: {old or 'none'} → {new or 'none'}"


def _meaning_changes(before: AnyDefinition, after: AnyDefinition) -> Iterator[str]:
    if before.fingerprint == after.fingerprint:
        return
    if before.plan.entity != after.plan.entity:
        yield f"entity: {_listed(before.plan.entity)} → {_listed(after.plan.entity)}"
    if isinstance(before, Definition) and isinstance(after, Definition):
        yield from _folded_changes(before, after)
    elif isinstance(before, DerivedDefinition) and isinstance(after, DerivedDefinition):
        yield from _derived_changes(before, after)
    else:
        kinds = [
            "derived" if isinstance(d, DerivedDefinition) else "folded" for d in (before, after)
        ]
        yield f"{kinds[0]} before, {kinds[1]} now"
    yield from _feature_changes(before, after)


def _folded_changes(before: Definition, after: Definition) -> Iterator[str]:
    old, new = before.plan, after.plan
    if old.source != new.source:
        yield f"source: {old.source} → {new.source}"
    if [k.expr for k in old.keys] != [k.expr for k in new.keys] and old.entity == new.entity:
        yield "the key is another expression"
    if old.where != new.where:
        kinds = {
            (True, False): "rows are filtered now",
            (False, True): "rows are no longer filtered",
        }
        yield kinds.get((old.where is None, new.where is None), "other rows pass the filter")
    joined = [tuple(j.source for j in p.joins) for p in (old, new)]
    if joined[0] != joined[1]:
        yield f"joins: {_listed(joined[0])} → {_listed(joined[1])}"
    elif old.joins != new.joins:
        yield f"joined otherwise: {_listed(joined[0])}"
    if old.branches != new.branches and old.source == new.source:
        yield "rows of the union are made otherwise"
    if old.ttl_us != new.ttl_us:
        spans = ["for ever" if us is None else span_text(us) for us in (old.ttl_us, new.ttl_us)]
        yield f"time to live: {spans[0]} → {spans[1]}"
    if before.pins != after.pins:
        yield "pinned statistics were measured anew"


def _derived_changes(before: DerivedDefinition, after: DerivedDefinition) -> Iterator[str]:
    old = {d.name: d.fingerprint for d in before.inputs}
    new = {d.name: d.fingerprint for d in after.inputs}
    if old.keys() != new.keys():
        yield f"derived from: {_listed(sorted(old))} → {_listed(sorted(new))}"
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield f"reads another version of {name}: {old[name][:12]} → {new[name][:12]}"
    if before.plan.requests != after.plan.requests:
        asked = [_listed([f"{n} {t}" for n, t in d.plan.requests]) for d in (before, after)]
        yield f"values of the request: {asked[0]} → {asked[1]}"


def _feature_changes(before: AnyDefinition, after: AnyDefinition) -> Iterator[str]:
    old = {o.name: o for o in before.plan.outputs}
    new = {o.name: o for o in after.plan.outputs}
    for name in (n for n in new if n not in old):
        yield f"new feature: {name} {new[name].type}"
    for name in (n for n in old if n not in new):
        yield f"no feature {name} any more"
    for name in (n for n in old if n in new):
        if old[name].type != new[name].type:
            yield f"{name}: {old[name].type} → {new[name].type}"
        windows = [_windows(d.plan, o.expr) for d, o in ((before, old[name]), (after, new[name]))]
        if windows[0] != windows[1]:
            yield f"{name}: window {_listed(windows[0])} → {_listed(windows[1])}"
        elif _meaning(before.plan, old[name].expr) != _meaning(after.plan, new[name].expr):
            yield f"{name} is computed otherwise"
    kept = [[n for n in d.plan.features if n in old and n in new] for d in (before, after)]
    if kept[0] != kept[1]:
        yield "the features are in another order"


def _used(plan: Plan | DerivedPlan, expr: ex.Expr) -> list[Aggregation]:
    if isinstance(plan, DerivedPlan):
        return []
    return [plan.aggregations[e.index] for e in ex.walk(expr) if isinstance(e, ex.Aggregated)]


def _windows(plan: Plan | DerivedPlan, expr: ex.Expr) -> list[str]:
    windows = [a.window for a in _used(plan, expr)]
    return list(dict.fromkeys(
        f"{w} with its end" if w.closed == "right" else str(w) for w in windows
    ))  # fmt: skip


def _meaning(plan: Plan | DerivedPlan, expr: ex.Expr) -> list[object]:
    """Return what an expression means, whatever place its aggregates have in the plan."""
    shape: list[object] = []
    for part in ex.walk(expr):
        if isinstance(part, ex.Call):
            shape.append((part.function, len(part.args), part.type))
        elif isinstance(part, ex.Aggregated) and isinstance(plan, Plan):
            shape.append(plan.aggregations[part.index])
        else:
            shape.append(part)
    return shape


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
