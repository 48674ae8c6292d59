"""Which other nodes have an owner's objects: those that were written there, and copies. All of it under the ports' lock.

Most processes never need this: it is made when an object of theirs is written on another node, or copied.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

from actorflow._core.base.resources import format_bytes
from actorflow._core.protocol.messages import CopyHere, FreeObject, Locate, Located, Stored, Unpin

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.store import StoreClient

log = logging.getLogger("actorflow")

HOLDERS_NAMED_MAX = 16
"""Who asks for the holders of an object is told so many: each names others in turn."""


class Copies:
    """The holders of this process's objects."""

    def __init__(self, core: Core, store: StoreClient) -> None:
        self._core = core
        self._store = store
        self._holders: dict[tuple[str, int], dict[str, None]] = {}
        """By home and extent: the nodes with copies, the latest last. Objects of this node are in it only if they have any."""
        self._rescued: dict[tuple[str, int], int] = {}
        """What was written on a node that is to leave, and the extent here that has it now: pinned, as nobody else may have it."""
        self._leaving: set[str] = set()

    def owns(self, stored: Stored) -> None:
        """An object of ours was written on another node."""
        self._holders.setdefault((stored.node, stored.extent), {})
        if stored.node in self._leaving:
            self._rescue(stored)

    # -- nodes that are to leave

    def node_leaves(self, node_id: str) -> None:
        """Have what is ours there fetched. Idempotent."""
        self._leaving.add(node_id)
        for entry in list(self._core.references.owned.entries.values()):
            if type(entry.outcome) is Stored and entry.outcome.node == node_id:
                self._rescue(entry.outcome)

    def node_gone(self, node_id: str) -> None:
        """It has left, or died."""
        self._leaving.discard(node_id)

    def _rescue(self, stored: Stored) -> None:
        key = stored.node, stored.extent
        if key in self._rescued or key not in self._holders:
            return

        def fetched(answer: Any) -> None:
            if not answer.ok:
                log.warning("an object of %s stays on node %s, which is to leave: %s", format_bytes(stored.size), stored.node, answer.error)
            elif key in self._rescued or not self.knows(*key):
                self._core.node.send(Unpin(answer.extent))
            else:
                self._rescued[key] = answer.extent
                self._core.node.send(FreeObject(stored.node, stored.extent, [stored.node]))

        self._store.pull(stored, fetched)

    # -- who has what

    def knows(self, home: str, extent: int) -> bool:
        """True for an object of ours that is in use."""
        return (home, extent) in self._holders or (home == self._core.node_id and self._store.knows(extent))

    def holders(self, stored: Stored) -> list[str]:
        """Its home, this node if it has a copy, and the latest of the others: a broadcast may have made thousands."""
        copies, me = self._holders.get((stored.node, stored.extent), {}), self._core.node_id
        near = [me] if me in copies else []
        home = [] if (stored.node, stored.extent) in self._rescued else [stored.node]
        return list(dict.fromkeys((*home, *near, *islice(reversed(copies), HOLDERS_NAMED_MAX))))

    def freed(self, stored: Stored) -> list[str]:
        """We need it no more: who is to be told, besides our own node of what was written there."""
        nodes = list(self._holders.pop((stored.node, stored.extent), ()))
        kept = self._rescued.pop((stored.node, stored.extent), None)
        if kept is not None:
            self._core.node.send(Unpin(kept))
            return list(dict.fromkeys((*nodes, self._core.node_id)))
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
        home = self._core.node_id if (message.home, message.extent) in self._rescued else message.home
        found = [node for node in dict.fromkeys((*copies, home)) if node != message.node]
        freed = not self.knows(message.home, message.extent)
        peer.send(Located(message.home, message.extent, message.node, found, freed))

    def known(self) -> list[tuple[str, int]]:
        """All objects that it knows of, for leak checks."""
        return list(self._holders)
