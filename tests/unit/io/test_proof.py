"""PE-2: between machines a peer is what it has proven to be, whatever it says."""

from __future__ import annotations

import asyncio

import pytest

from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Proof
from actorflow._core.io.real import real_ports
from actorflow._core.io.sockets import UnixNetwork
from actorflow._core.protocol.session import Identity


class Handler:
    def __init__(self) -> None:
        self.ready: list[Peer] = []
        self.lost: list[str] = []
        self.changed = asyncio.Event()

    def peer_ready(self, peer: Peer) -> None:
        self.ready.append(peer)
        self.changed.set()

    def messages_received(self, peer: Peer, messages: list[object]) -> None:
        raise AssertionError(messages)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append(reason)
        self.changed.set()


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (Proof("worker", "w1", "job"), ""),
        (Proof("worker", "w1", ""), ""),
        (Proof("worker", "w2", "job"), "it says that it is worker w1, and has proven to be worker w2"),
        (Proof("driver", "w1", "job"), "has proven to be driver w1"),
        (Proof("worker", "w1", "another"), "it says that it belongs to job job, and has the key of job another"),
    ],
)
def test_pe_2_a_peer_is_what_it_has_proven_to_be(runner: asyncio.Runner, directory: object, proof: Proof, words: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ports = real_ports(loop, lock=False)
        ports.network = UnixNetwork(loop)
        called, caller = Handler(), Handler()
        address = f"unix:{directory}/a.sock"
        server = Peers(ports, Identity("node", "n1", address=address), called)  # type: ignore[arg-type]
        accept = server._accept
        server._accept = lambda stream: (setattr(stream, "proof", proof), accept(stream))[1]  # type: ignore[method-assign]
        await server.listen(address)
        client = Peers(ports, Identity("worker", "w1", "job"), caller)  # type: ignore[arg-type]
        client.connect(address)
        async with asyncio.timeout(10):
            await called.changed.wait()
        if words:
            assert called.ready == []
            assert words in called.lost[0]
            async with asyncio.timeout(10):
                while not caller.lost:
                    await asyncio.sleep(0.01)
        else:
            assert [peer.process_id for peer in called.ready] == ["w1"]
        client.close()
        server.close()
        await asyncio.sleep(0.05)

    runner.run(scenario())
