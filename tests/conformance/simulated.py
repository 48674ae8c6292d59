"""The simulated adapters as conformance suites want them: the adapter, and a way to run code beside it.

The code of a test is a coroutine that runs on the adapter's own loop. Against a real adapter it is run by a
real loop; a `Rig` runs it under virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from actorflow._core.io.ports import WorkerSpec
from actorflow.testing import Host, SimArena, SimExecutor, SimNetwork, SimProcesses, World

T = TypeVar("T")
P = TypeVar("P")

ARENA_BYTES = 1 << 20


@dataclass
class Rig(Generic[P]):
    """One simulated adapter, with its world."""

    port: P
    host: Host

    @property
    def world(self) -> World:
        """The world, for faults."""
        return self.host.world

    def run(self, coro: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        """Run a coroutine of the test on the adapter's loop."""
        task: asyncio.Task[T] = self.host.run(coro)
        return self.world.run_until(task, timeout_s)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Let the world go on until something holds."""
        self.world.run_until(condition, timeout_s)

    def settle(self, seconds: float = 1.0) -> None:
        """Let that much time pass."""
        self.world.run_for(seconds)


@contextmanager
def network(seed: int = 0) -> Iterator[Rig[SimNetwork]]:
    """The Network of one simulated process; `rig.world.host(name).network` is that of another."""
    with World(seed) as world:
        host = world.host("process")
        yield Rig(host.network, host)


@contextmanager
def processes(program: Callable[[WorkerSpec, Host], Any], seed: int = 0) -> Iterator[Rig[SimProcesses]]:
    """The Processes of a simulated node, whose workers run `program`."""
    with World(seed) as world:
        host = world.host("node")
        yield Rig(SimProcesses(host, program), host)


@contextmanager
def arena(size: int = ARENA_BYTES, seed: int = 0) -> Iterator[Rig[SimArena]]:
    """The Arena of a simulated node; `rig.port.attach(other)` is that of another process."""
    with World(seed) as world:
        host = world.host("node")
        yield Rig(SimArena(size, host), host)


@contextmanager
def executor(*, own_loop: bool = True, seed: int = 0) -> Iterator[Rig[SimExecutor]]:
    """The Executor of a simulated worker."""
    with World(seed) as world:
        host = world.host("worker")
        yield Rig(SimExecutor(host, host.new_loop("user") if own_loop else None), host)
