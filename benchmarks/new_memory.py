"""Putting into memory that this cluster has not used yet, beside a bare copy into new shared memory and beside memcpy.

    python -m benchmarks.new_memory                 7 rounds
    python -m benchmarks.new_memory --check         compares with the acceptance list

Each sample is a new program with a cluster of its own; its first result comes before anything is measured, so that imports are not.

at once      one large array, as soon as the cluster is there; the floor is a copy of it into a new memory file
after 2 s    one array that fits into what a driver has made resident by then (worker/store.py, WARM_BYTES_MAX); the floor is a copy into
             memory that has been written before
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

if not __package__:  # also as `python benchmarks/new_memory.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actorflow as af

MIB = 1024 * 1024
SHARE_MIN = 0.8
"""Of the floor's speed, says the acceptance list."""
WARM_AFTER_S = 2.0


def copy_into_new_memory(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> float:
    """Seconds of a bare copy into pages of a memory file that nobody has touched."""
    fd = os.memfd_create("floor")
    os.ftruncate(fd, len(data))
    memory = mmap.mmap(fd, len(data))
    into = np.frombuffer(memory, dtype=np.uint8)
    begun = time.perf_counter()
    into[:] = data
    took = time.perf_counter() - begun
    del into
    memory.close()
    os.close(fd)
    return took


async def after_2_s(size: int, floor_first: bool) -> dict[str, float]:
    """GB/s of one put and of one copy, each after the program has slept: a core that wakes up is slow for both."""
    data = np.ones(size, dtype=np.uint8)
    into = np.zeros_like(data)
    into[:] = data
    await af.put(b"")
    found: dict[str, float] = {}

    async def one_put() -> None:
        await asyncio.sleep(WARM_AFTER_S)
        begun = time.perf_counter()
        await af.put(data)
        found["put"] = size / 1e9 / (time.perf_counter() - begun)

    async def one_copy() -> None:
        await asyncio.sleep(WARM_AFTER_S)
        begun = time.perf_counter()
        into[:] = data
        found["floor"] = size / 1e9 / (time.perf_counter() - begun)

    for step in (one_copy, one_put) if floor_first else (one_put, one_copy):
        await step()
    return found


async def at_once(size: int, floor_first: bool) -> dict[str, float]:
    """GB/s of one put and of one bare copy, both into new memory."""
    data = np.ones(size, dtype=np.uint8)
    await af.put(b"")
    floor_s = copy_into_new_memory(data) if floor_first else 0.0
    begun = time.perf_counter()
    await af.put(data)
    put_s = time.perf_counter() - begun
    return {"put": size / 1e9 / put_s, "floor": size / 1e9 / (floor_s or copy_into_new_memory(data))}


SAMPLES = {"at once": at_once, "after 2 s": after_2_s}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.new_memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large-mib", type=int, default=512)
    parser.add_argument("--warm-mib", type=int, default=48)
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the acceptance list")
    parser.add_argument("--sample", nargs=2, metavar=("WHAT", "FLOOR_FIRST"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = {"at once": options.large_mib * MIB, "after 2 s": options.warm_mib * MIB}
    if options.sample:
        what, floor_first = options.sample
        print(json.dumps(af.run(SAMPLES[what](sizes[what], floor_first == "yes"))))
        return 0
    rows: dict[str, list[dict[str, float]]] = {what: [] for what in sizes}
    for number in range(options.rounds):
        for what in sizes:
            command = [sys.executable, "-m", "benchmarks.new_memory", "--sample", what, ("yes", "no")[number % 2]]
            command += ["--large-mib", str(options.large_mib), "--warm-mib", str(options.warm_mib)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[what].append(row := json.loads(done.stdout.splitlines()[-1]))
            print(f"{what}: put {row['put']:.2f} GB/s, floor {row['floor']:.2f} GB/s", flush=True)
    print()
    missed = 0
    for what, found in rows.items():
        share = statistics.median(row["put"] / row["floor"] for row in found)
        verdict = "" if not options.check else ": met" if share >= SHARE_MIN else ": NOT MET"
        missed += share < SHARE_MIN
        print(f"{what}, {sizes[what] // MIB} MiB: {share:.0%} of the floor, median of {options.rounds} rounds{verdict}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
