"""The whole single-node cluster in one process under virtual time: the scenarios of `scenarios/`, seed after seed."""

import random
from collections.abc import Callable

from actorflow.testing import at_most_once, errors_allowed, values_match
from tests.sim.scenarios import actors, borrowers, cancels, crashes, streams, tasks
from tests.sim.scenarios.stage import LIMIT_S, Main, Stage

FAULTS_PER_SEED = 4
"""Steps that are tried with each seed: together the seeds cover them all."""


def steps_of(seed: int, prepare: Callable[[Stage], Main]) -> int:
    """How many steps a run without faults takes."""
    with Stage(seed) as stage:
        stage.run(prepare(stage))
        return stage.steps


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
    with Stage(sim_seed) as stage:
        stage.run(borrowers.prepare(stage))
        stage.judge()


def test_streams(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(streams.prepare(stage))
        stage.judge()
        streams.begun_is_ended(stage)
