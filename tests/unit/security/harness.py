"""A head, nodes, workers and drivers with their keys, two sides of a handshake on a wire of bytes, and a count of unpickled classes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from actorflow._core.security.challenge import BARE, Acceptor, Binding, Connector, Expected, Terms
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import Key, Keyring
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import Party, Preface

NOW = 100.0
"""Monotonic."""
WALL = 1_800_000_000.0
DEADLINE = NOW + 5.0
PROTOCOL = 7
JOB = "job-1"

A, B, C = (bytes([letter]) * 32 for letter in b"ABC")
SECRETS = Secrets(A)

HEAD = Party(Role.HEAD, "head-0", 1)
NODE = Party(Role.NODE, "node-1", 1)
NODE_2 = Party(Role.NODE, "node-2", 1)
WORKER = Party(Role.WORKER, "worker-1")
WORKER_2 = Party(Role.WORKER, "worker-2")
DRIVER = Party(Role.DRIVER, "driver-1")
EVERY_ROLE = frozenset(Role)
ANYBODY = Expected(EVERY_ROLE)

unpickled: list[str] = []
"""Every class that any pickle has asked for in this process."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        unpickled.append(".".join(arguments))


sys.addaudithook(_audit)


def randomness(seed: int = 0) -> Callable[[int], bytes]:
    """Bytes that a test can repeat."""
    return random.Random(seed).randbytes


def terms(me: Party, keyring: Keyring, seed: int = 0, **others: Any) -> Terms:
    return Terms(me, keyring, randomness(seed), PROTOCOL, **others)


def preface(target: Party | str, *, tls: bool = False, **others: Any) -> Preface:
    name = target if isinstance(target, str) else target.process_id
    return replace(Preface(name, tls, PROTOCOL, WALL), **others)


def ring_of(party: Party, secrets: Secrets = SECRETS, job: str = JOB) -> Keyring:
    """What a process of that role holds."""
    whole = secrets.keyring()
    if party.role is Role.HEAD:
        return whole
    return whole.for_node() if party.role is Role.NODE else whole.for_job(job)


def key_for(connector: Party, acceptor: Party, secrets: Secrets = SECRETS, job: str = JOB) -> Key:
    """The key that two such processes have in common."""
    among_nodes = {connector.role, acceptor.role} <= {Role.HEAD, Role.NODE}
    kind = KeyKind.NODE if among_nodes else KeyKind.JOB
    return ring_of(connector, secrets, job).pick(kind, "" if among_nodes else job)


@dataclass
class Pair:
    """A connector and an acceptor; `shake` carries the whole handshake, in pieces of `size` bytes."""

    connector_party: Party = NODE
    acceptor_party: Party = NODE_2
    key: Key | None = None
    acceptor_ring: Keyring | None = None
    connector_binding: Binding = BARE
    acceptor_binding: Binding = BARE
    expected: Expected = ANYBODY
    preface: Preface | None = None
    connector_more: dict[str, Any] = field(default_factory=dict)
    acceptor_more: dict[str, Any] = field(default_factory=dict)
    wall_time: float = WALL

    def __post_init__(self) -> None:
        me, peer = self.connector_party, self.acceptor_party
        first = self.preface or preface(peer, tls=self.connector_binding.tls)
        key = self.key or key_for(me, peer)
        mine = terms(me, Keyring(keys=(key,)), 1, **self.connector_more)
        theirs = terms(peer, self.acceptor_ring or ring_of(peer), 2, **self.acceptor_more)
        self.connector = Connector(mine, key, first, self.connector_binding, self.expected, deadline=DEADLINE)
        self.acceptor = Acceptor(theirs, first, self.acceptor_binding, wall_time=self.wall_time, deadline=DEADLINE)

    def to_acceptor(self, data: bytes | None = None) -> bytes:
        return self.acceptor.receive(self.connector.outgoing() if data is None else data, NOW)

    def to_connector(self, data: bytes | None = None) -> bytes:
        return self.connector.receive(self.acceptor.outgoing() if data is None else data, NOW)

    def shake(self) -> None:
        """The whole handshake. Raises what a side raises."""
        assert self.to_acceptor() == b""
        assert self.to_connector() == b""
        assert self.to_acceptor() == b""
        assert self.to_connector() == b""

    def refusal(self) -> tuple[str, HandshakeRefused]:
        """Which side refuses, and how. The other one is told what the first has to say, and must not be done."""
        try:
            self.shake()
        except HandshakeRefused as error:
            by_acceptor = self.acceptor._error is error
            assert not self.acceptor.done
            assert self.acceptor.peer is None
            assert not self.connector.done
            return ("acceptor" if by_acceptor else "connector"), error
        pytest.fail("nobody refused")


def verdict_code(data: bytes) -> Code:
    """The code in a verdict as it is on the wire."""
    assert len(data) == 24
    return Code(int.from_bytes(data[6:8], "big"))
