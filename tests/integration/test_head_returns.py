"""The head's process is killed, again and again: calls go on, and what was acknowledged is there when it is back."""

from __future__ import annotations

import asyncio
import time

import pytest

import actorflow as af
from actorflow.testing import Cluster

pytestmark = pytest.mark.local_only("ends the head of a cluster of its own")


class Counter(af.Actor, max_restarts=-1, num_cpus=0):
    def __init__(self) -> None:
        self.value = 0

    async def add(self) -> int:
        self.value += 1
        return self.value


@af.remote(num_cpus=0.1)
async def double(number: int) -> int:
    return 2 * number


async def answers(cluster: Cluster) -> float:
    """Seconds until the head answers."""
    begun = time.monotonic()
    async with asyncio.timeout(20):
        await af.state.list_actors()
    return time.monotonic() - begun


async def test_a_head_that_is_killed_again_and_again_is_noticed_by_nobody() -> None:
    with Cluster(2, num_cpus=2) as cluster:
        async with af.init(address=cluster.address):
            named = await Counter.options(name="named", lifetime="detached").remote()
            assert await named.add() == 1
            group = af.placement_group([{"CPU": 1}] * 2, strategy="SPREAD", name="group")
            await group.ready()
            gaps: list[float] = []
            over = asyncio.Event()

            async def call() -> int:
                last, calls = time.monotonic(), 0
                while not over.is_set():
                    calls += 1
                    await named.add()
                    now = time.monotonic()
                    gaps.append(now - last)
                    last = now
                    await asyncio.sleep(0.001)
                return calls

            calling = asyncio.create_task(call())
            back = []
            for number in range(5):
                before = cluster.head_pid()
                cluster.kill_head()
                back.append(await answers(cluster))
                assert cluster.head_pid() != before
                found = await af.get_actor("named")
                assert await double(number) == 2 * number
                assert [row["state"] for row in await af.state.list_placement_groups()] == ["created"]
                assert len([row for row in await af.state.list_nodes() if row["state"] == "alive"]) == 2
                assert [row["state"] for row in await af.state.list_jobs()] == ["running"]
                extra = await Counter.options(name=f"extra-{number}").remote()
                assert await extra.add() == 1
                await af.kill(extra)
            over.set()
            calls = await calling
            assert await found.add() == calls + 2, "not a call was lost or run twice"
            print(f"largest gap {max(gaps):.3f} s, the head answered after {max(back):.2f} s at most")
            assert max(back) < 10
            await group.remove()
            await af.kill(named)
