"""Actions at a chosen point of a run: before a handle of the world or of a host, or at a delivery.

This is how a scenario says "kill the worker at its 17th handle", and how a test tries every point in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from heapq import heappop, heappush

Action = Callable[[], object]
Entry = tuple[int, int, Action]
"""When, a number that keeps equal ones in order, and what."""


class Hooks:
    """The actions that wait for their point."""

    __slots__ = ("_handles", "_messages", "_numbers", "_steps")

    def __init__(self) -> None:
        self._steps: list[Entry] = []
        self._messages: list[Entry] = []
        self._handles: dict[int, list[Entry]] = {}
        self._numbers = 0

    def _push(self, heap: list[Entry], when: int, action: Action) -> None:
        self._numbers += 1
        heappush(heap, (when, self._numbers, action))

    def add_step(self, step: int, action: Action) -> None:
        """Before handle `step` of the world."""
        self._push(self._steps, step, action)

    def add_message(self, number: int, action: Action) -> None:
        """When delivery `number` has arrived."""
        self._push(self._messages, number, action)

    def add_handle(self, loop_index: int, number: int, action: Action) -> None:
        """Before handle `number` of one loop."""
        self._push(self._handles.setdefault(loop_index, []), number, action)

    def next_step(self) -> int:
        """The next step with an action; very large when there is none."""
        return self._steps[0][0] if self._steps else sys.maxsize

    def next_handle(self, loop_index: int) -> int:
        """The next handle of a loop with an action; -1 when there is none."""
        heap = self._handles.get(loop_index)
        return heap[0][0] if heap else -1

    def due_steps(self, step: int) -> list[Action]:
        """Take out what is due before handle `step`."""
        return _take(self._steps, step)

    def due_messages(self, number: int) -> list[Action]:
        """Take out what is due at delivery `number`."""
        return _take(self._messages, number)

    def due_handles(self, loop_index: int, number: int) -> list[Action]:
        """Take out what is due before handle `number` of a loop."""
        return _take(self._handles.get(loop_index, []), number)


def _take(heap: list[Entry], until: int) -> list[Action]:
    due: list[Action] = []
    while heap and heap[0][0] <= until:
        due.append(heappop(heap)[2])
    return due
