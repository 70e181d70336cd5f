"""The verbs of `%feature` and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from fs_notebook.errors import UsageError, near_names
from fs_notebook.language.cell import OptionParser, add_slice, split_line, split_names

_Build = Callable[[OptionParser], None]


def _connect(p: OptionParser) -> None:
    p.add_argument("log", nargs="?", help="pulsar://host:6650, or embedded:")
    p.add_argument("--redis", help="redis://host:6379/0, or embedded:")
    p.add_argument("--admin", help="Pulsar's admin address, http://host:8080")
    p.add_argument("--home", help="where the embedded ledger, Redis and logs live")


def _upload(p: OptionParser) -> None:
    p.add_argument(
        "data", help="a variable of the notebook, a file, a folder, or a pattern: logs/*.csv"
    )
    p.add_argument("--stream", "-s", required=True, help="the stream's name")
    p.add_argument("--time", help="the column of event times")
    p.add_argument("--key", help="the columns that route an event: user,article")
    p.add_argument("--id", help="the column that tells one event from another: none twice")
    p.add_argument("--partitions", type=int, default=1, help="of a new stream on Pulsar")
    p.add_argument("--table", action="store_true",
                   help="rows of a table, by --key: joins pin its newest version")  # fmt: skip
    p.add_argument("--again", action="store_true", help="even if the same was uploaded before")


def _preview(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    add_slice(p)


def _lift(p: OptionParser) -> None:
    p.add_argument("name", nargs="+", help="the candidate, a feature or group; a,b: both together; "
                   "a b: each by itself, ranked")  # fmt: skip
    p.add_argument("--labels", required=True, help="a variable, a stream, or a file")
    p.add_argument("--target", required=True, help="the labels' column to predict")
    p.add_argument("--base", help="features that the model has already: a,b")
    p.add_argument("--baseline", help="label columns that the model has already: a,b")
    p.add_argument("--time", help="the labels' time column")
    p.add_argument("--entity", help="entity=column, where they differ: plane=tailnum")
    p.add_argument("--lag", help="how long until an event is in a feature: 5m")
    p.add_argument("--as-of", choices=("event", "known"), default="event",
                   help="known: only what was published before the label's time")  # fmt: skip
    p.add_argument("--folds", type=int, default=3, help="walk-forward folds; 1: a single split")
    p.add_argument("--test-share", type=float, help="of the labels, the latest: 0.5 in folds")
    p.add_argument("--group", help="a column: none of its values is learnt from and tested on")
    p.add_argument("--task", choices=("classification", "regression", "ranking"),
                   help="default: as the target's values are")  # fmt: skip
    p.add_argument("--query", help="of a ranking: which rows are ranked among each other")
    p.add_argument("--metric", help="roc_auc, neg_log_loss, r2, ndcg@10, …")
    p.add_argument("--model", help="the notebook's variable that holds a scikit-learn estimator")
    p.add_argument("--bootstraps", type=int, default=500, help="draws that intervals rest on")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--into", help="the notebook's variable to put it into")


def _training_set(p: OptionParser) -> None:
    p.add_argument("features", nargs="?", help="features, groups or versions: total,reading@2")
    p.add_argument("--labels", help="a variable, a stream, a view, a file, or 'SELECT … FROM …'")
    p.add_argument("--time", help="the labels' time column")
    p.add_argument("--entity", help="entity=column, where they differ: plane=tailnum")
    p.add_argument("--lag", help="how long until an event is in a feature: 5m")
    p.add_argument("--as-of", choices=("event", "known"), default="event",
                   help="known: only what was published before the label's time")  # fmt: skip
    p.add_argument("--name", help="keep it in the catalog under this name")
    p.add_argument("--out", help="write it to this Parquet file, in bounded memory")
    p.add_argument("--shards", type=int, help="join so many parts, by entity, one after the other")
    p.add_argument("--engine", choices=("local", "ray"), default="local",
                   help="ray: in Ray's workers")  # fmt: skip
    p.add_argument("--again", help="the name of a kept one: make the same again")
    p.add_argument("--into", help="the notebook's variable to put it into")


def _training_sets(p: OptionParser) -> None:
    p.add_argument("--delete", help="take one out of the catalog")
    p.add_argument("--rename", help="call one otherwise: old=new")


def _set(p: OptionParser) -> None:
    p.add_argument("name", help="the set's name; of one to look at also a version: ranker@2")
    p.add_argument("features", nargs="?", help="make it: features, versions, sets: total@2,recent")
    p.add_argument("--description", "-d", help="one sentence for the catalog")
    p.add_argument("--owner", help="who answers for it")
    p.add_argument("--retire", action="store_true", help="take it, or its version, back")


def _model(p: OptionParser) -> None:
    p.add_argument("name", help="the model's name: ranker-2026")
    p.add_argument("--set", help="the feature set that it is served with: ranker@2")
    p.add_argument("--training-set", help="the kept training set that it learnt of")
    p.add_argument("--description", "-d", help="one sentence for the catalog")
    p.add_argument("--owner", help="who answers for it")
    p.add_argument("--remove", action="store_true", help="take it out of the catalog")


def _promote(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("--with-inputs", action="store_true",
                   help="first promote what it is derived from")  # fmt: skip
    p.add_argument("--workers", type=int,
                   help="so many processes on each machine share the partitions")  # fmt: skip
    p.add_argument("--no-wait", action="store_true", help="return before it is live")
    p.add_argument("--panel", action="store_true",
                   help="a widget: what it would do, progress, lag, the way back")  # fmt: skip


def _name(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")


def _verify(p: OptionParser) -> None:
    _name(p)
    p.add_argument("--sample", type=int, help="so many entities only; default: all of them")
    p.add_argument("--seed", type=int, help="what they are drawn by: the same seed, the same ones")


def _maybe_name(p: OptionParser) -> None:
    p.add_argument("name", nargs="?", help="a feature or group; default: all")


def _wait(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("--timeout", type=float, default=60.0, help="seconds to wait at most")


def _retire(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("version", type=int, nargs="?", help="its version's number; none: its draft")


def _declare(p: OptionParser) -> None:
    p.add_argument("name", help="a topic that is there already, or a new stream")
    p.add_argument("--time", help="the column of event times; '' for the message's own")
    p.add_argument("--key", help="the columns that route an event: user,article")
    p.add_argument(
        "--format", choices=("json", "avro", "protobuf"), help="how payloads are written"
    )
    p.add_argument("--schema", help="a file: an Avro schema, or a Protobuf descriptor set")
    p.add_argument("--message", help="the Protobuf message that an event is: shop.Order")
    p.add_argument(
        "--meta", help="columns beside the payload: device=key,trace='property trace-id'"
    )
    p.add_argument("--json-only", action="store_true", default=None,
                   help="write each event as a JSON message, for other readers")  # fmt: skip
    p.add_argument("--ahead", help="promise: no event's time lies further than that after "
                   "publishing, e.g. '5 minutes'; slices by time then begin later")  # fmt: skip
    p.add_argument("--columns", help="names and types: 'user VARCHAR, amount DOUBLE'")


def _dead(p: OptionParser) -> None:
    p.add_argument("stream", help="the stream's name")
    p.add_argument("--limit", type=int, default=100, help="how many of the newest to show")


def _explain(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("entity", nargs="+", help="whose value: user=u7")
    p.add_argument("--at", help="the value as of this time; default: now")
    p.add_argument("-n", type=int, default=20, help="how many of the newest events")


def _compare(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("--versions", help="two of them: 1,2; default: what serves and the newest other")
    p.add_argument("-n", type=int, default=10_000, help="of more entities, a sample")
    p.add_argument("--panel", action="store_true",
                   help="a widget: definitions, differences, distributions")  # fmt: skip


def _words(p: OptionParser) -> None:
    p.add_argument("words", nargs="*", help="words to search for")


def _slice(p: OptionParser) -> None:
    p.add_argument("stream", help="the stream's name")
    p.add_argument("name", nargs="?", help="the feature that its previews are of")
    p.add_argument("--into", help="the notebook's variable to put it into")


def _live(p: OptionParser) -> None:
    p.add_argument("features", help="features, groups or versions: total,reading@2")
    p.add_argument("entity", nargs="+", help="whose values: user=u7")


def _nothing(p: OptionParser) -> None:
    """Take no options."""


def _peek(p: OptionParser) -> None:
    p.add_argument("name", help="a stream")
    p.add_argument("-n", type=int, default=10, help="how many events")
    p.add_argument("--newest", action="store_true", help="the last ones; default: the first")
    p.add_argument("--at", help="from a position on: 0:0:41:0")
    p.add_argument("--since", help="from an event time on: 2013-01-31T12:00")


def _thing(p: OptionParser) -> None:
    p.add_argument("name", help="a feature, group, view, stream or training set")


def _describe(p: OptionParser) -> None:
    _thing(p)
    p.add_argument("text", nargs="?", help="what to say of it from now on; '' for nothing")


def _diff(p: OptionParser) -> None:
    p.add_argument("name", help="a feature or group")
    p.add_argument("before", nargs="?", help="a version's number; default: what serves")
    p.add_argument("after", nargs="?", help="another one, or draft; default: the newest")


def _tag(p: OptionParser) -> None:
    _thing(p)
    p.add_argument("tags", nargs="+", help="+tag comes, -tag goes")


def _owner(p: OptionParser) -> None:
    _thing(p)
    p.add_argument("owner", help="who answers for it; '' for nobody")


def _deprecate(p: OptionParser) -> None:
    _thing(p)
    p.add_argument("--reason", help="why it should not be used any more")
    p.add_argument("--instead", help="what to use instead")
    p.add_argument("--undo", action="store_true", help="take it back")


def _folder(p: OptionParser) -> None:
    p.add_argument("folder", help="a folder, for git: one file a feature, view and stream")


def _import(p: OptionParser) -> None:
    _folder(p)
    p.add_argument("--apply", action="store_true", help="take it over; default: only show")


def _help(p: OptionParser) -> None:
    p.add_argument("verb", nargs="?", help="a verb; default: the list of them")


def _stop(p: OptionParser) -> None:
    p.add_argument("--keep-redis", action="store_true", help="leave the embedded Redis running")


VERBS: Mapping[str, tuple[str, _Build]] = {
    "connect": ("connect to a ledger and an online store", _connect),
    "upload": ("append events to a stream", _upload),
    "declare": ("say what a stream is, where a look at it cannot tell", _declare),
    "dead": ("the events of a stream that could not be read", _dead),
    "preview": ("fold a slice of history", _preview),
    "lift": ("measure what a feature brings a model", _lift),
    "training_set": ("labels with each feature as it stood just before (or: train)", _training_set),
    "training_sets": ("the training sets in the catalog", _training_sets),
    "set": ("a model's list of pinned features: make it, see it, retire it", _set),
    "sets": ("the feature sets in the catalog", _nothing),
    "model": ("register a model: what it is served with, and learnt of", _model),
    "models": ("the registered models", _nothing),
    "promote": ("send a feature to a background worker, and serve it", _promote),
    "rollback": ("serve the former version again", _name),
    "retire": ("stop a version and free its state, or discard a draft", _retire),
    "wait": ("until the worker has folded what is in the streams now", _wait),
    "status": ("what the workers report", _maybe_name),
    "verify": ("recompute every online value from the ledger, and compare", _verify),
    "slice": ("a stream's events over time as a widget, to choose what to preview", _slice),
    "live": ("an entity's online values as a widget, read again every second", _live),
    "compare": ("two versions of a feature side by side: how far they differ", _compare),
    "explain": ("the events that make up one entity's value", _explain),
    "catalog": ("search the shared catalog: words, tag: entity: type: owner: source: …", _words),
    "browse": ("the catalog as a widget: search, filters, a card for each feature", _words),
    "about": ("all that is known of one thing: versions, lineage, readers, history", _thing),
    "lineage": ("what a thing is made of, and what is made of it", _thing),
    "diff": ("what changed between two versions, in words and as a diff", _diff),
    "tag": ("change a thing's tags; that makes no version", _tag),
    "owner": ("change who answers for a thing; that makes no version", _owner),
    "deprecate": ("say that a thing should not be used any more; shows who does", _deprecate),
    "export": ("write the catalog to files, for review in git", _folder),
    "import": ("compare such files with the catalog, and take over what differs", _import),
    "streams": ("the declared streams", _nothing),
    "peek": ("some events of a stream, with positions", _peek),
    "describe": ("what is known of a stream or a feature, or say what it is", _describe),
    "views": ("the views, or the first rows of one", _maybe_name),
    "functions": ("what can be written: aggregates and row functions", _words),
    "stop": ("end the background workers and the embedded Redis; nothing is lost", _stop),
    "help": ("this list, or a verb's options with examples", _help),
}

ALIASES = {"train": "training_set"}


def parser_of(verb: str) -> OptionParser:
    """Return the parser of one verb's options."""
    text, build = VERBS[verb]
    parser = OptionParser(prog=f"%feature {verb}", description=text, add_help=False)
    build(parser)
    return parser


def entity_of(text: str | None) -> dict[str, str] | None:
    """Return entity → column of ``plane=tailnum,day=date``; None where nothing is said."""
    entity = dict(p.partition("=")[::2] for p in split_names(text))
    if not all(entity.values()):
        raise UsageError("--entity maps an entity to a column.", found=text,
                         remedy="--entity plane=tailnum")  # fmt: skip
    return entity or None


def check_training_set(options: argparse.Namespace) -> None:
    """Raise unless the options of `training_set` ask for a new one, or for a kept one again."""
    given = {"features": options.features, "--name": options.name, "--time": options.time,
             "--entity": options.entity, "--lag": options.lag,
             "--shards": options.shards}  # fmt: skip
    if options.again is not None:
        said = [n for n, value in given.items() if value is not None]
        said += ["--as-of"] if options.as_of != "event" else []
        said += ["--engine"] if options.engine != "local" else []
        if said:
            raise UsageError(
                "What is made again is made as it was.", found=", ".join(said),
                remedy=f"%feature training_set --again {options.again} [--labels …] [--out …]",
            )  # fmt: skip
    elif options.features is None or options.labels is None:
        raise UsageError(
            "A training set is features, and labels to put them beside.",
            found="no features" if options.features is None else "no labels",
            remedy="%feature training_set total_readtime --labels clicks",
        )
    check_into(options.into)


def check_into(name: str | None) -> None:
    """Raise unless it can be a variable's name."""
    if name is not None and not name.isidentifier():
        raise UsageError("--into names a variable.", found=name, remedy="--into found")


def view_parser() -> OptionParser:
    """Return the parser of a `%%view` cell's header."""
    parser = OptionParser(prog="%%view", add_help=False)
    parser.add_argument("name", help="the view's name")
    parser.add_argument("--language", "-l", choices=("sql", "polars"), default="sql")
    parser.add_argument("--description", "-d", help="one sentence for the catalog")
    return parser


def parse_line(line: str) -> tuple[str, argparse.Namespace]:
    """Return the verb of a `%feature` line and its options."""
    words = split_line(line, magic="%feature") or ["help"]
    verb, rest = known_verb(words[0]), words[1:]
    if any(word in ("--help", "-h", "?") for word in rest):
        verb, rest = "help", [verb]
    if verb in ("tag", "catalog", "browse") and rest:
        # What goes or is left out begins with a hyphen, as options do; these verbs have none.
        rest = ["--", *rest]
    return verb, parser_of(verb).parse_args(rest)


def known_verb(word: str) -> str:
    """Return the verb that a word means.

    Raises
    ------
    UsageError
        If there is no such verb; near ones are suggested.
    """
    verb = ALIASES.get(word, word)
    if verb not in VERBS:
        near = near_names(verb, VERBS)
        raise UsageError(
            f"%feature has no verb {verb!r}.",
            found=", ".join(VERBS),
            remedy=f"did you mean {near[0]!r}?" if near else "%feature help",
        )
    return verb


def help_text() -> str:
    """Return one line for each verb, with its options, and the cell magic's."""
    from fs_notebook.language.cell import cell_parser

    lines = ["%%feature NAME …, then SQL, or Polars (-l polars): define features and preview them"]
    lines.append("    " + " ".join(cell_parser().format_usage().split()[1:]))
    lines += ["%%view NAME …, then SQL: name a row transform"]
    lines.append("    " + " ".join(view_parser().format_usage().split()[1:]))
    for verb, (text, _) in VERBS.items():
        usage = " ".join(parser_of(verb).format_usage().split()[1:])
        lines += [f"{usage}", f"    {text}"]
    return "\n".join(lines)
