"""An argument that turns out to be lost while other calls that take it wait for a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import World
from actorflow.testing.cluster import SimCluster


@af.remote
async def total(array: Any) -> int:
    return int(array.sum())


@af.remote
class Adder:
    async def total(self, array: Any) -> int:
        return int(array.sum())


@pytest.mark.parametrize("by", ["tasks", "an actor"])
def test_calls_that_wait_get_its_error(sim_seed: int, by: str) -> None:
    async def main() -> list[Any]:
        call: Any = total if by == "tasks" else Adder.remote().total  # type: ignore[attr-defined]
        ref = await af.put(np.ones(300_000))
        more = [await af.put(np.ones(300_000)) for _ in range(4)]  # In a store of 8 MiB: the first one goes to disk.
        await asyncio.sleep(1.0)
        assert cluster.spill.files
        cluster.spill.lose_files()
        refs = [call.remote(ref) for _ in range(6)]
        del more
        return await asyncio.gather(*refs, return_exceptions=True)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=1, object_store_memory="8MiB")
        driver = cluster.driver(main, stay=True)
        world.run_until(lambda: driver.ended, 60.0)
        found = driver.result()
        assert [type(one).__mro__ for one in found if not isinstance(one, af.ObjectLostError)] == []
        assert len(found) == 6
        del found
        driver.forget()
        cluster.settle()
        cluster.stop()
