"""A driver on a machine that is no node of the cluster: it comes with a client token, and has a port of its own.

The token lets it speak with the enrolment desk and nothing else. There it gets the keys of its job and a certificate for it, and which node
it is to speak with. Workers call it back, for the values that it owns: so it listens, at the address from which it reaches the cluster. It
has no shared memory: that node stands for its own, its large values lie there and travel in parts (worker/remote_store.py).

    OD-1  A driver from outside can do what a driver of that one job can, for as long as its certificate lasts; while the token is good, and
          the desk is there, that is renewed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from actorflow._core.base.addresses import TcpAddress, split
from actorflow._core.base.errors import ActorflowError, ClusterConnectionError
from actorflow._core.boot.node_credentials import LOOK_S, RENEW_DELAY_S_MIN, RENEW_RETRY_S
from actorflow._core.boot.node_place import place_of
from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.io.enrolment import Enrolment
from actorflow._core.io.gateway import Gateway
from actorflow._core.io.ports import Listener, PassSource, Ports, Stream, StreamHandler
from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import ENROLMENT, TcpNetwork
from actorflow._core.protocol.messages import ClusterKeys, Enrolled
from actorflow._core.protocol.session import Identity
from actorflow._core.security.authority import new_request, renew_at
from actorflow._core.security.challenge import Terms
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import Key, KeyId, Keyring
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.tls import Credentials, authorities_of_token, client_side, server_side
from actorflow._core.security.tokens import Token
from actorflow._core.security.wire import Party

log = logging.getLogger("actorflow")

class _OverTcp:
    """A Network that takes the part of each address that is for other machines."""

    def __init__(self, tcp: TcpNetwork) -> None:
        self._tcp = tcp

    def visit_as(self, job_id: str, passes: PassSource) -> None:
        """See VisitingNetwork."""
        self._tcp.visit_as(job_id, passes)

    def lasts(self, address: str) -> bool:
        """See Network."""
        return True

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """See Network."""
        return await self._tcp.listen(split(address)[0] or address, accept)

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """See Network."""
        return await self._tcp.connect(split(address)[0] or address, handler)


class OutsideDriver:
    """See the module. On the protocol's loop. `head`: HOST:PORT of the node with the head."""

    def __init__(self, ports: Ports, process_id: str, head: str, token: Token) -> None:
        self._loop = ports.loop
        self._process_id = process_id
        self._head = head
        self._token = token
        self._authorities = authorities_of_token(token.authority)
        self._ring = token.keyring()
        terms = Terms(Party(Role.DRIVER, process_id), self._ring, os.urandom, HANDSHAKE_PROTOCOL)
        self._security = Security(terms, self._key, None, client_side(Credentials(self._authorities)))
        self._gateway = Gateway(ports.loop, protocol_version=HANDSHAKE_PROTOCOL, tls=True)
        reads = ports.reads if isinstance(ports.reads, SharedReads) else None
        tcp = TcpNetwork(ports.loop, self._security, self._gateway.open_door, reads=reads, on_refused=self._on_refused)
        self.network = _OverTcp(tcp)
        identity = Identity("driver", process_id, pid=os.getpid())
        self._desk = Enrolment(replace(ports, network=self.network), identity, f"tcp:{head}/{ENROLMENT}", self._keys_changed)
        self._entered = False
        self._renew_at = 0.0
        self._renewing: asyncio.Task[None] | None = None

    async def enter(self) -> tuple[str, str]:
        """Be let in. Returns our own address, and that of the node to speak with. Raises ClusterConnectionError, OSError."""
        place = place_of("", "", self._head)
        if not place.wide:
            why = "it is on this host, where drivers join through its socket and need no token"
            raise ClusterConnectionError.explain(which=self._head, what="is not joined from outside", why=why)
        port = await self._gateway.listen(place.host, 0)
        self._desk.connect()
        answer = await self._certify()
        self._entered = True
        self._renewing = self._loop.create_task(self._renew(), name="renew the certificate")
        return str(TcpAddress(place.advertised, port, self._process_id, self._process_id)), answer.node_address

    def close(self) -> None:
        """Leave: the port is closed, and nothing is renewed any more."""
        if self._renewing is not None:
            self._renewing.cancel()
        self._desk.close()
        self._gateway.close()

    # -- keys and certificates

    def _key(self, name: str) -> Key:
        return self._token.key if name == ENROLMENT else self._ring.pick(KeyKind.JOB, self._process_id)

    async def _certify(self) -> Enrolled:
        key, request = new_request()
        answer = await self._desk.enrol("", request)
        if answer.keys is not None:
            self._keys_changed(answer.keys)
        mine = Credentials(self._authorities, answer.certificate, key)
        self._security.server, self._security.client = server_side(mine), client_side(mine)
        self._renew_at = renew_at(answer.certificate)
        return answer

    def _keys_changed(self, keys: ClusterKeys) -> None:
        found = [Key(KeyId(KeyKind.JOB, secret_id, self._process_id), material) for secret_id, material in keys.keys]
        self._ring = self._security.terms.keyring = Keyring(keys=tuple(found))

    def _on_refused(self, error: HandshakeRefused) -> None:
        if not self._entered and error.code not in (Code.TARGET, Code.BUSY, Code.TIMEOUT):
            self._desk.give_up(error)

    async def _renew(self) -> None:
        """OD-1."""
        while True:
            await asyncio.sleep(min(LOOK_S, max(RENEW_DELAY_S_MIN, self._renew_at - time.time())))
            if time.time() < self._renew_at:
                continue
            try:
                await self._certify()
            except ActorflowError as error:
                log.warning("the certificate of this driver cannot be renewed, next try in %s s: %s", RENEW_RETRY_S, error)
                self._renew_at = time.time() + RENEW_RETRY_S
