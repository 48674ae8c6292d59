"""The simulated network carries bytes as sockets do: in order, cut anywhere, lost only as a whole tail."""

import asyncio
from collections.abc import Iterator

import pytest

from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Stream
from actorflow._core.protocol.messages import AnyMessage, Cancel
from actorflow._core.protocol.session import Identity
from actorflow.testing import Host, LinkProfile, SimStream, World

ADDRESS = "unix:/run/a.sock"
ROUGH = LinkProfile(cut_chance=0.7, spike_chance=0.1)


class Recorder:
    """A StreamHandler that remembers what it is told."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.lost: list[str] = []
        self.stream: Stream | None = None

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def data_received(self, data: bytes) -> None:
        assert not self.lost, "SN-1: data after the end"
        self.chunks.append(data)

    def connection_lost(self, reason: str) -> None:
        self.lost.append(reason)


class Pair:
    """Two hosts with one connection."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client_host, self.server_host = world.host("client"), world.host("server")
        self.client_handler, self.server_handler = Recorder(), Recorder()

        def accept(stream: Stream) -> Recorder:
            self.server_handler.stream = stream
            return self.server_handler

        self.listener = world.run_until(
            self.server_host.run(self.server_host.network.listen(ADDRESS, accept))
        )
        self.client: SimStream = world.run_until(
            self.client_host.run(self.client_host.network.connect(ADDRESS, self.client_handler))
        )
        world.run_until(lambda: self.server_handler.stream is not None)
        assert isinstance(self.server_handler.stream, SimStream)
        self.server: SimStream = self.server_handler.stream


@pytest.fixture
def world() -> Iterator[World]:
    with World(11) as world:
        yield world


@pytest.fixture
def pair(world: World) -> Pair:
    return Pair(world)


def pattern(size: int) -> bytes:
    return bytes(number * 31 % 251 for number in range(size))


# -- bytes


def test_bytes_arrive_in_order_cut_anywhere(sim_seed: int) -> None:
    with World(sim_seed, links=ROUGH) as world:
        pair, data = Pair(world), pattern(50_000)
        for start in range(0, len(data), 997):
            pair.client.write(data[start : start + 997])
            world.run_for(0.000_1)
        world.run_for(5)
        assert pair.server_handler.data == data
        assert len(pair.server_handler.chunks) != len(data) // 997 + 1


def test_seeds_cut_and_delay_differently() -> None:
    def chunks(seed: int) -> list[int]:
        with World(seed, links=ROUGH) as world:
            pair = Pair(world)
            for _ in range(20):
                pair.client.write(bytes(100))
            world.run_for(5)
            return [len(chunk) for chunk in pair.server_handler.chunks]

    assert chunks(1) == chunks(1)
    assert len({tuple(chunks(seed)) for seed in range(20)}) > 15


def test_both_directions_at_once(pair: Pair, world: World) -> None:
    pair.client.write(b"ping")
    pair.server.write(b"pong")
    world.run_for(1)
    assert (pair.server_handler.data, pair.client_handler.data) == (b"ping", b"pong")


def test_a_reader_that_stands_still_makes_the_sender_buffer(pair: Pair, world: World) -> None:
    data = pattern(1_000_000)
    pair.server_host.pause()
    pair.client.write(data)
    world.run_for(1)
    assert pair.client.buffered_bytes() == len(data) - world.fabric.profile.buffer_bytes
    pair.server_host.unpause()
    world.run_for(5)
    assert pair.client.buffered_bytes() == 0
    assert pair.server_handler.data == data


def test_any_bytes_like_object_may_be_written(pair: Pair, world: World) -> None:
    data = bytearray(b"abc")
    pair.client.write(memoryview(data))  # type: ignore[arg-type]
    data[:] = b"xyz"  # taken at the write
    pair.client.write(b"")
    world.run_for(1)
    assert pair.server_handler.data == b"abc"


# -- the end


def test_close_sends_what_is_buffered_first(pair: Pair, world: World) -> None:
    data = pattern(700_000)
    pair.client.write(data)
    pair.client.close()
    pair.client.write(b"too late")
    assert pair.client_handler.lost == [], "SN-3"
    world.run_for(5)
    assert pair.server_handler.data == data
    assert pair.client_handler.lost == ["closed by this side"]
    assert pair.server_handler.lost == ["closed by the peer"]


def test_close_gives_up_on_a_peer_that_does_not_read(pair: Pair, world: World) -> None:
    pair.server_host.pause()
    pair.client.write(bytes(1_000_000))
    pair.client.close()
    world.run_for(4)
    assert pair.client_handler.lost == []
    world.run_for(2)
    assert pair.client_handler.lost == ["closed by this side; data was left"]


def test_abort_drops_what_is_buffered(pair: Pair, world: World) -> None:
    pair.client.write(bytes(1_000_000))
    pair.client.abort()
    assert pair.client_handler.lost == [], "SN-3"
    world.run_for(5)
    assert len(pair.server_handler.data) == world.fabric.profile.buffer_bytes
    assert (len(pair.client_handler.lost), len(pair.server_handler.lost)) == (1, 1)


@pytest.mark.parametrize("end", ["close", "abort", "lost"])
def test_nw_1_the_end_is_told_once(pair: Pair, world: World, end: str) -> None:
    if end == "lost":
        pair.server.close()
        world.run_for(1)
    for _ in range(2):
        pair.client.close()
        pair.client.abort()
        pair.server.close()
    world.run_for(5)
    assert (len(pair.client_handler.lost), len(pair.server_handler.lost)) == (1, 1)
    assert world.fabric.connections() == []


def test_a_handler_that_fails_loses_its_stream_and_fails_the_simulation(pair: Pair, world: World) -> None:
    handled: list[object] = []
    pair.server_host.loop.set_exception_handler(lambda loop, context: handled.append(context["exception"]))
    pair.server_handler.lost.append("so that data_received complains")
    pair.client.write(b"x")
    world.run_for(1)
    assert [type(error) for error in handled] == [AssertionError]
    assert pair.client_handler.lost == ["closed by the peer"]


def test_a_killed_process_resets_its_connections_after_what_it_sent(pair: Pair, world: World) -> None:
    pair.server.write(b"last words")
    world.kill(pair.server_host)
    assert pair.client_handler.lost == []
    world.run_for(1)
    assert pair.client_handler.data == b"last words"
    assert len(pair.client_handler.lost) == 1
    assert pair.server_handler.lost == [], "HO-1"


def test_nothing_reaches_a_dead_process(pair: Pair, world: World) -> None:
    pair.client.write(b"hello?")
    world.kill(pair.server_host)
    pair.client.write(b"hello??")
    world.run_for(1)
    assert pair.server_handler.data == b""
    assert pair.client_handler.lost == ["connection reset by peer"]


def test_pi_4_after_a_reset_a_prefix_arrives_and_then_the_loss() -> None:
    lengths = set()
    for seed in range(60):
        with World(seed, links=LinkProfile(latency_min_s=0.01, latency_max_s=0.01)) as world:
            pair, data = Pair(world), pattern(300)
            for start in range(0, 300, 10):
                pair.client.write(data[start : start + 10])
            world.fabric.reset(pair.client)
            pair.client.write(b"after the reset")
            world.run_for(1)
            assert data.startswith(pair.server_handler.data)
            assert len(pair.server_handler.lost) == len(pair.client_handler.lost) == 1
            lengths.add(len(pair.server_handler.data))
    assert len(lengths) > 20
    assert min(lengths) < 30
    assert max(lengths) > 270


def test_power_off_is_seen_by_nobody(pair: Pair, world: World) -> None:
    world.power_off(pair.server_host)
    pair.client.write(bytes(1_000_000))
    world.run_for(60)
    assert pair.client_handler.lost == []
    assert pair.client.buffered_bytes() > 0


def test_half_open_is_seen_by_the_other_end_when_it_writes(pair: Pair, world: World) -> None:
    world.fabric.half_open(pair.server)
    world.run_for(1)
    assert (len(pair.server_handler.lost), pair.client_handler.lost) == (1, [])
    pair.client.write(b"are you there?")
    world.run_for(1)
    assert pair.client_handler.lost == ["connection reset by peer"]


# -- links


def test_a_partition_holds_bytes_until_it_is_healed(pair: Pair, world: World) -> None:
    world.fabric.partition(["client"], ["server"])
    pair.server.write(b"through the wall")
    pair.server.close()
    world.run_for(100)
    assert (pair.client_handler.data, pair.client_handler.lost) == (b"", [])
    world.fabric.heal()
    world.run_for(1)
    assert pair.client_handler.data == b"through the wall"
    assert pair.client_handler.lost == ["closed by the peer"]


def test_a_cut_in_one_direction_leaves_the_other(pair: Pair, world: World) -> None:
    world.fabric.cut_one_way(["server"], ["client"])
    pair.server.write(b"not there")
    pair.client.write(b"there")
    world.run_for(100)
    assert (pair.client_handler.data, pair.server_handler.data) == (b"", b"there")
    world.fabric.heal()
    world.run_for(1)
    assert pair.client_handler.data == b"not there"


@pytest.mark.parametrize("way", ["there", "back"])
def test_a_connection_needs_both_directions(way: str) -> None:
    with World(1) as world:
        near, far = world.host("near", machine="m1"), world.host("far", machine="m2")
        world.run_until(far.run(far.network.listen("tcp:far:1", lambda stream: Recorder())))
        world.fabric.cut_one_way(["m1" if way == "there" else "m2"], ["m2" if way == "there" else "m1"])
        with pytest.raises(TimeoutError, match="no answer within 5 s"):
            world.run_until(near.run(near.network.connect("tcp:far:1", Recorder())))


def test_a_partition_between_machines_holds_for_hosts_to_come() -> None:
    with World(1) as world:
        near, far = world.host("near", machine="m1"), world.host("far", machine="m2")
        world.run_until(far.run(far.network.listen("tcp:far:1", lambda stream: Recorder())))
        world.fabric.partition(["m1"], ["m2"])
        late = world.host("late", machine="m1")
        for host in (near, late):
            task = host.run(host.network.connect("tcp:far:1", Recorder()))
            with pytest.raises(TimeoutError, match="no answer within 5 s"):
                world.run_until(task)
        world.fabric.heal()
        world.run_until(late.run(late.network.connect("tcp:far:1", Recorder())))


def test_a_slow_link_is_slow_until_it_is_healed(pair: Pair, world: World) -> None:
    world.fabric.delay(pair.client_host, pair.server_host, 3.0)
    pair.client.write(b"a")
    world.run_for(2)
    assert pair.server_handler.data == b""
    world.run_for(2)
    world.fabric.heal()
    pair.client.write(b"b")
    world.run_for(0.2)
    assert pair.server_handler.data == b"ab"


# -- addresses


def connect(world: World, host: Host, address: str) -> None:
    stream = world.run_until(host.run(host.network.connect(address, Recorder())))
    stream.close()


def test_connecting_to_nothing(world: World) -> None:
    host = world.host("a")
    with pytest.raises(FileNotFoundError):
        connect(world, host, "unix:/nothing")
    with pytest.raises(ConnectionRefusedError):
        connect(world, host, "tcp:nobody:1")
    with pytest.raises(OSError, match="cannot use address"):
        connect(world, host, "carrier:pigeon")


def test_an_address_is_taken_once_and_free_after_close(pair: Pair, world: World) -> None:
    def accept(stream: Stream) -> Recorder:
        return Recorder()

    other = world.host("other")
    with pytest.raises(OSError, match="in use"):
        world.run_until(other.run(other.network.listen(ADDRESS, accept)))
    pair.listener.close()
    with pytest.raises(FileNotFoundError):
        connect(world, other, ADDRESS)
    world.run_until(other.run(other.network.listen(ADDRESS, accept)))
    connect(world, pair.client_host, ADDRESS)


def test_a_killed_listener_leaves_its_file_and_refuses(pair: Pair, world: World) -> None:
    world.kill(pair.server_host)
    with pytest.raises(ConnectionRefusedError):
        connect(world, pair.client_host, ADDRESS)


def test_a_listener_closed_before_it_accepts_closes_the_connection(world: World) -> None:
    server, client, handler = world.host("server"), world.host("client"), Recorder()
    listener = world.run_until(server.run(server.network.listen(ADDRESS, lambda stream: Recorder())))
    world.run_until(client.run(client.network.connect(ADDRESS, handler)))
    listener.close()
    world.run_for(1)
    assert len(handler.lost) == 1


def test_a_unix_socket_exists_on_one_machine(pair: Pair, world: World) -> None:
    stranger = world.host("stranger", machine="elsewhere")
    with pytest.raises(FileNotFoundError):
        connect(world, stranger, ADDRESS)


def test_a_process_may_connect_to_itself(world: World) -> None:
    host, near, far = world.host("a"), Recorder(), Recorder()
    world.run_until(host.run(host.network.listen(ADDRESS, lambda stream: far)))
    stream = world.run_until(host.run(host.network.connect(ADDRESS, near)))
    stream.write(b"me")
    world.run_for(1)
    assert far.data == b"me"
    assert len(host.network.streams()) == 2


# -- peers over it


class PeerLog:
    """A PeerHandler that remembers."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.numbers: list[int] = []
        self.lost: list[str] = []

    def peer_ready(self, peer: Peer) -> None:
        self.peers.append(peer)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        for message in messages:
            assert isinstance(message, Cancel)
            self.numbers.append(message.seq)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append(reason)


def run_peers(seed: int) -> tuple[PeerLog, PeerLog]:
    """Two peers send each other 100 messages; in half of the seeds the connection is reset on the way."""
    with World(seed, links=ROUGH) as world:
        logs = PeerLog(), PeerLog()
        hosts = world.host("client"), world.host("server")
        client, server = (
            Peers(host.ports, Identity("node", host.name), log) for host, log in zip(hosts, logs, strict=True)
        )

        async def send(peer: Peer) -> None:
            for number in range(100):
                peer.send(Cancel(number, 0))
                if number % 7 == 0:
                    await asyncio.sleep(0.000_5)

        def reset_all() -> None:
            for near, _ in world.fabric.connections():
                world.fabric.reset(near)

        world.run_until(hosts[1].run(server.listen(ADDRESS)))
        chance = world.rng("faults of the test")
        if chance.random() < 0.5:
            world.at_step(world.steps + chance.randrange(1, 300), reset_all)
        hosts[0].run(send(client.connect(ADDRESS)))
        world.run_until(lambda: bool(logs[1].peers or logs[0].lost))
        if logs[1].peers:
            hosts[1].run(send(logs[1].peers[0]))
        world.run_for(10)
        return logs


@pytest.mark.parametrize("seed", range(200))
def test_pe_1_peers_exchange_messages_once_in_order_or_lose_the_connection(seed: int) -> None:
    logs = run_peers(seed)
    for log in logs:
        assert log.numbers == list(range(len(log.numbers))), "in order, once each"
        assert len(log.lost) <= 1, "the loss is told once"
    assert all(len(log.numbers) == 100 for log in logs) or all(log.lost or not log.peers for log in logs)


def test_the_seeds_reach_both_whole_runs_and_every_kind_of_loss() -> None:
    runs = [run_peers(seed) for seed in range(60)]
    received = {len(log.numbers) for logs in runs for log in logs}
    assert {0, 100} < received
    assert len(received) > 8
