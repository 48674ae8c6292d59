"""The jobs whose drivers have been here: where their code is, and who reads what their workers print."""

from __future__ import annotations

from collections import OrderedDict

from actorflow._core.io.peers import Peer

ENDED_MAX = 1000
"""Ended jobs that are remembered: a detached actor of theirs may have to start again."""


class _Job:
    """One job."""

    __slots__ = ("drivers", "sys_path")

    def __init__(self, sys_path: tuple[str, ...]) -> None:
        self.sys_path = sys_path
        self.drivers: list[Peer] = []


class Jobs:
    """All jobs that this node knows."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    def driver_ready(self, peer: Peer) -> bool:
        """A driver is connected. True when its job begins; a driver without a job only looks."""
        if not peer.job_id:
            return False
        job = self._jobs.get(peer.job_id)
        if job is None:
            job = self._jobs[peer.job_id] = _Job(tuple(peer.sys_path))
        self._ended.pop(peer.job_id, None)
        job.drivers.append(peer)
        return len(job.drivers) == 1

    def guest_ready(self, peer: Peer) -> None:
        """A worker of another node is connected: its job may be new here."""
        if peer.job_id not in self._jobs:
            self._jobs[peer.job_id] = _Job(tuple(peer.sys_path))
            self._ended[peer.job_id] = None  # It has no driver here: it may be forgotten.
            if len(self._ended) > ENDED_MAX:
                del self._jobs[self._ended.popitem(last=False)[0]]

    def driver_lost(self, peer: Peer) -> bool:
        """A driver is gone. True when its job ends with it."""
        job = self._jobs.get(peer.job_id)
        if job is None or peer not in job.drivers:
            return False
        job.drivers.remove(peer)
        if job.drivers:
            return False
        self._ended[peer.job_id] = None
        if len(self._ended) > ENDED_MAX:
            del self._jobs[self._ended.popitem(last=False)[0]]
        return True

    def sys_path(self, job_id: str) -> tuple[str, ...]:
        """Where the workers of a job find its modules."""
        job = self._jobs.get(job_id)
        return job.sys_path if job is not None else ()

    def drivers(self, job_id: str) -> list[Peer]:
        """The drivers of a job that are connected."""
        job = self._jobs.get(job_id)
        return job.drivers if job is not None else []
