"""How much of large values may be under way over one link, in which parts, and whose part is next. Pure.

A driver from outside and its node have one link for everything. So a value goes in parts, and only so many bytes are on their way at a
time that what is said meanwhile waits a few milliseconds behind them, and not for the whole value. How many that are depends on the way:
the window grows while parts arrive about as fast as the fastest did, and shrinks when they begin to queue somewhere.

    PW-1  Never more than the window is under way, and the window is never over WINDOW_BYTES_MAX: that bounds what either side and all
          between them keep. A part is sent when nothing is under way, however small the window.
    PW-2  Values take turns, a part each: a small one does not wait for the end of a large one.
    PW-3  What was dropped counts as under way until the other side has taken it: to begin and give up again and again fills nothing.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

PART_BYTES_MIN = 32 * 1024
PART_BYTES_MAX = 256 * 1024
WINDOW_BYTES_MIN = 4 * PART_BYTES_MIN
WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""Far below what a link keeps for the case that its connection breaks (protocol/links.py)."""
WINDOW_PARTS = 8
"""The window in parts, between the smallest and the largest part: several are under way, so the link is never idle between two."""
QUEUE_S = 0.01
"""So much longer than the fastest a part may take; what else is said on the link waits about as long."""
FASTEST_KEPT_S = 10.0
"""For so long, up to twice that, the fastest part counts: the way may have become another one."""
SHRINK = 0.75
GROWTH = 0.125
"""Of what has been taken; all of it until the window has shrunk for the first time."""


class PartWindow:
    """The window of one direction of one link."""

    def __init__(self) -> None:
        self.bytes = WINDOW_BYTES_MIN
        self.sent = 0
        """Bytes, ever."""
        self.taken = 0
        """... that the other side has taken."""
        self._parts: deque[tuple[int, float]] = deque()
        """The parts under way: where `sent` was behind each, and when that was."""
        self._fastest_s = [float("inf"), float("inf")]
        """Of this period and the one before."""
        self._period_ends_at = 0.0
        self._growth = 1.0
        self._shrunk_at = 0
        """`sent` when it last shrank: what was sent before says nothing about the new window."""

    @property
    def under_way(self) -> int:
        """Bytes that the other side has not taken yet."""
        return self.sent - self.taken

    @property
    def part_bytes(self) -> int:
        """How large the next part should be."""
        return min(max(self.bytes // WINDOW_PARTS, PART_BYTES_MIN), PART_BYTES_MAX)

    def has_room(self, size: int) -> bool:
        """PW-1."""
        return self.sent == self.taken or self.sent - self.taken + size <= self.bytes

    def add(self, size: int, now: float) -> None:
        """A part is sent."""
        self.sent += size
        self._parts.append((self.sent, now))

    def take(self, taken: int, now: float) -> None:
        """The other side has taken so many bytes in all. Raises ValueError when that cannot be."""
        if not self.taken <= taken <= self.sent:
            raise ValueError(f"{taken} bytes of parts are said to be taken, of {self.sent} that were sent; {self.taken} were before")
        was_full = self.under_way >= self.bytes // 2
        news, self.taken = taken - self.taken, taken
        sent_at = None
        while self._parts and self._parts[0][0] <= taken:
            sent_at = self._parts.popleft()[1]
        if sent_at is not None:
            self._adapt(now - sent_at, news, now, was_full=was_full)

    def _adapt(self, took_s: float, news: int, now: float, *, was_full: bool) -> None:
        if now >= self._period_ends_at:
            self._fastest_s = [float("inf"), self._fastest_s[0]]
            self._period_ends_at = now + FASTEST_KEPT_S
        self._fastest_s[0] = min(self._fastest_s[0], took_s)
        if took_s <= min(self._fastest_s) + QUEUE_S:
            if was_full:  # A window that is not used says nothing about a larger one.
                self.bytes = min(self.bytes + int(news * self._growth), WINDOW_BYTES_MAX)
        elif self.taken > self._shrunk_at:
            self.bytes = max(int(self.bytes * SHRINK), WINDOW_BYTES_MIN)
            self._growth = GROWTH
            self._shrunk_at = self.sent


class Piece(NamedTuple):
    """What to send next: `length` bytes of a value from `start` on. `last`: it has no more after these."""

    key: int
    start: int
    length: int
    last: bool


class PartQueue:
    """The values that one side sends over one link, in one direction, by keys of its own."""

    def __init__(self) -> None:
        self.window = PartWindow()
        self._turns: deque[int] = deque()
        self._left: dict[int, tuple[int, int]] = {}
        """Where each value goes on, and where it ends; of those that are not all sent."""
        self._ends: deque[tuple[int, int]] = deque()
        """Values that are all sent, in that order: what `taken` will be when the other side has all of them."""

    def __len__(self) -> int:
        """Values that are not all sent."""
        return len(self._left)

    def begin(self, key: int, size: int) -> None:
        """A value of `size` bytes is to be sent."""
        assert key not in self._left, "a value is begun once"
        assert size > 0, "a value is not empty: it has a pickle"
        self._left[key] = (0, size)
        self._turns.append(key)

    def drop(self, key: int) -> None:
        """No more of this value is wanted; a no-op when all of it is sent (PW-3)."""
        if self._left.pop(key, None) is not None:
            self._turns.remove(key)

    def next(self, now: float) -> Piece | None:
        """The next part to send, now; None when nothing is left, or the window is full (PW-1)."""
        if not self._turns:
            return None
        key = self._turns[0]
        start, end = self._left[key]
        length = min(self.window.part_bytes, end - start)
        if not self.window.has_room(length):
            return None
        self.window.add(length, now)
        self._turns.popleft()
        last = start + length == end
        if last:
            del self._left[key]
            self._ends.append((self.window.sent, key))
        else:
            self._left[key] = (start + length, end)
            self._turns.append(key)  # PW-2
        return Piece(key, start, length, last)

    def take(self, taken: int, now: float) -> list[int]:
        """The other side has taken so many bytes in all. Returns the values that it has now. Raises ValueError when that cannot be."""
        self.window.take(taken, now)
        done = []
        while self._ends and self._ends[0][0] <= taken:
            done.append(self._ends.popleft()[1])
        return done
