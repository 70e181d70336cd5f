"""Each figure beside its own rival, measured in the same run: ``python -m tests.benchmarks``."""
