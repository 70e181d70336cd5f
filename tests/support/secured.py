"""A broker that takes nothing but TLS and tokens, and moves old ledgers to an S3 store.

It is one for a module's tests: it is slow to start, and has its own certificates and secrets. The
S3 store is a server in this process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fs_notebook.log.access import Access
from tests.support.broker import Broker, free_ports, offloaders, start, stop
from tests.support.certificates import certify

BUCKET = "ledgers"
REGION = "us-east-1"
KEYS = {"ACCESS_KEY_ID": "testing", "ACCESS_KEY_SECRET": "testing"}
ADMIN = "admin"


@dataclass(frozen=True)
class Secured:
    """The broker, who may use it, and where its old ledgers go."""

    broker: Broker
    access: Access
    stranger: str
    """A token that somebody else's secret signed."""
    visitor: str
    """A good token of somebody who may do nothing."""
    store_url: str

    def stored(self) -> list[str]:
        """Return the names of the objects in the S3 store."""
        client = boto3.client(
            "s3",
            endpoint_url=self.store_url,
            region_name=REGION,
            aws_access_key_id=KEYS["ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["ACCESS_KEY_SECRET"],
        )
        try:
            return [o["Key"] for o in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        finally:
            client.close()


def token(secret: bytes, subject: str) -> str:
    """Return a JSON web token for `subject`, signed with HMAC and SHA-256."""

    def text(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": subject}]
    signed = ".".join(text(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{text(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """Start the broker and the store; both end with the module's tests."""
    folder = Path(tempfile.mkdtemp(prefix="fs-notebook-secured-"))
    service, web, store_port = free_ports(3)
    # Else the store's recorder writes into the working directory.
    patch = pytest.MonkeyPatch()
    patch.setenv("MOTO_RECORDER_FILEPATH", str(folder / "recording"))
    store = ThreadedMotoServer("127.0.0.1", store_port, verbose=False)
    store.start()
    process = None
    try:
        files = certify(folder, "localhost")
        secret = secrets.token_bytes(32)
        (folder / "secret").write_bytes(secret)
        good = token(secret, ADMIN)
        broker = Broker(
            f"pulsar+ssl://localhost:{service}", f"https://localhost:{web}", good, files["ca"]
        )
        made = Secured(
            broker,
            Access(token=good, tls_ca=str(files["ca"])),
            token(secrets.token_bytes(32), ADMIN),
            token(secret, "visitor"),
            f"http://127.0.0.1:{store_port}",
        )
        boto3.client(
            "s3",
            endpoint_url=made.store_url,
            region_name=REGION,
            aws_access_key_id=KEYS["ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["ACCESS_KEY_SECRET"],
        ).create_bucket(Bucket=BUCKET)
        settings = _locked(files, good, folder / "secret", service, web) | _tiered(made.store_url)
        process, _ = start(folder / "broker", settings=settings, given=KEYS, broker=broker)
        yield made
    finally:
        if process is not None:
            stop(process)
        store.stop()
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def _locked(
    files: dict[str, Path], good: str, secret: Path, service: int, web: int
) -> dict[str, str]:
    """Return the settings of a broker that has no port without TLS, and knows its own tokens."""
    return {
        "advertisedAddress": "localhost",
        "brokerServicePort": "",
        "webServicePort": "",
        "brokerServicePortTls": str(service),
        "webServicePortTls": str(web),
        "tlsCertificateFilePath": str(files["broker"]),
        "tlsKeyFilePath": str(files["broker-key"]),
        "tlsTrustCertsFilePath": str(files["ca"]),
        "brokerClientTlsEnabled": "true",
        "brokerClientTrustCertsFilePath": str(files["ca"]),
        "authenticationEnabled": "true",
        "authenticationProviders": (
            "org.apache.pulsar.broker.authentication.AuthenticationProviderToken"
        ),
        "tokenSecretKey": f"file://{secret}",
        "authorizationEnabled": "true",
        "superUserRoles": ADMIN,
        "brokerClientAuthenticationPlugin": (
            "org.apache.pulsar.client.impl.auth.AuthenticationToken"
        ),
        "brokerClientAuthenticationParameters": f"token:{good}",
    }


def _tiered(store_url: str) -> dict[str, str]:
    """Return the settings of a broker with small ledgers that go to the store when it is asked."""
    return {
        "managedLedgerOffloadDriver": "S3",
        "offloadersDirectory": str(offloaders()),
        "managedLedgerOffloadBucket": BUCKET,
        "managedLedgerOffloadRegion": REGION,
        "managedLedgerOffloadServiceEndpoint": store_url,
        "managedLedgerOffloadDeletionLagMs": "0",
        "managedLedgerMaxEntriesPerLedger": "10",
        # A read from the store that failed is tried again at once; a broker waits 15 s otherwise.
        "dispatcherReadFailureBackoffInitialTimeInMs": "500",
    }
