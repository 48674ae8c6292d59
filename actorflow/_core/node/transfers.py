"""Objects on their way between this node and others: this room wires those of links, owners, pulls and uploads, and has their clock.

It is made when it is first needed: a cluster of one node never does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.node.context import NodeContext
from actorflow._core.node.links import Links
from actorflow._core.node.owners import Owners
from actorflow._core.node.pulling import Pulling
from actorflow._core.node.serving import Serving
from actorflow._core.node.store import COPY, PEER, Store
from actorflow._core.policy.extent_records import Denied, Granted
from actorflow._core.policy.transfer_records import Held, ObjectName, chunks_of
from actorflow._core.protocol.messages import (
    CopyHere,
    FreedUpTo,
    FreeObject,
    Holding,
    LeavePull,
    LeaveSource,
    Locate,
    Located,
    Message,
    OwnersGone,
    Pull,
    RefuseChunks,
    RequestChunks,
    StillServing,
    TakeCopy,
    WriterLost,
)

Handlers = dict[type[Message], tuple[frozenset[str], Callable[[Peer, Any], None]]]

LOOK_S = 0.01
"""So late a deadline may be kept: the shortest is five times as long."""

NODE = frozenset({"node"})
PROCESS = frozenset({"driver", "worker"})
HEAD = frozenset({"head"})


class Transfers:
    """See the module.

    `find`: a connected process of this machine; `address_of`: where another node listens, empty for unknown ones; `arm`: have the
    node look at the clock, as what is done here may wait for room in the store.
    """

    def __init__(
        self,
        context: NodeContext,
        peers: Peers,
        store: Store,
        find: Callable[[ProcessId], Peer | None],
        address_of: Callable[[ProcessId], str],
        arm: Callable[[], None],
    ) -> None:
        self._context = context
        self._arm_node = arm
        self._store = store
        self.links = Links(context, peers, address_of, self)
        self.owners = Owners(context, self.links, find, address_of, self)
        self.pulling = Pulling(context, self.links, self.owners, store, find, self._arm)
        self.serving = self.pulling.serving = Serving(context, self.links, store, self._held, self._arm)
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._stopped = False
        self.place = self.pulling.place
        self.received = self.pulling.received
        store.abroad = self

    def handlers(self) -> Handlers:
        """Who takes which message, of whom."""
        pulling, serving, owners = self.pulling, self.serving, self.owners
        return {
            Pull: (PROCESS, pulling.want),
            LeavePull: (PROCESS, pulling.leave),
            TakeCopy: (PROCESS, pulling.take),
            Located: (PROCESS | NODE | HEAD, owners.located),
            FreeObject: (PROCESS | NODE, owners.free),
            FreedUpTo: (NODE, owners.freed_up_to),
            Holding: (NODE, owners.holding),
            OwnersGone: (NODE, owners.owners_gone),
            CopyHere: (NODE, owners.to_owner),
            Locate: (NODE, owners.to_owner),
            WriterLost: (NODE, owners.to_owner),
            RequestChunks: (NODE, serving.requested),
            LeaveSource: (NODE, serving.left),
            RefuseChunks: (NODE, pulling.refused),
            StillServing: (NODE, pulling.still_here),
        }

    def stop(self) -> None:
        """No timer fires from now on."""
        self._stopped = True
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        self._timer = self._looking = None
        self.owners.stop()

    # -- processes and nodes that go

    def client_lost(self, process_id: ProcessId) -> None:
        """A process of this node is gone."""
        self.pulling.reader_lost(process_id)
        self.owners.client_lost(process_id)
        self._arm()

    def node_gone(self, node_id: ProcessId) -> None:
        """The head says that a node has left the cluster."""
        self.links.cut(node_id, "the head says that it has left the cluster")
        self._node_lost(node_id, gone=True)

    def linked(self, node_id: ProcessId) -> None:
        """See LinkUser."""
        self.owners.linked(node_id)

    def link_lost(self, node_id: ProcessId, reason: str) -> None:
        """See LinkUser."""
        if not self._stopped:
            self._node_lost(node_id, gone=False)

    def _node_lost(self, node_id: ProcessId, *, gone: bool) -> None:
        self.owners.node_lost(node_id, gone=gone)
        self.serving.node_lost(node_id)
        self.pulling.node_lost(node_id)
        if gone:
            self.pulling.home_gone(node_id)
        self._arm()

    # -- for the store (see store.Abroad)

    def allocated(self, answer: Granted | Denied) -> None:
        """See Abroad."""
        self.pulling.allocated(answer)

    def offer(self, wanted_bytes: int) -> None:
        """See Abroad."""
        self.pulling.offer(wanted_bytes)

    def come(self, extent: int) -> None:
        """See Abroad."""
        self.serving.come(extent)

    def slabs_gone(self) -> None:
        """See Abroad."""
        self.serving.slabs_gone()

    def gone(self, extent: int) -> None:
        """See Abroad."""
        self.serving.gone(ObjectName(self._context.node_id, extent))

    def know(self, owner: ProcessId, node: ProcessId) -> bool:
        """See Abroad."""
        return self.owners.know(owner, node)

    def is_abroad(self, owner: ProcessId) -> bool:
        """See Abroad."""
        return self.owners.is_abroad(owner)

    def writer_lost(self, owner: ProcessId, process_id: ProcessId, extents: list[int]) -> None:
        """See Abroad."""
        self.owners.tell(owner, WriterLost(process_id, extents, owner, self._context.node_id))

    # -- for the owners' room (see owners.OwnedHere)

    def object_freed(self, name: ObjectName) -> None:
        """See OwnedHere."""
        if name.home == self._context.node_id:
            self._store.free_extent(name.extent)
        self.pulling.freed(name)

    def object_located(self, name: ObjectName, nodes: list[ProcessId]) -> None:
        """See OwnedHere."""
        self.pulling.located(name, nodes)

    def owner_lost(self, owner: ProcessId, *, gone: bool) -> None:
        """See OwnedHere."""
        self.pulling.owner_lost(owner, gone=gone)
        if gone:
            self._store.owner_lost(owner)

    # -- what is here

    def _held(self, name: ObjectName) -> Held | None:
        book, number = self._store.book, name.extent
        extent = book.find(number) if name.home == self._context.node_id else None
        if extent is None or extent.carved is not None:
            return self.pulling.held(name)
        return Held(number, extent.size, chunks_of(extent.size, self._context.config.transfer_chunk_bytes), book.is_away(number))

    # -- time

    def _arm(self) -> None:
        """Something has happened: look at the deadlines soon. Not at once, as there are thousands of chunks in a second."""
        if self._looking is None and not self._stopped:
            self._looking = self._context.ports.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Have the next deadline kept."""
        self._looking = None
        self._arm_node()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [at for at in (self.pulling.book.next_at(), self.serving.book.next_at()) if at is not None]
        if times:
            self._timer = self._context.ports.loop.call_later(max(min(times) - self._context.now(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._context.now()
        self.pulling.tick(now)
        self.serving.tick(now)
        self._look()

    # -- looking

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks."""
        return [*self.pulling.left_over(), *self.serving.left_over(), *self.owners.check_idle()]

    def describe_client(self, client: str) -> str:
        """Clients of the store that are no processes, as errors call them; empty for others."""
        if client.startswith(COPY):
            return "a copy of an object of another node"
        return f"node {client.removeprefix(PEER)}, which is sent a copy" if client.startswith(PEER) else ""


