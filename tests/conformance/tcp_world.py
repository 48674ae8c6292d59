"""The network between machines on one of them: a node with its port, and a driver that calls; in the open, under TLS, and handed over."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from actorflow._core.io.gateway import Gateway
from actorflow._core.io.handover import HandoverClient, HandoverServer
from actorflow._core.io.ports import Listener, Stream, StreamHandler
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import Register, TcpNetwork
from actorflow._core.security.authority import Authority, new_request
from actorflow._core.security.challenge import Terms
from actorflow._core.security.keys import Key, Keyring, keyring_of
from actorflow._core.security.roles import KeyKind, Role, certified_name
from actorflow._core.security.tls import Credentials, client_side, server_side
from actorflow._core.security.wire import Party
from tests.conformance.real_worlds import LoopFactory, RealWorld

VERSION = 7
JOB = "job"


def security_of(
    role: Role, process_id: str, ring: Keyring, authority: Authority | None, *, targets: frozenset[str] = frozenset()
) -> Security:
    """What a process of a job proves itself with; with TLS when there is an authority."""
    terms = Terms(Party(role, process_id), ring, os.urandom, VERSION, targets)

    def key(name: str) -> Key:
        return ring.pick(KeyKind.JOB, JOB)

    if authority is None:
        return Security(terms, key)
    secret, request = new_request()
    certificate = authority.issue(request, [certified_name(role, JOB)], wall_time=time.time())
    mine = Credentials(authority.certificate_pem(), certificate, secret)
    return Security(terms, key, server_side(mine), client_side(mine))


class _Between:
    """Listens as one process and connects as another."""

    def __init__(self, called: TcpNetwork, caller: TcpNetwork) -> None:
        self._called = called
        self._caller = caller

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        return await self._called.listen(address, accept)

    def lasts(self, address: str) -> bool:
        return self._caller.lasts(address)

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        return await self._caller.connect(address, handler)


class TcpNetworkWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory, *, tls: bool, directory: Path | None = None) -> None:
        """`directory`: for the socket over which connections are handed to a worker; None: the node takes them itself."""
        super().__init__(loop_factory)
        ring = keyring_of([os.urandom(32)])
        authority = Authority.create("cluster", wall_time=time.time()) if tls else None
        self.gateway = Gateway(self.loop, protocol_version=VERSION, tls=tls)
        self.port = self.run(self.gateway.listen("127.0.0.1", 0))
        self._numbers = itertools.count()
        self._names: list[str] = []
        self._server: HandoverServer | None = None
        register: Register = self.gateway.open_door
        if directory is not None:
            path = f"{directory}/handover.sock"
            self._server = HandoverServer(self.loop, path, self.gateway)

            register = partial(HandoverClient.register, self.loop, path)

        # Each listener of a test has a name of its own; in a cluster it is the id of its process.
        names = frozenset(f"name{number}" for number in range(100))
        called = security_of(Role.WORKER, "worker", ring.for_job(JOB), authority, targets=names)
        caller = security_of(Role.DRIVER, "driver", ring.for_job(JOB), authority)
        self.network = _Between(TcpNetwork(self.loop, called, register), _NamesAreNoIds(self.loop, caller, None))

    def address(self) -> str:
        return f"tcp:127.0.0.1:{self.port}/name{next(self._numbers)}"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.gateway.close()
        super().close()


class _NamesAreNoIds(TcpNetwork):
    """One process answers to many names here."""

    def expected(self, name: str) -> str:
        return ""
