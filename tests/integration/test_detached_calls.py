"""Detached calls, with real processes: `f.options(lifetime="detached").submit(...)`."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import Cluster


@af.remote(num_cpus=0, lifetime="detached")
def add(first: int, second: Any) -> Any:
    return first + second


@af.remote(num_cpus=0, lifetime="detached")
async def ones(count: int) -> Any:
    return np.ones(count)


@af.remote(num_cpus=0)
def plain(value: Any) -> Any:
    return value


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
async def fails(words: str) -> None:
    raise ValueError(words)


@af.remote(num_cpus=0, lifetime="detached")
async def waits_for(path: str) -> int:
    """As many processes as have begun it."""
    count = len(os.listdir(path))
    pathlib.Path(path, f"pid-{os.getpid()}").touch()
    while not pathlib.Path(path, "go").exists():
        await asyncio.sleep(0.02)
    return count + 1


async def owned() -> dict[str, str]:
    """What the cluster owns, and its state."""
    return {row["object_id"]: row["state"] for row in await af.state.list_objects() if row["owner"] == "cluster"}


async def begun(path: pathlib.Path, count: int = 1) -> list[int]:
    """The processes that have begun it."""
    async with asyncio.timeout(30):
        while len(found := sorted(path.glob("pid-*"), key=lambda each: each.stat().st_mtime_ns)) < count:
            await asyncio.sleep(0.02)
    return [int(each.name.removeprefix("pid-")) for each in found]


@af.remote(num_cpus=0, lifetime="detached", name="keeper")
class Keeper:
    """Has the references until another program comes for them."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    async def keep(self, refs: list[Any]) -> None:
        self.refs += refs

    async def give(self) -> list[Any]:
        return self.refs


@pytest.mark.local_only("ends nodes and the head of a cluster of its own")
async def test_17_it_outlives_its_program_its_node_and_the_head(tmp_path: pathlib.Path) -> None:
    with Cluster(3, num_cpus=1, object_store_memory="64MiB") as cluster:
        async with af.init(address=cluster.address):
            there = {row["node_id"]: row for row in await af.state.list_nodes()}
            [away] = [node_id for node_id, row in there.items() if cluster.nodes[1].address in row["address"]]
            refs = [
                await waits_for.options(scheduling_strategy=af.NodeAffinity(away, soft=True)).submit(str(tmp_path)),
                await ones.submit(300_000),
            ]
            keeper = await Keeper.options(scheduling_strategy=af.NodeAffinity(next(iter(there)))).remote()
            await keeper.keep(refs)
            await begun(tmp_path)
        cluster.kill(cluster.nodes[1])
        await begun(tmp_path, 2)
        cluster.kill_head()
        (tmp_path / "go").touch()
        async with af.init(address=cluster.address):
            refs = await (await af.get_actor("keeper")).give()
            count, array = await af.get(refs)
            assert (count, float(array.sum())) == (2, 300_000.0)
            assert await af.free(refs) == 2
            await af.kill(await af.get_actor("keeper"))


async def test_a_detached_call_returns_what_it_returns(cluster: Any) -> None:
    small, large = await add.submit(1, 2), await ones.submit(300_000)
    assert await small == 3
    assert float((await large).sum()) == 300_000.0
    assert await plain(small) == 3, "it is a reference like any other"
    assert await af.free([small, large]) == 2
    before = await owned()
    assert await add(3, 4) == 7
    assert await owned() == before, "nobody has a reference to what a direct call gives"


async def test_its_arguments_are_the_clusters(cluster: Any) -> None:
    """What a process owned has been handed over by the time it is started: values, results, and what is inside them."""
    before = await owned()
    text, number = await af.put("text"), plain.remote(5)
    ref = await add.submit([await af.put(np.ones(200_000))], [text, number])
    [array, inner, other] = await ref
    assert float((await array).sum()) == 200_000.0
    assert [await inner, await other] == ["text", 5]
    assert await (await add.submit(await af.put(1), number)) == 6, "top-level references are replaced by their values"
    there = await owned()
    assert set(there.values()) == {"ready"}
    assert len(there.keys() - before) == 5, "two results, the array, the text and the number; nothing that only the calls had"


async def test_a_failed_argument_is_the_error_of_the_submission(cluster: Any) -> None:
    @af.remote(max_retries=0)
    async def bad() -> None:
        raise ValueError("no argument")

    with pytest.raises(ValueError, match="no argument"):
        await add.submit(1, bad.remote())


async def test_an_error_is_its_result_and_stays(cluster: Any) -> None:
    before = await owned()
    ref = await fails.submit("as it should")
    for reader in (ref, plain.remote(ref)):
        with pytest.raises(ValueError, match="as it should") as caught:
            await reader
        assert isinstance(caught.value, af.TaskError)
    [new] = (there := await owned()).keys() - before
    assert there[new] == "failed"
    assert await af.free(ref) == 1


async def test_what_cannot_be_pickled_is_its_error(cluster: Any) -> None:
    @af.remote(num_cpus=0, lifetime="detached", max_retries=0)
    def lock() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(af.SerializationError, match="lock"):
        await (await lock.submit())


async def test_exceptions_are_tried_again_as_often_as_is_said(cluster: Any, tmp_path: pathlib.Path) -> None:
    @af.remote(num_cpus=0, lifetime="detached", max_retries=2, retry_exceptions=True)
    def third_time() -> int:
        count = len(os.listdir(tmp_path))
        (tmp_path / str(count)).touch()
        if count < 2:
            raise ValueError("not yet")
        return count

    assert await third_time() == 2
    again = await third_time.options(retry_exceptions=[KeyError]).submit()
    assert await again == 3
    for name in os.listdir(tmp_path):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="not yet"):
        await third_time.options(retry_exceptions=[KeyError])()


async def test_dc_1_its_process_dies_and_it_is_made_again(cluster: Any, tmp_path: pathlib.Path) -> None:
    ref = await waits_for.submit(str(tmp_path))
    [first] = await begun(tmp_path)
    reader = plain.remote(ref)
    os.kill(first, signal.SIGKILL)
    await begun(tmp_path, 2)
    assert not ref.done()
    (tmp_path / "go").touch()
    assert await ref == await reader == 2


async def test_do_5_it_is_broken_when_no_retry_is_left(cluster: Any, tmp_path: pathlib.Path) -> None:
    ref = await waits_for.options(max_retries=0).submit(str(tmp_path))
    reader = plain.remote(ref)
    [first] = await begun(tmp_path)
    os.kill(first, signal.SIGKILL)
    for waiting in (ref, reader, plain.remote(ref)):
        with pytest.raises(af.WorkerCrashedError, match=r"waits_for \(detached\) has not returned, and is not tried again") as caught:
            await waiting
        assert "(max_retries=0, set it to have it tried again)" in str(caught.value)


async def test_3_whoever_has_the_reference_may_cancel(cluster: Any, tmp_path: pathlib.Path) -> None:
    @af.remote(num_cpus=0)
    class Other:
        async def cancel(self, refs: list[Any]) -> bool:
            return refs[0].cancel()

    ref = await waits_for.submit(str(tmp_path))
    [first] = await begun(tmp_path)
    assert await Other.remote().cancel([ref]) is True
    with pytest.raises(af.TaskCancelledError, match="it was cancelled by worker"):
        await ref
    assert ref.cancel() is False
    await gone(first)


async def test_1_a_direct_call_that_is_cancelled_ends(cluster: Any, tmp_path: pathlib.Path) -> None:
    call = asyncio.create_task(waits_for(str(tmp_path)))
    [first] = await begun(tmp_path)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gone(first)


async def test_do_5_what_is_freed_before_it_is_made_is_not_made(cluster: Any, tmp_path: pathlib.Path) -> None:
    before = await owned()
    ref = await waits_for.submit(str(tmp_path))
    reader = plain.remote(ref)
    [first] = await begun(tmp_path)
    assert await af.free(ref) == 1
    with pytest.raises(af.ObjectFreedError):
        await reader
    await gone(first)
    assert await owned() == before


async def gone(pid: int) -> None:
    """The process has ended, and so has its actor."""
    async with asyncio.timeout(20):
        while pathlib.Path(f"/proc/{pid}").exists() or any(row["state"] != "dead" for row in await af.state.list_actors()):
            await asyncio.sleep(0.05)


async def test_what_no_node_can_have_is_said(cluster: Any) -> None:
    ref = await add.options(resources={"unicorns": 1}).submit(1, 2)
    with pytest.raises(af.TaskUnschedulableError, match=r"add \(detached\) cannot run here.*unicorns"):
        await ref
