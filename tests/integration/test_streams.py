"""Streams: generators far away, with credit, and their end (SEMANTICS 12)."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from tests.integration import leaks

pytestmark = pytest.mark.usefixtures("cluster")


@af.remote
def up_to(n: int) -> Iterator[int]:
    yield from range(n)


@af.remote
async def count(path: str, n: int = 10**9) -> AsyncIterator[int]:
    """Yield numbers, and write how many were taken from it when it ends."""
    produced = 0
    try:
        for produced in range(n):
            yield produced
    finally:
        Path(path).write_text(str(produced))


@af.remote
def count_sync(path: str, n: int = 10**9) -> Iterator[int]:
    produced = 0
    try:
        for produced in range(n):
            yield produced
    finally:
        Path(path).write_text(str(produced))


async def ended(path: Path) -> int:
    assert await asyncio.to_thread(leaks.until, lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


async def test_values_come_in_order_and_many() -> None:
    assert [n async for n in up_to(5000)] == list(range(5000))
    assert [n async for n in up_to.remote(0)] == []


def test_a_plain_for_in_blocking_code() -> None:
    assert list(up_to.remote(200)) == list(range(200))
    assert af.sync(up_to.remote(200)) == list(range(200))


async def test_the_first_value_arrives_before_the_last_is_made(tmp_path: Path) -> None:
    @af.remote
    async def wait_for(path: str) -> AsyncIterator[str]:
        yield "first"
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        yield "second"

    path = tmp_path / "go"
    stream = wait_for.remote(str(path))
    assert await anext(stream) == "first"
    path.touch()
    assert await anext(stream) == "second"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_references_instead_of_values() -> None:
    refs = [ref async for ref in up_to.remote(5).refs()]
    assert await af.get(refs) == [0, 1, 2, 3, 4]


async def test_large_items_and_items_with_references() -> None:
    @af.remote
    async def arrays(n: int) -> AsyncIterator[Any]:
        for size in range(1, n + 1):
            yield np.full(size * 100_000, size)

    @af.remote
    async def boxed(n: int) -> AsyncIterator[Any]:
        for value in range(n):
            yield [await af.put(value)]

    async for array in arrays.remote(5):
        assert len(array) == array[0] * 100_000
    assert [await box[0] async for box in boxed.remote(5)] == list(range(5))


@pytest.mark.parametrize("producer", [count, count_sync])
async def test_12_the_producer_waits_when_the_consumer_lags(producer: Any, tmp_path: Path) -> None:
    path = tmp_path / "produced"
    stream = producer.remote(str(path))
    for n in range(10):
        assert await anext(stream) == n
    await asyncio.sleep(0.2)
    await stream.aclose()
    assert await ended(path) <= 200


@pytest.mark.parametrize("producer", [count, count_sync])
async def test_12_leaving_async_with_stops_the_producer(producer: Any, tmp_path: Path) -> None:
    path = tmp_path / "produced"
    async with producer.remote(str(path)) as stream:
        assert await anext(stream) == 0
    assert await ended(path) >= 0


@pytest.mark.parametrize("producer", [count, count_sync])
async def test_12_a_dropped_stream_stops_the_producer(producer: Any, tmp_path: Path) -> None:
    path = tmp_path / "produced"
    async for n in producer.remote(str(path)):
        if n == 3:
            break
    gc.collect()
    assert await ended(path) >= 3


async def test_12_wait_for_of_a_step_only_stops_waiting(tmp_path: Path) -> None:
    @af.remote
    async def slow() -> AsyncIterator[int]:
        for n in range(3):
            await asyncio.sleep(0.2)
            yield n

    stream = slow.remote()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.02)
    assert [n async for n in stream] == [0, 1, 2]


async def test_12_a_lost_consumer_is_an_aclose(tmp_path: Path) -> None:
    @af.remote
    async def consume(path: str) -> int:
        stream = count.remote(path)
        return int(await anext(stream))

    path = tmp_path / "produced"
    assert await consume(str(path)) == 0
    assert await ended(path) >= 0


@pytest.mark.parametrize("method", ["count", "count_sync"])
async def test_12_a_consumer_whose_process_is_killed_is_an_aclose(method: str, tmp_path: Path) -> None:
    class Producer(af.Actor):
        async def count(self, path: str) -> AsyncIterator[int]:
            try:
                for n in range(10**9):
                    yield n
            finally:
                Path(path).write_text("1")

        def count_sync(self, path: str) -> Iterator[int]:
            try:
                yield from range(10**9)
            finally:
                Path(path).write_text("1")

    class Consumer(af.Actor):
        async def take(self, producer: Any, path: str) -> int:
            self.stream = getattr(producer, method).remote(path)
            return int(await anext(self.stream))

    path = tmp_path / "produced"
    producer, consumer = Producer.remote(), Consumer.remote()
    assert await consumer.take(producer, str(path)) == 0
    assert not path.exists()
    await af.kill(consumer)
    assert await ended(path) == 1


async def test_an_error_comes_in_its_place() -> None:
    @af.remote
    def breaks() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("after two")

    seen = []
    with pytest.raises(LookupError, match="after two"):
        async for n in breaks.remote():
            seen.append(n)
    assert seen == [1, 2]


async def test_a_stream_is_consumed_by_a_task_that_got_its_references() -> None:
    @af.remote
    async def add(refs: list[Any]) -> int:
        return sum([await ref for ref in refs])

    assert await add([ref async for ref in up_to.remote(10).refs()]) == 45


async def test_the_workers_of_ended_streams_take_tasks_again() -> None:
    for _ in range(12):
        async with up_to.remote(10**6) as stream:
            assert await anext(stream) == 0

    @af.remote
    def nap() -> float:
        time.sleep(0.01)
        return 1.0

    assert await af.get([nap.remote() for _ in range(8)], timeout=10) == [1.0] * 8
