"""Links whose connections break at one certain moment, which no proxy hits at will.

Random moments over real sockets: test_lasting_tcp.py; under virtual time: tests/sim/test_links.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable

import pytest

from actorflow._core.io import lasting_peers
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Listener, Ports, Stream, StreamHandler
from actorflow._core.io.socket_stream import HangupWatch, SocketStream
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.links import LinkSession
from actorflow._core.protocol.messages import AnyMessage, Cancel
from actorflow._core.protocol.session import Identity

SERVER = Identity("worker", "server", "job-1")


class Script:
    """A network whose server lets each connection live as long as `holds` says of its number, the first being 1."""

    def __init__(self, holds: Callable[[int], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hangups = HangupWatch(self._loop)
        self._holds = holds
        self.ends: list[socket.socket] = []
        self.served: set[asyncio.Task[None]] = set()

    def lasts(self, address: str) -> bool:
        return True

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        raise AssertionError("nobody listens here")

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        near, far = socket.socketpair()
        for end in near, far:
            end.setblocking(False)
        self.ends.append(far)
        stream = SocketStream(self._loop, near, self._hangups)
        stream.start(handler)
        self.served.add(self._loop.create_task(self._serve(far, len(self.ends))))
        return stream

    async def _serve(self, far: socket.socket, number: int) -> None:
        """Welcome it, and answer each message; or be gone before the other side has read that it is welcome."""
        session = LinkSession(SERVER, acceptor=True)
        with far:
            while data := await self._loop.sock_recv(far, 65536):
                messages = session.receive(data)
                await self._loop.sock_sendall(far, session.outgoing() + (encode(messages) if messages else b""))
                if not self._holds(number):
                    return


class Client:
    """A PeerHandler that says one thing as soon as it may."""

    def __init__(self, network: Script) -> None:
        loop = asyncio.get_running_loop()
        ports = Ports(loop, network, random.Random(7), time.monotonic, time.time, contextlib.nullcontext(), lambda: True)
        self.peers = Peers(ports, Identity("worker", "client", "job-1"), self)
        self.peer = self.peers.connect("tcp:server:1/server", "server")
        self.got: list[AnyMessage] = []
        self.lost: list[str] = []
        self.news = asyncio.Event()

    def peer_ready(self, peer: Peer) -> None:
        peer.send(Cancel(1, 1))

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        self.got += messages
        self.news.set()

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append(reason)
        self.news.set()

    async def end(self, network: Script) -> None:
        self.peers.close(abort=True)
        async with asyncio.timeout(10):
            await asyncio.gather(*network.served, return_exceptions=True)


async def test_lp2_a_connection_that_breaks_as_soon_as_it_is_back_is_made_again() -> None:
    network = Script(lambda number: number == 4)
    client = Client(network)
    async with asyncio.timeout(10):
        await client.news.wait()
    assert client.lost == []
    assert client.got == [Cancel(1, 1)]
    assert len(network.ends) == 4
    await client.end(network)


async def test_lp2_connections_that_never_stay_end_the_link_after_the_time_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_peers, "MEND_S", 0.5)
    network = Script(lambda number: False)
    client = Client(network)
    async with asyncio.timeout(10):
        await client.news.wait()
    assert "not back within 0.5 s" in client.lost[0]
    assert client.got == []
    assert len(network.ends) > 3
    await client.end(network)
    assert len(client.lost) == 1
