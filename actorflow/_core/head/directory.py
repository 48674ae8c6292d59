"""Who is connected to the head, by process id."""

from __future__ import annotations

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.protocol.messages import AnyMessage


class Directory:
    """The live connection of each process.

    A process that connects again before its old connection is seen to be lost replaces it: the loss of the
    old one then means nothing.
    """

    __slots__ = ("_peers",)

    def __init__(self) -> None:
        self._peers: dict[ProcessId, Peer] = {}

    def enter(self, peer: Peer) -> None:
        """The handshake with `peer` is done."""
        self._peers[peer.process_id] = peer

    def leave(self, peer: Peer) -> bool:
        """The connection is lost. False when it was not the live one: the process is still there."""
        if self._peers.get(peer.process_id) is not peer:
            return False
        del self._peers[peer.process_id]
        return True

    def on_node(self, node_id: str) -> list[Peer]:
        """The processes on a node."""
        return [peer for peer in self._peers.values() if peer.node_id == node_id and peer.role != "node"]

    def send(self, process_id: ProcessId, message: AnyMessage) -> None:
        """Send to a process; one that is gone needs no message."""
        peer = self._peers.get(process_id)
        if peer is not None:
            peer.send(message)

    def flush(self, process_id: ProcessId) -> None:
        """Write what was said to a process, instead of at the end of this turn of the loop."""
        peer = self._peers.get(process_id)
        if peer is not None:
            peer.flush()
