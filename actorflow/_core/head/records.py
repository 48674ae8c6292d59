"""What the head writes down: the entries of its log, by kind (io/state_log.py). Times are wall time there, and the head's own clock here.

    class       class_id        the pickle and the methods of a class, once for all its actors
    actor       actor_id        what it is: its specification, without its class
    life        actor_id        how it goes: its incarnation, where that is, what it has been told
    checkpoint  actor_id        the newest state of the actor
    dead        actor_id        why it is gone
    job         job_id          a job that runs; `ended`: one that is over
    node        node_id         a node that lives
    group       group_id        a placement group, and where its bundles are; `removed`: why one is no more
    durable     index           an object that the cluster owns, and which nodes keep it
    supervision id              actors that are supervised together; `over`: how that ended

A field that is added at the end of a record needs a default, and no new schema; anything else does (protocol/journal_format.py).
"""

from __future__ import annotations

import msgspec

from actorflow._core.policy.actor_decisions import Ending
from actorflow._core.policy.actor_record import Actor, State
from actorflow._core.policy.bundle_packing import BundleSpec
from actorflow._core.policy.bundle_packing import Strategy as GroupStrategy
from actorflow._core.policy.durable_objects import Durable
from actorflow._core.policy.graveyard import DeadActor
from actorflow._core.policy.jobs import Job, JobState
from actorflow._core.policy.membership import Node
from actorflow._core.policy.placement_record import Group, GroupSpec, Placed, RemovedGroup
from actorflow._core.policy.supervision import Failure, Strategy, Supervision
from actorflow._core.protocol.messages import ActorDied, ActorSpec, Outcome, SupervisionOver


class ClassRecord(msgspec.Struct, array_like=True, frozen=True):
    """See the module."""

    pickle: bytes
    methods: bytes


class LifeRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/actor_record.py."""

    state: str
    incarnation: int
    restarts: int
    losses_in_a_row: int
    node_id: str
    last_node_id: str
    worker_id: str
    address: str
    created_at: float
    ready_at: float | None
    leaving: ActorDied | None = None
    bouncing: bool = False
    ended: ActorDied | None = None
    moving: bool = False


class CheckpointRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/checkpoints.py."""

    incarnation: int
    number: int
    data: bytes


class JobRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/jobs.py."""

    namespace: str
    driver_id: str
    pid: int
    started_at: float
    drivers: list[str]
    ended_at: float | None = None
    reason: str = ""


class NodeRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/membership.py."""

    address: str
    resources: dict[str, int]
    labels: dict[str, str]
    joined_at: float
    drains: str = ""


class DurableRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/durable_objects.py."""

    namespace: str
    job_id: str
    outcome: Outcome | None
    created_at: float
    ends_at: float | None
    homes: dict[str, int]
    adopted: bool
    maker: str = ""
    name: str = ""
    work: list[int] = []
    died: ActorDied | None = None
    kept_as: int = 0
    past: list[tuple[str, int]] = []


class SupervisionRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/supervision.py. Of those that stood above it, `above` is the one at the time."""

    owner: str
    job_id: str
    members: list[str]
    strategy: str
    max_restarts: int
    within_s: float
    detached: bool
    above: str
    failures: list[float]
    endings: list[tuple[str, str, bool]] = []
    begun_by: str = ""


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """See policy/placement_record.py. `bundles`: resources and labels; `placed`: by index, the node and the attempt."""

    job_id: str
    strategy: str
    bundles: list[tuple[dict[str, int], dict[str, str]]]
    name: str
    namespace: str
    detached: bool
    creator: str
    priority: int
    attempt: int
    placed: dict[int, tuple[str, int]]
    created_at: float
    ready_at: float | None


class RemovedRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group that is no more. `group`: what it was, where it ever was one."""

    reason: str
    created_at: float
    removed_at: float
    group: GroupRecord | None


encode = msgspec.msgpack.Encoder().encode
decode_class = msgspec.msgpack.Decoder(ClassRecord).decode
decode_spec = msgspec.msgpack.Decoder(ActorSpec).decode
decode_life = msgspec.msgpack.Decoder(LifeRecord).decode
decode_checkpoint = msgspec.msgpack.Decoder(CheckpointRecord).decode
decode_dead = msgspec.msgpack.Decoder(DeadActor).decode
decode_job = msgspec.msgpack.Decoder(JobRecord).decode
decode_node = msgspec.msgpack.Decoder(NodeRecord).decode
decode_group = msgspec.msgpack.Decoder(GroupRecord).decode
decode_removed = msgspec.msgpack.Decoder(RemovedRecord).decode
decode_durable = msgspec.msgpack.Decoder(DurableRecord).decode
decode_over = msgspec.msgpack.Decoder(SupervisionOver).decode
decode_supervision = msgspec.msgpack.Decoder(SupervisionRecord).decode


def durable_record(found: Durable, offset: float) -> DurableRecord:
    """An object that the cluster owns."""
    ends_at = found.ends_at + offset if found.ends_at is not None else None
    return DurableRecord(
        found.namespace, found.job_id, found.outcome, found.created_at + offset, ends_at, dict(found.homes), found.adopted,
        found.maker, found.name, list(found.work), found.died, found.kept_as, found.past,
    )  # fmt: skip


def durable_from(index: int, record: DurableRecord, offset: float) -> Durable:
    """The object."""
    ends_at = record.ends_at - offset if record.ends_at is not None else None
    created_at = record.created_at - offset
    found = Durable(index, record.namespace, record.job_id, record.outcome, created_at, ends_at)
    found.homes, found.adopted = dict(record.homes), record.adopted
    found.maker, found.name, found.work, found.died = record.maker, record.name, list(record.work), record.died
    found.kept_as, found.past = record.kept_as, list(record.past)
    return found


def bare(spec: ActorSpec) -> bytes:
    """A specification without its class."""
    pickle, methods = spec.class_pickle, spec.methods
    spec.class_pickle = spec.methods = b""
    try:
        return encode(spec)
    finally:
        spec.class_pickle, spec.methods = pickle, methods


def life_of(actor: Actor, offset: float) -> LifeRecord:
    """`offset`: wall time minus the head's clock."""
    return LifeRecord(
        actor.state.value,
        actor.incarnation,
        actor.restarts,
        actor.losses_in_a_row,
        actor.node_id,
        actor.last_node_id,
        actor.worker_id,
        actor.address,
        actor.created_at + offset,
        actor.ready_at + offset if actor.ready_at is not None else None,
        actor.leaving,
        actor.bouncing,
        actor.ended,
        actor.moving,
    )


def actor_from(spec: ActorSpec, life: LifeRecord, now: float, offset: float) -> Actor:
    """The actor, on no node yet: `life.node_id` says where its incarnation is."""
    actor = Actor(spec, life.created_at - offset)
    actor.state = State(life.state)
    actor.incarnation, actor.restarts, actor.losses_in_a_row = life.incarnation, life.restarts, life.losses_in_a_row
    actor.last_node_id, actor.worker_id, actor.address = life.last_node_id, life.worker_id, life.address
    actor.ready_at = life.ready_at - offset if life.ready_at is not None else None
    actor.leaving, actor.bouncing, actor.moving, actor.ended = life.leaving, life.bouncing, life.moving, life.ended
    actor.tell(now, "the head came back")
    return actor


def dead_record(dead: DeadActor, offset: float) -> bytes:
    """The dead, in wall time and without the story that nobody asks for any more."""
    record = msgspec.structs.replace(dead, created_at=dead.created_at + offset, died_at=dead.died_at + offset, story=[])
    return encode(record)


def dead_from(data: bytes, offset: float) -> DeadActor:
    """The dead, in the head's time."""
    dead: DeadActor = decode_dead(data)
    dead.created_at -= offset
    dead.died_at -= offset
    dead.story = [(dead.died_at, "died", dead.died.reason.partition("\n")[0])]
    return dead


def job_record(job: Job, offset: float) -> JobRecord:
    """A job, running or ended."""
    ended_at = job.ended_at + offset if job.ended_at is not None else None
    return JobRecord(job.namespace, job.driver_id, job.pid, job.started_at + offset, list(job.drivers), ended_at, job.reason)


def job_from(job_id: str, record: JobRecord, offset: float) -> Job:
    """The job."""
    job = Job(job_id, record.namespace, record.driver_id, record.pid, record.started_at - offset)
    job.drivers = dict.fromkeys(record.drivers)
    if record.ended_at is not None:
        job.state, job.ended_at, job.reason = JobState.ENDED, record.ended_at - offset, record.reason
    return job


def node_record(node: Node, offset: float) -> NodeRecord:
    """A living node."""
    return NodeRecord(node.address, node.resources, node.labels, node.joined_at + offset, node.drains)


def node_from(node_id: str, record: NodeRecord, offset: float) -> Node:
    """The node."""
    return Node(node_id, record.address, record.resources, record.labels, record.joined_at - offset, drains=record.drains)


def group_record(group: Group, offset: float) -> GroupRecord:
    """A group that is not removed."""
    spec = group.spec
    return GroupRecord(
        spec.job_id,
        spec.strategy.value,
        [(dict(bundle.resources), dict(bundle.labels)) for bundle in spec.bundles],
        spec.name,
        spec.namespace,
        spec.detached,
        spec.creator,
        spec.priority,
        group.attempt,
        {index: (place.node_id, place.attempt) for index, place in group.placed.items()},
        group.created_at + offset,
        group.ready_at + offset if group.ready_at is not None else None,
    )


def group_from(group_id: str, record: GroupRecord, now: float, offset: float) -> Group:
    """The group."""
    spec = GroupSpec(
        group_id,
        record.job_id,
        GroupStrategy(record.strategy),
        tuple(BundleSpec(resources, labels) for resources, labels in record.bundles),
        record.name,
        record.namespace,
        record.detached,
        record.creator,
        record.priority,
    )
    group = Group(spec, 0, record.created_at - offset)
    group.attempt = record.attempt
    group.placed = {index: Placed(node_id, attempt) for index, (node_id, attempt) in record.placed.items()}
    group.ready_at = record.ready_at - offset if record.ready_at is not None else None
    group.waiting_since = now
    group.story.append((now, "the head came back", ""))
    return group


def removed_record(removed: RemovedGroup, offset: float) -> RemovedRecord:
    """A group that is no more."""
    was = group_record(Group(removed.spec, 0, removed.created_at), offset) if removed.spec is not None else None
    return RemovedRecord(removed.reason, removed.created_at + offset, removed.removed_at + offset, was)


def removed_from(group_id: str, record: RemovedRecord, offset: float) -> RemovedGroup:
    """What is remembered of it."""
    spec = group_from(group_id, record.group, 0.0, offset).spec if record.group is not None else None
    removed_at = record.removed_at - offset
    return RemovedGroup(spec, record.reason, record.created_at - offset, removed_at, [(removed_at, "removed:", record.reason)])


def supervision_record(one: Supervision, offset: float) -> SupervisionRecord:
    """A supervision."""
    failures = [failure.at + offset for failure in one.failures]
    endings = [(failure.ending.key, failure.ending.node_id, failure.ending.of_node) for failure in one.failures]
    strategy, bounds = one.strategy.value, (one.max_restarts, one.within_s)
    return SupervisionRecord(
        one.owner, one.job_id, one.members, strategy, *bounds, one.detached, one.above, failures, endings, one.begun_by
    )


def supervision_from(supervision_id: str, record: SupervisionRecord, offset: float) -> Supervision:
    """The supervision."""
    one = Supervision(
        supervision_id,
        record.owner,
        record.job_id,
        record.members,
        Strategy(record.strategy),
        record.max_restarts,
        record.within_s,
        record.detached,
        record.above,
    )
    endings = [Ending(*ending) for ending in record.endings] or [Ending() for _ in record.failures]
    one.failures.extend(Failure(at - offset, ending) for at, ending in zip(record.failures, endings, strict=True))
    one.begun_by = record.begun_by
    return one
