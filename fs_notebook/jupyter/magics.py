"""`%feature` and `%%feature`: they parse a line, call the session, and display."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_cell_magic, magics_class

from fs_notebook.errors import UsageError
from fs_notebook.jupyter.curating import CurationMagics
from fs_notebook.jupyter.looking import WidgetMagics
from fs_notebook.jupyter.options import (
    check_into,
    check_training_set,
    entity_of,
    help_text,
    known_verb,
    parse_line,
    view_parser,
)
from fs_notebook.jupyter.pointing import pointed_errors
from fs_notebook.language.cell import (
    Cell,
    parse_cell,
    split_line,
    split_names,
    split_values,
)

if TYPE_CHECKING:
    from fs_notebook.session import Session


def _session() -> Session:
    from fs_notebook.current import get_session

    return get_session()


def _show(value: Any) -> None:
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


@magics_class
class FeatureMagics(CurationMagics, WidgetMagics, Magics):
    """The feature store's magics. `%feature help` lists the verbs."""

    @line_cell_magic
    def feature(self, line: str, cell: str | None = None) -> Any:
        """Define and preview a feature (`%%feature NAME`), or act on features (`%feature VERB`).

        Examples::

            %%feature reading_time --entity user --tags reading
            SELECT user, SUM(readtime) AS total_readtime FROM read_events GROUP BY user;

            %%feature news_time --entity user -l polars --stream read_events
            pl.col("readtime").filter(pl.col("genre") == "news").sum()

            %feature connect pulsar://broker:6650 --redis redis://host:6379/0
            %feature upload reads.parquet --stream read_events --time ts
            %feature lift reading_time --labels clicks --target clicked --folds 5
            %feature lift reading_time genres --labels clicks --target clicked --query session
            %feature training_set reading_time,recent@2 --labels clicks --lag 5m --into train
            %feature set ranker total_readtime@2,recent --owner team-ranking
            %feature model ranker-2026 --set ranker --training-set spring
            %feature lineage model:ranker-2026
            %feature promote reading_time
            %feature status
            %feature verify reading_time
            %feature compare reading_time --versions 1,2
            %feature rollback reading_time
            %feature catalog tag:reading entity:user
            %feature browse tag:reading
            %feature live total_readtime user=u7
            %feature about reading_time
            %feature tag reading_time +core -old
            %feature help promote
        """
        with pointed_errors(self._cell("feature", line, cell), rich=self._rich):
            if cell is not None:
                return self._define(line, cell)
            verb, options = parse_line(line)
            action: Callable[[argparse.Namespace], Any] = getattr(self, f"_{verb}")
            return action(options)

    @cell_magic
    def view(self, line: str, cell: str) -> None:
        """Name a row transform (`%%view NAME`, then a SELECT), for features and other views.

        Examples::

            %%view long_reads --description "Reads of a minute and more"
            SELECT user, genre, readtime / 60.0 AS minutes, ts FROM read_events WHERE readtime >= 60

            %%view long_reads -l polars
            reads = fs.stream("read_events").filter(pl.col("readtime") >= 60)
            reads.select("user", "genre", "ts", minutes=pl.col("readtime") / 60)
        """
        with pointed_errors(self._cell("view", line, cell), rich=self._rich):
            options = view_parser().parse_args(split_line(line, magic="%%view"))
            session, given = _session(), {"description": options.description}
            if options.language == "polars":
                from fs_notebook.jupyter.polars_cell import value_of

                assert self.shell is not None
                rows = session.create_view(
                    options.name, value_of(cell, self.shell), written=cell.strip(), **given
                )
            else:
                rows = session.create_view(options.name, cell, **given)
            self._show_view(rows)

    @staticmethod
    def _cell(name: str, line: str, cell: str | None) -> str:
        """Return the cell as it stands in the notebook."""
        return f"%{name} {line}" if cell is None else f"%%{name} {line}\n{cell}"

    def _show_view(self, rows: Any) -> None:
        from fs_notebook.jupyter.display import ViewCard

        _show(ViewCard(rows))

    def _views(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.display import ViewTable

        if options.name:
            self._show_view(_session().view_rows(options.name))
        else:
            _show(ViewTable(_session().row_views()))

    def _define(self, line: str, body: str) -> None:
        parsed = parse_cell(line, body)
        session = _session()
        # Jupyter tells its kernels which notebook they were started for.
        notebook = os.environ.get("JPY_SESSION_NAME") or None
        if parsed.language == "polars":
            from fs_notebook.jupyter.polars_cell import value_of

            assert self.shell is not None
            definition = session.define_cell(
                parsed, value_of(parsed.text, self.shell), notebook=notebook
            )
        else:
            definition = session.define_cell(parsed, notebook=notebook)
        self._show_preview(session, definition.name, parsed)

    def _show_preview(
        self, session: Session, name: str, options: Cell | argparse.Namespace
    ) -> None:
        from fs_notebook.jupyter.display import PreviewCard
        from fs_notebook.jupyter.progress import ProgressBar

        with ProgressBar("Replaying") as bar:
            preview = session.preview(
                name, last=options.last, from_=options.from_, to=options.to,
                sample=options.sample, with_=split_values(options.with_), on_progress=bar,
            )  # fmt: skip
        view = session.view(preview.name)
        if view["fingerprint"] != preview.plan.fingerprint:
            # What is previewed is not what serves: a draft beside it.
            view |= {"state": "draft"}
        _show(PreviewCard(preview, view))

    def _variable(self, name: str) -> Any:
        """Return the notebook's variable of this name, or the name itself (a file, a stream)."""
        assert self.shell is not None
        return self.shell.user_ns.get(name, name) if name.isidentifier() else name

    def _connect(self, options: argparse.Namespace) -> None:
        from fs_notebook.current import connect

        _show(connect(options.log, redis=options.redis, admin=options.admin, home=options.home))

    def _upload(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar
        from fs_notebook.jupyter.streams import UploadCard

        data = self._variable(options.data)
        if isinstance(data, str) and data.isidentifier() and not Path(data).exists():
            assert self.shell is not None
            raise UsageError(
                f"There is no variable {data!r} in this notebook, and it is no file.",
                remedy="make the table first, or name a file, a folder/, or a pattern like *.csv",
            )
        with ProgressBar("Uploading") as bar:
            result = _session().upload(
                data, options.stream, time=options.time, key=split_names(options.key),
                partitions=options.partitions, once=not options.again, table=options.table,
                id=options.id, on_progress=bar,
            )  # fmt: skip
        _show(UploadCard(result))

    def _preview(self, options: argparse.Namespace) -> None:
        self._show_preview(_session(), options.name, options)

    def _lift(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar

        check_into(options.into)
        model = None if options.model is None else self._variable(options.model)
        names = options.name[0] if len(options.name) == 1 else options.name
        with ProgressBar("Measuring lift") as bar:
            lift = _session().lift(
                names, self._variable(options.labels), options.target,
                base=split_names(options.base), time=options.time, entity=entity_of(options.entity),
                baseline=None if options.baseline is None else split_names(options.baseline),
                lag=options.lag, as_of=options.as_of, folds=options.folds,
                test_share=options.test_share, group=options.group, task=options.task,
                query=options.query, metric=options.metric, model=model,
                bootstraps=options.bootstraps, seed=options.seed, on_progress=bar,
            )  # fmt: skip
        if options.into is not None:
            assert self.shell is not None
            self.shell.user_ns[options.into] = lift
        _show(lift)

    def _training_set(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar

        labels = None if options.labels is None else self._variable(options.labels)
        check_training_set(options)
        made: Any
        with ProgressBar("Joining") as bar:
            if options.again is not None:
                made = _session().training_set_again(
                    options.again, labels, out=options.out, on_progress=bar
                )
            else:
                made = _session().training_set(
                    labels, split_names(options.features), time=options.time,
                    entity=entity_of(options.entity), lag=options.lag, as_of=options.as_of,
                    name=options.name, shards=options.shards, engine=options.engine,
                    out=options.out, on_progress=bar,
                )  # fmt: skip
        if options.into is not None:
            assert self.shell is not None
            self.shell.user_ns[options.into] = made
        _show(made)

    def _training_sets(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.trained import TrainingSetTable

        session = _session()
        if options.delete is not None:
            session.delete_training_set(options.delete)
        if options.rename is not None:
            old, given, new = options.rename.partition("=")
            if not given:
                raise UsageError("--rename says both names.", found=old, remedy="--rename old=new")
            session.rename_training_set(old, new)
        _show(TrainingSetTable(session.training_sets()))

    def _set(self, options: argparse.Namespace) -> None:
        session = _session()
        if options.retire:
            session.retire_feature_set(options.name)
            return self._sets(options)
        features = split_names(options.features) or None
        said = options.description or options.owner
        if features is None and said:
            features = session.feature_set(options.name).features
        _show(session.feature_set(
            options.name, features, description=options.description, owner=options.owner
        ))  # fmt: skip
        return None

    def _sets(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.kept import FeatureSetTable

        _show(FeatureSetTable(_session().feature_sets()))

    def _model(self, options: argparse.Namespace) -> None:
        session = _session()
        if options.remove:
            session.remove_model(options.name)
            return self._models(options)
        if options.set is None and options.training_set is None:
            _show(session.registered_model(options.name))
            return None
        _show(session.register_model(
            options.name, set=options.set, training_set=options.training_set,
            description=options.description, owner=options.owner,
        ))  # fmt: skip
        return None

    def _models(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.kept import ModelTable

        _show(ModelTable(_session().models()))

    def _promote(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar

        if options.panel:
            self._open_promotion(options.name)
            return
        with ProgressBar("Bootstrapping") as bar:
            status = _session().promote(
                options.name, wait=not options.no_wait, with_inputs=options.with_inputs,
                workers=options.workers, on_progress=bar,
            )  # fmt: skip
        self._show_status([status])

    def _rollback(self, options: argparse.Namespace) -> None:
        self._show_status([_session().rollback(options.name)])

    def _retire(self, options: argparse.Namespace) -> None:
        _session().retire(options.name, options.version)
        # A group that was a draft and no more is gone by now.
        if options.version is not None:
            self._show_status(_session().status(options.name))

    def _wait(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar

        with ProgressBar("Catching up") as bar:
            done = _session().wait(options.name, timeout_s=options.timeout, on_progress=bar)
        print(done)

    def _status(self, options: argparse.Namespace) -> None:
        self._show_status(_session().status(options.name))

    def _show_status(self, rows: list[Any]) -> None:
        from fs_notebook.jupyter.display import StatusTable

        _show(StatusTable([row.to_dict() for row in rows]))

    def _verify(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar
        from fs_notebook.jupyter.verified import VerificationCard

        with ProgressBar("Verifying") as bar:
            outcome = _session().verify(
                options.name, sample=options.sample, seed=options.seed, on_progress=bar
            )
        _show(VerificationCard(outcome))

    def _explain(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar

        with ProgressBar("Replaying") as bar:
            found = _session().explain_texts(
                options.name, options.entity, at=options.at, n=options.n, on_progress=bar
            )
        _show(found)

    def _compare(self, options: argparse.Namespace) -> None:
        from fs_notebook.comparison import parse_versions
        from fs_notebook.jupyter.progress import ProgressBar

        if options.panel:
            self._open_versions(options.name, options.versions)
            return
        with ProgressBar("Comparing") as bar:
            found = _session().compare(
                options.name, parse_versions(options.versions), entities_max=options.n,
                on_progress=bar,
            )  # fmt: skip
        _show(found)

    def _streams(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.display import StreamTable

        _show(StreamTable(_session().streams()))

    def _declare(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.display import StreamTable
        from fs_notebook.jupyter.streams import columns_of, pairs_of

        stream = _session().declare(
            options.name, None if options.columns is None else columns_of(options.columns),
            time=options.time, key=None if options.key is None else split_names(options.key),
            format=options.format, schema=options.schema, message=options.message,
            meta=None if options.meta is None else pairs_of(options.meta, "--meta"),
            json_only=options.json_only, ahead=options.ahead,
        )  # fmt: skip
        _show(StreamTable([stream], title="Declared"))

    def _dead(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.progress import ProgressBar
        from fs_notebook.jupyter.streams import DeadLetterCard

        with ProgressBar("Reading") as bar:
            found = _session().dead_letters(options.stream, limit=options.limit, on_progress=bar)
        _show(DeadLetterCard(found))

    def _peek(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.streams import PeekTable

        peek = _session().peek(
            options.name, options.n, newest=options.newest, at=options.at, since=options.since
        )
        _show(PeekTable(peek))

    def _functions(self, options: argparse.Namespace) -> None:
        from fs_notebook.jupyter.display import FunctionTable
        from fs_notebook.language.reference import functions

        _show(FunctionTable(functions(" ".join(options.words))))

    def _stop(self, options: argparse.Namespace) -> None:
        from fs_notebook.worker.ending import stop_background

        stopped = stop_background(_session().connection, redis=not options.keep_redis)
        print(f"{'; '.join(stopped)}. %feature connect starts them again.")

    def _help(self, options: argparse.Namespace) -> None:
        if options.verb is None:
            print(help_text())
            return
        from fs_notebook.jupyter.guide import guide_of

        _show(guide_of(known_verb(options.verb)))
