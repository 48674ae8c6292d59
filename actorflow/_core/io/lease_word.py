"""Until when the processes of a node may act: one number that the node writes, and each of its workers reads without asking anybody (LV-7).

It lies in a page of memory that the node's process makes before it forks: the zygote has it from there, and every worker from the zygote.
"""

from __future__ import annotations

import math
import mmap
import time


class LeaseWord:
    """A moment of CLOCK_MONOTONIC, which is one clock for the whole machine; 0: there is no lease, and it never ends."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._until = memoryview(self._page).cast("d")  # Written and read whole: eight bytes at the beginning of a page.

    def extend(self, until: float) -> None:
        """The node may act until then."""
        self._until[0] = until

    def left_s(self) -> float:
        """How much longer this node's workers may act, in seconds; not positive when it is over."""
        until = self._until[0]
        return until - time.monotonic() if until else math.inf


_word: LeaseWord | None = None


def make() -> LeaseWord:
    """The one of this node: made before anything is forked."""
    global _word
    if _word is None:
        _word = LeaseWord()
    return _word


def inherited() -> LeaseWord | None:
    """The one of the node that this process is of; None where none was made."""
    return _word
