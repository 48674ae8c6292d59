"""The random workload of the kill test: a driver that checks every result against what it must be.

    python -m tests.soak.workload SEED SECONDS

It prints one line for each wrong result, `hung` for a call that did not end in time, and at its end a line of counts. A call may end in
the right value, or, as somebody kills processes meanwhile, in an error of actorflow; anything else is wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import numpy as np

import actorflow as af

CALL_S = 60.0
"""A step that takes longer has hung: most take milliseconds, a restart a few seconds; one that waits for room in the store is told after
ten."""
STORE = "768MiB"
BULK_BYTES_MAX = 256 * 1024 * 1024
"""A few of these at once are more than the store has room for: some go to disk, and some calls are told that it is full."""
CRASHES = (af.WorkerCrashedError, af.ActorDiedError, af.ActorUnavailableError, af.ObjectLostError)
"""How a call may end when processes die at any moment."""
FULL = af.ObjectStoreFullError

Step = Callable[[random.Random], Coroutine[Any, Any, str]]


@af.remote
def square(n: int) -> int:
    return n * n


@af.remote(max_retries=-1)
def steady(n: int, seconds: float) -> int:
    time.sleep(seconds)
    return n + 1


@af.remote
async def sum_of_squares(n: int) -> int:
    return sum(await asyncio.gather(*[square(i) for i in range(n)]))


@af.remote
def nested(depth: int) -> int:
    return 1 if depth == 0 else 1 + af.sync(nested.remote(depth - 1))


@af.remote
def block(n: int, size: int) -> bytes:
    return bytes([n % 256]) * size


@af.remote
def length(data: bytes) -> tuple[int, int]:
    return len(data), data[0] if data else -1


@af.remote
async def lengths(refs: list[Any]) -> int:
    return sum([len(await ref) for ref in refs])


@af.remote
def count_up(n: int) -> Iterator[int]:
    yield from range(n)


@af.remote
async def count_down(n: int) -> AsyncIterator[int]:
    while n:
        yield n
        n -= 1


@af.remote
def fill(n: int, items: int) -> Any:
    return np.full(items, n, dtype=np.int64)


@af.remote
def ends(array: Any) -> tuple[int, int, int]:
    return len(array), int(array[0]), int(array[-1])


@af.remote
def blocks(count: int, size: int) -> Iterator[bytes]:
    for n in range(count):
        yield bytes([n % 256]) * size


@af.remote
async def tree(depth: int) -> int:
    if depth == 0:
        await asyncio.sleep(600)
    return sum(await asyncio.gather(tree(depth - 1), tree(depth - 1)))


@af.remote
async def sleepy(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "woke"


class Adder(af.Actor):
    """Its value only grows: what a restart loses is seen."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.calls = 0

    def add(self, n: int) -> tuple[int, int]:
        self.calls += 1
        return self.start + n, self.calls


class Kept(af.Actor, max_restarts=-1, checkpoint_every="call"):
    """What it has acknowledged survives its process."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __checkpoint__(self) -> list[int]:
        return self.seen

    def __restore__(self, seen: list[int]) -> None:
        self.seen = seen

    async def note(self, n: int) -> int:
        self.seen.append(n)
        return len(self.seen)

    async def all(self) -> list[int]:
        return self.seen


class Holder(af.Actor, max_restarts=1):
    """Keeps references."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    async def hold(self, refs: list[Any]) -> None:
        self.refs = refs

    async def total(self) -> int:
        return sum([len(await ref) for ref in self.refs])


class Light(af.Actor, process="shared", num_cpus=0):
    """One of many in a process."""

    async def echo(self, n: int) -> int:
        await asyncio.sleep(0.001)
        return n


class Wrong(Exception):
    """A result that is not what it must be."""


def expect(got: Any, wanted: Any, what: str) -> None:
    if got != wanted:
        raise Wrong(f"{what}: got {got!r:.200}, must be {wanted!r:.200}")


# Steps ------------------------------------------------------------------------------------------------------


async def tasks(rng: random.Random) -> str:
    n = rng.randrange(1, 60)
    expect(await af.get([square.remote(i) for i in range(n)]), [i * i for i in range(n)], "square")
    return "ok"


async def retried(rng: random.Random) -> str:
    n = rng.randrange(1, 6)
    refs = [steady.remote(i, rng.random() * 0.05) for i in range(n)]
    try:
        expect(await af.get(refs), list(range(1, n + 1)), "steady")
    except CRASHES as error:
        raise Wrong(f"a task with endless retries ended in {error!r:.300}") from error
    return "ok"


async def nesting(rng: random.Random) -> str:
    n, depth = rng.randrange(1, 8), rng.randrange(1, 4)
    expect(await asyncio.gather(sum_of_squares(n), nested(depth)), [sum(i * i for i in range(n)), depth + 1], "nested")
    return "ok"


async def large(rng: random.Random) -> str:
    n, size = rng.randrange(256), rng.randrange(100_000, 3_000_000)
    ref = block.remote(n, size)
    mine = await af.put(bytes([7]) * size)
    expect(await length(ref), (size, n), "length of a result")
    expect(await length(mine), (size, 7), "length of a put")
    expect(await lengths([ref, mine]), 2 * size, "lengths")
    expect((await ref)[-1:], bytes([n]), "the last byte")
    return "ok"


async def bulk(rng: random.Random) -> str:
    """Up to 256 MiB each: through the arena, to disk when others need the room, and back."""
    n, items = rng.randrange(1_000), int(2 ** rng.uniform(20, 25))  # 8 to 256 MiB
    made = fill.remote(n, items)
    mine = await af.put(np.full(items // 2, n + 1, dtype=np.int64))
    expect(await ends.remote(made), (items, n, n), "the ends of a result")
    expect(await ends.remote(mine), (items // 2, n + 1, n + 1), "the ends of a put")
    if rng.random() < 0.5:
        more = [fill.remote(n + 2 + i, items // 4) for i in range(4)]
        await af.wait(more, num_returns=4)
        expect(await af.get([ends.remote(ref) for ref in more]), [(items // 4, n + 2 + i, n + 2 + i) for i in range(4)], "the ends of more")
    array = await made
    expect((len(array), int(array[0]), int(array[-1]), array.flags.writeable), (items, n, n, False), "the array")
    if rng.random() < 0.3:
        del mine
        expect(await ends(array), (items, n, n), "the ends of an argument")
    return "ok"


async def bulk_streams(rng: random.Random) -> str:
    count, size = rng.randrange(1, 12), rng.randrange(200_000, 10_000_000)
    leaves_at = rng.randrange(count + 1) if rng.random() < 0.5 else count
    seen = 0
    async with blocks.remote(count, size) as stream:
        while seen < leaves_at:
            block = await anext(stream)
            expect((len(block), block[0], block[-1]), (size, seen % 256, seen % 256), "a block")
            seen += 1
    return "ok"


async def cancelled_trees(rng: random.Random) -> str:
    ref = tree.remote(rng.randrange(1, 4))
    await asyncio.sleep(rng.random() * 0.2)
    ref.cancel()
    try:
        await ref
    except af.TaskCancelledError:
        return "ok"
    raise Wrong("a tree of endless calls has ended by itself")


async def streams(rng: random.Random) -> str:
    n = rng.randrange(0, 300)
    expect([i async for i in count_up(n)], list(range(n)), "count_up")
    async with count_down.remote(10_000) as stream:
        expect(await anext(stream), 10_000, "count_down")
        expect(await anext(stream), 9_999, "count_down")
    return "ok"


async def cancels(rng: random.Random) -> str:
    refs = [sleepy.remote(rng.random() * 0.1) for _ in range(6)]
    await asyncio.sleep(rng.random() * 0.05)
    for ref in refs[::2]:
        ref.cancel()
    for n, ref in enumerate(refs):
        try:
            expect(await ref, "woke", "sleepy")
        except af.TaskCancelledError as error:
            if n % 2:
                raise Wrong("a call was cancelled that nobody cancelled") from error
    try:
        async with asyncio.timeout(rng.random() * 0.05):
            await sleepy(60)
    except TimeoutError:
        return "ok"
    raise Wrong("sixty seconds were over at once")


async def actors(rng: random.Random) -> str:
    start, count = rng.randrange(1000), rng.randrange(1, 100)
    adder = Adder.options(max_restarts=rng.randrange(3)).remote(start)
    last = 0
    for n, ref in enumerate([adder.add.remote(i) for i in range(count)]):
        try:
            value, calls = await ref
        except (af.ActorUnavailableError, af.ActorDiedError):
            last = 0  # A restart counts from the start.
            continue
        expect(value, start + n, "add")
        if not last < calls:
            raise Wrong(f"calls of one caller ran out of order: {calls} after {last}")
        last = calls
    return "ok"


async def checkpoints(rng: random.Random) -> str:
    kept = Kept.remote()
    acknowledged: list[int] = []
    for n in range(rng.randrange(1, 15)):
        try:
            await kept.note(n)
        except af.ActorUnavailableError:
            continue
        acknowledged.append(n)
    while True:
        try:
            seen = await kept.all()
            break
        except af.ActorUnavailableError:
            await asyncio.sleep(0.01)
    missing = [n for n in acknowledged if n not in seen]
    if missing or sorted(seen) != seen:
        raise Wrong(f"acknowledged {acknowledged}, and the actor has {seen}")
    return "ok"


async def holders(rng: random.Random) -> str:
    sizes = [rng.choice([10, 200_000]) for _ in range(3)]
    holder = Holder.remote()
    await holder.hold([block.remote(1, size) for size in sizes])
    total = await holder.total()
    if total:  # None after a restart in between.
        expect(total, sum(sizes), "total of the held")
    return "ok"


async def shared(rng: random.Random) -> str:
    many = [Light.remote() for _ in range(rng.randrange(1, 20))]
    expect(await asyncio.gather(*[one.echo(n) for n, one in enumerate(many)]), list(range(len(many))), "echo")
    return "ok"


async def groups(rng: random.Random) -> str:
    n = rng.randrange(1, 30)
    expect([i async for i in af.map(square, range(n), max_in_flight=5)], [i * i for i in range(n)], "map")
    crashed = False
    try:
        async with af.TaskGroup() as group:
            refs = [group.submit(square, i) for i in range(n)]
    except* CRASHES:
        crashed = True
    if crashed:
        return "crashed"
    expect([await ref for ref in refs], [i * i for i in range(n)], "group")
    return "ok"


STEPS: list[Step] = [
    tasks, retried, nesting, large, streams, cancels, actors, checkpoints, holders, shared, groups, bulk, bulk_streams, cancelled_trees,
]  # fmt: skip


# The run ----------------------------------------------------------------------------------------------------


async def perform(step: Step, rng: random.Random, counts: Counter[str]) -> None:
    name = step.__name__
    try:
        async with asyncio.timeout(CALL_S):
            counts[await step(rng)] += 1
    except TimeoutError:
        counts["hung"] += 1
        under_way = [row for row in await af.state.list_tasks() if row["state"] in ("waiting", "queued", "pushed")]
        workers = [(row["worker_id"], row["state"], row["reason"]) for row in await af.state.list_workers()]
        print(f"hung: {name}; under way: {under_way}; leases: {await af.state.list_leases()}; workers: {workers}", flush=True)
    except CRASHES:
        counts["crashed"] += 1
    except FULL:
        counts["full"] += 1
    except Wrong as wrong:
        counts["wrong"] += 1
        print(f"wrong: {name}: {wrong}", flush=True)
    except Exception as error:
        counts["wrong"] += 1
        print(f"wrong: {name}: unexpected {type(error).__name__}: {error}", flush=True)


async def main(seed: int, seconds: float) -> Counter[str]:
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    print(f"ready {os.getpid()}", flush=True)
    until = time.monotonic() + seconds

    async def lane(number: int) -> None:
        own = random.Random(f"{seed}-{number}")
        while time.monotonic() < until:
            await perform(own.choice(STEPS), own, counts)

    await asyncio.gather(*[lane(number) for number in range(rng.randrange(1, 5))])
    return counts


if __name__ == "__main__":
    counts = af.run(main(int(sys.argv[1]), float(sys.argv[2])), num_cpus=2, object_store_memory=STORE, log_to_driver=False)
    print("counts", " ".join(f"{name}={number}" for name, number in sorted(counts.items())), flush=True)
    sys.exit(1 if counts["wrong"] or counts["hung"] else 0)
