"""A node that is cut off: it gives itself up before its actors act elsewhere (LV-1), every call ends, and it comes back as a new node."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import actorflow as af
from actorflow._core.policy.liveness import LOOK_S, SILENCE_S
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from tests.sim.test_nodes import finish

CUT_S = 30.0
STEP_S = 0.1
NOTICED_S = SILENCE_S + LOOK_S + 1.0


@dataclass
class Register:
    """What everybody sees of the acts of one actor: when, and by which of its lives."""

    world: World
    lives: int = 0
    acts: dict[int, list[float]] = field(default_factory=dict)
    calls: dict[int, list[float]] = field(default_factory=dict)
    """Of these acts, when calls began."""

    def born(self) -> int:
        self.lives += 1
        return self.lives

    def act(self, life: int) -> None:
        self.acts.setdefault(life, []).append(self.world.now)


register: Register


class Beacon(af.Actor, max_restarts=-1, max_task_retries=-1, resources={"far": 1}, num_cpus=0):
    """Acts by itself, and when it is called."""

    def __init__(self) -> None:
        self.life = register.born()
        self.acting = asyncio.ensure_future(self.go_on())

    async def go_on(self) -> None:
        while True:
            register.act(self.life)
            await asyncio.sleep(STEP_S)

    @af.method
    async def echo(self, number: int) -> int:
        register.act(self.life)
        register.calls.setdefault(self.life, []).append(register.world.now)
        return number


@af.remote(max_retries=-1, num_cpus=1)
async def square(number: int) -> int:
    await asyncio.sleep(0.5)
    return number * number


async def workload() -> tuple[list[int], list[int]]:
    beacon = await Beacon.remote()
    echoes: list[int] = []

    async def ask() -> None:
        for number in range(200):
            echoes.append(await beacon.echo(number))
            await asyncio.sleep(0.2)

    async def compute() -> list[int]:
        found: list[int] = []
        for first in range(0, 120, 6):
            found += await af.get([square.remote(number) for number in range(first, first + 6)])
        return found

    _, squares = await asyncio.gather(ask(), compute())
    await af.kill(beacon)
    return echoes, squares


def test_a_node_that_is_cut_off_and_comes_back(sim_seed: int) -> None:
    global register
    with World(sim_seed) as world:
        register = Register(world)
        cluster = SimCluster(world, num_cpus=1, scheme="tcp")
        others = [cluster.add_node(num_cpus=2, resources={"far": 1}) for _ in range(2)]
        world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
        world.run_for(1.0)
        driver = cluster.driver(workload)
        world.run_until(lambda: register.lives == 1 and len(register.acts.get(1, [])) > 20, 60.0)
        # Whichever of the two has the actor: the one that is cut off is drawn, so both happen.
        victim = others[world.rng("victim").randrange(2)]
        cut_at = world.now
        rest = [name for name in {host.machine for host in world.hosts.values()} if name != victim.host.machine]
        world.fabric.partition([victim.host.machine], rest)
        world.run_for(CUT_S)
        assert not victim.host.alive, "it has given itself up"
        assert victim.gave_up
        world.fabric.heal()
        world.run_until(lambda: driver.ended, 200.0)
        echoes, squares = driver.result()
        assert echoes == list(range(200))
        assert squares == [number * number for number in range(120)]
        lives = [register.acts[life] for life in sorted(register.acts)]
        for before, after in zip(lives, lives[1:], strict=False):
            assert before[-1] < after[0], "two lives of one actor act at the same time"
        if len(lives) > 1:
            assert lives[1][0] - cut_at < NOTICED_S + 1.0
        world.run_until(lambda: len([node for node in cluster.nodes if node.host.alive and node.node is not None]) == 3, 30.0)
        finish(cluster, driver)


def test_a_node_that_stands_still_does_not_act_when_it_goes_on(sim_seed: int) -> None:
    """A pause of the whole machine, as of a virtual one: it wakes up after its lease, and must not go on as if nothing was."""
    global register
    with World(sim_seed) as world:
        register = Register(world)
        cluster = SimCluster(world, num_cpus=1, scheme="tcp")
        for _ in range(2):
            cluster.add_node(num_cpus=2, resources={"far": 1})
        world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
        world.run_for(1.0)
        driver = cluster.driver(workload)
        world.run_until(lambda: register.lives == 1 and len(register.acts.get(1, [])) > 20, 60.0)
        machine = cluster.nodes[1 + sim_seed % 2].host.machine
        still = [host for host in world.living() if host.machine == machine]
        for host in still:
            host.pause()
        world.run_for(20.0)
        for host in still:
            if host.alive:
                host.unpause()
        world.run_until(lambda: driver.ended, 200.0)
        echoes, squares = driver.result()
        assert echoes == list(range(200))
        assert squares == [number * number for number in range(120)]
        for before, after in zip(sorted(register.calls), sorted(register.calls)[1:], strict=False):
            assert register.calls[before][-1] < register.acts[after][0], "LV-7: it has begun a call after its standstill"
        finish(cluster, driver)


class Held(af.Actor, max_restarts=-1, resources={"far": 1}, num_cpus=0):
    """Its calls are under way for long."""

    def __init__(self) -> None:
        self.life = register.born()

    @af.method
    async def hold(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.life


def test_a_driver_that_is_cut_off_from_an_actor_whose_node_lives(sim_seed: int) -> None:
    """The head reaches both, so nobody is given up: what is under way is unsure, or tried again, and the actor is not said to restart."""
    global register
    begun = []

    async def main() -> tuple[str, int]:
        once, again = await Held.remote(), await Held.options(max_task_retries=-1).remote()
        held, tried = once.hold.remote(1000.0), again.hold.remote(5.0)
        await asyncio.sleep(0.5)
        begun.append(True)
        try:
            await held
        except af.ActorUnavailableError as error:
            return str(error), await tried
        raise AssertionError("it has ended")

    with World(sim_seed) as world:
        register = Register(world)
        cluster = SimCluster(world, num_cpus=1, scheme="tcp")
        far = cluster.add_node(num_cpus=1, resources={"far": 2})
        world.run_until(lambda: far.node is not None)
        world.run_for(1.0)
        driver = cluster.driver(main)

        def ends_of(driver: SimDriver) -> list[Any]:
            ends = [end for both in world.fabric.connections() for end in both if end.host is driver.host and not end.closed]
            return [end for end in ends if end.peer.host.machine == far.host.machine]

        world.run_until(lambda: bool(begun))
        # TCP gives up some time after the cut; how long that takes is not what this is about, so it comes first.
        # A connection that is made again before the cut would carry the calls on: it is broken as well.
        assert ends_of(driver)
        while broken := ends_of(driver):
            for end in broken:
                world.fabric.half_open(end)
            world.run_until(lambda: all(end.closed for end in broken))
        world.fabric.partition([driver.host], [far.host.machine])
        world.run_for(20.0)
        world.fabric.heal()
        world.run_until(lambda: driver.ended, 60.0)
        said, life = driver.result()
        assert "the connection with it ended" in said
        assert "The actor lives on" in said
        assert life in (1, 2)
        assert register.lives == 2, "one for each: none has begun again"
        assert far.host.alive
        finish(cluster, driver)
