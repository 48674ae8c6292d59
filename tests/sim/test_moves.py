"""Actors that are told to move in moments that do not suit them: while they are made, or are to end as well."""

from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import ended, gone, node_id, two_nodes
from tests.sim.test_nodes import finish


class Slow(af.Actor, max_restarts=-1, num_cpus=0, resources={"m": 1}):
    """It takes its time to be made, and to leave."""

    def __init__(self, seconds: float) -> None:
        self.count, self.seconds = 0, seconds

    async def __aenter__(self) -> Slow:
        await asyncio.sleep(self.seconds)
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(0.5)

    def __checkpoint__(self) -> int:
        return self.count

    def __restore__(self, count: int) -> None:
        self.count = count

    @af.method
    async def call(self) -> int:
        self.count += 1
        await asyncio.sleep(0.01)
        return self.count


@pytest.mark.parametrize("head_dies", [False, True])
def test_mv_2_an_actor_that_is_told_to_move_while_it_is_made_moves_with_what_it_was_told(sim_seed: int, head_dies: bool) -> None:
    """A head that comes back learns that it lives, so that it is called before it has gone."""

    async def main() -> tuple[list[str], list[int]]:
        rng = world.rng("moments")
        options = {"label_selector": {"actorflow.io/node-id": f"!{first}"}}
        actors = [Slow.options(**options).remote(rng.uniform(0.5, 3.0)) for _ in range(4)]  # type: ignore[arg-type]
        refs = [actor.call.remote() for actor in actors for _ in range(5)]
        await asyncio.sleep(rng.uniform(0.05, 2.0))
        ready.set()
        await asyncio.sleep(0.3)
        draining = asyncio.ensure_future(af.drain_node(node_id(second), deadline=300.0))
        if head_dies:
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            cluster.sim_head.kill(machine_down=False)
        for _ in range(40):
            refs += [actor.call.remote() for actor in actors]
            await asyncio.sleep(0.1)
        await draining
        ends = await asyncio.gather(*refs, return_exceptions=True)
        await gone(second, timeout_s=100.0)
        return [str(end) for end in ends if not isinstance(end, int)], [await actor.call() for actor in actors]

    ready = asyncio.Event()
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, durable=True)
        second = cluster.add_node(num_cpus=2, resources={"m": 100})
        world.run_for(5.0)
        first = cluster.node.node_id  # type: ignore[union-attr]
        driver = cluster.driver(main)
        world.run_until(ready.is_set, 60.0)
        cluster.add_node(num_cpus=1, resources={"m": 10})
        ended(world, driver, 500.0)
        assert driver.result() == ([], [46] * 4)
        finish(cluster, driver)


class Stubborn(af.Actor, max_restarts=-1, num_cpus=0):
    """Nobody can store its state, so it cannot move."""

    def __checkpoint__(self) -> int:
        raise ValueError("not now")

    async def call(self, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        return 1


@pytest.mark.parametrize("how", ["kill", "drop"])
@pytest.mark.parametrize("busy", [False, True])
def test_mv_5_an_actor_that_is_to_end_does_not_stay_to_the_deadline(sim_seed: int, how: str, busy: bool) -> None:
    async def main() -> int:
        actor = Stubborn.options(label_selector={"actorflow.io/node-id": f"!{first}"}).remote()
        await actor.call()
        third.set()
        await asyncio.sleep(2.0)
        running = actor.call.remote(world.rng("busy").uniform(0.0, 20.0) if busy else 0.0)
        await asyncio.sleep(0.1)
        await af.drain_node(node_id(second), deadline=600.0)
        await asyncio.sleep(world.rng("moment").uniform(0.0, 5.0))
        if how == "kill":
            await asyncio.wait_for(af.kill(actor, graceful=True), 60.0)
        del actor
        async with asyncio.timeout(60.0):
            while any(row["state"] != "dead" for row in await af.state.list_actors()):
                await asyncio.sleep(0.1)
        return await running

    third = asyncio.Event()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        first = cluster.node.node_id  # type: ignore[union-attr]
        driver = cluster.driver(main)
        world.run_until(third.is_set, 60.0)
        cluster.add_node(num_cpus=1)
        ended(world, driver, 800.0)
        assert driver.result() == 1, "what ran could end"
        finish(cluster, driver)
