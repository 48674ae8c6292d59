"""What a node's arena has no room for: one file for each extent, in a place of the node's own.

Here are the threads, and what the node may rely on; the places are `spill_directory.py` (a disk) and `spill_remote.py` (an object store).

    DI-1  A file is there whole, or it is not there: what could not be written to its end is deleted.
    DI-2  The disk is never filled: the last DISK_FREE_SHARE_MIN of it is left to others.
    DI-3  Nothing is left behind: `close` deletes all that was written, and of a node that was killed somebody sweeps its directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from actorflow._core.io.ports import Arena

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")

THREADS = 2
"""One disk is not faster for more; two, so that a small object need not wait for a large one."""
CHUNK_BYTES = 16 * 1024 * 1024
"""So much is written or read at once: between two such pieces a node that ends is noticed."""


class Reader(Protocol):
    """One file, held open."""

    def read(self, start: int, length: int) -> bytes:
        """A part of it. On a thread. Raises OSError."""

    def close(self) -> None:
        """Let go of it. On the loop."""


class SpillPlace(Protocol):
    """Where the files are. All but `open` runs on threads; `go_on` is called between pieces, and raises when the node ends."""

    def write(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """Write a file (DI-1). Raises OSError and what the library of the place raises."""

    def read(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """Read a whole file."""

    def open(self, number: int) -> Reader:
        """Hold a file open: it stays readable after `delete`. On the loop, without waiting. Raises OSError."""

    def delete(self, number: int) -> None:
        """A no-op where there is nothing."""

    def clear(self) -> None:
        """Delete everything that is there; a no-op when nothing was ever written. Within a bounded time."""


class OpenFile:
    """A SpilledFile."""

    def __init__(self, spill: FileSpill, reader: Reader) -> None:
        self._spill = spill
        self._reader: Reader | None = reader

    def read_part(self, start: int, length: int, then: Callable[[bytes, str], None]) -> None:
        """See SpilledFile."""
        self._spill._fetch(lambda: self._read(start, length), then)

    def _read(self, start: int, length: int) -> bytes:
        self._spill._go_on()
        assert self._reader is not None
        return self._reader.read(start, length)

    def close(self) -> None:
        """See SpilledFile."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class FileSpill:
    """The SpillFiles of a real node. On its loop; the work is done by threads, which do not hold the interpreter."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arena: Arena, place: SpillPlace) -> None:
        self._loop = loop
        self._arena = arena
        self._place = place
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def write(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See SpillFiles."""
        view = self._arena.view(offset, size)
        self._run(lambda: self._place.write(number, view, self._go_on), then)

    def read(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """See SpillFiles."""
        view = self._arena.view(offset, size, writable=True)
        self._run(lambda: self._place.read(number, view, self._go_on), then)

    def open(self, number: int) -> OpenFile:
        """See SpillFiles."""
        return OpenFile(self, self._place.open(number))

    def delete(self, number: int) -> None:
        """See SpillFiles. An unlink of a large file takes milliseconds: in the background too."""
        self._run(lambda: self._place.delete(number), lambda problem: None)

    def close(self) -> None:
        """See SpillFiles."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._place.clear()

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

    def _go_on(self) -> None:
        if self._closed:
            raise OSError(errno.ECANCELED, "the node ends")


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    text = str(error).partition("\n")[0]
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}"
