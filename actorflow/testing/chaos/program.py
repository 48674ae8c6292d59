"""The program that chaos disturbs: loops, each with one kind of work (work.py), in which every call has an oracle.

A call is written down when it has ended: with the process that answered, or with the sort of its error. A value that is not the oracle's,
and a call that has not ended within `hang_s`, are written down in words. Nothing is judged here but values: whether an error was allowed,
what ran twice and what was lost is found afterwards (judge.py).
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import random
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from actorflow.testing.chaos import units
from actorflow.testing.chaos.records import Book
from actorflow.testing.chaos.systems import Verbs
from actorflow.testing.chaos.work import DIED, WORK

PACE_S = 0.1
"""Between two calls of a loop, on average."""
TRIES_AGAIN_S = 0.5
"""Before a loop begins its work anew, after something that it did not expect."""
LIFE_CALLS = 40
"""Calls of an actor of one life, or of one account."""
DIED_CALLS = 10
"""So many calls in a row that say that an actor is dead: another one takes its place."""
OBJECT_BYTES = (150_000, 3_000_000)
OLD_S = 1.5
"""How long an object lies, on average, before it is read again."""

Oracle = Callable[[Any], bool]


class Failed(Exception):
    """A call has ended in an error, which is written down. `sort`: of which sort (work.py); empty where it has hung."""

    def __init__(self, sort: str = "") -> None:
        super().__init__(sort)
        self.sort = sort


class Program:
    """See the module. `end` lets every loop come to the end of its step."""

    def __init__(self, verbs: Verbs, ledger: str, book: Book, *, kinds: Collection[str], seed: int, hang_s: float) -> None:
        self._verbs = verbs
        self._ledger = ledger
        self._book = book
        self._kinds = kinds
        self._seed = seed
        self._hang_s = hang_s
        self._going = True
        self._ended_at = 0.0
        self._numbers = itertools.count(1)

    def end(self) -> None:
        """No further steps."""
        self._going = False
        self._ended_at = time.monotonic()

    async def run(self) -> None:
        """All loops, until `end`."""
        loops = {
            "task again": self._tasks, "task once": self._tasks, "chain": self._chains,
            "objects": self._objects, "objects once": self._objects, "stream": self._streams, "stream large": self._streams,
            "group": self._groups, "actor again": self._standing, "actor once": self._standing, "actor mortal": self._mortal,
            "named": self._named, "kept": self._kept,
        }  # fmt: skip
        async with asyncio.TaskGroup() as group:
            for kind, work in WORK.items():
                if kind in self._kinds:
                    for number in range(1, work.lanes + 1):
                        group.create_task(self._lane(kind, f"{kind} {number}", loops[kind]), name=f"{kind} {number}")

    async def _lane(self, kind: str, name: str, loop: Callable[[str, str, random.Random], Awaitable[None]]) -> None:
        rng = random.Random(f"{self._seed} {name}")
        for life in itertools.count(1):
            try:
                await loop(kind, f"{name}.{life}", rng)
            except Failed:
                pass  # It is in the book.
            except Exception as error:
                self._book.write(wrong=f"{name}: unexpected {type(error).__name__}: {error}")
                await asyncio.sleep(TRIES_AGAIN_S)
            if not self._going:
                return

    async def _call(self, kind: str, target: str, make: Callable[[str], Awaitable[tuple[Any, int]]], oracle: Oracle) -> Any:
        """Make a call, write down what became of it, and give its value. Raises Failed."""
        call = f"{kind} #{next(self._numbers)}"
        began = time.monotonic()
        line: dict[str, Any] = {"call": call, "kind": kind, "target": target, "began": began}
        deadline = asyncio.timeout(self._hang_s)
        try:
            async with deadline:
                value, pid = await make(call)
        except Exception as error:
            if deadline.expired():
                self._book.write(hung=f"{call} of {target} had not ended after {self._hang_s:g} s. {await self._explain()}")
                raise Failed from error
            sort = self._verbs.sort(error)
            self._book.write(**line, ended=time.monotonic(), error=sort, text=f"{type(error).__name__}: {error}"[:2000])
            raise Failed(sort) from error
        self._book.write(**line, ended=time.monotonic(), pid=pid)
        if not oracle(value):
            self._book.write(wrong=f"{call} of {target} gave {value!r:.300}")
        return value

    async def _explain(self) -> str:
        try:
            async with asyncio.timeout(10):
                return (await self._verbs.explain())[:4000]
        except Exception as error:
            return f"(what is under way cannot be told: {type(error).__name__}: {error})"

    async def _pause(self, rng: random.Random, mean_s: float = PACE_S) -> None:
        await asyncio.sleep(rng.random() * 2 * mean_s)

    # -- tasks

    async def _tasks(self, kind: str, name: str, rng: random.Random) -> None:
        number, seconds = rng.randrange(1000), rng.choice([0.0, 0.02, 0.3, 1.0])
        again = kind == "task again"

        async def make(call: str) -> Any:
            return await self._verbs.task(units.multiply, self._ledger, call, number, seconds, again=again)

        await self._call(kind, "task", make, lambda value: value == number * units.FACTOR)
        await self._pause(rng)

    async def _chains(self, kind: str, name: str, rng: random.Random) -> None:
        numbers = [rng.randrange(1000) for _ in range(4)]

        async def make(call: str) -> Any:
            def start(function: Any, *arguments: Any) -> Any:
                return self._verbs.task(function, self._ledger, call, *arguments, again=True)

            leaves = [start(units.multiply, number, 0.05) for number in numbers]
            return await start(units.add, start(units.add, *leaves[:2]), start(units.add, *leaves[2:]))

        await self._call(kind, "task", make, lambda value: value == sum(numbers) * units.FACTOR)
        await self._pause(rng)

    async def _objects(self, kind: str, name: str, rng: random.Random) -> None:
        """An object that a task made, and one that the program put: read elsewhere, now and some time later, and here."""
        number, size, again = rng.randrange(units.MODULUS), rng.randrange(*OBJECT_BYTES), kind == "objects"
        made: Any = None
        mine = await self._verbs.put(units.pattern(number + 1, size)) if again else None

        async def first(call: str) -> Any:
            nonlocal made
            made = self._verbs.task(units.block, self._ledger, call, number, size, again=again)
            return await self._verbs.task(units.differs, self._ledger, f"{call} read", number, made, again=True)

        async def later(call: str) -> Any:
            return await self._verbs.task(units.differs, self._ledger, call, number, made, again=True)

        async def put(call: str) -> Any:
            return await self._verbs.task(units.differs, self._ledger, call, number + 1, mine, again=True)

        async def here(call: str) -> Any:
            return await made, 0

        await self._call(kind, "task", first, lambda place: place == -1)
        await self._pause(rng, OLD_S)
        for make in (later, put) if again else (later,):
            await self._call(kind, "task", make, lambda place: place == -1)
        await self._call(kind, "here", here, lambda data: data == units.pattern(number, size))
        await self._pause(rng)

    async def _streams(self, kind: str, name: str, rng: random.Random) -> None:
        number, items, size = rng.randrange(units.MODULUS), rng.randrange(1, 40), 10 if kind == "stream" else 200_000

        async def make(call: str) -> Any:
            stream = self._verbs.stream(units.count, self._ledger, call, number, items, size, 0.02)
            got = [item async for item in stream]
            return [item[:2] for item in got], got[-1][2] if got else 0

        await self._call(kind, "task", make, lambda value: value == [(n, units.pattern(number + n, size)) for n in range(items)])
        await self._pause(rng)

    async def _groups(self, kind: str, name: str, rng: random.Random) -> None:
        numbers = [rng.randrange(1000) for _ in range(2)]

        async def make(call: str) -> Any:
            got = await self._verbs.grouped(units.multiply, [(self._ledger, call, number, 0.1) for number in numbers])
            return [value for value, _ in got], got[-1][1]

        await self._call(kind, "task", make, lambda value: value == [number * units.FACTOR for number in numbers])
        await self._pause(rng, 3 * PACE_S)

    # -- actors

    async def _standing(self, kind: str, name: str, rng: random.Random) -> None:
        actor = await self._verbs.actor(units.Echo, self._ledger, name, restarts=True, again=kind == "actor again")
        await self._calls(kind, name, rng, partial(self._multiplied, actor))

    async def _named(self, kind: str, name: str, rng: random.Random) -> None:
        actor = await self._verbs.actor(units.Echo, self._ledger, name, restarts=True, again=True, name=name)

        async def make(call: str, number: int) -> Any:
            return await self._multiplied(await self._verbs.find(name), call, number)

        # It is known by its name from when it has answered.
        await self._answers(kind, name, partial(self._multiplied, actor, number=1), 1)
        await self._calls(kind, name, rng, make)
        await self._verbs.kill(actor)

    async def _calls(self, kind: str, name: str, rng: random.Random, make: Callable[..., Awaitable[Any]]) -> None:
        """One after the other until the end, and then until one is answered: an actor that was hit last is waited for."""
        died = 0
        while self._going or time.monotonic() < self._ended_at + self._hang_s:
            going, number = self._going, rng.randrange(1000)
            failed = await self._answers(kind, name, partial(make, number=number), number)
            if not failed and not going:
                return
            died = died + 1 if failed == DIED else 0
            if died == DIED_CALLS:
                return
            await self._pause(rng)

    async def _multiplied(self, actor: Any, call: str, number: int) -> Any:
        return await self._verbs.call(actor, "multiply", call, number)

    async def _answers(self, kind: str, name: str, make: Callable[..., Awaitable[Any]], number: int) -> str:
        """How it failed; empty when it has not."""
        try:
            await self._call(kind, name, make, lambda value: value == number * units.FACTOR)
        except Failed as failed:
            return failed.sort or "hung"  # The actor comes back, or the judge will say that it should have.
        return ""

    async def _mortal(self, kind: str, name: str, rng: random.Random) -> None:
        actor = await self._verbs.actor(units.Tally, self._ledger, name, restarts=False, again=False)
        for count in range(1, LIFE_CALLS):
            await self._call(kind, name, lambda call: self._verbs.call(actor, "next", call), partial(operator.eq, count))
            await self._pause(rng)
            if not self._going:
                break

    async def _kept(self, kind: str, name: str, rng: random.Random) -> None:
        actor = await self._verbs.actor(units.Kept, self._ledger, name, restarts=True, again=False, name=name, kept=True)
        acknowledged: list[int] = []

        async def keep(number: int, call: str) -> Any:
            return await self._verbs.call(actor, "keep", call, number)

        def fits(number: int, length: int) -> bool:
            return len(acknowledged) < length <= number + 1

        for number in range(LIFE_CALLS):
            try:
                await self._call(kind, name, partial(keep, number), partial(fits, number))
                acknowledged.append(number)
            except Failed as failed:
                if failed.sort == DIED:
                    raise  # Nobody brings it back.
                # Otherwise it may have been kept, or not.
            await self._pause(rng)
            if not self._going:
                break
        self._book.write(target=name, acknowledged=acknowledged, seen=await self._kept_in(kind, name, actor, rng))
        await self._verbs.kill(actor)

    async def _kept_in(self, kind: str, name: str, actor: Any, rng: random.Random) -> list[int]:
        give_up_at = time.monotonic() + self._hang_s
        while True:
            try:
                seen = await self._call(
                    kind, name, lambda call: self._verbs.call(actor, "all", call), lambda value: isinstance(value, list)
                )
                return list(seen)
            except Failed as failed:
                if failed.sort == DIED or time.monotonic() > give_up_at:
                    raise
                await self._pause(rng)
