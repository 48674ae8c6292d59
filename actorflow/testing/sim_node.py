"""One simulated node: its process, its arena and disk, and the workers it has started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.io.ports import WorkerSpec
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.node import Node
from actorflow._core.node.tenancy import GIVEN_UP
from actorflow.testing.arena import SimArena
from actorflow.testing.host import Host
from actorflow.testing.memory import SimMemory
from actorflow.testing.processes import ProcessProfile, SimProcesses
from actorflow.testing.spill import SimSpill
from actorflow.testing.world import MACHINE

if TYPE_CHECKING:
    from actorflow.testing.world import World

Begin = Callable[[Host], Awaitable[Callable[[], Awaitable[None]]]]
"""What else the process does first, and how it ends that."""


class SimNode:
    """See the module. Made by SimCluster; `settings` are fields of NodeConfig."""

    def __init__(
        self,
        world: World,
        name: str,
        settings: dict[str, Any],
        arena_bytes: int,
        work: Callable[[SimNode, WorkerSpec, Host], None],
        profile: ProcessProfile | None,
        begin: Begin | None = None,
        ready: Callable[[], None] | None = None,
        machine: str = MACHINE,
    ) -> None:
        self.name = name
        self._world = world
        self.node: Node | None = None
        self.host = world.host(name, machine=machine)
        self.arena = SimArena(arena_bytes, self.host)
        self.spill = SimSpill(self.host, self.arena)
        self.memory = SimMemory(self.host)
        self.processes = SimProcesses(self.host, lambda spec, host: work(self, spec, host), profile)
        self.processes.shares_environment = True
        self._settings = settings
        self._begin = begin
        self._ready = ready
        self.gave_up = False
        """It has ended because the head did not answer it any more."""
        self.not_joined = ""
        """Why it has ended without having joined."""
        self.successor: SimNode | None = None
        """The node that it came back as."""
        self._ended: asyncio.Future[str] = self.host.loop.create_future()

    def start(self) -> None:
        """Start the process."""
        self.host.start(self._serve)

    def end(self, reason: str) -> None:
        """Have it end in order."""
        self._world.at_host(self.host, self._world.now, self._end, reason)

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    async def _serve(self, host: Host) -> None:
        finish = await self._begin(host) if self._begin is not None else None
        config = NodeConfig(**self._settings, pid=host.pid)
        self.node = node = Node(host.ports, config, self.processes, self.arena, self._end, self.spill, self.memory)
        try:
            await node.start()
        except (OSError, TimeoutError) as error:
            self.not_joined = "the cluster was over before it had joined" if self._ended.done() else str(error)
            await node.stop(self.not_joined)
            return
        if self._ready is not None:
            self._ready()
        reason = await self._ended
        self.gave_up = reason == GIVEN_UP
        await node.stop(reason)
        if finish is not None:
            await finish()
