"""The real adapters, on plain asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from actorflow._core.io.arena import MemfdArena
from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.io.files import RealFiles
from actorflow._core.io.local_network import LocalNetwork
from actorflow._core.io.ports import Arena
from actorflow._core.io.processes import ZygoteProcesses
from actorflow._core.io.sockets import UnixNetwork
from actorflow._core.io.spill_directory import LOCK
from actorflow._core.io.spill_files import FileSpill
from actorflow._core.io.spill_target import place_of
from actorflow._core.io.zygote_link import ZygoteHandle, link_pair
from tests.conformance.worlds import FULL_DISK_ROOM_BYTES, SPILL_ARENA_BYTES

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ROOT = Path(__file__).resolve().parents[2]
WAKE_DELAY_S = 0.02


class RealWorld:
    def __init__(self, loop_factory: LoopFactory) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self.loop = self._runner.get_loop()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(main)

    def close(self) -> None:
        self._runner.close()


class RealNetworkWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory, directory: Path) -> None:
        super().__init__(loop_factory)
        self.network = UnixNetwork(self.loop)
        self._directory = directory
        self._numbers = itertools.count()

    def address(self) -> str:
        return f"unix:{self._directory}/{next(self._numbers)}.sock"


class LocalNetworkWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory) -> None:
        super().__init__(loop_factory)
        self.network = LocalNetwork(self.loop)
        self._numbers = itertools.count()

    def address(self) -> str:
        return f"local:{next(self._numbers)}"


class RealArenaWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory) -> None:
        super().__init__(loop_factory)
        self._arenas: list[MemfdArena] = []

    def create(self, size: int) -> Arena:
        return self._keep(MemfdArena.create(size))

    def attach(self, arena: Arena) -> Arena:
        assert isinstance(arena, MemfdArena)
        return self._keep(MemfdArena.attach(os.dup(arena.fileno()), arena.size))

    def _keep(self, arena: MemfdArena) -> MemfdArena:
        self._arenas.append(arena)
        return arena

    def close(self) -> None:
        for arena in self._arenas:
            arena.close()
        super().close()


class RealSpillWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory, directory: Path, target: str) -> None:
        """`target`: as io/spill_target.py has it, with DIRECTORY for one that is there for it."""
        super().__init__(loop_factory)
        self._directory = directory
        self.arena = MemfdArena.create(SPILL_ARENA_BYTES)
        place = place_of(target.replace("DIRECTORY", str(directory)), str(directory / "spill"), "session")
        self.spill = FileSpill(self.loop, self.arena, place)

    def fail_next(self) -> None:
        whole, what = self._directory, self.spill._go_on

        def fails() -> None:
            self.spill._go_on = what  # type: ignore[method-assign]
            raise OSError(errno.EIO, "the disk is broken", str(whole))

        self.spill._go_on = fails  # type: ignore[method-assign]

    def files(self) -> int:
        return sum(path.is_file() and path.name != LOCK for path in self._directory.rglob("*"))

    def close(self) -> None:
        self.spill.close()
        assert list(self._directory.iterdir()) == [], "DI-3"
        self.arena.close()
        super().close()


class RealFilesWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory, directory: Path) -> None:
        super().__init__(loop_factory)
        self._directory = directory / "files"
        self.files = RealFiles(self._directory)

    @contextmanager
    def full(self) -> Iterator[None]:
        write, room = os.write, FULL_DISK_ROOM_BYTES

        def write_what_fits(fd: int, data: memoryview) -> int:
            nonlocal room
            if room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = write(fd, data[:room])
            room -= count
            return count

        with mock.patch.object(os, "write", write_what_fits):
            yield

    def close(self) -> None:
        self.files.close()
        for path in self._directory.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, "RF-3"
            assert path.suffix != ".tmp"
            path.unlink()
        super().close()


class RealProcessWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory) -> None:
        super().__init__(loop_factory)
        self.zygote = spawn_zygote("tests.conformance.worker_program:main")
        self.processes = ZygoteProcesses(self.loop, self.zygote)

    def close(self) -> None:
        # For a test that did not start them: `stop` twice is allowed.
        self.run(self.processes.stop(0.0))
        super().close()


class RealExecutorWorld(RealWorld):
    def __init__(self, loop_factory: LoopFactory) -> None:
        super().__init__(loop_factory)
        self.executor = MainThreadExecutor(self.loop)
        self._timers: list[threading.Timer] = []

    def wake_later(self, wake: Callable[[], None]) -> None:
        timer = threading.Timer(WAKE_DELAY_S, wake)
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        for timer in self._timers:
            timer.join()
        super().close()


def spawn_zygote(entry: str, modules: tuple[str, ...] = (), keep_fds: tuple[int, ...] = ()) -> ZygoteHandle:
    """A zygote in a process that was executed and not forked: the one that runs pytest may have threads."""
    link, zygote_link = link_pair()
    code = (
        "import socket, sys; from actorflow._core.boot.zygote import run_zygote; "
        f"run_zygote(socket.socket(fileno={zygote_link.fileno()}), {modules!r}, "
        f"entry={entry!r}, keep_fds={keep_fds!r})"
    )
    zygote_link.set_inheritable(True)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], environ)
    zygote_link.close()
    return ZygoteHandle(pid, link)
