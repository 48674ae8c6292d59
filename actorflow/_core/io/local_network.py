"""A Network inside one process, for `mode="in_process"` where there are no unix sockets that tell who is on the other side.

Bytes that are written go into the inbox of the other stream, and the loop delivers them. Nothing here needs more of the system than a
loop that other threads may wake.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterator

from actorflow._core.io.ports import Listener, PlacingHandler, Stream, StreamHandler

SCHEME = "local:"


class LocalListener:
    """An address that is listened at."""

    def __init__(self, listening: dict[str, LocalListener], address: str, accept: Callable[[Stream], StreamHandler]) -> None:
        self._listening = listening
        self._address = address
        self.accept = accept

    def close(self) -> None:
        """See Listener."""
        if self._listening.get(self._address) is self:
            del self._listening[self._address]


class LocalStream:
    """One end of a connection. `write` is for any thread; all else happens on the loop."""

    lasting = False
    proof = None
    _handler: StreamHandler
    _other: LocalStream

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._taken_bytes = 0
        self._delivering = False
        self._no_write = False
        self._no_read = False
        self._peer_closed = False
        self._gone = False

    def start(self, handler: StreamHandler) -> None:
        """Begin to deliver."""
        self._handler = handler
        self._loop.call_soon(self._deliver)

    def write(self, data: bytes | memoryview) -> None:
        """See Stream."""
        data = bytes(data)
        other = self._other
        if self._no_write or other._gone or not data:
            return
        other._inbox_bytes += len(data)
        other._inbox.append(data)
        other._deliver_soon()

    def buffered_bytes(self) -> int:
        """See Stream: what the other side has not read."""
        other = self._other
        return 0 if self._gone or other._gone else other._inbox_bytes - other._taken_bytes

    def close(self) -> None:
        """See Stream. What was written is in the other's inbox already."""
        self._no_read = self._no_write = True
        self._on_loop(self._end, "closed by this side")

    def abort(self) -> None:
        """See Stream."""
        self._no_read = self._no_write = True
        self._other._inbox.clear()
        self._on_loop(self._end, "aborted by this side")

    def share_reads(self) -> None:
        """See Stream: there is one loop."""

    def when_taken(self, fn: Callable[[], None]) -> None:
        """See Stream: what is written belongs to the other side at once."""
        self._loop.call_soon(fn)

    def hand_to(self, handler: PlacingHandler) -> None:
        """See Stream: here the bytes are copied."""
        self._handler = handler

    # -- on the loop

    def _on_loop(self, fn: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _deliver_soon(self) -> None:
        if not self._delivering:
            self._delivering = True
            self._on_loop(self._deliver)

    def _deliver(self) -> None:
        self._delivering = False  # First: whoever appends from now on sees to another delivery.
        if self._gone or not hasattr(self, "_handler"):
            return
        data = b"".join(self._take())
        self._taken_bytes += len(data)
        if data and not self._no_read:
            try:
                self._handler.data_received(data)
            except Exception as error:
                message = "data_received failed; its stream is closed"
                self._loop.call_exception_handler({"message": message, "exception": error, "handler": self._handler})
                self._end(f"the handler of this side failed: {error!r}")
                return
        if self._peer_closed and not self._inbox:
            self._end("closed by the peer")

    def _take(self) -> Iterator[bytes]:
        while self._inbox:
            try:
                yield self._inbox.popleft()
            except IndexError:
                return  # The other side has aborted at this moment, on another thread.

    def _end(self, reason: str) -> None:
        if not self._gone:
            self._gone = self._no_write = True
            self._inbox.clear()
            if not self._other._gone:
                self._other._peer_closed = True
                self._other._deliver_soon()
            handler = self._handler
            del self._handler
            handler.connection_lost(reason)


def _check(address: str) -> None:
    if not address.startswith(SCHEME):
        raise OSError(errno.EAFNOSUPPORT, f"this process speaks with itself only, at addresses that begin with {SCHEME}", address)


class LocalNetwork:
    """Streams between those who share this object, at addresses such as `local:node`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._listening: dict[str, LocalListener] = {}

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """See Network."""
        _check(address)
        if address in self._listening:
            raise OSError(errno.EADDRINUSE, "address already in use", address)
        listener = self._listening[address] = LocalListener(self._listening, address, accept)
        return listener

    def lasts(self, address: str) -> bool:
        """See Network."""
        return False

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """See Network."""
        _check(address)
        listener = self._listening.get(address)
        if listener is None:
            raise FileNotFoundError(errno.ENOENT, "nobody listens there", address)
        near, far = LocalStream(self._loop), LocalStream(self._loop)
        near._other, far._other = far, near
        far.start(listener.accept(far))
        near.start(handler)
        return near
