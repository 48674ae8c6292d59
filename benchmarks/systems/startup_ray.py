# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined,misc"
"""Ray's scenes of the startup benchmark: `startup_ray.py SCENE [COUNT]`, as in `startup_actorflow.py`.

The dashboard is left out, which makes Ray start faster and hold less. It has no actors that share a process.
"""

from __future__ import annotations

import os
import sys
import time

import ray

from benchmarks.systems.scene import forget_peak, memory_kb, tell, wait_turn

COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 0


@ray.remote
def nothing() -> None:
    return None


@ray.remote(num_cpus=0)
class Dedicated:
    async def ping(self) -> None:
        return None


def create() -> None:
    first = Dedicated.remote()
    ray.get(first.ping.remote())
    tell(ready=1)
    wait_turn()
    start = time.perf_counter()
    actors = [Dedicated.remote() for _ in range(COUNT)]
    ray.get([actor.ping.remote() for actor in actors])
    tell(seconds=time.perf_counter() - start)
    wait_turn()


def tasks() -> None:
    ray.get(nothing.remote())
    tell(ready=1)
    wait_turn()
    forget_peak()
    before, start = memory_kb("VmRSS"), time.perf_counter()
    refs = [nothing.remote() for _ in range(COUNT)]
    queued_s, queued_kb = time.perf_counter() - start, memory_kb("VmHWM") - before
    results = ray.get(refs)
    seconds = time.perf_counter() - start
    assert results == [None] * COUNT
    tell(seconds=seconds, queued_s=queued_s, queued_kb=queued_kb, peak_kb=memory_kb("VmHWM") - before)


def main() -> None:
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    scene = sys.argv[1]
    if scene == "idle":
        ray.get(nothing.remote())
        tell(at=time.monotonic())
        wait_turn()
    elif scene == "tasks":
        tasks()
    else:
        create()
    ray.shutdown()


if __name__ == "__main__":
    main()
