"""Review: kill in a move, a checkpoint that fails in a move."""
from __future__ import annotations

import asyncio

import actorflow as af
from actorflow.testing import World
from tests.sim.test_draining import Ledger, ended, node_id, two_nodes
from tests.sim.test_nodes import finish
from tests.sim.test_review_moves import Signal, links_mended  # noqa: F401


def test_a_bounce_ends_a_move_that_hangs(sim_seed: int) -> None:
    async def main() -> float:
        signal = Signal.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        await signal.node()
        waits = signal.wait.remote()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=300.0)
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        await af.kill(signal, no_restart=False)
        await signal.node()
        took = asyncio.get_running_loop().time() - begun
        waits.cancel()
        return took

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        assert driver.result() < 10.0
        finish(cluster, driver)


class Unlucky(Ledger, max_restarts=1):
    def __checkpoint__(self):
        raise RuntimeError("a lock cannot be pickled")


def test_a_state_that_cannot_be_stored_is_not_thrown_away_early(sim_seed: int) -> None:
    async def main() -> list[int]:
        actor = Unlucky.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True), num_cpus=0).remote()
        await af.get([actor.add.remote(n) for n in range(10)])
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(2.0)
        return (await actor.all())[0]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == list(range(10))
        finish(cluster, driver)
