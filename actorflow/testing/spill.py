"""The spill port under simulation: files are bytes, and the disk takes its time and fails when it is told to."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow.testing.errors import SimulationMisuse

if TYPE_CHECKING:
    from actorflow.testing.arena import SimArena
    from actorflow.testing.host import Host

SEEK_MAX_S = 0.01
BYTES_PER_S = 500e6


class SimFile:
    """A SpilledFile: it has the bytes, whatever becomes of the name."""

    def __init__(self, spill: SimSpill, data: bytes) -> None:
        self._spill = spill
        self._data = data
        self.open = True

    def read_part(self, start: int, length: int, then: Callable[[bytes, str], None]) -> None:
        """See ports.SpilledFile."""
        spill = self._spill

        def answer() -> None:
            if not self.open:
                raise SimulationMisuse("a file is closed while a part of it is being read")
            if spill.read_failures_planned:
                then(b"", spill._failing_read())
            else:
                then(self._data[start : start + length], "")

        spill._after(length, answer)

    def close(self) -> None:
        """See ports.SpilledFile."""
        if not self.open:
            raise SimulationMisuse("a file is closed twice")
        self.open = False
        self._spill.open_files.discard(self)


class SimSpill:
    """The SpillFiles of a simulated node."""

    def __init__(self, host: Host, arena: SimArena, capacity_bytes: int | None = None) -> None:
        self.host = host
        self.arena = arena
        self.capacity_bytes = capacity_bytes
        self.files: dict[int, bytes] = {}
        self.write_failures_planned = 0
        """So many of the next writes fail."""
        self.read_failures_planned = 0
        self.open_files: set[SimFile] = set()
        """What is held open."""
        self.lost: set[int] = set()
        """What was there, and somebody has deleted."""
        self.writes = 0
        self.reads = 0
        self._rng = host.world.rng(f"spill disk of {host.name}")

    def write(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See ports.SpillFiles. What is written is what was there at the end."""

        def work() -> str:
            if self.capacity_bytes is not None and sum(map(len, self.files.values())) + size > self.capacity_bytes:
                return "No space left on the simulated disk"
            self.files[number] = bytes(self.arena.view(offset, size))
            self.lost.discard(number)
            self.writes += 1
            return ""

        self._later(size, self._failing_write if self.write_failures_planned else work, then)

    def read(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See ports.SpillFiles."""

        def work() -> str:
            if number in self.lost:
                return "No such file on the simulated disk"
            if number not in self.files:
                raise SimulationMisuse(f"extent {number} is read from disk, and was never written there, or deleted")
            self.arena.write(offset, self.files[number])
            self.reads += 1
            return ""

        self._later(size, self._failing_read if self.read_failures_planned else work, then)

    def fail_reads(self, count: int) -> None:
        """The next `count` reads fail."""
        self.read_failures_planned += count

    def lose_files(self) -> None:
        """Somebody deletes all that is there."""
        self.lost.update(self.files)
        self.files.clear()

    def open(self, number: int) -> SimFile:
        """See ports.SpillFiles."""
        if number in self.lost:
            raise FileNotFoundError(errno.ENOENT, "No such file on the simulated disk")
        if number not in self.files:
            raise SimulationMisuse(f"extent {number} is opened on disk, and was never written there, or deleted")
        file = SimFile(self, self.files[number])
        self.open_files.add(file)
        return file

    def delete(self, number: int) -> None:
        """See ports.SpillFiles."""
        self.files.pop(number, None)
        self.lost.discard(number)

    def close(self) -> None:
        """See ports.SpillFiles."""
        self.files.clear()

    def _failing_write(self) -> str:
        self.write_failures_planned = max(self.write_failures_planned - 1, 0)
        return "No space left on the simulated disk"

    def _failing_read(self) -> str:
        self.read_failures_planned = max(self.read_failures_planned - 1, 0)
        return "Input/output error of the simulated disk"

    def _later(self, size: int, work: Callable[[], str], then: Callable[[str], None]) -> None:
        self._after(size, lambda: then(work()))

    def _after(self, size: int, fn: Callable[[], None]) -> None:
        world = self.host.world
        world.at_host(self.host, world.now + self._rng.uniform(0, SEEK_MAX_S) + size / BYTES_PER_S, fn)
