"""The floor of a call: length-prefixed pickles over a unix socket, uvloop at both ends, and nothing else.

Each call is pickled, framed and matched to a future of its own, each answer likewise; frames of one loop
tick leave in one write. No names, ownership, retries, cancellation or safety: what a framework adds to this
is its price.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Callable
from typing import Any

_PROTOCOL = pickle.HIGHEST_PROTOCOL


class _Framed(asyncio.Protocol):
    """Cuts the byte stream into frames and gathers outgoing ones until the end of the loop tick."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._rest = b""
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 4:
            stop = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if stop > end:
                break
            self.received(pickle.loads(data[at + 4 : stop]))
            at = stop
        self._rest = data[at:]

    def received(self, message: Any) -> None:
        raise NotImplementedError

    def send(self, message: Any) -> None:
        body = pickle.dumps(message, _PROTOCOL)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(len(body).to_bytes(4, "little"))
        self._out.append(body)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


class Client(_Framed):
    """The calling end."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._next = 0

    def call(self, name: str, *args: Any) -> asyncio.Future[Any]:
        """Call the server's function `name`; the future gets its result."""
        future = self._loop.create_future()
        number = self._next = self._next + 1
        self._calls[number] = future
        self.send((number, name, args))
        return future

    def received(self, message: tuple[int, Any]) -> None:
        number, value = message
        self._calls.pop(number).set_result(value)

    def close(self) -> None:
        self._transport.close()


class Server(_Framed):
    """The answering end: functions by name, `def` ones answered at once, `async def` ones when done."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self._functions = functions
        self._running: set[asyncio.Task[None]] = set()

    def received(self, message: tuple[int, str, tuple[Any, ...]]) -> None:
        number, name, args = message
        value = self._functions[name](*args)
        if inspect.iscoroutine(value):
            task = self._loop.create_task(self._answer_later(number, value))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            self.send((number, value))

    async def _answer_later(self, number: int, coroutine: Any) -> None:
        self.send((number, await coroutine))


async def connect(path: str) -> Client:
    """A client of the server that listens at `path`."""
    _, client = await asyncio.get_running_loop().create_unix_connection(Client, path)
    return client
