"""Nodes that leave in order: what runs may end, actors go on elsewhere with their state, and nobody's call is lost."""

from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.sim_node import SimNode
from tests.sim.test_nodes import Place, finish, where


class Ledger(af.Actor, max_restarts=1):
    """Knows all that it was told, and in what order."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.lives = 1

    def __checkpoint__(self) -> tuple[list[int], int]:
        return self.entries, self.lives

    def __restore__(self, state: tuple[list[int], int]) -> None:
        self.entries, self.lives = state[0], state[1] + 1

    async def add(self, number: int) -> int:
        await asyncio.sleep(0.01)
        self.entries.append(number)
        return len(self.entries)

    async def all(self) -> tuple[list[int], int]:
        return self.entries, self.lives

    async def node(self) -> str:
        from actorflow import _runtime

        return _runtime.current().node_id  # type: ignore[attr-defined]


def two_nodes(world: World, **options: object) -> tuple[SimCluster, SimNode]:
    """The first node has one CPU, the second two."""
    cluster = SimCluster(world, num_cpus=1, **options)  # type: ignore[arg-type]
    second = cluster.add_node(num_cpus=2, resources={"second": 100})
    world.run_until(lambda: second.node is not None, 20.0)
    world.run_for(1.0)
    return cluster, second


def node_id(node: SimNode) -> str:
    assert node.node is not None
    return node.node.node_id


async def gone(*nodes: SimNode, timeout_s: float = 10.0) -> None:
    """They have left by themselves, long before their deadlines."""
    names = {node_id(node) for node in nodes}
    async with asyncio.timeout(timeout_s):
        while any(row["node_id"] in names and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.1)


def ended(world: World, driver: SimDriver, timeout_s: float = 120.0) -> None:
    world.run_until(lambda: driver.ended, timeout_s)


def test_an_actor_goes_on_elsewhere_and_no_call_of_it_is_lost_or_runs_twice(sim_seed: int) -> None:
    """Though it has no max_task_retries: nothing fails that would have to be tried again."""
    calls = 120

    async def main() -> tuple[list[int], list[int], int, str, list[int]]:
        ledger = Ledger.options(num_cpus=1, max_concurrency=4, label_selector={"actorflow.io/node-id": f"!{first}"}).remote()
        assert await ledger.node() == node_id(second)
        refs = [ledger.add.remote(number) for number in range(calls // 2)]
        await af.get(refs[5])
        await af.drain_node(node_id(second)[:6], deadline=60.0)
        refs += [ledger.add.remote(number) for number in range(calls // 2, calls)]
        counts = await af.get(refs)
        entries, lives = await ledger.all()
        await gone(second)
        return counts, entries, lives, await ledger.node(), [row["restarts"] for row in await af.state.list_actors()]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        third = cluster.add_node(num_cpus=2)
        world.run_until(lambda: third.node is not None, 20.0)
        world.run_for(1.0)
        first = cluster.node.node_id  # type: ignore[union-attr]
        driver = cluster.driver(main)
        ended(world, driver)
        counts, entries, lives, where_it_is, restarts = driver.result()
        assert sorted(entries) == list(range(calls))
        assert sorted(counts) == list(range(1, calls + 1))
        assert lives == 2
        assert where_it_is != node_id(second)
        assert restarts == [0], "AC-8"
        finish(cluster, driver)


def test_what_one_caller_asks_stays_in_order(sim_seed: int) -> None:
    async def main() -> list[int]:
        ledger = Ledger.options(max_concurrency=1, resources={"second": 1}).remote()
        refs = [ledger.add.remote(number) for number in range(50)]
        await af.get(refs[3])
        await af.drain_node(node_id(second), deadline=60.0)
        refs += [ledger.add.remote(number) for number in range(50, 100)]
        await af.get(refs)
        await gone(second)
        return (await ledger.all())[0]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        third = cluster.add_node(num_cpus=2, resources={"second": 100})
        world.run_until(lambda: third.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == list(range(100)), "SEMANTICS 20"
        finish(cluster, driver)


def test_tasks_end_where_they_run_and_new_ones_go_elsewhere(sim_seed: int) -> None:
    async def main() -> tuple[list[str], list[str]]:
        early = [where.options(max_retries=0).remote(3.0) for _ in range(3)]
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=60.0)
        late = [where.options(max_retries=0).remote(0.1) for _ in range(6)]
        found = await af.get(early), await af.get(late)
        await gone(second, timeout_s=5.0)
        return found

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        early, late = driver.result()
        assert early.count(node_id(second)) == 2
        assert node_id(second) not in late
        finish(cluster, driver)


def test_it_leaves_at_its_deadline_and_what_is_lost_counts_as_no_failure(sim_seed: int) -> None:
    async def main() -> tuple[str, str, str]:
        task = where.options(max_retries=1, resources={"long": 1}).remote(20.0)
        once = where.options(max_retries=0, num_cpus=0, resources={"second": 1}).remote(1000.0)
        actor = Place.options(resources={"second": 1}).remote()  # type: ignore[attr-defined]
        await actor.node()
        await asyncio.sleep(1.0)
        begun = asyncio.get_running_loop().time()
        await af.drain_node(node_id(second), deadline=5.0)
        with pytest.raises(af.WorkerCrashedError) as lost:
            await once
        assert asyncio.get_running_loop().time() - begun < 7.0
        with pytest.raises(af.ActorDiedError) as dead:
            while True:  # Tasks are ended first: the actor may answer once more.
                await actor.node()
        # The attempt that was lost with the first node of the two was not counted, so that this loss is survived as well.
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(third), deadline=0.1)
        return await task, str(lost.value), str(dead.value)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1)
        second = cluster.add_node(num_cpus=2, resources={"second": 100, "long": 1})
        world.run_until(lambda: second.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        world.run_for(2.0)
        third = cluster.add_node(num_cpus=1, resources={"long": 1})
        world.run_until(lambda: third.node is not None, 20.0)
        world.run_until(lambda: not second.host.alive, 30.0)
        fourth = cluster.add_node(num_cpus=1, resources={"long": 1})
        ended(world, driver)
        found, lost, dead = driver.result()
        assert found == node_id(fourth)
        # The news of its end may come after the end of the connection with it.
        broke = f"the connection to its node {node_id(second)} broke"
        assert "its node has left: it was drained (asked by a program): its time was over" in lost or broke in lost
        assert f"its node {node_id(second)} has left" in dead
        finish(cluster, driver)


def test_a_task_that_the_deadline_cut_off_and_no_other_node_can_run_says_that_it_ran(sim_seed: int) -> None:
    """It may have had effects: `can never be scheduled` alone would say that it had none."""

    async def main() -> str:
        task = where.options(max_retries=1, num_cpus=0, resources={"second": 1}).remote(1000.0)
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=2.0)
        with pytest.raises(af.TaskUnschedulableError) as lost:
            await task
        return str(lost.value)

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        text = driver.result()
        assert text.startswith("where (attempt 2) cannot be scheduled any more: it asks for 1 second"), text
        assert "What happened before:\n  attempt 1 was lost with worker" in text
        assert "its time was over, with 1 task left" in text
        finish(cluster, driver)


def test_the_first_node_and_unknown_ones_do_not_drain(sim_seed: int) -> None:
    async def main() -> list[str]:
        found = []
        for name in (first, "no-such-node"):
            with pytest.raises(af.OptionError) as caught:
                await af.drain_node(name, deadline=60.0)
            found.append(str(caught.value))
        return found

    with World(sim_seed) as world:
        cluster, _ = two_nodes(world)
        first = cluster.node.node_id  # type: ignore[union-attr]
        driver = cluster.driver(main)
        ended(world, driver)
        itself, unknown = driver.result()
        assert "it is the first node of the cluster" in itself
        assert unknown.startswith("node 'no-such-node': no living node has it")
        finish(cluster, driver)


def test_an_actor_moves_when_there_is_room_for_it(sim_seed: int) -> None:
    async def main() -> tuple[str, int]:
        ledger = Ledger.options(resources={"second": 1}).remote()
        await ledger.add(1)
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(5.0)
        assert await ledger.node() == node_id(second), "there is nowhere else"
        told.append(True)
        while await ledger.node() == node_id(second):
            await asyncio.sleep(0.5)
        return await ledger.node(), (await ledger.all())[1]

    told: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(told), 60.0)
        third = cluster.add_node(num_cpus=1, resources={"second": 1})
        ended(world, driver)
        assert driver.result() == (node_id(third), 2)
        finish(cluster, driver)


@af.remote(max_retries=0)
def block(number: int) -> bytes:
    return bytes([number]) * 300_000


@af.remote(max_retries=0)
def total(*blocks: bytes) -> int:
    return sum(len(one) * one[0] for one in blocks)


def test_objects_are_fetched_by_their_owners_before_the_node_leaves(sim_seed: int) -> None:
    """And none is made again: its task could not be."""

    async def main() -> tuple[int, list[int]]:
        refs = [block.options(resources={"second": 1}, num_cpus=0).remote(number) for number in range(1, 6)]
        await af.wait(refs, num_returns=len(refs))
        slow = where.options(num_cpus=0, resources={"second": 1}).remote(3.0)
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=60.0)
        await slow
        while any(row["node_id"] == node_id(second) and row["state"] != "lost" for row in await af.state.list_nodes()):
            await asyncio.sleep(0.5)
        return await total.options(num_cpus=1).remote(*refs), [value[0] for value in await af.get(refs)]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        third = cluster.add_node(num_cpus=2)
        world.run_until(lambda: third.node is not None, 20.0)
        driver = cluster.driver(main)
        begun = world.now
        ended(world, driver)
        assert world.now - begun < 20.0, "it did not wait for its deadline"
        assert driver.result() == (300_000 * 15, [1, 2, 3, 4, 5])
        finish(cluster, driver)
