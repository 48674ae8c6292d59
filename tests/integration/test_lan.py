"""Hosts in network namespaces: they reach each other, cuts are silent and may go one way, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.lan import Lan, LanHost, problem

pytestmark = [
    pytest.mark.skipif(bool(problem()), reason=problem() or "there can be hosts"),
    pytest.mark.local_only("it makes hosts of its own"),
]

ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], 4711))
    print("ready", flush=True)
    while True:
        data, sender = sock.recvfrom(100)
        print(data.decode(), flush=True)
        sock.sendto(data, sender)
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(float(sys.argv[3]))
    sock.sendto(sys.argv[2].encode(), (sys.argv[1], 4711))
    try:
        print(sock.recvfrom(100)[0].decode())
    except TimeoutError:
        print("nothing")
"""


def traces() -> set[str]:
    """Namespaces and devices that this process has made: others on this machine may have some too."""
    ours = f"af{os.getpid() % 1_000_000:x}"
    devices = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    spaces = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    names = [line.split(":")[1].strip() for line in devices.splitlines()]
    return {name for name in [*spaces, *names] if name.startswith(ours)}


@pytest.fixture
def lan() -> Iterator[Lan]:
    before = traces()
    with Lan(3) as lan:
        yield lan
    assert traces() == before


def echo_on(host: LanHost) -> subprocess.Popen[str]:
    process = host.start([sys.executable, "-c", ECHO, host.address], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ask(host: LanHost, other: LanHost, word: str, wait_s: float = 10.0) -> str:
    return host.run([sys.executable, "-c", ASK, other.address, word, str(wait_s)]).strip()


def test_hosts_reach_each_other_until_they_are_cut_one_way_or_both(lan: Lan) -> None:
    a, b, c = lan.hosts
    echo = echo_on(a)
    assert echo.stdout is not None
    assert ask(b, a, "first") == "first"
    assert echo.stdout.readline() == "first\n"
    lan.cut(a, b)  # The answer does not arrive, the question does.
    assert ask(b, a, "second", 0.3) == "nothing"
    assert echo.stdout.readline() == "second\n"
    assert ask(c, a, "of another") == "of another"
    assert echo.stdout.readline() == "of another\n"
    lan.heal()
    lan.cut(b, a)
    assert ask(b, a, "lost", 0.3) == "nothing"
    lan.heal()
    assert ask(b, a, "third") == "third"
    assert echo.stdout.readline() == "third\n", "what was lost on the way is lost"


def test_a_part_of_the_hosts_is_cut_off(lan: Lan) -> None:
    a, b, c = lan.hosts
    echo_on(a)
    echo_on(b)
    lan.part([a])
    assert ask(b, a, "x", 0.3) == ask(c, a, "x", 0.3) == "nothing"
    assert ask(c, b, "x") == "x"
    lan.heal()
    assert ask(c, a, "x") == "x"


def test_what_was_started_ends_with_the_hosts() -> None:
    with Lan(1) as lan:
        process = echo_on(lan.hosts[0])
        assert process.poll() is None
    assert process.returncode is not None


def test_what_a_process_has_not_read_when_it_ended_keeps_no_host() -> None:
    before = traces()
    with Lan(1) as lan:
        process = lan.hosts[0].start(["true"], stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.wait(10) == 0
        process.stdin.write(b"a line that waits in the buffer of the pipe\n")
    assert traces() == before


@pytest.mark.parametrize("number", [0, 101])
def test_too_many_or_none(number: int) -> None:
    before = traces()
    with pytest.raises(SimulationMisuse, match="1 to 100 are possible"):
        Lan(number)
    assert traces() == before


SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 4712)) as sock:
    begun = time.perf_counter()
    sock.sendall(bytes(int(sys.argv[2])))
    sock.recv(1)
    print(time.perf_counter() - begun)
"""
TAKE = """
import socket, sys
with socket.create_server((sys.argv[1], 4712)) as listener:
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        left = int(sys.argv[2])
        while left:
            left -= len(sock.recv(1 << 20))
        sock.sendall(b"!")
"""


def test_a_limited_cable_carries_no_more_in_either_direction(lan: Lan) -> None:
    size, megabits = 4_000_000, 80
    lan.limit(8_000)
    lan.limit(megabits)  # The newest word counts.
    for taker, sender in (lan.hosts[:2], lan.hosts[1::-1]):
        process = taker.start([sys.executable, "-c", TAKE, taker.address, str(size)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        seconds = float(sender.run([sys.executable, "-c", SEND, taker.address, str(size)]))
        # 0.4 s; less what a cable takes at once.
        assert seconds > 0.3, f"{size} bytes took {seconds:.2f} s over {megabits} Mbit/s"


@pytest.mark.parametrize("megabits", [0, -1, float("nan")])
def test_a_cable_carries_something(lan: Lan, megabits: float) -> None:
    with pytest.raises(SimulationMisuse, match="give more than 0"):
        lan.limit(megabits)
