"""Notebooks: a loop runs in every cell, and Ctrl-C is a signal that the kernel gets (SEMANTICS 28)."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

TICK_S = 0.2
"""How long an interrupt may go unnoticed by a loop that sleeps in the kernel of the system."""


def in_notebook() -> bool:
    """True in the kernel of a notebook. IPython in a terminal runs no loop beside the cells, and is plain code."""
    ipython = sys.modules.get("IPython")
    get_ipython = getattr(ipython, "get_ipython", None)
    return get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None


@contextmanager
def interruptible() -> Generator[None]:
    """While this thread blocks in a cell, an interrupt raises KeyboardInterrupt there.

    In a cell that awaits, the kernel's own handler asks the loop to cancel the cell: the loop that stands still meanwhile.
    """
    theirs = signal.getsignal(signal.SIGINT) if in_notebook() and threading.current_thread() is threading.main_thread() else None
    # Between cells the kernel ignores interrupts: what blocks then is nobody's cell.
    if not callable(theirs) or theirs is signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, theirs)


class Ticker:
    """Wakes a loop every TICK_S while something of ours is awaited on it, so that Python gets to look for signals."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._awaited: list[asyncio.Future[Any]] = []
        self._ticking = False

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Tick until this is done. On the loop."""
        self._awaited.append(future)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._awaited = [future for future in self._awaited if not future.done()]
        self._ticking = bool(self._awaited)
        if self._ticking:
            self._loop.call_later(TICK_S, self._tick)
