"""Who simulated processes are, and the handshake by which those of two jobs speak: its rules are real, its bytes travel in no time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actorflow._core.base.addresses import parse_tcp
from actorflow._core.io.ports import Proof
from actorflow._core.io.tcp_network import proof_of
from actorflow._core.protocol.codec import PROTOCOL_VERSION
from actorflow._core.security.challenge import BARE, Acceptor, Connector, Expected, Terms
from actorflow._core.security.errors import Code, refused
from actorflow._core.security.keys import Key, Keyring
from actorflow._core.security.preface import HANDSHAKE_TIMEOUT_S
from actorflow._core.security.roles import OF_JOBS
from actorflow._core.security.wire import Party, Preface

if TYPE_CHECKING:
    from actorflow.testing.host import Host


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a job. `ring`: the keys that it holds at this moment."""

    party: Party
    ring: Callable[[], Keyring]


def shake_hands(caller: Host, called: Host, address: str, key: Key) -> tuple[Proof, Proof]:
    """What the caller knows of the called from now on, and what that one knows of it. Raises HandshakeRefused."""
    mine, theirs = caller.network.member, called.network.member
    if mine is None or theirs is None:
        raise refused(Code.NOT_ADMITTED, f"{called.name} has no keys, and nobody visits it")
    place, now, version = parse_tcp(address), caller.world.now, int(PROTOCOL_VERSION)
    deadline = now + HANDSHAKE_TIMEOUT_S
    rng = random.Random(f"{caller.world.seed}/handshake/{caller.name}/{called.name}/{now}")
    preface = Preface(place.name, False, version, caller.ports.wall_time())
    expected = Expected(OF_JOBS, place.name, job_id=place.job)
    connector = Connector(Terms(mine.party, mine.ring(), rng.randbytes, version), key, preface, BARE, expected, deadline=deadline)
    terms = Terms(theirs.party, theirs.ring(), rng.randbytes, version)
    acceptor = Acceptor(terms, preface, BARE, wall_time=called.ports.wall_time(), deadline=deadline)
    while not connector.done:
        acceptor.receive(connector.outgoing(), now)
        connector.receive(acceptor.outgoing(), now)
    assert connector.peer is not None
    assert acceptor.peer is not None
    return proof_of(connector.peer, place.job), proof_of(acceptor.peer)
