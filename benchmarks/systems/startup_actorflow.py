"""actorflow's scenes of the startup benchmark: `startup_actorflow.py SCENE [COUNT]`.

idle            the first result; then nothing is left to do
dedicated COUNT that many actors with a process each, until all are alive
shared COUNT    that many actors that share worker processes
tasks COUNT     that many no-op tasks queued at once, then all their results
"""

from __future__ import annotations

import os
import sys
import time

import actorflow as af
from benchmarks.systems.scene import forget_peak, memory_kb, tell, wait_turn

COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 0


@af.remote
def nothing() -> None:
    return None


class Dedicated(af.Actor):
    async def ping(self) -> None:
        return None


class Shared(af.Actor, process="shared"):
    async def ping(self) -> None:
        return None


async def create(actor_class: type[Dedicated] | type[Shared]) -> None:
    await actor_class.remote()  # whatever is started for the first one of its kind is not the price of each
    tell(ready=1)
    wait_turn()
    start = time.perf_counter()
    actors = [actor_class.remote() for _ in range(COUNT)]
    for actor in actors:
        await actor
    tell(seconds=time.perf_counter() - start)
    wait_turn()


async def tasks() -> None:
    await nothing.remote()
    tell(ready=1)
    wait_turn()
    forget_peak()
    before, start = memory_kb("VmRSS"), time.perf_counter()
    refs = [nothing.remote() for _ in range(COUNT)]
    queued_s, queued_kb = time.perf_counter() - start, memory_kb("VmHWM") - before
    results = await af.get(refs)
    seconds = time.perf_counter() - start
    assert results == [None] * COUNT
    tell(seconds=seconds, queued_s=queued_s, queued_kb=queued_kb, peak_kb=memory_kb("VmHWM") - before)


async def main() -> None:
    scene = sys.argv[1]
    if scene == "idle":
        await nothing.remote()
        tell(at=time.monotonic())
        wait_turn()
    elif scene == "tasks":
        await tasks()
    else:
        await create(Dedicated if scene == "dedicated" else Shared)


if __name__ == "__main__":
    af.run(main, num_cpus=os.cpu_count())
