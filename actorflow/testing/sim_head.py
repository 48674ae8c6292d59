"""A simulated head in a process of its own, with a disk or a Redis: it is killed and comes back, and knows what it has acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.head.config import HeadConfig
from actorflow._core.head.head import Head
from actorflow._core.io.journal import Journal
from actorflow._core.io.redis_log import RedisLog
from actorflow._core.io.state_log import StateLog
from actorflow.testing.files import SimDisk, SimFiles
from actorflow.testing.host import Host
from actorflow.testing.redis import SimRedis, SimRedisServer
from actorflow.testing.world import MACHINE

if TYPE_CHECKING:
    from actorflow.testing.world import World

BACK_S = 0.3
"""How long it takes until the process is there again, most of it imports."""
SNAPSHOT_BYTES_MIN = 20_000


class SimHead:
    """See the module. Made by SimCluster with `durable=`."""

    def __init__(
        self, world: World, name: str, address: str, machine: str = MACHINE, redis: SimRedisServer | None = None
    ) -> None:
        self._world = world
        self._name = name
        self._address = address
        self._machine = machine
        self.disk = SimDisk(world, machine)
        self._redis = redis
        self.head: Head | None = None
        """The role in its present life, when that listens."""
        self.on_change: Callable[[Head | None], None] | None = None
        """Told of each life that begins to listen, and of its end."""
        self.lives = 0
        self.host: Host
        self._stopped = False
        self._start()

    def kill(self, *, machine_down: bool = False) -> None:
        """End the process; it comes back. `machine_down`: what its disk has not synced is lost with it, at least in part."""
        self.head = None
        self._world.kill(self.host)
        if machine_down:
            self.disk.crash()

    def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        if self.host.alive:
            self._world.at_host(self.host, self._world.now, self._end)

    def _start(self) -> None:
        self.lives += 1
        life = f" (life {self.lives})" if self.lives > 1 else ""
        self.host = self._world.host(f"{self._name}{life}", machine=self._machine)
        self.host.on_end.append(self._ended)
        self._ending: asyncio.Future[None] = self.host.loop.create_future()
        self.host.start(self._serve)

    def _ended(self, host: Host) -> None:
        self.head = None
        if self.on_change is not None:
            self.on_change(None)
        if not self._stopped:
            self._world.at_time(self._world.now + BACK_S, self._again)

    def _again(self) -> None:
        if not self._stopped:
            self._start()

    def _end(self) -> None:
        if not self._ending.done():
            self._ending.set_result(None)

    async def _open_log(self, host: Host) -> StateLog:
        if self._redis is None:
            return await Journal.open(SimFiles(host, self.disk), snapshot_bytes_min=SNAPSHOT_BYTES_MIN)
        while True:
            try:
                return await RedisLog.open(SimRedis(host, self._redis), self._name, lambda reason: host.exit(1))
            except ConnectionError:
                await asyncio.sleep(BACK_S)  # As the one who starts it does, with a new process.

    async def _serve(self, host: Host) -> None:
        memory = await self._open_log(host)
        head = Head(host.ports, HeadConfig(address=self._address, pid=host.pid), memory)
        self._world.fabric.remove_file(self._address, host.machine)
        await head.start()
        self.head = head
        if self.on_change is not None:
            self.on_change(head)
        await self._ending
        await head.stop()
        await memory.close()
