"""Scenario 7: streams. Consumers that read all, lag, leave early or are dropped; producers that end, fail or die.

Invariants of its own:
    SC-11  the values of a stream come in order, each once, without a gap
    SC-12  a producer is never more than the window ahead of its consumer, and is stopped when the consumer leaves
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import actorflow as af
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage
from tests.sim.scenarios.tasks import Blob

WINDOW = 64
LARGE_BYTES = 120_000


@af.remote
def count(key: str, until: int) -> Iterator[int]:
    outside.ran(("begun", key))
    try:
        for number in range(until):
            outside.register().values[key] = number
            yield number
    finally:
        outside.ran(("ended", key))


@af.remote
async def count_async(key: str, until: int, seconds: float) -> AsyncIterator[int]:
    outside.ran(("begun", key))
    try:
        for number in range(until):
            outside.register().values[key] = number
            yield number
            if number % 7 == 0:
                await asyncio.sleep(seconds)
    finally:
        outside.ran(("ended", key))


@af.remote
async def fails_at(key: str, at: int) -> AsyncIterator[int]:
    for number in range(at):
        yield number
    raise ValueError(key)


@af.remote
async def blobs(until: int) -> AsyncIterator[Blob]:
    for number in range(until):
        yield Blob(bytes([number + 1]) * LARGE_BYTES)


@af.remote
async def boxes(until: int) -> AsyncIterator[list[Any]]:
    """References inside the items."""
    for number in range(until):
        yield [await af.put(number)]


class Source(af.Actor):
    """Streams of an actor run together with its other calls."""

    async def count(self, key: str, until: int) -> AsyncIterator[int]:
        outside.ran(("begun", key))
        try:
            for number in range(until):
                outside.register().values[key] = number
                yield number
                await asyncio.sleep(0.001)
        finally:
            outside.ran(("ended", key))

    async def ping(self) -> str:
        return "pong"


def prepare(stage: Stage) -> Main:
    """Draw some streams and how each is read."""
    rng = stage.rng
    numbers = iter(range(1_000))

    async def all_of(stream: Any, until: int, key: str) -> None:
        seen = []
        async for value in stream:
            assert outside.register().values.get(key, -1) <= len(seen) + WINDOW, "SC-12"
            seen.append(value)
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.02)
        assert seen == list(range(until)), "SC-11"

    async def some_of(stream: Any, until: int, key: str) -> None:
        take = rng.randrange(until + 1)
        seen = []
        if take:
            async for value in stream:
                seen.append(value)
                if len(seen) == take:
                    break
        assert seen == list(range(take)), "SC-11"
        how = rng.randrange(3)
        if how == 0:
            await stream.aclose()
        elif how == 1:
            async with stream:
                pass
        del stream

    async def refs_of(stream: Any, until: int, key: str) -> None:
        refs = [ref async for ref in stream.refs()]
        assert [await ref for ref in refs] == list(range(until)), "SC-11"

    async def never(stream: Any, until: int, key: str) -> None:
        """Dropped before the first item."""
        await asyncio.sleep(rng.random() * 0.1)

    async def impatient(stream: Any, until: int, key: str) -> None:
        """Waits that time out only stop waiting (SEMANTICS 12)."""
        seen: list[int] = []
        while True:
            try:
                seen.append(await asyncio.wait_for(anext(stream), 0.01))
            except StopAsyncIteration:
                break
            except TimeoutError:
                continue
        assert seen == list(range(until)), "SC-11"

    async def one(source: Any) -> None:
        key, until = f"stream {next(numbers)}", rng.choice([0, 1, 10, 100, 200])
        kind = rng.randrange(3)
        if kind == 0:
            stream = count.remote(key, until)
        elif kind == 1:
            stream = count_async.remote(key, until, rng.random() * 0.02)
        else:
            stream = source.count.remote(key, until)
        await rng.choice([all_of, some_of, refs_of, never, impatient])(stream, until, key)

    async def failing(source: Any) -> None:
        at, seen = rng.randrange(100), []
        try:
            async for value in fails_at.remote("it fails", at):
                seen.append(value)
        except ValueError:
            assert seen == list(range(at)), "SC-11"
            return
        raise AssertionError("the generator's error was not raised")

    async def large(source: Any) -> None:
        number = 0
        async for blob in blobs.remote(rng.randrange(6)):
            number += 1
            assert blob.is_all(number), "SC-11"

    async def nested(source: Any) -> None:
        seen = []
        async for box in boxes.remote(10):
            seen.append(box[0])
            await asyncio.sleep(rng.random() * 0.05)
        assert [await ref for ref in seen] == list(range(10)), "SC-11"

    async def main() -> None:
        source = Source.remote()
        kinds = [one, one, one, failing, large, nested]
        async with asyncio.TaskGroup() as group:
            for _ in range(rng.randrange(2, 7)):
                group.create_task(rng.choice(kinds)(source))
        assert await source.ping() == "pong"

    return main


def begun_is_ended(stage: Stage) -> None:
    """SC-12: every generator that began has been ended, by its end or by its consumer."""
    runs = stage.register.runs
    begun = sorted(key[1] for key in runs if key[0] == "begun")
    ended = sorted(key[1] for key in runs if key[0] == "ended")
    assert begun == ended, f"SC-12, seed {stage.seed}: begun {begun}, ended {ended}"
