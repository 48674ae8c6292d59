"""The spilling benchmark: a data set of three times the store goes to disk and comes back, beside the disk's own sequential speed.

    python -m benchmarks.spilling                 5 rounds
    python -m benchmarks.spilling --check         compares with the acceptance list

Each round measures, one after the other and on the same file system: the floor, which writes the same bytes to as many files and reads
them back with one thread; and actorflow, which puts arrays and gets them back. Before each read the files are dropped from the page
cache, so that it is the disk that is measured. Writes go to the page cache for both, and are synced outside of the measured time.

What does not fit into the store has to be written; the last third is in memory at the end of the puts. So the rate of the puts is that of
all bytes, and the floor of a put is a copy and, for two thirds of the bytes, a write.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

if not __package__:  # also as `python benchmarks/spilling.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actorflow as af

MIB = 1024 * 1024
CHUNK = 16 * MIB
READ_SHARE_MIN = 0.7
"""Of the disk's own speed, says the acceptance list."""


def drop_from_page_cache(paths: list[str]) -> None:
    """Have the next read of these come from the disk."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def floor(directory: str, count: int, size: int) -> tuple[float, float]:
    """GB/s of writing and of reading, into memory that has been touched."""
    data = np.ones(size, dtype=np.uint8)
    paths = [f"{directory}/{number}" for number in range(count)]
    begun = time.perf_counter()
    for path in paths:
        with open(path, "wb", buffering=0) as file:
            view = memoryview(data)
            for start in range(0, size, CHUNK):
                file.write(view[start : start + CHUNK])
    wrote = count * size / 1e9 / (time.perf_counter() - begun)
    drop_from_page_cache(paths)
    begun = time.perf_counter()
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            view, at = memoryview(data), 0
            while at < size:
                at += file.readinto(view[at : at + CHUNK])
    read = count * size / 1e9 / (time.perf_counter() - begun)
    for path in paths:
        os.unlink(path)
    return wrote, read


async def ours(directory: str, count: int, size: int) -> tuple[float, float]:
    """GB/s of putting all of it, and of getting back what went to disk."""
    data = np.ones(size, dtype=np.uint8)
    begun = time.perf_counter()
    refs = []
    for number in range(count):
        data[0] = number % 256
        refs.append(await af.put(data))
    put = count * size / 1e9 / (time.perf_counter() - begun)
    await asyncio.sleep(2)  # What is on its way to disk arrives there.
    files = glob.glob(f"{directory}/actorflow-*/*/spill/*")
    drop_from_page_cache(files)
    begun = time.perf_counter()
    for number in range(len(files)):
        array = await refs[number]  # Those that are there longest have left.
        assert array[0] == number % 256
        del array
    got = len(files) * size / 1e9 / (time.perf_counter() - begun)
    return put, got


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.spilling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store-mib", type=int, default=512)
    parser.add_argument("--object-mib", type=int, default=32)
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the acceptance list")
    options = parser.parse_args()
    size = options.object_mib * MIB
    count = 3 * options.store_mib * MIB // size
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="af-spill-") as directory:
        os.environ["ACTORFLOW_TMPDIR"] = directory
        for _ in range(options.rounds):
            wrote, read = floor(directory, count, size)
            put, got = af.run(ours(directory, count, size), num_cpus=2, object_store_memory=options.store_mib * MIB)
            rows.append({"floor write": wrote, "put": put, "floor read": read, "get": got})
            print("  ".join(f"{name} {value:.2f} GB/s" for name, value in rows[-1].items()), flush=True)
    pairs = {"put": "floor write", "get": "floor read"}
    ratio = {ours: statistics.median(row[ours] / row[floors] for row in rows) for ours, floors in pairs.items()}
    print(f"\n{count} arrays of {options.object_mib} MiB through a store of {options.store_mib} MiB; medians of {options.rounds} rounds")
    print(f"put: {ratio['put']:.2f} x the disk's writing; get: {ratio['get']:.2f} x the disk's reading")
    if options.json:
        Path(options.json).write_text(json.dumps({"rounds": rows, "ratios": ratio}, indent=1))
    if options.check:
        met = ratio["get"] >= READ_SHARE_MIN
        print(f"comes back at {READ_SHARE_MIN:.0%} of the disk's own speed: {'met' if met else 'NOT MET'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
