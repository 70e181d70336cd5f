"""Where a notebook lies, in words that mean something to somebody else than its author.

The catalog is shared: a path of one machine helps nobody else, and tells where its author lives.
So what is kept is where the notebook lies in its git repository, and below the directory that its
Jupyter server shows; of anything else the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from fs_notebook.environment import setting

ROOT_VARIABLE = "FS_NOTEBOOK_JUPYTER_ROOT"
"""How the server's extension tells its kernels which directory the server shows."""
_PARTS_MAX = 64


@dataclass(frozen=True)
class Origin:
    """Where a definition's notebook lay.

    Attributes
    ----------
    name
        The file's name.
    served
        Its path below the directory that its Jupyter server showed, if it lay there.
    repository, within
        The name of the directory of its git repository, and its path there, if it had one.
    path
        The whole path, of entries that were written before there were the others.
    """

    name: str
    served: str | None = None
    repository: str | None = None
    within: str | None = None
    path: str | None = None

    @classmethod
    def of(cls, notebook: str, *, root: str | None = None) -> Self:
        """Return that of a notebook on this machine.

        Parameters
        ----------
        notebook
            Its path.
        root
            The directory that the Jupyter server shows; default: as the server's extension says.
        """
        path = Path(notebook).absolute()
        shown = root or setting(ROOT_VARIABLE)
        served = None if shown is None else _below(path, Path(shown).expanduser())
        for folder in list(path.parents)[:_PARTS_MAX]:
            # In a work tree beside the repository it is a file.
            if (folder / ".git").exists():
                within = path.relative_to(folder).as_posix()
                return cls(path.name, _without_home(served, shown), folder.name, within)
        return cls(path.name, _without_home(served, shown))

    @classmethod
    def read(cls, stored: object) -> Self | None:
        """Return what an event of the catalog says; None if that is nothing."""
        if isinstance(stored, str) and stored:
            return cls(PurePosixPath(stored.replace("\\", "/")).name, path=stored)
        if not isinstance(stored, Mapping):
            return None
        known = {n: stored.get(n) for n in ("name", "served", "repository", "within", "path")}
        given: dict[str, Any] = {n: v for n, v in known.items() if isinstance(v, str) and v}
        return cls(**given) if "name" in given else None

    def to_dict(self) -> dict[str, str]:
        """Return what is known of it, fit for `json.dumps`."""
        return {n: v for n, v in vars(self).items() if v is not None}

    def __str__(self) -> str:
        if self.repository is not None:
            return f"{self.within} in {self.repository}"
        return self.served or self.name

    def below(self, root: str) -> str | None:
        """Return its path below the directory that a Jupyter server shows, if it lies there.

        Another server may show more or less of the same files, or another clone of the repository.
        """
        shown = Path(root).expanduser()
        for path in self._places(shown):
            found = _below(path, shown)
            if found is not None and path.is_file():
                return found
        return None

    def _places(self, root: Path) -> Iterator[Path]:
        if self.path is not None:
            yield Path(self.path)
        if self.repository is not None and self.within is not None:
            # The server shows the repository, something in it, or something around it.
            for folder in [root.resolve(), *list(root.resolve().parents)[:_PARTS_MAX]]:
                if folder.name == self.repository and (folder / ".git").exists():
                    yield folder / self.within
            yield root / self.repository / self.within
        if self.served is not None:
            yield root / self.served


def _below(path: Path, root: Path) -> str | None:
    """Return a path below a directory, whatever links lead there; None if it is elsewhere."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except (ValueError, OSError):
        return None


def _without_home(served: str | None, root: str | None) -> str | None:
    """Leave out a path that leads through somebody's home: that of a server that shows them all."""
    if served is None or root is None:
        return served
    try:
        home = Path.home().resolve()
    except (RuntimeError, OSError):
        return None
    shown = Path(root).expanduser().resolve()
    return None if home != shown and home.is_relative_to(shown) else served
