"""How the catalog's feature sets and models look in a notebook, and on the command line."""

from __future__ import annotations

from collections.abc import Iterable

from fs_notebook.jupyter.table import Column, Table
from fs_notebook.model.sets import PinnedSet, RegisteredModel

_SETS = (
    Column("name", "feature set"),
    Column("version", kind="code"),
    Column("features"),
    Column("entities", "of"),
    Column("models"),
    Column("description"),
    Column("owner"),
    Column("actor", "by"),
    Column("at", "made"),
)
_MODELS = (
    Column("name", "model"),
    Column("set", "features", kind="code"),
    Column("training_set", "training set"),
    Column("description"),
    Column("owner"),
    Column("actor", "by"),
    Column("at", "registered"),
)


class FeatureSetTable(Table):
    """The catalog's feature sets, each in its newest version."""

    def __init__(self, sets: Iterable[PinnedSet]) -> None:
        shown = [
            {"name": s.name, "version": f"v{s.version}", "features": ", ".join(s.features),
             "entities": ", ".join(s.entities), "models": ", ".join(s.models) or None,
             "description": s.description, "owner": s.owner, "actor": s.actor, "at": s.at}
            for s in sets
        ]  # fmt: skip
        super().__init__(
            shown, columns=_SETS, title="Feature sets",
            empty="No feature set yet: %feature set NAME total_readtime@1,recent makes one.",
        )  # fmt: skip


class ModelTable(Table):
    """The registered models."""

    def __init__(self, models: Iterable[RegisteredModel]) -> None:
        shown = [
            {"name": m.name, "set": m.set, "training_set": m.training_set,
             "description": m.description, "owner": m.owner, "actor": m.actor, "at": m.at}
            for m in models
        ]  # fmt: skip
        super().__init__(
            shown, columns=_MODELS, title="Models",
            empty="No model is registered yet: %feature model NAME --set ranker registers one.",
        )  # fmt: skip
