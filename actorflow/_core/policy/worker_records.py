"""The nouns of the worker pool: keys, claims, workers, hosts, and what the pool decides. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class WorkerKey(NamedTuple):
    """What must be the same for a worker to be used again. `devices`: one text for each, as `GPU=0`."""

    job_id: str
    env: str = ""
    devices: tuple[str, ...] = ()


class HostKey(NamedTuple):
    """What shared actors on one host have in common; `detached` ones must outlive the job of the others."""

    job_id: str
    env: str
    detached: bool


class Purpose(Enum):
    """What a claim wants a worker for. HOST is the pool's own: a process for shared actors."""

    LEASE = "lease"
    ACTOR = "actor"
    SHARED = "shared"
    HOST = "host"


class WorkerState(Enum):
    """Where a worker is in its life; the drawing is in `worker_pool`."""

    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    ACTOR = "actor"
    HOST = "host"
    DYING = "dying"


class Claim:
    """A wish for a worker; `worker_id` is set once it is fulfilled. `holder` is free for the shell."""

    __slots__ = ("holder", "host", "key", "number", "purpose", "worker_id")

    def __init__(
        self, number: int, key: WorkerKey, purpose: Purpose, holder: object, host: Host | None
    ) -> None:
        self.number = number
        self.key = key
        self.purpose = purpose
        self.holder = holder
        self.host = host
        self.worker_id = ""


class Host:
    """A worker for shared actors, from the first claim on, before there is a process."""

    __slots__ = ("actors", "key", "waiting", "worker_id")

    def __init__(self, key: HostKey) -> None:
        self.key = key
        self.actors = 0
        """Claims that wait are counted too."""
        self.waiting: OrderedDict[int, Claim] = OrderedDict()
        self.worker_id = ""


class Worker:
    """One worker process as the pool sees it; `since` it is in its state."""

    __slots__ = ("host", "key", "since", "state", "worker_id")

    def __init__(self, worker_id: str, key: WorkerKey, now: float) -> None:
        self.worker_id = worker_id
        self.key = key
        self.state = WorkerState.STARTING
        self.since = now
        self.host: Host | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """The claim is fulfilled by this worker."""

    worker_id: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process with this id."""

    worker_id: str
    key: WorkerKey


@dataclass(frozen=True, slots=True)
class Retire:
    """End a worker that nobody uses: in order, or at once when it never came up (`kill`).

    `ask`: it may refuse, and is idle again then (`WorkerPool.needed`).
    """

    worker_id: str
    reason: str
    kill: bool = False
    ask: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """The claim cannot be fulfilled. `kind`: worker_failed (none starts) | full (there is no place)."""

    claim: Claim
    kind: str
    reason: str


Decision = Use | Spawn | Retire | Refuse
