"""The whole single-node cluster in one process under virtual time: the scenarios of `scenarios/`, seed after seed."""

import asyncio
import random
from collections.abc import Callable

import pytest

import actorflow as af
from actorflow.testing import (
    InvariantBroken,
    SimCluster,
    World,
    at_most_once,
    errors_allowed,
    simulate,
    values_match,
)
from tests.sim.scenarios import actors, borrowers, cancels, crashes, streams, tasks
from tests.sim.scenarios.stage import LIMIT_S, Main, Stage

FAULTS_PER_SEED = 4
"""Steps that are tried with each seed: together the seeds cover them all."""


def steps_of(seed: int, prepare: Callable[[Stage], Main]) -> int:
    """How many steps a run without faults takes."""
    with Stage(seed) as stage:
        stage.run(prepare(stage))
        return stage.steps


SCENARIOS: dict[str, Callable[[Stage], Main]] = {
    "tasks": tasks.prepare,
    "actors": actors.prepare,
    "crashes": crashes.prepare,
    "cancels": lambda stage: cancels.prepare(stage)[0],
    "borrowers": borrowers.prepare,
    "streams": streams.prepare,
}


def digest(scenario: str, seed: int) -> str:
    with Stage(seed) as stage:
        stage.at(stage.faults.randrange(50, 200), stage.kill_a_worker)
        driver = stage.begin(SCENARIOS[scenario](stage))
        stage.world.run_until(lambda: driver.ended or stage.world.now > LIMIT_S, 2 * LIMIT_S)
        stage.world.run_for(1.0)
        return stage.world.trace.digest


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_gives_the_same_trace(scenario: str, sim_seed: int) -> None:
    if sim_seed % 5 == 0:
        first = digest(scenario, sim_seed)
        # The collector, and what else lies in memory, must not matter.
        noise = [object() for _ in range(1000)]
        assert digest(scenario, sim_seed) == first
        del noise


def test_tasks(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(tasks.prepare(stage))
        stage.judge(values_match(tasks.expected), errors_allowed(ValueError))


def test_actors(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(actors.prepare(stage))
        stage.judge(values_match(actors.expected), errors_allowed(), at_most_once)


def worker_dies(seed: int, step: int) -> None:
    with Stage(seed) as stage:
        stage.at(step, stage.kill_a_worker)
        stage.run(crashes.prepare(stage))
        checks = (values_match(crashes.expected), errors_allowed(*crashes.LOST), at_most_once, *crashes.CHECKS)
        stage.judge(*checks)


def owner_dies(seed: int, step: int) -> None:
    with Stage(seed) as stage:
        stage.at(step, lambda: stage.world.kill(stage.begun().host))
        driver = stage.begin(crashes.prepare(stage))
        stage.world.run_until(lambda: driver.ended, LIMIT_S)
        stage.judge_the_end()


def second_driver_dies(seed: int, step: int) -> None:
    with Stage(seed) as stage:
        stage.begin_owner()
        stage.at(step, lambda: stage.world.kill(stage.begun().host))
        driver = stage.begin(crashes.prepare(stage))
        stage.world.run_until(lambda: driver.ended, LIMIT_S)
        stage.history.caller_died("driver")
        stage.judge(values_match(crashes.expected), at_most_once)


def call_is_cancelled(seed: int, step: int) -> None:
    with Stage(seed) as stage:
        main, cancellation = cancels.prepare(stage)
        stage.at(step, cancellation.strike)
        stage.run(main)
        stage.judge()
        cancels.begun_is_ended(stage)


def steps_of_cancels(seed: int) -> int:
    return steps_of(seed, lambda stage: cancels.prepare(stage)[0])


def some_steps(seed: int, steps: int) -> list[int]:
    rng = random.Random(f"steps {seed}")
    return sorted(rng.sample(range(steps), min(FAULTS_PER_SEED, steps)))


def test_a_worker_dies_at_any_step(sim_seed: int) -> None:
    for step in some_steps(sim_seed, steps_of(sim_seed, crashes.prepare)):
        worker_dies(sim_seed, step)


def test_the_owner_dies_at_any_step(sim_seed: int) -> None:
    for step in some_steps(sim_seed, steps_of(sim_seed, crashes.prepare)):
        owner_dies(sim_seed, step)


def test_a_second_driver_dies_at_any_step(sim_seed: int) -> None:
    for step in some_steps(sim_seed, steps_of(sim_seed, crashes.prepare)):
        second_driver_dies(sim_seed, step)


def test_a_call_is_cancelled_at_any_step(sim_seed: int) -> None:
    for step in some_steps(sim_seed, steps_of_cancels(sim_seed)):
        call_is_cancelled(sim_seed, step)


def test_borrowers(sim_seed: int) -> None:
    with Stage(sim_seed, node_options={"idle_timeout_s": 1e9}) as stage:
        stage.run(borrowers.prepare(stage))
        stage.judge()


def test_streams(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(streams.prepare(stage))
        stage.judge()
        streams.begun_is_ended(stage)


# -- what a user does with it


@af.remote
async def double(number: int) -> int:
    await asyncio.sleep(3600)
    return number * 2


async def program() -> int:
    return sum(await asyncio.gather(*(double(number) for number in range(10))))


def test_simulate_runs_a_program_and_returns_its_value() -> None:
    assert simulate(program, seed=3, num_cpus=10) == 90


def test_simulate_raises_what_the_program_raises() -> None:
    async def wrong() -> None:
        raise LookupError("nothing here")

    with pytest.raises(LookupError, match="nothing here"):
        simulate(wrong)


def test_the_shape_of_the_cluster_is_the_users() -> None:
    async def look() -> dict[str, float]:
        rows = await af.state.list_nodes()
        return dict(rows[0]["resources"])

    seen = simulate(look, num_cpus=3, num_gpus=2, resources={"magic": 1.5})
    assert (seen["CPU"], seen["GPU"], seen["magic"]) == (3, 2, 1.5)


def test_two_drivers_share_a_cluster() -> None:
    async def first() -> int:
        actor = await af.remote(Shared).options(name="shared", namespace="common").remote()
        await asyncio.sleep(10)
        del actor
        return 1

    async def second() -> str:
        await asyncio.sleep(5)
        actor = await af.get_actor("shared", namespace="common")
        return str(await actor.hello())

    with World(0) as world:
        cluster = SimCluster(world)
        owner, guest = cluster.driver(first), cluster.driver(second)
        world.run_until(lambda: guest.ended)
        assert guest.result() == "hello"
        world.run_until(lambda: owner.ended)
        cluster.stop()


class Shared:
    async def hello(self) -> str:
        return "hello"


def test_a_driver_whose_cluster_cannot_start_says_so() -> None:
    with World(0) as world:
        cluster = SimCluster(world)
        driver = cluster.driver(program)
        world.kill(cluster.node_host)
        world.run_until(lambda: driver.ended)
        with pytest.raises(af.ClusterStartError):
            driver.result()


def test_settle_names_what_is_left() -> None:
    kept = []

    async def hold() -> None:
        kept.append(await af.put(1))

    with World(0) as world:
        cluster = SimCluster(world)
        driver = cluster.driver(hold, stay=True)
        world.run_until(lambda: driver.ended)
        with pytest.raises(InvariantBroken, match="CK-7: left: driver-0: owned object 1: 1 handles"):
            cluster.settle(1.0)
        kept.clear()
        cluster.settle()
        cluster.stop()
