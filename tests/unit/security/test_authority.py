"""The authority: what it signs, and what it never takes from a request."""

import pickle
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from actorflow._core.security.authority import (
    AUTHORITY_VALID_S,
    CERTIFICATE_VALID_S,
    REQUEST_BYTES_MAX,
    Authority,
    new_request,
    renew_at,
)
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.preface import CLOCK_SKEW_S_MAX
from tests.unit.security.harness import WALL


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("c1", wall_time=WALL)


def seconds(moment: datetime) -> float:
    return moment.timestamp()


def names(certificate: bytes) -> list[str]:
    found = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.UniformResourceIdentifier)


def test_a_certificate_has_the_names_that_the_head_gives(authority: Authority) -> None:
    _, request = new_request()
    certificate = authority.issue(request, ["node/n1", "head/h1"], wall_time=WALL)
    assert names(certificate) == ["actorflow:node/n1", "actorflow:head/h1"]
    x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(authority.certificate)


def test_nothing_that_a_request_says_is_used_but_its_key(authority: Authority) -> None:
    """CA-1."""
    key = ec.generate_private_key(ec.SECP256R1())
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("actorflow:head/h1")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "head")]))
        .add_extension(wish, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate = authority.issue(request.public_bytes(serialization.Encoding.PEM), ["node/n1"], wall_time=WALL)
    parsed = x509.load_pem_x509_certificate(certificate)
    assert names(certificate) == ["actorflow:node/n1"]
    assert list(parsed.subject) == []
    assert parsed.public_key() == key.public_key()
    assert not parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_certificate_is_short_lived_and_begins_in_the_past(authority: Authority) -> None:
    """CA-2."""
    certificate = authority.issue(new_request()[1], ["node/n1"], wall_time=WALL)
    parsed = x509.load_pem_x509_certificate(certificate)
    assert seconds(parsed.not_valid_before_utc) == WALL - CLOCK_SKEW_S_MAX
    assert seconds(parsed.not_valid_after_utc) == WALL + CERTIFICATE_VALID_S
    assert WALL + 0.6 * CERTIFICATE_VALID_S < renew_at(certificate) < WALL + 0.7 * CERTIFICATE_VALID_S


def test_no_certificate_outlives_its_authority(authority: Authority) -> None:
    end = WALL + AUTHORITY_VALID_S
    certificate = authority.issue(new_request()[1], ["node/n1"], wall_time=end - 60)
    assert seconds(x509.load_pem_x509_certificate(certificate).not_valid_after_utc) == end
    with pytest.raises(CredentialError, match="the authority of the cluster cannot sign: it ended on 20"):
        authority.issue(new_request()[1], ["node/n1"], wall_time=end)


def test_every_certificate_has_another_number_and_key(authority: Authority) -> None:
    parsed = [x509.load_pem_x509_certificate(authority.issue(new_request()[1], ["node/n1"], wall_time=WALL)) for _ in range(3)]
    assert len({certificate.serial_number for certificate in parsed}) == 3
    assert len({certificate.fingerprint(hashes.SHA256()) for certificate in parsed}) == 3


def request_with(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM)


def forged_request() -> bytes:
    """One whose last bytes, of the signature, are others: its sender does not hold the key."""
    der = bytearray(x509.load_pem_x509_csr(new_request()[1]).public_bytes(serialization.Encoding.DER))
    der[-3] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


BAD_REQUESTS = {
    "empty": (b"", "it cannot be read"),
    "garbage": (b"\x00\xff" * 50, "it cannot be read"),
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it cannot be read"),
    "huge": (b"x" * (REQUEST_BYTES_MAX + 1), "at most 4096 are read"),
    "another curve": (request_with(ec.generate_private_key(ec.SECP384R1())), "not one of the curve P-256"),
    "another kind of key": (request_with(ed25519.Ed25519PrivateKey.generate()), "not one of the curve P-256"),
    "not signed by its key": (forged_request(), "it is not signed by its own key"),
}


@pytest.mark.parametrize(("request_pem", "why"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused(authority: Authority, request_pem: bytes, why: str) -> None:
    with pytest.raises(CredentialError, match="a request for a certificate was refused") as caught:
        authority.issue(request_pem, ["node/n1"], wall_time=WALL)
    assert why in str(caught.value)


@pytest.mark.parametrize("wrong", [[], [""], ["node/a b"], ["node/\n"], ["node/é"], ["n"] * 9], ids=str)
def test_names_are_checked(authority: Authority, wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="1 to 8 names"):
        authority.issue(new_request()[1], wrong, wall_time=WALL)


def test_an_authority_is_stored_as_two_texts(authority: Authority) -> None:
    again = Authority.load(authority.certificate_pem(), authority.key_pem(), "/c")
    assert again.certificate == authority.certificate
    assert again.issue(new_request()[1], ["node/n1"], wall_time=WALL)
    for certificate, key in ((b"", authority.key_pem()), (authority.certificate_pem(), b""), (b"\xff", b"\xff")):
        with pytest.raises(CredentialError, match="/c does not hold the authority of a cluster: it cannot be read"):
            Authority.load(certificate, key, "/c")
    with pytest.raises(CredentialError, match="belongs to another certificate"):
        Authority.load(authority.certificate_pem(), new_request()[0], "/c")


def test_an_authority_is_never_shown_and_never_pickled(authority: Authority) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(authority)
    assert "_key" not in repr(authority)


def test_the_authority_lasts_for_years(authority: Authority) -> None:
    assert seconds(authority.certificate.not_valid_after_utc) == WALL + AUTHORITY_VALID_S
    assert authority.certificate.not_valid_before_utc == datetime.fromtimestamp(WALL - CLOCK_SKEW_S_MAX, UTC)
