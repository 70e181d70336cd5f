"""How the catalog's training sets look in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fs_notebook.catalog.recipes import SavedTrainingSet
from fs_notebook.jupyter.table import Column, Table
from fs_notebook.jupyter.values import moment
from fs_notebook.model.asked import AsOf

COLUMNS = (
    Column("name", "training set"),
    Column("rows", "labels"),
    Column("features"),
    Column("first", "from, UTC"),
    Column("last", "to, UTC"),
    Column("as_of", "as of"),
    Column("fingerprint", kind="code"),
    Column("actor", "by"),
    Column("at", "saved, UTC"),
)


def _when(iso: str | None) -> str | None:
    return None if iso is None else moment(datetime.fromisoformat(iso))


class TrainingSetTable(Table):
    """The catalog's training sets."""

    def __init__(self, saved: Iterable[SavedTrainingSet]) -> None:
        shown = [
            {"name": s.name, "rows": s.recipe.rows, "features": ", ".join(s.recipe.columns),
             "first": _when(s.recipe.first), "last": _when(s.recipe.last),
             "as_of": str(AsOf(s.recipe.lag_us, s.recipe.known)),
             "fingerprint": s.recipe.fingerprint[:12], "actor": s.actor,
             "at": moment(s.at, seconds=False)}
            for s in saved
        ]  # fmt: skip
        super().__init__(
            shown, columns=COLUMNS, title="Training sets",
            empty="No training set is kept yet: %feature training_set … --name NAME keeps one.",
        )  # fmt: skip
