"""The floor's rows: the least that could be done for each, with bare uvloop, pickle and memcpy.

Run with a socket path as argument it is the server; else it is the driver and starts its servers itself.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import uvloop

from benchmarks import rows
from benchmarks.systems.floor_wire import Client, Server, connect
from benchmarks.systems.serve import AsyncStep, AsyncWorkload, claim_stdout, serve_async

# --- the server process -------------------------------------------------------------------------------------


class Functions:
    """What a server process can be asked to do."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._warm = np.ones(0, dtype=np.int64)

    def echo(self, *args: Any) -> bytes:
        return b"ok"

    def dumps(self, count: int) -> None:
        for _ in range(count):
            pickle.dumps(0, pickle.HIGHEST_PROTOCOL)

    def copy(self, count: int, items: int) -> None:
        """As the put tasks do: a new array of zeros each time, copied into memory that has been touched."""
        if len(self._warm) != items:
            self._warm = np.ones(items, dtype=np.int64)
        for _ in range(count):
            np.copyto(self._warm, np.zeros(items, dtype=np.int64))

    async def connect(self, paths: list[str]) -> None:
        self._clients = [await connect(path) for path in paths]

    async def batch(self, count: int, *args: Any) -> None:
        """Be a client: `count` calls in flight at once to each server this process is connected to."""
        for future in [client.call("echo", *args) for client in self._clients for _ in range(count)]:
            await future


async def listen(path: str) -> None:
    """Serve at `path` until stdin ends, which it does with the driver."""
    functions = Functions()
    table: dict[str, Callable[..., Any]] = {
        name: getattr(functions, name) for name in ("echo", "dumps", "copy", "connect", "batch")
    }
    loop = asyncio.get_running_loop()
    await loop.create_unix_server(lambda: Server(table), path)
    print("listening", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# --- the driver --------------------------------------------------------------------------------------------


@asynccontextmanager
async def servers(count: int) -> AsyncIterator[list[str]]:
    """Start that many server processes; gives their paths."""
    with tempfile.TemporaryDirectory(prefix="floor-") as folder:
        paths = [os.path.join(folder, str(i)) for i in range(count)]
        running = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", __spec__.name, path, stdin=PIPE, stdout=PIPE
            )
            for path in paths
        ]
        try:
            for process in running:
                assert process.stdout is not None
                await process.stdout.readline()
            yield paths
        finally:
            for process in running:
                assert process.stdin is not None
                process.stdin.close()
            for process in running:
                await process.wait()


@asynccontextmanager
async def clients(count: int) -> AsyncIterator[list[Client]]:
    """That many server processes and a connection to each."""
    async with servers(count) as paths:
        connections = [await connect(path) for path in paths]
        try:
            yield connections
        finally:
            for connection in connections:
                connection.close()


def sequential(*args: Any) -> AsyncWorkload:
    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        async with clients(1) as (server,):

            async def step() -> None:
                await server.call("echo", *args)

            yield step

    return workload


def pipelined(with_argument: bool = False) -> AsyncWorkload:
    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        async with clients(1) as (server,):

            async def step() -> None:
                for future in [server.call("echo", i) for i in range(rows.BATCH)]:
                    await future

            async def step_without() -> None:
                for future in [server.call("echo") for _ in range(rows.BATCH)]:
                    await future

            yield step if with_argument else step_without

    return workload


def many(client_count: int, server_count: int, calls: int, *args: Any) -> AsyncWorkload:
    """`client_count` processes with `calls` calls in flight in each, spread over `server_count` servers."""

    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        async with AsyncExitStack() as stack:
            paths = await stack.enter_async_context(servers(server_count))
            callers = await stack.enter_async_context(clients(client_count))
            for caller in callers:
                await caller.call("connect", paths)

            async def step() -> None:
                for future in [caller.call("batch", calls // server_count, *args) for caller in callers]:
                    await future

            yield step

    return workload


def in_servers(tasks: int, name: str, *args: Any) -> AsyncWorkload:
    """`tasks` calls of a function, shared out among one server process per CPU."""

    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        async with clients(rows.CPUS) as connections:

            async def step() -> None:
                for future in [connections[i % rows.CPUS].call(name, *args) for i in range(tasks)]:
                    await future

            yield step

    return workload


@asynccontextmanager
async def get_small() -> AsyncIterator[AsyncStep]:
    stored = pickle.dumps(0, pickle.HIGHEST_PROTOCOL)

    async def step() -> None:
        for _ in range(rows.SMALL):
            pickle.loads(stored)

    yield step


@asynccontextmanager
async def put_small() -> AsyncIterator[AsyncStep]:
    async def step() -> None:
        for _ in range(rows.SMALL):
            pickle.dumps(0, pickle.HIGHEST_PROTOCOL)

    yield step


@asynccontextmanager
async def put_large() -> AsyncIterator[AsyncStep]:
    source = np.zeros(rows.LARGE_ITEMS, dtype=np.int64)
    target = np.ones(rows.LARGE_ITEMS, dtype=np.int64)

    async def step() -> None:
        np.copyto(target, source)

    yield step


class Ref:
    """The least a reference could be: an object with an id."""

    __slots__ = ("id",)

    def __init__(self, id: bytes) -> None:
        self.id = id

    def __reduce__(self) -> tuple[type[Ref], tuple[bytes]]:
        return Ref, (self.id,)


@asynccontextmanager
async def get_10k_refs() -> AsyncIterator[AsyncStep]:
    stored = pickle.dumps([Ref(os.urandom(20)) for _ in range(rows.REFS_IN_OBJECT)], pickle.HIGHEST_PROTOCOL)

    async def step() -> None:
        pickle.loads(stored)

    yield step


WORKLOADS: dict[str, AsyncWorkload] = {
    "get_small": get_small,
    "put_small": put_small,
    "put_small_multi": in_servers(rows.PUT_TASKS, "dumps", rows.PUTS_PER_TASK),
    "put_large": put_large,
    "put_large_multi": in_servers(rows.CHUNK_TASKS, "copy", rows.CHUNKS_PER_TASK, rows.CHUNK_ITEMS),
    "get_10k_refs": get_10k_refs,
    "tasks_async_multi": many(rows.CLIENTS, rows.CPUS, rows.TASKS_PER_CLIENT),
    "actor_1n": many(1, rows.SERVERS, rows.CALLS_PER_CLIENT * rows.SERVERS),
    "actor_nn": many(rows.CLIENTS, rows.SERVERS, rows.CALLS_PER_CLIENT),
    "actor_nn_arg": many(rows.SERVERS, rows.SERVERS, rows.CALLS_PER_CLIENT_ARG, 0),
    "async_args": pipelined(with_argument=True),
}


def copies(size: int, count: int) -> AsyncWorkload:
    """`count` arrays into memory that has been touched."""

    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        # Ones: untouched zeros would all be one page of the system's, which never leaves the cache.
        source = np.ones(size, dtype=np.uint8)
        target = np.ones(size * count, dtype=np.uint8)

        async def step() -> None:
            for at in range(0, size * count, size):
                np.copyto(target[at : at + size], source)

        yield step

    return workload


@asynccontextmanager
async def view_1g() -> AsyncIterator[AsyncStep]:
    stored = memoryview(np.ones(rows.BULK_BYTES, dtype=np.uint8)).toreadonly()

    async def step() -> None:
        np.frombuffer(stored, dtype=np.uint8)

    yield step


WORKLOADS |= {
    "obj_put_200k": copies(rows.MIDDLE_BYTES, rows.MIDDLE_COUNT),
    "obj_put_get_200k": copies(rows.MIDDLE_BYTES, rows.MIDDLE_COUNT),
    "obj_put_16m": copies(rows.BLOCK_BYTES, 1),
    "obj_put_1g": copies(rows.BULK_BYTES, 1),
    "obj_get_1g": view_1g,
    "obj_put_two": in_servers(2, "copy", rows.TWO_CLIENTS_PUTS, rows.TWO_CLIENTS_BYTES // 8),
}
WORKLOADS["async_1n"] = WORKLOADS["actor_1n"]
WORKLOADS["async_nn"] = WORKLOADS["actor_nn"]
for _row in rows.ROWS:
    if _row.floor is rows.SEQUENTIAL:
        WORKLOADS.setdefault(_row.key, sequential())
    elif _row.floor is rows.PIPELINED:
        WORKLOADS.setdefault(_row.key, pipelined())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(listen(sys.argv[1]))
    else:
        uvloop.run(serve_async(WORKLOADS, claim_stdout()))
