"""`mode="in_process"`: head, node and workers in the program's own process, for pdb, coverage and tests without processes.

The roles are the same and talk by the same messages over the same sockets; only a worker is a thread here. What needs a process of its
own is refused (`env_vars`, `working_dir`) or softer (a killed worker is cut off; the code it runs cannot be torn out of its thread).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal as signals
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from actorflow._core.base import current
from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import user_forks
from actorflow._core.boot.last_words import say_last_words
from actorflow._core.boot.node_devices import own_devices
from actorflow._core.boot.session_dir import SessionDir
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.head import Head
from actorflow._core.io import forks
from actorflow._core.io.arena import MemfdArena
from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.io.local_network import SCHEME
from actorflow._core.io.loops import new_loop
from actorflow._core.io.memory import resident_bytes
from actorflow._core.io.ports import Arena, Ports, ProcessEvents, ProcessExit, WorkerSpec
from actorflow._core.io.process_arena import ProcessArena
from actorflow._core.io.spill_files import FileSpill
from actorflow._core.io.spill_target import place_of
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.node import Node
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core
from actorflow._core.worker.host import Host
from actorflow._core.worker.inspect import Events

if TYPE_CHECKING:
    from actorflow._core.boot.node_launch import ClusterPlan

JOIN_TIMEOUT_S = 2.0
"""How long the end waits for the code that a worker's thread still runs; the thread is a daemon."""


class InProcessCluster:
    """A cluster on one loop. Everything but the workers' user code runs on the loop that starts it."""

    def __init__(self, ports: Ports, session: SessionDir | None, settings: ClusterPlan, driver_id: str) -> None:
        """`session`: where others of this machine find it. None where there are no unix sockets: nobody does, and nothing is on disk."""
        try:
            self.arena = (MemfdArena if session is not None else ProcessArena).create(settings.arena_bytes)
        except OSError as error:
            raise ClusterStartError(f"the cluster cannot start: {error.strerror or error}") from error
        self._session = session
        head_address = f"unix:{session.path}/head.sock" if session is not None else f"{SCHEME}head"
        self._head = Head(ports, HeadConfig(address=head_address, pid=os.getpid()))
        own = own_devices(settings.resources, settings.devices)
        config = NodeConfig(
            address=session.node_address if session is not None else f"{SCHEME}node",
            head_address=head_address,
            resources=own.resources,
            worker_address=session.worker_address if session is not None else SCHEME.__add__,
            pid=os.getpid(),
            owner=driver_id,
            labels=own.labels,
            device_ids=own.ids,
            device_types=own.types,
            device_displays=own.displays,
            cancel_grace_s=settings.cancel_grace_s,
        )
        spill = None
        if session is not None:
            spill = FileSpill(ports.loop, self.arena, place_of(settings.spill, session.spill, session.session_id))
        self._node = Node(ports, config, ThreadProcesses(ports, self.arena), self.arena, lambda reason: None, spill)
        forks.own(self)

    def abandon(self) -> None:
        """See forks.Owner."""
        if self._session is not None:
            self._session.abandon()

    async def start(self) -> None:
        """Start head and node."""
        if self._session is not None:
            self._session.hold_lock()
        await self._head.start()
        await self._node.start()
        if self._session is not None:
            self._session.publish(self._session.node_address)

    async def stop(self) -> None:
        """End them, and the workers."""
        await self._node.stop("the program has shut it down")
        await self._head.stop()


class ThreadProcesses:
    """The Processes port with threads for workers."""

    def __init__(self, ports: Ports, arena: Arena) -> None:
        self._ports = ports
        self._arena = arena
        self._events: ProcessEvents | None = None
        self._workers: dict[str, ThreadWorker] = {}

    async def start(self, events: ProcessEvents) -> None:
        """See Processes."""
        self._events = events

    def problem_with(self, env: Mapping[str, str], working_dir: str | None) -> str:
        """See Processes: threads share the variables and the directory of their process."""
        if not env and working_dir is None:
            return ""
        return "mode='in_process' has no worker processes: env_vars and working_dir need mode='processes'"

    def spawn(self, spec: WorkerSpec) -> None:
        """See Processes. `spec.env` has nothing of the user's; which GPUs are shown is one setting for all threads."""
        worker = ThreadWorker(self, self._ports, self._arena, spec)
        self._workers[spec.worker_id] = worker
        self._ports.loop.call_soon(self._started, worker)

    def _started(self, worker: ThreadWorker) -> None:
        assert self._events is not None
        self._events.process_started(worker.spec.worker_id, os.getpid())
        worker.start()

    def ended(self, worker: ThreadWorker, code: int | None, signal: int | None) -> None:
        """A worker has left. On the loop."""
        if self._workers.pop(worker.spec.worker_id, None) is not None and self._events is not None:
            self._events.process_exited(ProcessExit(worker.spec.worker_id, os.getpid(), code, signal, 0))

    def kill(self, worker_id: str, signal: int) -> None:
        """See Processes: the worker is cut off."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            self._ports.loop.call_soon(worker.leave, None, signal)

    def let_live(self, seconds: float) -> None:
        """See Processes: a node in this process stands still with its workers."""

    def memory_bytes(self, worker_id: str) -> int:
        """See Processes: all of them live in this one process."""
        return resident_bytes(os.getpid()) if worker_id in self._workers else 0

    async def stop(self, grace_s: float) -> None:
        """See Processes."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.leave(None, signals.SIGTERM)
        loop = asyncio.get_running_loop()
        for worker in workers:
            await loop.run_in_executor(None, worker.join)


class ThreadWorker:
    """One worker: a thread with the user's loop; its protocol runs on the cluster's loop."""

    def __init__(self, owner: ThreadProcesses, ports: Ports, arena: Arena, spec: WorkerSpec) -> None:
        self._owner = owner
        self._ports = ports
        self._arena = arena
        self.spec = spec
        self._loop = new_loop()
        self._thread = threading.Thread(target=self._run, name=f"actorflow-worker-{spec.worker_id[:6]}", daemon=True)
        self._core: Core | None = None
        self._join: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Join the node. On the cluster's loop."""
        spec, ports = self.spec, self._ports
        identity = Identity("worker", spec.worker_id, spec.job_id, spec.address, os.getpid())
        core = self._core = Core(ports, identity, self._arena)
        user_forks.watch(core)
        context = contextvars.Context()  # Nothing of the driver's: a worker process would not have it either.
        context.run(current.enter, core)
        core.host = host = Host(core, MainThreadExecutor(self._loop, context), partial(self._leave_in_order, core))
        host.events = Events(ports.wall_time() - ports.monotonic())
        core.on_lost = lambda reason: self.leave(0, None)
        self._thread.start()
        self._join = ports.loop.create_task(core.start(spec.node_address), name=f"join worker {spec.worker_id}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _leave_in_order(self, core: Core, code: int) -> None:
        """On the user's thread."""
        say_last_words(core)
        self._ports.loop.call_soon_threadsafe(self.leave, code, None)

    def leave(self, code: int | None, signal: int | None) -> None:
        """Cut the worker off. On the cluster's loop."""
        core, self._core = self._core, None
        if core is None:
            return
        core.close(abort=signal is not None)
        user_forks.part(core)
        self._loop.call_soon_threadsafe(self._stop)
        self._owner.ended(self, code, signal)

    def _stop(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # Cancelled tasks have their turn first.
        self._loop.call_soon(self._loop.call_soon, self._loop.stop)

    def join(self) -> None:
        """Wait for the thread, within a bound. Blocking."""
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)
