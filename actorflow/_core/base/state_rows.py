"""The rows of the state API: one TypedDict per kind, the columns in the order that tables show them.

Rows travel as JSON. Whoever answers a query builds plain dicts with exactly these keys. Ids are the printable
ids of `base/ids.py`, empty where there is none. Times are seconds since the epoch on the clock of the process
that answers, None where it has not come to that. Resources are the numbers a user writes (0.5 GPU), memory in
bytes.
"""

from __future__ import annotations

from typing import Literal, TypedDict

StateKind = Literal["nodes", "jobs", "actors", "tasks", "objects", "workers", "resources", "events", "leases", "placement_groups"]

HEAD_KINDS = ("nodes", "jobs", "actors", "placement_groups")
"""Answered by the head from its own tables."""

NODE_KINDS = ("tasks", "objects", "workers", "resources", "events", "leases")
"""Answered by the nodes, which ask their processes where these know better."""

Resources = dict[str, float]


class NodeRow(TypedDict):
    """One node. `reason`: why it was lost or is to leave, or that it is heard only through others.

    `resources` are its totals; what is free is in ResourceRow.
    """

    node_id: str
    state: Literal["alive", "draining", "lost"]
    address: str
    resources: Resources
    labels: dict[str, str]
    joined_at: float
    lost_at: float | None
    reason: str


class JobRow(TypedDict):
    """One job. `actors`: how many of its actors live; after its end, the detached ones and what they made."""

    job_id: str
    state: Literal["running", "ended"]
    driver_id: str
    pid: int
    namespace: str
    actors: int
    started_at: float
    ended_at: float | None
    reason: str


class ActorRow(TypedDict):
    """One actor. `story`: its last events as lines. `died`: the kind of its end, with `reason` in words.

    While it is restarting, `died` and `reason` tell of the incarnation before.
    """

    actor_id: str
    class_name: str
    state: Literal["pending", "alive", "restarting", "dead"]
    name: str
    namespace: str
    job_id: str
    owner: str
    node_id: str
    worker_id: str
    address: str
    incarnation: int
    restarts: int
    max_restarts: int
    detached: bool
    shared: bool
    resources: Resources
    created_at: float
    died_at: float | None
    died: str
    reason: str
    story: list[str]


class TaskRow(TypedDict):
    """One call: while it has not ended as its owner knows it, afterwards as the worker that ran it remembers it.

    `actor_id` is empty for a function, `worker_id` until it is pushed (then it waits or runs there). Times are known to the worker only.
    """

    task: str
    name: str
    state: Literal["waiting", "queued", "pushed", "finished", "failed"]
    owner: str
    job_id: str
    actor_id: str
    worker_id: str
    attempt: int
    started_at: float | None
    ended_at: float | None
    call_site: str


class ObjectRow(TypedDict):
    """One object, as its owner knows it; the head, of what the cluster owns (`owner` is "cluster").

    `place`: inline, or the node whose arena holds it; of what the cluster owns all nodes that keep it, or head. `call_site`: where it was
    made.
    """

    object_id: str
    owner: str
    job_id: str
    state: Literal["pending", "ready", "failed"]
    size_bytes: int
    place: str
    local_refs: int
    borrowers: int
    call_site: str


class WorkerRow(TypedDict):
    """One worker process, as its node knows it. `actors` are the ids of the actors it hosts.

    `memory_bytes`: what it has in RAM at this moment. Pages that several processes share are counted for each of them: the code
    of the interpreter, and large objects of the shared memory while it has them open. 0 for one that is starting or dead.
    """

    worker_id: str
    node_id: str
    pid: int
    state: Literal["starting", "idle", "leased", "actor", "stopping", "dead"]
    job_id: str
    actors: list[str]
    started_at: float
    memory_bytes: int
    reason: str


class ResourceRow(TypedDict):
    """One resource of a node: its total, what is free (below 0: a debt, SEMANTICS 24), what waits for it."""

    node_id: str
    resource: str
    total: float
    free: float
    waiting: float


class LeaseRow(TypedDict):
    """One lease, or a request for one that waits: the right of an owner to push tasks to a worker."""

    lease: int
    node_id: str
    owner: str
    name: str
    state: Literal["queued", "granted", "reclaiming"]
    worker_id: str
    resources: Resources
    priority: int
    since: float


class PlacementGroupRow(TypedDict):
    """One placement group. `nodes`: where each bundle is, empty for one that has no place yet. `reason`: why it waits, or was removed."""

    group_id: str
    name: str
    namespace: str
    state: Literal["pending", "preparing", "created", "rescheduling", "removed"]
    strategy: str
    bundles: list[Resources]
    label_selectors: list[dict[str, str]]
    nodes: list[str]
    job_id: str
    creator: str
    detached: bool
    priority: int
    created_at: float
    removed_at: float | None
    reason: str
    infeasible: bool
    story: list[str]


class EventRow(TypedDict):
    """One thing that happened. `subject` is the id it happened to; a span has a duration, a point has 0."""

    time: float
    duration_s: float
    kind: str
    subject: str
    name: str
    process_id: str
    pid: int
    detail: str
