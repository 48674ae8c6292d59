"""The driver's side of a cluster's life: start one or join one, and end both cleanly."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.base.ids import new_id
from actorflow._core.base.texts import path_to_text
from actorflow._core.boot.which_node import WhichNode, which_node
from actorflow._core.io.arena import fetch_arena

if TYPE_CHECKING:
    from actorflow._core.boot.in_process import InProcessCluster
    from actorflow._core.boot.node_launch import ClusterPlan, LocalCluster
    from actorflow._core.boot.outside_driver import OutsideDriver
    from actorflow._core.boot.protocol_thread import ProtocolThread
    from actorflow._core.boot.session_dir import SessionInfo
    from actorflow._core.io.arena import MemfdArena
    from actorflow._core.io.ports import Ports
    from actorflow._core.io.shared_reads import SharedReads
    from actorflow._core.protocol.messages import WorkerLog
    from actorflow._core.security.tokens import Token
    from actorflow._core.worker.core import Core

STOP_TIMEOUT_S = 10.0
"""How long it may take to end."""
LAST_WORDS_S = 2.0
"""How long a driver that ends its cluster listens for what the workers print meanwhile."""
LAST_WORDS_POLL_S = 0.002


class Driver:
    """One driver, from the start of its cluster to its end. `local`: the cluster that this process has started, None to join another.

    Raises ClusterConnectionError when there is none to join.
    """

    def __init__(self, plan: ClusterPlan, local: LocalCluster | None, on_log: Callable[[WorkerLog], None] | None = None) -> None:
        self.plan = plan
        self.local = local
        self.on_log = on_log
        self.core: Core | None = None
        which = WhichNode(local.node_address) if local is not None else which_node(plan.address)
        self.node_address, self.found, self._token = which
        self._outside: OutsideDriver | None = None
        self.protocol: ProtocolThread | None = None
        self._in_process: InProcessCluster | None = None
        self._arena: MemfdArena | None = None

    # -- start

    async def join(self) -> Core:
        """Connect to the node and the head, when they are ready. On the loop that will carry the protocol.

        Raises ClusterStartError, ClusterConnectionError.
        """
        # Imported here: the node process starts meanwhile.
        from actorflow._core.boot import user_forks
        from actorflow._core.io.real import real_ports
        from actorflow._core.protocol.session import Identity
        from actorflow._core.worker.core import Core
        from actorflow._core.worker.store import WARM_AFTER_S

        loop = asyncio.get_running_loop()
        local = self.local
        # In one process with its workers there are many loops that wait: none of them is to read for all.
        share_reads = not self.plan.in_process
        ports = self.protocol.ports(share_reads=share_reads) if self.protocol is not None else real_ports(loop, lock=True)
        process_id = local.driver_id if local is not None else new_id(ports.rng)
        directory = os.path.dirname(self.node_address.removeprefix("unix:"))
        own_address = f"unix:{directory}/{process_id}.sock"
        if self.found is not None and self.found.tcp:
            own_address = await self._enter_cluster(ports, self.found, process_id, own_address)
        if self._token is not None:
            own_address = await self._enter_from_outside(ports, self._token, process_id)
        if local is not None and local.session is None:
            from actorflow._core.io.local_network import SCHEME, LocalNetwork

            ports.network, own_address = LocalNetwork(loop), f"{SCHEME}{process_id}"
        if local is not None:
            await local.ready()
        arena: MemfdArena | None
        if local is not None and not local.has_process:
            arena = await self._start_in_process(ports, local)
        else:
            arena = self._fetch_arena(directory) if self._outside is None else None
        self._arena = arena
        identity = Identity(
            "driver",
            process_id,
            "" if self.plan.looks else process_id,
            own_address,
            os.getpid(),
            self.plan.namespace,
            [path_to_text(path or os.getcwd()) for path in sys.path],
        )
        core = Core(ports, identity, arena, outside=self._outside is not None)
        user_forks.watch(core)
        core.on_log = self.on_log
        try:
            await core.start(self.node_address)
        except BaseException:
            if self._outside is not None:
                self._outside.close()
            raise
        if local is not None and local.has_process:
            loop.call_later(WARM_AFTER_S, core.store.warm_up)
        self.core = core
        return core

    def _fetch_arena(self, directory: str) -> MemfdArena:
        """The first thing that is asked of a node: so it is here that none turns out to be there."""
        try:
            return fetch_arena(f"{directory}/arena.sock")
        except OSError as error:
            raise ClusterConnectionError(
                f"no actorflow node can be joined at {self.node_address}: {error.strerror or error}. Start one with af.init() in another "
                "process or with `actorflow start --head`, and give the address that it shows, or address=\"auto\""
            ) from error

    async def _enter_cluster(self, ports: Ports, node: SessionInfo, process_id: str, own_address: str) -> str:
        """Be reachable from other nodes too, by way of the one on this host. Returns our address. Raises ClusterConnectionError."""
        from actorflow._core.base.addresses import parse_tcp
        from actorflow._core.io.access_desk import fetch_access
        from actorflow._core.io.cluster_access import ClusterAccess

        try:
            access = ClusterAccess.from_bytes(await fetch_access(ports.loop, node.path, process_id))
        except OSError as error:
            raise ClusterConnectionError(f"cannot join through the node at {node.tcp}: {error}") from error
        ports.network = access.network(ports.loop, cast("SharedReads | None", ports.reads))
        return f"{parse_tcp(f'tcp:{node.tcp}/{process_id}@{process_id}')},{own_address}"

    async def _enter_from_outside(self, ports: Ports, token: Token, process_id: str) -> str:
        """Get keys from the head, and open a port of our own. Returns our address. Raises ClusterConnectionError."""
        from actorflow._core.boot.outside_driver import OutsideDriver

        outside = self._outside = OutsideDriver(ports, process_id, self.node_address, token)
        try:
            own_address, self.node_address = await outside.enter()
        except BaseException as error:
            outside.close()
            if isinstance(error, OSError) and not isinstance(error, ClusterConnectionError):
                raise ClusterConnectionError(str(error)) from error
            raise
        ports.network = outside.network
        return own_address

    async def _start_in_process(self, ports: Ports, local: LocalCluster) -> MemfdArena:
        from actorflow._core.boot.in_process import InProcessCluster

        self._in_process = InProcessCluster(ports, local.session, self.plan, local.driver_id)
        await self._in_process.start()
        return self._in_process.arena

    # -- stop

    async def part(self) -> None:
        """Say goodbye; the owner of a local cluster ends it. On the protocol's loop."""
        from actorflow._core.boot import user_forks

        core = self.core
        if core is None:
            return
        if self.local is None:
            await core.until_sent()
        if self._outside is not None:
            self._outside.close()
        if self.local is not None and self.local.has_process and core.closed is None:
            from actorflow._core.protocol.messages import Shutdown

            core.end()
            core.node.send(Shutdown("its driver has shut it down"))
            core.node.flush()
            await self._last_words(core)
        core.close()
        user_forks.part(core)
        if self._in_process is not None:
            await self._in_process.stop()

    @staticmethod
    async def _last_words(core: Core) -> None:
        """The node ends the workers, hands on what they printed last, and goes."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LAST_WORDS_S
        while not core.node.lost and loop.time() < until:  # noqa: ASYNC110  # a core that ends tells nobody of its losses
            await asyncio.sleep(LAST_WORDS_POLL_S)

    def reap(self) -> None:
        """Wait for the node process of a local cluster to end, and remove what it left. Blocking, bounded."""
        if self.core is None:
            self.kill()  # Nobody has told it to end.
            return
        if self.local is not None:
            self.local.wait(STOP_TIMEOUT_S)
        self._close_arena()

    def kill(self) -> None:
        """End the node process the hard way; its workers see it and end."""
        if self.local is not None:
            self.local.kill()
        self._close_arena()

    def _close_arena(self) -> None:
        if self._arena is not None:
            self._arena.close()
