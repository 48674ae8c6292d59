"""Scenario 2: actors. Order per caller, concurrency, names, restarts, retries and checkpoints, checked by a model.

Invariants of its own:
    SC-1  a sync actor runs one call at a time, and all calls of a caller in their order
    SC-2  an async actor starts the calls of a caller in their order, and runs them together
    SC-3  a call that was acknowledged is in the state of an actor with `checkpoint_every="call"`, also after its death
"""

from __future__ import annotations

import asyncio
from typing import Any

import actorflow as af
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage


class Ledger(af.Actor):
    """Sync: one call at a time, in order."""

    def __init__(self, start: int = 0) -> None:
        self.total = start
        self.busy = False

    def add(self, number: int, by: int) -> int:
        assert not self.busy, "SC-1"
        self.busy = True
        outside.executed(number, "ledger")
        self.total += by
        self.busy = False
        return self.total

    def slow_add(self, number: int, by: int, seconds: float) -> int:
        assert not self.busy, "SC-1"
        self.busy = True
        outside.executed(number, "ledger")
        af.sync(asyncio.sleep(seconds))
        self.total += by
        self.busy = False
        return self.total


class Board(af.Actor):
    """Async: many at a time."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    async def work(self, number: int, seconds: float) -> int:
        outside.executed(number, "board")
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(seconds)
        self.running -= 1
        return number

    async def relay(self, handle: Any, number: int, by: int) -> int:
        """A call of an actor by an actor, through a handle that travelled."""
        return await handle.bump(number, by)  # type: ignore[no-any-return]

    async def peak(self) -> int:
        return self.most


class Cell(af.Actor, process="shared"):
    """One of many on one loop."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.kept: list[Any] = []

    async def bump(self, number: int, by: int) -> int:
        outside.executed(number, f"cell {id(self)}")
        self.value += by
        return self.value

    async def keep(self, handle: Any) -> None:
        """It may be a handle to this actor itself: that one must not keep it alive."""
        self.kept.append(handle)


class Phoenix(af.Actor, max_restarts=-1, max_task_retries=-1, checkpoint_every="call"):
    """Dies now and then, and remembers."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}

    async def put(self, key: int, value: int) -> int:
        self.done[key] = value
        return len(self.done)

    async def all(self) -> dict[int, int]:
        return dict(self.done)

    async def __checkpoint__(self) -> dict[int, int]:
        return dict(self.done)

    async def __restore__(self, state: dict[int, int]) -> None:
        self.done = dict(state)


class Broken(af.Actor):
    """Cannot be made."""

    def __init__(self) -> None:
        raise LookupError("no such thing")

    def call(self) -> None:
        raise AssertionError("it was never made")


@af.remote
async def add_twice(ledger: Any, number: int, by: int) -> int:
    """A handle inside a task."""
    return await ledger.add(number, by)  # type: ignore[no-any-return]


def prepare(stage: Stage) -> Main:
    """Draw what is done with each kind of actor; all kinds run at the same time."""
    rng = stage.rng

    async def ledgers() -> None:
        ledger = Ledger.remote(100) if rng.random() < 0.5 else Ledger.remote(af.deref(await af.put(100)))
        total, waiting = 100, []
        for _ in range(rng.randrange(5, 20)):
            by = rng.randrange(10)
            total += by
            if rng.random() < 0.2:
                record = outside.invoked("ledger", "slow_add", total)
                ref = ledger.slow_add.remote(record.number, by, 0.01 * rng.random())
                waiting.append(asyncio.create_task(outside.end_of(record, ref.as_task())))
            elif rng.random() < 0.3:
                record = outside.invoked("ledger", "add", total)
                await outside.end_of(record, ledger.add(record.number, by))
            else:
                record = outside.invoked("ledger", "add", total)
                waiting.append(asyncio.create_task(outside.end_of(record, ledger.add.remote(record.number, by).as_task())))
        await asyncio.gather(*waiting)
        if rng.random() < 0.5:
            record = outside.invoked("ledger", "add", total + 1, caller="a task")
            await outside.end_of(record, add_twice(ledger, record.number, 1))
        if rng.random() < 0.3:
            await af.kill(ledger)
            try:
                await ledger.add(0, 0)
            except af.ActorDiedError:
                return
            raise AssertionError("a killed actor answered")

    async def boards() -> None:
        board = Board.remote()
        await board
        count = rng.randrange(3, 12)
        waiting = []
        for _ in range(count):
            record = outside.invoked("board", "work")
            record.args = (record.number,)
            waiting.append(outside.end_of(record, board.work.remote(record.number, 0.5).as_task()))
        await asyncio.gather(*waiting)
        assert await board.peak() == count, "SC-2"

    async def cells() -> None:
        values = [rng.randrange(100) for _ in range(rng.randrange(1, 8))]
        cells = [Cell.remote(value) for value in values]
        board = Board.remote()
        for _ in range(rng.randrange(10)):
            at, by = rng.randrange(len(cells)), rng.randrange(10)
            values[at] += by
            record = outside.invoked(f"cell {at}", "bump", values[at])
            call = cells[at].bump(record.number, by) if rng.random() < 0.5 else board.relay(cells[at], record.number, by)
            await outside.end_of(record, call)
            if rng.random() < 0.5:
                # To itself, or to one that comes later: no cycle.
                await cells[rng.randrange(at + 1)].keep(cells[at])
        if rng.random() < 0.5:
            await af.kill(cells[0])
            assert await af.wait_dead(cells[0])

    async def named() -> None:
        first = Ledger.options(name="the ledger", get_if_exists=True).remote(7)
        await first
        second = Ledger.options(name="the ledger", get_if_exists=True).remote(8)
        third = await af.get_actor("the ledger")
        record = outside.invoked("named ledger", "add", 8, caller="second")
        await outside.end_of(record, second.add(record.number, 1))
        record = outside.invoked("named ledger", "add", 9, caller="third")
        end = await outside.end_of(record, third.add(record.number, 1))
        if isinstance(end, Exception):
            return  # it is dead: the name is free
        try:
            await Ledger.options(name="the ledger").remote()
        except af.ActorAlreadyExistsError:
            return
        # Its process may have died since its last answer; if it has not, this never ends (SG-1).
        assert await af.wait_dead(first), "one name, two actors"

    async def detached() -> None:
        board = Board.options(name="alone", lifetime="detached").remote()
        try:
            await board
            await asyncio.sleep(rng.random())
            board = await af.get_actor("alone")
            record = outside.invoked("alone", "work")
            record.args = (record.number,)
            await outside.end_of(record, board.work(record.number, 0.0))
        finally:
            await af.kill(board)

    async def phoenix() -> None:
        phoenix, kept = Phoenix.remote(), {}
        for key in range(rng.randrange(2, 10)):
            await phoenix.put(key, key * key)
            kept[key] = key * key
            if rng.random() < 0.3:
                await af.kill(phoenix, no_restart=False)
            if rng.random() < 0.3:
                state = await phoenix.all()
                assert kept.items() <= state.items(), "SC-3"
        assert await phoenix.all() == kept, "SC-3"

    async def broken() -> None:
        actor = Broken.remote()
        for attempt in (lambda: actor, actor.call, actor.call.remote):
            try:
                await attempt()
            except LookupError:
                continue
            raise AssertionError("the constructor's error was not raised")

    parts = [ledgers, boards, cells, named, detached, phoenix, broken]

    async def main() -> None:
        chosen = rng.sample(parts, rng.randrange(2, len(parts) + 1))
        async with asyncio.TaskGroup() as group:
            for part in chosen:
                group.create_task(part(), name=part.__name__)
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.random() * 0.05)

    return main


def expected(call: Any) -> Any:
    """The oracle: each call was recorded with what it must give."""
    return call.args[0]


