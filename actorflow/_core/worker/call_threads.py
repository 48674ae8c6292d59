"""The threads of an actor whose `def` methods run at the same time.

A thread that has ended a call takes the next one itself, and wakes another thread only when calls are left that nobody is about to
take. So short calls run one after the other on one thread, at the price of no change of threads; as soon as one blocks, or computes for
longer than the interpreter lets it, the next thread goes on, wakes the one after it, and so on up to the limit.

    CT-1  Calls start in the order in which they were put.
    CT-2  While a call is ready and fewer than `limit` threads run calls, a thread is on its way to it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


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
        self._coming = False
        """A thread was told to go, or started, and has not taken a call yet."""
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
        if self._coming or not self._ready:
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

    def _live(self) -> None:
        try:
            self._work()
        finally:
            # It was closed, or `run` has failed: another thread may take its place.
            with self._lock:
                self._threads -= 1
                self._send_for_one()

    def _work(self) -> None:
        arrived = True
        while True:
            with self._lock:
                if arrived:
                    self._coming = False
                if self._ready:
                    call = self._ready.popleft()
                    self._send_for_one()
                elif self._closed:
                    return
                else:
                    call = None
                    self._idle += 1
            arrived = call is None
            if call is None:
                self._gate.acquire()
                continue
            following = self._run(call)
            if following is not None:
                with self._lock:
                    self._ready.append(following)
            del call, following
