"""The threads of an actor whose `def` methods run at the same time.

A thread that has ended a call takes the next one itself, and wakes another thread when calls are left that nobody is about to take. So
a thread that blocks, or computes for longer than the interpreter lets it, is followed by the next one, and so on up to the limit.

Several threads that run calls of a few microseconds would only take the interpreter away from each other, at the price of a change of
threads for each call. While calls end fast, `Pace` lets one thread run them, and another one looks on: it steps in when no call ends
for a while, and then all threads run calls again.

    CT-1  Calls start in the order in which they were put.
    CT-2  While a call is ready and fewer than `limit` threads run calls, a thread is on its way to it, or a thread looks on.
    CT-3  One that looks on steps in after LOOKS looks, WATCH_S each, in which no call has ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")

QUICK_S = 0.00005
"""Some five times what a short call takes. What takes longer is faster on many threads, if it waits or computes outside of Python."""
CROWD_S = 4 * QUICK_S
"""What the part of a call among many threads takes when it is worth a trial alone: short calls in a crowd wait for the interpreter."""
SAMPLE = 128
"""Calls that are looked at together: in one of them the thread may have to wait for the interpreter."""
SAMPLE_MAX = 64 * SAMPLE
WATCH_S = 0.001
LOOKS = 5
"""So many milliseconds a thread may have to wait for the interpreter, or for a busy machine: its call does not block it."""


class Pace:
    """Whether one thread is enough, as the calls that end tell. Pure.

    Among many threads a call takes long for the others' sake, so how long it takes alone is found by trial: when SAMPLE calls end
    within SAMPLE * CROWD_S. The trial fails when a sample takes more than SAMPLE * QUICK_S, its longest call aside, and makes the next
    one come later, up to SAMPLE_MAX calls.
    """

    __slots__ = ("_calls", "_longest", "_sample", "_spent", "one_is_enough")

    def __init__(self) -> None:
        self.one_is_enough = False
        self._sample = SAMPLE
        self._begin_sample()

    def _begin_sample(self) -> None:
        self._calls, self._spent, self._longest = 0, 0.0, 0.0

    def ended(self, took_s: float, threads: int) -> None:
        """A call has ended. Beside it `threads` - 1 others ran calls."""
        if self.one_is_enough and threads > 1:
            return  # The others are on their way out.
        self._calls += 1
        self._spent += took_s / threads
        if self.one_is_enough:
            if took_s > self._longest:
                self._longest = took_s
            if self._spent - self._longest > SAMPLE * QUICK_S:
                self.stalled()
            elif self._calls >= SAMPLE:
                self._sample = SAMPLE
                self._begin_sample()
        elif self._calls >= self._sample:
            self.one_is_enough = self._spent < self._calls * CROWD_S
            self._begin_sample()

    def stalled(self) -> None:
        """One thread is not enough."""
        if self.one_is_enough:
            self.one_is_enough = False
            self._sample = min(2 * self._sample, SAMPLE_MAX)
        self._begin_sample()


class CallThreads(Generic[C]):
    """See the module. `run(call)` runs a call and returns the one that may start in its place, or None."""

    def __init__(self, limit: int, run: Callable[[C], C | None], name: str) -> None:
        self._limit = limit
        self._run = run
        self._name = name
        self._ready: deque[C] = deque()
        self._lock = threading.Lock()
        self._gate = threading.Semaphore(0)
        self._threads = 0
        self._idle = 0
        """Threads that wait at the gate and were not told to go."""
        self._busy = 0
        """Threads that run calls."""
        self._coming = False
        """A thread was told to go, or started, and has not arrived yet."""
        self._watched = False
        """One of those at the gate looks on."""
        self._pace = Pace()
        self._ended = 0
        self._ended_when_sent = 0
        self._closed = False

    def put(self, call: C) -> None:
        """Run `call` on one of the threads. Any thread."""
        with self._lock:
            self._ready.append(call)
            self._send_for_one()

    def close(self) -> None:
        """Let the threads go when they have nothing to do."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._gate.release()
            self._idle = 0

    def _send_for_one(self) -> None:
        if self._coming or not self._ready or (self._watched and self._one_is_enough()):
            return
        if self._idle:
            self._idle -= 1
            self._gate.release()
        elif self._threads < self._limit:
            try:
                threading.Thread(target=self._live, name=f"{self._name}-{self._threads + 1}", daemon=True).start()
            except RuntimeError:
                if not self._threads:
                    raise
                return  # The system gives no more threads: those that are there take it.
            self._threads += 1
        else:
            return  # All of them run calls: whoever is done first takes it.
        self._coming = True
        self._ended_when_sent = self._ended

    def _one_is_enough(self) -> bool:
        return self._busy > 0 and self._pace.one_is_enough and not self._closed

    def _live(self) -> None:
        try:
            self._work()
        finally:
            # It was closed, or `run` has failed: another thread may take its place.
            with self._lock:
                self._threads -= 1
                self._send_for_one()

    def _work(self) -> None:
        with self._lock:
            others_end_calls = self._arrived()
        while True:
            call = None
            with self._lock:
                if self._ready and not (others_end_calls and self._one_is_enough()):
                    call = self._ready.popleft()
                    self._busy += 1
                    ended = self._ended
                    self._send_for_one()
                elif self._closed:
                    return
                else:
                    self._idle += 1
            others_end_calls = self._wait() if call is None else self._run_one(call, ended)

    def _arrived(self) -> bool:
        """One that was sent for is here. Returns whether calls have ended since then."""
        self._coming = False
        return self._ended != self._ended_when_sent

    def _run_one(self, call: C, ended: int) -> bool:
        """Returns whether others have ended calls meanwhile."""
        following = None
        started = time.monotonic()
        try:
            following = self._run(call)
        finally:
            took_s = time.monotonic() - started
            with self._lock:
                others_end_calls = self._ended != ended
                self._pace.ended(took_s, self._busy)
                self._busy -= 1
                self._ended += 1
                if following is not None:
                    self._ready.append(following)
        return others_end_calls

    def _wait(self) -> bool:
        """Wait at the gate, and look on if nobody does and one is enough. Returns whether calls have ended since this one was sent for."""
        ended, looks = -1, 0
        while True:
            with self._lock:
                watches = not self._watched and self._one_is_enough() and (bool(self._ready) or self._ended != ended)
                self._watched |= watches
                ended = self._ended
            told = self._gate.acquire(timeout=WATCH_S if watches else None)
            with self._lock:
                if watches:
                    self._watched = False
                if told or self._gate.acquire(blocking=False):
                    return self._arrived()
                looks = looks + 1 if self._ended == ended else 0
                if self._ready and looks >= LOOKS:
                    self._idle -= 1
                    self._pace.stalled()
                    return False
