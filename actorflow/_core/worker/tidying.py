"""Collecting garbage in a worker that has nothing to do.

A failed call leaves cycles: an exception, its traceback, the frames, and what they refer to, handles and references among it. The
collector comes by when enough has been allocated, and in a worker that is idle nothing is: what nobody can reach would be kept alive
elsewhere for as long as the worker waits.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host

IDLE_S = 0.05


class Tidying:
    """Looks after a worker when calls have failed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._due = False

    def call_failed(self) -> None:
        """There may be cycles. Any thread, under the lock."""
        if not self._due:
            self._due = True
            self._host.core.later(IDLE_S, self._look)

    def _look(self) -> None:
        if self._host.calls:
            self._host.core.later(IDLE_S, self._look)
        else:
            self._due = False
            self._host.executor.submit(self._collect)

    def _collect(self) -> None:
        """On the user's thread: finalizers of the user's may run. Old objects stay unlooked at: what has just failed is young."""
        gc.collect(1)
