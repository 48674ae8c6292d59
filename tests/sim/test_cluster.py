"""The whole single-node cluster in one process under virtual time: the scenarios of `scenarios/`, seed after seed."""

import actorflow as af
from actorflow.testing import at_most_once, errors_allowed, values_match
from tests.sim.scenarios import actors, tasks
from tests.sim.scenarios.stage import Stage


def test_tasks(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(tasks.prepare(stage))
        stage.judge(values_match(tasks.expected), errors_allowed(ValueError))


def test_actors(sim_seed: int) -> None:
    with Stage(sim_seed) as stage:
        stage.run(actors.prepare(stage))
        stage.judge(values_match(actors.expected), errors_allowed(), at_most_once)
