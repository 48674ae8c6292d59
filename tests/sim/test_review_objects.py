"""Review: objects of a node that drains."""
from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_review_moves import links_mended  # noqa: F401


@af.remote
class Reader:
    async def keep(self, refs: list) -> bool:
        self.refs = refs
        return True

    async def read(self) -> int:
        return (await self.refs[0])[0]

    async def nothing(self) -> bool:
        return True


def test_a_borrower_on_the_draining_node_reads_what_its_owner_has_taken_away(sim_seed: int) -> None:
    async def main() -> int:
        reader = Reader.options(resources={"second": 1}).remote()
        ref = block.options(resources={"second": 1}, num_cpus=0).remote(7)
        await af.wait([ref])
        await reader.keep([ref])
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(3.0)
        return await reader.read()

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 7
        finish(cluster, driver)


def test_the_room_of_the_owner_s_node_is_not_filled_for_good(sim_seed: int) -> None:
    """What was taken over may go to disk when there is no room: 6 MB come to a node with 4 MB."""

    async def main() -> list[int]:
        refs = [block.options(resources={"second": 1}, num_cpus=0).remote(number) for number in range(1, 21)]
        await af.wait(refs, num_returns=len(refs))
        await af.drain_node(node_id(second), deadline=30.0)
        await asyncio.sleep(5.0)
        mine = [await af.put(bytes([number]) * 300_000) for number in range(5)]
        del mine
        while any(row["node_id"] == node_id(second) and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.5)
        return [(await ref)[0] for ref in refs]

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, object_store_memory=4 << 20)
        second = cluster.add_node(num_cpus=2, resources={"second": 100}, object_store_memory=64 << 20)
        world.run_until(lambda: second.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        begun = world.now
        ended(world, driver)
        assert driver.result() == list(range(1, 21))
        assert world.now - begun < 20.0
        finish(cluster, driver)


@af.remote(max_retries=0)
def blocks(count: int):
    for number in range(count):
        yield bytes([number]) * 300_000


def test_items_of_a_stream_that_nobody_has_taken_yet(sim_seed: int) -> None:
    async def main() -> list[int]:
        stream = blocks.options(resources={"second": 1}, num_cpus=0).remote(5)
        await asyncio.sleep(2.0)
        await af.drain_node(node_id(second), deadline=20.0)
        while any(row["node_id"] == node_id(second) and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.5)
        return [value[0] async for value in stream]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == [0, 1, 2, 3, 4]
        finish(cluster, driver)


def test_what_waits_on_the_draining_node_and_fits_nowhere_else(sim_seed: int) -> None:
    """Asked for after the word it is an error at once; before, it should be no less."""

    async def main() -> float:
        running = where.options(num_cpus=0, resources={"second": 100}, max_retries=0).remote(100.0)
        await asyncio.sleep(1.0)
        waiting = where.options(num_cpus=0, resources={"second": 99}, max_retries=0).remote(1.0)
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=600.0)
        begun = asyncio.get_running_loop().time()
        late = where.options(num_cpus=0, resources={"second": 98}, max_retries=0).remote(1.0)
        with pytest.raises(af.TaskUnschedulableError):
            await late
        with pytest.raises(af.TaskUnschedulableError):
            await waiting
        await running
        return asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        print("TOOK", driver.result())
        finish(cluster, driver)


def test_the_owner_drops_while_it_is_fetched(sim_seed: int) -> None:
    async def main() -> int:
        refs = [block.options(resources={"second": 1}, num_cpus=0).remote(number) for number in range(1, 41)]
        await af.wait(refs, num_returns=len(refs))
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=30.0))
        for ref in refs:
            await asyncio.sleep(0.0005)
            del ref
            refs.pop()
            if not refs:
                break
        await drain
        while any(row["node_id"] == node_id(second) and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.5)
        return 1

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 1
        finish(cluster, driver)
