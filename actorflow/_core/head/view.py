"""What the head knows of the nodes' free resources, and tells every node: each then knows where work could rather go.

A cluster of one node says nothing here. The policy is `policy/scheduling.py`.

    HV-1  A node that joins hears of all others, and they of it; from then on it hears what changes, some ten milliseconds later.
    HV-2  What is told of a node is its newest word: older ones are dropped.
    HV-3  Nothing is placed on a node that is heard only through others; what no other could hold waits for it. The nodes are not told: they
          reach it as ever, and work goes on between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.nodes import Nodes
from actorflow._core.io.ports import Ports
from actorflow._core.policy.cluster_view import ClusterView
from actorflow._core.policy.membership import Node, NotPicked, Picked
from actorflow._core.policy.membership import Request as TotalsRequest
from actorflow._core.policy.node_records import NodeReport
from actorflow._core.policy.placement_wish import work_class
from actorflow._core.policy.scheduling import Scheduler, could_hold
from actorflow._core.policy.work_class import Chosen, Infeasible, Queued, Request
from actorflow._core.protocol.messages import NodeEntry, NodeInfo, NodeLoad, NodesChanged

TELL_S = 0.02
"""How long news wait for more of them."""


class View:
    """See the module. The one writer of the head's ClusterView."""

    def __init__(self, ports: Ports, nodes: Nodes) -> None:
        self._ports = ports
        self._nodes = nodes
        self._view = ClusterView()
        self._scheduler = Scheduler(self._view)
        self._entries: dict[ProcessId, NodeEntry] = {}
        self._said: dict[ProcessId, int] = {}
        """The version of the last word of each node."""
        self._version = 0
        """Ours, of all nodes: it grows when a node comes back and counts from the beginning."""
        self._changed: dict[ProcessId, None] = {}
        self._gone: dict[ProcessId, None] = {}
        self._new: dict[ProcessId, None] = {}
        """Nodes that have been told nothing yet."""
        self._apart: dict[ProcessId, None] = {}
        """Those that are heard only through others."""
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def restore(self, nodes: Iterable[Node]) -> None:
        """Nodes of the head's earlier life, which are most likely still there: what they have free they say when they are back."""
        for node in nodes:
            entry = NodeEntry(node.node_id, node.address, 0, node.resources, node.resources, node.labels)
            self._entries[node.node_id] = entry
            self._said[node.node_id] = 0
            self._enter(entry)

    # -- what nodes say

    def joined(self, info: NodeInfo) -> None:
        """A node says what it is; it is idle until it says more."""
        known = self._entries.get(info.node_id)
        available = known.available if known is not None else info.resources
        entry = NodeEntry(info.node_id, info.address, 0, info.resources, available, info.labels)
        self._entries[info.node_id] = entry
        self._said.setdefault(info.node_id, 0)
        self._new[info.node_id] = None
        self._gone.pop(info.node_id, None)
        self._enter(entry)

    def load(self, node_id: ProcessId, message: NodeLoad) -> None:
        """A node says what is free there."""
        entry = self._entries.get(node_id)
        if entry is not None and message.version > self._said[node_id]:
            self._said[node_id] = message.version
            entry.available, entry.draining = message.available, message.draining
            self._enter(entry)

    def drains(self, node_id: ProcessId) -> None:
        """A node is to leave, so nothing new goes there."""
        entry = self._entries.get(node_id)
        if entry is not None and not entry.draining:
            entry.draining = True
            self._enter(entry)

    def apart(self, node_id: ProcessId) -> None:
        """A node is heard only through others (HV-3)."""
        entry = self._entries.get(node_id)
        if entry is not None:
            self._apart[node_id] = None
            self._enter(entry)

    def in_reach(self, node_id: ProcessId) -> None:
        """It is heard by itself again."""
        entry = self._entries.get(node_id)
        if entry is not None and node_id in self._apart:
            del self._apart[node_id]
            self._enter(entry)

    def lost(self, node_id: ProcessId) -> None:
        """A node is gone."""
        self._apart.pop(node_id, None)
        if self._entries.pop(node_id, None) is not None:
            del self._said[node_id]
            self._view.remove(node_id)
            self._changed.pop(node_id, None)
            self._new.pop(node_id, None)
            self._gone[node_id] = None
            self._tell_later()

    def _enter(self, entry: NodeEntry) -> None:
        self._version += 1
        entry.version = self._version
        apart = entry.node_id in self._apart
        report = NodeReport(entry.node_id, entry.version, entry.total, entry.available, entry.labels, entry.draining, apart)
        self._view.update(report, self._ports.monotonic())
        self._changed[entry.node_id] = None
        self._tell_later()

    # -- what nodes are told

    def _tell_later(self) -> None:
        if self._timer is None:
            self._timer = self._ports.loop.call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        changed, gone, new = self._changed, self._gone, self._new
        self._changed, self._gone, self._new = {}, {}, {}
        if len(self._entries) < 2 and not gone:
            self._new = new  # Alone: it hears of the others when there are some.
            return
        news = NodesChanged([self._entries[node_id] for node_id in changed], list(gone))
        everything = NodesChanged(list(self._entries.values()), whole=True)
        for node_id in self._entries:
            self._nodes.send(node_id, everything if node_id in new else news)

    # -- choosing

    def pick(self, resources: dict[str, int], placement: str) -> Picked | NotPicked:
        """A node for an actor: with room if one has it, else where it waits."""
        if len(self._entries) < 2 and not placement:
            return self._nodes.pick(TotalsRequest(resources))
        now = self._ports.monotonic()
        decision = self._choose(resources, placement, now)
        if isinstance(decision, Infeasible):
            waits_for = self._only_apart(resources, placement)
            if waits_for:
                return NotPicked(f"only node {waits_for} could hold it, which is heard only through other nodes", infeasible=False)
            return NotPicked(decision.reason, infeasible=True)
        assert isinstance(decision, Chosen | Queued)
        if decision.node_id is None:
            return NotPicked("the cluster has no node at the moment", infeasible=False)
        self._view.debit(decision.node_id, resources, now)
        return Picked(decision.node_id)

    def _only_apart(self, resources: dict[str, int], placement: str) -> ProcessId:
        """A node that could hold it and will be in reach again, most likely; empty if there is none."""
        work = work_class(resources, placement)
        for node_id in self._apart:
            node = self._view.get(node_id)
            if node is not None and not node.report.draining and could_hold(work, node):
                return node_id
        return ""

    def take_room(self, resources: dict[str, int], placement: str) -> bool:
        """True when a node has room for it now, as far as is known; that room is then taken for a moment."""
        now = self._ports.monotonic()
        decision = self._choose(resources, placement, now)
        if not isinstance(decision, Chosen) or decision.node_id is None:
            return False
        self._view.debit(decision.node_id, resources, now)
        return True

    def _choose(self, resources: dict[str, int], placement: str, now: float) -> Chosen | Queued | Infeasible:
        return self._scheduler.choose(Request(work_class(resources, placement)), now, self._ports.rng)
