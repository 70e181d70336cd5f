"""What the workers report, for Prometheus: `fs-notebook runner --metrics 127.0.0.1:9109`.

Workers are processes of their own. Their figures are read from the store when somebody asks,
beside what the runner itself knows of them, so that nothing is counted twice and no worker
serves a port.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fs_notebook.clock import SYSTEM, Clock
from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.online.protocol import OnlineStore
from fs_notebook.worker.audits import Audit, audit_name
from fs_notebook.worker.shared import joined_health, joined_info, shards_of
from fs_notebook.worker.sizes import told_size
from fs_notebook.worker.timings import COMMIT_SECONDS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

METRICS_VARIABLE = "FS_NOTEBOOK_METRICS"
STATES = ("starting", "bootstrapping", "live", "retrying", "failing", "stopped")
LABELS = ("feature", "version")
_PORT_MAX = 65_535


_AUDITED: tuple[tuple[str, str, Callable[[Audit], float]], ...] = (
    ("verification_ok", "Whether the last one was done and equal.", lambda a: float(a.ok)),
    ("verification_mismatches", "Values that differed.", lambda a: float(a.mismatches)),
    ("verification_entities", "Entities compared.", lambda a: float(a.entities)),
    ("verification_duration_seconds", "How long it took.", lambda a: a.seconds),
    ("verification_timestamp_seconds", "When it was begun.", lambda a: a.at_us / 1_000_000),
)


@dataclass(frozen=True)
class Watched:
    """What the runner knows of a worker.

    Attributes
    ----------
    pid
        Its process, None while none runs.
    serving
        Whether readers get this version's values.
    elsewhere
        Whether another runner's worker has the shard.
    restarts
        How often this runner started it again.
    failures
        How often in a row it failed.
    partitions
        How many shards its state lies in, where workers share it; then what is known of all its
        workers here.
    """

    name: str
    version: int
    shard: str
    pid: int | None
    serving: bool
    elsewhere: bool = False
    restarts: int = 0
    failures: int = 0
    partitions: int | None = None

    def state(self, health: Mapping[str, Any]) -> str:
        """Return the worker's state, one of `STATES`."""
        reported = str(health.get("state", "starting"))
        if self.elsewhere:
            return reported if health else "stopped"
        if self.pid is None:
            return "failing" if self.failures else "stopped"
        # The report may be of the process before this one.
        return reported if health.get("pid") == self.pid else "starting"


# Name, help, where the figure comes from: `health` is the worker's report, `info` its last commit.
_GAUGES = (
    ("lag_messages", "Entries in the ledger that are not folded yet.", "health", "lag"),
    ("events_per_second", "Events folded a second, by the last report.", "health", "rate"),
    ("entities", "Entities that have a state.", "info", "entities"),
)
_COUNTERS = (
    ("events", "Events folded.", "events"),
    ("null_keys", "Events dropped for a null in their key.", "null_keys"),
    ("late", "Events that came when every window had passed them.", "late"),
    ("dead_letters", "Events that could not be read.", "dead"),
)


class WorkerMetrics:
    """A collector of the Prometheus client: asked for, it looks at runner and store.

    Parameters
    ----------
    store
        Where the workers report to; asked from the server's threads.
    watched
        Returns what the runner knows now.
    """

    def __init__(
        self,
        store: OnlineStore,
        watched: Callable[[], Sequence[Watched]],
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        self._store = store
        self._watched = watched
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield each family with a sample for each feature version.

        Where the store does not answer, what the runner knows is told all the same.
        """
        from prometheus_client.core import GaugeMetricFamily

        watched, found = self._watched(), {}
        try:
            for one in watched:
                found[one] = self._look(one)
            reached = True
        except FeatureStoreError:
            reached, found = False, {}
        yield GaugeMetricFamily(
            "fs_notebook_store_up", "Whether the online store answers.", value=float(reached)
        )
        yield from self._of_runner(watched, {one: health for one, (health, _) in found.items()})
        yield from self._of_workers(found)
        yield from self._of_audits([one for one in watched if reached])

    def _look(self, one: Watched) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        if one.partitions is not None:
            shards = shards_of(one.shard, one.partitions)
            return joined_health(self._store, shards), joined_info(self._store, shards)
        state = self._store.state(one.shard)
        return self._store.health(one.shard) or {}, {} if state is None else state.info

    def _of_runner(
        self, watched: Sequence[Watched], healths: Mapping[Watched, Mapping[str, Any]]
    ) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = _family(GaugeMetricFamily, "worker_state", "1 for the worker's state.", "state")
        serving = _family(GaugeMetricFamily, "serving", "Whether readers get this version.")
        restarts = _family(
            CounterMetricFamily, "worker_restarts", "Restarts since the runner started."
        )
        failures = _family(
            GaugeMetricFamily, "worker_failures_in_a_row", "Failures since it last ran well."
        )
        for one in watched:
            labels = [one.name, str(one.version)]
            serving.add_metric(labels, float(one.serving))
            restarts.add_metric(labels, float(one.restarts))
            failures.add_metric(labels, float(one.failures))
            if one in healths:
                now = one.state(healths[one])
                for name in STATES:
                    state.add_metric([*labels, name], float(name == now))
        yield from (state, serving, restarts, failures)

    def _of_workers(
        self, found: Mapping[Watched, tuple[Mapping[str, Any], Mapping[str, Any]]]
    ) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for name, text, origin, field in _GAUGES:
            family = _family(GaugeMetricFamily, name, text)
            for one, (health, info) in found.items():
                value = (health if origin == "health" else info).get(field)
                if value is not None:
                    family.add_metric([one.name, str(one.version)], float(value))
            yield family
        for name, text, field in _COUNTERS:
            family = _family(CounterMetricFamily, name, text)
            for one, (_, info) in found.items():
                family.add_metric([one.name, str(one.version)], float(info.get(field, 0)))
            yield family
        lag = _family(
            GaugeMetricFamily, "lag_seconds",
            "Since the newest folded event was published; 0 where nothing waits.",
        )  # fmt: skip
        commits = _family(HistogramMetricFamily, "commit_seconds", "Commits to the online store.")
        for one, (health, info) in found.items():
            labels = [one.name, str(one.version)]
            seconds = lag_seconds(health.get("lag"), info.get("published"), self._clock.now_us())
            if seconds is not None:
                lag.add_metric(labels, seconds)
            if "commits" in health:
                buckets = _cumulated(health["commits"]["counts"])
                commits.add_metric(labels, buckets, health["commits"]["sum"])
        yield from (lag, commits, self._sizes(found))

    def _sizes(self, watched: Iterable[Watched]) -> Metric:
        """Return how large the states are, by the runner's last look."""
        from prometheus_client.core import GaugeMetricFamily

        text = "Keys and packed values in the store; estimated where there are many."
        family: Metric = _family(GaugeMetricFamily, "state_bytes", text)
        for one in watched:
            with suppress(FeatureStoreError):
                size = told_size(self._store, one.shard)
                if size is not None:
                    labels = {"feature": one.name, "version": str(one.version)}
                    family.add_sample(family.name, labels, float(size))
        return family

    def _of_audits(self, watched: Sequence[Watched]) -> Iterator[Metric]:
        """Yield what the last verification on schedule found, where there was one."""
        from prometheus_client.core import GaugeMetricFamily

        families = [_family(GaugeMetricFamily, name, text) for name, text, _ in _AUDITED]
        for one in watched:
            with suppress(FeatureStoreError):
                audit = Audit.from_report(self._store.health(audit_name(one.shard)))
                for family, (_, _, figure) in zip(families, _AUDITED, strict=True):
                    if audit is not None:
                        family.add_metric([one.name, str(one.version)], figure(audit))
        yield from families


def lag_seconds(lag: int | None, published_us: int | None, now_us: int) -> float | None:
    """Return how old the newest folded event is where others wait behind it; None: not known."""
    if lag == 0:
        return 0.0
    if lag is None or published_us is None:
        return None
    return max(now_us - published_us, 0) / 1_000_000


def _family(kind: Any, name: str, text: str, *labels: str) -> Any:
    return kind(f"fs_notebook_{name}", text, labels=[*LABELS, *labels])


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*COMMIT_SECONDS, math.inf), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == math.inf else str(bound), float(total)))
    return buckets


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:9109`` or ``[::1]:9109``.

    Raises
    ------
    UsageError
        If it is neither.
    """
    host, colon, port = text.strip().rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= _PORT_MAX):
        raise UsageError(
            "--metrics takes an address to serve at.", found=repr(text),
            remedy="--metrics 127.0.0.1:9109, or 0.0.0.0:9109 for other machines",
        )  # fmt: skip
    return host, int(port)


@contextmanager
def metrics_served(collector: WorkerMetrics, address: str) -> Iterator[str]:
    """Serve what `collector` finds over HTTP, in threads, for as long as the block lasts.

    Yields
    ------
    str
        The URL; of port 0 the one that was free.

    Raises
    ------
    UsageError
        If `address` is none, or is taken.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    host, port = parse_address(address)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"The metrics cannot be served at {address}.", found=error.strerror or str(error),
            remedy="another port; each runner needs one of its own",
        ) from None  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
