"""Review: callers that come while an actor moves."""
from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import Ledger, block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_review_moves import links_mended  # noqa: F401


class Plain(af.Actor, max_restarts=1):
    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


@af.remote
class Caller:
    """A process of its own, which calls an actor for the first time when it is told."""

    async def ready(self) -> bool:
        return True

    async def call(self, actor: object) -> str:
        return await actor.node()


@pytest.mark.parametrize("kind", ["dedicated", "shared"])
def test_first_calls_at_any_moment_of_the_move(sim_seed: int, kind: str) -> None:
    async def main() -> int:
        options = {"process": "shared", "num_cpus": 0} if kind == "shared" else {}
        actor = Plain.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True), **options).remote()
        assert await actor.node() == node_id(second)
        callers = [Caller.options(num_cpus=0, resources={"first": 1}).remote() for _ in range(30)]
        for caller in callers:
            await caller.ready()
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        calls = []
        for caller in callers:
            calls.append(caller.call.remote(actor))
            await asyncio.sleep(gap)
        await drain
        found = await asyncio.gather(*calls, return_exceptions=True)
        errors = [one for one in found if isinstance(one, BaseException)]
        assert not errors, f"{len(errors)}: {errors[0]}"
        return len(found)

    gap = 0.0002 * (1 + sim_seed % 20)
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 100})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == 30
        finish(cluster, driver)
