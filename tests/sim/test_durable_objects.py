"""Objects that the cluster owns: they outlive whoever put them, nodes that keep them, and the head."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow._core.policy.durable_objects import COPIES, DurableObjects
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.sim_node import SimNode
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import OPTIONS, total, value

SMALL = {"a small value": 1}


@af.remote
class Maker:
    """Puts what the cluster is to own, and can be killed."""

    async def put(self, seeds: list[int]) -> list[Any]:
        inner = await af.put(value(99))
        small = await af.put(SMALL, durable=True)
        large = [await af.put(value(seed), durable=True) for seed in seeds]
        return [small, await af.put([inner, small], durable=True), *large]


@af.remote
class Reader:
    async def read(self, refs: list[Any]) -> list[Any]:
        return [total(each) if isinstance(each, np.ndarray) else each for each in await af.get(refs)]


@af.remote
class Freer:
    async def read_and_free(self, refs: list[Any]) -> int:
        [_, number] = await refs[0]
        await af.free(refs)
        with pytest.raises(af.ObjectFreedError, match="was freed, by a program"):
            await refs[0]
        return int(number)


def stage(world: World, nodes: int, **options: Any) -> tuple[SimCluster, list[SimNode]]:
    """A first node without CPUs, so that nothing runs there, and others with one name each."""
    cluster = SimCluster(world, num_cpus=0, node_options=OPTIONS, **options)
    others = [cluster.add_node(num_cpus=4, resources={f"n{number}": 10}) for number in range(1, nodes + 1)]
    world.run_until(lambda: all(node.node is not None for node in others), 30.0)
    world.run_for(1.0)
    return cluster, others


def on(number: int) -> dict[str, Any]:
    return {"resources": {f"n{number}": 1}, "num_cpus": 0}


def ended(world: World, driver: SimDriver, timeout_s: float = 300.0) -> Any:
    world.run_until(lambda: driver.ended, timeout_s)
    return driver.result()


async def nothing() -> None:
    """What the program does that the cluster ends with."""


def keepers(cluster: SimCluster) -> list[int]:
    """How many nodes keep each object, as the nodes themselves say."""
    kept = [node.node._kept._extents for node in cluster.nodes if node.host.alive and node.node is not None and node.node._kept is not None]
    return sorted(sum(index in extents for extents in kept) for index in {index for extents in kept for index in extents})


def table(cluster: SimCluster) -> DurableObjects:
    """What the head knows."""
    assert cluster.head is not None
    found = cluster.head._durables().table
    found.check()
    return found


def nothing_is_left(world: World, cluster: SimCluster, driver: SimDriver) -> None:
    """The cluster owns nothing any more, and no node keeps anything for it."""
    world.run_for(5.0)
    assert len(table(cluster)) == 0
    assert keepers(cluster) == []
    driver.forget()
    cluster.settle()
    cluster.stop()


def test_17_what_is_put_durably_outlives_its_putter(sim_seed: int) -> None:
    async def main() -> Any:
        maker, reader = Maker.options(**on(1)).remote(), Reader.options(**on(2)).remote()
        refs = await maker.put([1, 2])
        await af.kill(maker)
        there = await reader.read([refs[0], *refs[2:]])
        inner, small = await refs[1]
        assert [total(await inner), await small] == [total(value(99)), SMALL]
        assert [total(await ref) for ref in refs[2:]] == [total(value(1)), total(value(2))]
        rows = [row for row in await af.state.list_objects() if row["owner"] == "cluster"]
        assert sorted(len(row["place"].split(", ")) for row in rows) == [1, 1, 2, 2, 2]
        assert {row["place"] for row in rows if row["size_bytes"] < 1000} == {"head"}
        count = await af.free([*refs, inner])
        await asyncio.sleep(0.1)  # The nodes hear of it as the driver does.
        with pytest.raises(af.ObjectFreedError, match="was freed, by a program"):
            await refs[2]
        return there, count

    with World(sim_seed) as world:
        cluster, _ = stage(world, 2)
        driver = cluster.driver(main)
        there, count = ended(world, driver)
        assert there == [SMALL, total(value(1)), total(value(2))]
        assert count == 5
        finish(cluster, driver)


def test_17_who_frees_a_small_value_has_it_no_more(sim_seed: int) -> None:
    """Whoever has put or read it has the value itself; and what was inside goes with it."""

    async def main() -> None:
        large = await af.put(value(1, 100_000), durable=True)
        small = await af.put([large, 7], durable=True)
        core, index = large._core, large._entry.index
        del large
        assert await Freer.remote().read_and_free([small]) == 7
        assert (await small)[1] == 7, "who has put it has not heard of that"
        with pytest.raises(af.ObjectFreedError, match="was freed, by a program"):
            await Reader.remote().read([small])
        await af.free(small)
        with pytest.raises(af.ObjectFreedError, match="was freed, by a program"):
            await small
        with core.lock:
            core.references.drain()
            assert ("cluster", index) not in core.references.borrowed.entries, "what was inside was forgotten"
        assert await core.durables.free([index]) == 1

    with World(sim_seed) as world:
        cluster, _ = stage(world, 2)
        driver = cluster.driver(main)
        ended(world, driver)
        finish(cluster, driver)


def test_17_one_node_that_keeps_it_may_die_after_another(sim_seed: int) -> None:
    """As long as there is time to fetch it once more in between (DO-3)."""
    kept: list[list[int]] = []

    async def main() -> Any:
        refs = await Maker.options(**on(1)).remote().put([1, 2, 3])
        put.set()
        await died.wait()
        found = [total(await ref) for ref in refs[2:]]
        await af.free([*refs, *(await refs[1])])
        return found

    put, died = asyncio.Event(), asyncio.Event()
    with World(sim_seed) as world:
        cluster, others = stage(world, 4)
        driver = cluster.driver(main)
        world.run_until(put.is_set, 60.0)
        kept.append(keepers(cluster))
        for node in others[:2]:
            world.kill(node.host)
            world.run_for(30.0)
            kept.append(keepers(cluster))
        died.set()
        assert ended(world, driver) == [total(value(seed)) for seed in (1, 2, 3)]
        assert kept == [[COPIES] * 4] * 3, "three that were put, and what was in the fourth"
        finish(cluster, driver)


def test_17_all_nodes_that_keep_it_die_and_readers_are_told(sim_seed: int) -> None:
    """The first node, which the cluster ends with, has no room for it: so another one is asked."""

    async def main() -> tuple[str, str]:
        [_, _, ref] = await Maker.options(**on(1)).remote().put([1])
        put.set()
        await died.wait()
        with pytest.raises(af.ObjectLostError) as lost:
            await ref
        again = await Maker.options(num_cpus=1).remote().put([7])
        assert await Reader.options(num_cpus=1).remote().read(again[2:]) == [total(value(7))]
        return type(lost.value).__name__, str(lost.value)

    put, died = asyncio.Event(), asyncio.Event()
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=0, node_options=OPTIONS, object_store_memory="2MiB")
        for number in range(1, 4):
            cluster.add_node(num_cpus=4, resources={f"n{number}": 10}, object_store_memory="64MiB")
        world.run_for(5.0)
        driver = cluster.driver(main)
        world.run_until(put.is_set, 60.0)
        [index] = [found.index for found in table(cluster).all() if found.size > 100_000 and len(found.homes) == COPIES][:1]
        for node in cluster.nodes[1:]:
            if node.node is not None and node.node._kept is not None and index in node.node._kept._extents:
                world.kill(node.host)
        world.run_for(30.0)
        died.set()
        kind, words = ended(world, driver)
        assert kind == "ObjectLostError"
        assert "that the cluster owned: node " in words
        assert "and no other node has it" in words


def test_17_both_nodes_that_keep_it_leave_and_hand_it_on_first(sim_seed: int) -> None:
    async def main() -> Any:
        [_, _, ref] = await Maker.options(**on(1), max_restarts=-1).remote().put([1])
        put.set()
        await leaving.wait()
        await asyncio.gather(*(af.drain_node(node_id, deadline=60.0) for node_id in ids))
        while any(row["node_id"] in ids and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.1)
        return await Reader.options(num_cpus=1).remote().read([ref])

    put, leaving, ids = asyncio.Event(), asyncio.Event(), list[str]()
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=0, node_options=OPTIONS, object_store_memory="2MiB")
        for number in range(1, 5):
            cluster.add_node(num_cpus=4, resources={f"n{number}": 10}, object_store_memory="64MiB")
        world.run_for(5.0)
        driver = cluster.driver(main)
        world.run_until(put.is_set, 60.0)
        ids += [*next(found.homes for found in table(cluster).all() if found.size > 100_000)]
        assert len(ids) == COPIES
        leaving.set()
        assert ended(world, driver) == [total(value(1))]


def test_17_it_goes_at_its_time_and_with_its_namespace(sim_seed: int) -> None:
    async def main() -> Any:
        short = await af.put(value(1), durable=True, ttl=2.0)
        await af.put(value(2), durable=True)
        await af.put(SMALL, durable=True)
        before = total(await short)
        await asyncio.sleep(3.0)
        with pytest.raises(af.ObjectFreedError):
            await short
        return before

    with World(sim_seed) as world:
        cluster, _ = stage(world, 2)
        owner = cluster.driver(nothing, stay=True)
        driver = cluster.driver(main, namespace="fleeting", stay=True)
        assert ended(world, driver) == total(value(1))
        assert keepers(cluster) == [COPIES]
        driver.end()
        world.run_for(5.0)
        assert owner.ended
        assert keepers(cluster) == []
        assert len(table(cluster)) == 0
        cluster.settle()
        cluster.stop()


@pytest.mark.parametrize("machine_down", [False, True])
def test_17_the_head_dies_and_what_was_put_is_there(sim_seed: int, machine_down: bool) -> None:
    """HM-1: who was told that it is kept is right, also when the head dies in that very moment; who was not yet is told later."""

    async def main() -> Any:
        maker = Maker.options(**on(1)).remote()
        refs = []
        for seed in range(6):
            refs += (await maker.put([seed]))[2:]
        found = await Reader.options(**on(2)).remote().read(refs)
        assert found == [total(await ref) for ref in refs]
        return found

    with World(sim_seed) as world:
        cluster, _ = stage(world, 3, durable=True)
        rng = world.rng("deaths of the head")
        assert cluster.sim_head is not None
        head = cluster.sim_head
        for _ in range(4):
            world.at_time(world.now + rng.uniform(0.01, 3.0), lambda: head.host.alive and head.kill(machine_down=machine_down))
        cluster.driver(nothing, stay=True)
        driver = cluster.driver(main, namespace="fleeting", stay=True)
        assert ended(world, driver) == [total(value(seed)) for seed in range(6)]
        world.run_for(5.0)
        assert set(keepers(cluster)) == {COPIES}
        driver.end()
        world.run_for(20.0)
        assert keepers(cluster) == []
        assert len(table(cluster)) == 0
        cluster.settle()
        cluster.stop()


def test_17_what_is_freed_while_the_head_dies_is_freed_everywhere(sim_seed: int) -> None:
    """It may have written that down, and told no node: each of them says what it keeps when the head is back."""

    async def main() -> int:
        refs = [await af.put(value(seed, 20_000), durable=True) for seed in range(12)]
        dying.set()
        counts = []
        for ref in refs:
            counts.append(await af.free(ref))
            await asyncio.sleep(0.02)
        return sum(counts)

    dying = asyncio.Event()
    with World(sim_seed) as world:
        cluster, _ = stage(world, 3, durable=True)
        cluster.driver(nothing, stay=True)
        driver = cluster.driver(main, stay=True)
        world.run_until(dying.is_set, 60.0)
        rng = world.rng("deaths of the head")
        head = cluster.sim_head
        assert head is not None
        while not driver.ended:
            world.run_for(rng.uniform(0.005, 0.05))
            if head.host.alive:
                head.kill(machine_down=rng.random() < 0.5)
            world.run_for(2.0)  # Longer pauses between its lives, and nodes would give themselves up.
        # Asked again it may have been freed by the one that died.
        assert driver.result() <= 12
        nothing_is_left(world, cluster, driver)


def test_17_puts_and_frees_while_nodes_die_at_random(sim_seed: int) -> None:
    """Every put ends; what was kept and is not freed is read as long as one of two nodes lived on in time; nothing is left."""

    async def main() -> tuple[int, int]:
        kept: list[tuple[int, Any]] = []
        refused = 0
        for seed in range(20):
            try:
                kept.append((seed, (await asyncio.wait_for(af.put(value(seed, 100_000), durable=True), 60.0))))
            except af.ObjectLostError:
                refused += 1
            if seed % 3 == 2 and kept:
                await af.free(kept.pop(0)[1])
            await asyncio.sleep(0.3)
        for seed, ref in kept:
            try:
                assert total(await asyncio.wait_for(_get(ref), 60.0)) == total(value(seed, 100_000))
            except af.ObjectFreedError:
                raise
            except af.ObjectLostError:
                refused += 1
        await af.free([ref for _, ref in kept])
        return len(kept), refused

    with World(sim_seed) as world:
        cluster, others = stage(world, 4)
        rng = world.rng("deaths of nodes")
        for node in others[:3]:
            world.at_time(world.now + rng.uniform(0.1, 8.0), _killer(world, node))
        driver = cluster.driver(main)
        kept, refused = ended(world, driver)
        assert kept > 5
        # All nodes but two may die within a moment; what only those had is lost, and said to be.
        assert refused <= 10
        table(cluster)
        finish(cluster, driver)


async def _get(ref: Any) -> Any:
    return await ref


def _killer(world: World, node: SimNode) -> Callable[[], None]:
    def kill() -> None:
        if node.host.alive:
            world.kill(node.host)

    return kill


def test_17_what_there_is_no_room_for_goes_to_disk_and_comes_back(sim_seed: int) -> None:
    """Also what was fetched from another node, and belongs to no process of this one."""

    async def main() -> Any:
        refs = [await af.put(value(seed), durable=True) for seed in range(12)]  # 38 MB in stores of 16
        found = [total(await ref) for ref in refs]
        far = await Reader.options(**on(1)).remote().read(refs[:4])
        await af.free(refs)
        return found, far

    with World(sim_seed) as world:
        cluster, _ = stage(world, 1, object_store_memory="16MiB")
        driver = cluster.driver(main)
        found, far = ended(world, driver)
        assert found == [total(value(seed)) for seed in range(12)]
        assert far == found[:4]
        finish(cluster, driver)
