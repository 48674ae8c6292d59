"""The head of a cluster of several nodes, with what makes it the one that lets others in: its secret, its authority, its enrolment desk."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from actorflow._core.base.errors import ActorflowError
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.enrolment import EnrolmentDesk
from actorflow._core.head.head import Head
from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.io.ports import Network, Ports
from actorflow._core.io.state_log import StateLog
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import ENROLMENT
from actorflow._core.protocol.messages import Enrolled
from actorflow._core.protocol.session import Identity
from actorflow._core.security.authority import Authority
from actorflow._core.security.challenge import Terms
from actorflow._core.security.credential_files import CredentialDir, SecretFile
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Key, Keyring, Root
from actorflow._core.security.roles import KeyKind, Role, certified_name
from actorflow._core.security.tokens import make_token
from actorflow._core.security.wire import Party

log = logging.getLogger("actorflow")

RELOAD_S = 2.0
"""How often the file of the secret is looked at."""

MakeNetwork = Callable[[Security], Network]


class _Signer:
    """The authority, with a clock and the life of what it signs."""

    def __init__(self, authority: Authority, valid_s: float) -> None:
        self._authority = authority
        self._valid_s = valid_s

    def issue(self, request: bytes, names: list[str]) -> bytes:
        return self._authority.issue(request, names, wall_time=time.time(), valid_s=self._valid_s)

    def certificate_pem(self) -> bytes:
        return self._authority.certificate_pem()


class ClusterHead:
    """Head and desk in one process. Each has keys of its own: the head admits nodes and jobs, the desk nodes and tokens.

    `prepare`, then the certificate of this process (`securities`), then `start`, then `watch`. Raises CredentialError.
    """

    def __init__(self, head_id: str, credentials: CredentialDir, *, tls: bool, certificate_valid_s: float) -> None:
        self._head_id = head_id
        self._directory = credentials
        self._file = SecretFile(credentials.secret)
        self.spent, self.fences = credentials.load_admitted()
        self._authority = credentials.load_authority()
        self._valid_s = certificate_valid_s
        self._signer = _Signer(self._authority, certificate_valid_s) if tls else None
        self._head_security = self._security("head")
        self._desk_security = self._security(ENROLMENT)
        self._watching: asyncio.Task[None] | None = None
        self.head: Head
        self.desk: EnrolmentDesk

    @property
    def securities(self) -> list[Security]:
        """Those whose certificates are renewed."""
        return [self._head_security, self._desk_security]

    def _security(self, name: str) -> Security:
        me = Party(Role.HEAD, self._head_id)
        terms = Terms(me, Keyring(), os.urandom, HANDSHAKE_PROTOCOL, frozenset({name}), self.fences, self.spent)
        return Security(terms, _calls_nobody)  # The head gets a key to ask with in `_use`; the desk never connects.

    def prepare(
        self, ports: Ports, network: MakeNetwork, address: Callable[[str], str], node_address: str, pid: int, memory: StateLog
    ) -> None:
        """Make the head and the desk. `address(name)` says where a name of this process is reached; `memory` is the head's."""
        # The desk proves who it speaks with over TCP only: it has no way in from this machine that would be without a proof.
        desk_address = address(ENROLMENT).partition(",")[0]
        identity = Identity("head", self._head_id, address=desk_address, pid=pid)
        desk_ports = replace(ports, network=network(self._desk_security))
        ring = self._file.secrets.keyring()
        self.desk = EnrolmentDesk(desk_ports, identity, ring, self.fences, self._signer, self._save, node_address, self._again)
        head_ports = replace(ports, network=network(self._head_security))
        self.head = Head(head_ports, HeadConfig(address("head"), self._head_id, pid), memory)
        self.head.on_node_lost = self.desk.node_lost
        self._use(ring)

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self.head.start()
        await self.desk.start()

    def watch(self) -> None:
        """Begin to look at the file of the secret."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="watch the secret")

    async def stop(self) -> None:
        """Close everything."""
        if self._watching is not None:
            self._watching.cancel()
        self.desk.stop()
        await self.head.stop()

    def _again(self) -> str:
        """A token for the next life of a node. It lasts as long as a certificate: the node that asks for a new one gets both."""
        root = Root.of(self._file.secrets.current, KeyKind.JOIN)
        der = self._authority.certificate_der()
        return make_token(
            root, der, wall_time=time.time(), random_bytes=os.urandom, valid_s=self._valid_s, single_use=True
        ).text()

    def _save(self) -> None:
        self._directory.save_admitted(self.spent, self.fences)

    def _use(self, ring: Keyring) -> None:
        nodes = ring.for_node()
        self._head_security.terms.keyring = nodes
        # With it the head asks whether a process is there whose connection broke (LP-2).
        self._head_security.key = lambda name: nodes.pick(KeyKind.NODE)
        self.head.pass_ring = ring.for_node()
        self._desk_security.terms.keyring = Keyring(tuple(root for root in ring.roots if root.kind is not KeyKind.JOB))
        self.desk.keys_changed(ring)

    async def _watch(self) -> None:
        """The file is read again when it has changed; one that cannot be used is reported once (CF-1)."""
        while True:
            await asyncio.sleep(RELOAD_S)
            try:
                if self._file.reload():
                    log.warning("the cluster secret has changed: in use now is %s", self._file.secrets)
                    self._use(self._file.secrets.keyring())
            except CredentialError as error:
                log.error("the cluster secret stays as it was: %s", error)

    # -- as the issuer of its own certificate

    async def enrol(self, job_id: str = "", request: bytes = b"") -> Enrolled:
        """See node_credentials.Issuer."""
        certificate = self.desk.sign(request, [certified_name(Role.HEAD, self._head_id)])
        return Enrolled(0, certificate, keys=self.desk.keys_for(KeyKind.NODE, self._head_id))


def _calls_nobody(name: str) -> Key:
    raise ActorflowError(f"the desk calls nobody, and was to call {name}")
