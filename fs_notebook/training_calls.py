"""What a session does with labels: training sets, kept ones among them, and lift."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fs_notebook.catalog import Catalog, CatalogState
from fs_notebook.catalog.model import VALIDATED
from fs_notebook.catalog.recipes import TRAINED, SavedTrainingSet, TrainingRecipe
from fs_notebook.clock import Clock
from fs_notebook.compute.preview import OnProgress, silent
from fs_notebook.curation import training_notices
from fs_notebook.errors import NameTaken, UsageError, unknown_name
from fs_notebook.language.cell import check_name, split_names
from fs_notebook.log.protocol import EventLog
from fs_notebook.model.asked import AsOf, chosen_of, order_of, sole_set, spelt
from fs_notebook.model.sets import PinnedSet, names_of
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.position import Cut
from fs_notebook.sources import Sources
from fs_notebook.transforms import Transforms

if TYPE_CHECKING:
    from fs_notebook.model.encoder import FeatureEncoder
    from fs_notebook.model.lift import Lift
    from fs_notebook.model.lifts import Lifts
    from fs_notebook.model.training import TrainingSet
    from fs_notebook.model.written import WrittenTrainingSet

_Set = TypeVar("_Set", "TrainingSet", "WrittenTrainingSet")
_SELECT = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)


def _names(candidate: str | PinnedSet | Sequence[str]) -> list[str]:
    """Return the features that are one candidate together."""
    return names_of(split_names(candidate) if isinstance(candidate, str) else candidate)


def _columns(state: CatalogState, names: Sequence[str]) -> list[str]:
    """Return what the features that names mean are called in a training set."""
    return [c for one in chosen_of(state, names) for c in one.columns]


class TrainingCalls:
    """The methods of a `Session` that make training sets and measure with them."""

    catalog: Catalog
    log: EventLog
    clock: Clock
    store: OnlineStore
    _sources: Sources
    _transforms: Transforms

    @overload
    def training_set(
        self, labels: Any, features: str | Sequence[str], *, time: str | None = None,
        entity: str | Mapping[str, str] | None = None, lag: str | None = None,
        as_of: str = "event", name: str | None = None, shards: int | None = None,
        engine: str = "local", out: None = None, on_progress: OnProgress = silent,
    ) -> TrainingSet: ...  # fmt: skip

    @overload
    def training_set(
        self, labels: Any, features: str | Sequence[str], *, time: str | None = None,
        entity: str | Mapping[str, str] | None = None, lag: str | None = None,
        as_of: str = "event", name: str | None = None, shards: int | None = None,
        engine: str = "local", out: str | Path, on_progress: OnProgress = silent,
    ) -> WrittenTrainingSet: ...  # fmt: skip

    def training_set(
        self,
        labels: Any,
        features: str | PinnedSet | Sequence[str | PinnedSet],
        *,
        time: str | None = None,
        entity: str | Mapping[str, str] | None = None,
        lag: str | None = None,
        as_of: str = "event",
        name: str | None = None,
        shards: int | None = None,
        engine: str = "local",
        out: str | Path | None = None,
        on_progress: OnProgress = silent,
    ) -> TrainingSet | WrittenTrainingSet:
        """Return the labels with each feature as it stood just before each label's time.

        Parameters
        ----------
        labels
            A table, with the entities' columns and a time; or a stream's or a view's name, a
            file's path, or a SELECT of rows of a stream:
            ``"SELECT user, ts, clicked FROM clicks WHERE shown"``.
        features
            Names of features or groups, promoted or not. Of a version by its number,
            ``"total_readtime@2"``, the column is called so too. ``"set:ranker"`` is a feature
            set's newest version: the columns in its order, as they are served.
        time
            The labels' time column; default: their only temporal column.
        entity
            Entity name → the labels' column, where they differ; for features of one entity the
            column's name alone will do.
        lag
            How long it takes until an event is in a feature, ``"5m"``: features are as of so
            much earlier.
        as_of
            ``"event"``: what happened before the time counts; ``"known"``: only what was
            published before it as well.
        name
            Save it in the catalog under this name: see `save_training_set`.
        shards
            Deal events out to so many parts by their entity, on disk, and join one part after the
            other; default: only where they would not fit memory, and then as many as needed.
        engine
            ``"ray"`` joins the parts in Ray's workers; ``"local"`` here.
        out
            Write it to this Parquet file, a slice at a time; labels that are a Parquet file too
            are never held whole.

        Returns
        -------
        TrainingSet, or with `out` WrittenTrainingSet
            Exactly the label rows, in order, and one column a feature.

        Raises
        ------
        UsageError
            If the labels lack a time, a key or a request's value.
        """
        from fs_notebook.model.sharded import How, training_set_of_any_size
        from fs_notebook.model.written import write_training_set

        if name is not None:
            check_name(name, what="A training set's name")
        state, names = self.catalog.refresh(), names_of(features)
        chosen = chosen_of(state, names)
        if isinstance(entity, str):
            keys = {key for one in chosen for key in one.definition.plan.entity}
            if len(keys) != 1:
                raise UsageError(
                    "These features have several entities.",
                    found=", ".join(sorted(keys)),
                    remedy="entity={'user': 'user_id', …}",
                )
            entity = {keys.pop(): entity}
        options: dict[str, Any] = {
            "time": time, "entity": entity, "clock": self.clock, "as_of": AsOf.of(lag, as_of),
            "on_progress": on_progress,
        }  # fmt: skip
        groups = [one.definition.name for one in chosen]
        notices = training_notices(groups, self.catalog, self.store, self.clock)
        table, origin = self._labels(labels, scanned=out is not None)
        how = How(shards, engine)
        said: dict[str, Any] = {"origin": origin, "set": sole_set(state, names)}
        if out is not None:
            written = write_training_set(
                table, chosen, self.log, out, how=how, notes=notices,
                order=lambda features: order_of(state, names, features), **options,
            )  # fmt: skip
            written = replace(written, **said)
            return written if name is None else self.save_training_set(written, name)
        made = training_set_of_any_size(table, chosen, self.log, how=how, **options)
        made = made.ordered(order_of(state, names, made.features))
        made = replace(made, notes=(*notices, *made.notes), **said)
        return made if name is None else self.save_training_set(made, name)

    def save_training_set(
        self, training: _Set, name: str, *, encoder: FeatureEncoder | None = None
    ) -> _Set:
        """Record in the catalog how a training set was made; return it with its name.

        Definitions, cuts, options and fingerprints are recorded, neither labels nor values; and
        what its features become before a model, of texts the categories. What is saved once
        stays as it is; the same set may be saved again.

        Parameters
        ----------
        encoder
            What encodes its features: fitted on the rows that the model learns of, say; default:
            the set's own, ``training.encoder()``.

        Raises
        ------
        NameTaken
            If another training set has that name.
        """
        from fs_notebook.model.again import recipe_of

        check_name(name, what="A training set's name")
        if encoder is not None:
            training = replace(training, encoding=encoder.encoding_)
        elif training.encoding is None and training.rows:
            # A set that no encoder takes is kept all the same.
            with contextlib.suppress(UsageError):
                training = replace(training, encoding=training.encoder().encoding_)
        recipe = recipe_of(training, name, self.log)

        def check(state: CatalogState) -> bool:
            known = state.training_sets.get(name)
            other = (
                known is not None
                and encoder is not None
                and (known.recipe.encoding != recipe.encoding)
            )
            if other or (known is not None and known.recipe.fingerprint != recipe.fingerprint):
                raise NameTaken(
                    f"There is a training set {name!r} already.",
                    found=repr(known),
                    remedy="another name for this one, or training_set_again for that one",
                )
            return known is None

        self.catalog.record(TRAINED, name, {"recipe": recipe.to_dict()}, check=check)
        return replace(training, name=name)

    def training_sets(self) -> list[SavedTrainingSet]:
        """Return the training sets in the catalog, by name."""
        return [s for _, s in sorted(self.catalog.refresh().training_sets.items())]

    @overload
    def training_set_again(
        self, name: str, labels: Any = None, *, out: None = None, on_progress: OnProgress = silent
    ) -> TrainingSet: ...

    @overload
    def training_set_again(
        self, name: str, labels: Any = None, *, out: str | Path, on_progress: OnProgress = silent
    ) -> WrittenTrainingSet: ...

    def training_set_again(
        self,
        name: str,
        labels: Any = None,
        *,
        out: str | Path | None = None,
        on_progress: OnProgress = silent,
    ) -> TrainingSet | WrittenTrainingSet:
        """Return a saved training set, the same to the byte, whatever arrived since.

        Parameters
        ----------
        labels
            The same labels; may be left out where they are a stream's, of SQL or of a file.
        out
            Write it to this Parquet file, a slice at a time.

        Raises
        ------
        UsageError
            If these are other labels.
        HistoryLost, StreamChanged
            If a stream lost events since, or is another one by now.
        """
        from fs_notebook.model.again import check_labels, check_streams, made_again

        known = self.catalog.refresh().training_sets
        if name not in known:
            raise unknown_name(
                "training set", name, known, remedy="fs.training_sets() has those that are saved"
            )
        # A renamed one is known by its new name.
        recipe = replace(known[name].recipe, name=name)
        check_streams(recipe, self.log)
        scanned = out is not None
        if labels is None:
            table = self._same_labels(recipe, scanned=scanned)
        else:
            table = self._labels(labels, scanned=scanned)[0]
        check_labels(recipe, table)
        return made_again(recipe, table, self.log, out, clock=self.clock, on_progress=on_progress)

    def _same_labels(self, recipe: TrainingRecipe, *, scanned: bool) -> Any:
        """Read the labels of a saved training set again."""
        origin = recipe.labels
        if not origin:
            raise UsageError(
                f"The labels of {recipe.name!r} were a table; they are not in the catalog.",
                remedy=f"training_set_again({recipe.name!r}, labels)",
            )
        if "file" in origin:
            return self._labels(origin["file"], scanned=scanned)[0]
        ends = {s: Cut.from_json(text) for s, text in origin["cuts"].items()}
        return self._transforms.select(origin["sql"], ends)[0]

    def _labels(self, labels: Any, *, scanned: bool = False) -> tuple[Any, dict[str, Any]]:
        """Return the table that labels stand for, and where it can be read from again.

        A Parquet file stays one if it is to be read a slice at a time.
        """
        from fs_notebook.model.slices import is_scanned

        if scanned and is_scanned(labels):
            return labels, {"file": str(labels)}
        if isinstance(labels, str):
            state = self.catalog.refresh()
            sql = labels if _SELECT.match(labels) else None
            if labels in state.sources or labels in state.views:
                sql = f'SELECT * FROM "{labels}"'
            if sql is not None:
                frame, ends = self._transforms.select(sql)
                return frame, {"sql": sql, "cuts": {s: c.to_json() for s, c in ends.items()}}
        table = self._sources.labels(labels)
        if isinstance(labels, (str, Path)):
            return table, {"file": str(labels)}
        return table, {}

    @overload
    def lift(self, name: str | PinnedSet, labels: Any, target: str, **options: Any) -> Lift: ...

    @overload
    def lift(
        self,
        name: Sequence[str | PinnedSet | Sequence[str]],
        labels: Any,
        target: str,
        **options: Any,
    ) -> Lifts: ...

    def lift(
        self,
        name: str | PinnedSet | Sequence[str | PinnedSet | Sequence[str]],
        labels: Any,
        target: str,
        *,
        base: Sequence[str] = (),
        baseline: Sequence[str] | None = None,
        time: str | None = None,
        entity: str | Mapping[str, str] | None = None,
        lag: str | None = None,
        as_of: str = "event",
        on_progress: OnProgress = silent,
        **options: Any,
    ) -> Lift | Lifts:
        """Measure what a feature brings a model on point-in-time-correct training data.

        Parameters
        ----------
        name
            The candidate: a feature, a group, or several together (``"a,b"``). A list holds
            several candidates, each measured by itself and ranked: `Lifts`.
        labels, time, entity, lag, as_of
            As for `training_set`; or a training set that was made before, with the candidates in
            it, and nothing is replayed. Of one in a file an even part is measured with, a million
            labels at most: `WrittenTrainingSet.part` takes more.
        target
            The labels' column to predict.
        base
            Features that the model has already; of a training set by default all others in it.
        baseline
            The labels' columns that the model has already; default: all that are usable.
        options
            How to measure: ``folds=3`` (walk-forward), ``test_share``, ``group`` (an entity never
            on both sides), ``task`` (``"classification"``, ``"regression"``, ``"ranking"``),
            ``query`` (of a ranking), ``metric`` (scikit-learn's scorer names, ``"ndcg@10"``,
            ``"map"``, ``"mrr"``), ``model`` (any scikit-learn estimator), ``seed``, ``bootstraps``:
            see `model.setting.Setting`.

        Raises
        ------
        UsageError
            If an option does not fit the labels: too few of them, of classes, groups or queries;
            or a training set that was given has not got a candidate.
        """
        # scikit-learn takes a second to load: only who measures a lift pays for it.
        from fs_notebook.model.measure import measure_lift, measure_lifts
        from fs_notebook.model.setting import check_options
        from fs_notebook.model.training import TrainingSet
        from fs_notebook.model.written import WrittenTrainingSet

        check_options(options)
        state = self.catalog.refresh()
        each = [name] if isinstance(name, (str, PinnedSet)) else list(name)
        asked = [spelt(state, _names(one)) for one in each]
        every = list(dict.fromkeys([*base, *(n for one in asked for n in one)]))
        notes: tuple[str, ...] = ()
        if isinstance(labels, (TrainingSet, WrittenTrainingSet)):
            wanted = _columns(state, every)
            missing = [c for c in wanted if c not in labels.features]
            if missing or (time, entity, lag, as_of) != (None, None, None, "event"):
                raise UsageError(
                    "A training set that was made before is measured as it is.",
                    found=f"it has no {', '.join(missing)}" if missing else "other options",
                    remedy="the labels instead, so that a set is made of them",
                )
            if isinstance(labels, TrainingSet):
                held = labels
            else:
                held = labels.part(together=options.get("query"))
                if held.rows < labels.rows:
                    whole = f"{labels.rows:,}"
                    notes = (f"measured with {held.rows:,} labels, an even part of {whole}",)
            training = held.ordered([f for f in labels.features if not base or f in wanted])
        else:
            training = self.training_set(
                labels, every, time=time, entity=entity, lag=lag, as_of=as_of,
                on_progress=on_progress,
            )  # fmt: skip
        state = self.catalog.refresh()
        candidates = [_columns(state, n) for n in asked]
        columns = baseline
        if columns is not None:
            tested = {c for one in candidates for c in one}
            columns = [*columns, *(f for f in training.features if f not in tested)]
        given: dict[str, Any] = {
            "target": target, "baseline": columns, "clock": self.clock, "on_progress": on_progress,
            **options,
        }  # fmt: skip
        if isinstance(name, (str, PinnedSet)):
            lift = measure_lift(training, candidate=candidates[0], **given)
            self._record_lift(asked[0], lift, target)
            return replace(lift, notes=(*notes, *lift.notes))
        found = measure_lifts(training, candidates=candidates, **given)
        lifts = replace(found, lifts=tuple(replace(o, notes=(*notes, *o.notes)) for o in found))
        named = {", ".join(c): names for c, names in zip(candidates, asked, strict=True)}
        for one in lifts:
            self._record_lift(named[one.name], one, target)
        return lifts

    def _record_lift(self, candidates: Sequence[str], lift: Lift, target: str) -> None:
        state = self.catalog.refresh()
        body = {
            "target": target, "metric": lift.metric, "difference": lift.difference,
            "low": lift.low, "high": lift.high, "verdict": lift.verdict,
        }  # fmt: skip
        for group in {state.group(c.partition("@")[0]).name for c in candidates}:
            fingerprint = state.groups[group].latest.fingerprint
            self.catalog.record(VALIDATED, group, {**body, "fingerprint": fingerprint})
