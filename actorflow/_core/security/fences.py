"""Who was replaced or removed, and may not come back under its old name. Pure.

FN-1: a process below its fence is never admitted, and a fence only rises.
"""

from __future__ import annotations

from collections.abc import Iterable

FENCES_MAX = 100_000
REMOVED = 2**64
"""Above every incarnation: the process id is never admitted again."""


class Fences:
    """For each process id the oldest incarnation that is still admitted.

    Past `fences_max` the fence that was raised longest ago goes. By then its certificate, which lives for a day, has ended.
    """

    def __init__(self, rows: Iterable[tuple[str, int]] = (), *, fences_max: int = FENCES_MAX) -> None:
        self._oldest = dict(rows)
        self._fences_max = fences_max

    def rows(self) -> list[tuple[str, int]]:
        """(process id, oldest incarnation) of each, to begin with again after a restart of the head, and for nodes that join."""
        return list(self._oldest.items())

    def oldest(self, process_id: str) -> int:
        """The oldest incarnation of the process that is still admitted; 0 for one that was never heard of."""
        return self._oldest.get(process_id, 0)

    def raise_to(self, process_id: str, incarnation: int) -> None:
        """Admit `process_id` from `incarnation` on only. A lower fence than there is changes nothing."""
        oldest = max(incarnation, self._oldest.pop(process_id, 0))
        self._oldest[process_id] = oldest
        if len(self._oldest) > self._fences_max:
            del self._oldest[next(iter(self._oldest))]

    def remove(self, process_id: str) -> None:
        """Never admit `process_id` again: a node that was declared dead, or that an operator took out."""
        self.raise_to(process_id, REMOVED)

    def admits(self, process_id: str, incarnation: int) -> bool:
        """Whether this life of the process is not fenced off."""
        return incarnation >= self._oldest.get(process_id, 0)
