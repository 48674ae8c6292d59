"""What the rooms of a node share, and the records that pass between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from actorflow._core.base.errors import explain
from actorflow._core.base.resources import format_bytes
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports, ProcessExit
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.head_link import HeadLink
from actorflow._core.policy.leases import LeaseBook
from actorflow._core.policy.tickets import Ticket
from actorflow._core.policy.worker_pool import WorkerPool
from actorflow._core.policy.worker_records import WorkerKey

if TYPE_CHECKING:
    import asyncio

    from actorflow._core.node.groups import Groups
    from actorflow._core.node.leases import Lease

SIGKILL = 9


@dataclass(slots=True)
class NodeContext:
    """The one node, as all of its rooms see it. The books have one writer per noun: the room of that noun."""

    ports: Ports
    config: NodeConfig
    node_id: str
    head: HeadLink
    book: LeaseBook
    pool: WorkerPool
    groups: Groups | None = None
    """The bundles of placement groups here; None until the head speaks of one."""
    draining: bool = False
    """It is to leave, and takes nothing new. Written by node/draining.py."""
    has_left: bool = False
    """It has said its last word: nothing begins here any more, whatever was on its way. As well."""

    def books(self) -> Iterable[LeaseBook]:
        """The node's own tickets, and those in bundles."""
        return (self.book,) if self.groups is None else (self.book, *self.groups.books())

    def now(self) -> float:
        """The node's clock, in seconds."""
        return self.ports.monotonic()

    def wall_time(self, monotonic_s: float) -> float:
        """A moment of the node's clock as seconds since the epoch."""
        return self.ports.wall_time() - self.ports.monotonic() + monotonic_s


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended, in words for errors, with its last lines."""

    cause: str
    log: list[str] = field(default_factory=list)
    exit: ProcessExit | None = None

    def with_log(self) -> str:
        """Cause and last lines as one text."""
        return explain(what=self.cause, log_tail=self.log).rstrip(".")


class Occupant(Protocol):
    """Who has a worker: a lease, an actor, or a house of shared actors."""

    @property
    def name(self) -> str:
        """For log prefixes and the state API."""

    @property
    def retriable(self) -> bool:
        """What runs there is tried again when it is lost, as far as its node knows."""

    def actor_ids(self) -> list[str]:
        """The actors that live there."""

    def worker_lost(self, worker: WorkerProcess, death: Death) -> None:
        """The worker will never answer again: tell whom it concerns, once. Tickets go to `worker.owed`."""


class Holder(Protocol):
    """Whose ticket and whose claim it is: a lease or an actor."""

    def admitted(self) -> None:
        """The resources are there: claim a worker."""

    def fulfilled(self, worker: WorkerProcess) -> None:
        """The worker is there."""

    def refused(self, kind: str, reason: str) -> None:
        """It will not be."""

    def evicted(self, reason: str, *, removed: bool) -> None:
        """Its bundle is to be given back (`removed`: its placement group is no more): end, whatever it does."""


class WorkerProcess:
    """One worker process, from its spawn until it is reaped.

    `ending`: why the node ends it, empty while it does not. `owed`: tickets to release when the process
    is gone, not before, as it may still use what they stand for.
    """

    __slots__ = (
        "address", "asked", "ending", "key", "occupant", "occupied_at", "out_of_memory", "owed", "peer", "pid", "retired",
        "started_at", "timer", "worker_id",
    )  # fmt: skip

    def __init__(self, worker_id: str, key: WorkerKey, address: str, now: float) -> None:
        self.worker_id = worker_id
        self.key = key
        self.address = address
        self.started_at = now
        self.pid = 0
        self.peer: Peer | None = None
        self.occupant: Occupant | None = None
        self.occupied_at = now
        """Since when it has the occupant that it has."""
        self.out_of_memory = False
        """It is ended, or was, as memory ran out."""
        self.owed: list[Ticket] = []
        self.ending = ""
        self.retired = False
        """Not to be used again."""
        self.asked = False
        """True while it may refuse to end."""
        self.timer: asyncio.TimerHandle | None = None

    def label(self) -> str:
        """For messages: `worker 1f2e3d4c5b6a (pid 4211)`."""
        return f"worker {self.worker_id} (pid {self.pid})" if self.pid else f"worker {self.worker_id}"

    def death(self, exit: ProcessExit, log: list[str]) -> Death:
        """How it ended, when its process is gone."""
        words = f"was {exit.describe()}" if exit.signal is not None else exit.describe()
        cause = f"{self.label()} {words}"
        if self.ending:
            cause += f" by its node: {self.ending}" if exit.signal is not None else f" ({self.ending})"
        elif self.out_of_memory:
            cause += " by the system, as memory ran out"
        elif exit.signal == SIGKILL:
            cause += ", and not by actorflow: most often that is the system when memory runs out"
        if exit.peak_memory_bytes:
            cause += f"; its peak memory was {format_bytes(exit.peak_memory_bytes)}"
        return Death(cause, log, exit)


class Client:
    """A driver or a worker as a user of this node. Kept in `peer.state`."""

    __slots__ = ("leases", "peer", "worker")

    def __init__(self, peer: Peer, worker: WorkerProcess | None) -> None:
        self.peer = peer
        self.worker = worker
        self.leases: dict[int, Lease] = {}


def client_of(peer: Peer) -> Client:
    """The record of a driver or a worker."""
    assert isinstance(peer.state, Client), f"{peer!r} is not a driver or a worker"
    return peer.state
