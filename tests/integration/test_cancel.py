"""The end of work: cancelling queued, running and awaited calls (SEMANTICS 1-4, 7)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration import leaks

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"


@af.remote
async def mark(path: str, seconds: float = 60.0) -> str:
    """Leave traces: `started`, then `ended` or `cancelled`."""
    file = Path(path)
    file.write_text("started")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        file.write_text("cancelled")
        raise
    file.write_text("ended")
    return "ended"


@af.remote(num_cpus=4)
def occupy(seconds: float) -> None:
    time.sleep(seconds)


async def said(path: Path, text: str) -> bool:
    return await asyncio.to_thread(leaks.until, lambda: path.exists() and path.read_text() == text)


async def test_1_a_cancelled_direct_call_cancels_the_remote_call(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    task = asyncio.create_task(mark(str(path)))
    assert await said(path, "started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await said(path, "cancelled")


async def test_1_a_cancelled_await_of_the_last_waiter_cancels_the_call(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    ref = mark.remote(str(path))
    assert await said(path, "started")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ref
    assert await said(path, "cancelled")
    with pytest.raises(af.TaskCancelledError):
        await ref


async def test_1_a_cancelled_await_with_another_waiter_cancels_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    ref = mark.remote(str(path), 0.3)
    first, second = (asyncio.ensure_future(ref) for _ in range(2))
    assert await said(path, "started")
    first.cancel()
    assert await second == "ended"
    assert first.cancelled()


async def test_1_a_cancelled_await_cancels_nothing_that_a_pending_call_needs(tmp_path: Path) -> None:
    @af.remote
    def length(text: str) -> int:
        return len(text)

    path = tmp_path / "mark"
    ref = mark.remote(str(path), 0.3)
    needs = length.remote(ref)
    assert await said(path, "started")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ref, 0.01)
    assert await needs == len("ended")


async def test_1_the_await_of_a_borrower_never_cancels(tmp_path: Path) -> None:
    @af.remote
    async def give_up(refs: list[Any]) -> str:
        try:
            async with asyncio.timeout(0.05):
                return str(await refs[0])
        except TimeoutError:
            return "gave up"

    path = tmp_path / "mark"
    ref = mark.remote(str(path), 0.5)
    assert await said(path, "started")
    assert await give_up([ref]) == "gave up"
    assert await ref == "ended"


async def test_1_dropping_a_reference_never_cancels(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    mark.remote(str(path), 0.1)
    assert await said(path, "ended")


async def test_1_a_cancelled_direct_call_that_waits_for_its_turn_never_starts(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    running = occupy.remote(0.5)
    task = asyncio.create_task(mark.options(num_cpus=4)(str(path)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await running
    await occupy(0.0)
    assert not path.exists()


async def test_1_a_cancelled_direct_call_of_an_actor_that_waits_in_its_mailbox_never_starts() -> None:
    class Slow(af.Actor):
        def __init__(self) -> None:
            self.ran: list[str] = []

        def work(self, name: str, seconds: float) -> None:
            time.sleep(seconds)
            self.ran.append(name)

        def all(self) -> list[str]:
            return self.ran

    slow = await Slow.remote()
    first = slow.work.remote("first", 0.3)
    task = asyncio.create_task(slow.work("second", 0.0))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await first
    assert await slow.all() == ["first"]


async def test_1_a_cancelled_await_cancels_nothing_that_a_borrower_holds(tmp_path: Path) -> None:
    class Keeper(af.Actor):
        def keep(self, refs: list[Any]) -> None:
            self.refs = refs

    path, keeper = tmp_path / "mark", Keeper.remote()
    ref = mark.remote(str(path), 0.5)
    await keeper.keep([ref])
    assert await said(path, "started")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ref, 0.01)
    assert await ref == "ended"
    assert await said(path, "ended")


async def test_1_a_cancelled_await_cancels_nothing_that_a_pending_call_has_in_a_list(tmp_path: Path) -> None:
    @af.remote
    async def first(refs: list[Any], seconds: float) -> str:
        await asyncio.sleep(seconds)
        return str(await refs[0])

    path = tmp_path / "mark"
    ref = mark.remote(str(path), 0.4)
    needs = first.remote([ref], 0.1)
    assert await said(path, "started")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ref, 0.01)
    assert await needs == "ended"


async def test_2_a_timeout_of_wait_does_not_cancel_and_asyncio_timeout_does(tmp_path: Path) -> None:
    waited, timed = tmp_path / "waited", tmp_path / "timed"
    ref = mark.remote(str(waited), 0.3)
    assert await af.wait([ref], timeout=0.01) == ([], [ref])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await mark(str(timed))
    assert await ref == "ended"
    assert await said(timed, "cancelled")


async def test_2_a_reference_in_a_loop_with_a_timeout_is_dead_the_second_time_and_wait_polls_it(tmp_path: Path) -> None:
    ref = mark.remote(str(tmp_path / "dead"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await ref
    with pytest.raises(af.TaskCancelledError):
        async with asyncio.timeout(10):
            await ref

    ref, polls = mark.remote(str(tmp_path / "polled"), 0.3), 0
    while not (await af.wait([ref], timeout=0.02))[0]:
        polls += 1
    assert polls > 1
    assert await ref == "ended"


async def test_2_leaving_a_loop_of_as_completed_cancels_nothing(tmp_path: Path) -> None:
    quick, slow = (mark.remote(str(tmp_path / name), seconds) for name, seconds in (("quick", 0.0), ("slow", 0.5)))
    async for ref in af.as_completed([slow, quick]):
        assert ref == quick
        break
    with pytest.raises(LookupError):
        async for _ in af.as_completed([slow, quick]):
            raise LookupError("out of the loop")
    assert await slow == "ended"
    assert await said(tmp_path / "slow", "ended")


async def test_2_a_task_group_of_asyncio_cancels_the_direct_calls_in_it(tmp_path: Path) -> None:
    path = tmp_path / "mark"

    async def fail() -> None:
        assert await said(path, "started")
        raise LookupError("the first failure")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(mark(str(path)))
            group.create_task(fail())
    assert await said(path, "cancelled")


async def test_2_gather_cancels_what_it_waits_for(tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(3)]
    gathered = asyncio.gather(*[mark(str(path)) for path in paths])
    for path in paths:
        assert await said(path, "started")
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    for path in paths:
        assert await said(path, "cancelled")


async def test_3_ref_cancel_acts_for_all_waiters(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    ref = mark.remote(str(path))
    waiters = [asyncio.ensure_future(ref) for _ in range(3)]
    assert await said(path, "started")
    ref.cancel()
    for waiter in waiters:
        with pytest.raises(af.TaskCancelledError):
            await waiter
    assert await said(path, "cancelled")
    ref.cancel()  # A second time does nothing.


async def test_3_ref_cancel_acts_for_waiters_in_other_processes_and_threads(tmp_path: Path) -> None:
    @af.remote
    async def wait_for(refs: list[Any]) -> str:
        try:
            return str(await refs[0])
        except af.TaskCancelledError as error:
            return f"told: {isinstance(error, Exception)}"

    path = tmp_path / "mark"
    ref = mark.remote(str(path))
    far, near = wait_for.remote([ref]), asyncio.create_task(asyncio.to_thread(ref.future().exception))
    assert await said(path, "started")
    assert await af.wait([far], timeout=0.2) == ([], [far])
    ref.cancel()
    assert await far == "told: True"
    assert isinstance(await near, af.TaskCancelledError)
    assert await said(path, "cancelled")


async def test_3_a_queued_task_is_cancelled_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    running = occupy.remote(0.5)
    ref = mark.options(num_cpus=4).remote(str(path))
    ref.cancel()
    with pytest.raises(af.TaskCancelledError):
        await ref
    await running
    assert await occupy(0.0) is None
    assert not path.exists()


async def test_3_a_call_that_waits_for_its_argument_is_cancelled(tmp_path: Path) -> None:
    @af.remote
    def length(text: str) -> int:
        return len(text)

    ref = mark.remote(str(tmp_path / "mark"), 0.2)
    needs = length.remote(ref)
    needs.cancel()
    with pytest.raises(af.TaskCancelledError):
        await needs
    assert await ref == "ended"


async def test_3_calls_in_the_mailbox_of_an_actor_are_cancelled_one_by_one() -> None:
    class Slow(af.Actor):
        def __init__(self) -> None:
            self.ran: list[int] = []

        def work(self, n: int) -> int:
            time.sleep(0.1)
            self.ran.append(n)
            return n

        def all(self) -> list[int]:
            return self.ran

    slow = await Slow.remote()
    refs = [slow.work.remote(n) for n in range(4)]
    refs[2].cancel()
    with pytest.raises(af.TaskCancelledError):
        await refs[2]
    assert await slow.all() == [0, 1, 3]


async def test_an_async_method_is_cancelled_and_its_actor_goes_on(tmp_path: Path) -> None:
    class Waits(af.Actor):
        def __init__(self) -> None:
            self.cancelled = 0

        async def wait(self, path: str) -> None:
            Path(path).touch()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def count(self) -> int:
            return self.cancelled

    waits = Waits.remote()
    started = tmp_path / "started"
    task = asyncio.create_task(waits.wait(str(started)))
    assert await asyncio.to_thread(leaks.until, started.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not await waits.count():
        await asyncio.sleep(0.01)


async def test_3_cancelled_error_raised_by_the_code_itself_is_wrapped() -> None:
    @af.remote
    async def odd() -> None:
        raise asyncio.CancelledError("of its own")

    with pytest.raises(af.TaskError):
        await odd()


async def test_4_a_task_group_cancels_the_others_and_waits_until_they_ended(tmp_path: Path) -> None:
    @af.remote
    async def fail_when(path: str) -> None:
        while not Path(path).exists():
            await asyncio.sleep(0.01)
        raise ValueError("the first failure")

    path = tmp_path / "mark"
    with pytest.raises(ExceptionGroup) as caught:
        async with af.TaskGroup() as group:
            group.submit(mark, str(path))
            group.submit(fail_when, str(path))
    assert caught.group_contains(ValueError, match="the first failure")
    assert path.read_text() == "cancelled"


async def test_7_af_timeout_bounds_the_block_and_what_is_nested_far_away(tmp_path: Path) -> None:
    @af.remote
    async def outer(path: str) -> Any:
        return await mark(path)

    path = tmp_path / "mark"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with af.timeout(1.0):
            await outer(str(path))
    assert time.monotonic() - began < 10
    assert await said(path, "cancelled")


async def test_7_the_option_timeout_counts_from_submission_and_cancels(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    with pytest.raises(af.TaskTimeoutError, match="mark"):
        await mark.options(timeout=1.0).remote(str(path))
    assert await said(path, "cancelled")

    running = occupy.remote(1.0)
    with pytest.raises(af.TaskTimeoutError):
        await occupy.options(timeout=0.1)(0.0)
    await running


async def test_7_a_deadline_is_seen_by_nested_calls_and_one_that_is_past_fails_at_once() -> None:
    @af.remote
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @af.remote
    async def nested() -> str:
        try:
            await nap(30)
        except af.TaskTimeoutError:
            return "deadline"
        except asyncio.CancelledError:
            return "cancelled"
        return "nothing"

    with pytest.raises(TimeoutError):
        await nested.options(timeout=0.5)()


async def test_a_cancelled_call_is_not_retried(tmp_path: Path) -> None:
    @af.remote(retry_exceptions=True, max_retries=5)
    async def count(path: str) -> None:
        with open(path, "a") as file:
            file.write("x")
        await asyncio.sleep(60)

    path = tmp_path / "count"
    ref = count.remote(str(path))
    assert await said(path, "x")
    ref.cancel()
    with pytest.raises(af.TaskCancelledError):
        await ref
    await occupy(0.0)
    assert path.read_text() == "x"


async def test_check_cancelled_in_a_def_method(tmp_path: Path) -> None:
    class Listens(af.Actor):
        def work(self, path: str) -> str:
            Path(path).touch()
            while True:
                af.check_cancelled()
                time.sleep(0.01)

        def ping(self) -> str:
            return "here"

    listens = await Listens.remote()
    path = tmp_path / "started"
    ref = listens.work.remote(str(path))
    assert await asyncio.to_thread(leaks.until, path.exists)
    ref.cancel()
    with pytest.raises(af.TaskCancelledError):
        await ref
    assert await listens.ping() == "here"
