"""Many connections that say nothing, or half of a preface, and stay: a program of its own, as it needs many descriptors.

    python -m tests.security.flood HOST PORT COUNT SOURCE...

It connects COUNT times from the addresses SOURCE in turn (any 127.x.y.z is one of this host), says "there", and keeps all of them open
until its standard input ends.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
from actorflow._core.security.wire import Preface

SPARE = 200
"""Descriptors for all else."""
CONNECT_S = 30.0


def problem(count: int) -> str:
    """Why there cannot be so many connections here; empty when there can."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard == resource.RLIM_INFINITY or hard >= count + SPARE
    return "" if enough else f"{count} connections need as many descriptors, and the limit is {hard} (ulimit -Hn)"


@contextlib.contextmanager
def flood(host: str, port: int, count: int, sources: list[str]) -> Iterator[None]:
    """Within this block the connections are there."""
    command = [sys.executable, "-m", "tests.security.flood", host, str(port), str(count), *sources]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"there\n"
            yield
        finally:
            process.stdin.close()


def main() -> None:
    host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sources = sys.argv[4:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    half = Preface("head", False, HANDSHAKE_PROTOCOL, time.time()).encode()[:32]
    socks = []
    for number in range(count):
        sock = socket.create_connection((host, port), CONNECT_S, (sources[number % len(sources)], 0))
        with contextlib.suppress(ConnectionError):  # It may have been turned away already.
            sock.sendall(half if number % 2 else b"")
        socks.append(sock)
    sys.stdout.write("there\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
