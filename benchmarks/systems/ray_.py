# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined,misc"
"""Ray's rows, written as `ray_perf` has them. Run by the peers' interpreter (`make peers`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import ray

from benchmarks import rows
from benchmarks.systems import ray_objects
from benchmarks.systems.serve import Step, Workload, claim_stdout, serve


@ray.remote(num_cpus=0)
class Echo:
    def small_value(self) -> bytes:
        return b"ok"

    def small_value_arg(self, x: int) -> bytes:
        return b"ok"


@ray.remote
class AsyncEcho:
    async def small_value(self) -> bytes:
        return b"ok"

    async def small_value_arg(self, x: int) -> bytes:
        return b"ok"


@ray.remote(num_cpus=0)
class Client:
    """Calls a row's servers, or submits tasks, from a process of its own."""

    def __init__(self, servers: list[Any]) -> None:
        self.servers = servers

    def calls(self, count: int) -> None:
        ray.get([s.small_value.remote() for s in self.servers for _ in range(count)])

    def calls_with_argument(self, count: int) -> None:
        x = ray.put(0)
        ray.get([s.small_value_arg.remote(x) for s in self.servers for _ in range(count)])

    def tasks(self, count: int) -> None:
        ray.get([small_value.remote() for _ in range(count)])


@ray.remote
def small_value() -> bytes:
    return b"ok"


@ray.remote
def put_small_values(count: int) -> None:
    for _ in range(count):
        ray.put(0)


@ray.remote
def put_chunks(count: int, items: int) -> None:
    for _ in range(count):
        ray.put(np.zeros(items, dtype=np.int64))


@ray.remote
def many_refs(count: int) -> list[Any]:
    return [ray.put(1) for _ in range(count)]


@ray.remote
def call_all(servers: list[Any], count: int) -> None:
    ray.get([servers[i % len(servers)].small_value.remote() for i in range(count)])


def plain(step: Step) -> Workload:
    """A row that needs nothing set up."""

    @contextmanager
    def workload() -> Iterator[Step]:
        yield step

    return workload


def with_actors(make: Callable[[], list[Any]], step_of: Callable[..., Step]) -> Workload:
    """A row over actors: made and answering before the first step, killed after the last."""

    @contextmanager
    def workload() -> Iterator[Step]:
        actors = make()
        ray.get([actor.__ray_ready__.remote() for actor in actors])
        yield step_of(*actors)
        for actor in actors:
            ray.kill(actor)

    return workload


def sync_calls(actor: Any) -> Step:
    return lambda: ray.get(actor.small_value.remote())


def async_calls(actor: Any) -> Step:
    return lambda: ray.get([actor.small_value.remote() for _ in range(rows.BATCH)])


def calls_with_arguments(actor: Any) -> Step:
    return lambda: ray.get([actor.small_value_arg.remote(i) for i in range(rows.BATCH)])


def get_batch() -> None:
    ray.get([small_value.remote() for _ in range(rows.BATCH)])


@contextmanager
def get_small() -> Iterator[Step]:
    value = ray.put(0)

    def step() -> None:
        for _ in range(rows.SMALL):
            ray.get(value)

    yield step


def put_small() -> None:
    for _ in range(rows.SMALL):
        ray.put(0)


@contextmanager
def put_large() -> Iterator[Step]:
    array = np.zeros(rows.LARGE_ITEMS, dtype=np.int64)
    yield lambda: ray.put(array)


@contextmanager
def get_10k_refs() -> Iterator[Step]:
    holder = many_refs.remote(rows.REFS_IN_OBJECT)
    yield lambda: ray.get(holder)


def wait_1k() -> None:
    pending = [small_value.remote() for _ in range(rows.BATCH)]
    fetch_local = True  # the first call tells the raylet about all of them, as in ray_perf
    for _ in range(rows.BATCH):
        _, pending = ray.wait(pending, fetch_local=fetch_local)
        fetch_local = False


@contextmanager
def one_to_n(server_class: Any) -> Iterator[Step]:
    servers = [server_class.remote() for _ in range(rows.SERVERS)]
    client = Client.remote(servers)
    ray.get([actor.__ray_ready__.remote() for actor in [*servers, client]])
    yield lambda: ray.get(client.calls.remote(rows.CALLS_PER_CLIENT))
    for actor in [*servers, client]:
        ray.kill(actor)


@contextmanager
def actor_nn_arg() -> Iterator[Step]:
    servers = [Echo.remote() for _ in range(rows.SERVERS)]
    clients = [Client.remote([server]) for server in servers]
    ray.get([actor.__ray_ready__.remote() for actor in servers + clients])
    yield lambda: ray.get([c.calls_with_argument.remote(rows.CALLS_PER_CLIENT_ARG) for c in clients])
    for actor in servers + clients:
        ray.kill(actor)


def n_to_n(*servers: Any) -> Step:
    """As in ray_perf: tasks call the actors, as many at once as there are CPUs."""
    return lambda: ray.get(
        [call_all.remote(list(servers), rows.CALLS_PER_CLIENT) for _ in range(rows.CLIENTS)]
    )


def multi_client_tasks(*clients: Any) -> Step:
    return lambda: ray.get([client.tasks.remote(rows.TASKS_PER_CLIENT) for client in clients])


WORKLOADS: dict[str, Workload] = {
    "get_small": get_small,
    "put_small": plain(put_small),
    "put_small_multi": plain(
        lambda: ray.get([put_small_values.remote(rows.PUTS_PER_TASK) for _ in range(rows.PUT_TASKS)])
    ),
    "put_large": put_large,
    "put_large_multi": plain(
        lambda: ray.get(
            [put_chunks.remote(rows.CHUNKS_PER_TASK, rows.CHUNK_ITEMS) for _ in range(rows.CHUNK_TASKS)]
        )
    ),
    "tasks_sync": plain(lambda: ray.get(small_value.remote())),
    "tasks_async": plain(get_batch),
    "tasks_async_multi": with_actors(
        lambda: [Client.remote([]) for _ in range(rows.CLIENTS)], multi_client_tasks
    ),
    "tasks_batch": plain(get_batch),
    "wait_1k": plain(wait_1k),
    "get_10k_refs": get_10k_refs,
    "actor_sync": with_actors(lambda: [Echo.remote()], sync_calls),
    "actor_async": with_actors(lambda: [Echo.remote()], async_calls),
    "actor_concurrent": with_actors(
        lambda: [Echo.options(max_concurrency=rows.CONCURRENCY).remote()], async_calls
    ),
    "actor_1n": lambda: one_to_n(Echo),
    "actor_nn": with_actors(lambda: [Echo.remote() for _ in range(rows.SERVERS)], n_to_n),
    "actor_nn_arg": actor_nn_arg,
    "async_sync": with_actors(lambda: [AsyncEcho.remote()], sync_calls),
    "async_async": with_actors(lambda: [AsyncEcho.remote()], async_calls),
    "async_args": with_actors(lambda: [AsyncEcho.remote()], calls_with_arguments),
    "async_1n": lambda: one_to_n(AsyncEcho),
    "async_nn": with_actors(lambda: [AsyncEcho.remote() for _ in range(rows.SERVERS)], n_to_n),
    **ray_objects.WORKLOADS,
}


if __name__ == "__main__":
    answers = claim_stdout()
    ray.init(num_cpus=rows.CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        serve(WORKLOADS, answers)
    finally:
        ray.shutdown()
