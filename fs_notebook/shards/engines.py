"""Who does the shards' work: this process, one shard after the other, or the processes of Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fs_notebook.errors import FeatureStoreError, UsageError, near_names
from fs_notebook.shards.work import Task, done

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
WAITING_PER_CPU = 2
"""Tasks that Ray may hold for each of its CPUs: enough that none of them waits for this process."""

Engine = Callable[[Iterable[Task]], Iterator[tuple[int, bytes]]]
"""Does tasks; yields each one's number and its block, in any order."""


def engine_of(name: str) -> Engine:
    """Return the engine of that name.

    Raises
    ------
    UsageError
        If there is none, or it is not installed.
    """
    if name not in ENGINES:
        near = near_names(name, ENGINES)
        raise UsageError(
            "There is no such engine.", found=repr(name),
            remedy=f"{near[0] if near else 'local or ray'}",
        )  # fmt: skip
    if name == LOCAL:
        return here
    _ray()
    return on_ray


def here(tasks: Iterable[Task]) -> Iterator[tuple[int, bytes]]:
    """Do the tasks in this process, one at a time: Polars uses all cores for each."""
    for task in tasks:
        yield task.number, done(task.what, *_arguments(task))


def on_ray(tasks: Iterable[Task]) -> Iterator[tuple[int, bytes]]:
    """Do the tasks in Ray's workers, a bounded number at a time.

    A running Ray is used as it is: one that `ray.init` joined, or that ``RAY_ADDRESS`` names.
    Without one, Ray is started on this machine, and goes on until this process ends.

    Raises
    ------
    FeatureStoreError
        If a worker fails: Ray has tried three times by then where its machine went away.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    do = ray.remote(max_retries=3)(done)
    cpus = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    running: dict[Any, int] = {}
    try:
        for task in tasks:
            while len(running) >= cpus * WAITING_PER_CPU:
                yield _next(ray, running)
            running[do.remote(task.what, *_arguments(task))] = task.number
        while running:
            yield _next(ray, running)
    finally:
        for reference in running:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)


def _arguments(task: Task) -> tuple[Any, ...]:
    if task.labels is None:
        return (None, *task.events)
    return (len(task.events), *task.events, *task.labels)


def _next(ray: Any, running: dict[Any, int]) -> tuple[int, bytes]:
    ready, _ = ray.wait(list(running), num_returns=1)
    number = running.pop(ready[0])
    try:
        return number, bytes(ray.get(ready[0]))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, FeatureStoreError):
            # What is wrong with the data is told as it is without Ray.
            raise cause from None
        raise FeatureStoreError(
            "A Ray worker failed at a key shard.",
            found=str(cause).splitlines()[0] if str(cause) else type(cause).__name__,
            remedy="the same fs_notebook and Polars on all of Ray's machines? "
            "engine='local' computes it here",
        ) from error
    except ray.exceptions.RayError as error:
        raise FeatureStoreError(
            "A Ray worker was lost at a key shard.",
            found=str(error).splitlines()[0],
            remedy="more shards=…, so that each takes less memory, or larger workers",
        ) from error


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(
            "Ray is not installed.", found="engine='ray'", remedy="pip install 'fs-notebook[ray]'"
        ) from None
    return ray
