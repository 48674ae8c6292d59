"""SEMANTICS 17: who ends in order takes none of the workers along that it has leased: they may own what others hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import total, value


@af.remote(num_cpus=0)
async def makes(seed: int) -> list[Any]:
    """What the references stand for belongs to this process."""
    return [await af.put(value(seed, 100_000))]


@af.remote(num_cpus=0)
class Asks:
    async def ask(self, seed: int) -> list[Any]:
        return list(await makes(seed))


@af.remote(num_cpus=0, max_calls=1)
async def asks_once(seed: int) -> list[Any]:
    return list(await makes(seed))


@pytest.mark.parametrize("how", ["graceful", "dropped", "task"])
def test_17_an_orderly_end_ends_no_worker_that_owns_what_others_hold(sim_seed: int, how: str) -> None:
    async def main() -> int:
        if how == "task":
            [ref] = await asks_once(1)
        else:
            actor: Any = Asks.remote()
            [ref] = await actor.ask(1)
            if how == "graceful":
                await af.kill(actor, graceful=True)
            del actor
        await asyncio.sleep(5.0)
        return total(await asyncio.wait_for(ref, 60.0))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        assert driver.result() == total(value(1, 100_000))
        finish(cluster, driver)
