"""How uploads and streams look in a notebook: what is told, and nothing of the data rendered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from fs_notebook.inspection import Description, Peek
from fs_notebook.jupyter.streams import DescriptionCard, PeekTable, UploadCard
from fs_notebook.log.facts import Facts
from fs_notebook.log.protocol import Stream
from fs_notebook.position import START
from fs_notebook.types import Type
from fs_notebook.views import Uploaded


def test_an_upload_shows_what_was_skipped() -> None:
    done = Uploaded("reads", 5, 2.0, "0:0:14:0", False, known=7, id="event<id>")
    page = UploadCard(done).html()
    assert "<dt>skipped: event&lt;id&gt; known</dt><dd>7</dd>" in page
    assert "<dt>events appended</dt><dd>5</dd>" in page
    assert repr(UploadCard(done)) == repr(done)
    assert "7 whose event<id> was there already were skipped" in repr(done)


def test_an_upload_proposes_a_key_and_the_line_that_declares_it() -> None:
    done = Uploaded("my reads", 5, 2.0, "0:0:14:0", True, key="user<b>")
    page = UploadCard(done).html()
    assert "No key is declared. If events are of a user&lt;b&gt;: <code" in page
    assert "%feature declare &#x27;my reads&#x27; --key &#x27;user&lt;b&gt;&#x27;</code>" in page
    assert "fs.declare('my reads', key='user<b>')" in repr(done)
    assert "key" not in UploadCard(replace(done, key=None)).html().partition("</style>")[2]


def test_an_upload_of_files_shows_how_many_were_new() -> None:
    before = datetime(2024, 1, 2, tzinfo=UTC)
    done = Uploaded(
        "reads", 0, 0.0, "0:0:9:0", False, repeated=10, before=before, files=3, files_repeated=3
    )
    page = UploadCard(done).html()
    assert "<dd>3, 3 uploaded before</dd>" in page
    assert "<dd>2024-01-02 00:00:00</dd>" in page
    assert "--again" in page
    assert "skipped" not in page


def test_a_peek_and_a_description_render_nothing_of_the_data() -> None:
    """FAULTS 36."""
    stream = Stream("reads", (("<b>", Type.VARCHAR), ("time", Type.TIMESTAMP)), time="time")
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    events = pl.DataFrame(
        {"position": ["0:0:1:0"], "published": [moment], "time": [moment], "<b>": ["<script>"],
         "__time": [moment]}
    )  # fmt: skip
    page = PeekTable(Peek(stream, events, 3, "the first 1 events")).html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "TIMESTAMP, event time" in page
    assert "3 more could not be decoded" in page
    told = Description(
        stream, Facts(events=5, kept="for ever"), START, moment, moment, None, 5, 1, "<i>no</i>"
    )
    page = DescriptionCard(told).html()
    assert "<dt>dead letters</dt><dd>1 of 5 sampled, e.g. &lt;i&gt;no&lt;/i&gt;</dd>" in page
    assert "&lt;b&gt;" in page
    assert repr(DescriptionCard(told)) == repr(told)
