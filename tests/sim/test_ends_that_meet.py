"""The end of an actor meets a call: one of its own exit hook, one that has failed, that is held, or that comes while it cleans up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import LinkProfile, World, simulate
from tests.sim.test_detached_calls import arena
from tests.sim.test_durable_objects import ended

CALM = LinkProfile(spike_chance=0, cut_chance=0)
PROCESSES = ("dedicated", "shared")


class Hub:
    async def bye(self, member: Any) -> str:
        try:
            return str(await member.last_state())
        except af.ActorDiedError as error:
            return str(error)


class Member:
    async def __aenter__(self) -> None:
        pass

    async def hello(self, hub: Any, me: Any) -> None:
        self.hub, self.me = hub, me

    async def last_state(self) -> str:
        return "state"

    async def __aexit__(self, *_: object) -> None:
        assert "takes no calls any more" in await self.hub.bye(self.me)


class Stubborn:
    async def long(self) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1.0)

    async def feed(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(5)
        yield 2

    async def ping(self) -> str:
        return "pong"


class CancelsItself:
    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(asyncio.sleep(1000))

    async def ping(self) -> str:
        return "pong"

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await self.task


class Kept:
    def __checkpoint__(self) -> int:
        return 1

    def __restore__(self, state: int) -> None:
        pass

    async def value(self) -> int:
        return 1

    async def fails(self) -> None:
        raise ValueError("its own")

    async def ping(self) -> None:
        pass


class Fails:
    @af.method(retry_exceptions=True, retry_delay=3600.0)
    async def raises(self) -> None:
        await asyncio.sleep(3.0)
        raise ConnectionError("down")

    async def ping(self) -> None:
        pass


def within(world: World, cluster: Any, main: Callable[[], Awaitable[Any]]) -> Any:
    return ended(world, cluster.driver(main), 1000.0)


async def host_of_the_actor(cluster: Any) -> Any:
    [row] = [row for row in await af.state.list_actors() if row["state"] == "alive"]
    [host] = [host for host, core in cluster.cores.items() if core.identity.process_id == row["worker_id"]]
    return host


@pytest.mark.parametrize("process", PROCESSES)
def test_ae_2_an_exit_hook_that_leads_back_to_its_own_actor_ends(sim_seed: int, process: Any) -> None:
    async def main() -> str:
        hub = await af.remote(num_cpus=0)(Hub).remote()
        member = await af.remote(num_cpus=0, process=process, max_restarts=3)(Member).remote()
        await member.hello(hub, member)
        async with af.timeout(10.0):
            await af.kill(member, graceful=True)
            return await af.wait_dead(member)

    assert "exit hook failed" not in simulate(main, seed=sim_seed)


@pytest.mark.parametrize("process", PROCESSES)
def test_ae_1_an_exit_hook_that_awaits_what_it_has_cancelled_ends(sim_seed: int, process: Any) -> None:
    async def main() -> str:
        actor = await af.remote(num_cpus=0, process=process)(CancelsItself).remote()
        assert await actor.ping() == "pong"
        async with af.timeout(10.0):
            await af.kill(actor, graceful=True)
            return await af.wait_dead(actor)

    assert simulate(main, seed=sim_seed)


@pytest.mark.parametrize("process", PROCESSES)
def test_ae_3_nothing_is_said_of_a_stream_that_was_cut_off(sim_seed: int, process: Any) -> None:
    async def main() -> list[int]:
        actor = await af.remote(num_cpus=0, process=process, max_restarts=-1, max_task_retries=-1)(Stubborn).remote()

        async def read() -> list[int]:
            return [item async for item in actor.feed()]

        reader = asyncio.ensure_future(read())
        await asyncio.sleep(1.0)
        await af.kill(actor, no_restart=False)
        return await reader

    assert simulate(main, seed=sim_seed) == [1, 2]


@pytest.mark.parametrize("process", PROCESSES)
def test_ae_3_what_comes_while_a_killed_actor_cleans_up_runs_in_its_next_life(sim_seed: int, process: Any) -> None:
    async def main() -> str:
        actor = await af.remote(num_cpus=0, process=process, max_restarts=-1)(Stubborn).remote()
        await actor.ping()
        long = asyncio.ensure_future(actor.long())
        await asyncio.sleep(0.5)
        kill = asyncio.ensure_future(af.kill(actor, no_restart=False))
        await asyncio.sleep(0.3)
        pong = await actor.ping()
        await kill
        with pytest.raises(af.ActorUnavailableError):
            await long
        return str(pong)

    assert simulate(main, seed=sim_seed) == "pong"


@pytest.mark.parametrize("method", ["value", "fails"])
def test_21_a_call_that_is_cancelled_while_its_answer_is_held_ends_at_once(sim_seed: int, method: str) -> None:
    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1, durable=True)

        async def main() -> float:
            actor = await af.remote(num_cpus=0, max_restarts=-1, checkpoint_every="call")(Kept).remote()
            await actor.ping()
            world.fabric.delay(await host_of_the_actor(cluster), cluster.sim_head.host, 20.0)  # type: ignore[union-attr]
            call = getattr(actor, method).remote()
            await asyncio.sleep(1.0)
            begun = asyncio.get_running_loop().time()
            call.cancel()
            with pytest.raises(af.TaskCancelledError):
                await call
            return asyncio.get_running_loop().time() - begun

        assert within(world, cluster, main) < 1.0


def test_a_call_that_fails_after_the_word_of_its_actor_s_end_does_not_rest(sim_seed: int) -> None:
    with World(sim_seed, links=CALM) as world:
        cluster, _ = arena(world, 1)

        async def main() -> float:
            actor = await af.remote(num_cpus=0, lifetime="detached", name="fails", max_task_retries=5)(Fails).remote()
            await actor.ping()
            world.fabric.delay(await host_of_the_actor(cluster), cluster.drivers[0].host, 0.5)
            call = actor.raises.remote()
            await asyncio.sleep(1.0)
            cluster.driver(kills)
            await af.wait_dead(actor)
            begun = asyncio.get_running_loop().time()
            with pytest.raises(af.ActorDiedError):
                await call
            return asyncio.get_running_loop().time() - begun

        async def kills() -> None:
            await af.kill(await af.get_actor("fails"), graceful=True)

        assert within(world, cluster, main) < 5.0
