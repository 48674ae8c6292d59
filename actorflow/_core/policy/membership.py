"""The nodes of the cluster, and which of them gets an actor.

A node is known from its first `NodeInfo` until its connection is lost. It may come back, under the same id, and
begins anew: what it had was given up when it was lost, and ActorTable has it stopped there.

ME-1: a node is living or lost, never both.
ME-2: a pick is a living node whose totals hold what was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import format_resources, nearest_name

LOST_NODES_MAX = 1_000
"""How many lost nodes are remembered, for the state API."""

NODES_SHOWN_MAX = 3
"""How many nodes an error lists."""


@dataclass(slots=True)
class Node:
    """One node. `resources` are totals in units. Written by Membership only."""

    node_id: ProcessId
    address: str
    resources: dict[str, int]
    labels: dict[str, str]
    joined_at: float
    lost_at: float | None = None
    reason: str = ""
    drains: str = ""
    """Why it is to leave; empty when it is not."""
    apart: str = ""
    """In words, that it is heard only through others; empty when it is not so."""


@dataclass(slots=True)
class Request:
    """What is asked of a node: room later, and now totals that hold `resources`."""

    resources: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Picked:
    """This node."""

    node_id: ProcessId


@dataclass(slots=True)
class NotPicked:
    """No node. `infeasible`: there are nodes, and none of them can ever do it."""

    reason: str
    infeasible: bool


@dataclass(slots=True)
class Gone:
    """What it was to be a part of is no more, and so is it."""

    reason: str


class Membership:
    """The living nodes, and a bounded memory of the lost ones."""

    __slots__ = ("_living", "_lost", "_lost_max")

    def __init__(self, lost_max: int = LOST_NODES_MAX) -> None:
        self._lost_max = lost_max
        self._living: dict[ProcessId, Node] = {}
        self._lost: OrderedDict[ProcessId, Node] = OrderedDict()

    def nodes(self) -> Iterator[Node]:
        """The living in the order they joined, then the lost, newest first."""
        yield from self._living.values()
        yield from reversed(self._lost.values())

    def living(self) -> list[ProcessId]:
        """The ids of the living, in the order they joined."""
        return list(self._living)

    def address(self, node_id: ProcessId) -> str:
        """Where a living node is reached; empty for one that is lost."""
        node = self._living.get(node_id)
        return node.address if node is not None else ""

    def find(self, node_id: ProcessId) -> Node | None:
        """A living node."""
        return self._living.get(node_id)

    def joined(self, node_id: ProcessId, address: str, resources: dict[str, int], labels: dict[str, str], now: float) -> None:
        """A node says what it is and has: for the first time, again, or as one that was lost and comes back."""
        self._lost.pop(node_id, None)
        node = self._living.get(node_id)
        if node is None:
            self._living[node_id] = Node(node_id, address, resources, labels, now)
        else:
            node.address, node.resources, node.labels = address, resources, labels

    def drains(self, node_id: ProcessId, reason: str) -> None:
        """A living node is to leave."""
        self._living[node_id].drains = reason or "it was asked to"

    def apart(self, node_id: ProcessId, reason: str) -> None:
        """A living node is heard only through others."""
        if node_id in self._living:
            self._living[node_id].apart = reason

    def in_reach(self, node_id: ProcessId) -> None:
        """And now it is heard by itself again."""
        self.apart(node_id, "")

    def restore(self, node: Node) -> None:
        """A node that lived when the head's earlier life ended, and may come back."""
        self._living[node.node_id] = node

    def lost(self, node_id: ProcessId, reason: str, now: float) -> bool:
        """The connection to a node is gone, and the node with it. False when it was not known."""
        node = self._living.pop(node_id, None)
        if node is None:
            return False
        node.lost_at, node.reason = now, reason
        self._lost[node_id] = node
        while len(self._lost) > self._lost_max:
            self._lost.popitem(last=False)
        return True

    def pick(self, request: Request) -> Picked | NotPicked:
        """The first living node that could hold the request; the node itself decides when there is room."""
        for node in self._living.values():
            if _holds(node, request):
                return Picked(node.node_id)
        if not self._living:
            return NotPicked("the cluster has no node at the moment", infeasible=False)
        return NotPicked(self._why_none(request), infeasible=True)

    def _why_none(self, request: Request) -> str:
        """The numbers: what was asked, and what the nodes have."""
        nodes = list(self._living.values())
        shown = [f"node {n.node_id} has {format_resources(n.resources)}" for n in nodes[:NODES_SHOWN_MAX]]
        if len(nodes) > NODES_SHOWN_MAX:
            shown.append(f"so it is with the other {len(nodes) - NODES_SHOWN_MAX}")
        asked = format_resources(request.resources)
        if request.labels:
            asked += f" and the labels {dict(request.labels)}"
        hint = _hint(request.resources, dict.fromkeys(name for node in nodes for name in node.resources))
        return f"it asks for {asked}, and no node can ever hold that: {', '.join(shown)}{hint}"


def _holds(node: Node, request: Request) -> bool:
    for name, units in request.resources.items():
        if units > node.resources.get(name, 0):
            return False
    return all(node.labels.get(name) == value for name, value in request.labels.items())


def _hint(asked: Mapping[str, int], known: Mapping[str, None]) -> str:
    """What a name that no node knows was probably meant to be."""
    for name in asked:
        if name not in known and (near := nearest_name(name, known)):
            return f". Did you mean {near!r} instead of {name!r}?"
    return ""
