"""Turns of the loop for those who ask for what is ready: an `await` that never suspends would keep everybody else waiting.

A loop of such awaits could not be cancelled either, nor ended by Ctrl-C (SEMANTICS 2, 27). So what may be awaited without end gives the
loop a turn when the last one that was given on this thread is a while ago.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

TURN_S = 0.01
"""How long others may be kept waiting before they get a turn."""
SMALL_PUTS = 61
"""Small objects between two looks at the clock: each takes some microseconds, and the look would be a part of that which one can see. They
are counted by their indices, which calls take too. A prime: no steady mix of puts and calls misses it for ever."""


class Turns:
    """When the loop of each thread was given its last turn here."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._local = threading.local()

    def due(self) -> bool:
        """True when it is time for `give`."""
        now, local = self._monotonic(), self._local
        try:
            return now - local.given_at > TURN_S  # type: ignore[no-any-return]  # nothing on a thread's own has a type
        except AttributeError:
            local.given_at = now
            return False

    async def give(self) -> None:
        """Let the running loop do what else it has to do. Raises CancelledError where that was to cancel us."""
        await asyncio.sleep(0)
        self._local.given_at = self._monotonic()
