"""Leases: the right of an owner to push tasks to one worker."""

from actorflow._core.protocol.messages.base import Message


class RequestLease(Message, tag=30):
    """owner -> node: I want a worker with these resources. Answered by LeaseGranted, LeaseRefused or LeaseRedirect, at once or later.

    `lease` is the requester's own number, the key of the whole life of the lease. `resources` in units of 1/10000. `env` is the JSON
    of the environment the worker must have, empty for none. Higher `priority` is served first, then order of arrival.
    """

    lease: int
    resources: dict[str, int]
    priority: int = 0
    env: str = ""
    name: str = ""
    placement: str = ""
    """Labels and strategy (policy/placement_wish.py); empty for most."""
    excluded: list[str] = []
    """Nodes that have sent the request on."""
    locality: dict[str, int] = {}
    """Where large arguments of the next piece of work lie, in bytes by node: worth going there when there is room."""
    retriable: bool = True
    """The next piece of work is tried again when its worker dies."""


class LeaseRedirect(Message, tag=24):
    """node -> owner: ask that node instead; nothing of the request is kept here."""

    lease: int
    node_id: str
    address: str


class CancelLease(Message, tag=31):
    """owner -> node: the request is no longer wanted. A grant that crosses it is returned by the owner. Idempotent."""

    lease: int


class LeaseGranted(Message, tag=32):
    """node -> owner: push to this worker. `devices`: the ids assigned, by resource."""

    lease: int
    worker_id: str
    address: str
    devices: dict[str, list[int]] = {}


class LeaseRefused(Message, tag=33):
    """node -> owner: this will not be granted here.

    `kind`: infeasible (it never can be) | environment (no worker can have the one it asks for; `reason` says
    what to do) | worker_failed (no process could be started) | full (too many requests wait) | too_deep
    (nested tasks keep more workers than allowed: SEMANTICS 24) | moved (the bundle is not on this node: ask the
    head where it is) | shutdown.
    """

    lease: int
    kind: str
    reason: str


class LeaseLost(Message, tag=34):
    """node -> owner: the leased worker died; `cause` tells how in words, `log` has its last lines.

    `removed`: its placement group is no more, so nothing else will run in it. `left`: its node was to leave, so it counts as no failure.
    `exit_code` or `signal` is set when the process has ended and somebody could tell how.
    """

    lease: int
    worker_id: str
    cause: str
    out_of_memory: bool = False
    log: list[str] = []
    pid: int = 0
    exit_code: int | None = None
    signal: int | None = None
    peak_memory_bytes: int = 0
    removed: bool = False
    left: bool = False


class ReturnLease(Message, tag=35):
    """owner -> node: I am done with this worker. `retire`: do not use it again. Idempotent.

    `stays`: a worker that is retired may live on, unused, as long as others hold what it owns.
    """

    lease: int
    retire: bool = False
    stays: bool = False


class KillLease(Message, tag=39):
    """owner -> node: kill the worker, whose task does not end. Answered by LeaseLost. Idempotent."""

    lease: int
    reason: str


class WornOut(Message, tag=19):
    """worker -> owner of the lease: a task of it was interrupted here; push nothing more, and have me retired (SEMANTICS 5)."""

    lease: int


class ReclaimLease(Message, tag=36):
    """node -> owner: somebody waits; return the lease when what has been pushed is done. Idempotent."""

    lease: int


class Blocked(Message, tag=37):
    """worker -> node: all my running code waits for other results; my CPU may be lent (SEMANTICS 24)."""


class Unblocked(Message, tag=38):
    """worker -> node: my code goes on."""
