"""The whole single-node cluster in one process under virtual time: the scenarios of `scenarios/`, seed after seed."""

import asyncio
import gc

import pytest

import actorflow as af
from actorflow.testing import InvariantBroken, SimCluster, SimulationStuck, World, simulate
from tests.sim import judged, mutants
from tests.sim.planted.mutant import Mutant


@pytest.mark.parametrize("scenario", judged.QUIET)
def test_a_scenario_without_faults(scenario: str, sim_seed: int) -> None:
    judged.run_quiet(scenario, sim_seed)


@pytest.mark.parametrize("scenario", judged.QUIET)
def test_6_nobody_notices_connections_that_break(scenario: str, sim_seed: int) -> None:
    judged.among_resets(scenario, sim_seed)


@pytest.mark.parametrize("fault", judged.FAULTS)
def test_a_fault_at_some_steps(fault: str, sim_seed: int) -> None:
    judged.with_some_faults(fault, sim_seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", judged.FAULTS)
def test_a_fault_at_every_step(fault: str) -> None:
    judged.with_every_fault(fault, seed=0)


@pytest.mark.parametrize("scenario", judged.SCENARIOS)
def test_the_same_seed_gives_the_same_trace(scenario: str, sim_seed: int) -> None:
    if sim_seed % 5 == 0:
        first = judged.digest(scenario, sim_seed)
        noise = [object() for _ in range(1000)]  # what else lies in memory must not matter
        assert judged.digest(scenario, sim_seed) == first
        del noise


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_the_scenarios_find_planted_bugs(mutant: Mutant) -> None:
    assert mutants.hunt(mutant) is not None, f"{mutant.why}: no scenario has noticed"


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


class Sleeper(af.Actor, max_restarts=-1, max_task_retries=-1):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def test_a_driver_that_loses_its_cluster_is_told_that_and_not_that_its_actors_are_dead() -> None:
    """On a node that was cut off it may live on, or begin again elsewhere: nobody here can know."""
    asleep = []

    async def main() -> list[str]:
        sleeper = await Sleeper.options(lifetime="detached", name="sleeper").remote()
        under_way = sleeper.sleep.remote(600)
        await sleeper.sleep(0)
        asleep.append(True)
        told = []
        for call in (lambda: under_way, lambda: sleeper.sleep(0), lambda: sleeper.sleep.remote(0)):
            with pytest.raises(af.ClusterConnectionError) as found:
                await call()
            assert not isinstance(found.value, af.ActorError)
            told.append(str(found.value))
        return told

    with World(0) as world:
        cluster = SimCluster(world)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(asleep))
        world.kill(cluster.node_host)
        world.run_until(lambda: driver.ended)
        assert all("the connection to the cluster is lost" in text for text in driver.result())


@af.remote
async def own(number: int) -> list[object]:
    return [await af.put(number)]


@pytest.mark.parametrize("seed", range(5))
def test_semantics_17_an_idle_worker_stays_while_others_hold_what_it_owns(seed: int) -> None:
    async def main() -> list[int]:
        boxes = await asyncio.gather(*(own(number) for number in range(6)))
        await asyncio.sleep(10)
        return [await box[0] for box in boxes]

    with World(seed) as world:
        cluster = SimCluster(world, num_cpus=6, node_options={"idle_keep": 0})
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: driver.ended)
        assert driver.result() == list(range(6))
        cluster.settle()
        world.run_until(lambda: not cluster.workers())  # and leaves when nobody does any more
        cluster.stop()


async def wait_for_ever() -> None:
    await asyncio.Event().wait()  # Nothing outside refers to what it waits for.


@pytest.mark.parametrize("inline", [False, True])
def test_a_program_that_waits_for_ever_outlives_the_garbage_collector(inline: bool) -> None:
    with World(1) as world:
        cluster = SimCluster(world, num_cpus=1)
        driver = cluster.driver(wait_for_ever, inline=inline)
        world.run_for(1.0)
        gc.collect()
        world.run_for(1.0)
        assert not driver.ended


def test_a_program_that_waits_for_ever_is_stuck() -> None:
    with World(1) as world, pytest.raises(SimulationStuck, match="wait_for_ever"):
        SimCluster(world, num_cpus=1).run(wait_for_ever)


def test_a_process_that_waits_for_ever_outlives_the_garbage_collector() -> None:
    async def main(host: object) -> None:
        await wait_for_ever()

    with World(1) as world:
        host = world.start("waits", main)
        world.run_for(1.0)
        gc.collect()
        world.run_for(1.0)
        assert host.alive


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
