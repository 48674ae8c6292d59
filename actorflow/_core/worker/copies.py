"""Which other nodes have an owner's objects: those that were written there, and copies. All of it under the ports' lock.

Most processes never need this: it is made when an object of theirs is written on another node, or copied.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol.messages import Allocated, CopyHere, FreeExtent, FreeObject, Locate, Located, Stored, Unpin

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.store import StoreClient

log = logging.getLogger("actorflow")

AGAIN_S = 1.0
"""What could not be fetched from a node that is to leave is tried again after so long: there may be room by then."""
HOLDERS_NAMED_MAX = 16
"""Who asks for the holders of an object is told so many: each names others in turn."""


class Copies:
    """The holders of this process's objects."""

    def __init__(self, core: Core, store: StoreClient) -> None:
        self._core = core
        self._store = store
        self._holders: dict[tuple[str, int], dict[str, None]] = {}
        """By home and extent: the nodes with copies, the latest last. Objects of this node are in it only if they have any."""
        self._leaving: set[str] = set()
        self._fetching: set[tuple[str, int]] = set()
        """What was written on a node that is to leave, and is on its way here."""

    def owns(self, stored: Stored) -> None:
        """An object of ours was written on another node."""
        self._holders.setdefault((stored.node, stored.extent), {})
        if stored.node in self._leaving:
            self._core.later(0.0, lambda: self._fetch_from(stored.node))  # When it is known whose outcome it is.

    # -- nodes that are to leave

    def node_leaves(self, node_id: str) -> None:
        """Have what is ours there moved here. Idempotent."""
        self._leaving.add(node_id)
        self._fetch_from(node_id)

    def node_gone(self, node_id: str) -> None:
        """It has left, or died."""
        self._leaving.discard(node_id)

    def _fetch_from(self, node_id: str) -> None:
        if node_id in self._leaving:
            for entry in list(self._core.references.owned.entries.values()):
                if type(entry.outcome) is Stored and entry.outcome.node == node_id:
                    self._fetch(entry, entry.outcome)

    def _fetch(self, entry: Owned, stored: Stored) -> None:
        key = stored.node, stored.extent
        if key in self._fetching:
            return
        self._fetching.add(key)

        def fetched(answer: Any) -> None:
            if answer.ok:
                self._store.take_copy(stored, lambda place: taken(place, answer.extent))
                return
            self._fetching.discard(key)
            if self.knows(*key) and stored.node in self._leaving:
                log.warning("an object of %s stays on node %s, which is to leave: %s", format_bytes(stored.size), stored.node, answer.error)
                self._core.later(AGAIN_S, lambda: self._fetch_from(stored.node))

        def taken(place: Allocated, pinned: int) -> None:
            self._fetching.discard(key)
            self._core.node.send(Unpin(pinned))
            if not place.extent:
                return  # The object was freed meanwhile, or its copy made room for others in this very moment.
            if entry.outcome is stored and self.knows(*key):
                self._moved(entry, stored, place)
            else:
                self._core.node.send(FreeExtent(place.extent))

        self._store.pull(stored, fetched)

    def _moved(self, entry: Owned, stored: Stored, place: Allocated) -> None:
        """It lies here now, as if it had been written here. Who knows it under its old name asks us when it is not to be had there."""
        me = self._core.node_id
        moved = Stored(me, place.extent, place.offset, stored.size, stored.data, stored.spans, stored.refs, stored.owner)
        entry.outcome = moved
        self._store.owns(moved)
        self._core.node.send(FreeObject(stored.node, stored.extent, self.freed(stored)))

    # -- who has what

    def knows(self, home: str, extent: int) -> bool:
        """True for an object of ours that is in use."""
        return (home, extent) in self._holders or (home == self._core.node_id and self._store.knows(extent))

    def holders(self, stored: Stored) -> list[str]:
        """Its home, this node if it has a copy, and the latest of the others: a broadcast may have made thousands."""
        copies, me = self._holders.get((stored.node, stored.extent), {}), self._core.node_id
        near = [me] if me in copies else []
        return list(dict.fromkeys((stored.node, *near, *islice(reversed(copies), HOLDERS_NAMED_MAX))))

    def freed(self, stored: Stored) -> list[str]:
        """We need it no more: who is to be told, besides our own node of what was written there."""
        nodes = list(self._holders.pop((stored.node, stored.extent), ()))
        return nodes if stored.node == self._core.node_id else [stored.node, *nodes]

    def on_copy(self, peer: Peer, message: CopyHere) -> None:
        """A node has a copy, or no longer."""
        key = message.home, message.extent
        if not self.knows(*key):
            if message.here:
                peer.send(FreeObject(message.home, message.extent, [message.node]))
        elif message.here:
            self._holders.setdefault(key, {})[message.node] = None
        else:
            left = self._holders.get(key, {})
            left.pop(message.node, None)
            if not left and message.home == self._core.node_id:
                self._holders.pop(key, None)

    def on_locate(self, peer: Peer, message: Locate) -> None:
        """A node asks who has it."""
        copies = list(self._holders.get((message.home, message.extent), ()))[-HOLDERS_NAMED_MAX:]
        # The home as well: it may have been out of reach for a moment.
        found = [node for node in dict.fromkeys((*copies, message.home)) if node != message.node]
        freed = not self.knows(message.home, message.extent)
        peer.send(Located(message.home, message.extent, message.node, found, freed))

    def known(self) -> list[tuple[str, int]]:
        """All objects that it knows of, for leak checks."""
        return list(self._holders)
