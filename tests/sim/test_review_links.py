"""Review: what other nodes do when one drains."""
from __future__ import annotations

import asyncio

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import block, ended, node_id, two_nodes
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import kill_node


@af.remote
class Holder:
    """max_restarts=0: lives there until the deadline."""

    async def begin(self) -> bool:
        self.ref = block.options(resources={"first": 1}, num_cpus=0).remote(3)
        await af.wait([self.ref])
        return True

    async def read(self) -> int:
        return (await self.ref)[0]


def test_objects_on_other_nodes_of_owners_on_the_draining_node_live_as_long_as_these(sim_seed: int) -> None:
    async def main() -> int:
        holder = Holder.options(resources={"second": 1}).remote()
        await holder.begin()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(3.0)
        return await holder.read()

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 10})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 3
        finish(cluster, driver)


def test_what_a_dead_node_s_owners_had_here_is_freed(sim_seed: int) -> None:
    async def main() -> int:
        holder = Holder.options(resources={"second": 1}).remote()
        await holder.begin()
        told.append(True)
        await asyncio.sleep(30.0)
        return 1

    told: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 10})
        driver = cluster.driver(main)
        world.run_until(lambda: bool(told), 60.0)
        assert cluster.node._store.foreign() == 1
        kill_node(cluster, second)
        world.run_for(20.0)
        assert cluster.node._store.foreign() == 0
        ended(world, driver)
        finish(cluster, driver)
