"""A node process of a cluster of several nodes: the node role, with the head beside it in the first of them.

It lives until it is told to end (SIGTERM), whatever drivers come and go. So far all nodes are on one machine: they listen on loopback, and
prove to each other that they have the cluster's secret. TLS, which other machines need, is there (`security/tls.py`) and not wired in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from actorflow._core.boot.session_dir import SessionDir

if TYPE_CHECKING:
    from actorflow._core.io.arena import MemfdArena
    from actorflow._core.io.zygote_link import ZygoteHandle
    from actorflow._core.security.keys import Keyring


class ClusterNodeConfig(NamedTuple):
    """One argument, as JSON. `head`: the address of the head, empty for the node that has it. `ready_fd` is told the port."""

    session_dir: str
    host: str
    port: int
    head: str
    credentials: str
    resources: dict[str, int]
    arena_bytes: int
    ready_fd: int
    labels: dict[str, str]

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(self._asdict())


def run(config: ClusterNodeConfig) -> int:
    """Run the process. Returns the exit code."""
    from actorflow._core.boot.node_process import prepare

    arena, zygote = prepare(config.arena_bytes)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    session = SessionDir(config.session_dir)
    session.hold_lock()
    gc.freeze()
    gc.enable()

    from actorflow._core.io.loops import new_loop

    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serve(config, session, arena, zygote))
        session.remove()  # After a failure it stays: whoever has started us reads there why, and removes it.
    finally:
        loop.close()
    return 0


async def serve(config: ClusterNodeConfig, session: SessionDir, arena: MemfdArena, zygote: ZygoteHandle) -> None:
    """Open the port, start the roles, say that they are ready, and wait until this node is to end."""
    from actorflow._core.base.addresses import TcpAddress
    from actorflow._core.base.ids import new_id
    from actorflow._core.head.config import HeadConfig
    from actorflow._core.head.head import Head
    from actorflow._core.io.arena import ArenaServer
    from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL, ClusterAccess, handover_path, security_of
    from actorflow._core.io.gateway import Gateway
    from actorflow._core.io.handover import HandoverServer
    from actorflow._core.io.processes import ZygoteProcesses
    from actorflow._core.io.real import real_ports
    from actorflow._core.io.sockets import UnixNetwork
    from actorflow._core.io.spill_files import DirectorySpill
    from actorflow._core.io.tcp_network import ClusterNetwork, TcpNetwork
    from actorflow._core.node.config import NodeConfig
    from actorflow._core.node.node import Node
    from actorflow._core.security.roles import KeyKind, Role

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    loop.add_signal_handler(signal.SIGTERM, end, "this node was asked to end (SIGTERM)")
    ring = _ring_of(config)
    ports = real_ports(loop, lock=False)
    node_id = new_id(ports.rng)
    async with contextlib.AsyncExitStack() as stack:
        gateway = Gateway(loop, protocol_version=HANDSHAKE_PROTOCOL, tls=False)
        stack.callback(gateway.close)
        port = await gateway.listen(config.host, config.port)
        handover = HandoverServer(loop, handover_path(session.path), gateway)
        stack.callback(handover.close)

        def network(role: Role, process_id: str, *names: str) -> ClusterNetwork:
            security = security_of(role, process_id, ring, KeyKind.NODE, targets=frozenset(names))
            return ClusterNetwork(UnixNetwork(loop), TcpNetwork(loop, security, gateway.open_door), session.path)

        def address(name: str, path: str) -> str:
            return f"{TcpAddress(config.host, port, name)},{path}"

        def access(worker_id: str, job_id: str) -> bytes:
            return ClusterAccess.of(Role.WORKER, worker_id, job_id, session.path, ring).to_bytes()

        head_address = config.head or address("head", f"unix:{session.path}/head.sock")
        if not config.head:
            head_id = new_id(ports.rng)
            head = Head(replace(ports, network=network(Role.HEAD, head_id, "head")), HeadConfig(head_address, head_id, os.getpid()))
            await head.start()
            stack.push_async_callback(head.stop)
        settings = NodeConfig(
            address=address(node_id, session.node_address),
            head_address=head_address,
            resources=config.resources,
            worker_address=lambda worker_id: address(worker_id, session.worker_address(worker_id)),
            worker_access=access,
            node_id=node_id,
            pid=os.getpid(),
            labels=config.labels,
            log_dir=session.logs,
        )
        ports.network = network(Role.NODE, node_id)
        node = Node(ports, settings, ZygoteProcesses(loop, zygote), arena, end, DirectorySpill(loop, arena, session.spill))
        server = ArenaServer(loop, session.arena_path, arena)
        stack.callback(server.close)
        await node.start()
        if config.head:
            await node.others_know()
        session.publish(session.node_address, tcp=f"{config.host}:{port}", credentials=config.credentials)
        os.write(config.ready_fd, f"{port}".encode())
        os.close(config.ready_fd)
        reason = await ended
        await node.stop(reason)


def _ring_of(config: ClusterNodeConfig) -> Keyring:
    from actorflow._core.security.credential_files import CredentialDir, SecretFile

    return SecretFile(CredentialDir(config.credentials).secret).secrets.keyring()
