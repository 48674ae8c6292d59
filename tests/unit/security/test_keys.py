"""Derivation: a key for everything, no two the same, and who holds which."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import KEY_BYTES, ROOT_BYTES, Key, KeyId, Keyring, Root, derive, is_name, secret_id
from actorflow._core.security.roles import ROOT_KINDS, KeyKind
from tests.unit.security.harness import SECRETS, A, B

RING = SECRETS.keyring()


def test_derivation_is_hkdf_with_sha256() -> None:
    """Test case 3 of RFC 5869: no salt. The info is empty there."""
    assert derive(b"\x0b" * 22, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_no_two_keys_are_the_same() -> None:
    """KY-1."""
    roots = [Root.of(secret, kind) for secret in (A, B) for kind in ROOT_KINDS]
    keys = [
        root.key(subject, expires=expires, single_use=single_use)
        for root in roots
        for subject in ("", "j", "j2", "j" * 32)
        for expires in (0, 1, 256)
        for single_use in (False, True)
    ]
    materials = {key.material for key in keys} | {root.material for root in roots} | {A, B}
    assert len(materials) == len(keys) + len(roots) + 2
    assert all(len(material) == KEY_BYTES for material in materials)
    assert secret_id(A) != secret_id(B)
    assert not any(secret_id(A) in material for material in materials)


@pytest.mark.parametrize("subject", ["", "j", "driver-1", "x" * 32])
@pytest.mark.parametrize("kind", ROOT_KINDS)
def test_the_holder_of_the_root_finds_the_key_by_its_id(kind: KeyKind, subject: str) -> None:
    key = RING.pick(kind, subject)
    assert RING.find(key.id) == key


def test_nodes_do_not_hold_the_roots_of_tokens() -> None:
    ring = RING.for_node()
    assert {root.kind for root in ring.roots} == {KeyKind.NODE, KeyKind.JOB}
    assert ring.find(RING.pick(KeyKind.JOIN, "t").id) is None
    with pytest.raises(KeyError, match="no JOIN key"):
        ring.pick(KeyKind.JOIN)


def test_workers_hold_the_key_of_their_job_and_nothing_else() -> None:
    ring = RING.for_job("j")
    assert ring.find(RING.pick(KeyKind.JOB, "j").id) is not None
    for kind in ROOT_KINDS:
        assert ring.find(RING.pick(kind, "j2").id) is None
    with pytest.raises(KeyError, match="no JOB key for j2"):
        ring.pick(KeyKind.JOB, "j2")
    with pytest.raises(KeyError, match="no NODE key"):
        ring.pick(KeyKind.NODE)
    assert ring.for_node() == Keyring() == Keyring(roots=()).for_job("j")


def test_a_root_travels_to_a_node_as_bytes() -> None:
    for root in RING.roots:
        assert Root.load(root.export()) == root
        assert len(root.export()) == ROOT_BYTES


@pytest.mark.parametrize("data", [b"", bytes(ROOT_BYTES), bytes(ROOT_BYTES - 1), b"\x01" * (ROOT_BYTES + 1)], ids=len)
def test_a_damaged_root_is_refused(data: bytes) -> None:
    with pytest.raises(CredentialError, match="a root key from the head is damaged"):
        Root.load(data)


@pytest.mark.parametrize("subject", ["a b", "a\0", "\n", "é", "x" * 33, "\x7f"])
def test_an_id_that_would_not_fit_its_field_is_not_made(subject: str) -> None:
    with pytest.raises(ValueError, match="is not 1 to 32 printable ASCII characters"):
        KeyId(KeyKind.JOB, bytes(8), subject)


def test_an_id_has_a_time_and_a_secret_of_the_right_size() -> None:
    with pytest.raises(ValueError, match="not a time"):
        KeyId(KeyKind.JOIN, bytes(8), "t", -1)
    with pytest.raises(ValueError, match="8 bytes, not 7"):
        KeyId(KeyKind.JOIN, bytes(7), "t")


@given(st.text(max_size=8))
def test_a_name_is_printable_ascii(text: str) -> None:
    assert is_name(text) == all(33 <= ord(char) <= 126 for char in text)


def test_a_key_says_what_it_is_and_not_its_material() -> None:
    key = RING.pick(KeyKind.JOB, "j")
    assert str(key.id) == f"JOB key j of secret {secret_id(A).hex()}"
    assert isinstance(key, Key)
    assert "material" not in repr(key)


def test_a_worker_does_not_pay_for_what_it_does_not_use() -> None:
    """It has its keys and speaks TLS, and derives and signs nothing."""
    program = """
import sys
from actorflow._core.security import challenge, lobby, preface, tls
from actorflow._core.security.keys import Key, KeyId, Keyring
from actorflow._core.security.roles import KeyKind
Keyring(keys=(Key(KeyId(KeyKind.JOB, bytes(8), "j"), bytes(32)),)).pick(KeyKind.JOB, "j")
print([name for name in ("cryptography", "pickle", "asyncio", "msgspec") if name in sys.modules])
"""
    begin = f"import sys; sys.path[:0] = {sys.path!r}"
    done = subprocess.run([sys.executable, "-I", "-c", f"{begin}\n{program}"], capture_output=True, timeout=30)
    assert (done.stdout.decode(), done.stderr.decode()) == ("[]\n", "")
