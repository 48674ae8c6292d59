"""How long to wait before a connection that broke is made again, where the last ones broke as soon as they were there. Pure.

A single reset costs nothing but a connect: the next one is tried at once. A middlebox, or a process that has run out of something, may
let every connection come up and reset it then; without a pause that would be a loop of handshakes that leaves nobody time for anything.

    LR-1  A connection that lived LIVED_S, or brought something, is a good one: after it the next is tried at once.
    LR-2  After each further one that was not, the pause is as long as the one before or longer, and never over the last of PAUSES_S.
"""

from __future__ import annotations

LIVED_S = 1.0
PAUSES_S = (0.0, 0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Before the connection after the first, second... that broke in a row; the last one stays. Two close together are nothing unusual."""


class LinkResets:
    """The connections of one link, from the side that makes them."""

    __slots__ = ("_frames", "_in_a_row", "_up_at")

    def __init__(self) -> None:
        self._in_a_row = 0
        self._up_at: float | None = None
        self._frames = 0

    def up(self, frames: int, now: float) -> None:
        """The conversation goes on by a new connection; `frames` have arrived in it so far."""
        self._up_at = now
        self._frames = frames

    def broke(self, frames: int, now: float) -> None:
        """The connection broke; a no-op for one that never was up: that is another trouble, with pauses of its own."""
        if self._up_at is None:
            return
        good = now - self._up_at >= LIVED_S or frames > self._frames
        self._in_a_row = 1 if good else self._in_a_row + 1
        self._up_at = None

    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return PAUSES_S[min(max(self._in_a_row, 1), len(PAUSES_S)) - 1]
