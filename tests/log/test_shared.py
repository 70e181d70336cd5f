"""A shared cache: what one has read from the broker, a colleague takes from there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fs_notebook.errors import UsageError
from fs_notebook.log.cache import CachedLog
from fs_notebook.log.connect import open_log
from fs_notebook.log.protocol import Stream
from fs_notebook.log.pulsar import PulsarLog
from fs_notebook.log.segments import CacheWarning, SegmentCache
from fs_notebook.log.shared import SharedFiles
from tests.support.broker import Broker, free_ports
from tests.support.logs import COLUMNS, events, positions_of, read_all

BUCKET = "team"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    (port,) = free_ports(1)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield (
        f"s3://{BUCKET}/segments?endpoint_override=127.0.0.1%3A{port}&scheme=http"
        "&region=us-east-1&allow_bucket_creation=true"
    )
    server.stop()


@pytest.fixture(params=["s3", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    if request.param == "folder":
        (tmp_path / "team").mkdir()
        return (tmp_path / "team").as_uri()
    url: str = request.getfixturevalue("bucket")
    from pyarrow import fs as arrow_fs

    files, _ = arrow_fs.FileSystem.from_uri(url)
    files.create_dir(BUCKET)
    return url


class Counting:
    """A Pulsar log that counts how often the broker was read from."""

    def __init__(self, log: PulsarLog) -> None:
        self._log = log
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def decoded(self, *given: Any, **options: Any) -> Any:
        self.reads += 1
        return self._log.decoded(*given, **options)


@pytest.fixture
def stream(broker: Broker, pulsar_log: PulsarLog) -> Stream:
    stream = Stream(broker.fresh(), COLUMNS, time="ts")
    pulsar_log.create(stream)
    pulsar_log.append(stream, events(0, 7_000))
    return stream


def cache_at(folder: Path, place: str) -> SegmentCache:
    return SegmentCache(folder, bytes_max=2**30, shared=SharedFiles(place))


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_a_colleague_reads_what_was_shared(
    place: str, stream: Stream, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    mine, theirs = Counting(pulsar_log), Counting(pulsar_log)
    first = cache_at(tmp_path / "mine", place)
    found = read_all(CachedLog(mine, first), stream)  # type: ignore[arg-type]
    first.flush()
    second = cache_at(tmp_path / "theirs", place)
    again = read_all(CachedLog(theirs, second), stream)  # type: ignore[arg-type]
    assert (mine.reads, theirs.reads) == (1, 0)
    assert positions_of(again) == positions_of(found)
    assert [b.rows.rows() for b in again] == [b.rows.rows() for b in found]
    # What was added since comes from the broker, after what is shared.
    pulsar_log.append(stream, events(7_000, 10))
    more = read_all(CachedLog(theirs, second), stream)  # type: ignore[arg-type]
    assert sum(b.rows.height for b in more) == 7_010
    assert theirs.reads == 1


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_a_damaged_shared_file_is_not_trusted(
    stream: Stream, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    (tmp_path / "team").mkdir()
    place = (tmp_path / "team").as_uri()
    first = cache_at(tmp_path / "mine", place)
    found = read_all(CachedLog(pulsar_log, first), stream)
    first.flush()
    (file,) = (tmp_path / "team").glob("*/*.arrow")
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    theirs = Counting(pulsar_log)
    with pytest.warns(CacheWarning, match="damaged"):
        again = read_all(
            CachedLog(theirs, cache_at(tmp_path / "theirs", place)),  # type: ignore[arg-type]
            stream,
        )
    assert theirs.reads == 1
    assert positions_of(again) == positions_of(found)


@pytest.mark.pulsar
@pytest.mark.timeout(120)
def test_a_shared_place_that_is_away_is_done_without(
    stream: Stream, pulsar_log: PulsarLog, tmp_path: Path
) -> None:
    (tmp_path / "team").write_text("a file where a folder should be")
    cache = cache_at(tmp_path / "mine", (tmp_path / "team").as_uri())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        first = read_all(CachedLog(pulsar_log, cache), stream)
        cache.flush()
        again = read_all(CachedLog(pulsar_log, cache), stream)
    assert positions_of(again) == positions_of(first)
    mine = [w for w in told if issubclass(w.category, CacheWarning)]
    assert [str(w.message).startswith("The shared cache file:") for w in mine] == [True]


@pytest.mark.parametrize(
    "url", ["", "nonsense", "s3://key:secret@bucket/x", "https://bucket/x", "gs://bucket/x"]
)
def test_what_is_no_shared_place_is_refused_and_no_secret_is_shown(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no place for a shared cache") as caught:
        SharedFiles(url)
    assert "secret" not in str(caught.value)
    if url:
        monkeypatch.setenv("FS_NOTEBOOK_SHARED_CACHE", url)
        with pytest.raises(UsageError, match="no place for a shared cache"):
            open_log("pulsar://127.0.0.1:1", home=tmp_path)
