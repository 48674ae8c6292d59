"""Who reads the sockets of the call path: the loop that waits for what comes, and the protocol's thread when that loop is busy.

The protocol has a thread of its own so that user code which blocks stops nobody else. While nothing blocks, the way over that thread is
a wake-up of one more thread for each message, and wake-ups are what a call costs most. So the sockets lie in one epoll set that two
loops may watch:

    the reader            the user's loop. It reads whenever it has nothing else to do, which is when it waits for a message.
    the protocol's loop   watches while there is no reader, while the reader is busy, and after a pause. Otherwise it looks every
                          TICK_S for what the reader has left, reads that, and watches from then on until the reader turns again,
                          or HAND_BACK_S have passed.

    SR-1  Everything is read and handled under one lock, so the bytes of a stream are in order whoever reads.
    SR-2  Bytes that have arrived are read within two ticks, whatever the reader does.
    SR-3  A descriptor leaves the set before it is closed.
    SR-4  Nobody ticks while nothing happens: after PAUSE_TICKS without a turn of the reader the protocol's loop watches again.
    SR-5  Nobody reads where Ctrl-C may raise in the middle of it: messages that were read and not handled would be lost. So the main
          thread is no reader while its SIGINT handler is Python's own; that of asyncio.run, af.run and of workers is another.
    SR-6  One stream that has little to say each time is read without asking which ones are ready, as calls that are made one after the
          other come: after HOT_TURNS such reads the others have their turn.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from actorflow._core.io import forks
from actorflow._core.io.ports import Turn

TICK_S = 0.002
"""Also how long messages wait that were left for a tick: a fiftieth of what a person notices, and 1 % of a core while calls are made."""
PAUSE_TICKS = 4
"""A tick costs as much as the second wake-up that it saves the next message (some 35 µs)."""
HAND_BACK_S = 10 * TICK_S
"""How long the protocol's loop watches beside a reader before it tries again to leave the reading to it: what comes next may then wait two
ticks, if the reader is still busy. When both are woken for the same bytes and this thread always wins, nothing else would tell."""
HOT_TURNS = 8
HOT_BYTES_MAX = 4096
MISSED_TICKS_MAX = 2
"""After so many ticks that found the lock taken, the next one waits for it."""


def _may_be_torn() -> bool:
    """True where Ctrl-C raises KeyboardInterrupt in whatever runs (SR-5)."""
    on_main_thread = threading.get_ident() == threading.main_thread().ident
    return on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler


class SharedReads:
    """See the module. One per process with a protocol thread; made on that thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: threading.RLock) -> None:
        self._loop = loop
        self.lock = lock
        self._epoll = select.epoll()
        self._streams: dict[int, Callable[[], int]] = {}
        self._hot: Callable[[], int] | None = None
        self._hot_turns = 0
        self._reader: asyncio.AbstractEventLoop | None = None
        self._reader_thread = 0
        self._lent_to: list[asyncio.AbstractEventLoop] = []
        self._turns = 0
        """How often the reader has had a look. Only the reader's thread writes it."""
        self._turns_seen = 0
        self._quiet_ticks = 0
        self._missed_ticks = 0
        self._watching = False
        self._watches_since = 0.0
        self._ticking = False
        self._left_for_tick: list[Callable[[], None]] = []
        self._closed = False
        self._watch()
        forks.own(self)

    # -- streams

    def add(self, fd: int, read: Callable[[], int]) -> None:
        """Call `read`, on any thread and under the lock, when there may be something to be read from `fd`.

        It returns how many bytes came.
        """
        with self.lock:
            self._streams[fd] = read
            self._epoll.register(fd, select.EPOLLIN)

    def discard(self, fd: int) -> None:
        """Forget `fd`, before it is closed (SR-3)."""
        with self.lock:
            if self._streams.pop(fd, None) is not None:
                self._hot = None
                self._epoll.unregister(fd)

    def _read_ready(self) -> None:
        with self.lock:
            if self._closed:
                return
            hot = self._hot
            if hot is not None:
                self._hot_turns -= 1
                if not self._hot_turns:
                    self._hot = None
                if 0 < hot() <= HOT_BYTES_MAX:
                    return
                self._hot = None
            ready = self._epoll.poll(0)
            for fd, _ in ready:
                read = self._streams.get(fd)
                if read is not None and 0 < read() <= HOT_BYTES_MAX and len(ready) == 1 and fd in self._streams:
                    self._hot, self._hot_turns = read, HOT_TURNS

    # -- the reader

    def adopt(self, loop: asyncio.AbstractEventLoop, turn: Turn | None = None) -> None:
        """Let `loop` be the reader, unless another one is. On the thread that runs it. `turn` is called with what reads, to call it."""
        with self.lock:
            if self._closed or self._has_reader() or loop in self._lent_to or _may_be_torn():
                return
            on_readable = self._on_reader if turn is None else partial(turn, self._on_reader)
            if self._watch_from(loop, on_readable):
                self._reader, self._reader_thread = loop, threading.get_ident()

    @contextmanager
    def lent(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        """While this thread blocks and `loop` runs in place of its own one: that is the reader, if this thread's loop was or none is."""
        with self.lock:
            free = not self._has_reader() or self._reader_thread == threading.get_ident()
            lent = free and not self._closed and not _may_be_torn() and self._watch_from(loop, self._on_reader)
            if lent:
                self._lent_to.append(loop)
        try:
            yield
        finally:
            if lent:
                with self.lock:
                    self._lent_to.remove(loop)
                    loop.remove_reader(self._epoll.fileno())
                    self._close_when_free()

    def _has_reader(self) -> bool:
        return self._reader is not None and not self._reader.is_closed()

    def _watch_from(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> bool:
        try:
            # An empty context: what the handlers do belongs to nobody's task.
            contextvars.Context().run(loop.add_reader, self._epoll.fileno(), on_readable)
        except NotImplementedError:
            return False
        return True

    def _on_reader(self) -> None:
        self._turns += 1
        self._read_ready()

    # -- the protocol's loop

    def _watch(self) -> None:
        if not self._watching and not self._closed:
            self._watching = True
            self._watches_since = self._loop.time()
            self._loop.add_reader(self._epoll.fileno(), self._on_protocol)

    def _on_protocol(self) -> None:
        turns = self._turns
        self._read_ready()
        if turns != self._turns_seen or self._hands_back():
            # The reader is awake, and was woken for the same bytes, or it may be: leave them to it.
            self._turns_seen = turns
            with self.lock:
                self._unwatch()
                self._tick_later()

    def _hands_back(self) -> bool:
        return self._loop.time() - self._watches_since > HAND_BACK_S and (bool(self._lent_to) or self._has_reader())

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._epoll.fileno())

    def _tick_later(self) -> None:
        self._quiet_ticks = 0
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        turns = self._turns
        turned = turns != self._turns_seen
        self._turns_seen = turns
        again = True
        if turned and not self._left_for_tick and not self._closed:
            # The commonest case, beside a reader that is at work: neither lock nor system call.
            self._quiet_ticks = 0
        elif self.lock.acquire(blocking=self._missed_ticks >= MISSED_TICKS_MAX):
            self._missed_ticks = 0
            try:
                again = self._look(turned)
            finally:
                self.lock.release()
        else:
            # Somebody is at work in here: to wait for the lock would make every release of theirs a change of threads.
            self._missed_ticks += 1
        if again:
            self._loop.call_later(TICK_S, self._tick)

    def _look(self, turned: bool) -> bool:
        """Do what the reader has left. Under the lock. False: this was the last tick."""
        left, self._left_for_tick = self._left_for_tick, []
        self._quiet_ticks = 0 if turned or left else self._quiet_ticks + 1
        if self._closed:
            self._ticking = False
            return False
        if self._quiet_ticks >= PAUSE_TICKS:
            self._ticking = False
            self._watch()
        if not self._watching and self._epoll.poll(0, 1):
            if not turned:
                self._watch()
            self._read_ready()
        for fn in left:
            self._loop.call_soon(fn)  # So that one that fails stops neither the others nor the ticks.
        return self._ticking

    def leave_for_tick(self, fn: Callable[[], None]) -> None:
        """Call `fn` on the protocol's loop within two ticks; it is woken only when it does not tick yet. Under the lock."""
        self._left_for_tick.append(fn)
        if not self._ticking and not self._closed:
            self._ticking = True
            self._quiet_ticks = 0
            self._loop.call_soon_threadsafe(self._loop.call_later, TICK_S, self._tick)

    # -- the end

    def close(self) -> None:
        """Let go of both loops; nothing is read any more. On the protocol's loop."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self._streams.clear()
            self._hot = None
            self._unwatch()
            reader = self._reader if self._has_reader() else None
            if reader is None:
                self._let_go(None)
            elif reader.is_running():
                try:
                    reader.call_soon_threadsafe(self._let_go, reader)
                except RuntimeError:
                    self._let_go(None)  # It has been closed in this moment.
            else:
                self._let_go(reader)

    def _let_go(self, reader: asyncio.AbstractEventLoop | None) -> None:
        with self.lock:
            if reader is not None:
                reader.remove_reader(self._epoll.fileno())
            self._reader = None
            self._close_when_free()

    def _close_when_free(self) -> None:
        if self._closed and self._reader is None and not self._lent_to:
            self._epoll.close()

    def abandon(self) -> None:
        """See forks.Owner."""
        self._epoll.close()
