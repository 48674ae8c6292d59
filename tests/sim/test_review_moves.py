"""Review: moves of actors."""
from __future__ import annotations

import asyncio
import os

import pytest

import actorflow as af
from actorflow._core.node.node import Node
from actorflow._core.protocol.messages import NodeLeaves
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from actorflow.testing.processes import ProcessProfile
from tests.sim.test_draining import Ledger, block, ended, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where


def _mended(self, peer, message):
    leaving = set(self._elsewhere.leaving)
    for n in self._elsewhere.changed(peer, message):
        self._other_gone(n)
        if self._transfers is not None:
            self._transfers.node_gone(n)
    for n in self._elsewhere.leaving:
        if n not in leaving:
            for client in self._connected():
                client.send(NodeLeaves(n))
    self._move_on(self._ports.monotonic())


@pytest.fixture(autouse=True)
def links_mended(monkeypatch):
    """So that other bugs are seen."""
    if not os.environ.get("UNMENDED"):
        monkeypatch.setattr(Node, "_nodes_changed", _mended)


class Signal(af.Actor, max_restarts=1):
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "told"

    async def set(self) -> bool:
        self.event.set()
        return True

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


def test_a_call_that_waits_for_another_call_of_the_same_actor(sim_seed: int) -> None:
    """Queues, semaphores, barriers, signals: a call waits for the next one."""

    async def main() -> tuple[str, float]:
        signal = Signal.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        assert await signal.node() == node_id(second)
        waits = signal.wait.remote()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=600.0)
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        told = signal.set.remote()
        found = await waits
        await told
        return found, asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        found, took = driver.result()
        assert took < 12.0, took
        finish(cluster, driver)


class Recursive(af.Actor, max_restarts=1):
    async def outer(self, me: object) -> int:
        await asyncio.sleep(2.0)
        return await me.inner()

    async def inner(self) -> int:
        return 1

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


def test_a_call_that_calls_its_own_actor(sim_seed: int) -> None:
    async def main() -> float:
        actor = Recursive.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        assert await actor.node() == node_id(second)
        call = actor.outer.remote(actor)
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        await af.drain_node(node_id(second), deadline=600.0)
        assert await call == 1
        return asyncio.get_running_loop().time() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        assert driver.result() < 5.0
        finish(cluster, driver)


class Parent(af.Actor, max_restarts=1):
    async def begin(self) -> object:
        self.child = Place.options(resources={"first": 1}).remote()
        await self.child.node()
        return self.child

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id


def test_children_of_an_actor_that_moves(sim_seed: int) -> None:
    """The child lives on the first node, which stays."""

    async def main() -> str:
        parent = Parent.options(scheduling_strategy=af.NodeAffinity(node_id(second), soft=True)).remote()
        child = await parent.begin()
        assert await parent.node() == node_id(second)
        await af.drain_node(node_id(second), deadline=60.0)
        while await parent.node() == node_id(second):
            await asyncio.sleep(0.2)
        return await child.node()

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 10})
        driver = cluster.driver(main)
        ended(world, driver)
        driver.result()
        finish(cluster, driver)


def test_a_lease_that_is_granted_after_the_word(sim_seed: int) -> None:
    """The worker process was on its way when the node began to drain."""

    async def main() -> list[str]:
        stays = where.options(num_cpus=1, resources={"hold": 1}).remote(10.0)
        await asyncio.sleep(3.0)
        tasks = [where.options(num_cpus=0, resources={"any": 1}).remote(0.5) for _ in range(200)]
        await asyncio.sleep(delay)
        await af.drain_node(node_id(second), deadline=600.0)
        drained.append(True)
        await stays
        return await af.get(tasks)

    drained: list[bool] = []
    delay = 0.1
    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, processes=ProcessProfile(spawn_min_s=0.5, spawn_max_s=0.6))
        second = cluster.add_node(num_cpus=2, resources={"any": 1, "hold": 1})
        third = cluster.add_node(num_cpus=2, resources={"any": 1})
        world.run_until(lambda: third.node is not None and second.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(drained), 20.0)
        begun = world.now
        world.run_until(lambda: not second.host.alive, 620.0)
        took = world.now - begun
        ended(world, driver)
        print("TASKS THERE", driver.result().count(node_id(second)), "LEFT AFTER", took)
        assert took < 12.0, took
        finish(cluster, driver)
