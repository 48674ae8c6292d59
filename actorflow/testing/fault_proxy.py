"""A TCP proxy that harms what passes through it: delay, jitter, a narrow line, cuts and resets, for tests of real processes.

    proxy = FaultProxy("127.0.0.1", port, seed=7)
    async with proxy:                               # connect to proxy.port instead of port
        proxy.shape(delay_s=0.001, jitter_s=0.001)
        ...
        proxy.cut()                                 # nothing arrives any more, and nobody is told
        proxy.heal()                                # what was sent meanwhile arrives
        proxy.reset()                               # every connection ends with a reset

It works on connections, so it needs no privilege and no module of the kernel. What it cannot do is lose single packets: TCP would not show
that either, but as delay. For cuts below TCP see `actorflow.testing.lan`.

    FP-1  Bytes arrive whole and in order, or the connection ends: jitter never reorders.
    FP-2  At most HELD_BYTES_MAX of a direction are held here; then the sender feels it, as on a line that is full.
    FP-3  The same seed gives the same delays for the same pieces. When a piece is read is up to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import deque
from typing import Literal, Self

HELD_BYTES_MAX = 1 << 20
PIECE_BYTES = 64 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: a close is a reset."""

Direction = Literal["there", "back", "both"]


class _Line:
    """One direction: how slow it is, and whether it is cut."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s: float | None = None
        self.whole = asyncio.Event()
        self.whole.set()


class FaultProxy:
    """See the module. All methods on one loop. Raises OSError from `start` when the port cannot be had."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self._target = (host, port)
        self._rng = random.Random(seed)
        self._lines = {"there": _Line(), "back": _Line()}
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self.host = ""
        self.port = 0
        """Where to connect, once started."""
        self.refuses = False
        """New connections are reset at once."""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, on any free port unless told otherwise; return the port."""
        self._server = await asyncio.start_server(self._accepted, host, port, limit=PIECE_BYTES)
        self.host, self.port = self._server.sockets[0].getsockname()[:2]
        return self.port

    async def stop(self) -> None:
        """Stop listening, and reset what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        links = list(self._links)
        self.reset()
        await asyncio.gather(*links, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    # -- harm

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def shape(
        self, *, delay_s: float = 0.0, jitter_s: float = 0.0, bytes_per_s: float | None = None, direction: Direction = "both"
    ) -> None:
        """How slow the line is from now on: each piece takes `delay_s` and up to `jitter_s` more, and `bytes_per_s` go through.

        Raises ValueError for what no line is.
        """
        if delay_s < 0 or jitter_s < 0 or (bytes_per_s is not None and bytes_per_s <= 0):
            given = f"delay_s={delay_s}, jitter_s={jitter_s}, bytes_per_s={bytes_per_s}"
            raise ValueError(f"{given}: delays are 0 or more, a rate is more than 0")
        for line in self._of(direction):
            line.delay_s, line.jitter_s, line.bytes_per_s = delay_s, jitter_s, bytes_per_s

    def cut(self, direction: Direction = "both") -> None:
        """Nothing arrives any more; connections stay open, and new ones are taken and lead nowhere."""
        for line in self._of(direction):
            line.whole.clear()

    def heal(self, direction: Direction = "both") -> None:
        """What was sent meanwhile arrives."""
        for line in self._of(direction):
            line.whole.set()

    def reset(self) -> None:
        """End every connection with a reset, on both sides."""
        for task, writers in self._links.items():
            for writer in writers:
                _reset(writer)
            task.cancel()

    def _of(self, direction: Direction) -> list[_Line]:
        if direction not in ("there", "back", "both"):
            raise ValueError(f"direction={direction!r}: 'there' (to the target), 'back' and 'both' are right")
        return [line for name, line in self._lines.items() if direction in (name, "both")]

    # -- one connection

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = [writer]
        try:
            if not self.refuses:
                await self._carry(task, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # The target is not there, or `reset` has ended it: both sides see that.
        except BaseExceptionGroup as group:
            if unexpected := group.split(OSError)[1]:  # An end of either side that is none in order: the other one sees a reset.
                raise unexpected from None
        finally:
            for each in self._links.pop(task):
                _reset(each)

    async def _carry(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._lines["there"].whole.wait()
        target_reader, target_writer = await asyncio.open_connection(*self._target, limit=PIECE_BYTES)
        self._links[task].append(target_writer)
        for each in (writer, target_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(self._lines["there"], reader, target_writer))
            group.create_task(self._pass(self._lines["back"], target_reader, writer))
        for each in (writer, target_writer):
            each.close()
            await each.wait_closed()

    async def _pass(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: deque[tuple[float, bytes]] = deque()
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(line, reader, pieces, changed))
            await self._write(line, pieces, changed, writer)

    async def _read(
        self, line: _Line, reader: asyncio.StreamReader, pieces: deque[tuple[float, bytes]], changed: asyncio.Event
    ) -> None:
        """Take what comes, with the time at which it may arrive; nothing is the end."""
        now = asyncio.get_running_loop().time
        last, data = 0.0, b"-"
        while data:
            while sum(len(piece) for _, piece in pieces) >= HELD_BYTES_MAX:  # FP-2
                changed.clear()
                await changed.wait()
            data = await reader.read(PIECE_BYTES)
            last = max(last, now() + line.delay_s + self._rng.random() * line.jitter_s)  # FP-1
            pieces.append((last, data))
            changed.set()

    async def _write(
        self, line: _Line, pieces: deque[tuple[float, bytes]], changed: asyncio.Event, writer: asyncio.StreamWriter
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            while not pieces:
                changed.clear()
                await changed.wait()
            due, data = pieces[0]
            if due > now():
                await asyncio.sleep(due - now())
            await line.whole.wait()
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()
            if line.bytes_per_s is not None:
                await asyncio.sleep(len(data) / line.bytes_per_s)
            pieces.popleft()
            changed.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    if not transport.is_closing():
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
