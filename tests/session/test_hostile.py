"""FAULTS 36: what people write stays text in every display of lifts, sets, models, training sets.

Names that are names are refused otherwise; everything else (descriptions, owners, actors, labels'
columns and values, features' names and values) is shown, and neither executed, nor rendered, nor
let steer a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from fs_notebook.errors import FeatureStoreError, UsageError
from fs_notebook.jupyter.catalogued import about_html, found_html, lineage_html
from fs_notebook.jupyter.display import preview_html
from fs_notebook.jupyter.served import vector_html
from fs_notebook.model.chart import svg_of
from fs_notebook.session import Session
from fs_notebook.worker.connection import Connection
from tests.jupyter.test_display import Page
from tests.support.sessions import BEGIN, stop_all

pytestmark = pytest.mark.timeout(120)

TEXTS = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "attribute": '" onmouseover="alert(1)" x=\'y\' --></svg></title><h1>',
    "markdown": "[x](javascript:alert(1)) **b** `c` | d\n# heading\n\n---",
    "sql": "'; DROP TABLE reads; -- \" \\ %s {{x}} ${y} $\\alpha$",
    "path": "../../../etc/passwd\0\\..\\.. ~root file:///etc",
    "steering": "\x1b[31mred\x1b[0m\x07 \u202eturned\u2028next\r\nnew line",
}
DANGEROUS = frozenset({"script", "img", "iframe", "object", "embed", "link", "h1", "a", "form"})
ROWS = 260


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    place = Connection(tmp_path_factory.mktemp("hostile") / "home")
    session = Session(place, actor="tester")
    session.upload(reads("x"), "read_events", time="ts")
    session.define("reading", "SELECT user, SUM(readtime) AS total FROM read_events GROUP BY user")
    session.promote("reading")
    yield session
    session.close()
    stop_all(place)


def reads(genre: str) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    n = np.arange(ROWS)
    return pl.DataFrame({
        "user": [f"u{i % 20}" for i in n], "readtime": rng.integers(0, 50, ROWS),
        "genre": [genre if i % 2 else "sport" for i in n],
        "ts": [BEGIN + timedelta(minutes=int(i)) for i in n],
    })  # fmt: skip


def labels(said: str) -> pl.DataFrame:
    """Return labels whose columns and values are hostile, all but the key."""
    rng, column = np.random.default_rng(4), said.replace("\0", "")
    n = np.arange(ROWS)
    return pl.DataFrame({
        "user": [f"u{i % 20}" for i in n],
        f"at {column}": [BEGIN + timedelta(minutes=int(i) + 30) for i in n],
        f"base {column}": rng.normal(size=ROWS),
        f"clicked {column}": [said if rng.random() < 0.5 else "no" for _ in n],
    })  # fmt: skip


def is_harmless(html: str) -> None:
    """Fail if something that was written became an element, an attribute or a link."""
    page = Page(html)
    for name, attributes in page.elements:
        assert name not in DANGEROUS, (name, attributes)
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, attributes)
            assert key not in ("src", "href", "xlink:href") or name in ("use", "clippath"), name
            assert "javascript:" not in (value or "") or key == "aria-label", (key, value)
    steering = re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2028\u2029]", html)
    assert steering is None, repr(html[steering.start() - 40 : steering.end() + 40])


def is_plain(text: str, said: str) -> None:
    """Fail if a text can steer a terminal, or begin a line of its own."""
    assert all(c.isprintable() or c == "\n" for c in text), repr(text)
    later = [line for line in said.splitlines()[1:] if line.strip()]
    assert not any(line.startswith(tuple(later)) for line in text.split("\n") if later)


def shown(session: Session, said: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield every object that shows what was said, with its name."""
    name = next(name for name, text in TEXTS.items() if text == said)
    session.catalog.actor = said
    session.upload(reads(said), f"{name}_events", time="ts")
    session.edit(f"{name}_events", description=said, owner=said)
    column = said.replace("\0", "")
    genre, target, frame = f"genre_{name}", f"clicked {column}", labels(said)
    sql = f"SELECT user, LAST(genre) AS {genre} FROM {name}_events GROUP BY user"
    session.define(f"odd_{name}", sql, owner=said, description=said)
    yield "preview", session.preview(f"odd_{name}")
    session.create_view(f"view_{name}", f"SELECT user, genre, ts FROM {name}_events")
    yield "view", session.view_rows(f"view_{name}")
    yield "backfill", session.backfill(f"odd_{name}")
    session.promote(f"odd_{name}")
    yield "served", session.serve(genre, user=["u0", "u1"])
    wanted = ["total", genre]
    training = session.training_set(frame, wanted)
    yield "training set", training
    yield "written", session.training_set(frame, wanted, out=folder / f"{name}.parquet")
    session.save_training_set(training, name)
    session.edit(name, description=said, owner=said, kind="training set")
    yield "saved", next(s for s in session.training_sets() if s.name == name)
    yield "pieces", training.to_parquet(folder / f"{name}_pieces", rows=100)
    yield "feature set", session.feature_set(name, ["total"], description=said, owner=said)
    session.register_model(f"m-{name}", set=name, training_set=name, description=said, owner=said)
    yield "model", session.registered_model(f"m-{name}")
    options: dict[str, Any] = {"baseline": [f"base {column}"], "model": LogisticRegression(),
                               "bootstraps": 50}  # fmt: skip
    yield "lift", session.lift("total", frame, target, **options)
    yield "lifts", session.lift(["total", wanted[-1]], frame, target, **options)
    for kind, thing in (("training set", name), ("feature set", name), ("model", f"m-{name}"),
                        ("group", f"odd_{name}"), ("group", "reading")):  # fmt: skip
        yield f"about {kind}", session.about(thing, kind=kind)
        yield f"lineage {kind}", session.lineage(thing)
    yield "found", session.search(name)
    yield "stream", session.about(f"{name}_events")
    yield "search of it", session.search("".join(c for c in said if c.isalnum() or c == " "))


HTML: dict[str, Any] = {
    "About": about_html, "Lineage": lineage_html, "Found": found_html, "Preview": preview_html,
    "FeatureVector": vector_html,
}  # fmt: skip


@pytest.mark.parametrize("said", TEXTS.values(), ids=TEXTS)
def test_fault_36_what_people_write_stays_text(store: Session, said: str, tmp_path: Path) -> None:
    seen = set()
    for what, thing in shown(store, said, tmp_path):
        seen.add(what)
        draw = HTML.get(type(thing).__name__)
        if draw is not None or hasattr(thing, "_repr_html_"):
            is_harmless(draw(thing) if draw is not None else thing._repr_html_())
        assert not hasattr(thing, "_repr_markdown_"), "markdown would be rendered"
        is_plain(repr(thing), said)
        if hasattr(thing, "specs"):
            for spec in thing.specs().values():
                is_harmless(svg_of(spec))
                assert json.loads(json.dumps(spec)) == spec
            assert svg_of(thing.chart()) == svg_of(thing.spec())
    assert {"lift", "lifts", "training set", "model", "feature set"} <= seen


def test_fault_36_a_column_whose_name_arrow_cannot_say_is_refused(store: Session) -> None:
    frame = labels("x").rename({"base x": "base\0x"})
    with pytest.raises(UsageError, match="a NUL in their names"):
        store.training_set(frame, "total")


@pytest.mark.parametrize("said", TEXTS.values(), ids=TEXTS)
def test_fault_36_a_name_is_a_name(store: Session, said: str) -> None:
    alias = said.replace('"', '""')
    refused = [
        lambda: store.feature_set(said, ["total"]),
        lambda: store.register_model(said, set=None),
        lambda: store.training_set(labels("x"), "total", name=said),
        lambda: store.rename_training_set("nothing", said),
        lambda: store.define(
            said, "SELECT user, SUM(readtime) AS s FROM read_events GROUP BY user"
        ),
        lambda: store.define(
            "aliased", f'SELECT user, SUM(readtime) AS "{alias}" FROM read_events GROUP BY user'
        ),
        lambda: store.create_view(said, "SELECT user, ts FROM read_events"),
        lambda: store.upload(reads("x"), said, time="ts"),
    ]
    before = store.catalog.refresh().events
    for attempt in refused:
        with pytest.raises(UsageError) as caught:
            attempt()
        assert isinstance(caught.value, FeatureStoreError)
    assert store.catalog.refresh().events == before
