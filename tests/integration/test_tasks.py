"""Tasks: both forms of a call, every kind of function, nesting, waiting for several."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"


@af.remote
def square(x: int) -> int:
    return x * x


async def test_a_direct_call_gives_the_value() -> None:
    assert await square(3) == 9


async def test_remote_gives_a_reference_at_once_and_submit_when_there_is_room() -> None:
    ref = square.remote(4)
    assert isinstance(ref, af.ObjectRef)
    assert await ref == 16
    assert ref.done()
    assert await (await square.submit(5)) == 25


async def test_every_kind_of_function() -> None:
    @af.remote
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @af.remote
    def up_to(n: int) -> Iterator[int]:
        yield from range(n)

    @af.remote
    async def down_from(n: int) -> AsyncIterator[int]:
        while n:
            yield n
            n -= 1

    assert await later(1) == 2
    assert [x async for x in up_to.remote(3)] == [0, 1, 2]
    assert [x async for x in down_from(3)] == [3, 2, 1]


async def test_tasks_run_in_other_processes_and_at_the_same_time() -> None:
    @af.remote
    def pid_after(seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    pids = await af.get([pid_after.remote(0.2) for _ in range(4)])
    assert len(set(pids)) == 4
    assert os.getpid() not in pids


async def test_a_burst_of_tasks_comes_back_complete_and_in_order() -> None:
    assert await af.get([square.remote(n) for n in range(5000)]) == [n * n for n in range(5000)]


async def test_a_lambda_a_closure_and_a_recursive_function_travel_with_their_code() -> None:
    offset = 7

    @af.remote
    def add(x: int) -> int:
        return x + offset

    @af.remote
    def factorial(n: int) -> int:
        return 1 if n <= 1 else n * af.sync(factorial.remote(n - 1))

    assert await add(1) == 8
    assert await af.remote(lambda x: x * 10)(2) == 20
    assert await factorial(5) == 120


async def test_nested_tasks_and_references_between_them() -> None:
    @af.remote
    async def total(n: int) -> int:
        return sum([await ref for ref in [square.remote(i) for i in range(n)]])

    assert await total(10) == sum(i * i for i in range(10))


async def test_the_deadlock_of_24_every_cpu_taken_by_a_waiting_parent() -> None:
    @af.remote
    def parent(depth: int) -> int:
        return 1 if depth == 0 else 1 + af.sync(parent.remote(depth - 1))

    @af.remote
    async def async_parent(depth: int) -> int:
        return 1 if depth == 0 else 1 + await async_parent(depth - 1)

    assert await af.get([parent.remote(3) for _ in range(4)], timeout=30) == [4] * 4
    assert await af.get([async_parent.remote(3) for _ in range(4)], timeout=30) == [4] * 4


async def test_the_deadlock_of_25_a_task_waits_for_one_queued_before_it_on_its_worker() -> None:
    @af.remote(num_cpus=4)
    def first() -> str:
        time.sleep(0.05)
        return "first"

    @af.remote(num_cpus=4)
    def second(refs: list[af.ObjectRef[str]]) -> str:
        return f"second after {af.sync(refs[0])}"

    for _ in range(3):
        ref = first.remote()
        assert await af.get(second.remote([ref]), timeout=20) == "second after first"
        reversed_order = [second.remote([late := first.remote()]), late]
        assert await af.get(reversed_order, timeout=20) == ["second after first", "first"]


async def test_several_return_values_and_none() -> None:
    @af.remote(num_returns=3)
    def three() -> tuple[int, str, list[int]]:
        return 1, "two", [3]

    @af.remote(num_returns=0)
    def nothing() -> None:
        return None

    a, b, c = three.remote()
    assert await af.get([a, b, c]) == [1, "two", [3]]
    assert await three() == [1, "two", [3]]
    assert nothing.remote() is None

    refs: Any = three.options(num_returns=2).remote()
    with pytest.raises(ValueError, match="num_returns=2 but returned 3 values"):
        await refs[1]


async def test_keyword_arguments_defaults_and_star_arguments() -> None:
    @af.remote
    def show(a: int, /, b: int = 2, *rest: int, c: int, **more: int) -> tuple[Any, ...]:
        return a, b, rest, c, more

    assert await show(1, c=3) == (1, 2, (), 3, {})
    assert await show(1, 5, 6, 7, c=3, d=4) == (1, 5, (6, 7), 3, {"d": 4})


async def test_11_wait_gives_lists_in_input_order() -> None:
    @af.remote
    def after(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    refs = [after.remote(s) for s in (0.6, 0.0, 0.6, 0.0)]
    ready, pending = await af.wait(refs, num_returns=2)
    assert ready == [refs[1], refs[3]]
    assert pending == [refs[0], refs[2]]
    ready, pending = await af.wait(refs, num_returns=4, timeout=10)
    assert ready == refs
    assert pending == []


async def test_11_of_more_that_are_ready_the_first_in_the_order_of_input_are_given() -> None:
    refs = [square.remote(n) for n in range(6)]
    await af.get(refs)
    assert await af.wait(refs[::-1], num_returns=2) == ([refs[5], refs[4]], [refs[3], refs[2], refs[1], refs[0]])
    assert await af.wait(tuple(refs), num_returns=1, timeout=0) == ([refs[0]], refs[1:])
    ready, pending = await af.wait(iter(refs), num_returns=6)
    assert type(ready) is list
    assert type(pending) is list
    assert (ready, pending) == (refs, [])


async def test_2_timeouts_of_get_wait_and_as_completed_only_stop_waiting() -> None:
    @af.remote
    def after(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    ref = after.remote(0.5)
    with pytest.raises(af.GetTimeoutError):
        await af.get(ref, timeout=0.02)
    assert await af.wait([ref], timeout=0.02) == ([], [ref])
    with pytest.raises(TimeoutError):
        async for _ in af.as_completed([ref], timeout=0.02):
            pass
    assert await ref == 0.5


async def test_as_completed_gives_references_as_they_are_done() -> None:
    @af.remote
    def after(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    refs = [after.remote(s) for s in (0.5, 0.25, 0.0)]
    assert [await ref async for ref in af.as_completed(refs)] == [0.0, 0.25, 0.5]


async def test_9_references_work_with_gather_wait_for_shield_and_ensure_future() -> None:
    ref = square.remote(2)
    assert await asyncio.gather(ref, square.remote(3), square(4)) == [4, 9, 16]
    assert await asyncio.wait_for(ref, 5) == 4
    assert await asyncio.shield(ref) == 4
    assert await asyncio.ensure_future(ref) == 4


async def test_9_a_reference_may_be_awaited_from_several_loops_and_threads() -> None:
    @af.remote
    def slow() -> int:
        time.sleep(0.2)
        return 5

    ref = slow.remote()

    async def use() -> int:
        return await ref

    others = [asyncio.to_thread(lambda: asyncio.run(use())) for _ in range(3)]
    blocking = [asyncio.to_thread(af.sync, ref), asyncio.to_thread(lambda: ref.future().result())]
    assert await asyncio.gather(ref, *others, *blocking) == [5] * 6


async def test_9_create_task_and_wait_of_asyncio_refuse_references_and_ours_take_them() -> None:
    ref: Any = square.remote(5)
    with pytest.raises(TypeError):
        asyncio.create_task(ref)  # noqa: RUF006  # it is refused
    with pytest.raises((TypeError, AttributeError)):  # Which one is Python's own choice, and differs between versions.
        await asyncio.wait([ref])
    assert (await af.wait([ref]))[0] == [ref]
    assert await asyncio.wrap_future(ref.future()) == 25
    done, _ = await asyncio.wait([ref.as_task()])
    assert done.pop().result() == 25
    async with af.TaskGroup() as group:
        again = group.submit(square, ref)
    assert await again == 625


async def test_9_readiness_comes_to_a_loop_in_batches() -> None:
    """SEMANTICS 9: one `call_soon_threadsafe` wakes many. On a loop beside the one that reads, which needs none."""

    class Gate(af.Actor):
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self, n: int) -> int:
            await self.opened.wait()
            return n

        async def open(self) -> None:
            self.opened.set()

    gate, many = Gate.remote(), 900
    refs = [gate.wait.remote(n) for n in range(many)]
    assert not (await af.wait([gate.wait.remote(0)], timeout=0.2))[0]  # All that was said before has arrived.
    waits = threading.Event()
    wakes: list[Any] = []

    async def elsewhere() -> list[int]:
        loop = asyncio.get_running_loop()
        plain = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any, **kwargs: Any) -> Any:
            wakes.append(callback)
            return plain(callback, *args, **kwargs)

        values = asyncio.gather(*refs)
        await asyncio.sleep(0)
        loop.call_soon_threadsafe = counted  # type: ignore[method-assign]  # the loop of this test alone
        loop.call_soon(waits.set)  # behind the first steps of all that waits
        return await values

    done = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await asyncio.to_thread(waits.wait)
    await gate.open()
    assert await done == list(range(many))
    assert 0 < len(wakes) < many / 4


async def test_map_bounds_what_is_in_flight_and_keeps_the_order() -> None:
    assert [n async for n in af.map(square, range(50), max_in_flight=4)] == [n * n for n in range(50)]
    unordered = [n async for n in af.map(square, range(50), max_in_flight=4, ordered=False)]
    assert sorted(unordered) == [n * n for n in range(50)]


async def test_a_task_group_leaves_when_its_calls_are_terminal_rule_4() -> None:
    async with af.TaskGroup() as group:
        refs = [group.submit(square, n) for n in range(4)]
    assert all(ref.done() for ref in refs)
    assert [await ref for ref in refs] == [0, 1, 4, 9]


async def test_the_runtime_context_tells_who_runs() -> None:
    @af.remote
    def who() -> dict[str, Any]:
        return dict(vars(af.get_runtime_context()))

    there, here = await who(), af.get_runtime_context()
    assert there["job_id"] == here.job_id
    assert there["role"] == "worker"
    assert there["pid"] != here.pid
    assert there["task_name"].endswith("who")


def test_sync_takes_anything_in_blocking_code() -> None:
    @af.remote
    def up_to(n: int) -> Iterator[int]:
        yield from range(n)

    assert af.sync(square.remote(3)) == 9
    assert af.sync(square(4)) == 16
    assert af.sync(up_to.remote(3)) == [0, 1, 2]
    assert list(up_to.remote(3)) == [0, 1, 2]


async def test_sync_on_a_running_loop_says_what_to_write() -> None:
    ref = square.remote(3)
    with pytest.raises(RuntimeError, match="await"):
        af.sync(ref)
    assert await ref == 9
