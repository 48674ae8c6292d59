"""Jobs that call the actors of other jobs, over nodes: with passes, restarts, broken connections, and a secret that is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import actorflow as af
from actorflow._core.io.peers import Peer
from actorflow._core.protocol.messages import FreeExtent, PassGiven
from actorflow._core.security.passes import PASS_VALID_S
from actorflow._core.security.secret import Secrets
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster, SimDriver

OPTIONS: dict[str, Any] = {"transfer_chunk_bytes": 64 * 1024}
LARGE = 300_000


@af.remote
class Shelf:
    """Keeps what it is given, and gives it back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def size(self, value: Any) -> int:
        return len(value)

    async def make(self, size: int) -> bytes:
        return bytes(size)

    async def count(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    async def put(self, size: int) -> list[Any]:
        return [await af.put(bytes(size))]

    async def keep(self, refs: list[Any]) -> int:
        self.kept += refs
        return sum([len(await ref) for ref in refs])

    async def kept_sizes(self) -> list[int]:
        return [len(await ref) for ref in self.kept]

    async def drop(self) -> None:
        self.kept.clear()

    async def call(self, other: Any, value: bytes) -> int:
        return await other.size(value)

    async def wait(self) -> None:
        await asyncio.sleep(3600)


@af.remote
async def use(shelf: Any, value: Any) -> int:
    return await shelf.size(value)


@af.remote
async def total(refs: list[Any]) -> int:
    return sum([len(await ref) for ref in refs])


def nodes_of(world: World, more: int = 2) -> SimCluster:
    """A cluster of several machines."""
    cluster = SimCluster(world, scheme="tcp", num_cpus=2, node_options=OPTIONS)
    for _ in range(more):
        cluster.add_node(num_cpus=2)
    world.run_until(lambda: all(node.node is not None for node in cluster.nodes))
    world.run_for(1.0)
    return cluster


def on(cluster: SimCluster, number: int) -> dict[str, Any]:
    node = cluster.nodes[number].node
    assert node is not None
    return {"scheduling_strategy": af.NodeAffinity(node.node_id, soft=True)}


def host_job(cluster: SimCluster, **options: Any) -> SimDriver:
    """A driver that owns the cluster and makes a detached actor on the last node; it stays."""

    async def main() -> None:
        shelf = Shelf.options(name="shelf", lifetime="detached", num_cpus=0, **on(cluster, -1), **options).remote()
        await shelf.size(b"")

    driver = cluster.driver(main, stay=True)
    cluster.world.run_until(lambda: driver.returned, 60.0)
    driver.result()
    return driver


def finish(cluster: SimCluster, *drivers: SimDriver) -> None:
    """The actor ends, and then nothing is left of the calls and nothing of the cluster."""

    async def end() -> None:
        await af.kill(await af.get_actor("shelf"))

    last = cluster.driver(end)
    cluster.world.run_until(lambda: last.ended, 60.0)
    last.result()
    for driver in (*drivers, last):
        driver.forget()
    cluster.settle()
    cluster.stop()


async def all_of_it() -> None:
    """What one job may do with an actor of another."""
    shelf = await af.get_actor("shelf")
    assert await shelf.size(b"123") == 3
    assert await shelf.size(bytes(LARGE)) == LARGE
    assert len(await shelf.make(10)) == 10
    assert len(await shelf.make(LARGE)) == LARGE
    assert [number async for number in shelf.count(40)] == list(range(40))
    # Its references, of small and large values, here and in tasks of ours.
    for size in (10, LARGE):
        [theirs] = await shelf.put(size)
        assert len(await theirs) == size
        assert await total([theirs]) == size
    # Ours with it, after the calls have ended, and those of our other processes.
    mine = [await af.put(bytes(size)) for size in (10, LARGE)]
    assert await shelf.keep(mine) == 10 + LARGE
    del mine
    assert await shelf.kept_sizes() == [10, LARGE]
    other = Shelf.options(num_cpus=0).remote()
    [of_other] = await other.put(LARGE)
    assert await shelf.keep([of_other]) == LARGE
    del of_other
    assert await shelf.kept_sizes() == [10, LARGE, LARGE]
    await shelf.drop()
    # Handles go on inside this job, and ours to it.
    assert await use(shelf, bytes(LARGE)) == LARGE
    assert await other.call(shelf, bytes(LARGE)) == LARGE
    assert await shelf.call(other, bytes(LARGE)) == LARGE
    with pytest.raises(af.TaskCancelledError):
        ref = shelf.wait.remote()
        await asyncio.sleep(0.1)
        ref.cancel()
        await ref


def test_all_that_is_to_be_had_of_an_actor_of_another_job(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cluster = nodes_of(world)
        first = host_job(cluster)
        second = cluster.driver(all_of_it)
        world.run_until(lambda: second.ended, 120.0)
        second.result()
        finish(cluster, first, second)


def test_an_actor_that_restarts_elsewhere_is_found_again(sim_seed: int) -> None:
    async def main() -> None:
        shelf = await af.get_actor("shelf")
        done = 0
        for _ in range(200):
            done += await shelf.size(b"x")
            await asyncio.sleep(0.05)
        assert done == 200
        assert await use(shelf, bytes(LARGE)) == LARGE

    with World(sim_seed) as world:
        cluster = nodes_of(world)
        first = host_job(cluster, max_restarts=-1, max_task_retries=-1)
        second = cluster.driver(main)
        # `max_task_retries` is of the handle that was made with it; one that is found by name has that of the class.
        rng = world.rng("harm")
        world.at_time(world.now + rng.uniform(0.5, 3.0), lambda: world.kill(cluster.nodes[-1].host))
        world.run_until(lambda: second.ended, 200.0)
        with_retries = second.error is None or isinstance(second.error, af.ActorUnavailableError)
        assert with_retries, second.error
        again = cluster.driver(all_of_it)
        world.run_until(lambda: again.ended, 200.0)
        again.result()
        finish(cluster, first, second, again)


def test_connections_between_jobs_that_break_are_made_again(sim_seed: int) -> None:
    async def main() -> list[int]:
        shelf = await af.get_actor("shelf")
        return await asyncio.gather(*(paced(shelf, number) for number in range(100)))

    async def paced(shelf: Any, number: int) -> int:
        await asyncio.sleep(number * 0.03)
        return await shelf.size(bytes(number))

    with World(sim_seed) as world:
        cluster = nodes_of(world)
        first = host_job(cluster)
        second = cluster.driver(main)
        rng = world.rng("harm")
        struck: list[int] = []

        def strike() -> None:
            between = [ends for ends in world.fabric.connections() if ends[0].proof is not None and not ends[0].closed]
            if between:
                stream = rng.choice(rng.choice(between))
                rng.choice([world.fabric.reset, world.fabric.half_open])(stream)
                struck.append(stream.number)

        for _ in range(4):
            world.at_time(world.now + rng.uniform(0.2, 3.0), strike)
        world.run_until(lambda: second.ended, 120.0)
        assert second.result() == list(range(100))
        assert struck
        finish(cluster, first, second)


def test_passes_of_a_secret_that_was_replaced_and_of_yesterday_are_renewed(sim_seed: int) -> None:
    """Each step of a replacement, and a pass whose time is over, with a connection that breaks after it."""

    async def main() -> int:
        shelf = await af.get_actor("shelf")
        done = 0
        while not enough:
            done += await shelf.size(b"x")
            await asyncio.sleep(2.0)
        return done

    enough: list[bool] = []
    with World(sim_seed) as world:
        cluster = nodes_of(world)
        first = host_job(cluster)
        second = cluster.driver(main)

        def cut() -> None:
            for ends in world.fabric.connections():
                if ends[0].proof is not None:
                    world.fabric.reset(ends[0])

        new = world.rng("the next secret").randbytes(32)
        for step in (lambda: cluster.secrets.with_next(new), lambda: cluster.secrets.promoted(), lambda: cluster.secrets.retired()):
            world.run_for(1.0)
            cluster.use_secrets(step())
            cut()
        assert cluster.secrets == Secrets(new)
        world.run_for(PASS_VALID_S + 700)
        cut()
        world.run_for(5.0)
        enough.append(True)
        world.run_until(lambda: second.ended, 60.0)
        assert second.result() > 1500
        finish(cluster, first, second)


def test_a_visitor_that_says_what_it_may_not_is_turned_out(sim_seed: int) -> None:
    async def main() -> str:
        from actorflow import _runtime

        core: Any = _runtime.current()
        shelf = await af.get_actor("shelf")
        assert await shelf.size(b"1") == 1
        peer: Peer = next(peer for peer in core.all_peers() if peer.proof is not None)
        waits = shelf.wait.remote()
        await asyncio.sleep(0.1)
        peer.send(FreeExtent(1))
        with pytest.raises(af.ActorUnavailableError) as caught:
            await waits
        assert await shelf.size(b"22") == 2, "the next link is as good as the first"
        return str(caught.value)

    with World(sim_seed) as world:
        cluster = nodes_of(world)
        first = host_job(cluster)
        second = cluster.driver(main)
        world.run_until(lambda: second.ended, 60.0)
        said = second.result()
        assert "FreeExtent was refused: a process of another job may call actors, and nothing else" in said
        finish(cluster, first, second)


async def on_protocol_loop(core: Any, make: Any) -> str:
    """What a coroutine of the runtime raises."""
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def carry() -> None:
        said = ""
        try:
            await make()
        except OSError as error:
            said = str(error)
        done.get_loop().call_soon_threadsafe(done.set_result, said)

    tasks: list[asyncio.Task[None]] = []
    core.ports.loop.call_soon_threadsafe(lambda: tasks.append(core.ports.loop.create_task(carry())))
    return await done


def test_the_head_gives_no_pass_to_a_job_that_is_not_there(sim_seed: int) -> None:
    async def main() -> list[str]:
        from actorflow import _runtime

        core: Any = _runtime.current()
        return [await on_protocol_loop(core, lambda job=job: core.passes.pass_for(job)) for job in ("no-such-job", core.identity.job_id)]

    with World(sim_seed) as world:
        cluster = nodes_of(world, 1)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 60.0)
        unknown, own = driver.result()
        assert "job no-such-job is over, and none of its actors lives" in unknown
        assert "needs none" in own


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_the_head_creates_no_actor_for_another_job(sim_seed: int, scheme: str) -> None:
    async def main() -> str:
        from actorflow import _runtime

        core: Any = _runtime.current()
        core.identity.job_id = "another-job"  # From now on it says so of what it makes; the head knows it as what it was.
        with pytest.raises(af.ActorUnschedulableError) as caught:
            await Shelf.remote().size(b"")
        return str(caught.value)

    with World(sim_seed) as world:
        cluster = SimCluster(world, scheme=scheme)
        driver = cluster.driver(main)
        world.run_until(lambda: driver.ended, 60.0)
        assert "creates actors of that job only, and this one was to be of job another-job" in driver.result()


def test_messages_of_passes_show_no_key() -> None:
    assert "secret" not in repr(PassGiven("job", "mine", 5, [(b"id", b"secret")]))
