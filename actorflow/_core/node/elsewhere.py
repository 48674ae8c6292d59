"""Work that had better go to another node: this one knows what the others have free, and sends requests on.

A node never forwards: it tells the owner whom to ask. With one node in the cluster nothing of this happens.

    EL-1  A request is sent on only to a node that could hold it, is not draining, and has not sent it on itself.
    EL-2  What could run here now stays, unless its strategy wants it elsewhere; what waits is looked at again when another node has room.
    EL-3  After REDIRECTS_MAX nodes a request stays where it could wait: views are late, and it would wander.
    EL-5  A node that is to leave keeps nothing that another one could hold.
    EL-4  A request that nobody has sent on yet goes to the node where most of its arguments lie. Only that node knows for certain whether
          it has room: if not, it sends the request on, to this one as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from random import Random

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.cluster_view import ClusterView
from actorflow._core.policy.node_records import NodeReport
from actorflow._core.policy.placement_wish import work_class
from actorflow._core.policy.scheduling import Scheduler, could_hold
from actorflow._core.policy.work_class import Chosen, Infeasible, Queued, Request, Strategy, WorkClass
from actorflow._core.protocol.messages import NodeLoad, NodesChanged

REPORT_S = 0.02
"""How long a change of what is free waits for more of them."""
REDIRECTS_MAX = 3
MOVED_MAX = 64
"""Of those that wait, so many are looked at when other nodes have news."""
MOVE_AGAIN_S = 0.5
"""... and after this time without news, as what was sent to a node and went elsewhere is no news of it."""
CLASSES_MAX = 1_000

NOWHERE: Mapping[ProcessId, int] = {}

Place = tuple[ProcessId, str]
"""A node and its address."""


class Elsewhere:
    """See the module. The one writer of this node's view of the others."""

    def __init__(self, context: NodeContext, rng: Random) -> None:
        self._context = context
        self._rng = rng
        self._view = ClusterView()
        self._scheduler = Scheduler(self._view)
        self._addresses: dict[ProcessId, str] = {}
        """Of the others."""
        self._classes: dict[tuple[tuple[tuple[str, int], ...], str], WorkClass] = {}
        self._version = 0
        self._told: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.leaving: dict[ProcessId, None] = {}
        """Other nodes that are to leave."""
        self.heard = asyncio.Event()
        """The head has told of the other nodes, and them of this one."""

    @property
    def alone(self) -> bool:
        """True while no other node is known."""
        return not self._addresses

    def others(self) -> list[ProcessId]:
        """The other nodes."""
        return list(self._addresses)

    def address_of(self, node_id: ProcessId) -> str:
        """Where another node listens; empty for one that is not known (any more)."""
        return self._addresses.get(node_id, "")

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- from and to the head

    def changed(self, peer: Peer, message: NodesChanged) -> list[ProcessId]:
        """Others are there, have other amounts, or are gone. Returns those that are gone."""
        now, me = self._context.now(), self._context.node_id
        gone = list(message.gone)
        self.leaving.update({entry.node_id: None for entry in message.nodes if entry.draining and entry.node_id != me})
        if message.whole:
            there = {entry.node_id for entry in message.nodes}
            gone += [node_id for node_id in self._addresses if node_id not in there]
        for node_id in gone:
            if node_id != me:
                self.leaving.pop(node_id, None)
                self._view.remove(node_id)
                self._addresses.pop(node_id, None)
        for entry in message.nodes:
            if entry.node_id != me:
                self._addresses[entry.node_id] = entry.address
                report = NodeReport(entry.node_id, entry.version, entry.total, entry.available, entry.labels, entry.draining)
                self._view.update(report, now)
        self.heard.set()
        self.looked_at()
        return gone

    def looked_at(self) -> None:
        """Something has changed here: tell the head soon, if there are others whom it concerns."""
        if not self.alone and self._timer is None and self._free() != self._told:
            self._timer = self._context.ports.loop.call_later(REPORT_S, self._report)

    def _report(self) -> None:
        self._timer = None
        free = self._free()
        if free != self._told:
            self._told = free
            self._version += 1
            self._context.head.send(NodeLoad(self._version, free, self._context.draining))

    def _free(self) -> dict[str, int]:
        return self._context.book.free().amounts

    # -- choosing

    def better_place(
        self,
        resources: Mapping[str, int],
        placement: str,
        excluded: list[ProcessId],
        *,
        locality: Mapping[ProcessId, int] = NOWHERE,
        waits: bool = False,
    ) -> Place | Infeasible | None:
        """Where a request had better go; None: it stays here. Infeasible: no node can ever hold it.

        `locality`: bytes of its arguments by node. `waits`: it is here already, and leaves only for a node that has room.
        """
        if self.alone and (not placement or self._context.draining):
            return None
        context, now = self._context, self._context.now()
        # Who comes now stands behind those who wait.
        wanted = context.book.wanted
        free = {name: units - wanted.get(name, 0) for name, units in self._free().items()}
        self._version += 1
        labels, drains = context.config.labels, context.draining
        self._view.update(NodeReport(context.node_id, self._version, context.config.resources, free, labels, drains), now)
        work = self._class(resources, placement)
        here = self._view.get(context.node_id)
        assert here is not None
        if not excluded and not waits and (place := self._holder(work, locality)) is not None:
            self._view.debit(place[0], resources, now)
            return place
        # Somebody has sent it here: it stays for room, or because it has wandered enough (EL-3).
        arrived = bool(excluded) and not waits and not drains and could_hold(work, here)
        if arrived and (len(excluded) >= REDIRECTS_MAX or here.has_room(work.resources)):
            return None
        decision = self._scheduler.choose(Request(work, context.node_id, locality, excluded), now, self._rng)
        if isinstance(decision, Infeasible):
            return decision
        assert isinstance(decision, Chosen | Queued)
        if decision.node_id is None or decision.node_id == context.node_id or (waits and not drains and isinstance(decision, Queued)):
            return None
        self._view.debit(decision.node_id, resources, now)
        return decision.node_id, self._addresses[decision.node_id]

    def _holder(self, work: WorkClass, locality: Mapping[ProcessId, int]) -> Place | None:
        """EL-4: the node that has the most of the arguments, if that is another one and could hold the work when idle."""
        node_id = next(iter(locality), "")
        node = self._view.get(node_id) if node_id != self._context.node_id else None
        if node is None or node.draining or work.strategy is not Strategy.DEFAULT or not could_hold(work, node):
            return None
        return node_id, self._addresses[node_id]

    def _class(self, resources: Mapping[str, int], placement: str) -> WorkClass:
        key = (tuple(sorted(resources.items())), placement)
        work = self._classes.get(key)
        if work is None:
            if len(self._classes) >= CLASSES_MAX:
                self._classes.clear()
            work = self._classes[key] = work_class(resources, placement)
        return work
