"""What a session does for models: feature sets, registered models, lineage, kept training sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.model import definition_of
from fs_notebook.catalog.recipes import SavedTrainingSet
from fs_notebook.catalog.sets import (
    MODEL_REGISTERED,
    MODEL_REMOVED,
    SET_DEFINED,
    SET_RETIRED,
    TRAINING_DELETED,
    TRAINING_RENAMED,
    Member,
    Model,
    check_model_name,
    parse_set,
)
from fs_notebook.catalog.usage import members_of, models_with, set_of
from fs_notebook.clock import Clock
from fs_notebook.errors import NameTaken, UsageError, unknown_name
from fs_notebook.language.cell import check_name
from fs_notebook.model.sets import PinnedSet, RegisteredModel, names_of, pinned_set
from fs_notebook.online.board import SET
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.records import set_records
from fs_notebook.worker.runner import ensure_runner

if TYPE_CHECKING:
    from pathlib import Path

    from fs_notebook.model.encoder import FeatureEncoder
    from fs_notebook.model.pieces import TrainingPieces


class SetCalls:
    """The methods of a `Session` that a model's owner calls."""

    catalog: Catalog
    clock: Clock
    connection: Connection
    store: OnlineStore

    def feature_set(
        self,
        name: str,
        features: str | PinnedSet | Sequence[str | PinnedSet] | None = None,
        *,
        description: str | None = None,
        owner: str | None = None,
    ) -> PinnedSet:
        """Return a feature set; with `features`, make it, or its next version.

        A set is a list of pinned features in an order. Its versions never change, and all that are
        kept stay current online, whatever becomes of their features' groups since; the same list
        again is the same version.

        Parameters
        ----------
        name
            ``"ranker"``, or one of its versions, ``"ranker@2"``.
        features
            Names of features, groups, versions (``"total_readtime@2"``) or other sets
            (``"set:base"``). A name without a version is pinned to the one that serves.
        description, owner
            For the catalog; default: those of the version before.

        Raises
        ------
        UsageError
            If one is named twice, was never promoted or is retired.
        UnknownName
            If there is no such set, version or feature.
        """
        if features is None:
            return self._shown(self.catalog.refresh(), name)
        check_name(name, what="A feature set's name")
        names = names_of(features)

        def body_of(state: CatalogState) -> tuple[tuple[Member, ...], str | None, str | None]:
            known = state.feature_sets.get(name)
            former = known.kept[-1] if known is not None and known.kept else None
            about = (None, None) if former is None else (former.description, former.owner)
            return members_of(state, names), description or about[0], owner or about[1]

        members, said, owned = body_of(self.catalog.refresh())

        def check(state: CatalogState) -> bool:
            if body_of(state) != (members, said, owned):
                raise UsageError(
                    f"What the names of {name!r} mean was changed meanwhile.",
                    remedy="look at %feature status, then make it again",
                )
            known = state.feature_sets.get(name)
            return known is None or not known.kept or known.kept[-1].says != (members, said, owned)

        state = self.catalog.record(
            SET_DEFINED, name,
            {"members": [m.to_dict() for m in members], "description": said, "owner": owned},
            check=check,
        )  # fmt: skip
        self._publish_sets()
        return self._shown(state, name)

    def feature_sets(self) -> list[PinnedSet]:
        """Return the newest kept version of each feature set, by name."""
        state = self.catalog.refresh()
        return [self._shown(state, n) for n, s in sorted(state.feature_sets.items()) if s.kept]

    def retire_feature_set(self, name: str, version: int | None = None) -> None:
        """Take back a version of a feature set, or all of them: it serves and trains no more.

        What it pinned may be retired then; its versions are not reused.

        Raises
        ------
        UsageError
            If registered models have it; says which.
        """
        name, number = parse_set(name)
        version = number if version is None else version
        set_of(self.catalog.refresh(), name if version is None else f"{name}@{version}")

        def check(state: CatalogState) -> bool:
            if models := models_with(state, set=name, number=version):
                raise UsageError(
                    f"The set {name!r}{'' if version is None else f' v{version}'} is a model's.",
                    found=", ".join(models),
                    remedy="fs.remove_model(…) first, if it is not used any more",
                )
            known = state.feature_sets[name].kept
            return any(version in (None, v.number) for v in known)

        self.catalog.record(SET_RETIRED, name, {"version": version}, check=check)
        self._publish_sets()

    def register_model(
        self,
        name: str,
        *,
        set: str | PinnedSet | None = None,
        training_set: str | None = None,
        description: str | None = None,
        owner: str | None = None,
    ) -> RegisteredModel:
        """Say in the catalog that there is a model, what it is served with and learnt of.

        Metadata alone: the model itself stays where it is. While it is registered, neither its
        set's version nor its training set can be taken away.

        Parameters
        ----------
        name
            ``"ranker-2026"``.
        set
            Its feature set, ``"ranker@3"``; without a version the newest one; default: the one
            that the training set was made of.
        training_set
            The name of a saved training set.

        Raises
        ------
        NameTaken
            If another model has that name.
        UsageError
            If the training set was made of other versions than the set pins.
        """
        check_model_name(name)
        state = self.catalog.refresh()
        saved = None if training_set is None else self._saved(state, training_set)
        if set is None and saved is not None:
            set = saved.recipe.set
        if set is None and saved is None:
            raise UsageError(
                f"The model {name!r} is registered with what it is made of.",
                remedy="register_model(…, set='ranker@1', training_set='spring')",
            )
        one = version = None
        if set is not None:
            one, version = set_of(state, names_of(set)[0])
        if saved is not None and version is not None:
            _check_same(saved, version.members, name)
        body: dict[str, Any] = {
            "set": None if one is None else one.name,
            "set_version": None if version is None else version.number,
            "training_set": training_set, "description": description, "owner": owner,
        }  # fmt: skip

        def check(state: CatalogState) -> bool:
            known = state.models.get(name)
            if known is not None and known.says != tuple(body.values()):
                raise NameTaken(
                    f"There is a model {name!r} already.", found=repr(RegisteredModel.of(known)),
                    remedy="another name for this one, or fs.remove_model for that one",
                )  # fmt: skip
            if training_set is not None:
                self._saved(state, training_set)
            if one is not None and version is not None:
                set_of(state, f"{one.name}@{version.number}")
            return known is None

        state = self.catalog.record(MODEL_REGISTERED, name, body, check=check)
        return RegisteredModel.of(state.models[name])

    def registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model."""
        state = self.catalog.refresh()
        return RegisteredModel.of(self._model(state, name.removeprefix("model:")))

    def models(self) -> list[RegisteredModel]:
        """Return the registered models, by name."""
        return [RegisteredModel.of(m) for _, m in sorted(self.catalog.refresh().models.items())]

    def remove_model(self, name: str) -> None:
        """Take a model out of the catalog; what it was made of may be retired then."""
        name = name.removeprefix("model:")
        self._model(self.catalog.refresh(), name)
        self.catalog.record(MODEL_REMOVED, name, {}, check=lambda state: name in state.models)

    def delete_training_set(self, name: str) -> None:
        """Take a saved training set out of the catalog: it cannot be made again by its name.

        Raises
        ------
        UsageError
            If registered models learnt of it; says which.
        """
        self._saved(self.catalog.refresh(), name)

        def check(state: CatalogState) -> bool:
            if models := models_with(state, training_set=name):
                raise UsageError(
                    f"Models learnt of the training set {name!r}.", found=", ".join(models),
                    remedy="fs.remove_model(…) first, if it is not used any more",
                )  # fmt: skip
            return name in state.training_sets

        self.catalog.record(TRAINING_DELETED, name, {}, check=check)

    def rename_training_set(self, name: str, to: str) -> None:
        """Call a saved training set otherwise; models that learnt of it follow.

        Raises
        ------
        NameTaken
            If another one has that name.
        """
        check_name(to, what="A training set's name")
        self._saved(self.catalog.refresh(), name)

        def check(state: CatalogState) -> bool:
            self._saved(state, name)
            if to in state.training_sets:
                raise NameTaken(
                    f"There is a training set {to!r} already.",
                    found=repr(state.training_sets[to]), remedy="another name",
                )  # fmt: skip
            return True

        if to != name:
            self.catalog.record(TRAINING_RENAMED, name, {"to": to}, check=check)

    def encoder(self, name: str) -> FeatureEncoder:
        """Return the encoder that a training set was saved with: for serving, without its rows.

        Parameters
        ----------
        name
            A saved training set, or a model by its name: ``"model:ranker-2026"``.

        Raises
        ------
        UsageError
            If the model has no training set, or that one no encoder.
        """
        from fs_notebook.model.encoder import FeatureEncoder

        state = self.catalog.refresh()
        wanted: str | None = name
        if name.startswith("model:"):
            wanted = self._model(state, name.removeprefix("model:")).training_set
        if wanted is None:
            raise UsageError(
                f"{name!r} is registered without a training set, so nothing learnt its encoding.",
                remedy="fs.encoder('spring'), of a saved training set",
            )
        encoding = self._saved(state, wanted).recipe.encoding
        if encoding is None:
            raise UsageError(
                f"The training set {wanted!r} was saved without an encoder.",
                remedy=f"fs.training_set_again({wanted!r}).encoder() learns one of the same rows",
            )
        return FeatureEncoder.from_dict(encoding)

    def training_pieces(self, folder: str | Path) -> TrainingPieces:
        """Return the training set that `TrainingSet.to_parquet` wrote to a folder, in pieces."""
        from fs_notebook.model.pieces import read_pieces

        return read_pieces(folder)

    def _shown(self, state: CatalogState, name: str) -> PinnedSet:
        return pinned_set(state, *set_of(state, name))

    def _publish_sets(self) -> None:
        """Let the store know what sets mean, and see that what they pin is kept current."""
        # In this order: whatever anybody published, the catalog had before.
        published = self.store.published()[1]
        records = set_records(self.catalog.refresh())
        stale = [n for n in published if n.startswith(SET) and n not in records]
        for name in [*records, *stale]:
            if published.get(name) != records.get(name):
                self.store.publish(name, records.get(name))
        ensure_runner(self.connection, clock=self.clock)

    @staticmethod
    def _saved(state: CatalogState, name: str) -> SavedTrainingSet:
        if name not in state.training_sets:
            raise unknown_name(
                "training set", name, state.training_sets,
                remedy="fs.training_sets() has those that are saved",
            )  # fmt: skip
        return state.training_sets[name]

    @staticmethod
    def _model(state: CatalogState, name: str) -> Model:
        if name not in state.models:
            raise unknown_name("model", name, state.models, remedy="fs.register_model(…)")
        return state.models[name]


def _check_same(saved: SavedTrainingSet, members: Sequence[Member], model: str) -> None:
    """Raise unless a training set has each feature of a set, in the very version."""
    made = {
        (definition.name, definition.fingerprint, feature)
        for wanted in saved.recipe.wanted
        for definition in [definition_of(wanted["definition"])]
        for feature in wanted["features"]
    }
    lacking = [m.column for m in members if (m.group, m.fingerprint, m.feature) not in made]
    if lacking:
        raise UsageError(
            f"The training set {saved.name!r} was not made of what {model!r} would be served.",
            found=f"it lacks {', '.join(lacking)}",
            remedy="train on the set: fs.training_set(labels, 'set:…', name=…)",
        )
