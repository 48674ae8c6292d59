"""The life of jobs. A job begins with its driver and ends when its last driver is gone.

    (none) -- driver connected --> RUNNING -- the last driver lost --> ENDED, for ever

JO-1: ENDED is final: a driver that comes back too late is refused.
JO-2: a job that is running has at least one driver.
JO-3: at most `ended_max` ended jobs are remembered; the oldest are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from actorflow._core.base.errors import InternalError
from actorflow._core.base.ids import ProcessId

ENDED_JOBS_MAX = 10_000


class JobState(Enum):
    """Where a job is in its life."""

    RUNNING = "running"
    ENDED = "ended"


class JobEvent(Enum):
    """What moves a job."""

    DRIVER_CONNECTED = auto()
    DRIVER_LOST = auto()
    LAST_DRIVER_LOST = auto()


NEXT: dict[tuple[JobState | None, JobEvent], JobState] = {
    (None, JobEvent.DRIVER_CONNECTED): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.DRIVER_CONNECTED): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.DRIVER_LOST): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.LAST_DRIVER_LOST): JobState.ENDED,
}
"""All there is. A driver of an ended job is refused before it gets here."""


@dataclass(slots=True)
class Job:
    """One job. Written by JobTable only."""

    job_id: str
    namespace: str
    driver_id: ProcessId
    pid: int
    started_at: float
    state: JobState = JobState.RUNNING
    drivers: dict[ProcessId, None] = field(default_factory=dict)
    ended_at: float | None = None
    reason: str = ""


@dataclass(slots=True)
class Refuse:
    """Close the connection of this driver."""

    driver_id: ProcessId
    reason: str


@dataclass(slots=True)
class EndJob:
    """The job is over: end what belongs to it."""

    job_id: str
    reason: str


JobDecision = Refuse | EndJob


class JobTable:
    """The jobs of the cluster: running ones, and a bounded memory of those that ended."""

    __slots__ = ("_ended", "_ended_max", "_running")

    def __init__(self, ended_max: int = ENDED_JOBS_MAX) -> None:
        self._ended_max = ended_max
        self._running: dict[str, Job] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()

    def is_over(self, job_id: str) -> bool:
        """True when the job has ended. A job nobody remembers, or knows yet, is not over."""
        return job_id in self._ended

    def is_running(self, job_id: str) -> bool:
        """True while a driver of the job is connected."""
        return job_id in self._running

    def find(self, job_id: str) -> Job | None:
        """A job that runs, or an ended one that is remembered; to be read only."""
        return self._running.get(job_id) or self._ended.get(job_id)

    def restore(self, job: Job) -> None:
        """A job of the head's earlier life."""
        if job.state is JobState.RUNNING:
            self._running[job.job_id] = job
        else:
            self._ended[job.job_id] = job

    def jobs(self) -> Iterator[Job]:
        """The running, then the ended, each newest first."""
        yield from reversed(self._running.values())
        yield from reversed(self._ended.values())

    def driver_connected(self, job_id: str, driver_id: ProcessId, namespace: str, pid: int, now: float) -> list[JobDecision]:
        """A driver says that it works on this job. Idempotent by the driver's id."""
        if job_id in self._ended:
            reason = f"job {job_id} has ended ({self._ended[job_id].reason}); begin a new one with af.init()"
            return [Refuse(driver_id, reason)]
        job = self._running.get(job_id)
        state = _next(job, job_id, JobEvent.DRIVER_CONNECTED)
        if job is None:
            job = self._running[job_id] = Job(job_id, namespace, driver_id, pid, now, state)
        job.drivers[driver_id] = None
        return []

    def driver_lost(self, job_id: str, driver_id: ProcessId, reason: str, now: float) -> list[JobDecision]:
        """A driver is gone; with the last one its job ends. One that was refused changes nothing."""
        job = self._running.get(job_id)
        if job is None or driver_id not in job.drivers:
            return []
        del job.drivers[driver_id]
        if job.drivers:
            job.state = _next(job, job_id, JobEvent.DRIVER_LOST)
            return []
        job.state = _next(job, job_id, JobEvent.LAST_DRIVER_LOST)
        job.ended_at, job.reason = now, f"its driver is gone: {reason}"
        del self._running[job_id]
        self._ended[job_id] = job
        while len(self._ended) > self._ended_max:
            self._ended.popitem(last=False)
        return [EndJob(job_id, job.reason)]


def _next(job: Job | None, job_id: str, event: JobEvent) -> JobState:
    state = job.state if job is not None else None
    following = NEXT.get((state, event))
    if following is None:
        raise InternalError(f"JO-1: job {job_id} is {state} and met {event.name}: {job}")
    return following
