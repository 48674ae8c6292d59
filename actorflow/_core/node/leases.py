"""Leases of tasks: asked for, granted, asked back, returned, lost.

NL-1: a request is answered once, by LeaseGranted, LeaseRefused or LeaseRedirect, unless its client cancels it or is gone.
NL-2: a granted lease ends once: returned by its owner, or told by LeaseLost.
"""

from __future__ import annotations

import logging
from typing import cast

from actorflow._core.io.peers import Peer
from actorflow._core.node.context import Client, Death, NodeContext, WorkerProcess, client_of
from actorflow._core.node.elsewhere import MOVE_AGAIN_S, MOVED_MAX, Elsewhere
from actorflow._core.node.environment import device_texts, parse_env
from actorflow._core.node.workers import Workers
from actorflow._core.policy.placement_wish import GROUP
from actorflow._core.policy.tickets import Refused, Ticket, TicketKind
from actorflow._core.policy.work_class import Infeasible
from actorflow._core.policy.worker_records import Claim, Purpose, WorkerKey
from actorflow._core.protocol.messages import (
    Blocked,
    CancelLease,
    KillLease,
    LeaseGranted,
    LeaseLost,
    LeaseRedirect,
    LeaseRefused,
    ReclaimLease,
    RequestLease,
    ReturnLease,
    Unblocked,
)

log = logging.getLogger(__name__)


class Lease:
    """One lease, from its request to its end: the holder of a ticket, then the occupant of a worker."""

    __slots__ = (
        "_room", "claim", "client", "env", "excluded", "locality", "number", "placement", "removed", "retriable", "ticket", "worker",
    )  # fmt: skip

    def __init__(self, room: Leases, client: Client, request: RequestLease, ticket: Ticket) -> None:
        self._room = room
        self.client = client
        self.number = request.lease
        self.env = request.env
        self.placement = request.placement
        self.retriable = request.retriable
        """See Occupant: as the call was that it was asked for."""
        self.ticket = ticket
        self.excluded = request.excluded
        """Nodes that have sent the request on."""
        self.locality = request.locality
        self.claim: Claim | None = None
        self.worker: WorkerProcess | None = None
        self.removed = False
        """Its placement group is no more."""

    @property
    def name(self) -> str:
        """The function it is for."""
        return self.ticket.name

    def actor_ids(self) -> list[str]:
        """See Occupant."""
        return []

    def admitted(self) -> None:
        """See Holder."""
        self._room.admitted(self)

    def fulfilled(self, worker: WorkerProcess) -> None:
        """See Holder."""
        self._room.fulfilled(self, worker)

    def refused(self, kind: str, reason: str) -> None:
        """See Holder."""
        self._room.refused(self, kind, reason)

    def evicted(self, reason: str, *, removed: bool) -> None:
        """See Holder."""
        self.removed = removed
        self._room.evicted(self, reason)

    def worker_lost(self, worker: WorkerProcess, death: Death) -> None:
        """See Occupant."""
        self._room.worker_lost(self, worker, death)


class Leases:
    """All leases of tasks."""

    def __init__(self, context: NodeContext, workers: Workers, elsewhere: Elsewhere) -> None:
        self._context = context
        self._workers = workers
        self._elsewhere = elsewhere

    # -- from owners

    def request(self, peer: Peer, message: RequestLease) -> None:
        """A worker, please. Idempotent by number."""
        client = client_of(peer)
        if message.lease in client.leases:
            return
        problem = _problem(message)
        if problem:
            peer.send(LeaseRefused(message.lease, "infeasible", problem))
            return
        in_group = message.placement.startswith(GROUP)
        if not in_group:
            placement, excluded, locality = message.placement, message.excluded, message.locality
            place = self._elsewhere.better_place(message.resources, placement, excluded, locality=locality)
            if isinstance(place, Infeasible):
                peer.send(LeaseRefused(message.lease, "infeasible", place.reason))
                return
            if place is not None:
                peer.send(LeaseRedirect(message.lease, *place))
                return
        problem = self._workers.problem_with(message.env)
        if problem:
            peer.send(LeaseRefused(message.lease, "environment", problem))
            return
        if in_group:
            answer = self._in_group(peer, message)
        else:
            answer = self._context.book.request(
                TicketKind.TASK,
                peer.process_id,
                message.resources,
                self._context.now(),
                priority=message.priority,
                name=message.name,
            )
        if isinstance(answer, Refused):
            peer.send(LeaseRefused(message.lease, answer.kind, answer.reason))
            return
        lease = Lease(self, client, message, answer)
        answer.holder = lease
        client.leases[message.lease] = lease

    def _in_group(self, peer: Peer, message: RequestLease) -> Ticket | Refused:
        groups, demand = self._context.groups, message.resources
        if groups is None:
            return Refused("moved", "this node has no bundle of any placement group")
        return groups.request(message.placement, TicketKind.TASK, peer.process_id, demand, message.priority, message.name)

    def cancel(self, peer: Peer, message: CancelLease) -> None:
        """The request is not wanted any more. A grant that crosses it is returned by the owner."""
        lease = client_of(peer).leases.get(message.lease)
        if lease is not None and lease.worker is None:
            self._withdraw(lease)

    def returned(self, peer: Peer, message: ReturnLease) -> None:
        """The owner is done with its worker."""
        lease = client_of(peer).leases.get(message.lease)
        if lease is None:
            return
        if lease.worker is None:
            self._withdraw(lease)
            return
        worker, context = lease.worker, self._context
        del lease.client.leases[lease.number]
        worker.occupant = None
        worker.retired = message.retire
        context.pool.release(worker.worker_id, context.now(), retire=message.retire, ask=message.stays)
        lease.ticket.book.release(lease.ticket)

    def kill(self, peer: Peer, message: KillLease) -> None:
        """A task does not end, so its worker does: its owner is told by LeaseLost."""
        lease = client_of(peer).leases.get(message.lease)
        if lease is not None and lease.worker is not None:
            self._workers.kill(lease.worker, message.reason)

    # -- from workers

    def blocked(self, peer: Peer, message: Blocked) -> None:
        """All code of this worker waits for other results."""
        ticket = self._context.book.ticket_of(peer.process_id)
        if ticket is not None:
            ticket.book.block(ticket)

    def unblocked(self, peer: Peer, message: Unblocked) -> None:
        """It goes on."""
        ticket = self._context.book.ticket_of(peer.process_id)
        if ticket is not None:
            ticket.book.unblock(ticket)

    # -- from the books

    def admitted(self, lease: Lease) -> None:
        """The resources are there: now a worker."""
        key = WorkerKey(lease.client.peer.job_id, lease.env, device_texts(lease.ticket.devices))
        lease.claim = self._context.pool.claim(key, Purpose.LEASE, lease)

    def fulfilled(self, lease: Lease, worker: WorkerProcess) -> None:
        """The worker is there."""
        lease.worker, lease.claim = worker, None
        worker.occupant, worker.occupied_at = lease, self._context.now()
        lease.ticket.book.assign(lease.ticket, worker.worker_id)
        granted = LeaseGranted(lease.number, worker.worker_id, worker.address, lease.ticket.devices)
        lease.client.peer.send(granted)
        if self._context.draining:
            lease.client.peer.send(ReclaimLease(lease.number))  # It was admitted before: what is pushed to it is all.

    def refused(self, lease: Lease, kind: str, reason: str) -> None:
        """No worker can be had, or the nesting is too deep."""
        self._forget(lease)
        if kind == "worker_failed" and (problem := self._workers.problem_with(lease.env)):
            # It was there when the request came.
            kind, reason = "environment", problem
        lease.client.peer.send(LeaseRefused(lease.number, kind, reason))

    def evicted(self, lease: Lease, reason: str) -> None:
        """Its bundle is to be given back."""
        if lease.worker is None:
            self._withdraw(lease)
            lease.client.peer.send(LeaseRefused(lease.number, "moved", reason))
        else:
            self._workers.kill(lease.worker, reason)

    def worker_lost(self, lease: Lease, worker: WorkerProcess, death: Death) -> None:
        """The worker will never answer again."""
        worker.owed.append(lease.ticket)
        lease.client.leases.pop(lease.number, None)
        exit = death.exit
        lease.client.peer.send(
            LeaseLost(
                lease.number,
                worker.worker_id,
                death.cause,
                out_of_memory=worker.out_of_memory,
                log=death.log,
                pid=worker.pid,
                exit_code=exit.exit_code if exit is not None else None,
                signal=exit.signal if exit is not None else None,
                peak_memory_bytes=exit.peak_memory_bytes if exit is not None else 0,
                removed=lease.removed,
            )
        )

    def client_lost(self, peer: Peer, reason: str) -> None:
        """An owner is gone: its requests too, and the workers that run its tasks (SEMANTICS 17)."""
        client = client_of(peer)
        for ticket in [t for book in self._context.books() for t in book.client_lost(peer.process_id)]:
            lease = cast(Lease, ticket.holder)
            if lease.worker is None:
                self._withdraw(lease)
            else:
                gone = f"the {peer.role} {peer.process_id} whose tasks it ran is gone ({reason})"
                self._workers.kill(lease.worker, gone)
        client.leases.clear()

    def move_on(self, now: float) -> None:
        """Some that wait here may find room on another node."""
        for ticket in self._context.book.oldest_waiting(TicketKind.TASK, MOVED_MAX):
            lease = cast(Lease, ticket.holder)
            # Who was full when it sent the request on may have room by now.
            excluded = lease.excluded if now - ticket.requested_at < MOVE_AGAIN_S else []
            place = self._elsewhere.better_place(ticket.demand, lease.placement, excluded, locality=lease.locality, waits=True)
            if place is None or (isinstance(place, Infeasible) and not self._context.draining):
                continue
            self._withdraw(lease)
            if isinstance(place, Infeasible):
                lease.client.peer.send(LeaseRefused(lease.number, "infeasible", place.reason))
                continue
            lease.client.peer.send(LeaseRedirect(lease.number, *place))

    # -- asking back

    def ask_all_back(self) -> None:
        """This node is to leave: workers come back when what was pushed to them is done."""
        for lease in self.granted():
            lease.client.peer.send(ReclaimLease(lease.number))

    def left_behind(self, reason: str) -> None:
        """It leaves now: what still runs is lost, and does not count as a failure."""
        for lease in self.granted():
            assert lease.worker is not None
            peer = lease.client.peer
            peer.send(LeaseLost(lease.number, lease.worker.worker_id, f"its node has left: {reason}", left=True))
            peer.flush()

    def granted(self) -> list[Lease]:
        """Those that have a worker."""
        return [worker.occupant for worker in self._workers.all() if isinstance(worker.occupant, Lease)]

    def reclaim(self, now: float) -> None:
        """Ask owners for leases that others wait for."""
        for book in self._context.books():
            for ticket in book.reclaim(now):
                lease = cast(Lease, ticket.holder)
                lease.client.peer.send(ReclaimLease(lease.number))

    def refuse_too_deep(self, now: float) -> bool:
        """End nested tasks that cannot go on; True when there were some (SEMANTICS 24)."""
        refused = [pair for book in self._context.books() for pair in book.too_deep(now)]
        for ticket, why in refused:
            cast(Lease, ticket.holder).refused(why.kind, why.reason)
        return bool(refused)

    def _withdraw(self, lease: Lease) -> None:
        if lease.claim is not None:
            self._context.pool.drop(lease.claim)
        self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        lease.ticket.book.release(lease.ticket)
        lease.client.leases.pop(lease.number, None)


def _problem(message: RequestLease) -> str:
    """What is wrong with a request that no node could serve; empty when nothing is."""
    bad = [name for name, units in message.resources.items() if units < 0]
    if bad:
        return f"it asks for a negative amount of {', '.join(bad)}"
    try:
        parse_env(message.env)
    except ValueError as error:
        return str(error)
    return ""
