"""Every message there is: it comes back as it was sent, and nothing but messages comes out of any bytes."""

from __future__ import annotations

import types
import typing
from collections import Counter
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol import codec, messages
from actorflow._core.protocol.codec import BATCH_MESSAGES_MAX, decode, encode
from actorflow._core.protocol.framing import FrameDecoder
from actorflow._core.protocol.messages import AnyMessage, Cancel, Inline, Message, Outcome, Reply

KINDS: tuple[type[Message], ...] = typing.get_args(AnyMessage)

# Messages of any shape --------------------------------------------------------------------------------------

SCALARS: dict[object, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    str: st.text(max_size=8),
    bytes: st.binary(max_size=16),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    type(None): st.none(),
}


@cache
def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type, as the messages use them. A type that is new there is a KeyError here."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([of_type(argument) for argument in arguments])
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(of_type, arguments))
    if origin is dict:
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return of_struct(kind)
    return SCALARS[kind]


def of_struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fields = {field.name: of_type(hints[field.name]) for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **fields)


ANY_MESSAGE = st.one_of([of_type(kind) for kind in KINDS])


def bodies(data: bytes) -> list[memoryview]:
    return FrameDecoder(first_bytes_max=len(data)).feed(data)


def through_the_wire(batch: list[Any]) -> list[Any]:
    return [message for body in bodies(encode(batch)) for message in decode(body)]


# What comes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type[Message]) -> None:
    @given(message=of_type(kind))
    def check(message: Message) -> None:
        assert through_the_wire([message]) == [message]

    check()


@given(batch=st.lists(ANY_MESSAGE, max_size=10))
def test_a_batch_comes_back_in_order(batch: list[AnyMessage]) -> None:
    assert through_the_wire(batch) == batch


def test_a_large_batch_is_several_frames() -> None:
    batch: list[Any] = [Cancel(number, 0) for number in range(BATCH_MESSAGES_MAX * 2 + 1)]
    assert [len(decode(body)) for body in bodies(encode(batch))] == [BATCH_MESSAGES_MAX, BATCH_MESSAGES_MAX, 1]
    assert through_the_wire(batch) == batch


def test_what_is_decoded_does_not_hold_the_bytes_it_came_from() -> None:
    data = bytearray(codec._encode([Reply(1, 0, Inline(b"value", [b"buffer"]))]))
    [reply] = decode(memoryview(data))
    data[:] = bytes(len(data))
    assert reply == Reply(1, 0, Inline(b"value", [b"buffer"]))


# Tags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("union", [AnyMessage, Outcome], ids=["AnyMessage", "Outcome"])
def test_tags_are_numbers_and_unique(union: Any) -> None:
    tags = Counter(kind.__struct_config__.tag for kind in typing.get_args(union))
    assert {tag for tag, count in tags.items() if count > 1} == set()
    assert all(type(tag) is int for tag in tags), "a tag that is a name costs bytes in every message"


def test_every_tagged_message_is_in_a_union() -> None:
    """A message that was forgotten in AnyMessage can be sent, and is refused where it arrives."""
    tagged = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.__struct_config__.tag is not None
    }
    assert tagged == {*KINDS, *typing.get_args(Outcome)}


def test_every_message_is_exported_and_says_who_sends_it_to_whom() -> None:
    assert {kind.__name__ for kind in KINDS} <= set(messages.__all__)
    assert [kind.__name__ for kind in KINDS if "->" not in (kind.__doc__ or "")] == []


# Other bytes ------------------------------------------------------------------------------------------------

DEEP = b"\x91" * 100_000
BROKEN = {
    "nothing": b"",
    "no list": b"\x00",
    "an unknown tag": msgspec.msgpack.encode([[99_999, 1]]),
    "no tag": msgspec.msgpack.encode([[]]),
    "a tag that is a name": msgspec.msgpack.encode([["Cancel", 1, 0]]),
    "a field of another type": msgspec.msgpack.encode([[13, "one", 0]]),
    "a field is missing": msgspec.msgpack.encode([[13]]),
    "cut off": msgspec.msgpack.encode([[13, 1, 0]])[:-1],
    "something behind": msgspec.msgpack.encode([[13, 1, 0]]) + b"\x00",
    "text that is not UTF-8": b"\x91\x94\x0d\x01\x00\xa1\xff",
    "a byte that means nothing": b"\xc1",
    "a list of four billion": b"\xdd\xff\xff\xff\xff",
    "bytes that are not there": b"\x91\x94\x0e\xa0\xa0\xc6\xff\xff\xff\xff",
    "very deep": DEEP,
    "very deep inside": b"\x91\x92\x0c" + DEEP,
    "a number over 64 bits": b"\x91\x93\x0d\xc7\x10\x00" + bytes(16) + b"\x00",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_other_bytes_are_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"a frame of {len(body)} bytes is not a list of actorflow messages: "):
        decode(body)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_messages_or_a_protocol_error(body: bytes) -> None:
    try:
        batch = decode(body)
    except ProtocolError:
        return
    assert all(isinstance(message, KINDS) for message in batch)


def test_fields_that_a_newer_peer_adds_are_passed_over() -> None:
    assert decode(msgspec.msgpack.encode([[13, 1, 0, "why", False, "and more"]])) == [Cancel(1, 0, "why", False)]
