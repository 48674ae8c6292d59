"""ActorPool and Queue, with actors that live in this process."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from tests.unit.fake_runtime import FakeRuntime


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    fake = FakeRuntime()
    _runtime.set_process_runtime(fake)
    yield fake
    _runtime.set_process_runtime(None)


class Worker:
    """Stands for a handle: has at most one piece at a time."""

    def __init__(self) -> None:
        self.busy = False
        self.pieces: list[Any] = []
        self.cancelled = 0

    async def work(self, value: Any, turns: int = 1) -> Any:
        assert not self.busy
        self.busy = True
        self.pieces.append(value)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            if value == "bad":
                raise ValueError(value)
            return value
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.busy = False


def pool_of(count: int) -> tuple[af.util.ActorPool[Worker], list[Worker]]:
    workers = [Worker() for _ in range(count)]
    return af.util.ActorPool(workers), workers


# ActorPool --------------------------------------------------------------------------------------------------


async def test_map_keeps_the_order_and_shares_the_work() -> None:
    pool, workers = pool_of(3)
    results = [value async for value in pool.map(lambda w, v: w.work(v, 10 - v), range(10))]
    assert results == list(range(10))
    assert all(worker.pieces for worker in workers)
    assert pool.has_free()


async def test_map_unordered_gives_what_is_done() -> None:
    pool, _ = pool_of(2)
    results = [value async for value in pool.map_unordered(lambda w, v: w.work(v, v), [9, 1, 2])]
    assert results == [1, 2, 9]


async def test_map_takes_values_as_it_goes() -> None:
    pool, _ = pool_of(2)

    async def endless() -> AsyncIterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    results = pool.map(lambda w, v: w.work(v), endless())
    assert [await anext(results) for _ in range(3)] == [0, 1, 2]
    await results.aclose()


async def test_leaving_map_cancels_what_runs() -> None:
    pool, workers = pool_of(2)
    results = pool.map(lambda w, v: w.work(v, 1 if v == 0 else 1000), range(5))
    assert await anext(results) == 0
    await results.aclose()
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(worker.cancelled for worker in workers) == 2
    assert pool.has_free()


async def test_submit_and_get_next() -> None:
    pool, _ = pool_of(2)
    assert not pool.has_next()
    for value in (5, 1, 3):
        pool.submit(lambda w, v: w.work(v, v), value)
    assert pool.has_next()
    assert not pool.has_free()
    assert await pool.get_next() == 5
    assert await pool.get_next_unordered() == 1
    assert await pool.get_next() == 3
    assert not pool.has_next()
    with pytest.raises(LookupError, match="has_next"):
        await pool.get_next()


async def test_a_timeout_only_stops_waiting() -> None:
    """SEMANTICS 2."""
    pool, _ = pool_of(1)
    go = asyncio.Event()

    async def wait(worker: Worker, value: int) -> int:
        await go.wait()
        return value

    pool.submit(wait, 3)
    with pytest.raises(af.GetTimeoutError, match="after 0 s"):
        await pool.get_next(timeout=0)
    go.set()
    assert await pool.get_next_unordered(timeout=30) == 3


async def test_a_piece_that_fails_leaves_its_actor() -> None:
    pool, _ = pool_of(1)
    pool.submit(lambda w, v: w.work(v), "bad")
    pool.submit(lambda w, v: w.work(v), "good")
    with pytest.raises(ValueError, match="bad"):
        await pool.get_next()
    assert await pool.get_next() == "good"


async def test_actors_come_and_go() -> None:
    pool, (first,) = pool_of(1)
    assert pool.pop_idle() is first
    assert pool.pop_idle() is None
    pool.submit(lambda w, v: w.work(v), 1)
    assert not pool.has_free()
    pool.push(first)
    assert await pool.get_next() == 1


# Queue ------------------------------------------------------------------------------------------------------


async def test_a_queue_is_first_in_first_out(runtime: FakeRuntime) -> None:
    queue: af.util.Queue[int] = af.util.Queue()
    await queue.put(1)
    await queue.put_nowait(2)
    await queue.put_nowait_batch([3, 4, 5])
    assert await queue.qsize() == 5
    assert await queue.get() == 1
    assert await queue.get_nowait() == 2
    assert await queue.get_nowait_batch(2) == [3, 4]
    assert (await queue.empty(), await queue.full()) == (False, False)


async def test_a_full_queue(runtime: FakeRuntime) -> None:
    queue: af.util.Queue[int] = af.util.Queue(2)
    await queue.put_nowait_batch([1])
    with pytest.raises(asyncio.QueueFull, match="no room for 2 more items"):
        await queue.put_nowait_batch([2, 3])
    assert await queue.qsize() == 1
    await queue.put(2)
    assert await queue.full()
    with pytest.raises(asyncio.QueueFull, match=r"maxsize=2"):
        await queue.put_nowait(3)
    with pytest.raises(asyncio.QueueFull, match="within 0 s"):
        await queue.put(3, timeout=0)
    waiting = asyncio.ensure_future(queue.put(3))
    assert [await queue.get() for _ in range(3)] == [1, 2, 3]
    await waiting


async def test_an_empty_queue(runtime: FakeRuntime) -> None:
    queue: af.util.Queue[int] = af.util.Queue(2)
    assert await queue.empty()
    for taking in (queue.get_nowait(), queue.get_nowait_batch(1), queue.get(timeout=0)):
        with pytest.raises(asyncio.QueueEmpty):
            await taking
    waiting = asyncio.ensure_future(queue.get())
    await queue.put(1)
    assert await waiting == 1
    with pytest.raises(ValueError, match="1 or more"):
        await queue.get_nowait_batch(0)


async def test_a_queue_travels(runtime: FakeRuntime) -> None:
    queue: af.util.Queue[int] = af.util.Queue(3, actor_options={"name": "jobs"})
    copy = pickle.loads(pickle.dumps(queue))
    await queue.put(1)
    assert await copy.get() == 1
    assert copy.maxsize == 3
    assert runtime.sent[0].options.name == "jobs"
    # Getters that wait must not keep putters out.
    assert runtime.sent[0].options.max_concurrency > 100_000


def test_wrong_use_of_a_queue() -> None:
    wrong: Any = af.util.Queue
    with pytest.raises(TypeError, match="whole number"):
        wrong(1.5)
    with pytest.raises(af.OptionError, match="no option"):
        wrong(1, actor_options={"nam": 3})
