"""A connection on which some messages are followed by raw bytes: the chunks of objects, which go straight to their place.

    | length | a list of messages | length | a list that ends with a Chunk | the bytes of the chunk | length | ...

    BK-1  The place of a chunk is asked for before each read, and never used after the next one: a chunk that is wanted no more may lose
          its place between two reads, and what is left of it is read and dropped.
    BK-2  Messages and chunks are told in the order of their sending; a chunk when its last byte is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.codec import decode
from actorflow._core.protocol.framing import FRAME_BYTES_MAX, HEADER_BYTES
from actorflow._core.protocol.messages import Chunk

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer, PeerHandler

SCRATCH_BYTES = 64 * 1024
"""Where bytes go that nobody wants."""


class ChunkSink(Protocol):
    """Who takes chunks."""

    def place(self, peer: Peer, chunk: Chunk) -> memoryview | None:
        """Where the chunk's bytes belong, all of them; None: nowhere."""

    def received(self, peer: Peer, chunk: Chunk) -> None:
        """All bytes of the chunk have come, and are in their place if it had one all the time."""


class BulkReader:
    """The PlacingHandler of such a connection. `rest`: what has been read of it already and is no whole frame."""

    def __init__(self, peer: Peer, handler: PeerHandler, sink: ChunkSink, rest: bytes) -> None:
        self._peer = peer
        self._handler = handler
        self._sink = sink
        self._frame = bytearray(rest)
        """The beginning of a frame."""
        self._chunk: Chunk | None = None
        self._have = 0
        """So many bytes of the chunk have come."""
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

    # -- PlacingHandler

    def place(self) -> memoryview | None:
        """See PlacingHandler."""
        chunk = self._chunk
        if chunk is None:
            return None
        whole = self._sink.place(self._peer, chunk)
        return whole[self._have :] if whole is not None else self._scratch[: chunk.length - self._have]

    def placed(self, count: int) -> None:
        """See PlacingHandler."""
        chunk = self._chunk
        assert chunk is not None, "BK-1: what had a place belongs to a chunk"
        self._have += count
        if self._have == chunk.length:
            self._chunk = None
            self._sink.received(self._peer, chunk)

    def data_received(self, data: bytes) -> None:
        """See StreamHandler."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._take_chunk(view) if self._chunk is not None else self._take_frame(view) :]
                if self._peer.lost:
                    return
        except ProtocolError as error:
            self._peer.give_up(str(error))

    def connection_lost(self, reason: str) -> None:
        """See StreamHandler."""
        self._peer.connection_lost(reason)

    # -- parts

    def _take_chunk(self, view: memoryview) -> int:
        place = self.place()
        assert place is not None
        count = min(len(view), len(place))
        place[:count] = view[:count]
        del place
        self.placed(count)
        return count

    def _take_frame(self, view: memoryview) -> int:
        frame = self._frame
        taken = 0
        if len(frame) < HEADER_BYTES:
            taken = min(HEADER_BYTES - len(frame), len(view))
            frame += view[:taken]
            if len(frame) < HEADER_BYTES:
                return taken
        size = int.from_bytes(frame[:HEADER_BYTES], "little")
        if size > FRAME_BYTES_MAX:
            raise ProtocolError(f"the peer announced a frame of {size} bytes; the limit here is {FRAME_BYTES_MAX}")
        more = min(HEADER_BYTES + size - len(frame), len(view) - taken)
        frame += view[taken : taken + more]
        if len(frame) == HEADER_BYTES + size:
            self._frame = bytearray()
            self._told(bytes(frame[HEADER_BYTES:]))
        return taken + more

    def _told(self, body: bytes) -> None:
        messages = decode(body)
        if any(type(message) is Chunk for message in messages[:-1]):
            raise ProtocolError("a chunk is announced, and other messages come before its bytes")
        if messages and type(messages[-1]) is Chunk:
            chunk = messages.pop()
            assert isinstance(chunk, Chunk)
            if chunk.length <= 0:
                raise ProtocolError(f"a chunk of {chunk.length} bytes is announced")
            self._chunk, self._have = chunk, 0
        if messages:
            self._handler.messages_received(self._peer, messages)
