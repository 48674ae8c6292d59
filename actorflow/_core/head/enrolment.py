"""The head's enrolment desk: it lets nodes and drivers from outside in, and gives them their keys and certificates.

It has a name of its own behind the head's port, and is the only one that accepts tokens: whoever comes with one gets keys here and can do
nothing else. The rules are in `security/enrolment.py`.

    ED-1  What was admitted is written down before it is answered: a token for a single use stays used, a known id stays known.
    ED-2  Who is connected is told of new keys and fences as soon as they are here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from actorflow._core.base.errors import ActorflowError
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Ports
from actorflow._core.protocol.messages import AnyMessage, ClusterKeys, Enrol, Enrolled
from actorflow._core.protocol.session import Identity
from actorflow._core.security.enrolment import admit_node, certificate_name, fence_lost_node, fence_rows
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import Keyring
from actorflow._core.security.roles import KeyKind

FENCES_TOLD_MAX = 10_000
"""The newest fences, which nodes are told. The head itself goes by all of them."""

AT_THE_DESK = frozenset({KeyKind.NODE, KeyKind.JOIN, KeyKind.CLIENT})

log = logging.getLogger("actorflow")


class Signer(Protocol):
    """Signs certificates: the cluster's authority."""

    def issue(self, request: bytes, names: list[str]) -> bytes:
        """A certificate (PEM) for the key in a request. Raises ActorflowError."""

    def certificate_pem(self) -> bytes:
        """The certificate of the authority."""


class EnrolmentDesk:
    """See the module. On the ports' loop. `signer`: None in a cluster without TLS. `save` writes down what was admitted.

    `node_address`: which node drivers from outside are sent to. `again` makes the token with which a node may join once more.
    """

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        ring: Keyring,
        fences: Fences,
        signer: Signer | None,
        save: Callable[[], None],
        node_address: str,
        again: Callable[[], str],
    ) -> None:
        self._peers = Peers(ports, identity, self)
        self._address = identity.address
        self._ring = ring
        self._fences = fences
        self._signer = signer
        self._save = save
        self._node_address = node_address
        self._again = again
        self._here: dict[Peer, KeyKind] = {}

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self._peers.listen(self._address)

    def stop(self) -> None:
        """Let nobody in any more."""
        self._peers.close()
        self._here.clear()

    # -- what changes

    def keys_changed(self, ring: Keyring) -> None:
        """The secret was replaced by its next step (ED-2)."""
        self._ring = ring
        self._tell()

    def node_lost(self, node_id: str) -> None:
        """The head has given a node up: this life of it is over (EP-3). ED-2."""
        fence_lost_node(self._fences, node_id)
        self._tell()
        self._write_down(f"node {node_id} is fenced")

    def _write_down(self, what: str) -> None:
        try:
            self._save()
        except ActorflowError as error:
            log.error("%s, and a head that starts again would not know it: %s", what, error)

    def _tell(self) -> None:
        for peer, kind in self._here.items():
            if not peer.lost:
                peer.send(self.keys_for(kind, peer.process_id))

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        """A process has proven a key."""
        kind = _kind_of(peer)
        if kind is None or kind not in AT_THE_DESK:
            log.warning("%r has proven no key that is good for an enrolment: its connection is closed", peer)
            peer.close(abort=True)
            return
        self._here[peer] = kind
        if kind is KeyKind.JOIN:
            self._write_down(f"the token of {peer!r} was used")  # ED-1; the rest is told with its admission.
        else:
            peer.send(self.keys_for(kind, peer.process_id))

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        """Requests."""
        kind = self._here.get(peer)
        for message in messages:
            if kind is None or not isinstance(message, Enrol):
                log.error("%r said %s to the enrolment desk; its connection is closed", peer, type(message).__name__)
                peer.close(abort=True)
                return
            peer.send(self._answer(peer, kind, message))

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """It is gone, or was never here."""
        self._here.pop(peer, None)

    # -- admitting

    def _answer(self, peer: Peer, kind: KeyKind, message: Enrol) -> Enrolled:
        try:
            name = certificate_name(kind, peer.process_id, message.job_id)
            # First, as it may fail: an id is not used up for a request that cannot be signed.
            certificate = self.sign(message.request, [name])
            incarnation = admit_node(self._fences, peer.process_id) if kind is KeyKind.JOIN else 0
            if kind is KeyKind.JOIN:
                self._save()  # ED-1
        except (ValueError, ActorflowError) as error:
            log.warning("refused to enrol %r: %s", peer, error)
            return Enrolled(message.number, error=str(error))
        keys = self.keys_for(kind, peer.process_id)
        again = self._again() if kind in (KeyKind.JOIN, KeyKind.NODE) and not message.job_id else ""
        return Enrolled(message.number, certificate, incarnation, self._node_address, keys, again=again)

    def sign(self, request: bytes, names: list[str]) -> bytes:
        """A certificate; none in a cluster without TLS. Raises ActorflowError."""
        return self._signer.issue(request, names) if self._signer is not None else b""

    def keys_for(self, kind: KeyKind, process_id: str) -> ClusterKeys:
        """What a peer with such a key goes by."""
        authorities = self._signer.certificate_pem() if self._signer is not None else b""
        if kind is KeyKind.CLIENT:
            keys = [(key.id.secret_id, key.material) for key in self._ring.for_job(process_id).keys]
            return ClusterKeys(authorities, keys=keys)
        fences = fence_rows(self._fences, FENCES_TOLD_MAX)
        return ClusterKeys(authorities, [root.export() for root in self._ring.for_node().roots], fences=fences)


def _kind_of(peer: Peer) -> KeyKind | None:
    """The kind of key that a peer has proven; None within a machine, where nothing is proven."""
    return KeyKind[peer.proof.key] if peer.proof is not None and peer.proof.key else None
