"""How uploads and streams look in a notebook: what is told, and nothing of the data rendered."""

from __future__ import annotations

from datetime import UTC, datetime

from fs_notebook.jupyter.streams import UploadCard
from fs_notebook.views import Uploaded


def test_an_upload_shows_what_was_skipped() -> None:
    done = Uploaded("reads", 5, 2.0, "0:0:14:0", False, known=7, id="event<id>")
    page = UploadCard(done).html()
    assert "<dt>skipped: event&lt;id&gt; known</dt><dd>7</dd>" in page
    assert "<dt>events appended</dt><dd>5</dd>" in page
    assert repr(UploadCard(done)) == repr(done)
    assert "7 whose event<id> was there already were skipped" in repr(done)


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
