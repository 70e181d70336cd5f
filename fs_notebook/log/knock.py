"""A knock at a broker's door: whether it answers, by TLS or not, and takes who asks.

The client tries again and again, and in the end says that nothing came in time, whatever the
reason was. So it is asked for beforehand, by the first exchange of Pulsar's protocol: one command
each way.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Sequence
from urllib.parse import urlsplit

from fs_notebook.errors import UnreachableError
from fs_notebook.log.access import Access

PORT, TLS_PORT = 6650, 6651
TOKEN_REMEDY = "set FS_NOTEBOOK_PULSAR_TOKEN to a token that is good at this broker"
CA_REMEDY = (
    "name the file of the authority that signed the certificate with FS_NOTEBOOK_PULSAR_TLS_CA"
)
_UP = "check the address and that the broker is up"

# Of Pulsar's commands: their numbers, and those of fields.
_CONNECT, _CONNECTED, _ERROR, _CHALLENGE = 2, 3, 14, 36
_VERSION, _DATA, _PROTOCOL, _METHOD = 1, 3, 4, 5
_AUTHENTICATION, _AUTHORIZATION = 3, 4
_PROTOCOL_VERSION = 19
_FRAME_BYTES_MAX = 2**20
_TLS_ALERT = 0x15

# Of OpenSSL's results of a verification.
_EXPIRED, _EARLY, _NAMES = 10, 9, (62, 64)


def knock(url: str, access: Access, *, timeout_s: float) -> None:
    """Return if one of the URL's hosts takes who asks, as `access` says.

    Raises
    ------
    UnreachableError
        If none does: nobody listens, a certificate does not hold, TLS is spoken where it should
        not be or the other way round, or the token is refused. The first reason that is more than
        silence is told.
    UsageError
        If the TLS files cannot be read.
    """
    split = urlsplit(url)
    tls = split.scheme == "pulsar+ssl"
    context = access.context() if tls else None
    silence: UnreachableError | None = None
    told: UnreachableError | None = None
    for place in split.netloc.rpartition("@")[2].split(","):
        try:
            host = urlsplit(f"//{place}")
            name, port = host.hostname or place, host.port or (TLS_PORT if tls else PORT)
            at = socket.create_connection((name, port), timeout=timeout_s)
        except (OSError, ValueError) as error:
            silence = silent(url, f"{place}: {error}")
            continue
        try:
            with at:
                _greet(url, at, name, context, access)
            return
        except UnreachableError as error:
            told = told or error
    raise told or silence or silent(url, "no host in it")


def silent(url: str, found: str) -> UnreachableError:
    """Return the error of a broker that does not answer."""
    return UnreachableError(f"The Pulsar broker at {url} does not answer.", found=found, remedy=_UP)


def refused(url: str, found: str, *, has_token: bool) -> UnreachableError:
    """Return the error of a broker that does not know who asks."""
    what = "refused the token" if has_token else "wants a token, and was given none"
    return UnreachableError(f"Pulsar at {url} {what}.", found=found, remedy=TOKEN_REMEDY)


def of_tls(url: str, error: ssl.SSLError) -> UnreachableError:
    """Return what a failed TLS handshake means: whose fault it was, and what to do."""
    said = f"The TLS connection to {url} failed: "
    if isinstance(error, ssl.SSLCertVerificationError):
        found = error.verify_message
        if error.verify_code in _NAMES:
            return UnreachableError(
                f"{said}its certificate is for another host name.", found=found,
                remedy="use the host name that the certificate names",
            )  # fmt: skip
        if error.verify_code in (_EXPIRED, _EARLY):
            what = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
            return UnreachableError(
                f"{said}its certificate {what}.", found=found,
                remedy="have the broker's certificate renewed; check this machine's clock",
            )  # fmt: skip
        return UnreachableError(
            f"{said}its certificate is signed by an unknown authority.", found=found,
            remedy=CA_REMEDY,
        )  # fmt: skip
    reason = str(error.reason or error)
    if "ALERT" in reason:
        return UnreachableError(
            f"{said}it refused this client.", found=reason.lower().replace("_", " "),
            remedy="name a certificate with FS_NOTEBOOK_PULSAR_TLS_CERT and …_TLS_KEY",
        )  # fmt: skip
    return _no_tls(url, reason.lower().replace("_", " "))


def _no_tls(url: str, found: str) -> UnreachableError:
    plain = url.replace("pulsar+ssl://", "pulsar://").replace("https://", "http://")
    return UnreachableError(
        f"There is no TLS at {url}.", found=found,
        remedy=f"its TLS port (6651 by default; 8443 of the admin interface), or {plain}",
    )  # fmt: skip


def only_tls(url: str) -> UnreachableError:
    """Return the error of a port that speaks TLS where none was spoken to it."""
    safe = url.replace("pulsar://", "pulsar+ssl://").replace("http://", "https://")
    return UnreachableError(
        f"There is nothing but TLS at {url}.", found="it answers in TLS", remedy=safe
    )


def _greet(
    url: str, at: socket.socket, name: str, context: ssl.SSLContext | None, access: Access
) -> None:
    peer = at.getpeername()[:2]
    try:
        if context is not None:
            try:
                at = context.wrap_socket(at, server_hostname=name)
            except (ssl.SSLEOFError, ConnectionError) as error:
                raise _no_tls(url, str(error)) from None
        with at:
            at.sendall(_hello(access))
            answer = _frame(at)
    except ssl.SSLError as error:
        raise of_tls(url, error) from None
    except OSError as error:
        raise silent(url, f"{name}: {error}") from None
    alert = answer[:1] == bytes([_TLS_ALERT])
    if alert or (context is None and not answer and _speaks_tls(peer)):
        raise only_tls(url)
    command = _fields(answer[8:])
    kind = command.get(1)
    if kind in (_CONNECTED, _CHALLENGE):
        return
    inside = command.get(_ERROR)
    if kind != _ERROR or not isinstance(inside, bytes):
        raise UnreachableError(
            f"What listens at {url} is no Pulsar broker.",
            found=f"it answers {answer[:20]!r}" if answer else "it ends the connection",
            remedy="use the broker's own port, 6650 or with TLS 6651 by default",
        )
    error_fields = _fields(inside)
    text = error_fields.get(3, b"")
    found = text.decode(errors="replace") if isinstance(text, bytes) else ""
    if error_fields.get(2) in (_AUTHENTICATION, _AUTHORIZATION):
        raise refused(url, found, has_token=bool(access.token))
    raise UnreachableError(f"Pulsar at {url} does not take connections.", found=found, remedy=_UP)


def _speaks_tls(peer: tuple[str, int]) -> bool:
    """Tell whether a port shakes hands in TLS, with whatever certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(peer, timeout=1) as at, context.wrap_socket(at):
            return True
    except OSError:
        return False


def _hello(access: Access) -> bytes:
    """Return the command CONNECT, framed."""
    parts = [_bytes(_VERSION, b"fs_notebook")]
    if access.token:
        parts.append(_bytes(_DATA, access.token.encode()))
    parts.append(bytes([_PROTOCOL << 3, _PROTOCOL_VERSION]))
    if access.token or access.tls_cert:
        parts.append(_bytes(_METHOD, b"token" if access.token else b"tls"))
    command = bytes([1 << 3, _CONNECT]) + _bytes(_CONNECT, b"".join(parts))
    return struct.pack(">II", len(command) + 4, len(command)) + command


def _frame(at: socket.socket) -> bytes:
    """Return the answer: a frame, or whatever else came if that is none."""
    got = b""
    wanted = 8
    while len(got) < wanted:
        part = at.recv(wanted - len(got))
        if not part:
            break
        got += part
        if len(got) >= 8:
            total, size = struct.unpack(">II", got[:8])
            if total != size + 4 or size > _FRAME_BYTES_MAX:
                break
            wanted = 8 + size
    return got


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(data: Sequence[int]) -> dict[int, int | bytes]:
    """Return the fields of a Protobuf message; those before it breaks off, if it does."""
    found: dict[int, int | bytes] = {}
    rest = bytes(data)
    try:
        while rest:
            key, rest = _taken(rest)
            value, rest = _taken(rest)
            if key & 7 == 0:
                found[key >> 3] = value
            elif key & 7 == 2:
                found[key >> 3], rest = rest[:value], rest[value:]
            else:
                break
    except IndexError:
        pass
    return found


def _taken(data: bytes) -> tuple[int, bytes]:
    value = shift = at = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, data[at + 1 :]
