"""Long chains of calls under virtual time: whatever happens to their root, and whoever is killed meanwhile, every link ends."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster

LENGTH = 400
"""Links that took five frames each of Python's thousand."""


@af.remote
async def root(seconds: float) -> int:
    await asyncio.sleep(seconds)
    raise ValueError("the root")


@af.remote(max_retries=-1)
async def step(value: int) -> int:
    return value + 1


@af.remote
async def total(array: Any) -> int:
    return int(array.sum())


class Steps(af.Actor, max_restarts=-1, max_task_retries=-1):
    async def step(self, value: int) -> int:
        return value + 1


def links(first: Any, actor: Any) -> list[Any]:
    refs = [first]
    for position in range(LENGTH):
        refs.append((actor.step if position % 3 == 0 else step).remote(refs[-1]))
    return refs


def run(world: World, cluster: SimCluster, main: Any) -> list[Any]:
    driver = cluster.driver(main, stay=True)
    world.run_until(lambda: driver.ended, 120.0)
    found: list[Any] = driver.result()
    kinds = [type(one) for one in found]
    del found
    driver.forget()
    cluster.settle()  # nothing of the calls is left
    cluster.stop()
    return kinds


@pytest.mark.parametrize("end", ["fails", "is cancelled"])
def test_a_chain_ends_with_its_root_while_workers_are_killed(sim_seed: int, end: str) -> None:
    async def main() -> list[Any]:
        refs = links(root.remote(5.0), Steps.remote())
        world.at_time(world.now + 2.0, strike)
        world.at_time(world.now + 4.9, strike)
        if end == "is cancelled":
            await asyncio.sleep(3.0)
            refs[0].cancel()
        return await asyncio.gather(*refs, return_exceptions=True)

    def strike() -> None:
        if workers := cluster.workers():
            world.kill(world.rng("strike").choice(workers))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        kinds = run(world, cluster, main)
    assert len(kinds) == LENGTH + 1
    expected = ValueError if end == "fails" else af.TaskCancelledError
    assert [kind for kind in kinds if not issubclass(kind, expected)] == []


def test_a_chain_ends_when_what_its_root_takes_is_lost(sim_seed: int) -> None:
    async def main() -> list[Any]:
        ref = await af.put(np.ones(300_000))
        more = [await af.put(np.ones(300_000)) for _ in range(4)]  # In a store of 8 MiB: the first one goes to disk.
        await asyncio.sleep(1.0)
        assert cluster.spill.files
        cluster.spill.lose_files()
        refs = links(total.remote(ref), Steps.remote())
        del more
        return await asyncio.gather(*refs, return_exceptions=True)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, object_store_memory="8MiB")
        kinds = run(world, cluster, main)
    assert len(kinds) == LENGTH + 1
    assert [kind for kind in kinds if not issubclass(kind, af.ObjectLostError)] == []
