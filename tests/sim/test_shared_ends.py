"""SEMANTICS 22, LV-1: what is of a shared actor ends with the actor, and not with the process that it shares (AE-3, AE-4)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._core.worker import host as host_module
from actorflow._core.worker.hosted import HostedActor
from actorflow.testing import LinkProfile, World
from actorflow.testing.cluster import SimCluster
from tests.sim.test_durable_objects import ended as has_ended
from tests.sim.test_nodes import finish

acts: dict[int, list[float]] = {}
ended: list[str] = []


class Acting(af.Actor, num_cpus=0, max_restarts=-1, process="shared"):
    """Goes on by itself: from its constructor, and from a call."""

    def __init__(self) -> None:
        self.life = len(acts) + 1
        acts[self.life] = []
        self.acting = [asyncio.ensure_future(self.go_on("constructor"))]

    async def go_on(self, begun_by: str) -> None:
        try:
            while True:
                acts[self.life].append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.1)
        finally:
            await asyncio.sleep(0.05)  # It may end in its own time: a second cancel would cut this off.
            ended.append(begun_by)

    async def begin(self) -> int:
        self.acting.append(asyncio.ensure_future(self.go_on("call")))
        return self.life

    async def wait(self) -> None:
        try:
            await asyncio.gather(asyncio.sleep(1000.0), self.go_on("running call"))
        finally:
            await asyncio.sleep(0.05)
            ended.append("waiting call")


class Neighbour(af.Actor, num_cpus=0, process="shared"):
    """Keeps the process."""

    def __init__(self) -> None:
        self.ticks = 0
        self.task = asyncio.ensure_future(self.tick())

    async def tick(self) -> None:
        while True:
            self.ticks += 1
            await asyncio.sleep(0.1)

    async def count(self) -> int:
        return self.ticks


@pytest.mark.parametrize("how", ["kill", "kill under a call", "graceful", "drop", "restart"])
def test_22_what_a_shared_actor_has_begun_ends_with_it(sim_seed: int, how: str) -> None:
    acts.clear()
    ended.clear()

    async def main() -> tuple[float, int, list[str]]:
        neighbour = Neighbour.remote()
        actor: Any = Acting.remote()
        assert await actor.begin() == 1
        under_way = asyncio.ensure_future(actor.wait()) if how == "kill under a call" else None
        await asyncio.sleep(1.0)
        if how == "restart":
            await af.kill(actor, no_restart=False)
        elif how == "drop":
            del actor
        else:
            await af.kill(actor, graceful=how == "graceful")
        await asyncio.sleep(3.0)
        silent_s = asyncio.get_running_loop().time() - acts[1][-1]
        if under_way is not None:
            with pytest.raises(af.ActorDiedError):
                await under_way
        before = await neighbour.count()
        await asyncio.sleep(1.0)
        if how == "restart":
            assert len(acts) == 2 and acts[2][-1] > asyncio.get_running_loop().time() - 0.2, "the next life acts"
        return silent_s, await neighbour.count() - before, list(ended)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        silent_s, ticks, ends = driver.result()
        assert silent_s > 2.0, f"its first life still acts; there were {len(acts)}"
        assert ticks >= 9, "its neighbour goes on"
        expected = ["call", "constructor"]
        if how == "kill under a call":
            expected += ["running call", "waiting call"]
        assert sorted(ends) == sorted(expected)
        finish(cluster, driver)


class Fails(Acting):
    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no")


def test_22_what_a_constructor_has_begun_that_fails_ends_with_it(sim_seed: int) -> None:
    """And nothing of an actor that has left stays in the process."""
    acts.clear()

    async def main() -> float:
        neighbour = Neighbour.remote()
        await neighbour.count()
        with pytest.raises(ValueError, match="no"):
            await Fails.remote().begin()
        for _ in range(3):
            actor = Acting.remote()
            await actor.begin()
            await af.kill(actor)
        await asyncio.sleep(5.0)
        silent_s = asyncio.get_running_loop().time() - max(times[-1] for times in acts.values() if times)
        [host] = [calls for host, calls in cluster.call_hosts.items() if host.alive and calls.own_tasks is not None]
        assert set(host.own_tasks._tasks) == set(host.actors) and not host.checkpoints
        return silent_s

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        assert driver.result() > 4.0
        finish(cluster, driver)


class Hooks(Acting):
    """Begins something in each of its hooks."""

    def __init__(self, exit_s: float = 0.1) -> None:
        super().__init__()
        self.exit_s = exit_s
        self.told = False

    async def __aenter__(self) -> Hooks:
        await self.act("enter")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.act("exit")
        await asyncio.sleep(self.exit_s)
        ended.append("exit hook")

    async def act(self, where: str) -> None:
        self.acting.append(asyncio.ensure_future(self.go_on(where)))

    async def __checkpoint__(self) -> None:
        if not self.told:
            self.told = True
            await self.act("checkpoint")

    def __restore__(self, state: None) -> None:
        self.told = True


@pytest.mark.parametrize("checkpoint_every", ["call", 1.0])
@pytest.mark.parametrize("how", ["graceful", "drop"])
def test_ae_4_what_the_hooks_of_a_shared_actor_have_begun_ends_with_it(sim_seed: int, how: str, checkpoint_every: Any) -> None:
    acts.clear()
    ended.clear()

    async def main() -> float:
        neighbour = Neighbour.remote()
        await neighbour.count()
        actor = Hooks.options(checkpoint_every=checkpoint_every).remote()
        await actor.begin()
        await asyncio.sleep(3.0)
        if how == "graceful":
            await af.kill(actor, graceful=True)
        del actor
        await asyncio.sleep(5.0)
        silent_s = asyncio.get_running_loop().time() - acts[1][-1]
        await neighbour.count()
        return silent_s

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        assert has_ended(world, driver) > 3.0
        assert sorted(ended) == sorted(["constructor", "enter", "call", "checkpoint", "exit", "exit hook"])
        finish(cluster, driver)


@pytest.mark.parametrize("restarts", [False, True])
def test_ae_4_a_kill_ends_an_exit_hook_that_runs(sim_seed: int, restarts: bool) -> None:
    acts.clear()
    ended.clear()

    async def main() -> float:
        neighbour = Neighbour.remote()
        await neighbour.count()
        actor = Hooks.remote(3.0)
        await actor.begin()
        ending = asyncio.ensure_future(af.kill(actor, graceful=True, no_restart=not restarts))
        await asyncio.sleep(1.0)
        await af.kill(actor)
        await ending
        await asyncio.sleep(10.0)
        await neighbour.count()
        return asyncio.get_running_loop().time() - acts[1][-1]

    with World(sim_seed, links=LinkProfile(cut_chance=0, spike_chance=0)) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        assert has_ended(world, driver) > 9.0
        assert "exit" in ended and "exit hook" not in ended
        finish(cluster, driver)


began: list[tuple[int, int]] = []
"""(life, number) of each call that has begun."""
KILLS = 5
"""In this call the word comes that its actor is to end."""


class Busy(Acting):
    async def work(self, number: int) -> None:
        began.append((self.life, number))
        if number == KILLS:
            host: Any = _runtime.current().host  # type: ignore[attr-defined]
            [actor] = [hosted for hosted in host.actors.values() if hosted.instance is self]
            with host.core.lock:
                actor.leave(host, graceful=False)
        await asyncio.sleep(0.5)


def test_ae_3_of_a_killed_actor_no_call_begins_that_has_not(sim_seed: int) -> None:
    """However many stand in line on the user's thread: here the loop has its turn after each of them, as if they took their time."""
    acts.clear()
    began.clear()
    abandon, abandoned = HostedActor._abandon, []

    def noted(actor: HostedActor, host: Any) -> None:
        abandon(actor, host)
        abandoned.append((len(began), sum(incoming.actor is actor for incoming in host.calls.values())))

    async def main() -> int:
        neighbour = Neighbour.remote()
        await neighbour.count()
        actor = Busy.options(max_restarts=0).remote()
        await actor.begin()
        lost = [asyncio.ensure_future(actor.work(number)) for number in range(300)]
        ends = await asyncio.gather(*lost, return_exceptions=True)
        [host] = [calls for host, calls in cluster.call_hosts.items() if host.alive and calls.own_tasks is not None]
        assert not host.calls
        await neighbour.count()
        return sum(isinstance(end, af.ActorflowError) for end in ends)

    with pytest.MonkeyPatch.context() as patch, World(sim_seed, links=LinkProfile(cut_chance=0)) as world:
        patch.setattr(host_module, "RUN_S", -1.0)
        patch.setattr(HostedActor, "_abandon", noted)
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        assert has_ended(world, driver) == 300, "all hear of its end"
    [(begun, left)] = abandoned
    assert KILLS < begun < 300
    assert len(began) == begun, "AE-3: some began later"
    assert left <= begun + 1, "those that run have yet to end, and one may have its task already"


class Stored(af.Actor, num_cpus=0, max_restarts=-1, checkpoint_every="call", process="shared"):
    def __init__(self) -> None:
        self.count = 0

    def __checkpoint__(self) -> int:
        return self.count

    def __restore__(self, count: int) -> None:
        self.count = count

    async def add(self) -> int:
        self.count += 1
        return self.count


@pytest.mark.parametrize("graceful", [False, True])
def test_ae_4_calls_that_wait_for_a_state_to_be_stored_go_with_their_actor(sim_seed: int, graceful: bool) -> None:
    """And so does that state. Their callers hear of the end."""
    called = threading.Event()

    async def main() -> list[str]:
        neighbour = Neighbour.remote()
        await neighbour.count()
        actor = Stored.options(name="stored").remote()
        await actor.add()
        [host] = [host for host, calls in cluster.call_hosts.items() if host.alive and calls.own_tasks is not None]
        await asyncio.sleep(1.0)
        world.fabric.delay(host, cluster.sim_head.host, 60.0)  # type: ignore[union-attr]
        lost = [await actor.add.submit() for _ in range(5)]
        await asyncio.sleep(0.5)
        called.set()
        ends = await asyncio.gather(*lost, return_exceptions=True)
        await asyncio.sleep(1.0)
        calls = cluster.call_hosts[host]
        assert not calls.calls and not any(what == "checkpoint" for what, _ in calls.core.head_line._open)
        await neighbour.count()
        return [type(end).__name__ for end in ends]

    async def kills() -> None:
        while not called.is_set():
            await asyncio.sleep(0.01)
        await af.kill(await af.get_actor("stored"), graceful=graceful)

    with World(sim_seed, links=LinkProfile(cut_chance=0, spike_chance=0)) as world:
        cluster = SimCluster(world, num_cpus=2, durable=True)
        driver, other = cluster.driver(main, stay=True), cluster.driver(kills)
        assert has_ended(world, driver) == ["ActorDiedError"] * 5
        has_ended(world, other)
        driver.end()
