"""The words about placement groups: each comes back as it was sent, and nothing but words comes out of any bytes."""

from __future__ import annotations

import typing
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.messages import GroupWord, Message
from actorflow._core.protocol.messages import group as words
from tests.unit.protocol.test_codec import of_type, through_the_wire

KINDS: tuple[type[Message], ...] = typing.get_args(words.Word)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_word_comes_back_as_it_was(kind: type[Message]) -> None:
    @given(word=of_type(kind))
    def check(word: words.Word) -> None:
        [message] = through_the_wire([words.say(word)])
        assert isinstance(message, GroupWord)
        assert words.hear(message) == word

    check()


def test_tags_are_unique_and_every_word_says_who_says_it_to_whom() -> None:
    tags = Counter(kind.__struct_config__.tag for kind in KINDS)
    assert {tag for tag, count in tags.items() if count > 1} == set()
    assert [kind.__name__ for kind in KINDS if "->" not in (kind.__doc__ or "")] == []


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_word_or_a_protocol_error(data: bytes) -> None:
    try:
        word = words.hear(GroupWord(data))
    except ProtocolError:
        return
    assert isinstance(word, KINDS)
