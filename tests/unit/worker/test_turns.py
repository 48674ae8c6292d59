"""When a loop is given a turn by those who ask for what is ready."""

from __future__ import annotations

import asyncio
import threading

from actorflow._core.worker.turns import TURN_S, Turns


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_turn_is_due_when_the_last_one_is_a_while_ago() -> None:
    clock = Clock()
    turns = Turns(clock)
    assert not turns.due()  # Nothing is known of the time before.
    clock.now += TURN_S / 2
    assert not turns.due()
    clock.now += TURN_S
    assert turns.due()
    assert turns.due()  # Until it is given.
    asyncio.run(turns.give())
    assert not turns.due()


async def test_a_turn_counts_from_its_end_and_lets_others_run() -> None:
    clock = Clock()
    turns = Turns(clock)
    ran: list[int] = []

    def other() -> None:
        ran.append(1)
        clock.now += 60

    turns.due()
    clock.now += 60
    assert turns.due()
    asyncio.get_running_loop().call_soon(other)
    await turns.give()
    assert ran == [1]
    assert not turns.due()


def test_each_thread_has_turns_of_its_own() -> None:
    clock = Clock()
    turns = Turns(clock)
    turns.due()
    clock.now += 60
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(turns.due()))
    thread.start()
    thread.join()
    assert seen == [False]
    assert turns.due()
