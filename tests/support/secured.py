"""A broker that takes nothing but TLS and tokens, and moves old ledgers to an S3 store.

It is one for a module's tests: it is slow to start, and has its own certificates and secrets. The
S3 store is a server in this process.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from fs_notebook.log.access import Access
from tests.support.broker import Broker, free_ports, offloaders, start, stop

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


def certify(folder: Path, host: str, *, days: int = 7) -> dict[str, Path]:
    """Write an authority, and a certificate of its for `host`; return where each file is.

    The certificates hold for `days` from now on.
    """
    now = datetime.datetime.now(datetime.UTC)
    files = {}

    def write(name: str, key: ec.EllipticCurvePrivateKey, made: x509.Certificate) -> None:
        files[name] = folder / f"{name}.pem"
        files[name].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files[f"{name}-key"] = folder / f"{name}-key.pem"
        files[f"{name}-key"].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def begun(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("test authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    authority = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        begun("test authority", authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority, hashes.SHA256())
    )
    write("ca", authority, root)
    mine = ec.generate_private_key(ec.SECP256R1())
    signer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    leaf = (
        begun(host, mine)
        .add_extension(x509.SubjectAlternativeName([_name_of(host)]), critical=False)
        .add_extension(signer, critical=False)
        .sign(authority, hashes.SHA256())
    )
    write("broker", mine, leaf)
    return files


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


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
    }
