"""What every display of the package sends to whoever shows it: a kernel runs each once."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT
from jupyter_client.manager import start_new_kernel

BEGIN = """%load_ext fs_notebook
from datetime import UTC, datetime, timedelta
begin = datetime(2024, 1, 1, tzinfo=UTC)
reads = [
    {"user": f"u{n % 20}", "genre": "news arts".split()[n % 3 == 0], "readtime": n % 90,
     "clicked": int(n % 20 < 6 or n % 7 == 0), "ts": begin + timedelta(minutes=n)}
    for n in range(2000)
]
import polars as pl
labels = pl.DataFrame(reads[1000:]).select("user", "ts", "clicked")
shell, kinds = get_ipython(), set()
plainly = shell.display_formatter.format
def format(value, *given, **named):
    kinds.update(kind.__name__ for kind in type(value).__mro__)
    return plainly(value, *given, **named)
shell.display_formatter.format = format"""
FEATURE = "%%feature reading_time --entity user"
SUM = (
    "SELECT user, SUM(readtime) AS total_readtime, MAX(genre) AS genre\n"
    "FROM read_events GROUP BY user"
)
# What is shown → the cell that shows it. Each is run once, in this order.
CELLS = {
    "connection": "%feature connect",
    "upload": "%feature upload reads --stream read_events --time ts --key user",
    "streams": "%feature streams",
    "events": "%feature peek read_events",
    "stream": "%feature describe read_events",
    "dead letters": "%feature dead read_events",
    "view": "%%view long_reads\nSELECT user, readtime, ts FROM read_events WHERE readtime >= 30",
    "views": "%feature views",
    "functions": "%feature functions sum",
    "preview": f"{FEATURE} --tags reading --owner ann\n{SUM}",
    "no entity": "%%feature nobody\nSELECT user, MIN(ts) AS first FROM read_events\n"
    "WHERE readtime > 1000 GROUP BY user",
    "derived": "%%feature ratio\nSELECT total_readtime / 60 AS minutes FROM reading_time",
    "outlook": 'fs.outlook("reading_time")',
    "promoted": "%feature promote reading_time",
    "second": f"{FEATURE}\n{SUM.replace('time)', 'time + 1)')}",
    "second promoted": "%feature promote reading_time",
    "compared": "%feature compare reading_time --versions 1,2",
    "status": "%feature status",
    "one status": 'fs.status("reading_time")[0]',
    "verified": "%feature verify reading_time",
    "explained": "%feature explain reading_time user=u1",
    "caught up": 'fs.wait("reading_time")',
    "health": 'fs.health("reading_time")[0]',
    "portrait": 'fs.portrait("reading_time")',
    "timeline": 'fs.timeline("read_events")',
    "found": 'fs.search("reading")',
    "catalog": "%feature catalog reading",
    "groups": "from fs_notebook.jupyter.display import CatalogTable\nCatalogTable(fs.features())",
    "about": "%feature about reading_time",
    "lineage": "%feature lineage reading_time",
    "difference": "%feature diff reading_time 1 2",
    "edited": "%feature tag reading_time +core",
    "deprecated": "%feature deprecate ratio --reason 'counts twice' --instead reading_time",
    "served": 'fs.serve(["total_readtime"], user=["u1", "nobody"])',
    "python preview": 'fs.preview("reading_time")',
    "python verified": 'fs.verify("reading_time")',
    "training set": "%feature training_set reading_time --labels labels --name spring --into made",
    "training sets": "%feature training_sets",
    "written": "%feature training_set reading_time --labels labels --out train.parquet",
    "pieces": 'made.to_parquet("pieces", rows=400)\nfs.training_pieces("pieces")',
    "lift": "%feature lift reading_time --labels labels --target clicked --folds 2 --bootstraps 50",
    "lifts": "%feature lift reading_time long_time --labels labels --target clicked --folds 2"
    " --bootstraps 50",
    "set": "%feature set ranker reading_time",
    "sets": "%feature sets",
    "model": "%feature model net-1 --set ranker --training-set spring",
    "models": "%feature models",
    "exported": "%feature export catalog",
    "imported": "%feature import catalog",
    "help": "%feature help",
    "guide": "%feature help promote",
    "error": "%%feature broken\nSELECT user, SUM(readtme) AS x FROM read_events GROUP BY user",
    "progress": "from fs_notebook.jupyter.progress import ProgressBar\n"
    "from fs_notebook.compute.preview import Progress\n"
    'with ProgressBar("Replaying") as bar:\n'
    "    bar._next_s = 0\n"
    "    bar(Progress(0.4, 1000, 2.0))",
    "browser": "%feature browse",
    "slice": "%feature slice read_events reading_time",
    "live": "%feature live total_readtime user=u1",
    "promotion": "%feature promote reading_time --panel",
    "beside": "%feature compare reading_time --versions 1,2 --panel",
}
# A second feature to measure, which nobody has to see.
LONG = (
    "%%feature long_time --entity user\n"
    "SELECT user, AVG(readtime) AS long_readtime FROM read_events GROUP BY user"
)
# What every display is made of, and nobody is shown.
_BASES = {"Panel", "Promoting"}


@dataclass
class Shown:
    """What one cell sent: bundles by MIME type, and printed text."""

    bundles: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""
    ended: str = "error"

    @property
    def html(self) -> list[str]:
        return [bundle["text/html"] for bundle in self.bundles if "text/html" in bundle]


def shown(folder: Path) -> tuple[dict[str, Shown], dict[str, dict[str, Any]], set[str]]:
    """Run every cell in a kernel of its own.

    Returns
    -------
    what each cell sent, the state of every widget by its model, and the classes of all that was
    shown.
    """
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60, cwd=str(folder))
    states: dict[str, dict[str, Any]] = {}
    places: dict[str, int] = {}

    def run(code: str) -> Shown:
        sent = Shown()

        def note(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "execute_result"):
                places[content.get("transient", {}).get("display_id", "")] = len(sent.bundles)
                sent.bundles.append(content["data"])
            elif kind == "update_display_data":
                sent.bundles[places[content["transient"]["display_id"]]] = content["data"]
            elif kind == "stream":
                sent.printed += content["text"]
            elif kind == "comm_open":
                states[content["comm_id"]] = dict(content["data"]["state"])
            elif kind == "comm_msg" and content["data"].get("method") == "update":
                states[content["comm_id"]].update(content["data"]["state"])

        reply = client.execute_interactive(code, timeout=120, output_hook=note)
        sent.ended = reply["content"]["status"]
        return sent

    try:
        begun = run(BEGIN)
        assert begun.ended == "ok", begun
        found = {}
        for name, code in CELLS.items():
            if name == "lifts":
                run(LONG)
            found[name] = run(code)
        kinds = run("print(*sorted(kinds))").printed.split()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return found, states, set(kinds)


def displays() -> set[str]:
    """Return the names of all classes of the package that have a display of their own."""
    classes = {
        node.name: node
        for path in (ROOT / "fs_notebook").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    rich = {"_repr_html_", "_repr_mimebundle_"}
    found = {"Panel"} | {
        name
        for name, node in classes.items()
        if any(isinstance(part, ast.FunctionDef) and part.name in rich for part in node.body)
    }
    while True:
        more = {
            name
            for name, node in classes.items()
            if any(isinstance(base, ast.Name) and base.id in found for base in node.bases)
        }
        if more <= found:
            return found - _BASES
        found |= more
