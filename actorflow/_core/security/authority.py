"""The cluster's own small certificate authority. No I/O: certificates, keys and requests are bytes in PEM form.

The head makes the authority when the cluster is created and keeps its key. Whoever joins makes a key that never leaves it, and sends a
request; the head signs, with the names that it has admitted the joiner under. Nothing that the request says of itself is used but its key.

CA-1: a certificate names what the head wrote into it: `node/<process id>`, `head/<process id>` or `job/<job id>`.
CA-2: certificates of processes are short-lived, and begin in the past by the clock skew that is tolerated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import KEY_BYTES, NeverPickled, derive, is_name
from actorflow._core.security.preface import CLOCK_SKEW_S_MAX
from actorflow._core.security.roles import URI_SCHEME

CERTIFICATE_VALID_S = 24 * 3600.0
AUTHORITY_VALID_S = 10 * 365 * 24 * 3600.0
RENEW_AFTER = 2 / 3
"""The part of its life after which a certificate is to be renewed: a head may be away for the rest."""
REQUEST_BYTES_MAX = 4096
NAMES_MAX = 8


def new_request() -> tuple[bytes, bytes]:
    """Make a key, and a request for a certificate of it: (private key, request), both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _key_pem(key), request.public_bytes(serialization.Encoding.PEM)


def renew_at(certificate: bytes) -> float:
    """The wall time at which a certificate (PEM) is to be renewed."""
    parsed = x509.load_pem_x509_certificate(certificate)
    begin, end = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    return begin + (end - begin) * RENEW_AFTER


def ends_at(certificate: bytes) -> float:
    """The wall time at which a certificate (PEM) is no good any more."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class Authority(NeverPickled):
    """The authority with its key: only the head has one."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, cluster_id: str, *, wall_time: float, valid_s: float = AUTHORITY_VALID_S) -> Authority:
        """Make the authority of a new cluster."""
        key = ec.generate_private_key(ec.SECP256R1())
        public, name = key.public_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"actorflow {cluster_id}")])
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        builder = _builder(name, name, public, wall_time, wall_time + valid_s)
        for extension, critical in (
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_key_usage(signs_certificates=True), True),
            (identifier, False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        ):
            builder = builder.add_extension(extension, critical)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes, where: str) -> Authority:
        """From what `certificate_pem` and `key_pem` gave. Raises CredentialError."""
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _broken(where, f"it cannot be read ({error})") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != parsed.public_key():
            raise _broken(where, "its key belongs to another certificate")
        return cls(parsed, private)

    def certificate_pem(self) -> bytes:
        """The certificate: everybody in the cluster has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def certificate_der(self) -> bytes:
        """The certificate as it is in a token."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def key_pem(self) -> bytes:
        """The key, for a private file of the head and nothing else."""
        return _key_pem(self._key)

    def state_key(self) -> bytes:
        """A key for what the head keeps outside of its machine (see seal). It tells nothing of the authority's own."""
        return derive(self._key.private_numbers().private_value.to_bytes(KEY_BYTES, "big"), b"actorflow 1 state of the head")

    def issue(self, request: bytes, names: Iterable[str], *, wall_time: float, valid_s: float = CERTIFICATE_VALID_S) -> bytes:
        """Sign a certificate (PEM) for the key in `request`, under `names` (see roles). Raises CredentialError."""
        known = list(names)
        if not 0 < len(known) <= NAMES_MAX or not all(name and is_name(name) for name in known):
            raise ValueError(f"a certificate has 1 to {NAMES_MAX} names of printable ASCII, not {known}")
        public = _requested_key(request)
        authority_end = self.certificate.not_valid_after_utc.timestamp()
        if wall_time >= authority_end:
            which, why = "the authority of the cluster", f"it ended on {_date(authority_end)}"
            raise CredentialError.explain(which=which, what="cannot sign", why=why, next_step="create a new cluster")
        builder = _builder(x509.Name([]), self.certificate.subject, public, wall_time, min(wall_time + valid_s, authority_end))
        uris = [x509.UniformResourceIdentifier(URI_SCHEME + name) for name in known]
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            # Without a subject the names must be understood (RFC 5280, 4.2.1.6).
            (x509.SubjectAlternativeName(uris), True),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        ):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a request whose sender has shown that it holds it. Raises CredentialError."""
    if len(request) > REQUEST_BYTES_MAX:
        raise _bad_request(f"it has {len(request)} bytes, at most {REQUEST_BYTES_MAX} are read")
    try:
        parsed = x509.load_pem_x509_csr(request)
        public = parsed.public_key()
        signed = parsed.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise _bad_request(f"it cannot be read ({error})") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise _bad_request("its key is not one of the curve P-256")
    if not signed:
        raise _bad_request("it is not signed by its own key")
    return public


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, wall_time: float, end: float
) -> x509.CertificateBuilder:
    begin = _date(wall_time) - timedelta(seconds=CLOCK_SKEW_S_MAX)  # CA-2
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(_date(end))


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _date(wall_time: float) -> datetime:
    return datetime.fromtimestamp(int(wall_time), UTC)


def _broken(where: str, why: str) -> CredentialError:
    advice = "restore both files from where the cluster was created; without them no node can join"
    return CredentialError.explain(which=where, what="does not hold the authority of a cluster", why=why, next_step=advice)


def _bad_request(why: str) -> CredentialError:
    return CredentialError.explain(what="a request for a certificate was refused", why=why)
