"""What this node keeps of the objects that the cluster owns: as the head says, which knows them (docs/internals/durable-objects.md).

    DK-1  What is kept is freed when the head says so, and with this node; no process of this node takes it along when it goes.
    DK-2  The head hears of what is kept, of what could not be, and of what cannot be read any more; of all of it on each connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.transfer_records import ObjectName
from actorflow._core.protocol.messages import AdoptObject, CopyObject, DropObjects, KeptHere

if TYPE_CHECKING:
    from actorflow._core.node.store import Store
    from actorflow._core.node.transfers import Transfers

log = logging.getLogger("actorflow")


class KeptObjects:
    """See the module. `transfers`: the room that fetches, opened when it is needed."""

    def __init__(self, context: NodeContext, store: Store, transfers: Callable[[], Transfers]) -> None:
        self._context = context
        self._store = store
        self._transfers = transfers
        self._extents: dict[int, int] = {}
        """By index, where it is."""
        self._fetched: dict[int, ObjectName] = {}
        """What is on its way here."""
        store.on_unreadable = self._unreadable

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._extents)

    def adopt(self, peer: Peer, message: AdoptObject) -> None:
        """What a process of this node has written is the cluster's now."""
        index, extent = message.index, message.extent
        if index in self._extents or self._store.adopt(message.writer, extent):
            self._keep(index, self._extents.get(index, extent))
        else:
            self._fails(index, f"the process that wrote it, {message.writer}, is gone, and what it wrote with it")

    def copy(self, peer: Peer, message: CopyObject) -> None:
        """Fetch it from another node."""
        index = message.index
        if index in self._extents:
            self._keep(index, self._extents[index])
        elif index not in self._fetched:
            name = self._fetched[index] = ObjectName(message.home, message.extent)
            self._transfers().pulling.keep(index, name, message.size, self._arrived)

    def _arrived(self, index: int, extent: int, problem: str) -> None:
        if self._fetched.pop(index, None) is None:
            if extent:
                self._store.free_extent(extent)  # It was freed meanwhile.
        elif extent:
            self._keep(index, extent)
        else:
            self._fails(index, problem)

    def _keep(self, index: int, extent: int) -> None:
        self._extents[index] = extent
        self._context.head.send_if_there(KeptHere([(index, extent)]))

    def _fails(self, index: int, why: str) -> None:
        self._context.head.send_if_there(KeptHere([], index, f"node {self._context.node_id}: {why}"))

    def drop(self, peer: Peer, message: DropObjects) -> None:
        """They are freed, or others keep them."""
        for index in message.indices:
            if self._fetched.pop(index, None) is not None:
                self._transfers().pulling.keep_no_more(index)
            extent = self._extents.pop(index, None)
            if extent is not None:
                self._store.free_extent(extent)
        for home, extent in message.names:
            if home == self._context.node_id:
                self._store.free_extent(extent)
            else:
                self._transfers().pulling.freed(ObjectName(home, extent))

    def say_all(self) -> None:
        """DK-2, on a new connection."""
        self._context.head.send_if_there(KeptHere(list(self._extents.items()), all=True))

    def _unreadable(self, extent: int, problem: str) -> None:
        """It is on a disk that does not give it back, at least this time: what becomes of it is for the head to say."""
        for index in [index for index, kept in self._extents.items() if kept == extent]:
            self._fails(index, problem)
