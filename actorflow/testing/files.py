"""Simulated disks, for what has to survive: a file loses what was not synced when its machine goes down.

FI-1: bytes that were written before a `sync` was called survive any crash once it has returned, in
order. FI-2: of bytes that were not synced, a crash keeps a prefix, and it may leave zeros behind it: a
torn tail. FI-3: `replace` is all or nothing: after a crash the file has the old content or the new one,
and the new one once it has returned. FI-4: the death of a process loses nothing: only a machine that goes
down does. FI-5: what a failed sync was to write may be zeros after a crash, even when a later sync of the file
succeeded: systems take such pages for written.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable

from actorflow._core.io.ports import Files
from actorflow.testing.host import Host
from actorflow.testing.world import World

SYNC_MIN_S = 0.000_1
SYNC_MAX_S = 0.005
TORN_ZEROS_MAX = 512


__all__ = ["Files", "SimDisk", "SimFiles"]


class _File:
    __slots__ = ("content", "durable", "holes", "synced_bytes")

    def __init__(self) -> None:
        self.content = bytearray()
        self.synced_bytes = 0
        self.holes: list[tuple[int, int]] = []
        """What failed syncs have not written (FI-5)."""
        self.durable = False
        """True once the file itself, and not only its content, would survive a crash."""


class SimDisk:
    """The disk of a machine: it outlives processes."""

    def __init__(self, world: World, machine: str, capacity_bytes: int | None = None) -> None:
        self.world = world
        self.machine = machine
        self.capacity_bytes = capacity_bytes
        self.files: dict[str, _File] = {}
        self.sync_errors_planned = 0
        """So many of the next syncs fail with EIO."""
        self.rng = world.rng(f"disk of {machine}")

    def used_bytes(self) -> int:
        """The content of all files."""
        return sum(len(file.content) for file in self.files.values())

    def room(self, wanted_bytes: int) -> int:
        """How many of these bytes fit."""
        if self.capacity_bytes is None:
            return wanted_bytes
        return min(wanted_bytes, max(0, self.capacity_bytes - self.used_bytes()))

    def full(self, path: str) -> OSError:
        """What a full disk says."""
        return OSError(errno.ENOSPC, "no space left on the simulated disk", path)

    def crash(self) -> None:
        """The machine goes down: what was not synced is lost, in part or as a whole (FI-2)."""
        for path, file in list(self.files.items()):
            for start, end in file.holes:
                if self.rng.random() < 0.5:
                    file.content[start:end] = bytes(end - start)
            file.holes.clear()
            unsynced = len(file.content) - file.synced_bytes
            kept = int(self.rng.random() * (unsynced + 1))
            lost = unsynced - kept
            del file.content[file.synced_bytes + kept :]
            if lost and self.rng.random() < 0.3:
                file.content += bytes(min(lost, 1 + int(self.rng.random() * TORN_ZEROS_MAX)))
            file.synced_bytes = len(file.content)
            self.world.note(self.machine, f"crash: {path} keeps {kept} of {unsynced} unsynced bytes")
            if not file.durable and self.rng.random() < 0.5:
                del self.files[path]


class SimFiles:
    """The `Files` of one process, on the disk of its machine."""

    def __init__(self, host: Host, disk: SimDisk) -> None:
        self.host = host
        self.disk = disk

    async def append(self, path: str, data: bytes) -> None:
        """See Files."""
        self.write(path, data)
        await self.sync(path)

    def write(self, path: str, data: bytes) -> None:
        """Add to the end of a file; on the disk after the next `sync`. Raises OSError (ENOSPC), with as much of it written as fits."""
        fits = self.disk.room(len(data))
        self.disk.files.setdefault(path, _File()).content.extend(data[:fits])
        if fits < len(data):
            raise self.disk.full(path)

    def read(self, path: str) -> bytes:
        """See Files."""
        return bytes(self._file(path).content)

    async def sync(self, path: str) -> None:
        """See Files."""
        file = self._file(path)
        size = len(file.content)
        try:
            await self._wait(path)
        except OSError:
            file.holes.append((file.synced_bytes, size))
            raise
        file.synced_bytes = max(file.synced_bytes, min(size, len(file.content)))
        file.durable = True

    async def replace(self, path: str, pieces: Iterable[bytes]) -> None:
        """See Files."""
        data = b"".join(pieces)
        old = self.disk.files.get(path)
        grows = len(data) - (len(old.content) if old else 0)
        if self.disk.room(grows) < grows:
            raise self.disk.full(path)
        await self._wait(path)
        file = self.disk.files[path] = _File()
        file.content += data
        file.synced_bytes = len(data)
        file.durable = True

    def paths(self, prefix: str) -> list[str]:
        """See Files."""
        return sorted(path for path in self.disk.files if path.startswith(prefix))

    def remove(self, path: str) -> None:
        """See Files."""
        self._file(path)
        del self.disk.files[path]

    def _file(self, path: str) -> _File:
        file = self.disk.files.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such simulated file", path)
        return file

    async def _wait(self, path: str) -> None:
        await asyncio.sleep(self.disk.rng.uniform(SYNC_MIN_S, SYNC_MAX_S))
        if self.disk.sync_errors_planned > 0:
            self.disk.sync_errors_planned -= 1
            raise OSError(errno.EIO, "the simulated disk failed to sync", path)
