"""The life of a worker process, from the fork to its end. User code has the main thread; the protocol has one of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from _thread import start_new_thread
from functools import partial
from typing import TYPE_CHECKING, cast

from actorflow._core.base import current
from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.boot import user_forks
from actorflow._core.boot.last_words import say_last_words
from actorflow._core.io import busy_poll, lease_word
from actorflow._core.io.arena import MemfdArena
from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.io.forks import abandon_loop, own
from actorflow._core.io.loops import new_loop
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.io.real import real_ports
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core
from actorflow._core.worker.host import Host
from actorflow._core.worker.inspect import Events

if TYPE_CHECKING:
    from actorflow._core.io.shared_reads import SharedReads

SWITCH_INTERVAL_S = 0.0005
"""How soon the protocol's thread gets its turn beside user code that computes (DESIGN, section 3: 0.03 ms against 5.4)."""

log = logging.getLogger("actorflow")

_arena: tuple[int, int] | None = None
"""The descriptor and the size of the node's arena, both inherited."""


def prepare() -> None:
    """What all workers have in common; run once, in the zygote."""
    global _arena
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    number, _, size = os.environ.pop("_ACTORFLOW_ARENA", "").partition(":")
    _arena = (int(number), int(size)) if size else None


def main(spec: WorkerSpec) -> None:
    """Run a worker until its node is gone or sends it away. Never returns."""
    loop = new_loop()
    worker = Worker(spec, loop)
    loop.call_soon(worker.start)  # When the loop runs already: the two threads then need not quarrel about the interpreter.
    try:
        loop.run_forever()
    finally:
        leave(0)


CLUSTER_LOST = 4
"""The exit code of a worker that has lost its node or the head. Not 0: its actor has not ended itself, and may restart."""


class Worker:
    """One worker process."""

    def __init__(self, spec: WorkerSpec, loop: asyncio.AbstractEventLoop) -> None:
        self.spec = spec
        self.loop = loop
        self.executor = MainThreadExecutor(loop, busy_turns=busy_poll.BusyTurns(loop) if busy_poll.pays() else None)
        self.executor.take_signals()
        self.protocol_loop = new_loop()
        self.core: Core | None = None
        self._joining: asyncio.Task[None] | None = None
        own(self)

    def abandon(self) -> None:
        """See forks.Owner."""
        abandon_loop(self.protocol_loop)

    def start(self) -> None:
        """Start the protocol's thread, which joins the node first of all.

        Not a `threading.Thread`: nobody waits for its end, and it costs 76 page faults, 0.3 ms.
        """
        self._joining = self.protocol_loop.create_task(self._join())
        start_new_thread(self.protocol_loop.run_forever, ())

    async def _join(self) -> None:
        spec = self.spec
        identity = Identity(
            "worker",
            spec.worker_id,
            spec.job_id,
            spec.address,
            os.getpid(),
            sys_path=list(spec.sys_path),
            node_id=spec.node_id,
        )
        arena = MemfdArena.attach(*_arena) if _arena is not None else None
        ports = real_ports(self.protocol_loop, lock=True, share_reads=True)
        if spec.access:
            from actorflow._core.io.cluster_access import ClusterAccess

            ports.network = ClusterAccess.from_bytes(spec.access).network(self.protocol_loop, cast("SharedReads | None", ports.reads))
        core = self.core = Core(ports, identity, arena)
        user_forks.watch(core)
        core.on_lost = lambda reason: leave(CLUSTER_LOST)
        core.host = host = Host(core, self.executor, self._exit)
        self.executor.calls = host.calls
        host.events = Events(time.time() - time.monotonic())
        if (word := lease_word.inherited()) is not None:
            host.tenure.left_s = word.left_s
        current.set_process(core)
        if core.ports.reads is not None:
            self.executor.submit(partial(core.ports.reads.adopt, self.loop, self.executor.turn))
        try:
            await core.start(spec.node_address)
        except (ClusterConnectionError, OSError) as error:
            log.error("worker %s cannot join its node: %s", spec.worker_id, error)
            leave(1)

    def _exit(self, code: int) -> None:
        """Leave in order. On the user's thread."""
        assert self.core is not None
        say_last_words(self.core)
        leave(code)


def leave(code: int) -> None:
    """End this process now: no `finally` of user code, no exit handlers that were inherited from the zygote."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
