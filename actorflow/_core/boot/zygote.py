"""The zygote: a process with everything a worker needs already imported, which forks a worker on command.

It has one thread and no loop, and it proves the first at every fork: a fork copies only the thread that
calls it, and what others held (a lock of malloc, of the logging module, of a BLAS) stays held for ever.

    ZY-1  Only the zygote reaps, and only it sends signals to workers: a number it signals is nobody else's.
    ZY-2  When the node is gone (the link ends), it kills every worker and ends. When the zygote itself is
          gone, the kernel kills the workers (PDEATHSIG): nobody has to live for nothing to be left behind.
          A node that has a lease says how long it lasts (LetLive): when it is over and the node has not said
          so itself, as it stands still, the workers are killed all the same (LV-1).
    ZY-3  With a worker dies what is left of its process group: what user code started and forgot.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn, cast

from actorflow._core.boot.forked_child import THREAD_VARIABLES, Birth, Entry, live
from actorflow._core.boot.process_title import set_process_title
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.io.zygote_link import (
    FDS_MAX,
    REASON_CHARS_MAX,
    Exited,
    Fork,
    Forked,
    FromZygote,
    LetLive,
    NotForked,
    Signal,
    ZygoteHandle,
    decode_command,
    link_pair,
    receive_packet,
    send_packet,
)

ENTRY = "actorflow._core.boot.worker_main:main"
MODULES = (
    "uvloop",
    "actorflow._actor",
    "actorflow._api",
    "actorflow._groups",
    "actorflow._remote_function",
    "actorflow._core.worker.checkpoints",
    "actorflow._core.worker.host",
)
"""What is imported before the first fork, beside the entry's own module."""

FORKS_AT_ONCE = 8
"""Workers that are forked before the node hears of the first of them: some ten milliseconds."""
NO_DESCRIPTOR = "the zygote has no file descriptor left for the worker's output"
END_TIMEOUT_S = 5.0
"""How long the zygote waits for the workers it has killed: only one stuck in the kernel takes time."""


def start_zygote(modules: Sequence[str] = MODULES, *, entry: str = ENTRY, keep_fds: Sequence[int] = ()) -> ZygoteHandle:
    """Fork the zygote of this process. A node does it early, before it has a thread, a loop or a lock.

    `entry`, as `module:function`, is what a worker runs with its WorkerSpec; `prepare` of that module, if there is one, is run once
    here, for all of them: a page that a worker need not touch is one that it shares, and a fault less. `keep_fds` stay open in all
    workers, under the same numbers; the rest is closed. Raises RuntimeError when this process has threads.
    """
    if sys.platform != "linux":
        raise OSError(f"worker processes need Linux, and this is {sys.platform}")
    if problem := _why_not_to_fork():
        raise RuntimeError(problem)
    # What waits in these buffers would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    link, zygote_link = link_pair()
    pid = os.fork()
    if pid == 0:
        run_zygote(zygote_link, modules, entry=entry, keep_fds=keep_fds)
    zygote_link.close()
    return ZygoteHandle(pid, link)


def run_zygote(link: socket.socket, modules: Sequence[str] = MODULES, *, entry: str = ENTRY, keep_fds: Sequence[int] = ()) -> NoReturn:
    """Be the zygote at the other end of `link`, in a process made for that. Ends the process."""
    code = 1
    try:
        zygote = _Zygote(link, tuple(keep_fds))
        zygote.prepare(modules, entry)
        birth = zygote.serve()
        code = 0 if birth is None else live(birth, zygote.entry)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class _Zygote:
    entry: Entry

    def __init__(self, link: socket.socket, keep_fds: tuple[int, ...]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for fd in _open_fds().difference(keep_fds, [link.fileno()]):
            os.close(fd)
        self._pid = os.getpid()
        self._link = link
        self._keep_fds = keep_fds
        self._foreign_fds: tuple[int, ...] = ()
        self._worker_ids: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._failure = ""
        self._until: float | None = None
        """When the node's lease is over; None for a node that has none."""
        self._thread_env = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
        self._wakeups = self._listen_for_deaths()
        self._handled_signals = tuple(
            number for number in signal.valid_signals() if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, None)
        )

    def _listen_for_deaths(self) -> int:
        """SIGCHLD writes into a pipe, which `serve` polls beside the link."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        return reader

    def prepare(self, modules: Sequence[str], entry: str) -> None:
        """Import, and freeze what was imported: no collection in a worker then copies the pages of it."""
        set_process_title("actorflow-zygote")
        _renew_standard_streams()
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # A BLAS makes its threads when it is imported.
        try:
            for name in modules:
                importlib.import_module(name)
            name, _, function = entry.partition(":")
            module = importlib.import_module(name)
            self.entry = cast(Entry, getattr(module, function))
            if hasattr(module, "prepare"):
                module.prepare()
        except Exception:
            # Told to whoever asks for a worker: that is where somebody looks.
            self._failure = f"the zygote could not import what a worker needs:\n{traceback.format_exc()}"
        self._foreign_fds = tuple(_open_fds().difference(self._keep_fds))
        gc.collect()
        gc.disable()
        gc.freeze()

    def serve(self) -> Birth | None:
        """Obey until the node is gone. Returns None then, and in each forked child its Birth."""
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        poll.register(self._wakeups, select.POLLIN)
        while True:
            ready = poll.poll(self._lease_ms())
            if not ready:
                self._until = None
                for pid in self._worker_ids:
                    os.kill(pid, signal.SIGKILL)
            for fd, _ in ready:
                if fd == self._wakeups:
                    os.read(self._wakeups, 4096)
                    self._reap()
                    continue
                forks, then = self._receive()
                if forks and (birth := self._fork_all(forks)) is not None:
                    return birth
                if isinstance(then, Signal):
                    self._signal(then)
                elif isinstance(then, LetLive):
                    self._until = then.until
                elif then:
                    self._kill_all()
                    return None

    def _lease_ms(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic()) * 1000

    def _receive(self) -> tuple[list[tuple[Fork, list[int]]], Signal | LetLive | bool]:
        """The forks that are asked for by now, and what comes behind them: another word, or True when the node is gone."""
        forks: list[tuple[Fork, list[int]]] = []
        flags = 0
        while len(forks) < FORKS_AT_ONCE:
            try:
                data, fds = receive_packet(self._link, flags=flags)
            except BlockingIOError:
                break
            if not data:
                return forks, True
            command = decode_command(data)
            if isinstance(command, (Signal, LetLive)):
                return forks, command
            forks.append((command, fds))
            flags = socket.MSG_DONTWAIT
        return forks, False

    def _fork_all(self, forks: list[tuple[Fork, list[int]]]) -> Birth | None:
        """Fork. Returns a Birth in each child; in the zygote, tells the node how it went.

        Little happens between two forks: whatever the zygote writes to is copied, as its last child shares it, and it would be hundreds
        of pages for each.
        """
        problem = self._failure or _why_not_to_fork()
        outcomes: list[int | str] = []
        for command, fds in forks:
            outcome: int | str
            try:
                outcome = problem or (os.fork() if len(fds) == FDS_MAX else NO_DESCRIPTOR)
            except OSError as error:
                outcome = str(error)
            if outcome == 0:
                return self._birth(command.spec, fds, forks)
            outcomes.append(outcome)
        for (command, fds), outcome in zip(forks, outcomes, strict=True):
            worker_id = command.spec.worker_id
            if isinstance(outcome, int):
                self._worker_ids[outcome] = worker_id
                self._pids[worker_id] = outcome
                self._tell(Forked(worker_id, outcome))
            else:
                self._tell(NotForked(worker_id, outcome[-REASON_CHARS_MAX:]))
            for fd in fds:
                os.close(fd)
        return None

    def _birth(self, spec: WorkerSpec, fds: list[int], forks: list[tuple[Fork, list[int]]]) -> Birth:
        """What the child knows of itself. In the child."""
        others = [fd for _, of_other in forks if of_other is not fds for fd in of_other]
        return Birth(
            spec=spec,
            zygote_pid=self._pid,
            stdout_fd=fds[0],
            stderr_fd=fds[1],
            foreign_fds=(*self._foreign_fds, *others),
            handled_signals=self._handled_signals,
            thread_env=self._thread_env,
        )

    def _signal(self, command: Signal) -> None:
        pid = self._pids.get(command.worker_id)
        if pid is not None:
            with contextlib.suppress(PermissionError):  # It runs under another user by now.
                os.kill(pid, command.signal)  # ZY-1

    def _reap(self) -> bool:
        """Reap who has died; True while children are left."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if found is None:
                return True
            pid = found.si_pid
            self._kill_group(pid)
            _, status, usage = os.wait4(pid, 0)
            worker_id = self._worker_ids.pop(pid, None)
            if worker_id is not None:
                del self._pids[worker_id]
                code = os.waitstatus_to_exitcode(status)
                self._tell(Exited(worker_id, pid, code, usage.ru_maxrss * 1024))

    def _kill_group(self, pid: int) -> None:
        """ZY-3. While the worker is not reaped its number, which names the group, cannot be another's."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        """ZY-2."""
        for pid in self._worker_ids:
            os.kill(pid, signal.SIGKILL)
        give_up_at = time.monotonic() + END_TIMEOUT_S
        while self._reap() and (left_s := give_up_at - time.monotonic()) > 0:
            if select.select([self._wakeups], [], [], left_s)[0]:
                os.read(self._wakeups, 4096)

    def _tell(self, report: FromZygote) -> None:
        # When the node is gone, `serve` is about to see that itself.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send_packet(self._link, report)


def _why_not_to_fork() -> str:
    """Empty when this process has one thread."""
    # The kernel counts a task as a link to this directory, beside the usual two.
    threads = os.stat("/proc/self/task").st_nlink - 2
    if threads == 1:
        return ""
    return (
        f"cannot fork safely: process {os.getpid()} has {threads} threads and must have one. "
        "A module it has imported starts threads; import it in the worker instead"
    )


def _open_fds() -> set[int]:
    """The descriptors from 3 on. Listed, not guessed up to the limit: that may be a million."""
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False  # The one through which the others were listed.
    return True


def _renew_standard_streams() -> None:
    """Bind Python's streams to descriptors 0, 1 and 2, whatever the parent made of them, line by line."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        raw = open(fd, "rb" if fd == 0 else "wb", closefd=False)  # noqa: SIM115 - as long as the process
        stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
