"""How a Redis is reached beyond its URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fs_notebook.environment import secret, setting
from fs_notebook.errors import UsageError


@dataclass(frozen=True)
class RedisAccess:
    """User, password and TLS files of a Redis, where its URL does not hold them.

    `from_environment` reads FS_NOTEBOOK_REDIS_USERNAME, FS_NOTEBOOK_REDIS_PASSWORD (the password,
    or where it is: `environment.secret`), FS_NOTEBOOK_REDIS_TLS_CA, FS_NOTEBOOK_REDIS_TLS_CERT and
    FS_NOTEBOOK_REDIS_TLS_KEY. A Redis on a Unix socket is asked without them.
    """

    username: str | None = None
    password: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    @classmethod
    def from_environment(cls) -> RedisAccess:
        def get(name: str) -> str | None:
            return setting(f"FS_NOTEBOOK_REDIS_{name}")

        return cls(
            get("USERNAME"), secret("FS_NOTEBOOK_REDIS_PASSWORD"), get("TLS_CA"), get("TLS_CERT"),
            get("TLS_KEY"),
        )  # fmt: skip

    def options(self, url: str) -> dict[str, Any]:
        """Return the options of a connection to `url`; what the URL itself says goes first.

        Raises
        ------
        UsageError
            If a TLS file is not there.
        """
        split = urlsplit(url)
        options: dict[str, Any] = {}
        if split.scheme == "unix":
            return options
        if self.password is not None and split.password is None:
            options["password"] = self.password
            if self.username is not None and not split.username:
                options["username"] = self.username
        if split.scheme.startswith("rediss"):
            for variable, name, path in (
                ("CA", "ssl_ca_certs", self.tls_ca),
                ("CERT", "ssl_certfile", self.tls_cert),
                ("KEY", "ssl_keyfile", self.tls_key),
            ):
                if path is None:
                    continue
                if not Path(path).is_file():
                    raise UsageError(
                        f"The file that FS_NOTEBOOK_REDIS_TLS_{variable} names is not there.",
                        found=path,
                    )
                options[name] = path
        return options
