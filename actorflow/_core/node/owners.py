"""Owners and their objects on other nodes: what the one is told of the others, and what is freed when an owner is gone.

An owner speaks with its own node only. That one passes on what the owner has to say to other nodes, and what they say to it; so nodes
need connections with one another, and with no process of another node.

    ON-1  A node that holds something of an owner on another node has told that node so (Holding), and hears of the owner's end.
    ON-2  While a node cannot be reached what was written for its processes stays, and copies for them go. When it has left the cluster
          all of it goes.
    ON-3  That an object is freed is said until it is heard, or the node that has it has left the cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from actorflow._core.base.ids import CLUSTER, ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.node.links import Links
from actorflow._core.policy.transfer_records import ObjectName
from actorflow._core.protocol.messages import (
    AnyMessage,
    CopyHere,
    FreedUpTo,
    FreeObject,
    Holding,
    Locate,
    Located,
    OwnersGone,
    WriterLost,
)

log = logging.getLogger(__name__)

AGAIN_S = 0.1
"""A node that was lost and has not left the cluster is spoken to again after so long, then twice that, and so on."""
AGAIN_S_MAX = 5.0
UNHEARD_MAX = 100_000
"""Freed objects that one node has not heard of yet."""


class OwnedHere(Protocol):
    """What this node has of objects whose owners are elsewhere."""

    def object_freed(self, name: ObjectName) -> None:
        """Its owner has freed it."""

    def object_located(self, name: ObjectName, nodes: list[ProcessId]) -> None:
        """Its owner says who has it."""

    def owner_lost(self, owner: ProcessId, *, gone: bool) -> None:
        """The owner is gone, or cannot be reached at the moment."""


class Owners:
    """See the module."""

    def __init__(
        self,
        context: NodeContext,
        links: Links,
        find: Callable[[ProcessId], Peer | None],
        address_of: Callable[[ProcessId], str],
        here: OwnedHere,
    ) -> None:
        self._context = context
        self._links = links
        self._find = find
        self._address_of = address_of
        self._here = here
        self._abroad: dict[ProcessId, ProcessId] = {}
        """Owners of what is here that live on another node, and which."""
        self._announced: dict[ProcessId, None] = {}
        """Those whose nodes know that we hold something of theirs (ON-1)."""
        self._holders: dict[ProcessId, dict[ProcessId, None]] = {}
        """Processes of this node, and the other nodes that hold something of theirs."""
        self._unheard: dict[ProcessId, deque[FreeObject]] = {}
        """By node, what it has not answered yet (ON-3)."""
        self._number = 0
        self._again: dict[ProcessId, asyncio.TimerHandle] = {}
        """Nodes that are spoken to again in a while."""
        self._again_s: dict[ProcessId, float] = {}

    def stop(self) -> None:
        """No timer fires from now on."""
        for timer in self._again.values():
            timer.cancel()
        self._again.clear()

    # -- owners on other nodes, of what is here

    def is_abroad(self, owner: ProcessId) -> bool:
        """True for an owner on another node."""
        return owner in self._abroad

    def know(self, owner: ProcessId, node_id: ProcessId) -> bool:
        """Something of this owner is here, or is fetched. False when it is gone, or its node."""
        if owner == CLUSTER:
            return True
        if node_id == self._context.node_id:
            return self._find(owner) is not None
        if not self._address_of(node_id):
            return False
        self._abroad[owner] = node_id
        if owner not in self._announced:
            self._announced[owner] = None
            self._links.send(node_id, Holding(owner))
        return True

    def tell(self, owner: ProcessId, message: AnyMessage) -> None:
        """Say something to an owner, wherever it is."""
        if owner == CLUSTER:
            if isinstance(message, Locate):  # Of copies the head need not know: what is freed all nodes hear of.
                self._context.head.send_if_there(message)
            return
        node_id = self._abroad.get(owner)
        if node_id is not None:
            if self.know(owner, node_id):
                self._links.send(node_id, message)
            return
        peer = self._find(owner)
        if peer is not None:
            peer.send(message)

    def owners_gone(self, peer: Peer, message: OwnersGone) -> None:
        """What they owned here goes."""
        for owner in message.owners:
            if self._abroad.get(owner) == peer.process_id:
                self._lose(owner, gone=True)

    def node_lost(self, node_id: ProcessId, *, gone: bool) -> None:
        """Another node cannot be reached (ON-2); `gone`: nor ever again."""
        for owner in self._owners_at(node_id):
            self._lose(owner, gone=gone)
        if not gone:
            if node_id not in self._again and (self._owners_at(node_id) or self._unheard.get(node_id)):
                after_s = self._again_s.get(node_id, AGAIN_S)
                self._again_s[node_id] = min(after_s * 2, AGAIN_S_MAX)
                self._again[node_id] = self._context.ports.loop.call_later(after_s, self._speak_again, node_id)
            return
        for holders in self._holders.values():
            holders.pop(node_id, None)
        self._unheard.pop(node_id, None)
        self._again_s.pop(node_id, None)
        if (timer := self._again.pop(node_id, None)) is not None:
            timer.cancel()

    def _owners_at(self, node_id: ProcessId) -> list[ProcessId]:
        return [owner for owner, home in self._abroad.items() if home == node_id]

    def _speak_again(self, node_id: ProcessId) -> None:
        del self._again[node_id]
        for owner in self._owners_at(node_id):
            self.know(owner, node_id)
        for message in self._unheard.get(node_id, ()):
            self._links.send(node_id, message)

    def linked(self, node_id: ProcessId) -> None:
        """There is a connection: should it be lost, the next one is tried soon."""
        self._again_s.pop(node_id, None)

    def _lose(self, owner: ProcessId, *, gone: bool) -> None:
        self._announced.pop(owner, None)
        if gone:
            del self._abroad[owner]
        self._here.owner_lost(owner, gone=gone)

    # -- owners on this node, of what is elsewhere

    def holding(self, peer: Peer, message: Holding) -> None:
        """Another node holds something of a process of ours."""
        self._held_by(message.owner, peer.process_id)

    def _held_by(self, owner: ProcessId, node_id: ProcessId) -> Peer | None:
        found = self._find(owner)
        if found is None:
            self._links.send(node_id, OwnersGone([owner]))
            return None
        self._holders.setdefault(owner, {})[node_id] = None
        return found

    def to_owner(self, peer: Peer, message: CopyHere | Locate | WriterLost) -> None:
        """Another node has something to say to a process of ours."""
        found = self._held_by(message.owner, peer.process_id)
        if found is not None:
            found.send(message)

    def client_lost(self, process_id: ProcessId) -> None:
        """A process of ours is gone (ON-1)."""
        for node_id in self._holders.pop(process_id, ()):
            self._links.send(node_id, OwnersGone([process_id]))

    # -- what owners say

    def located(self, peer: Peer, message: Located) -> None:
        """An answer to Locate, for us or for another node."""
        me = self._context.node_id
        if message.node != me:
            message.nodes = self._alive(message.nodes)
            self._links.send(message.node, message)
            return
        name = ObjectName(message.home, message.extent)
        if message.freed:
            self._here.object_freed(name)
        else:
            self._here.object_located(name, self._alive(message.nodes))

    def _alive(self, nodes: Iterable[ProcessId]) -> list[ProcessId]:
        return [node_id for node_id in nodes if node_id == self._context.node_id or self._address_of(node_id)]

    def free(self, peer: Peer, message: FreeObject) -> None:
        """An owner has freed an object: here, if another node says so, or on the nodes that are named."""
        me = self._context.node_id
        from_node = peer.role == "node"
        if from_node or me in message.nodes:
            self._here.object_freed(ObjectName(message.home, message.extent))
        if from_node:
            self._links.say(peer.process_id, FreedUpTo(message.number))
            return
        for node_id in message.nodes:
            if node_id != me and self._address_of(node_id):
                self._free_at(node_id, message)

    def _free_at(self, node_id: ProcessId, freed: FreeObject) -> None:
        unheard = self._unheard.setdefault(node_id, deque())
        if len(unheard) >= UNHEARD_MAX:
            log.error("node %s does not answer, and keeps an object that is freed: %d others wait already", node_id, UNHEARD_MAX)
            return
        self._number += 1
        message = FreeObject(freed.home, freed.extent, [], self._number)
        unheard.append(message)
        if node_id not in self._again:  # Else it is said with the others.
            self._links.send(node_id, message)

    def freed_up_to(self, peer: Peer, message: FreedUpTo) -> None:
        """Another node has freed what we said (ON-3)."""
        unheard = self._unheard.get(peer.process_id)
        while unheard and unheard[0].number <= message.number:
            unheard.popleft()
        if not unheard:
            self._unheard.pop(peer.process_id, None)

    def check_idle(self) -> list[str]:
        """What is still known of owners elsewhere, for leak checks: nothing of processes of this node that are gone."""
        found = [f"nodes that hold what {owner} owns" for owner in self._holders if self._find(owner) is None]
        return found + [f"{len(unheard)} freed objects that node {node} has not heard of" for node, unheard in self._unheard.items()]
