"""Placement groups under virtual time: clusters of one to four nodes, two drivers, nodes that die and join at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._core.base.resources import ResourceSet
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver

LOOK_S = 0.01
"""How often the books are looked at while a scenario runs."""


def check_books(cluster: SimCluster) -> None:
    """At no moment do granted leases and bundles exceed what a node has, and every book agrees with itself."""
    for sim in cluster.nodes:
        if not sim.host.alive or sim.node is None:
            continue
        node, groups = sim.node, sim.node._context.groups
        taken = groups.bundles.check() if groups is not None else ResourceSet()
        node._book.check(taken.amounts)
        for book in groups.books() if groups is not None else ():
            book.check()
        free = node._book.free()
        assert all(units >= 0 for name, units in free.amounts.items() if name != "CPU"), free
    if cluster.node_host.alive and cluster.head is not None and cluster.head._opened is not None:
        cluster.head._opened.table.check()


def watch(world: World, cluster: SimCluster) -> None:
    """Have the books looked at, again and again."""

    def look() -> None:
        check_books(cluster)
        world.at_time(world.now + LOOK_S, look)

    world.at_time(world.now, look)


def start(cluster: SimCluster, main: Callable[[], Any]) -> SimDriver:
    """A driver that stays when its program has ended: so that what its groups have left is seen, and the cluster lives on."""
    return cluster.driver(main, stay=True)


def run(world: World, cluster: SimCluster, *drivers: SimDriver, timeout_s: float = 120.0) -> list[Any]:
    """Run until all programs have ended; their results. Nothing is left then: not of the groups, nor of the cluster."""
    world.run_until(lambda: all(driver.ended for driver in drivers), timeout_s)
    results = [driver.result() for driver in drivers]
    for driver in drivers:
        driver.forget()
    world.run_until(lambda: all(node.node is not None or not node.host.alive for node in cluster.nodes))
    world.run_for(1.0)
    cluster.settle()
    check_books(cluster)
    cluster.stop()
    return results


def nodes_are_there(world: World, cluster: SimCluster) -> None:
    world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
    world.run_for(1.0)


def kill_machine(world: World, cluster: SimCluster, node: Any) -> None:
    """The machine is gone, not only a process of it."""
    node_id = node.node.node_id if node.node is not None else ""
    world.kill(node.host)
    for host in [host for host, core in cluster.cores.items() if core.node_id == node_id and host in cluster.call_hosts]:
        world.kill(host)


def lose_the_head(sim: Any) -> None:
    """The connection of a node to the head breaks: to the head the node is lost, and joins again."""
    node = sim.node
    sim.host.loop.call_soon_threadsafe(lambda: node._head._peer.close(abort=True))


@af.remote
async def where(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return af.get_runtime_context().node_id


@af.remote
class Place:
    async def node(self) -> str:
        return af.get_runtime_context().node_id

    async def children(self, count: int) -> list[str]:
        return await asyncio.gather(*(where(0.1) for _ in range(count)))


def cluster_of(world: World, nodes: int, num_cpus: float = 2) -> SimCluster:
    cluster = SimCluster(world, num_cpus=num_cpus)
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=num_cpus)
    nodes_are_there(world, cluster)
    watch(world, cluster)
    return cluster


@pytest.mark.parametrize("nodes", [1, 3])
def test_tasks_and_actors_run_in_their_bundles(sim_seed: int, nodes: int) -> None:
    async def main() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with af.placement_group([{"CPU": 1}] * 3, strategy="SPREAD" if nodes > 1 else "PACK") as group:
            [row] = await af.state.list_placement_groups()
            found["rows"] = row["nodes"]
            tasks = [where.options(placement_group=group, bundle_index=index)(0.2) for index in range(3)]
            found["tasks"] = await asyncio.gather(*tasks)
            found["any"] = set(await asyncio.gather(*(where.options(placement_group=group)(0.3) for _ in range(12))))
            actors = [Place.options(placement_group=group, num_cpus=1).remote() for _ in range(3)]  # type: ignore[attr-defined]
            found["actors"] = await asyncio.gather(*(actor.node() for actor in actors))
            found["free"] = (await af.available_resources())["CPU"]
        found["dead"] = [type(await _outcome(actor.node())) for actor in actors]
        found["removed"] = type(await _outcome(where.options(placement_group=group)()))
        return found

    with World(sim_seed) as world:
        cluster = cluster_of(world, nodes, num_cpus=3)
        [found] = run(world, cluster, start(cluster, main))
        assert found["tasks"] == found["rows"]
        assert found["any"] == set(found["rows"])
        assert sorted(found["actors"]) == sorted(found["rows"]), "one actor for each bundle, as they leave no room for two"
        assert found["free"] == 3 * nodes - 3
        assert found["dead"] == [af.ActorPlacementGroupRemoved] * 3
        assert found["removed"] is af.TaskPlacementGroupRemoved


async def _outcome(call: Any) -> BaseException | None:
    try:
        await call
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("retries", [0, 3])
def test_a_group_that_is_removed_takes_its_tasks_along(sim_seed: int, retries: int) -> None:
    async def main() -> list[tuple[type, str]]:
        group = await af.placement_group([{"CPU": 1}]).ready()
        work = where.options(placement_group=group, max_retries=retries)
        running, waiting = work.remote(100.0), work.remote(100.0)
        await asyncio.sleep(0.5)
        await group.remove()
        errors = [await _outcome(running), await _outcome(waiting)]
        return [(type(error), str(error)) for error in errors]

    with World(sim_seed) as world:
        cluster = cluster_of(world, 1)
        [found] = run(world, cluster, start(cluster, main))
        assert [kind for kind, _ in found] == [af.TaskPlacementGroupRemoved] * 2
        assert "was removed by driver" in found[1][1]


@pytest.mark.parametrize("bundle", [1, 9])
def test_nothing_is_kept_of_the_tasks_of_a_group_that_is_removed(sim_seed: int, bundle: int) -> None:
    """Whether they ran, or failed as no node could hold their group."""

    async def main() -> tuple[list[type | None], int]:
        group = af.placement_group([{"CPU": bundle}])
        errors = [await _outcome(where.options(placement_group=group, num_cpus=number)()) for number in (1, 0.5, 0.25, 0.25)]
        await group.remove()
        tasks = _runtime.current().tasks  # type: ignore[attr-defined]
        return [type(error) if error else None for error in errors], sum(klass.in_group for klass in tasks._classes.values())

    with World(sim_seed) as world:
        cluster = cluster_of(world, 2)
        [(errors, classes)] = run(world, cluster, start(cluster, main))
        assert errors == [af.TaskUnschedulableError if bundle == 9 else None] * 4
        assert classes == 0


def test_what_is_asked_for_before_the_group_is_ready_waits_for_it(sim_seed: int) -> None:
    async def main() -> tuple[str, str]:
        group = af.placement_group([{"CPU": 2}])  # All of the node, which a task has.
        actor = Place.options(placement_group=group).remote()  # type: ignore[attr-defined]
        task = where.options(placement_group=group, bundle_index=0).remote()
        found = await task, await actor.node()
        await group.remove()
        return found

    async def blocking() -> str:
        return await where.options(num_cpus=2)(7.0)

    with World(sim_seed) as world:
        cluster = cluster_of(world, 1)
        first = start(cluster, blocking)
        world.run_for(1.0)
        second = start(cluster, main)
        world.run_until(lambda: second.ended, 60.0)
        assert world.now > 7.0
        run(world, cluster, first, second)


def test_claims_are_served_when_tasks_never_leave_room_by_themselves(sim_seed: int) -> None:
    """A node with a long queue of tasks gives a group its turn after the time in which requests starve."""
    done: list[float] = []

    async def main() -> int:
        refs = [where.remote(0.5) for _ in range(200)]
        async with af.placement_group([{"CPU": 2}]):
            done.append(asyncio.get_running_loop().time())
        for ref in refs:
            ref.cancel()
        return len(refs)

    with World(sim_seed) as world:
        cluster = cluster_of(world, 1)
        run(world, cluster, start(cluster, main))
        assert len(done) == 1


def test_children_are_captured_when_the_group_says_so(sim_seed: int) -> None:
    async def main() -> tuple[list[str], list[str], list[str]]:
        async with af.placement_group([{"CPU": 2}], strategy="PACK", bundle_label_selector={"zone": "!a"}) as group:
            inside = await parent.options(placement_group=group, capture_child_tasks=True)(4)
            options = {"placement_group": group, "capture_child_tasks": True, "num_cpus": 1}
            actor = Place.options(**options).remote()  # type: ignore[attr-defined]
            by_actor = await actor.children(3)
            free = await parent.options(placement_group=group, num_cpus=0.5)(6)
            return inside, by_actor, free

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2, node_options={"labels": {"zone": "a"}})
        second = cluster.add_node(num_cpus=2, labels={"zone": "b"})
        nodes_are_there(world, cluster)
        watch(world, cluster)
        assert second.node is not None
        there = second.node.node_id
        [(inside, by_actor, free)] = run(world, cluster, start(cluster, main))
        assert set(inside) == set(by_actor) == {there}
        assert set(free) != {there}, "they were not captured, and the group has all of that node"


@af.remote
async def parent(children: int) -> list[str]:
    return await asyncio.gather(*(where(0.2) for _ in range(children)))


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_SPREAD", "STRICT_PACK"])
def test_bundles_of_a_node_that_dies_get_another_place(sim_seed: int, strategy: Any) -> None:
    state: dict[str, Any] = {}

    async def main() -> list[str]:
        async with af.placement_group([{"CPU": 1}] * 2, strategy=strategy, bundle_label_selector={"victim": "!no"}) as group:
            actor = Place.options(placement_group=group, bundle_index=0, max_restarts=-1, max_task_retries=-1).remote()  # type: ignore[attr-defined]
            await actor.node()
            work = [where.options(placement_group=group, bundle_index=i % 2, max_retries=-1).remote(0.5) for i in range(8)]
            state["nodes"] = (await af.state.list_placement_groups())[0]["nodes"]
            await af.wait(work, num_returns=len(work))
            await asyncio.sleep(2.0)
            await group.ready()
            state["then"] = (await af.state.list_placement_groups())[0]["nodes"]
            return [await actor.node(), *await asyncio.gather(*(where.options(placement_group=group, bundle_index=i)() for i in (0, 1)))]

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=2, node_options={"labels": {"victim": "no"}})
        for _ in range(3):
            cluster.add_node(num_cpus=2)
        nodes_are_there(world, cluster)
        watch(world, cluster)
        driver = start(cluster, main)
        world.run_until(lambda: "nodes" in state, 60.0)
        victim = next(node for node in cluster.nodes if node.node is not None and node.node.node_id == state["nodes"][0])
        lost = state["nodes"][0]
        kill_machine(world, cluster, victim)
        [found] = run(world, cluster, driver)
        assert lost not in state["then"]
        assert "" not in state["then"]
        assert found == [state["then"][0], *state["then"]]
        if strategy == "STRICT_SPREAD":
            assert len(set(state["then"])) == 2
        if strategy == "STRICT_PACK":
            assert len(set(state["then"])) == 1


@pytest.mark.parametrize("kind", ["task", "actor"])
def test_work_for_any_bundle_waits_while_the_one_that_could_hold_it_has_no_place(sim_seed: int, kind: str) -> None:
    state: dict[str, Any] = {}

    async def main() -> tuple[list[str], list[str]]:
        async with af.placement_group([{"CPU": 4}, {"CPU": 1}], strategy="STRICT_SPREAD") as group:
            state["nodes"] = (await af.state.list_placement_groups())[0]["nodes"]
            while (await af.state.list_placement_groups())[0]["state"] != "rescheduling":
                await asyncio.sleep(0.1)
            if kind == "actor":
                actor = Place.options(placement_group=group, num_cpus=4).remote()  # type: ignore[attr-defined]
                large = actor.node.remote()
            else:
                large = where.options(placement_group=group, num_cpus=4).remote()
            small = await where.options(placement_group=group, num_cpus=1)()
            await af.wait([large], timeout=3.0)
            state["waited"] = not large.done()
            return [await large, small], (await af.state.list_placement_groups())[0]["nodes"]

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1)
        cluster.add_node(num_cpus=4)
        nodes_are_there(world, cluster)
        watch(world, cluster)
        driver = start(cluster, main)
        world.run_until(lambda: "nodes" in state, 60.0)
        kill_machine(world, cluster, next(node for node in cluster.nodes if node.node and node.node.node_id == state["nodes"][0]))
        world.run_until(lambda: "waited" in state, 60.0)
        cluster.add_node(num_cpus=4)
        [(found, nodes)] = run(world, cluster, driver)
        assert state["waited"], "no bundle that has a place could hold it, and one that has none could"
        assert found == nodes
        assert nodes[0] not in state["nodes"]


def test_a_captured_child_that_no_bundle_could_hold_fails_in_words(sim_seed: int) -> None:
    async def main() -> list[BaseException | None]:
        async with af.placement_group([{"CPU": 1}, {"CPU": 1}]) as group:
            return [await _outcome(too_large.options(placement_group=group, capture_child_tasks=True)()) for _ in range(2)]

    with World(sim_seed) as world:
        cluster = cluster_of(world, 2)
        [errors] = run(world, cluster, start(cluster, main))
        for error in errors:
            assert isinstance(error, af.TaskUnschedulableError)
            text = "2 CPU is asked for in one bundle, and bundle 0 has 1 CPU, bundle 1 has 1 CPU. Ask for less, or make the bundle larger"
            assert text in str(error)


@af.remote
async def too_large() -> str:
    return await where.options(num_cpus=2)()


def test_a_group_ends_with_its_job_and_a_detached_one_does_not(sim_seed: int) -> None:
    async def first() -> None:
        await af.placement_group([{"CPU": 1}], name="mine").ready()
        await af.placement_group([{"CPU": 1}], name="kept", lifetime="detached").ready()

    async def owner() -> dict[str, Any]:
        await asyncio.sleep(5.0)
        rows = {row["name"]: row for row in await af.state.list_placement_groups()}
        group = await af.get_placement_group("kept")
        place = await where.options(placement_group=group)()
        await group.remove()
        missing = await _outcome(af.get_placement_group("keptt"))
        return {"rows": rows, "place": place, "missing": missing}

    with World(sim_seed) as world:
        cluster = cluster_of(world, 1)
        drivers = start(cluster, owner), cluster.driver(first)  # The second one leaves.
        [found, _] = run(world, cluster, *drivers)
        assert found["rows"]["mine"]["state"] == "removed"
        assert "its job" in found["rows"]["mine"]["reason"]
        assert found["rows"]["kept"]["state"] == "created"
        assert found["place"]
        assert isinstance(found["missing"], af.PlacementGroupNotFoundError)


def test_a_group_ends_with_the_actor_that_created_it(sim_seed: int) -> None:
    async def main() -> list[str]:
        keeper = Keeper.remote()  # type: ignore[attr-defined]
        group = await keeper.keep()
        await where.options(placement_group=group)()
        await af.kill(keeper)
        error = await _outcome(group.ready())
        while not isinstance(error, af.PlacementGroupRemovedError):
            error = await _outcome(group.ready())
            await asyncio.sleep(0.05)
        return [str(error)]

    with World(sim_seed) as world:
        cluster = cluster_of(world, 2)
        [[text]] = run(world, cluster, start(cluster, main))
        assert "which created it, is dead" in text


@af.remote
class Keeper:
    async def keep(self) -> Any:
        return await af.placement_group([{"CPU": 1}]).ready()


def random_program(rng: random.Random, rounds: int) -> Callable[[], Any]:
    """Groups created, used and removed, several at one time; every create ends, well or in words."""

    async def one(rng: random.Random) -> str:
        bundles = [{"CPU": rng.choice([0.5, 1, 1, 2])} for _ in range(rng.randint(1, 3))]
        strategy: Any = rng.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
        group = af.placement_group(bundles, strategy)
        try:
            if rng.random() < 0.2:
                return "removed at once"
            await group.ready(timeout=40.0)
            index = rng.randrange(-1, len(bundles))
            cpus = rng.choice([0.5, max(bundle["CPU"] for bundle in bundles)]) if index < 0 else bundles[index]["CPU"]
            work = where.options(placement_group=group, bundle_index=index, num_cpus=cpus, max_retries=-1)
            kept = [work.remote(rng.random()) for _ in range(rng.randint(0, 4))]
            actors = [Place.options(placement_group=group, max_restarts=-1).remote() for _ in range(rng.randint(0, 2))]  # type: ignore[attr-defined]
            if rng.random() < 0.5:
                await af.wait(kept, num_returns=len(kept), timeout=30.0) if kept else None
            ended = [await _outcome(ref) for ref in kept if ref.done()]
            assert not [error for error in ended if isinstance(error, af.TaskUnschedulableError)], "each fits in a bundle of its group"
            if rng.random() < 0.5 and actors:
                await actors[0].node()
            return "used"
        except (af.PlacementGroupUnschedulableError, af.GetTimeoutError, af.ActorError) as error:
            return type(error).__name__
        finally:
            await group.remove()

    async def main() -> list[str]:
        ended: list[str] = []
        for _ in range(rounds):
            seeds = [rng.random() for _ in range(rng.randint(1, 4))]
            ended += await asyncio.gather(*(one(random.Random(seed)) for seed in seeds))
        return ended

    return main


def test_two_drivers_while_nodes_die_and_join(sim_seed: int) -> None:
    rng = random.Random(f"groups {sim_seed}")
    with World(sim_seed) as world:
        cluster = cluster_of(world, rng.randint(1, 4))
        drivers = [start(cluster, random_program(random.Random(rng.random()), 4)) for _ in range(2)]

        def disturb() -> None:
            if all(driver.ended for driver in drivers):
                return
            others = [node for node in cluster.nodes[1:] if node.host.alive and node.node is not None]
            roll = rng.random()
            if roll < 0.25:
                lose_the_head(rng.choice([cluster.nodes[0], *others]))
            elif others and roll < 0.65:
                kill_machine(world, cluster, rng.choice(others))
            elif len(others) < 3:
                cluster.add_node(num_cpus=2)
            world.at_time(world.now + rng.expovariate(1.0), disturb)

        world.at_time(world.now + rng.random() * 0.5, disturb)
        world.run_until(lambda: all(driver.ended for driver in drivers), 900.0)
        results = run(world, cluster, *drivers)
        assert all(results)


@pytest.mark.parametrize("step", range(12))
def test_a_node_dies_between_the_phases(sim_seed: int, step: int) -> None:
    """Two nodes take part, and one dies some messages after it was asked to prepare: the group gets its place all the same."""

    async def main() -> list[str]:
        async with af.placement_group([{"CPU": 2}] * 2, strategy="STRICT_SPREAD") as group:
            return [await where.options(placement_group=group, bundle_index=index)() for index in (0, 1)]

    with World(sim_seed) as world:
        cluster = cluster_of(world, 4)
        driver = start(cluster, main)
        table = lambda: cluster.head._opened.table if cluster.head is not None and cluster.head._opened is not None else None  # noqa: E731
        world.run_until(lambda: table() is not None and any(group.attempt for group in table().living()), 60.0)  # type: ignore[union-attr]
        [group] = list(table().living())  # type: ignore[union-attr]
        chosen = group.inflight.bundles if group.inflight is not None else [place.node_id for place in group.placed.values()]
        victims = [node for node in cluster.nodes[1:] if node.node is not None and node.node.node_id in chosen]
        if victims:
            world.run_for(0.000_1 * step)
            kill_machine(world, cluster, victims[0])
        [places] = run(world, cluster, driver)
        assert len(set(places)) == 2
