"""The fence around user code, under a storm of signals: IR-1 to IR-6."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from actorflow._core.io.blocking import block_on
from actorflow._core.io.executor import INTERRUPT, MainThreadExecutor
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import EMPTY_ARGUMENTS
from actorflow._core.worker.context import RunningCall, running_call
from actorflow._core.worker.incoming import Incoming
from actorflow._core.worker.interrupts import Interrupts

STORM_S = 0.0001
RUNS = 4000


class Worker:
    """Just enough of a host and its core for the fence: this thread is the user's, another one stands for the protocol's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.executor = MainThreadExecutor(loop)
        self.core = SimpleNamespace(
            lock=threading.RLock(),
            blocker=block_on,
            later=lambda delay_s, fn: None,
            cancels=SimpleNamespace(grace_s=5.0, cancel_all=lambda children: None),
            ports=SimpleNamespace(monotonic=time.monotonic),
        )
        self.calls: dict[Any, Incoming] = {}
        self.worn: list[Incoming] = []
        self.waiting_tasks = self
        self.interrupts = Interrupts(self)  # type: ignore[arg-type]
        self.seq = 0

    def wear_out(self, incoming: Incoming) -> None:
        self.worn.append(incoming)

    def call(self) -> Incoming:
        self.seq += 1
        peer: Any = SimpleNamespace(process_id="owner")
        incoming = Incoming(peer, m.TaskCall(self.seq, 0, 1, "f", EMPTY_ARGUMENTS), None)
        incoming.running = RunningCall("owner", self.seq, 0, "f", "", None)
        self.calls[incoming.key] = incoming
        return incoming

    def cancel(self, incoming: Incoming) -> None:
        """What the protocol's thread does."""
        with self.core.lock:
            incoming.cancelled = True
            self.interrupts.cancel(incoming)


    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """The protocol's thread sends the signal again and again."""
        stop = threading.Event()

        def tick() -> None:
            while not stop.wait(0.002):
                self.executor.interrupt()

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def worker() -> Iterator[Worker]:
    handler, hook = signal.getsignal(INTERRUPT), sys.unraisablehook
    loop = asyncio.new_event_loop()
    worker = Worker(loop)
    worker.executor.take_signals()
    yield worker
    signal.signal(INTERRUPT, handler)
    sys.unraisablehook = hook
    loop.close()


def add_up(rng: random.Random) -> Callable[[], int]:
    many = rng.randrange(400)

    def code() -> int:
        total = 0
        while total < many:
            total += 1
        return many

    return code


def in_c(rng: random.Random) -> Callable[[], int]:
    many = rng.randrange(4000)

    def code() -> int:
        return len(sorted(range(many), reverse=True))

    return code


def nothing(rng: random.Random) -> Callable[[], int]:
    return int


def test_only_the_call_that_was_cancelled_is_interrupted_whenever_the_signals_come(worker: Worker) -> None:
    """IR-1, IR-2. Signals all the time, cancels at random moments, most of them late: every other call has its value."""
    rng = random.Random(5)
    stop = threading.Event()
    latest: list[Incoming] = []

    def storm() -> None:
        dice = random.Random(6)
        while not stop.is_set():
            worker.executor.interrupt()
            if latest and dice.random() < 0.2:
                worker.cancel(latest[-1])
            time.sleep(STORM_S)

    thread = threading.Thread(target=storm)
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(0.00005)
    thread.start()
    ends = {"value": 0, "cancelled": 0}
    try:
        for _ in range(RUNS):
            incoming = worker.call()
            code = rng.choice([add_up, in_c, nothing])(rng)
            if rng.random() < 0.5:
                latest[:] = [incoming]
            try:
                value = worker.interrupts.run(incoming, code)
            except asyncio.CancelledError:
                assert incoming.cancelled, "IR-1"
                ends["cancelled"] += 1
            else:
                assert value == code(), "IR-1"
                assert not incoming.told, "IR-5"
                ends["value"] += 1
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(switch_interval)
    assert sum(ends.values()) == RUNS
    assert ends["value"] > 0
    assert ends["cancelled"] > 0
    assert all(incoming.torn and incoming.cancelled for incoming in worker.worn), "IR-6"


def test_a_call_that_is_cancelled_before_its_code_begins_never_begins(worker: Worker) -> None:
    incoming = worker.call()
    worker.cancel(incoming)
    with pytest.raises(asyncio.CancelledError):
        worker.interrupts.run(incoming, lambda: pytest.fail("it began"))
    assert not worker.worn


def test_nothing_is_raised_under_the_lock(worker: Worker) -> None:
    """IR-3"""
    incoming = worker.call()
    whole: list[bool] = []

    def code() -> None:
        with worker.core.lock:
            worker.cancel(incoming)
            time.sleep(0.05)
            whole.append(not incoming.told)
        time.sleep(5)

    with worker.ticking(), pytest.raises(asyncio.CancelledError):
        worker.interrupts.run(incoming, code)
    assert whole == [True]


def test_code_that_does_little_else_than_call_ours_is_met_at_its_next_line(worker: Worker) -> None:
    """IR-2"""
    incoming = worker.call()
    ended: list[str] = []

    def code() -> None:
        with worker.core.lock:
            worker.cancel(incoming)
            time.sleep(0.01)
            signal.raise_signal(INTERRUPT)  # Here it must not be, and the next signal is a long time away.
        try:
            for _ in range(10):
                values.dumps_plain([1])
        finally:
            ended.append("finally")
        ended.append("too late")

    with pytest.raises(asyncio.CancelledError):
        worker.interrupts.run(incoming, code)
    assert ended in (["finally"], [])
    assert sys.gettrace() is None


def test_it_is_raised_once_and_cleanup_is_left_in_peace(worker: Worker) -> None:
    """IR-4, IR-5"""
    incoming = worker.call()
    cleaned: list[str] = []

    def code() -> str:
        try:
            worker.cancel(incoming)
            time.sleep(5)
        except asyncio.CancelledError:
            time.sleep(0.05)
            cleaned.append("all of it")
        return "swallowed"

    with worker.ticking(), pytest.raises(asyncio.CancelledError):
        worker.interrupts.run(incoming, code)
    assert cleaned == ["all of it"]
    assert worker.worn == [incoming]


def test_it_is_raised_again_when_a_del_has_swallowed_it(worker: Worker) -> None:
    """IR-4"""
    incoming = worker.call()

    class Dropped:
        def __del__(self) -> None:
            worker.cancel(incoming)
            time.sleep(5)

    def code() -> None:
        Dropped()
        time.sleep(5)

    began = time.monotonic()
    with worker.ticking(), pytest.raises(asyncio.CancelledError):
        worker.interrupts.run(incoming, code)
    assert time.monotonic() - began < 4


def test_blocked_in_af_sync_is_told_by_its_own_loop(worker: Worker) -> None:
    incoming = worker.call()
    running_call.set(incoming.running)

    timer = threading.Timer(0.02, worker.cancel, (incoming,))

    def code() -> str:
        timer.start()
        try:
            block_on(worker.interrupts.blocking(asyncio.sleep(5)))
        except asyncio.CancelledError:
            return "told"
        return "slept"

    try:
        with pytest.raises(asyncio.CancelledError):
            worker.interrupts.run(incoming, code)
    finally:
        running_call.set(None)
        timer.join()
    assert incoming.told
    assert not incoming.torn, "nothing was torn: the worker can be used again"


def test_whose_code_it_is(worker: Worker) -> None:
    """IR-2: the innermost frame that is somebody's decides; the standard library is whose who calls it."""
    seen: list[str] = []

    def look(number: int, frame: FrameType | None) -> None:
        seen.append(worker.interrupts._whose(frame))

    signal.signal(INTERRUPT, look)

    class Pickled:
        def __reduce__(self) -> Any:
            signal.raise_signal(INTERRUPT)
            return int, ()

    def code() -> None:
        signal.raise_signal(INTERRUPT)
        threading.Thread(target=int).start()  # The library's own frames below ours do no harm.
        values.dumps(Pickled(), "a value")
        asyncio.Future(loop=worker.executor.loop)

    worker.interrupts.run(worker.call(), code)
    signal.raise_signal(INTERRUPT)
    assert seen == ["user", "user", "ours"]
