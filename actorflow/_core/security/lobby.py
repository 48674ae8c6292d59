"""How many connections may be open whose peers have not proven anything yet. Pure.

LB-1: never more than `total_max`, and never more than `source_max` from one source: a flood from one host leaves room for others.
"""

from __future__ import annotations

TOTAL_MAX = 256
SOURCE_MAX = 64


class Lobby:
    """Counts connections from their acceptance until they are admitted or closed. Their time is bounded by the handshake's deadline."""

    def __init__(self, *, total_max: int = TOTAL_MAX, source_max: int = SOURCE_MAX) -> None:
        self._waiting: dict[str, int] = {}
        self._total_max = total_max
        self._source_max = source_max
        self.total = 0

    def enter(self, source: str) -> bool:
        """Take a place for a connection from `source` (the address of a host). False: it is full, close the connection."""
        waiting = self._waiting.get(source, 0)
        if self.total >= self._total_max or waiting >= self._source_max:
            return False
        self._waiting[source] = waiting + 1
        self.total += 1
        return True

    def leave(self, source: str) -> None:
        """Give the place back: once for each `enter` that was True."""
        waiting = self._waiting[source] - 1
        self.total -= 1
        if waiting:
            self._waiting[source] = waiting
        else:
            del self._waiting[source]
