"""The transfer benchmark: objects between nodes on this host, beside a plain copy over the same kind of socket.

    python -m benchmarks.transfers                5 rounds
    python -m benchmarks.transfers --tls          both under TLS 1.3
    python -m benchmarks.transfers --check        compares with the targets

Each round measures, one after the other: the floor, in which one process sends bytes through a TCP connection on loopback and another one
receives them into memory that has been touched; as many plain copies at one time as the broadcast has receivers, each with a sender of its
own; a pull, in which an actor on another node reads an array that a driver has put; and a broadcast, in which one actor on each of several
nodes reads the same array at the same time. The floor and the pull are timed by the receiver, from its first question to its last byte; the
broadcast by the driver, until the last actor has answered. Arrays are new in each round, and those of the round before are freed, so that
the memory they are copied into is as warm as it is in a program that goes on.

All nodes are on this host, so a broadcast has one copy out and one in for each receiver, on the same cores and the same memory. What that
costs the plain copies at one time tell: with fewer than two cores for each receiver it is more than two pulls, whoever makes it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import mmap
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # also as `python benchmarks/transfers.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actorflow as af
from actorflow import _nodes
from benchmarks.floor_tls import make_credentials, server_side
from benchmarks.targets import TRANSFERS

MIB = 1024 * 1024
CHUNK = MIB


def send_raw(port: int, size: int, folder: str) -> None:
    """The other side of the floor. `folder`: with its certificate; empty: no TLS."""
    data = memoryview(np.ones(size, dtype=np.uint8))
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = server_side(Path(folder)).wrap_socket(plain, server_side=True) if folder else plain
        while sock.recv(1):
            for start in range(0, size, CHUNK):
                sock.sendall(data[start : start + CHUNK])


class Floor:
    """Two processes and one TCP connection."""

    def __init__(self, size: int, *, tls: bool) -> None:
        self.size = size
        self.memory = memoryview(mmap.mmap(-1, size))
        self.memory[:] = bytes(size)
        with tempfile.TemporaryDirectory(prefix="floor-") as folder, socket.create_server(("127.0.0.1", 0)) as listener:
            context = make_credentials(Path(folder)) if tls else None
            arguments = (listener.getsockname()[1], size, folder if tls else "")
            self.process = multiprocessing.get_context("spawn").Process(target=send_raw, args=arguments, daemon=True)
            self.process.start()
            self.sock, _ = listener.accept()
            if context is not None:
                self.sock = context.wrap_socket(self.sock)

    def copy(self) -> float:
        """Seconds for all of it."""
        begun = time.perf_counter()
        self.sock.sendall(b"x")
        at = 0
        while at < self.size:
            at += self.sock.recv_into(self.memory[at : at + CHUNK])
        return time.perf_counter() - begun

    def close(self) -> None:
        self.sock.close()
        self.process.join()


@af.remote(num_cpus=0)
class Reader:
    async def read(self, refs: list[Any]) -> float:
        begun = time.perf_counter()
        array = await refs[0]
        seconds = time.perf_counter() - begun
        assert array[0] == array[-1] == 1
        return seconds


async def readers_elsewhere() -> list[Any]:
    """A reader on each node but this one, which has read something already."""
    mine = af.get_runtime_context().node_id
    ids = [row["node_id"] for row in await af.state.list_nodes() if row["node_id"] != mine]
    readers = [Reader.options(scheduling_strategy=af.NodeAffinity(node)).remote() for node in ids]  # type: ignore[attr-defined]
    small = await af.put(np.ones(200_000, dtype=np.uint8))
    await asyncio.gather(*(reader.read([small]) for reader in readers))
    return readers


async def pull_and_broadcast(readers: list[Any], array: Any) -> dict[str, float]:
    """Seconds until one of them has read the array, and then until all have read another."""
    ref = await af.put(array)
    row = {"pull": await readers[0].read([ref])}
    del ref
    await settled()
    ref = await af.put(array)
    begun = time.perf_counter()
    await asyncio.gather(*(reader.read([ref]) for reader in readers))
    row["broadcast"] = time.perf_counter() - begun
    del ref
    await settled()
    return row


async def measure(nodes: list[Any], size: int, rounds: int, *, tls: bool) -> list[dict[str, float]]:
    """Seconds of each round."""
    floors = [Floor(size, tls=tls) for _ in nodes[1:]]
    threads = ThreadPoolExecutor(len(floors))
    rows: list[dict[str, float]] = []
    async with af.init(address=nodes[0].tcp):
        readers = await readers_elsewhere()
        array = np.ones(size, dtype=np.uint8)
        for number in range(rounds + 1):
            row = {"floor": floors[0].copy()}
            begun = time.perf_counter()
            list(threads.map(Floor.copy, floors))
            row["floors at once"] = time.perf_counter() - begun
            row |= await pull_and_broadcast(readers, array)
            if number:  # The first round warms the memory up.
                rows.append(row)
                print("  ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in row.items()), flush=True)
    for floor in floors:
        floor.close()
    threads.shutdown()
    return rows


async def settled() -> None:
    """What was dropped is freed everywhere."""
    gc.collect()
    await asyncio.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.transfers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--nodes", type=int, default=4, help="receivers of the broadcast")
    parser.add_argument("--tls", action="store_true", help="between the nodes, and for the floor")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the targets")
    options = parser.parse_args()
    size = options.mib * MIB
    with tempfile.TemporaryDirectory(prefix="af-transfers-") as directory:
        os.environ["ACTORFLOW_TMPDIR"] = directory
        store = f"{options.mib * 3}MiB"
        try:
            nodes = [_nodes.start(port=0, num_cpus=1, tls=options.tls, object_store_memory=store)]
            nodes += [_nodes.start(address=nodes[0].tcp, num_cpus=1, object_store_memory=store) for _ in range(options.nodes)]
            rows = asyncio.run(measure(nodes, size, options.rounds, tls=options.tls))
        finally:
            _nodes.stop()
    figures = {
        "pull_of_floor": statistics.median(row["floor"] / row["pull"] for row in rows),
        "broadcast_over_pull": statistics.median(row["broadcast"] / row["pull"] for row in rows),
        "broadcast_over_floors": statistics.median(row["broadcast"] / row["floors at once"] for row in rows),
    }
    rate = statistics.median(size / 1e9 / row["pull"] for row in rows)
    how = "under TLS" if options.tls else "without TLS"
    print(f"\n{options.mib} MiB {how}, medians of {options.rounds} rounds on {os.cpu_count()} cores: a pull {rate:.2f} GB/s, "
          f"{figures['pull_of_floor']:.0%} of the floor; a broadcast to {options.nodes} nodes takes "
          f"{figures['broadcast_over_pull']:.2f} times as long as a pull, and {figures['broadcast_over_floors']:.2f} times as long as "
          f"{options.nodes} plain copies at one time")  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps({"rounds": rows, "figures": figures}, indent=1))
    missed = []
    if options.check:
        for target in TRANSFERS:
            value = figures[target.measure]
            met = value <= target.bound if target.at_most else value >= target.bound
            bound = f"{'at most' if target.at_most else 'at least'} {target.bound:g}"
            print(f"{target.measure} {value:.2f}, {bound}: {'met' if met else 'NOT MET'}")
            if not met:
                missed.append(target.measure)
        if (os.cpu_count() or 1) <= options.nodes and "broadcast_over_pull" in missed:
            # Every receiver keeps a core busy, and so does the sender: between hosts it is `benchmarks.broadcast` that tells.
            print(f"a broadcast to {options.nodes} nodes on one machine needs {options.nodes + 1} cores to be measured")
            missed.remove("broadcast_over_pull")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
