"""Who reads, runs and answers while user code blocks: what a caller sees of it, by the clock.

Blocking times are long beside what is measured, so that a busy machine does not matter.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

import actorflow as af
from tests.integration import leaks

pytestmark = pytest.mark.usefixtures("cluster")

LONG_S = 2.0
"""How long something blocks."""
QUICK_S = 1.0
"""What does not wait for it is over by then: most of it takes some milliseconds, and a busy machine may look away for as long as this."""

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Blocks(af.Actor):
    """Its loop stands still while it blocks."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def block(self, path: str, seconds: float) -> None:
        Path(path).touch()
        time.sleep(seconds)  # noqa: ASYNC251  # That is the point.

    async def note(self, what: str) -> str:
        self.ran.append(what)
        return what

    async def noted(self) -> list[str]:
        return self.ran


class Quick(af.Actor):
    async def answer(self, what: Any = None) -> Any:
        return what


@af.remote(num_cpus=1)
def stamp(seconds: float = 0.0) -> float:
    time.sleep(seconds)
    return time.monotonic()  # The same clock in all processes of a machine.


async def has_started(path: Path) -> None:
    assert await asyncio.to_thread(leaks.until, path.exists)


# -- a worker whose loop stands still


async def test_a_call_behind_one_that_blocks_the_loop_is_cancelled_at_once(tmp_path: Path) -> None:
    actor = await Blocks.options(max_concurrency=1).remote()
    blocking = actor.block.remote(str(tmp_path / "started"), LONG_S)
    queued = [actor.note.remote(f"call {number}") for number in range(3)]
    await has_started(tmp_path / "started")
    began = time.monotonic()
    queued[1].cancel()
    with pytest.raises(af.TaskCancelledError):
        await queued[1]
    assert time.monotonic() - began < QUICK_S
    await blocking
    assert await actor.noted() == ["call 0", "call 2"]
    assert [await queued[0], await queued[2]] == ["call 0", "call 2"]


async def test_a_worker_whose_loop_stands_still_answers_what_the_cluster_asks(tmp_path: Path) -> None:
    actor = await Blocks.remote()
    await actor.note("only this worker knows that it has run")
    blocking = actor.block.remote(str(tmp_path / "started"), LONG_S)
    await has_started(tmp_path / "started")
    began = time.monotonic()
    rows = [row for row in await af.state.list_tasks() if row["actor_id"] == actor._af_state.actor_id]
    assert time.monotonic() - began < QUICK_S
    assert {(row["name"].split(".")[-1], row["state"]) for row in rows} == {("note", "finished"), ("block", "pushed")}
    await blocking


# -- a driver whose loop stands still


@pytest.mark.parametrize("kind", LOOPS)
def test_calls_run_while_the_loop_that_made_them_blocks(kind: str) -> None:
    async def main() -> None:
        await asyncio.gather(*[stamp.remote() for _ in range(3)])  # Workers are there.
        refs = [stamp.remote() for _ in range(3)]
        time.sleep(LONG_S)  # noqa: ASYNC251  # That is the point.
        awake = time.monotonic()
        ran = await asyncio.gather(*refs)
        assert all(at < awake - LONG_S + QUICK_S for at in ran), [at - awake + LONG_S for at in ran]
        assert time.monotonic() - awake < QUICK_S, "their answers were here"

    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())


async def test_a_blocked_driver_runs_its_calls_to_actors_too() -> None:
    actor = await Quick.remote()
    for _ in range(20):
        await actor.answer()  # The loop of this test reads now.
    refs = [actor.answer.remote(number) for number in range(50)]
    after = stamp.remote(0.1)
    time.sleep(LONG_S)  # noqa: ASYNC251  # That is the point.
    awake = time.monotonic()
    assert await asyncio.gather(*refs) == list(range(50))
    assert await after < awake - QUICK_S
    assert time.monotonic() - awake < QUICK_S


# -- replies do not wait for other calls


async def test_the_reply_to_a_short_call_does_not_wait_for_the_long_one_behind_it() -> None:
    class Worker(af.Actor):
        def work(self, seconds: float) -> float:
            time.sleep(seconds)
            return seconds

    actor = await Worker.remote()
    for _ in range(3):
        began = time.monotonic()
        short, long = actor.work.remote(0.0), actor.work.remote(LONG_S)
        assert await short == 0.0
        assert time.monotonic() - began < QUICK_S
        assert await long == LONG_S


async def test_short_calls_of_a_threaded_actor_go_on_beside_a_long_one() -> None:
    class Threaded(af.Actor, max_concurrency=2):
        def work(self, seconds: float) -> int:
            time.sleep(seconds)
            return threading.get_ident()

    actor = await Threaded.remote()
    began = time.monotonic()
    long = actor.work.remote(LONG_S)
    idents = {await actor.work(0.0) for _ in range(100)}
    assert time.monotonic() - began < LONG_S - 0.1, "all of them beside it"
    assert len(idents) == 1
    assert await long not in idents


async def test_a_full_house_of_a_threaded_actor_runs_at_once() -> None:
    class Meets(af.Actor, max_concurrency=16):
        def __init__(self) -> None:
            self.barrier = threading.Barrier(16)

        def meet(self) -> int:
            return self.barrier.wait(20)

    actor = await Meets.remote()
    for _ in range(3):
        assert sorted(await asyncio.gather(*[actor.meet.remote() for _ in range(16)])) == list(range(16))


# -- many who wait


async def test_a_thread_waits_with_sync_while_the_loop_awaits() -> None:
    actors = [await Quick.remote() for _ in range(2)]
    from_thread = list[int]()

    def wait() -> None:
        from_thread.extend(af.sync(actors[0].answer.remote(number)) for number in range(200))

    thread = threading.Thread(target=wait)
    thread.start()
    count = 0
    while thread.is_alive() or count < 200:
        assert await actors[1].answer(count) == count
        count += 1
    thread.join()
    assert from_thread == list(range(200))


@pytest.mark.parametrize("kinds", list(itertools.product(LOOPS, LOOPS)), ids=" and ".join)
def test_two_loops_on_two_threads_await_the_same_actor(kinds: tuple[str, str]) -> None:
    async def make() -> Any:
        return await Quick.remote()

    actor = af.sync(make())
    answers: dict[int, list[int]] = {0: [], 1: []}

    async def main(which: int) -> None:
        for number in range(0, 200, 4):
            refs = [actor.answer.remote(number + more) for more in range(4)]
            answers[which] += await asyncio.gather(*refs)

    def run(which: int) -> None:
        with asyncio.Runner(loop_factory=LOOPS[kinds[which]]) as runner:
            runner.run(main(which))

    threads = [threading.Thread(target=run, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert answers == {0: list(range(200)), 1: list(range(200))}


def test_one_loop_after_another_under_one_cluster() -> None:
    """The loop that read is closed; the next one takes its place, and blocking code between them waits as well."""

    async def make() -> Any:
        return await Quick.remote()

    async def ask() -> list[int]:
        return [await actor.answer(number) for number in range(100)]

    actor = af.sync(make())
    for factory in [asyncio.new_event_loop, uvloop.new_event_loop] * 2:
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(ask()) == list(range(100))
        assert af.sync(actor.answer.remote("between")) == "between"
    assert asyncio.run(ask()) == asyncio.run(ask())


# -- the first step of an async call


async def test_what_a_call_sets_in_its_context_no_later_call_sees() -> None:
    class Contexts(af.Actor):
        def __init__(self) -> None:
            import contextvars

            self.var: Any = contextvars.ContextVar("var", default="nobody's")

        async def set(self, value: str, suspends: bool) -> str:
            before = self.var.get()
            self.var.set(value)
            if suspends:
                await asyncio.sleep(0.001)
            return f"{before}, {self.var.get()}"

    actor = await Contexts.remote()
    for round_ in range(5):
        for suspends in (False, True):
            assert await actor.set(f"{round_}", suspends) == f"nobody's, {round_}"


async def test_an_actor_may_keep_the_task_of_a_call_to_cancel_it_or_to_wait_for_it() -> None:
    class Keeps(af.Actor):
        task: Any = None

        async def work(self, seconds: float) -> str:
            self.task = asyncio.current_task()
            if seconds:
                await asyncio.sleep(seconds)
            return "worked"

        async def cancel_work(self) -> str:
            self.task.cancel()
            await asyncio.sleep(0.001)
            return "cancelled it"

        async def wait_for_work(self) -> str:
            await asyncio.wait_for(self.task, 10)
            return "waited for it"

    actor = await Keeps.remote()
    for seconds in (0.0, 0.0, 0.01, 0.01):
        assert await actor.work(seconds) == "worked"
        assert await actor.wait_for_work() == "waited for it"
        assert await actor.cancel_work() == "cancelled it"
    working = actor.work.remote(LONG_S * 20)
    assert await actor.work(0.0) == "worked"
    assert await actor.cancel_work() == "cancelled it"
    working.cancel()
    with pytest.raises(af.TaskCancelledError):
        await working


async def test_a_cancel_reaches_what_an_async_call_waits_for(tmp_path: Path) -> None:
    """In each phase: some of these cancels come before the call has taken its second step."""

    class Waits(af.Actor):
        def __init__(self) -> None:
            self.inner: list[Callable[[], bool]] = []

        async def wait(self) -> None:
            task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            self.inner.append(task.cancelled)
            await task

        async def cancelled(self) -> list[bool]:
            return [cancelled() for cancelled in self.inner]

    actor = await Waits.remote()
    for number in range(100):
        ref = actor.wait.remote()
        if number % 2:
            await asyncio.sleep(0.0002 * (number % 7))
        ref.cancel()
        with pytest.raises(af.TaskCancelledError):
            await ref
    async with asyncio.timeout(10):
        while not all(await actor.cancelled()):
            await asyncio.sleep(0.01)
