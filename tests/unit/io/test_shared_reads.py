"""Two loops at one epoll set: who reads when, in which order, and what is left at the end (SR-1 to SR-5, SO-4).

The protocol's loop runs on a thread of its own, the reader's on that of the test. Both are of each kind, and the sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import random
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from actorflow._core.io import shared_reads
from actorflow._core.io.blocking import block_on, close_thread_loop
from actorflow._core.io.shared_reads import HAND_BACK_S, HOT_TURNS, TICK_S, SharedReads
from actorflow._core.io.socket_stream import HangupWatch, SocketStream
from tests.conformance.leaks import open_fds
from tests.integration.leaks import until
from tests.unit.io.conftest import LOOPS

T = TypeVar("T")

PATIENCE_S = 20.0
"""How long a test waits for what must happen. Only a failure takes so long."""
SOON_S = 0.05
"""SR-2 says two ticks, 4 ms. The rest is for a machine on which others work: half of the shortest time for which a reader blocks here."""
BLOCKED_S = 0.1
QUIET_S = 20 * TICK_S
"""How long a test looks on when nothing must happen."""


@pytest.fixture(autouse=True)
def ctrl_c_does_not_tear() -> Iterator[None]:
    """As under asyncio.run and in workers: the main thread may read (SR-5)."""
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield
    signal.signal(signal.SIGINT, previous)


class CountedReads(SharedReads):
    """Counts how often the loops come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: Any) -> None:
        self.woken = self.ticks = self.turns = 0
        super().__init__(loop, lock)

    def _on_protocol(self) -> None:
        self.woken += 1
        super()._on_protocol()

    def _tick(self) -> None:
        self.ticks += 1
        super()._tick()

    def _on_reader(self) -> None:
        self.turns += 1
        super()._on_reader()


class Lock:
    """A lock that lets something happen just after it was released, for those who do not use `with`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.released: Callable[[], None] = lambda: None

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()
        self.released()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


class Heard:
    """A StreamHandler that remembers what it was told, when, and on which thread."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, float, bytes]] = []
        self.lost: list[tuple[int, str]] = []
        self._tell: Callable[[], object] = lambda: None

    @property
    def data(self) -> bytes:
        return b"".join(data for _, _, data in self.chunks)

    def threads(self) -> set[int]:
        return {ident for ident, _, _ in self.chunks}

    def data_received(self, data: bytes) -> None:
        assert not self.lost, "data after the end"
        self.chunks.append((threading.get_ident(), time.monotonic(), data))
        self._tell()

    def connection_lost(self, reason: str) -> None:
        self.lost.append((threading.get_ident(), reason))
        self._tell()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait on the running loop, which does nothing else meanwhile."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                changed = asyncio.Event()
                self._tell = lambda changed=changed: loop.call_soon_threadsafe(changed.set)
                if true():
                    break
                await changed.wait()
        self._tell = lambda: None


class ProtocolSide:
    """The protocol's thread, and the streams it shares."""

    def __init__(self, kind: str, lock: Any = None) -> None:
        self.loop = LOOPS[kind]()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.complaints.append(context))
        self.lock = threading.RLock() if lock is None else lock
        self._thread = threading.Thread(target=self.loop.run_forever, name="the protocol's", daemon=True)
        self._thread.start()
        self.ident = self._thread.ident
        self.reads: CountedReads = self.do(lambda: CountedReads(self.loop, self.lock))
        self.hangups = HangupWatch(self.loop)
        self._pairs: list[tuple[socket.socket, Heard]] = []
        self._echoes: list[subprocess.Popen[bytes]] = []

    def do(self, fn: Callable[[], T]) -> T:
        """Call `fn` on the protocol's thread, and wait for it."""

        async def run() -> T:
            return fn()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE_S)

    def stream(self, handler: Any = None) -> tuple[SocketStream, socket.socket, Heard]:
        """A stream that is shared, and at its other end a plain socket."""
        handler = handler or Heard()
        ours, peer = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        peer.settimeout(PATIENCE_S)
        self._pairs.append((peer, handler))

        def start() -> SocketStream:
            stream = SocketStream(self.loop, ours, self.hangups, self.reads)
            stream.start(handler)
            stream.share_reads()
            return stream

        return self.do(start), peer, handler

    def echo(self, handler: Any = None) -> Echo:
        """A stream to another process that answers what it is told, as a worker does."""
        stream, peer, heard = self.stream(handler)
        peer.setblocking(True)  # For the other process too.
        self._echoes.append(subprocess.Popen(["cat"], stdin=peer, stdout=peer))
        return Echo(self, stream, heard)

    def watches(self) -> bool:
        """Nobody has read for a while: the protocol's loop watches, and does not tick."""
        return self.reads._watching and not self.reads._ticking

    def close(self) -> None:
        """As ProtocolThread.stop does it, when the streams are gone."""
        for peer, _ in self._pairs:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        for process in self._echoes:
            assert process.wait(PATIENCE_S) == 0
        assert until(lambda: all(heard.lost for _, heard in self._pairs))
        self.do(self.reads.close)
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self.loop.run_until_complete(asyncio.sleep(2 * TICK_S))  # What was to come later comes now.
        self.loop.close()
        assert self.complaints == []


@pytest.fixture(params=LOOPS)
def protocol(request: pytest.FixtureRequest, _nothing_is_left: None) -> Iterator[ProtocolSide]:
    """The other side; the `runner` is the reader's."""
    side = ProtocolSide(request.param)
    try:
        yield side
    finally:
        with contextlib.ExitStack() as stack:
            stack.callback(close_thread_loop)
            stack.callback(side.close)


def spawn(fn: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


class Echo:
    """A process to talk to."""

    def __init__(self, protocol: ProtocolSide, stream: SocketStream, heard: Heard) -> None:
        self._protocol = protocol
        self._stream = stream
        self.heard = heard
        self._said = 0

    async def answers(self, count: int = 1) -> None:
        """Say something and wait for the answer, on the running loop, so many times."""
        for _ in range(count):
            with self._protocol.lock:
                self._stream.write(b"x")
            self._said += 1
            await self.heard.until(lambda: len(self.heard.data) == self._said)

    def read_here(self, known: int = 0) -> int:
        """How many answers this thread has read, after the first `known`."""
        return sum(ident == threading.get_ident() for ident, _, _ in self.heard.chunks[known:])


async def reads_here(protocol: ProtocolSide, echo: Echo) -> bool:
    """See whether the running loop may be, or is, the reader: then it reads most of what it waits for.

    Not from the first message on: both loops are woken, and it takes chance until the protocol's sees that the reader was, too.
    """
    protocol.reads.adopt(asyncio.get_running_loop())
    for _ in range(10):
        known = len(echo.heard.chunks)
        await echo.answers(40)
        if echo.read_here(known) > 20:
            return True
    return False


# -- who reads


def test_a_reader_that_waits_reads_and_the_protocol_thread_sleeps(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    count = 1_000

    async def scenario() -> None:
        echo = protocol.echo()
        assert await reads_here(protocol, echo)
        woken, known = protocol.reads.woken, len(echo.heard.chunks)
        await echo.answers(count)
        # Not all of them: on a busy machine the reader's thread may be late, and then the protocol's helps out.
        assert echo.read_here(known) > 0.9 * count
        assert protocol.reads.woken - woken < 0.1 * count

    runner.run(scenario())


def test_without_a_reader_the_protocol_thread_reads(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    async def scenario() -> None:
        echo = protocol.echo()
        await echo.answers(20)
        assert echo.heard.threads() == {protocol.ident}
        assert protocol.reads.ticks == 0

    runner.run(scenario())


def test_a_turn_of_the_user_goes_around_what_reads(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    async def scenario() -> None:
        echo = protocol.echo()
        around = 0

        def turn(read: Callable[[], None]) -> None:
            nonlocal around
            before = echo.read_here()
            read()
            around += echo.read_here() - before

        protocol.reads.adopt(asyncio.get_running_loop(), turn)
        assert await reads_here(protocol, echo)
        assert around == echo.read_here()

    runner.run(scenario())


def test_sr_1_data_is_delivered_under_the_lock_and_in_nobody_s_context(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    """The task that was the first to wait must not be seen in what messages do."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="nobody's")
    seen = set[tuple[bool, str]]()

    class Looks(Heard):
        def data_received(self, data: bytes) -> None:
            free = list[bool]()
            spawn(lambda: free.append(protocol.lock.acquire(blocking=False))).join()
            seen.add((free[0], var.get()))
            super().data_received(data)

    async def scenario() -> None:
        echo = protocol.echo(Looks())
        await echo.answers(5)
        var.set("of the task that waits")
        assert await reads_here(protocol, echo)
        assert echo.heard.threads() == {protocol.ident, threading.get_ident()}
        assert seen == {(False, "nobody's")}

    runner.run(scenario())


def test_the_protocol_thread_leaves_the_reading_to_a_reader_after_a_while_and_takes_it_back_soon(
    protocol: ProtocolSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it always wins the race for the bytes, it never sees that the reader is awake: so it tries."""
    monkeypatch.setattr(shared_reads, "PAUSE_TICKS", 50)  # It is to be seen that it tries: not too short a while.
    reads = protocol.reads

    def long_ago() -> bool:
        return reads._watching and protocol.loop.time() - reads._watches_since > HAND_BACK_S

    async def adopt() -> None:
        reads.adopt(asyncio.get_running_loop())

    _, peer, heard = protocol.stream()
    assert until(long_ago)
    peer.send(b"without a reader")
    assert until(lambda: len(heard.chunks) == 1)
    assert reads.ticks == 0
    with asyncio.Runner() as reader:
        reader.run(adopt())  # From here on it stands still.
        for said in range(1, 6, 2):
            assert until(long_ago)
            peer.send(b"the first")
            assert until(lambda said=said: len(heard.chunks) == said + 1)
            assert until(lambda: not reads._watching)
            peer.send(b"the second")
            assert until(lambda said=said: len(heard.chunks) == said + 2)
            assert reads._watching
    assert heard.threads() == {protocol.ident}


# -- SR-2


@pytest.mark.parametrize("busy", ["it sleeps", "it computes"])
@pytest.mark.parametrize("before", ["it has just read", "it has not read for long"])
def test_sr_2_what_a_busy_reader_leaves_is_read_soon(
    runner: asyncio.Runner, protocol: ProtocolSide, busy: str, before: str
) -> None:
    async def scenario() -> list[float]:
        echo = protocol.echo()
        _, peer, heard = protocol.stream()
        protocol.reads.adopt(asyncio.get_running_loop())
        late = list[float]()
        for round_ in range(5):
            await echo.answers(5)
            if before == "it has not read for long":
                assert await asyncio.to_thread(until, protocol.watches)
            sent = list[float]()

            def send(after_s: float = BLOCKED_S / 4 * round_ / 5, sent: list[float] = sent) -> None:
                time.sleep(after_s)  # Somewhere in the time in which the reader is busy.
                sent.append(time.monotonic())
                peer.send(b"while it is busy")

            sender = spawn(send)
            if busy == "it sleeps":
                time.sleep(BLOCKED_S)  # noqa: ASYNC251  # That is the point.
            else:
                end = time.monotonic() + BLOCKED_S
                while time.monotonic() < end:
                    pass
            sender.join()
            await heard.until(lambda: heard.data.endswith(b"while it is busy"))
            late.append(next(at for _, at, data in reversed(heard.chunks) if data.startswith(b"while")) - sent[0])
        return late

    late = runner.run(scenario())
    # The middle one: each of them may be hit by something else that this machine does.
    assert statistics.median(late) < SOON_S, f"two ticks are {2 * TICK_S} s, the reader blocks for {BLOCKED_S} s: {late}"


def test_sr_1_numbered_frames_stay_in_order_while_the_readers_take_turns(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    count, frame = 10_000, struct.Struct(">I16s")

    async def scenario() -> None:
        _, peer, heard = protocol.stream()
        protocol.reads.adopt(asyncio.get_running_loop())
        rng = random.Random(1)

        def send() -> None:
            pause = threading.Event()
            for first in range(0, count, 10):
                data = b"".join(frame.pack(number, b"%016d" % number) for number in range(first, first + 10))
                cut = rng.randrange(len(data))
                peer.sendall(data[:cut])
                peer.sendall(data[cut:])
                pause.wait(0.0005)

        sender = spawn(send)
        async with asyncio.timeout(PATIENCE_S):
            while len(heard.data) < count * frame.size:
                await asyncio.sleep(0.004)  # It waits, and reads.
                time.sleep(0.006)  # noqa: ASYNC251  # It blocks, for three ticks.
        sender.join()
        assert list(frame.iter_unpack(heard.data)) == [(number, b"%016d" % number) for number in range(count)]
        assert heard.threads() == {protocol.ident, threading.get_ident()}, "both have read"

    runner.run(scenario())


def test_sr_2_a_lock_that_is_taken_at_each_tick_is_waited_for(runner: asyncio.Runner) -> None:
    """A program that makes calls without end, and does not wait, has the lock most of the time."""

    class Taken(Lock):
        def acquire(self, blocking: bool = True) -> bool:
            return super().acquire() if blocking else False

    protocol = ProtocolSide("uvloop", Taken())
    try:
        echo = protocol.echo()
        _, peer, heard = protocol.stream()
        assert runner.run(reads_here(protocol, echo))  # From here on the reader stands still.
        for number in range(1, 20):
            peer.send(b"x")
            assert until(lambda number=number: len(heard.chunks) == number)
        left = list[int]()
        with protocol.lock:
            protocol.reads.leave_for_tick(lambda: left.append(1))
        assert until(lambda: left)
    finally:
        protocol.close()


# -- SR-6


def test_sr_6_a_stream_that_is_read_without_asking_leaves_the_others_their_turn(protocol: ProtocolSide) -> None:
    reads, order = protocol.reads, list[str]()
    protocol.do(reads._unwatch)
    ends = {name: socket.socketpair(socket.AF_UNIX) for name in ("hot", "other")}

    def reader(name: str) -> Callable[[], int]:
        ours = ends[name][0]
        ours.setblocking(False)

        def read() -> int:
            try:
                data = ours.recv(100)
            except BlockingIOError:
                return 0
            order.append(name)
            return len(data)

        return read

    for name, (ours, _) in ends.items():
        reads.add(ours.fileno(), reader(name))
    for number in range(100):
        ends["hot"][1].send(b"x")
        if number == 50:
            ends["other"][1].send(b"x")
        reads._read_ready()
    assert order.count("hot") == 100
    assert 50 <= order.index("other") <= 50 + HOT_TURNS + 1
    ends["other"][1].send(b"x")
    reads._read_ready()
    assert order[-1] == "other", "where the hot one has nothing to say the others are asked at once"
    for ours, theirs in ends.values():
        reads.discard(ours.fileno())
        ours.close()
        theirs.close()


def test_sr_6_a_hot_stream_that_is_forgotten_is_not_read(protocol: ProtocolSide) -> None:
    reads = protocol.reads
    protocol.do(reads._unwatch)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    reads.add(ours.fileno(), lambda: len(ours.recv(100)))
    theirs.send(b"x")
    reads._read_ready()
    assert reads._hot is not None
    reads.discard(ours.fileno())
    ours.close()
    theirs.close()
    reads._read_ready()


# -- SR-4


def test_sr_4_nobody_ticks_while_nothing_happens(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    async def scenario() -> None:
        echo = protocol.echo()
        for _ in range(2):
            ticks = protocol.reads.ticks
            async with asyncio.timeout(PATIENCE_S):
                while protocol.reads.ticks == ticks:  # The reader may be the faster one each time: then nothing makes the other look.
                    assert await reads_here(protocol, echo)
            assert await asyncio.to_thread(until, protocol.watches)
            counts = protocol.reads.ticks, protocol.reads.woken, protocol.reads.turns
            await asyncio.sleep(QUIET_S)
            assert (protocol.reads.ticks, protocol.reads.woken, protocol.reads.turns) == counts

    runner.run(scenario())


def test_sr_4_there_is_one_tick_at_a_time() -> None:
    """Also where something is left in the moment in which the ticks have decided to end, and the lock is free already."""

    lock = Lock()
    protocol = ProtocolSide("asyncio", lock)  # Its timers can be counted.
    try:
        reads, ran = protocol.reads, list[str]()

        def leave() -> None:
            with lock:
                reads.leave_for_tick(lambda: ran.append("left"))

        def released() -> None:
            if not reads._ticking:
                lock.released = lambda: None
                spawn(leave).join()

        lock.released = released
        leave()
        assert until(lambda: len(ran) == 2)
        timers = protocol.do(lambda: [timer for timer in protocol.loop._scheduled if timer._callback == reads._tick])
        assert len(timers) <= 1
        assert until(protocol.watches)
        assert len(ran) == 2
    finally:
        protocol.close()


# -- what is left for a tick


@pytest.mark.parametrize("state", ["watching", "ticking", "watching again", "no reader"])
@pytest.mark.parametrize("reader", ["waits", "sleeps"])
def test_what_is_left_for_a_tick_is_done_soon_and_once(
    runner: asyncio.Runner, protocol: ProtocolSide, state: str, reader: str
) -> None:
    async def scenario() -> None:
        echo = protocol.echo()
        reads = protocol.reads
        done, late = list[tuple[int, int]](), list[float]()
        if state != "no reader":
            reads.adopt(asyncio.get_running_loop())
        for number in range(7):
            if state != "watching":
                await echo.answers(5)
            if state == "watching again":
                assert await asyncio.to_thread(until, protocol.watches)
            over = threading.Event()

            def left(number: int = number, over: threading.Event = over) -> None:
                done.append((number, threading.get_ident()))
                over.set()

            left_at = time.monotonic()
            with protocol.lock:
                reads.leave_for_tick(left)
            if reader == "sleeps":
                assert over.wait(PATIENCE_S)
            else:
                await asyncio.to_thread(over.wait, PATIENCE_S)
            late.append(time.monotonic() - left_at)
        assert await asyncio.to_thread(until, protocol.watches)
        assert done == [(number, protocol.ident) for number in range(7)]
        assert statistics.median(late) < SOON_S, late

    runner.run(scenario())


def test_many_threads_leave_things_for_a_tick_and_each_is_done_once_in_its_order(protocol: ProtocolSide) -> None:
    threads, each, done = 4, 500, list[tuple[int, int]]()

    def leave_all(which: int) -> None:
        rng = random.Random(which)
        for number in range(each):
            with protocol.lock:
                protocol.reads.leave_for_tick(lambda number=number: done.append((which, number)))
            if rng.random() < 0.02:
                time.sleep(rng.random() * 2 * TICK_S)

    leaving = [spawn(lambda which=which: leave_all(which)) for which in range(threads)]
    for thread in leaving:
        thread.join()
    assert until(lambda: len(done) >= threads * each)
    for which in range(threads):
        assert [number for who, number in done if who == which] == list(range(each))
    assert until(protocol.watches)
    assert len(done) == threads * each


def test_what_fails_at_a_tick_stops_neither_the_ticks_nor_what_is_left_with_it(protocol: ProtocolSide) -> None:
    done = list[int]()

    def fails() -> None:
        raise ZeroDivisionError("a bug")

    for number in range(3):
        with protocol.lock:
            protocol.reads.leave_for_tick(fails)
            protocol.reads.leave_for_tick(lambda number=number: done.append(number))
        assert until(lambda number=number: done == list(range(number + 1)))
    assert [type(complaint["exception"]) for complaint in protocol.complaints] == [ZeroDivisionError] * 3
    protocol.complaints.clear()
    assert until(protocol.watches)


# -- the end of a stream


@pytest.mark.parametrize("reader", ["waits", "blocks", "is not there"])
def test_the_end_is_told_once_on_the_protocol_loop_after_the_last_data(
    runner: asyncio.Runner, protocol: ProtocolSide, reader: str
) -> None:
    async def scenario() -> None:
        echo = protocol.echo()
        if reader != "is not there":
            protocol.reads.adopt(asyncio.get_running_loop())
        for ends in range(10):
            _, peer, heard = protocol.stream()
            await echo.answers(ends % 3)

            def last_words(peer: socket.socket = peer) -> None:
                peer.sendall(b"last words" * 30_000)
                peer.close()

            sender = spawn(last_words)
            if reader == "blocks":
                time.sleep(5 * TICK_S)  # noqa: ASYNC251  # That is the point.
            await heard.until(lambda heard=heard: heard.lost)
            sender.join()
            assert heard.data == b"last words" * 30_000
            assert [ident for ident, _ in heard.lost] == [protocol.ident]
        await asyncio.sleep(QUIET_S)
        reads = protocol.reads
        counts = reads.woken, reads.turns
        await asyncio.sleep(QUIET_S)
        assert (reads.woken, reads.turns) == counts, "a descriptor at its end must not wake anybody again"
        assert len(reads._streams) == 1

    runner.run(scenario())


@pytest.mark.parametrize("how", ["abort", "close"])
@pytest.mark.parametrize("who", ["reader", "protocol", "third"])
def test_this_side_ends_streams_while_data_streams_in(runner: asyncio.Runner, protocol: ProtocolSide, how: str, who: str) -> None:
    async def scenario() -> None:
        protocol.reads.adopt(asyncio.get_running_loop())
        for number in range(30):
            stream, peer, heard = protocol.stream()

            def flood(peer: socket.socket = peer) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    while True:
                        peer.sendall(b"x" * 10_000)

            sender = spawn(flood)
            await heard.until(lambda heard=heard, number=number: len(heard.chunks) > number % 5)
            end = getattr(stream, how)
            if who == "reader":
                end()
            elif who == "protocol":
                protocol.loop.call_soon_threadsafe(end)
            else:
                spawn(end).join()
            await heard.until(lambda heard=heard: heard.lost)
            await asyncio.to_thread(sender.join)
            peer.close()
            assert [ident for ident, _ in heard.lost] == [protocol.ident]
        assert protocol.reads._streams == {}

    runner.run(scenario())


def test_a_handler_that_fails_on_the_reader_ends_its_stream_and_no_other(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    class Fails(Heard):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        protocol.reads.adopt(asyncio.get_running_loop())
        echo = protocol.echo()
        await echo.answers(5)
        _, bad, fails = protocol.stream(Fails())
        bad.send(b"x")
        await fails.until(lambda: fails.lost)
        assert "ZeroDivisionError" in fails.lost[0][1]
        await echo.answers(5)
        assert [type(complaint["exception"]) for complaint in protocol.complaints] == [ZeroDivisionError]
        protocol.complaints.clear()

    runner.run(scenario())


def test_so_4_what_follows_is_not_delivered_while_the_first_is_still_being_taken(
    runner: asyncio.Runner, protocol: ProtocolSide
) -> None:
    """A stream becomes a shared one in the middle of a delivery: with the handshake came the first messages."""
    second = threading.Event()

    class Shares(Heard):
        stream: SocketStream

        def data_received(self, data: bytes) -> None:
            if data == b"first":
                self.stream.share_reads()
                second.wait(QUIET_S)
            else:
                second.set()
            super().data_received(data)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        protocol.reads.adopt(loop)
        ours, peer = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        heard = Shares()
        stream = heard.stream = SocketStream(protocol.loop, ours, protocol.hangups, protocol.reads)
        peer.send(b"first")
        protocol.loop.call_soon_threadsafe(stream.start, heard)
        assert until(lambda: bool(protocol.reads._streams) or bool(heard.chunks))
        peer.send(b"second")
        await heard.until(lambda: len(heard.data) >= len(b"firstsecond"))
        assert heard.data == b"firstsecond"
        peer.close()
        await heard.until(lambda: heard.lost)

    runner.run(scenario())


def test_sr_3_thousands_of_connections_share_a_few_descriptors(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    """Numbers of descriptors are used again at once: no stream may hear what another was told."""
    count, at_once, numbers = 4_000, 20, set[int]()

    async def scenario() -> None:
        protocol.reads.adopt(asyncio.get_running_loop())
        waiting = asyncio.Semaphore(at_once)
        loop = asyncio.get_running_loop()
        heard = [Heard() for _ in range(count)]

        class Counts(Heard):
            def __init__(self, number: int) -> None:
                super().__init__()
                heard[number] = self

            def connection_lost(self, reason: str) -> None:
                super().connection_lost(reason)
                loop.call_soon_threadsafe(waiting.release)

        def start(number: int) -> None:
            ours, peer = socket.socketpair(socket.AF_UNIX)
            ours.setblocking(False)
            numbers.add(ours.fileno())
            stream = SocketStream(protocol.loop, ours, protocol.hangups, protocol.reads)
            stream.start(Counts(number))
            stream.share_reads()
            peer.send(b"%08d" % number)
            if number % 3 == 0:
                # This side ends it, after it has heard all.
                protocol.loop.call_later(0.002, lambda: (stream.abort(), peer.close()))
            else:
                peer.send(b"%08d" % number)
                peer.close()

        async with asyncio.timeout(PATIENCE_S * 2):
            for number in range(count):
                await waiting.acquire()
                protocol.loop.call_soon_threadsafe(start, number)
            for _ in range(at_once):
                await waiting.acquire()
        for number, one in enumerate(heard):
            said = b"%08d" % number
            assert one.data == said * 2 if number % 3 else one.data in (said, b""), (number, one.data)
            assert len(one.lost) == 1
        assert protocol.reads._streams == {}
        assert len(numbers) < 10 * at_once, "they were used again"

    runner.run(scenario())


# -- which loop


def test_adopt_takes_the_first_loop_and_the_next_one_when_that_is_closed(protocol: ProtocolSide) -> None:
    echo = protocol.echo()
    with asyncio.Runner() as first:
        assert first.run(reads_here(protocol, echo))
        second = list[bool]()
        spawn(lambda: second.append(asyncio.run(reads_here(protocol, echo)))).join()
        assert second == [False], "there was a reader already"
        assert first.run(reads_here(protocol, echo))
    for factory in [*LOOPS.values(), *LOOPS.values()]:
        with asyncio.Runner(loop_factory=factory) as next_:
            assert next_.run(reads_here(protocol, echo))


def test_a_loop_that_cannot_watch_sockets_is_no_reader_and_nothing_is_lost(protocol: ProtocolSide) -> None:
    class NoSockets(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
            if fd == protocol.reads._epoll.fileno():
                raise NotImplementedError
            return super().add_reader(fd, callback, *args)

    echo = protocol.echo()
    with asyncio.Runner(loop_factory=NoSockets) as runner:
        assert not runner.run(reads_here(protocol, echo))
        assert not runner.run(lent(protocol, reads_here(protocol, echo)))
    assert echo.heard.threads() == {protocol.ident}
    with asyncio.Runner() as runner:
        assert runner.run(reads_here(protocol, echo))


# -- lent to who blocks


async def lent(protocol: ProtocolSide, scenario: Coroutine[Any, Any, T]) -> T:
    loop, fd = asyncio.get_running_loop(), protocol.reads._epoll.fileno()
    with protocol.reads.lent(loop):
        result = await scenario
    assert not loop.remove_reader(fd) or protocol.reads._reader is loop, "it was lent, and is given back"
    return result


def test_a_reader_that_blocks_lends_what_it_reads_to_the_loop_on_which_it_waits(runner: asyncio.Runner, protocol: ProtocolSide) -> None:
    echo = protocol.echo()

    async def nested(depth: int) -> None:
        assert await reads_here(protocol, echo)
        if depth:
            block_on(lent(protocol, nested(depth - 1)))
            assert await reads_here(protocol, echo)

    async def scenario() -> None:
        assert await reads_here(protocol, echo)
        for _ in range(3):
            block_on(lent(protocol, nested(2)))
            assert protocol.reads._lent_to == []
        assert await reads_here(protocol, echo)

    runner.run(scenario())


@pytest.mark.parametrize("reader", [True, False], ids=["beside a reader", "without a reader"])
def test_a_thread_that_blocks_reads_when_nobody_else_does(runner: asyncio.Runner, protocol: ProtocolSide, reader: bool) -> None:
    async def scenario() -> None:
        echo, read_there = protocol.echo(), list[bool]()
        if reader:
            protocol.reads.adopt(asyncio.get_running_loop())

        def block() -> None:
            read_there.append(block_on(lent(protocol, reads_here(protocol, echo))))
            close_thread_loop()

        await asyncio.to_thread(block)
        assert read_there == [not reader]
        assert protocol.reads._lent_to == []
        assert await reads_here(protocol, echo)

    runner.run(scenario())


def test_an_interrupt_while_they_are_lent_gives_them_back(protocol: ProtocolSide) -> None:
    echo = protocol.echo()

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def interrupted() -> None:
        assert await reads_here(protocol, echo)
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.get_running_loop().create_future()

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            block_on(lent(protocol, interrupted()))
        assert protocol.reads._lent_to == []
    assert block_on(lent(protocol, reads_here(protocol, echo)))
    with asyncio.Runner() as runner:
        assert runner.run(reads_here(protocol, echo))


def test_a_loop_to_which_they_are_lent_does_not_become_the_reader(protocol: ProtocolSide) -> None:
    echo = protocol.echo()
    # As every loop does that waits for a result, it asks to be the reader.
    assert block_on(lent(protocol, reads_here(protocol, echo)))
    with asyncio.Runner() as runner:
        assert runner.run(reads_here(protocol, echo))


# -- the end of all


STATES = ["watching", "ticking", "reader runs", "reader has stopped", "reader is closed", "lent", "lent by the reader", "no stream"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", list(itertools.product(LOOPS, LOOPS)), ids=" and ".join)
def test_close_lets_go_of_everything(kind: tuple[str, str], state: str) -> None:
    before = open_fds()
    protocol = ProtocolSide(kind[0])
    reader = LOOPS[kind[1]]()
    reads = protocol.reads
    fd = reads._epoll.fileno()
    echo = protocol.echo() if state != "no stream" else None
    left = list[str]()

    async def closes() -> None:
        protocol.do(reads.close)

    try:
        if state not in ("watching", "no stream"):
            reader.run_until_complete(reads_here(protocol, echo))
        if state == "ticking":
            with protocol.lock:
                reads.leave_for_tick(lambda: left.append("it"))
        if state == "reader is closed":
            reader.close()
        if state == "reader runs":
            reader.run_until_complete(closes())
        elif state == "lent":
            reader.close()
            block_on(lent(protocol, closes()))
        elif state == "lent by the reader":
            reader.call_soon(lambda: (block_on(lent(protocol, closes())), reader.stop()))
            reader.run_forever()
        else:
            protocol.do(reads.close)
        protocol.do(reads.close)  # A second time does nothing.
        if not reader.is_closed():
            reader.run_until_complete(asyncio.sleep(0))
        assert reads._epoll.closed
        assert not protocol.do(lambda: protocol.loop.remove_reader(fd))
        assert reader.is_closed() or not reader.remove_reader(fd)
        with protocol.lock:
            reads.leave_for_tick(lambda: left.append("too late"))
            reads.adopt(reader)
        ticks = reads.ticks
    finally:
        protocol.close()
        reader.close()
        close_thread_loop()
    assert reads.ticks <= ticks + 2
    assert "too late" not in left
    assert open_fds() == before


def test_close_bears_a_reader_that_is_closed_in_the_same_moment() -> None:
    class Closes(asyncio.SelectorEventLoop):
        """It says that it runs, and is closed before it can be told anything."""

        asked_next = False

        def is_running(self) -> bool:
            if self.asked_next:
                self.asked_next = False
                self.close()
                return True
            return super().is_running()

    protocol = ProtocolSide("uvloop")
    reader = Closes()

    async def adopt() -> None:
        protocol.reads.adopt(asyncio.get_running_loop())

    try:
        reader.run_until_complete(adopt())
        reader.asked_next = True
        protocol.do(protocol.reads.close)
        assert reader.is_closed()
        assert protocol.reads._epoll.closed
    finally:
        protocol.close()


def test_sr_5_the_main_thread_is_no_reader_where_ctrl_c_may_tear_it() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    loops = asyncio.new_event_loop(), asyncio.new_event_loop()
    reads = SharedReads(loops[0], threading.RLock())
    try:
        reads.adopt(loops[1])
        assert not reads._has_reader()
        with reads.lent(loops[1]):
            assert reads._lent_to == []
        elsewhere = threading.Thread(target=reads.adopt, args=(loops[1],))
        elsewhere.start()
        elsewhere.join()
        assert reads._has_reader(), "other threads are never hit"
    finally:
        reads.close()
        for loop in loops:
            loop.close()
