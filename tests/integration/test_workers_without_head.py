"""A worker that cannot reach the head waits for it, and its actor lives on (HN-1, HN-3)."""

from __future__ import annotations

import asyncio

import pytest

import actorflow as af
from actorflow.testing import Cluster
from actorflow.testing.fault_proxy import FaultProxy

pytestmark = pytest.mark.local_only("a proxy stands between one of its own nodes and the head")

OPTIONS = {"num_cpus": 1, "object_store_memory": "64MiB"}


class Kept(af.Actor, max_restarts=-1, checkpoint_every="call", num_cpus=0, resources={"far": 1}):
    """Its worker speaks with the head for the first time when it has a state to store."""

    def __init__(self) -> None:
        self.count = 0

    def __checkpoint__(self) -> int:
        return self.count

    def __restore__(self, count: int) -> None:
        self.count = count

    async def add(self) -> int:
        self.count += 1
        return self.count


async def test_an_actor_whose_worker_cannot_reach_the_head_goes_on_when_it_can() -> None:
    with await asyncio.to_thread(Cluster, 1, **OPTIONS) as cluster:
        host, _, port = cluster.address.rpartition(":")
        async with FaultProxy(host, int(port)) as to_head:
            join = {"resources": {"far": 1.0}, "head_address": f"{host}:{to_head.port}"}
            await asyncio.to_thread(lambda: cluster.add_node(**OPTIONS, **join))
            async with af.init(address=cluster.address, log_to_driver=False):
                actor = Kept.remote()
                await actor
                to_head.refuses = True
                adding = asyncio.create_task(actor.add())
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(adding), 1.0)  # Its state cannot be stored, so it is not answered.
                to_head.refuses = False
                assert await adding == 1, "the same life of it has lived on"
            await asyncio.to_thread(cluster.close)
