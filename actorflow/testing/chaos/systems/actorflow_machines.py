"""Nodes of actorflow, each behind proxies, and what is done to them.

                       others ──> way in ──> node
    head <── way in <── way out ──────────────┘

Others reach a node through its way in, and it reaches the head through its way out. A cut closes both. What it says to others than the head
by connections of its own still arrives: half a partition, from which a whole one differs only in what reaches nodes that have given it up.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actorflow.testing import machine
from actorflow.testing.chaos.schedule import Kind
from actorflow.testing.errors import InvariantBroken
from actorflow.testing.fault_proxy import FaultProxy
from actorflow.testing.nodes import Cluster, Node

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below those that the system gives to connections: a node that begins again must find its port free."""
STORE = "256MiB"
MEMORY = "2GiB"


class ActorflowMember:
    """One node with its proxies."""

    def __init__(self, number: int, node: Node, port: int, ways: Sequence[FaultProxy]) -> None:
        self.name = f"node {number}"
        self.first = number == 1
        self.node = node
        self.port = port
        self.ways = ways

    def pids(self) -> list[int]:
        return self.node.processes()

    def workers(self) -> list[int]:
        return sorted(pid for pid in self.node.processes() if machine.command_of(pid).startswith("actorflow-worker"))


class ActorflowMachines:
    """See Machines."""

    can = frozenset(Kind)

    def __init__(self) -> None:
        self._members: list[ActorflowMember] = []
        self._cluster: Cluster | None = None
        self._count = 0
        self._cpus = 1
        self._left: list[str] = []
        self._changing = asyncio.Lock()

    async def start(self, nodes: int, cpus: int, directory: Path) -> str:
        os.environ["ACTORFLOW_TMPDIR"] = str(directory)
        self._cpus = cpus
        for _ in range(nodes):
            await self.add()
        assert self._cluster is not None
        return self._cluster.address

    def members(self) -> Sequence[ActorflowMember]:
        return self._members

    async def add(self) -> None:
        async with self._changing:
            port = _free_port()
            way_in = FaultProxy(HOST, port)
            await way_in.start(HOST)
            node, ways = await self._started(port, way_in)
            self._count += 1
            self._members.append(ActorflowMember(self._count, node, port, ways))

    async def _started(self, port: int, way_in: FaultProxy) -> tuple[Node, list[FaultProxy]]:
        options: dict[str, Any] = {"num_cpus": self._cpus, "memory": MEMORY, "object_store_memory": STORE}
        options |= {"port": port, "advertise_port": way_in.port}
        if self._cluster is None:
            self._cluster = cluster = await asyncio.to_thread(lambda: Cluster(1, **options))
            return cluster.head, [way_in]
        way_out = FaultProxy(HOST, self._members[0].ways[0].port)
        await way_out.start(HOST)
        options |= {"head_address": f"{HOST}:{way_out.port}"}
        joined = self._cluster
        return await asyncio.to_thread(lambda: joined.add_node(**options)), [way_in, way_out]

    async def kill(self, member: ActorflowMember) -> None:
        assert self._cluster is not None
        self._members.remove(member)
        await asyncio.to_thread(self._cluster.locate, member.node)
        # With its processes its port goes, in the same turn of this loop: else those who look whether it is there meet a proxy that is.
        machine.send(member.pids(), signal.SIGKILL)
        await asyncio.gather(*(way.stop() for way in member.ways))
        try:
            await asyncio.to_thread(self._cluster.kill, member.node)
        except InvariantBroken as error:
            self._left.append(str(error))

    async def kill_head(self) -> int:
        assert self._cluster is not None
        return await asyncio.to_thread(self._cluster.kill_head)

    async def reset(self, member: ActorflowMember) -> None:
        for way in member.ways:
            way.reset()

    async def cut(self, member: ActorflowMember) -> None:
        for way in member.ways:
            way.cut()

    async def heal(self, member: ActorflowMember) -> None:
        for way in member.ways:
            way.heal()

    async def close(self) -> list[str]:
        members, self._members = self._members, []
        if self._cluster is not None:
            try:
                await asyncio.to_thread(self._cluster.close)
            except InvariantBroken as error:
                self._left.append(str(error))
        for member in members:
            for way in member.ways:
                await way.stop()
        return self._left


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
