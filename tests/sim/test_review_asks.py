"""Review: who asks, and what waits."""
from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import Ledger, block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_review_moves import links_mended  # noqa: F401


@af.remote
class Operator:
    async def drain(self, node: str) -> str:
        return await af.drain_node(node, deadline=60.0)

    async def ping(self) -> bool:
        return True


def test_an_actor_asks(sim_seed: int) -> None:
    async def main() -> str:
        operator = Operator.options(resources={"first": 1}).remote()
        await operator.ping()
        return await operator.drain(node_id(second))

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 100})
        driver = cluster.driver(main)
        ended(world, driver)
        driver.result()
        finish(cluster, driver)


def test_asked_while_the_head_is_away(sim_seed: int) -> None:
    async def main() -> str:
        await asyncio.sleep(1.0)
        now.append(True)
        await asyncio.sleep(0.05)
        return await asyncio.wait_for(af.drain_node(node_id(second), deadline=600.0), 100.0)

    now: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(now), 20.0)
        world.kill(cluster.sim_head.host)
        ended(world, driver)
        driver.result()
        finish(cluster, driver)


@af.remote(max_retries=0)
async def parent() -> str:
    return await where.options(num_cpus=0, resources={"second": 50}, max_retries=0).remote(1.0)


def test_a_task_that_waits_for_one_that_waits_there(sim_seed: int) -> None:
    """It is granted nothing any more, nor refused, and the one that waits for it keeps the node."""

    async def main() -> float:
        other = where.options(num_cpus=0, resources={"second": 60}, max_retries=0).remote(5.0)
        await asyncio.sleep(1.0)
        outer = parent.options(num_cpus=0, resources={"second": 1}).remote()
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        await af.drain_node(node_id(second), deadline=500.0)
        await other
        try:
            await outer
        except Exception as error:
            print("ENDS WITH", type(error).__name__, str(error)[:150])
        return asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        assert driver.result() < 30.0
        finish(cluster, driver)


def test_a_task_for_a_bundle_there(sim_seed: int) -> None:
    async def main() -> float:
        group = af.placement_group([{"second": 1}, {"second": 1}], strategy="STRICT_PACK")
        await group.ready()
        keeper = Place.options(num_cpus=0, resources={"second": 1}, placement_group=group, bundle_index=0).remote()
        await keeper.node()
        await asyncio.sleep(10.0)
        begun = asyncio.get_running_loop().time()
        await af.drain_node(node_id(second), deadline=300.0)
        task = where.options(num_cpus=0, resources={"second": 1}, placement_group=group, bundle_index=1).remote(0.1)
        try:
            await task
        except Exception as error:
            print("ENDS WITH", type(error).__name__, str(error)[:150])
        return asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        world.run_for(5.0)
        third = cluster.add_node(num_cpus=2, resources={"second": 100})
        ended(world, driver, 900.0)
        assert driver.result() < 30.0
        finish(cluster, driver)
