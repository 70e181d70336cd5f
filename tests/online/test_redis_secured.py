"""A Redis with TLS and users of its own: who is let in, and what those are told who are not."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from fs_notebook.errors import FeatureStoreError, UnreachableError, UsageError
from fs_notebook.online.connect import open_store
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.position import START
from tests.support.certificates import certify
from tests.support.redis import free_port, system_server

RULES = "on >secret ~fs:* +@all -@admin -@dangerous +info +keys"


@dataclass(frozen=True)
class Secured:
    port: int
    plain_port: int
    files: dict[str, Path]

    def url(self, login: str = "worker:secret", host: str = "localhost") -> str:
        return f"rediss://{login}@{host}:{self.port}/0"

    def admin(self) -> redis.Redis:
        return redis.Redis(
            host="localhost", port=self.port, ssl=True, ssl_ca_certs=str(self.files["ca"]),
            username="root", password="root", protocol=2,
        )  # fmt: skip


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    files = certify(folder, "localhost")
    made = Secured(free_port(), free_port(), files)
    (folder / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {made.plain_port}\ntls-port {made.port}\nsave ""\n'
        f"tls-cert-file {files['broker']}\ntls-key-file {files['broker-key']}\n"
        f"tls-ca-cert-file {files['ca']}\ntls-auth-clients optional\n"
        f"user default off\nuser root on >root ~* &* +@all\nuser worker {RULES}\n"
        "user reader on >secret ~fs:* +@read +@connection\n"
        "user stranger on >secret ~other:* +@all\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [system_server(), folder / "redis.conf"], stdout=log, stderr=log, cwd=folder
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            try:
                with made.admin() as client:
                    client.ping()
                break
            except redis.RedisError:
                time.sleep(0.02)
        yield made
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def trusted(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FS_NOTEBOOK_REDIS_TLS_CA", str(secured.files["ca"]))


def use(store: RedisStore) -> None:
    lease = store.claim("s@1", fingerprint="f")
    store.commit(lease, cut=START, puts={b"\x91\x01": b"1"}, info={})
    store.publish("s", {"version": 1})
    assert store.published()[1] == {"s": {"version": 1}}
    assert list(store.entities("s@1")) == [b"\x91\x01"]
    assert store.drop("s@1") == 1


def test_a_user_that_may_only_touch_our_keys_does_all_of_the_work(
    secured: Secured, tmp_path: Path
) -> None:
    store = open_store(secured.url(), home=tmp_path)
    assert isinstance(store, RedisStore)
    assert "secret" not in store.url
    use(store)
    store.close()


def test_user_and_password_may_come_from_the_environment(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("secret\n")
    monkeypatch.setenv("FS_NOTEBOOK_REDIS_USERNAME", "worker")
    for password in ("secret", f"file:{tmp_path / 'password'}"):
        monkeypatch.setenv("FS_NOTEBOOK_REDIS_PASSWORD", password)
        store = RedisStore(f"rediss://localhost:{secured.port}/0")
        use(store)
        store.close()
    # What the address says goes first.
    store = RedisStore(secured.url("root:root"))
    use(store)
    store.close()
    monkeypatch.setenv("FS_NOTEBOOK_REDIS_PASSWORD", f"file:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="FS_NOTEBOOK_REDIS_PASSWORD"):
        RedisStore(f"rediss://localhost:{secured.port}/0")


def refused(url: str) -> FeatureStoreError:
    store = RedisStore(url, timeout_seconds=2.0)
    try:
        with pytest.raises(FeatureStoreError) as caught:
            use(store)
    finally:
        store.close()
    assert "secret" not in str(caught.value)
    return caught.value


def test_who_is_not_let_in_is_told_why(secured: Secured) -> None:
    for login in ("worker:wrong-secret", "nobody:secret"):
        told = refused(secured.url(login))
        assert "does not let us in" in told.message
        assert "password" in (told.remedy or "")
    told = refused(f"rediss://localhost:{secured.port}/0")
    assert "NOAUTH" in str(told) or "Authentication required" in str(told)
    assert "user" in (told.remedy or "")


def test_a_permission_that_is_missing_is_named(secured: Secured) -> None:
    for login in ("reader:secret", "stranger:secret"):
        told = refused(secured.url(login))
        assert isinstance(told, UnreachableError)
        assert "does not allow this" in told.message
        assert "ACL SETUSER" in (told.remedy or "")
        assert "permission" in (told.found or "").lower()


def test_an_authority_that_is_not_trusted_is_named(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FS_NOTEBOOK_REDIS_TLS_CA")
    told = refused(secured.url())
    assert "not trusted" in told.message
    assert "FS_NOTEBOOK_REDIS_TLS_CA" in (told.remedy or "")
    monkeypatch.setenv("FS_NOTEBOOK_REDIS_TLS_CA", str(tmp_path / "nowhere.pem"))
    with pytest.raises(UsageError, match="not there"):
        RedisStore(secured.url())


def test_a_certificate_for_another_host_is_not_accepted(secured: Secured) -> None:
    told = refused(secured.url(host="127.0.0.1"))
    assert "not trusted" in told.message
    assert "127.0.0.1" in (told.found or "")


def test_a_port_without_tls_and_one_with_it_are_told_apart(secured: Secured) -> None:
    told = refused(f"rediss://worker:secret@localhost:{secured.plain_port}/0")
    assert "redis://" in (told.remedy or "")
    told = refused(f"redis://worker:secret@localhost:{secured.port}/0")
    assert isinstance(told, UnreachableError)
    assert "rediss://" in (told.remedy or "")
