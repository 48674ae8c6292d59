"""The arena port under simulation: the memory of a machine is one mapping that its processes share.

SA-1: released memory is overwritten with `POISON`, so that whoever still reads it sees nonsense. SA-2: a
range that a living process has a read-only view of is not released: outside, its content would change
under the reader. Writable views are exempt: a process holds one of the extent it allocates in for long.
SA-3: `on_gone` is not called for the views of a dead process.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Callable
from typing import Any

from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.host import Host

POISON = 0xDB
POISON_ALL_BYTES_MAX = 1 << 20
"""Of larger ranges only the ends are overwritten, that much of each."""


class _Memory:
    """What all arenas of a machine share."""

    def __init__(self, size: int) -> None:
        # One more, so that an empty view at the end has something to point at. Pages that are never touched cost nothing.
        self.data = mmap.mmap(-1, size + 1)
        self.live: dict[int, tuple[int, int, bool, Host | None]] = {}
        """The windows that exist: offset, end, writable, and the process that has it."""
        self.numbers = 0


class _Watch(weakref.ref[Any]):
    """A weak reference to a window that knows what to do when the window is gone."""

    __slots__ = ("action",)
    action: Callable[[], None]


class SimArena:
    """An Arena for one process. `SimArena(size, host)` makes new memory; `attach(other_host)` maps the
    same.
    """

    size: int

    def __init__(self, size: int, host: Host | None = None, *, _memory: _Memory | None = None) -> None:
        self.size = size
        self.host = host
        self._memory = _memory or _Memory(size)
        self._watches: dict[int, _Watch] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"SimArena({self.size} bytes, {self.host})"

    def attach(self, host: Host) -> SimArena:
        """Return the same memory as another process of the machine sees it."""
        return SimArena(self.size, host, _memory=self._memory)

    def view(self, offset: int, size: int, *, writable: bool = False) -> memoryview:
        """See ports.Arena."""
        self._check_range(offset, size)
        if self._closed:
            raise ValueError("the arena is closed")
        memory = self._memory
        # A ctypes array offers memory of another object as a buffer, and it can be watched by a weak
        # reference.
        window = (ctypes.c_ubyte * max(size, 1)).from_buffer(memory.data, offset)
        memory.numbers += 1
        number = memory.numbers
        memory.live[number] = (offset, offset + size, writable, self.host)
        self._when_gone(window, lambda: memory.live.pop(number, None))
        view = memoryview(window).cast("B")[:size]
        return view if writable else view.toreadonly()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """See ports.Arena."""
        self._check_range(offset, len(data))
        self._memory.data[offset : offset + len(data)] = bytes(data)

    def skew(self, data: bytes | memoryview) -> int:
        """See ports.Arena: addresses are another in every run, and must not show."""
        return 0

    def prefault(self, offset: int, size: int) -> None:
        """See ports.Arena: there is nothing to be made resident."""

    def watch(self, view: memoryview, on_gone: Callable[[], None]) -> None:
        """See ports.Arena."""
        if not isinstance(view.obj, ctypes.Array):
            raise TypeError("only a view made by this arena can be watched")
        self._when_gone(view.obj, on_gone)

    def release(self, offset: int, size: int) -> None:
        """See ports.Arena."""
        self._check_range(offset, size)
        end = offset + size
        for start, stop, writable, host in self._memory.live.values():
            if not writable and start < end and offset < stop and (host is None or host.alive):
                raise SimulationMisuse(
                    f"SA-2: [{offset}, {end}) is released while {host} reads [{start}, {stop})"
                )
        first, last = end, offset
        if size > 2 * POISON_ALL_BYTES_MAX:
            first, last = offset + POISON_ALL_BYTES_MAX, end - POISON_ALL_BYTES_MAX
        self._poison(offset, first)
        self._poison(max(last, first), end)

    def close(self) -> None:
        """See ports.Arena."""
        self._closed = True

    def live_views(self) -> list[tuple[int, int]]:
        """Offset and end of every view that a living process has, for leak checks."""
        live = self._memory.live.values()
        return [(start, stop) for start, stop, _, host in live if host is None or host.alive]

    def _check_range(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"[{offset}, {offset + size}) is outside of an arena of {self.size} bytes")

    def _poison(self, start: int, stop: int) -> None:
        self._memory.data[start:stop] = bytes([POISON]) * (stop - start)

    def _when_gone(self, window: Any, action: Callable[[], object]) -> None:
        watch = _Watch(window, self._gone)
        watch.action = action  # type: ignore[assignment]
        self._watches[id(watch)] = watch  # a weak reference calls back only while it lives itself

    def _gone(self, watch: weakref.ref[Any]) -> None:
        action = self._watches.pop(id(watch)).action
        if self.host is None or self.host.alive:
            action()
