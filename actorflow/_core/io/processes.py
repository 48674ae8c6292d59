"""The node's worker processes: forked by the zygote, seen from the node's loop.

The rules:

    PR-1  Every spawn ends in exactly one `process_exited`, also when there never was a process.
    PR-2  A worker's start is told before its output, and its exit after it, or OUTPUT_TIMEOUT_S later when a
          process that it started still holds its pipes.
    PR-3  Every event is a callback of the loop of its own: never from within `spawn` or `kill`, and when one
          fails the others are told all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
import time
from collections import deque
from collections.abc import Iterator, Mapping

from actorflow._core.io import lease_word
from actorflow._core.io.memory import resident_bytes
from actorflow._core.io.ports import ProcessEvents, ProcessExit, WorkerSpec
from actorflow._core.io.zygote_link import (
    EXIT_TIMEOUT_S,
    REPORT_BYTES_MAX,
    Exited,
    Fork,
    Forked,
    LetLive,
    NotForked,
    Signal,
    ZygoteHandle,
    decode_report,
    receive_packet,
    send_packet,
)

logger = logging.getLogger(__name__)

FORKS_IN_FLIGHT_MAX = 32
"""Unanswered forks. Their descriptors are in flight too, and the system bounds those."""
REPORTS_PER_EVENT = 64
OUTPUT_CHUNK_BYTES = 64 * 1024
LAST_CHUNKS_MAX = 16
"""A pipe holds 64 KiB. Whoever still writes after the worker's death does not get more than this."""
OUTPUT_TIMEOUT_S = 0.1
REAP_TIMEOUT_S = 5.0
"""How long `stop` waits for killed workers: only one stuck inside the kernel takes any time."""


class _Worker:
    """One process, from the spawn to the moment its exit is told."""

    __slots__ = ("exit", "pid", "pipes", "timeout", "worker_id")

    def __init__(self, worker_id: str, stdout_fd: int, stderr_fd: int) -> None:
        self.worker_id = worker_id
        self.pid = 0
        self.pipes = {stdout_fd: "stdout", stderr_fd: "stderr"}
        self.exit: ProcessExit | None = None
        self.timeout: asyncio.TimerHandle | None = None


class ZygoteProcesses:
    """The Processes of a real node. All methods on `loop`."""

    _events: ProcessEvents

    def __init__(self, loop: asyncio.AbstractEventLoop, zygote: ZygoteHandle) -> None:
        self._loop = loop
        self._zygote = zygote
        self._workers: dict[str, _Worker] = {}
        self._queue: deque[WorkerSpec | Signal | LetLive] = deque()
        self._forks_in_flight = 0
        self._waiting_to_send = False
        self._linked = True
        self._refusal = ""
        self._spawned: set[str] = set()
        """Whose exit is still to be told."""
        self._all_gone: asyncio.Event = asyncio.Event()
        self._started = False

    async def start(self, events: ProcessEvents) -> None:
        """Listen to the zygote. It may still be importing: what is spawned now waits in its link."""
        self._events = events
        self._started = True
        self._loop.add_reader(self._zygote.fileno(), self._on_reports)

    def problem_with(self, env: Mapping[str, str], working_dir: str | None) -> str:
        """See Processes: the directory must be there, and open to this user."""
        if working_dir is None:
            return ""
        advice = "give working_dir= the path of a directory that is there"
        if not os.path.exists(working_dir):
            return f"its working directory {working_dir!r} does not exist on this machine: make it, or {advice}"
        if not os.path.isdir(working_dir):
            return f"its working directory {working_dir!r} is no directory: {advice}"
        if not os.access(working_dir, os.X_OK):
            return f"its working directory {working_dir!r} is closed to user {os.geteuid()}: let this user enter it, or {advice}"
        return ""

    def spawn(self, spec: WorkerSpec) -> None:
        """Have a worker forked; the outcome comes as an event."""
        if not self._started:
            raise RuntimeError("spawn() before start()")
        if spec.worker_id in self._spawned:
            raise ValueError(f"worker {spec.worker_id} exists already")
        self._spawned.add(spec.worker_id)
        self._all_gone.clear()
        self._queue.append(spec)
        self._loop.call_soon(self._send_queued)

    def kill(self, worker_id: str, signal: int) -> None:
        """Have the zygote send `signal`: it knows whether the process is still there."""
        if signal not in signals.valid_signals():
            raise ValueError(f"{signal} is not a signal of this system")
        if worker_id in self._spawned:
            self._queue.append(Signal(worker_id, signal))
            self._loop.call_soon(self._send_queued)

    def let_live(self, seconds: float) -> None:
        """See Processes: the zygote counts too, on the same clock, and so does each worker before it begins a call (LV-7)."""
        until = time.monotonic() + seconds
        if (word := lease_word.inherited()) is not None:
            word.extend(until)
        if self._started:
            self._queue.append(LetLive(until))
            self._send_queued()

    def memory_bytes(self, worker_id: str) -> int:
        """See Processes."""
        worker = self._workers.get(worker_id)
        return resident_bytes(worker.pid) if worker is not None and worker.pid else 0

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to all, after `grace_s` SIGKILL; return when all are reaped, and the zygote too."""
        self._refusal = self._refusal or "the node is stopping"
        self._send_queued()
        for worker_id in list(self._workers):
            self.kill(worker_id, signals.SIGTERM)
        if not await self._wait_all_gone(grace_s):
            for worker_id in list(self._workers):
                self.kill(worker_id, signals.SIGKILL)
            if not await self._wait_all_gone(REAP_TIMEOUT_S):
                logger.error("workers that do not die of SIGKILL: %s", ", ".join(self._workers))
        self._unlink("the node has stopped")
        await self._reap_zygote()

    async def _wait_all_gone(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while self._spawned:
                    await self._all_gone.wait()
        except TimeoutError:
            return False
        return True

    # -- to the zygote

    def _send_queued(self) -> None:
        while self._queue:
            command = self._queue[0]
            if isinstance(command, (Signal, LetLive)):
                sent = not self._linked or self._send(command)
            elif self._refusal:
                sent = True
                self._never_was(command.worker_id, self._refusal)
            elif self._forks_in_flight >= FORKS_IN_FLIGHT_MAX:
                return
            else:
                sent = self._send_fork(command)
            if not sent:
                return
            self._queue.popleft()

    def _send_fork(self, spec: WorkerSpec) -> bool:
        """False when the link is full."""
        fds: list[int] = []
        try:
            for _ in range(2):
                fds.extend(os.pipe2(os.O_CLOEXEC))
            out_reader, out_writer, err_reader, err_writer = fds
            if not self._send(Fork(spec), (out_writer, err_writer)):
                return False
            os.set_blocking(out_reader, False)
            os.set_blocking(err_reader, False)
            worker = _Worker(spec.worker_id, out_reader, err_reader)
            fds = [out_writer, err_writer]
        except (OSError, ValueError) as error:
            self._never_was(spec.worker_id, str(error))
            return True
        finally:
            for fd in fds:
                os.close(fd)
        self._forks_in_flight += 1
        self._workers[spec.worker_id] = worker
        return True

    def _send(self, command: Fork | Signal | LetLive, fds: tuple[int, ...] = ()) -> bool:
        """False when the link is full: `_send_queued` is called again when it is not."""
        try:
            send_packet(self._zygote.link, command, fds)
        except BlockingIOError:
            if not self._waiting_to_send:
                self._waiting_to_send = True
                self._loop.add_writer(self._zygote.fileno(), self._on_room)
            return False
        except (BrokenPipeError, ConnectionResetError):
            if fds:
                raise
        return True

    def _on_room(self) -> None:
        self._waiting_to_send = False
        self._loop.remove_writer(self._zygote.fileno())
        self._send_queued()

    # -- from the zygote

    def _on_reports(self) -> None:
        for _ in range(REPORTS_PER_EVENT):
            try:
                data, _ = receive_packet(self._zygote.link, REPORT_BYTES_MAX)
            except BlockingIOError:
                return
            if not data:
                logger.error("the zygote (pid %d) died: this node can start no more workers", self._zygote.pid)
                self._unlink("the zygote died, and its workers with it")
                return
            report = decode_report(data)
            worker = self._workers[report.worker_id]
            if isinstance(report, Exited):
                self._exited(worker, report)
                continue
            self._forks_in_flight -= 1
            self._send_queued()
            if isinstance(report, Forked):
                worker.pid = report.pid
                self._loop.call_soon(self._events.process_started, worker.worker_id, worker.pid)
                for fd in worker.pipes:
                    self._loop.add_reader(fd, self._on_output, worker, fd)
            else:
                self._not_forked(worker, report)

    def _not_forked(self, worker: _Worker, report: NotForked) -> None:
        detail = f"could not be started: {report.reason}"
        worker.exit = ProcessExit(worker.worker_id, 0, None, None, 0, detail)
        self._finish(worker)

    def _exited(self, worker: _Worker, report: Exited) -> None:
        code = report.code if report.code >= 0 else None
        signal = -report.code if report.code < 0 else None
        worker.exit = ProcessExit(worker.worker_id, report.pid, code, signal, report.peak_memory_bytes)
        for fd in list(worker.pipes):
            for _ in range(LAST_CHUNKS_MAX):
                if not self._read(worker, fd):
                    break
        if worker.pipes:
            worker.timeout = self._loop.call_later(OUTPUT_TIMEOUT_S, self._finish, worker)
        else:
            self._finish(worker)

    def _unlink(self, reason: str) -> None:
        """The zygote is gone, or ends because of this. How the workers that are left end, nobody can tell."""
        if not self._linked:
            return
        self._linked = False
        self._refusal = reason
        self._loop.remove_reader(self._zygote.fileno())
        self._loop.remove_writer(self._zygote.fileno())
        self._zygote.link.close()
        self._forks_in_flight = 0
        for worker in list(self._workers.values()):
            for fd in list(worker.pipes):
                self._read(worker, fd)
            worker.exit = worker.exit or ProcessExit(worker.worker_id, worker.pid, None, None, 0, reason)
            self._finish(worker)
        self._send_queued()

    async def _reap_zygote(self) -> None:
        """The zygote ends by itself when its link does."""
        gone = asyncio.Event()
        # Both say that somebody else in this process has reaped it.
        with contextlib.suppress(ProcessLookupError, ChildProcessError), self._watched_zygote() as pidfd:
            self._loop.add_reader(pidfd, gone.set)
            try:
                async with asyncio.timeout(EXIT_TIMEOUT_S):
                    await gone.wait()
            except TimeoutError:
                logger.error("the zygote (pid %d) does not end: killed", self._zygote.pid)
                os.kill(self._zygote.pid, signals.SIGKILL)
            finally:
                self._loop.remove_reader(pidfd)

    @contextlib.contextmanager
    def _watched_zygote(self) -> Iterator[int]:
        """A descriptor that becomes readable when the zygote ends: no thread, no SIGCHLD. Then reaps it."""
        pidfd = os.pidfd_open(self._zygote.pid)
        try:
            yield pidfd
            os.waitpid(self._zygote.pid, 0)
        finally:
            os.close(pidfd)

    # -- output and the end

    def _on_output(self, worker: _Worker, fd: int) -> None:
        self._read(worker, fd)
        if worker.exit is not None and not worker.pipes:
            self._finish(worker)

    def _read(self, worker: _Worker, fd: int) -> bool:
        """Tell one chunk; False when there is no more for now, or ever."""
        try:
            data = os.read(fd, OUTPUT_CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_pipe(worker, fd)
            return False
        stream = worker.pipes[fd]
        self._loop.call_soon(self._events.process_output, worker.worker_id, stream, data)
        return True

    def _close_pipe(self, worker: _Worker, fd: int) -> None:
        del worker.pipes[fd]
        self._loop.remove_reader(fd)
        os.close(fd)

    def _finish(self, worker: _Worker) -> None:
        """Tell the exit (PR-1): a worker leaves the table here, and nowhere else."""
        if self._workers.pop(worker.worker_id, None) is None or worker.exit is None:
            return
        if worker.timeout is not None:
            worker.timeout.cancel()
        for fd in list(worker.pipes):
            self._close_pipe(worker, fd)
        self._tell_exit(worker.exit)

    def _never_was(self, worker_id: str, reason: str) -> None:
        self._tell_exit(ProcessExit(worker_id, 0, None, None, 0, f"could not be started: {reason}"))

    def _tell_exit(self, exit: ProcessExit) -> None:
        self._loop.call_soon(self._events.process_exited, exit)
        self._spawned.discard(exit.worker_id)
        if not self._spawned:
            self._all_gone.set()
