"""Objects that the cluster owns, while two things go wrong at one time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow._core.policy.durable_objects import COPIES
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_durable_objects import SMALL, Maker, Reader, ended, keepers, nothing, on, stage, table
from tests.sim.test_one_bad_link import Cut
from tests.sim.test_transfers import OPTIONS, total, value


def test_17_a_namespace_that_was_over_when_the_head_died_is_over_when_it_is_back(sim_seed: int) -> None:
    """The head had not looked yet whether that was the last one of it."""

    async def main() -> None:
        await af.put(value(2), durable=True)
        await af.put(SMALL, durable=True)

    with World(sim_seed) as world:
        cluster, _ = stage(world, 2, durable=True)
        cluster.driver(nothing, stay=True)
        ended(world, cluster.driver(main, namespace="fleeting"))
        world.run_for(0.3)
        assert len(table(cluster)) == 2
        assert cluster.sim_head is not None
        cluster.sim_head.kill(machine_down=False)
        world.run_for(60.0)
        assert len(table(cluster)) == 0
        assert keepers(cluster) == []


@pytest.mark.parametrize("dies", ["is killed", "is not heard any more"])
def test_do_3_one_that_keeps_it_dies_while_the_other_one_leaves(sim_seed: int, dies: str) -> None:
    """A third one is told to fetch it from the one that dies. The one that leaves has it as well, and does so until then."""

    async def main() -> Any:
        [_, _, ref] = await Maker.options(**on(1), max_restarts=-1).remote().put([1])
        put.set()
        await leaving.wait()
        await af.drain_node(ids[0], deadline=60.0)
        drains.set()
        begun = asyncio.get_running_loop().time()
        while any(row["node_id"] == ids[0] and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.1)
        took = asyncio.get_running_loop().time() - begun
        return took, await Reader.options(num_cpus=1).remote().read([ref])

    put, leaving, drains, ids = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[str]()
    with World(sim_seed) as world:
        # The first node has no room for it.
        options: dict[str, Any] = {"scheme": "unix" if dies == "is killed" else "tcp"}
        cluster = SimCluster(world, num_cpus=0, node_options=OPTIONS, object_store_memory="2MiB", **options)
        for number in range(1, 4):
            cluster.add_node(num_cpus=4, resources={f"n{number}": 10}, object_store_memory="64MiB")
        world.run_for(5.0)
        driver = cluster.driver(main)
        world.run_until(put.is_set, 60.0)
        world.run_for(1.0)
        found = [found for found in table(cluster).all() if found.size > 100_000][-1]
        ids += [*found.homes]
        assert len(ids) == COPIES
        leaving.set()
        world.run_until(drains.is_set, 20.0)
        other = next(node for node in cluster.nodes if node.node is not None and node.node.node_id == ids[1])
        if dies == "is killed":
            world.kill(other.host)
        else:
            for host in world.living():
                if host.machine == other.host.machine:
                    host.pause()
        took, values = ended(world, driver)
        assert values == [total(value(1))]
        assert took < 40.0, "it need not stay until its deadline"
        assert set(found.homes).isdisjoint(ids)
        table(cluster)


@af.remote
class Holder:
    """Keeps the store of its node full."""

    async def hold(self) -> None:
        self.held = await (await af.put(value(7, 1_500_000)))

    async def let_go(self) -> None:
        self.held = None


def test_do_3_a_node_that_was_full_for_a_while_is_asked_again(sim_seed: int) -> None:
    async def main() -> None:
        refs = await Maker.options(**on(1), max_restarts=-1).remote().put([*range(8)])
        holder = Holder.options(**on(3)).remote()
        await holder.hold()
        put.set()
        await room.wait()
        await holder.let_go()
        await asyncio.sleep(60.0)
        del refs

    put, room = asyncio.Event(), asyncio.Event()
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=0, node_options=OPTIONS, object_store_memory="2MiB")
        first, _, last = (
            cluster.add_node(num_cpus=4, resources={f"n{number}": 10}, object_store_memory=size)
            for number, size in enumerate(("64MiB", "64MiB", "16MiB"), 1)
        )
        world.run_for(5.0)
        driver = cluster.driver(main)
        world.run_until(put.is_set, 60.0)
        world.run_for(1.0)
        last.spill.capacity_bytes = 0
        world.kill(first.host)
        world.run_for(25.0)
        large = [found for found in table(cluster).all() if found.size > 100_000]
        assert min(len(found.homes) for found in large) == 1, "there is no room"
        last.spill.capacity_bytes = None
        room.set()
        ended(world, driver)
        assert {len(found.homes) for found in large} == {COPIES}
        table(cluster)


@pytest.mark.parametrize("first", ["the link", "the object"])
def test_hv_3_what_is_put_while_a_link_is_bad_does_not_wait_for_it(sim_seed: int, first: str) -> None:
    """Also what was on its way to the node with that link before anybody knew."""

    async def main() -> list[float]:
        loop, took = asyncio.get_running_loop(), []
        await begin.wait()
        for seed in range(4):
            begun = loop.time()
            await af.put(value(seed, 200_000), durable=True)
            took.append(loop.time() - begun)
        return took

    begin = asyncio.Event()
    with World(sim_seed) as world:
        cut = Cut(world, others=2)
        driver = cut.driver(main)
        world.run_for(1.0)
        cut.cut()
        if first == "the object":
            world.run_for(0.5)
        else:
            world.run_until(cut.apart, 20.0)
        begin.set()
        took = cut.ends(driver)
        assert max(took) < (10.0 if first == "the object" else 1.0), took
        table(cut.cluster)


def test_hv_3_a_node_that_leaves_does_not_wait_for_a_bad_link(sim_seed: int) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        refs = [await af.put(value(seed, 200_000), durable=True) for seed in range(3)]
        put.set()
        await begin.wait()
        begun = loop.time()
        await af.drain_node(leaves, deadline=60.0)
        while any(row["node_id"] == leaves and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.1)
        took = loop.time() - begun
        assert [total(await ref) for ref in refs] == [total(value(seed, 200_000)) for seed in range(3)]
        return took

    put, begin = asyncio.Event(), asyncio.Event()
    with World(sim_seed) as world:
        cut = Cut(world, others=3)
        driver = cut.driver(main)
        world.run_until(put.is_set, 20.0)
        kept = [node for found in table(cut.cluster).all() for node in found.homes]
        leaves = max(map(cut.node_id, cut.others), key=kept.count)
        assert leaves in kept
        cut.cut()
        world.run_until(cut.apart, 20.0)
        begin.set()
        assert cut.ends(driver) < 10.0
        assert all(leaves not in found.homes and len(found.homes) == COPIES for found in table(cut.cluster).all())
