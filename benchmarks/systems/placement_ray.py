# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined,misc"
"""Ray's scene of the placement benchmark, as in `placement_actorflow.py`. It waits as Ray's own `ray_perf` does: `group.wait()`."""

from __future__ import annotations

import json
import os
import sys
import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from benchmarks.systems.scene import tell


def sequential(bundles: int, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        group = placement_group([{"CPU": 0.001}] * bundles)
        assert group.wait(timeout_seconds=30)
        remove_placement_group(group)
        count += 1
    return count / (time.perf_counter() - start)


def concurrent(bundles: int, seconds: float, together: int) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        groups = [placement_group([{"CPU": 0.001}] * bundles) for _ in range(together)]
        for group in groups:
            assert group.wait(timeout_seconds=30)
        for group in groups:
            remove_placement_group(group)
        count += together
    return count / (time.perf_counter() - start)


def main() -> None:
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    sequential(1, 0.1)
    tell(ready=1)
    while line := sys.stdin.readline():
        ask = json.loads(line)
        if ask["together"] == 1:
            tell(rate=sequential(ask["bundles"], ask["seconds"]))
        else:
            tell(rate=concurrent(ask["bundles"], ask["seconds"], ask["together"]))
    ray.shutdown()


if __name__ == "__main__":
    main()
