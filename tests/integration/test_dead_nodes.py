"""A node whose process is dead is given up at once: nobody listens at its address any more (LP-2)."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

import actorflow as af
from actorflow._core.policy.liveness import LEASE_S
from actorflow.testing import Cluster

pytestmark = pytest.mark.local_only("it kills nodes of its own")


class Placed(af.Actor, max_restarts=-1, max_task_retries=-1, num_cpus=0, scheduling_strategy="spread"):
    async def pid(self) -> int:
        return os.getpid()


async def test_the_actors_of_a_node_that_was_killed_are_back_long_before_its_silence_would_tell() -> None:
    with Cluster(3, num_cpus=1) as cluster:
        async with af.init(address=cluster.address, log_to_driver=False):
            actors = [Placed.remote() for _ in range(6)]
            pids = [await actor.pid() for actor in actors]
            victim = cluster.nodes[-1]
            on_it = set(victim.processes())
            hit = [actor for actor, pid in zip(actors, pids, strict=True) if pid in on_it]
            assert hit
            killed_at = time.monotonic()
            await asyncio.to_thread(cluster.kill, victim)
            fresh = await asyncio.gather(*(actor.pid() for actor in hit))
            assert not on_it & set(fresh)
            assert time.monotonic() - killed_at < LEASE_S - 2


class Member(af.Actor, max_task_retries=-1, num_cpus=0, resources={"there": 1}):
    async def pid(self) -> int:
        return os.getpid()


async def test_sv_2_a_node_that_dies_is_one_failure_of_all_that_were_there() -> None:
    with Cluster(1, num_cpus=1) as cluster:
        victim = cluster.add_node(num_cpus=1, resources={"there": 4})
        async with af.init(address=cluster.address, log_to_driver=False):
            actors = [Member.remote() for _ in range(4)]
            pids = await asyncio.gather(*(actor.pid() for actor in actors))
            async with af.supervise(*actors, max_restarts=1, within=60):
                await asyncio.to_thread(cluster.kill, victim)
                cluster.add_node(num_cpus=1, resources={"there": 4})
                fresh = await asyncio.gather(*(actor.pid() for actor in actors))
            assert not set(pids) & set(fresh)
