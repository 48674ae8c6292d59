"""Nodes that leave in order while the head is between two of its lives: nobody takes them for nodes that died (ND-4, DR-3, DR-4)."""

from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._core.head.returning import RETURN_S
from actorflow._core.node.draining import LAST_WORD_S
from actorflow.testing import World
from tests.sim.test_draining import ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish

HERE = {"resources": {"second": 1}, "num_cpus": 0}
DEADLINE_S = 5.0
COMES_SOON_S = 2.0
"""A head is back by then."""


class One(af.Actor, max_restarts=1):
    async def call(self) -> int:
        return 1

    async def crash(self) -> None:
        _runtime.current().host.on_exit(3)  # type: ignore[attr-defined]


lives: list[int] = []


@af.remote(num_cpus=0, lifetime="detached", max_retries=1)
async def long(seconds: float) -> str:
    """It crashes the first time."""
    lives.append(1)
    if len(lives) == 1:
        _runtime.current().host.on_exit(3)  # type: ignore[attr-defined]
    await asyncio.sleep(seconds)
    return "done"


@pytest.mark.parametrize("away", ["for a moment", "for long"])
@pytest.mark.parametrize("what", ["restarts", "supervision", "detached"])
def test_dr_3_what_ends_with_a_node_that_leaves_while_the_head_is_away_is_no_failure(sim_seed: int, what: str, away: str) -> None:
    """Neither of an actor that has spent its restarts, nor of a supervision that allows none, nor of a detached call. Where the head is
    away for long the node goes unheard, and the head remembers that it was to go.
    """
    lives.clear()

    async def main() -> object:
        if what == "detached":
            ref = await long.options(**HERE).submit(20.0)  # type: ignore[arg-type]
            while len(lives) < 2:
                await asyncio.sleep(0.1)
        else:
            actor = One.options(**HERE).remote()  # type: ignore[arg-type]
            await actor.call()
        if what == "restarts":
            with pytest.raises(af.ActorflowError):
                await actor.crash()
            await asyncio.sleep(2.0)
            await actor.call()
        if what == "supervision":
            await af.supervise(actor, max_restarts=0, within=1_000.0)
        await af.drain_node(node_id(second), deadline=DEADLINE_S)
        draining.set()
        await asyncio.sleep(30.0)
        return await asyncio.wait_for(ref if what == "detached" else actor.call(), 100.0)

    draining = asyncio.Event()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        assert cluster.sim_head is not None
        driver = cluster.driver(main)
        world.run_until(draining.is_set, 60.0)
        world.run_for(DEADLINE_S - world.rng("moment").uniform(0.0, 0.3))
        until = world.now + (LAST_WORD_S * 1.5 if away == "for long" else 0.0)
        cluster.sim_head.kill()
        while world.now < until:
            world.run_for(0.1)
            if cluster.sim_head.host.alive:
                cluster.sim_head.kill()
        world.run_until(lambda: not second.host.alive, 30.0)
        cluster.add_node(num_cpus=1, resources={"second": 10})
        ended(world, driver, 300.0)
        assert driver.result() == ("done" if what == "detached" else 1)
        finish(cluster, driver)


@pytest.mark.parametrize("who", ["a program", "its machine"])
def test_hr_1_nobody_waits_for_a_node_that_has_left_while_the_head_was_away(sim_seed: int, who: str) -> None:
    """At whatever moment of its leaving the head dies, and whether or not it has known that the node is to go."""

    async def main() -> float:
        await (await Place.options(num_cpus=0).remote()).node()
        rng = world.rng("moments")
        assert cluster.sim_head is not None
        assert second.node is not None
        if who == "a program":
            await af.drain_node(node_id(second), deadline=60.0)
        else:
            cluster.sim_head.kill()
            world.at_host(second.host, world.now, lambda: second.node.drain(60.0, "it was asked to end"))  # type: ignore[union-attr]
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        if cluster.sim_head.host.alive:
            cluster.sim_head.kill()
        async with asyncio.timeout(LAST_WORD_S):
            while second.host.alive:
                await asyncio.sleep(0.05)
        begun = asyncio.get_running_loop().time()
        await (await Place.options(num_cpus=0).remote()).node()
        return asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() < COMES_SOON_S < RETURN_S
        finish(cluster, driver)


def test_nd_4_a_machine_that_ends_is_not_kept_by_a_head_that_is_away(sim_seed: int) -> None:
    async def main() -> None:
        actor = Place.options(**HERE).remote()  # type: ignore[arg-type]
        await actor.node()
        there.set()
        await asyncio.sleep(60.0)

    there = asyncio.Event()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        assert cluster.sim_head is not None
        driver = cluster.driver(main)
        world.run_until(there.is_set, 60.0)
        world.at_host(second.host, world.now, lambda: second.node.drain(DEADLINE_S, "it was asked to end"))  # type: ignore[union-attr]
        world.run_for(DEADLINE_S - 0.2)
        cluster.sim_head.kill()
        for _ in range(6):
            world.run_for(0.1)
            if cluster.sim_head.host.alive:
                cluster.sim_head.kill()
        assert not second.host.alive
        ended(world, driver)
        finish(cluster, driver)
