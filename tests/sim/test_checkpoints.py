"""SEMANTICS 21, checkpoints by time: taken when no call runs, and what becomes of one for which it never gets quiet."""

import asyncio
import logging
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import simulate

TAKEN: list[dict[str, int]] = []
"""What the checkpoints of a run have seen. All simulated processes share this module."""


class Bank(af.Actor, max_restarts=1, checkpoint_every=1.0):
    """Moves money in two steps: between them some is nowhere."""

    def __init__(self) -> None:
        self.accounts = {"left": 1000, "right": 0}
        self.order: list[int] = []

    async def move(self, number: int, seconds: float) -> int:
        self.order.append(number)
        self.accounts["left"] -= 1
        await asyncio.sleep(seconds)
        self.accounts["right"] += 1
        return number

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def look(self) -> tuple[dict[str, int], list[int]]:
        return dict(self.accounts), self.order

    async def __checkpoint__(self) -> dict[str, int]:
        before = dict(self.accounts)
        await asyncio.sleep(0.1)
        assert self.accounts == before, "a call ran while the checkpoint was taken"
        TAKEN.append(before)
        return before

    async def __restore__(self, accounts: dict[str, int]) -> None:
        self.accounts = accounts


class Clerk(af.Actor, max_restarts=1, checkpoint_every=1.0):
    """Sync: one call at a time, however long."""

    def __init__(self) -> None:
        self.done = 0

    def work(self, seconds: float) -> int:
        af.sync(asyncio.sleep(seconds))
        self.done += 1
        return self.done

    async def __checkpoint__(self) -> int:
        before = self.done
        await asyncio.sleep(0.1)
        assert self.done == before
        TAKEN.append({"done": before})
        return before

    def __restore__(self, done: int) -> None:
        self.done = done


@pytest.fixture(autouse=True)
def fresh() -> None:
    TAKEN.clear()


@pytest.mark.parametrize("seed", range(8))
def test_a_checkpoint_by_time_sees_no_call_half_done(seed: int) -> None:
    async def main() -> tuple[dict[str, int], list[int]]:
        bank = Bank.remote()
        waiting = []
        for number in range(100):
            waiting.append(bank.move.remote(number, 0.05 + number % 7 * 0.1))
            await asyncio.sleep(0.1)
        assert await af.get(waiting) == list(range(100)), "none was lost while they were held"
        _, order = await bank.look()
        await asyncio.sleep(3.0)
        await af.kill(bank, no_restart=False)
        await asyncio.sleep(1.0)
        accounts, _ = await bank.look()
        return accounts, order

    accounts, order = simulate(main, seed=seed)
    assert order == list(range(100)), "SEMANTICS 20: they start in the order of submission"
    assert len(TAKEN) >= 6
    assert [sum(taken.values()) for taken in TAKEN] == [1000] * len(TAKEN)
    assert accounts == {"left": 900, "right": 100}


@pytest.mark.parametrize("seed", range(4))
def test_where_it_does_not_get_quiet_calls_go_on_and_the_next_try_is_later(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[float]:
        bank = Bank.remote()
        await bank.move(0, 0.0)
        watching = bank.watch.remote()
        loop = asyncio.get_running_loop()
        took = []
        until = loop.time() + 63.0
        while loop.time() < until:
            began = loop.time()
            await bank.move(len(took), 0.0)
            took.append(loop.time() - began)
            await asyncio.sleep(0.2)
        watching.cancel()
        with pytest.raises(af.TaskCancelledError):
            await watching
        return took

    with caplog.at_level(logging.WARNING, "actorflow"):
        took = simulate(main, seed=seed)
    assert sum(seconds > 1.0 for seconds in took) == 1, "held once a minute"
    assert max(took) < 5.5
    [told] = [record.getMessage() for record in caplog.records if "no checkpoint was taken" in record.getMessage()]
    assert "these did not end: Bank.watch. Calls go on; the next try is in 60 s" in told
    assert TAKEN == []


def test_what_held_the_checkpoint_up_is_gone_then_it_is_taken() -> None:
    async def main() -> None:
        bank = Bank.remote()
        watching = bank.watch.remote()
        await bank.move(0, 0.0)
        await asyncio.sleep(10.0)
        assert TAKEN == []
        watching.cancel()
        await asyncio.sleep(70.0)
        assert TAKEN == [{"left": 999, "right": 1}]

    simulate(main)


def test_a_call_that_is_held_can_be_cancelled() -> None:
    async def main() -> tuple[int, list[int]]:
        bank = Bank.remote()
        await bank.move(9, 0.0)
        slow = bank.move.remote(0, 4.0)
        await asyncio.sleep(2.5)
        held: list[Any] = [bank.move.remote(number, 0.0) for number in (1, 2, 3)]
        await asyncio.sleep(0.1)
        assert not any(ref.done() for ref in held)
        held[1].cancel()
        with pytest.raises(af.TaskCancelledError):
            await held[1]
        assert await af.get([slow, held[0], held[2]]) == [0, 1, 3]
        return len(TAKEN), (await bank.look())[1]

    taken, order = simulate(main)
    assert taken == 1
    assert order == [9, 0, 1, 3]


@pytest.mark.parametrize("seed", range(4))
def test_a_sync_actor_that_is_always_busy_has_its_checkpoints_between_calls(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        clerk = Clerk.remote()
        assert await af.get([clerk.work.remote(7.0) for _ in range(4)]) == [1, 2, 3, 4]
        return await clerk.work(0.0)

    assert simulate(main, seed=seed) == 5
    assert TAKEN[:2] == [{"done": 2}, {"done": 4}], "each in the first break after something had changed"
    assert "no checkpoint was taken" not in caplog.text
