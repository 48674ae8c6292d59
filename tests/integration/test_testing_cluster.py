"""actorflow.testing.Cluster: real nodes that come and go, and nothing of them stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

import actorflow as af
from actorflow._core.boot.session_dir import sweep_stale
from actorflow.testing import Cluster, InvariantBroken, SimulationMisuse
from actorflow.testing import nodes as nodes_module
from tests.integration import leaks
from tests.integration.programs import Programs

GONE_S = 8.0
"""After the end of their starter all nodes are gone within this time, on a busy machine too."""

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


def test_wrong_use_of_a_node_says_what_is_wrong_and_its_log_outlives_it() -> None:
    with pytest.raises(af.OptionTypeError, match="a whole number of nodes is needed, not str"):
        Cluster("2")  # type: ignore[arg-type]
    with Cluster(3) as cluster:
        _, killed, removed = cluster.nodes
        for node in (killed, removed):
            with (Path(node.path) / "logs" / "node.log").open("a") as log:
                log.write("as good nodes do, it says little")
        cluster.kill(killed)
        cluster.remove(removed)
        for node in (killed, removed):
            assert "it says little" in node.log()
            assert not os.path.exists(node.path)
        for act in (cluster.kill, cluster.remove, cluster.pause, cluster.resume):
            with pytest.raises(SimulationMisuse, match="has been ended already"):
                act(killed)
            with pytest.raises(af.OptionTypeError, match=r"a node of this cluster is needed, as in cluster.nodes\[1\], not str"):
                act("x")  # type: ignore[arg-type]


@af.remote(num_cpus=0)
def shown() -> tuple[str, str | None]:
    return af.get_runtime_context().node_id, os.environ.get("CUDA_VISIBLE_DEVICES")


async def test_nodes_find_their_devices_unless_they_are_told_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster(1) as cluster:
        monkeypatch.setenv("ACTORFLOW_SIMULATED_DEVICES", "GPU:2:A100")
        cluster.add_node(num_gpus=None)
        cluster.add_node(num_gpus=3, labels={"rank": "told"})
        async with af.init(address=cluster.address):
            found = {row["node_id"]: row for row in await af.nodes()}
            assert sorted(row["resources"].get("GPU", 0) for row in found.values()) == [0, 2, 3]
            node_id, devices = await shown.options(num_gpus=2, accelerator_type="A100", label_selector={"rank": "!told"})()
            assert found[node_id]["resources"]["GPU"] == 2
            assert found[node_id]["labels"]["accelerator_type"] == "A100"
            assert sorted((devices or "").split(",")) == ["0", "1"]
            assert (await shown.options(num_gpus=3)())[1] == "0,1,2"
            assert (await shown.options(label_selector={"rank": "told"})())[1] in {None, ""}, "what was not asked for is hidden"
    with pytest.raises(af.OptionError, match=r"actorflow start\(num_gpus=0.5\)"):
        Cluster(1, num_gpus=0.5)
    monkeypatch.setenv("ACTORFLOW_SIMULATED_DEVICES", "GPU")
    with pytest.raises(af.OptionError, match="ACTORFLOW_SIMULATED_DEVICES"):
        Cluster(1)


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
    cluster.head.known[sleeper.pid] = nodes_module.birth_of(sleeper.pid)
    with pytest.raises(InvariantBroken, match="sleep 600"):
        cluster.close()
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not os.path.exists(cluster.head.path)


STARTER = """
    from actorflow.testing import Cluster

    @af.remote
    async def work() -> None:
        await asyncio.sleep(600)

    def main() -> None:
        cluster = Cluster(2)
        removed, killed, paused = (cluster.add_node() for _ in range(3))
        cluster.remove(removed)
        cluster.kill(killed)
        with af.init(address=cluster.address):
            refs = [work.options(scheduling_strategy="spread").remote() for _ in range(3)]
            while sum(len(node.processes()) for node in cluster.nodes) < 9:
                time.sleep(0.05)
            if "paused" in sys.argv:
                cluster.pause(paused)
            if "forked" in sys.argv and os.fork() == 0:
                time.sleep(30)
                os._exit(0)
            print("ready", *(node.path for node in cluster.nodes), flush=True)
            time.sleep(600)
            del refs

    main()
"""


@pytest.mark.parametrize("how", ["running", "paused", "forked"])
def test_tc_2_nodes_end_with_the_process_that_has_started_them(how: str, programs: Programs, own_home: str) -> None:
    """Killed: nobody has told them. Workers, sockets and shared memory go too, and a fork of it that lives on does not keep them."""
    memory = leaks.shared_memory(own_home)
    program = programs.start(STARTER, how, env={"ACTORFLOW_TMPDIR": own_home})
    program.says("ready", 60.0)
    paths = program.out().split()[1:]
    assert len(paths) == 3
    # Three nodes with a zygote and a worker each, and the program.
    assert len(leaks.processes(own_home)) >= 10
    assert leaks.shared_memory(own_home) > memory, "sockets of the workers are there"
    program.signal(signal.SIGKILL)
    program.ends()
    forked = {pid for pid, command in leaks.processes(own_home).items() if "program" in command}
    assert len(forked) == (how == "forked")
    try:
        gone = leaks.until(lambda: set(leaks.processes(own_home)) == forked and not leaks.files(own_home), GONE_S)
        assert gone, leaks.leftovers(own_home)
        assert leaks.shared_memory(own_home) <= memory
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)


def test_tc_2_a_node_that_waits_for_its_head_ends_with_its_starter_too(programs: Programs, own_home: str) -> None:
    """In its second life, which may take an hour to begin, it still watches the process that has started the first one."""
    program = programs.start(
        """
        from actorflow import _nodes
        from actorflow.testing import Cluster

        cluster = Cluster(2)
        node = cluster.nodes[1]
        cluster.kill(cluster.head)
        while [found.path for found in _nodes.find([node.pid])] in ([], [node.path]):
            time.sleep(0.05)
        print("ready", flush=True)
        time.sleep(600)
        """,
        env={"ACTORFLOW_TMPDIR": own_home},
    )
    program.says("ready", 40.0)
    assert leaks.until(lambda: len(leaks.processes(own_home)) == 3), "the program, a node and its zygote"
    program.signal(signal.SIGKILL)
    program.ends()
    assert leaks.until(lambda: not leaks.processes(own_home), GONE_S), leaks.leftovers(own_home)
    sweep_stale([own_home], age_s=0)  # Its first life ended with an error: its log stays for whoever looks for that.


def test_a_node_that_has_begun_again_is_still_one_of_the_cluster(own_home: str) -> None:
    """It stood still for longer than its lease: another node by now, in the same process, and in a new directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORFLOW_TMPDIR", own_home)
        with Cluster(2) as cluster, af.init(address=cluster.address):
            node = cluster.nodes[1]
            cluster.pause(node)
            assert leaks.until(lambda: states().count("alive") == 1, 30.0)
            cluster.resume(node)
            assert leaks.until(lambda: states().count("alive") == 2, 30.0)
            cluster.remove(node)
            assert not node.alive
        assert not leaks.leftovers(own_home)


def states() -> list[str]:
    return [row["state"] for row in af.sync(af.state.list_nodes())]
