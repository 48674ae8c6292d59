"""A program that type checkers accept, with what they must make of it. Read by test_types.py, never run."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, assert_type

import actorflow as af

# Functions --------------------------------------------------------------------------------------------------


@af.remote
def square(x: int, *, scale: int = 1) -> int:
    return x * x * scale


@af.remote(num_cpus=2, memory="1GiB", retry_exceptions=(OSError,), env_vars={"A": "1"})
async def fetch(url: str) -> bytes:
    return url.encode()


@af.remote
async def tokens(n: int) -> AsyncIterator[str]:
    yield str(n)


@af.remote
def lines(path: str) -> Iterator[str]:
    yield path


@af.remote()
def loose(x: int) -> Any:
    return x


@af.remote
def nothing() -> None: ...


# Actors -----------------------------------------------------------------------------------------------------


class Counter(af.Actor, max_restarts=3, concurrency_groups={"io": 2}):
    def __init__(self, start: int = 0) -> None:
        self.value = start

    @af.method
    async def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    @af.method(timeout=3, concurrency_group="io")
    def peek(self) -> str:
        return str(self.value)

    @af.method
    async def ticks(self, n: int) -> AsyncIterator[float]:
        yield await self.add(n)

    @af.method
    def names(self, prefix: str) -> Iterator[str]:
        yield prefix + self.peek()

    async def plain(self, x: int) -> str:
        return str(x)


class Child(Counter, num_cpus=1, process="dedicated", checkpoint_every="call"):
    @af.method
    async def more(self) -> list[int]:
        return [await self.add(2)]


async def helper(counter: af.Handle[Counter]) -> int:
    return await counter.add.remote(2)


async def functions() -> None:
    assert_type(await square(3), int)
    assert_type(square.remote(3), af.ObjectRef[int])
    assert_type(await square.remote(3), int)
    assert_type(await square.submit(3, scale=2), af.ObjectRef[int])
    assert_type(await square.remote(square.remote(3)), int)
    assert_type(await square.remote(1, scale=af.deref(square.remote(3))), int)
    assert_type(await square.options(num_cpus=0.5, timeout=None)(3), int)
    assert_type(await fetch("http://x"), bytes)
    assert_type(await fetch.remote("http://x"), bytes)
    assert_type(await loose.remote(2), Any)
    assert_type(await nothing.remote(), None)
    async for token in tokens(3):
        assert_type(token, str)
    assert_type(lines.remote("p"), af.Stream[str])
    async for line in lines("p"):
        assert_type(line, str)


async def actors() -> None:
    counter = Counter.remote(3)
    assert_type(counter, Counter)
    assert_type(await counter, Counter)
    assert_type(await counter.add(2), int)
    assert_type(await counter.add.remote(by=2), int)
    assert_type(counter.add.remote(square.remote(2)), af.ObjectRef[int])
    assert_type(await counter.add.submit(), af.ObjectRef[int])
    assert_type(await counter.add.options(timeout=3)(2), int)
    assert_type(await counter.peek.remote(), str)
    assert_type(await counter.plain(2), str)
    assert_type(counter.ticks.remote(2), af.Stream[float])
    assert_type(counter.names.remote("n"), af.Stream[str])
    assert_type(await Counter.options(name="x", get_if_exists=True).remote(1), Counter)
    child = Child.remote(1)
    assert_type(await child.more(), list[int])
    assert_type(await helper(child), int)


async def groups() -> None:
    counter = Counter.remote()
    async with af.TaskGroup() as tg:
        assert_type(tg.submit(square, 3, scale=2), af.ObjectRef[int])
        assert_type(tg.submit(square, square.remote(3)), af.ObjectRef[int])
        assert_type(tg.submit(counter.add, 2), af.ObjectRef[int])
        assert_type(tg.submit(tokens, 2), af.Stream[str])
        assert_type(tg.create_task(counter.add(2)), asyncio.Task[int])
    async for value in af.map(square, range(10), max_in_flight=3):
        assert_type(value, int)
    async for total in af.map(counter.add.options(timeout=3), [1]):
        assert_type(total, int)
    async for data in af.map(fetch, ["a", "b"], ordered=False):
        assert_type(data, bytes)


async def placement() -> None:
    async with af.placement_group([{"CPU": 1, "memory": "1GiB"}, {"GPU": 0.5}], strategy="SPREAD", name="pair") as group:
        assert_type(group, af.PlacementGroup)
        assert_type(await square.options(placement_group=group, bundle_index=0, capture_child_tasks=True)(3), int)
        assert_type(await Counter.options(placement_group=group).remote(1), Counter)
        assert_type(group.bundle_specs, list[dict[str, float]])
    other = af.placement_group([{"CPU": 1}], lifetime="detached", bundle_label_selector=[{"zone": "a"}], priority=1)
    assert_type(await other.ready(timeout=3), af.PlacementGroup)
    assert_type(await other.wait(3), bool)
    assert_type(await af.get_placement_group("pair", namespace="n"), af.PlacementGroup)
    await other.remove()
    square.options(placement_group=None)


async def declared() -> None:
    with af.context(tenant="a", request_id="7"):
        assert_type(af.context.get("tenant"), str | None)
        assert_type(af.context.get("tenant", "none"), str)
        assert_type(af.context.current(), Mapping[str, str])
    with af.context(**{"x-request-id": "7"}):
        assert_type(await square(3), int)


async def objects() -> None:
    ref = await af.put([1, 2])
    assert_type(ref, af.ObjectRef[list[int]])
    assert_type(await af.get(ref), list[int])
    assert_type(await af.get([square.remote(1), square.remote(2)]), list[int])
    ready, pending = await af.wait([square.remote(1)], num_returns=1, timeout=3)
    assert_type(ready, list[af.ObjectRef[int]])
    assert_type(pending, list[af.ObjectRef[int]])
    queue: af.util.Queue[int] = af.util.Queue(3)
    assert_type(await queue.get(), int)
