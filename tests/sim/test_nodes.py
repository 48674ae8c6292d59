"""Clusters of several nodes under virtual time: work goes where there is room, follows nodes that join, and survives those that go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver


def nodes_of_workers(cluster: SimCluster) -> dict[str, int]:
    """How many living workers each node has started."""
    counts: dict[str, int] = {}
    for host, core in cluster.cores.items():
        if host.alive and host in cluster.call_hosts:
            counts[core.node_id] = counts.get(core.node_id, 0) + 1
    return counts


def finish(cluster: SimCluster, driver: SimDriver) -> None:
    """Nothing is left of the calls, and then nothing of the cluster."""
    driver.forget()
    cluster.settle()
    cluster.stop()


@af.remote
async def where(seconds: float) -> str:
    from actorflow import _runtime

    await asyncio.sleep(seconds)
    return _runtime.current().node_id  # type: ignore[attr-defined]


@af.remote
class Place:
    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id  # type: ignore[attr-defined]


def test_tasks_go_to_nodes_that_have_room(sim_seed: int) -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(where(5.0) for _ in range(6)))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
        world.run_for(1.0)
        begun = world.now
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 60.0)
        found = driver.result()
        assert world.now - begun < 8.0, "all at one time"
        assert sorted(found.count(node) for node in set(found)) == [2, 2, 2]
        finish(cluster, driver)


def test_a_task_that_is_lost_with_its_node_says_so(sim_seed: int) -> None:
    async def main() -> tuple[af.WorkerCrashedError, str]:
        there = {"resources": {"there": 1}}
        once = await where.options(max_retries=0, **there).submit(1000.0)
        again = await where.options(max_retries=1, **there).submit(3.0)
        await asyncio.sleep(2.0)
        world.kill(other.host)
        cluster.add_node(num_cpus=2, resources={"there": 4})
        with pytest.raises(af.NodeDiedError) as caught:
            await asyncio.wait_for(once, 60.0)
        return caught.value, await again

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        other = cluster.add_node(num_cpus=4, resources={"there": 4})
        world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
        world.run_for(1.0)
        assert other.node is not None
        gone = other.node.node_id
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        error, found = driver.result()
        assert (error.node, error.function_name) == (gone, "where") and found != gone
        assert gone in str(error) and "not tried again (max_retries=0)." in str(error)
        finish(cluster, driver)


def test_work_that_waits_moves_to_a_node_that_joins(sim_seed: int) -> None:
    async def main() -> list[str]:
        return await asyncio.gather(*(where(10.0) for _ in range(4)))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        driver = cluster.driver(main)
        world.run_for(3.0)
        begun = world.now
        cluster.add_node(num_cpus=2)
        world.run_until(lambda: driver.ended, 60.0)
        assert world.now - begun < 15.0
        assert len(set(driver.result())) == 2
        finish(cluster, driver)


def test_a_node_that_dies_takes_attempts_along_and_no_calls(sim_seed: int) -> None:
    async def main() -> int:
        refs = [where.options(max_retries=5).remote(1.0) for _ in range(12)]
        return len(await af.get(refs))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        second = cluster.add_node(num_cpus=2)
        world.run_for(2.0)
        assert second.node is not None
        driver = cluster.driver(main)
        world.run_for(1.5)
        world.kill(second.host)
        for host in [host for host, core in cluster.cores.items() if core.node_id == second.node.node_id]:  # type: ignore[union-attr]
            world.kill(host)  # The machine is gone, not only a process of it.
        world.run_until(lambda: driver.ended, 120.0)
        assert driver.result() == 12
        finish(cluster, driver)


def test_actors_go_where_there_is_room_and_answer_from_there(sim_seed: int) -> None:
    async def main() -> list[str]:
        actors = [Place.options(num_cpus=1).remote() for _ in range(4)]  # type: ignore[attr-defined]
        return await asyncio.gather(*(actor.node() for actor in actors))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        second = cluster.add_node(num_cpus=2)
        world.run_for(2.0)
        assert second.node is not None
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 60.0)
        found = driver.result()
        assert sorted(found.count(node) for node in set(found)) == [2, 2]
        finish(cluster, driver)


def test_what_no_node_can_hold_names_the_nearest(sim_seed: int) -> None:
    async def main() -> str:
        with pytest.raises(af.TaskUnschedulableError) as caught:
            await where.options(num_cpus=64)(0.0)
        return str(caught.value)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2)
        second = cluster.add_node(num_cpus=16)
        world.run_for(2.0)
        assert second.node is not None
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 60.0)
        assert "the nearest is node" in driver.result()
        assert "16 CPU" in driver.result()
        finish(cluster, driver)


def test_nested_tasks_go_on_from_any_node(sim_seed: int) -> None:
    async def main() -> list[Any]:
        return await asyncio.gather(*(parent(3) for _ in range(4)))

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        world.run_for(1.0)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        assert driver.result() == [3] * 4
        finish(cluster, driver)


@af.remote
async def parent(children: int) -> int:
    return len(await asyncio.gather(*(where(0.2) for _ in range(children))))


def test_labels_and_strategies_choose_the_node(sim_seed: int) -> None:
    async def main() -> dict[str, Any]:
        found: dict[str, Any] = {}
        zone = where.options(label_selector={"zone": "b"})
        found["zone b"] = set(await asyncio.gather(*(zone(0.3) for _ in range(5))))
        found["not b"] = set(await asyncio.gather(*(where.options(label_selector={"zone": "!b"})(0.3) for _ in range(5))))
        [place] = found["zone b"]
        others = [{"label_selector": {"zone": "d"}}, {"label_selector": {}}]
        fallback = where.options(label_selector={"zone": "b"}, fallback_strategy=others)
        found["b and others"] = set(await asyncio.gather(*(fallback(0.3) for _ in range(4))))
        in_b = [{"label_selector": {"zone": "b"}}]
        nowhere = await Place.options(label_selector={"zone": "d"}, fallback_strategy=in_b).remote()  # type: ignore[attr-defined]
        found["actor by fallback"] = await nowhere.node()
        pinned = where.options(scheduling_strategy=af.NodeAffinity(place))
        found["pinned"] = set(await asyncio.gather(*(pinned(0.3) for _ in range(5))))
        spread = where.options(scheduling_strategy="spread", num_cpus=0.1)
        found["spread"] = set(await asyncio.gather(*(spread(0.3) for _ in range(6))))
        actor = await Place.options(label_selector={"zone": "in(b,c)"}).remote()  # type: ignore[attr-defined]
        found["actor"] = await actor.node()
        for wish in ({"label_selector": {"zone": "d"}}, {"scheduling_strategy": af.NodeAffinity("nowhere")}):
            with pytest.raises(af.TaskUnschedulableError) as caught:
                await where.options(**wish)(0.0)
            found[str(wish)] = str(caught.value)
        found["soft"] = await where.options(scheduling_strategy=af.NodeAffinity("nowhere", soft=True))(0.0)
        return found

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2, node_options={"labels": {"zone": "a"}})
        second = cluster.add_node(num_cpus=2, labels={"zone": "b"})
        world.run_for(2.0)
        assert second.node is not None
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 120.0)
        found = driver.result()
        assert second.node is not None
        b = second.node.node_id
        assert found.pop("zone b") == found.pop("pinned") == {b}
        assert b not in found.pop("not b")
        assert len(found.pop("spread")) == 2
        assert len(found.pop("b and others")) == 2, "b has room for two, and the others do not wait for it"
        assert found.pop("actor") == found.pop("actor by fallback") == b
        assert found.pop("soft")
        words = list(found.values())
        assert "zone=d" in words[0]
        assert "asks for node nowhere only" in words[1]
        finish(cluster, driver)
