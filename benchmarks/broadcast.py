"""The broadcast benchmark: one object to several hosts whose cables have a fixed speed, beside one pull and beside plain copies.

    python -m benchmarks.broadcast                     4 receivers, 1 Gbit/s, 256 MiB, 3 rounds
    python -m benchmarks.broadcast --mbit 500 --check  compares with the target

transfers.py has all nodes on loopback, where a copy costs nothing but the processors, which all nodes share; so it says what the machine
can do, and not which way the bytes go. Here each node is on a host of its own (a network namespace), and each cable carries so much in
each direction. Each round measures, one after the other: a plain copy from the first host to the second, over TCP without TLS; plain
copies to all others at one time, which is what a broadcast would be if every node asked the first one; a pull, in which an actor on
another host reads an array that the driver on the first host has put; and a broadcast, in which one actor on each of them does. Between
hosts there is TLS.

It needs root, iproute2 and nftables, and says so and ends well where they are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # also as `python benchmarks/broadcast.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import actorflow as af
from actorflow.testing.lan import Lan, LanHost, problem
from benchmarks.targets import TRANSFERS
from benchmarks.transfers import MIB, pull_and_broadcast, readers_elsewhere

ROOT = Path(__file__).resolve().parent.parent
PORT = 6380
PLAIN_PORT = 4700


# -- plain copies


def receive(address: str) -> None:
    """Be a receiver of plain copies: on each connection read as many bytes as its first line says, then answer."""
    memory = memoryview(bytearray(MIB))
    with socket.create_server((address, PLAIN_PORT)) as listener:
        print("ready", flush=True)
        while True:
            sock, _ = listener.accept()
            with sock:
                left = int.from_bytes(sock.recv(8), "big")
                while left:
                    left -= sock.recv_into(memory)
                sock.sendall(b"!")


def send(address: str, data: memoryview) -> None:
    """One plain copy; returns when the receiver has all of it."""
    with socket.create_connection((address, PLAIN_PORT)) as sock:
        sock.sendall(len(data).to_bytes(8, "big"))
        sock.sendall(data)
        assert sock.recv(1) == b"!"


def copies(addresses: list[str], data: memoryview) -> float:
    """Seconds for plain copies to all of these at one time."""
    threads = [threading.Thread(target=send, args=(address, data)) for address in addresses]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


# -- the driver, on the first host


async def drive(address: str, others: list[str], size: int, rounds: int) -> None:
    """Measure, and say each round on a line of JSON."""
    array = np.ones(size, dtype=np.uint8)
    async with af.init(address=address):
        readers = await readers_elsewhere()
        for _ in range(rounds):
            row = {"copy": await asyncio.to_thread(copies, others[:1], array.data)}
            row["copies at once"] = await asyncio.to_thread(copies, others, array.data)
            row |= await pull_and_broadcast(readers, array)
            print(json.dumps(row), flush=True)


# -- the hosts


class Hosts:
    """A node on each host, as `actorflow start` makes them, with directories of their own."""

    def __init__(self, lan: Lan, directory: Path, store: str) -> None:
        self._hosts = lan.hosts
        self._directory = directory
        self._sizes = ["--num-cpus", "1", "--memory", "1GiB", "--object-store-memory", store]

    def start(self) -> str:
        """Returns where the first one listens."""
        first, *others = self._hosts
        place = f"{first.address}:{PORT}"
        self._actorflow(first, "start", "--head", "--host", first.address, *self._sizes)
        token = self._actorflow(first, "token", "join").strip()
        for host in others:
            self._actorflow(host, "start", "--address", place, "--port", str(PORT), *self._sizes, ACTORFLOW_TOKEN=token)
            process = host.start(self._command("--receive", host.address), cwd=ROOT, env=self.env(host), stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        return place

    def drive(self, place: str, size: int, rounds: int) -> list[dict[str, float]]:
        """Run the driver on the first host. Returns what each round gave."""
        first, *others = self._hosts
        words = ["--drive", place, "--others", ",".join(host.address for host in others), "--mib", str(size // MIB)]
        command = self._command(*words, "--rounds", str(rounds))
        rows = []
        with first.start(command, cwd=ROOT, env=self.env(first), stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                row = json.loads(line)
                rows.append(row)
                print("  ".join(f"{name} {seconds:.2f} s" for name, seconds in row.items()), flush=True)
        if process.returncode:
            raise SystemExit(f"the driver ended with {process.returncode}: what it said is above")
        return rows

    def stop(self) -> None:
        """End the nodes."""
        for host in self._hosts:
            self._actorflow(host, "stop")

    def env(self, host: LanHost, **more: str) -> dict[str, str]:
        """The environment of what runs on a host."""
        home = self._directory / host.address
        home.mkdir(mode=0o700, exist_ok=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith("ACTORFLOW_")}
        return {**env, "ACTORFLOW_TMPDIR": str(home), "PYTHONPATH": str(ROOT), **more}

    def _actorflow(self, host: LanHost, *arguments: str, **env: str) -> str:
        return host.run([sys.executable, "-m", "actorflow.cli", *arguments], env=self.env(host, **env))

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.broadcast", *arguments]


def measure(size: int, rounds: int, receivers: int, mbit: float) -> list[dict[str, float]]:
    """Seconds of each round."""
    with tempfile.TemporaryDirectory(prefix="afb-") as directory, Lan(receivers + 1) as lan:
        hosts = Hosts(lan, Path(directory), f"{size // MIB * 3}MiB")
        try:
            place = hosts.start()
            lan.limit(mbit)
            return hosts.drive(place, size, rounds)
        finally:
            hosts.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.broadcast", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--nodes", type=int, default=4, help="receivers")
    parser.add_argument("--mbit", type=float, default=1000, help="what a cable carries in each direction")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the target")
    for own in ("--receive", "--drive", "--others"):
        parser.add_argument(own, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = options.mib * MIB
    if options.receive:
        receive(options.receive)
    elif options.drive:
        asyncio.run(drive(options.drive, options.others.split(","), size, options.rounds))
    elif why := problem():
        print(f"broadcast between hosts: not measured, {why}")
    else:
        report(measure(size, options.rounds, options.nodes, options.mbit), options)
    return 0


def report(rows: list[dict[str, float]], options: Any) -> None:
    """What the rounds say together."""
    figures = {
        "broadcast_over_pull": statistics.median(row["broadcast"] / row["pull"] for row in rows),
        "pull_of_copy": statistics.median(row["copy"] / row["pull"] for row in rows),
        "broadcast_over_copies": statistics.median(row["broadcast"] / row["copies at once"] for row in rows),
    }
    print(f"\n{options.mib} MiB over cables of {options.mbit:g} Mbit/s, medians of {len(rows)} rounds: a pull has "
          f"{figures['pull_of_copy']:.0%} of the speed of a plain copy; a broadcast to {options.nodes} hosts takes "
          f"{figures['broadcast_over_pull']:.2f} times as long as a pull, and {figures['broadcast_over_copies']:.2f} times as long as "
          f"{options.nodes} plain copies from the first host at one time")  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps({"rounds": rows, "figures": figures}, indent=1))
    if options.check:
        bound = next(target.bound for target in TRANSFERS if target.measure == "broadcast_over_pull")
        met = figures["broadcast_over_pull"] <= bound
        print(f"broadcast_over_pull between hosts {figures['broadcast_over_pull']:.2f}, at most {bound:g}: {'met' if met else 'NOT MET'}")


if __name__ == "__main__":
    sys.exit(main())
