"""A loop that stays awake for an answer: how it turns meanwhile, and when it goes to sleep."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from actorflow._core.io import busy_poll
from actorflow._core.io.busy_poll import BusyPoll, BusyTurns
from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.policy.short_waits import SHORT_IN_A_ROW, SHORT_S


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often it asks the system what there is to do, and how often it would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.now = 0.0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def run(main: Callable[[CountingLoop, BusyPoll], object]) -> None:
    loop = CountingLoop()
    try:
        loop.run_until_complete(main(loop, BusyPoll(loop, lambda: loop.now)))  # type: ignore[arg-type]
    finally:
        loop.close()


async def short_waits(loop: CountingLoop, poll: BusyPoll, number: int = SHORT_IN_A_ROW) -> None:
    for _ in range(number):
        future = loop.create_future()
        poll.begin(future)
        loop.now += SHORT_S / 2
        poll.end(future)
        future.set_result(None)
        await future


async def turns_until(loop: CountingLoop, future: asyncio.Future[None], answer_s: float) -> int:
    """How often the loop turned until `future` was set, by a timer and nothing else."""
    before = loop.turns
    loop.call_later(answer_s, future.set_result, None)
    await future
    return loop.turns - before


def test_it_sleeps_until_the_answer_at_first() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        future = loop.create_future()
        poll.begin(future)
        assert await turns_until(loop, future, 0.05) < 6

    run(main)


def test_after_short_waits_it_turns_until_the_answer_comes_and_no_longer() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        await short_waits(loop, poll)
        future = loop.create_future()
        poll.begin(future)
        assert await turns_until(loop, future, 0.05) > 50, "the clock of this test stands still, so the time is not up"
        poll.end(future)
        assert await turns_until(loop, loop.create_future(), 0.05) < 6, "the answer is here"

    run(main)


def test_what_else_there_is_to_do_is_done_meanwhile() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        await short_waits(loop, poll)
        future, other, reader, writer = loop.create_future(), asyncio.Event(), *os.pipe()
        poll.begin(future)
        loop.call_later(0.001, other.set)
        await other.wait()
        os.write(writer, b"x")
        readable = asyncio.Event()
        loop.add_reader(reader, readable.set)
        await readable.wait()
        loop.remove_reader(reader)
        os.close(reader)
        os.close(writer)
        future.set_result(None)

    run(main)


def test_sw_2_it_sleeps_when_the_time_is_up() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        await short_waits(loop, poll)
        future = loop.create_future()
        poll.begin(future)
        loop.now += SHORT_S * 1.01
        assert await turns_until(loop, future, 0.05) < 6

    run(main)


def test_sw_3_it_sleeps_while_two_wait() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        await short_waits(loop, poll)
        first, second, third = (loop.create_future() for _ in range(3))
        poll.begin(first)
        poll.begin(second)
        loop.now += SHORT_S / 2
        poll.end(first)
        first.set_result(None)
        second.set_result(None)
        poll.begin(third)
        assert await turns_until(loop, third, 0.05) < 6, "the row has ended"

    run(main)


def test_a_wait_that_was_cancelled_is_nobody_s_any_more() -> None:
    async def main(loop: CountingLoop, poll: BusyPoll) -> None:
        await short_waits(loop, poll)
        future = loop.create_future()
        poll.begin(future)
        future.cancel()
        assert await turns_until(loop, loop.create_future(), 0.05) < 6
        await short_waits(loop, poll)
        future = loop.create_future()
        poll.begin(future)
        assert await turns_until(loop, future, 0.05) > 50

    run(main)


def run_worker(main: Callable[[CountingLoop, MainThreadExecutor], object]) -> None:
    loop = CountingLoop()
    try:
        loop.run_until_complete(main(loop, MainThreadExecutor(loop, busy_turns=BusyTurns(loop, lambda: loop.now))))  # type: ignore[arg-type]
    finally:
        loop.close()


def messages(loop: CountingLoop, executor: MainThreadExecutor, gap_s: float, number: int = SHORT_IN_A_ROW + 1) -> list[int]:
    """So many messages, each of which submits something, one after the other; what ran."""
    ran: list[int] = []
    for i in range(number):
        loop.now += gap_s
        executor.turn(lambda i=i: executor.submit(lambda: ran.append(i)))  # type: ignore[misc]
    return ran


def test_a_worker_stays_awake_for_the_next_call_after_short_gaps_and_no_longer() -> None:
    async def main(loop: CountingLoop, executor: MainThreadExecutor) -> None:
        assert messages(loop, executor, SHORT_S / 2) == list(range(SHORT_IN_A_ROW + 1))
        assert await turns_until(loop, loop.create_future(), 0.05) > 50, "the clock of this test stands still, so the time is not up"
        loop.now += SHORT_S * 1.01
        assert await turns_until(loop, loop.create_future(), 0.05) < 6

    run_worker(main)


def test_a_worker_whose_calls_come_seldom_sleeps() -> None:
    async def main(loop: CountingLoop, executor: MainThreadExecutor) -> None:
        messages(loop, executor, SHORT_S * 1.01, 20)
        assert await turns_until(loop, loop.create_future(), 0.05) < 6

    run_worker(main)


def test_sw_3_a_worker_that_has_two_calls_at_once_sleeps() -> None:
    async def main(loop: CountingLoop, executor: MainThreadExecutor) -> None:
        executor.calls = ["one that waits for something", "the one that has just come"]
        messages(loop, executor, SHORT_S / 2, 20)
        assert await turns_until(loop, loop.create_future(), 0.05) < 6

    run_worker(main)


def test_a_worker_that_has_more_to_do_does_not_count_that_as_a_gap() -> None:
    async def main(loop: CountingLoop, executor: MainThreadExecutor) -> None:
        for _ in range(SHORT_IN_A_ROW + 1):
            executor.submit(lambda: None)  # On its way, so the turn that comes before it runs nothing itself.
            messages(loop, executor, SHORT_S / 2, 1)
            loop.now += SHORT_S
            await asyncio.sleep(0)
        assert await turns_until(loop, loop.create_future(), 0.05) < 6

    run_worker(main)


def test_it_does_not_pay_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert not busy_poll.pays()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3})
    assert busy_poll.pays()
