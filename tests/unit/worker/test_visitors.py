"""Peers of other jobs: what is heard of them, and what is not (VI-1 to VI-3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest

from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Proof
from actorflow._core.io.real import real_ports
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.calls import CallState
from actorflow._core.worker.core import Core
from actorflow._core.worker.visitors import MAY_SAY, is_of

OURS, THEIRS = "job-1", "job-2"
NOTHING = m.Inline(b"")


class Room:
    """A worker of one job, the peers that it has, and what it hears of them."""

    def __init__(self) -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        self.ports = ports
        self.core = Core(ports, Identity("worker", "w", OURS, "", 0))
        self.core.node_id = "node"
        self.heard: list[m.AnyMessage] = []
        for kind in MAY_SAY - {m.TurnedOut}:
            self.core._handlers[kind] = lambda peer, message: self.heard.append(message)

    def peer(self, process_id: str, proof: Proof | None) -> Peer:
        peer = Peer(self.ports, self.core.identity, self.core, lambda peer: None, acceptor=True)
        peer.process_id, peer.role, peer.proof = process_id, "worker", proof
        self.core.peer_ready(peer)
        return peer

    def member(self, process_id: str) -> Peer:
        return self.peer(process_id, Proof("worker", process_id, OURS, "JOB"))

    def visitor(self, process_id: str = "v", job_id: str = THEIRS) -> Peer:
        return self.peer(process_id, Proof("worker", process_id, job_id, "VISIT"))

    def says(self, peer: Peer, *messages: m.AnyMessage) -> list[m.AnyMessage]:
        """Which of them are heard."""
        self.heard.clear()
        peer._handler.messages_received(peer, list(messages))
        return list(self.heard)


def turned_out(peer: Peer) -> str:
    """What the peer is told; empty when it may stay."""
    said = [message.reason for message in peer._out if isinstance(message, m.TurnedOut)]
    return said[0] if said else ""


def in_room(runner: asyncio.Runner, scenario: Callable[[Room], None]) -> None:
    async def run() -> None:
        scenario(Room())
        await asyncio.sleep(0)

    runner.run(run())


def test_vi_1_only_what_is_on_the_list_is_heard(runner: asyncio.Runner, caplog: pytest.LogCaptureFixture) -> None:
    def scenario(room: Room) -> None:
        kinds = [kind for kind in get_args(m.AnyMessage) if kind not in MAY_SAY]
        assert {m.TaskCall, m.Define, m.CreateActor, m.HostActor, m.ActorExit, m.Shutdown, m.Leave, m.PassGiven} <= set(kinds)
        for kind in kinds:
            visitor = room.visitor(f"v-{kind.__name__}")
            message = kind(*([None] * sum(field.required for field in msgspec.structs.fields(kind))))
            assert room.says(visitor, m.Release(1), message, m.Release(2)) == [], "nor anything beside it"
            assert f"{kind.__name__} was refused" in turned_out(visitor)
            assert f"of job {THEIRS} is turned out: {kind.__name__} was refused" in caplog.text
            assert room.says(visitor, m.Release(3)) == [], "nor anything behind it"
        assert len(room.says(room.visitor(), m.Release(1), m.Fetch(1), m.Cancel(1, 0))) == 3

    in_room(runner, scenario)


def test_members_are_not_looked_at(runner: asyncio.Runner) -> None:
    def scenario(room: Room) -> None:
        assert room.member("m")._handler is room.core
        assert room.peer("same-host", None)._handler is room.core
        assert room.visitor()._handler is not room.core

    in_room(runner, scenario)


@pytest.mark.parametrize(
    "end", [m.Reply(0, 0, NOTHING, 1), m.StreamEnd(0, 0, 1), m.StreamItem(0, 0, 0, NOTHING), m.NotListening(0, 0, m.Failed(b""))]
)
def test_vi_2_it_ends_no_call_that_was_not_pushed_to_it(runner: asyncio.Runner, end: Any) -> None:
    def scenario(room: Room) -> None:
        visitor, member = room.visitor(), room.member("m")
        entry = room.core.references.owned.new()
        end.seq = entry.index
        for place, heard in ((SimpleNamespace(peer=member), []), (SimpleNamespace(), []), (SimpleNamespace(peer=visitor), [end])):
            entry.call = SimpleNamespace(attempt=0, state=CallState.PUSHED, place=place)  # type: ignore[assignment]
            assert room.says(visitor, end) == heard
        entry.call.attempt = 1  # type: ignore[union-attr]
        assert room.says(visitor, end) == [end], "late: what it brings is given back by those who know how"
        entry.call = None

    in_room(runner, scenario)


def test_vi_2_it_acknowledges_what_it_was_asked(runner: asyncio.Runner) -> None:
    def scenario(room: Room) -> None:
        visitor = room.visitor()
        room.core.pending_acks["m"] = {7}
        assert room.says(visitor, m.BorrowAck(7, [])) == []
        room.core.pending_acks["v"] = {8}
        assert room.says(visitor, m.BorrowAck(8, [])) == [m.BorrowAck(8, [])]

    in_room(runner, scenario)


def test_vi_2_it_lets_go_of_what_is_held_for_it(runner: asyncio.Runner) -> None:
    def scenario(room: Room) -> None:
        visitor, member = room.visitor(), room.member("m")
        room.core.host = SimpleNamespace(holds={1: (visitor, []), 2: (member, [])})  # type: ignore[assignment]
        assert room.says(visitor, m.Release(1), m.Release(3)) == [m.Release(1), m.Release(3)]
        assert room.says(visitor, m.Release(2)) == []
        assert "held for another process" in turned_out(visitor)

    in_room(runner, scenario)


def test_vi_3_it_takes_nobodys_place(runner: asyncio.Runner) -> None:
    def scenario(room: Room) -> None:
        member = room.member("m")
        room.core.references.owned.new()
        for taken in ("m", "w"):
            visitor = room.visitor(taken)
            assert "another process is known by the id" in turned_out(visitor)
            assert room.core.known_peer(taken) is not visitor
        ended: list[str] = []
        room.core.references.lost = lambda process_id: ended.append(process_id) or []  # type: ignore[method-assign, func-returns-value]
        visitor._handler.peer_lost(visitor, "closed")
        assert ended == [], "its end is not the end of whose id it has"
        assert room.core.known_peer("m") is member
        # The other way round: it was first, and whoever is looked for at an address of our job is not it.
        first = room.visitor("x")
        assert room.core.known_peer("x") is first
        assert is_of(first, f"tcp:h:1/x@{THEIRS},unix:/x")
        assert not is_of(first, f"tcp:h:1/x@{OURS},unix:/x")
        assert room.core.peer("x", f"tcp:h:1/x@{THEIRS}") is first
        other = room.core.peer("x", f"unix:/nobody/{OURS}")
        assert other is not first
        other.close(abort=True)

    in_room(runner, scenario)


def test_who_was_turned_out_hears_why(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        room = Room()
        host = room.visitor()
        lost: list[str] = []
        room.core.peer_lost = lambda peer, reason: lost.append(reason)  # type: ignore[method-assign]
        host._handler.messages_received(host, [m.TurnedOut("you said it")])
        await asyncio.sleep(0.01)
        assert lost == ["it has turned this process out: you said it"]

    runner.run(scenario())
