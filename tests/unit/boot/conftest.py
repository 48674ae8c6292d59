"""A node of the tests' own, with a real zygote."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.io.ports import ProcessExit, WorkerSpec
from actorflow._core.io.processes import ZygoteProcesses
from tests.conformance.leaks import nothing_is_left
from tests.conformance.real_worlds import spawn_zygote
from tests.conformance.worlds import Events


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_is_left():
        yield


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Not tmp_path: its names may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as name:
        yield Path(name)


class Node:
    """Processes with their events."""

    def __init__(self, processes: ZygoteProcesses, events: Events, zygote_pid: int) -> None:
        self.processes = processes
        self.events = events
        self.zygote_pid = zygote_pid

    def spawn(self, worker_id: str = "w1", **rest: Any) -> None:
        self.processes.spawn(WorkerSpec(worker_id, "job", "unix:/node.sock", "unix:/w.sock", **rest))

    async def end_of(self, worker_id: str = "w1") -> ProcessExit:
        """Wait for the exit of a worker."""
        await self.events.until(lambda: worker_id in self.events.exits)
        return self.events.exits[worker_id]

    async def life_of(self, worker_id: str = "w1", **rest: Any) -> ProcessExit:
        """Spawn a worker and wait for its exit."""
        self.spawn(worker_id, **rest)
        return await self.end_of(worker_id)

    def output(self, worker_id: str = "w1", stream: str = "stdout") -> str:
        return self.events.output.get((worker_id, stream), b"").decode()

    def said(self, worker_id: str = "w1") -> Any:
        """What the worker said in JSON."""
        return json.loads(self.output(worker_id))


@asynccontextmanager
async def node(entry: str, modules: tuple[str, ...] = (), keep_fds: tuple[int, ...] = ()) -> AsyncIterator[Node]:
    """A started node whose workers run `entry` of `worker_entries.py`."""
    handle = spawn_zygote(entry if ":" in entry else f"tests.unit.boot.worker_entries:{entry}", modules, keep_fds)
    processes, events = ZygoteProcesses(asyncio.get_running_loop(), handle), Events()
    await processes.start(events)
    try:
        yield Node(processes, events, handle.pid)
    finally:
        await processes.stop(0.0)
