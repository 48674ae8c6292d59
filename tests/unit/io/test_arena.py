"""What only a real memory file can show."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actorflow._core.io import arena as module
from actorflow._core.io import sockets
from actorflow._core.io.arena import ArenaServer, MemfdArena, fetch_arena
from tests.conformance.leaks import open_fds

MIB = 1 << 20
GIB = 1 << 30


def memory_used(arena: MemfdArena) -> int:
    return os.fstat(arena.fileno()).st_blocks * 512


@pytest.mark.parametrize("punch_hole", [True, False], ids=["fallocate", "madvise"])
def test_released_memory_goes_back_to_the_system(punch_hole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not punch_hole:
        monkeypatch.setattr(module, "_punch_hole", lambda fd, offset, size: False)
    arena = MemfdArena.create(4 * MIB)
    view = arena.view(0, 4 * MIB, writable=True)
    view[:] = b"x" * (4 * MIB)
    assert memory_used(arena) == 4 * MIB
    arena.release(MIB, 2 * MIB)
    assert memory_used(arena) == 2 * MIB
    arena.release(100, 200)  # Less than a page: nothing to give back, and no harm done.
    assert memory_used(arena) == 2 * MIB
    assert view[99] == view[300] == ord("x")
    # Last, for to look at a page is to use it.
    assert (view[MIB - 1], view[MIB], view[3 * MIB - 1], view[3 * MIB]) == (ord("x"), 0, 0, ord("x"))
    arena.close()


def test_a_large_arena_costs_nothing_until_it_is_used() -> None:
    arena = MemfdArena.create(64 * GIB)
    arena.view(63 * GIB, 10, writable=True)[:] = b"0123456789"
    assert 0 < memory_used(arena) <= 2 * MIB
    assert bytes(arena.view(63 * GIB + 3, 2)) == b"34"
    arena.close()


def test_ar_3_nobody_can_shrink_it() -> None:
    arena = MemfdArena.create(MIB)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fileno(), 0)
    arena.close()


def test_views_cost_no_descriptor() -> None:
    arena = MemfdArena.create(MIB)
    arena.view(0, 1)
    arena.view(0, 1, writable=True)
    before = open_fds()
    views = [arena.view(number, 10) for number in range(5_000)]
    assert open_fds() == before
    assert len(views) == 5_000
    arena.close()


def test_ar_1_a_stray_write_kills_the_culprit() -> None:
    code = """
import ctypes
from actorflow._core.io.arena import MemfdArena
arena = MemfdArena.create(4096)
view = arena.view(0, 10)
print("ready", flush=True)
view.obj[0] = 1
print("written")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (run.returncode, run.stdout) == (-signal.SIGSEGV, b"ready\n")


def test_sizes_are_rounded_up_to_pages() -> None:
    arena = MemfdArena.create(5_000)
    assert arena.size == 8_192
    arena.close()
    with pytest.raises(ValueError, match="positive"):
        MemfdArena.create(0)


def test_a_file_that_is_too_small_is_not_attached() -> None:
    arena = MemfdArena.create(4_096)
    with pytest.raises(ValueError, match="4096 bytes, 8192 were announced"):
        MemfdArena.attach(arena.fileno(), 8_192)
    arena.close()


def test_the_descriptor_is_not_inherited_by_what_the_user_starts() -> None:
    arena = MemfdArena.create(4_096)
    assert not os.get_inheritable(arena.fileno())
    arena.close()
    assert arena.fileno() == -1


# -- handing it over


class Served:
    """An arena that is served by a loop in a thread of its own, as a node would."""

    def __init__(self, runner: asyncio.Runner, path: Path) -> None:
        self.arena = MemfdArena.create(MIB)
        self.path = str(path)
        self._runner = runner
        self._up = threading.Event()
        self._thread = threading.Thread(target=runner.run, args=(self._serve(),))

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        server = ArenaServer(self._loop, self.path, self.arena)
        self._up.set()
        await self._stop.wait()
        server.close()
        server.close()

    def __enter__(self) -> MemfdArena:
        self._thread.start()
        assert self._up.wait(10)
        return self.arena

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.arena.close()


def test_a_client_gets_the_same_memory(runner: asyncio.Runner, directory: Path) -> None:
    with Served(runner, directory / "arena.sock") as arena:
        arena.view(0, 5, writable=True)[:] = b"hello"
        for _ in range(3):
            fetched = fetch_arena(str(directory / "arena.sock"))
            assert bytes(fetched.view(0, 5)) == b"hello"
            assert fetched.size == arena.size
            assert not os.get_inheritable(fetched.fileno())
            fetched.close()
    assert list(directory.iterdir()) == []


def test_a_client_that_leaves_early_disturbs_nobody(runner: asyncio.Runner, directory: Path) -> None:
    path = str(directory / "arena.sock")
    with Served(runner, directory / "arena.sock"):
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
        fetch_arena(path).close()


def test_a_stranger_gets_nothing(runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "peer_credentials", lambda sock: (1, os.geteuid() + 1))
    with Served(runner, directory / "arena.sock"), pytest.raises(ConnectionError, match="did not hand over"):
        fetch_arena(str(directory / "arena.sock"))


def test_a_strangers_arena_is_not_taken(runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "peer_credentials", lambda sock: (1, os.geteuid() + 1))
    with Served(runner, directory / "arena.sock"), pytest.raises(PermissionError, match="not ours"):
        fetch_arena(str(directory / "arena.sock"))


def test_nobody_serves(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fetch_arena(str(directory / "arena.sock"))


def test_a_server_that_does_not_answer_is_not_waited_for_long(directory: Path) -> None:
    path = str(directory / "arena.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(TimeoutError):
            fetch_arena(path, timeout_s=0.05)


def test_a_server_that_says_nothing_of_use(directory: Path) -> None:
    path = str(directory / "arena.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def answer() -> None:
            sock, _ = listener.accept()
            with sock:
                socket.send_fds(sock, [b"hi"], [0])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError, match="did not hand over"):
            fetch_arena(path, timeout_s=10)
        thread.join(10)
