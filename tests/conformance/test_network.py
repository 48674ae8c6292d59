"""The contract of Network, Listener and Stream."""

import pytest

from actorflow._core.io.ports import Stream
from tests.conformance.worlds import NetworkWorld, Recorder, Watcher, connected, pattern, settle

LARGE = pattern(6_000_000)
"""More than the buffers of a kernel hold."""


def test_bytes_arrive_in_order_and_whole_both_ways(network_world: NetworkWorld) -> None:
    there, back = pattern(300_000), pattern(200_003)

    async def scenario() -> None:
        async with connected(network_world) as pair:
            for start in range(0, len(there), 7_919):
                pair.client.stream.write(there[start : start + 7_919])
                pair.server.stream.write(back[start : start + 7_919])
            await pair.server.until(lambda: len(pair.server.data) >= len(there))
            await pair.client.until(lambda: len(pair.client.data) >= len(back))
            assert (pair.server.data, pair.client.data) == (there, back)

    network_world.run(scenario())


def test_an_answer_from_within_data_received(network_world: NetworkWorld) -> None:
    class Echo(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.stream.write(data)

    async def scenario() -> None:
        echo, client = Echo(), Recorder()

        def accept(stream: Stream) -> Recorder:
            echo.stream = stream
            return echo

        address = network_world.address()
        listener = await network_world.network.listen(address, accept)
        client.stream = await network_world.network.connect(address, client)
        client.stream.write(b"at once")  # Before the other side has accepted.
        await client.until(lambda: client.data == b"at once")
        listener.close()
        client.stream.close()
        await echo.until(lambda: echo.lost)
        await client.until(lambda: client.lost)

    network_world.run(scenario())


def test_a_write_in_accept_arrives(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        server, client = Recorder(), Recorder()

        def accept(stream: Stream) -> Recorder:
            server.stream = stream
            stream.write(b"welcome")
            return server

        address = network_world.address()
        listener = await network_world.network.listen(address, accept)
        client.stream = await network_world.network.connect(address, client)
        await client.until(lambda: client.data == b"welcome")
        listener.close()
        client.stream.close()
        await server.until(lambda: server.lost)
        await client.until(lambda: client.lost)

    network_world.run(scenario())


def test_a_write_never_blocks_and_the_rest_is_counted(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.client.stream.write(LARGE)
            pair.client.stream.write(b"end")
            assert 0 < pair.client.stream.buffered_bytes() <= len(LARGE) + 3
            await pair.server.until(lambda: len(pair.server.data) == len(LARGE) + 3)
            assert pair.server.data == LARGE + b"end"
            assert pair.client.stream.buffered_bytes() == 0
            pair.client.stream.write(b"!")
            await pair.server.until(lambda: pair.server.data.endswith(b"!"))

    network_world.run(scenario())


def test_close_sends_what_is_buffered(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.client.stream.write(LARGE)
            pair.client.stream.close()
            await pair.server.until(lambda: pair.server.lost)
            assert pair.server.data == LARGE
            await pair.client.until(lambda: pair.client.lost)

    network_world.run(scenario())


def test_abort_drops_what_is_buffered(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.client.stream.write(LARGE)
            pair.client.stream.abort()
            await pair.client.until(lambda: pair.client.lost)
            await pair.server.until(lambda: pair.server.lost)
            assert len(pair.server.data) < len(LARGE)
            assert LARGE.startswith(pair.server.data)
            assert pair.client.stream.buffered_bytes() == 0

    network_world.run(scenario())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_is_told_once_to_both_with_a_reason_and_never_at_once(network_world: NetworkWorld, end: str) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            getattr(pair.client.stream, end)()
            getattr(pair.client.stream, end)()
            assert pair.client.lost == []
            await pair.client.until(lambda: pair.client.lost)
            await pair.server.until(lambda: pair.server.lost)
            await settle()
            assert [len(side.lost) for side in (pair.client, pair.server)] == [1, 1]
            assert all(side.lost[0].strip() for side in (pair.client, pair.server))

    network_world.run(scenario())


def test_both_may_end_it_at_the_same_time(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.client.stream.abort()
            pair.server.stream.close()

    network_world.run(scenario())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_nothing_is_delivered_after_our_own_end(network_world: NetworkWorld, end: str) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.server.stream.write(b"too late")
            getattr(pair.client.stream, end)()
            await pair.client.until(lambda: pair.client.lost)
            assert pair.client.data == b""

    network_world.run(scenario())


def test_a_lost_stream_takes_everything_and_does_nothing(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.server.stream.close()
            await pair.client.until(lambda: pair.client.lost)
            for stream in (pair.client.stream, pair.server.stream):
                stream.write(b"nobody reads this")
                stream.close()
                stream.abort()
                assert stream.buffered_bytes() == 0

    network_world.run(scenario())


def test_last_words_arrive_although_we_write_to_a_peer_that_is_gone(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.server.stream.write(b"last words")
            pair.server.stream.close()
            await pair.server.until(lambda: pair.server.lost)
            for _ in range(3):
                pair.client.stream.write(b"are you there?")
            await pair.client.until(lambda: pair.client.lost)
            assert pair.client.data == b"last words"

    network_world.run(scenario())


def test_many_streams_at_one_address_do_not_mix(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        servers: list[Recorder] = []
        arrivals = Watcher()

        def accept(stream: Stream) -> Recorder:
            server = Recorder()
            server.stream = stream
            servers.append(server)
            arrivals.changed()
            return server

        address = network_world.address()
        listener = await network_world.network.listen(address, accept)
        clients = [Recorder() for _ in range(20)]
        for number, client in enumerate(clients):
            client.stream = await network_world.network.connect(address, client)
            client.stream.write(bytes([number]) * 1000)
            client.stream.close()
        await arrivals.until(lambda: len(servers) == len(clients))
        listener.close()
        for end in (*clients, *servers):
            await end.until(lambda end=end: end.lost)
        assert sorted(server.data for server in servers) == [bytes([n]) * 1000 for n in range(20)]

    network_world.run(scenario())


# -- addresses


def test_an_address_is_taken_once(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        address = network_world.address()
        listener = await network_world.network.listen(address, lambda stream: Recorder())
        with pytest.raises(OSError, match="in use"):
            await network_world.network.listen(address, lambda stream: Recorder())
        listener.close()

    network_world.run(scenario())


def test_a_closed_listener_frees_its_address_and_its_streams_live_on(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        address = network_world.address()
        async with connected(network_world) as pair:
            for _ in range(2):
                listener = await network_world.network.listen(address, lambda stream: Recorder())
                listener.close()
                listener.close()
            with pytest.raises(OSError):
                await network_world.network.connect(address, Recorder())
            pair.client.stream.write(b"still here")
            await pair.server.until(lambda: pair.server.data == b"still here")

    network_world.run(scenario())


def test_nobody_there(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        with pytest.raises(FileNotFoundError):
            await network_world.network.connect(network_world.address(), Recorder())

    network_world.run(scenario())


@pytest.mark.parametrize("address", ["carrier-pigeon:/a", "unix:/" + "long/" * 30 + "a.sock"])
def test_an_impossible_address_is_an_oserror(network_world: NetworkWorld, address: str) -> None:
    async def scenario() -> None:
        with pytest.raises(OSError):
            await network_world.network.connect(address, Recorder())
        with pytest.raises(OSError):
            await network_world.network.listen(address, lambda stream: Recorder())

    network_world.run(scenario())


def test_who_asks_is_told_when_what_was_written_is_needed_no_more(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            order: list[str] = []
            data = bytearray(LARGE)
            pair.client.stream.write(b"a little")
            pair.client.stream.when_taken(lambda: order.append("a little"))
            assert order == [], "not from within the call"
            pair.client.stream.write(memoryview(data))

            def taken() -> None:
                data[:] = bytes(len(data))  # From now on it may be something else.
                order.append("much")

            pair.client.stream.when_taken(taken)
            await pair.server.until(lambda: len(pair.server.data) >= 8 + len(LARGE))
            assert pair.server.data == b"a little" + LARGE
            await settle()
            assert order == ["a little", "much"]

    network_world.run(scenario())


def test_what_a_lost_stream_held_is_needed_no_more(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            told: list[int] = []
            for number in range(3):
                pair.client.stream.write(LARGE)
                pair.client.stream.when_taken(lambda number=number: told.append(number))
            pair.client.stream.abort()
            await pair.client.until(lambda: pair.client.lost)
            pair.client.stream.when_taken(lambda: told.append(3))
            await settle()
            assert told == [0, 1, 2, 3]

    network_world.run(scenario())


class Placing(Recorder):
    """Ten bytes that it is told, then a number of bytes that go to their place, and so on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.memory = bytearray(size)
        self.at = 0
        self.words = b""

    def place(self) -> memoryview | None:
        return memoryview(self.memory)[self.at :] if len(self.words) == 10 and self.at < len(self.memory) else None

    def placed(self, count: int) -> None:
        self.at += count
        self.changed()

    def data_received(self, data: bytes) -> None:
        taken = min(10 - len(self.words), len(data))
        self.words += data[:taken]
        rest = data[taken:]
        if rest:
            self.memory[self.at : self.at + len(rest)] = rest
            self.at += len(rest)
        self.changed()


def test_a_handler_that_takes_over_may_say_where_the_bytes_go(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        async with connected(network_world) as pair:
            pair.client.stream.write(b"hello")
            await pair.server.until(lambda: pair.server.data == b"hello")
            placing = Placing(len(LARGE))
            placing.stream = pair.server.stream
            pair.server.stream.hand_to(placing)
            pair.client.stream.write(b"ten bytes!")
            pair.client.stream.write(LARGE)
            await placing.until(lambda: placing.at == len(LARGE))
            assert placing.words == b"ten bytes!"
            assert bytes(placing.memory) == LARGE
            pair.client.stream.close()
            await placing.until(lambda: placing.lost)
            pair.server.lost = placing.lost  # It is the one that is told.

    network_world.run(scenario())


def test_a_stream_may_be_handed_over_from_within_a_delivery(network_world: NetworkWorld) -> None:
    async def scenario() -> None:
        placing = Placing(len(LARGE))

        class Door(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                placing.stream = self.stream
                self.stream.hand_to(placing)
                placing.data_received(data[5:]) if data[5:] else None

        door, client = Door(), Recorder()

        def accept(stream: Stream) -> Recorder:
            door.stream = stream
            return door

        address = network_world.address()
        listener = await network_world.network.listen(address, accept)
        client.stream = await network_world.network.connect(address, client)
        client.stream.write(b"hello")
        client.stream.write(b"ten bytes!" + LARGE)
        await placing.until(lambda: placing.at == len(LARGE))
        assert bytes(placing.memory) == LARGE
        listener.close()
        client.stream.close()
        await placing.until(lambda: placing.lost)
        await client.until(lambda: client.lost)

    network_world.run(scenario())
