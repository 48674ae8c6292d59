"""What the head knows, as rows for people: the columns are those of base/state_rows.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from actorflow._core.base.ids import CLUSTER
from actorflow._core.base.resources import to_number
from actorflow._core.base.state_rows import ActorRow, JobRow, NodeRow, ObjectRow, Resources
from actorflow._core.policy.actor_record import Actor
from actorflow._core.policy.actors import ActorTable
from actorflow._core.policy.durable_objects import Durable, DurableObjects
from actorflow._core.policy.graveyard import DeadActor, tell_story
from actorflow._core.policy.jobs import Job, JobTable
from actorflow._core.policy.membership import Membership, Node
from actorflow._core.protocol.messages import Failed


def node_rows(membership: Membership, clock_offset: float) -> Iterator[NodeRow]:
    """All nodes. `clock_offset`: wall time minus monotonic time."""
    return (_node_row(node, clock_offset) for node in membership.nodes())


def job_rows(jobs: JobTable, actors: ActorTable, clock_offset: float) -> Iterator[JobRow]:
    """All jobs."""
    return (_job_row(job, actors.living().count(job.job_id), clock_offset) for job in jobs.jobs())


def actor_rows(actors: ActorTable, actor_id: str, clock_offset: float) -> Iterator[ActorRow]:
    """All actors, the living first, newest first; or the one that is asked for."""
    if actor_id:
        found = actors.find(actor_id)
        if isinstance(found, Actor):
            yield _living_row(found, clock_offset)
        elif found is not None:
            yield _dead_row(found, clock_offset)
        return
    for actor in actors.living():
        yield _living_row(actor, clock_offset)
    for dead in actors.dead():
        yield _dead_row(dead, clock_offset)


def object_rows(table: DurableObjects) -> Iterator[ObjectRow]:
    """What the cluster owns."""
    for found in table.all():
        yield ObjectRow(
            object_id=f"{CLUSTER}-{found.index}",
            owner=CLUSTER,
            job_id=found.job_id,
            state=_object_state(found),
            size_bytes=found.size,
            place=", ".join(found.homes) or "head",
            local_refs=0,
            borrowers=0,
            call_site="",
        )


def _object_state(found: Durable) -> Literal["pending", "ready", "failed"]:
    if (found.died is not None and found.outcome is None) or isinstance(found.outcome, Failed):
        return "failed"
    return "pending" if found.maker or found.putter is not None else "ready"


def numbers(units: Mapping[str, int]) -> Resources:
    """Resources as a user writes them."""
    return {name: to_number(amount) for name, amount in units.items()}


def _node_row(node: Node, clock_offset: float) -> NodeRow:
    return {
        "node_id": node.node_id,
        "state": "lost" if node.lost_at is not None else "draining" if node.drains else "alive",
        "address": node.address,
        "resources": numbers(node.resources),
        "labels": node.labels,
        "joined_at": node.joined_at + clock_offset,
        "lost_at": node.lost_at + clock_offset if node.lost_at is not None else None,
        "reason": node.reason or node.drains or node.apart,
    }


def _job_row(job: Job, actors: int, clock_offset: float) -> JobRow:
    return {
        "job_id": job.job_id,
        "state": job.state.value,
        "driver_id": job.driver_id,
        "pid": job.pid,
        "namespace": job.namespace,
        "actors": actors,
        "started_at": job.started_at + clock_offset,
        "ended_at": job.ended_at + clock_offset if job.ended_at is not None else None,
        "reason": job.reason,
    }


def _living_row(actor: Actor, clock_offset: float) -> ActorRow:
    spec, ended = actor.spec, actor.ended
    return {
        "actor_id": spec.actor_id,
        "class_name": spec.class_name,
        "state": actor.state.value,
        "name": spec.name,
        "namespace": spec.namespace,
        "job_id": spec.job_id,
        "owner": spec.owner,
        "node_id": actor.last_node_id,
        "worker_id": actor.worker_id,
        "address": actor.address,
        "incarnation": actor.incarnation,
        "restarts": actor.restarts,
        "max_restarts": spec.max_restarts,
        "detached": spec.detached,
        "shared": spec.shared,
        "resources": numbers(spec.resources),
        "created_at": actor.created_at + clock_offset,
        "died_at": None,
        "died": ended.kind if ended is not None else "",
        "reason": ended.reason if ended is not None else "",
        "story": tell_story(actor.story, actor.created_at),
    }


def _dead_row(dead: DeadActor, clock_offset: float) -> ActorRow:
    return {
        "actor_id": dead.actor_id,
        "class_name": dead.class_name,
        "state": "dead",
        "name": dead.name,
        "namespace": dead.namespace,
        "job_id": dead.job_id,
        "owner": dead.owner,
        "node_id": dead.node_id,
        "worker_id": dead.worker_id,
        "address": "",
        "incarnation": dead.incarnation,
        "restarts": dead.restarts,
        "max_restarts": dead.max_restarts,
        "detached": dead.detached,
        "shared": dead.shared,
        "resources": numbers(dead.resources),
        "created_at": dead.created_at + clock_offset,
        "died_at": dead.died_at + clock_offset,
        "died": dead.died.kind,
        "reason": dead.died.reason,
        "story": tell_story(dead.story, dead.created_at),
    }
