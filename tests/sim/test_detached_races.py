"""Detached calls whose code ends in unusual ways, whose head is away when somebody speaks to it, and whose lives overlap."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

import actorflow as af
from actorflow._core.protocol.messages import ActorSpec
from actorflow.testing import World
from tests.sim.test_detached_calls import Keeper, arena, begun, make
from tests.sim.test_durable_objects import ended, nothing, on, table
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import total, value

ticks: list[int] = []


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
async def cancels_what_it_awaits() -> None:
    task = asyncio.ensure_future(asyncio.sleep(100))
    task.cancel()
    await task


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
def exits() -> None:
    sys.exit(3)


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
async def interrupts() -> None:
    raise KeyboardInterrupt


@af.remote(num_cpus=0, lifetime="detached")
async def slow_the_second_time() -> Any:
    begun.append(af.get_runtime_context().process_id)
    for number in range(1000 if len(begun) > 1 else 0):
        await asyncio.sleep(1)
        ticks.append(number)
    return value(1, 3_000_000)


@af.remote(num_cpus=0, lifetime="detached")
async def weighs(array: Any, box: list[Any]) -> int:
    return total(array) + sum([total(await ref) for ref in box])


@pytest.mark.parametrize("call", [cancels_what_it_awaits, exits, interrupts])
def test_do_5_whatever_ends_the_code_ends_the_call(sim_seed: int, call: Any) -> None:
    async def main() -> list[str]:
        ref = await call.submit()
        with pytest.raises(af.TaskError):
            await asyncio.wait_for(ref, 60.0)
        await af.free(ref)
        await asyncio.sleep(1.0)
        return [row["state"] for row in await af.state.list_actors()]

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2)
        driver = cluster.driver(main)
        assert ended(world, driver) == ["dead"]
        finish(cluster, driver)


def test_do_5_what_was_made_of_its_arguments_goes_with_the_call(sim_seed: int) -> None:
    """But for what lies inside them: the code may have passed that on."""

    async def main() -> tuple[int, int]:
        first, inside = await af.put(value(1, 100_000)), await af.put(value(2, 100_000))
        ref = await weighs.submit(first, [inside])
        assert await ref == total(value(1, 100_000)) + total(value(2, 100_000))
        await asyncio.sleep(1.0)
        left = len(table(cluster))
        await af.free(ref)
        return left, len(table(cluster))

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2)
        driver = cluster.driver(main)
        assert ended(world, driver) == (2, 1)


def away(world: World, cluster: Any, act: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """Do something just after the head has died."""

    async def main() -> Any:
        while not begun:
            await asyncio.sleep(0.05)
        world.at_time(world.now + 0.1, lambda: cluster.sim_head.kill(machine_down=False))
        await asyncio.sleep(0.12)
        return await act()

    return main


@pytest.mark.parametrize("how", ["cancel", "direct"])
def test_hn_1_a_cancel_reaches_a_head_that_is_away(sim_seed: int, how: str) -> None:
    async def main() -> tuple[list[str], int]:
        ref = await make.submit(1, 1000.0) if how == "cancel" else None
        direct = asyncio.ensure_future(make(1, 1000.0)) if ref is None else None

        async def act() -> None:
            if ref is not None:
                assert ref.cancel()
                with pytest.raises(af.TaskCancelledError):
                    await asyncio.wait_for(ref, 60.0)
                await af.free(ref)
            else:
                assert direct is not None
                direct.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await direct

        await away(world, cluster, act)()
        await asyncio.sleep(20.0)
        return [row["state"] for row in await af.state.list_actors()], len(table(cluster))

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (["dead"], 0)
        finish(cluster, driver)


@af.remote(num_cpus=0)
class Canceller:
    async def begin(self) -> None:
        """Nothing: it is there then."""

    async def cancel(self, refs: list[Any]) -> None:
        from actorflow import _runtime

        assert refs[0].cancel()
        _runtime.current().host.on_exit(0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("head", ["far", "away"])
def test_3_what_a_worker_says_at_its_end_leaves_before_it(sim_seed: int, head: str) -> None:
    """It may have no connection to the head until then, and the head may be between two lives."""

    async def main() -> float:
        ref = await make.submit(1, 1000.0)
        other = Canceller.remote()
        await other.begin()
        while not begun:
            await asyncio.sleep(0.05)
        sim_head = cluster.sim_head
        assert sim_head is not None
        if head == "far":
            for host in cluster.workers():
                world.fabric.delay(host, sim_head.host, 0.1)
        else:
            world.at_time(world.now, lambda: sim_head.kill(machine_down=False))
            await asyncio.sleep(0.01)
        at = world.now
        await asyncio.wait([asyncio.ensure_future(other.cancel([ref]))])
        with pytest.raises(af.TaskCancelledError):
            await asyncio.wait_for(ref, 60.0)
        return world.now - at

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) < 30.0
        finish(cluster, driver)


@pytest.mark.parametrize("head", ["far", "away", "cut"])
def test_3_what_a_program_says_at_its_end_leaves_before_it(sim_seed: int, head: str) -> None:
    async def starts() -> None:
        ref = await make.submit(1, 1000.0)
        keeper = await Keeper.options(**on(1)).remote()
        await keeper.keep([ref])
        with pytest.raises(af.TaskCancelledError):
            await asyncio.wait_for(ref, 60.0)
        await af.kill(keeper)
        await af.free(ref)

    async def cancels() -> None:
        [ref] = await (await af.get_actor("keeper")).give()
        sim_head = cluster.sim_head
        assert sim_head is not None
        if head == "away":
            sim_head.kill(machine_down=False)
            await asyncio.sleep(0.01)
        else:
            for host in list(cluster.cores):
                world.fabric.delay(host, sim_head.host, 0.1)
        assert ref.cancel()
        if head == "cut":
            await asyncio.sleep(0.01)
            between = {cluster.drivers[-1].host, sim_head.host}
            for one, other in world.fabric.connections():
                if {one.host, other.host} == between:
                    world.fabric.reset(one)
            await asyncio.sleep(0.15)  # It is noticed, and a new connection is being made.

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2, durable=True, scheme="tcp" if head == "cut" else "unix")
        driver = cluster.driver(nothing, stay=True)
        first = cluster.driver(starts)
        world.run_until(lambda: bool(begun), 30.0)
        world.run_for(1.0)
        ended(world, cluster.driver(cancels))
        ended(world, first)
        finish(cluster, driver)


def test_hn_1_a_submission_that_is_given_up_while_the_head_is_away_starts_nothing(sim_seed: int) -> None:
    async def main() -> tuple[int, int]:
        refs = []
        for number in range(8):
            submission = asyncio.ensure_future(make.submit(1, 1000.0))
            await asyncio.sleep(0.0007 * number)
            assert cluster.sim_head is not None
            if cluster.sim_head.host.alive:
                cluster.sim_head.kill(machine_down=False)
            await asyncio.sleep(0.001)
            submission.cancel()
            try:
                refs.append(await submission)
            except asyncio.CancelledError:
                await asyncio.sleep(3.0)
        await asyncio.sleep(20.0)
        found = len(refs), len(table(cluster))
        await af.free(refs)
        return found

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2, durable=True)
        driver = cluster.driver(main)
        started, known = ended(world, driver)
        assert started == known
        finish(cluster, driver)


def test_do_5_a_later_life_ends_when_the_result_of_the_first_is_kept(sim_seed: int) -> None:
    """Its process dies when its node has taken the value over, and before the second node has it."""
    ticks.clear()

    async def main() -> bool:
        ref = await slow_the_second_time.options(**on(1)).submit()
        found = total(await ref) == total(value(1, 3_000_000))
        assert {row["state"] for row in await af.state.list_objects() if row["owner"] == "cluster"} == {"ready"}
        await asyncio.sleep(100.0)
        await af.free(ref)
        return found

    with World(sim_seed) as world:
        cluster, others = arena(world, 2)
        driver = cluster.driver(main)

        def is_being_copied() -> bool:
            assert cluster.head is not None
            found = next(iter(cluster.head._durables().table.all()), None)
            return found is not None and found.adopted and bool(found.maker and found.copying)

        world.run_until(is_being_copied, 60.0)
        for host in others[0].processes.hosts():
            world.kill(host)
        assert ended(world, driver)
        assert len(ticks) < 10
        finish(cluster, driver)


@af.remote(num_cpus=0)
async def starts() -> None:
    await make.submit(1, 1000.0)


@pytest.mark.parametrize("inside", [False, True])
def test_17_a_call_belongs_to_the_namespace_of_its_program_wherever_it_is_made(sim_seed: int, inside: bool) -> None:
    async def main() -> None:
        await (starts.remote() if inside else make.submit(1, 1000.0))
        while not begun:
            await asyncio.sleep(0.1)

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2)
        cluster.driver(nothing, stay=True)
        driver = cluster.driver(main, namespace="other")
        ended(world, driver)
        world.run_for(10.0)
        [found] = table(cluster).all()
        assert found.namespace == "other"
        assert cluster.head is not None
        assert [actor.spec.namespace for actor in cluster.head._actors.table.living()] == ["other"]


def test_do_5_a_start_that_was_refused_is_refused_when_it_is_said_again(sim_seed: int) -> None:
    """The head died after it had refused: the program asks its next life, which knows the actor as one that is dead."""
    spec = ActorSpec("a" * 16, "", "owner", "", "class", "call", b"", b"", b"", None, None, None, {}, detached=True)
    asker: Any = SimpleNamespace(proof=None, job_id="", process_id="owner", namespace="", role="driver")
    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        assert cluster.head is not None
        actors = cluster.head._actors
        actors.table._actors_max = 0
        assert "the limit of this head" in actors.start_detached(asker, spec)
        assert "its actor is dead: 0 actors are alive, the limit of this head" in actors.start_detached(asker, spec)
