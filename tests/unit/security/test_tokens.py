"""Tokens as text, their end, and those for a single use."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.tokens import PREFIXES, TEXT_BYTES_MAX, SpentTokens, Token, has_expired, make_token, parse_token
from tests.unit.security.harness import SECRETS, WALL, randomness

AUTHORITY = b"a certificate in DER" * 20
ROOTS = {root.kind: root for root in SECRETS.keyring().roots}
KINDS = (KeyKind.JOIN, KeyKind.CLIENT)


def token(kind: KeyKind = KeyKind.JOIN, **options: object) -> Token:
    return make_token(ROOTS[kind], AUTHORITY, wall_time=WALL, random_bytes=randomness(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("valid_s", [None, 60.0, 0.0])
def test_what_is_written_is_read(kind: KeyKind, valid_s: float | None) -> None:
    made = token(kind, valid_s=valid_s)
    assert parse_token(made.text().encode() + b"\n", kind, "t") == made
    assert made.text().startswith(PREFIXES[kind])
    assert made.text().isascii() and not any(char.isspace() for char in made.text())


def test_the_head_finds_the_key_of_a_token_without_a_list() -> None:
    """TK-1."""
    made = token(valid_s=60.0, single_use=True)
    assert SECRETS.keyring().find(made.key.id) == made.key
    assert made.keyring().pick(KeyKind.JOIN) == made.key


def test_two_tokens_are_two_keys() -> None:
    random_bytes = randomness()
    one, two = (make_token(ROOTS[KeyKind.JOIN], AUTHORITY, wall_time=WALL, random_bytes=random_bytes) for _ in range(2))
    assert one.key.material != two.key.material


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_the_wrong_kind_is_told_apart(kind: KeyKind) -> None:
    other = KeyKind.CLIENT if kind is KeyKind.JOIN else KeyKind.JOIN
    with pytest.raises(CredentialError, match="it holds a token that .*, not one that"):
        parse_token(token(other).text().encode(), kind, "/t")
    with pytest.raises(CredentialError, match="the cluster secret itself, which stays with the head"):
        parse_token(SECRETS.text().encode(), kind, "/t")


def test_every_slip_is_noticed() -> None:
    """One letter changed, left out or put in, anywhere."""
    text = token().text().encode()
    for at in range(len(text)):
        other = b"A" if text[at : at + 1] != b"A" else b"B"
        for changed in (text[:at] + other + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + b"-" + text[at:], text[:at]):
            if changed == text:
                continue
            with pytest.raises(CredentialError) as caught:
                parse_token(changed, KeyKind.JOIN, "/t")
            assert "Have the head make a token that lets a machine join as a node" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it is empty"),
        (b"\xff", "it is not text"),
        (b"x" * (TEXT_BYTES_MAX + 1), "at most 4096"),
        (b"hello", "does not begin with afjoin1_"),
        (b"afjoin1_", "a part is missing"),
        (b"afjoin1_*", "not base64"),
        (b"afjoin1_ab cd", "not base64"),
    ],
)
def test_what_is_no_token_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(CredentialError) as caught:
        parse_token(text, KeyKind.JOIN, "/t")
    assert str(caught.value).startswith("/t does not hold a join token: ")
    assert why in str(caught.value)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: b"afjoin1_" + text.encode("utf-8", "replace")))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    with pytest.raises(CredentialError):
        parse_token(text, KeyKind.JOIN, "/t")


def test_a_token_ends() -> None:
    key_id = token(valid_s=60.0).key.id
    assert [has_expired(key_id, WALL + after) for after in (0, 59, 60, 61)] == [False, False, True, True]
    assert not has_expired(token().key.id, WALL + 1e9)
    assert token(valid_s=-1e12).key.id.expires == 1, "a token that has ended long ago is not one that never ends"


def test_only_a_join_token_that_ends_is_for_a_single_use() -> None:
    with pytest.raises(ValueError, match="only a join token"):
        token(KeyKind.CLIENT, valid_s=1.0, single_use=True)
    with pytest.raises(ValueError, match="with an end"):
        token(single_use=True)


def test_a_token_is_spent_once() -> None:
    """TK-2."""
    book, key_id = SpentTokens(), token(valid_s=60.0, single_use=True).key.id
    assert [book.spend(key_id, WALL) for _ in range(3)] == [True, False, False]
    assert not SpentTokens(book.rows()).spend(key_id, WALL), "a head that comes back remembers"
    others = token().key.id
    assert [book.spend(others, WALL) for _ in range(3)] == [True, True, True]
    assert len(book.rows()) == 1


def test_the_book_is_bounded_and_full_means_no() -> None:
    """TK-2."""
    random_bytes, book = randomness(), SpentTokens(spent_max=2)

    def spend(valid_s: float, wall_time: float) -> bool:
        root = ROOTS[KeyKind.JOIN]
        made = make_token(root, b"", wall_time=wall_time, random_bytes=random_bytes, valid_s=valid_s, single_use=True)
        return book.spend(made.key.id, wall_time)

    assert spend(60.0, WALL) and spend(120.0, WALL)
    assert not spend(60.0, WALL)
    assert spend(60.0, WALL + 61.0), "the one that has ended made room"
    assert not spend(60.0, WALL + 61.0)
    assert len(book.rows()) == 2


def test_a_token_is_never_shown_and_never_pickled() -> None:
    made = token()
    assert made.key.material.hex() not in repr(made)
    assert repr(made.key.material) not in repr(made)
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(made)
