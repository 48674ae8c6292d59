"""Objects that move between nodes, under virtual time: every end of them is judged, and nothing is left."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow._core.io.bulk import BulkReader
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.sim_node import SimNode

CHUNK = 64 * 1024
"""Small, so that an object of some megabytes has many."""
OPTIONS: dict[str, Any] = {"transfer_chunk_bytes": CHUNK}
MANY = 400_000
"""Numbers of 8 bytes: 49 chunks."""


def value(seed: int, count: int = MANY) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 60, count)


def total(array: np.ndarray) -> int:
    return int(array.sum())


def node_of() -> str:
    from actorflow import _runtime

    return _runtime.current().node_id  # type: ignore[attr-defined]


@af.remote
async def make(seed: int, count: int = MANY) -> Any:
    return value(seed, count)


@af.remote
async def add(array: Any, seconds: float = 0.0) -> tuple[int, str]:
    await asyncio.sleep(seconds)
    return total(array), node_of()


@af.remote
class Keeper:
    """Holds references on a node of its own."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def node(self) -> str:
        return node_of()

    async def put(self, seed: int, count: int = MANY) -> Any:
        return [await af.put(value(seed, count))]

    async def give(self, seed: int, count: int = MANY) -> Any:
        return value(seed, count)

    async def read(self, refs: list[Any]) -> int:
        return sum([total(await ref) for ref in refs])

    async def keep(self, refs: list[Any]) -> int:
        arrays = [await ref for ref in refs]
        self.kept += arrays
        return sum(map(total, arrays))

    async def drop(self) -> None:
        self.kept.clear()


def on(node: SimNode) -> Any:
    """Options that bind to a node."""
    assert node.node is not None
    return af.NodeAffinity(node.node.node_id)


def stage(world: World, *, nodes: int, **options: Any) -> tuple[SimCluster, list[SimNode]]:
    """A cluster whose further nodes are there."""
    cluster = SimCluster(world, num_cpus=4, node_options=OPTIONS, **options)
    added = [cluster.add_node(num_cpus=4) for _ in range(nodes)]
    world.run_until(lambda: all(node.node is not None for node in cluster.nodes), 10.0)
    world.run_for(1.0)
    return cluster, added


def end(cluster: SimCluster, driver: SimDriver) -> Any:
    """The program's result, when nothing is left of it; and then nothing of the cluster, which ends with its driver: that is to `stay`."""
    cluster.world.run_until(lambda: driver.ended, 300.0)
    result = driver.result()
    driver.forget()
    cluster.settle()
    cluster.stop()
    return result


def kill_node(cluster: SimCluster, node: SimNode) -> None:
    """The machine is gone, with all processes on it."""
    assert node.node is not None
    lost = [host for host, core in cluster.cores.items() if core.node_id == node.node.node_id]
    for host in [node.host, *lost]:
        cluster.world.kill(host)


def test_a_value_is_read_on_another_node(sim_seed: int) -> None:
    async def main() -> tuple[int, str]:
        return await add.options(scheduling_strategy=on(there))(await af.put(value(1)))

    with World(sim_seed) as world:
        cluster, [there] = stage(world, nodes=1)
        found, place = end(cluster, cluster.driver(main, stay=True))
        assert found == total(value(1))
        assert there.node is not None
        assert place == there.node.node_id


def test_a_large_result_stays_where_it_was_made_and_is_read_everywhere(sim_seed: int) -> None:
    async def main() -> list[int]:
        ref = make.options(scheduling_strategy=on(there)).remote(2)
        await af.wait([ref])
        outcome = ref._entry.outcome
        sums = [total(await ref)]
        sums += [(await add.options(scheduling_strategy=on(node))(ref))[0] for node in cluster.nodes]
        return [outcome.node == there.node.node_id, *sums]  # type: ignore[union-attr]

    with World(sim_seed) as world:
        cluster, [there, _] = stage(world, nodes=2)
        driver = cluster.driver(main, stay=True)
        assert end(cluster, driver) == [True, *[total(value(2))] * 4]


def test_tasks_run_where_their_large_arguments_lie(sim_seed: int) -> None:
    async def main() -> dict[str, Any]:
        refs = {node: make.options(scheduling_strategy=on(node)).remote(4) for node in (a, b)}
        little = make.options(scheduling_strategy=on(b)).remote(4, 20_000)
        await af.wait([*refs.values(), little], num_returns=3)
        mine = await af.put(value(4))
        await asyncio.sleep(1.0)  # What made them has given its room back.
        found: dict[str, Any] = {
            "a": await add(refs[a]),
            "b": await asyncio.gather(*(add(refs[b], 1.0) for _ in range(4))),
            "here": await add(mine),
            "little": await add(little),
        }
        # It is full: the next one does not wait for it, and the value comes after it.
        await asyncio.sleep(1.0)
        busy = [add.remote(refs[b], 5.0) for _ in range(4)]
        await asyncio.sleep(0.5)
        found["elsewhere"] = await add(refs[b])
        await asyncio.gather(*busy)
        return found

    with World(sim_seed) as world:
        cluster, [a, b] = stage(world, nodes=2)
        driver = cluster.driver(main, stay=True)
        found = end(cluster, driver)
        here, on_a, on_b = [node.node.node_id for node in cluster.nodes if node.node is not None]
        whole = total(value(4))
        assert found["a"] == (whole, on_a)
        assert found["b"] == [(whole, on_b)] * 4
        assert found["here"] == (whole, here)
        assert found["little"] == (total(value(4, 20_000)), here), "it is not worth the way"
        assert found["elsewhere"][0] == whole
        assert found["elsewhere"][1] != on_b


def test_lh_2_classes_for_arguments_on_other_nodes_are_forgotten(sim_seed: int) -> None:
    async def main() -> list[Any]:
        refs = [make.options(scheduling_strategy=on(node)).remote(4) for node in added]
        await af.wait(refs, num_returns=len(refs))
        for ref in refs:
            await add(ref)
            await asyncio.sleep(1.0)
        from actorflow import _runtime

        return [key for key in _runtime.current().tasks._classes if isinstance(key, tuple)]  # type: ignore[attr-defined]

    with World(sim_seed) as world:
        cluster, added = stage(world, nodes=3)
        [last] = end(cluster, cluster.driver(main, stay=True))
        assert last[1] == added[-1].node.node_id  # type: ignore[union-attr]


def test_large_arguments_and_results_of_actors_cross_nodes(sim_seed: int) -> None:
    async def main() -> list[int]:
        one = Keeper.options(scheduling_strategy=on(a)).remote()  # type: ignore[attr-defined]
        two = Keeper.options(scheduling_strategy=on(b)).remote()  # type: ignore[attr-defined]
        refs = await one.put(3)  # owned by an actor on one node, read on another and by the driver
        found = [await two.read(refs), total(await refs[0]), total(await two.give(4))]
        found.append((await add.options(scheduling_strategy=on(b))(value(5)))[0])  # an argument that was not put
        return found

    with World(sim_seed) as world:
        cluster, [a, b] = stage(world, nodes=2)
        assert end(cluster, cluster.driver(main, stay=True)) == [total(value(seed)) for seed in (3, 3, 4, 5)]


@af.remote
async def several(seeds: list[int]) -> Any:
    for seed in seeds:
        yield value(seed)


@af.remote
class Holder:
    def __init__(self, array: Any, other: Any) -> None:
        self.sums = [total(array), total(other)]

    async def found(self) -> list[int]:
        return self.sums


def test_items_of_streams_and_arguments_of_constructors_cross_nodes(sim_seed: int) -> None:
    async def main() -> list[int]:
        stream = several.options(scheduling_strategy=on(there))([1, 2, 3])
        found = [total(item) async for item in stream]
        holder = Holder.options(scheduling_strategy=on(there)).remote(value(4), await af.put(value(5)))  # type: ignore[attr-defined]
        found += await holder.found()
        await af.kill(holder)
        return found

    with World(sim_seed) as world:
        cluster, [there] = stage(world, nodes=1)
        assert end(cluster, cluster.driver(main, stay=True)) == [total(value(seed)) for seed in range(1, 6)]


def test_concurrent_readers_share_one_copy(sim_seed: int) -> None:
    async def main() -> list[int]:
        ref = await af.put(value(6))
        task = add.options(scheduling_strategy=on(there))
        return [found for found, _ in await asyncio.gather(*(task(ref) for _ in range(4)))]

    with World(sim_seed) as world:
        cluster, [there] = stage(world, nodes=1)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: driver.ended, 60.0)
        assert driver.result() == [total(value(6))] * 4
        assert there.node is not None
        book = there.node._transfers.pulling.book  # type: ignore[union-attr]
        assert book._number == 2, "one pull, and one attempt"
        driver.forget()
        cluster.settle()
        cluster.stop()


def broadcast(seed: int) -> int:
    """Four nodes read one object; returns how many had it from the first one."""

    async def main() -> list[int]:
        ref = await af.put(value(7))
        found = await asyncio.gather(*(add.options(scheduling_strategy=on(node))(ref) for node in others))
        return [sum_ for sum_, _ in found]

    with World(seed) as world:
        cluster, others = stage(world, nodes=4)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: driver.ended, 60.0)
        assert driver.result() == [total(value(7))] * 4
        assert cluster.node is not None
        sent = cluster.node._transfers.serving.book._number  # type: ignore[union-attr]
        driver.forget()
        cluster.settle()
        cluster.stop()
        return sent


def test_a_broadcast_goes_from_node_to_node(sim_seed: int) -> None:
    assert 1 <= broadcast(sim_seed) <= 4


def test_in_most_broadcasts_some_have_it_of_others() -> None:
    """Not in all: four that ask in the same moment find nobody else who has any of it."""
    sent = [broadcast(seed) for seed in range(12)]
    assert sum(count < 4 for count in sent) >= 8, sent


def test_a_source_that_dies_in_the_middle_is_replaced_by_a_copy(sim_seed: int) -> None:
    async def main() -> list[Any]:
        ref = make.options(scheduling_strategy=on(home), max_retries=0).remote(8)
        keeper = Keeper.options(scheduling_strategy=on(second)).remote()  # type: ignore[attr-defined]
        assert await keeper.keep([ref]) == total(value(8))
        task = add.options(scheduling_strategy=on(third)).remote(ref)
        begun.append(world.now)
        found, _ = await task
        return [found, await keeper.read([ref])]

    with World(sim_seed) as world:
        begun: list[float] = []
        cluster, [home, second, third] = stage(world, nodes=3)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(begun) and third.node is not None and third.node._transfers is not None, 60.0)
        world.run_for(world.rng("the moment").uniform(0.0, 0.01))
        kill_node(cluster, home)
        assert end(cluster, driver) == [total(value(8))] * 2


def test_what_is_lost_with_its_node_is_made_again(sim_seed: int) -> None:
    async def main() -> int:
        ref = make.options(scheduling_strategy=af.NodeAffinity(home.node.node_id, soft=True)).remote(9)  # type: ignore[union-attr]
        await af.wait([ref])
        made.append(world.now)
        await asyncio.sleep(3.0)
        return (await add.options(scheduling_strategy=on(reader))(ref))[0]

    with World(sim_seed) as world:
        made: list[float] = []
        cluster, [home, reader] = stage(world, nodes=2)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(made), 60.0)
        kill_node(cluster, home)
        assert end(cluster, driver) == total(value(9))


def test_what_cannot_be_had_is_an_error_within_a_bound(sim_seed: int) -> None:
    async def main() -> tuple[str, float]:
        keeper = Keeper.options(scheduling_strategy=on(home)).remote()  # type: ignore[attr-defined]
        ref = keeper.give.remote(10)
        await af.wait([ref])
        made.append(world.now)
        await asyncio.sleep(1.0)
        asked = world.now
        with pytest.raises(af.ObjectLostError) as caught:
            await add.options(scheduling_strategy=on(reader))(ref)
        return str(caught.value), world.now - asked

    with World(sim_seed) as world:
        made: list[float] = []
        cluster, [home, reader] = stage(world, nodes=2)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(made), 60.0)
        kill_node(cluster, home)
        words, seconds = end(cluster, driver)
        assert "could not be fetched" in words
        assert seconds < 30.0


def test_readers_that_die_or_are_cancelled_leave_nothing(sim_seed: int) -> None:
    async def main() -> int:
        ref = await af.put(value(11))
        task = add.options(scheduling_strategy=on(there), max_retries=0)
        doomed = [asyncio.ensure_future(task(ref, 5.0)) for _ in range(3)]
        going.append(world.now)
        await asyncio.sleep(world.rng("cancel").uniform(0.0, 0.02))
        doomed[0].cancel()
        ends = await asyncio.gather(*doomed, return_exceptions=True)
        assert isinstance(ends[0], asyncio.CancelledError | af.WorkerCrashedError), ends
        assert all(isinstance(one, tuple | af.WorkerCrashedError) for one in ends[1:]), ends
        return (await task(ref))[0]

    with World(sim_seed) as world:
        going: list[float] = []
        cluster, [there] = stage(world, nodes=1)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(going), 60.0)
        world.run_for(world.rng("the kill").uniform(0.0, 0.05))
        assert there.node is not None
        for host in cluster.workers():
            if cluster.cores[host].node_id == there.node.node_id:
                world.kill(host)
                break
        assert end(cluster, driver) == total(value(11))


def test_the_death_of_an_owner_frees_the_copies(sim_seed: int) -> None:
    async def main() -> bool:
        owner = Keeper.options(scheduling_strategy=on(a)).remote()  # type: ignore[attr-defined]
        reader = Keeper.options(scheduling_strategy=on(b)).remote()  # type: ignore[attr-defined]
        refs = await owner.put(12)
        assert await reader.read(refs) == total(value(12))
        await af.kill(owner)
        await asyncio.sleep(3.0)
        assert b.node is not None
        left = b.node._transfers.pulling.book.copies()  # type: ignore[union-attr]
        with pytest.raises(af.OwnerDiedError):
            await reader.read(refs)
        return not left

    with World(sim_seed) as world:
        cluster, [a, b] = stage(world, nodes=2)
        assert end(cluster, cluster.driver(main, stay=True)) is True


def test_on_3_that_an_object_is_freed_is_heard_though_the_connection_is_lost_meanwhile(sim_seed: int) -> None:
    async def main() -> None:
        ref = make.options(scheduling_strategy=on(there)).remote(14)
        assert total(await ref) == total(value(14))
        dropped.append(world.now)
        del ref
        await asyncio.sleep(5.0)

    with World(sim_seed) as world:
        dropped: list[float] = []
        cluster, [there] = stage(world, nodes=1)
        world.fabric.delay(cluster.node_host, there.host, 0.05)
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(dropped), 60.0)
        for _ in range(16):  # The reference is counted within 0.1 s, and what is said of it takes 0.05 s.
            world.run_for(0.02)
            for stream in there.host.network.streams():
                if type(stream._handler) is BulkReader:
                    world.fabric.reset(stream)
        end(cluster, driver)


def test_a_full_store_spills_and_serves_from_disk(sim_seed: int) -> None:
    async def main() -> list[int]:
        refs = [await af.put(value(seed)) for seed in range(12)]  # 38 MB in a store of 16
        found = []
        for seed in range(12):
            found.append((await add.options(scheduling_strategy=on(there))(refs[seed]))[0])
        makers = [make.options(scheduling_strategy=on(there)).remote(seed) for seed in range(12)]
        found += [total(await ref) for ref in makers]
        return found

    with World(sim_seed) as world:
        cluster, [there] = stage(world, nodes=1, object_store_memory="16MiB")
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: driver.ended, 300.0)
        assert cluster.nodes[0].spill.writes
        assert end(cluster, driver) == [total(value(seed)) for seed in range(12)] * 2


def test_what_does_not_fit_says_so_with_the_numbers(sim_seed: int) -> None:
    async def main() -> str:
        ref = await af.put(value(13))
        with pytest.raises(af.ObjectStoreFullError) as caught:
            await add.options(scheduling_strategy=on(there))(ref)
        return str(caught.value)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=4, node_options=OPTIONS)
        there = cluster.add_node(num_cpus=4, object_store_memory="2MiB")
        world.run_until(lambda: there.node is not None, 10.0)
        world.run_for(1.0)
        words = end(cluster, cluster.driver(main, stay=True))
        assert "3.1 MiB were asked for, and the object store has 2 MiB" in words


def test_a_pull_that_waits_for_room_in_vain_is_told_in_time(sim_seed: int) -> None:
    async def main() -> tuple[str, float]:
        keeper = Keeper.options(scheduling_strategy=on(there)).remote()  # type: ignore[attr-defined]
        refs = [await af.put(value(seed)) for seed in range(6)]
        await keeper.keep(refs[:4])  # 12 of its 16 MiB are being read
        begun = world.now
        # One more fits. The other waits for its turn, which comes with a chunk of the first, and then for room; and nothing else happens.
        task = add.options(scheduling_strategy=on(there))
        both = [asyncio.ensure_future(task(ref, 40.0)) for ref in refs[4:]]
        [first], [second] = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        seconds = world.now - begun
        with pytest.raises(af.ObjectStoreFullError) as caught:
            await first
        assert (await second)[0] in (total(value(4)), total(value(5)))
        await af.kill(keeper)
        return str(caught.value), seconds

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=4, node_options=OPTIONS)
        there = cluster.add_node(num_cpus=4, object_store_memory="16MiB")
        world.run_until(lambda: there.node is not None, 10.0)
        world.run_for(1.0)
        words, seconds = end(cluster, cluster.driver(main, stay=True))
        assert "did not come free within 10 s" in words
        assert seconds < 20.0


def test_a_copy_takes_the_place_of_a_file_that_is_lost(sim_seed: int) -> None:
    async def main() -> list[int]:
        refs = [await af.put(value(seed)) for seed in range(2)]
        keeper = Keeper.options(scheduling_strategy=on(there)).remote()  # type: ignore[attr-defined]
        assert await keeper.keep(refs) == total(value(0)) + total(value(1))
        more = [await af.put(value(seed)) for seed in range(2, 9)]
        await asyncio.sleep(1.0)
        lost.extend(cluster.spill.files)
        cluster.spill.lose_files()
        found = [total(await ref) for ref in refs]
        del more
        return found

    with World(sim_seed) as world:
        lost: list[int] = []
        cluster = SimCluster(world, num_cpus=4, node_options=OPTIONS, object_store_memory="16MiB")
        there = cluster.add_node(num_cpus=4, object_store_memory="64MiB")
        world.run_until(lambda: there.node is not None, 10.0)
        world.run_for(1.0)
        driver = cluster.driver(main, stay=True)
        assert end(cluster, driver) == [total(value(0)), total(value(1))]
        assert lost, "it was about files"


# Storms -----------------------------------------------------------------------------------------------------

TYPED = (af.ObjectLostError, af.OwnerDiedError, af.WorkerCrashedError, af.ActorDiedError, af.ObjectStoreFullError)
"""How a read may end in a storm, besides with the value. In a storm of resets only, nothing that was put is lost."""


async def judged(awaitable: Any, seed: int, ends: dict[str, int]) -> None:
    """The value is the oracle's, or the error is one of those."""
    try:
        found = await awaitable
    except TYPED as error:
        name = type(error).__mro__[1].__name__ if type(error).__module__ != "actorflow" else type(error).__name__
        ends[name] = ends.get(name, 0) + 1
        return
    found = found if isinstance(found, tuple) else (found, "")
    assert found[0] == total(value(seed, SOME)), "a value that is not the one that was written"
    ends["value"] = ends.get("value", 0) + 1


SOME = 60_000
"""Numbers of 8 bytes: 8 chunks."""


STORMS: list[bool] = []
"""Of each storm that was run: whether it has found something to disturb."""


def storm(world: World, cluster: SimCluster, others: list[SimNode], *, kills: bool) -> list[bool]:
    """Faults for ten seconds: connections between nodes are reset, and, with `kills`, workers and one node die."""
    rng = world.rng("storm")
    hit: list[bool] = []
    """Whether there was a pull to be disturbed, for each reset."""
    for one, other in itertools.combinations(cluster.nodes, 2):
        world.fabric.delay(one.host, other.host, rng.uniform(0.0, 0.2))  # So that a pull takes long enough to be hit.

    def reset() -> None:
        # With the head a node has another connection, whose loss is another story.
        links = [s for node in cluster.nodes if node.host.alive for s in node.host.network.streams() if type(s._handler) is BulkReader]
        if links:
            hit.append(any(node.node._transfers.pulling.book.pulls() for node in cluster.nodes if node.host.alive and node.node._transfers))  # type: ignore[union-attr]
            world.fabric.reset(rng.choice(links))

    def kill_worker() -> None:
        workers = cluster.workers()
        if workers:
            world.kill(rng.choice(workers))

    for _ in range(12):
        world.at_time(world.now + rng.uniform(0.0, 10.0), rng.choice([reset, reset, kill_worker]) if kills else reset)
    if kills:
        world.at_time(world.now + rng.uniform(1.0, 9.0), lambda: kill_node(cluster, rng.choice(others)))
    return hit


@pytest.mark.parametrize("kills", [False, True], ids=["resets", "kills"])
def test_every_end_of_a_storm_is_the_value_or_a_typed_error(sim_seed: int, kills: bool) -> None:
    ends: dict[str, int] = {}

    async def read(ref: Any, seed: int, rng: Any) -> None:
        await asyncio.sleep(rng.uniform(0.0, 8.0))
        node = rng.choice(cluster.nodes)
        soft = af.NodeAffinity(node.node.node_id, soft=True)
        if rng.random() < 0.3:
            await judged(direct(ref), seed, ends)
        else:
            await judged(add.options(scheduling_strategy=soft, max_retries=3)(ref), seed, ends)

    async def direct(ref: Any) -> int:
        return total(await ref)

    async def main() -> None:
        rng = world.rng("program")
        reads = []
        for seed in range(6):
            node = rng.choice(others)
            soft = af.NodeAffinity(node.node.node_id, soft=True)
            ref = await af.put(value(seed, SOME)) if seed % 2 else make.options(scheduling_strategy=soft, max_retries=5).remote(seed, SOME)
            reads += [asyncio.ensure_future(read(ref, seed, rng)) for _ in range(4)]
            del ref
        going.append(world.now)
        doomed = rng.choice(reads)
        asyncio.get_running_loop().call_later(rng.uniform(0.0, 8.0), doomed.cancel)
        found = await asyncio.gather(*reads, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, asyncio.CancelledError):
                raise one

    with World(sim_seed) as world:
        going: list[float] = []
        cluster, others = stage(world, nodes=3, object_store_memory="3MiB")
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: bool(going), 60.0)
        hit = storm(world, cluster, others, kills=kills)
        end(cluster, driver)
        STORMS.append(any(hit))
        if kills:
            assert ends["value"] > 12, ends
        else:
            assert ends.keys() == {"value"}, "connections that are reset cost time, and nothing else"


def test_storms_find_something_to_disturb() -> None:
    STORMS.clear()
    for seed in range(6):
        test_every_end_of_a_storm_is_the_value_or_a_typed_error(seed, kills=True)
    assert sum(STORMS) >= 4, STORMS
