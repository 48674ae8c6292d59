"""One connected socket: a Stream whose `write` sends at once, from whichever thread calls it.

Not asyncio's transports, for one reason: those may only be written to on their loop, and the way from a
user's thread over the loop to the kernel costs more than the call itself.

Who may touch what (the GIL makes each single step atomic):

    SO-1  One thread at a time is inside `write` (its caller holds a lock). It sends directly only while the
          backlog is empty.
    SO-2  The loop drains, and only while the backlog is not empty; it alone removes from it. So order is kept
          without a lock.
    SO-3  The loop alone ends a stream. It closes the descriptor unless a `write` is inside `send`; then that
          `write` does: a number that the system may give to another connection is never written to.
    SO-4  A stream that is shared is read by whichever thread comes first, under the lock of the shared reads; no delivery begins
          before the last one has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable

from actorflow._core.io import forks
from actorflow._core.io.ports import PlacingHandler, Proof, StreamHandler
from actorflow._core.io.shared_reads import SharedReads

RECV_BYTES = 96 * 1024
"""One read. Python allocates this much for each, and from 128 KiB on malloc goes to the system every time:
that is 7 times slower. Over 64 KiB, so that a read which found just that much knows that it was all."""
READS_PER_EVENT = 3
"""At most 288 KiB of one stream, then the others have their turn."""
PLACED_READS_PER_EVENT = 4
"""Of a stream whose bytes go straight to their place: a read takes what the kernel has, a few MiB at most."""
MESSAGE_BYTES = 16 * 1024
"""One read of such a stream while it is not known where the next bytes belong: what is read too much must be copied."""
CHUNKS_PER_SEND = 64
CLOSE_TIMEOUT_S = 5.0
"""How long a closed stream waits for its peer to take what is buffered."""

WOULD_BLOCK = (BlockingIOError, InterruptedError)


class HangupWatch:
    """Tells the streams of one loop when their peers are gone.

    When a peer goes with our bytes unread, its socket reports an error. uvloop then calls the reader once more
    and never again, whatever is still to be read. So there is a second epoll set, in which no socket waits for
    data: it costs nothing while all is well. It exists while there are streams.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callable[[], None]] = {}
        forks.own(self)

    def abandon(self) -> None:
        """See forks.Owner."""
        if self._epoll is not None:
            self._epoll.close()

    def add(self, fd: int, on_hangup: Callable[[], None]) -> None:
        """Call `on_hangup` once when the peer of `fd` is gone."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._on_hangups, self._epoll)
        self._epoll.register(fd, 0)
        self._callbacks[fd] = on_hangup

    def discard(self, fd: int) -> None:
        """Forget `fd`, before it is closed."""
        epoll = self._epoll
        if self._callbacks.pop(fd, None) is None or epoll is None:
            return
        epoll.unregister(fd)
        if not self._callbacks:
            self._loop.remove_reader(epoll.fileno())
            epoll.close()
            self._epoll = None

    def _on_hangups(self, epoll: select.epoll) -> None:
        for fd, _ in epoll.poll(0):
            callback = self._callbacks.get(fd)
            if callback is not None:
                self.discard(fd)
                callback()


class SocketStream:
    """One connected socket. `write` is the call path; everything else may take its time."""

    __slots__ = (
        "_backlog", "_closing", "_data_received", "_drained_bytes", "_draining", "_fd", "_gone", "_handler",
        "_hangups", "_loop", "_no_read", "_no_write", "_peer_gone", "_queued_bytes", "_reads", "_recv", "_send",
        "_sending", "_shared", "_sock", "_takers", "proof",
    )  # fmt: skip

    _handler: StreamHandler
    _data_received: Callable[[bytes], None]
    places_directly = True
    """Bytes may go from the socket straight to where they belong."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, hangups: HangupWatch, reads: SharedReads | None = None
    ) -> None:
        self._loop = loop
        self._hangups = hangups
        self._reads = reads
        self._shared = False
        self._sock = sock
        self._fd = sock.fileno()
        self._send = sock.send
        self._recv: Callable[[int], bytes] = sock.recv
        self._backlog: deque[bytes | memoryview] = deque()
        self._queued_bytes = 0
        self._drained_bytes = 0
        self._draining = False
        self._sending = False
        self._no_write = False
        self._no_read = False
        self._peer_gone = False
        self._gone = False
        self._closing: asyncio.TimerHandle | None = None
        self._takers: deque[tuple[int, Callable[[], None]]] | None = None
        """Who wants to know when so many bytes of the backlog have left it; None for most streams."""
        self.proof: Proof | None = None
        """See ports.Stream."""

    @property
    def lasting(self) -> bool:
        """See ports.Stream: between machines."""
        return self.proof is not None

    def __repr__(self) -> str:
        state = "lost" if self._gone else f"{self.buffered_bytes()} bytes buffered"
        return f"SocketStream(fd={self._fd}, {state})"

    def start(self, handler: StreamHandler, early: bytes = b"") -> None:
        """Begin to read, on the loop. `early`: what has been read already."""
        self._handler = handler
        self._data_received = handler.data_received
        if early:
            self._loop.call_soon(self._deliver_early, early)  # Before the loop looks at the socket.
        self._loop.add_reader(self._fd, self._on_readable)
        self._hangups.add(self._fd, self._on_hangup)

    def _deliver_early(self, data: bytes) -> None:
        if not self._gone and not self._no_read:
            try:
                self._data_received(data)
            except Exception as error:
                self._handler_failed(error)

    def share_reads(self) -> None:
        """See ports.Stream. On the loop."""
        # Not from here: this may be the middle of a delivery, and what comes next must not overtake it on another thread (SO-4).
        self._loop.call_soon(self._share)

    def _share(self) -> None:
        if self._reads is not None and not self._shared and not self._gone:
            self._loop.remove_reader(self._fd)
            self._shared = True
            self._reads.add(self._fd, self._on_readable)

    def hand_to(self, handler: PlacingHandler) -> None:
        """See ports.Stream. On the loop."""
        assert not self._shared, "SO-4: one thread knows where the bytes go"
        self._handler = handler
        self._data_received = handler.data_received
        if self.places_directly:
            # Not from here: this may be the middle of a delivery, whose end still belongs to the one before.
            self._loop.call_soon(self._place_from_now_on, handler)

    def _place_from_now_on(self, handler: PlacingHandler) -> None:
        if not self._gone:
            self._loop.remove_reader(self._fd)
            self._loop.add_reader(self._fd, self._on_placeable, handler)

    # -- Stream, from any thread

    def write(self, data: bytes | memoryview) -> None:
        """Send `data` now, as far as the kernel takes it."""
        if self._no_write or self._backlog:
            self._keep(data)
            return
        self._sending = True
        try:
            sent = self._send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError as error:
            sent = len(data)
            self._no_write = True
            self._call_on_loop(self._read_to_the_end, _in_words(error))
        self._sending = False
        if self._gone:
            self._sock.close()  # SO-3
        elif sent != len(data):
            self._keep(memoryview(data)[sent:])

    def buffered_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return 0 if self._gone else self._queued_bytes - self._drained_bytes

    def when_taken(self, fn: Callable[[], None]) -> None:
        """See ports.Stream. On the loop."""
        if self._gone or not self._backlog:
            self._loop.call_soon(fn)
            return
        if self._takers is None:
            self._takers = deque()
        self._takers.append((self._queued_bytes, fn))

    def close(self) -> None:
        """Send what is buffered, then close. Nothing more is delivered to the handler but the end."""
        self._no_read = True
        self._no_write = True
        self._call_on_loop(self._close)

    def abort(self) -> None:
        """Close now."""
        self._no_read = True
        self._no_write = True
        self._call_on_loop(self._end, "aborted by this side")

    # -- the writer's slow path

    def _keep(self, data: bytes | memoryview) -> None:
        if self._no_write or not data:
            return
        self._queued_bytes += len(data)
        self._backlog.append(data)
        if not self._draining:
            self._call_on_loop(self._start_draining)

    def _call_on_loop(self, fn: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    # -- on the loop, or where shared reads are done

    def _on_readable(self, reads: int = READS_PER_EVENT) -> int:
        """Deliver what has arrived. Returns how much that was, in bytes."""
        if self._gone:
            return 0
        try:
            data = self._recv(RECV_BYTES)
        except WOULD_BLOCK:
            return 0
        except OSError as error:
            self._end_reading(_in_words(error))
            return 0
        if not data:
            self._end_reading("closed by the peer")
            return 0
        if not self._no_read:
            try:
                self._data_received(data)
            except Exception as error:
                self._handler_failed(error)
                return 0
        if len(data) == RECV_BYTES and reads > 1 and not self._gone:
            return RECV_BYTES + self._on_readable(reads - 1)
        return len(data)

    def _on_placeable(self, handler: PlacingHandler) -> None:
        """As `_on_readable`, for a handler that knows where the bytes belong."""
        for _ in range(PLACED_READS_PER_EVENT):
            if self._gone:
                return
            try:
                place = None if self._no_read else handler.place()
                if place is None:
                    data = self._recv(MESSAGE_BYTES)
                    count, asked = len(data), MESSAGE_BYTES
                    if data and not self._no_read:
                        handler.data_received(data)
                else:
                    asked = len(place)
                    count = self._sock.recv_into(place)
                    if count:
                        handler.placed(count)
            except WOULD_BLOCK:
                return
            except OSError as error:
                self._end(_in_words(error))
                return
            except Exception as error:
                self._handler_failed(error)
                return
            if not count:
                self._end("closed by the peer")
                return
            if count < asked:
                return

    def _end_reading(self, reason: str) -> None:
        if self._shared:
            assert self._reads is not None
            self._reads.discard(self._fd)
            self._call_on_loop(self._end, reason)
        else:
            self._end(reason)

    # -- on the loop

    def _on_hangup(self) -> None:
        self._peer_gone = True
        self._stop_draining()
        self._read_to_the_end("closed by the peer")

    def _read_to_the_end(self, reason: str) -> None:
        """The peer takes no more. What it said before may still be here: that first, then the end."""
        if self._reads is None:
            self._read_more(reason)
            return
        with self._reads.lock:
            self._read_more(reason)

    def _read_more(self, reason: str) -> None:
        if self._gone:
            return
        try:
            data = self._recv(RECV_BYTES)
        except OSError:
            data = b""
        if not data:
            self._end(reason)
            return
        self._loop.call_soon(self._read_to_the_end, reason)
        if not self._no_read:
            try:
                self._data_received(data)
            except Exception as error:
                self._handler_failed(error)

    def _handler_failed(self, error: Exception) -> None:
        message = "data_received failed; its stream is closed"
        self._loop.call_exception_handler({"message": message, "exception": error, "handler": self._handler})
        self._end_reading(f"the handler of this side failed: {error!r}")

    def _start_draining(self) -> None:
        if not self._backlog or self._draining or self._peer_gone or self._gone:
            return
        try:
            self._loop.add_writer(self._fd, self._on_writable)
        except RuntimeError:
            # uvloop has just seen the error of which the hangup watch is about to tell.
            self._peer_gone = True
        else:
            self._draining = True

    def _on_writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                # By index: another thread may append at any moment, which an iterator would not bear.
                chunks = [backlog[i] for i in range(min(len(backlog), CHUNKS_PER_SEND))]
                self._drop(self._sock.sendmsg(chunks))
                if self._takers:
                    self._tell_takers()
        except WOULD_BLOCK:
            return
        except OSError as error:
            self._no_write = True
            self._stop_draining()
            self._read_to_the_end(_in_words(error))
            return
        self._stop_draining()
        if self._closing is not None:
            self._end("closed by this side")
        else:
            # A write that still saw `_draining` has not called us.
            self._start_draining()

    def _tell_takers(self, *, all_of_them: bool = False) -> None:
        takers = self._takers
        while takers and (all_of_them or takers[0][0] <= self._drained_bytes):
            self._loop.call_soon(takers.popleft()[1])

    def _drop(self, sent_bytes: int) -> None:
        """Remove `sent_bytes` from the front of the backlog."""
        backlog = self._backlog
        self._drained_bytes += sent_bytes
        while sent_bytes:
            size = len(backlog[0])
            if size > sent_bytes:
                backlog[0] = memoryview(backlog[0])[sent_bytes:]
                return
            sent_bytes -= size
            backlog.popleft()

    def _stop_draining(self) -> None:
        if self._draining:
            self._draining = False
            self._loop.remove_writer(self._fd)

    def _close(self) -> None:
        if self._gone or self._closing is not None:
            return
        if self._backlog:
            reason = f"closed by this side; the peer did not take {self.buffered_bytes()} bytes"
            self._closing = self._loop.call_later(CLOSE_TIMEOUT_S, self._end, reason)
            self._start_draining()
        else:
            self._end("closed by this side")

    def _end(self, reason: str) -> None:
        if self._gone:
            return
        self._no_write = True
        self._hangups.discard(self._fd)
        if self._shared:
            assert self._reads is not None
            self._reads.discard(self._fd)  # SR-3
        else:
            self._loop.remove_reader(self._fd)
        self._stop_draining()
        if self._closing is not None:
            self._closing.cancel()
        # A process that the user forked may hold this connection too: shutdown ends it for both.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._gone = True
        if not self._sending:
            self._sock.close()  # SO-3
        self._backlog.clear()
        self._tell_takers(all_of_them=True)
        handler = self._handler
        del self._handler, self._data_received
        handler.connection_lost(reason)


def _in_words(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "closed by the peer"
    return f"failed: {error.strerror or error}"
