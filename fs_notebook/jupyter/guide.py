"""`%feature help VERB`: what a verb does, its options, and examples to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "connect": ("%feature connect", "%feature connect pulsar://broker:6650 --redis redis://host:6379/0"),
    "upload": (
        "%feature upload reads.parquet --stream read_events --time ts",
        "%feature upload 'logs/2024-*.csv' --stream logs --time at --id event_id",
    ),
    "declare": ("%feature declare clicks --time at --meta device=key",),
    "dead": ("%feature dead clicks --limit 20",),
    "preview": (
        "%feature preview reading_time --last 30d",
        "%feature preview reading_time --sample 5%",
    ),
    "lift": (
        "%feature lift reading_time --labels clicks --target clicked",
        "%feature lift reading_time recent genres,taste --labels clicks --target clicked --folds 5",
    ),
    "training_set": (
        "%feature training_set reading_time,recent@2 --labels clicks --lag 5m --into train",
        "%feature training_set --again spring --into train",
    ),
    "training_sets": ("%feature training_sets",),
    "set": (
        "%feature set ranker total_readtime@2,recent --owner team-ranking",
        "%feature set ranker@1",
    ),
    "sets": ("%feature sets",),
    "model": ("%feature model ranker-2026 --set ranker@2 --training-set spring",),
    "models": ("%feature models",),
    "promote": (
        "%feature promote reading_time",
        "%feature promote amount_ratio --with-inputs",
        "%feature promote reading_time --workers 4 --no-wait",
        "%feature promote reading_time --panel",
    ),
    "rollback": ("%feature rollback reading_time",),
    "wait": ("%feature wait reading_time", "%feature wait total_readtime --timeout 300"),
    "retire": ("%feature retire reading_time 1", "%feature retire reading_time"),
    "status": ("%feature status", "%feature status reading_time"),
    "verify": (
        "%feature verify reading_time",
        "%feature verify reading_time --sample 1000 --seed 7",
    ),
    "slice": (
        "%feature slice read_events",
        "%feature slice read_events reading_time --into picker",
    ),
    "live": ("%feature live total_readtime,reads_7d user=u7",),
    "compare": (
        "%feature compare reading_time --versions 1,2",
        "%feature compare reading_time --panel",
    ),
    "explain": ("%feature explain reading_time user=u7 --at 2024-01-31T12:00",),
    "catalog": (
        "%feature catalog reading",
        "%feature catalog tag:reading entity:user type:double owner:ann source:read_events",
        "%feature catalog status:live -tag:old",
    ),
    "browse": ("%feature browse", "%feature browse tag:reading entity:user"),
    "about": ("%feature about reading_time",),
    "lineage": ("%feature lineage reading_time", "%feature lineage read_events"),
    "diff": ("%feature diff reading_time", "%feature diff reading_time 1 2"),
    "tag": ("%feature tag reading_time +core -old",),
    "owner": ("%feature owner reading_time ann",),
    "describe": (
        "%feature describe read_events",
        '%feature describe reading_time "Total time spent reading"',
    ),
    "deprecate": (
        '%feature deprecate reading_time --reason "counts bots" --instead reading_time_30d',
        "%feature deprecate reading_time --undo",
    ),
    "export": ("%feature export catalog/",),
    "import": ("%feature import catalog/", "%feature import catalog/ --apply"),
    "streams": ("%feature streams",),
    "peek": (
        "%feature peek read_events -n 5 --newest",
        "%feature peek read_events --since 2024-01-31",
    ),
    "views": ("%feature views", "%feature views long_reads"),
    "functions": ("%feature functions", "%feature functions quantile"),
    "stop": ("%feature stop", "%feature stop --keep-redis"),
    "help": ("%feature help promote",),
}  # fmt: skip


class Guide:
    """What a verb does, its options, and examples."""

    def __init__(self, verb: str, about: str, usage: str, options: list[tuple[str, str]]) -> None:
        self.verb = verb
        self.about = about
        self.usage = usage
        self.options = options
        self.examples = EXAMPLES.get(verb, ())

    def html(self) -> str:
        """Return it as HTML."""
        from fs_notebook.jupyter.table import Column, Table, card, tag

        rows = [{"option": name, "what": text} for name, text in self.options]
        columns = [Column("option", kind="code"), Column("what", "", length_max=200)]
        return card(
            f"%feature {self.verb}",
            tag("p", tag("strong", f"%feature {self.verb}"), tag("span", self.about),
                class_="fsn-title"),
            tag("pre", "\n".join(self.examples), class_="fsn-code") if self.examples else None,
            Table(rows, columns=columns, title="Options").markup() if rows else None,
            tag("p", self.usage, class_="fsn-foot fsn-code"),
        )  # fmt: skip

    def __repr__(self) -> str:
        width = max((len(name) for name, _ in self.options), default=0)
        lines = [f"%feature {self.verb}: {self.about}", "", *(f"    {e}" for e in self.examples)]
        lines += [""] * bool(self.options)
        lines += [f"  {name:<{width}}  {text}" for name, text in self.options]
        return "\n".join([*lines, "", self.usage])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": repr(self)}


def guide_of(verb: str) -> Guide:
    """Return the guide of a verb that there is."""
    from fs_notebook.jupyter.options import VERBS, parser_of

    parser = parser_of(verb)
    options = []
    for action in parser._actions:
        names = ", ".join(action.option_strings) or action.dest
        if action.choices:
            names += f" {'|'.join(map(str, action.choices))}"
        options.append((names, (action.help or "").replace("%%", "%")))
    usage = " ".join(parser.format_usage().split()[1:])
    return Guide(verb, VERBS[verb][0], usage, options)
