"""The head's nodes: their connections, and the membership behind them."""

from __future__ import annotations

from collections.abc import Callable

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.membership import Membership, NotPicked, Picked, Request
from actorflow._core.protocol.messages import AnyMessage, NodeInfo

Touch = Callable[[str, str], None]


def nothing(kind: str, key: str) -> None:
    """What changes is not written down."""


class Nodes:
    """Which nodes there are, and how to reach them."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._peers: dict[ProcessId, Peer] = {}
        self.touch: Touch = nothing
        """Told of what has changed, where that is written down (head/ledger.py)."""
        self.membership = Membership()
        """To be read by others, written here."""

    def info(self, peer: Peer, message: NodeInfo) -> None:
        """A node says what it is and has."""
        now = self._ports.monotonic()
        self.membership.joined(message.node_id, message.address, message.resources, message.labels, now)
        self._peers[message.node_id] = peer
        peer.state = message.node_id
        self.touch("node", message.node_id)

    def drains(self, node_id: ProcessId, reason: str) -> None:
        """A living node is to leave."""
        self.membership.drains(node_id, reason)
        self.touch("node", node_id)

    def replaced_by(self, peer: Peer, message: NodeInfo) -> Peer | None:
        """The older connection of the node, when it connects again before the old one is seen to be lost."""
        known = self._peers.get(message.node_id)
        return known if known is not peer else None

    def lost(self, peer: Peer, reason: str) -> ProcessId | None:
        """The connection is gone; returns the node that is lost with it, if it had said who it is."""
        node_id = node_id_of(peer)
        if self._peers.get(node_id) is not peer:
            return None
        return node_id if self.given_up(node_id, reason) else None

    def given_up(self, node_id: ProcessId, reason: str) -> bool:
        """A node is lost, whether or not there is a connection. False when it was not known."""
        self._peers.pop(node_id, None)
        self.touch("node", node_id)
        return self.membership.lost(node_id, reason, self._ports.monotonic())

    def pick(self, request: Request) -> Picked | NotPicked:
        """A node for the request."""
        return self.membership.pick(request)

    def peer(self, node_id: ProcessId) -> Peer | None:
        """The connection to a node."""
        return self._peers.get(node_id)

    def send(self, node_id: ProcessId, message: AnyMessage) -> None:
        """Send to a node; one that is lost needs no message."""
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.send(message)


def node_id_of(peer: Peer) -> ProcessId:
    """The node at the other end, empty before it has said who it is."""
    return peer.state if isinstance(peer.state, str) else ""
