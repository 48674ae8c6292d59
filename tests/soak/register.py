"""A register outside of the cluster: whoever acts writes it down here, and afterwards anybody can see who acted when.

    python -m tests.soak.register HOST PORT FILE

It takes lines of JSON over TCP, answers each when it is in the file, and puts the moment of its arrival beside it. All hosts of a test can
reach it at any time, so that what it has not seen has not happened. It refuses nothing: it is to show what a fence would have refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from typing import IO, Any, NamedTuple

WRITE_TIMEOUT_S = 20.0


class Write(NamedTuple):
    """One line. `what`: born, act, or call. `life`: of the actor, counted from 1 in the order of births; 0 for a task."""

    at: float
    what: str
    name: str
    life: int
    seq: int
    call: str


class RegisterClient:
    """Writes from one process, each in the register when the method returns. From any thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._sock: socket.socket | None = None

    def born(self, name: str) -> int:
        """An actor begins a life: which one."""
        return self._write({"what": "born", "name": name})

    def act(self, name: str, life: int, seq: int) -> None:
        """It acts by itself."""
        self._write({"what": "act", "name": name, "life": life, "seq": seq})

    def call(self, name: str, life: int, seq: int, call: str) -> None:
        """A call runs."""
        self._write({"what": "call", "name": name, "life": life, "seq": seq, "call": call})

    def _write(self, line: dict[str, Any]) -> int:
        with self._lock:
            if self._file is None:
                host, _, port = self._address.rpartition(":")
                self._sock = socket.create_connection((host, int(port)), WRITE_TIMEOUT_S)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._file = self._sock.makefile("rb")
            assert self._sock is not None
            self._sock.sendall(json.dumps(line).encode() + b"\n")
            answer = self._file.readline()
        if not answer:
            raise ConnectionError(f"the register at {self._address} is gone: nothing that happens now can be judged")
        return int(answer)


_clients: dict[tuple[int, str], RegisterClient] = {}


def register_at(address: str) -> RegisterClient:
    """The one of this process."""
    key = os.getpid(), address
    if key not in _clients:
        _clients[key] = RegisterClient(address)
    return _clients[key]


def read_writes(text: str) -> list[Write]:
    """What is in the file, in the order of arrival."""
    return [Write(**json.loads(line)) for line in text.splitlines()]


class Register:
    """The server."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lives: dict[str, int] = {}

    def take(self, line: dict[str, Any]) -> int:
        """Keep one line; the answer to it."""
        now, name = time.monotonic(), line["name"]
        if line["what"] == "born":
            self._lives[name] = self._lives.get(name, 0) + 1
            line["life"] = self._lives[name]
        write = Write(now, line["what"], name, line["life"], line.get("seq", 0), line.get("call", ""))
        self._out.write(json.dumps(write._asdict()) + "\n")
        self._out.flush()
        return write.life

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while line := await reader.readline():
                if line.endswith(b"\n"):  # Otherwise its writer was killed in the middle, and nothing was written.
                    writer.write(b"%d\n" % self.take(json.loads(line)))
        except ConnectionError:
            pass  # Its process was killed.
        finally:
            writer.close()


async def main(host: str, port: int, path: str) -> None:
    """Serve until the process is killed."""
    with open(path, "w") as out:
        server = await asyncio.start_server(Register(out).serve, host, port)
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
