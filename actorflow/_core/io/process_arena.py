"""An Arena of one process, for `mode="in_process"` where there are no memory files: anonymous memory, and views of it."""

from __future__ import annotations

import ctypes
import mmap
from typing import Self

from actorflow._core.io.arena import MemfdArena, no_room


class ProcessArena(MemfdArena):
    """As MemfdArena, without a descriptor: nobody else can map it. Views that are not writable are so for Python only (not AR-1)."""

    @classmethod
    def create(cls, size: int) -> Self:
        """Make a new, empty arena of `size` bytes, rounded up to whole pages."""
        return cls(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def prefault(self, offset: int, size: int) -> None:
        """Nothing: how to do it is each system's own, and the first write does it too."""

    def release(self, offset: int, size: int) -> None:
        """Nothing can be given back in a way that every system has: the memory stays with this process, to be written again."""

    def _map(self, writable: bool) -> tuple[mmap.mmap, int]:
        try:
            mapping = mmap.mmap(-1, self.size)
        except OSError as error:
            raise no_room(error, self.size, "mapped") from error
        base = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapping))
        self._mappings = {False: (mapping, base), True: (mapping, base)}
        return mapping, base
