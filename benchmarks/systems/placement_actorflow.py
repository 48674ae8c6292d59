"""actorflow's scene of the placement benchmark: `placement_actorflow.py`; answers each request with what it took."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import actorflow as af
from benchmarks.systems.scene import tell


async def sequential(bundles: int, seconds: float) -> float:
    """Groups a second, one created, ready and removed after the other."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        group = af.placement_group([{"CPU": 0.001}] * bundles)
        await group.ready()
        await group.remove()
        count += 1
    return count / (time.perf_counter() - start)


async def concurrent(bundles: int, seconds: float, together: int) -> float:
    """Groups a second, so many created, ready and removed at one time."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        groups = [af.placement_group([{"CPU": 0.001}] * bundles) for _ in range(together)]
        await asyncio.gather(*(group.ready() for group in groups))
        await asyncio.gather(*(group.remove() for group in groups))
        count += together
    return count / (time.perf_counter() - start)


async def main() -> None:
    await sequential(1, 0.1)  # whatever the first one loads is not the price of each
    tell(ready=1)
    while line := await asyncio.to_thread(sys.stdin.readline):
        ask = json.loads(line)
        if ask["together"] == 1:
            tell(rate=await sequential(ask["bundles"], ask["seconds"]))
        else:
            tell(rate=await concurrent(ask["bundles"], ask["seconds"], ask["together"]))


if __name__ == "__main__":
    af.run(main, num_cpus=os.cpu_count())
