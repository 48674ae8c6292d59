"""Objects that the cluster owns, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import Cluster


class Maker(af.Actor, num_cpus=0):
    async def put(self, count: int) -> list[Any]:
        inner = await af.put(np.full(count, 2.0))
        return [await af.put(np.ones(count), durable=True), await af.put([inner, "text"], durable=True)]

    async def pid(self) -> int:
        return os.getpid()


class Keeper(af.Actor, num_cpus=0, lifetime="detached", name="keeper"):
    def __init__(self) -> None:
        self.refs: list[Any] = []

    async def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    async def sums(self) -> list[float]:
        first, second = await af.get(self.refs)
        return [float(first.sum()), float((await second[0]).sum())]


@pytest.mark.local_only("ends nodes and the head of a cluster of its own")
async def test_17_it_outlives_its_process_a_node_and_the_head() -> None:
    count = 500_000
    with Cluster(3, num_cpus=1, object_store_memory="64MiB") as cluster:
        async with af.init(address=cluster.address):
            there = {row["node_id"]: row for row in await af.state.list_nodes()}
            assert len(there) == 3
            away = cluster.nodes[1]
            [node_id] = [node_id for node_id, row in there.items() if away.address in row["address"]]
            maker = Maker.options(scheduling_strategy=af.NodeAffinity(node_id)).remote()
            refs = await maker.put(count)
            os.kill(await maker.pid(), signal.SIGKILL)
            await af.wait_dead(maker)
            [other] = [node_id for node_id, row in there.items() if cluster.nodes[-1].address in row["address"]]
            keeper = await Keeper.options(scheduling_strategy=af.NodeAffinity(other)).remote()
            await keeper.keep(refs)
            assert await keeper.sums() == [count, 2.0 * count]
            cluster.kill(away)
            async with asyncio.timeout(30):
                while sum(row["state"] == "alive" for row in await af.state.list_nodes()) != 2:
                    await asyncio.sleep(0.05)
            assert [float((await refs[0]).sum())] == [count]
            cluster.kill_head()
            late = await af.put(np.full(count, 3.0), durable=True)
            assert await keeper.sums() == [count, 2.0 * count]
            assert float((await late).sum()) == 3.0 * count
            assert await af.free([*refs, late]) == 3
            with pytest.raises(af.ObjectFreedError):
                async with asyncio.timeout(10):
                    while True:  # The nodes hear of it as the driver does.
                        await late
            await af.kill(keeper)


async def test_17_on_one_node_it_outlives_its_process(cluster: Any) -> None:
    maker = Maker.remote()
    refs = await maker.put(200_000)
    os.kill(await maker.pid(), signal.SIGKILL)
    await af.wait_dead(maker)
    assert float((await refs[0]).sum()) == 200_000
    inner, text = await refs[1]
    assert (float((await inner).sum()), text) == (400_000.0, "text")
    assert await af.free([*refs, inner]) == 3
    assert await af.free(refs) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: af.put(1, ttl=3.0), "ttl=3.0 is for objects that the cluster owns: say durable=True too"),
        (lambda: af.put(1, durable=True, ttl=0), "af.put: ttl=0 is not a time"),
        (lambda: af.put(1, durable=True, ttl=-1.0), "af.put: ttl=-1.0"),
        (lambda: af.put(1, durable=1), "af.put: durable"),
    ],
)
async def test_what_cannot_be_is_said(cluster: Any, call: Any, words: str) -> None:
    with pytest.raises(af.OptionError, match=words):
        await call()


async def test_only_what_the_cluster_owns_is_freed_by_hand(cluster: Any) -> None:
    with pytest.raises(af.OptionError, match="a process owns the object of reference 1"):
        await af.free([await af.put(1, durable=True), await af.put(2)])
    with pytest.raises(TypeError, match=r"af.free takes references"):
        await af.free([5])  # type: ignore[list-item]


async def test_17_a_failed_call_inside_is_its_error(cluster: Any) -> None:
    @af.remote(max_retries=0)
    async def fails() -> None:
        raise ValueError("no value")

    with pytest.raises(af.TaskError, match="no value"):
        await af.put([fails.remote()], durable=True)
