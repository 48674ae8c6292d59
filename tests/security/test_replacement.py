"""Secrets and certificates are replaced while a cluster works, and nobody notices."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509

import actorflow as af
from actorflow import _credentials, _nodes
from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.io.tcp_network import ENROLMENT
from actorflow._core.security.keys import Root
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import Preface
from tests.integration.leaks import until
from tests.security.strangers import Bystander, Target

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 1, "memory": "1GiB", "object_store_memory": "64MiB"}


@pytest.fixture
def at_work(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Bystander]]:
    """A cluster of two nodes with TLS, and a driver that works on both. The parameter: how long its certificates live."""
    nodes = [_nodes.start(port=0, tls=True, certificate_valid_s=request.param, **OPTIONS)]
    try:
        nodes.append(_nodes.start(address=nodes[0].tcp, **OPTIONS))
        with af.init(address=nodes[0].tcp, log_to_driver=False):
            bystander = Bystander()
            try:
                yield Target(nodes, True), bystander
            finally:
                bystander.end()
    finally:
        _nodes.stop()


def names_of(node: _nodes.StartedNode) -> tuple[str, str]:
    """The id of a node, and that of a worker on it with its job: `worker/job`."""
    rows = af.sync(af.state.list_nodes())
    node_id = next(row["node_id"] for row in rows if row["address"].startswith(f"tcp:{node.tcp}/"))
    workers = [row for row in af.sync(af.state.list_workers()) if row["node_id"] == node_id and row["state"] not in ("dead", "starting")]
    return node_id, workers[0]["worker_id"]


def shown(node: _nodes.StartedNode, name: str) -> x509.Certificate:
    """The certificate that a process behind a node's port shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = node.tcp.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(Preface(name, True, HANDSHAKE_PROTOCOL, time.time()).encode())
        with context.wrap_socket(sock) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def reached(target: Target, secret: bytes, job: str) -> Callable[[], bool]:
    """Whether head, nodes and workers accept what is derived from this secret."""
    ids = [names_of(node) for node in target.nodes]
    _, certificate = target.driver_of(job)
    key = Root.of(secret, KeyKind.JOB).key(job)

    def look() -> bool:
        places = [(0, "head"), *((number, name) for number, names in enumerate(ids) for name in names)]
        return all(target.knock(name, target.security(Role.DRIVER, job, key, certificate), node=node) == "" for node, name in places)

    return look


@pytest.mark.parametrize("at_work", [24 * 3600.0], indirect=True)
def test_the_secret_is_replaced_in_three_steps_while_work_goes_on(at_work: tuple[Target, Bystander]) -> None:
    target, bystander = at_work
    old = target.secrets.current
    from actorflow import _runtime

    job = _runtime.current().identity.job_id  # type: ignore[attr-defined]
    credentials = target.nodes[0].credentials
    assert reached(target, old, job)()
    _credentials.replace_secret("add", credentials=credentials)
    new = target.secrets.other
    assert new is not None
    assert until(reached(target, new, job), 60), "everybody accepts the new one"
    assert reached(target, old, job)(), "and the old one still"
    bystander.has_noticed_nothing()
    _credentials.replace_secret("promote", credentials=credentials)
    assert until(lambda: target.driver_of("another")[0].id.secret_id == Root.of(new, KeyKind.JOB).secret_id, 30), "it is in use"
    bystander.has_noticed_nothing()
    _credentials.replace_secret("retire", credentials=credentials)
    of_old = reached(target, old, job)
    assert until(lambda: not of_old(), 60), "the old one is accepted no more"
    assert reached(target, new, job)()
    bystander.has_noticed_nothing()
    token = Root.of(old, KeyKind.JOIN).key("t")
    assert "has not proven" in target.knock(ENROLMENT, target.security(Role.NODE, "n", token)), "its tokens have ended with it"
    late = _nodes.start(address=target.nodes[0].tcp, **OPTIONS)
    assert len({row["node_id"] for row in af.sync(af.state.list_nodes()) if row["state"] == "alive"}) == 3
    assert late.tls


@pytest.mark.parametrize("at_work", [24 * 3600.0], indirect=True)
def test_a_file_that_cannot_be_used_changes_nothing(at_work: tuple[Target, Bystander]) -> None:
    target, bystander = at_work
    secrets, path = target.secrets, f"{target.nodes[0].credentials}/secret"
    with open(path, "w") as file:
        file.write("afsecret1_nonsense\n")
    log = f"{target.nodes[0].path}/logs/head.log"

    def told() -> bool:
        with open(log) as file:
            return "the cluster secret stays as it was" in file.read()

    assert until(told, 30)
    bystander.has_noticed_nothing()
    with open(log) as file:
        assert "nonsense" not in file.read(), "and nothing of it is shown"
    with open(path, "w") as file:
        file.write(secrets.text())
    assert target.secrets == Secrets(secrets.current)


@pytest.mark.parametrize("at_work", [10.0], indirect=True)
def test_certificates_are_renewed_before_they_end(at_work: tuple[Target, Bystander]) -> None:
    """They live for ten seconds here; after twice that everybody still gets new connections."""
    target, bystander = at_work
    names = [(node, name) for node in target.nodes for name in names_of(node)]
    first = [shown(node, name) for node, name in names]
    ends = max(certificate.not_valid_after_utc.timestamp() for certificate in first)
    while time.time() < ends + 1:
        bystander.has_noticed_nothing()
        time.sleep(0.5)
    later = [shown(node, name) for node, name in names]
    assert all(certificate.not_valid_after_utc.timestamp() > time.time() for certificate in later)
    assert {certificate.serial_number for certificate in first}.isdisjoint(certificate.serial_number for certificate in later)

    @af.remote(num_cpus=0)
    async def pid() -> int:
        return os.getpid()

    for node, _ in (names[0], names[2]):
        place = af.NodeAffinity(names_of(node)[0])
        assert af.sync(pid.options(scheduling_strategy=place)()), "new workers, new connections"
    own, certificate = target.driver_of("job-late")
    for node, (_, name) in ((0, names[0]), (1, names[2])):
        assert target.knock(name, target.security(Role.DRIVER, "job-late", own, certificate), node=node) == ""
