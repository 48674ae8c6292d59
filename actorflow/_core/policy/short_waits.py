"""How long a loop that waits for one answer stays awake for it. Pure.

To be woken costs a waiting process more than most answers take to come: the system puts the core to sleep, and gets it up again. A loop
that calls one method after the other may as well stay awake for the next answer. Whether it pays is told by the waits before.

SW-1: nobody stays awake but after SHORT_IN_A_ROW waits of less than SHORT_S each, one after the other.
SW-2: nobody stays awake longer than SHORT_S for one answer; the wait that took longer ends the row.
SW-3: nobody stays awake while two wait at once: such a loop has other things to do, and that ends the row as well. Neither does a worker
      that has two calls at once: who sends them does not wait for each answer.
"""

from __future__ import annotations

SHORT_S = 0.0002
"""An answer that comes at once takes some 100 µs when the caller stays awake, and up to twice that when it has to be woken for it."""
SHORT_IN_A_ROW = 4


class ShortWaits:
    """The waits of one loop. Each is begun, then ended or given up."""

    __slots__ = ("_in_a_row", "_since")

    def __init__(self) -> None:
        self._in_a_row = 0
        self._since = 0.0

    def begin(self, now: float) -> bool:
        """One waits, and nobody else does. True: stay awake, and ask `still` from time to time."""
        self._since = now
        return self._in_a_row >= SHORT_IN_A_ROW

    def still(self, now: float) -> bool:
        """Whether to stay awake any longer for the answer that has not come yet."""
        if self._in_a_row and now - self._since < SHORT_S:
            return True
        self._in_a_row = 0
        return False

    def end(self, now: float) -> None:
        """The answer has come."""
        self._in_a_row = self._in_a_row + 1 if now - self._since < SHORT_S else 0

    def give_up(self) -> None:
        """Nothing can be told from this wait: a second one began beside it."""
        self._in_a_row = 0
