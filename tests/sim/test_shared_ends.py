"""SEMANTICS 22, LV-1: what a shared actor has begun ends with the actor, and not with the process that it shares."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
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
