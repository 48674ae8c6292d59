"""Links whose connections break at one certain moment, which no proxy hits at will.

Random moments over real sockets: test_lasting_tcp.py; under virtual time: tests/sim/test_links.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
import time
from collections.abc import Callable

import pytest

from actorflow._core.io import lasting_peers
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Listener, Network, Ports, Stream, StreamHandler, Unwelcome
from actorflow._core.io.socket_stream import HangupWatch, SocketStream
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.framing import HEADER_BYTES
from actorflow._core.protocol.links import LinkSession
from actorflow._core.protocol.messages import AnyMessage, Cancel
from actorflow._core.protocol.session import Identity

SERVER = Identity("worker", "server", "job-1")
CLIENT = Identity("worker", "client", "job-1")


def ports_of(network: Network) -> Ports:
    loop = asyncio.get_running_loop()
    return Ports(loop, network, random.Random(7), time.monotonic, time.time, contextlib.nullcontext(), lambda: True)


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
        self.peers = Peers(ports_of(network), CLIENT, self)
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


async def test_pe3_frames_are_counted_right_when_a_message_cannot_be_encoded_and_the_connection_breaks() -> None:
    """What the ledger counts is what the other side has got: after a break nothing is missing and nothing comes twice."""
    network = Script(lambda number: number > 1)
    client = Client(network)
    unsendable: list[AnyMessage] = []
    client.unsendable = lambda peer, message, error: unsendable.append(message)  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        # The first connection ends when the server has answered once.
        await client.news.wait()
        for seq in (2, 10**30, 3):
            client.peer.send(Cancel(seq, 1))
        while len(client.got) < 3 and not client.lost:
            client.news.clear()
            await client.news.wait()
        client.peer.send(Cancel(4, 1))
        while len(client.got) < 4 and not client.lost:
            client.news.clear()
            await client.news.wait()
    assert client.lost == []
    assert client.got == [Cancel(seq, 1) for seq in (1, 2, 3, 4)]
    assert unsendable == [Cancel(10**30, 1)]
    ledger = client.peer._ledger  # type: ignore[attr-defined]
    assert ledger.sent == 4, "each message went in a frame of its own, and the one that was not sent is not counted"
    await client.end(network)


class Door:
    """A network that only accepts, and nobody can be asked over it."""

    accept: Callable[[Stream], StreamHandler]

    def __init__(self) -> None:
        self.says: list[Exception] = []
        """What becomes of the next who try to connect, in order; the last one stays."""
        self.tries = 0

    def lasts(self, address: str) -> bool:
        return True

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        self.accept = accept
        return Listening()

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        self.tries += 1
        if not self.says:
            raise TimeoutError("no answer")
        raise self.says.pop(0) if len(self.says) > 1 else self.says[0]


class Listening:
    def close(self) -> None:
        pass


class Accepted:
    """The server's end of a connection that never ends by itself, as one that the network has forgotten."""

    proof = None
    lasting = True

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def write(self, data: bytes | memoryview) -> None:
        self.written += data

    def buffered_bytes(self) -> int:
        return 0

    def when_taken(self, fn: Callable[[], None]) -> None:
        raise AssertionError("no chunks here")

    def hand_to(self, handler: StreamHandler) -> None:
        raise AssertionError("no chunks here")

    def share_reads(self) -> None:
        raise AssertionError("nobody reads here")

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


class Server:
    """A PeerHandler that remembers."""

    def __init__(self) -> None:
        self.door = Door()
        self.peers = Peers(ports_of(self.door), SERVER, self)
        self.ready: list[Peer] = []
        self.lost: list[tuple[Peer, str]] = []
        self.news = asyncio.Event()

    def peer_ready(self, peer: Peer) -> None:
        self.ready.append(peer)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        raise AssertionError("nothing that was said here can be understood")

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append((peer, reason))
        self.news.set()


@pytest.mark.parametrize("back", [False, True], ids=["stays away", "comes back"])
async def test_lp2_one_who_comes_back_and_speaks_nonsense_leaves_the_time_to_mend(back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_peers, "WAIT_S", 0.2)
    server = Server()
    await server.peers.listen("tcp:server:1/server")
    streams = [Accepted() for _ in range(3)]
    first, second, third = (server.door.accept(stream) for stream in streams)
    first.data_received(encode([CLIENT.hello("link", -1)]))
    [peer] = server.ready

    frame = encode([Cancel(1, 1)])
    nonsense = frame[:HEADER_BYTES] + b"\xc1" * (len(frame) - HEADER_BYTES)
    second.data_received(encode([CLIENT.hello("link", 0)]) + nonsense)
    assert streams[0].ended
    assert streams[1].ended
    assert [lost is peer for lost, _ in server.lost] == [False]
    if back:
        third.data_received(encode([CLIENT.hello("link", 0)]))
    server.news.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5 if back else 10):
            await server.news.wait()
    if back:
        assert not peer.lost
        assert not streams[2].ended
    else:
        assert [reason for lost, reason in server.lost if lost is peer] == ["replaced by another connection, and not back within 0.2 s"]
    assert server.ready == [peer]
    server.peers.close(abort=True)
    assert streams[2].ended


@pytest.mark.parametrize(
    ("says", "tries", "gone"),
    [
        ([ConnectionResetError("reset"), ConnectionRefusedError("refused")], 2, True),
        ([ConnectionResetError("reset")], len(lasting_peers.PROBES_S), False),
        ([Unwelcome("you are not let in")], 1, False),
    ],
    ids=["it dies while it is looked for", "it answers neither yes nor no", "it is there"],
)
async def test_lp2_whether_a_process_is_gone_is_looked_at_until_that_is_known(
    says: list[Exception], tries: int, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed closes one descriptor after the other: its connections may break before its door is shut."""
    wait_s = sum(lasting_peers.PROBES_S) + (60.0 if gone else 0.3)
    monkeypatch.setattr(lasting_peers, "WAIT_S", wait_s)
    server = Server()
    server.door.says = list(says)
    await server.peers.listen("tcp:server:1/server")
    client = dataclasses.replace(CLIENT, address="tcp:client:1/client")
    connection = server.door.accept(Accepted())
    connection.data_received(encode([client.hello("link", -1)]))
    [peer] = server.ready
    connection.connection_lost("reset by the peer")
    async with asyncio.timeout(10):
        await server.news.wait()
    assert server.lost == [(peer, "reset by the peer" if gone else f"reset by the peer, and not back within {wait_s:g} s")]
    assert server.door.tries == tries
    server.peers.close(abort=True)
