"""Where a node puts what its arena has no room for: one file for each extent, in the directory of the session.

    DI-1  A file is there whole, or it is not there: what could not be written to its end is deleted.
    DI-2  The disk is never filled: the last DISK_FREE_SHARE_MIN of it is left to others.
    DI-3  Nothing is left behind: `close` deletes the directory, and of a node that was killed the session directory is swept.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from actorflow._core.base.resources import format_bytes
from actorflow._core.io.ports import Arena

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

THREADS = 2
"""One disk is not faster for more; two, so that a small object need not wait for a large one."""
CHUNK_BYTES = 16 * 1024 * 1024
DISK_FREE_SHARE_MIN = 0.05


class OpenFile:
    """A SpilledFile. Opening it is done at once, as the file may be deleted next; reading it is left to the threads."""

    def __init__(self, spill: DirectorySpill, path: str) -> None:
        self._spill = spill
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_part(self, start: int, length: int, then: Callable[[bytes, str], None]) -> None:
        """See SpilledFile."""
        self._spill._fetch(lambda: self._read(start, length), then)

    def _read(self, start: int, length: int) -> bytes:
        self._spill._check_open()
        data = os.pread(self._fd, length, start)
        if len(data) != length:
            raise OSError(errno.EIO, f"the file ends after {start + len(data)} bytes", self._path)
        return data

    def close(self) -> None:
        """See SpilledFile."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class DirectorySpill:
    """The SpillFiles of a real node. On its loop; the work is done by threads, which do not hold the interpreter."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arena: Arena, directory: str) -> None:
        self._loop = loop
        self._arena = arena
        self._directory = directory
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def write(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See SpillFiles."""
        view = self._arena.view(offset, size)
        self._run(lambda: self._write(number, view), then)

    def read(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See SpillFiles."""
        view = self._arena.view(offset, size, writable=True)
        self._run(lambda: self._read(number, view), then)

    def open(self, number: int) -> OpenFile:
        """See SpillFiles."""
        return OpenFile(self, self._path(number))

    def delete(self, number: int) -> None:
        """See SpillFiles. An unlink of a large file takes milliseconds: in the background too."""
        self._run(lambda: self._delete(number), lambda problem: None)

    def close(self) -> None:
        """See SpillFiles."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as files:
                for file in files:
                    os.unlink(file)
                os.rmdir(self._directory)

    def _run(self, work: Callable[[], None], then: Callable[[str], None]) -> None:
        self._fetch(work, lambda _nothing, problem: then(problem))

    def _fetch(self, work: Callable[[], T], then: Callable[[T, str], None]) -> None:
        if self._closed:
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor  # Most nodes never need it.

            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="actorflow-spill")
        self._threads.submit(self._work, work, then)

    def _work(self, work: Callable[[], Any], then: Callable[[Any, str], None]) -> None:
        problem = ""
        result = None
        try:
            result = work()
        except Exception as error:
            # Also what is no OSError: whoever waits for this must be told.
            problem = _in_words(error)
        if self._closed:
            return  # Nobody waits any more.
        with contextlib.suppress(RuntimeError):  # The loop has just been closed.
            self._loop.call_soon_threadsafe(then, result, problem)

    def _path(self, number: int) -> str:
        return f"{self._directory}/{number:x}"

    def _write(self, number: int, view: memoryview) -> None:
        size = len(view)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        disk = os.statvfs(self._directory)
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        if free - size < total * DISK_FREE_SHARE_MIN:
            text = f"{format_bytes(free)} of {format_bytes(total)} are free, and the last {DISK_FREE_SHARE_MIN:.0%} are left alone"
            raise OSError(errno.ENOSPC, text, self._directory)
        path = self._path(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < size:
                self._check_open()
                done += os.pwrite(fd, view[done : done + CHUNK_BYTES], done)
        except BaseException:
            os.unlink(path)  # DI-1
            raise
        finally:
            os.close(fd)

    def _read(self, number: int, view: memoryview) -> None:
        size = len(view)
        fd = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < size:
                self._check_open()
                count = os.preadv(fd, [view[done : done + CHUNK_BYTES]], done)
                if not count:
                    raise OSError(errno.EIO, f"the file ends after {done} of {size} bytes", self._path(number))
                done += count
        finally:
            os.close(fd)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.ECANCELED, "the node ends")

    def _delete(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(number))


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
