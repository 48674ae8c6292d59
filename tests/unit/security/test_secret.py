"""The text of the cluster secret, and its replacement step by step."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Keyring, secret_id
from actorflow._core.security.roles import ROOT_KINDS, KeyKind
from actorflow._core.security.secret import PREFIX, SECRET_BYTES, TEXT_BYTES_MAX, Secrets, parse_secrets
from tests.unit.security.harness import A, B, C

GOOD = f"{PREFIX}{A.hex()}"
TOKEN = "afjoin1_AAAA"


def parse(text: str | bytes) -> Secrets:
    return parse_secrets(text.encode() if isinstance(text, str) else text, "/c/secret")


@pytest.mark.parametrize("secrets", [Secrets(A), Secrets(A, B), Secrets(B, A)], ids=str)
def test_what_is_written_is_read(secrets: Secrets) -> None:
    assert parse(secrets.text()) == secrets


@pytest.mark.parametrize("text", [GOOD, f"  {GOOD}\r\n", f"{PREFIX}{A.hex().upper()}\n\n"])
def test_blanks_and_the_case_of_digits_do_not_matter(text: str) -> None:
    assert parse(text) == Secrets(A)


WRONG = {
    "empty": ("", "it is empty"),
    "blank": (" \n\t", "it is empty"),
    "no prefix": (A.hex(), "does not begin with afsecret1_"),
    "a digit too few": (GOOD[:-1], "not 64 hex digits after afsecret1_ (63 characters)"),
    "a digit too many": (GOOD + "0", "(65 characters)"),
    "no hex digit": (GOOD[:-1] + "g", "not 64 hex digits"),
    "digits of another script": (GOOD[:-1] + "\u0663", "it is not text"),
    "three": (f"{GOOD}\n{PREFIX}{B.hex()}\n{PREFIX}{C.hex()}", "3 words, and at most two"),
    "twice the same": (f"{GOOD}\n{GOOD}", "the same secret twice"),
    "the second is wrong": (f"{GOOD}\n{PREFIX}00", "secret 2 is not 64 hex digits"),
    "a join token": (TOKEN, "it holds a token"),
    "a client token": ("afclient1_AAAA", "it holds a token"),
    "huge": (GOOD + " " * TEXT_BYTES_MAX, f"at most {TEXT_BYTES_MAX}"),
    "bytes": (b"\xff\x00" * 20, "it is not text"),
}


@pytest.mark.parametrize(("text", "why"), WRONG.values(), ids=WRONG)
def test_a_wrong_text_is_refused_and_not_shown(text: str | bytes, why: str) -> None:
    with pytest.raises(CredentialError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith("/c/secret does not hold a cluster secret: ")
    assert why in message
    assert "Copy the file of the head again" in message
    assert A.hex()[:8] not in message


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: (PREFIX + text).encode("utf-8", "surrogatepass")))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    try:
        assert len(parse(text).current) == SECRET_BYTES
    except CredentialError:
        pass


def test_a_secret_is_never_shown_and_never_pickled() -> None:
    secrets = Secrets(A, B)
    ring = secrets.keyring()
    token_root = ring.roots[2]
    for value in (secrets, ring, ring.roots[0], ring.pick(KeyKind.NODE), ring.for_job("j"), token_root):
        shown = f"{value} {value!r}"
        for hidden in (A, B, *(root.material for root in ring.roots), ring.pick(KeyKind.NODE).material):
            assert repr(hidden) not in shown
            assert hidden.hex() not in shown
        with pytest.raises(TypeError, match="is a secret and is never pickled"):
            pickle.dumps(value)
        with pytest.raises(TypeError):
            copy.copy(value)


def test_a_replacement_goes_through_three_steps() -> None:
    before = Secrets(A)
    added = before.with_next(B)
    promoted = added.promoted()
    assert [before.valid(), added.valid(), promoted.valid(), promoted.retired().valid()] == [(A,), (A, B), (B, A), (B,)]


def test_steps_in_a_wrong_order_are_refused() -> None:
    with pytest.raises(CredentialError, match="no new one was added"):
        Secrets(A).promoted()
    with pytest.raises(CredentialError, match="nothing to retire"):
        Secrets(A).retired()
    with pytest.raises(CredentialError, match="a replacement is under way"):
        Secrets(A, B).with_next(C)


STEPS = [Secrets(A), Secrets(A, B), Secrets(B, A), Secrets(B)]


@pytest.mark.parametrize("kind", ROOT_KINDS)
@pytest.mark.parametrize(("one", "other"), [(i, j) for i in range(4) for j in range(4)])
def test_who_is_one_step_apart_is_understood(one: int, other: int, kind: KeyKind) -> None:
    """SC-1, and that it takes the steps: from one end to the other nobody is understood."""
    key = STEPS[one].keyring().pick(kind, "x" if kind is not KeyKind.NODE else "")
    found = STEPS[other].keyring().find(key.id)
    assert (found == key) == (key.id.secret_id in map(secret_id, STEPS[other].valid()))
    if abs(one - other) <= 1:
        assert found == key


def test_secrets_of_a_wrong_size_or_twice_the_same_are_not_made() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Secrets(A[:-1])
    with pytest.raises(ValueError, match="the same"):
        Secrets(A, A)


def test_the_ring_of_a_job_has_a_key_for_each_valid_secret() -> None:
    ring = Secrets(A, B).keyring().for_job("j")
    assert [key.id.secret_id for key in ring.keys] == [secret_id(A), secret_id(B)]
    assert ring.roots == ()
    assert ring.pick(KeyKind.JOB, "j") == ring.keys[0]
    assert isinstance(Secrets(A).keyring(), Keyring)
