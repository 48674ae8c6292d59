"""Objects between real nodes on this host, over TCP."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow._core.boot.session_dir import sweep_stale
from tests.integration.test_cluster import cluster, here

pytestmark = pytest.mark.local_only("nodes of its own on one host that are killed")

MIB = 1024 * 1024


@af.remote
def ones(count: int) -> Any:
    return np.ones(count)


@af.remote
def total(array: Any) -> tuple[float, str]:
    assert not array.flags.writeable, "it is a view of shared memory"
    return float(array.sum()), here()


@af.remote
class Keeper:
    """Keeps what it is given in the memory of its node."""

    def __init__(self) -> None:
        self.kept: Any = None

    async def node(self) -> str:
        return here()

    async def keep(self, refs: list[Any]) -> float:
        self.kept = await refs[0]
        return float(self.kept.sum())

    async def make(self, count: int) -> list[Any]:
        return [await af.put(np.ones(count))]


def on(node_id: str) -> Any:
    return af.NodeAffinity(node_id)


async def node_ids() -> list[str]:
    """Ours first."""
    found = [row["node_id"] for row in await af.state.list_nodes()]
    return sorted(found, key=lambda node_id: node_id != here())


async def pids(nodes: list[Any]) -> dict[str, int]:
    """The process of each node, by its id."""
    rows = await af.state.list_nodes()
    return {row["node_id"]: node.pid for row in rows for node in nodes if node.tcp in row["address"]}


async def store_is_empty() -> None:
    """Every object of every node is freed in a moment."""
    async with asyncio.timeout(10):
        while await af.state.list_objects():
            gc.collect()
            await asyncio.sleep(0.05)


async def test_arguments_and_results_cross_nodes() -> None:
    count = 1_000_000
    with cluster(1, 2) as nodes:
        async with af.init(address=nodes[0].tcp):
            mine, other = await node_ids()
            there = {"scheduling_strategy": on(other)}
            ref = await af.put(np.ones(count))
            assert await total.options(**there)(ref) == (count, other)
            result = ones.options(**there).remote(count)
            await af.wait([result])
            assert result._entry.outcome.node == other, "it stays where it was made"
            assert float((await result).sum()) == count
            assert (await total.options(**there)(result))[0] == count
            assert (await total.options(scheduling_strategy=on(mine))(result))[0] == count
            assert (await total.options(**there)(np.ones(count)))[0] == count, "an argument that was not put"
            keeper = Keeper.options(**there).remote()  # type: ignore[attr-defined]
            [owned] = await keeper.make(count)
            assert float((await owned).sum()) == count, "what an actor on another node owns"
            del ref, result, owned
            await af.kill(keeper)
            await store_is_empty()


async def test_tasks_run_where_their_large_arguments_lie() -> None:
    count = 1_000_000
    with cluster(2, 2) as nodes:
        async with af.init(address=nodes[0].tcp):
            mine, other = await node_ids()
            far = ones.options(scheduling_strategy=on(other)).remote(count)
            near = await af.put(np.ones(count))
            await af.wait([far])
            assert await total(far) == (count, other)
            assert await total(near) == (count, mine)
            assert await total(np.ones(count)) == (count, mine), "an argument that was not put"
            del far, near
            await store_is_empty()


async def test_a_broadcast_reaches_all_nodes() -> None:
    count = 2_000_000
    with cluster(1, 1, 1, 1) as nodes:
        async with af.init(address=nodes[0].tcp):
            _, *others = await node_ids()
            ref = await af.put(np.ones(count))
            found = await asyncio.gather(*(total.options(scheduling_strategy=on(node))(ref) for node in others))
            assert sorted(found) == sorted((count, node) for node in others)


async def test_a_source_that_is_killed_is_replaced_by_a_copy() -> None:
    count = 2_000_000
    with cluster(1, 1, 1) as nodes:
        async with af.init(address=nodes[0].tcp):
            _, second, third = await node_ids()
            pid = await pids(nodes)
            ref = ones.options(scheduling_strategy=on(second), max_retries=0).remote(count)
            keeper = Keeper.options(scheduling_strategy=on(third)).remote()  # type: ignore[attr-defined]
            assert await keeper.keep([ref]) == count
            os.killpg(pid[second], signal.SIGKILL)
            assert float((await ref).sum()) == count, "the copy is there"
            assert (await total.options(scheduling_strategy=on(third))(ref))[0] == count
    sweep_stale(age_s=0)


async def test_a_source_that_is_killed_in_the_middle_costs_a_retry_or_an_error() -> None:
    """The results of tasks are made again, and what was put there is lost with its owner, which an error says."""
    count = 2_000_000
    with cluster(1, 2) as nodes:
        async with af.init(address=nodes[0].tcp):
            _, other = await node_ids()
            pid = await pids(nodes)
            there = {"scheduling_strategy": af.NodeAffinity(other, soft=True)}
            refs = [ones.options(**there).remote(count) for _ in range(3)]
            keeper = Keeper.options(**there).remote()  # type: ignore[attr-defined]
            [put] = await keeper.make(count)
            await af.wait(refs, num_returns=3)
            reading = [asyncio.ensure_future(_read(ref)) for ref in [*refs, put]]
            await asyncio.sleep(0.005)
            os.killpg(pid[other], signal.SIGKILL)
            async with asyncio.timeout(40):
                *made, lost = await asyncio.gather(*reading, return_exceptions=True)
            assert made == [count] * 3
            assert lost == count or isinstance(lost, af.OwnerDiedError | af.ObjectLostError)
    sweep_stale(age_s=0)


async def _read(ref: Any) -> float:
    return float((await ref).sum())


async def test_a_pull_that_does_not_fit_says_so() -> None:
    with cluster(1, 1) as nodes:
        async with af.init(address=nodes[0].tcp):
            _, other = await node_ids()
            refs = [await af.put(np.ones(MIB)) for _ in range(7)]  # 56 of the 64 MiB that each has
            reader = Keeper.options(scheduling_strategy=on(other)).remote()  # type: ignore[attr-defined]
            for ref in refs:
                assert await reader.keep([ref]) == MIB
            del refs, ref
            with pytest.raises(af.ObjectStoreFullError, match="were asked for"):
                await af.put(np.ones(9 * MIB))
