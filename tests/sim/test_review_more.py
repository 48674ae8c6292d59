"""Review: supervision, two nodes, heads, cancels."""
from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import Ledger, block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_review_moves import links_mended  # noqa: F401


class Member(af.Actor, num_cpus=0):
    def __init__(self) -> None:
        self.lives = 0

    def __checkpoint__(self) -> int:
        return self.lives

    def __restore__(self, lives: int) -> None:
        self.lives = lives + 1

    async def count(self) -> int:
        return self.lives

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.parametrize("deadline", [60.0, 0.01])
def test_supervised_actors_spend_nothing(sim_seed: int, strategy: str, deadline: float) -> None:
    async def main() -> list[int]:
        there = [Member.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote() for _ in range(3)]
        here = Member.options(resources={"first": 1}).remote()
        async with af.supervise(*there, here, strategy=strategy, max_restarts=0, within=1_000.0):
            assert {await actor.node() for actor in there} == {node_id(second)}
            await af.drain_node(node_id(second), deadline=deadline)
            await asyncio.sleep(10.0)
            assert node_id(second) not in {await actor.node() for actor in there}
            return [await actor.count() for actor in (*there, here)]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 100})
        driver = cluster.driver(main)
        ended(world, driver)
        print("LIVES", driver.result())
        finish(cluster, driver)


def test_two_nodes_drain_at_once(sim_seed: int) -> None:
    async def main() -> tuple[list[list[int]], list[int]]:
        ledgers = [
            Ledger.options(num_cpus=0, max_concurrency=4, scheduling_strategy=af.NodeAffinity(node_id(node), soft=True)).remote()
            for node in (second, third)
            for _ in range(5)
        ]
        refs = [[ledger.add.remote(n) for n in range(20)] for ledger in ledgers]
        await af.get(refs[0][3])
        await asyncio.gather(af.drain_node(node_id(second), deadline=60.0), af.drain_node(node_id(third), deadline=60.0))
        for line, ledger in zip(refs, ledgers, strict=True):
            line += [ledger.add.remote(n) for n in range(20, 40)]
        counts = [await af.get(line) for line in refs]
        return counts, [(await ledger.all())[1] for ledger in ledgers]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        third = cluster.add_node(num_cpus=2)
        world.run_until(lambda: third.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        begun = world.now
        ended(world, driver)
        counts, lives = driver.result()
        assert all(sorted(line) == list(range(1, 41)) for line in counts)
        print("LIVES", lives, "TOOK", world.now - begun)
        world.run_until(lambda: not second.host.alive and not third.host.alive, 10.0)
        finish(cluster, driver)


def test_the_head_dies_in_the_middle(sim_seed: int) -> None:
    async def main() -> tuple[list[int], list[int], list[int]]:
        ledger = Ledger.options(num_cpus=0, max_concurrency=2, scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        refs = [ledger.add.remote(n) for n in range(40)]
        await af.get(refs[3])
        await af.drain_node(node_id(second), deadline=60.0)
        now.append(True)
        for n in range(40, 80):
            refs.append(ledger.add.remote(n))
            await asyncio.sleep(0.01)
        counts = await af.get(refs)
        entries, lives = await ledger.all()
        return counts, entries, lives, [row["restarts"] for row in await af.state.list_actors()]

    now: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(now), 20.0)
        world.run_for(0.0005 * sim_seed)
        world.kill(cluster.sim_head.host)
        ended(world, driver)
        counts, entries, lives, restarts = driver.result()
        assert sorted(counts) == list(range(1, 81))
        assert sorted(entries) == list(range(80))
        assert restarts == [0]
        world.run_until(lambda: not second.host.alive, 10.0)
        finish(cluster, driver)


class Slow(af.Actor, max_restarts=1, max_concurrency=1):
    async def slow(self) -> int:
        await asyncio.sleep(0.5)
        return 1

    async def quick(self) -> int:
        return 2

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


def test_calls_that_are_held_are_cancelled_and_time_out(sim_seed: int) -> None:
    async def main() -> list[str]:
        actor = Slow.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True), max_pending_calls=3).remote()
        await actor.node()
        running = asyncio.ensure_future(actor.slow())
        await asyncio.sleep(0.1)
        held = [asyncio.ensure_future(actor.quick()) for _ in range(2)]
        await asyncio.sleep(0.01)
        more = asyncio.ensure_future(actor.quick())
        await asyncio.sleep(0.01)
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        await asyncio.sleep(0.0003 * sim_seed)
        for call in held:
            call.cancel()
        await drain
        assert await asyncio.wait_for(more, 20.0) == 2
        assert await running == 1
        return [type((await asyncio.gather(call, return_exceptions=True))[0]).__name__ for call in held]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == ["CancelledError"] * 2
        finish(cluster, driver)
