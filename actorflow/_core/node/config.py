"""What a node is told at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actorflow._core.base.resources import CPU, DEVICE_NAMES, UNIT
from actorflow._core.policy.worker_pool import PoolLimits

if TYPE_CHECKING:
    from actorflow._core.io.devices.registry import Display


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The first four have no default; the rest is right for one machine."""

    address: str
    """Where drivers and workers reach the node."""
    head_address: str
    resources: dict[str, int]
    """Totals, in units of 1/10000."""
    worker_address: Callable[[str], str]
    """Where the worker with this id is to listen."""

    node_id: str = ""
    """Empty: the node draws its own."""
    pid: int = 0
    owner: str = ""
    """The process id of the driver that this cluster belongs to; when it is gone so is the cluster."""
    info: dict[str, str] = field(default_factory=dict)
    """Said to every peer in `Welcome.info`, besides `head`, the head's address."""
    labels: dict[str, str] = field(default_factory=dict)
    device_ids: dict[str, list[int]] = field(default_factory=dict)
    """The ids of the devices by resource; by default 0 to n-1 of each that has devices (GPU, TPU)."""
    device_types: dict[str, dict[int, str]] = field(default_factory=dict)
    """The accelerator types of those whose type is known, by resource and id."""
    device_displays: dict[str, Display] = field(default_factory=dict)
    """How workers are shown them; by default as the first kind of the resource does."""
    log_dir: str | None = None
    """Where each worker that prints has a file; None for no files."""

    prestart: int = 0
    """Workers that are started for a job when its driver connects."""
    idle_keep: int | None = None
    """Idle workers that are kept; None for one per CPU."""
    idle_timeout_s: float = 1.0
    """Idle workers over `idle_keep` leave after this time."""
    starting_max: int | None = None
    """Workers that start at one time; None for four times the CPUs, and 8 at least."""
    workers_max: int = 4096
    actors_per_host_max: int = 50_000
    extra_workers_max: int | None = None
    """Nested tasks whose CPU is lent while they wait (SEMANTICS 24); None for 256 and 8 per CPU."""
    starvation_s: float = 5.0
    """A request that waited so long may not be overtaken."""

    worker_register_timeout_s: float = 30.0
    worker_leave_timeout_s: float = 5.0
    """A worker that was asked to leave and is still there after this time is killed."""
    worker_silence_s: float = 1.0
    """How long a broken connection waits for the news of the process's end."""
    kill_grace_s: float = 5.0
    """A shared actor that was killed and does not end takes its host along after this time (SEMANTICS 22)."""
    cancel_grace_s: float = 5.0
    """A cancelled task that has not ended after this time ends with its worker (SEMANTICS 4). Told to every driver and worker."""
    farewell_s: float = 1.2
    """So long an ending node waits for workers that were told so: what runs in them is cancelled, and actors leave their contexts."""
    stop_grace_s: float = 0.5
    head_timeout_s: float = 10.0
    has_lease: bool = False
    """It ends when the head does not answer it for too long: see policy/liveness.py. Not for a node in the head's own process."""
    owner_timeout_s: float = 30.0
    """A cluster whose owner has not connected after this time ends."""
    allocation_patience_s: float = 10.0
    """An allocation fails after so long without progress (SEMANTICS 16)."""
    warm_pages_s: float = 10.0
    """Pages of freed objects stay in memory for so long after the last of them, for the next writer; 0: they go back at once."""
    transfer_chunk_bytes: int = 1 << 21
    """Objects travel between nodes in pieces of this size (CHUNK_BYTES): the same on all nodes of a cluster."""
    memory_threshold: float = 0.0
    """The share of the machine's memory that may be in use before workers end (policy/memory_watch.py); 0: nobody looks."""
    log_backlog_bytes_max: int = 1024 * 1024
    """Worker output is dropped, and counted, while a driver has more than this unread."""

    def devices(self) -> dict[str, list[int]]:
        """The ids of all kinds of devices."""
        counts = {name: self.resources.get(name, 0) // UNIT for name in DEVICE_NAMES}
        return {name: list(range(count)) for name, count in counts.items() if count} | self.device_ids

    def displays(self) -> dict[str, Display]:
        """How workers are shown the devices of all kinds that this node has."""
        counts = {name: len(ids) for name, ids in self.devices().items() if ids and name in DEVICE_NAMES}
        if not counts.keys() - self.device_displays.keys():
            return self.device_displays

        from actorflow._core.io.devices.registry import Display, default_kind

        return {name: Display(default_kind(name), count) for name, count in counts.items()} | self.device_displays

    def cpus(self) -> int:
        """Whole CPUs, one at least."""
        return max(1, self.resources.get(CPU, 0) // UNIT)

    def blocked_max(self) -> int:
        """See `extra_workers_max`."""
        return self.extra_workers_max if self.extra_workers_max is not None else 256 + 8 * self.cpus()

    def pool_limits(self) -> PoolLimits:
        """The bounds of the worker pool."""
        return PoolLimits(
            idle_keep=self.idle_keep if self.idle_keep is not None else self.cpus(),
            idle_timeout_s=self.idle_timeout_s,
            register_timeout_s=self.worker_register_timeout_s,
            starting_max=self.starting_max if self.starting_max is not None else max(8, 4 * self.cpus()),
            workers_max=self.workers_max,
            actors_per_host_max=self.actors_per_host_max,
        )
