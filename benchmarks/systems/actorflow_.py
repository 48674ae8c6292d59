"""actorflow's rows: `ray_perf` for people who write `async def`.

Variants of a row (`row:variant`): `direct` calls and waits in one (`await a.m()`) where the row itself
takes a reference first (`await a.m.remote()`, the form nearest to Ray's). Run with the argument `inline`
the protocol lives on the driver's own loop (`af.init(inline=True)`).
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

import actorflow as af
from benchmarks import rows
from benchmarks.systems import actorflow_objects
from benchmarks.systems.serve import AsyncStep, AsyncWorkload, claim_stdout, serve_async


class Echo(af.Actor):
    @af.method
    def small_value(self) -> bytes:
        return b"ok"

    @af.method
    def small_value_arg(self, x: int) -> bytes:
        return b"ok"


class ConcurrentEcho(af.Actor, max_concurrency=rows.CONCURRENCY):
    """Its `def` methods run on a pool of threads."""

    @af.method
    def small_value(self) -> bytes:
        return b"ok"


class AsyncEcho(af.Actor):
    @af.method
    async def small_value(self) -> bytes:
        return b"ok"

    @af.method
    async def small_value_arg(self, x: int) -> bytes:
        return b"ok"


class Client(af.Actor):
    """Calls a row's servers, or submits tasks, from a process of its own."""

    def __init__(self, servers: list[Any]) -> None:
        self.servers = servers

    @af.method
    async def calls(self, count: int) -> None:
        await af.get([s.small_value.remote() for s in self.servers for _ in range(count)])

    @af.method
    async def calls_with_argument(self, count: int) -> None:
        x = await af.put(0)
        await af.get([s.small_value_arg.remote(x) for s in self.servers for _ in range(count)])

    @af.method
    async def tasks(self, count: int) -> None:
        await af.get([small_value.remote() for _ in range(count)])


@af.remote
def small_value() -> bytes:
    return b"ok"


@af.remote
async def put_small_values(count: int) -> None:
    for _ in range(count):
        await af.put(0)


@af.remote
async def put_chunks(count: int, items: int) -> None:
    for _ in range(count):
        await af.put(np.zeros(items, dtype=np.int64))


@af.remote
async def many_refs(count: int) -> list[Any]:
    return [await af.put(1) for _ in range(count)]


@af.remote
async def call_all(servers: list[Any], count: int) -> None:
    await af.get([servers[i % len(servers)].small_value.remote() for i in range(count)])


def plain(step: AsyncStep) -> AsyncWorkload:
    """A row that needs nothing set up."""

    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        yield step

    return workload


def with_actors(make: Callable[[], list[Any]], step_of: Callable[..., AsyncStep]) -> AsyncWorkload:
    """A row over actors: made and alive before the first step, killed after the last."""

    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        actors = make()
        for actor in actors:
            await actor
        yield step_of(*actors)
        for actor in actors:
            await af.kill(actor)

    return workload


# --- steps over one actor -----------------------------------------------------------------------------------


def sync_calls(actor: Any) -> AsyncStep:
    async def step() -> None:
        await actor.small_value.remote()

    return step


def sync_calls_direct(actor: Any) -> AsyncStep:
    async def step() -> None:
        await actor.small_value()

    return step


def async_calls(actor: Any) -> AsyncStep:
    async def step() -> None:
        await af.get([actor.small_value.remote() for _ in range(rows.BATCH)])

    return step


def async_calls_direct(actor: Any) -> AsyncStep:
    async def step() -> None:
        await asyncio.gather(*[actor.small_value() for _ in range(rows.BATCH)])

    return step


def calls_with_arguments(actor: Any) -> AsyncStep:
    async def step() -> None:
        await af.get([actor.small_value_arg.remote(i) for i in range(rows.BATCH)])

    return step


# --- steps over tasks and objects ---------------------------------------------------------------------------


async def task() -> None:
    await small_value.remote()


async def task_direct() -> None:
    await small_value()


async def task_batch() -> None:
    await af.get([small_value.remote() for _ in range(rows.BATCH)])


async def wait_1k() -> None:
    pending: list[Any] = [small_value.remote() for _ in range(rows.BATCH)]
    for _ in range(rows.BATCH):
        _, pending = await af.wait(pending)


async def put_small() -> None:
    for _ in range(rows.SMALL):
        await af.put(0)


async def put_small_multi() -> None:
    await af.get([put_small_values.remote(rows.PUTS_PER_TASK) for _ in range(rows.PUT_TASKS)])


async def put_large_multi() -> None:
    await af.get([put_chunks.remote(rows.CHUNKS_PER_TASK, rows.CHUNK_ITEMS) for _ in range(rows.CHUNK_TASKS)])


@asynccontextmanager
async def get_small() -> AsyncIterator[AsyncStep]:
    value = await af.put(0)

    async def step() -> None:
        for _ in range(rows.SMALL):
            await value

    yield step


@asynccontextmanager
async def put_large() -> AsyncIterator[AsyncStep]:
    array = np.zeros(rows.LARGE_ITEMS, dtype=np.int64)

    async def step() -> None:
        await af.put(array)

    yield step


@asynccontextmanager
async def get_10k_refs() -> AsyncIterator[AsyncStep]:
    holder = many_refs.remote(rows.REFS_IN_OBJECT)

    async def step() -> None:
        await holder

    yield step


# --- steps over clients and servers -------------------------------------------------------------------------


def _each(calls: list[Callable[[], Awaitable[Any]]]) -> AsyncStep:
    async def step() -> None:
        await af.get([call() for call in calls])

    return step


@asynccontextmanager
async def one_to_n(server_class: type[Echo] | type[AsyncEcho]) -> AsyncIterator[AsyncStep]:
    servers = [await server_class.remote() for _ in range(rows.SERVERS)]
    client = await Client.remote(servers)
    yield _each([functools.partial(client.calls.remote, rows.CALLS_PER_CLIENT)])
    for actor in [*servers, client]:
        await af.kill(actor)


@asynccontextmanager
async def actor_nn_arg() -> AsyncIterator[AsyncStep]:
    servers = [await Echo.remote() for _ in range(rows.SERVERS)]
    clients = [await Client.remote([server]) for server in servers]
    yield _each([functools.partial(c.calls_with_argument.remote, rows.CALLS_PER_CLIENT_ARG) for c in clients])
    for actor in [*servers, *clients]:
        await af.kill(actor)


def n_to_n(*servers: Any) -> AsyncStep:
    """As in ray_perf: tasks call the actors, as many at once as there are CPUs."""
    return _each([functools.partial(call_all.remote, list(servers), rows.CALLS_PER_CLIENT)] * rows.CLIENTS)


def multi_client_tasks(*clients: Client) -> AsyncStep:
    return _each([functools.partial(client.tasks.remote, rows.TASKS_PER_CLIENT) for client in clients])


WORKLOADS: dict[str, AsyncWorkload] = {
    "get_small": get_small,
    "put_small": plain(put_small),
    "put_small_multi": plain(put_small_multi),
    "put_large": put_large,
    "put_large_multi": plain(put_large_multi),
    "tasks_sync": plain(task),
    "tasks_sync:direct": plain(task_direct),
    "tasks_async": plain(task_batch),
    "tasks_async_multi": with_actors(
        lambda: [Client.remote([]) for _ in range(rows.CLIENTS)], multi_client_tasks
    ),
    "tasks_batch": plain(task_batch),
    "wait_1k": plain(wait_1k),
    "get_10k_refs": get_10k_refs,
    "actor_sync": with_actors(lambda: [Echo.remote()], sync_calls),
    "actor_sync:direct": with_actors(lambda: [Echo.remote()], sync_calls_direct),
    "actor_async": with_actors(lambda: [Echo.remote()], async_calls),
    "actor_concurrent": with_actors(lambda: [ConcurrentEcho.remote()], async_calls),
    "actor_1n": lambda: one_to_n(Echo),
    "actor_nn": with_actors(lambda: [Echo.remote() for _ in range(rows.SERVERS)], n_to_n),
    "actor_nn_arg": actor_nn_arg,
    "async_sync": with_actors(lambda: [AsyncEcho.remote()], sync_calls),
    "async_sync:direct": with_actors(lambda: [AsyncEcho.remote()], sync_calls_direct),
    "async_async": with_actors(lambda: [AsyncEcho.remote()], async_calls),
    "async_async:direct": with_actors(lambda: [AsyncEcho.remote()], async_calls_direct),
    "async_args": with_actors(lambda: [AsyncEcho.remote()], calls_with_arguments),
    "async_1n": lambda: one_to_n(AsyncEcho),
    "async_nn": with_actors(lambda: [AsyncEcho.remote() for _ in range(rows.SERVERS)], n_to_n),
    **actorflow_objects.WORKLOADS,
}


if __name__ == "__main__":
    _answers = claim_stdout()
    if sys.argv[1:] == ["inline"]:
        af.run(lambda: serve_async(WORKLOADS, _answers), num_cpus=rows.CPUS, inline=True)
    else:
        af.run(lambda: serve_async(WORKLOADS, _answers), num_cpus=rows.CPUS)
