"""Loops that stay awake for what is about to come (see `policy.short_waits`): a caller for its answer, a worker for the next call."""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Callable
from typing import Any

from actorflow._core.policy.short_waits import ShortWaits


def pays() -> bool:
    """True where the one who answers has another core to run on."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1


class BusyPoll:
    """Keeps one loop turning for as long as `ShortWaits` says. Between two turns the loop does whatever else there is to do.

    `begin` on the loop, `end` on whichever thread reads the answer. Without a lock: when the two meet, the loop goes to sleep, no more.
    """

    __slots__ = ("_awaited", "_call_soon", "_context", "_monotonic", "_turning", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._call_soon = loop.call_soon
        self._context = contextvars.Context()
        self._waits = ShortWaits()
        self._awaited: asyncio.Future[Any] | None = None
        self._turning = False

    def begin(self, future: asyncio.Future[Any]) -> None:
        """`future` is about to be awaited."""
        awaited = self._awaited
        if awaited is not None and not awaited.done():
            self._awaited = None
            self._waits.give_up()
            return
        self._awaited = future
        if self._waits.begin(self._monotonic()) and not self._turning:
            self._turning = True
            self._call_soon(self._turn, context=self._context)

    def end(self, future: asyncio.Future[Any]) -> None:
        """It has its answer."""
        if future is self._awaited:
            self._awaited = None
            self._waits.end(self._monotonic())

    def _turn(self) -> None:
        awaited = self._awaited
        if awaited is None or awaited.done() or not self._waits.still(self._monotonic()):
            self._turning = False
        else:
            self._call_soon(self._turn, context=self._context)


class BusyTurns:
    """Keeps the loop of a worker turning after a turn in which it has read and run what came, for the next one. On that loop only."""

    __slots__ = ("_call_soon", "_context", "_monotonic", "_turning", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._call_soon = loop.call_soon
        self._context = contextvars.Context()
        self._waits = ShortWaits()
        self._turning = False

    def end(self) -> None:
        """Something has come."""
        self._waits.end(self._monotonic())

    def begin(self, *, alone: bool) -> None:
        """It has been dealt with, in the same turn. `alone`: it was one call (SW-3)."""
        if not alone:
            self._waits.give_up()
        elif self._waits.begin(self._monotonic()) and not self._turning:
            self._turning = True
            self._call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        if self._waits.still(self._monotonic()):
            self._call_soon(self._turn, context=self._context)
        else:
            self._turning = False
