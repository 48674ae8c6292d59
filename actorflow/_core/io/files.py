"""Durable files in a directory of the system: the real adapter of the Files port.

RF-1: what a disk may hold up runs on one thread of its own, in order: a disk that stands still stops nobody else. RF-2: the name of a file
is as durable as its content: the first sync of a file syncs the directory as well. RF-3: all files are for this user alone (0600). RF-4: a
directory belongs to one process at a time, as long as that lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TMP_SUFFIX = ".tmp"
LOCK = "lock"
_MODE = 0o600


class RealFiles:
    """The files in one directory; paths are names in it. Raises OSError, and BlockingIOError where another process has it (RF-4)."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._open: dict[str, int] = {}
        self._named: set[str] = set()
        """Files whose name is durable."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = self._lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="actorflow-files")
        for left in self._directory.glob(f"*{TMP_SUFFIX}"):
            left.unlink()  # Of a replace that did not end.

    def _lock(self) -> int:
        fd = os.open(self._directory / LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            why = "another process of this machine uses it: end that one, or choose another directory"
            raise BlockingIOError(errno.EWOULDBLOCK, why, str(self._directory)) from None
        return fd

    async def append(self, path: str, data: bytes) -> None:
        """See Files."""
        fd = self._open.get(path)
        if fd is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            fd = self._open[path] = os.open(self._directory / path, flags, _MODE)
        await self._away(self._append, fd, path, data)

    def read(self, path: str) -> bytes:
        """See Files."""
        return (self._directory / path).read_bytes()

    async def sync(self, path: str) -> None:
        """See Files."""
        fd = self._open.get(path)
        opened = fd if fd is not None else os.open(self._directory / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._away(self._sync, opened, path)
        finally:
            if fd is None:
                os.close(opened)

    async def replace(self, path: str, pieces: Iterable[bytes]) -> None:
        """See Files."""
        self._forget(path)
        await self._away(self._replace, path, pieces)

    def paths(self, prefix: str) -> list[str]:
        """See Files."""
        names = (entry.name for entry in os.scandir(self._directory) if entry.is_file())
        return sorted(name for name in names if name.startswith(prefix) and name != LOCK and not name.endswith(TMP_SUFFIX))

    def remove(self, path: str) -> None:
        """See Files."""
        self._forget(path)
        (self._directory / path).unlink()

    def close(self) -> None:
        """Let go of everything; what was not synced may be lost when the machine goes down."""
        self._thread.shutdown()
        for path in list(self._open):
            self._forget(path)
        os.close(self._lock_fd)

    def _forget(self, path: str) -> None:
        self._named.discard(path)
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    async def _away(self, fn: Callable[..., Any], *args: Any) -> None:
        """Runs to its end also when who waits is cancelled: a descriptor that is in use must not be closed under it."""
        under_way = asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)
        try:
            await asyncio.shield(under_way)
        except asyncio.CancelledError:
            await asyncio.wait([under_way])
            under_way.exception()
            raise

    def _append(self, fd: int, path: str, data: bytes) -> None:
        _write_all(fd, [data])
        self._sync(fd, path)

    def _sync(self, fd: int, path: str) -> None:
        os.fdatasync(fd)
        if path not in self._named:
            self._sync_directory()
            self._named.add(path)

    def _replace(self, path: str, pieces: Iterable[bytes]) -> None:
        target = self._directory / path
        temporary = self._directory / f"{path}{TMP_SUFFIX}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            try:
                _write_all(fd, pieces)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.rename(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # Some file systems know no such thing, and need none.
                raise
        finally:
            os.close(fd)


def _write_all(fd: int, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
