"""One worker process: `python -m fs_notebook.worker.process GROUP FINGERPRINT [MEMBER]`.

With a member's name it shares the stream's partitions with others of the version.

Exit codes tell the runner what to do: 0 told to stop, 3 taken over by another worker, 4 cannot
go on without somebody's help, 1 unexpected.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from fs_notebook.catalog import Catalog, Definition
from fs_notebook.catalog.lineage import workers
from fs_notebook.clock import SYSTEM, new_id
from fs_notebook.errors import FeatureStoreError, FencedError, UnknownName
from fs_notebook.processes import exit_now
from fs_notebook.worker.connection import Connection, default_actor
from fs_notebook.worker.crew import Crew
from fs_notebook.worker.failures import Failure, leave
from fs_notebook.worker.loop import Worker
from fs_notebook.worker.places import failure_path
from fs_notebook.worker.shared import subscription_of

STOPPED, FENCED, STUCK = 0, 3, 4
LOG = logging.getLogger("fs_notebook.worker")


def main(argv: list[str]) -> int:
    """Run the worker of one version until told to stop."""
    group, fingerprint, *names = argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    connection = Connection.from_environment()
    words = failure_path(connection, names[0] if names else f"{group}@{fingerprint[:16]}")
    try:
        log, store = connection.open_log(), connection.open_store()
        catalog = Catalog(log, actor=default_actor())
        version = catalog.refresh().group(group).by_fingerprint(fingerprint)
        definition = None if version is None else version.definition
        if version is None or not isinstance(definition, Definition):
            raise UnknownName(
                f"The catalog has no version {fingerprint[:16]} of {group!r} to fold.",
                remedy=f"promote {group} again",
            )
        LOG.info("worker of %s version %d starts", group, version.number)
        shard = definition.shard

        def is_wanted() -> bool:
            return shard in workers(catalog.refresh())

        if names:
            shares = log.share(
                definition.source.name, subscription_of(shard), f"{names[0]}~{new_id()}"
            )
            Crew(
                definition, log, store, shares, name=names[0], should_stop=lambda: stopping,
                is_wanted=is_wanted,
            ).run()  # fmt: skip
        else:
            Worker(definition, log, store, should_stop=lambda: stopping, is_wanted=is_wanted).run()
    except FencedError as error:
        LOG.info("taken over: %s", error)
        return FENCED
    except FeatureStoreError as error:
        LOG.error("%s: %s", type(error).__name__, error)
        leave(words, Failure.of(error), at_us=SYSTEM.now_us())
        return STUCK
    except Exception as error:
        LOG.exception("the worker of %s met what it was not made for", group)
        leave(words, Failure.of(error), at_us=SYSTEM.now_us())
        return STUCK
    LOG.info("worker of %s stopped, all committed", group)
    return STOPPED


if __name__ == "__main__":
    exit_now(main(sys.argv[1:]))
