"""SEMANTICS 17: who ends in order takes along neither workers that it has leased nor what it has said, and answers what it has run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import LinkProfile, World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_detached_calls import arena
from tests.sim.test_durable_objects import ended
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import total, value


@af.remote(num_cpus=0)
async def makes(seed: int) -> list[Any]:
    """What the references stand for belongs to this process."""
    return [await af.put(value(seed, 100_000))]


@af.remote(num_cpus=0)
class Asks:
    async def ask(self, seed: int) -> list[Any]:
        return list(await makes(seed))


@af.remote(num_cpus=0, max_calls=1)
async def asks_once(seed: int) -> list[Any]:
    return list(await makes(seed))


@pytest.mark.parametrize("how", ["graceful", "dropped", "task"])
def test_17_an_orderly_end_ends_no_worker_that_owns_what_others_hold(sim_seed: int, how: str) -> None:
    async def main() -> int:
        if how == "task":
            [ref] = await asks_once(1)
        else:
            actor: Any = Asks.remote()
            [ref] = await actor.ask(1)
            if how == "graceful":
                await af.kill(actor, graceful=True)
            del actor
        await asyncio.sleep(5.0)
        return total(await asyncio.wait_for(ref, 60.0))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        assert driver.result() == total(value(1, 100_000))
        finish(cluster, driver)


def test_nw_3_a_lease_that_was_given_back_ends_no_worker_when_the_news_of_the_end_is_faster(sim_seed: int) -> None:
    async def main() -> int:
        actor: Any = Asks.remote()
        [ref] = await actor.ask(1)
        [row] = await af.state.list_actors()
        [host] = [host for host, core in cluster.cores.items() if core.identity.process_id == row["worker_id"]]
        world.fabric.delay(host, cluster.nodes[0].host, 0.5)
        await af.kill(actor, graceful=True)
        await asyncio.sleep(5.0)
        return total(await asyncio.wait_for(ref, 60.0))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        assert ended(world, driver) == total(value(1, 100_000))
        finish(cluster, driver)


LARGE = 3_000_000
"""More than an extent has room for: such an answer waits until there is some."""

ran: list[int] = []
"""Numbers of the calls that have begun while the context of their actor was left, or had been."""
lives: list[int] = []


class Leaves(af.Actor, num_cpus=0):
    """Others find it by its name, and end it in order."""

    def __init__(self, exit_s: float = 0.0) -> None:
        self.exit_s = exit_s
        self.kept: list[Any] = []
        self.open = False
        lives.append(len(lives) + 1)
        self.life = len(lives)

    def __checkpoint__(self) -> None:
        return None

    def __restore__(self, state: None) -> None:
        return None

    async def __aenter__(self) -> Leaves:
        self.open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        self.open = False
        await asyncio.sleep(self.exit_s)

    async def large(self) -> Any:
        await asyncio.sleep(1.0)
        return np.ones(LARGE, np.uint8)

    async def keep(self, refs: list[Any]) -> int:
        await asyncio.sleep(1.0)
        self.kept = refs
        return 1

    async def call(self, number: int) -> int:
        if not self.open:
            ran.append(number)
        await asyncio.sleep(0.001)
        return self.life


@af.remote(num_cpus=0)
class Owner:
    async def make(self) -> list[Any]:
        return [await af.put(value(1, 100_000))]


def ends(begun: threading.Event, **how: bool) -> Callable[[], Awaitable[None]]:
    """A program that knows of no call, and so waits for none: it ends the actor while its last call runs."""

    async def main() -> None:
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await af.kill(await af.get_actor("leaves"), graceful=True, **how)

    return main


SHARED = {"process": "shared"}


@pytest.mark.parametrize(
    ("answer", "options"),
    [("large", {}), ("large", {"checkpoint_every": "call"}), ("large", SHARED), ("of a reference that is kept", {})],
)
def test_ae_1_the_last_answer_leaves_before_its_actor(sim_seed: int, answer: str, options: dict[str, Any]) -> None:
    """Also one that waits for room in the store, or for the word of the owner of what its call has kept."""
    begun = threading.Event()

    async def main() -> int:
        owner = Owner.remote()
        actor = Leaves.options(name="leaves", **options).remote()
        await actor.call(0)
        refs = await owner.make()
        ref = await (actor.large.submit() if answer == "large" else actor.keep.submit(refs))
        await asyncio.sleep(0.2)
        begun.set()
        found = await asyncio.wait_for(ref, 60.0)
        return int(found.sum()) if answer == "large" else LARGE * found

    with World(sim_seed, links=LinkProfile(cut_chance=0)) as world:
        cluster, _ = arena(world, 1)
        driver, other = cluster.driver(main, stay=True), cluster.driver(ends(begun))
        assert ended(world, driver) == LARGE
        ended(world, other)
        driver.end()


@pytest.mark.parametrize("process", ["dedicated", "shared"])
@pytest.mark.parametrize("restarts", [False, True])
def test_ae_2_nothing_begins_in_an_actor_that_leaves(sim_seed: int, process: str, restarts: bool) -> None:
    """Calls that come while its exit hook runs have not run: they are made again in its next life, at no cost, or end with it."""
    begun = threading.Event()
    ran.clear()
    lives.clear()

    async def main() -> list[Any]:
        neighbour = Owner.options(process=process).remote()  # type: ignore[arg-type]
        await neighbour.make()
        actor = Leaves.options(name="leaves", process=process, max_restarts=-1).remote(1.0)  # type: ignore[arg-type]
        await actor.call(-1)
        begun.set()
        calls = []
        for number in range(300):
            calls.append(asyncio.ensure_future(actor.call(number)))
            await asyncio.sleep(0.01)
        return await asyncio.gather(*calls, return_exceptions=True)

    with World(sim_seed, links=LinkProfile(cut_chance=0, spike_chance=0)) as world:
        cluster, _ = arena(world, 1)
        driver, other = cluster.driver(main, stay=True), cluster.driver(ends(begun, no_restart=not restarts))
        answers = ended(world, driver)
        ended(world, other)
        driver.end()
    assert ran == [], "AE-2"
    first, second = answers.count(1), answers.count(2)
    assert 0 < first < 300 and answers[:first] == [1] * first
    if restarts:
        assert first + second == 300
    else:
        assert len(lives) == 1 and all(isinstance(answer, af.ActorDiedError) for answer in answers[first:])


class Kept(af.Actor, num_cpus=0, lifetime="detached"):
    async def call(self) -> str:
        return "there"


@af.remote(num_cpus=0, max_calls=1)
async def makes_an_actor() -> None:
    Kept.options(name="kept").remote()


def test_17_a_worker_that_is_sent_away_has_said_what_it_said(sim_seed: int) -> None:
    """The head hears of it, with which the worker is about to connect when its last call ends."""

    async def main() -> str:
        await makes_an_actor()
        await asyncio.sleep(20.0)
        return await (await af.get_actor("kept")).call()

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == "there"


@pytest.mark.parametrize("others", ["a call that runs", "none"])
def test_23_who_waits_for_the_end_of_an_actor_does_not_keep_it(sim_seed: int, others: str) -> None:
    async def main() -> tuple[str, Any]:
        actor = Owner.remote()
        await actor.make()
        waiting = [asyncio.ensure_future(af.wait_dead(actor)) for _ in range(2)]
        running = await actor.make.submit() if others != "none" else None
        await asyncio.sleep(0.1)
        waiting.pop().cancel()
        del actor
        reason = await asyncio.wait_for(waiting.pop(), 30.0)
        return reason, await running if running is not None else None

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        reason, _ = ended(world, driver)
        assert "last handle" in reason
        finish(cluster, driver)


def test_23_who_waits_for_an_actor_that_was_there_already_waits_for_that_one(sim_seed: int) -> None:
    async def main() -> tuple[bool, str]:
        first = Owner.options(name="one", get_if_exists=True).remote()
        await first.make()
        second = Owner.options(name="one", get_if_exists=True).remote()
        waiting = asyncio.ensure_future(af.wait_dead(second))
        await asyncio.sleep(2.0)
        before = waiting.done()
        await af.kill(first)
        return before, await asyncio.wait_for(waiting, 30.0)

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        before, reason = ended(world, driver)
        assert not before and "was killed" in reason
        finish(cluster, driver)
