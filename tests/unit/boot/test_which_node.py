"""boot/which_node.py: the node that an address names."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow._core.boot.session_dir import SessionDir, create_session_dir, find_all
from actorflow._core.boot.which_node import node_at, which_node


@pytest.fixture
def home() -> Iterator[str]:
    """With a short name: that of a socket has to fit behind it."""
    with tempfile.TemporaryDirectory(prefix="afw-") as path:
        yield path


@pytest.fixture
def node(home: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionDir]:
    """A node that listens on 127.0.0.1:7001, as its session directory says, and has joined 10.0.0.1:6380."""
    monkeypatch.setenv("ACTORFLOW_TMPDIR", home)
    for name in ("ACTORFLOW_TOKEN", "ACTORFLOW_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    session = create_session_dir("aa")
    session.hold_lock()
    session.publish(session.node_address, tcp="127.0.0.1:7001", head="10.0.0.1:6380")
    yield session
    session.remove()


def test_wn_1_every_name_of_its_address_means_the_node(node: SessionDir) -> None:
    for address in ("auto", "127.0.0.1:7001", "localhost:7001", "10.0.0.1:6380", node.path, node.node_address):
        assert which_node(address).address == node.node_address
        found = which_node(address).node
        assert found is not None
        assert found.path == node.path


def test_wn_1_a_node_that_has_joined_there_is_not_the_node_there(node: SessionDir) -> None:
    assert node_at("10.0.0.1:6380", find_all()) is None
    assert node_at("localhost:7001", find_all()) is not None


def test_wn_2_what_is_no_address_is_said_as_that(node: SessionDir) -> None:
    for wrong in ("127.0.0.1:http", "127.0.0.1:99999", "::1:7001", ":7001"):
        with pytest.raises(af.ClusterConnectionError, match=r"is no address of a node. Give HOST:PORT"):
            which_node(wrong)
    with pytest.raises(af.ClusterConnectionError, match=r"address='head': expected \"auto\", HOST:PORT, or the directory"):
        which_node("head")


def test_wn_2_a_name_that_does_not_resolve_is_said_as_that(node: SessionDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(af.ClusterConnectionError, match=r"nohost cannot be used: the name does not resolve \(Name or service not known\)"):
        which_node("nohost:6380")


def test_wn_2_where_nothing_was_found_it_says_where_it_looked(node: SessionDir, home: str) -> None:
    looked = rf"127\.0\.0\.1:7001; looked in {home}, as ACTORFLOW_TMPDIR says\)"
    with pytest.raises(af.ClusterConnectionError, match=rf"listens at 127\.0\.0\.1:1 on this host \(there are: {looked}"):
        which_node("127.0.0.1:1")
    node.remove()
    with pytest.raises(af.ClusterConnectionError, match=r"no actorflow cluster of this user runs on this host; looked in /.* says; start"):
        which_node("auto")


def test_wn_2_a_node_that_waits_for_its_head_is_named(node: SessionDir) -> None:
    node.publish("", tcp="127.0.0.1:7001", head="10.0.0.1:6380")
    with pytest.raises(af.ClusterConnectionError, match=rf"\(pid {os.getpid()}\) waits here for its head at 10\.0\.0\.1:6380; start"):
        which_node("auto")


def test_wn_3_the_newest_node_that_does_not_stand_still_is_taken(node: SessionDir, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = create_session_dir("bb")
    try:
        newer.hold_lock()
        newer.publish(newer.node_address, tcp="127.0.0.1:7002", head="10.0.0.1:6380")
        assert which_node("auto").address == newer.node_address
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            said = json.loads(Path(newer.path, "session.json").read_text())
            Path(newer.path, "session.json").write_text(json.dumps({**said, "pid": other.pid}))
            assert which_node("auto").address == newer.node_address
            other.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, other.pid, os.WSTOPPED)
            assert which_node("auto").address == node.node_address
            node.remove()
            assert which_node("auto").address == newer.node_address, "there is no other"
            other.kill()
    finally:
        newer.remove()
