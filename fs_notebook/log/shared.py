"""A place that a team shares for segments: a bucket of S3-compatible storage, or a folder.

Files are written once and never changed: a name says what is in it. So nothing is locked; of two
who write the same stretch at once the later one's file replaces an equal one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from fs_notebook.clock import SYSTEM, Clock, new_id
from fs_notebook.errors import UsageError

LISTED_FOR_S = 10.0
"""How long a listing is trusted: what a colleague adds is seen after that."""

CLOSE_S_MAX = 60.0


class SharedFailure(Exception):
    """The shared place could not be used; the text says why."""


class SharedFiles:
    """Files of a shared place.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, with ``?endpoint_override=http://host:9000&region=…`` for storage
        that is not Amazon's, or ``file:///mnt/team``. Keys come from the environment
        (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``) or the machine's role, never from the
        URL.

    Raises
    ------
    UsageError
        If that is no such URL, or it holds a secret.
    """

    def __init__(self, url: str, *, clock: Clock = SYSTEM) -> None:
        from pyarrow import fs as arrow_fs

        place = url.split("?", 1)[0]
        if "@" in place or not place.startswith(("s3://", "file:///")):
            raise UsageError(
                "This is no place for a shared cache.",
                found=url.rpartition("@")[2],
                remedy="s3://bucket/prefix or file:///folder; keys stay in the environment",
            )
        try:
            self._files, root = arrow_fs.FileSystem.from_uri(url)
        except (ValueError, OSError) as error:
            raise UsageError(
                "This is no place for a shared cache.",
                found=str(error)[:200],
                remedy="s3://bucket/prefix?endpoint_override=http://host:9000, or file:///folder",
            ) from None
        self.url = url
        self._root = PurePosixPath(root)
        self._clock = clock
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="fs-notebook-share")
        self._pending: list[Future[None]] = []

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files; a listing is asked for every few seconds.

        Raises
        ------
        SharedFailure
            If the place does not answer.
        """
        now_s = self._clock.monotonic_s()
        listed_s, names = self._known.get(folder, (float("-inf"), []))
        if now_s - listed_s < LISTED_FOR_S:
            return names
        names = list(self._tried(lambda: self._listed(folder)))
        self._known[folder] = (now_s, names)
        return names

    def _listed(self, folder: str) -> list[str]:
        from pyarrow import fs as arrow_fs

        where = arrow_fs.FileSelector(str(self._root / folder), allow_not_found=True)
        found = self._files.get_file_info(where)
        return sorted(i.base_name for i in found if i.type == arrow_fs.FileType.File)

    def fetch(self, folder: str, name: str, target: Path) -> None:
        """Copy a file to this machine; nothing is left at `target` if that fails.

        Raises
        ------
        SharedFailure
            If it cannot be read, or the local disk takes no more.
        """
        part = target.with_name(f"{new_id()}.part")

        def copy() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            place = str(self._root / folder / name)
            with self._files.open_input_stream(place) as source, part.open("wb") as sink:
                while block := source.read(2**22):
                    sink.write(block)
            part.rename(target)

        try:
            self._tried(copy)
        finally:
            part.unlink(missing_ok=True)

    def put(self, folder: str, path: Path, on_failure: Callable[[SharedFailure], None]) -> None:
        """Share a file of this machine, in the background."""

        def copy() -> None:
            data = path.read_bytes()
            if self._files.type_name == "local":
                self._put_whole(folder, path.name, data)
                return
            with self._files.open_output_stream(str(self._root / folder / path.name)) as sink:
                sink.write(data)

        def run() -> None:
            try:
                self._tried(copy)
            except SharedFailure as failure:
                on_failure(failure)

        self._pending = [f for f in self._pending if not f.done()]
        self._pending.append(self._writer.submit(run))

    def _put_whole(self, folder: str, name: str, data: bytes) -> None:
        """Write a file of a shared folder so that nobody sees half of it."""
        target = Path(str(self._root)) / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{new_id()}.part")
        part.write_bytes(data)
        part.rename(target)

    def flush(self) -> None:
        """Wait until everything put so far is shared, or has failed."""
        end_s = time.monotonic() + CLOSE_S_MAX
        for future in self._pending:
            future.result(timeout=max(end_s - time.monotonic(), 0.0))

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (OSError, ValueError) as error:
            raise SharedFailure(str(error).splitlines()[0][:200]) from None
