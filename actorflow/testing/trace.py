"""The trace of a simulation: a running hash of all that happened, and the last things that did, in words.

Two runs of one seed must have the same digest; where they do not, something real leaked in. What leaks, and
the cure:

* iteration over a `set` (or anything else ordered by `hash` or `id`): of strings it depends on
  PYTHONHASHSEED, of objects on their addresses. Iterate over dicts and lists; a dict keeps the order of
  insertion. Futures and tasks of a simulated loop hash by a number of their world, so sets of those are safe
  (`asyncio.wait`, `TaskGroup`).
* state of modules and classes: all simulated processes share it, and it outlives a run. A cache that only
  saves time is harmless; one that changes what is said (a measured average) is not.
* `time`, `random`, `uuid`, `secrets`, `os.urandom`: use the clock
  and the generator of the ports. * an address in a text that is sent (`<object at 0x7f...>`). * the
  cyclic garbage collector, when `__del__` does something: a world switches it off and collects at fixed
  steps.

To compare digests of two interpreter runs, start both with the same PYTHONHASHSEED.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any
from zlib import crc32

ENTRIES_MAX = 2_000


class Trace:
    """Hash and tail of one simulation.

    The hash takes every handle (which host, at what time), every delivery of bytes (to whom, how many,
    their checksum) and every note (faults, processes, what tests add). The tail keeps notes and
    deliveries, and handles too when `detail` is set: replay a failing seed with it.
    """

    __slots__ = ("detail", "entries", "noted", "state")

    def __init__(self, detail: bool = False, entries_max: int = ENTRIES_MAX) -> None:
        self.detail = detail
        self.entries: deque[tuple[float, str, str]] = deque(maxlen=entries_max)
        self.state = 0
        """The running hash. The world mixes handles in by itself, where a call would cost too much."""
        self.noted = 0

    @property
    def digest(self) -> str:
        """The hash so far, as 16 hex digits."""
        return f"{self.state & 0xFFFF_FFFF_FFFF_FFFF:016x}"

    def note(self, now: float, who: str, what: str) -> None:
        """Record something rare, in words."""
        self.noted += 1
        self.state = hash((self.state, now, crc32(f"{who} {what}".encode())))
        self.entries.append((now, who, what))

    def message(self, now: float, index: int, who: str, data: bytes) -> None:
        """Record that `data` arrived at the host with this index and name."""
        self.state = hash((self.state, now, index, len(data), crc32(data)))
        self.entries.append((now, who, f"got {len(data)} bytes"))

    def handle(self, now: float, who: str, callback: object) -> None:
        """Keep a handle in the tail (`detail` only; the world has hashed it)."""
        task: Any = getattr(callback, "__self__", None)
        if hasattr(task, "get_name"):
            name = task.get_name()
        else:
            name = getattr(callback, "__qualname__", type(callback).__name__)
        self.entries.append((now, who, f"runs {name}"))

    def tail(self, lines: int = 40) -> str:
        """The last entries, one a line, oldest first."""
        last = list(self.entries)[-lines:]
        return "\n".join(f"  {now:12.6f} {who}: {what}" for now, who, what in last)


def hash_seed_is_fixed() -> bool:
    """True when string hashes are the same in every run of the interpreter (PYTHONHASHSEED is set)."""
    return os.environ.get("PYTHONHASHSEED", "random") != "random"
