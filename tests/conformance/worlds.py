"""What a suite needs of the world it runs in, so that one suite serves the real adapters and the simulated ones.

A test is plain `def` code: it hands its scenario to `world.run`, and does not know whether seconds pass or are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from actorflow._core.io.ports import Arena, Executor, Files, Network, Processes, ProcessExit, SpillFiles, Stream

T = TypeVar("T")

SPILL_ARENA_BYTES = 1 << 20
FULL_DISK_ROOM_BYTES = 1_000
PATIENCE_S = 20.0
"""How long a test waits for what must happen. Only a failure takes so long."""


class World(Protocol):
    """A loop to run a scenario on."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` on the ports' loop and return its result."""

    def close(self) -> None:
        """Take the world down."""


class NetworkWorld(World, Protocol):
    """One process that can speak to itself."""

    network: Network

    def address(self) -> str:
        """A fresh address to listen at."""


class ArenaWorld(World, Protocol):
    """Processes that share an arena."""

    def create(self, size: int) -> Arena:
        """A new arena."""

    def attach(self, arena: Arena) -> Arena:
        """The same memory, as another process has it."""


class SpillWorld(World, Protocol):
    """A node with an arena and a disk."""

    arena: Arena
    spill: SpillFiles

    def fail_next(self) -> None:
        """The next write or read fails."""

    def files(self) -> int:
        """How many are there."""


class FilesWorld(World, Protocol):
    """A process with a disk that is empty."""

    files: Files

    def full(self) -> AbstractContextManager[None]:
        """Within this block only little more fits."""


class ProcessWorld(World, Protocol):
    """A node whose workers run the program of `worker_program.py`, or its simulated twin."""

    processes: Processes


class ExecutorWorld(World, Protocol):
    """A worker process."""

    executor: Executor

    def wake_later(self, wake: Callable[[], None]) -> None:
        """Call `wake` a little later, from elsewhere."""


class Watcher:
    """Something that changes, and can be waited for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def until(self, true: Callable[[], object]) -> None:
        """Return when `true()` is; fail when that takes too long."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()


class Recorder(Watcher):
    """A StreamHandler that remembers what it is told."""

    stream: Stream

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[bytes] = []
        self.lost: list[str] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "an empty chunk says nothing"
        assert not self.lost, "data after the end"
        self.chunks.append(data)
        self.changed()

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changed()


class Pair:
    """A connection with both its ends."""

    def __init__(self, client: Recorder, server: Recorder) -> None:
        self.client = client
        self.server = server


@contextlib.asynccontextmanager
async def connected(world: NetworkWorld) -> AsyncIterator[Pair]:
    """Make a connection; at the end close both ends, and see that each handler heard of it exactly once."""
    server, client = Recorder(), Recorder()

    def accept(stream: Stream) -> Recorder:
        server.stream = stream
        server.changed()
        return server

    address = world.address()
    listener = await world.network.listen(address, accept)
    client.stream = await world.network.connect(address, client)
    await server.until(lambda: hasattr(server, "stream"))
    listener.close()
    try:
        yield Pair(client, server)
    finally:
        for recorder in (client, server):
            recorder.stream.close()
        for recorder in (client, server):
            await recorder.until(lambda recorder=recorder: recorder.lost)
    await settle()
    assert len(client.lost) == len(server.lost) == 1


async def settle() -> None:
    """Let the loop do what it has already been asked to."""
    for _ in range(10):
        await asyncio.sleep(0)


def pattern(size: int) -> bytes:
    """Bytes in which a cut, a gap and a swap are seen."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


class Events(Watcher):
    """A ProcessEvents that remembers, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, str]] = []
        self.exits: dict[str, ProcessExit] = {}
        self.output: dict[tuple[str, str], bytes] = {}
        self.pids: dict[str, int] = {}

    def process_started(self, worker_id: str, pid: int) -> None:
        assert worker_id not in self.exits
        self.pids[worker_id] = pid
        self._note(worker_id, "started")

    def process_exited(self, exit: ProcessExit) -> None:
        assert exit.worker_id not in self.exits, "an exit is told exactly once"
        self.exits[exit.worker_id] = exit
        self._note(exit.worker_id, "exited")

    def process_output(self, worker_id: str, stream: str, data: bytes) -> None:
        assert worker_id not in self.exits, "output after the exit"
        assert worker_id in self.pids, "output before the start"
        key = worker_id, stream
        self.output[key] = self.output.get(key, b"") + data
        self._note(worker_id, stream)

    def said(self, worker_id: str, words: bytes) -> Callable[[], bool]:
        """Whether the worker has written `words` to its stdout."""
        return lambda: words in self.output.get((worker_id, "stdout"), b"")

    def of(self, worker_id: str) -> list[str]:
        """What was told of one worker, in order."""
        return [what for who, what in self.log if who == worker_id]

    def _note(self, worker_id: str, what: str) -> None:
        self.log.append((worker_id, what))
        self.changed()
