"""The simulation as somebody uses it who tests features of their own."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fs_notebook.catalog import Catalog
from fs_notebook.compute.preview import silent
from fs_notebook.errors import DefinitionError, OverflowInFold, UnreachableError
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START, Cut
from fs_notebook.sources import Sources
from fs_notebook.testing import Fault, Faults, SimulatedLog, Simulation

ROOT = Path(__file__).parents[2]
RATES = {Fault.KILLED: 0.02, Fault.REPLY_LOST: 0.1, Fault.WENT_BACK: 0.05, Fault.REDELIVERY: 0.05}


def reads(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "user": f"u{n % 3}",
            "article": f"a{n % 4}",
            "seconds": n,
            "at": f"2024-01-01T00:{n:02}:00",
        }
        for n in range(first, first + count)
    ]


@pytest.mark.parametrize("name", ["clock", "faults", "simulation", "turns"])
def test_examples_in_docstrings(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"fs_notebook.testing.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_example_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.split("## Testing your features")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], "README.md", "exec"), names)
    tests = [run for name, run in names.items() if name.startswith("test_")]
    assert tests
    for run in tests:
        run()


@pytest.mark.parametrize("seed", range(6))
def test_joins_views_unions_and_derived_features(seed: int) -> None:
    """What is compiled as in a session runs as in production, through faults."""
    sim = Simulation(seed=seed, rates=RATES)
    sim.upload(reads(0, 12), "reads", time="at", key="user", partitions=2)
    genres = [{"article": f"a{n}", "genre": "news" if n < 2 else "sport", "at": "2023-01-01T00:00"}
              for n in range(4)]  # fmt: skip
    sim.upload(genres, "articles", time="at", key="article")
    sim.create_view("long_reads", "SELECT * FROM reads WHERE seconds >= 3")
    joined = sim.define(
        "news",
        "SELECT r.user, COUNT(*) FILTER (WHERE a.genre = 'news') AS news FROM reads r "
        "JOIN articles a ON r.article = a.article GROUP BY r.user",
    )
    total = sim.define("total", "SELECT user, SUM(seconds) AS total FROM long_reads GROUP BY user")
    union = sim.define(
        "acts",
        "SELECT user, COUNT(*) AS acts FROM (SELECT user, at FROM reads "
        "UNION ALL SELECT genre, at FROM articles) GROUP BY user",
    )
    share = sim.define(
        "share", "SELECT user, total / news AS share FROM total JOIN news USING (user)"
    )
    for first in (12, 18):
        sim.meanwhile(lambda first=first: sim.append(reads(first, 6), "reads"))
    for definition in (share, union):
        sim.run(definition)
        sim.check(definition)
    mine = [r for r in reads(0, 24) if r["user"] == "u1"]
    seconds = sum(r["seconds"] for r in mine if r["seconds"] >= 3)
    news = sum(r["article"] in ("a0", "a1") for r in mine)
    assert sim.serve(joined, user="u1").rows[0]["news"] == news, sim
    assert sim.serve(total, user="u1").rows[0]["total"] == seconds, sim
    assert sim.serve(share, user="u1").rows[0]["share"] == pytest.approx(seconds / news), sim
    acts = sim.serve(union, user=["u1", "news"]).to_dict()["acts"]
    assert acts == [len(mine), 2], sim


def test_windows_end_by_the_simulations_clock() -> None:
    sim = Simulation(seed=1)
    sim.upload(reads(0, 9), "reads", time="at")
    recent = sim.define("recent", {"recent": pl.len()}, entity="user", stream="reads", window="1h")
    sim.run(recent)
    assert sim.serve(recent, user=["u0"]).to_dict()["recent"] == [3]
    sim.clock.sleep_s(3_660)
    assert sim.serve(recent, user=["u0"]).to_dict()["recent"] == [2]
    sim.clock.sleep_s(3_600)
    assert sim.serve(recent, user=["u0"]).to_dict()["recent"] == [0]
    sim.check(recent)


def test_what_ends_a_worker_for_good_is_raised_with_its_seed() -> None:
    sim = Simulation(seed=11, rates={Fault.KILLED: 0.05})
    most = [{"user": "u", "n": 2**62, "at": "2024-01-01T00:00:00"}] * 2
    sim.upload(most, "events", time="at")
    total = sim.define("total", "SELECT user, SUM(n) AS total FROM events GROUP BY user")
    with pytest.raises(OverflowInFold) as caught:
        sim.run(total)
    assert any("seed=11" in note for note in caught.value.__notes__)
    with pytest.raises(DefinitionError):
        sim.define("wrong", "SELECT user, SUM(nothing) AS x FROM events GROUP BY user")


@pytest.mark.parametrize("seed", range(12))
def test_fault_20_an_upload_that_was_not_answered_is_repeated_and_each_event_is_there_once(
    seed: int,
) -> None:
    """Some of its events were stored, all or none: those that have an id are told apart by it."""
    kind = Fault.APPEND_UNKNOWN
    faults = Faults(seed, at={kind: [0]}, rates={kind: 0.6}, most=4)
    log = SimulatedLog(seed=seed, faults=faults)
    append = log.append

    def only_theirs_goes_wrong(stream: Stream, rows: pl.DataFrame, **options: Any) -> Cut:
        if stream.name == "reads":
            return append(stream, rows, **options)
        with faults.calm():
            return append(stream, rows, **options)

    log.append = only_theirs_goes_wrong  # type: ignore[method-assign]
    sources = Sources(Catalog(log, actor="test", clock=log.clock), log, clock=log.clock)
    session_like = {"time": "at", "key": "user", "partitions": 2, "once": False, "table": False}
    for last in (20, 30):
        while True:
            try:
                sources.upload(reads(0, last), "reads", id="seconds", on_progress=silent,
                               **session_like)  # fmt: skip
            except UnreachableError:
                continue
            break
    stream = sources.find("reads")
    batches = log.read(stream, start=START, end=log.end("reads"))
    stored = [n for batch in batches for n in batch.rows.get_column("seconds")]
    assert sorted(stored) == list(range(30)), faults
    assert faults.struck
