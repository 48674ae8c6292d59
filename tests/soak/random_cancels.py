"""The cancel test: call trees of tasks, actors and streams, cancelled at random moments in every way there is.

    python -m tests.soak.random_cancels --cancels 10000 --seed 1

A tree has depth 4. Its value is known beforehand, so each call ends in the right value or in a word that it was cancelled; within
`END_S` of the cancel, which is more than the grace. Afterwards nothing may be left: no call, no object, no busy worker, no resource.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import actorflow as af

DEPTH = 4
GRACE_S = 2.0
END_S = GRACE_S + 20.0
REST_S = 30.0
TREES = 6
"""Trees that grow at the same time."""
CPUS = 8
MODULUS = 1_000_003


def seeds_below(seed: int) -> list[int]:
    """The seeds of the children of a call."""
    return [(seed * 31 + n * 17 + 7) % MODULUS for n in range(1 + seed % 2)]


def pause_of(seed: int) -> float:
    return (seed % 5) * 0.004


def value_of(seed: int, depth: int) -> int:
    """What a tree gives when nobody cancels it: the oracle."""
    if depth == 0:
        return seed % 1000
    return seed % 7 + sum(value_of(child, depth - 1) for child in seeds_below(seed))


def call_of(seed: int, depth: int, farm: list[Any]) -> Any:
    """How the call with this seed is made: a function or a method, drawn from the seed."""
    kinds: list[Any] = [grow, grow_sync, farm[0].grow, farm[0].grow, farm[1].count, read_stream, read_sync_stream]
    return kinds[seed // 3 % len(kinds)] if depth else (leaf, sync_leaf, farm[1].count)[seed % 3]


@af.remote
async def leaf(seed: int, depth: int, farm: list[Any]) -> int:
    await asyncio.sleep(pause_of(seed))
    return seed % 1000


@af.remote
def sync_leaf(seed: int, depth: int, farm: list[Any]) -> int:
    time.sleep(pause_of(seed))
    return seed % 1000


async def below(seed: int, depth: int, farm: list[Any]) -> int:
    """The value of a call from those of its children: some at the same time, some as references."""
    children = seeds_below(seed)
    calls = [call_of(child, depth - 1, farm) for child in children]
    if seed % 3 == 0:
        values = await asyncio.gather(*[call(child, depth - 1, farm) for call, child in zip(calls, children, strict=True)])
    else:
        refs = [call.remote(child, depth - 1, farm) for call, child in zip(calls, children, strict=True)]
        values = [await ref for ref in refs]
    return seed % 7 + sum(values)


@af.remote
async def grow(seed: int, depth: int, farm: list[Any]) -> int:
    await asyncio.sleep(pause_of(seed))
    return await below(seed, depth, farm)


@af.remote
def grow_sync(seed: int, depth: int, farm: list[Any]) -> int:
    time.sleep(pause_of(seed))
    total = sum(range(seed % 5000)) * 0
    return total + int(af.sync(below(seed, depth, farm)))


@af.remote
async def parts(seed: int, depth: int, farm: list[Any]) -> AsyncIterator[int]:
    yield seed % 7
    for child in seeds_below(seed):
        yield await call_of(child, depth - 1, farm)(child, depth - 1, farm)


@af.remote
def sync_parts(seed: int, depth: int, farm: list[Any]) -> Iterator[int]:
    yield seed % 7
    for child in seeds_below(seed):
        time.sleep(pause_of(child))
        yield int(af.sync(call_of(child, depth - 1, farm)(child, depth - 1, farm)))


@af.remote
async def read_stream(seed: int, depth: int, farm: list[Any]) -> int:
    return sum([value async for value in parts.remote(seed, depth, farm)])


@af.remote
def read_sync_stream(seed: int, depth: int, farm: list[Any]) -> int:
    return sum(sync_parts.remote(seed, depth, farm))


class Farm(af.Actor):
    async def grow(self, seed: int, depth: int, farm: list[Any]) -> int:
        await asyncio.sleep(pause_of(seed))
        return await below(seed, depth, farm)


class Counting(af.Actor):
    """`def` methods, which are not torn: they are short, and make no calls."""

    def count(self, seed: int, depth: int, farm: list[Any]) -> int:
        time.sleep(pause_of(seed) / 4)
        return value_of(seed, depth)


class Run:
    """Some trees, and what became of them."""

    def __init__(self, cancels: int, seed: int) -> None:
        self.left = cancels
        self.rng = random.Random(seed)
        self.ends: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0

    async def main(self) -> None:
        farm: list[Any] = [Farm.options(num_cpus=0).remote(), Counting.options(num_cpus=0).remote()]
        async with asyncio.TaskGroup() as group:
            for _ in range(TREES):
                group.create_task(self._grow_trees(farm))

    async def _grow_trees(self, farm: list[Any]) -> None:
        while self.left > 0 and not self.wrong:
            self.left -= 1
            await self._one(farm, self.rng.randrange(MODULUS))

    async def _one(self, farm: list[Any], seed: int) -> None:
        rng = self.rng
        call, delay = call_of(seed, DEPTH, farm), rng.random() ** 2 * 0.15
        how = rng.choice(["ref", "ref", "direct", "timeout", "block", "spare", "force", "group"])
        if how == "force" and call not in (grow, grow_sync, read_stream, read_sync_stream):
            how = "ref"
        began = time.monotonic()
        try:
            async with asyncio.timeout(END_S):
                value = await getattr(self, f"_by_{how}")(call, (seed, DEPTH, farm), delay)
        except (af.TaskCancelledError, af.TaskTimeoutError, asyncio.CancelledError) as error:
            self.ends[f"{how} {type(error).__name__}"] += 1
        except TimeoutError:
            self.wrong.append(f"tree {seed} did not end within {END_S} s after a cancel by {how}")
        except Exception as error:  # the report tells of it, whatever it is
            self.wrong.append(f"tree {seed}, {how}: {''.join(traceback.format_exception(error))}")
        else:
            self.ends["value"] += 1
            if value is not None and value != value_of(seed, DEPTH):
                self.wrong.append(f"tree {seed} gave {value}, and {value_of(seed, DEPTH)} is right")
        self.slowest_s = max(self.slowest_s, time.monotonic() - began - delay)

    async def _by_ref(self, call: Any, args: Any, delay: float, **how: bool) -> Any:
        ref = call.remote(*args)
        await asyncio.sleep(delay)
        ref.cancel(**how)
        return await ref

    async def _by_spare(self, call: Any, args: Any, delay: float) -> Any:
        return await self._by_ref(call, args, delay, recursive=False)

    async def _by_force(self, call: Any, args: Any, delay: float) -> Any:
        return await self._by_ref(call, args, delay, force=True)

    async def _by_direct(self, call: Any, args: Any, delay: float) -> Any:
        task = asyncio.ensure_future(call(*args))
        await asyncio.sleep(delay)
        task.cancel()
        return await task

    async def _by_timeout(self, call: Any, args: Any, delay: float) -> Any:
        return await call.options(timeout=delay + 0.001).remote(*args)

    async def _by_block(self, call: Any, args: Any, delay: float) -> Any:
        try:
            async with af.timeout(delay):
                return await call(*args)
        except TimeoutError as error:
            raise af.TaskTimeoutError(str(error)) from None

    async def _by_group(self, call: Any, args: Any, delay: float) -> Any:
        ref: Any = None
        try:
            async with af.TaskGroup() as group:
                ref = group.submit(call, *args)
                await asyncio.sleep(delay)
                raise KeyError("leave")
        except* KeyError:
            assert ref.done(), "SEMANTICS 4: a group was left before its call had ended"
        return await ref


async def left_over() -> list[str]:
    """What is still there when nothing should be."""
    gc.collect()
    left = [f"{row['name']} {row['state']}" for row in await af.state.list_tasks() if row["state"] in ("waiting", "queued", "pushed")]
    left += [f"object of {row['owner']} made at {row['call_site']}" for row in await af.state.list_objects()]
    left += [f"worker {row['pid']} {row['state']}" for row in await af.state.list_workers() if row["state"] in ("leased", "actor")]
    free, total = await af.available_resources(), await af.cluster_resources()
    left += [f"{name}: {free[name]} of {total[name]}" for name in total if free[name] != total[name]]
    return left


async def run(cancels: int, seed: int) -> Run:
    """Grow trees and cancel them; the report. Nothing is left of them, or the report says what."""
    report = Run(cancels, seed)
    await report.main()
    give_up_at = time.monotonic() + REST_S
    while (left := await left_over()) and time.monotonic() < give_up_at:
        await asyncio.sleep(0.1)
    report.wrong += left
    return report


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    began = time.monotonic()
    report = af.run(lambda: run(asked.cancels, asked.seed), num_cpus=CPUS, cancel_grace=GRACE_S, log_to_driver=False)
    ends = ", ".join(f"{name} {number}" for name, number in sorted(report.ends.items()))
    print(f"seed {asked.seed}: {asked.cancels} cancels in {time.monotonic() - began:.1f} s: {ends}; slowest {report.slowest_s:.2f} s")
    for text in report.wrong[:20]:
        print(f"WRONG: {text}")
    print(f"wrong {len(report.wrong)}")
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
