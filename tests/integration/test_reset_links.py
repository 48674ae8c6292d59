"""A connection that is reset while both processes live is made again, and nobody notices (SEMANTICS 6)."""

from __future__ import annotations

import asyncio
import socket

import pytest

import actorflow as af
from actorflow.testing import Cluster
from actorflow.testing.fault_proxy import FaultProxy

pytestmark = pytest.mark.local_only("a proxy stands before one of its own nodes")

OPTIONS = {"num_cpus": 2, "object_store_memory": "64MiB"}


@af.remote(max_retries=0, num_cpus=0.5, resources={"far": 0.1})
async def far(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_tasks_that_must_not_run_twice_outlive_resets_of_the_connections_to_their_node() -> None:
    port = free_port()
    async with FaultProxy("127.0.0.1", port) as proxy:
        # Slower than the loopback: the node asks whether the driver is there before that has connected again.
        proxy.shape(delay_s=0.05)
        with await asyncio.to_thread(Cluster, 1, **OPTIONS) as cluster:
            await asyncio.to_thread(lambda: cluster.add_node(**OPTIONS, resources={"far": 1.0}, port=port, advertise_port=proxy.port))
            async with af.init(address=cluster.address, log_to_driver=False):
                # The first ones make the connections, which they need whole.
                for resets in (False, True, True):
                    refs = [far.remote(2.5) for _ in range(4)]
                    await asyncio.sleep(1.5)
                    if resets:
                        proxy.reset()
                    assert await af.get(refs) == ["done"] * 4
            await asyncio.to_thread(cluster.close)
