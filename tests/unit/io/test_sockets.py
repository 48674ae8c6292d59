"""What only real unix sockets can show: threads, other users, full queues, exhausted descriptors."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.io import socket_stream, sockets
from actorflow._core.io.ports import Stream
from actorflow._core.io.socket_stream import HangupWatch, SocketStream
from actorflow._core.io.sockets import UnixListener, UnixNetwork, unix_path
from tests.conformance.leaks import open_fds
from tests.conformance.worlds import Recorder, Watcher, pattern, settle

FOREIGNER = os.geteuid() + 1


class Pair:
    """A SocketStream, and at its other end a plain socket that does only what the test says."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        self.handler = Recorder()
        loop = asyncio.get_running_loop()
        self.stream = SocketStream(loop, ours, HangupWatch(loop))
        self.stream.start(self.handler)

    async def end(self) -> None:
        self.peer.close()
        await self.handler.until(lambda: self.handler.lost)


def fill(stream: SocketStream) -> bytes:
    """Write until the kernel takes no more, and then some; return all that was written."""
    written = b""
    while stream.buffered_bytes() < 500_000:
        chunk = pattern(90_001)
        stream.write(chunk)
        written += chunk
    return written


class Complaints(logging.Handler, Watcher):
    """What the module logs, as something that can be waited for."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        Watcher.__init__(self)
        self.text = ""
        sockets.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()
        self.changed()


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Use up the descriptors of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_fds()) + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def read_all(peer: socket.socket, size: int) -> bytes:
    peer.settimeout(10)
    parts = []
    while size:
        parts.append(peer.recv(min(size, 65_536)))
        size -= len(parts[-1])
    return b"".join(parts)


# -- threads


def test_another_thread_writes_in_order_while_the_loop_drains(runner: asyncio.Runner) -> None:
    sizes = [1, 70_000, 3, 0, 300_000, 17] * 40
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    async def scenario() -> None:
        pair = Pair()
        reader = asyncio.create_task(asyncio.to_thread(read_all, pair.peer, sum(sizes)))
        await asyncio.to_thread(lambda: [pair.stream.write(chunk) for chunk in chunks])
        assert await reader == b"".join(chunks)
        await settle()
        assert pair.stream.buffered_bytes() == 0
        await pair.end()

    runner.run(scenario())


def test_two_threads_under_one_lock_never_mix(runner: asyncio.Runner) -> None:
    count, size = 300, 5_000
    lock = threading.Lock()

    def send(stream: SocketStream, mark: int) -> None:
        for _ in range(count):
            with lock:
                stream.write(bytes([mark]) * size)

    async def scenario() -> None:
        pair = Pair()
        reader = asyncio.create_task(asyncio.to_thread(read_all, pair.peer, 2 * count * size))
        await asyncio.gather(*(asyncio.to_thread(send, pair.stream, mark) for mark in (1, 2)))
        data = await reader
        messages = [data[start : start + size] for start in range(0, len(data), size)]
        assert all(message.count(message[0]) == size for message in messages)
        assert sum(message[0] for message in messages) == 3 * count
        await pair.end()

    runner.run(scenario())


def test_a_thread_may_write_while_the_stream_ends(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        for _ in range(20):
            pair = Pair()
            stop = threading.Event()

            def send(stream: SocketStream = pair.stream, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    if stream.buffered_bytes() < 100_000:
                        stream.write(b"x" * 1000)

            sender = asyncio.get_running_loop().run_in_executor(None, send)
            await asyncio.to_thread(pair.peer.recv, 1000)
            await pair.end()
            stop.set()
            await sender
            assert len(pair.handler.lost) == 1
            assert pair.stream.buffered_bytes() == 0

    runner.run(scenario())


def test_so_3_the_descriptor_is_not_closed_under_a_write(runner: asyncio.Runner) -> None:
    inside, go_on = threading.Event(), threading.Event()
    fds: list[int] = []

    async def scenario() -> None:
        pair = Pair()

        def slow_send(data: bytes) -> int:
            inside.set()
            go_on.wait(10)
            fds.append(pair.stream._sock.fileno())
            return len(data)

        pair.stream._send = slow_send
        writer = asyncio.create_task(asyncio.to_thread(pair.stream.write, b"hello"))
        await asyncio.to_thread(inside.wait, 10)
        await pair.end()
        go_on.set()
        await writer
        assert fds[0] >= 0
        assert pair.stream._sock.fileno() == -1

    runner.run(scenario())


# -- a peer that does not read


def test_what_the_kernel_does_not_take_is_sent_later(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        written = fill(pair.stream)
        assert await asyncio.to_thread(read_all, pair.peer, len(written)) == written
        await settle()
        assert pair.stream.buffered_bytes() == 0
        await pair.end()

    runner.run(scenario())


def test_close_does_not_wait_for_ever(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_stream, "CLOSE_TIMEOUT_S", 0.02)

    async def scenario() -> None:
        pair = Pair()
        fill(pair.stream)
        pair.stream.close()
        await pair.handler.until(lambda: pair.handler.lost)
        assert "did not take" in pair.handler.lost[0]
        pair.peer.close()

    runner.run(scenario())


def test_a_peer_that_goes_with_our_bytes_unread(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        pair.peer.send(b"last words")
        fill(pair.stream)
        await pair.end()
        assert pair.handler.data == b"last words"
        assert pair.handler.lost == ["closed by the peer"]

    runner.run(scenario())


def test_everything_that_such_a_peer_has_said_arrives(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        said = pattern(150_000)
        pair.peer.sendall(said)
        pair.stream.write(b"never read")
        pair.peer.close()
        await pair.handler.until(lambda: pair.handler.lost)
        assert pair.handler.data == said

    runner.run(scenario())


def test_a_peer_that_goes_while_we_close(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        fill(pair.stream)
        pair.stream.close()
        await settle()
        await pair.end()

    runner.run(scenario())


def test_a_peer_that_has_said_its_last_word_and_still_reads_ends_it(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        pair.peer.send(b"bye")
        pair.peer.shutdown(socket.SHUT_WR)
        await pair.handler.until(lambda: pair.handler.lost)
        assert pair.handler.data == b"bye"
        pair.peer.close()

    runner.run(scenario())


def test_a_peer_that_only_stops_reading_ends_it_too(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        pair = Pair()
        pair.peer.shutdown(socket.SHUT_RD)
        pair.stream.write(b"anybody?")
        await pair.handler.until(lambda: pair.handler.lost)
        pair.peer.close()

    runner.run(scenario())


# -- failing handlers


def test_a_handler_that_fails_loses_its_stream_and_no_other(runner: asyncio.Runner) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ZeroDivisionError("a bug")

    async def scenario() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        pair, other = Pair(), Pair()
        pair.stream._data_received = Failing().data_received
        pair.peer.send(b"boom")
        other.peer.send(b"fine")
        await pair.handler.until(lambda: pair.handler.lost)
        await other.handler.until(lambda: other.handler.data == b"fine")
        assert "ZeroDivisionError" in pair.handler.lost[0]
        assert isinstance(reported[0]["exception"], ZeroDivisionError)
        pair.peer.close()
        await other.end()

    runner.run(scenario())


def test_an_accept_that_fails_costs_one_connection(runner: asyncio.Runner, directory: Path) -> None:
    address = f"unix:{directory}/a.sock"

    async def scenario() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        network = UnixNetwork(asyncio.get_running_loop())
        server, first, second = Recorder(), Recorder(), Recorder()
        calls: list[Stream] = []

        def accept(stream: Stream) -> Recorder:
            calls.append(stream)
            if len(calls) == 1:
                raise ZeroDivisionError("a bug")
            return server

        listener = await network.listen(address, accept)
        await network.connect(address, first)
        await first.until(lambda: first.lost)
        stream = await network.connect(address, second)
        stream.write(b"works")
        await server.until(lambda: server.data == b"works")
        assert isinstance(reported[0]["exception"], ZeroDivisionError)
        listener.close()
        stream.close()
        await second.until(lambda: second.lost)
        await server.until(lambda: server.lost)

    runner.run(scenario())


# -- who may connect


def test_the_socket_file_is_for_this_user_only(runner: asyncio.Runner, directory: Path) -> None:
    async def scenario() -> None:
        listener = await UnixNetwork(asyncio.get_running_loop()).listen(f"unix:{directory}/a.sock", lambda stream: Recorder())
        assert stat.S_IMODE(os.stat(directory / "a.sock").st_mode) == 0o600
        listener.close()

    runner.run(scenario())
    assert list(directory.iterdir()) == []


def test_a_stranger_is_closed_unheard(runner: asyncio.Runner, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"unix:{directory}/a.sock"

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        accepted: list[Stream] = []
        listener = await UnixNetwork(loop, user_id=FOREIGNER).listen(address, lambda stream: accepted.append(stream) or Recorder())
        client = Recorder()
        stream = await UnixNetwork(loop).connect(address, client)
        stream.write(b"let me in")
        await client.until(lambda: client.lost)
        listener.close()
        assert accepted == []
        assert client.data == b""

    with caplog.at_level(logging.WARNING):
        runner.run(scenario())
    assert f"refused process {os.getpid()} of user {os.geteuid()}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_process_of_another_user_is_refused_even_where_it_could_connect(runner: asyncio.Runner, directory: Path) -> None:
    path = directory / "a.sock"
    code = f"import socket; s = socket.socket(1); s.connect({str(path)!r}); print(s.recv(1))"

    async def scenario() -> None:
        accepted: list[Stream] = []
        listener = await UnixNetwork(asyncio.get_running_loop()).listen(
            f"unix:{path}", lambda stream: accepted.append(stream) or Recorder()
        )
        directory.chmod(0o755)
        path.chmod(0o666)
        run = asyncio.to_thread(
            subprocess.run,
            ["/usr/bin/env", "python3", "-c", code],
            user=65534,
            capture_output=True,
            timeout=20,
            cwd="/",
        )
        result = await run
        listener.close()
        if result.stdout:  # Where that user may run Python at all.
            assert result.stdout == b"b''\n"
        assert accepted == []

    runner.run(scenario())


def test_a_strangers_listener_is_not_spoken_to(runner: asyncio.Runner, directory: Path) -> None:
    address = f"unix:{directory}/a.sock"

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        listener = await UnixNetwork(loop).listen(address, lambda stream: Recorder())
        with pytest.raises(PermissionError, match="not one of ours"):
            await UnixNetwork(loop, user_id=FOREIGNER).connect(address, Recorder())
        listener.close()

    runner.run(scenario())


# -- what runs out


def test_a_full_queue_is_waited_for_and_not_for_ever(runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CONNECT_TIMEOUT_S", 0.1)
    path = str(directory / "a.sock")

    async def scenario() -> None:
        network = UnixNetwork(asyncio.get_running_loop())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            first = await network.connect(f"unix:{path}", Recorder())
            with pytest.raises(TimeoutError, match="took no connection") as caught:
                await network.connect(f"unix:{path}", Recorder())
            assert caught.value.errno == errno.ETIMEDOUT
            waiting = asyncio.create_task(network.connect(f"unix:{path}", Recorder()))
            await settle()
            listener.accept()[0].close()
            second = await waiting
        first.abort()
        second.abort()
        await settle()

    runner.run(scenario())


def test_a_cancelled_connect_leaves_nothing(runner: asyncio.Runner, directory: Path) -> None:
    path = str(directory / "a.sock")

    async def scenario() -> None:
        network = UnixNetwork(asyncio.get_running_loop())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            first = await network.connect(f"unix:{path}", Recorder())
            waiting = asyncio.create_task(network.connect(f"unix:{path}", Recorder()))
            await settle()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        first.abort()
        await settle()

    runner.run(scenario())


def test_without_descriptors_accepting_waits_and_then_goes_on(
    runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ACCEPT_RETRY_S", 0.02)
    path = str(directory / "a.sock")

    async def scenario() -> None:
        accepted, complaints = asyncio.Event(), Complaints()
        listener = UnixListener(asyncio.get_running_loop(), path, lambda sock: (sock.close(), accepted.set())[0])
        with socket.socket(socket.AF_UNIX) as client:
            with no_descriptor_left():
                client.connect(path)
                await complaints.until(lambda: "cannot accept" in complaints.text)
                assert not accepted.is_set()
            async with asyncio.timeout(10):
                await accepted.wait()
        listener.close()
        sockets.logger.removeHandler(complaints)

    runner.run(scenario())


def test_a_listener_removes_only_its_own_file(runner: asyncio.Runner, directory: Path) -> None:
    async def scenario() -> None:
        path = directory / "a.sock"
        listener = await UnixNetwork(asyncio.get_running_loop()).listen(f"unix:{path}", lambda stream: Recorder())
        keep = directory / "keep"
        path.rename(keep)  # So that its number is not given to the next file.
        path.write_text("somebody else's")
        listener.close()
        assert path.read_text() == "somebody else's"

    runner.run(scenario())


# -- addresses


def test_a_long_path_is_refused_with_the_way_out() -> None:
    path = "/" + "d" * 100 + "/a.sock"
    with pytest.raises(OSError, match=r"108 bytes long and the system allows 107.*ACTORFLOW_TMPDIR") as caught:
        unix_path(f"unix:{path}")
    assert caught.value.errno == errno.ENAMETOOLONG
    assert unix_path(f"unix:{path[1:]}") == path[1:]


def test_bytes_count_and_not_characters() -> None:
    with pytest.raises(OSError, match="bytes long"):
        unix_path("unix:/" + "ä" * 60)


def test_where_unix_sockets_are_missing_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with pytest.raises(OSError, match="need Linux"):
        unix_path("unix:/a.sock")


def test_the_adapters_import_where_linux_is_missing() -> None:
    code = """
import os, sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "select.epoll"):
    sys.modules[name] = None
import asyncio  # Its own use of these is not ours.
for name in ("memfd_create", "pidfd_open", "fork", "posix_spawn", "geteuid", "waitid", "pipe2"):
    if hasattr(os, name):
        delattr(os, name)
import actorflow._core.io.arena, actorflow._core.io.executor, actorflow._core.io.processes
import actorflow._core.io.real, actorflow._core.io.sockets
import actorflow._core.boot.session_dir, actorflow._core.boot.zygote
try:
    actorflow._core.io.arena.MemfdArena.create(4096)
except OSError as error:
    assert "needs Linux" in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_closed_loop_is_not_an_error_for_a_late_writer() -> None:
    loop = asyncio.new_event_loop()
    ours, peer = socket.socketpair(socket.AF_UNIX)
    ours.setblocking(False)
    stream = SocketStream(loop, ours, HangupWatch(loop))
    loop.close()
    steps: list[Callable[[], object]] = [lambda: fill(stream), stream.close, stream.abort]
    for step in steps:
        step()
    ours.close()
    peer.close()
