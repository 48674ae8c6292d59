"""The simulated memory of a machine, and the clock on its wall."""

from __future__ import annotations

import asyncio

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster


@af.remote(max_retries=-1)
async def work(number: int) -> int:
    await asyncio.sleep(3.0)
    return number * 2


@af.remote(max_retries=0)
async def once(number: int) -> int:
    await asyncio.sleep(5.0)
    return number


def test_while_memory_is_short_workers_end_and_their_tasks_are_tried_again(sim_seed: int) -> None:
    async def main() -> list[int]:
        return await af.get([work.remote(number) for number in range(4)])

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2, node_options={"memory_threshold": 0.9})
        driver = cluster.driver(main, stay=True)
        memory = cluster.nodes[0].memory
        world.run_until(lambda: any(core.host is not None and core.host.calls for core in cluster.cores.values()), 10.0)
        memory.short()
        world.run_for(1.5)
        deaths = [host for host in cluster.call_hosts if not host.alive]
        memory.enough()
        world.run_until(lambda: driver.ended, 60.0)
        assert driver.result() == [0, 2, 4, 6]
        assert deaths, "somebody had to end"
        driver.forget()
        cluster.settle()
        cluster.stop()


def test_with_enough_of_it_nobody_ends(sim_seed: int) -> None:
    async def main() -> int:
        return await once(7)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2, node_options={"memory_threshold": 0.9})
        assert cluster.nodes[0].memory.use() is not None
        assert cluster.run(main) == 7
        cluster.stop()


def test_a_wall_clock_that_is_set_leaves_the_monotonic_one_alone() -> None:
    with World(1) as world:
        host = world.host("one")
        wall, monotonic = host.ports.wall_time(), host.ports.monotonic()
        host.wall_jump_s -= 3600.0
        assert host.ports.wall_time() == wall - 3600.0
        assert host.ports.monotonic() == monotonic
