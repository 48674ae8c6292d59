"""Whatever comes to the ports of a running cluster: an error for the one who caused it, in bounded time, and nobody else notices.

Every test runs against a cluster of two real nodes, with TLS and without, while a driver works on both of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _nodes
from actorflow._core.boot.session_dir import sweep_stale
from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.io.enrolment import Enrolment
from actorflow._core.io.real import real_ports
from actorflow._core.io.tcp_network import ENROLMENT, TcpNetwork
from actorflow._core.protocol.session import Identity
from actorflow._core.security.authority import new_request
from actorflow._core.security.challenge import BARE, Acceptor, Terms
from actorflow._core.security.credential_files import CredentialDir
from actorflow._core.security.errors import Code
from actorflow._core.security.keys import Key, Keyring, Root
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import OPENING_BYTES, PREFACE_BYTES, VERDICT_BYTES, Opening, Party, Preface, Verdict
from tests.integration import leaks
from tests.security.strangers import BOUND_S, Bystander, Target, tap

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 1, "memory": "1GiB", "object_store_memory": "64MiB"}
STRANGE = Secrets(bytes(range(32)))
"""A secret that is not this cluster's."""


@pytest.fixture
def nothing_is_left() -> None:
    """The cluster of this module looks itself."""


@pytest.fixture(scope="module", params=[True, False], ids=["TLS", "in the open"])
def running(request: pytest.FixtureRequest, home: Path) -> Iterator[tuple[Target, Bystander, dict[str, str]]]:
    with leaks.nothing_is_left(home):
        nodes = [_nodes.start(port=0, tls=request.param, **OPTIONS)]
        try:
            nodes.append(_nodes.start(address=nodes[0].tcp, **OPTIONS))
            with af.init(address=nodes[0].tcp, log_to_driver=False):
                ids = {row["address"].split("/")[0]: row["node_id"] for row in af.sync(af.state.list_nodes())}
                bystander = Bystander()
                try:
                    yield Target(nodes, request.param), bystander, {node.tcp: ids[f"tcp:{node.tcp}"] for node in nodes}
                finally:
                    bystander.end()
        finally:
            _nodes.stop()


@pytest.fixture
def target(running: tuple[Target, Bystander, dict[str, str]], home: Path) -> Iterator[Target]:
    """The cluster. Afterwards the same processes live, and the driver beside has noticed nothing."""
    # Workers that nobody has used for a while leave, and those that take their place are as good: whatever a zygote has
    # forked is left out, by its parent and not by its title, which it takes only after its birth.
    nodes = {node.pid for node in running[0].nodes}
    before = {pid for pid in leaks.processes(home) if pid in nodes or leaks.parent(pid) in nodes}
    assert len(before) >= 2 * len(nodes), "every node has its zygote"
    yield running[0]
    running[1].has_noticed_nothing()
    assert before <= leaks.processes(home).keys(), "nobody has died of it"


@pytest.fixture
def node_id(running: tuple[Target, Bystander, dict[str, str]]) -> str:
    return running[2][running[0].nodes[0].tcp]


@pytest.fixture
def other_node_id(running: tuple[Target, Bystander, dict[str, str]]) -> str:
    return running[2][running[0].nodes[1].tcp]


def key(secrets: Secrets, kind: KeyKind, subject: str = "") -> Key:
    return Root.of(secrets.current, kind).key(subject)


# -- those who speak something else


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", os.urandom(2000), b"\x80\x04N."],
    ids=["HTTP", "TLS without our preface", "SSH", "random bytes", "a pickle"],
)
def test_other_protocols_get_no_answer_and_are_closed(target: Target, data: bytes) -> None:
    answer, seconds = target.says(data)
    assert answer == b""
    assert seconds < 3


def test_a_tls_client_without_our_preface_is_closed(target: Target) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((target.host, target.port), timeout=BOUND_S) as sock, pytest.raises(OSError):
        context.wrap_socket(sock)


def test_tls_to_plain_and_plain_to_tls(target: Target, node_id: str) -> None:
    other = Target(target.nodes, not target.tls)
    for name in (ENROLMENT, "head", node_id):
        said = target.knock(name, other.security(Role.NODE, "n", key(target.secrets, KeyKind.JOIN, "t")))
        assert ("wants TLS, and we came without" if target.tls else "speaks no TLS, and we came with it") in said


def test_another_version_is_told_which(target: Target) -> None:
    security = target.security(Role.NODE, "n", key(target.secrets, KeyKind.JOIN, "t"))
    security.terms.protocol_version = HANDSHAKE_PROTOCOL + 1
    assert "install the same actorflow version on both sides" in target.knock(ENROLMENT, security)


def test_a_name_that_nobody_has(target: Target) -> None:
    assert "not there any more" in target.knock("nobody", target.security(Role.NODE, "n", key(target.secrets, KeyKind.NODE)))


# -- those who do not have the secret


def test_a_wrong_secret_is_admitted_nowhere(target: Target, node_id: str) -> None:
    job, certificate = target.driver_of("job-x")
    del job
    for name, role, wrong in (
        (ENROLMENT, Role.NODE, key(STRANGE, KeyKind.JOIN, "t")),
        (ENROLMENT, Role.DRIVER, key(STRANGE, KeyKind.CLIENT, "t")),
        ("head", Role.NODE, key(STRANGE, KeyKind.NODE)),
        (node_id, Role.DRIVER, key(STRANGE, KeyKind.JOB, "job-x")),
    ):
        said = target.knock(name, target.security(role, "x", wrong, certificate))
        assert "has not proven that it is of this cluster" in said


def test_a_key_with_the_right_id_and_other_bytes(target: Target) -> None:
    """What is public of a key is no help."""
    right = key(target.secrets, KeyKind.JOIN, "t")
    assert "has not proven" in target.knock(ENROLMENT, target.security(Role.NODE, "n", Key(right.id, bytes(32))))


def test_a_node_with_a_wrong_secret_or_none(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = CredentialDir(str(tmp_path / "other"))
    directory.create("other", wall_time=time.time())
    begun = time.monotonic()
    words = "not of this cluster's authority" if target.tls else "has not proven that it is of this cluster"
    with pytest.raises(af.ClusterStartError, match=words):
        _nodes.start(address=target.nodes[0].tcp, credentials=directory.path, tls=target.tls, **OPTIONS)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("ACTORFLOW_TMPDIR", "/tmp")  # As on another host: nobody knows of the head.
        with pytest.raises(af.ClusterStartError, match=r"cannot be joined: no head.*or give a join token"):
            _nodes.start(address=target.nodes[0].tcp, **OPTIONS)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("valid_s", [-1.0, None], ids=["expired", "for a driver"])
def test_a_token_that_is_no_good(target: Target, valid_s: float | None) -> None:
    if valid_s is None:
        wrong = key(target.secrets, KeyKind.CLIENT, "t")
        assert "has not proven" in target.knock(ENROLMENT, target.security(Role.NODE, "n", wrong))
    else:
        old = Root.of(target.secrets.current, KeyKind.JOIN).key("t", expires=int(time.time()) - 1)
        assert "the token has expired" in target.knock(ENROLMENT, target.security(Role.NODE, "n", old))


def test_a_token_for_a_single_use_is_refused_the_second_time(target: Target) -> None:
    once = Root.of(target.secrets.current, KeyKind.JOIN).key(os.urandom(8).hex(), expires=int(time.time()) + 600, single_use=True)
    assert target.knock(ENROLMENT, target.security(Role.NODE, "n1", once)) == ""
    assert "was for a single use, and was used" in target.knock(ENROLMENT, target.security(Role.NODE, "n2", once))


# -- those who listen and repeat


def test_a_replayed_handshake_is_refused(target: Target, node_id: str) -> None:
    own, certificate = target.driver_of("job-r")
    with tap(target) as between:
        assert target.knock(node_id, target.security(Role.DRIVER, "job-r", own, certificate), port=between.port) == ""
    said = b"".join(between.said)
    # All at once, and each part when its turn has come.
    for parts in ([said], [said[: PREFACE_BYTES + OPENING_BYTES], said[PREFACE_BYTES + OPENING_BYTES :]]):
        heard, seconds = target.says(*parts)
        assert seconds < BOUND_S
        if target.tls:
            assert heard[:1] in (b"", b"\x15", b"\x16"), "nothing but TLS, which it cannot read"
            assert len(heard) < 8000
        else:
            assert Verdict.decode(heard[-VERDICT_BYTES:]).code in (Code.NOT_ADMITTED, Code.MALFORMED)


def test_a_reflected_proof_is_refused(target: Target, node_id: str) -> None:
    """The node is given its own name and its own proof."""
    if target.tls:
        pytest.skip("inside TLS the bytes of the challenge are not to be had")
    root = Root.of(target.secrets.current, KeyKind.NODE)
    preface = Preface(node_id, False, HANDSHAKE_PROTOCOL, time.time()).encode()
    for party in (Party(Role.NODE, node_id), Party(Role.NODE, "another")):
        opening = Opening(party, root.key().id, os.urandom(32)).encode()
        with socket.create_connection((target.host, target.port), timeout=BOUND_S) as sock:
            sock.sendall(preface + opening)
            answer = sock.recv(1000)
            sock.sendall(b"\xa3\0\0\0" + answer[-32:])
            heard = b""
            while part := sock.recv(1000):
                heard += part
        assert Verdict.decode(heard).code == Code.NOT_ADMITTED


def test_one_who_sends_everything_back(target: Target, node_id: str) -> None:
    """A mirror in the place of a node: the one who calls notices."""
    listener = socket.create_server(("127.0.0.1", 0))

    def mirror() -> None:
        sock, _ = listener.accept()
        # The caller may leave while something of ours is under way to it: then its leaving is a reset.
        with sock, listener, contextlib.suppress(ConnectionError):
            while data := sock.recv(1000):
                sock.sendall(data)

    thread = threading.Thread(target=mirror)
    thread.start()
    own, certificate = target.driver_of("job-m")
    said = target.knock(node_id, target.security(Role.DRIVER, "job-m", own, certificate), port=listener.getsockname()[1])
    thread.join()
    assert "no actorflow node answers there" in said or "was expected" in said


def test_one_who_poses_as_the_cluster_learns_nothing(target: Target, node_id: str) -> None:
    """It has another secret, and no certificate of ours: the caller leaves before it has proven anything."""
    if target.tls:
        pytest.skip("without a certificate it does not come as far")
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def pose() -> None:
        sock, _ = listener.accept()
        with sock, listener:
            preface = Preface.decode(sock.recv(PREFACE_BYTES, socket.MSG_WAITALL))
            terms = Terms(Party(Role.NODE, node_id), Keyring(tuple(Root.of(bytes(32), kind) for kind in KeyKind)), os.urandom, 1)
            acceptor = Acceptor(terms, preface, BARE, wall_time=time.time(), deadline=100.0)
            acceptor.receive(sock.recv(OPENING_BYTES, socket.MSG_WAITALL), 0.0)
            sock.sendall(acceptor.outgoing())
            with contextlib.suppress(ConnectionError):  # As with the mirror.
                while data := sock.recv(1000):
                    heard.append(data)

    thread = threading.Thread(target=pose)
    thread.start()
    own, _ = target.driver_of("job-p")
    said = target.knock(node_id, target.security(Role.DRIVER, "job-p", own), port=listener.getsockname()[1])
    thread.join()
    assert "has not proven that it is of this cluster" in said
    assert heard == []


# -- those who are slow


def test_half_open_peers_are_closed_in_time(target: Target, node_id: str) -> None:
    preface = Preface(node_id, target.tls, HANDSHAKE_PROTOCOL, time.time()).encode()
    beginnings = [b"", preface[:1], preface[:-1], preface, preface + b"\xa1" + bytes(50), preface + b"\x16\x03\x01\x02\x00"]
    begun = time.monotonic()
    socks = [socket.create_connection((target.host, target.port), timeout=BOUND_S) for _ in beginnings]
    for sock, data in zip(socks, beginnings, strict=True):
        sock.sendall(data)
    for sock in socks:
        with sock:
            try:
                while sock.recv(1000):
                    pass
            except ConnectionResetError:
                pass
    assert time.monotonic() - begun < BOUND_S


def test_one_who_sends_a_byte_at_a_time_does_not_get_more_time(target: Target) -> None:
    preface = Preface("head", target.tls, HANDSHAKE_PROTOCOL, time.time()).encode()
    begun = time.monotonic()
    with socket.create_connection((target.host, target.port), timeout=BOUND_S) as sock:
        with pytest.raises(OSError):
            for byte in preface:
                sock.sendall(bytes([byte]))
                time.sleep(0.2)
            while True:
                sock.sendall(b"\xa1")
                time.sleep(0.2)
    assert 2 < time.monotonic() - begun < BOUND_S


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_clock_that_differs_is_told_by_how_much(target: Target, ahead_s: float) -> None:
    security = target.security(Role.NODE, "n", key(target.secrets, KeyKind.JOIN, "t"), clock=lambda: time.time() + ahead_s)
    said = target.knock(ENROLMENT, security)
    assert "3600 s" in said
    assert ("behind" if ahead_s > 0 else "ahead of") in said
    assert "set both clocks" in said


# -- insiders who want more


def test_a_token_is_good_for_the_enrolment_desk_and_nothing_else(target: Target, node_id: str) -> None:
    for role, kind in ((Role.NODE, KeyKind.JOIN), (Role.DRIVER, KeyKind.CLIENT)):
        token = key(target.secrets, kind, "t")
        assert target.knock(ENROLMENT, target.security(role, "t", token)) == ""
        for name in ("head", node_id):
            assert "has not proven" in target.knock(name, target.security(role, "t", token))


def test_a_job_cannot_act_as_another_job_a_node_or_the_head(target: Target, node_id: str) -> None:
    own, certificate = target.driver_of("job-a")
    other, _ = target.driver_of("job-b")
    assert own.material != other.material
    assert target.knock(node_id, target.security(Role.DRIVER, "job-a", own, certificate)) == "", "this is what it may"
    assert target.knock("head", target.security(Role.WORKER, "w", own, certificate)) == ""
    # With the key of its job under the name of another: the key decides.
    renamed = Key(other.id, own.material)
    assert "has not proven" in target.knock(node_id, target.security(Role.DRIVER, "job-b", renamed, certificate))
    for name, role in (("head", Role.NODE), ("head", Role.HEAD), (node_id, Role.NODE), (ENROLMENT, Role.DRIVER), (ENROLMENT, Role.NODE)):
        assert "has not proven" in target.knock(name, target.security(role, "x", own, certificate))
    if target.tls:
        # With the certificate of another job, as one who has got hold of it.
        _, foreign = target.driver_of("job-b")
        assert "has not proven" in target.knock(node_id, target.security(Role.DRIVER, "job-a", own, foreign))


def test_the_key_of_nodes_does_not_make_another_node(target: Target, other_node_id: str) -> None:
    """A node with its key and its certificate says that it is another one."""
    root = key(target.secrets, KeyKind.NODE)
    if target.tls:
        mine = target.certified("node/rogue")
        assert "has not proven" in target.knock("head", target.security(Role.NODE, other_node_id, root, mine))
        assert "has not proven" in target.knock("head", target.security(Role.HEAD, "rogue", root, mine))
        assert "has not proven" in target.knock("head", target.security(Role.NODE, "rogue", root)), "nor without a certificate"
        assert target.knock("head", target.security(Role.NODE, "rogue", root, mine)) == ""


def test_a_duplicate_node_is_refused_and_the_first_one_stays(target: Target, other_node_id: str) -> None:
    assert "this process was replaced by a newer one" in enrol(target, other_node_id, KeyKind.JOIN)
    assert f"a node with the id {other_node_id} is known already" in enrol(target, other_node_id, KeyKind.JOIN, incarnation=7)
    assert len([row for row in af.sync(af.state.list_nodes()) if row["state"] == "alive"]) == 2


def enrol(target: Target, process_id: str, kind: KeyKind, job_id: str = "", *, incarnation: int = 0) -> str:
    """Ask the desk for a certificate; returns why there is none, and "" when there is one."""
    role = Role.NODE if kind in (KeyKind.JOIN, KeyKind.NODE) else Role.DRIVER
    mine = target.certified(f"node/{process_id}") if kind is KeyKind.NODE else None
    own = key(target.secrets, kind, "" if kind is KeyKind.NODE else "t")
    security = target.security(role, process_id, own, mine, incarnation=incarnation)

    async def ask() -> str:
        loop = asyncio.get_running_loop()
        ports = real_ports(loop, lock=False)
        ports.network = TcpNetwork(loop, security, None)
        desk = Enrolment(
            ports, Identity(role.name.lower(), process_id), f"tcp:{target.host}:{target.port}/{ENROLMENT}", lambda keys: None
        )
        desk.connect()
        try:
            await desk.enrol(job_id, new_request()[1] if target.tls else b"")
        except af.ClusterConnectionError as error:
            return str(error)
        finally:
            desk.close()
            await asyncio.sleep(0)
        return ""

    return asyncio.run(ask())


def test_the_desk_gives_no_more_than_what_was_proven(target: Target) -> None:
    assert enrol(target, "d1", KeyKind.CLIENT) == ""
    assert "gives no right to a certificate for job other" in enrol(target, "d1", KeyKind.CLIENT, "other")
    assert "gives no right to a certificate for job other" in enrol(target, "n7", KeyKind.JOIN, "other")
    assert "no id of a job" in enrol(target, "n8", KeyKind.NODE, "a job/of\nmine")
    assert enrol(target, "n8", KeyKind.NODE, "job-of-mine") == ""


# -- addresses


def test_addresses_that_are_no_good(target: Target) -> None:
    del target
    with pytest.raises(af.ClusterStartError, match=r"no-such-host\.invalid cannot be used: the name does not resolve"):
        _nodes.start(address="no-such-host.invalid:6380", **OPTIONS)
    with pytest.raises(af.ClusterStartError, match=r"no-such-host\.invalid cannot be used: the name does not resolve"):
        _nodes.start(host="no-such-host.invalid", **OPTIONS)
    with pytest.raises(af.ClusterStartError, match="is no address of a node.*HOST:PORT"):
        _nodes.start(address="localhost", **OPTIONS)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(af.ClusterStartError, match="the port is in use"):
        _nodes.start(port=taken.getsockname()[1], **OPTIONS)
    sweep_stale(age_s=0)
