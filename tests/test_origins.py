"""Where a notebook lies: kept without anybody's home, found again by other people's servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from fs_notebook.origins import ROOT_VARIABLE, Origin


@pytest.fixture
def alice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Alice's home, with a clone of the team's repository in it."""
    home = tmp_path / "home" / "alice"
    _book(home / "work" / "team" / "nb" / "reads.ipynb")
    (home / "work" / "team" / ".git").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    return home


def _book(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


def test_a_notebook_of_a_repository_is_found_in_another_clone(alice: Path, tmp_path: Path) -> None:
    kept = Origin.of(str(alice / "work" / "team" / "nb" / "reads.ipynb"), root=str(alice / "work"))
    assert kept.to_dict() == {
        "name": "reads.ipynb", "served": "team/nb/reads.ipynb", "repository": "team",
        "within": "nb/reads.ipynb",
    }  # fmt: skip
    assert str(kept) == "nb/reads.ipynb in team"
    assert kept.below(str(alice / "work")) == "team/nb/reads.ipynb"
    bob = tmp_path / "home" / "bob" / "code" / "team"
    _book(bob / "nb" / "reads.ipynb")
    (bob / ".git").mkdir()
    read = Origin.read(kept.to_dict())
    assert read == kept
    found = {root: read.below(str(root)) for root in (bob, bob / "nb", bob.parent, tmp_path)}
    assert list(found.values()) == ["nb/reads.ipynb", "reads.ipynb", "team/nb/reads.ipynb", None]
    (bob / "nb" / "reads.ipynb").unlink()
    assert read.below(str(bob)) is None


def test_without_a_repository_it_is_the_path_on_the_server(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = _book(alice / "own" / "try.ipynb")
    assert Origin.of(str(book)).to_dict() == {"name": "try.ipynb"}
    monkeypatch.setenv(ROOT_VARIABLE, str(alice))
    kept = Origin.of(str(book))
    assert (kept.served, str(kept)) == ("own/try.ipynb", "own/try.ipynb")
    assert kept.below(str(alice)) == "own/try.ipynb"
    assert kept.below(str(alice / "work")) is None


@pytest.mark.parametrize("shown", ["..", "../..", "/"])
def test_nobodys_home_is_told(alice: Path, shown: str) -> None:
    kept = Origin.of(str(_book(alice / "own" / "try.ipynb")), root=str(alice / shown))
    assert kept == Origin("try.ipynb")


def test_a_link_does_not_hide_where_it_lies(alice: Path, tmp_path: Path) -> None:
    _book(alice / "own" / "try.ipynb")
    (tmp_path / "link").symlink_to(alice)
    kept = Origin.of(str(tmp_path / "link" / "own" / "try.ipynb"), root=str(alice))
    assert kept.served == "own/try.ipynb"


@pytest.mark.parametrize(
    "stored",
    [
        {"name": "x", "served": "../secret.ipynb"},
        {"name": "x", "served": "/etc/hostname"},
        {"name": "x", "repository": "..", "within": "secret.ipynb"},
        {"name": "x", "repository": "team", "within": "../../../secret.ipynb"},
        {"name": "x", "served": "a\0b"},
        {"name": "x", "path": "/etc/hostname"},
        {"name": "x", "served": ["a"]},
        "/etc/hostname",
    ],
)
def test_an_entry_leads_nowhere_else(stored: object, alice: Path) -> None:
    _book(alice / "secret.ipynb")
    origin = Origin.read(stored)
    assert origin is not None
    assert origin.below(str(alice / "work")) is None


@pytest.mark.parametrize("stored", [None, "", 7, {}, {"served": "a.ipynb"}, []])
def test_what_says_nothing_is_none(stored: object) -> None:
    assert Origin.read(stored) is None


def test_a_path_of_before_is_shown_by_its_name_alone() -> None:
    assert str(Origin.read("/home/alice/own/try.ipynb")) == "try.ipynb"
    assert str(Origin.read(r"C:\Users\alice\try.ipynb")) == "try.ipynb"
