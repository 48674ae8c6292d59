"""A worker's mailbox: which of the calls that arrived may start now. Pure.

Invariants:
MB-1  Calls of one group start in the order of their arrival (SEMANTICS 20).
MB-2  At most `limit` calls of a group run at a time.
MB-3  A call is started once or cancelled once, never both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

C = TypeVar("C")

NO_QUEUE: deque[Any] = deque(maxlen=0)
NOTHING: set[Hashable] = set()
"""Shared by all mailboxes where nothing waits, and never changed: empty ones of their own would take 1 KB an actor."""


class Group(Generic[C]):
    """Calls that share a concurrency limit."""

    __slots__ = ("limit", "queue", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.queue: deque[tuple[Hashable, C]] = NO_QUEUE


class Mailbox(Generic[C]):
    """The mailbox of one actor, or of a task worker. `limits`: calls that may run at a time, by group; "" is the default group."""

    __slots__ = ("_groups", "_withdrawn")

    def __init__(self, limits: dict[str, int]) -> None:
        self._groups: dict[str, Group[C]] = {name: Group(limit) for name, limit in limits.items()}
        self._withdrawn = NOTHING

    def offer(self, key: Hashable, call: C, group: str = "") -> bool:
        """A call arrived. True: start it now; False: it waits here. Raises KeyError for an unknown group."""
        room = self._groups[group]
        if room.running < room.limit and not room.queue:
            room.running += 1
            return True
        if room.queue is NO_QUEUE:
            room.queue = deque()
        room.queue.append((key, call))
        return False

    def finished(self, group: str = "") -> C | None:
        """A running call ended. Returns the next one, which starts in its place, or None."""
        room = self._groups[group]
        assert room.running > 0, "MB-2: more calls ended than started"
        withdrawn = self._withdrawn
        while room.queue:
            key, call = room.queue.popleft()
            if withdrawn and key in withdrawn:
                withdrawn.discard(key)
                continue
            return call
        room.running -= 1
        return None

    def withdraw(self, key: Hashable) -> C | None:
        """Take a waiting call out (it was cancelled or given back). None when it is not waiting: it runs, ended, or never came."""
        for room in self._groups.values():
            for waiting, call in room.queue:
                if waiting == key and key not in self._withdrawn:
                    if self._withdrawn is NOTHING:
                        self._withdrawn = set()
                    self._withdrawn.add(key)
                    return call
        return None

    def take_waiting(self, group: str = "") -> list[C]:
        """Take out all calls of a group that have not started, in order."""
        room = self._groups[group]
        calls = [call for key, call in room.queue if key not in self._withdrawn]
        for key, _ in room.queue:
            self._withdrawn.discard(key)
        room.queue.clear()
        return calls

    def waiting(self) -> int:
        """Calls that have arrived and not started."""
        return sum(len(room.queue) for room in self._groups.values()) - len(self._withdrawn)

    def running(self) -> int:
        """Calls that have started and not ended."""
        return sum(room.running for room in self._groups.values())

    def groups(self) -> list[str]:
        """The names of the groups."""
        return list(self._groups)
