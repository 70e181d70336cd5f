"""From a path, a folder or a glob to the files that it means."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from fs_notebook.errors import UsageError
from fs_notebook.files.readers import KINDS

_SHOWN_MAX = 5
_GLOB = frozenset("*?[")


def find_files(data: str | Path) -> list[Path]:
    """Return the files that a path, a folder or a glob means, in the order of their names.

    A folder means the files that lie in it, not those in folders below; ``data/**/*.csv`` means
    those too. Names that begin with ``.`` or ``_`` are passed over where a folder is meant.

    Raises
    ------
    UsageError
        If there are none, or if one of them is of a kind that cannot be read: leaving it out
        would leave its events out.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] not in "._")
        if not found:
            raise UsageError(
                f"The folder {_shown(path)!r} holds no files to upload.",
                found=_listed([p.name + "/" * p.is_dir() for p in sorted(path.iterdir())]),
                remedy=f"a folder of data files, or {_shown(path)}/**/*.parquet for folders below",
            )
        return _of_known_kinds(found, f"The folder {_shown(path)!r}", path)
    if not path.exists() and _GLOB & set(str(path)):
        matches = glob.glob(str(path), recursive=True)
        found = sorted(p for p in map(Path, matches) if p.is_file())
        if not found:
            above = next(p for p in path.parents if not _GLOB & set(str(p)))
            inside = sorted(above.iterdir()) if above.is_dir() else []
            raise UsageError(
                f"No file matches {_shown(path)!r}.",
                found=f"in {_shown(above)!r}: {_listed([p.name for p in inside])}",
                remedy="check the pattern",
            )
        return _of_known_kinds(found, f"What matches {_shown(path)!r}", path.parent)
    if path.suffix.lower() not in KINDS:
        raise UsageError(
            "This kind of file cannot be uploaded.",
            found=path.name,
            remedy=", ".join(sorted(KINDS)),
        )
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix.lower() in KINDS)
        raise UsageError(
            f"There is no file {path.name!r}.",
            found=f"in its folder: {', '.join(near[:_SHOWN_MAX]) or 'no data files'}",
            remedy="check the path",
        )
    return [path]


def _of_known_kinds(found: list[Path], what: str, folder: Path) -> list[Path]:
    others = [p.name for p in found if p.suffix.lower() not in KINDS]
    if others:
        known = sorted({p.suffix for p in found if p.suffix.lower() in KINDS})
        raise UsageError(
            f"{what} includes files that cannot be uploaded.",
            found=_listed(others),
            remedy=f"name the others by a pattern, e.g. {_shown(folder)}/*{known[0]}"
            if known
            else ", ".join(sorted(KINDS)),
        )
    return found


def _shown(path: Path) -> str:
    return path.as_posix()


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MAX
    return ", ".join(names[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "") or "nothing"
