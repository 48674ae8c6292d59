"""The processes port of a simulated node: its workers are hosts of the same world.

SP-1: `process_started` comes at most once and before `process_exited`, which comes exactly once for every
spawn. SP-2: what a process wrote before its end is told before its exit. A worker may run, and even
connect, before its node hears that it started: so it is outside. Workers do not die with their node; they
see its socket close.
"""

from __future__ import annotations

import asyncio
import math
import signal as signals
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actorflow._core.io.ports import ProcessEvents, ProcessExit, WorkerSpec
from actorflow.testing.host import Host

Entry = Callable[[WorkerSpec, Host], Any]
"""The program of a worker: see `Host.start` for what it may return."""


@dataclass(frozen=True, slots=True)
class ProcessProfile:
    """How long processes take to start and to be missed."""

    spawn_min_s: float = 0.001
    spawn_max_s: float = 0.02
    notice_min_s: float = 0.000_1
    notice_max_s: float = 0.005
    """Until the node hears of a start, of output or of an exit."""
    spawn_failure_chance: float = 0.0


@dataclass(slots=True)
class _Child:
    spec: WorkerSpec
    host: Host | None = None
    told_at: float = 0.0
    """When the node hears the latest news of it: later news may not overtake."""
    gone: bool = False
    pending_signals: list[int] = field(default_factory=list)


SHARED_ENVIRONMENT = "simulated workers are no processes of their own: env_vars and working_dir need real ones (af.run, testing.Cluster)"

WORKER_BYTES = 40_000_000
"""The memory of a simulated worker, at all times."""


class SimProcesses:
    """Starts and ends worker processes for the node on `host`; each runs `entry(spec, its_host)`."""

    def __init__(self, host: Host, entry: Entry, profile: ProcessProfile | None = None) -> None:
        self.host = host
        self._entry = entry
        self._profile = profile or ProcessProfile()
        self._rng = host.world.rng(f"processes of {host.name}")
        self._events: ProcessEvents | None = None
        self._children: dict[str, _Child] = {}
        self.missing_dirs: set[str] = set()
        """Working directories that are not there."""
        self.shares_environment = False
        """Its workers run code of the user, all of it in this one real process: they have its variables and its directory."""
        self._failures_planned = 0
        self._lease_until = math.inf
        self._stopping = False
        self._all_gone: asyncio.Future[None] | None = None

    async def start(self, events: ProcessEvents) -> None:
        """See ports.Processes."""
        self._events = events

    def problem_with(self, env: Mapping[str, str], working_dir: str | None) -> str:
        """See ports.Processes. What is in `missing_dirs` does not exist."""
        if self.shares_environment:
            return SHARED_ENVIRONMENT if env or working_dir is not None else ""
        return f"its working directory {working_dir!r} does not exist" if working_dir in self.missing_dirs else ""

    def spawn(self, spec: WorkerSpec) -> None:
        """See ports.Processes."""
        if self._events is None:
            raise RuntimeError("spawn() before start()")
        if spec.worker_id in self._living():
            raise ValueError(f"worker {spec.worker_id} exists already")
        child = self._children[spec.worker_id] = _Child(spec)
        profile, world = self._profile, self.host.world
        birth_at = world.now + self._rng.uniform(profile.spawn_min_s, profile.spawn_max_s)
        fails = self._failures_planned > 0 or self._rng.random() < profile.spawn_failure_chance
        self._failures_planned = max(self._failures_planned - 1, 0)
        world.at_host(self.host, birth_at, self._fail if fails else self._give_birth, child)

    def kill(self, worker_id: str, signal: int) -> None:
        """See ports.Processes."""
        if signal not in signals.valid_signals():
            raise ValueError(f"{signal} is not a signal of this system")
        child = self._children.get(worker_id)
        if child is None or child.gone:
            return
        if child.host is None:
            child.pending_signals.append(signal)
        else:
            self.host.world.kill(child.host, signal)

    def let_live(self, seconds: float) -> None:
        """See Processes. A machine here stands still with all that is on it, so nobody but the workers themselves has to look."""
        self._lease_until = self.host.world.now + seconds

    def lease_left_s(self) -> float:
        """As io/lease_word.py."""
        return self._lease_until - self.host.world.now

    def memory_bytes(self, worker_id: str) -> int:
        """See ports.Processes."""
        host = self.worker(worker_id)
        return WORKER_BYTES if host is not None and host.alive else 0

    async def stop(self, grace_s: float) -> None:
        """See ports.Processes. What was to be spawned will not be."""
        self._stopping = True
        self._signal_all(signals.SIGTERM)
        if not await self._wait_gone(grace_s):
            self._signal_all(signals.SIGKILL)
            await self._wait_gone(None)

    # -- for the harness

    def fail_next_spawn(self) -> None:
        """Let the next spawn fail: the node hears of an exit that nobody can explain."""
        self._failures_planned += 1

    def heal(self) -> None:
        """No spawn fails from now on, but for those that fail by chance."""
        self._failures_planned = 0

    def worker(self, worker_id: str) -> Host | None:
        """The host of a worker; None before its birth."""
        child = self._children.get(worker_id)
        return child.host if child is not None else None

    def hosts(self) -> list[Host]:
        """All that were born, also those that have not joined yet."""
        return [child.host for child in self._children.values() if child.host is not None]

    # -- the life of a child

    def _give_birth(self, child: _Child) -> None:
        if self._stopping:
            self._fail(child)
            return
        world = self.host.world
        host = world.host(f"worker-{world.next_pid()}", machine=self.host.machine)
        world.note(host.name, f"is worker {child.spec.worker_id} of {self.host.name}")
        child.host = host
        host.on_end.append(partial(self._ended, child))
        host.on_output = partial(self._wrote, child)
        host.start(partial(self._entry, child.spec))
        self._tell(child, self._say_started, host.pid)
        for signal in child.pending_signals:
            world.kill(host, signal)

    def _fail(self, child: _Child) -> None:
        self._tell(child, self._say_exited, ProcessExit(child.spec.worker_id, 0, None, None, 0))

    def _wrote(self, child: _Child, stream: str, data: bytes) -> None:
        self._tell(child, self._say_output, stream, data)

    def _ended(self, child: _Child, host: Host) -> None:
        memory_bytes = self._rng.randrange(20_000_000, 80_000_000)
        end = ProcessExit(child.spec.worker_id, host.pid, host.exit_code, host.signal, memory_bytes)
        self._tell(child, self._say_exited, end)

    def _tell(self, child: _Child, say: Callable[..., None], *args: Any) -> None:
        profile, now = self._profile, self.host.world.now
        notice_s = self._rng.uniform(profile.notice_min_s, profile.notice_max_s)
        child.told_at = max(child.told_at, now + notice_s)
        self.host.world.at_host(self.host, child.told_at, say, child, *args)

    def _say_started(self, child: _Child, pid: int) -> None:
        assert self._events is not None
        self._events.process_started(child.spec.worker_id, pid)

    def _say_output(self, child: _Child, stream: str, data: bytes) -> None:
        assert self._events is not None
        self._events.process_output(child.spec.worker_id, stream, data)

    def _say_exited(self, child: _Child, end: ProcessExit) -> None:
        assert self._events is not None
        child.gone = True
        self._events.process_exited(end)
        if self._all_gone is not None and not self._all_gone.done() and not self._living():
            self._all_gone.set_result(None)

    # -- stopping

    def _living(self) -> list[str]:
        return [worker_id for worker_id, child in self._children.items() if not child.gone]

    def _signal_all(self, signal: int) -> None:
        for worker_id in self._living():
            self.kill(worker_id, signal)

    async def _wait_gone(self, timeout_s: float | None) -> bool:
        if not self._living():
            return True
        self._all_gone = self.host.loop.create_future()
        done, _ = await asyncio.wait([self._all_gone], timeout=timeout_s)
        return bool(done)
