# mypy: disable-error-code="import-not-found"
"""Nodes of Ray's own multi-node Cluster on one machine, and what is done to them. Run by the Python that has Ray (`make peers`)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

from actorflow.testing import machine
from actorflow.testing.chaos.schedule import Kind
from actorflow.testing.errors import SimulationMisuse

AGENT = "Agent"
"""The end of the names of what belongs to the node: it ends with them."""
STORE_BYTES = 256 * 1024 * 1024


class RayMember:
    """One node: its raylet, and what is below it."""

    def __init__(self, number: int, node: Any) -> None:
        self.name = f"node {number}"
        self.first = number == 1
        self.node = node

    def pids(self) -> list[int]:
        roots = [info.process.pid for infos in self.node.all_processes.values() for info in infos]
        return sorted({pid for root in roots for pid in machine.tree_of(root)})

    def workers(self) -> list[int]:
        commands = {pid: machine.command_of(pid) for pid in self.pids()}
        return sorted(pid for pid, command in commands.items() if command.startswith("ray::") and not command.endswith(AGENT))


class RayMachines:
    """See Machines. Nothing is in front of Ray's ports, so connections cannot be reset or cut."""

    can = frozenset({Kind.KILL_WORKER, Kind.KILL_NODE, Kind.STOP_WORKER, Kind.STOP_NODE})

    def __init__(self) -> None:
        self._cluster: Any = None
        self._members: list[RayMember] = []
        self._count = 0
        self._cpus = 1

    async def start(self, nodes: int, cpus: int, directory: Path) -> str:
        # Its workers are started by it, and find this package as this process does.
        os.environ["RAY_TMPDIR"] = str(directory)
        self._cpus = cpus
        # Its hooks for the exit want the main thread, and nodes are added in others.
        self._cluster = Cluster(shutdown_at_exit=False)
        for _ in range(nodes):
            await self.add()
        return str(self._cluster.address)

    def members(self) -> Sequence[RayMember]:
        return self._members

    async def kill_head(self) -> int:
        raise SimulationMisuse("Ray's head does not come back when it is killed: there is no such fault here")

    async def add(self) -> None:
        options: dict[str, Any] = {"num_cpus": self._cpus, "object_store_memory": STORE_BYTES}
        if not self._count:
            options |= {"include_dashboard": False}
        node = await asyncio.to_thread(lambda: self._cluster.add_node(**options))
        self._count += 1
        self._members.append(RayMember(self._count, node))

    async def kill(self, member: RayMember) -> None:
        self._members.remove(member)
        pids = member.pids()
        machine.send(pids, signal.SIGCONT)
        machine.send(pids, signal.SIGKILL)
        await asyncio.to_thread(lambda: self._cluster.remove_node(member.node, allow_graceful=False))

    async def reset(self, member: RayMember) -> None:
        raise NotImplementedError("nothing is in front of Ray's ports")

    async def cut(self, member: RayMember) -> None:
        raise NotImplementedError("nothing is in front of Ray's ports")

    async def heal(self, member: RayMember) -> None:
        raise NotImplementedError("nothing is in front of Ray's ports")

    async def close(self) -> list[str]:
        if self._cluster is not None:
            for member in self._members:
                machine.send(member.pids(), signal.SIGCONT)
            for node in list(self._cluster.worker_nodes):  # Asked to end, some of them never do.
                await asyncio.to_thread(partial(self._cluster.remove_node, node, allow_graceful=False))
            await asyncio.to_thread(self._cluster.shutdown)
        if ray.is_initialized():
            ray.shutdown()
        return []
