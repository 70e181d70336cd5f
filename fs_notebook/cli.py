"""The command line: `fs-notebook`. The same verbs, for terminals, systemd and Kubernetes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from fs_notebook._version import __version__
from fs_notebook.errors import FeatureStoreError, Interrupted

INTERRUPTED = 130


class _Group(click.Group):
    """Shows this package's errors as one message, without a trace, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeatureStoreError as error:
            raise click.ClickException(str(error)) from None
        except Interrupted as stopped:
            click.echo(str(stopped), err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=_Group)
@click.version_option(__version__)
@click.option("--home", type=click.Path(path_type=Path), help="Default: FS_NOTEBOOK_HOME.")
@click.option(
    "--log",
    envvar="FS_NOTEBOOK_LOG",
    show_envvar=True,
    help="pulsar://host:6650 or embedded:; default: what was connected last.",
)
@click.option(
    "--redis", envvar="FS_NOTEBOOK_REDIS", show_envvar=True, help="redis://host:6379/0 or embedded:"
)
@click.option(
    "--admin", envvar="FS_NOTEBOOK_ADMIN", show_envvar=True, help="Pulsar's admin address."
)
@click.pass_context
def main(
    ctx: click.Context, home: Path | None, log: str | None, redis: str | None, admin: str | None
) -> None:
    """A feature store for Jupyter, on an immutable ledger."""
    from fs_notebook.worker.connection import Connection, default_home

    place = home.expanduser().absolute() if home is not None else default_home()
    ctx.obj = Connection.named(place, log, redis, admin)


def _session(ctx: click.Context) -> Any:
    from fs_notebook.session import Session

    return Session(ctx.obj)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Iterator[Any]:
    """Give what shows progress on stderr: one line written over, or lines where that is a file."""
    from fs_notebook.compute.preview import silent
    from fs_notebook.jupyter.progress import ProgressBar, screen_on

    if quiet:
        yield silent
        return
    with ProgressBar(what, screen=screen_on(sys.stderr)) as bar:
        yield bar


_quiet = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")


def _list(what: str, rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Print some fields of each row, or that there are none."""
    from fs_notebook.inspection import plain_table

    def text(value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value

    heads = [n.replace("_", " ") for n in names]
    table = plain_table(heads, [[text(row[n]) for n in names] for row in rows])
    click.echo(table if rows else f"no {what} yet")


@main.command()
@click.argument("name", required=False)
@click.pass_context
def status(ctx: click.Context, name: str | None) -> None:
    """Show what the workers report."""
    for row in _session(ctx).status(name):
        click.echo(repr(row))


class _Words(_Group):
    """A group whose first word, where it is no command, begins a search."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            args = ["search", *args]
        return super().resolve_command(ctx, args)


@main.group("catalog", cls=_Words, invoke_without_command=True,
            context_settings={"ignore_unknown_options": True})  # fmt: skip
@click.pass_context
def catalog(ctx: click.Context) -> None:
    """Search the shared catalog (tag:reading entity:user type:double owner:ann WORDS …).

    Or one of the commands below.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(search)


@catalog.command("search", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def search(ctx: click.Context, words: tuple[str, ...] = ()) -> None:
    """Search the shared catalog: words, and filters like tag:reading."""
    session = _session(ctx)
    found = session.search(" ".join(words), limit=200)
    for note in found.notes:
        click.echo(note)
    for entry in found.entries:
        if entry.kind != "group":
            click.echo(f"{entry.name} ({entry.kind}): {', '.join(entry.features)}")
            continue
        view = session.view(entry.name)
        version = "" if view["version"] is None else f" v{view['version']}"
        features = ", ".join(f"{f['name']} {f['type']}" for f in view["features"])
        entity = ", ".join(view["entity"])
        old = ", deprecated" if view["deprecated"] else ""
        click.echo(f"{view['name']} ({entity}): {view['state']}{version}{old}; {features}")
    if found.total > len(found):
        click.echo(f"and {found.total - len(found):,} more: say more words")


@catalog.command("show")
@click.argument("name")
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Show all that the catalog knows of one thing: versions, lineage, readers, history."""
    click.echo(repr(_session(ctx).about(name)))


@catalog.command("diff")
@click.argument("name")
@click.argument("versions", nargs=-1)
@click.pass_context
def diff(ctx: click.Context, name: str, versions: tuple[str, ...]) -> None:
    """Show what changed between two versions: reading_time 1 2 (or draft)."""
    click.echo(repr(_session(ctx).diff(name, *versions[:2])))


@catalog.command("edit")
@click.argument("name")
@click.option("--owner")
@click.option("--description", "-d")
@click.option("--tag", "add", multiple=True, help="A tag that comes.")
@click.option("--untag", "remove", multiple=True, help="A tag that goes.")
@click.pass_context
def edit(
    ctx: click.Context, name: str, owner: str | None, description: str | None,
    add: tuple[str, ...], remove: tuple[str, ...],
) -> None:  # fmt: skip
    """Change owner, description or tags; that makes no version."""
    click.echo(repr(_session(ctx).edit(
        name, owner=owner, description=description, add=add, remove=remove
    )))  # fmt: skip


@catalog.command("deprecate")
@click.argument("name")
@click.option("--reason", help="Why.")
@click.option("--instead", help="What to use instead.")
@click.option("--undo", is_flag=True, help="Take it back.")
@click.pass_context
def deprecate(
    ctx: click.Context, name: str, reason: str | None, instead: str | None, undo: bool
) -> None:
    """Say that a feature should not be used any more; shows who depends on it."""
    told = _session(ctx).deprecate(name, reason=reason, instead=instead, undo=undo)
    click.echo(repr(told))


@catalog.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_context
def export_files(ctx: click.Context, folder: Path) -> None:
    """Write the catalog to files for review in git: one a feature, view and stream."""
    click.echo(repr(_session(ctx).export_catalog(folder)))


@catalog.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Apply without asking.")
@click.option("--check", is_flag=True, help="Only show; exit with 1 if something would change.")
@click.pass_context
def import_files(ctx: click.Context, folder: Path, yes: bool, check: bool) -> None:
    """Show how an export's files differ from the catalog, and take that over once confirmed.

    Features become drafts; nothing is promoted, and nothing in a file is executed.
    """
    session = _session(ctx)
    planned = session.import_catalog(folder)
    click.echo(repr(planned))
    if check:
        sys.exit(1 if planned.changes or planned.refused else 0)
    # What reads from something that the import brings is refused until that is there.
    open_ = planned.changes or planned.refused
    if open_ and (yes or click.confirm("Apply this?", default=False)):
        done = session.import_catalog(folder, apply=True)
        click.echo(repr(done))
        sys.exit(1 if done.refused else 0)
    sys.exit(1 if planned.refused else 0)


@main.command()
@click.argument("name")
@click.option("--wait/--no-wait", default=True)
@click.option("--with-inputs", is_flag=True, help="First promote what it is derived from.")
@click.option("--workers", type=int, help="Share the partitions among so many on each machine.")
@_quiet
@click.pass_context
def promote(
    ctx: click.Context, name: str, wait: bool, with_inputs: bool, workers: int | None, quiet: bool
) -> None:
    """Send a defined feature to a background worker."""
    with _progress("Bootstrapping", quiet=quiet) as bar:
        status = _session(ctx).promote(
            name, wait=wait, with_inputs=with_inputs, workers=workers, on_progress=bar
        )
    click.echo(repr(status))


@main.command()
@click.argument("name")
@click.pass_context
def rollback(ctx: click.Context, name: str) -> None:
    """Serve the former version again."""
    click.echo(repr(_session(ctx).rollback(name)))


@main.command()
@click.argument("name")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait at most.")
@_quiet
@click.pass_context
def wait(ctx: click.Context, name: str, timeout: float, quiet: bool) -> None:
    """Return once all that is in a feature's streams now is in what is served."""
    with _progress("Catching up", quiet=quiet) as bar:
        done = _session(ctx).wait(name, timeout_s=timeout, on_progress=bar)
    click.echo(repr(done))


@main.command()
@click.argument("name")
@click.option("--sample", type=int, help="Of so many entities only; default: of all.")
@click.option("--seed", type=int, help="What they are drawn by: the same seed, the same ones.")
@_quiet
@click.pass_context
def verify(
    ctx: click.Context, name: str, sample: int | None, seed: int | None, quiet: bool
) -> None:
    """Recompute every online value from the ledger; exit with 1 if one differs."""
    with _progress("Verifying", quiet=quiet) as bar:
        outcome = _session(ctx).verify(name, sample=sample, seed=seed, on_progress=bar)
    click.echo(repr(outcome))
    sys.exit(0 if outcome.ok else 1)


@main.command()
@click.argument("name")
@click.option("--versions", metavar="1,2", help="Default: what serves, and the newest other one.")
@click.option("-n", "entities_max", default=10_000, show_default=True,
              help="Of more entities, a sample.")  # fmt: skip
@click.pass_context
def compare(ctx: click.Context, name: str, versions: str | None, entities_max: int) -> None:
    """Show how far the values of two versions differ: total_readtime --versions 1,2."""
    from fs_notebook.comparison import parse_versions

    found = _session(ctx).compare(name, parse_versions(versions), entities_max=entities_max)
    click.echo(repr(found))


@main.command()
@click.argument("name")
@click.argument("entity", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--at", help="The value as of this time: 2013-01-31T12:00; default: now.")
@click.option("-n", "count", default=20, show_default=True, help="How many of the newest events.")
@click.pass_context
def explain(
    ctx: click.Context, name: str, entity: tuple[str, ...], at: str | None, count: int
) -> None:
    """Show the events that make up one entity's value: total_readtime user=u7."""
    click.echo(repr(_session(ctx).explain_texts(name, entity, at=at, n=count)))


@main.command()
@click.pass_context
def streams(ctx: click.Context) -> None:
    """List the declared streams."""
    from fs_notebook.inspection import plain_table

    rows = [list(line.fields().values()) for line in _session(ctx).overviews()]
    names = ["stream", "events", "partitions", "event time", "key", "id", "columns"]
    click.echo(plain_table(names, rows) if rows else "no streams yet")


@main.command("training-sets")
@click.option("--delete", metavar="NAME", help="Take one out of the catalog.")
@click.option("--rename", nargs=2, metavar="OLD NEW", help="Call one otherwise.")
@click.pass_context
def training_sets(ctx: click.Context, delete: str | None, rename: tuple[str, str] | None) -> None:
    """List the training sets that are kept in the catalog."""
    session = _session(ctx)
    if delete is not None:
        session.delete_training_set(delete)
    if rename is not None:
        session.rename_training_set(*rename)
    shown = ("name", "rows", "features", "first", "last", "set", "fingerprint", "actor", "at")
    _list("training sets", [s.to_dict() for s in session.training_sets()], shown)


@main.command("feature-sets")
@click.argument("name", required=False)
@click.pass_context
def feature_sets(ctx: click.Context, name: str | None) -> None:
    """List the feature sets, or show one: ranker, ranker@2."""
    session = _session(ctx)
    if name is not None:
        click.echo(repr(session.feature_set(name)))
        return
    sets = [s.to_dict() | {"features": s.features} for s in session.feature_sets()]
    shown = ("name", "version", "features", "entity", "models", "owner", "description")
    _list("feature sets", sets, shown)


@main.command()
@click.pass_context
def models(ctx: click.Context) -> None:
    """List the registered models."""
    shown = ("name", "set", "training_set", "owner", "description", "actor", "at")
    _list("models", [m.to_dict() for m in _session(ctx).models()], shown)


@main.command()
@click.argument("name")
@click.pass_context
def lineage(ctx: click.Context, name: str) -> None:
    """Show what something comes from, and what comes from it: model:ranker-2026."""
    click.echo(repr(_session(ctx).lineage(name)))


@main.command()
@click.argument("stream")
@click.option("-n", "count", default=10, show_default=True, help="How many events.")
@click.option("--newest", is_flag=True, help="The last ones; default: the first.")
@click.option("--at", help="Those from this position on: 0:0:41:0.")
@click.option("--since", help="Those whose event time is at or after this: 2013-01-31T12:00.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@click.pass_context
def peek(
    ctx: click.Context, stream: str, count: int, newest: bool, at: str | None, since: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show some events of a stream, with their positions and publish times."""
    found = _session(ctx).peek(stream, count, newest=newest, at=at, since=since)
    for line in found.json_lines() if as_json else [repr(found)]:
        click.echo(line)


@main.command()
@click.argument("stream")
@click.pass_context
def describe(ctx: click.Context, stream: str) -> None:
    """Show what is known of a stream."""
    click.echo(repr(_session(ctx).describe(stream)))


@main.command()
@click.argument("name")
@click.option("--lines", default=50, show_default=True)
@click.pass_context
def logs(ctx: click.Context, name: str, lines: int) -> None:
    """Show the end of the logs that a feature's workers wrote on this machine: reading_time.

    Of a derived feature, those of what it is derived from.
    """
    from fs_notebook.catalog.lineage import running_of
    from fs_notebook.worker.places import log_path
    from fs_notebook.worker.records import inputs_of

    state = _session(ctx).catalog.refresh()
    for version in running_of(state, state.group(name)):
        for definition in inputs_of(version.definition):
            path = log_path(ctx.obj, definition.shard)
            of = "" if definition is version.definition else f" reads {definition.name}"
            click.echo(f"v{version.number}{of} ({path}):")
            if path.exists():
                click.echo("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
            else:
                click.echo("nothing: its worker does not run on this machine, or in another home")


@main.command()
@click.option("--metrics", envvar="FS_NOTEBOOK_METRICS", metavar="HOST:PORT", show_envvar=True,
              help="Serve Prometheus metrics here: 127.0.0.1:9109.")  # fmt: skip
@click.option("--verify-every", envvar="FS_NOTEBOOK_VERIFY_EVERY", metavar="1h", show_envvar=True,
              help="Verify a sample of each live version so often; default: never.")  # fmt: skip
@click.pass_context
def runner(ctx: click.Context, metrics: str | None, verify_every: str | None) -> None:
    """Run the workers in the foreground, for systemd and Kubernetes."""
    from fs_notebook.worker.runner import serve_forever

    sys.exit(serve_forever(ctx.obj, metrics=metrics or None, verify_every=verify_every or None))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Other machines only with a token in FS_NOTEBOOK_SERVE_TOKEN.")  # fmt: skip
@click.option("--port", default=8265, show_default=True, help="0 takes a free one.")
@click.option("--cache", "cache_s", default=0.0, show_default=True, metavar="SECONDS",
              help="Use values again for so long.")  # fmt: skip
@click.option("--rows-max", default=10_000, show_default=True, help="Entities in a request.")
@click.pass_context
def serve(ctx: click.Context, host: str, port: int, cache_s: float, rows_max: int) -> None:
    """Serve features over HTTP, for applications that are not in Python."""
    from fs_notebook.http.server import serve_http

    serve_http(
        ctx.obj, host=host, port=port, cache_s=cache_s, rows_max=rows_max,
        on_listening=lambda url: click.echo(f"serving features at {url}"),
    )  # fmt: skip


@main.command()
@click.option("--redis/--no-redis", "with_redis", default=True, help="The embedded Redis, too.")
@click.pass_context
def stop(ctx: click.Context, with_redis: bool) -> None:
    """Stop the background runner, its workers, and the embedded Redis. Nothing is lost."""
    from fs_notebook.worker.ending import stop_background

    for line in stop_background(ctx.obj, redis=with_redis):
        click.echo(line)


@main.group("log")
def log_group() -> None:
    """Move streams between ledgers, by way of a folder or a .tar file."""


@log_group.command("export")
@click.argument("stream")
@click.argument("target", type=click.Path(path_type=Path))
@click.pass_context
def export(ctx: click.Context, stream: str, target: Path) -> None:
    """Write a stream to a folder, or to one .tar file; run again, it goes on."""
    click.echo(repr(_session(ctx).export_stream(stream, target)))


@log_group.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--as", "name", help="The new stream's name; default: the old one.")
@click.option("--time-column", help="Keeps old publish times as event times, where none are.")
@click.pass_context
def import_(ctx: click.Context, source: Path, name: str | None, time_column: str | None) -> None:
    """Append an exported stream to this ledger, read back and compared; run again, it goes on."""
    click.echo(repr(_session(ctx).import_stream(source, name, time_column=time_column)))
