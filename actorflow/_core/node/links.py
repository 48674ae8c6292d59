"""The connections of a node to other nodes. They are made when there is something to say, and stay.

Two nodes that connect to each other at the same moment have two connections. Then each speaks on the one that it has made, from the first
word on; so the side that has made a connection never gets a chunk on it before it has taken part in the handshake and can tell it from
messages.

    LI-1  What is said to a node arrives in order, or the node is lost.
    LI-2  All connections with a node end together, and that is told once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.bulk import ChunkSink
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.node.context import NodeContext
from actorflow._core.protocol.messages import AnyMessage, Chunk

log = logging.getLogger(__name__)


class LinkUser(ChunkSink, Protocol):
    """What a node does with its links."""

    def linked(self, node_id: ProcessId) -> None:
        """The node can be reached."""

    def link_lost(self, node_id: ProcessId, reason: str) -> None:
        """The node cannot be reached any more, or could not be. On the loop, and from no call of Links."""


class Link:
    """One connection; kept in `peer.state`."""

    __slots__ = ("node_id",)

    def __init__(self, node_id: ProcessId) -> None:
        self.node_id = node_id


class Links:
    """See the module. `address_of`: where a node listens; empty for one that the head does not know (any more)."""

    def __init__(self, context: NodeContext, peers: Peers, address_of: Callable[[ProcessId], str], user: LinkUser) -> None:
        self._context = context
        self._peers = peers
        self._address_of = address_of
        self._user = user
        self._links: dict[ProcessId, list[Peer]] = {}
        """The first of each is the one that we speak on."""
        self._early: dict[ProcessId, list[tuple[Chunk, bytes | memoryview, Callable[[], None]]]] = {}
        """Chunks for a node that has asked for them on a connection of its own, while ours is being made."""
        self._unknown: dict[ProcessId, None] = {}
        """Nodes that something was to be said to, and that there is no way to."""

    # -- speaking

    def send(self, node_id: ProcessId, message: AnyMessage) -> None:
        """Say something; a connection is made when there is none. When it cannot be said the node is lost."""
        found = self._links.get(node_id)
        if found is not None:
            found[0].send(message)
            return
        address = self._address_of(node_id)
        if not address:
            if node_id not in self._unknown:
                self._unknown[node_id] = None
                self._context.ports.loop.call_soon(self._tell_unknown, node_id)
            return
        # Chunks have their own way of going on after a loss.
        peer = self._peers.connect(address, node_id, lasting=False)
        peer.state = Link(node_id)
        self._links[node_id] = [peer]
        peer.send(message)

    def _tell_unknown(self, node_id: ProcessId) -> None:
        self._unknown.pop(node_id, None)
        self._user.link_lost(node_id, "the head does not know it (any more)")

    def say(self, node_id: ProcessId, message: AnyMessage) -> None:
        """Say something that is of no interest to a node that we have no connection with."""
        found = self._links.get(node_id)
        if found is not None:
            found[0].send(message)

    def send_chunk(self, node_id: ProcessId, chunk: Chunk, data: bytes | memoryview, taken: Callable[[], None]) -> None:
        """Send the bytes of a chunk. `taken` is called later, once, when they are needed no more."""
        found = self._links.get(node_id)
        if found is None:
            self._context.ports.loop.call_soon(taken)
        elif found[0].role:
            found[0].send_chunk(chunk, data, taken)
        else:
            self._early.setdefault(node_id, []).append((chunk, data, taken))

    # -- connections

    def ready(self, peer: Peer) -> bool:
        """A connection with a node is there. False when it is not one of ours, nor one that is to become one."""
        link = peer.state
        if link is None:
            peer.state = link = Link(peer.process_id)
            self._links.setdefault(link.node_id, []).append(peer)
        if not isinstance(link, Link) or peer.role != "node" or peer.process_id != link.node_id:
            return False
        peer.read_chunks(self._user)
        self._user.linked(link.node_id)
        if self._links[link.node_id][0] is peer:
            for chunk, data, taken in self._early.pop(link.node_id, ()):
                peer.send_chunk(chunk, data, taken)
        return True

    @staticmethod
    def is_link(peer: Peer) -> bool:
        """True for connections of this room, also before they are there."""
        return isinstance(peer.state, Link)

    def lost(self, peer: Peer, reason: str) -> None:
        """A connection has ended, or could not be made (LI-2)."""
        assert isinstance(peer.state, Link)
        node_id = peer.state.node_id
        if peer not in self._links.get(node_id, ()):
            return
        for other in self._links.pop(node_id):
            if other is not peer:
                other.close(abort=True)
        for _, _, taken in self._early.pop(node_id, ()):
            self._context.ports.loop.call_soon(taken)
        self._user.link_lost(node_id, reason)

    def cut(self, node_id: ProcessId, reason: str) -> None:
        """End the connections with a node. It is lost when they have ended."""
        found = self._links.get(node_id, ())
        if found:
            log.warning("the connection to node %s is cut: %s", node_id, reason)
        for peer in list(found):
            peer.close(abort=True)
