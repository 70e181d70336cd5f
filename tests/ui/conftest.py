"""One Lab and one Chromium a module, one profile a test."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("harness")

from harness import ROOT, Chromium  # noqa: E402

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="session")
def bundle() -> None:
    """Build the extension if its sources changed, so that no test looks at a stale one."""
    there, line = runpy.run_path(str(ROOT / "labextension" / "build.py"))["ensure"]()
    assert there, line


# A module's and not a session's: while Playwright runs, nothing else in the process can run an
# event loop, and the tests of the server extension do.
@pytest.fixture(scope="module")
def _chromium(bundle: None) -> Iterator[Chromium]:
    with Chromium() as chromium:
        yield chromium


@pytest.fixture
def chromium(_chromium: Chromium) -> Iterator[Chromium]:
    yield _chromium
    _chromium.close_pages()
