"""Links between machines outlive their connections (SEMANTICS 6): resets, half-open ends and cuts at random moments, seed after seed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from actorflow._core.io.lasting_peers import MEND_S, WAIT_S, LastingPeer
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.policy.link_resets import PAUSES_S
from actorflow._core.protocol.messages import AnyMessage, Cancel
from actorflow._core.protocol.session import Identity
from actorflow.testing import World

SERVER = "tcp:server:7000/server"
CLIENT = "tcp:client:7000/client"
COUNT = 400


class Side:
    """A process that counts what it gets, and answers when it is told to."""

    def __init__(self, world: World, name: str, role: str, address: str, *, answers: bool) -> None:
        self.world = world
        self.host = world.host(name, machine=name)
        self.got: list[int] = []
        self.ready: list[Peer] = []
        self.lost: list[tuple[float, str]] = []
        self._answers = answers
        self.peers = Peers(self.host.ports, Identity(role, name, "job-1", address), self)
        self.address = address

    def listen(self) -> None:
        self.world.run_until(self.host.run(self.peers.listen(self.address)))

    def act(self, action: Callable[[], object]) -> None:
        async def do() -> None:
            action()

        self.world.run_until(self.host.run(do()))

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        self.ready.append(peer)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        for message in messages:
            assert isinstance(message, Cancel)
            self.got.append(message.seq)
            if self._answers:
                peer.send(Cancel(message.seq, message.attempt))

    def peer_lost(self, peer: Peer, reason: str) -> None:
        if peer.role:  # Not of a connection that only asked whether somebody is there.
            self.lost.append((self.world.now, reason))


class Two:
    """A client that sends numbers, and a server that sends them back."""

    def __init__(self, world: World, *, count: int = COUNT, size: int = 0, client_listens: bool = True) -> None:
        self.world = world
        self.server = Side(world, "server", "worker", SERVER, answers=True)
        self.client = Side(world, "client", "worker", CLIENT if client_listens else "", answers=False)
        self.server.listen()
        if client_listens:
            self.client.listen()
        self.sending = self.client.host.run(self._send(count, size))
        self.peer: Peer | None = None

    async def _send(self, count: int, size: int) -> None:
        rng = self.world.rng("sender")
        self.peer = self.client.peers.connect(SERVER, "server")
        for number in range(count):
            self.peer.send(Cancel(number, number))
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.01)


def harm(two: Two, faults: int) -> list[str]:
    """Break what connects them at random moments, in every way. Returns what will have been done."""
    world = two.world
    done: list[str] = []
    rng = world.rng("harm")

    def strike() -> None:
        if not (two.server.ready and two.client.ready):
            return  # There is no link yet.
        found = [ends for ends in world.fabric.connections() if not (ends[0].closed or ends[1].closed)]
        if found:
            stream = rng.choice(rng.choice(found))
            fault = world.fabric.reset if rng.random() < 0.7 else world.fabric.half_open
            fault(stream)
            done.append(fault.__name__)

    for _ in range(faults):
        world.at_time(world.now + rng.random() * 1.5, strike)
    return done


def test_6_every_message_arrives_once_in_order_over_all_connections(sim_seed: int) -> None:
    with World(sim_seed) as world:
        two = Two(world)
        done = harm(two, faults=1 + sim_seed * 4 % 9)  # The first seeds have few and many.
        world.run_until(two.sending)
        world.run_for(2.0)
        # Who has nothing to say does not learn that the other side has lost the connection.
        two.client.act(lambda: two.peer.send(Cancel(COUNT, 0)))  # type: ignore[union-attr]
        world.run_until(lambda: len(two.client.got) > COUNT, 60.0)
        assert two.server.got == list(range(COUNT + 1))
        assert two.client.got == list(range(COUNT + 1))
        assert not two.server.lost
        assert not two.client.lost
        assert len(two.server.ready) == 1, "one peer, whatever its connections"
        assert len(two.client.ready) == 1
        two.client.act(two.client.peers.close)
        world.run_for(1.0)
        assert [reason for _, reason in two.server.lost] == ["closed by the peer"]
        # A half-open end that nobody writes to stays, as it does outside until TCP looks after it.
        assert not world.fabric.connections() or "half_open" in done


def test_6_what_was_confirmed_is_not_kept() -> None:
    with World(1) as world:
        two = Two(world, count=5_000)
        world.run_until(lambda: len(two.client.got) == 5_000, 60.0)
        world.run_for(1.0)
        for peer in (two.peer, two.server.ready[0]):
            assert peer is not None
            assert peer._ledger.kept_bytes < 2_000  # type: ignore[attr-defined]


def test_6_a_process_that_dies_ends_its_links_at_once(sim_seed: int) -> None:
    with World(sim_seed) as world:
        two = Two(world)
        victim, other = (two.server, two.client) if sim_seed % 2 else (two.client, two.server)
        world.run_until(lambda: len(other.got) > 50, 30.0)
        died_at = world.now
        world.kill(victim.host)
        world.run_until(lambda: bool(other.lost), 30.0)
        assert other.lost[0][0] - died_at < 1.0
        assert other.got == list(range(len(other.got)))
        world.run_for(2 * WAIT_S)
        assert len(other.lost) == 1


def test_6_a_caller_that_cannot_be_asked_ends_after_the_time_to_mend() -> None:
    with World(3) as world:
        two = Two(world, client_listens=False)
        world.run_until(lambda: len(two.server.got) > 50, 30.0)
        died_at = world.now
        world.kill(two.client.host)
        world.run_until(lambda: bool(two.server.lost), 30.0)
        assert WAIT_S <= two.server.lost[0][0] - died_at < WAIT_S + 1.0
        assert "not back within" in two.server.lost[0][1]


def test_6_a_process_that_stands_still_is_lost_after_the_time_to_mend(sim_seed: int) -> None:
    with World(sim_seed) as world:
        two = Two(world)
        world.run_until(lambda: len(two.client.got) > 50, 30.0)
        two.server.host.pause()
        for near, _ in world.fabric.connections():
            world.fabric.reset(near)
        broken_at = world.now
        world.run_until(lambda: bool(two.client.lost), 60.0)
        assert MEND_S <= two.client.lost[0][0] - broken_at < MEND_S + 1.0
        two.server.host.unpause()
        world.run_until(lambda: bool(two.server.lost), 60.0)
        assert two.client.got == list(range(len(two.client.got)))
        assert two.server.got == list(range(len(two.server.got)))


def test_6_a_close_that_is_meant_is_no_reason_to_connect_again() -> None:
    with World(4) as world:
        two = Two(world)
        world.run_until(lambda: len(two.client.got) == COUNT, 30.0)
        closed_at = world.now
        two.server.act(two.server.peers.close)
        world.run_until(lambda: bool(two.client.lost), 30.0)
        assert two.client.lost[0][0] - closed_at < 0.2
        assert not world.fabric.connections()


def test_6_both_sides_are_told_when_too_much_was_under_way(sim_seed: int) -> None:
    """The server has not noticed the break: it hears of it by the one who comes back, and whom it must refuse."""
    with World(sim_seed) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        world.run_for(1.0)
        peer = two.server.ready[0]
        peer._ledger._bytes_max = 10  # type: ignore[attr-defined]
        [(near, far)] = [ends for ends in world.fabric.connections() if not (ends[0].closed or ends[1].closed)]

        def strike() -> None:
            for number in range(5):
                peer.send(Cancel(number, 0))
                peer.flush()
            world.fabric.half_open(near if near.host is two.client.host else far)

        two.server.act(strike)
        world.run_for(1.0)
        if two.client.got[20:] == list(range(5)):  # With few seeds: all of it was in time for the end of the connection.
            assert not two.client.lost
            assert not two.server.lost
            return
        [(_, client_heard)], [(_, server_heard)] = two.client.lost, two.server.lost
        assert "too much was under way" in client_heard
        assert "too much was under way" in server_heard
        world.run_for(2 * WAIT_S)
        assert len(two.client.lost) == len(two.server.lost) == 1
        assert two.server.peers._links is not None
        assert not two.server.peers._links._peers


def test_lr_2_a_link_that_is_reset_after_every_handshake_is_no_hot_loop(sim_seed: int) -> None:
    """Each connection comes up and is reset at once. When that is over the link goes on, and the next single reset costs no pause."""
    with World(sim_seed) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        peer = two.peer
        assert isinstance(peer, LastingPeer)
        handshakes: dict[int, float] = {}
        ended_at = world.now + 20.0

        def strike() -> None:
            if peer._up and peer._stream is not None and world.now < ended_at:
                stream: Any = peer._stream
                if stream.number not in handshakes:
                    handshakes[stream.number] = world.now
                    world.fabric.reset(stream)
            if world.now < ended_at:
                world.at_time(world.now + 0.001, strike)

        world.at_time(world.now, strike)
        world.run_for(22.0)
        assert 20 < len(handshakes) < 35, "about one each second, after some in the beginning"
        gaps = [after - before for before, after in itertools.pairwise(handshakes.values())]
        assert max(gaps[:2]) < 0.1, "the first ones come at once"
        assert max(gaps) < PAUSES_S[-1] + 0.1
        assert peer._up, "it is back"
        world.run_for(1.0)
        broken_at = world.now
        world.fabric.reset(peer._stream)  # type: ignore[arg-type]
        world.run_until(lambda: not peer._up, 1.0)
        world.run_until(lambda: peer._up, 1.0)
        assert world.now - broken_at < 0.2, "LR-1"
        assert not two.client.lost
        assert not two.server.lost


class KnowingSide(Side):
    """Knows by another way whether the other side lives (LP-4)."""

    knows = True

    def alive_by_another_way(self, peer: Peer) -> bool:
        return self.knows


def know(two: Two, side: Side, *, knows: bool = True) -> KnowingSide:
    """From now on `side` is one that knows."""
    side.__class__ = KnowingSide
    assert isinstance(side, KnowingSide)
    side.knows = knows
    return side


def break_and_cut(two: Two) -> None:
    found = two.world.fabric.connections()
    for near, _ in found:
        two.world.fabric.reset(near)
    two.world.run_until(lambda: all(near.closed and far.closed for near, far in found), 1.0)
    # One that was made meanwhile is as good as those before.
    for near, far in two.world.fabric.connections():
        near.abort()
        far.abort()
    two.world.fabric.partition(["client"], ["server"])


def say(two: Two, side: Side, peer: Peer | None, numbers: range) -> None:
    assert peer is not None
    for number in numbers:
        side.act(lambda number=number: peer.send(Cancel(number, 0)))  # type: ignore[misc]


def test_lp_4_a_link_is_mended_as_long_as_both_sides_know_that_the_other_lives(sim_seed: int) -> None:
    with World(sim_seed) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        two.server._answers = False
        know(two, two.client)
        know(two, two.server)
        break_and_cut(two)
        away_s = 25.0 + sim_seed
        for step in range(5):  # Some before each time that what waits is put by.
            say(two, two.client, two.peer, range(20 + step * 10, 30 + step * 10))
            say(two, two.server, two.server.ready[0], range(20 + step * 10, 30 + step * 10))
            world.run_for(away_s / 5)
        assert not two.client.lost
        assert not two.server.lost
        world.fabric.heal()
        world.run_for(3.0)
        assert two.server.got == list(range(70)), "LP-1"
        assert two.client.got == list(range(70))
        assert not two.client.lost
        assert not two.server.lost
        assert len(two.server.ready) == len(two.client.ready) == 1


def test_lp_4_it_ends_with_the_period_in_which_nobody_knows_any_more(sim_seed: int) -> None:
    with World(sim_seed) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        client, server = know(two, two.client), know(two, two.server)
        break_and_cut(two)
        world.run_for(2.5 * MEND_S)
        assert not client.lost
        assert not server.lost
        client.knows = server.knows = False
        world.run_until(lambda: bool(client.lost), MEND_S + 2.5)
        assert "not back within 18 s" in client.lost[0][1]
        world.run_until(lambda: bool(server.lost), 45.0)


def test_lp_4_what_waits_meanwhile_is_bounded(sim_seed: int) -> None:
    """Each time that the mending begins anew it is put by with what did not arrive; if that is too much the link cannot go on (RS-2)."""
    with World(sim_seed) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        know(two, two.client)
        know(two, two.server)
        break_and_cut(two)
        peer = two.peer
        assert isinstance(peer, LastingPeer)
        peer._ledger._bytes_max = 100
        say(two, two.client, peer, range(20, 60))
        assert peer.queued() == 40
        world.run_for(MEND_S + 2.5)
        assert peer.queued() == 0
        assert peer._ledger.kept_bytes <= 100
        world.fabric.heal()
        world.run_for(3.0)
        [(_, said)] = two.client.lost
        assert "too much was under way" in said


def test_lp_4_nobody_at_the_door_is_no_end_for_who_knows_better() -> None:
    """Something between the two may refuse connections in the name of a process that lives."""
    with World(1) as world:
        two = Two(world, count=20)
        world.run_until(lambda: len(two.client.got) == 20, 30.0)
        server = know(two, two.server)
        world.kill(two.client.host)
        world.run_for(3.0 * WAIT_S)
        assert not server.lost
        server.knows = False
        world.run_for(WAIT_S + 0.5)
        assert len(server.lost) == 1
