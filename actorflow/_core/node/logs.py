"""What workers print: into their files, the last lines into errors, and on to the drivers of their job."""

from __future__ import annotations

from typing import Protocol

from actorflow._core.node.context import NodeContext, WorkerProcess
from actorflow._core.node.jobs import Jobs
from actorflow._core.node.log_files import LogFiles
from actorflow._core.policy.log_lines import Batch, WorkerOutput
from actorflow._core.protocol.messages import WorkerLog


class LogWriter(Protocol):
    """Where the output is kept; see LogFiles."""

    def append(self, name: str, data: bytes) -> None:
        """Add to a file."""

    def finish(self, name: str) -> None:
        """No more for this file."""

    def close(self) -> None:
        """No more at all."""


class Logs:
    """The output of all workers."""

    def __init__(self, context: NodeContext, jobs: Jobs) -> None:
        self._context = context
        self._jobs = jobs
        self._outputs: dict[str, WorkerOutput] = {}
        self._behind: dict[str, WorkerProcess] = {}
        """Workers of which lines were dropped that nobody has been told of."""
        log_dir = context.config.log_dir
        self._files: LogWriter | None = LogFiles(log_dir) if log_dir is not None else None

    def output(self, worker: WorkerProcess, stream: str, data: bytes) -> None:
        """A worker has printed something."""
        if self._files is not None:
            self._files.append(_file_name(worker), data)
        now = self._context.now()
        output = self._outputs.get(worker.worker_id)
        if output is None:
            output = self._outputs[worker.worker_id] = WorkerOutput(now)
        batch = output.feed(stream, data, now, room=self._has_room(worker))
        if batch is not None:
            self._send(worker, batch)
        if output.dropped:
            self._behind[worker.worker_id] = worker

    def finish(self, worker: WorkerProcess) -> list[str]:
        """The worker is gone: hand on its last, unfinished lines; return the last lines for errors."""
        if self._files is not None:
            self._files.finish(_file_name(worker))
        output = self._outputs.get(worker.worker_id)
        if output is None:
            return []
        for batch in output.finish(self._context.now(), room=True):
            self._send(worker, batch)
        self._tell_dropped(worker, output)
        self._behind.pop(worker.worker_id, None)
        del self._outputs[worker.worker_id]
        return list(output.tail)

    def tail(self, worker_id: str) -> list[str]:
        """The last lines of a worker."""
        output = self._outputs.get(worker_id)
        return list(output.tail) if output is not None else []

    @property
    def behind(self) -> bool:
        """True while a driver has to be told of dropped lines."""
        return bool(self._behind)

    def catch_up(self) -> None:
        """Tell the drivers that have room again how many lines they missed."""
        for worker in [worker for worker in self._behind.values() if self._has_room(worker)]:
            self._tell_dropped(worker, self._outputs[worker.worker_id])
            del self._behind[worker.worker_id]

    def close(self) -> None:
        """Close the files."""
        if self._files is not None:
            self._files.close()

    def _tell_dropped(self, worker: WorkerProcess, output: WorkerOutput) -> None:
        batch = output.overdue()
        if batch is not None:
            self._send(worker, batch)

    def _has_room(self, worker: WorkerProcess) -> bool:
        backlog = self._context.config.log_backlog_bytes_max
        return all(driver.buffered_bytes() <= backlog for driver in self._jobs.drivers(worker.key.job_id))

    def _send(self, worker: WorkerProcess, batch: Batch) -> None:
        name = worker.occupant.name if worker.occupant is not None else "worker"
        for driver in self._jobs.drivers(worker.key.job_id):
            driver.send(WorkerLog(worker.worker_id, worker.pid, name, batch.stream, batch.lines, batch.dropped))


def _file_name(worker: WorkerProcess) -> str:
    return f"worker-{worker.worker_id}.log"
