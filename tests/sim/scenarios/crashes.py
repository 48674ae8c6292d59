"""Scenario 3 and 4: a process dies at some step of a workload that has calls of every kind under way.

Invariants of its own:
    SC-4  a call with retries (a task with max_retries, an actor's with max_task_retries) ends in its value when one
          worker dies
    SC-5  a call without retries runs at most once: a register outside counts
    SC-6  after it all the cluster works: new calls end in their values
    SC-3  (of the actors) what was acknowledged is in the state of an actor with `checkpoint_every="call"`
    SC-11 (of the streams) a stream gives its values in order, each once, up to its end or its error
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import actorflow as af
from actorflow.testing import Check, History, Violation
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage
from tests.sim.scenarios.tasks import Blob, weigh

LOST = (af.WorkerCrashedError, af.ActorDiedError, af.ActorUnavailableError, af.ObjectLostError, af.OwnerDiedError)
"""What a call may end in when its worker, or that of its arguments, died."""


@af.remote(max_retries=0)
def once(key: str, number: int) -> int:
    outside.executed(int(key), f"task {key}")
    return number * 2


@af.remote(max_retries=3)
async def again(key: str, number: int, seconds: float = 0.0) -> int:
    outside.ran(key)
    await asyncio.sleep(seconds)
    return number * 2


@af.remote(max_retries=3)
def parent(key: str, number: int) -> int:
    """Its children are owned by its worker."""
    refs = [again.remote(f"{key}.{child}", child) for child in range(number)]
    return sum(af.sync(af.get(refs)))


@af.remote(max_retries=3)
def large_again(byte: int, size: int) -> Blob:
    return Blob(bytes([byte]) * size)


class Plain(af.Actor):
    """At most once."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation

    def call(self, key: str, number: int) -> int:
        outside.executed(int(key), "plain")
        return number * 2


class Sturdy(af.Actor, max_restarts=5, max_task_retries=5):
    """At least once, in order."""

    def __init__(self, base: int) -> None:
        self.base = base

    async def call(self, key: str, number: int, seconds: float = 0.0) -> int:
        outside.ran(key)
        await asyncio.sleep(seconds)
        return self.base + number


class Restarted(af.Actor, max_restarts=5):
    """At most once, and it comes back."""

    def call(self, key: str, number: int) -> int:
        outside.executed(int(key), "restarted")
        return number * 2


class Keeper(af.Actor, max_restarts=5, max_task_retries=5, checkpoint_every="call"):
    """At least once, and it remembers what it has acknowledged."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}

    async def put(self, key: str, number: int) -> int:
        self.keys[key] = number
        return number * 2

    async def all(self) -> dict[str, int]:
        return self.keys

    def __checkpoint__(self) -> dict[str, int]:
        return self.keys

    def __restore__(self, keys: dict[str, int]) -> None:
        self.keys = keys


@af.remote(max_retries=3)
async def numbers(until: int) -> AsyncIterator[int]:
    for number in range(until):
        yield number
        if number % 5 == 0:
            await asyncio.sleep(0.001)


def prepare(stage: Stage) -> Main:
    """Draw calls of every kind, most of them under way at the same time."""
    rng = stage.rng

    async def main() -> None:
        calls: list[asyncio.Task[Any]] = []
        plain, restarted = Plain.remote("one"), Restarted.remote()
        keeper, acknowledged = Keeper.remote(), dict[str, int]()
        sturdy = Sturdy.remote(af.deref(await af.put(1000))) if rng.random() < 0.5 else Sturdy.remote(1000)

        def watch(record: Any, ref: Any) -> None:
            calls.append(asyncio.ensure_future(outside.end_of(record, ref.as_task() if hasattr(ref, "as_task") else ref)))

        def one_once() -> None:
            number = rng.randrange(100)
            record = outside.invoked("once", "task", number * 2)
            record.target = f"task {record.number}"
            watch(record, once.remote(str(record.number), number))

        def one_again() -> None:
            number = rng.randrange(100)
            record = outside.invoked("retried", "again", number * 2)
            watch(record, again.remote(f"again {record.number}", number, rng.choice([0.0, 0.02])))

        def one_parent() -> None:
            number = rng.randrange(1, 4)
            record = outside.invoked("retried", "parent", number * (number - 1))
            watch(record, parent.remote(f"parent {record.number}", number))

        def one_chain() -> None:
            record = outside.invoked("retried", "chain", 28)
            ref = again.remote(f"{record.number} a", 7)
            watch(record, again.remote(f"{record.number} b", af.deref(ref)))

        def one_plain() -> None:
            number = rng.randrange(100)
            record = outside.invoked("plain", "call", number * 2)
            watch(record, plain.call.remote(str(record.number), number))

        def one_restarted() -> None:
            number = rng.randrange(100)
            record = outside.invoked("restarted", "call", number * 2)
            watch(record, restarted.call(str(record.number), number))

        def one_sturdy() -> None:
            number = rng.randrange(100)
            record = outside.invoked("retried", "sturdy", 1000 + number)
            watch(record, sturdy.call.remote(f"sturdy {record.number}", number, rng.choice([0.0, 0.02])))

        def one_large() -> None:
            byte, size = rng.randrange(1, 200), 200_000
            record = outside.invoked("large", "large_again", True)

            async def read() -> bool:
                blob = await large_again(byte, size)
                return bool(blob.is_all(byte))

            watch(record, asyncio.ensure_future(read()))

        def one_argument() -> None:
            byte, size = rng.randrange(1, 200), 200_000
            record = outside.invoked("retried", "weigh", size)
            watch(record, weigh.options(max_retries=3).remote(Blob(bytes([byte]) * size), byte))

        def one_kept() -> None:
            number = rng.randrange(100)
            record = outside.invoked("retried", "keeper", number * 2)
            key = str(record.number)

            async def put() -> int:
                doubled: int = await keeper.put(key, number)
                acknowledged[key] = number
                return doubled

            watch(record, asyncio.ensure_future(put()))

        def one_stream() -> None:
            until = rng.choice([3, 30, 100])
            record = outside.invoked("retried", "stream", list(range(until)))

            async def read() -> list[int]:
                return [number async for number in numbers.remote(until)]

            watch(record, asyncio.ensure_future(read()))

        kinds = [
            one_once, one_again, one_parent, one_chain, one_plain, one_restarted, one_sturdy, one_large, one_argument, one_kept,
            one_stream,
        ]  # fmt: skip
        for _ in range(rng.randrange(6, 12)):
            rng.choice(kinds)()
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.02)
        await asyncio.gather(*calls)
        one_again()
        one_sturdy()
        await asyncio.gather(*calls)
        kept = await keeper.all()
        assert acknowledged.items() <= kept.items(), f"SC-3: {acknowledged} were acknowledged, {kept} are kept"

    return main


def expected(call: Any) -> Any:
    """The oracle: each call was recorded with what it must give."""
    return call.args[0]


def retried_calls_succeed(history: History) -> list[Violation]:
    """SC-4 and SC-6."""
    return [
        Violation("SC-4", f"{call} raised {end.error!r}")
        for call in history.calls
        if call.target == "retried"
        for end in call.ends
        if end.error is not None
    ]


CHECKS: tuple[Check, ...] = (retried_calls_succeed,)
