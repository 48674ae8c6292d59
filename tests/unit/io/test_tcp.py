"""The port of a node and the connections through it: what is refused, in which words, and that nothing hangs or is left."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.base.addresses import TcpAddress, parse_tcp, split
from actorflow._core.io import gateway as gateway_module
from actorflow._core.io import tcp_handshake
from actorflow._core.io.gateway import Gateway
from actorflow._core.io.handover import HandoverClient, HandoverServer
from actorflow._core.io.ports import Stream
from actorflow._core.io.sockets import UnixNetwork
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import ClusterNetwork, TcpNetwork
from actorflow._core.security.authority import Authority
from actorflow._core.security.challenge import Terms
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import keyring_of
from actorflow._core.security.lobby import Lobby
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.wire import Party, Preface
from tests.conformance.tcp_world import JOB, VERSION, security_of
from tests.conformance.worlds import Recorder

SECRET = bytes(range(32))
AUTHORITY = Authority.create("cluster", wall_time=time.time())


def worker(tls: bool = True, secret: bytes = SECRET) -> Security:
    return security_of(Role.WORKER, "worker", keyring_of([secret]).for_job(JOB), AUTHORITY if tls else None)


def named(process_id: str, *targets: str) -> Security:
    """A worker that answers to several names."""
    ring = keyring_of([SECRET]).for_job(JOB)
    return security_of(Role.WORKER, process_id, ring, AUTHORITY, targets=frozenset(targets))


def driver(tls: bool = True, secret: bytes = SECRET, authority: Authority = AUTHORITY) -> Security:
    return security_of(Role.DRIVER, "driver", keyring_of([secret]).for_job(JOB), authority if tls else None)


class Called:
    """A node's port, with one worker behind it."""

    def __init__(self, gateway: Gateway, port: int, network: TcpNetwork) -> None:
        self.gateway = gateway
        self.port = port
        self.network = network
        self.callers: list[Recorder] = []

    def accept(self, stream: Stream) -> Recorder:
        caller = Recorder()
        caller.stream = stream
        self.callers.append(caller)
        return caller

    def address(self, name: str = "worker") -> str:
        return str(TcpAddress("127.0.0.1", self.port, name))

    async def says(self, data: bytes, wait_s: float = 10.0) -> bytes:
        """What the port answers to raw bytes until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(wait_s):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def called(*, tls: bool = True, lobby: Lobby | None = None, security: Security | None = None) -> AsyncIterator[Called]:
    loop = asyncio.get_running_loop()
    gateway = Gateway(loop, protocol_version=VERSION, tls=tls, lobby=lobby)
    network = TcpNetwork(loop, security or worker(tls), gateway.open_door)
    here = Called(gateway, await gateway.listen("127.0.0.1", 0), network)
    door = await network.listen(here.address(), here.accept)
    try:
        yield here
    finally:
        for caller in here.callers:
            caller.stream.abort()
        door.close()
        gateway.close()
        await asyncio.sleep(0)


def calls(security: Security | None = None) -> TcpNetwork:
    return TcpNetwork(asyncio.get_running_loop(), security or driver(), None)


# -- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10.0.0.1:6380/abcd", TcpAddress("10.0.0.1", 6380, "abcd")),
        ("tcp:head.example:6380/", TcpAddress("head.example", 6380)),
        ("tcp:[fe80::1]:1/head", TcpAddress("fe80::1", 1, "head")),
        ("tcp:10.0.0.1:6380/abcd@job", TcpAddress("10.0.0.1", 6380, "abcd", "job")),
    ],
)
def test_addresses_there_and_back(text: str, address: TcpAddress) -> None:
    assert parse_tcp(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "unix:/a", "tcp:host/x", "tcp:host:/x", "tcp::1/x", "tcp:h:99999/x", "tcp:::1:5/x", "tcp:[h]:5/x", "tcp:h:5"]
)
def test_what_is_no_address_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="expected tcp:HOST:PORT/NAME"):
        parse_tcp(text)


def test_both_ways_in_one_address() -> None:
    assert split("tcp:h:1/x,unix:/a,unix:/b") == ("tcp:h:1/x", "unix:/a,unix:/b")
    assert split("tcp:h:1/x") == ("tcp:h:1/x", "")
    assert split("unix:/a") == ("", "unix:/a")
    assert split("local:3") == ("", "local:3")


# -- what else may come to the port


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "speaks HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "speaks TLS at once"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH"),
        (os.urandom(7).replace(b"\xaf", b"x") + bytes(100), "begins with"),
    ],
)
async def test_another_protocol_is_closed_without_a_word_and_named_in_the_log(
    data: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with called() as here:
        assert await here.says(data) == b""
        assert words in caplog.text
        assert here.callers == []


async def test_who_says_nothing_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "HANDSHAKE_TIMEOUT_S", 0.2)
    async with called() as here:
        begun = time.monotonic()
        assert await here.says(b"") == b""
        assert await here.says(Preface("worker", True, VERSION, time.time()).encode()[:63]) == b""
        assert time.monotonic() - begun < 5
        assert here.gateway._lobby.total == 0


async def test_a_full_lobby_says_so_and_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with called(lobby=Lobby(total_max=2)) as here:
        idle = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
        with pytest.raises(ConnectionResetError, match="too many connections there"):
            await calls().connect(here.address(), Recorder())
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(10):
            while here.gateway._lobby.total:
                await asyncio.sleep(0.01)
        caller = Recorder()
        caller.stream = await calls().connect(here.address(), caller)
        caller.stream.close()
        await caller.until(lambda: caller.lost)


async def test_refusals_are_logged_for_a_few_of_many(caplog: pytest.LogCaptureFixture) -> None:
    async with called() as here:
        for _ in range(50):
            assert await here.says(b"GET / HTTP/1.0\r\n\r\n") == b""
        assert 1 <= caplog.text.count("speaks HTTP") <= 2 * gateway_module.REFUSALS_LOGGED_PER_S


# -- the port itself


async def test_a_port_in_use(caplog: pytest.LogCaptureFixture) -> None:
    async with called() as here:
        other = Gateway(asyncio.get_running_loop(), protocol_version=VERSION, tls=True)
        with pytest.raises(OSError, match=f"port {here.port}: the port is in use.*choose another port"):
            await other.listen("127.0.0.1", here.port)
        other.close()


async def test_a_host_that_is_not_ours_or_does_not_resolve() -> None:
    gateway = Gateway(asyncio.get_running_loop(), protocol_version=VERSION, tls=True)
    with pytest.raises(OSError, match="this machine does not have that address"):
        await gateway.listen("192.0.2.1", 0)
    with pytest.raises(OSError, match=r"no-such-host\.invalid: the name does not resolve"):
        await gateway.listen("no-such-host.invalid", 0)
    gateway.close()


@pytest.mark.parametrize(("secret", "tls"), [(False, True), (True, False), (False, False)])
async def test_nothing_listens_for_other_hosts_without_a_secret_and_tls(secret: bool, tls: bool) -> None:
    gateway = Gateway(asyncio.get_running_loop(), protocol_version=VERSION, tls=tls, secret=secret)
    with pytest.raises(PermissionError, match=r"will not listen on 0\.0\.0\.0"):
        await gateway.listen("0.0.0.0", 0)
    gateway.close()


# -- who may come in


async def refused(here: Called, security: Security, words: str, *, address: str | None = None) -> None:
    with pytest.raises(OSError, match=words):
        await calls(security).connect(address or here.address(), Recorder())
    assert here.callers == []


@pytest.mark.parametrize("tls", [False, True])
async def test_another_secret_is_not_admitted_and_the_log_says_why(tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with called(tls=tls) as here:
        await refused(here, driver(tls, bytes(32)), "has not proven that it is of this cluster")
        async with asyncio.timeout(10):
            while "we have no JOB key" not in caplog.text:
                await asyncio.sleep(0.01)


async def test_another_authority_is_not_admitted() -> None:
    async with called() as here:
        other = Authority.create("other", wall_time=time.time())
        await refused(here, driver(authority=other), "certificate is not of this cluster's authority")


async def test_without_tls_where_it_is_wanted() -> None:
    async with called() as here:
        await refused(here, driver(tls=False), "wants TLS, and we came without")


async def test_with_tls_where_there_is_none() -> None:
    async with called(tls=False) as here:
        await refused(here, driver(), "speaks no TLS, and we came with it")


async def test_only_a_head_answers_to_the_names_of_the_head() -> None:
    """A process of the job has the key, and a certificate of it."""
    for name in ("head", "enrolment"):
        async with called(security=named("impostor", "head", "enrolment", "worker")) as here:
            door = await here.network.listen(here.address(name), here.accept)
            with pytest.raises(OSError, match="worker impostor answers there.*we expected a head"):
                await calls().connect(here.address(name), Recorder())
            door.close()


async def test_who_is_refused_may_be_told_before_the_one_who_asked() -> None:
    async with called() as here:
        heard: list[HandshakeRefused] = []
        network = TcpNetwork(asyncio.get_running_loop(), driver(secret=bytes(32)), None, on_refused=heard.append)
        with pytest.raises(ConnectionRefusedError):
            await network.connect(here.address(), Recorder())
        assert [(error.code, error.cut) for error in heard] == [(Code.NOT_ADMITTED, False)]


async def test_refusals_inside_the_handshake_are_logged_for_a_few_of_many(caplog: pytest.LogCaptureFixture) -> None:
    async with called(tls=False) as here:
        preface = Preface("worker", False, VERSION, time.time()).encode()
        for _ in range(50):
            assert await here.says(preface + b"rubbish") != b""
        async with asyncio.timeout(10):
            while "was expected" not in caplog.text:
                await asyncio.sleep(0.01)
        assert caplog.text.count("was expected") <= 2 * gateway_module.REFUSALS_LOGGED_PER_S


async def test_another_version_is_told_which_one() -> None:
    async with called() as here:
        other = driver()
        other.terms.protocol_version = VERSION + 1
        await refused(here, other, r"speaks protocol 1\.7 and this one 1\.8: install the same actorflow version")


async def test_a_name_that_is_not_there() -> None:
    async with called() as here:
        await refused(here, driver(), "that process is not there any more", address=here.address("nobody"))


async def test_a_clock_that_is_a_day_off() -> None:
    async with called() as here:
        other = driver()
        other.wall_time = lambda: time.time() + 86_400
        await refused(here, other, r"(ahead|behind).*set both clocks")


async def test_a_key_of_another_job() -> None:
    async with called() as here:
        ring, like = keyring_of([SECRET]).for_job("another"), driver()
        terms = Terms(Party(Role.DRIVER, "driver"), ring, os.urandom, VERSION)
        other = Security(terms, lambda name: ring.pick(KeyKind.JOB), like.server, like.client)
        await refused(here, other, "has not proven that it is of this cluster")


async def test_one_who_answers_to_anothers_name_is_noticed() -> None:
    """The connector expects the process that it has asked for."""
    async with called(security=named("impostor", "worker")) as here:
        with pytest.raises(OSError, match="we expected process worker"):
            await calls().connect(here.address(), Recorder())


# -- those who call


async def test_nobody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match=f"127.0.0.1 port {port}: Connection refused"):
        await calls().connect(f"tcp:127.0.0.1:{port}/x", Recorder())


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(OSError, match=r"the name no-such-host\.invalid does not resolve.*give an IP address"):
        await calls().connect("tcp:no-such-host.invalid:1/x", Recorder())


async def test_no_address() -> None:
    with pytest.raises(OSError, match="expected tcp:HOST:PORT/NAME") as caught:
        await calls().connect("tcp:1/x", Recorder())
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("tls", [False, True])
async def test_one_who_never_answers(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_handshake, "HANDSHAKE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(TimeoutError, match="was not done within 0.2 s"):
            await calls(driver(tls)).connect(f"tcp:127.0.0.1:{server.getsockname()[1]}/x", Recorder())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x28"])
async def test_one_who_is_no_node(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="speaks HTTP|closed in the middle|TLS failed|is not TLS"):
            await calls().connect(f"tcp:127.0.0.1:{port}/x", Recorder())


@pytest.mark.parametrize("heard_bytes", [0, 1, 63])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_handshake_that_is_cut_is_no_refusal(tls: bool, heard_bytes: int) -> None:
    """Whoever wants to go on with a link tries again: a line that breaks says nothing of the process behind it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(heard_bytes)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard: list[HandshakeRefused] = []
    async with server:
        network = TcpNetwork(asyncio.get_running_loop(), driver(tls), None, on_refused=heard.append)
        with pytest.raises(ConnectionResetError, match="closed (in the middle|when the answer was expected)"):
            await network.connect(f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}/x", Recorder())
    assert [(error.code, error.cut) for error in heard] == [(Code.NOT_ADMITTED, True)]


async def test_a_cancelled_connect_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        task = asyncio.create_task(calls().connect(f"tcp:127.0.0.1:{server.getsockname()[1]}/x", Recorder()))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# -- handed over


@asynccontextmanager
async def handed(path: Path, gateway: Gateway) -> AsyncIterator[HandoverServer]:
    server = HandoverServer(asyncio.get_running_loop(), str(path), gateway)
    try:
        yield server
    finally:
        server.close()


async def test_a_process_that_ends_is_known_no_longer(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    async with called() as here, handed(directory / "h.sock", here.gateway):
        network = TcpNetwork(loop, worker(), lambda name, take: HandoverClient.register(loop, str(directory / "h.sock"), name, take))
        door = await network.listen(here.address("other"), here.accept)
        assert "other" in here.gateway._takers
        door.close()
        async with asyncio.timeout(10):
            while "other" in here.gateway._takers:
                await asyncio.sleep(0.01)
        await refused(here, driver(), "that process is not there any more", address=here.address("other"))


async def test_a_node_that_goes_ends_the_handover_and_no_connection(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    async with called() as here:
        server = HandoverServer(loop, str(directory / "h.sock"), here.gateway)
        closed = await HandoverClient.register(loop, str(directory / "h.sock"), "x", lambda sock, preface: True)
        server.close()
        await asyncio.sleep(0.05)
        closed()
        with pytest.raises(FileNotFoundError):
            await HandoverClient.register(loop, str(directory / "h.sock"), "x", lambda sock, preface: True)


async def test_a_node_that_does_not_answer(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actorflow._core.io import handover

    monkeypatch.setattr(handover, "REGISTER_TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.bind(str(directory / "h.sock"))
        silent.listen()
        with pytest.raises(TimeoutError, match=r"did not answer for 0\.1 s"):
            await HandoverClient.register(asyncio.get_running_loop(), str(directory / "h.sock"), "x", lambda sock, preface: True)


# -- the choice of the way


async def test_within_a_machine_the_short_way_is_taken(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    async with called() as here:
        address = f"{here.address('both')},unix:{directory}/both.sock"
        both = TcpNetwork(loop, named("worker", "both"), here.gateway.open_door)
        machine = ClusterNetwork(UnixNetwork(loop), both, str(directory))
        listener = await machine.listen(address, here.accept)
        elsewhere = ClusterNetwork(UnixNetwork(loop), _any_name(calls()), "/another/session")
        for network, family in ((machine, socket.AF_UNIX), (elsewhere, socket.AF_INET)):
            caller = Recorder()
            stream = caller.stream = await network.connect(address, caller)
            assert stream._sock.family == family  # type: ignore[attr-defined]
            stream.write(b"hello")
            await wait_for(lambda: here.callers and here.callers[-1].data == b"hello")
            stream.close()
            await caller.until(lambda caller=caller: caller.lost)
        listener.close()


def _any_name(network: TcpNetwork) -> TcpNetwork:
    network.expected = lambda name: ""  # type: ignore[method-assign]
    return network


async def wait_for(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


# -- under TLS


async def test_what_is_written_from_many_threads_under_one_lock_arrives_whole() -> None:
    """TS-1, TS-2: the loop opens while others seal."""
    import threading

    lock = threading.Lock()
    async with called() as here:
        caller = Recorder()
        stream = caller.stream = await calls().connect(here.address(), caller)
        await wait_for(lambda: here.callers)

        def speak(number: int) -> None:
            for index in range(200):
                with lock:
                    stream.write(bytes([number]) * (index + 1))

        threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for index in range(200):
            here.callers[0].stream.write(b"x" * 5_000)
            if index % 10 == 0:
                await asyncio.sleep(0)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        total = 4 * 200 * 201 // 2
        await here.callers[0].until(lambda: len(here.callers[0].data) == total)
        assert all(here.callers[0].data.count(bytes([number])) == total // 4 for number in range(4))
        await caller.until(lambda: len(caller.data) == 1_000_000)
        stream.close()
        await caller.until(lambda: caller.lost)


async def test_bytes_that_are_no_tls_end_a_connection_that_was_admitted() -> None:
    async with called() as here:
        caller = Recorder()
        stream: Any = await calls().connect(here.address(), caller)
        caller.stream = stream
        await wait_for(lambda: here.callers)
        stream._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await here.callers[0].until(lambda: here.callers[0].lost)
        assert here.callers[0].data == b""
        await caller.until(lambda: caller.lost)
