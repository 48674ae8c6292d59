"""A head that dies and comes back: running work goes on, and what was acknowledged is there (DESIGN 5, HM, HN, HR)."""

import asyncio
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

import actorflow as af
from actorflow.testing import LinkProfile, SimCluster, World
from tests.sim import judged, test_nodes, test_placement_groups, test_supervision


class DyingHead(SimCluster):
    """A cluster whose head dies a few times, early, when most is under way."""

    def __init__(self, world: World, **options: Any) -> None:
        super().__init__(world, durable=True, **options)
        rng = world.rng("deaths of the head")
        for _ in range(rng.randrange(1, 4)):
            world.at_time(rng.uniform(0.02, 2.5), lambda: self.kill_head(machine_down=rng.random() < 0.5))

    def kill_head(self, *, machine_down: bool) -> None:
        assert self.sim_head is not None
        if self.sim_head.host.alive and self.node_host.alive:
            self.sim_head.kill(machine_down=machine_down)


AGAIN: list[Callable[..., None]] = [
    test_nodes.test_tasks_go_to_nodes_that_have_room,
    test_nodes.test_work_that_waits_moves_to_a_node_that_joins,
    test_nodes.test_a_node_that_dies_takes_attempts_along_and_no_calls,
    test_nodes.test_actors_go_where_there_is_room_and_answer_from_there,
    test_nodes.test_what_no_node_can_hold_names_the_nearest,
    test_nodes.test_nested_tasks_go_on_from_any_node,
    test_nodes.test_labels_and_strategies_choose_the_node,
    test_placement_groups.test_what_is_asked_for_before_the_group_is_ready_waits_for_it,
    test_placement_groups.test_claims_are_served_when_tasks_never_leave_room_by_themselves,
    test_placement_groups.test_children_are_captured_when_the_group_says_so,
    test_placement_groups.test_a_captured_child_that_no_bundle_could_hold_fails_in_words,
    test_placement_groups.test_a_group_ends_with_its_job_and_a_detached_one_does_not,
    test_placement_groups.test_a_group_ends_with_the_actor_that_created_it,
    test_placement_groups.test_two_drivers_while_nodes_die_and_join,
    test_supervision.test_members_that_die_at_random_are_made_anew_together,
    test_supervision.test_too_many_failures_end_all_and_leave_nothing,
]
"""Tests of several nodes, of placement groups and of supervisions: they hold whether or not the head dies meanwhile."""


@pytest.mark.parametrize("test", AGAIN, ids=lambda test: test.__name__)
def test_it_holds_too_when_the_head_dies(test: Callable[..., None], sim_seed: int) -> None:
    with mock.patch.dict(test.__globals__, {"SimCluster": DyingHead}):
        test(sim_seed=sim_seed)


@pytest.mark.parametrize("scenario", judged.QUIET)
def test_nobody_notices_a_head_that_dies(scenario: str, sim_seed: int) -> None:
    judged.while_the_head_dies(scenario, sim_seed)


@pytest.mark.parametrize("scenario", judged.SCENARIOS)
def test_whoever_dies_with_the_head(scenario: str, sim_seed: int) -> None:
    judged.everybody_dies(scenario, sim_seed)


def test_a_driver_that_dies_while_the_head_is_away_takes_its_job_along(sim_seed: int) -> None:
    judged.guest_dies_with_the_head(sim_seed)


class Counter(af.Actor, max_restarts=3):
    def __init__(self) -> None:
        self.value = 0

    async def add(self, by: int = 1) -> int:
        self.value += by
        return self.value


class Kept(af.Actor, max_restarts=-1, max_task_retries=-1, checkpoint_every="call"):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def __checkpoint__(self) -> list[int]:
        return self.seen

    def __restore__(self, seen: list[int]) -> None:
        self.seen = seen

    async def note(self, number: int) -> int:
        if number not in self.seen:
            self.seen.append(number)
        return len(self.seen)


@af.remote
async def double(number: int) -> int:
    await asyncio.sleep(0.01)
    return number * 2


def test_calls_go_on_while_the_head_is_away() -> None:
    gaps = []

    async def main() -> int:
        counter = Counter.remote()
        await counter
        last = asyncio.get_running_loop().time()
        for _ in range(600):
            await asyncio.sleep(0.005)
            await counter.add()
            now = asyncio.get_running_loop().time()
            gaps.append(now - last)
            last = now
        return await counter.add(0)

    with World(1, links=LinkProfile(spike_chance=0)) as world:
        cluster = SimCluster(world, durable=True)
        driver = cluster.driver(main)
        for at in (1.0, 2.0, 3.0):
            world.at_time(at, lambda: cluster.sim_head.kill(machine_down=True))
        world.run_until(lambda: driver.ended)
        assert driver.result() == 600
        assert cluster.sim_head.lives == 4
        assert max(gaps) < 0.02
        cluster.stop()


def test_names_actors_jobs_and_checkpoints_are_there_again() -> None:
    async def main() -> list[object]:
        await Counter.options(name="counter", lifetime="detached").remote()
        counter = await af.get_actor("counter")
        kept = Kept.options(name="kept").remote()
        values: list[object] = [await counter.add(5), await kept.note(1), await kept.note(2)]
        await asyncio.sleep(2)
        again = await af.get_actor("counter")
        values += [await again.add(1), await kept.note(3)]
        rows = await af.state.list_actors()
        values.append(sorted((row["name"], row["state"]) for row in rows))
        await af.kill(kept, no_restart=False)
        values.append(await kept.note(4))
        values.append([row["state"] for row in await af.state.list_jobs()])
        return values

    with World(2) as world:
        cluster = SimCluster(world, durable=True, num_cpus=4)
        driver = cluster.driver(main)
        world.at_time(1.5, lambda: cluster.sim_head.kill(machine_down=True))
        world.run_until(lambda: driver.ended)
        assert driver.result() == [5, 1, 2, 6, 3, [("counter", "alive"), ("kept", "alive")], 4, ["running"]]
        cluster.stop()


def test_hn_1_an_actor_that_is_to_be_restarted_ends_once(sim_seed: int) -> None:
    """The head dies before, while and after it hears of that, and again before and after it has placed the next life."""

    async def main() -> int:
        kept = Kept.options(name="kept").remote()
        await kept.note(1)
        rng = world.rng("moments")
        for number in range(2, 8):
            first = world.now + rng.choice([0.0, rng.uniform(0.0, 0.002), rng.uniform(0.0, 0.02)])
            for at in (first, first + rng.uniform(0.3, 0.6)):
                world.at_time(at, kill_head)
            await asyncio.sleep(rng.uniform(0.0, 0.002))
            await af.kill(kept, no_restart=False)
            await asyncio.sleep(5.0)
            assert await asyncio.wait_for(kept.note(number), 60.0) == number
        rows = await af.state.list_actors()
        return int(rows[0]["restarts"])

    def kill_head() -> None:
        if cluster.sim_head is not None and cluster.sim_head.host.alive:
            cluster.sim_head.kill(machine_down=False)

    with World(sim_seed) as world:
        cluster = SimCluster(world, durable=True, num_cpus=4)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 600.0)
        assert driver.result() == 6
        cluster.stop()


def test_what_is_asked_while_the_head_is_away_is_answered_when_it_is_back(sim_seed: int) -> None:
    async def main() -> list[object]:
        counter = Counter.options(name="first").remote()
        await counter
        await asyncio.sleep(1.0)  # The head dies at 1.0 or so.
        begun = asyncio.get_running_loop().time()
        made = Counter.options(name="second").remote()
        found, rows = await asyncio.gather(af.get_actor("first"), af.state.list_actors())
        assert await made.add(2) == 2
        with pytest.raises(af.ActorNotFoundError):
            await af.get_actor("third")
        await af.kill(made)
        with pytest.raises(af.ActorError):
            await made.add()
        return [await found.add(), len(rows) >= 1, asyncio.get_running_loop().time() - begun < 2.0, await double(4)]

    with World(sim_seed) as world:
        cluster = SimCluster(world, durable=True, num_cpus=4)
        driver = cluster.driver(main)
        at = 1.0 + world.rng("the death of the head").random() * 0.5
        world.at_time(at, lambda: cluster.sim_head.kill(machine_down=sim_seed % 2 == 0))
        world.run_until(lambda: driver.ended)
        assert driver.result() == [1, True, True, 8]
        cluster.stop()


@pytest.mark.parametrize("phase_s", [tenth / 10 for tenth in range(10)])
def test_a_head_that_dies_every_second_loses_no_node_that_it_could_answer(phase_s: float) -> None:
    """Each life answers for half a second. At some phase that is never when the beat of the node is due (LV-1)."""
    deaths = 20

    async def main() -> tuple[int, list[str], list[int]]:
        counter = Counter.options(resources={"second": 1}).remote()
        for _ in range(deaths + 12):
            await counter.add()
            await asyncio.sleep(1.0)
        nodes = [row["state"] for row in await af.state.list_nodes()]
        return await counter.add(), nodes, [row["restarts"] for row in await af.state.list_actors()]

    with World(1, links=LinkProfile(spike_chance=0)) as world:
        cluster = SimCluster(world, durable=True)
        second = cluster.add_node(num_cpus=1, resources={"second": 1})
        world.run_until(lambda: second.node is not None, 20.0)
        driver = cluster.driver(main)
        begin = world.now + 3.0 + phase_s
        for number in range(deaths):
            world.at_time(begin + number, cluster.sim_head.kill)
        world.run_until(lambda: driver.ended, 60.0)
        assert driver.result() == (deaths + 13, ["alive", "alive"], [0])
        assert cluster.sim_head.lives == deaths + 1
        cluster.stop()
