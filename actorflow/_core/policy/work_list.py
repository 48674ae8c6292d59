"""Work that leads to more of its kind, done one after the other: chains are as long as users make them, and the stack is not. Pure.

Invariants:
WL-1  What is being done is never interrupted by what it leads to: that is done afterwards, in the order in which it was added.
WL-2  Whoever runs the list from outside leaves it empty, even when something in it raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class WorkList(Generic[T]):
    """What is to be done, by one function. Its bound is that of what it is about: each call or value is in it once at a time.

    `items` is to be looked at from outside, so that the common case, nothing to do, costs no call.
    """

    __slots__ = ("_do", "_running", "items")

    def __init__(self, do: Callable[[T], None]) -> None:
        self._do = do
        self._running = False
        self.items: deque[T] = deque()

    def add(self, item: T) -> None:
        """To be done by the next `run`, or by the one that is under way."""
        self.items.append(item)

    def run(self) -> bool:
        """Do all of it, and what comes of it. Within a `run` this does nothing, and returns False (WL-1).

        What was raised is raised at the end (WL-2).
        """
        if self._running:
            return False
        self._running = True
        errors: list[BaseException] = []
        try:
            while self.items:
                try:
                    self._do(self.items.popleft())
                except BaseException as error:  # an interrupt, too: nobody else would come for what is left
                    errors.append(error)
        finally:
            self._running = False
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("several things of one work list failed", errors)
        return True
