"""SB-1: what was not sealed here, under this name, is never opened."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.authority import Authority
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.seal import OVERHEAD_BYTES, Seal

KEY = bytes(range(32))


@given(name=st.binary(max_size=40), value=st.binary(max_size=2_000))
def test_another_life_opens_what_one_has_sealed(name: bytes, value: bytes) -> None:
    sealed = Seal(KEY).close(name, value)
    assert Seal(KEY).open(name, sealed) == value
    assert len(sealed) == len(value) + OVERHEAD_BYTES


@given(st.data())
def test_nothing_else_is_opened(data: st.DataObject) -> None:
    seal = Seal(KEY)
    sealed = bytearray(seal.close(b"name", b"a value of some length"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    for name, content in ((b"name", bytes(sealed)), (b"name", bytes(sealed[:at])), (b"other", seal.close(b"name", b"value"))):
        with pytest.raises(CredentialError, match="sealed with the key of another cluster, or has been changed"):
            seal.open(name, content)
    with pytest.raises(CredentialError):
        Seal(bytes(32)).open(b"name", seal.close(b"name", b"value"))


def test_the_same_value_never_looks_the_same() -> None:
    seal = Seal(KEY)
    assert len({seal.close(b"name", b"value") for _ in range(100)} | {Seal(KEY).close(b"name", b"value") for _ in range(100)}) == 200


def test_the_key_is_that_of_the_authority_and_of_no_other() -> None:
    one, other = Authority.create("one", wall_time=1e9), Authority.create("one", wall_time=1e9)
    again = Authority.load(one.certificate_pem(), one.key_pem(), "here")
    assert again.state_key() == one.state_key() != other.state_key()
    with pytest.raises(TypeError, match="is a secret and is never pickled"):
        pickle.dumps(Seal(one.state_key()))
