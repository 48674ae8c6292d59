"""What the programs of a run call: tasks, streams and actors, each with a promise about what faults may do to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import actorflow as af
from tests.sim.scenarios.tasks import Blob
from tests.sim.whole.register import executed, register, tried, witnessed


def blob(byte: int, size: int) -> Blob:
    return Blob(bytes([byte]) * size)


def weight(value: Blob) -> int:
    """The byte that it is full of; released memory is full of another."""
    data = bytes(memoryview(value.data))
    return data[0] if data == data[:1] * len(data) else -1


# -- tasks


@af.remote(max_retries=0)
async def once(call: int, number: int, seconds: float) -> int:
    executed(call, "task")
    await asyncio.sleep(seconds)
    return number * 2


@af.remote(max_retries=-1)
async def again(number: int, seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return number * 2


@af.remote(max_retries=-1)
def block(number: int, seconds: float) -> int:
    """`def` code that waits: its CPU is lent meanwhile."""
    if seconds:
        af.sync(asyncio.sleep(seconds))
    return number * 2


@af.remote(max_retries=-1)
async def parent(children: int, depth: int, seconds: float) -> int:
    """How many are below it."""
    below: list[Any] = [again.remote(1, seconds) if depth <= 1 else parent.remote(children, depth - 1, seconds) for _ in range(children)]
    found = await af.get(below)
    return children + (sum(found) if depth > 1 else 0)


@af.remote(max_retries=-1)
def sync_parent(children: int, depth: int, seconds: float) -> int:
    below: list[Any] = [again.remote(1, seconds) if depth <= 1 else parent.remote(children, depth - 1, seconds) for _ in range(children)]
    found = af.sync(af.get(below))
    return children + (sum(found) if depth > 1 else 0)


@af.remote(max_retries=-1, retry_exceptions=True)
async def fails_at_first(key: str, failures: int) -> int:
    if tried(key) < failures:
        raise ConnectionError("try again")
    return failures


@af.remote(max_retries=-1)
async def fails(number: int) -> int:
    raise LookupError(f"no {number}")


@af.remote(max_retries=-1)
async def nap(key: str, seconds: float) -> str:
    with witnessed(key):
        await asyncio.sleep(seconds)
    return key


@af.remote(max_retries=-1)
async def nap_below(key: str, seconds: float) -> str:
    with witnessed(key):
        await nap(f"{key} below", seconds)
    return key


@af.remote(max_retries=-1)
async def count(until: int, seconds: float) -> AsyncIterator[int]:
    for number in range(until):
        yield number
        if number % 4 == 0:
            await asyncio.sleep(seconds)


@af.remote(max_retries=-1)
async def blobs(byte: int, size: int, number: int) -> AsyncIterator[Blob]:
    for _ in range(number):
        yield blob(byte, size)


# -- large values


@af.remote(max_retries=-1)
async def make(byte: int, size: int) -> Blob:
    return blob(byte, size)


@af.remote(max_retries=-1)
async def own(byte: int, size: int) -> list[Any]:
    """Its worker owns it, and may not leave while somebody else has a reference."""
    return [await af.put(blob(byte, size))]


@af.remote(max_retries=-1)
async def own_durably(byte: int, size: int) -> list[Any]:
    """The cluster owns it, so its worker may go. What an attempt that was lost has put is there until its namespace ends."""
    return [await af.put(blob(byte, size), durable=True)]


@af.remote(max_retries=-1, num_cpus=0, lifetime="detached")
async def detached(key: str, number: Any, seconds: float) -> int:
    with witnessed(key):
        await asyncio.sleep(seconds)
    return int(number) * 2


@af.remote(max_retries=-1, num_cpus=0, lifetime="detached")
def detached_blob(byte: int, size: int, seconds: float) -> list[Any]:
    """The blob, and one inside that its process has put; so the cluster has that too."""
    if seconds:
        af.sync(asyncio.sleep(seconds))
    return [blob(byte, size), af.sync(af.put(blob(byte, size)))]


@af.remote(max_retries=-1, num_cpus=0, lifetime="detached")
async def detached_argument(number: int, box: list[Any], seconds: float) -> int:
    """What is inside its argument it reads by itself."""
    await asyncio.sleep(seconds)
    assert await box[0] == number
    return number if weight(await box[1]) >= 0 else -1


@af.remote(max_retries=0, num_cpus=0, lifetime="detached")
async def detached_once(call: int, number: int, seconds: float) -> int:
    executed(call, "task")
    await asyncio.sleep(seconds)
    return number * 2


@af.remote(max_retries=-1, num_cpus=0, lifetime="detached")
async def detached_error(number: int) -> int:
    raise LookupError(f"no {number}")


@af.remote(max_retries=-1)
async def read(box: list[Any]) -> Any:
    """It waits for what another process has a reference to."""
    return await read_box(box)


async def read_box(box: list[Any]) -> Any:
    found = await box[0]
    return [weight(found[0]), weight(await found[1])] if isinstance(found, list) else found


@af.remote(max_retries=-1)
async def look(value: Blob, seconds: float = 0.0) -> int:
    found = weight(value)
    await asyncio.sleep(seconds)
    return found if weight(value) == found else -2


@af.remote(max_retries=-1)
async def look_into(box: list[Any]) -> int:
    """It borrows, and fetches by itself."""
    return weight(await box[0])


# -- actors


class Plain(af.Actor, num_cpus=0):
    """At most once, and it does not come back."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.life = register().born(target)

    async def call(self, call: int, number: int, seconds: float) -> int:
        executed(call, self.target, self.life)
        await asyncio.sleep(seconds)
        return number * 2


class Slow(af.Actor, num_cpus=0, max_restarts=-1):
    """Sync: one call at a time; at most once, and it comes back."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.life = register().born(target)

    def call(self, call: int, number: int, seconds: float) -> int:
        executed(call, self.target, self.life)
        if seconds:
            af.sync(asyncio.sleep(seconds))
        return number * 2

    def nap(self, key: str, seconds: float) -> str:
        """`def` code of an actor is not torn, so it has no witness; what waits behind it can be cancelled."""
        af.sync(asyncio.sleep(seconds))
        return key


class Sturdy(af.Actor, num_cpus=0, max_restarts=-1, max_task_retries=-1):
    """At least once, in order."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.life = register().born(target)
        self.box: list[Any] = []

    async def call(self, call: int, number: int, seconds: float) -> int:
        executed(call, self.target, self.life)
        await asyncio.sleep(seconds)
        return number * 2

    async def look(self, value: Blob) -> int:
        return weight(value)

    async def look_into(self, box: list[Any]) -> int:
        self.box = box
        return weight(await box[0])

    async def give(self, byte: int, size: int) -> Blob:
        return blob(byte, size)

    async def own(self, byte: int, size: int) -> list[Any]:
        return [await af.put(blob(byte, size))]

    async def nap(self, key: str, seconds: float) -> str:
        with witnessed(key):
            await asyncio.sleep(seconds)
        return key

    async def count(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number


class Keeper(af.Actor, num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint_every="call"):
    """At least once, and it remembers what it has acknowledged."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.life = register().born(target)
        self.kept: dict[str, int] = {}

    async def call(self, call: int, number: int, seconds: float) -> int:
        executed(call, self.target, self.life)
        await asyncio.sleep(seconds)
        self.kept[str(call)] = number
        return number * 2

    async def all(self) -> dict[str, int]:
        return self.kept

    def __checkpoint__(self) -> dict[str, int]:
        return dict(self.kept)

    def __restore__(self, kept: dict[str, int]) -> None:
        self.kept = kept


class Member(af.Actor, num_cpus=0, max_restarts=-1, max_task_retries=-1):
    """Supervised; its own restarts are for the time before that."""

    async def call(self, number: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return number * 2


KINDS: dict[str, Any] = {"plain": Plain, "slow": Slow, "sturdy": Sturdy, "keeper": Keeper, "named": Keeper}
