"""Who was there when the head's earlier life ended: nodes, drivers, owners. They come back by themselves, or are lost after a while.

    HR-1  Nothing is placed before all nodes are back or lost: what seems to be gone may be on its way.
    HR-2  Who is not back within RETURN_S is lost then, as if its connection had just ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.ports import Ports
from actorflow._core.policy.liveness import LOOK_S, SILENCE_S

RETURN_S = SILENCE_S + LOOK_S
"""Longer than the lease of a node: one that has not come back by then has ended all that it ran."""


class Returning:
    """See the module."""

    def __init__(
        self,
        ports: Ports,
        nodes: Iterable[ProcessId],
        processes: Iterable[ProcessId],
        node_lost: Callable[[ProcessId, str], None],
        process_lost: Callable[[ProcessId, str], None],
        settled: Callable[[], None],
    ) -> None:
        self._nodes = dict.fromkeys(nodes)
        self._processes = dict.fromkeys(processes)
        self._node_lost = node_lost
        self._process_lost = process_lost
        self._settled = settled
        self._is_settled = False
        self._timer: asyncio.TimerHandle | None = ports.loop.call_later(RETURN_S, self._over)

    def begin(self) -> None:
        """The head knows all that it is to know. Where no node is to come back there is nothing to wait for."""
        self._look()

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def is_over(self) -> bool:
        """All nodes are back or lost."""
        return self._is_settled

    def awaits_node(self, node_id: ProcessId) -> bool:
        """True until that node has said what it has."""
        return node_id in self._nodes

    def node_is_back(self, node_id: ProcessId) -> None:
        """It has said what it has."""
        self._nodes.pop(node_id, None)
        self._look()

    def process_is_back(self, process_id: ProcessId) -> None:
        """A driver or worker is connected again."""
        self._processes.pop(process_id, None)

    def _look(self) -> None:
        if not self._nodes and not self._is_settled:
            self._is_settled = True
            self._settled()

    def _over(self) -> None:
        self._timer = None
        reason = f"it did not come back within {RETURN_S:g} s after the head had"
        nodes, self._nodes = self._nodes, {}
        for node_id in nodes:
            self._node_lost(node_id, reason)
        processes, self._processes = self._processes, {}
        for process_id in processes:
            self._process_lost(process_id, reason)
        self._look()
