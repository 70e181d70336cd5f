"""How a Pulsar cluster is reached beyond its URL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from fs_notebook.environment import secret, setting
from fs_notebook.errors import UsageError


@dataclass(frozen=True)
class Access:
    """How the broker is reached beyond its URL: token and TLS files.

    `from_environment` reads FS_NOTEBOOK_PULSAR_TOKEN (the token, or where it is:
    `environment.secret`),
    FS_NOTEBOOK_PULSAR_TLS_CA, FS_NOTEBOOK_PULSAR_TLS_CERT and FS_NOTEBOOK_PULSAR_TLS_KEY; and for
    encrypted topics the key files FS_NOTEBOOK_PULSAR_PRIVATE_KEY, to read, and
    FS_NOTEBOOK_PULSAR_PUBLIC_KEY with its name FS_NOTEBOOK_PULSAR_KEY_NAME, to write.
    """

    token: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    private_key: str | None = None
    public_key: str | None = None
    key_name: str | None = None

    @classmethod
    def from_environment(cls) -> Access:
        def get(name: str) -> str | None:
            return setting(f"FS_NOTEBOOK_PULSAR_{name}")

        return cls(
            secret("FS_NOTEBOOK_PULSAR_TOKEN"), get("TLS_CA"), get("TLS_CERT"), get("TLS_KEY"),
            get("PRIVATE_KEY"), get("PUBLIC_KEY"), get("KEY_NAME"),
        )  # fmt: skip

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings for the admin interface."""
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            raise UsageError(
                "The TLS files for Pulsar cannot be read.",
                found=f"{self.tls_ca or self.tls_cert}: {error.strerror or error}",
                remedy="check FS_NOTEBOOK_PULSAR_TLS_CA, …_TLS_CERT and …_TLS_KEY",
            ) from None
        return context
