"""Waking those who wait: asyncio code on any loop, blocked threads, and our own callbacks, all for a settled object."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from actorflow._core.io.busy_poll import BusyPoll
from actorflow._core.io.notebook import Ticker
from actorflow._core.policy.work_list import WorkList

_running_loop = asyncio._get_running_loop


class Waiter(Protocol):
    """Stands in the waiter list of an entry. Called once per entry, under the ports' lock, on any thread."""

    def settled(self, entry: Any) -> None:
        """The entry has an outcome now."""


class LoopGate:
    """Carries wake-ups to one event loop, many in one go (SEMANTICS 9); on that loop itself there is nothing to carry."""

    __slots__ = ("_lock", "_scheduled", "_woken", "busy_poll", "loop", "ticker")

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: AbstractContextManager[Any]) -> None:
        self.loop = loop
        self._lock = lock
        self._woken: list[asyncio.Future[None]] = []
        self._scheduled = False
        self.ticker: Ticker | None = None
        """In a notebook: what keeps the loop able to notice an interrupt while something is awaited (SEMANTICS 28)."""
        self.busy_poll: BusyPoll | None = None
        """Keeps the loop awake for an answer that comes at once, where that pays."""

    def wake(self, future: asyncio.Future[None]) -> None:
        """Set `future` on its own loop. The lock is held."""
        if _running_loop() is self.loop:
            if not future.done():
                future.set_result(None)
            return
        self._woken.append(future)
        if self._scheduled:
            return
        self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            # The loop is closed: whoever waited there is gone with it.
            self._woken.clear()

    def _run(self) -> None:
        with self._lock:
            woken, self._woken = self._woken, []
            self._scheduled = False
        for future in woken:
            if not future.done():
                future.set_result(None)


class Gates:
    """The gate of each loop that waits. One per runtime. `on_new`: called with the gate of a loop that waits here for the first time."""

    def __init__(
        self, lock: AbstractContextManager[Any], on_new: Callable[[LoopGate], None] | None = None
    ) -> None:
        self._lock = lock
        self._on_new = on_new
        self._gates: dict[int, LoopGate] = {}
        self._local = threading.local()

    def current(self) -> LoopGate:
        """The gate of the running loop. Raises RuntimeError when no loop runs on this thread."""
        loop = asyncio.get_running_loop()
        gate: LoopGate | None = getattr(self._local, "gate", None)
        if gate is not None and gate.loop is loop:
            return gate
        with self._lock:
            gate = self._gates.get(id(loop))
            if gate is None or gate.loop is not loop:
                self._gates = {key: old for key, old in self._gates.items() if not old.loop.is_closed()}
                gate = self._gates[id(loop)] = LoopGate(loop, self._lock)
                if self._on_new is not None:
                    self._on_new(gate)
        self._local.gate = gate
        return gate


class FutureWaiter:
    """One future for one entry."""

    __slots__ = ("future", "gate")

    def __init__(self, gate: LoopGate) -> None:
        self.gate = gate
        self.future: asyncio.Future[None] = gate.loop.create_future()
        if gate.ticker is not None:
            gate.ticker.watch(self.future)
        if gate.busy_poll is not None:
            gate.busy_poll.begin(self.future)

    def settled(self, entry: Any) -> None:
        """See Waiter."""
        if self.gate.busy_poll is not None:
            self.gate.busy_poll.end(self.future)
        self.gate.wake(self.future)


class Countdown:
    """One future for many entries: set when `left` of them are settled."""

    __slots__ = ("future", "gate", "left")

    def __init__(self, gate: LoopGate, left: int) -> None:
        self.gate = gate
        self.left = left
        self.future: asyncio.Future[None] = gate.loop.create_future()
        if gate.ticker is not None:
            gate.ticker.watch(self.future)

    def settled(self, entry: Any) -> None:
        """See Waiter."""
        self.left -= 1
        if self.left == 0:
            self.gate.wake(self.future)


class Dependent:
    """What goes on when the entry is settled and may settle others by that, such as a call that takes it as an argument.

    It only goes on the list: whoever settles runs that when all who wait for the entry have been told. So a chain of calls whose root
    fails ends link by link, and not in a recursion as deep as it is long.
    """

    __slots__ = ("_fn", "_ready")

    def __init__(self, fn: Callable[[], None], ready: WorkList[Callable[[], None]]) -> None:
        self._fn = fn
        self._ready = ready

    def settled(self, entry: Any) -> None:
        """See Waiter."""
        self._ready.add(self._fn)


class Callback:
    """A plain function, called under the lock. It must not settle anything: see Dependent."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[Any], None]) -> None:
        self.fn = fn

    def settled(self, entry: Any) -> None:
        """See Waiter."""
        self.fn(entry)
