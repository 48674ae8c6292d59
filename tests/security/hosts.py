"""A cluster on several hosts: network namespaces, each with a directory of its own for what a real host would have for itself."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actorflow.testing.lan import Lan, LanHost
from tests.integration import leaks

ROOT = Path(__file__).resolve().parents[2]
PORT = 6380
SIZES = ["--memory", "1GiB", "--object-store-memory", "64MiB"]
ETH_P_ALL = 0x0003


class CommandFailed(Exception):
    """With what it has said."""


class Host:
    """One host, with the commands of actorflow on it."""

    def __init__(self, lan_host: LanHost, home: Path) -> None:
        self.lan = lan_host
        self.home = home
        self.address = lan_host.address
        home.mkdir(mode=0o700, exist_ok=True)

    @property
    def place(self) -> str:
        """Where its first node listens."""
        return f"{self.address}:{PORT}"

    def env(self, **more: str) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("ACTORFLOW_")}
        return {**env, "ACTORFLOW_TMPDIR": str(self.home), "ACTORFLOW_SIMULATED_DEVICES": "", "PYTHONPATH": str(ROOT), **more}

    def actorflow(self, *arguments: str, **env: str) -> str:
        """Run a command here. Raises CommandFailed."""
        return self.python("-m", "actorflow.cli", *arguments, **env)

    def python(self, *arguments: str, **env: str) -> str:
        done = subprocess.run(
            self.lan.command([sys.executable, *arguments]), capture_output=True, text=True, timeout=120, env=self.env(**env), check=False
        )
        if done.returncode:
            raise CommandFailed(f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def refused(self, *arguments: str, **env: str) -> str:
        """Run a command that fails; returns what it says."""
        try:
            said = self.actorflow(*arguments, **env)
        except CommandFailed as error:
            return str(error)
        raise AssertionError(f"{arguments} went through: {said}")

    def head(self, *options: str, cpus: int = 1) -> None:
        """Start the first node of a cluster here."""
        self.actorflow("start", "--head", "--host", self.address, "--num-cpus", str(cpus), *SIZES, *options)

    def join(self, head: Host, *options: str, cpus: int = 1, **env: str) -> None:
        """Start a node here that joins."""
        self.actorflow("start", "--address", head.place, "--port", str(PORT), "--num-cpus", str(cpus), *SIZES, *options, **env)

    def drive(self, address: str, program: str, **env: str) -> Any:
        """Run a driver here whose `main` gives something to show as JSON."""
        file = self.home / "program.py"
        file.write_text(f"{PROGRAM}\n{textwrap.dedent(program)}\n{RUN}")
        said = self.python(str(file), ACTORFLOW_ADDRESS=address, **env)
        return json.loads(said.splitlines()[-1])

    def token(self, kind: str, *options: str) -> str:
        """A token, made here."""
        return self.actorflow("token", kind, *options).strip()

    def log(self) -> str:
        """What its nodes have logged."""
        return "\n".join(file.read_text() for file in self.home.glob("actorflow-*/*/logs/[hn]*.log"))

    def stop(self) -> None:
        self.actorflow("stop")


PROGRAM = """
import asyncio, json, os, sys
import actorflow as af

def here():
    return af.get_runtime_context().node_id

@af.remote
async def where(seconds=0.0):
    await asyncio.sleep(seconds)
    return here()

@af.remote(num_cpus=0)
async def parent(children):
    return [here(), *await asyncio.gather(*(where(0.3) for _ in range(children)))]

class Counter(af.Actor):
    def __init__(self):
        self.value = 0

    @af.method
    async def add(self, by=1):
        self.value += by
        return self.value, here()

@af.remote(num_cpus=0)
async def use(counter):
    return await counter.add()
"""
RUN = """
async def program():
    async with af.init():
        return await main()

print(json.dumps(asyncio.run(program())))
"""


@contextlib.contextmanager
def hosts(number: int, directory: Path) -> Iterator[list[Host]]:
    """Hosts that reach each other. Afterwards nothing of them is left."""
    with Lan(number) as lan:
        found = [Host(lan_host, directory / f"h{index}") for index, lan_host in enumerate(lan.hosts)]
        try:
            yield found
        finally:
            for host in found:
                host.stop()
            for host in found:
                assert leaks.until(lambda home=host.home: not leaks.processes(home)), leaks.processes(host.home)  # type: ignore[misc]


class Wire:
    """All that passes by the cables of some hosts, as one who listens on the wire has it."""

    def __init__(self, some: Sequence[Host]) -> None:
        self._sockets = [self._listen(host.lan.cable) for host in some]
        self._ended = False
        self.heard = bytearray()
        self._threads = [threading.Thread(target=self._hear, args=(sock,)) for sock in self._sockets]

    @staticmethod
    def _listen(device: str) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        sock.bind((device, 0))
        sock.settimeout(0.1)
        return sock

    def _hear(self, sock: socket.socket) -> None:
        with sock:
            while not self._ended:
                with contextlib.suppress(TimeoutError):
                    self.heard += sock.recv(65_536)

    def __enter__(self) -> Wire:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join()
