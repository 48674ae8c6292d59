"""A head whose state is in a Redis dies and comes back, and messages to the Redis are late or lost: nobody notices (HM, RG)."""

import asyncio
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import actorflow as af
from actorflow.testing import SimCluster, World
from actorflow.testing.redis import SimRedisServer
from tests.sim import test_nodes, test_placement_groups


class DyingHead(SimCluster):
    """A cluster whose head dies a few times, early, when most is under way."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, durable=SimRedisServer(world), **options)
        rng = world.rng("deaths of the head")
        for _ in range(rng.randrange(1, 4)):
            world.at_time(rng.uniform(0.02, 2.5), self.kill_head)

    def kill_head(self) -> None:
        assert self.sim_head is not None
        if self.sim_head.host.alive and self.node_host.alive:
            self.sim_head.kill()


AGAIN: list[Callable[..., None]] = [
    test_nodes.test_work_that_waits_moves_to_a_node_that_joins,
    test_nodes.test_actors_go_where_there_is_room_and_answer_from_there,
    test_nodes.test_a_node_that_dies_takes_attempts_along_and_no_calls,
    test_placement_groups.test_a_group_ends_with_its_job_and_a_detached_one_does_not,
    test_placement_groups.test_two_drivers_while_nodes_die_and_join,
]


@pytest.mark.parametrize("test", AGAIN, ids=lambda test: test.__name__)
def test_it_holds_too_with_a_redis(test: Callable[..., None], sim_seed: int) -> None:
    with mock.patch.dict(test.__globals__, {"SimCluster": DyingHead}):
        test(sim_seed=sim_seed)


class Counter(af.Actor, max_restarts=3):
    def __init__(self) -> None:
        self.value = 0

    async def add(self) -> int:
        self.value += 1
        return self.value


def test_what_was_acknowledged_is_there_whatever_becomes_of_messages(sim_seed: int) -> None:
    """One in twenty is lost, the Redis is away for a while, its replica takes its place, and the head dies."""

    async def main() -> list[int]:
        values = []
        for number in range(4):
            await Counter.options(name=f"counter-{number}", lifetime="detached").remote()
            values.append(await (await af.get_actor(f"counter-{number}")).add())
            await asyncio.sleep(1)
        await asyncio.sleep(25)
        return values + [await (await af.get_actor(f"counter-{number}")).add() for number in range(4)]

    with World(sim_seed) as world:
        redis = SimRedisServer(world)
        rng = world.rng("what happens")
        cluster = SimCluster(world, durable=redis, num_cpus=4)
        driver = cluster.driver(main)
        away_at = rng.uniform(0.5, 4)

        def away(is_away: bool) -> None:
            redis.away = is_away
            redis.lost = 5

        def fail_over() -> None:
            if cluster.sim_head.head is not None:  # What only the Redis had is lost with it.
                redis.fail_over()

        world.at_time(away_at, lambda: away(True))
        world.at_time(away_at + rng.uniform(0.1, 2), lambda: away(False))
        world.at_time(rng.uniform(0.2, 6), redis.replicate)
        world.at_time(rng.uniform(2, 7), fail_over)
        for at in (rng.uniform(0.1, 1.9), rng.uniform(20, 25)):
            world.at_time(at, cluster.sim_head.kill)
        world.run_until(lambda: driver.ended, 300)
        assert driver.result() == [1, 1, 1, 1, 2, 2, 2, 2]
        cluster.stop()
