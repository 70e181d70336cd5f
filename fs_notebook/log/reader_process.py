"""A process that reads partitions for another one: what `log.apart` starts.

It takes tasks as lines of JSON on its standard input, one after the other, and answers each with
frames on its standard output: decoded events as they come, then an end or an error. It ends when
its input does, when nobody takes its output, or when it had nothing to do for a minute.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import struct
import sys
from typing import Any

import polars as pl

from fs_notebook.errors import FeatureStoreError

HEAD = struct.Struct("<cII")
"""A frame's kind, and the lengths of its note (JSON) and of its body (an Arrow stream)."""

EVENTS, DONE, FAILED = b"E", b"D", b"F"
PLACES = ("__at_ledger", "__at_entry", "__at_batch")
PUBLISHED_US, EVENT_US = "__published_us", "__event_us"
IDLE_S_MAX = 60.0


class _Out:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, kind: bytes, note: Any = None, body: bytes = b"") -> None:
        text = json.dumps(note).encode()
        left = memoryview(HEAD.pack(kind, len(text), len(body)) + text + body)
        while left:
            left = left[os.write(self._fd, left) :]


def _run(task: dict[str, Any], logs: dict[str, Any], out: _Out) -> None:
    from fs_notebook.log.cursors import Part
    from fs_notebook.log.protocol import Stream
    from fs_notebook.log.pulsar import PulsarLog
    from fs_notebook.position import Position

    place = json.dumps(task["place"])
    if place not in logs:
        logs[place] = PulsarLog(task["place"][0], admin_url=task["place"][1])
    stream = Stream.from_dict(task["stream"])
    start = None if task["start"] is None else Position(*task["start"])
    found = logs[place].decoded(
        stream, Part(*task["part"]), start, Position(*task["end"]), rows_max=task["rows_max"]
    )
    with contextlib.closing(found):
        for one in found:
            rows = one.rows
            needs_event = stream.time is None or rows.get_column(stream.time).null_count() > 0
            event_us = one.event_us() if needs_event else None
            places = zip(PLACES, one.locate(), strict=True)
            columns = [pl.Series(name, values) for name, values in places]
            columns.append(pl.Series(PUBLISHED_US, one.published_us()))
            if event_us is not None:
                columns.append(pl.Series(EVENT_US, event_us))
            sink = io.BytesIO()
            rows.hstack(columns).write_ipc_stream(sink, compat_level=pl.CompatLevel.newest())
            note = {
                "end": list(one.end),
                "dead": [[list(d.position), d.reason, d.payload.hex()] for d in one.dead],
            }
            out.send(EVENTS, note, sink.getvalue())


def main() -> None:
    """Answer tasks until there are no more."""
    out = _Out(os.dup(1))
    # Whatever else writes to standard output must not get between the frames.
    os.dup2(2, 1)
    logs: dict[str, Any] = {}
    while select.select([sys.stdin], [], [], IDLE_S_MAX)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            break
        try:
            _run(json.loads(line), logs, out)
        except BrokenPipeError:
            break
        except FeatureStoreError as error:
            told = [error.message, error.found, error.remedy]
            out.send(FAILED, [type(error).__name__, *told])
        except Exception as error:  # noqa: BLE001 - the reading process tells, whatever it was.
            out.send(FAILED, ["", f"{type(error).__name__}: {error}"[:500]])
        else:
            out.send(DONE)
    os._exit(0)


if __name__ == "__main__":
    main()
