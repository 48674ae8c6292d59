"""Supervised actors whose processes die at any moment, under virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import LinkProfile, World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_draining import ended, two_nodes
from tests.sim.test_nodes import finish


class Member(af.Actor, max_task_retries=-1, num_cpus=0):
    def __init__(self) -> None:
        self.calls = 0

    async def call(self) -> int:
        self.calls += 1
        await asyncio.sleep(0.05)
        return self.calls


def test_members_that_die_at_random_are_made_anew_together(sim_seed: int) -> None:
    async def main() -> list[int]:
        actors = [Member.remote() for _ in range(4)]
        async with af.supervise(*actors, strategy="one_for_all", max_restarts=1_000, within=1_000.0):
            for _ in range(100):
                await asyncio.gather(*(actor.call() for actor in actors))
            await asyncio.sleep(3.0)
            return await asyncio.gather(*(actor.call() for actor in actors))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        rng = world.rng("kills")
        kills = 0
        while not driver.ended and kills < 12:
            world.run_for(0.2 + rng.random())
            workers = [host for host in cluster.call_hosts if host.alive]
            if workers and not driver.ended:
                world.kill(workers[int(rng.random() * len(workers))])
                kills += 1
        world.run_until(lambda: driver.ended, 300.0)
        counts = driver.result()
        # All have begun anew at one time, so they have counted the same calls, but for those that were tried again.
        assert max(counts) < 101, counts
        assert kills > 3
        driver.forget()
        cluster.settle()
        cluster.stop()


def test_too_many_failures_end_all_and_leave_nothing(sim_seed: int) -> None:
    async def main() -> str:
        actors = [Member.remote() for _ in range(3)]
        try:
            async with af.supervise(*actors, max_restarts=2, within=1_000.0):
                await asyncio.sleep(500.0)
        except af.SupervisionError as error:
            return str([await af.wait_dead(actor) for actor in actors]) + str(error)
        return "it did not give up"

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        rng = world.rng("kills")
        while not driver.ended:
            world.run_for(0.5 + rng.random())
            workers = [host for host in cluster.call_hosts if host.alive]
            if workers:
                world.kill(workers[int(rng.random() * len(workers))])
        assert "3 failures within 1000 s, and 2 are allowed" in driver.result()
        assert driver.result().count("its supervision gave up") == 3
        driver.forget()
        cluster.settle()
        cluster.stop()


TICK_S = 1e-6
"""Real clocks do not stand still while the head hears of an event, and those of a world do, unless it is told."""


def end_their_process(world: World, cluster: SimCluster) -> None:
    """And those of nobody."""
    for host in cluster.call_hosts:
        if host.alive:
            world.kill(host)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("what", ["node", "process", "nested"])
def test_sv_2_what_one_event_has_ended_counts_as_one_failure(sim_seed: int, what: str, strategy: str) -> None:
    async def main() -> list[int]:
        where = {"resources": {"second": 1}, "process": "shared" if what == "process" else "dedicated"}
        actors = [Member.options(**where).remote() for _ in range(4)]
        await asyncio.gather(*(actor.call() for actor in actors))
        rule = {"strategy": strategy, "within": 1_000.0}
        members = [await af.supervise(*actors[:3], max_restarts=0, **rule), actors[3]] if what == "nested" else actors
        async with af.supervise(*members, max_restarts=1, **rule):
            there.set()
            await asyncio.sleep(20.0)
            return await asyncio.gather(*(actor.call() for actor in actors))

    there = asyncio.Event()
    with World(sim_seed, clock_tick_s=TICK_S) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        world.run_until(there.is_set, 60.0)
        if what == "process":
            end_their_process(world, cluster)
        else:
            world.kill(second.host)
            cluster.add_node(num_cpus=2, resources={"second": 100})
        ended(world, driver)
        assert driver.result() == [1, 1, 1, 1], "all have begun anew"
        finish(cluster, driver)


def test_sv_2_a_head_that_comes_back_in_the_middle_of_an_event_knows_what_it_has_counted(sim_seed: int) -> None:
    """Its clock is another one, and it is told once more of some that it has heard of (HL-3)."""

    async def main() -> list[int]:
        actors = [Member.options(resources={"second": 1}, process="shared").remote() for _ in range(30)]
        await asyncio.gather(*(actor.call() for actor in actors))
        async with af.supervise(*actors, max_restarts=1, within=1_000.0):
            there.set()
            await asyncio.sleep(30.0)
            return await asyncio.gather(*(actor.call() for actor in actors))

    there = asyncio.Event()
    with World(sim_seed, clock_tick_s=TICK_S) as world:
        cluster, _ = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        world.run_until(there.is_set, 60.0)
        end_their_process(world, cluster)
        world.run_for(world.rng("moment").uniform(0.0, 0.02))
        cluster.sim_head.kill(machine_down=False)
        ended(world, driver)
        assert driver.result() == [1] * 30
        finish(cluster, driver)


def test_sv_6_the_outer_one_ends_with_the_last_that_is_in_it(sim_seed: int) -> None:
    async def main() -> None:
        actor = Member.remote()
        inner = await af.supervise(actor)
        outer = await af.supervise(inner)
        await af.kill(actor)
        await inner.wait()
        await outer.wait()

    with World(sim_seed) as world:
        SimCluster(world, num_cpus=2).run(main)


class Boss(af.Actor, num_cpus=0):
    async def begin(self, actors: list[af.Handle[Member]], **rule: Any) -> af.Supervision:
        self.supervision = await af.supervise(*actors, **rule)
        return self.supervision

    async def wait(self) -> None:
        await self.supervision.wait()


@pytest.mark.parametrize("how", ["ended", "gave up", "its owner died"])
def test_a_supervision_that_was_handed_on_is_waited_for_and_ended_anywhere(sim_seed: int, how: str) -> None:
    """Also by who hears of it in the middle of the absence of a head that comes back."""

    async def main() -> str:
        boss, actors = Boss.options(resources={"first": 1}).remote(), [Member.options(resources={"second": 1}).remote() for _ in range(2)]
        supervision = await boss.begin(actors, max_restarts=0 if how == "gave up" else 3)
        waiting = asyncio.create_task(supervision.wait())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        there.set()
        await asyncio.sleep(world.rng("moment").uniform(0.0, 2.0))
        if how == "ended":
            await supervision.end()
            await boss.wait()
        elif how == "its owner died":
            await af.kill(boss)
        try:
            await waiting
        except af.SupervisionError as error:
            return str(error)
        await supervision.wait()
        await supervision.end()
        return "ended"

    there = asyncio.Event()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True, resources={"first": 1})
        driver = cluster.driver(main)
        world.run_until(there.is_set, 60.0)
        if how == "gave up":
            world.kill(second.host)
        if sim_seed % 2:
            cluster.sim_head.kill(machine_down=False)
        ended(world, driver)
        assert driver.result().startswith("supervision" if how == "gave up" else "ended"), driver.result()
        if how != "gave up":
            finish(cluster, driver)


def test_one_that_is_given_up_while_the_head_is_away_supervises_nobody(sim_seed: int) -> None:
    async def main() -> None:
        actor = Member.remote()
        await actor.call()
        world.fabric.delay(driver.host, cluster.sim_head.host, 0.5)
        task = asyncio.ensure_future(begin(actor))
        await asyncio.sleep(0.8)  # The head has begun it, and its word is on the way.
        cluster.sim_head.kill(machine_down=False)
        world.fabric.delay(driver.host, cluster.sim_head.host, 0.0)
        await asyncio.sleep(0.02)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(20.0)
        await af.supervise(actor)

    async def begin(actor: af.Handle[Member]) -> None:
        await af.supervise(actor)

    with World(sim_seed, links=LinkProfile(spike_chance=0, cut_chance=0)) as world:
        cluster, _ = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        ended(world, driver)
        driver.result()


def test_who_supervises_an_actor_that_has_just_died_is_told_that_it_is_dead(sim_seed: int) -> None:
    """Whoever knows of it first, the head or who asks."""

    async def main() -> str:
        actor = Member.remote()
        await actor.call()
        there.set()
        try:
            while True:
                async with af.supervise(actor, max_restarts=0):
                    pass
        except af.ActorDiedError as error:
            return str(error)

    there = asyncio.Event()
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_until(there.is_set, 60.0)
        world.run_for(world.rng("moment").uniform(0.0, 0.1))
        for host in cluster.workers():
            world.kill(host)
        ended(world, driver)
        assert "Member" in driver.result()
