"""Placement groups on real nodes: three of them on loopback, one that dies, and what lives longer than its program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

import actorflow as af
from actorflow._core.boot.session_dir import sweep_stale
from tests.integration.programs import Programs
from tests.integration.test_cluster import cluster as nodes_of
from tests.integration.test_placement_groups import Place, comes_back, free, node, where

pytestmark = pytest.mark.local_only("nodes of its own on one host, of which one dies")


def test_a_group_ends_with_its_program_and_the_status_shows_those_that_do_not(programs: Programs, own_home: str) -> None:
    env = {"ACTORFLOW_TMPDIR": own_home}

    def actorflow(*arguments: str) -> str:
        command = [sys.executable, "-m", "actorflow.cli", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **env}).stdout

    said = actorflow("start", "--head", "--port", "0", "--num-cpus", "4", "--memory", "1GiB", "--object-store-memory", "64MiB")
    try:
        address = said.split("node at ")[1].split(" ")[0]
        programs.run(
            f"""
            async def main():
                async with af.init(address={address!r}):
                    await af.placement_group([{{"CPU": 1}}], name="mine").ready()
                    await af.placement_group([{{"CPU": 1}}], name="kept", lifetime="detached").ready()
                    af.placement_group([{{"CPU": 64}}], name="big", lifetime="detached")
                    await asyncio.sleep(0.1)
            asyncio.run(main())
            """,
            env=env,
        )
        status = actorflow("status", "--address", address)
        assert "placement groups: 1 created, 1 pending, 1 removed" in status
        assert "kept PACK of 1 created on 1 nodes" in status
        assert "big PACK of 1 pending bundle 0 asks for 64 CPU" in status
        assert "CPU: 3 free of 4" in status
    finally:
        actorflow("stop")


ROOMS = (
    "_placement", "_core.worker.groups", "_core.worker.captured", "_core.head.groups", "_core.node.groups", "_core.protocol.messages.group",
    "_core.policy.bundles", "_core.policy.group_book", "_core.policy.placement_groups", "_core.policy.placement_decisions",
)  # fmt: skip


def test_a_program_without_groups_loads_nothing_of_them(programs: Programs) -> None:
    """All processes of such a cluster are one: what any of them has imported is here."""
    program = programs.run(
        """
        @af.remote
        async def child():
            return 1
        @af.remote
        async def parent():
            return await child()
        class Place(af.Actor):
            async def ping(self):
                return await child()
        async def main():
            assert await parent() + await Place.remote().ping() == 2
            await af.state.list_placement_groups()
            print(*[name for name in sys.argv[1:] if "actorflow." + name in sys.modules], "are loaded")
            async with af.placement_group([{"CPU": 1}]) as group:
                assert await child.options(placement_group=group, capture_child_tasks=True)() == 1
            print(*[name for name in sys.argv[1:] if "actorflow." + name not in sys.modules], "are not")
        af.run(main, mode="in_process", num_cpus=2)
        """,
        *ROOMS,
    )
    assert program.out() == "are loaded\nare not\n"


async def test_three_nodes_and_one_that_dies() -> None:
    with nodes_of(1, 2, 2) as nodes:
        async with af.init(address=nodes[0].tcp):
            async with af.placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD") as group:
                [row] = await af.state.list_placement_groups()
                work = [where.options(placement_group=group, bundle_index=index) for index in range(3)]
                assert await asyncio.gather(*(task() for task in work)) == row["nodes"]
                assert len(set(row["nodes"])) == 3
                anywhere = await asyncio.gather(*(where.options(placement_group=group)(0.5) for _ in range(6)))
                assert set(anywhere) == set(row["nodes"]), "with any bundle allowed all of them are used"
                actors = [Place.options(placement_group=group, num_cpus=1).remote() for _ in range(3)]
                assert sorted([await actor.node() for actor in actors]) == sorted(row["nodes"])
            await comes_back("CPU", 5)
            async with af.placement_group([{"CPU": 2}] * 2, strategy="SPREAD") as group:
                assert await free("CPU") == 1
            await comes_back("CPU", 5)
            elsewhere = {"actorflow.io/node-id": f"!{node()}"}
            group = await af.placement_group([{"CPU": 1}] * 2, strategy="SPREAD", bundle_label_selector=elsewhere).ready()
            [row] = [row for row in await af.state.list_placement_groups() if row["state"] == "created"]
            assert node() not in row["nodes"]
            actor = Place.options(placement_group=group, bundle_index=0, max_restarts=-1, max_task_retries=-1).remote()
            lost = await actor.node()
            assert lost == row["nodes"][0]
            victim = parent_of(parent_of(await actor.pid()))  # Workers are children of the zygote, and that of the node.
            assert victim in [started.pid for started in nodes[1:]]
            os.killpg(victim, signal.SIGKILL)
            task = where.options(placement_group=group, bundle_index=0, max_retries=-1)
            async with asyncio.timeout(30):
                assert await task() == await actor.node() == row["nodes"][1]
            await group.ready()
            await group.remove()
            await comes_back("CPU", 3)
    sweep_stale(age_s=0)


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
