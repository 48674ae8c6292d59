# mypy: disable-error-code="import-not-found,misc"
"""xoscar's actor rows: the driver is the main pool, every actor lives in a process of its own below it.

xoscar runs `def` methods on the actor's loop under the actor's lock (`Echo`); its way to concurrent `async
def` methods is the stateless actor (`AsyncEcho`). uvloop everywhere. It has no tasks, no references and no
threads.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop
import xoscar as xo
from xoscar.backends.allocate_strategy import ProcessIndex

from benchmarks import rows
from benchmarks.systems.serve import AsyncStep, AsyncWorkload, claim_stdout, serve_async

ADDRESS = ""


class Echo(xo.Actor):
    def small_value(self) -> bytes:
        return b"ok"


class AsyncEcho(xo.StatelessActor):
    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_arg(self, x: int) -> bytes:
        return b"ok"


class Client(xo.StatelessActor):
    """Calls a row's servers from a process of its own."""

    def __init__(self, servers: list[Any]) -> None:
        super().__init__()
        self.servers = servers

    async def calls(self, count: int) -> None:
        servers = self.servers
        await asyncio.gather(*[servers[i % len(servers)].small_value() for i in range(count)])


async def create(process: int, actor_class: type, *args: Any) -> Any:
    return await xo.create_actor(
        actor_class,
        *args,
        uid=f"{actor_class.__name__}-{process}",
        address=ADDRESS,
        allocate_strategy=ProcessIndex(process),
    )


def one_to_one(server_class: type, step_of: Callable[[Any], AsyncStep]) -> AsyncWorkload:
    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        server = await create(1, server_class)
        yield step_of(server)
        await xo.destroy_actor(server)

    return workload


def sync_calls(server: Any) -> AsyncStep:
    async def step() -> None:
        await server.small_value()

    return step


def async_calls(server: Any) -> AsyncStep:
    async def step() -> None:
        await asyncio.gather(*[server.small_value() for _ in range(rows.BATCH)])

    return step


def calls_with_arguments(server: Any) -> AsyncStep:
    async def step() -> None:
        await asyncio.gather(*[server.small_value_arg(i) for i in range(rows.BATCH)])

    return step


def many(server_class: type, client_count: int, calls: int) -> AsyncWorkload:
    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        servers = [await create(1 + i, server_class) for i in range(rows.SERVERS)]
        clients = [await create(1 + rows.SERVERS + i, Client, servers) for i in range(client_count)]

        async def step() -> None:
            await asyncio.gather(*[client.calls(calls) for client in clients])

        yield step
        for actor in clients + servers:
            await xo.destroy_actor(actor)

    return workload


WORKLOADS: dict[str, AsyncWorkload] = {
    "actor_sync": one_to_one(Echo, sync_calls),
    "actor_async": one_to_one(Echo, async_calls),
    "actor_1n": many(Echo, 1, rows.CALLS_PER_CLIENT * rows.SERVERS),
    "actor_nn": many(Echo, rows.CLIENTS, rows.CALLS_PER_CLIENT),
    "async_sync": one_to_one(AsyncEcho, sync_calls),
    "async_async": one_to_one(AsyncEcho, async_calls),
    "async_args": one_to_one(AsyncEcho, calls_with_arguments),
    "async_1n": many(AsyncEcho, 1, rows.CALLS_PER_CLIENT * rows.SERVERS),
    "async_nn": many(AsyncEcho, rows.CLIENTS, rows.CALLS_PER_CLIENT),
}


async def main() -> None:
    global ADDRESS
    answers = claim_stdout()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        ADDRESS = f"127.0.0.1:{probe.getsockname()[1]}"
    pool = await xo.create_actor_pool(ADDRESS, n_process=rows.SERVERS + rows.CLIENTS, use_uvloop=True)
    async with pool:
        await serve_async(WORKLOADS, answers)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
