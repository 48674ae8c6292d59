"""The scenarios with their judgement: one function of a seed (and a step) each, for tests and for the hunt."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from actorflow.testing import at_most_once, errors_allowed, values_match
from tests.sim.scenarios import actors, borrowers, cancels, crashes, families, losses, memory, streams, tasks
from tests.sim.scenarios.stage import LIMIT_S, Main, Stage

FAULTS_PER_SEED = 4
"""Steps that are tried with each seed: together the seeds cover them all."""
limits = {"faults per seed": FAULTS_PER_SEED}
"""How many of them: thousands of seeds need one each (`tests/sim/seeds.py`), as another seed shows more than another step of this one."""
Prepare = Callable[[Stage], Main]
OPTIONS: dict[Prepare, dict[str, Any]] = {memory.prepare: memory.OPTIONS, losses.prepare: losses.OPTIONS}
"""What a scenario needs to be what it is."""
Faulty = Callable[[int, int], None]
"""Runs a scenario with a seed, and a fault at a step."""


def steps_of(seed: int, prepare: Prepare) -> int:
    """How many steps a run without faults takes."""
    with Stage(seed, **OPTIONS.get(prepare, {})) as stage:
        stage.run_among_faults(prepare(stage))
        return stage.steps


def some_steps(seed: int, steps: int) -> list[int]:
    """A few of the steps, drawn from the seed."""
    rng = random.Random(f"steps {seed}")
    return sorted(rng.sample(range(steps), min(FAULTS_PER_SEED, steps))[: limits["faults per seed"]])


# -- without faults


class Quiet(NamedTuple):
    """A scenario in which nothing may go wrong."""

    prepare: Prepare
    options: dict[str, Any]
    judge: Callable[[Stage], None]


def judge_tasks(stage: Stage) -> None:
    stage.judge(values_match(tasks.expected), errors_allowed(ValueError))


def judge_actors(stage: Stage) -> None:
    stage.judge(values_match(actors.expected), errors_allowed(), at_most_once)


def judge_streams(stage: Stage) -> None:
    stage.judge()
    streams.begun_is_ended(stage)


def judge_memory(stage: Stage) -> None:
    stage.judge()
    memory.all_went_to_disk(stage)


QUIET = {
    "tasks": Quiet(tasks.prepare, {}, judge_tasks),  # scenario 1
    "actors": Quiet(actors.prepare, {}, judge_actors),  # scenario 2
    # scenario 6; most workers are idle now and then, and may leave only when nobody holds what they own
    "borrowers": Quiet(borrowers.prepare, {"node_options": {"idle_keep": 0, "idle_timeout_s": 0.2}}, Stage.judge),
    "streams": Quiet(streams.prepare, {}, judge_streams),  # scenario 7
    "memory": Quiet(memory.prepare, memory.OPTIONS, judge_memory),  # scenario 9
    "losses": Quiet(losses.prepare, losses.OPTIONS, Stage.judge),  # scenario 10
}


def run_quiet(name: str, seed: int) -> None:
    """Run one of them."""
    quiet = QUIET[name]
    with Stage(seed, **quiet.options) as stage:
        stage.run(quiet.prepare(stage))
        quiet.judge(stage)


def among_resets(name: str, seed: int) -> None:
    """Run one of them over connections as between machines, which break now and then: nobody may notice (SEMANTICS 6)."""
    quiet = QUIET[name]
    with Stage(seed, scheme="tcp", **quiet.options) as stage:
        for _ in range(1 + stage.faults.randrange(12)):
            stage.at(stage.faults.randrange(1_500), stage.break_a_connection)
        stage.run(quiet.prepare(stage))
        quiet.judge(stage)


def while_the_head_dies(name: str, seed: int) -> None:
    """Run one of them while the head dies and comes back, more than once perhaps: nobody may notice (DESIGN 5)."""
    quiet = QUIET[name]
    with Stage(seed, durable=True, **quiet.options) as stage:
        for _ in range(1 + stage.faults.randrange(4)):
            stage.at(stage.faults.randrange(1_500), stage.kill_the_head)
        stage.run(quiet.prepare(stage))
        quiet.judge(stage)


def everybody_dies(name: str, seed: int) -> None:
    """A scenario while workers die and the head does too, in any order: it ends, if in an error then in one that has a name."""
    prepare = SCENARIOS[name]
    with Stage(seed, durable=True, **OPTIONS.get(prepare, {})) as stage:
        for _ in range(1 + stage.faults.randrange(3)):
            at = stage.faults.randrange(1_200)
            stage.at(at, stage.kill_a_worker)
            stage.at(max(0, at + stage.faults.randrange(-60, 60)), stage.kill_the_head)
        stage.run_among_faults(prepare(stage))
        stage.judge_the_rest()


def guest_dies_with_the_head(seed: int) -> None:
    """A driver dies while the head is away, or just before or after: its job ends, and the cluster goes on."""
    with Stage(seed, durable=True) as stage:
        stage.begin_owner()
        at = stage.faults.randrange(1_000)
        stage.at(at, lambda: stage.world.kill(stage.begun().host))
        stage.at(max(0, at + stage.faults.randrange(-80, 80)), stage.kill_the_head)
        driver = stage.begin(crashes.prepare(stage))
        stage.world.run_until(lambda: driver.ended, LIMIT_S)
        stage.history.caller_died("driver")
        stage.judge(values_match(crashes.expected), at_most_once)


# -- with a fault at a step


def worker_dies(seed: int, step: int) -> None:
    """Scenario 3; with every third seed a second worker dies a little later."""
    with Stage(seed) as stage:
        stage.at(step, stage.kill_a_worker)
        if seed % 3 == 0:
            stage.at(step + stage.faults.randrange(100), stage.kill_a_worker)
        stage.run(crashes.prepare(stage))
        checks = (values_match(crashes.expected), errors_allowed(*crashes.LOST), at_most_once, *crashes.CHECKS)
        stage.judge(*checks)


def owner_dies(seed: int, step: int) -> None:
    """Scenario 4: the driver that the cluster belongs to."""
    with Stage(seed) as stage:
        stage.at(step, lambda: stage.world.kill(stage.begun().host))
        driver = stage.begin(crashes.prepare(stage))
        stage.world.run_until(lambda: driver.ended, LIMIT_S)
        stage.judge_the_end()


def guest_dies(seed: int, step: int) -> None:
    """Scenario 4: another driver. The cluster goes on, and nothing of the dead one is left."""
    with Stage(seed) as stage:
        stage.begin_owner()
        stage.at(step, lambda: stage.world.kill(stage.begun().host))
        driver = stage.begin(crashes.prepare(stage))
        stage.world.run_until(lambda: driver.ended, LIMIT_S)
        stage.history.caller_died("driver")
        stage.judge(values_match(crashes.expected), at_most_once)


def call_is_cancelled(seed: int, step: int) -> None:
    """Scenario 5."""
    with Stage(seed) as stage:
        main, cancellation = cancels.prepare(stage)
        stage.at(step, cancellation.strike)
        stage.run(main)
        stage.judge()
        cancels.begun_is_ended(stage)


def prepare_cancels(stage: Stage) -> Main:
    """Scenario 5 without a fault."""
    return cancels.prepare(stage)[0]


def families_are_cancelled(seed: int, step: int) -> None:
    """Scenario 8."""
    with Stage(seed, **families.OPTIONS) as stage:
        main, struck = families.prepare(stage)
        stage.at(step, struck.strike)
        stage.run(main)
        stage.judge()
        families.begun_is_ended(stage)


def prepare_families(stage: Stage) -> Main:
    """Scenario 8, in which the program itself cancels."""
    return families.prepare(stage)[0]


def chaos(prepare: Prepare) -> Faulty:
    """Any scenario, while a worker dies: it ends, in order or in an error that has a name, and nothing is left."""

    def run(seed: int, step: int) -> None:
        with Stage(seed) as stage:
            stage.at(step, stage.kill_a_worker)
            stage.run_among_faults(prepare(stage))
            stage.judge_the_rest()

    return run


def memory_is_short(seed: int, step: int) -> None:
    """Scenario 9, while a worker dies, and with every second seed the disk cannot be read for a moment."""
    with Stage(seed, **memory.OPTIONS) as stage:
        stage.at(step, stage.kill_a_worker)
        if seed % 2:
            stage.at(step, lambda: stage.cluster.spill.fail_reads(2))
        stage.run_among_faults(memory.prepare(stage))
        stage.judge_the_rest()


def losses_and_a_death(seed: int, step: int) -> None:
    """Scenario 10, while a worker dies: what it owned is gone with it."""
    with Stage(seed, **losses.OPTIONS) as stage:
        stage.at(step, stage.kill_a_worker)
        stage.run_among_faults(losses.prepare(stage))
        stage.judge_the_rest()


FAULTS: dict[str, tuple[Faulty, Prepare]] = {
    "a worker dies": (worker_dies, crashes.prepare),
    "the owner dies": (owner_dies, crashes.prepare),
    "a guest dies": (guest_dies, crashes.prepare),
    "a call is cancelled": (call_is_cancelled, prepare_cancels),
    "families are cancelled": (families_are_cancelled, prepare_families),
    "a worker dies among tasks": (chaos(tasks.prepare), tasks.prepare),
    "a worker dies among actors": (chaos(actors.prepare), actors.prepare),
    "a worker dies among borrowers": (chaos(borrowers.prepare), borrowers.prepare),
    "a worker dies among streams": (chaos(streams.prepare), streams.prepare),
    "a worker dies among cancels": (chaos(prepare_cancels), prepare_cancels),
    "a worker dies among objects on disk": (memory_is_short, memory.prepare),
    "a worker dies among lost objects": (losses_and_a_death, losses.prepare),
}
SCENARIOS: dict[str, Prepare] = {
    "tasks": tasks.prepare,
    "actors": actors.prepare,
    "crashes": crashes.prepare,
    "cancels": prepare_cancels,
    "families": prepare_families,
    "borrowers": borrowers.prepare,
    "streams": streams.prepare,
}


def with_some_faults(name: str, seed: int) -> None:
    """Run a faulty scenario with the fault at a few of its steps."""
    run, prepare = FAULTS[name]
    for step in some_steps(seed, steps_of(seed, prepare)):
        run(seed, step)


def with_every_fault(name: str, seed: int, stride: int = 1) -> None:
    """Run a faulty scenario with the fault at every step."""
    run, prepare = FAULTS[name]
    for step in range(0, steps_of(seed, prepare), stride):
        run(seed, step)


def digest(scenario: str, seed: int) -> str:
    """The trace of a run in which a worker dies."""
    with Stage(seed) as stage:
        stage.at(stage.faults.randrange(50, 200), stage.kill_a_worker)
        driver = stage.begin(SCENARIOS[scenario](stage))
        stage.world.run_until(lambda: driver.ended or stage.world.now > LIMIT_S, 2 * LIMIT_S)
        stage.world.run_for(1.0)
        return stage.world.trace.digest


RUNS: dict[str, Callable[[int], None]] = {
    "tasks": partial(run_quiet, "tasks"),
    "actors": partial(run_quiet, "actors"),
    "borrowers": partial(run_quiet, "borrowers"),
    "streams": partial(run_quiet, "streams"),
    "memory": partial(run_quiet, "memory"),
    "losses": partial(run_quiet, "losses"),
    "a worker dies": lambda seed: with_some_faults("a worker dies", seed),
    "a call is cancelled": lambda seed: with_some_faults("a call is cancelled", seed),
}
"""What the hunt for mutants runs."""
