"""Messages that come before this process knows its cluster, and the end of connections to a node that is gone."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from actorflow._core.base.errors import ObjectStoreFullError, SerializationError
from actorflow._core.io.peers import Peer
from actorflow._core.io.real import real_ports
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core


class Hesitates(Peer):
    """Between its messages another thread has a chance."""

    __slots__ = ()

    @property
    def lost(self) -> bool:
        time.sleep(0.001)
        return super().lost


def test_pe_1_early_messages_of_a_peer_are_not_overtaken_by_its_later_ones(runner: asyncio.Runner) -> None:
    """The welcome of the node comes on the protocol's thread, while the reader's takes what the peer goes on to say."""
    early, later = 5, 5

    async def scenario() -> None:
        for _ in range(5):
            ports = real_ports(asyncio.get_running_loop(), lock=True)
            core = Core(ports, Identity("worker", "w" * 16, "job", "", 0))
            caller = Hesitates(ports, core.identity, core, lambda peer: None, acceptor=True)
            handled, begun = list[int](), threading.Event()

            def handler(peer: Peer, message: Any, handled: list[int] = handled, begun: threading.Event = begun) -> None:
                handled.append(message.hold)
                begun.set()

            core._handlers[m.Release] = handler

            def read_on(core: Core = core, caller: Peer = caller, begun: threading.Event = begun) -> None:
                assert begun.wait(10)
                for number in range(early, early + later):
                    with core.lock:
                        core.messages_received(caller, [m.Release(number)])

            for number in range(early):
                core.messages_received(caller, [m.Release(number)])
            reader = threading.Thread(target=read_on)
            reader.start()
            core._know_cluster("node")
            await asyncio.to_thread(reader.join)
            assert handled == list(range(early + later))

    runner.run(scenario())


def test_what_was_asked_of_a_node_that_is_gone_ends_and_so_do_calls_to_its_workers(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        core = Core(ports, Identity("driver", "d" * 16, "job", "", 0))
        core.node = Peer(ports, core.identity, core, lambda peer: None, acceptor=False)
        for process_id, node_id in (("gone", ""), ("worker-there", "gone"), ("other", ""), ("worker-here", "other")):
            peer = core._by_process[process_id] = Peer(ports, core.identity, core, lambda peer: None, acceptor=False)
            peer.process_id, peer.node_id = process_id, node_id
        peers = dict(core._by_process)
        core._on_node_gone(peers["other"], m.NodeGone("gone", "no beat"))
        assert not any(peer.lost for peer in peers.values()), "only the node of this process says so"
        core._on_node_gone(core.node, m.NodeGone("gone", "no beat"))
        assert [process_id for process_id, peer in peers.items() if peer.lost] == ["gone", "worker-there"]

    runner.run(scenario())


class Sent(Peer):
    """A peer whose messages stay where a test can see them."""

    __slots__ = ()

    def sent(self) -> list[m.AnyMessage]:
        return list(self._out)


@pytest.mark.parametrize(
    ("message", "instead"),
    [
        (m.Reply(5, 1, m.Failed(b"", why="\udce9"), 7, None, [3], 9), lambda said: (said.seq, said.attempt, said.borrowed, said.hold)),
        (m.StreamItem(5, 1, 3, m.Failed(b"", why="\udce9"), 9), lambda said: (said.seq, said.attempt, said.index, said.hold)),
        (m.StreamEnd(5, 1, 3, m.Failed(b"", why="\udce9")), lambda said: (said.seq, said.attempt, said.count)),
    ],
)
def test_un_2_an_end_that_cannot_be_encoded_is_told_by_another_one(
    runner: asyncio.Runner, message: Any, instead: Callable[[Any], Any]
) -> None:
    async def scenario() -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        core = Core(ports, Identity("worker", "w" * 16, "job", "", 0))
        caller = Sent(ports, core.identity, core, lambda peer: None, acceptor=True)
        core.unsendable(caller, message, UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"))
        (said,) = caller.sent()
        assert type(said) is type(message)
        assert instead(said) == instead(message)
        error = core.error_of(said.error if isinstance(said, m.StreamEnd) else said.outcome)  # type: ignore[arg-type,union-attr]
        assert isinstance(error, SerializationError)
        assert "is no text that UTF-8 can carry" in str(error)
        encode([said])

    runner.run(scenario())


def test_un_2_the_end_of_an_actor_is_told_with_its_text_made_fit(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        core = Core(ports, Identity("worker", "w" * 16, "job", "", 0))
        node = Sent(ports, core.identity, core, lambda peer: None, acceptor=True)
        error = UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
        core.unsendable(node, m.ActorFailed("a", 1, m.ActorDied("init_failed", "no caf\udce9", m.Failed(b"x"))), error)
        assert node.sent() == [m.ActorFailed("a", 1, m.ActorDied("init_failed", "no caf\\udce9", m.Failed(b"x")))]

    runner.run(scenario())


class Unmapped:
    """An arena that this process has no room for."""

    size = 1 << 30

    def view(self, offset: int, size: int, *, writable: bool = False) -> memoryview:
        raise OSError(errno.ENOMEM, "the object store cannot be mapped")


def test_an_object_that_cannot_be_mapped_is_an_error_of_who_reads_it_and_is_not_held(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        core = Core(ports, Identity("driver", "d" * 16, "job", "", 0), Unmapped())  # type: ignore[arg-type]  # no more is asked of it
        core.node_id = "here"
        stored = m.Stored("here", 4096, 0, 200_000, b"", [(0, 10)])
        with pytest.raises(ObjectStoreFullError, match="195.3 KiB cannot be read: the object store cannot be mapped") as caught:
            core.store.read_own(stored)
        assert (caught.value.requested_bytes, caught.value.capacity_bytes) == (200_000, 1 << 30)
        core.store.drain()
        assert not core.store._viewed

    runner.run(scenario())
