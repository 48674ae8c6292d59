"""Large values of a driver from outside: a host gives and gets them, the cluster is on another one.

    python -m benchmarks.outside                   arrays of 256 MiB, 5 rounds
    python -m benchmarks.outside --mib 1024

Two hosts (network namespaces) with a cable between them that carries what the machine can. Each round measures, in this order: a plain copy
to the cluster's host, over TCP without TLS, into memory that has been touched; a put; a get of what was put; a result that a task of the
cluster has made; and how long small calls take beside a put, which travel while it does. Between hosts there is TLS.

It needs root, iproute2 and nftables, and says so and ends well where they are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # also as `python benchmarks/outside.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actorflow as af
from actorflow.testing.lan import Lan, LanHost, problem
from benchmarks.broadcast import PORT, ROOT, copies, receive
from benchmarks.transfers import MIB


@af.remote
def make(count: int) -> Any:
    return np.ones(count)


@af.remote
def nothing() -> None:
    return None


async def calls_beside(work: asyncio.Task[Any]) -> list[float]:
    """Seconds of each small call that was made, one after the other, while `work` went on."""
    found = []
    while not work.done():
        began = time.perf_counter()
        await nothing()
        found.append(time.perf_counter() - began)
    await work
    return found


async def drive(address: str, size: int, rounds: int) -> None:
    """The driver: a line of JSON for each round."""
    array = np.ones(size // 8)
    async with af.init(address=f"{address}:{PORT}"):
        await nothing()
        for _ in range(rounds):
            row = {"copy": await asyncio.to_thread(copies, [address], memoryview(array).cast("B"))}
            began = time.perf_counter()
            ref = await af.put(array)
            row["put"] = time.perf_counter() - began
            began = time.perf_counter()
            value = await ref
            row["get"] = time.perf_counter() - began
            assert value[-1] == 1
            del value, ref
            began = time.perf_counter()
            value = await make(size // 8)
            row["result"] = time.perf_counter() - began
            del value
            beside = await calls_beside(asyncio.ensure_future(af.put(array)))
            row["call beside, median"], row["call beside, longest"] = statistics.median(beside), max(beside)
            print(json.dumps(row), flush=True)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.outside", *arguments]


def measure(size: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of each round."""

    def env(host: LanHost, **more: str) -> dict[str, str]:
        home = Path(directory) / host.address
        home.mkdir(mode=0o700, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ACTORFLOW_")}
        return {**kept, "ACTORFLOW_TMPDIR": str(home), "PYTHONPATH": str(ROOT), **more}

    def actorflow(*arguments: str) -> str:
        return inside.run([sys.executable, "-m", "actorflow.cli", *arguments], env=env(inside))

    rows = []
    with tempfile.TemporaryDirectory(prefix="afb-") as directory, Lan(2) as lan:
        inside, outside = lan.hosts
        sizes = ["--num-cpus", "1", "--memory", "1GiB", "--object-store-memory", f"{size // MIB * 3}MiB"]
        try:
            actorflow("start", "--head", "--host", inside.address, *sizes)
            token = actorflow("token", "client").strip()
            listening = inside.start(command("--receive", inside.address), cwd=ROOT, env=env(inside), stdout=subprocess.PIPE)
            assert listening.stdout is not None
            assert listening.stdout.readline() == b"ready\n"
            words = ["--drive", inside.address, "--mib", str(size // MIB), "--rounds", str(rounds)]
            options: dict[str, Any] = {"cwd": ROOT, "env": env(outside, ACTORFLOW_TOKEN=token), "stdout": subprocess.PIPE, "text": True}
            with outside.start(command(*words), **options) as process:
                for line in process.stdout or ():
                    if line.startswith("{"):
                        rows.append(json.loads(line))
                        print("  ".join(f"{name} {seconds:.4g} s" for name, seconds in rows[-1].items()), flush=True)
            if process.returncode:
                raise SystemExit(f"the driver ended with {process.returncode}: what it said is above")
        finally:
            actorflow("stop")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.outside", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    for own in ("--receive", "--drive"):
        parser.add_argument(own, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.mib * MIB
    if options.receive:
        receive(options.receive)
    elif options.drive:
        asyncio.run(drive(options.drive, size, options.rounds))
    elif why := problem():
        print(f"values of a driver from outside: not measured, {why}")
    else:
        rows = measure(size, options.rounds)
        rates = {name: statistics.median(size / 1e6 / row[name] for row in rows) for name in ("copy", "put", "get", "result")}
        longest = max(row["call beside, longest"] for row in rows)
        print(f"\n{options.mib} MiB, medians of {len(rows)} rounds, MB/s: " + ", ".join(f"{n} {r:.0f}" for n, r in rates.items())
              + f"; a small call beside a put {statistics.median(row['call beside, median'] for row in rows) * 1e3:.2f} ms, "
              f"the longest {longest * 1e3:.0f} ms")  # fmt: skip
        if options.json:
            Path(options.json).write_text(json.dumps({"rounds": rows, "figures": rates}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
