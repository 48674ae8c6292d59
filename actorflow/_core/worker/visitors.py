"""Peers of other jobs, between hosts: what they may say here, and what becomes of those who say anything else.

Such a link was made with a pass (security/passes.py), by either side. What goes over it is calls of actors, and what belongs to the
values of these calls. Everything else that processes say to one another belongs to members of one job: tasks, code, leases, their life.

    VI-1  Of a peer with a pass only what is in MAY_SAY is heard (PX-2). Anything else ends the link, the sender is told why, and the log
          of this process says it.
    VI-2  It answers only what it was asked: an end of a call that was not pushed to it, or a word for another process, changes nothing.
    VI-3  It takes no other process's place: nobody's messages go to a peer with a pass because it has the id of another.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actorflow._core.base.addresses import job_of
from actorflow._core.protocol import messages as m
from actorflow._core.worker.calls import CallState

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")

VISIT = "VISIT"
"""The kind of key of such a peer (Proof.key)."""
MAY_SAY: frozenset[type[m.Message]] = frozenset({
    m.ActorCall, m.Cancel, m.Release, m.StreamCredit, m.StreamClose,
    m.Reply, m.NotListening, m.StreamItem, m.StreamEnd,
    m.AddBorrow, m.BorrowAck, m.DropBorrow, m.Fetch, m.Fetched, m.Rebuild, m.CancelObject,
    m.TurnedOut,
})  # fmt: skip
"""Calls of actors; their ends; references between owner and borrower. In both directions: either side may have actors and own objects."""
ENDS = (m.Reply, m.NotListening, m.StreamItem, m.StreamEnd)


def is_visitor(peer: Peer) -> bool:
    """True for a peer of another job."""
    return peer.proof is not None and peer.proof.key == VISIT


def is_of(peer: Peer, address: str) -> bool:
    """True when a peer can be the process at this address: a visitor is of the job that it has proven (VI-3)."""
    return not is_visitor(peer) or (peer.proof is not None and peer.proof.job_id == job_of(address))


def _same(known: Peer, peer: Peer) -> bool:
    """Whether two peers of one id can be one process: of two jobs there is nobody."""
    return known.proof is not None and peer.proof is not None and known.proof.job_id == peer.proof.job_id


class Visitors:
    """See the module; a PeerHandler before that of this process, for peers of other jobs only: no other is looked at."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._turned_out: set[Peer] = set()
        self._taken_for: set[Peer] = set()
        """Those with the id of somebody else, whose end says nothing of that one."""

    def came(self, peer: Peer) -> bool:
        """A peer of another job is there. On the loop, before it has said anything. False: it does not stay."""
        peer.heard_by(self)
        known = self._core.known_peer(peer.process_id)
        if peer.process_id == self._core.identity.process_id or (known is not None and not known.lost and not _same(known, peer)):
            self._taken_for.add(peer)
            self._turn_out(peer, f"another process is known by the id {peer.process_id}")
            return False
        return True

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        """See PeerHandler."""
        self._core.peer_ready(peer)

    def messages_received(self, peer: Peer, messages: list[m.AnyMessage]) -> None:
        """See PeerHandler."""
        if peer in self._turned_out:
            return
        with self._core.lock:
            for message in messages:
                if problem := self._problem(peer, message):
                    self._turn_out(peer, f"{type(message).__name__} was refused: {problem}")
                    return
            heard = [message for message in messages if self._concerns(peer, message)]
        if heard:
            self._core.messages_received(peer, heard)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """See PeerHandler."""
        self._turned_out.discard(peer)
        if peer in self._taken_for:
            self._taken_for.discard(peer)  # VI-3
        else:
            self._core.peer_lost(peer, reason)

    def unsendable(self, peer: Peer, message: m.AnyMessage, error: Exception) -> None:
        """See TakesBack."""
        self._core.unsendable(peer, message, error)

    # -- the rules

    def _problem(self, peer: Peer, message: m.AnyMessage) -> str:
        if type(message) not in MAY_SAY:
            return "a process of another job may call actors, and nothing else"
        if type(message) is m.Release and self._core.host is not None:
            held = self._core.host.holds.get(message.hold)
            if held is not None and held[0] is not peer:
                return "what it lets go of is held for another process"
        return ""

    def _concerns(self, peer: Peer, message: m.AnyMessage) -> bool:
        """VI-2."""
        core = self._core
        if isinstance(message, ENDS):
            entry = core.references.owned.entries.get(message.seq)
            call = (entry.call if entry is not None else None) or core.cancels.orphans.get(message.seq)
            if call is None or call.attempt != message.attempt or call.state is not CallState.PUSHED:
                return True  # Late: whoever takes it knows what to do with what is in it.
            return getattr(call.place, "peer", None) is peer
        if type(message) is m.BorrowAck:
            return message.token in core.pending_acks.get(peer.process_id, ())
        return True

    def _turn_out(self, peer: Peer, reason: str) -> None:
        log.error("%r of job %s is turned out: %s", peer, peer.proof.job_id if peer.proof is not None else "?", reason)
        self._turned_out.add(peer)
        peer.send(m.TurnedOut(reason))
        # From here the stream may be in the middle of a read, on another loop.
        self._core.ports.loop.call_soon_threadsafe(peer.close)


    def turned_us_out(self, peer: Peer, message: m.TurnedOut) -> None:
        """Another job's process hears us no more. What was under way with it fails, or finds it again by way of the head."""
        reason = f"it has turned this process out: {message.reason}"
        log.error("%r: %s", peer, reason)
        self._core.ports.loop.call_soon_threadsafe(peer.give_up, reason)
