"""Who was given up, or has been let in once, does not come back under the same name: over partitions, and over restarts of the head."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _credentials, _nodes
from actorflow._core.boot.session_dir import sweep_stale
from actorflow._core.io.tcp_network import ENROLMENT
from actorflow._core.security.credential_files import CredentialDir
from actorflow._core.security.keys import Root
from actorflow._core.security.roles import KeyKind, Role
from tests.integration.leaks import until
from tests.security.strangers import Target, tap

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 1, "memory": "1GiB", "object_store_memory": "64MiB"}


@af.remote
def pid() -> int:
    return os.getpid()


def is_known_here(place: af.NodeAffinity) -> bool:
    """By the node of this program, which places its tasks."""
    try:
        af.sync(pid.options(scheduling_strategy=place)())
    except af.TaskUnschedulableError:
        return False
    return True


def states() -> list[str]:
    return sorted(row["state"] for row in af.sync(af.state.list_nodes()))


@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "in the open"])
def test_a_node_that_was_given_up_ends_and_begins_again_as_another(tls: bool) -> None:
    """The head sees its connection end, the node does not: what ran there runs elsewhere, and it must not go on."""
    nodes = [_nodes.start(port=0, tls=tls, **OPTIONS)]
    try:
        with tap(Target(nodes, tls)) as between:
            where = f"127.0.0.1:{between.port}"
            nodes.append(_nodes.start(address=where, credentials=nodes[0].credentials, tls=tls, **OPTIONS))
            with af.init(address=nodes[0].tcp):
                lost = next(row["node_id"] for row in af.sync(af.state.list_nodes()) if f":{nodes[1].tcp}/" in row["address"])
                worker = af.sync(pid.options(scheduling_strategy=af.NodeAffinity(lost))())
                between.cut_far()
                assert until(lambda: "alive" in states() and states() != ["alive", "alive"], 30)
                between.cut_near()
                assert until(lambda: states().count("alive") == 2, 60), "in its second life"
                assert not os.path.exists(f"/proc/{worker}/exe"), "nothing of the first one is left"
                again = [row["node_id"] for row in af.sync(af.state.list_nodes()) if row["state"] == "alive"]
                assert lost not in again
                places = [af.NodeAffinity(node_id) for node_id in again]
                assert until(lambda: all(is_known_here(place) for place in places), 10), "the head knows it first, then the other nodes"
                assert len({af.sync(pid.options(scheduling_strategy=place)()) for place in places}) == 2, "and it works"
                with open(f"{nodes[1].path}/logs/node.log") as log:
                    said = log.read()
                # By its own lease, or because the head has said so: whichever it found out first.
                assert "the head has not answered this node" in said or "the head has given this node up" in said
                # With its key and a certificate of its name, and whatever incarnation it says it is.
                target = Target(nodes, tls)
                key, certificate = Root.of(target.secrets.current, KeyKind.NODE).key(), target.certified(f"node/{lost}")
                for name in ("head", ENROLMENT):
                    for incarnation in (0, 1, 2, 2**64 - 1):
                        security = target.security(Role.NODE, lost, key, certificate, incarnation=incarnation)
                        assert "was replaced by a newer one, or removed" in target.knock(name, security)
                assert states().count("alive") == 2
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)


def test_used_tokens_and_fenced_nodes_stay_so_over_a_restart_of_the_head(tmp_path: Path) -> None:
    directory = str(tmp_path / "credentials")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    head = _nodes.start(port=port, tls=True, credentials=directory, **OPTIONS)
    try:
        token = f"{directory}/once"
        _credentials.make("join", credentials=directory, valid_s=600, single_use=True, output=token)
        joined = _nodes.start(address=head.tcp, token_file=token, **OPTIONS)
        with pytest.raises(af.ClusterStartError, match="was for a single use, and was used"):
            _nodes.start(address=head.tcp, token_file=token, **OPTIONS)
        with af.init(address=head.tcp):
            lost = next(row["node_id"] for row in af.sync(af.state.list_nodes()) if f":{joined.tcp}/" in row["address"])
            os.killpg(joined.pid, signal.SIGKILL)
            assert until(lambda: states() != ["alive", "alive"], 30)
        assert until(lambda: not CredentialDir(directory).load_admitted()[1].admits(lost, 1), 10)
        os.kill(head.pid, signal.SIGTERM)
        os.waitpid(head.pid, 0)
        head = _nodes.start(port=port, tls=True, credentials=directory, **OPTIONS)
        with pytest.raises(af.ClusterStartError, match="was for a single use, and was used"):
            _nodes.start(address=head.tcp, token_file=token, **OPTIONS)
        target = Target([head], True)
        key = Root.of(target.secrets.current, KeyKind.NODE).key()
        security = target.security(Role.NODE, lost, key, target.certified(f"node/{lost}"), incarnation=1)
        assert "was replaced by a newer one, or removed" in target.knock("head", security)
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)


def test_a_node_stays_when_the_head_is_started_again(tmp_path: Path) -> None:
    """The same directory, so the same secret and the same authority: who was in is in."""
    directory = str(tmp_path / "credentials")
    head = _nodes.start(port=0, tls=True, credentials=directory, **OPTIONS)
    try:
        joined = _nodes.start(address=head.tcp, **OPTIONS)
        os.kill(head.pid, signal.SIGTERM)
        os.waitpid(head.pid, 0)
        again = _nodes.start(port=int(head.tcp.rpartition(":")[2]), tls=True, credentials=directory, **OPTIONS)
        with af.init(address=again.tcp):
            assert until(lambda: states() == ["alive", "alive"], 30)
        with af.init(address=joined.tcp):
            assert states() == ["alive", "alive"]
    finally:
        _nodes.stop()


def test_what_was_admitted_and_cannot_be_read_is_no_reason_to_forget_it(tmp_path: Path) -> None:
    directory = CredentialDir(str(tmp_path / "credentials"))
    directory.create("c", wall_time=1e9)
    with open(directory.admitted, "w") as file:
        file.write("{")
    os.chmod(directory.admitted, 0o600)
    with pytest.raises(af.ClusterStartError, match="used tokens and removed nodes would be admitted again"):
        _nodes.start(port=0, credentials=directory.path, **OPTIONS)
