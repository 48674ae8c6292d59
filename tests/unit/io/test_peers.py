"""Peers over the simulated network: what is sent before, during and at the end of a connection.

PE-1 under cuts and resets, for many seeds, is in tests/sim/test_network.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from actorflow._core.io.peers import Peer, Peers
from actorflow._core.protocol.framing import HANDSHAKE_FRAME_BYTES_MAX
from actorflow._core.protocol.messages import AnyMessage, Cancel, Define
from actorflow._core.protocol.session import Identity
from actorflow.testing import World

ADDRESS = "unix:/run/server.sock"


class Log:
    """A PeerHandler that remembers; `on_ready` answers a new peer."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.messages: list[AnyMessage] = []
        self.lost: list[str] = []
        self.gone: set[Peer] = set()
        self.on_ready: Callable[[Peer], None] = lambda peer: None
        self.on_messages: Callable[[Peer], None] = lambda peer: None

    def peer_ready(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.on_ready(peer)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        assert peer not in self.gone, "messages after the loss"
        self.messages.extend(messages)
        self.on_messages(peer)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        assert peer not in self.gone, "the loss was told twice"
        self.gone.add(peer)
        self.lost.append(reason)


def send_all(peer: Peer, messages: list[AnyMessage]) -> None:
    for message in messages:
        peer.send(message)


class Side:
    """One process with its peers."""

    def __init__(self, world: World, name: str, role: str) -> None:
        self.world = world
        self.host = world.host(name)
        self.log = Log()
        self.identity = Identity(role, name, "job-1", f"unix:/{name}", 7, "default", ["/src"], {"head": "unix:/h"})
        self.peers = Peers(self.host.ports, self.identity, self.log)

    def listen(self) -> None:
        self.world.run_until(self.host.run(self.peers.listen(ADDRESS)))

    def connect(self, *messages: AnyMessage) -> Peer:
        """Connect and send at once, as code of the process."""

        async def do() -> Peer:
            peer = self.peers.connect(ADDRESS)
            send_all(peer, list(messages))
            return peer

        peer: Peer = self.world.run_until(self.host.run(do()))
        return peer

    def act(self, action: Callable[[], object]) -> None:
        """Do something as code of the process."""

        async def do() -> None:
            action()

        self.world.run_until(self.host.run(do()))


@pytest.fixture
def world() -> Iterator[World]:
    with World(5) as world:
        yield world


@pytest.fixture
def client(world: World) -> Side:
    return Side(world, "client", "worker")


@pytest.fixture
def server(world: World) -> Side:
    return Side(world, "server", "node")


def numbers(count: int, start: int = 0) -> list[AnyMessage]:
    return [Cancel(number, 0) for number in range(start, start + count)]


def test_each_side_learns_who_the_other_is(world: World, client: Side, server: Side) -> None:
    server.listen()
    client.connect()
    world.run_for(1)
    [there], [here] = client.log.peers, server.log.peers
    assert (there.process_id, there.role, there.address) == ("server", "node", ADDRESS)
    assert there.welcome_info == {"head": "unix:/h"}
    assert (here.process_id, here.role, here.address, here.job_id) == ("client", "worker", "unix:/client", "job-1")
    assert (here.pid, here.namespace, here.sys_path) == (7, "default", ["/src"])
    assert here.welcome_info == {}


def test_what_is_sent_before_the_connection_is_up_arrives_in_order(world: World, client: Side, server: Side) -> None:
    server.listen()
    client.log.on_ready = lambda peer: send_all(peer, numbers(10, start=1_000))
    peer = client.connect(*numbers(1_000))
    assert peer.queued() == 1_000
    world.run_for(1)
    assert server.log.messages == numbers(1_010), "PE-1"
    assert peer.queued() == 0


def test_the_acceptor_may_speak_first(world: World, client: Side, server: Side) -> None:
    """What it says at once may arrive in one piece with the handshake, and may be larger than a handshake."""
    large: AnyMessage = Define("f", "f", bytes(3 * HANDSHAKE_FRAME_BYTES_MAX))
    server.log.on_ready = lambda peer: peer.send(large)
    server.listen()
    client.connect()
    world.run_for(1)
    assert client.log.messages == [large]
    assert client.log.lost == []


def test_a_burst_is_one_write(world: World, client: Side, server: Side) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)
    before = world.messages
    client.act(lambda: send_all(peer, numbers(100)))
    world.run_for(1)
    assert server.log.messages == numbers(100)
    assert world.messages - before <= 2, "one delivery, or two when it was cut"


def test_post_leaves_the_flush_to_its_caller(world: World, client: Side, server: Side) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)
    assert [peer.post(message) for message in numbers(2)] == [1, 2]
    world.run_for(1)
    assert server.log.messages == []
    client.act(peer.flush)
    world.run_for(1)
    assert server.log.messages == numbers(2)
    assert peer.post(Cancel(2, 0))


# -- the end


def test_close_sends_what_is_queued_first(world: World, client: Side, server: Side) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)

    def say_goodbye() -> None:
        for message in numbers(500):
            peer.send(message)
        peer.close()

    client.act(say_goodbye)
    world.run_for(1)
    assert server.log.messages == numbers(500)
    assert (client.log.lost, server.log.lost) == (["closed by this side"], ["closed by the peer"])


def test_abort_drops_what_is_queued(world: World, client: Side, server: Side) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)

    def leave() -> None:
        peer.send(Cancel(1, 0))
        peer.close(abort=True)

    client.act(leave)
    world.run_for(1)
    assert server.log.messages == []
    assert (len(client.log.lost), len(server.log.lost)) == (1, 1)


def test_closing_all_peers_flushes_each_of_them(world: World, client: Side, server: Side) -> None:
    server.listen()
    peers = [client.connect() for _ in range(3)]
    world.run_for(1)

    def say_goodbye() -> None:
        for number, peer in enumerate(peers):
            peer.send(Cancel(number, 0))
        client.peers.close()

    client.act(say_goodbye)
    world.run_for(1)
    assert client.log.lost == ["closed by this side"] * 3
    assert sorted(message.seq for message in server.log.messages if isinstance(message, Cancel)) == [0, 1, 2]


def test_a_peer_that_is_closed_before_it_is_connected_never_connects(world: World, client: Side, server: Side) -> None:
    server.listen()

    def come_and_go() -> None:
        peer = client.peers.connect(ADDRESS)
        peer.send(Cancel(1, 0))
        peer.close()

    client.act(come_and_go)
    world.run_for(1)
    assert client.log.lost == ["closed before it was connected"]
    assert (client.log.peers, server.log.peers) == ([], [])
    assert world.fabric.connections() == []


def test_peers_that_are_still_connecting_at_the_end_are_told_lost(world: World, client: Side, server: Side) -> None:
    """Exactly once for each peer ever handed out."""
    server.listen()

    def come_and_go() -> None:
        client.peers.connect(ADDRESS)
        client.peers.close()

    client.act(come_and_go)
    world.run_for(10)
    assert client.log.lost == ["closed before it was connected"]
    assert world.fabric.connections() == []


def test_a_connection_that_cannot_be_made_is_a_loss(world: World, client: Side) -> None:
    peer = client.connect(Cancel(1, 0))
    world.run_for(1)
    [reason] = client.log.lost
    assert reason.startswith(f"cannot connect to {ADDRESS}: ")
    assert peer.lost


@pytest.mark.parametrize("end", ["killed", "closed", "reset", "closed by both"])
def test_the_loss_is_told_once_on_each_side(world: World, client: Side, server: Side, end: str) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)
    match end:
        case "killed":
            world.kill(server.host)
        case "closed":
            server.act(server.log.peers[0].close)
        case "reset":
            for near, _ in world.fabric.connections():
                world.fabric.reset(near)
        case _:
            server.act(server.log.peers[0].close)
            client.act(peer.close)
    world.run_for(10)
    client.act(peer.close)
    client.act(client.peers.close)
    world.run_for(10)
    assert len(client.log.lost) == 1
    assert len(server.log.lost) == (0 if end == "killed" else 1)


def test_sends_to_a_lost_peer_are_dropped(world: World, client: Side, server: Side) -> None:
    server.listen()
    peer = client.connect()
    world.run_for(1)
    world.kill(server.host)
    world.run_for(1)
    client.act(lambda: send_all(peer, numbers(10)))
    world.run_for(1)
    assert peer.lost
    assert (peer.queued(), peer.buffered_bytes()) == (0, 0)


def test_a_handler_that_closes_its_peer_hears_no_more_of_it(world: World, client: Side, server: Side) -> None:
    server.log.on_messages = lambda peer: peer.close(abort=True)
    server.listen()
    peer = client.connect(Cancel(0, 0))
    world.run_for(0.01)
    client.act(lambda: peer.send(Cancel(1, 0)))
    world.run_for(1)
    assert server.log.messages == [Cancel(0, 0)]
    assert (len(server.log.lost), len(client.log.lost)) == (1, 1)


# -- strangers


def test_a_refusal_reaches_the_connector_in_words(world: World, server: Side) -> None:
    server.listen()
    stranger = Side(world, "stranger", "king")
    stranger.connect(Cancel(1, 0))
    world.run_for(1)
    [here], [there] = server.log.lost, stranger.log.lost
    assert here.startswith("refused a connection from 'stranger': unknown role 'king'")
    assert there.startswith("node server refused this connection: unknown role 'king'")
    assert (server.log.peers, server.log.messages, stranger.log.peers) == ([], [], [])


def test_a_stranger_with_another_protocol_is_cut_off(world: World, client: Side, server: Side) -> None:
    server.listen()

    class Silent:
        lost = 0

        def data_received(self, data: bytes) -> None:
            raise AssertionError("it gets no answer")

        def connection_lost(self, reason: str) -> None:
            self.lost += 1

    handler = Silent()
    stream = world.run_until(client.host.run(client.host.network.connect(ADDRESS, handler)))
    stream.write(b"GET / HTTP/1.1\r\n\r\n")
    world.run_for(1)
    assert handler.lost == 1
    assert [reason.partition(" of ")[0] for reason in server.log.lost] == ["the peer announced a frame"]


def test_an_address_in_use_is_an_error_of_the_listener(world: World, client: Side, server: Side) -> None:
    server.listen()
    with pytest.raises(OSError, match="in use"):
        world.run_until(client.host.run(client.peers.listen(ADDRESS)))


def test_a_closed_listener_leaves_its_address(world: World, client: Side, server: Side) -> None:
    server.listen()
    server.act(server.peers.close)
    world.run_until(client.host.run(client.peers.listen(ADDRESS)))


TOO_LARGE = 10**30
POISON = [Cancel(TOO_LARGE, 1), Define("f", "caf\udce9", b"")]


class TakesBack(Log):
    """... and what cannot be encoded comes back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[tuple[AnyMessage, type[Exception]]] = []

    def unsendable(self, peer: Peer, message: AnyMessage, error: Exception) -> None:
        self.back.append((message, type(error)))


def connected(world: World, log: Log) -> tuple[Side, Side, Peer]:
    """A client with this handler, and its server."""
    server, client = Side(world, "server", "worker"), Side(world, "client", "driver")
    client.log = log
    client.peers = Peers(client.host.ports, client.identity, log)
    server.listen()
    peer = client.connect()
    world.run_until(lambda: bool(server.log.peers and log.peers))
    return server, client, peer


def test_pe3_a_message_that_cannot_be_encoded_costs_those_beside_it_nothing(world: World) -> None:
    log = TakesBack()
    server, client, peer = connected(world, log)
    good = [Cancel(number, 1) for number in range(4)]
    client.act(lambda: send_all(peer, [good[0], POISON[0], good[1], good[2], POISON[1], good[3]]))
    world.run_until(lambda: len(server.log.messages) == 4 and len(log.back) == 2)
    assert server.log.messages == good
    assert log.back == [(POISON[0], OverflowError), (POISON[1], UnicodeEncodeError)]
    assert server.log.lost == log.lost == []


def test_pe3_an_answer_that_cannot_be_encoded_does_not_end_the_connection(world: World) -> None:
    log = TakesBack()
    server, _, peer = connected(world, log)

    def answer(peer: Peer) -> None:
        peer.send(POISON[0])
        peer.flush()
        peer.send(Cancel(2, 1))

    log.on_messages = answer
    server.act(lambda: server.log.peers[0].send(Cancel(1, 1)))
    world.run_until(lambda: server.log.messages == [Cancel(2, 1)] and bool(log.back))
    assert not peer.lost
    assert server.log.lost == log.lost == []


def test_pe3_where_nobody_takes_it_back_text_is_made_fit_and_the_rest_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server, client, peer = connected(world, Log())
    client.act(lambda: send_all(peer, [POISON[0], POISON[1], Cancel(1, 1)]))
    world.run_until(lambda: len(server.log.messages) == 2)
    assert server.log.messages == [Cancel(1, 1), Define("f", "caf\\udce9", b"")]
    assert "Cancel for Peer(" in caplog.text
    assert f"seq={TOO_LARGE} is a number of more than 64 bits" in caplog.text


def test_behind_a_gate_a_message_leaves_when_it_is_let_go_and_each_is_told_of(world: World) -> None:
    """Each: those before it may be let go and have no way at the moment, as the connection is away."""
    log = Log()
    server, client, peer = connected(world, log)
    told: list[Peer] = []
    first, second, past = Cancel(1, 1), Cancel(2, 1), Cancel(3, 1)

    def hold() -> None:
        peer.hold_back()
        peer._schedule = told.append
        peer.send(first)
        peer.send(second)
        peer.flush()

    client.act(hold)
    world.run_for(1.0)
    assert (server.log.messages, len(told), peer.held) == ([], 2, 2)
    client.act(lambda: peer.send_past(past))
    client.act(lambda: peer.let_go(1))
    world.run_for(1.0)
    assert (server.log.messages, peer.held) == ([past, first], 1)
    client.act(lambda: peer.let_go(1))
    world.run_for(1.0)
    assert server.log.messages == [past, first, second]
