"""Supervised actors whose processes die at any moment, under virtual time."""

from __future__ import annotations

import asyncio

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster


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
