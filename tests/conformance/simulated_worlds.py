"""The simulated adapters."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from actorflow._core.io.ports import Arena, WorkerSpec
from actorflow.testing import Host, LinkProfile, SimArena, SimDisk, SimExecutor, SimFiles, SimProcesses, SimSpill, World
from tests.conformance.worlds import FULL_DISK_ROOM_BYTES, SPILL_ARENA_BYTES

T = TypeVar("T")

ROUGH = LinkProfile(cut_chance=0.5, spike_chance=0.1)
WAKE_DELAY_S = 0.02


class SimulatedWorld:
    def __init__(self, seed: int) -> None:
        self.world = World(seed, links=ROUGH)
        self.host = self.world.host("here")
        self._names = itertools.count()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        result: T = self.world.run_until(self.host.run(main))
        return result

    def close(self) -> None:
        self.world.close()


class SimulatedNetworkWorld(SimulatedWorld):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.network = self.host.network

    def address(self) -> str:
        return f"unix:/run/{next(self._names)}.sock"


class SimulatedArenaWorld(SimulatedWorld):
    def create(self, size: int) -> Arena:
        return SimArena(size, self.host)

    def attach(self, arena: Arena) -> Arena:
        assert isinstance(arena, SimArena)
        return arena.attach(self.world.host(f"other-{next(self._names)}"))


class SimulatedSpillWorld(SimulatedWorld):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.arena = SimArena(SPILL_ARENA_BYTES, self.host)
        self.spill = SimSpill(self.host, self.arena)

    def fail_next(self) -> None:
        self.spill.write_failures_planned = self.spill.read_failures_planned = 1

    def files(self) -> int:
        return len(self.spill.files)


class SimulatedFilesWorld(SimulatedWorld):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.disk = SimDisk(self.world, self.host.machine)
        self.files = SimFiles(self.host, self.disk)

    @contextmanager
    def full(self) -> Iterator[None]:
        self.disk.capacity_bytes = self.disk.used_bytes() + FULL_DISK_ROOM_BYTES
        yield
        self.disk.capacity_bytes = None


class SimulatedProcessWorld(SimulatedWorld):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.processes = SimProcesses(self.host, worker_program)


class SimulatedExecutorWorld(SimulatedWorld):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.executor = SimExecutor(self.host)

    def wake_later(self, wake: Callable[[], None]) -> None:
        self.world.at_host(self.host, self.world.now + WAKE_DELAY_S, wake)


async def worker_program(spec: WorkerSpec, host: Host) -> None:
    """The twin of `worker_program.py`."""
    environ = spec.env
    if "SAY" in environ:
        host.write_output("stdout", f"{environ['SAY']}\n".encode())
    if "IGNORE" in environ:
        host.ignored_signals.add(signal.SIGTERM)
    if "POLITE" in environ:
        host.loop.add_signal_handler(signal.SIGTERM, host.exit, int(environ["POLITE"]))
    if "READY" in environ:
        host.write_output("stdout", b"READY\n")
    await asyncio.sleep(float(environ.get("SLEEP", "0")))
    if "SAY_LAST" in environ:
        host.write_output("stderr", f"{environ['SAY_LAST']}\n".encode())
    raise SystemExit(int(environ.get("CODE", "0")))
