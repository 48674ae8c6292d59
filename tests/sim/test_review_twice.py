"""Review: a call that runs when its node leaves at the deadline."""
from __future__ import annotations

import asyncio

import actorflow as af
from actorflow.testing import World
from tests.sim.test_draining import ended, node_id, two_nodes
from tests.sim.test_nodes import finish
from tests.sim.test_review_moves import links_mended  # noqa: F401

STARTED: list[str] = []


class Pays(af.Actor, max_restarts=1):
    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id

    async def pay(self) -> str:
        STARTED.append(await self.node())
        await asyncio.sleep(60.0)
        return "paid"


def test_what_has_started_does_not_run_again(sim_seed: int) -> None:
    """No max_task_retries: it is an error, as after a crash."""

    async def main() -> object:
        actor = Pays.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        await actor.node()
        call = actor.pay.remote()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=5.0)
        return (await asyncio.gather(call, return_exceptions=True))[0]

    STARTED.clear()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        print("RESULT", repr(driver.result())[:80], STARTED)
        assert len(STARTED) == 1, STARTED
        finish(cluster, driver)
