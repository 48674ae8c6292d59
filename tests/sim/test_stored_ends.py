"""SEMANTICS 21: whatever way a call ends, what it has done is stored; and what is stored is that of the life that runs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import LinkProfile, World
from tests.sim.test_detached_calls import arena
from tests.sim.test_durable_objects import ended
from tests.sim.test_nodes import finish

CALM = LinkProfile(spike_chance=0, cut_chance=0)


class Changes:
    """Has calls of all kinds, each of which changes it."""

    def __init__(self) -> None:
        self.count = 0
        self.spoilt = False

    def __checkpoint__(self) -> int:
        if self.spoilt:
            raise RuntimeError("away")
        return self.count

    def __restore__(self, count: int) -> None:
        self.count = count

    async def spoil(self) -> None:
        self.spoilt = True

    async def fails(self, later: float = 0.0) -> None:
        self.count += 1
        await asyncio.sleep(later)
        raise ValueError("after the effect")

    @af.method(retry_exceptions=(ValueError,))
    async def fails_twice(self) -> int:
        self.count += 1
        if self.count < 3:
            raise ValueError("not yet")
        return self.count

    async def feeds(self, fails: bool = False) -> AsyncIterator[int]:
        for _ in range(3):
            self.count += 1
            yield self.count
        if fails:
            raise ValueError("after three")

    async def lasts(self) -> None:
        self.count += 1
        await asyncio.sleep(1000.0)

    async def get(self) -> int:
        return self.count


ByTime = af.remote(num_cpus=0, max_restarts=-1, checkpoint_every=1.0)(Changes)
ByCall = af.remote(num_cpus=0, max_restarts=-1, max_task_retries=3, checkpoint_every="call")(Changes)


async def place_of(cluster: Any, name: str) -> Any:
    """The host of the process where the only actor of this class is."""
    [row] = [row for row in await af.state.list_actors() if row["class_name"] == name and row["state"] == "alive"]
    [host] = [host for host, core in cluster.cores.items() if core.identity.process_id == row["worker_id"]]
    return host


def said(core: Any) -> list[Any]:
    """The states that the head has not answered."""
    return [message for (what, _), message in core.head_line._open.items() if what == "checkpoint"]


async def after_a_crash(world: World, cluster: Any, changes: Any) -> int:
    world.kill(await place_of(cluster, "Changes"))
    await asyncio.sleep(0.5)
    return int(await changes.get())


async def ends(changes: Any, how: str) -> None:
    """Call it, and see the call end."""
    if how == "cancelled":
        call = changes.lasts.remote()
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(af.TaskCancelledError):
            await asyncio.wait_for(call, 1.0)
    elif how == "stream":
        assert [number async for number in changes.feeds()] == [1, 2, 3]
    elif how == "stream that fails":
        with pytest.raises(ValueError, match="after three"):
            [number async for number in changes.feeds(True)]
    elif how == "stream that is left":
        async with changes.feeds() as stream:
            assert await anext(stream) == 1
    else:
        with pytest.raises(ValueError, match="after the effect"):
            await changes.fails(1.0 if how == "fails later" else 0.0)


WAYS = {"fails": 1, "fails later": 1, "stream": 3, "stream that fails": 3, "stream that is left": 3, "cancelled": 1}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", ["time", "call"])
def test_21_what_a_call_has_done_is_stored_however_it_ends(sim_seed: int, kind: str, how: str) -> None:
    """With "call" when its caller knows of the end, but for those who have cancelled it."""

    async def main() -> int:
        changes = (ByTime if kind == "time" else ByCall).remote()
        await ends(changes, how)
        if kind == "time" or how in ("cancelled", "stream that is left"):
            await asyncio.sleep(5.0)
        return await after_a_crash(world, cluster, changes)

    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == WAYS[how]
        finish(cluster, driver)


@pytest.mark.parametrize("how", ["fails", "stream", "stream that fails"])
def test_21_a_call_that_fails_and_cannot_be_stored_says_both(sim_seed: int, how: str) -> None:
    async def main() -> None:
        changes = ByCall.remote()
        with pytest.raises(af.CheckpointError):
            await changes.spoil()
        with pytest.raises(af.CheckpointError, match="RuntimeError: away") as caught:
            await ends(changes, how)
        raised = {"fails": "ValueError: after the effect", "stream that fails": "ValueError: after three"}.get(how)
        if raised is None:
            assert "has run the call, and the state" in str(caught.value) and caught.value.__cause__ is None
        else:
            assert f"has run the call, which raised {raised}, and the state" in str(caught.value)
            assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.actor_id

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        ended(world, driver)
        finish(cluster, driver)


def test_as_1_a_call_that_has_failed_runs_again_where_it_is_to(sim_seed: int) -> None:
    async def main() -> int:
        return int(await ByCall.remote().fails_twice())

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == 3
        finish(cluster, driver)


@pytest.mark.parametrize("how", ["fails", "stream"])
def test_21_the_end_of_a_call_that_comes_again_while_its_state_is_on_its_way(sim_seed: int, how: str) -> None:
    """The connection with its caller breaks. What has failed does not run again; a stream does, as its items are not there any more."""

    async def main() -> int:
        changes = ByCall.remote()
        await changes.get()
        host = await place_of(cluster, "Changes")
        world.fabric.delay(host, cluster.sim_head.host, 5.0)
        call = asyncio.ensure_future(changes.fails() if how == "fails" else collected(changes))
        await asyncio.sleep(0.3)
        for one, other in world.fabric.connections():
            if {one.host, other.host} == {host, cluster.drivers[0].host}:
                world.fabric.reset(one)
        await asyncio.wait([call], timeout=4.0)
        assert not call.done(), "it ends when its state is stored"
        if how == "fails":
            with pytest.raises(ValueError, match="after the effect"):
                await call
        else:
            assert await call == [1, 2, 3]
        world.fabric.delay(host, cluster.sim_head.host, 0.0)
        return await after_a_crash(world, cluster, changes)

    async def collected(changes: Any) -> list[int]:
        return [number async for number in changes.feeds()]

    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (1 if how == "fails" else 6)
        finish(cluster, driver)


@af.remote(num_cpus=0)
class Owner:
    async def make(self) -> list[Any]:
        return [await af.put(np.ones(100_000, np.uint8))]


@af.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint_every="call")
class Keeps:
    """Keeps references beside its state."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __checkpoint__(self) -> None:
        return None

    def __restore__(self, state: None) -> None:
        pass

    async def keep(self, refs: list[Any]) -> None:
        self.kept = refs

    async def read(self) -> int:
        return int((await self.kept[0]).sum()) if self.kept else 0


def test_15_what_came_with_a_call_is_kept_for_the_actor_that_holds_it_when_the_call_comes_again(sim_seed: int) -> None:
    """It comes again while its answer waits for the state, and the answer says to the owner that the actor holds it."""

    async def main() -> int:
        owner, keeps = Owner.remote(), Keeps.remote()
        await keeps.read()
        refs = await owner.make()
        host = await place_of(cluster, "Keeps")
        world.fabric.delay(host, cluster.sim_head.host, 5.0)
        call = asyncio.ensure_future(keeps.keep(refs))
        await asyncio.sleep(0.3)
        for one, other in world.fabric.connections():
            if {one.host, other.host} == {host, cluster.drivers[0].host}:
                world.fabric.reset(one)
        await call
        world.fabric.delay(host, cluster.sim_head.host, 0.0)
        del refs, call
        gc.collect()
        await asyncio.sleep(5.0)
        return int(await asyncio.wait_for(keeps.read(), 60.0))

    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == 100_000
        finish(cluster, driver)


lives = 0
"""Of `Shared`. All simulated processes share this module."""


@af.remote(num_cpus=0, process="shared")
class Neighbour:
    """Keeps the process."""

    async def begin(self) -> None:
        """Nothing: it is there then."""


class Shared(af.Actor, num_cpus=0, max_restarts=-1, checkpoint_every="call", process="shared"):
    """In its first life the third state takes its time."""

    def __init__(self) -> None:
        global lives
        lives += 1
        self.life, self.count = lives, 0

    async def __checkpoint__(self) -> int:
        count = self.count
        if self.life == 1 and count >= 3:
            await asyncio.sleep(3.0)
        return count

    def __restore__(self, count: int) -> None:
        self.count = count

    async def add(self) -> int:
        self.count += 1
        return self.count


@pytest.mark.parametrize("goes_on", [True, False])
def test_hn_1_the_state_of_a_life_that_is_over_is_not_said_to_the_head(sim_seed: int, goes_on: bool) -> None:
    """The next life is in the same process, and the head dies before it has that one's state. Or there is no next life."""

    async def main() -> int:
        neighbour, shared = Neighbour.remote(), Shared.remote()
        await neighbour.begin()
        await shared.add()
        await shared.add()
        host = await place_of(cluster, "Shared")
        lost = asyncio.ensure_future(shared.add())
        await asyncio.sleep(0.1)
        await af.kill(shared, no_restart=not goes_on)
        await asyncio.gather(lost, return_exceptions=True)
        core = cluster.cores[host]
        if not goes_on:
            await asyncio.sleep(5.0)
            if host.alive:  # Its neighbour keeps it.
                assert not said(core) and not core.host.calls
            return 0
        while lives < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        world.fabric.delay(host, cluster.sim_head.host, 2.0)
        await asyncio.sleep(0.2)
        call = asyncio.ensure_future(shared.add())
        await asyncio.sleep(1.8)  # What the first life gives comes meanwhile.
        cluster.sim_head.kill(machine_down=False)
        world.fabric.delay(host, cluster.sim_head.host, 0.0)
        return int(await asyncio.wait_for(call, 60.0))

    global lives
    lives = 0
    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (3 if goes_on else 0)
        finish(cluster, driver)


@pytest.mark.parametrize("goes_on", [True, False])
def test_hn_1_what_was_said_of_an_actor_that_is_gone_is_not_said_for_ever(sim_seed: int, goes_on: bool) -> None:
    """It is killed while its state is on its way to a far head."""

    async def main() -> None:
        neighbour, shared = Neighbour.remote(), Shared.remote()
        await neighbour.begin()
        await shared.add()
        host = await place_of(cluster, "Shared")
        world.fabric.delay(host, cluster.sim_head.host, 1.0)
        lost = asyncio.ensure_future(shared.add())
        await asyncio.sleep(0.2)
        assert said(cluster.cores[host])
        killing = asyncio.ensure_future(af.kill(shared, no_restart=not goes_on))
        await asyncio.gather(lost, killing, return_exceptions=True)
        world.fabric.delay(host, cluster.sim_head.host, 0.0)
        await asyncio.sleep(5.0)
        assert not said(cluster.cores[host])

    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        ended(world, driver)
        finish(cluster, driver)
