"""Where a session's ledger and store are, handed to detached processes and found again."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from fs_notebook.compute.unions import UnionLog
from fs_notebook.errors import UsageError
from fs_notebook.log.connect import open_log
from fs_notebook.log.protocol import EventLog
from fs_notebook.online.connect import open_store
from fs_notebook.online.protocol import OnlineStore

CONNECTION_VARIABLE = "FS_NOTEBOOK_CONNECTION"
EMBEDDED = "embedded:"


def default_home() -> Path:
    """Return where the embedded ledger, Redis, caches and logs live.

    ``FS_NOTEBOOK_HOME`` moves it.
    """
    named = os.environ.get("FS_NOTEBOOK_HOME")
    if not named:
        # A twentieth of what a worker's start takes, and a worker is told its home.
        import platformdirs

        named = platformdirs.user_data_dir("fs_notebook")
    return Path(named).expanduser().absolute()


def default_actor() -> str:
    """Return the name that changes are recorded under."""
    try:
        return os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@dataclass(frozen=True)
class Connection:
    """The addresses of one ledger and one online store.

    Addresses may hold passwords: a connection is kept in a private file of the home and in the
    environment of the processes it starts, never on a command line or in the catalog.
    """

    home: Path
    log: str = EMBEDDED
    online: str = EMBEDDED
    admin: str | None = None

    @property
    def id(self) -> str:
        """Tells runners of different ledgers and stores apart, 12 hexadecimal digits."""
        text = json.dumps([str(self.home), self.log, self.online])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def open_log(self) -> EventLog:
        log = open_log(self.log, home=self.home, admin_url=self.admin)
        return cast(EventLog, UnionLog(log))

    def open_store(self) -> OnlineStore:
        return open_store(self.online, home=self.home)

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"home": str(self.home)})

    @classmethod
    def from_json(cls, text: str) -> Connection:
        data = json.loads(text)
        return cls(Path(data["home"]), data["log"], data["online"], data["admin"])

    def environment(self) -> Mapping[str, str]:
        """Return the environment that a process started for this connection gets."""
        return {
            **os.environ,
            "FS_NOTEBOOK_HOME": str(self.home),
            CONNECTION_VARIABLE: self.to_json(),
        }

    @classmethod
    def from_environment(cls) -> Connection:
        """Return the connection that `environment` handed over."""
        text = os.environ.get(CONNECTION_VARIABLE)
        if text is None:
            return cls.remembered(default_home())
        return cls.from_json(text)

    def remember(self) -> None:
        """Make this the connection that new sessions of the home use."""
        self.home.mkdir(parents=True, exist_ok=True)
        path = self.home / "connection.json"
        part = path.with_suffix(f".{os.getpid()}")
        part.touch(mode=0o600)
        part.write_text(self.to_json())
        part.replace(path)

    @classmethod
    def named(
        cls, home: Path, log: str | None, online: str | None, admin: str | None
    ) -> Connection:
        """Return the connection to these addresses, or where neither is said what `home` remembers.

        Of two addresses that one left out is the embedded one.
        """
        if not log and not online:
            return cls.remembered(home)
        return cls(home, log or EMBEDDED, online or EMBEDDED, admin or None)

    @classmethod
    def remembered(cls, home: Path) -> Connection:
        """Return the connection last remembered in `home`; the embedded one if there is none."""
        try:
            found = cls.from_json((home / "connection.json").read_text())
        except FileNotFoundError:
            return cls(home)
        except (ValueError, KeyError, OSError) as error:
            raise UsageError(
                "The remembered connection cannot be read.",
                found=f"{home / 'connection.json'}: {error}",
                remedy="connect again, saying where",
            ) from None
        return cls(home, found.log, found.online, found.admin)
