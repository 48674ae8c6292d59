"""Objects while a node drains: they come to their owners' nodes as objects like any other, and go when nobody needs them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import block, ended, node_id, two_nodes
from tests.sim.test_draining_races import gone
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import kill_node

ON_THE_SECOND: dict[str, Any] = {"resources": {"second": 1}, "num_cpus": 0}


@af.remote
class Reader:
    async def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    async def read(self) -> int:
        return int((await self.refs[0])[0])


def test_a_borrower_on_the_node_still_reads_what_its_owner_has_taken_away(sim_seed: int) -> None:
    """It knows the object under its old name only."""

    async def main() -> int:
        reader = Reader.options(resources={"second": 1}).remote()
        ref = block.options(**ON_THE_SECOND).remote(7)
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


def test_what_is_taken_over_may_go_to_disk_where_there_is_no_room(sim_seed: int) -> None:
    """6 MB come to a node with 4 MB, which can be written to afterwards."""

    async def main() -> list[int]:
        refs = [block.options(**ON_THE_SECOND).remote(number) for number in range(1, 21)]
        await af.wait(refs, num_returns=len(refs))
        await af.drain_node(node_id(second), deadline=30.0)
        await asyncio.sleep(5.0)
        mine = [await af.put(bytes([number]) * 300_000) for number in range(5)]
        del mine
        await gone(second)
        return [(await ref)[0] for ref in refs]

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, object_store_memory=4 << 20)
        second = cluster.add_node(num_cpus=2, resources={"second": 100}, object_store_memory=64 << 20)
        world.run_until(lambda: second.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == list(range(1, 21))
        finish(cluster, driver)


@af.remote(max_retries=0)
async def blocks(count: int, pause_s: float) -> Any:
    for number in range(count):
        yield bytes([number]) * 300_000
        await asyncio.sleep(pause_s)


@pytest.mark.parametrize("pause_s", [0.0, 1.0])
def test_items_of_a_stream_that_nobody_has_taken_yet_are_fetched(sim_seed: int, pause_s: float) -> None:
    """Whether they were there before the word, or have come after it."""

    async def main() -> list[int]:
        stream = blocks.options(**ON_THE_SECOND).remote(6, pause_s)
        await asyncio.sleep(2.5)
        await af.drain_node(node_id(second), deadline=60.0)
        await gone(second)
        return [value[0] async for value in stream]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == list(range(6))
        finish(cluster, driver)


def test_what_its_owner_drops_while_it_is_fetched_is_freed(sim_seed: int) -> None:
    async def main() -> None:
        refs = [block.options(**ON_THE_SECOND).remote(number) for number in range(1, 41)]
        await af.wait(refs, num_returns=len(refs))
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=30.0))
        while refs:
            refs.pop()
            await asyncio.sleep(0.004)
        await drain
        await gone(second)
        dropped.append(True)
        await asyncio.sleep(10.0)

    dropped: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(dropped), 60.0)
        world.run_for(5.0)
        assert cluster.node is not None
        assert list(cluster.node._store.book.extents()) == []
        ended(world, driver)
        finish(cluster, driver)


@af.remote
class Holder:
    """With max_restarts=0 it lives on its node until the deadline, and owns an object that lies on the first one."""

    async def begin(self) -> None:
        self.ref = block.options(resources={"first": 1}, num_cpus=0).remote(3)
        await af.wait([self.ref])

    async def read(self) -> int:
        return int((await self.ref)[0])


def test_objects_elsewhere_of_owners_on_the_node_live_as_long_as_these(sim_seed: int) -> None:
    async def main() -> int:
        holder = Holder.options(resources={"second": 1}).remote()
        await holder.begin()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(3.0)
        return await holder.read()

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 3
        finish(cluster, driver)


@pytest.mark.parametrize("drains", [True, False])
def test_objects_here_of_owners_on_a_node_that_is_gone_are_freed(sim_seed: int, drains: bool) -> None:
    async def main() -> None:
        holder = Holder.options(resources={"second": 1}).remote()
        await holder.begin()
        if drains:
            await af.drain_node(node_id(second), deadline=5.0)
        begun.append(True)
        await asyncio.sleep(60.0)

    begun: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        assert cluster.node is not None
        store = cluster.node._store
        driver = cluster.driver(main)
        world.run_until(lambda: bool(begun) and store.foreign() == 1, 20.0)
        if not drains:
            kill_node(cluster, second)
        world.run_until(lambda: store.foreign() == 0, 30.0)
        ended(world, driver)
        finish(cluster, driver)
