"""A node that begins again: what is true at the moment when its first image ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorflow._core.boot.session_dir import SessionDir, create_session_dir, find_all

BEGIN = """
import json, os, sys, time
from actorflow._core.boot import second_life
from actorflow._core.boot.cluster_node import ClusterNodeConfig
from actorflow._core.boot.session_dir import find_all
from actorflow._core.security.keys import KeyId
from actorflow._core.security.roles import KeyKind
from actorflow._core.security import tokens

class Stop(BaseException):
    pass

def execv(path, arguments):
    config = json.loads(arguments[-1])
    found = [node._asdict() for node in find_all([sys.argv[1]], joining=True)]
    open(sys.argv[2], "w").write(json.dumps({"config": config, "found": found, "inherited": os.get_inheritable(config["lock_fd"])}))
    raise Stop

os.execv = execv
second_life.parse_token = lambda *args: None
second_life.join_ticket.of_token = lambda token: b"a ticket"
config = ClusterNodeConfig("gone", "10.0.0.1", "10.0.0.1", 6380, "10.0.0.2:6380", True, "", 1.0, {}, 0, -1, -1, {})
try:
    second_life.begin_again(config, 6380, "10.0.0.1:6380", "a token")
except Stop:
    pass
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Not pytest's own: its names are too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="af-") as directory:
        yield Path(directory)


def test_ba_3_who_ends_nodes_finds_it_before_its_first_image_is_gone(home: Path) -> None:
    out = home / "seen"
    env = {**os.environ, "ACTORFLOW_TMPDIR": str(home)}
    process = subprocess.Popen([sys.executable, "-c", BEGIN, str(home), str(out)], env=env)
    assert process.wait(30) == 0
    seen = json.loads(out.read_text())
    [node] = seen["found"]
    assert (node["pid"], node["tcp"], node["head"], node["address"]) == (process.pid, "10.0.0.1:6380", "10.0.0.2:6380", "")
    assert seen["config"]["session_dir"] == node["path"]
    assert seen["inherited"]
    SessionDir(node["path"]).remove()  # Its sockets would be in /dev/shm, and stay there.


def test_a_lock_that_was_handed_on_is_held_by_the_next_image(home: Path) -> None:
    first = create_session_dir("abc", [str(home)])
    first.hold_lock()
    first.publish("", tcp="10.0.0.1:6380")
    fd = first.hand_lock_on()
    second = SessionDir(first.path)
    second.take_lock_over(fd)
    assert not os.get_inheritable(fd)
    assert [node.path for node in find_all([str(home)], joining=True)] == [first.path]
    second.remove()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert find_all([str(home)], joining=True) == []
