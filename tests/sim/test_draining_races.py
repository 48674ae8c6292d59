"""A drain and what happens at the same moment: calls that come, wait or never end, cancels, kills, deadlines, a head that is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af
from actorflow._core.worker.moving import AGAIN_S, QUIET_S
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster
from actorflow.testing.processes import ProcessProfile
from actorflow.testing.sim_node import SimNode
from tests.sim.test_draining import Ledger, ended, gone, node_id, two_nodes
from tests.sim.test_nodes import Place, finish, where
from tests.sim.test_transfers import node_of


def on(node: SimNode) -> af.NodeAffinity:
    """There at first: it may go on elsewhere."""
    return af.NodeAffinity(node_id(node), soft=True)


def now() -> float:
    return asyncio.get_running_loop().time()


# Who asks, and what waits


@af.remote
class Operator:
    async def drain(self, node: str) -> str:
        return await af.drain_node(node, deadline=600.0)


def test_an_actor_may_ask(sim_seed: int) -> None:
    async def main() -> str:
        drained = await Operator.options(resources={"first": 1}).remote().drain(node_id(second)[:8])
        await gone(second)
        return drained

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == node_id(second)
        finish(cluster, driver)


def test_dr_1_who_asks_while_the_head_is_away_is_answered(sim_seed: int) -> None:
    """Though the node connects with the new head after that has heard it."""

    async def main() -> str:
        await asyncio.sleep(1.0)
        asked.append(True)
        await asyncio.sleep(0.05)
        drained = await asyncio.wait_for(af.drain_node(node_id(second), deadline=600.0), 100.0)
        await gone(second)
        return drained

    asked: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(asked), 20.0)
        world.kill(cluster.sim_head.host)
        ended(world, driver)
        assert driver.result() == node_id(second)
        finish(cluster, driver)


@af.remote(max_retries=0)
async def waits_for_another() -> str:
    return await where.options(num_cpus=0, resources={"second": 50}, max_retries=0).remote(1.0)


def test_nd_1_a_task_that_waits_there_and_fits_nowhere_else_is_refused(sim_seed: int) -> None:
    """As one that is asked for after the word. Another task waits for it, which would keep the node to its deadline."""

    async def main() -> float:
        running = where.options(num_cpus=0, resources={"second": 60}, max_retries=0).remote(20.0)
        await asyncio.sleep(1.0)
        waiting = where.options(num_cpus=0, resources={"second": 70}, max_retries=0).remote(1.0)
        outer = waits_for_another.options(num_cpus=0, resources={"second": 1}).remote()
        await asyncio.sleep(1.0)
        begun = now()
        await af.drain_node(node_id(second), deadline=600.0)
        for ref in (where.options(num_cpus=0, resources={"second": 80}).remote(1.0), waiting, outer):
            with pytest.raises(af.TaskUnschedulableError):
                await ref
        took = now() - begun
        await running
        await gone(second)
        return took

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        assert driver.result() < 5.0
        finish(cluster, driver)


def test_a_task_for_a_bundle_that_stays_there_runs_in_it(sim_seed: int) -> None:
    """The group is where it is until the node has left, so that nothing else could run what belongs to it."""

    async def main() -> tuple[str, float]:
        group = af.placement_group([{"second": 1}, {"second": 1}], strategy="STRICT_PACK")
        await group.ready()
        keeper = Place.options(num_cpus=0, resources={"second": 1}, placement_group=group, bundle_index=0).remote()  # type: ignore[attr-defined]
        await keeper.node()
        await asyncio.sleep(10.0)
        begun = now()
        await af.drain_node(node_id(second), deadline=300.0)
        task = where.options(num_cpus=0, resources={"second": 1}, placement_group=group, bundle_index=1).remote(0.1)
        return await task, now() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        world.run_for(5.0)
        cluster.add_node(num_cpus=2, resources={"second": 100})
        ended(world, driver, 900.0)
        place, took = driver.result()
        assert place == node_id(second)
        assert took < 30.0
        finish(cluster, driver)


def test_a_lease_that_is_granted_after_the_word_is_asked_back(sim_seed: int) -> None:
    """Its worker process was on its way when the node began to drain (ND-1)."""

    async def main() -> list[str]:
        stays = where.options(num_cpus=1, resources={"hold": 1}).remote(10.0)
        await asyncio.sleep(3.0)
        tasks = [where.options(num_cpus=0, resources={"any": 1}).remote(0.5) for _ in range(100)]
        await asyncio.sleep(0.1)
        await af.drain_node(node_id(second), deadline=600.0)
        await stays
        await gone(second, timeout_s=2.0)
        return await af.get(tasks)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, processes=ProcessProfile(spawn_min_s=0.5, spawn_max_s=0.6))
        second = cluster.add_node(num_cpus=2, resources={"any": 1, "hold": 1})
        third = cluster.add_node(num_cpus=2, resources={"any": 1})
        world.run_until(lambda: third.node is not None and second.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        ended(world, driver)
        assert set(driver.result()) <= {node_id(second), node_id(third)}
        finish(cluster, driver)


# Callers of an actor that moves


class Moving(af.Actor, max_restarts=1):
    async def node(self) -> str:
        return node_of()


@af.remote
class Caller:
    """A process of its own, which calls an actor for the first time when it is told."""

    async def ready(self) -> bool:
        return True

    async def call(self, actor: Any) -> Any:
        return await actor.node()


@pytest.mark.parametrize("process", ["dedicated", "shared"])
def test_mv_1_first_calls_at_any_moment_of_a_move_do_not_fail(sim_seed: int, process: str) -> None:
    """Whether its process has just been left, or has ended."""

    async def main() -> list[Any]:
        options: dict[str, Any] = {"process": "shared", "num_cpus": 0} if process == "shared" else {}
        actor = Moving.options(scheduling_strategy=on(second), **options).remote()
        assert await actor.node() == node_id(second)
        callers = [Caller.options(num_cpus=0, resources={"first": 1}).remote() for _ in range(30)]
        await af.get([caller.ready.remote() for caller in callers])
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        calls = []
        for caller in callers:
            calls.append(caller.call.remote(actor))
            await asyncio.sleep(gap)
        await drain
        return await af.get(calls)

    gap = 0.0002 * (1 + sim_seed % 20)
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 100})
        driver = cluster.driver(main)
        ended(world, driver)
        assert set(driver.result()) <= {node_id(second), cluster.node.node_id}  # type: ignore[union-attr]
        finish(cluster, driver)


class Busy(Ledger, max_restarts=1, num_cpus=0, max_concurrency=1):
    async def work(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def test_mv_1_calls_that_come_back_and_were_cancelled_meanwhile_do_not_run(sim_seed: int) -> None:
    async def main() -> tuple[list[Any], list[int]]:
        busy = Busy.options(scheduling_strategy=on(second)).remote()
        work = busy.work.remote(0.5)
        await asyncio.sleep(0.1)
        calls = [asyncio.ensure_future(busy.add(number)) for number in range(80)]
        await asyncio.sleep(0.05)
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        for call in calls[::2]:
            await asyncio.sleep(0.0001)
            call.cancel()
        await drain
        ends = await asyncio.gather(*calls, return_exceptions=True)
        await work
        return ends, (await busy.all())[0]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        ends, entries = driver.result()
        assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
        assert ends[1::2] == list(range(1, 41))
        assert entries == list(range(1, 80, 2))
        finish(cluster, driver)


@af.remote
class Employer:
    """A process of its own, so that what it asks for takes none of the driver's room."""

    async def call(self, busy: Any) -> None:
        await busy.work(0.5)


def test_calls_that_come_back_and_were_cancelled_meanwhile_leave_their_room_to_others(sim_seed: int) -> None:
    async def main() -> list[int]:
        crowd = [Busy.options(scheduling_strategy=on(second), max_pending_calls=1).remote() for _ in range(40)]
        employer = Employer.options(resources={"first": 1}, max_concurrency=40).remote()
        work = [employer.call.remote(busy) for busy in crowd]
        await asyncio.sleep(0.3)
        calls = [asyncio.ensure_future(busy.add(0)) for busy in crowd]
        await asyncio.sleep(0.01)
        more = [asyncio.ensure_future(busy.add(1)) for busy in crowd]
        await asyncio.sleep(0.01)
        drain = asyncio.ensure_future(af.drain_node(node_id(second), deadline=60.0))
        for call in calls:
            await asyncio.sleep(0.0001)
            call.cancel()
        await drain
        counts = await asyncio.wait_for(asyncio.gather(*more), 30.0)
        await af.get(work)
        return counts

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == [1] * 40
        finish(cluster, driver)


def test_two_nodes_drain_at_once_and_no_call_is_lost(sim_seed: int) -> None:
    async def main() -> tuple[list[list[int]], list[list[int]]]:
        ledgers = [
            Ledger.options(num_cpus=0, max_concurrency=4, scheduling_strategy=on(node)).remote()
            for node in (second, third)
            for _ in range(5)
        ]
        refs = [[ledger.add.remote(number) for number in range(20)] for ledger in ledgers]
        await af.get(refs[0][3])
        await asyncio.gather(*(af.drain_node(node_id(node), deadline=60.0) for node in (second, third)))
        for line, ledger in zip(refs, ledgers, strict=True):
            line += [ledger.add.remote(number) for number in range(20, 40)]
        counts = [await af.get(line) for line in refs]
        await gone(second, third)
        return counts, [(await ledger.all())[0] for ledger in ledgers]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        third = cluster.add_node(num_cpus=2)
        world.run_until(lambda: third.node is not None, 20.0)
        world.run_for(1.0)
        driver = cluster.driver(main)
        ended(world, driver)
        counts, entries = driver.result()
        assert [sorted(line) for line in counts] == [list(range(1, 41))] * 10
        assert [sorted(line) for line in entries] == [list(range(40))] * 10
        finish(cluster, driver)


@pytest.mark.parametrize("moment_s", [0.0, 0.001, 0.002, 0.003, 0.004])
def test_the_head_dies_in_the_middle_of_a_move_and_no_call_is_lost(sim_seed: int, moment_s: float) -> None:
    """Nor does any call wait for the life that has gone, which a head that has just come back may still tell of."""

    async def main() -> tuple[list[int], list[int], list[int]]:
        ledger = Ledger.options(num_cpus=0, max_concurrency=2, scheduling_strategy=on(second)).remote()
        refs = [ledger.add.remote(number) for number in range(40)]
        await af.get(refs[3])
        await af.drain_node(node_id(second), deadline=60.0)
        drained.append(True)
        for number in range(40, 80):
            refs.append(ledger.add.remote(number))
            await asyncio.sleep(0.01)
        counts = await af.get(refs)
        await gone(second)
        return counts, (await ledger.all())[0], [row["restarts"] for row in await af.state.list_actors()]

    drained: list[bool] = []
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, durable=True)
        driver = cluster.driver(main)
        world.run_until(lambda: bool(drained), 20.0)
        world.run_for(moment_s)
        world.kill(cluster.sim_head.host)
        ended(world, driver)
        counts, entries, restarts = driver.result()
        assert sorted(counts) == list(range(1, 81))
        assert sorted(entries) == list(range(80))
        assert restarts == [0], "AC-8"
        finish(cluster, driver)


# Calls that do not end


class Signal(Moving, max_restarts=1):
    """As queues, semaphores and barriers: a call waits for another one."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "told"

    async def set(self) -> None:
        self.event.set()


def test_mv_4_a_call_may_wait_for_another_of_the_same_actor(sim_seed: int) -> None:
    async def main() -> tuple[str, str, float]:
        signal = Signal.options(scheduling_strategy=on(second)).remote()
        waits = signal.wait.remote()
        await asyncio.sleep(1.0)
        begun = now()
        await af.drain_node(node_id(second), deadline=600.0)
        await asyncio.sleep(1.0)
        told = signal.set.remote()
        found = await waits
        took = now() - begun
        await told
        await gone(second, timeout_s=AGAIN_S + 2.0)
        return found, await signal.node(), took

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        found, place, took = driver.result()
        assert found == "told"
        assert took < QUIET_S + 1.0
        assert place == cluster.node.node_id, "it was tried again"  # type: ignore[union-attr]
        finish(cluster, driver)


class Recursive(af.Actor, max_restarts=1):
    async def outer(self, me: Any) -> Any:
        await asyncio.sleep(2.0)
        return await me.inner()

    async def inner(self) -> str:
        return node_of()


def test_mv_4_a_call_may_call_its_own_actor(sim_seed: int) -> None:
    async def main() -> tuple[str, float]:
        actor = Recursive.options(scheduling_strategy=on(second)).remote()
        call = actor.outer.remote(actor)
        await asyncio.sleep(1.0)
        begun = now()
        await af.drain_node(node_id(second), deadline=600.0)
        return await call, now() - begun

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        place, took = driver.result()
        assert place == node_id(second)
        assert took < QUIET_S + 1.0
        finish(cluster, driver)


def test_a_kill_with_restart_ends_a_move_that_hangs(sim_seed: int) -> None:
    """A move takes its time; a kill does not."""

    async def main() -> tuple[str, float]:
        signal = Signal.options(scheduling_strategy=on(second), max_task_retries=-1).remote()
        waits = signal.wait.remote()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=300.0)
        await asyncio.sleep(1.0)
        begun = now()
        await af.kill(signal, no_restart=False)
        place = await signal.node()
        took = now() - begun
        waits.cancel()
        await gone(second)
        return place, took

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver, 900.0)
        place, took = driver.result()
        assert place == cluster.node.node_id  # type: ignore[union-attr]
        assert took < 2.0
        finish(cluster, driver)


class Pays(Moving, max_restarts=1):
    async def pay(self) -> str:
        started.append(node_of())
        await asyncio.sleep(60.0)
        return "paid"


started: list[str] = []
"""Where calls of `pay` have begun."""


@pytest.mark.parametrize("deadline", [QUIET_S - 1.0, QUIET_S + 1.0])
def test_mv_3_what_the_deadline_cuts_off_does_not_run_again(sim_seed: int, deadline: float) -> None:
    """Within the move, or after it took calls again: it has no max_task_retries, so that this is an error, as after a crash."""

    async def main() -> str:
        actor = Pays.options(scheduling_strategy=on(second)).remote()
        await actor.node()
        call = actor.pay.remote()
        await asyncio.sleep(1.0)
        await af.drain_node(node_id(second), deadline=deadline)
        with pytest.raises(af.ActorUnavailableError):
            await call
        return await actor.node()

    started.clear()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == cluster.node.node_id  # type: ignore[union-attr]
        assert started == [node_id(second)]
        finish(cluster, driver)


def test_a_deadline_in_the_middle_of_a_move_leaves_no_call_without_an_end(sim_seed: int) -> None:
    """What it was told after it took calls again (MV-4) is lost with that life, as in a crash; what comes then is in the next one."""

    async def main() -> tuple[list[Any], list[int], list[int]]:
        actor = Busy.options(scheduling_strategy=on(second), max_concurrency=100).remote()
        work = actor.work.remote(100.0)
        await asyncio.sleep(0.5)
        await af.drain_node(node_id(second), deadline=5.0 + 0.01 * sim_seed)
        calls = []
        for number in range(80):
            calls.append(actor.add.remote(number))
            await asyncio.sleep(0.1)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(af.ActorUnavailableError):
            await work
        return ends, (await actor.all())[0], [row["restarts"] for row in await af.state.list_actors()]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        ends, entries, restarts = driver.result()
        assert all(isinstance(end, int | af.ActorUnavailableError) for end in ends)
        assert len(entries) >= 20
        assert entries == list(range(80))[-len(entries) :]
        assert ends[-len(entries) :] == list(range(1, len(entries) + 1))
        assert restarts == [0], "AC-8"
        finish(cluster, driver)


# States, and who looks after actors


class Unlucky(Ledger, max_restarts=1):
    def __checkpoint__(self) -> tuple[list[int], int]:
        raise RuntimeError("a lock cannot be pickled")


def test_mv_5_a_state_that_cannot_be_stored_stays_to_the_deadline(sim_seed: int) -> None:
    async def main() -> tuple[list[int], str]:
        actor = Unlucky.options(scheduling_strategy=on(second), num_cpus=0).remote()
        await af.get([actor.add.remote(number) for number in range(10)])
        await af.drain_node(node_id(second), deadline=60.0)
        await asyncio.sleep(2.0)
        await actor.add(10)
        await asyncio.sleep(50.0)
        entries, place = (await actor.all())[0], await actor.node()
        while await actor.node() == node_id(second):
            await asyncio.sleep(0.5)
        return entries, place

    with World(sim_seed) as world:
        cluster, second = two_nodes(world)
        driver = cluster.driver(main)
        ended(world, driver)
        assert driver.result() == (list(range(11)), node_id(second))
        finish(cluster, driver)


class Member(af.Actor, num_cpus=0):
    def __init__(self) -> None:
        self.moves = 0

    def __checkpoint__(self) -> int:
        return self.moves

    def __restore__(self, moves: int) -> None:
        self.moves = moves + 1

    async def found(self) -> tuple[str, int]:
        return node_of(), self.moves

    async def work(self) -> None:
        await asyncio.sleep(1_000.0)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
@pytest.mark.parametrize("end", ["a move", "the deadline"])
def test_ac_8_supervised_actors_spend_none_of_their_restarts(sim_seed: int, strategy: Any, end: str) -> None:
    async def main() -> list[tuple[str, int]]:
        there = [Member.options(scheduling_strategy=on(second)).remote() for _ in range(3)]
        here = Member.options(resources={"first": 1}).remote()
        async with af.supervise(*there, here, strategy=strategy, max_restarts=0, within=1_000.0):
            assert {(await actor.found())[0] for actor in there} == {node_id(second)}
            work = [actor.work.remote() for actor in there if end == "the deadline"]
            await asyncio.sleep(0.5)
            await af.drain_node(node_id(second), deadline=2.0)
            await asyncio.sleep(10.0)
            ends = await asyncio.gather(*work, return_exceptions=True)
            assert all(isinstance(one, af.ActorUnavailableError) for one in ends)
            return [await actor.found() for actor in (*there, here)]

    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        driver = cluster.driver(main)
        ended(world, driver)
        first = cluster.node.node_id  # type: ignore[union-attr]
        moves = 1 if end == "a move" else 0
        assert driver.result() == [(first, moves)] * 3 + [(first, 0)]
        finish(cluster, driver)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
def test_ac_8_a_supervised_actor_without_room_elsewhere_costs_its_supervision_nothing(sim_seed: int, strategy: Any) -> None:
    """It stays to the deadline, and waits for a node: nobody has failed."""

    async def main() -> list[tuple[str, int]]:
        there = Member.options(resources={"second": 1}).remote()
        here = Member.options(resources={"first": 1}).remote()
        async with af.supervise(there, here, strategy=strategy, max_restarts=0, within=1_000.0):
            await there.found()
            await af.drain_node(node_id(second), deadline=2.0)
            await asyncio.sleep(10.0)
            told.set()
            return [await actor.found() for actor in (there, here)]

    told = asyncio.Event()
    with World(sim_seed) as world:
        cluster, second = two_nodes(world, resources={"first": 1})
        driver = cluster.driver(main)
        world.run_until(told.is_set, 60.0)
        third = cluster.add_node(num_cpus=1, resources={"second": 1})
        ended(world, driver)
        first = cluster.node.node_id  # type: ignore[union-attr]
        assert driver.result() == [(node_id(third), 0), (first, 0)]
        finish(cluster, driver)
