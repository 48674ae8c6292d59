"""One connected socket with TLS on it. What is written is sealed and sent in one step, by the thread that writes, as without TLS.

    TS-1  One thread at a time is inside the TLS object, which is not safe for two: the reader opens while a caller seals.
    TS-2  What is sealed first is sent first: both happen under the same lock.
    TS-3  The end of the socket is the end of the stream, with or without a farewell: messages have lengths, and a torn one is noticed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.socket_stream import HangupWatch, SocketStream

RECORD_BYTES = 16 * 1024
"""What TLS opens at a time, at most. Python allocates what it is asked for: to ask for more costs, and brings no more."""


class TlsLink:
    """A TLS object with the bytes on their way into it and out of it."""

    __slots__ = ("incoming", "outgoing", "tls")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side)

    def seal(self, data: bytes | memoryview) -> bytes:
        """What to send for `data`."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.outgoing.read()

    def open(self, data: bytes) -> bytes:
        """What came in `data` and before. Raises ssl.SSLError; empty when a record is not complete."""
        self.incoming.write(data)
        parts = []
        try:
            while part := self.tls.read(RECORD_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            if not parts:
                raise  # Else the next call does.
        return parts[0] if len(parts) == 1 else b"".join(parts)


class TlsStream(SocketStream):
    """See the module. The handshake is done."""

    __slots__ = ("_link", "_tls_lock")
    places_directly = False
    """What comes from the socket has to be opened first."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        hangups: HangupWatch,
        link: TlsLink,
        reads: SharedReads | None = None,
    ) -> None:
        super().__init__(loop, sock, hangups, reads)
        self._link = link
        self._tls_lock = threading.Lock()
        self._recv = self._receive

    def write(self, data: bytes | memoryview) -> None:
        """See Stream."""
        with self._tls_lock:
            if not self._no_write:
                super().write(self._link.seal(data))

    def _receive(self, size: int) -> bytes:
        """As `recv` of a socket: raises BlockingIOError when nothing is there, returns nothing at the end."""
        data = self._sock.recv(size)
        if not data:
            return data
        with self._tls_lock:
            try:
                opened = self._link.open(data)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            if self._link.outgoing.pending:
                super().write(self._link.outgoing.read())  # An answer of TLS itself: new keys, an alert.
        if not opened:
            raise BlockingIOError
        return opened
