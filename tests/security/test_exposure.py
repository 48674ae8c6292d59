"""What of a cluster is open to whom: a scan of every port, from the host itself and from another one; and a flood from one of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actorflow.testing.lan import problem
from tests.security.hosts import PORT, SIZES, Host, hosts
from tests.security.test_hosts import WORK

pytestmark = [pytest.mark.skipif(bool(problem()), reason=problem() or "there can be hosts"), pytest.mark.timeout(300)]
LISTENING = """
import json, socket
found = []
for name, family, size in (("tcp", socket.AF_INET, 4), ("tcp6", socket.AF_INET6, 16)):
    with open(f"/proc/net/{name}") as table:
        for line in list(table)[1:]:
            place, state = line.split()[1], line.split()[3]
            if state == "0A":
                host, _, port = place.partition(":")
                words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, 2 * size, 8)]
                found.append([socket.inet_ntop(family, b"".join(words)), int(port, 16)])
print(json.dumps(sorted(found)))
"""
"""What `ss -ltn` shows."""

SCAN = """
import json, selectors, socket, sys
address, found, waiting = sys.argv[1], [], selectors.DefaultSelector()
def look(timeout):
    for key, _ in waiting.select(timeout):
        if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            listened(key.fileobj, key.data)
        waiting.unregister(key.fileobj)
        key.fileobj.close()
def listened(sock, port):
    if sock.getsockname() != sock.getpeername():  # Else it has met itself: its own port is the one it looks at.
        found.append(port)
for port in range(1, 65536):
    sock = socket.socket()
    sock.setblocking(False)
    code = sock.connect_ex((address, port))
    if code == 0:
        listened(sock, port)
    elif code == 115:
        waiting.register(sock, selectors.EVENT_WRITE, port)
        if len(waiting.get_map()) >= 200:
            look(5)
        continue
    sock.close()
while waiting.get_map():
    look(5)
print(json.dumps(sorted(found)))
"""
LOCAL = """
import os, sys, time
import actorflow as af

@af.remote
def task():
    return 1

with af.init(num_cpus=1):
    assert af.sync(task()) == 1
    print("runs", flush=True)
    sys.stdin.read()
"""
SILENT = """
import socket, sys, time
socks = []
for _ in range(300):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((sys.argv[1], int(sys.argv[2])))
    socks.append(sock)
print("there", flush=True)
time.sleep(30)
"""


def scan(host: Host, address: str) -> list[int]:
    """The ports of an address that are open, as seen from a host."""
    found: list[int] = json.loads(host.python("-c", SCAN, address))
    return found


def listening(host: Host) -> list[list[object]]:
    """Where processes of a host listen."""
    found: list[list[object]] = json.loads(host.python("-c", LISTENING))
    return found


def test_a_default_cluster_has_no_port_at_all(short_path: Path) -> None:
    with hosts(2, short_path) as (a, b):
        process = a.lan.start(
            [sys.executable, "-c", LOCAL], env=a.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "runs\n"
        try:
            assert listening(a) == []
            assert scan(b, a.address) == []
        finally:
            process.stdin.close()
            process.wait(20)


def test_nodes_listen_on_loopback_unless_told_otherwise(short_path: Path) -> None:
    with hosts(2, short_path) as (a, b):
        a.actorflow("start", "--head", "--num-cpus", "1", *SIZES)
        a.drive(f"127.0.0.1:{PORT}", "async def main(): return await where()")
        assert listening(a) == [["127.0.0.1", PORT]]
        assert scan(b, a.address) == []


def test_a_cluster_of_several_hosts_has_one_port_on_each(short_path: Path) -> None:
    with hosts(2, short_path) as (a, b):
        a.head()
        b.join(a, ACTORFLOW_TOKEN=a.token("join"))
        b.drive(b.place, WORK.replace("NODES", "2"))
        assert [listening(host) for host in (a, b)] == [[[host.address, PORT]] for host in (a, b)]


def test_nothing_listens_for_other_hosts_without_an_authority(short_path: Path) -> None:
    with hosts(1, short_path) as (a,):
        a.head("--credentials", str(a.home / "c"))
        a.stop()
        (a.home / "c" / "authority.key").unlink()
        said = a.refused("start", "--head", "--host", a.address, "--credentials", str(a.home / "c"), *SIZES)
        assert "cannot speak TLS, and without it will not listen where other hosts may reach it" in said


@pytest.mark.slow
def test_a_flood_from_one_host_leaves_room_for_others(short_path: Path) -> None:
    with hosts(3, short_path) as (a, b, flood):
        a.head()
        b.join(a, ACTORFLOW_TOKEN=a.token("join"))
        client = a.token("client")
        process = flood.lan.start([sys.executable, "-c", SILENT, a.address, str(PORT)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        begun = time.monotonic()
        assert len(set(b.drive(b.place, WORK.replace("NODES", "2"))["places"])) == 2
        assert time.monotonic() - begun < 30
        process.kill()
        flood.drive(a.place, "async def main(): return await where()", ACTORFLOW_TOKEN=client)


@pytest.mark.slow
def test_where_to_listen_and_what_to_tell_others(short_path: Path) -> None:
    """`0.0.0.0` is where a node listens, and no address that others can use: they are told one."""
    with hosts(3, short_path) as (a, b, c):
        said = a.refused("start", "--head", "--host", "0.0.0.0", *SIZES)
        assert "there is no way to 192.0.2.1" in said and "--advertise-host" in said
        a.actorflow("start", "--head", "--host", "0.0.0.0", "--advertise-host", a.address, "--num-cpus", "1", *SIZES)
        token = a.token("join")
        b.join(a, "--host", "0.0.0.0", ACTORFLOW_TOKEN=token)
        c.join(a, ACTORFLOW_TOKEN=token)
        assert len(set(c.drive(c.place, WORK.replace("NODES", "3"))["places"])) == 3
