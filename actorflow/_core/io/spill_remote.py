"""Spilled objects in an object store or another remote file system: whatever `pyarrow.fs` can reach by a URI.

URI/actorflow-<session id>/<extent>. What nodes that were killed have left is not swept, as nobody can tell there who lives: a rule of the
store that deletes old objects does that.

    RR-1  A file that is held open is deleted when it is let go of: in an object store a name is all there is.
    RR-2  The end of a node waits CLEAR_S at most for the store.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from actorflow._core.io.spill_files import CHUNK_BYTES

log = logging.getLogger(__name__)

CLEAR_S = 10.0


class _Object:
    """A Reader. Each part is opened anew, on its thread: the loop never waits for the store."""

    def __init__(self, place: RemotePlace, number: int) -> None:
        self._place = place
        self._number = number

    def read(self, start: int, length: int) -> bytes:
        """See Reader."""
        with self._place._input(self._number) as file:
            data: bytes = file.read_at(length, start)
        if len(data) != length:
            raise OSError(errno.EIO, f"the object ends after {start + len(data)} bytes", self._place.shown(self._number))
        return data

    def close(self) -> None:
        """See Reader."""
        self._place._let_go(self._number)


class RemotePlace:
    """A SpillPlace."""

    def __init__(self, uri: str, session_id: str) -> None:
        self._uri = uri
        self._folder = f"actorflow-{session_id}"
        self._lock = threading.Lock()
        self._connected: tuple[Any, str] | None = None
        self._held: dict[int, int] = {}
        """How many readers each file has."""
        self._unwanted: set[int] = set()
        """To be deleted when nobody holds them (RR-1)."""
        self._wrote = False

    # -- SpillPlace

    def write(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """See SpillPlace."""
        files, folder = self._connect()
        path = f"{folder}/{number:x}"
        self._wrote = True
        try:
            with self._output(files, folder, path) as out:
                for start in range(0, len(view), CHUNK_BYTES):
                    go_on()
                    out.write(view[start : start + CHUNK_BYTES])
        except BaseException:
            with contextlib.suppress(OSError):
                files.delete_file(path)  # DI-1
            raise

    def read(self, number: int, view: memoryview, go_on: Callable[[], None]) -> None:
        """See SpillPlace."""
        size, done = len(view), 0
        with self._input(number) as file:
            while done < size:
                go_on()
                count = file.readinto(view[done : done + CHUNK_BYTES])
                if not count:
                    raise OSError(errno.EIO, f"the object ends after {done} of {size} bytes", self.shown(number))
                done += count

    def open(self, number: int) -> _Object:
        """See SpillPlace."""
        with self._lock:
            self._held[number] = self._held.get(number, 0) + 1
        return _Object(self, number)

    def delete(self, number: int) -> None:
        """See SpillPlace."""
        with self._lock:
            if number in self._held:
                self._unwanted.add(number)
                return
        self._delete(number)

    def clear(self) -> None:
        """See SpillPlace (RR-2)."""
        if not self._wrote:
            return
        thread = threading.Thread(target=self._clear, name="actorflow-spill-end", daemon=True)
        thread.start()
        thread.join(CLEAR_S)
        if thread.is_alive():
            log.warning("%s is not empty after %g s; what is left there has to be deleted by somebody else", self.shown(), CLEAR_S)

    # -- steps

    def shown(self, number: int | None = None) -> str:
        """For messages: without what may be a secret in it."""
        parts = urlsplit(self._uri)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/{self._folder}" + (f"/{number:x}" if number is not None else "")

    def _connect(self) -> tuple[Any, str]:
        """The file system, and our folder in it."""
        with self._lock:
            if self._connected is None:
                from pyarrow import fs

                files, root = fs.FileSystem.from_uri(self._uri)
                self._connected = files, f"{root.rstrip('/')}/{self._folder}"
            return self._connected

    def _output(self, files: Any, folder: str, path: str) -> Any:
        try:
            return files.open_output_stream(path, compression=None)
        except FileNotFoundError:  # Where there are real folders.
            files.create_dir(folder, recursive=True)
            return files.open_output_stream(path, compression=None)

    def _input(self, number: int) -> Any:
        files, folder = self._connect()
        return files.open_input_file(f"{folder}/{number:x}")

    def _let_go(self, number: int) -> None:
        with self._lock:
            self._held[number] -= 1
            if self._held[number]:
                return
            del self._held[number]
            if number not in self._unwanted:
                return
            self._unwanted.discard(number)
        # Not on the loop, which this may be, and nobody waits for it.
        threading.Thread(target=self._delete, args=(number,), name="actorflow-spill-delete", daemon=True).start()

    def _delete(self, number: int) -> None:
        files, folder = self._connect()
        try:
            files.delete_file(f"{folder}/{number:x}")
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s was not deleted: %s", self.shown(number), error)

    def _clear(self) -> None:
        files, folder = self._connect()
        try:
            files.delete_dir(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s was not deleted: %s", self.shown(), error)
