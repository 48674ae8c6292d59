"""The floor's rows of `benchmarks.cluster`: pickled echo calls over loopback TCP, uvloop at both ends; with `tls` under TLS 1.3.

With `serve` as argument it is the server, which says its port; else it is the driver and starts the server itself.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks import rows
from benchmarks.floor_tls import make_credentials, server_side
from benchmarks.systems.floor_wire import Client, Server
from benchmarks.systems.serve import AsyncStep, AsyncWorkload, claim_stdout, serve_async

TLS = "tls" in sys.argv


async def listen(folder: str) -> None:
    """Serve until stdin ends, which it does with the driver."""
    context = server_side(Path(folder)) if folder else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server({"echo": lambda *args: b"ok"}), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A server process and a connection to it."""
    with tempfile.TemporaryDirectory(prefix="floor-") as folder:
        context = make_credentials(Path(folder)) if TLS else None
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __spec__.name, "serve", *([folder] if TLS else []), stdin=PIPE, stdout=PIPE
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = int(await process.stdout.readline())
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Client, "127.0.0.1", port, ssl=context, server_hostname="" if TLS else None)
            yield connection
            connection.close()
        finally:
            process.stdin.close()
            await process.wait()


@asynccontextmanager
async def sequential() -> AsyncIterator[AsyncStep]:
    async with client() as server:

        async def step() -> None:
            await server.call("echo")

        yield step


@asynccontextmanager
async def pipelined() -> AsyncIterator[AsyncStep]:
    async with client() as server:

        async def step() -> None:
            for future in [server.call("echo") for _ in range(rows.BATCH)]:
                await future

        yield step


WORKLOADS: dict[str, AsyncWorkload] = {"cross_sync": sequential, "cross_async": pipelined}

if __name__ == "__main__":
    if "serve" in sys.argv:
        uvloop.run(listen(sys.argv[2] if len(sys.argv) > 2 else ""))
    else:
        uvloop.run(serve_async(WORKLOADS, claim_stdout()))
