"""ED-1 and ED-2: the enrolment desk, spoken to as its peers do, without a network."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow._core.base.errors import ActorflowError
from actorflow._core.head.enrolment import EnrolmentDesk
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Proof
from actorflow._core.protocol.messages import ClusterKeys, Enrol, Enrolled, NodeInfo
from actorflow._core.protocol.session import Identity
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import Root
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import Secrets

OLD, NEW = b"a" * 32, b"b" * 32


class Signer:
    def __init__(self) -> None:
        self.signed: list[tuple[bytes, list[str]]] = []

    def issue(self, request: bytes, names: list[str]) -> bytes:
        if request == b"bad":
            raise ActorflowError("that cannot be signed")
        self.signed.append((request, names))
        return b"certificate of " + names[0].encode()

    def certificate_pem(self) -> bytes:
        return b"authority"


class Caller:
    """A peer, as far as a desk looks at it."""

    def __init__(self, process_id: str, key: KeyKind | None, role: str = "node") -> None:
        self.process_id = process_id
        self.proof = Proof(role, process_id, "", key.name) if key is not None else None
        self.lost = False
        self.heard: list[Any] = []
        self.closed = False

    def send(self, message: Any) -> None:
        self.heard.append(message)

    def close(self, *, abort: bool = False) -> None:
        self.closed = True


class World:
    def __init__(self, signer: Signer | None = None) -> None:
        self.fences = Fences()
        self.saves: list[list[tuple[str, int]]] = []
        self.full = False
        ports: Any = None
        identity = Identity("head", "h", address="tcp:h:1/enrolment")
        ring = Secrets(OLD).keyring()
        self.desk = EnrolmentDesk(ports, identity, ring, self.fences, signer, self.save, "tcp:h:1/n0", lambda: "a token")

    def save(self) -> None:
        if self.full:
            raise ActorflowError("the disk is full")
        self.saves.append(self.fences.rows())

    def comes(self, caller: Caller) -> Caller:
        self.desk.peer_ready(caller)  # type: ignore[arg-type]
        return caller

    def says(self, caller: Any, *messages: Any) -> Any:
        peer: Peer = caller
        self.desk.messages_received(peer, list(messages))
        return caller.heard[-1] if caller.heard else None


def secret_ids(keys: ClusterKeys) -> list[bytes]:
    return list(dict.fromkeys(Root.load(root).secret_id for root in keys.roots))


def test_a_node_joins_and_gets_what_nodes_have() -> None:
    world, caller = World(signer := Signer()), Caller("n1", KeyKind.JOIN)
    assert world.comes(caller).heard == [], "nothing before it has asked"
    answer = world.says(caller, Enrol(7, "", b"request"))
    assert (answer.number, answer.error, answer.incarnation) == (7, "", 1)
    assert answer.certificate == b"certificate of node/n1"
    assert signer.signed == [(b"request", ["node/n1"])]
    assert {Root.load(root).kind for root in answer.keys.roots} == {KeyKind.NODE, KeyKind.JOB}
    assert (answer.keys.authorities, answer.keys.keys) == (b"authority", [])
    assert world.saves[-1] == [("n1", 1)], "ED-1"
    assert answer.again == "a token"
    assert "a token" not in repr(answer)
    node = world.comes(Caller("n1", KeyKind.NODE))
    assert world.says(node, Enrol(1, "", b"r")).again == "a token"
    assert world.says(node, Enrol(2, "job", b"r")).again == "", "that is for workers"


def test_without_tls_there_is_no_certificate() -> None:
    world = World()
    answer = world.says(world.comes(Caller("n1", KeyKind.JOIN)), Enrol(1))
    assert (answer.error, answer.certificate, answer.keys.authorities) == ("", b"", b"")


def test_a_driver_from_outside_gets_the_keys_of_its_job_and_no_root() -> None:
    world = World(Signer())
    caller = world.comes(Caller("d1", KeyKind.CLIENT, "driver"))
    answer = world.says(caller, Enrol(1, "", b"r"))
    assert (answer.certificate, answer.node_address) == (b"certificate of job/d1", "tcp:h:1/n0")
    for keys in (caller.heard[0], answer.keys):
        assert (keys.roots, keys.fences) == ([], [])
        assert keys.keys == [(Root.of(OLD, KeyKind.JOB).secret_id, Root.of(OLD, KeyKind.JOB).key("d1").material)]
    assert world.fences.rows() == [], "a driver is no node"
    assert answer.again == ""


def test_ed_1_what_cannot_be_written_down_is_not_admitted(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Signer())
    caller = world.comes(Caller("n1", KeyKind.JOIN))
    world.full = True
    answer = world.says(caller, Enrol(1, "", b"r"))
    assert "the disk is full" in answer.error
    assert (answer.certificate, answer.keys) == (b"", None)


def test_a_request_that_cannot_be_signed_uses_no_id_up() -> None:
    world = World(Signer())
    caller = world.comes(Caller("n1", KeyKind.JOIN))
    assert "cannot be signed" in world.says(caller, Enrol(1, "", b"bad")).error
    assert world.says(caller, Enrol(2, "", b"good")).error == ""
    assert "known already" in world.says(world.comes(Caller("n1", KeyKind.JOIN)), Enrol(3, "", b"good")).error


@pytest.mark.parametrize("key", [None, KeyKind.JOB])
def test_who_has_proven_nothing_of_use_is_sent_away(key: KeyKind | None) -> None:
    world = World()
    caller = world.comes(Caller("w", key, "worker"))
    assert caller.closed
    world.says(caller, Enrol(1))
    assert caller.heard == []


def test_what_is_no_request_ends_the_connection() -> None:
    world = World()
    caller = world.comes(Caller("n1", KeyKind.JOIN))
    world.says(caller, NodeInfo("n1", "a", {}), Enrol(1))
    assert caller.closed
    assert caller.heard == [], "and what came with it is not looked at"


def test_ed_2_who_is_connected_hears_of_new_keys_and_of_lost_nodes() -> None:
    world = World(Signer())
    node, driver, joiner = (world.comes(Caller(kind.name, kind)) for kind in (KeyKind.NODE, KeyKind.CLIENT, KeyKind.JOIN))
    gone = world.comes(Caller("gone", KeyKind.NODE))
    world.desk.peer_lost(gone, "")  # type: ignore[arg-type]
    before = [len(caller.heard) for caller in (node, driver, joiner, gone)]
    both = Secrets(NEW, OLD)
    world.desk.keys_changed(both.keyring())
    assert secret_ids(node.heard[-1]) == [Root.of(secret, KeyKind.NODE).secret_id for secret in (NEW, OLD)], "the one in use first"
    assert [secret_id for secret_id, _ in driver.heard[-1].keys] == secret_ids(node.heard[-1])
    world.desk.node_lost("n9")
    assert node.heard[-1].fences == [("n9", -1)]
    assert world.saves[-1] == world.fences.rows()
    after = [len(caller.heard) for caller in (node, driver, joiner, gone)]
    assert [late - early for late, early in zip(after, before, strict=True)] == [2, 2, 2, 0]


def test_a_lost_node_is_fenced_even_if_that_cannot_be_written_down(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.full = True
    world.desk.node_lost("n9")
    assert not world.fences.admits("n9", 2**63)
    assert "a head that starts again would not know it: the disk is full" in caplog.text


def test_no_message_shows_what_it_carries() -> None:
    keys = ClusterKeys(b"A", [b"root-bytes"], [(b"i", b"key-bytes")], [("n", 1)])
    for shown in (repr(keys), repr(Enrolled(1, b"c", 1, "a", keys))):
        assert "root-bytes" not in shown and "key-bytes" not in shown
