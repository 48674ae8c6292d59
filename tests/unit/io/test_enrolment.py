"""EN-1 and EN-2: the asking side of enrolment, against a desk that does as the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actorflow._core.base.errors import ActorflowError, ClusterConnectionError
from actorflow._core.io import enrolment as module
from actorflow._core.io.enrolment import Enrolment
from actorflow._core.io.local_network import LocalNetwork
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.real import real_ports
from actorflow._core.protocol.messages import AnyMessage, ClusterKeys, Enrol, Enrolled, NodeInfo
from actorflow._core.protocol.session import Identity

ADDRESS = "local:desk"


class Desk:
    """Keeps what it is asked; `answers` says what comes back."""

    def __init__(self, ports: Any) -> None:
        self._ports = ports
        self.asked: list[Enrol] = []
        self.peers: Peers | None = None
        self.callers: list[Peer] = []
        self.answers = True
        self.changed = asyncio.Event()

    async def open(self) -> None:
        self.peers = Peers(self._ports, Identity("head", "h", address=ADDRESS), self)
        await self.peers.listen(ADDRESS)

    def close(self) -> None:
        if self.peers is not None:
            self.peers.close()

    def peer_ready(self, peer: Peer) -> None:
        self.callers.append(peer)
        peer.send(ClusterKeys(b"authority"))

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        for message in messages:
            assert isinstance(message, Enrol)
            self.asked.append(message)
            self.changed.set()
            if self.answers:
                peer.send(Enrolled(message.number, b"for " + message.request, error="" if message.request != b"bad" else "it is bad"))

    def peer_lost(self, peer: Peer, reason: str) -> None:
        pass


class World:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ports = real_ports(loop, lock=False)
        self.ports.network = LocalNetwork(loop)
        self.desk = Desk(self.ports)
        self.keys: list[ClusterKeys] = []
        self.client = Enrolment(self.ports, Identity("node", "n"), ADDRESS, self.keys.append)

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.client.close()
        self.desk.close()
        await asyncio.sleep(0.01)


async def test_what_is_asked_is_answered_or_refused() -> None:
    async with World() as world:
        await world.desk.open()
        world.client.connect()
        first, second = await asyncio.gather(world.client.enrol("j1", b"one"), world.client.enrol("j2", b"two"))
        assert (first.certificate, second.certificate) == (b"for one", b"for two")
        with pytest.raises(ClusterConnectionError, match="gives no keys and certificates: it is bad"):
            await world.client.enrol("", b"bad")
        assert [keys.authorities for keys in world.keys] == [b"authority"]


async def test_a_desk_that_comes_late_is_found() -> None:
    async with World() as world:
        world.client.connect()
        asking = asyncio.create_task(world.client.enrol("", b"r"))
        await asyncio.sleep(0)
        await world.desk.open()
        assert (await asking).certificate == b"for r"


async def test_en_1_what_was_not_answered_is_asked_again() -> None:
    async with World() as world:
        await world.desk.open()
        world.desk.answers = False
        world.client.connect()
        asking = asyncio.create_task(world.client.enrol("", b"r"))
        async with asyncio.timeout(10):
            await world.desk.changed.wait()
        world.desk.answers = True
        world.desk.callers[0].close(abort=True)
        async with asyncio.timeout(10):
            assert (await asking).certificate == b"for r"
        assert [message.number for message in world.desk.asked] == [1, 1]


async def test_en_1_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        world.client.connect()
        with pytest.raises(ClusterConnectionError, match=r"cannot connect to local:desk.*waited 0\.1 s"):
            world.client.timeout_s = 0.1
            await world.client.enrol("", b"r")
        monkeypatch.setattr(module, "REQUESTS_MAX", 0)
        with pytest.raises(ClusterConnectionError, match="0 requests wait for it already"):
            await world.client.enrol()


async def test_what_is_given_up_fails_at_once() -> None:
    async with World() as world:
        world.client.connect()
        asking = asyncio.create_task(world.client.enrol())
        await asyncio.sleep(0)
        world.client.give_up(ActorflowError("they do not want us"))
        with pytest.raises(ClusterConnectionError, match="they do not want us"):
            await asking


async def test_en_2_a_closed_one_calls_no_more_and_can_begin_again() -> None:
    async with World() as world:
        world.client.connect()
        world.client.close()
        await world.desk.open()
        await asyncio.sleep(3 * module.RETRY_FIRST_S)
        assert world.desk.callers == []
        world.client.connect()
        assert (await world.client.enrol("", b"r")).certificate == b"for r"
        world.client.close()
        world.client.connect()
        assert (await world.client.enrol("", b"again")).certificate == b"for again"
        await asyncio.sleep(3 * module.RETRY_FIRST_S)
        assert len(world.desk.callers) == 2, "the end of the one that was closed is no reason for a third"


async def test_en_2_the_log_says_that_somebody_waits_but_not_at_every_try(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.001)
    async with World() as world:
        world.client._retry_s = 0.001
        world.client.timeout_s = 0.3
        world.client.connect()
        with pytest.raises(ClusterConnectionError):
            await world.client.enrol("", b"r")
    assert caplog.text.count("is waited for, and called again and again (up to 0.3 s): ") == 1


async def test_a_desk_that_says_something_else_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        await world.desk.open()
        world.client.connect()
        await world.client.enrol("", b"r")
        world.desk.callers[0].send(NodeInfo("x", "y", {}))
        async with asyncio.timeout(10):
            while not world.desk.callers[0].lost:
                await asyncio.sleep(0.01)
        assert "which a desk never says" in caplog.text
