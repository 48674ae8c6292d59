"""A worker's mailbox: which of the calls that arrived may start now. Pure.

Invariants:
MB-1  Calls of one group start in the order of their arrival (SEMANTICS 20).
MB-2  At most `limit` calls of a group run at a time.
MB-3  A call is started once or cancelled once, never both.
MB-4  While it is held no call starts; when it is let go, all start that may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

C = TypeVar("C")

NO_QUEUE: deque[Any] = deque(maxlen=0)
"""Shared by all groups where nothing waits, and never changed: empty ones of their own would take 0.6 KB an actor."""


class Group(Generic[C]):
    """Calls that share a concurrency limit."""

    __slots__ = ("index", "limit", "queue", "running", "width")

    def __init__(self, limit: int) -> None:
        self.width = limit
        self.limit = limit
        """`width`, or 0 while the mailbox is held."""
        self.running = 0
        self.queue: deque[tuple[Hashable, C]] = NO_QUEUE
        self.index: dict[Hashable, tuple[Hashable, C]] | None = None
        """The items of the queue that still wait, by key and in order. Made when something is first taken out of the middle, and
        kept until the queue is empty: most queues never need one, and then a call costs a place in the deque and no more."""

    def waiting(self) -> int:
        return len(self.queue if self.index is None else self.index)

    def pop(self) -> C | None:
        """Take the oldest call that waits."""
        queue, index = self.queue, self.index
        while queue:
            item = queue.popleft()
            if index is None:
                return item[1]
            # The item and not the key: a call that was taken out may have come again, further back.
            if index.get(item[0]) is item:
                del index[item[0]]
                return item[1]
        self.index = None
        return None


class Mailbox(Generic[C]):
    """The mailbox of one actor, or of a task worker. `limits`: calls that may run at a time, by group; "" is the default group."""

    __slots__ = ("_groups",)

    def __init__(self, limits: dict[str, int]) -> None:
        self._groups: dict[str, Group[C]] = {name: Group(limit) for name, limit in limits.items()}

    def offer(self, key: Hashable, call: C, group: str = "") -> bool:
        """A call arrived. True: start it now; False: it waits here. Raises KeyError for an unknown group."""
        room = self._groups[group]
        if room.running < room.limit and not room.queue:
            room.running += 1
            return True
        item = (key, call)
        if room.queue is NO_QUEUE:
            room.queue = deque()
        room.queue.append(item)
        if room.index is not None:
            room.index[key] = item
        return False

    def finished(self, group: str = "") -> C | None:
        """A running call ended. Returns the next one, which starts in its place, or None."""
        room = self._groups[group]
        assert room.running > 0, "MB-2: more calls ended than started"
        if room.queue and room.running <= room.limit:
            following = room.pop()
            if following is not None:
                return following
        room.running -= 1
        return None

    def hold(self) -> None:
        """Start nothing from now on: what runs may end, and then it is quiet here."""
        for room in self._groups.values():
            room.limit = 0

    def release(self) -> list[C]:
        """Go on. Returns the calls that start now."""
        calls: list[C] = []
        for room in self._groups.values():
            room.limit = room.width
            while room.running < room.limit:
                following = room.pop()
                if following is None:
                    break
                room.running += 1
                calls.append(following)
        return calls

    def withdraw(self, key: Hashable) -> C | None:
        """Take a waiting call out (it was cancelled or given back). None when it is not waiting: it runs, ended, or never came."""
        for room in self._groups.values():
            if not room.queue:
                continue
            if room.index is None:
                room.index = {item[0]: item for item in room.queue}
            item = room.index.pop(key, None)
            if item is not None:
                if len(room.queue) > 2 * len(room.index):
                    # What was taken out is not kept for longer than it takes as many again to be taken out.
                    room.queue = deque(room.index.values())
                return item[1]
        return None

    def take_waiting(self, group: str = "") -> list[C]:
        """Take out all calls of a group that have not started, in order."""
        room = self._groups[group]
        items = room.queue if room.index is None else room.index.values()
        calls = [call for _, call in items]
        room.queue.clear()
        room.index = None
        return calls

    def waiting(self) -> int:
        """Calls that have arrived and not started."""
        return sum(room.waiting() for room in self._groups.values())

    def running(self) -> int:
        """Calls that have started and not ended."""
        return sum(room.running for room in self._groups.values())

    def groups(self) -> list[str]:
        """The names of the groups."""
        return list(self._groups)
