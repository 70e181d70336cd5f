"""Run all benchmarks, print the table, and keep it in tests/artifacts/benchmarks.md."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.benchmarks.sizes import FULL, QUICK
from tests.benchmarks.suite import report, run

TARGET = Path(__file__).parents[1] / "artifacts" / "benchmarks.md"


@click.command()
@click.option("--quick", is_flag=True, help="Tiny sizes: whether it runs, not how fast.")
def main(*, quick: bool) -> None:
    """Measure each figure beside its rival."""
    TARGET.parent.mkdir(exist_ok=True)
    rows, figures, notes = run(
        QUICK if quick else FULL,
        say=lambda text: print(text, file=sys.stderr, flush=True),
        pictures=None if quick else TARGET.parent,
        feast=not quick,
    )
    text = report(rows, figures, notes)
    print(text)
    if not quick:
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
