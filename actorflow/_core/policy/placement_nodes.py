"""What the head knows of the room on the nodes, as far as placement groups are concerned.

The room of a node is its total, less what leases outside bundles use (the node reports that, and it may be
old), less what the head itself has reserved there. So the head's view is a good guess; the node decides.

PN-1: what is reserved on a node is the sum of the bundles that are being prepared, committed, or on their way
      back there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import ResourceSet
from actorflow._core.policy.bundle_packing import Place

Amounts = Mapping[str, int]


class NodeRoom:
    """One living node. Written by Nodes only."""

    __slots__ = ("labels", "node_id", "outside", "place", "reserved", "room", "total", "version")

    def __init__(self, node_id: ProcessId) -> None:
        self.node_id = node_id
        self.total: Amounts = {}
        self.labels: Mapping[str, str] = {}
        self.outside: Amounts = {}
        """Used by leases outside bundles, by the newest report."""
        self.reserved = ResourceSet()
        self.room: dict[str, int] = {}
        """What is probably free. Changed in place: `place` sees it."""
        self.version = 0
        """Goes up with every word from the node."""
        self.place = Place(node_id, self.labels, self.room)

    def renew(self, total: Amounts, labels: Mapping[str, str], outside: Amounts) -> None:
        """The node says what it is and has."""
        self.total, self.labels, self.outside = total, labels, outside
        self.place.labels = labels
        self.version += 1
        self.room.clear()
        for name in (*total, *outside, *self.reserved.amounts):
            self.room[name] = total.get(name, 0) - outside.get(name, 0) - self.reserved.get(name)

    def drained(self) -> dict[str, int]:
        """What would be free if all leases outside bundles had ended."""
        return {name: units - self.reserved.get(name) for name, units in self.total.items()}


class Nodes:
    """The living nodes, and the room on them. Written by PlacementGroups only."""

    __slots__ = ("_closed", "_nodes", "_places", "epoch")

    def __init__(self) -> None:
        self._nodes: dict[ProcessId, NodeRoom] = {}
        self._places: list[Place] | None = None
        self._closed: set[ProcessId] = set()
        """Those that are to leave, or are out of reach: nothing more goes there."""
        self.epoch = 0
        """Goes up when a node comes, goes, or has other totals or labels: what never fitted may fit now."""

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[NodeRoom]:
        return iter(self._nodes.values())

    def get(self, node_id: ProcessId) -> NodeRoom | None:
        """The node, or None when it is not known."""
        return self._nodes.get(node_id)

    def joined(self, node_id: ProcessId, total: Amounts, labels: Mapping[str, str], outside: Amounts) -> None:
        """A node came, or says again what it is and has."""
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = NodeRoom(node_id)
            self._places = None
        elif (node.total, node.labels) == (total, labels):
            node.renew(total, labels, outside)
            return
        node.renew(total, labels, outside)
        self.epoch += 1

    def lost(self, node_id: ProcessId) -> bool:
        """A node is gone. False when it was not known."""
        if self._nodes.pop(node_id, None) is None:
            return False
        self._closed.discard(node_id)
        self._places = None
        self.epoch += 1
        return True

    def close(self, node_id: ProcessId) -> None:
        """A node is to leave; what it has stays as long as it does. One that comes back later is another."""
        self._closed.add(node_id)
        self._places = None
        self.epoch += 1

    def open(self, node_id: ProcessId) -> None:
        """A node that was closed is to have more again."""
        self._closed.discard(node_id)
        self._places = None
        self.epoch += 1

    def reserve(self, node_id: ProcessId, amounts: Amounts) -> None:
        """The head has set this aside on a living node."""
        node = self._nodes[node_id]
        node.reserved.add(amounts)
        for name, units in amounts.items():
            node.room[name] = node.room.get(name, 0) - units

    def release(self, node_id: ProcessId, amounts: Amounts) -> None:
        """And gives it back. A node that is gone has taken it along."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.reserved.subtract(amounts)
            for name, units in amounts.items():
                node.room[name] += units

    # -- as the packing sees them

    def places(self, has: Mapping[ProcessId, int], aside: Mapping[ProcessId, Amounts]) -> list[Place]:
        """The nodes with the room that is probably free, less what is kept `aside` for others."""
        if self._places is None:
            self._places = [node.place for node in self._nodes.values() if node.node_id not in self._closed]
        if not has and not aside:
            return self._places
        places = []
        for place in self._places:
            node_id = place.node_id
            if node_id in has or node_id in aside:
                room = place.room
                if node_id in aside:
                    room = _less(room, aside[node_id])
                place = Place(node_id, place.labels, room, has.get(node_id, 0))
            places.append(place)
        return places

    def places_by(
        self, room: Callable[[NodeRoom], Amounts], has: Mapping[ProcessId, int], aside: Mapping[ProcessId, Amounts]
    ) -> list[Place]:
        """The nodes with another idea of what their room is."""
        return [
            Place(n.node_id, n.labels, _less(room(n), aside[n.node_id]) if n.node_id in aside else room(n), has.get(n.node_id, 0))
            for n in self._nodes.values()
            if n.node_id not in self._closed
        ]


def _less(room: Amounts, aside: Amounts) -> dict[str, int]:
    left = dict(room)
    for name, units in aside.items():
        left[name] = left.get(name, 0) - units
    return left
