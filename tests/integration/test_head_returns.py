"""The head's process is killed, again and again: calls go on, and what was acknowledged is there when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

import actorflow as af
from actorflow import _nodes
from actorflow._core.boot.session_dir import sweep_stale
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


async def test_a_first_node_that_is_started_anew_knows_what_the_one_before_knew(tmp_path: Path) -> None:
    options = {"num_cpus": 1.0, "memory": "1GiB", "object_store_memory": "64MiB"}
    places = {"credentials": str(tmp_path / "credentials"), "journal": str(tmp_path / "journal")}
    first = _nodes.start(port=0, **places, **options)
    port = int(first.tcp.rpartition(":")[2])
    try:
        second = _nodes.start(address=first.tcp, resources={"disk": 1}, **options)
        async with af.init(address=second.tcp, namespace="shop"):
            counter = await Counter.options(name="counter", lifetime="detached", resources={"disk": 1}).remote()
            assert await counter.add() == 1
            os.kill(first.pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, first.pid, 0)
            assert await counter.add() == 2, "nobody stands between caller and actor"
            first = _nodes.start(port=port, **places, **options)
            async with asyncio.timeout(20):
                again = await af.get_actor("counter")
            assert await again.add() == 3, "it has lived on"
            states = [row["state"] for row in await af.state.list_nodes()]
            assert states.count("alive") in (2, 3), "if nobody saw the old one die, it may yet come back"
        async with af.init(address=first.tcp, namespace="shop"):
            assert await (await af.get_actor("counter")).add() == 4
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)


def test_two_heads_do_not_share_a_journal(tmp_path: Path) -> None:
    options = {"num_cpus": 1.0, "memory": "1GiB", "object_store_memory": "64MiB"}
    first = _nodes.start(port=0, journal=str(tmp_path / "journal"), **options)
    try:
        with pytest.raises(af.ClusterStartError, match="another process of this machine uses it: end that one, or choose"):
            _nodes.start(port=0, journal=str(tmp_path / "journal"), **options)
        with pytest.raises(af.OptionError, match="a node that joins has no head"):
            _nodes.start(address=first.tcp, journal=str(tmp_path / "journal"), **options)
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)
