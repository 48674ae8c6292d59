"""Frames: a 4-byte little-endian length, then that many bytes. Sans-io: bytes in, frames out."""

from __future__ import annotations

from actorflow._core.base.errors import ProtocolError

HEADER_BYTES = 4
FRAME_BYTES_MAX = 256 * 1024 * 1024
"""Larger frames are refused before a byte of them is kept. Precedents: gRPC 4 MiB, Ray 512 MiB, Redis 512 MiB."""
HANDSHAKE_FRAME_BYTES_MAX = 64 * 1024
"""The bound before the peer has said who it is."""


def frame(body: bytes) -> bytes:
    """Return `body` with its header in front. Raises ProtocolError when it is over FRAME_BYTES_MAX."""
    size = len(body)
    if size > FRAME_BYTES_MAX:
        raise ProtocolError(
            f"a message of {size} bytes is over the frame limit of {FRAME_BYTES_MAX}: put large data with af.put and pass the reference"
        )
    return size.to_bytes(HEADER_BYTES, "little") + body


class FrameDecoder:
    """Cuts a byte stream into frames.

    FR-1: at most one incomplete frame is kept, and its announced length is checked against its bound before it is kept:
          `first_bytes_max` for the first frame of the stream, `frame_bytes_max` for all others.
    FR-2: after an error the decoder is dead: every further `feed` raises the same error.
    """

    __slots__ = ("_bytes_max", "_error", "_need", "_parts", "_size", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX, *, first_bytes_max: int = HANDSHAKE_FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._bytes_max = first_bytes_max
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._need = HEADER_BYTES
        self._error: ProtocolError | None = None

    def rest(self) -> bytes:
        """The beginning of a frame that is not complete."""
        return b"".join(self._parts)

    def feed(self, data: bytes) -> list[memoryview]:
        """Take `data`, return the frames that are complete now, in order.

        Raises ProtocolError for an announced length over the bound.
        """
        if self._error is not None:
            raise self._error
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._need:
                return []
            data = b"".join(self._parts)
            self._parts = []
        elif int.from_bytes(data[:HEADER_BYTES], "little") + HEADER_BYTES == len(data) <= self._bytes_max:
            # Most reads find one whole frame.
            self._bytes_max = self.frame_bytes_max
            return [memoryview(data)[HEADER_BYTES:]]
        frames: list[memoryview] = []
        view = memoryview(data)
        at, end = 0, len(data)
        while True:
            left = end - at
            if left < HEADER_BYTES:
                need = HEADER_BYTES
                break
            size = int.from_bytes(view[at : at + HEADER_BYTES], "little")
            if size > self._bytes_max:
                self._error = ProtocolError(f"the peer announced a frame of {size} bytes; the limit here is {self._bytes_max}")
                raise self._error
            need = HEADER_BYTES + size
            if left < need:
                break
            frames.append(view[at + HEADER_BYTES : at + need])
            # What comes behind the handshake may arrive together with it, and has the greater bound already.
            self._bytes_max = self.frame_bytes_max
            at += need
        if at < end:
            self._parts = [view[at:]]
        self._size = end - at
        self._need = need
        return frames
