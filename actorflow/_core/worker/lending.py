"""The CPU of a worker whose running code waits for other results: it is lent meanwhile, and taken back on waking (SEMANTICS 24)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actorflow._core.protocol import messages as m
from actorflow._core.worker.context import RunningCall, running_call

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host

BLOCKED_S = 0.002
"""How long all running code must wait before the CPU is lent to others."""


class Lending:
    """Counts the calls that run in a worker that holds a CPU, and those of them that wait."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.running = 0
        self.waiting = 0
        self.told = False
        """The node knows that all of them wait."""
        self._all_wait_since = 0.0
        self._looking = False

    def begin(self) -> None:
        """A call runs."""
        with self._host.core.lock:
            self.running += 1

    def end(self) -> None:
        """It does not any more."""
        with self._host.core.lock:
            self.running -= 1

    async def wait(self, future: asyncio.Future[None]) -> None:
        """Await something that other work must finish."""
        call = running_call.get()
        if call is None or not self._host.holds_cpu:
            await future
            return
        with self._host.core.lock:
            self._waits(call)
        try:
            await future
        finally:
            with self._host.core.lock:
                self._goes_on(call)

    def _waits(self, call: RunningCall) -> None:
        call.blocked += 1
        if call.blocked > 1:
            return
        self.waiting += 1
        if self.waiting == self.running and not self.told:
            self._all_wait_since = self._host.core.ports.monotonic()
            if not self._looking:
                # One timer at a time, however often the code waits: to set it wakes the protocol's thread.
                self._looking = True
                self._host.core.later(BLOCKED_S, self._look)

    def _goes_on(self, call: RunningCall) -> None:
        call.blocked -= 1
        if call.blocked:
            return
        self.waiting -= 1
        if self.told:
            self.told = False
            self._host.core.node.send(m.Unblocked())

    def _look(self) -> None:
        self._looking = False
        if not self.waiting or self.waiting != self.running or self.told:
            return
        core = self._host.core
        left_s = self._all_wait_since + BLOCKED_S - core.ports.monotonic()
        if left_s > BLOCKED_S / 10:
            self._looking = True
            core.later(left_s, self._look)
        else:
            self.told = True
            core.node.send(m.Blocked())
            self._host.waiting_tasks.give_back()
