"""Scenario 6: references inside values, passed along chains of actors and tasks, dropped in random order.

Invariants of its own:
    SC-9   a reference that anybody holds can be read, and gives its value (no live object is freed; freed memory reads
           as nonsense)
    SC-10  when all are dropped nothing is left (CK-7, checked at the end)
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import actorflow as af
from tests.sim.scenarios.stage import Main, Stage
from tests.sim.scenarios.tasks import Blob

LARGE_BYTES = 120_000


def value_of(byte: int) -> Any:
    """Every third object is large."""
    return Blob(bytes([byte]) * LARGE_BYTES) if byte % 3 == 0 else byte


def check_value(value: Any, byte: int) -> None:
    """SC-9."""
    good = value.is_all(byte) if isinstance(value, Blob) else value == byte
    assert good, f"SC-9: {value!r} is not {byte}"


@af.remote
def make(byte: int) -> Any:
    return value_of(byte)


@af.remote
async def make_own(byte: int) -> Any:
    """A reference that the worker owns, inside the result."""
    return [await af.put(value_of(byte))]


@af.remote
async def make_call(byte: int) -> Any:
    """The reference of a call that is still under way, inside the result."""
    return [make.remote(byte)]


@af.remote
async def pass_on(box: list[Any], depth: int) -> list[Any]:
    """Give a box on to another task, and back."""
    if depth == 0:
        return box
    return await pass_on(box, depth - 1)  # type: ignore[no-any-return]


@af.remote
async def read(box: list[Any], byte: int) -> bool:
    check_value(await box[0], byte)
    return True


@af.remote
async def keep_late(box: list[Any], seconds: float, byte: int) -> bool:
    """Holds the reference for a while after the caller may have dropped it."""
    await asyncio.sleep(seconds)
    check_value(await box[0], byte)
    return True


class Shelf(af.Actor):
    """Keeps references between calls."""

    def __init__(self) -> None:
        self.boxes: dict[int, list[Any]] = {}

    async def keep(self, key: int, box: list[Any]) -> None:
        self.boxes[key] = box

    async def own(self, key: int, byte: int) -> None:
        self.boxes[key] = [await af.put(value_of(byte))]

    async def give(self, key: int) -> list[Any]:
        return self.boxes[key]

    async def give_to(self, key: int, other: Any, new_key: int) -> None:
        """A borrower lends: the owner hears of it from a third process."""
        await other.keep(new_key, self.boxes[key])

    async def wrap(self, key: int) -> list[Any]:
        """A reference to a value that holds a reference."""
        return [await af.put(self.boxes[key])]

    async def read(self, key: int, byte: int) -> bool:
        check_value(await self.boxes[key][0], byte)
        return True

    async def drop(self, key: int) -> None:
        del self.boxes[key]

    async def clear(self) -> None:
        self.boxes.clear()
        gc.collect()


def prepare(stage: Stage) -> Main:
    """Draw who gives what to whom."""
    rng = stage.rng

    async def main() -> None:
        shelves = [Shelf.remote() for _ in range(rng.randrange(1, 4))]
        mine: list[tuple[list[Any], int]] = []
        """Boxes of the driver: a list with one reference, and the byte of its value."""
        theirs: list[tuple[int, int, int]] = []
        """Boxes on shelves: shelf, key, byte."""
        background: list[Any] = []
        keys = iter(range(10_000))

        async def new() -> None:
            byte = rng.randrange(1, 200)
            how = rng.randrange(4)
            if how == 0:
                box = [await af.put(value_of(byte))]
            elif how == 1:
                box = [make.remote(byte)]
            elif how == 2:
                box = await make_own(byte)
            else:
                box = await make_call(byte)
            mine.append((box, byte))

        async def shelve() -> None:
            box, byte = rng.choice(mine)
            shelf, key = rng.randrange(len(shelves)), next(keys)
            await shelves[shelf].keep(key, box)
            theirs.append((shelf, key, byte))

        async def take() -> None:
            shelf, key, byte = rng.choice(theirs)
            mine.append((await shelves[shelf].give(key), byte))

        async def move() -> None:
            shelf, key, byte = rng.choice(theirs)
            other, new_key = rng.randrange(len(shelves)), next(keys)
            await shelves[shelf].give_to(key, shelves[other], new_key)
            theirs.append((other, new_key, byte))

        async def unwrap() -> None:
            shelf, key, byte = rng.choice(theirs)
            outer = (await shelves[shelf].wrap(key))[0]
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.3)
            mine.append((await outer, byte))

        async def flicker() -> None:
            """The same reference comes and goes, again and again: a drop crosses a loan on the wire."""
            byte, shelf, key = rng.randrange(1, 200), rng.choice(shelves), next(keys)
            await shelf.own(key, byte)
            kept: list[list[Any]] = []

            async def take_and_drop() -> None:
                for _ in range(rng.randrange(4)):
                    box = await shelf.give(key)
                    await asyncio.sleep(rng.random() * 0.002)
                    del box

            async def take_and_keep() -> None:
                await asyncio.sleep(rng.random() * 0.004)
                kept.append(await shelf.give(key))

            await asyncio.gather(take_and_drop(), take_and_keep())
            await shelf.drop(key)
            await asyncio.sleep(rng.random() * 0.01)
            mine.append((kept.pop(), byte))

        async def chain() -> None:
            box, byte = rng.choice(mine)
            mine.append((await pass_on(box, rng.randrange(4)), byte))

        async def look() -> None:
            if theirs and rng.random() < 0.5:
                shelf, key, byte = rng.choice(theirs)
                assert await shelves[shelf].read(key, byte), "SC-9"
            else:
                box, byte = rng.choice(mine)
                if rng.random() < 0.5:
                    assert await read(box, byte), "SC-9"
                else:
                    check_value(await box[0], byte)

        async def late() -> None:
            box, byte = rng.choice(mine)
            background.append(keep_late.remote(box, rng.random() * 0.5, byte))

        async def top_level() -> None:
            box, byte = rng.choice(mine)
            background.append(read.remote([box[0]], byte))

        async def drop_mine() -> None:
            mine.pop(rng.randrange(len(mine)))

        async def drop_theirs() -> None:
            shelf, key, _ = theirs.pop(rng.randrange(len(theirs)))
            await shelves[shelf].drop(key)

        async def cycle() -> None:
            """Garbage that only the collector finds."""
            box, _ = mine.pop(rng.randrange(len(mine)))
            box.append(box)

        async def collect() -> None:
            gc.collect()

        actions = [
            new, new, shelve, take, move, unwrap, flicker, flicker, flicker, chain, look, look, late, top_level,
            drop_mine, drop_theirs, cycle, collect,
        ]  # fmt: skip
        for _ in range(rng.randrange(15, 40)):
            action = rng.choice(actions)
            if (not mine and action is not flicker) or (not theirs and action in (take, move, unwrap, drop_theirs)):
                action = new
            if rng.random() < 0.2 and action is not new:
                await asyncio.gather(action(), new())
            else:
                await action()
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.3)
        for box, byte in mine:
            check_value(await box[0], byte)
        for shelf, key, byte in theirs:
            assert await shelves[shelf].read(key, byte), "SC-9"
        if rng.random() < 0.5:
            await asyncio.gather(*(shelf.clear() for shelf in shelves))
        for ref in background:
            assert await ref, "SC-9"

    return main
