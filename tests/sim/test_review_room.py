"""Review: room for calls, cancels, deadlines in the middle."""
from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import Ledger, block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_review_moves import links_mended  # noqa: F401
from tests.sim.test_review_more import Slow


@af.remote
class Other:
    async def call(self, actor: object) -> int:
        return await actor.slow()


def test_room_after_a_cancelled_call_comes_back(sim_seed: int) -> None:
    async def main() -> int:
        actor = Slow.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True), max_pending_calls=1).remote()
        await actor.node()
        other = Other.options(resources={"first": 1}).remote()
        running = other.call.remote(actor)
        await asyncio.sleep(0.2)
        held = asyncio.ensure_future(actor.quick())
        await asyncio.sleep(0.01)
        more = asyncio.ensure_future(actor.quick())
        await asyncio.sleep(0.01)
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        await asyncio.sleep(0.00005 * sim_seed)
        held.cancel()
        await drain
        found = await asyncio.wait_for(more, 30.0)
        await running
        return found

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 10})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 2
        finish(cluster, driver)


class Long(Ledger, max_restarts=1):
    async def long(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return 1


def test_the_deadline_in_the_middle_of_a_move(sim_seed: int) -> None:
    async def main() -> tuple[object, list[object], tuple[list[int], int], list[int]]:
        actor = Long.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True), num_cpus=0).remote()
        refs = [actor.add.remote(n) for n in range(10)]
        await af.get(refs)
        long = actor.long.remote(100.0)
        await asyncio.sleep(0.5)
        await af.drain_node(node_id(second), deadline=5.0 + 0.01 * sim_seed)
        more = []
        for n in range(10, 90):
            more.append(actor.add.remote(n))
            await asyncio.sleep(0.1)
        counts = await asyncio.gather(*more, return_exceptions=True)
        [lost] = await asyncio.gather(long, return_exceptions=True)
        return lost, counts, await actor.all(), [row["restarts"] for row in await af.state.list_actors()]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        lost, counts, (entries, lives), restarts = driver.result()
        print("COUNTS", [c for c in counts if not isinstance(c, int)], entries, lives, restarts)
        assert isinstance(lost, af.ActorUnavailableError)
        assert restarts == [0]
        assert entries[-80:] == list(range(10, 90))
        finish(cluster, driver)
