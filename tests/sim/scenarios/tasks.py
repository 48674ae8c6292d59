"""Scenario 1: tasks. A random program of calls whose arguments are values and references, checked by plain Python.

Invariants of its own:
    SC-13  no more tasks of one CPU run at a time than there are CPUs (those that wait for others do not count)
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import actorflow as af
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage

LARGE_BYTES = 150_000


class Blob:
    """Bytes that travel out of band: through shared memory when there are many."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Blob, (pickle.PickleBuffer(self.data),)

    def is_all(self, byte: int) -> bool:
        """True when every byte is this one: released memory is not."""
        view = memoryview(self.data)
        return bytes(view) == bytes([byte]) * len(view)


@af.remote
def add(*numbers: int) -> int:
    return sum(numbers)


@af.remote
async def add_later(seconds: float, *numbers: int) -> int:
    await asyncio.sleep(seconds)
    return sum(numbers)


@af.remote(num_cpus=1)
def count_leaves(depth: int, width: int) -> int:
    """Blocks its worker while its children run."""
    if depth == 0:
        return 1
    return sum(af.sync(af.get([count_leaves.remote(depth - 1, width) for _ in range(width)])))


@af.remote(num_cpus=1)
async def count_leaves_async(depth: int, width: int) -> int:
    if depth == 0:
        return 1
    return sum(await asyncio.gather(*(count_leaves_async(depth - 1, width) for _ in range(width))))


@af.remote
def large(byte: int, size: int) -> Blob:
    return Blob(bytes([byte]) * size)


@af.remote
def weigh(blob: Blob, byte: int) -> int:
    assert blob.is_all(byte), "a released object was read"
    return len(memoryview(blob.data))


@af.remote(num_returns=3)
def three(number: int) -> tuple[int, int, int]:
    return number, number + 1, number + 2


@af.remote(num_cpus=1)
async def hold_cpu(seconds: float, cpus: int) -> int:
    register = outside.register()
    running = register.values["running"] = register.values.get("running", 0) + 1
    await asyncio.sleep(seconds)
    register.values["running"] -= 1
    assert running <= cpus, f"SC-13: {running} tasks run on {cpus} CPUs"
    return running


@af.remote(max_retries=5, retry_exceptions=(KeyError,))
def fails_at_first(key: int, times: int) -> int:
    if outside.ran(("flaky", key)) < times:
        raise KeyError(key)
    return key


@af.remote
def fails(number: int) -> int:
    raise ValueError(number)


@af.remote(num_cpus=2, priority=5)
def important(number: int) -> int:
    return number


def prepare(stage: Stage) -> Main:
    """Draw a program of 20 to 40 calls."""
    rng = stage.rng
    count = rng.randrange(20, 40)

    async def main() -> None:
        made: list[tuple[Any, Any]] = []
        """References and what they must be."""
        blobs: list[tuple[Any, int, int]] = []
        late: list[asyncio.Task[Any]] = []

        def some_numbers() -> tuple[list[Any], int]:
            args, total = [], 0
            for _ in range(rng.randrange(4)):
                if made and rng.random() < 0.6:
                    ref, value = rng.choice(made)
                else:
                    ref = value = rng.randrange(100)
                args.append(ref)
                total += value
            return args, total

        def call(function: Any, expected: Any, *args: Any) -> Any:
            record = outside.invoked("task", function.__name__, expected)
            ref = function.remote(*args)
            late.append(asyncio.ensure_future(outside.end_of(record, ref.as_task())))
            return ref

        def plain() -> None:
            args, total = some_numbers()
            made.append((call(add, total, *args), total))

        def slow() -> None:
            args, total = some_numbers()
            made.append((call(add_later, total, rng.random() * 0.05, *args), total))

        def nested() -> None:
            depth, width = rng.randrange(4), rng.randrange(1, 4)
            function = rng.choice([count_leaves, count_leaves_async])
            made.append((call(function, width**depth, depth, width), width**depth))

        def big() -> None:
            byte, size = rng.randrange(1, 200), rng.choice([10, LARGE_BYTES, LARGE_BYTES * 2])
            blobs.append((large.remote(byte, size), byte, size))

        def heavy() -> None:
            if blobs:
                blob, byte, size = rng.choice(blobs)
                made.append((call(weigh, size, blob, byte), size))

        def argument() -> None:
            byte, size = rng.randrange(1, 200), rng.choice([10, LARGE_BYTES])
            made.append((call(weigh, size, Blob(bytes([byte]) * size), byte), size))

        def several() -> None:
            number = rng.randrange(100)
            for offset, ref in enumerate(three.remote(number)):
                made.append((ref, number + offset))

        def flaky() -> None:
            key = len(made)
            call(fails_at_first, key, key, rng.randrange(4))

        def wrong() -> None:
            record = outside.invoked("task", "fails")
            late.append(asyncio.ensure_future(outside.end_of(record, fails.remote(7).as_task())))

        def crowd() -> None:
            for _ in range(rng.randrange(2, 6)):
                late.append(asyncio.ensure_future(hold_cpu(rng.random() * 0.05, stage.cpus)))

        def first() -> None:
            number = rng.randrange(100)
            made.append((call(important, number, number), number))

        def forget() -> None:
            if made:
                made.pop(rng.randrange(len(made)))
            if blobs and rng.random() < 0.5:
                blobs.pop(rng.randrange(len(blobs)))

        async def direct() -> None:
            args, total = some_numbers()
            record = outside.invoked("task", "add, directly", total)
            await outside.end_of(record, add(*args))

        async def put() -> None:
            number = rng.randrange(100)
            made.append((await af.put(number), number))

        async def put_large() -> None:
            byte = rng.randrange(1, 200)
            blobs.append((await af.put(Blob(bytes([byte]) * LARGE_BYTES)), byte, LARGE_BYTES))

        async def read() -> None:
            if blobs:
                ref, byte, size = rng.choice(blobs)
                blob = await ref
                await asyncio.sleep(rng.random() * 0.05)
                assert blob.is_all(byte) and len(memoryview(blob.data)) == size

        steps: list[Callable[[], Any]] = [
            plain, plain, slow, nested, big, heavy, argument, several, flaky, wrong, crowd, first, forget, direct, put, put_large, read,
        ]  # fmt: skip
        for _ in range(count):
            step = rng.choice(steps)()
            if step is not None:
                await step
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.03)
        for ref, expected in rng.sample(made, len(made)):
            assert await ref == expected
        await asyncio.gather(*late)

    return main


def expected(call: Any) -> Any:
    """The oracle: each call was recorded with what it must give."""
    return call.args[0]
