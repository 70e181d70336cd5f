"""The feature server: a process of its own on loopback, over a real Redis."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pyarrow as pa
import pytest
from openapi_spec_validator import validate

from fs_notebook.clock import SYSTEM, from_us
from fs_notebook.errors import UsageError
from fs_notebook.http.bodies import ARROW
from fs_notebook.http.openapi import document
from fs_notebook.http.server import TOKEN_VARIABLE, serve_http
from fs_notebook.language.derived_scope import Given
from fs_notebook.language.derived_sql import compile_derived
from fs_notebook.online.derived import ServedDerived
from fs_notebook.online.redis_store import RedisStore
from fs_notebook.online.usage import uses_of
from fs_notebook.worker.connection import Connection
from tests.support.redis import RedisServer, free_port
from tests.support.served import commit, event, plan_of, publish
from tests.support.sessions import until

TOKEN = "a long random text, ümlaut and all"
TOTAL = "SELECT user, SUM(readtime) AS total, COUNT(*) AS n FROM read_events GROUP BY user"
TYPES = (
    "SELECT user, SUM(readtime) / 0.5 AS f, LN(MAX(readtime) - 30) AS odd, MAX(ts) AS at, "
    "SUM(CAST(readtime AS DECIMAL(10,2))) AS money, LAST_N(readtime, 2) AS lasts, "
    "{'a': COUNT(*), 'b': MAX(ts)} AS s, SUM(readtime) + 9223372036854775000 AS big "
    "FROM read_events GROUP BY user"
)
BY_TIME = "SELECT ts, COUNT(*) AS at_once FROM read_events GROUP BY ts"
HOUR = 3_600_000_000
NOW = SYSTEM.now_us()
EVENTS = [
    event("a", 1, 30, NOW - HOUR), event("a", 2, 12, NOW - HOUR + 1),
    event("b", 1, 5, NOW - 48 * HOUR),
]  # fmt: skip


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running `fs-notebook serve`."""

    url: str
    process: subprocess.Popen[str]
    token: str | None = TOKEN

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str
    ) -> Answer:
        """Send a request; what is no bytes goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Type": "application/json"} if data is not None else {}
        if self.token is not None:
            named["Authorization"] = b"Bearer " + self.token.encode()  # type: ignore[assignment]
        named |= {k.replace("_", "-"): v for k, v in headers.items()}
        request = urllib.request.Request(self.url + path, data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), error.headers)

    def read(self, features: Any, request: Any = None, **entities: Any) -> Answer:
        body = {"features": features, "entities": entities}
        return self.ask("/v1/features", body if request is None else {**body, "request": request})


def start(redis: str, home: Path, *options: str, token: str | None = TOKEN) -> Server:
    environment = {k: v for k, v in os.environ.items() if k != TOKEN_VARIABLE}
    if token is not None:
        environment[TOKEN_VARIABLE] = token
    process = subprocess.Popen(
        [sys.executable, "-c", "from fs_notebook.cli import main; main()", "--home", str(home),
         "--redis", redis, "serve", "--port", "0", *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line.startswith("serving features at http://"), process.stderr.read()
    return Server(line.split()[-1], process, token)


def stop(server: Server) -> tuple[int, str]:
    server.process.terminate()
    _, errors = server.process.communicate(timeout=20)
    return server.process.returncode, errors


def fill(store: RedisStore) -> None:
    total = commit(store, "reading", plan_of(TOTAL, "reading", ttl_us=24 * HOUR), EVENTS)
    publish(store, total)
    publish(store, commit(store, "types", plan_of(TYPES, "types"), EVENTS))
    publish(store, commit(store, "moments", plan_of(BY_TIME, "moments"), EVENTS))
    text = "SELECT user, :amount / total AS share, CAST(:day AS DATE) AS d FROM reading"
    plan = compile_derived(text, name="shares", find_group=lambda _: Given("reading", total.plan))
    derived = ServedDerived("shares", 1, plan.fingerprint, plan, (total.to_record(),))
    store.publish("shares", derived.to_record())
    members = [["reading@1", "n"], ["reading@1", "total"]]
    store.publish("set:ranker", {"members": members, "version": 3})


@pytest.fixture(scope="module")
def redis(system_redis: RedisServer) -> str:
    """A database of this module's own, with features in it."""
    url = f"redis://127.0.0.1:{system_redis.port}/7"
    with system_redis.client() as client:
        client.execute_command("SELECT", 7)
        client.flushdb()
    store = RedisStore(url)
    fill(store)
    store.close()
    return url


@pytest.fixture(scope="module")
def server(redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(redis, tmp_path_factory.mktemp("home"), "--rows-max", "1000")
    yield server
    assert stop(server) == (0, "")


def iso(us: int) -> str:
    return from_us(us).isoformat().replace("+00:00", "Z")


def test_values_statuses_and_freshness(server: Server) -> None:
    answer = server.read(["total", "n@1"], user=["a", "b", "nobody", None])
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    newest = [iso(NOW - HOUR + 1), iso(NOW - 48 * HOUR), None, None]
    assert body["entities"] == {"user": ["a", "b", "nobody", None]}
    about = {"group": "reading", "version": 1, "newest_event": newest}
    status = ["present", "expired", "not found", "not found"]
    assert body["features"] == {
        "total": {**about, "values": [42, None, None, None], "status": status},
        "n@1": {**about, "values": [2, None, 0, 0], "status": status},
    }
    assert body["at"] >= body["fetched_at"] > iso(NOW)
    jsonschema.validate(body, schema("Answer"))


def test_a_feature_set_is_served_by_its_name(server: Server) -> None:
    columns = server.read(["set:ranker"], user=["a"]).json()["features"]
    assert {n: c["values"] for n, c in columns.items()} == {"n@1": [2], "total@1": [42]}
    assert list(columns) == ["n@1", "total@1"]
    answer = server.read(["set:rankers"], user=["a"])
    assert answer.status == 404
    assert answer.json()["message"] == "There is no feature set named 'rankers'."
    assert answer.json()["remedy"] == "did you mean 'ranker'?"


def schema(name: str) -> dict[str, Any]:
    components = document(secured=True)["components"]
    return {"$ref": f"#/components/schemas/{name}", "components": components}


def test_every_type_goes_through_json_and_arrow(server: Server) -> None:
    answer = server.read("types", user="a").json()["features"]
    values = {n: column["values"][0] for n, column in answer.items()}
    last = iso(NOW - HOUR + 1)
    assert values == {
        "f": 84.0, "odd": None, "at": last, "money": "42.00", "lasts": [12, 30],
        "s": {"a": 2, "b": last}, "big": 9223372036854775042,
    }  # fmt: skip
    arrow = server.ask(
        "/v1/features", {"features": ["types"], "entities": {"user": ["a", "nobody"]}},
        Accept=f"{ARROW}, */*;q=0.1",
    )  # fmt: skip
    assert (arrow.status, arrow.headers["content-type"]) == (200, ARROW)
    table = pa.ipc.open_stream(io.BytesIO(arrow.body)).read_all()
    assert json.loads(table.schema.metadata[b"versions"])["money"] == 1
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert frame["money"].dtype == pl.Decimal
    assert frame["at"].dt.epoch("us")[0] == NOW - HOUR + 1
    assert frame["lasts"].to_list()[0] == [12, 30]
    assert frame["f.status"].to_list() == ["present", "not found"]
    assert frame["f.newest_event"].dt.epoch("us").to_list() == [NOW - HOUR + 1, None]


def test_times_as_keys_and_values_of_the_request(server: Server) -> None:
    answer = server.read("at_once", ts=[iso(NOW - HOUR), "2024-01-31T12:00:00"])
    assert answer.json()["features"]["at_once"]["values"] == [1, 0]
    request = {"amount": [21, "NaN"], "day": "2024-01-31"}
    answer = server.read(["share", "d"], request, user=["a", "b"])
    columns = answer.json()["features"]
    assert columns["share"]["values"] == [0.5, None]
    assert columns["share"]["status"] == ["present", "expired"]
    assert columns["d"]["values"] == ["2024-01-31"] * 2
    nan = server.read("share", {"amount": "NaN"}, user="a").json()["features"]["share"]
    assert (nan["values"], nan["status"]) == (["NaN"], ["present"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "The body is not JSON."),
        (b"[" * 100_000, 400, "The body is not JSON."),
        (b'{"features": ["n"], "entities": {"user": [NaN]}}', 400, "The body is not JSON."),
        ([], 400, "The body is an object with 'features'"),
        ({"features": ["n"]}, 400, "The body is an object with 'features'"),
        ({"features": ["n"], "entities": {}, "more": 1}, 400, "The body is an object with"),
        ({"features": [1], "entities": {}}, 400, "'features' is a list of names"),
        ({"features": [], "entities": {}}, 400, "1 to 1,000 features"),
        ({"features": ["n"], "entities": []}, 400, "'entities' is an object"),
        ({"features": ["n"], "entities": {}, "request": 1}, 400, "'request' is an object"),
        ({"features": ["n"], "entities": {}}, 400, "'reading' is a feature of user"),
        ({"features": ["n"], "entities": {"user": [7]}}, 400, "'user' is a VARCHAR"),
        ({"features": ["n"], "entities": {"user": [{}]}}, 400, "'user' is a VARCHAR"),
        ({"features": ["n"], "entities": {"user": ["a"] * 1001}}, 400, "at most 1,000 rows"),
        ({"features": ["n"], "entities": {"user": ["a"], "shop": [1]}}, 400, "is of shop"),
        ({"features": ["at_once"], "entities": {"ts": ["soon"]}}, 400, "'ts' is a TIMESTAMP"),
        ({"features": ["share"], "entities": {"user": ["a"]}}, 400, "request value 'amount'"),
        ({"features": ["totl"], "entities": {"user": ["a"]}}, 404, "feature named 'totl'"),
        ({"features": ["n@2"], "entities": {"user": ["a"]}}, 404, "Version 2 of 'n'"),
        (b" " * (4 * 1024 * 1024 + 1), 413, "larger than 4,194,304 bytes"),
    ],
)
def test_what_cannot_be_answered_is_explained(
    server: Server, body: Any, status: int, message: str
) -> None:
    answer = server.ask("/v1/features", body)
    assert answer.status == status
    error = answer.json()
    assert message in error["message"]
    jsonschema.validate(error, schema("Error"))
    assert "Traceback" not in answer.body.decode()


def test_near_names_and_versions_are_told(server: Server) -> None:
    assert "'total'" in server.read("totl", user="a").json()["remedy"]
    assert "v1 (serving)" in server.read("n@2", user="a").json()["found"]


def test_only_what_bears_the_token_is_answered(server: Server) -> None:
    for given in (
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}".encode(),
        f"Bearer {TOKEN}x".encode(),
    ):
        for path in ("/v1/features", "/metrics", "/openapi.json", "/nowhere"):
            answer = server.ask(path, Authorization=given)  # type: ignore[arg-type]
            assert (answer.status, answer.json()["kind"]) == (401, "Refused")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert server.ask("/health", Authorization="").json() == {"status": "ok"}


def test_other_methods_paths_and_types_are_refused(server: Server) -> None:
    assert server.ask("/v1/features", method="DELETE").status == 405
    assert server.ask("/nowhere").json()["message"] == "Not Found: GET /nowhere"
    answer = server.ask("/v1/features", b"{}", Content_Type="text/plain")
    assert (answer.status, answer.json()["found"]) == (415, "text/plain")


def test_a_body_that_says_no_length_is_bounded_too(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(
            b"POST /v1/features HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/json\r\nAuthorization: Bearer "
            + TOKEN.encode() + b"\r\nConnection: close\r\n\r\n"
        )  # fmt: skip
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(20):
                wire.sendall(chunk)
            answer = wire.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answer = answer or wire.recv(100)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_what_is_served_is_listed(server: Server) -> None:
    body = server.ask("/v1/features").json()
    jsonschema.validate(body["versions"][0], schema("Version"))
    listed = {v["group"]: v for v in body["versions"]}
    assert listed["reading"] == {
        "group": "reading", "version": 1, "serving": True, "ttl_seconds": 86_400.0, "request": [],
        "features": [{"name": "total", "type": "BIGINT"}, {"name": "n", "type": "BIGINT"}],
        "entity": [{"name": "user", "type": "VARCHAR"}],
    }  # fmt: skip
    assert {r["name"] for r in listed["shares"]["request"]} == {"amount", "day"}


def test_the_document_is_true_to_the_server(server: Server) -> None:
    told = server.ask("/openapi.json").json()
    validate(told)
    assert told == json.loads(json.dumps(document(secured=True)))
    for path, methods in told["paths"].items():
        for method in methods:
            body = b"{}" if method == "post" else None
            answer = server.ask(path, body, method=method.upper())
            assert str(answer.status) in methods[method]["responses"], (path, method)
        other = server.ask(path, method="PUT")
        assert other.status == 405
        assert set(other.headers["allow"].replace("HEAD", "").split(", ")) - {""} <= {
            m.upper() for m in methods
        }


def test_metrics_count_requests_and_values(server: Server) -> None:
    server.read("total", user=["a", "nobody"])
    text = server.ask("/metrics").body.decode()
    assert 'fs_notebook_http_requests_total{path="/v1/features",status="200"}' in text
    assert 'fs_notebook_http_values_total{feature="total",status="not found"}' in text
    assert "fs_notebook_http_read_seconds_count" in text


def test_a_promotion_is_seen_at_the_next_read_by_all_who_ask(server: Server, redis: str) -> None:
    store = RedisStore(redis)
    sql = "SELECT user, SUM(readtime) AS x FROM read_events GROUP BY user"
    one = commit(store, "flips", plan_of(sql, "flips"), EVENTS)
    publish(store, one)
    asked = {"user": ["a"] * 50}
    assert server.read("x", **asked).json()["features"]["x"]["values"] == [42] * 50
    twice = plan_of(sql.replace("SUM(readtime)", "SUM(2 * readtime)"), "flips")
    two = commit(store, "flips", twice, EVENTS)
    with ThreadPoolExecutor(8) as pool:
        before = [pool.submit(server.read, "x", **asked) for _ in range(20)]
        publish(store, two, version=2)
        after = [pool.submit(server.read, ["x", "x@1"], **asked) for _ in range(20)]
        for found in before:
            (column,) = found.result().json()["features"].values()
            # Whichever it was, all of it is of one version.
            assert column["values"] == [42 * column["version"]] * 50
        for found in after:
            columns = found.result().json()["features"]
            assert columns["x"]["values"] == [84] * 50
            assert columns["x@1"]["values"] == [42] * 50
    store.close()


def test_a_deprecation_stands_beside_the_values_and_reads_are_noted(
    server: Server, redis: str
) -> None:
    store = RedisStore(redis)
    sql = "SELECT user, MAX(readtime) AS longest FROM read_events GROUP BY user"
    one = commit(store, "longest_read", plan_of(sql, "longest_read"), EVENTS)
    publish(store, one)
    assert "notices" not in server.read("longest", user=["a"]).json()
    publish(store, replace(one, notice="'longest_read' is deprecated: <b>bots</b>"))
    found = server.read(["longest", "total"], user=["a"]).json()
    assert found["notices"] == ["'longest_read' is deprecated: <b>bots</b>"]
    answer = told_schema(server)
    jsonschema.validate(found, answer)
    groups = ("reading", "types", "moments", "shares", "flips", "longest_read")
    # Whichever test read first: that was noted at once, all else within half a minute.
    until(lambda: any(uses_of(store, group) for group in groups), seconds_max=10)
    assert {use.kind for group in groups for use in uses_of(store, group)} == {"http"}
    store.close()


def told_schema(server: Server) -> dict[str, Any]:
    """Return the schema of an answer, as the server tells it."""
    told = server.ask("/openapi.json").json()
    return {"$ref": "#/components/schemas/Answer", "components": told["components"]}


def test_without_a_token_only_this_machine_is_answered(redis: str, tmp_path: Path) -> None:
    server = start(redis, tmp_path, token=None)
    assert server.read("total", user="a").status == 200
    # A page in a browser, by a name of its own that leads here.
    answer = server.ask("/v1/features", Host="rebound.example")
    assert (answer.status, answer.json()["found"]) == (403, "rebound.example")
    assert "securitySchemes" not in server.ask("/openapi.json").json()["components"]
    assert stop(server) == (0, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "some.name"])
def test_beyond_this_machine_it_listens_with_a_token_only(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, " ")
    place = Connection(tmp_path, "embedded:", f"redis://127.0.0.1:{free_port()}/0", None)
    with pytest.raises(UsageError, match=r"(?s)this machine only.*FS_NOTEBOOK_SERVE_TOKEN"):
        serve_http(place, host=host)


def test_a_place_that_is_taken_is_told(redis: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Connection(tmp_path, "embedded:", redis, None)
        with pytest.raises(UsageError, match=r"(?s)cannot listen at 127.0.0.1.*another --port"):
            serve_http(place, port=taken.getsockname()[1])


def test_a_store_that_goes_away_is_a_503_and_it_comes_back(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    store = RedisStore(own_redis.url)
    fill(store)
    server = start(own_redis.url, tmp_path)
    assert server.read("total", user="a").status == 200
    own_redis.kill()
    for answer in (server.read("total", user="a"), server.ask("/health")):
        assert answer.status == 503
        assert "does not answer" in answer.json()["message"]
    own_redis.start()
    assert server.ask("/health").status == 200
    assert server.read("total", user="a").json()["features"]["total"]["values"] == [42]
    assert stop(server) == (0, "")
    store.close()


def test_requests_under_way_are_answered_before_it_stops(redis: str, tmp_path: Path) -> None:
    server = start(redis, tmp_path)
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"features": ["n"], "entities": {"user": ["a"]}}).encode()
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(
            b"POST /v1/features HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/json\r\nAuthorization: Bearer " + TOKEN.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        )  # fmt: skip
        # It waits for the body: the request is under way.
        assert wire.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        wire.sendall(body)
        assert wire.recv(100).startswith(b"HTTP/1.1 200 ")
    assert stop(server) == (0, "")
