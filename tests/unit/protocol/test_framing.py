"""Frames: whatever way the bytes are cut, the same bodies come out; a length over the bound ends the stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol import framing
from actorflow._core.protocol.framing import (
    FRAME_BYTES_MAX,
    HANDSHAKE_FRAME_BYTES_MAX,
    HEADER_BYTES,
    FrameDecoder,
    frame,
)

BODIES = st.lists(st.binary(max_size=40), max_size=8)


def header(size: int) -> bytes:
    return size.to_bytes(HEADER_BYTES, "little")


def feed_all(decoder: FrameDecoder, chunks: list[bytes]) -> list[bytes]:
    return [bytes(body) for chunk in chunks for body in decoder.feed(chunk)]


def test_a_frame_is_its_length_and_its_body() -> None:
    assert frame(b"abc") == b"\x03\x00\x00\x00abc"
    assert frame(b"") == b"\x00\x00\x00\x00"


@given(bodies=BODIES, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_frames_come_out_whole_however_the_bytes_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, bodies))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert feed_all(FrameDecoder(), chunks) == bodies


@given(bodies=BODIES)
def test_frames_come_out_byte_by_byte(bodies: list[bytes]) -> None:
    data = b"".join(map(frame, bodies))
    assert feed_all(FrameDecoder(), [data[at : at + 1] for at in range(len(data))]) == bodies


def test_frames_that_were_given_out_stay_as_they_are() -> None:
    decoder = FrameDecoder()
    [first] = decoder.feed(frame(b"first") + b"\x06\x00")
    [second] = decoder.feed(b"\x00\x00second")
    assert (bytes(first), bytes(second)) == (b"first", b"second")


@pytest.mark.parametrize("chunks", [[header(101)], [header(101)[:3], header(101)[3:]], [header(101) + bytes(101)]])
def test_fr_1_a_length_over_the_bound_is_refused_before_its_body(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(first_bytes_max=100)
    with pytest.raises(ProtocolError, match="announced a frame of 101 bytes; the limit here is 100"):
        feed_all(decoder, chunks)


def test_fr_1_a_length_at_the_bound_is_taken() -> None:
    assert feed_all(FrameDecoder(first_bytes_max=100), [frame(bytes(100))]) == [bytes(100)]


def test_fr_1_the_first_frame_has_a_bound_of_its_own() -> None:
    """What comes behind the handshake may arrive in one piece with it."""
    large = bytes(HANDSHAKE_FRAME_BYTES_MAX + 1)
    assert feed_all(FrameDecoder(), [frame(b"hello") + frame(large)]) == [b"hello", large]
    with pytest.raises(ProtocolError, match=str(HANDSHAKE_FRAME_BYTES_MAX)):
        FrameDecoder().feed(frame(large))
    with pytest.raises(ProtocolError, match=str(FRAME_BYTES_MAX)):
        FrameDecoder().feed(frame(b"hello") + header(FRAME_BYTES_MAX + 1))


def test_fr_2_after_an_error_the_decoder_is_dead() -> None:
    decoder = FrameDecoder(first_bytes_max=10)
    with pytest.raises(ProtocolError) as first:
        decoder.feed(header(11))
    with pytest.raises(ProtocolError) as second:
        decoder.feed(frame(b"fine"))
    assert first.value is second.value


def test_a_body_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "FRAME_BYTES_MAX", 10)
    assert frame(bytes(10)) == header(10) + bytes(10)
    with pytest.raises(ProtocolError, match=r"11 bytes is over the frame limit of 10: put large data with af\.put"):
        frame(bytes(11))
