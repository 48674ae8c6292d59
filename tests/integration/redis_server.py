"""A Redis of the tests' own: Debian's redis-server, from the system or from where `make test` has unpacked it (tests/get_redis.sh)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

UNPACKED = Path(sys.prefix) / "redis"
READY_S = 10.0


def environment() -> dict[str, str]:
    """With the libraries that were unpacked beside it."""
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in UNPACKED.glob("usr/lib/*"))}


def binary() -> str:
    """Its path. Skips the test where there is none that runs."""
    found = shutil.which("redis-server") or shutil.which("redis-server", path=str(UNPACKED / "usr" / "bin"))
    if found is None:
        pytest.skip("no redis-server here, and it could not be fetched with apt-get")
    if subprocess.run([found, "--version"], env=environment(), capture_output=True, check=False).returncode:
        pytest.skip(f"{found} does not run on this system")
    return found


class RedisServer:
    """One that keeps all it is told in a directory, and can be killed and started again. It listens on loopback with a password."""

    PASSWORD = "of-the-tests"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.password_file = directory / "password"
        self.password_file.write_text(self.PASSWORD + "\n")
        self.settings: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return when it answers. At the same port as before."""
        program = binary()
        for _ in range(10):
            port = self.port or free_port()
            command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
            command += ["--loglevel", "warning"]
            command += ["--appendonly", "yes", "--appendfsync", "always", "--requirepass", self.PASSWORD, *self.settings]
            with open(self.directory / "redis.log", "ab") as log_file:
                process = subprocess.Popen(command, stdout=log_file, stderr=log_file, env=environment())
            if answers(process, port):
                self._process, self.port = process, port
                return
        raise AssertionError((self.directory / "redis.log").read_text())

    def close(self) -> None:
        """Kill it, as when its process dies; `start` begins it again with what it has written."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """False when it has ended: another one has the port."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(64):  # That a password is needed is an answer too.
                    return True
        except OSError:
            time.sleep(0.01)
    process.kill()
    process.wait()
    return False
