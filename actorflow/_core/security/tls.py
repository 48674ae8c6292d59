"""TLS 1.3 between hosts, with the cluster's own authority, and what TLS knows of a connection for the challenge inside it.

TL-1: TLS 1.3 or nothing, no resumption, and a certificate that our authority did not sign ends the connection.
TL-2: host names are not looked at: addresses of nodes change, and anybody's name may be forged. What a certificate is worth here is in
      `roles`, and that it is the certificate of this very connection is in the challenge.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from actorflow._core.security.challenge import NO_CERTIFICATE, Binding
from actorflow._core.security.errors import Code, CredentialError, HandshakeRefused, refused
from actorflow._core.security.keys import NeverPickled
from actorflow._core.security.roles import URI_SCHEME

_NOT_YET_VALID, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_CLOCK_ADVICE = "compare the clocks of both hosts (for instance with NTP); if they agree, it was not renewed in time: join again"


def fingerprint_of(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER form: what both sides put into the challenge."""
    return hashlib.sha256(certificate).digest()


def show_fingerprint(fingerprint: bytes) -> str:
    """A fingerprint for people: the form that other tools print."""
    return fingerprint.hex(":").upper()


@dataclass(frozen=True, slots=True)
class Credentials(NeverPickled):
    """A process's certificate with its key, and the authorities it trusts, all PEM. More than one authority may be in the text."""

    authorities: bytes
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class TlsSide:
    """A context, and the fingerprint of the certificate that it shows. Make a new one to renew; open connections keep theirs."""

    context: ssl.SSLContext
    fingerprint: bytes


def server_side(credentials: Credentials) -> TlsSide:
    """For accepting. The peer may show no certificate (a driver, a node that joins), but no wrong one. Raises CredentialError."""
    if not credentials.certificate:
        raise ValueError("whoever accepts TLS needs a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return _finish(context, credentials)


def client_side(credentials: Credentials) -> TlsSide:
    """For connecting, with or without a certificate of its own. Raises CredentialError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return _finish(context, credentials)


def authorities_of_token(authority: bytes) -> bytes:
    """The certificate (DER) in a token as `Credentials` want it. Raises CredentialError."""
    pem = ssl.DER_cert_to_PEM_cert(authority).encode()
    with _explained("the certificate in the token"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode())
    return pem


def binding_of(connection: ssl.SSLObject | ssl.SSLSocket, side: TlsSide) -> Binding:
    """What the challenge has to know of a connection whose TLS handshake is done. Raises HandshakeRefused."""
    if connection.version() != "TLSv1.3":
        raise refused(Code.MALFORMED, f"the connection speaks {connection.version()}, not TLSv1.3")
    shown = connection.getpeercert(binary_form=True)
    peer = fingerprint_of(shown) if shown else NO_CERTIFICATE
    return Binding(True, side.fingerprint, peer, names_in(connection.getpeercert()))


def names_in(certificate: object) -> frozenset[str]:
    """The names of ours in what `getpeercert()` gave of a verified certificate."""
    alternatives = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return frozenset(value[len(URI_SCHEME) :] for kind, value in alternatives if kind == "URI" and value.startswith(URI_SCHEME))


def tls_failure(error: ssl.SSLError | OSError) -> HandshakeRefused:
    """Why the TLS handshake failed, and what to do about it."""
    reason = (getattr(error, "reason", None) or "").upper()
    verify_code = getattr(error, "verify_code", 0)
    if verify_code in (_NOT_YET_VALID, _EXPIRED):
        when = "is not valid yet" if verify_code == _NOT_YET_VALID else "has expired"
        return refused(Code.CLOCK, f"the other side's certificate {when}: {_CLOCK_ADVICE}")
    if "CERTIFICATE_EXPIRED" in reason:
        return refused(Code.CLOCK, f"the other side says that our certificate has expired: {_CLOCK_ADVICE}")
    if "UNKNOWN_CA" in reason or verify_code:
        whose = "our" if "ALERT" in reason else "the other side's"
        why = "that is another cluster, or somebody is in between"
        return refused(Code.NOT_ADMITTED, f"{whose} certificate is not of this cluster's authority: {why}")
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return refused(Code.MALFORMED, "what the other side sent is not TLS")
    if "PROTOCOL_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason or "NO_PROTOCOLS" in reason:
        return refused(Code.MALFORMED, "the other side does not speak TLS 1.3")
    return refused(Code.MALFORMED, f"TLS failed: {error}")


def _finish(context: ssl.SSLContext, credentials: Credentials) -> TlsSide:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with _explained("the certificate of the cluster's authority"):
        context.load_verify_locations(cadata=credentials.authorities.decode("ascii"))
    if not credentials.certificate:
        return TlsSide(context, NO_CERTIFICATE)
    with _explained("the certificate of this process"):
        fingerprint = _fingerprint_of_first(credentials.certificate)
        with _readable(credentials.certificate + credentials.key) as path:
            context.load_cert_chain(path)
    return TlsSide(context, fingerprint)


def _fingerprint_of_first(certificates: bytes) -> bytes:
    """Of the first certificate in a PEM text: the one that is shown. Those that follow are its chain."""
    first, mark, _ = certificates.decode("ascii").partition(ssl.PEM_FOOTER)
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(first + mark))


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[str]:
    """A path under which `data` can be read for a moment: the module ssl takes keys from files only. In memory where that is possible."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("actorflow-certificate")
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{fd}"
        return
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pem")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        yield path


@contextlib.contextmanager
def _explained(which: str) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, ValueError) as error:
        advice = "join again, or restore the file it came from"
        raise CredentialError.explain(which=which, what="cannot be used", why=str(error), next_step=advice) from error
