"""Nodes that are to leave in order: who asked, what has to move, and when it is tried again.

The word goes to the node, which knows from then on that it drains, and says so: also to a head that has come back. That one remembers it as
well, for nodes that are gone by then. The node decides when it leaves; docs/internals/draining.md has the whole way.

    DR-1  Who asks is answered once: by the node's word that it drains, or by why it will not.
    DR-2  Nothing new is placed on a node that drains, and what can move is told so as soon as another node has room for it.
    DR-3  What ends because its node leaves is not counted as a failure, where it may have another life at all (AC-8).
    DR-4  A node's last word is answered when no head will forget it. Where nothing is left there it is gone with that: nobody waits for it,
          neither this head nor the next one. Otherwise it is when its connection has ended, as what is there still acts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.actors import Actors
from actorflow._core.head.directory import Directory
from actorflow._core.head.nodes import Nodes, node_id_of
from actorflow._core.head.view import View
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.protocol.messages import Drain, Draining, DrainNode, DrainReply, LastWordTaken

if TYPE_CHECKING:
    from actorflow._core.head.durable import DurableRoom
    from actorflow._core.head.groups import Groups

log = logging.getLogger("actorflow")

MOVE_AGAIN_S = 0.5
"""How often room is looked for, for what could not move yet: there may be some by then."""


class Drains:
    """See the module. `groups`, `durables`: those rooms, if they are open. `gone(peer, reason)`: a node has left."""

    def __init__(
        self,
        ports: Ports,
        directory: Directory,
        nodes: Nodes,
        view: View,
        actors: Actors,
        groups: Callable[[], Groups | None],
        durables: Callable[[], DurableRoom | None],
        gone: Callable[[Peer, str], None],
    ) -> None:
        self._ports = ports
        self._directory = directory
        self._nodes = nodes
        self._view = view
        self._actors = actors
        self._groups = groups
        self._durables = durables
        self._gone = gone
        self._asked: dict[ProcessId, list[tuple[ProcessId, int]]] = {}
        """By node, who waits for its word: process and token."""
        self._wanted: dict[ProcessId, tuple[float, str]] = {}
        """By node that was asked and has said nothing yet, until when it may take, and why."""
        self._reasons: dict[ProcessId, str] = {}
        """Why, of each node that drains."""
        self._last_words: dict[ProcessId, str] = {}
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- words

    def wanted(self, peer: Peer, message: DrainNode) -> None:
        """Somebody wants a node to leave."""
        found = [node_id for node_id in self._nodes.membership.living() if node_id.startswith(message.node_id)]
        if message.node_id in found:
            found = [message.node_id]
        if len(found) != 1 or not message.node_id:
            many = f"{len(found)} nodes have ids that begin so: {', '.join(found[:4])}"
            what = many if found and message.node_id else "no living node has it"
            peer.send(DrainReply(message.token, error=f"node {message.node_id!r}: {what}; `actorflow status` lists the nodes"))
            return
        [node_id] = found
        self._asked.setdefault(node_id, []).append((peer.process_id, message.token))
        deadline = self._ports.monotonic() + message.deadline_s
        if node_id not in self._wanted or deadline < self._wanted[node_id][0]:
            self._wanted[node_id] = deadline, message.reason
        self._nodes.send(node_id, Drain(message.deadline_s, message.reason))

    def node_joined(self, node_id: ProcessId) -> None:
        """A node has connected: what it was asked before that it may not have heard."""
        if node_id in self._wanted:
            deadline, reason = self._wanted[node_id]
            self._nodes.send(node_id, Drain(max(deadline - self._ports.monotonic(), 0.0), reason))

    def draining(self, peer: Peer, message: Draining) -> None:
        """A node says that it leaves, or why it does not."""
        node_id = node_id_of(peer)
        if message.left:
            self._last_word(peer, message)
            return
        self._answer(node_id, message.error)
        if message.error or self._nodes.membership.find(node_id) is None:
            return
        if node_id not in self._reasons:
            log.warning("node %s drains for up to %.3g s: %s", node_id, message.deadline_s, message.reason)
        self._reasons[node_id] = message.reason
        self._nodes.drains(node_id, message.reason)
        self._view.drains(node_id)
        groups = self._groups()
        if groups is not None:
            groups.node_drains(node_id)
        durables = self._durables()
        if durables is not None:
            durables.node_leaves(node_id)
        self._move()

    def _last_word(self, peer: Peer, message: Draining) -> None:
        """DR-4. The answer waits for the disk, as all that a head says that remembers (HM-1)."""
        if self._nodes.membership.find(node_id_of(peer)) is not None:  # Else it is gone, and has not heard that this was heard.
            self._last_words[node_id_of(peer)] = message.left
            if message.empty:
                self._gone(peer, message.left)
        peer.send(LastWordTaken())

    def restore(self, node_id: ProcessId, reason: str) -> None:
        """One that was to leave in the head's earlier life. If it is still there it says so itself, and moves on then."""
        self._reasons[node_id] = reason
        self._view.drains(node_id)

    def groups_opened(self, groups: Groups) -> None:
        """The room of the placement groups is open: it has not heard yet."""
        for node_id in self._reasons:
            groups.node_drains(node_id)

    def durables_opened(self, durables: DurableRoom) -> None:
        """As `groups_opened`, of the objects that the cluster owns."""
        for node_id in self._reasons:
            durables.node_leaves(node_id)

    def lost(self, node_id: ProcessId) -> bool:
        """A node is gone. True when it was to go (DR-3)."""
        self._answer(node_id, "it is gone")
        self._last_words.pop(node_id, None)
        return self._reasons.pop(node_id, None) is not None

    def why_gone(self, node_id: ProcessId, reason: str) -> str:
        """What a node has said when it left, rather than how its connection ended."""
        return self._last_words.get(node_id, reason)

    def _answer(self, node_id: ProcessId, problem: str) -> None:
        self._wanted.pop(node_id, None)
        error = f"node {node_id} cannot be drained: {problem}" if problem else ""
        for process_id, token in self._asked.pop(node_id, ()):
            self._directory.send(process_id, DrainReply(token, node_id, error))

    # -- moving

    def _move(self) -> None:
        self._timer = None
        for node_id, reason in list(self._reasons.items()):
            self._actors.move_away(node_id, f"node {node_id} is to leave: {reason}")
        if self._reasons and self._timer is None:
            self._timer = self._ports.loop.call_later(MOVE_AGAIN_S, self._move)
