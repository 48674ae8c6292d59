"""The node looks after the memory of its machine: when it runs out the store makes room, and then workers end, one after another.

The policy is `policy/memory_watch.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Protocol

from actorflow._core.base.resources import format_bytes
from actorflow._core.node.context import NodeContext, WorkerProcess
from actorflow._core.node.store import Store
from actorflow._core.node.workers import Workers
from actorflow._core.policy.memory_watch import Candidate, MemoryUse, choose, is_over, is_pressed

log = logging.getLogger("actorflow")

LOOK_S = 0.25
EASY_LOOK_S = 1.0
"""How often it looks while less than EASY_SHARE is in use."""
EASY_SHARE = 0.6
TELL_S = 30.0
"""How often it says that memory is short and nothing of this node would help."""


class MemoryGauge(Protocol):
    """What says how much memory there is: io/memory.py."""

    def use(self) -> MemoryUse | None:
        """What is in use now; None where nobody says."""

    def private_bytes(self, pid: int) -> int:
        """What would come free with this process."""

    def system_kills(self) -> int:
        """How many processes the system has ended for want of memory."""


class MemoryWatch:
    """See the module."""

    def __init__(self, context: NodeContext, workers: Workers, store: Store, gauge: MemoryGauge) -> None:
        self._context = context
        self._workers = workers
        self._store = store
        self._gauge = gauge
        self._leaving: dict[str, int] = {}
        """Workers that were ended for their memory and are not gone yet, and what each had."""
        self._system_kills = gauge.system_kills()
        self._told_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._look()

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def killed(self, worker: WorkerProcess) -> None:
        """A worker was ended by SIGKILL, and not by its node: was it the system, for want of memory?"""
        kills = self._gauge.system_kills()
        if kills > self._system_kills:
            self._system_kills = kills
            worker.out_of_memory = True

    def _look(self) -> None:
        use, threshold = self._gauge.use(), self._context.config.memory_threshold
        if use is None:
            self._timer = None
            return
        self._store.press(is_pressed(use, threshold))
        self._leaving = {worker_id: size for worker_id, size in self._leaving.items() if self._workers.get(worker_id) is not None}
        if is_over(use, threshold, sum(self._leaving.values())):
            self._end_one(use, threshold)
        wait_s = LOOK_S if use.share >= EASY_SHARE else EASY_LOOK_S
        self._timer = self._context.ports.loop.call_later(wait_s, self._look)

    def _end_one(self, use: MemoryUse, threshold: float) -> None:
        candidates = list(self._candidates())
        victim = choose(use, threshold, candidates)
        worker = self._workers.get(victim.worker_id) if victim is not None else None
        if victim is None or worker is None:
            self._tell(use, sum(candidate.memory_bytes for candidate in candidates))
            return
        log.warning("%s is ended: %s", worker.label(), victim.reason)
        worker.out_of_memory = True
        self._leaving[worker.worker_id] = self._gauge.private_bytes(worker.pid)
        self._workers.kill(worker, victim.reason)

    def _candidates(self) -> Iterator[Candidate]:
        for worker in self._workers.all():
            occupant = worker.occupant
            if occupant is not None and worker.pid and not worker.ending and worker.worker_id not in self._leaving:
                memory = self._gauge.private_bytes(worker.pid)
                about = (worker.worker_id, worker.label(), worker.key.job_id, occupant.name)
                yield Candidate(*about, occupant.retriable, worker.occupied_at, memory)

    def _tell(self, use: MemoryUse, own_bytes: int) -> None:
        now = self._context.now()
        if self._told_at is None or now - self._told_at >= TELL_S:
            self._told_at = now
            log.warning(
                "memory runs out %s: %s of %s are in use, and no worker of this node has much (all of them together %s): others have it",
                use.where,
                format_bytes(use.used_bytes),
                format_bytes(use.limit_bytes),
                format_bytes(own_bytes),
            )
