"""The head hears at once of processes that are gone: of a node, and of a driver on another node than the head's."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import Cluster
from tests.integration.programs import Programs

pytestmark = [pytest.mark.local_only("clusters of its own, whose processes are killed"), pytest.mark.timeout(120)]

NOTICED_S = 1.0


async def within(condition: Any, timeout_s: float) -> float:
    """How long it takes until the condition holds; no longer than the timeout."""
    begun = time.monotonic()
    while not await condition() and time.monotonic() - begun < timeout_s:
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.parametrize("tls", [False, True], ids=["in the open", "TLS"])
async def test_the_head_notices_a_node_whose_sockets_are_reset_within_a_second(tls: bool) -> None:
    with Cluster(1, tls=tls) as cluster:
        spare = cluster.add_node()
        async with af.init(address=cluster.address, log_to_driver=False):
            [gone] = [row["node_id"] for row in await af.state.list_nodes() if f"tcp:{spare.address}/" in row["address"]]

            async def is_lost() -> bool:
                return {row["node_id"]: row["state"] for row in await af.state.list_nodes()}[gone] == "lost"

            cluster.kill(spare)
            assert await within(is_lost, 12.0) < NOTICED_S


@pytest.mark.parametrize("tls", [False, True], ids=["in the open", "TLS"])
async def test_a_driver_on_another_node_that_is_killed_takes_its_actors_along_within_a_second(programs: Programs, tls: bool) -> None:
    with Cluster(1, tls=tls) as cluster:
        other = cluster.add_node(num_cpus=2)
        program = programs.start(
            """
            class Idle(af.Actor):
                def ping(self): ...

            async def main():
                async with af.init(log_to_driver=False):
                    idle = Idle.remote()
                    await idle.ping()
                    print("there", flush=True)
                    await asyncio.sleep(1_000)

            asyncio.run(main())
            """,
            env={"ACTORFLOW_ADDRESS": other.address},
        )
        await asyncio.to_thread(program.says, "there")
        async with af.init(address=cluster.address, log_to_driver=False):

            async def is_over() -> bool:
                return all(row["state"] == "dead" for row in await af.state.list_actors())

            assert not await is_over()
            program.process.kill()
            program.process.wait()
            assert await within(is_over, 12.0) < NOTICED_S
