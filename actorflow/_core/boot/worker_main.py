"""The life of a worker process, from the fork to its end. User code has the main thread; the protocol has one of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time

from actorflow._core.base import current
from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.boot.protocol_thread import ProtocolThread
from actorflow._core.io.arena import MemfdArena
from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.io.loops import new_loop
from actorflow._core.io.ports import Arena, WorkerSpec
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core
from actorflow._core.worker.host import Host
from actorflow._core.worker.inspect import Events

SWITCH_INTERVAL_S = 0.0005
"""How soon the protocol's thread gets its turn beside user code that computes (DESIGN, section 3: 0.03 ms against 5.4)."""

log = logging.getLogger("actorflow")


def main(spec: WorkerSpec) -> None:
    """Run a worker until its node is gone or sends it away. Never returns."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    loop = new_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(spec, loop)
    worker.start()
    try:
        loop.run_forever()
    finally:
        leave(0)


class Worker:
    """One worker process."""

    def __init__(self, spec: WorkerSpec, loop: asyncio.AbstractEventLoop) -> None:
        self.spec = spec
        self.loop = loop
        self.executor = MainThreadExecutor(loop)
        self.executor.take_signals()
        self.protocol = ProtocolThread()
        self.core: Core | None = None

    def start(self) -> None:
        """Start the protocol's thread and join the node from there."""
        self.protocol.start()
        self.protocol.run(self._join())

    async def _join(self) -> None:
        spec = self.spec
        identity = Identity("worker", spec.worker_id, spec.job_id, spec.address, os.getpid(), sys_path=[])
        core = self.core = Core(self.protocol.ports(), identity, self._arena())
        core.on_lost = lambda reason: leave(0)
        core.host = host = Host(core, self.executor, self._exit)
        host.events = Events(time.time() - time.monotonic())
        self.executor.submit(lambda: _enter(core, self.executor))
        try:
            await core.start(spec.node_address)
        except (ClusterConnectionError, OSError) as error:
            log.error("worker %s cannot join its node: %s", spec.worker_id, error)
            leave(1)

    def _arena(self) -> Arena | None:
        fd = os.environ.pop("_ACTORFLOW_ARENA", "")
        if not fd:
            return None
        number, size = fd.split(":")
        return MemfdArena.attach(int(number), int(size))

    def _exit(self, code: int) -> None:
        """Leave in order: what has been said is written first. On the user's thread."""
        core = self.core
        assert core is not None
        for peer in list(core.all_peers()):
            peer.flush()
        deadline = time.monotonic() + 1.0
        while any(peer.buffered_bytes() for peer in core.all_peers()) and time.monotonic() < deadline:
            threading.Event().wait(0.001)
        leave(code)


def _enter(core: Core, executor: MainThreadExecutor) -> None:
    current.set_process(core)
    if core.ports.reads is not None:
        core.ports.reads.adopt(executor.loop, executor.turn)


def leave(code: int) -> None:
    """End this process now: no `finally` of user code, no exit handlers that were inherited from the zygote."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
