"""Free space of an arena: page-aligned extents, best fit, neighbours joined at once. Pure.

Free extents are kept in bins by size: exact below 16 pages, then 16 bins for each power of two. Within a
bin they are sorted, so the first that fits in its own bin, else the first of the next bin that is not
empty, is the best fit.

FS-1: the free extents do not overlap, do not touch, and lie inside the arena.
"""

from __future__ import annotations

from bisect import bisect_left, insort

PAGE_BYTES = 4096
_LINEAR = 16


def pages(size: int) -> int:
    """How many pages hold `size` bytes."""
    return -(-size // PAGE_BYTES)


def _bin(count: int) -> int:
    if count < _LINEAR:
        return count
    power = count.bit_length() - 5
    return power * _LINEAR + (count >> power)


class FreeSpace:
    """The free extents of an arena of `total` pages. Offsets and lengths in here are pages."""

    __slots__ = ("_bins", "_ends", "_filled", "_starts", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = 0
        self._bins: dict[int, list[tuple[int, int]]] = {}
        self._filled = 0  # bit n: bin n is not empty
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        if total:
            self._add(0, total)

    def take(self, count: int) -> int | None:
        """Take `count` pages and return the first, or None when no free extent is long enough."""
        assert count > 0, "FS-1: an extent has at least one page"
        own = _bin(count)
        in_bin = self._bins.get(own, [])
        at = bisect_left(in_bin, (count, 0))
        if at < len(in_bin):
            length, start = in_bin[at]
        else:
            larger = self._filled >> (own + 1)
            if not larger:
                return None
            length, start = self._bins[own + 1 + (larger & -larger).bit_length() - 1][0]
        self._remove(start, length)
        if length > count:
            self._add(start + count, length - count)
        return start

    def give(self, start: int, count: int) -> None:
        """Return pages, and join them with free neighbours."""
        before = self._ends.get(start)
        if before is not None:
            length = start - before
            self._remove(before, length)
            start, count = before, count + length
        after = self._starts.get(start + count)
        if after is not None:
            self._remove(start + count, after)
            count += after
        self._add(start, count)

    def largest(self) -> int:
        """The length of the longest free extent."""
        return self._bins[self._filled.bit_length() - 1][-1][0] if self._filled else 0

    def extents(self) -> list[tuple[int, int]]:
        """All free extents as (start, length), by start: for tests and the state API."""
        return sorted(self._starts.items())

    def _add(self, start: int, length: int) -> None:
        number = _bin(length)
        in_bin = self._bins.get(number)
        if in_bin is None:
            in_bin = self._bins[number] = []
        insort(in_bin, (length, start))
        self._filled |= 1 << number
        self._starts[start] = length
        self._ends[start + length] = start
        self.free += length

    def _remove(self, start: int, length: int) -> None:
        number = _bin(length)
        in_bin = self._bins[number]
        del in_bin[bisect_left(in_bin, (length, start))]
        if not in_bin:
            del self._bins[number]
            self._filled &= ~(1 << number)
        del self._starts[start], self._ends[start + length]
        self.free -= length
