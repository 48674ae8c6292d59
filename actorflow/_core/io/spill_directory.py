"""Spilled objects on a disk: in the session directory of their node, or in a directory that the user has named.

A directory that the user has named has one of its own in it for each node: DIRECTORY/actorflow-<uid>-<session id>/, with a lock that the
node holds for as long as it lives. Whoever writes there first sweeps those of nodes that are dead; the session directory has a lock and a
sweep of its own (boot/session_dir.py).

    DS-1  A directory is swept only by who holds its lock, and only if it is ours. The lock dies with the node, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator

from actorflow._core.base.resources import format_bytes
from actorflow._core.io.spill_files import CHUNK_BYTES

DISK_FREE_SHARE_MIN = 0.05
SWEEP_AGE_S = 10.0
"""A directory younger than this may be one whose node has not yet taken its lock."""
LOCK = "lock"


class _File:
    """A Reader. Opening it is done at once, as the file may be deleted next; reading it is left to the threads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, length: int) -> bytes:
        """See Reader."""
        data = os.pread(self._fd, length, start)
        if len(data) != length:
            raise OSError(errno.EIO, f"the file ends after {start + len(data)} bytes", self._path)
        return data

    def close(self) -> None:
        """See Reader."""
        os.close(self._fd)


class DirectoryPlace:
    """A SpillPlace: files in a directory that exists for as long as there are some."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """See SpillPlace."""
        size = len(view)
        self._enter()
        disk = os.statvfs(self.path)
        total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        if free - size < total * DISK_FREE_SHARE_MIN:
            text = f"{format_bytes(free)} of {format_bytes(total)} are free, and the last {DISK_FREE_SHARE_MIN:.0%} are left alone"
            raise OSError(errno.ENOSPC, text, self.path)
        path = self._file(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < size:
                go_on()
                done += os.pwrite(fd, view[done : done + CHUNK_BYTES], done)
        except BaseException:
            os.unlink(path)  # DI-1
            raise
        finally:
            os.close(fd)

    def read(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """See SpillPlace."""
        size = len(view)
        fd = os.open(self._file(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < size:
                go_on()
                count = os.preadv(fd, [view[done : done + CHUNK_BYTES]], done)
                if not count:
                    raise OSError(errno.EIO, f"the file ends after {done} of {size} bytes", self._file(number))
                done += count
        finally:
            os.close(fd)

    def open(self, number: int) -> _File:
        """See SpillPlace."""
        return _File(self._file(number))

    def delete(self, number: int) -> None:
        """See SpillPlace."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(number))

    def clear(self) -> None:
        """See SpillPlace."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as files:
            for file in files:
                os.unlink(file)
            os.rmdir(self.path)

    def _enter(self) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)

    def _file(self, number: int) -> str:
        return f"{self.path}/{number:x}"


class NamedDirectoryPlace(DirectoryPlace):
    """The same in a directory that the user has named, which other nodes use too (DS-1)."""

    def __init__(self, directory: str, session_id: str) -> None:
        super().__init__(f"{directory}/{_prefix()}{session_id}")
        self._directory = directory
        self._lock_fd = -1

    def _enter(self) -> None:
        if self._lock_fd < 0:
            _sweep(self._directory)
        super()._enter()
        if self._lock_fd < 0:
            # Two threads may come here at once: one of them locks a file that it locks already, and closes it again.
            fd = os.open(f"{self.path}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
            else:
                self._lock_fd = fd

    def clear(self) -> None:
        """See SpillPlace."""
        super().clear()
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)


def _prefix() -> str:
    return f"actorflow-{os.geteuid()}-"


def _sweep(directory: str) -> None:
    """Remove what nodes that are dead have left there."""
    for path in _ours(directory):
        with contextlib.suppress(OSError):  # Somebody else sweeps it, or its node has just ended.
            fd = os.open(f"{path}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(fd)


def _ours(directory: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix()):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and time.time() - found.st_mtime > SWEEP_AGE_S:
                    yield entry.path
