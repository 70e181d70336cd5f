"""How long the catalog takes with many features: a search, a typo, a look, opening it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from fs_notebook.catalog import Catalog
from fs_notebook.catalog.catalog import STREAM
from fs_notebook.catalog.graph import lineage_of
from fs_notebook.catalog.index import Index
from fs_notebook.log.embedded import EmbeddedLog
from fs_notebook.position import START
from tests.benchmarks import data
from tests.benchmarks.harness import Config, Run

QUERIES = {
    "words": "clicks total",
    "filters": "tag:reading entity:user type:bigint owner:owner3",
    "a typo": "raeding",
}
REPEATS = 9


def fill(catalog: Catalog, count: int) -> None:
    """Append so many groups of one feature each, through the ledger, as one batch."""
    made = data.define("group", data.WORKER_SQL, data.stream("read_events"))
    body = replace(made, description="Total of what people read", owner="ann").to_dict()
    rows = []
    for n in range(count):
        body |= {
            "name": f"group_{n}",
            "tags": [f"tag{n % 100}", "reading"],
            "owner": f"owner{n % 37}",
        }
        body["plan"]["outputs"] = [[f"total_{n}_{('clicks', 'reads')[n % 2]}",
                                    *body["plan"]["outputs"][0][1:]]]  # fmt: skip
        rows.append({"kind": "drafted", "name": body["name"],
                     "body": json.dumps({"definition": body}), "actor": "bench",
                     "at": datetime.now(UTC)})  # fmt: skip
    schema = {name: kind.polars for name, kind in STREAM.columns}
    catalog.log.append(STREAM, pl.DataFrame(rows, schema=schema))


@contextmanager
def opened(config: Config) -> Iterator[Run]:
    """A catalog that nobody has looked at yet, until a first search of it is answered."""
    with _filled(config) as log:

        def run() -> float:
            begun_s = time.perf_counter()
            found = Index().of(Catalog(log, actor="bench").refresh()).search("reading")
            taken_s = time.perf_counter() - begun_s
            assert found.total == config["features"]
            return taken_s

        yield run


@contextmanager
def parsed(config: Config) -> Iterator[Run]:
    """`json.loads` of the same events, nothing kept: less than that a fold cannot do."""
    with _filled(config) as log:
        read = log.read(STREAM, start=START, end=log.end(STREAM.name))
        texts = [text for batch in read for text in batch.rows["body"]]

        def run() -> float:
            begun_s = time.perf_counter()
            for text in texts:
                json.loads(text)
            return time.perf_counter() - begun_s

        yield run


@contextmanager
def _filled(config: Config) -> Iterator[EmbeddedLog]:
    with TemporaryDirectory(dir=config["folder"]) as folder:
        log = EmbeddedLog(Path(folder))
        try:
            fill(Catalog(log, actor="bench"), config["features"])
            yield log
        finally:
            log.close()


def milliseconds(config: Config) -> dict[str, float]:
    """Return what each kind of look takes, the median of a few, in milliseconds."""
    with _filled(config) as log:
        catalog = Catalog(log, actor="bench")
        begun_s = time.perf_counter()
        state = catalog.refresh()
        found = {"opening": 1000 * (time.perf_counter() - begun_s)}
        index = Index()
        found["the first search"] = _timed(lambda: index.of(state).search("reading"), 1)
        for name, query in QUERIES.items():
            assert index.search(query).total > 0, query
            found[name] = _timed(lambda query=query: index.search(query), REPEATS)
        found["after a change"] = _timed(lambda: _changed(catalog, index), REPEATS)
        ways = index.of(catalog.refresh()).ways
        found["lineage"] = _timed(
            lambda: lineage_of(catalog.refresh(), "group_1", ways=ways), REPEATS
        )
        return found


def _changed(catalog: Catalog, index: Index) -> None:
    """See what somebody else has just changed."""
    stamp = f"tag{time.perf_counter_ns()}"
    catalog.record("annotated", "group_1", {"of": "group", "tags": [stamp]})
    assert index.of(catalog.refresh()).search(f"tag:{stamp}").total == 1


def _timed(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        begun_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun_s)
    return 1000 * statistics.median(taken)
