"""actorflow.testing.Cluster: real nodes that come and go, and nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

import actorflow as af
from actorflow.testing import Cluster, InvariantBroken, SimulationMisuse
from actorflow.testing import nodes as nodes_module

pytestmark = pytest.mark.local_only("actorflow.testing.Cluster, on one host")


@af.remote
async def pid_of(seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


async def test_nodes_come_and_go() -> None:
    with Cluster(2) as cluster:
        zone = cluster.add_node(num_cpus=2, labels={"zone": "b"}, resources={"disk": 1})
        assert [node.alive for node in cluster.nodes] == [True] * 3
        async with af.init(address=cluster.address):
            there = pid_of.options(label_selector={"zone": "b"}, resources={"disk": 0.5})
            worker = await there()
            assert worker in zone.processes()
            cluster.remove(zone)
            assert not zone.alive
            with pytest.raises(af.TaskUnschedulableError, match="zone"):
                await there()
            refs = [pid_of.options(max_retries=5).remote(0.3) for _ in range(6)]
            await af.wait(refs, num_returns=1)
            cluster.kill(cluster.nodes[1])
            assert len(await af.get(refs)) == 6
        assert len(cluster.nodes) == 1
    assert not any(os.path.exists(node.path) for node in cluster._all)


async def test_a_node_that_stands_still_goes_on() -> None:
    with Cluster(2) as cluster:
        async with af.init(address=cluster.address):
            refs = [pid_of.remote(0.2) for _ in range(4)]
            cluster.pause(cluster.nodes[1])
            await asyncio.sleep(0.5)
            cluster.resume(cluster.nodes[1])
            assert len(await af.get(refs)) == 4


def test_other_clusters_are_left_alone() -> None:
    with Cluster() as one, Cluster() as other:
        one.close()
        assert other.head.alive
        assert not one.head.alive


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(SimulationMisuse, match="0 nodes"):
        Cluster(0)
    with Cluster() as cluster:
        head = cluster.head
        cluster.kill(head)
        with pytest.raises(SimulationMisuse, match="has been ended already"):
            cluster.kill(head)


def test_tc_1_what_a_node_leaves_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "GONE_S", 0.3)
    cluster = Cluster()
    sleeper = subprocess.Popen(["sleep", "600"])
    cluster.head.known[sleeper.pid] = nodes_module._birth(sleeper.pid)
    with pytest.raises(InvariantBroken, match="sleep 600"):
        cluster.close()
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not os.path.exists(cluster.head.path)
