"""`def` code may run an event loop of its own: `asyncio.run`, in whatever it calls, works as in any plain function."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np

import actorflow as af


async def one() -> int:
    await asyncio.sleep(0.001)
    return 1


@af.remote
def by_run() -> int:
    return asyncio.run(one())


@af.remote
def by_runner() -> int:
    with asyncio.Runner() as runner:
        return runner.run(one()) + runner.run(one())


@af.remote
def of_large(array: Any) -> int:
    return asyncio.run(one()) + len(array)


@af.remote
def items(count: int) -> Iterator[int]:
    for number in range(count):
        yield asyncio.run(one()) + number


@af.remote
def square(x: int) -> int:
    return x * x


@af.remote
def with_calls() -> list[int]:
    async def calls() -> list[int]:
        reference = square.remote(5)
        return [*await asyncio.gather(*(square(number) for number in range(4))), await reference, await square.remote(6)]

    return asyncio.run(calls())


@af.remote
def passes_on() -> list[Any]:
    return [square.remote(7)]


@af.remote
def no_loop() -> bool:
    return asyncio._get_running_loop() is None


class Plain(af.Actor):
    def run(self) -> int:
        return asyncio.run(one())

    def of_large(self, array: Any) -> int:
        return asyncio.run(one()) + len(array)


class Async(af.Actor):
    """Its `def` methods are as functions that its `async def` ones call."""

    def start(self) -> None:
        self.task = asyncio.create_task(one())

    async def finish(self) -> int:
        return await self.task


async def test_in_tasks(cluster: Any) -> None:
    assert await by_run() == 1
    assert await by_runner() == 2
    assert await of_large(np.zeros(100_000)) == 100_001
    assert await no_loop()


async def test_in_generators(cluster: Any) -> None:
    assert [item async for item in items(3)] == [1, 2, 3]


async def test_with_calls_on_that_loop(cluster: Any) -> None:
    assert await with_calls() == [0, 1, 4, 9, 25, 36]


async def test_calls_that_nobody_there_awaits_leave_all_the_same(cluster: Any) -> None:
    async with asyncio.timeout(30):
        (reference,) = await passes_on()
        assert await reference == 49


async def test_in_methods(cluster: Any) -> None:
    plain = Plain.remote()
    assert await plain.run() == 1
    assert await plain.of_large(np.zeros(100_000)) == 100_001


async def test_def_methods_of_an_async_actor_see_its_loop(cluster: Any) -> None:
    actor = Async.remote()
    await actor.start()
    assert await actor.finish() == 1
