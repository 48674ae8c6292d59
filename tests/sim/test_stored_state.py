"""SEMANTICS 21, `checkpoint_every="call"`: an answer means that the state is stored, with its references; or the call says so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow._core.worker.stored_replies import BYTES_MAX, CALLERS_MAX, Answers
from actorflow.testing import LinkProfile, World
from tests.sim.test_detached_calls import arena, make
from tests.sim.test_durable_objects import ended
from tests.sim.test_nodes import finish
from tests.sim.test_transfers import total, value


@af.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint_every="call")
class Registry:
    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.spoilt = ""

    def __checkpoint__(self) -> Any:
        if self.spoilt == "raises":
            raise RuntimeError("away")
        if self.spoilt == "cannot travel":
            return (number for number in range(3))
        return np.zeros(65 << 20, np.uint8) if self.spoilt else self.state

    def __restore__(self, state: dict[str, Any]) -> None:
        self.state = state

    async def put(self, key: str, what: Any) -> int:
        self.state[key] = what
        return len(self.state)

    async def keys(self) -> list[str]:
        return sorted(self.state)

    async def get(self, key: str) -> Any:
        return self.state[key]

    async def spoil(self, how: str) -> None:
        self.spoilt = how

    async def mend(self) -> None:
        self.spoilt = ""

    async def add(self, size: int) -> Any:
        self.state["sum"] = self.state.get("sum", 0) + 1
        return self.state["sum"] if size == 0 else np.full(size, self.state["sum"], np.uint8)

    @af.method(num_returns=2)
    async def add_two(self) -> tuple[int, str]:
        return await self.add(0), "two"

    async def echo(self, what: Any) -> Any:
        return what

    @af.method(num_returns=2)
    async def pair(self, size: int) -> tuple[Any, int]:
        return await self.grow(size), size

    async def grow(self, size: int) -> Any:
        """Something that goes on changing."""
        array = np.zeros(size, np.uint8)
        asyncio.get_running_loop().call_soon(array.fill, 7)
        return array


async def process_of(cluster: Any) -> Any:
    """Where the registry is."""
    [row] = [row for row in await af.state.list_actors() if row["class_name"] == "Registry"]
    [host] = [host for host, core in cluster.cores.items() if core.identity.process_id == row["worker_id"]]
    return host


async def killed(registry: Any, world: World, cluster: Any) -> None:
    """Its process dies."""
    world.kill(await process_of(cluster))
    await asyncio.sleep(0.1)


def test_21_references_to_objects_of_the_cluster_are_kept_with_the_state(sim_seed: int) -> None:
    async def main() -> list[Any]:
        registry = Registry.remote()
        refs = [await af.put(value(1, 100_000), durable=True), await make.submit(2)]
        assert await registry.put("refs", refs) == 1
        assert await registry.put("number", 5) == 2
        await killed(registry, world, cluster)
        found: list[Any] = [await registry.keys()]
        kept = await registry.get("refs")
        found += [total(array) for array in await af.get(kept)]
        await af.free(kept)
        return found

    with World(sim_seed) as world:
        cluster, _ = arena(world, 2, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == [["number", "refs"], total(value(1, 100_000)), total(value(2, 100_000))]
        finish(cluster, driver)


def test_21_a_reference_that_would_not_outlive_its_owner_is_refused(sim_seed: int) -> None:
    async def main() -> list[str]:
        registry = Registry.remote()
        await registry.put("number", 5)
        with pytest.raises(af.CheckpointError, match=r"whose object ends with the process that owns it.*durable=True") as caught:
            await registry.put("refs", [await af.put(value(1, 100_000))])
        assert caught.value.actor_id and "could not be stored" in str(caught.value)
        await killed(registry, world, cluster)
        return list(await registry.keys())

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == ["number"]
        finish(cluster, driver)


def test_21_a_state_that_is_too_large_is_an_error_that_says_what_to_do() -> None:
    async def main() -> int:
        registry = Registry.remote()
        with pytest.raises(af.CheckpointError, match=r"it has 65 MiB, a checkpoint may have 64 MiB: .*durable=True"):
            await registry.spoil("is too large")
        await registry.mend()
        return int(await registry.put("first", 1))

    with World(0, links=LinkProfile(cut_chance=0, buffer_bytes=80 << 20)) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == 1
        finish(cluster, driver)


@pytest.mark.parametrize("how", ["raises", "cannot travel"])
def test_21_a_call_whose_state_is_not_stored_ends_in_an_error_and_the_actor_goes_on(sim_seed: int, how: str) -> None:
    """Until the state can be stored again, also for calls that change nothing."""

    async def main() -> tuple[list[str], list[str]]:
        registry = Registry.remote()
        await registry.put("first", 1)
        why = "RuntimeError: away" if how == "raises" else "cannot pickle"
        for _ in range(2):
            with pytest.raises(af.CheckpointError, match=why):
                await registry.spoil(how)
        with pytest.raises(af.CheckpointError, match=why):
            await registry.keys()
        await registry.mend()
        await registry.put("second", 2)
        before = await registry.keys()
        with pytest.raises(af.CheckpointError, match=why):
            await registry.spoil(how)
        await killed(registry, world, cluster)
        return before, await registry.keys()

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == (["first", "second"], ["first", "second"])
        finish(cluster, driver)


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_21_what_a_call_has_returned_is_what_it_was_when_it_returned(sim_seed: int, size: int) -> None:
    async def main() -> list[Any]:
        registry = Registry.remote()
        grown = await asyncio.gather(*(registry.grow(size) for _ in range(3)))
        ref = await af.put(value(1, 100_000))
        inner, found = await registry.echo([ref, "x"])
        many = await registry.pair(size)
        return [[int(array.sum()) for array in grown], total(await inner), found, int(many[0].sum()), many[1]]

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) == [[0, 0, 0], total(value(1, 100_000)), "x", 0, size]
        finish(cluster, driver)


@pytest.mark.parametrize("calls", [1, 10])
def test_as_1_a_call_whose_answer_was_lost_with_its_actor_does_not_run_again(sim_seed: int, calls: int) -> None:
    """Its process dies when its state has been stored, and before it hears of that. The next life dies as well."""

    async def main() -> tuple[list[Any], int]:
        registry = Registry.remote()
        await registry.keys()
        world.fabric.delay(await process_of(cluster), cluster.sim_head.host, 0.5)
        lost = [asyncio.ensure_future(registry.add(0)) for _ in range(calls - 1)] + [asyncio.ensure_future(registry.add_two())]
        await asyncio.sleep(0.8)  # The state is stored after 0.5 s, which the actor would hear after 1 s.
        await killed(registry, world, cluster)
        found = await asyncio.gather(*lost)
        await killed(registry, world, cluster)
        return found, await registry.add(0)

    with World(sim_seed, links=LinkProfile(spike_chance=0, cut_chance=0)) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == ([*range(1, calls), [calls, "two"]], calls + 1)
        finish(cluster, driver)


def test_as_1_an_answer_whose_state_is_not_stored_is_nobody_s(sim_seed: int) -> None:
    """A call comes again to the same life, as the connection with its caller broke, while its state is on its way to a far head."""

    async def main() -> tuple[int, int]:
        registry = Registry.remote()
        await registry.keys()
        host = await process_of(cluster)
        world.fabric.delay(host, cluster.sim_head.host, 5.0)
        call = asyncio.ensure_future(registry.add(0))
        await asyncio.sleep(0.3)
        for one, other in world.fabric.connections():
            if {one.host, other.host} == {host, cluster.drivers[0].host}:
                world.fabric.reset(one)
        await asyncio.wait([call], timeout=4.0)
        assert not call.done(), "it is answered when its state is stored"
        got = await call
        await killed(registry, world, cluster)
        return got, await registry.add(0)

    with World(sim_seed, links=LinkProfile(spike_chance=0, cut_chance=0)) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (1, 2)
        finish(cluster, driver)


@af.remote(num_cpus=0, max_restarts=-1, max_task_retries=3, checkpoint_every="call")
class Store:
    def __init__(self) -> None:
        self.state, self.trouble = 0, ""

    async def __checkpoint__(self) -> Any:
        if self.trouble == "cancelled":
            task = asyncio.ensure_future(asyncio.sleep(10))
            task.cancel()
            await task
        return (number for number in range(3)) if self.trouble else self.state

    def __restore__(self, state: int) -> None:
        self.state = state

    @af.method(retry_exceptions=(af.CheckpointError,))
    async def add(self, trouble: str) -> int:
        self.trouble = trouble
        self.state += 1
        return self.state


@pytest.mark.parametrize("trouble", ["cannot travel", "cancelled"])
def test_21_a_call_that_is_tried_again_for_a_checkpoint_error_fails_again(sim_seed: int, trouble: str) -> None:
    async def main() -> int:
        store = Store.remote()
        with pytest.raises(af.CheckpointError):
            await asyncio.wait_for(store.add(trouble), 60.0)
        return int(await store.add(""))

    with World(sim_seed) as world:
        cluster, _ = arena(world, 1)
        driver = cluster.driver(main)
        assert ended(world, driver) >= 2
        finish(cluster, driver)


@af.remote(num_cpus=0, process="shared")
class Neighbour:
    """Keeps the process."""

    async def begin(self) -> None:
        """Nothing: it is there then."""


@af.remote(num_cpus=0, max_restarts=-1, checkpoint_every="call", process="shared")
class Shared:
    def __init__(self) -> None:
        self.state = 0

    def __checkpoint__(self) -> int:
        return self.state

    def __restore__(self, state: int) -> None:
        self.state = state

    async def add(self) -> int:
        self.state += 1
        return self.state


def test_21_what_the_store_says_of_one_life_answers_no_call_of_the_next(sim_seed: int) -> None:
    """Both in one process, and the head is far away: what it says of the sixth state of the first life comes in the second."""

    async def main() -> tuple[int, int]:
        neighbour, shared = Neighbour.remote(), Shared.remote()
        await neighbour.begin()
        for _ in range(5):
            await shared.add()
        [row] = [row for row in await af.state.list_actors() if row["class_name"] == "Shared"]
        [host] = [host for host, core in cluster.cores.items() if core.identity.process_id == row["worker_id"]]
        world.fabric.delay(host, cluster.sim_head.host, 2.0)
        lost = asyncio.ensure_future(shared.add())
        await asyncio.sleep(2.2)
        await af.kill(shared, no_restart=False)
        await asyncio.gather(lost, return_exceptions=True)
        answer = await shared.add()
        world.kill(host)
        await asyncio.sleep(0.1)
        return answer, await shared.add()

    with World(sim_seed, links=LinkProfile(spike_chance=0, cut_chance=0)) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (7, 8)
        finish(cluster, driver)


def test_as_2_answers_are_bounded_as_a_whole() -> None:
    answers = Answers()
    for caller in range(100):
        for number in range(20):
            answers.add((f"caller-{caller}", number), bytes(3000), 1)
            answers.add((f"caller-{caller}", 1000 + number), [bytes(3000)] * 10, 10)
    kept = answers.all()
    assert 60_000 < sum(len(data) for one in kept for data, _ in one.parts) <= BYTES_MAX
    assert max(one.seq for one in kept) < 1000, "what is large in its parts together is not kept"
    last = ("caller-99", 19)
    assert answers.find(last) is None, "its state is not stored yet"
    answers.stored(last)
    assert answers.find(last) is not None
    answers.forget(last)
    assert answers.find(last) is None and len(answers.all()) == len(kept) - 1


def test_as_2_a_caller_whose_only_answer_was_forgotten_has_no_place_that_others_need() -> None:
    answers = Answers()
    answers.add(("first", 1), 1, 1)
    answers.forget(("first", 1))
    answers.forget(("nobody", 1))
    for number in range(2 * CALLERS_MAX):
        answers.add((f"caller-{number}", 1), 1, 1)
    assert [one.caller for one in answers.all()] == [f"caller-{number}" for number in range(CALLERS_MAX, 2 * CALLERS_MAX)]


def test_as_2_what_is_too_large_to_be_kept_runs_again(sim_seed: int) -> None:
    async def main() -> tuple[int, int]:
        registry = Registry.remote()
        await registry.keys()
        world.fabric.delay(await process_of(cluster), cluster.sim_head.host, 0.5)
        lost = asyncio.ensure_future(registry.add(10_000))
        await asyncio.sleep(0.8)
        await killed(registry, world, cluster)
        return int((await lost)[0]), await registry.add(0)

    with World(sim_seed, links=LinkProfile(spike_chance=0, cut_chance=0)) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main)
        assert ended(world, driver) == (2, 3)
        finish(cluster, driver)


def test_21_who_waits_for_an_actor_that_leaves_in_order_gets_the_answer(sim_seed: int) -> None:
    """Its code has ended, and its state is on its way to the head. Somebody else ends it, who knows nothing of that call."""

    async def main() -> int:
        registry = Registry.options(name="registry", max_task_retries=0).remote()
        await registry.put("first", 1)
        assert cluster.sim_head is not None
        for host in cluster.workers():
            world.fabric.delay(host, cluster.sim_head.host, 0.5)
        begun.set()
        return int(await registry.put("second", 2))

    async def ends() -> None:
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await af.kill(await af.get_actor("registry"), graceful=True)

    begun = threading.Event()
    with World(sim_seed) as world:
        cluster, _ = arena(world, 1, durable=True)
        driver = cluster.driver(main, stay=True)
        other = cluster.driver(ends)
        assert ended(world, driver) == 2
        ended(world, other)
        driver.end()
        finish(cluster, driver)
