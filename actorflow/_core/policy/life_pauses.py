"""How long to wait before the next life of a process that has ended before its time. Pure.

PB-1: one that had answered for STEADY_S is followed at once, however often.
PB-2: the pauses after others double up to PAUSE_MAX_S: one that cannot live does not use up a core.
"""

from __future__ import annotations

STEADY_S = 1.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.02, 2.0


class LifePauses:
    """The pauses between the lives of one process."""

    __slots__ = ("_next_s",)

    def __init__(self) -> None:
        self._next_s = PAUSE_FIRST_S

    def after(self, answered_s: float) -> float:
        """The pause in seconds after a life that was ready for `answered_s` seconds; 0 for one that never was."""
        if answered_s >= STEADY_S:
            self._next_s = PAUSE_FIRST_S
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, PAUSE_MAX_S)
        return pause_s
