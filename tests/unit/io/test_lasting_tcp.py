"""Links over real sockets: a proxy resets the connections, and the conversation goes on (SEMANTICS 6).

Many seeds of it under virtual time: tests/sim/test_links.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actorflow._core.base.addresses import TcpAddress
from actorflow._core.io.gateway import Gateway
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Ports
from actorflow._core.io.tcp_network import TcpNetwork
from actorflow._core.protocol.messages import AnyMessage, Cancel
from actorflow._core.protocol.session import Identity
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import keyring_of
from actorflow._core.security.lobby import Lobby
from actorflow._core.security.roles import Role
from actorflow.testing.fault_proxy import FaultProxy
from tests.conformance.tcp_world import JOB, VERSION
from tests.unit.io.test_tcp import AUTHORITY, SECRET, security_of


class Side:
    """A PeerHandler that remembers, and sends back when it is told to."""

    def __init__(self, network: TcpNetwork, role: Role, *, answers: bool) -> None:
        self.ports = Ports(
            asyncio.get_running_loop(), network, random.Random(7), time.monotonic, time.time, contextlib.nullcontext(), lambda: True
        )
        name = role.name.lower()
        self.peers = Peers(self.ports, Identity(name, name, JOB), self)
        self.got: list[int] = []
        self.lost: list[str] = []
        self._answers = answers
        self.news = asyncio.Event()

    def peer_ready(self, peer: Peer) -> None:
        self.news.set()

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        for message in messages:
            assert isinstance(message, Cancel)
            self.got.append(message.seq)
            if self._answers:
                peer.send(message)
        self.news.set()

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append(reason)
        self.news.set()

    async def until_got(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.got) < count and not self.lost:
                self.news.clear()
                await self.news.wait()


class Talk:
    def __init__(
        self, client: Side, server: Side, proxy: FaultProxy, gateway: Gateway, door_address: str, refusals: asyncio.Queue[HandshakeRefused]
    ) -> None:
        self.client = client
        self.server = server
        self.proxy = proxy
        self.gateway = gateway
        self.peer = client.peers.connect(door_address, "worker")
        self.refusals = refusals
        """Of handshakes of the client."""


@asynccontextmanager
async def talk(*, tls: bool, lobby: Lobby | None = None) -> AsyncIterator[Talk]:
    loop = asyncio.get_running_loop()
    authority = AUTHORITY if tls else None
    ring = keyring_of([SECRET]).for_job(JOB)
    gateway = Gateway(loop, protocol_version=VERSION, tls=tls, lobby=lobby)
    port = await gateway.listen("127.0.0.1", 0)
    server = Side(TcpNetwork(loop, security_of(Role.WORKER, "worker", ring, authority), gateway.open_door), Role.WORKER, answers=True)
    refusals: asyncio.Queue[HandshakeRefused] = asyncio.Queue()
    network = TcpNetwork(loop, security_of(Role.DRIVER, "driver", ring, authority), None, on_refused=refusals.put_nowait)
    client = Side(network, Role.DRIVER, answers=False)
    proxy = FaultProxy("127.0.0.1", port, seed=1)
    await server.peers.listen(str(TcpAddress("127.0.0.1", port, "worker")))
    async with proxy:
        yield Talk(client, server, proxy, gateway, str(TcpAddress("127.0.0.1", proxy.port, "worker")), refusals)
        client.peers.close(abort=True)
        server.peers.close(abort=True)
        gateway.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_6_resets_lose_nothing_and_repeat_nothing(tls: bool) -> None:
    async with talk(tls=tls) as here:
        count = 0
        for step in range(8):
            for _ in range(200):
                here.peer.send(Cancel(count, 0))
                count += 1
                if count % 20 == 0:
                    await asyncio.sleep(0)
            if step:
                here.proxy.reset()
            await here.client.until_got(count - 150)
        await here.client.until_got(count)
        assert here.client.got == here.server.got == list(range(count))
        assert here.client.lost == here.server.lost == []


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_lp2_handshakes_that_are_cut_are_tried_again(tls: bool) -> None:
    async with talk(tls=tls) as here:
        here.peer.send(Cancel(0, 0))
        await here.client.until_got(1)
        here.proxy.refuses = True
        here.proxy.reset()
        here.peer.send(Cancel(1, 0))
        async with asyncio.timeout(5):
            for _ in range(3):
                await here.refusals.get()
        here.proxy.refuses = False
        await here.client.until_got(2)
        assert here.client.got == here.server.got == [0, 1]
        assert here.client.lost == here.server.lost == []


async def test_lp2_a_node_that_is_too_busy_is_asked_again() -> None:
    lobby = Lobby(total_max=1)
    async with talk(tls=True, lobby=lobby) as here:
        here.peer.send(Cancel(0, 0))
        await here.client.until_got(1)
        assert lobby.enter("somebody else")
        here.proxy.reset()
        here.peer.send(Cancel(1, 0))
        async with asyncio.timeout(5):
            while (await here.refusals.get()).code is not Code.BUSY:
                pass  # The proxy was quicker to end a connection than to pass the verdict on.
        lobby.leave("somebody else")
        await here.client.until_got(2)
        assert here.client.got == here.server.got == [0, 1]
        assert here.client.lost == here.server.lost == []


async def test_6_a_process_that_is_gone_is_told_at_once() -> None:
    async with talk(tls=True) as here:
        here.peer.send(Cancel(0, 0))
        await here.client.until_got(1)
        here.gateway.close()  # Its node is dead: nobody listens at the port any more.
        here.proxy.refuses = True
        await here.proxy.stop()
        begun = time.monotonic()
        await here.client.until_got(2)
        assert here.client.lost
        assert time.monotonic() - begun < 2.0


async def test_6_a_name_that_is_gone_is_told_at_once() -> None:
    async with talk(tls=False) as here:
        here.peer.send(Cancel(0, 0))
        await here.client.until_got(1)
        for listener in here.server.peers._listeners:
            listener.close()  # The worker is dead, and its node lives.
        here.proxy.reset()
        begun = time.monotonic()
        await here.client.until_got(2)
        assert here.client.lost
        assert time.monotonic() - begun < 2.0
