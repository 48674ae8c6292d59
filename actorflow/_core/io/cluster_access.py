"""What a driver or a worker needs to be a part of a cluster of several nodes: which keys it has, and where its sockets come from.

A node gives it to the workers that it starts, over the pipe to the zygote that nobody else reads. It is never pickled, and in no
environment variable or command line, which others could see.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

import msgspec

from actorflow._core.io.gateway import Take
from actorflow._core.io.handover import HandoverClient
from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.sockets import UnixNetwork
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import ClusterNetwork, TcpNetwork
from actorflow._core.protocol.codec import PROTOCOL_VERSION
from actorflow._core.security.challenge import Terms
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Key, KeyId, Keyring
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.tls import Credentials, client_side, server_side
from actorflow._core.security.wire import Party

log = logging.getLogger("actorflow")

HANDSHAKE_PROTOCOL = int(PROTOCOL_VERSION)


class _Key(msgspec.Struct, frozen=True, array_like=True):
    kind: int
    secret_id: bytes
    subject: str
    material: bytes


class ClusterAccess(msgspec.Struct, frozen=True):
    """See the module. `directory` is that of the session of its node; `credentials` is there where the cluster speaks TLS.

    CX-1: a process of a job has the keys and the certificate of that job and no other: with them it cannot act as a node.
    """

    role: int
    process_id: str
    job_id: str
    directory: str
    keys: list[_Key]
    authorities: bytes = b""
    certificate: bytes = b""
    certificate_key: bytes = b""

    @classmethod
    def of(
        cls, role: Role, process_id: str, job_id: str, directory: str, ring: Keyring, credentials: Credentials | None = None
    ) -> ClusterAccess:
        """For one process of a job, from a ring that has the keys of jobs."""
        keys = [_Key(key.id.kind, key.id.secret_id, key.id.subject, key.material) for key in ring.for_job(job_id).keys]
        if credentials is None:
            return cls(role, process_id, job_id, directory, keys)
        return cls(role, process_id, job_id, directory, keys, credentials.authorities, credentials.certificate, credentials.key)

    def __repr__(self) -> str:
        return f"ClusterAccess({self.process_id} of job {self.job_id})"

    def to_bytes(self) -> bytes:
        """For a worker's birth."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> ClusterAccess:
        """The inverse. Raises msgspec.DecodeError."""
        return msgspec.msgpack.decode(data, type=cls)

    def network(self, loop: asyncio.AbstractEventLoop, reads: SharedReads | None = None) -> ClusterNetwork:
        """The network of this process, on `loop`."""
        security = security_of(Role(self.role), self.process_id, self._ring(), KeyKind.JOB, self.job_id)
        self._apply(security)

        async def register(name: str, take: Take) -> Callable[[], object]:
            return await HandoverClient.register(
                loop, handover_path(self.directory), name, take, lambda news: renew(security, news)
            )

        return ClusterNetwork(UnixNetwork(loop, reads=reads), TcpNetwork(loop, security, register, reads=reads), self.directory)

    def _ring(self) -> Keyring:
        return Keyring(keys=tuple(Key(KeyId(KeyKind(k.kind), k.secret_id, k.subject), k.material) for k in self.keys))

    def _apply(self, security: Security) -> None:
        """Go by these keys and this certificate from now on. Raises CredentialError, and changes nothing then."""
        if self.authorities:
            mine = Credentials(self.authorities, self.certificate, self.certificate_key)
            security.server, security.client = server_side(mine), client_side(mine)
        ring = self._ring()
        security.terms.keyring = ring
        security.key = lambda name: ring.pick(KeyKind.JOB, self.job_id)


def renew(security: Security, news: bytes) -> None:
    """Go by the keys and the certificate that the node has sent. What cannot be used changes nothing (CF-1)."""
    try:
        ClusterAccess.from_bytes(news)._apply(security)
    except (msgspec.DecodeError, CredentialError) as error:
        log.error("what the node has sent as new keys cannot be used, those from before stay: %s", error)


def handover_path(directory: str) -> str:
    """Where the node of this session hands over sockets."""
    return f"{directory}/handover.sock"


def security_of(
    role: Role, process_id: str, ring: Keyring, kind: KeyKind, subject: str = "", targets: frozenset[str] = frozenset()
) -> Security:
    """What a process proves itself with. Without TLS, until it is given a certificate: so on loopback only."""
    terms = Terms(Party(role, process_id), ring, os.urandom, HANDSHAKE_PROTOCOL, targets)
    return Security(terms, lambda name: ring.pick(kind, subject))
