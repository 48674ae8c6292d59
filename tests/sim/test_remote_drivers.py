"""A driver from outside gives and gets large values in parts: what breaks on the way is told, and nothing is left (PS-2, RM-2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

import actorflow as af
from actorflow._core.policy.part_window import WINDOW_BYTES_MAX
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.sim_node import SimNode

MANY = 150_000
"""Numbers of 8 bytes: some twenty parts, as parts begin small."""
FAILURES = (af.ActorflowError, TimeoutError)


def value(seed: int, count: int = MANY) -> Any:
    return np.random.default_rng(seed).integers(0, 1 << 60, count)


def same(got: Any, seed: int, count: int = MANY) -> bool:
    return bool(np.array_equal(got, value(seed, count)))


@af.remote
async def make(seed: int, count: int = MANY) -> Any:
    return value(seed, count)


@af.remote(num_returns=2)
async def two(seed: int) -> Any:
    return value(seed), value(seed + 1)


@af.remote
async def total(*arrays: Any) -> int:
    return sum(int(array.sum()) for array in arrays)


@af.remote
async def several(count: int) -> Any:
    for number in range(count):
        yield value(number)


@af.remote
async def nested(seed: int) -> Any:
    return [value(seed), await af.put(value(seed + 1))]


@af.remote
class Keeper:
    def __init__(self, first: Any = None) -> None:
        self.kept = [first]

    async def add(self, array: Any) -> int:
        return int(array.sum())

    async def hold(self, refs: list[Any]) -> int:
        self.kept += [await ref for ref in refs]
        return len(self.kept)

    async def give(self, seed: int) -> Any:
        return value(seed)

    async def drop(self) -> None:
        self.kept.clear()


async def nothing() -> None:
    """What the owner of the cluster does, where that is another driver."""


def stage(world: World, *, nodes: int = 1, **options: Any) -> tuple[SimCluster, list[SimNode]]:
    cluster = SimCluster(world, num_cpus=4, scheme="tcp", **options)
    added = [cluster.add_node(num_cpus=4) for _ in range(nodes)]
    world.run_until(lambda: all(node.node is not None for node in cluster.nodes), 10.0)
    world.run_for(1.0)
    return cluster, added


def on(node: SimNode) -> Any:
    assert node.node is not None
    return af.NodeAffinity(node.node.node_id)


def end(cluster: SimCluster, driver: SimDriver) -> Any:
    """The program's result, when nothing is left of it, and nothing of the cluster."""
    cluster.world.run_until(lambda: driver.ended, 300.0)
    result = driver.result()
    driver.forget()
    cluster.settle()
    cluster.stop()
    return result


def harm(cluster: SimCluster, driver: SimDriver, faults: int, within_s: float) -> None:
    """Reset connections of the driver at random moments. Not half: an end that has nothing to say learns of that from TCP, hours later."""
    world, rng = cluster.world, cluster.world.rng("harm")

    def strike() -> None:
        found = [ends for ends in world.fabric.connections() if driver.host in (ends[0].host, ends[1].host)]
        found = [ends for ends in found if not (ends[0].closed or ends[1].closed)]
        # Before its runtime is there nothing is a link yet, and what breaks is told as such.
        if found and driver.core is not None and driver.core._ready is None:
            world.fabric.reset(rng.choice(rng.choice(found)))

    for _ in range(faults):
        world.at_time(world.now + rng.random() * within_s, strike)


async def every_form(there: Any) -> list[str]:
    """Large values in all ways in which a program gives and gets them. Returns what was wrong."""
    checks: dict[str, bool] = {}
    ref = await af.put(value(1))
    checks["put, get"] = same(await ref, 1) and same((await af.get([ref]))[0], 1)
    sums = [int(value(seed).sum()) for seed in range(4)]
    checks["an argument"] = await total(value(1), value(2)) == sums[1] + sums[2]
    checks["a reference as an argument, elsewhere"] = await total.options(scheduling_strategy=there)(ref) == sums[1]
    checks["a result of another node"] = same(await make.options(scheduling_strategy=there)(3), 3)
    first, second = two.remote(5)
    checks["two results"] = same(await first, 5) and same(await second, 6)
    checks["a stream"] = [same(item, number) async for number, item in _numbered(several(3))] == [True] * 3
    plain, inner = await nested(7)
    checks["nested"] = same(plain, 7) and same(await inner, 8)
    checks["nested in a large argument"] = await total(value(1), (await nested(7))[0]) == sums[1] + int(value(7).sum())
    keeper = Keeper.options(scheduling_strategy=there).remote(value(0))
    checks["an actor"] = await keeper.add(value(3)) == sums[3] and same(await keeper.give(9), 9)
    pair = await af.put([value(2), ref, value(3, 20_000), np.empty(0), b"end"])
    opened = await pair
    checks["many buffers"] = same(opened[0], 2) and same(opened[2], 3, 20_000) and opened[-1] == b"end" and same(await opened[1], 1)
    checks["read-only, like everywhere"] = not opened[0].flags.writeable
    refs = [make.remote(number, 30_000) for number in range(5)]
    ready, pending = await af.wait(refs, num_returns=5, timeout=60)
    checks["wait"] = (len(ready), len(pending)) == (5, 0)
    checks["at the same time"] = [same(one, n, 30_000) for n, one in enumerate(await asyncio.gather(*refs))] == [True] * 5
    await af.kill(keeper)
    return [name for name, good in checks.items() if not good]


async def _numbered(stream: Any) -> Any:
    number = 0
    async for item in stream:
        yield number, item
        number += 1


def test_a_driver_from_outside_gives_and_gets_large_values_in_all_forms(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cluster, [there] = stage(world)
        driver = cluster.driver(lambda: every_form(on(there)), outside=True, stay=True)
        assert end(cluster, driver) == []


def test_its_links_may_break_at_any_moment(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cluster, [there] = stage(world)
        driver = cluster.driver(lambda: every_form(on(there)), outside=True, stay=True)
        harm(cluster, driver, faults=1 + sim_seed % 12, within_s=0.3)
        assert end(cluster, driver) == []


def test_it_dies_in_the_middle(sim_seed: int) -> None:
    """PS-2: what it had begun, and all that it owned, is given back."""
    with World(sim_seed) as world:
        cluster, [there] = stage(world)
        owner = cluster.driver(nothing, stay=True)
        world.run_until(lambda: owner.ended, 60.0)
        driver = cluster.driver(lambda: every_form(on(there)), outside=True)
        world.run_until(lambda: driver.core is not None and driver.core._ready is None and bool(driver.core.node_id), 10.0)
        world.run_for(world.rng("death").random() * 0.12)
        world.kill(driver.host)
        assert not driver.returned
        world.run_for(1.0)
        owner.forget()
        cluster.settle()
        cluster.stop()


def test_its_node_dies_in_the_middle(sim_seed: int) -> None:
    """Whoever waits is told, and at once."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def try_all(form: Callable[[], Awaitable[Any]]) -> None:
            while True:
                try:
                    await form()
                except af.ClusterConnectionError as error:
                    ended.append(type(error).__name__)
                    return

        async def put_and_get() -> None:
            assert same(await (await af.put(value(1))), 1)

        async with asyncio.TaskGroup() as group:
            for form in (put_and_get, lambda: make(2), lambda: total(value(3))):
                group.create_task(try_all(form))
        return ended

    with World(sim_seed) as world:
        cluster, _ = stage(world, nodes=0)
        driver = cluster.driver(main, outside=True)
        world.run_until(lambda: driver.core is not None and driver.core._ready is None and bool(driver.core.node_id), 10.0)
        world.run_for(world.rng("death").random() * 0.3)
        world.kill(cluster.node_host)
        for host in cluster.workers():
            world.kill(host)
        world.run_until(lambda: driver.ended, 30.0)
        assert driver.result() == ["ClusterConnectionError"] * 3
        assert driver.core is not None
        assert driver.core.store.left_over() == []


def test_gets_and_puts_are_given_up_at_any_moment(sim_seed: int) -> None:
    """RM-2: neither room nor pins stay, and the others beside them go on."""

    async def main() -> bool:
        rng = np.random.default_rng(sim_seed)
        ref, far = await af.put(value(1)), make.options(scheduling_strategy=on(there)).remote(2)
        good = []

        async def given_up(form: Callable[[], Awaitable[Any]], after_s: float) -> None:
            try:
                async with asyncio.timeout(after_s):
                    await form()
            except TimeoutError:
                pass

        async def bystander() -> None:
            for _ in range(5):
                good.append(same(await ref, 1) and await total(value(3)) == int(value(3).sum()))

        forms = (lambda: af.put(value(5)), lambda: af.get(ref), lambda: af.get(far), lambda: total(value(4)), lambda: make(6))
        async with asyncio.TaskGroup() as group:
            group.create_task(bystander())
            for number in range(25):
                group.create_task(given_up(forms[number % len(forms)], float(rng.random() * 0.03)))
        good.append(same(await far, 2))
        return all(good)

    with World(sim_seed) as world:
        cluster, [there] = stage(world)
        driver = cluster.driver(main, outside=True, stay=True)
        if sim_seed % 2:
            harm(cluster, driver, faults=3, within_s=0.1)
        assert end(cluster, driver)


def test_rm_2_no_more_is_sent_of_what_was_given_up(sim_seed: int) -> None:
    async def main() -> int:
        store: Any = driver.core.store  # type: ignore[union-attr]
        ref = await af.put(value(1, 1_000_000))
        get = asyncio.ensure_future(af.get(ref))
        while not store._taken:
            await asyncio.sleep(0.0005)
        get.cancel()
        await asyncio.sleep(2.0)
        assert get.cancelled()
        taken: int = store._taken
        return taken

    with World(sim_seed) as world:
        cluster, _ = stage(world, nodes=0)
        driver = cluster.driver(main, outside=True, stay=True)
        assert 0 < end(cluster, driver) < 4_000_000


def test_a_full_store(sim_seed: int) -> None:
    """What nobody reads goes to disk and comes back; past that a put waits, and is told; and too much is too much."""

    async def main() -> list[str]:
        wrong = []
        refs = [await af.put(value(number)) for number in range(12)]
        if not cluster.spill.files:
            wrong.append("nothing was spilled")
        if not all([same(await ref, number) for number, ref in enumerate(refs)]):
            wrong.append("what came back from disk")
        keeper = Keeper.remote()
        await keeper.hold(refs[:5])
        try:
            await af.put(value(1, 400_000))
            wrong.append("a put that has no room")
        except af.ObjectStoreFullError:
            pass
        await keeper.drop()
        if not same(await (await af.put(value(1, 400_000))), 1, 400_000):
            wrong.append("a put when there is room again")
        try:
            await af.put(value(1, 2_000_000))
            wrong.append("a put larger than the store")
        except af.ObjectStoreFullError as error:
            if "15.3 MiB" not in str(error):
                wrong.append(str(error))
        await af.kill(keeper)
        return wrong

    with World(sim_seed) as world:
        cluster, _ = stage(world, nodes=0, object_store_memory="8MiB")
        driver = cluster.driver(main, outside=True, stay=True)
        assert end(cluster, driver) == []


def test_an_object_that_is_lost(sim_seed: int) -> None:
    """What was put is lost with its file, and told so; what a call has made is made again."""

    async def main() -> tuple[str, bool]:
        ref = await af.put(value(0))
        made = make.remote(1)
        await af.wait([made])
        more = [await af.put(value(number)) for number in range(12)]
        await asyncio.sleep(1.0)
        cluster.spill.lose_files()
        try:
            await ref
            told = "nothing"
        except af.ObjectLostError as error:
            told = type(error).__name__
        again = same(await made, 1)
        del more
        return told, again

    with World(sim_seed) as world:
        cluster, _ = stage(world, nodes=0, object_store_memory="8MiB")
        driver = cluster.driver(main, outside=True, stay=True)
        told, again = end(cluster, driver)
        assert again
        assert told in ("ObjectLostError", "OwnerDiedError")


def test_another_node_dies_while_a_value_comes_from_it(sim_seed: int) -> None:
    async def main() -> list[str]:
        found = []
        for number in range(30):
            try:
                got = await make.options(scheduling_strategy=af.NodeAffinity(home, soft=True))(number)
                found.append("same" if same(got, number) else "other")
            except af.ActorflowError as error:
                found.append(type(error).__name__)
        return found

    with World(sim_seed) as world:
        cluster, [there] = stage(world)
        assert there.node is not None
        home = there.node.node_id
        driver = cluster.driver(main, outside=True, stay=True)
        world.run_until(lambda: driver.core is not None and bool(driver.core.node_id), 10.0)
        world.run_for(0.05 + world.rng("death").random() * 0.2)
        lost = [host for host, core in cluster.cores.items() if core.node_id == home]
        for host in [there.host, *lost]:
            world.kill(host)
        found = end(cluster, driver)
        assert "other" not in found
        assert found[-1] == "same"


def test_ps_1_what_is_under_way_is_bounded(sim_seed: int) -> None:
    """Whatever it reads at a time, and however little its process takes: here it stands still for a while."""

    async def main() -> bool:
        refs = [await af.put(value(number, 400_000)) for number in range(8)]
        found = await asyncio.gather(*refs)
        return all(same(one, number, 400_000) for number, one in enumerate(found))

    with World(sim_seed) as world:
        cluster, _ = stage(world, nodes=0)
        driver = cluster.driver(main, outside=True, stay=True)
        most = 0

        def look() -> None:
            nonlocal most
            node = cluster.node
            assert node is not None
            if node._parts is not None:
                for one in node._parts._drivers.values():
                    most = max(most, one.queue.window.under_way)
                    assert one.queue.window.under_way <= WINDOW_BYTES_MAX, "PS-1"
            if not driver.ended:
                world.at_time(world.now + 0.001, look)

        world.at_time(world.now, look)
        assert end(cluster, driver)
        assert most > 0
