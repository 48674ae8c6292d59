"""What the node knows, as rows for people: the columns are those of base/state_rows.py."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal, cast

from actorflow._core.base.resources import ResourceSet, to_number
from actorflow._core.base.state_rows import LeaseRow, ResourceRow, WorkerRow
from actorflow._core.node.context import NodeContext, WorkerProcess
from actorflow._core.node.leases import Lease
from actorflow._core.node.workers import Workers
from actorflow._core.policy.tickets import TicketKind, TicketState
from actorflow._core.policy.worker_records import WorkerState

_STATES: dict[WorkerState, Literal["starting", "idle", "leased", "actor", "stopping"]] = {
    WorkerState.STARTING: "starting",
    WorkerState.IDLE: "idle",
    WorkerState.LEASED: "leased",
    WorkerState.ACTOR: "actor",
    WorkerState.HOST: "actor",
    WorkerState.DYING: "stopping",
}


def worker_rows(context: NodeContext, workers: Workers) -> Iterator[WorkerRow]:
    """Living workers, oldest first, then the latest dead ones."""
    living = (_living_row(context, workers, worker) for worker in workers.all())
    dead = (_worker_row(context, worker, "dead", reason, 0) for worker, reason in reversed(workers.dead))
    return chain(living, dead)


def _living_row(context: NodeContext, workers: Workers, worker: WorkerProcess) -> WorkerRow:
    state = _STATES[context.pool.workers[worker.worker_id].state]
    return _worker_row(context, worker, state, worker.ending, workers.memory_bytes(worker))


def _worker_row(
    context: NodeContext,
    worker: WorkerProcess,
    state: Literal["starting", "idle", "leased", "actor", "stopping", "dead"],
    reason: str,
    memory_bytes: int,
) -> WorkerRow:
    return {
        "worker_id": worker.worker_id,
        "node_id": context.node_id,
        "pid": worker.pid,
        "state": state,
        "job_id": worker.key.job_id,
        "actors": worker.occupant.actor_ids() if worker.occupant is not None else [],
        "started_at": context.wall_time(worker.started_at),
        "memory_bytes": memory_bytes,
        "reason": reason,
    }


def resource_rows(context: NodeContext) -> Iterator[ResourceRow]:
    """Every resource, and what waits for it."""
    total, free, waiting = context.book.total, context.book.free(), ResourceSet()
    for ticket in context.book.tickets():
        if ticket.state is TicketState.WAITING:
            waiting.add(ticket.demand)
    for name in total.amounts:
        yield {
            "node_id": context.node_id,
            "resource": name,
            "total": to_number(total.get(name)),
            "free": to_number(free.get(name)),
            "waiting": to_number(waiting.get(name)),
        }


def lease_rows(context: NodeContext) -> Iterator[LeaseRow]:
    """Every lease of tasks, oldest first."""
    for ticket in chain.from_iterable(book.tickets() for book in context.books()):
        if ticket.kind is TicketKind.TASK:
            lease = cast(Lease, ticket.holder)
            queued = ticket.state is TicketState.WAITING or lease.worker is None
            yield {
                "lease": lease.number,
                "node_id": context.node_id,
                "owner": ticket.client,
                "name": ticket.name,
                "state": "queued" if queued else "reclaiming" if ticket.asked_at is not None else "granted",
                "worker_id": lease.worker.worker_id if lease.worker is not None else "",
                "resources": {name: to_number(units) for name, units in ticket.demand.items()},
                "priority": ticket.priority,
                "since": context.wall_time(ticket.requested_at if queued else ticket.granted_at),
            }
