"""Detached calls: they outlive programs, nodes and the head, and end once."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from actorflow.testing.sim_node import SimNode
from tests.sim.test_durable_objects import _killer, ended, keepers, nothing, nothing_is_left, on, stage, table
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import total, value

begun: list[str] = []
"""In which processes the calls of one test have begun."""


@af.remote(num_cpus=0, lifetime="detached")
async def make(seed: int, seconds: float = 0.0, size: int = 100_000) -> np.ndarray[Any, Any]:
    begun.append(af.get_runtime_context().process_id)
    await asyncio.sleep(seconds)
    return value(seed, size)


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
async def once(seconds: float) -> str:
    begun.append(af.get_runtime_context().process_id)
    await asyncio.sleep(seconds)
    return "done"


@af.remote(num_cpus=0)
async def weigh(refs: list[Any]) -> list[int]:
    return [total(found) for found in await af.get(refs)]


@af.remote(num_cpus=0, lifetime="detached", name="keeper", max_restarts=-1)
class Keeper:
    async def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    async def give(self) -> list[Any]:
        return self.refs


def arena(world: World, nodes: int, **options: Any) -> tuple[SimCluster, list[SimNode]]:
    """As `stage`; nothing has begun yet."""
    begun.clear()
    return stage(world, nodes, **options)


def test_17_a_call_outlives_its_program_and_its_node(sim_seed: int) -> None:
    async def starts() -> None:
        refs = [await make.options(**on(2), max_retries=-1).submit(1, 5.0), await make.submit(2)]
        keeper = await Keeper.options(**on(1)).remote()
        await keeper.keep(refs)

    async def reads() -> Any:
        refs = await (await af.get_actor("keeper")).give()
        assert await weigh(refs) == [total(value(1, 100_000)), total(value(2, 100_000))]
        count = await af.free(refs)
        await af.kill(await af.get_actor("keeper"))
        return count

    with World(sim_seed) as world:
        cluster, others = arena(world, 2)
        cluster.driver(nothing, stay=True)
        first = cluster.driver(starts)
        ended(world, first)
        world.run_until(lambda: len(begun) >= 2, 30.0)
        world.kill(others[1].host)
        cluster.add_node(num_cpus=4, resources={"n2": 10})
        second = cluster.driver(reads)
        assert ended(world, second) == 2
        assert len(begun) in (3, 4), "the other one may have been there too"
        world.run_for(5.0)
        assert len(table(cluster)) == 0
        assert keepers(cluster) == []
        cluster.settle()
        cluster.stop()


@pytest.mark.parametrize("machine_down", [False, True])
def test_dc_1_the_head_dies_again_and_again(sim_seed: int, machine_down: bool) -> None:
    """What it has taken over it makes; what it has not, the program says once more."""

    async def main() -> Any:
        refs = []
        for seed in range(8):
            refs.append(await make.options(max_retries=-1).submit(seed, 0.3 * (seed % 3), 50_000 if seed % 2 else 10))
        waiting = weigh.remote(refs)
        found = [total(each) for each in await af.get(refs)]
        assert await waiting == found
        assert await af.free(refs) >= 0  # Asked again, it may have been freed by the one that died.
        return found

    with World(sim_seed) as world:
        cluster, _ = arena(world, 3, durable=True)
        rng = world.rng("deaths of the head")
        head = cluster.sim_head
        assert head is not None
        for _ in range(4):
            world.at_time(world.now + rng.uniform(0.01, 3.0), lambda: head.host.alive and head.kill(machine_down=machine_down))
        cluster.driver(nothing, stay=True)
        driver = cluster.driver(main, stay=True)
        assert ended(world, driver) == [total(value(seed, 50_000 if seed % 2 else 10)) for seed in range(8)]
        nothing_is_left(world, cluster, driver)


def test_dc_1_nodes_die_at_random(sim_seed: int) -> None:
    """Each result is there, is the same for all, and nothing is left; a large one may be lost with both nodes that keep it."""

    async def main() -> tuple[int, int]:
        refs = []
        for seed in range(16):
            refs.append(await make.options(max_retries=-1, num_cpus=1).submit(seed, 0.4 * (seed % 4)))
            await asyncio.sleep(0.2)
        read = lost = 0
        for seed, ref in enumerate(refs):
            try:
                assert total(await asyncio.wait_for(ref, 120.0)) == total(value(seed, 100_000))
                read += 1
            except af.ObjectFreedError:
                raise
            except af.ObjectLostError:
                lost += 1
        await af.free(refs)
        return read, lost

    with World(sim_seed) as world:
        cluster, others = arena(world, 4)
        rng = world.rng("deaths of nodes")
        for node in others[:3]:
            world.at_time(world.now + rng.uniform(0.1, 6.0), _killer(world, node))
        driver = cluster.driver(main)
        read, lost = ended(world, driver)
        assert (read + lost, lost <= 8) == (16, True)
        table(cluster)
        finish(cluster, driver)


def test_do_5_a_call_without_retries_is_made_once_or_is_said_to_be_lost(sim_seed: int) -> None:
    async def main() -> list[str]:
        refs = [await once.options(**on(1)).submit(1.0) for _ in range(4)]
        started.set()
        ends = []
        for ref in refs:
            try:
                ends.append(await asyncio.wait_for(ref, 60.0))
            except af.WorkerCrashedError as error:
                assert "once (detached) has not returned, and is not tried again" in str(error)
                ends.append("lost")
        await af.free(refs)
        return ends

    started = asyncio.Event()
    with World(sim_seed) as world:
        cluster, others = arena(world, 2)
        driver = cluster.driver(main)
        world.run_until(started.is_set, 60.0)
        world.run_for(world.rng("when").uniform(0.0, 2.0))
        world.kill(others[0].host)
        ends = ended(world, driver)
        assert len(ends) == 4
        assert len(begun) <= 4
        assert ends.count("done") <= len(begun)
        finish(cluster, driver)


def test_a_node_that_is_to_leave_lets_it_end_or_moves_it(sim_seed: int) -> None:
    """What ends before the deadline ends there; the rest begins again elsewhere, and spends no retry."""

    async def main() -> Any:
        refs = [await make.options(**on(3), max_retries=1).submit(1, 1.0), await make.options(**on(3), max_retries=1).submit(2, 30.0)]
        started.set()
        while len(begun) < 2:
            await asyncio.sleep(0.1)
        [node_id] = [row["node_id"] for row in await af.state.list_nodes() if "n3" in row["resources"]]
        spare.set()
        await af.drain_node(node_id, deadline=5.0)
        found = [total(await ref) for ref in refs]
        assert await af.free(refs) == 2
        return found

    started, spare = asyncio.Event(), asyncio.Event()
    with World(sim_seed) as world:
        cluster, _ = arena(world, 3)
        driver = cluster.driver(main)
        world.run_until(spare.is_set, 60.0)
        cluster.add_node(num_cpus=4, resources={"n3": 10})
        assert ended(world, driver) == [total(value(1, 100_000)), total(value(2, 100_000))]
        assert len(begun) in (2, 3, 4)
        finish(cluster, driver)


def test_do_5_a_cancelled_call_ends_for_all_who_wait(sim_seed: int) -> None:
    async def main() -> list[str]:
        ref = await make.submit(1, 1000.0)
        waiting = [weigh.remote([ref]) for _ in range(3)]
        while not begun:
            await asyncio.sleep(0.05)
        assert ref.cancel()
        ends = []
        for each in [ref, *waiting]:
            try:
                await each
            except af.TaskCancelledError:
                ends.append("cancelled")
        while any(row["state"] != "dead" for row in await af.state.list_actors()):
            await asyncio.sleep(0.1)
        return ends

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2)
        driver = cluster.driver(main)
        assert ended(world, driver, 60.0) == ["cancelled"] * 4
        finish(cluster, driver)
