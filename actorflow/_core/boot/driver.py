"""The driver's side of a cluster's life: start one or join one, and end both cleanly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actorflow._core.base.errors import ClusterConnectionError, ClusterStartError
from actorflow._core.base.ids import new_id
from actorflow._core.boot.node_config import LocalClusterConfig
from actorflow._core.boot.session_dir import SessionDir, create_session_dir, find_current, sweep_stale
from actorflow._core.io.arena import default_arena_bytes, fetch_arena

if TYPE_CHECKING:
    import random

    from actorflow._core.boot.in_process import InProcessCluster
    from actorflow._core.boot.protocol_thread import ProtocolThread
    from actorflow._core.io.arena import MemfdArena
    from actorflow._core.io.ports import Ports
    from actorflow._core.protocol.messages import WorkerLog
    from actorflow._core.worker.core import Core

START_TIMEOUT_S = 30.0
"""How long a node process may take to say that it is ready."""
STOP_TIMEOUT_S = 10.0
"""How long it may take to end."""
LAST_WORDS_S = 2.0
"""How long a driver that ends its cluster listens for what the workers print meanwhile."""
LAST_WORDS_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class DriverConfig:
    """What `af.init` was asked for. `address`: "" for a new local cluster, "auto", or a node's address."""

    address: str = ""
    resources: dict[str, int] = field(default_factory=dict)
    arena_bytes: int = 0
    namespace: str = "default"
    inline: bool = False
    prestart: int = 1
    cancel_grace_s: float = 5.0
    in_process: bool = False
    looks: bool = False
    """It only looks at a cluster, and is no job of it."""


class Driver:
    """One driver, from `start` to `stop`."""

    def __init__(self, config: DriverConfig, on_log: Callable[[WorkerLog], None] | None = None) -> None:
        self.config = config
        self.on_log = on_log
        self.core: Core | None = None
        self.session: SessionDir | None = None
        self.node_address = ""
        self.protocol: ProtocolThread | None = None
        self._cluster: InProcessCluster | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._arena: MemfdArena | None = None
        self._pid = os.getpid()

    # -- start

    def begin(self, rng: random.Random) -> Callable[[], None]:
        """Start the node process, or find the cluster. Returns a function that waits until it is ready (blocking).

        Raises ClusterStartError, ClusterConnectionError.
        """
        if self.config.address:
            self.node_address = self._find(self.config.address)
            return lambda: None
        sweep_stale()
        self.session = create_session_dir(new_id(rng))
        self.node_address = self.session.node_address
        if self.config.in_process:
            return lambda: None
        read_fd, write_fd = os.pipe()
        settings = LocalClusterConfig(
            session_dir=str(self.session.path),
            session_id=self.session.session_id,
            driver_id=new_id(rng),
            resources=self.config.resources,
            arena_bytes=self.config.arena_bytes,
            ready_fd=write_fd,
            sys_path=[path or os.getcwd() for path in sys.path],
            prestart=self.config.prestart,
            cancel_grace_s=self.config.cancel_grace_s,
        )
        self._driver_id = settings.driver_id
        log_path = self.session.logs / "node.log"
        with open(log_path, "ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "actorflow._core.boot.node_main", settings.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[write_fd],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(settings.sys_path)},
            )
        os.close(write_fd)
        return lambda: self._wait_ready(read_fd, str(log_path))

    def _wait_ready(self, read_fd: int, log_path: str) -> None:
        import select

        poller = select.poll()
        poller.register(read_fd, select.POLLIN)
        try:
            said = os.read(read_fd, 16) if poller.poll(START_TIMEOUT_S * 1000) else b""
        finally:
            os.close(read_fd)
        if said == b"ready":
            return
        with open(log_path, errors="replace") as log_file:
            tail = log_file.read()[-4000:].strip()
        self.kill()
        raise ClusterStartError(
            f"the node process did not start within {START_TIMEOUT_S:g} s or ended before it was ready; its log ends with:\n{tail}"
        )

    @staticmethod
    def _find(address: str) -> str:
        if address != "auto":
            return address if ":" in address else f"unix:{address}/node.sock"
        current = find_current()
        if current is None:
            raise ClusterConnectionError(
                'address="auto": no actorflow cluster of this user runs on this host; start one with af.init() in another process'
            )
        return current.address

    async def join(self) -> Core:
        """Connect to the node and the head. On the loop that will carry the protocol."""
        # Imported here: the node process starts meanwhile.
        from actorflow._core.io.real import real_ports
        from actorflow._core.protocol.session import Identity
        from actorflow._core.worker.core import Core

        loop = asyncio.get_running_loop()
        # In one process with its workers there are many loops that wait: none of them is to read for all.
        share_reads = not self.config.in_process
        ports = self.protocol.ports(share_reads=share_reads) if self.protocol is not None else real_ports(loop, lock=True)
        process_id = getattr(self, "_driver_id", "") or new_id(ports.rng)
        directory = os.path.dirname(self.node_address.removeprefix("unix:"))
        if self.config.in_process:
            arena = await self._start_in_process(ports, process_id)
        else:
            arena = fetch_arena(f"{directory}/arena.sock")
        self._arena = arena
        identity = Identity(
            "driver",
            process_id,
            "" if self.config.looks else process_id,
            f"unix:{directory}/{process_id}.sock",
            os.getpid(),
            self.config.namespace,
            [path or os.getcwd() for path in sys.path],
        )
        core = Core(ports, identity, arena)
        core.on_log = self.on_log
        await core.start(self.node_address)
        self.core = core
        return core

    async def _start_in_process(self, ports: Ports, process_id: str) -> MemfdArena:
        from actorflow._core.boot.in_process import InProcessCluster

        assert self.session is not None
        self._cluster = InProcessCluster(ports, self.session, self.config, process_id)
        await self._cluster.start()
        return self._cluster.arena

    # -- stop

    async def part(self) -> None:
        """Say goodbye; the owner of a local cluster ends it. On the protocol's loop."""
        core = self.core
        if core is None:
            return
        if self._process is not None and core.closed is None:
            from actorflow._core.protocol.messages import Shutdown

            core.end()
            core.node.send(Shutdown("its driver has shut it down"))
            core.node.flush()
            await self._last_words(core)
        core.close()
        if self._cluster is not None:
            await self._cluster.stop()

    @staticmethod
    async def _last_words(core: Core) -> None:
        """The node ends the workers, hands on what they printed last, and goes."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAST_WORDS_S
        while not core.node.lost and loop.time() < until:  # noqa: ASYNC110  # a core that ends tells nobody of its losses
            await asyncio.sleep(LAST_WORDS_POLL_S)

    def reap(self) -> None:
        """Wait for the node process of a local cluster to end, and remove what it left. Blocking, bounded."""
        if self._process is not None and self._pid == os.getpid():
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._let_go()

    def kill(self) -> None:
        """End the node process the hard way; its workers see it and end."""
        if self._process is not None and self._pid == os.getpid():
            self._process.kill()
            self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self._arena is not None:
            self._arena.close()
        if self.session is not None and self._pid == os.getpid() and self.session.path.exists():
            self.session.remove()


def local_resources(num_cpus: float | None, num_gpus: float | None, memory: int | None) -> dict[str, float]:
    """What this machine has, with the user's own numbers first. In user units; memory in bytes."""
    cpus = num_cpus if num_cpus is not None else float(len(os.sched_getaffinity(0)))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"CPU": cpus, "GPU": num_gpus or 0.0, "memory": float(memory if memory is not None else int(total * 0.7))}


def arena_size(asked_bytes: int | None) -> int:
    """The size of the object store: what was asked for, else the default for this machine."""
    if asked_bytes is not None:
        return asked_bytes
    return default_arena_bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

