"""Figures that stand alone, each with its aim: nobody else's are beside them."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import catalog, ledger, scale
from tests.benchmarks.harness import Config, ask
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.table import AT_LEAST, Figure

LONG_S_MAX = 600
Say = Callable[[str], None]


def on_pulsar(sizes: Sizes, config: Config, say: Say) -> list[Figure]:
    """Return what is measured on the broker, whose topics the suite has filled."""
    say("memory of a replay")
    long = config | {"topic": f"{config['topic']}-long"}
    ask(scale.fill_long, long, seconds_max=LONG_S_MAX)
    tenth_mb, all_mb = ask(ledger.growth_mb, long, seconds_max=LONG_S_MAX)
    name = f"replay of {ledger.TIMES * sizes.long:,} events: memory after a tenth"
    found = [
        Figure(name, tenth_mb, "MB"),
        Figure("the same: growth from there to the end", all_mb - tenth_mb, "MB", aim=50.0),
    ]
    say("memory of a worker")
    grown = ask(scale.worker_growth, long, seconds_max=LONG_S_MAX)
    speed = sizes.long / grown.seconds / 1e6
    found += [
        Figure(
            f"worker, Arrow batches, {sizes.long:,} events", speed, "M events/s", AT_LEAST, 1.5
        ),
        Figure("the same: memory after a tenth", grown.tenth_mb, "MB"),
        Figure("the same: growth from there to the end", grown.all_mb - grown.tenth_mb, "MB",
               aim=100.0),
    ]  # fmt: skip
    say("promotion of a long stream")
    seconds = ask(scale.promoted, config, seconds_max=LONG_S_MAX)
    name = f"promote on {sizes.promoted:,} events, to live"
    found.append(Figure(name, seconds, "s", aim=60.0))
    say("previews of a slice")
    first_ms, second_ms = ask(scale.previewed, config)
    found += [
        Figure("preview of a slice of JSON on Pulsar", first_ms, "ms"),
        Figure("the same a second time", second_ms, "ms", aim=100.0),
    ]
    return found


def elsewhere(sizes: Sizes, config: Config, say: Say) -> list[Figure]:
    """Return what needs no broker."""
    say("a worker that starts again")
    ask(scale.fill_many, config)
    begun_s = time.time()
    seconds = ask(scale.first_commit, config) - begun_s
    name = f"worker with {sizes.many:,} entities, process begun to first commit"
    found = [Figure(name, seconds, "s", aim=5.0)]
    say("the catalog")
    looks: dict[str, Any] = ask(catalog.milliseconds, config)
    what = f"catalog of {sizes.features:,} features"
    found += [
        Figure(f"{what}, opened", looks.pop("opening"), "ms"),
        Figure(f"{what}, the first search", looks.pop("the first search"), "ms"),
        *(Figure(f"{what}: {name}", ms, "ms", aim=100.0) for name, ms in looks.items()),
    ]
    say("loading the extension")
    found.append(Figure("%load_ext fs_notebook", _loaded_s(), "s", aim=1.0))
    return found


def _loaded_s() -> float:
    """Return what `%load_ext` takes in a fresh IPython, the median of a few."""
    work = (
        "import time; from IPython.core.interactiveshell import InteractiveShell; "
        "shell = InteractiveShell.instance(); begun = time.perf_counter(); "
        "shell.run_line_magic('load_ext', 'fs_notebook'); print(time.perf_counter() - begun)"
    )
    command = [sys.executable, "-c", work]
    return statistics.median(
        float(subprocess.check_output(command, text=True).split()[-1]) for _ in range(3)
    )
