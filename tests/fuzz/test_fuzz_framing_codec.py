"""Fuzz targets for framing and codec. `make fuzz` runs them at length; a plain run is a short one."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import decode, encode
from actorflow._core.protocol.framing import HEADER_BYTES, FrameDecoder
from actorflow._core.protocol.messages import AnyMessage, Define
from tests.fuzz import fuzz_frames
from tests.fuzz.fuzz_frames import Finding, damage, fuzz, message

RANDOM = st.randoms(use_true_random=False)
CHUNKS = st.lists(st.binary(max_size=64), max_size=12)
BOUND = 256


@given(body=st.binary(max_size=512))
def test_the_codec_returns_messages_or_raises_protocol_error(body: bytes) -> None:
    try:
        messages = decode(body)
    except ProtocolError:
        return
    assert decode(encode(messages)[HEADER_BYTES:]) == messages


@given(rng=RANDOM)
def test_damaged_messages_are_messages_or_a_protocol_error(rng: random.Random) -> None:
    body = damage(encode([message(rng)])[HEADER_BYTES:], rng)
    try:
        messages = decode(body)
    except ProtocolError:
        return
    assert all(isinstance(found, fuzz_frames.KINDS) for found in messages)


@given(chunks=CHUNKS)
def test_the_decoder_keeps_no_more_than_one_frame(chunks: list[bytes]) -> None:
    """FR-1 and FR-2: of any bytes, cut anywhere."""
    decoder = FrameDecoder(BOUND, first_bytes_max=BOUND)
    fed = given_out = 0
    for chunk in chunks:
        try:
            bodies = decoder.feed(chunk)
        except ProtocolError as error:
            with pytest.raises(ProtocolError) as again:
                decoder.feed(b"")
            assert again.value is error, "FR-2"
            return
        fed += len(chunk)
        given_out += sum(HEADER_BYTES + len(body) for body in bodies)
        assert all(len(body) <= BOUND for body in bodies), "FR-1"
        assert 0 <= fed - given_out < HEADER_BYTES + BOUND, "FR-1"


@given(data=st.binary(max_size=512), cuts=st.lists(st.integers(0, 512), max_size=6))
def test_how_the_bytes_are_cut_does_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert outcome([data]) == outcome([data[start:end] for start, end in zip(edges, edges[1:], strict=False)])


def outcome(chunks: list[bytes]) -> list[bytes] | str:
    """What comes out: the bodies, or the words of the refusal."""
    decoder = FrameDecoder(BOUND, first_bytes_max=BOUND)
    try:
        return [bytes(body) for chunk in chunks for body in decoder.feed(chunk)]
    except ProtocolError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_frames_never_surprise(seed: int) -> None:
    outcomes = fuzz(seed, 1_000)
    assert min(outcomes["messages"], outcomes["refused"], outcomes["nothing"]) > 20, "every outcome is reached"


def test_the_same_seed_does_the_same() -> None:
    assert fuzz(9, 100) == fuzz(9, 100)


# The fuzzer sees what it looks for ----------------------------------------------------------------------------


def raises(data: bytes, rng: random.Random) -> list[AnyMessage]:
    raise IndexError("an accident")


def takes_memory(data: bytes, rng: random.Random) -> list[AnyMessage]:
    return [Define("", "", bytes(1_000_000))]


def returns_rubbish(data: bytes, rng: random.Random) -> list[AnyMessage]:
    return ["rubbish"]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("reader", "what"),
    [(raises, "IndexError: an accident"), (takes_memory, "bytes of memory"), (returns_rubbish, "returned .*rubbish")],
)
def test_a_reader_that_misbehaves_is_found(monkeypatch: pytest.MonkeyPatch, reader: fuzz_frames.Reader, what: str) -> None:
    monkeypatch.setattr(fuzz_frames, "READERS", (reader,))
    with pytest.raises(Finding, match=rf"^seed 1, iteration 0: {reader.__name__} .*{what}"):
        fuzz(1, 1)


def test_the_messages_it_starts_from_are_valid_and_of_every_kind() -> None:
    rng = random.Random(1)
    batch = [message(rng) for _ in range(2_000)]
    [*bodies] = FrameDecoder(first_bytes_max=10**9).feed(encode(batch))
    assert [found for body in bodies for found in decode(body)] == batch
    assert Counter(map(type, batch)).keys() == set(fuzz_frames.KINDS)
