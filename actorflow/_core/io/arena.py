"""The arena: one memory file per node, mapped by every process of the node.

A memfd and not a file in /dev/shm: nothing is left behind when everybody is killed, and a container's small
/dev/shm is no limit. It is sparse: a page costs memory from its first use until `release`.

Each process maps the whole file at most twice, once to read and once to write; a view is a window into one of
them. One mapping for each view would be the obvious way and is the slower one: Python's mmap keeps a
descriptor for each, the system allows 65,530 mappings, and pages warm in one mapping are cold in the next.

    AR-1  What a view that is not writable shows cannot be written through it: its mapping is read-only, so a
          stray write kills the culprit and not the node's data.
    AR-2  A mapping outlives every view of it, and so does `close`: each view's window holds the mapping.
    AR-3  The file never shrinks (it is sealed), so that no peer can turn a read into a SIGBUS.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Self

from actorflow._core.base.resources import format_bytes
from actorflow._core.io import forks
from actorflow._core.io.sockets import UnixListener, peer_credentials, receive_fds

FETCH_TIMEOUT_S = 5.0

GIL_FREE_BYTES_MIN = 256 * 1024
"""From here on a copy lets other threads run."""
PREFAULT_STEP_BYTES = 4 * 1024 * 1024
ALIASING_BYTES = 4096
"""Addresses that differ by a multiple of this look the same to a processor's check of loads against stores, whatever a page is."""

_MADV_POPULATE_WRITE = 23
_MAP_FAILED = ctypes.c_void_p(-1).value
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_SIZE = struct.Struct("<Q")


class _Watch(weakref.ref["ctypes.Array[ctypes.c_ubyte]"]):
    """A weak reference to a window that knows what to call when the window is gone."""

    __slots__ = ("on_gone",)
    on_gone: Callable[[], None]


_watches: dict[int, _Watch] = {}
"""A weak reference calls back only while it lives itself."""


def _window_gone(watch: weakref.ref[Any], watches: dict[int, _Watch] = _watches) -> None:
    # `watches` is bound early: at the end of the interpreter the module may already be empty.
    watches.pop(id(watch)).on_gone()


def live_windows() -> list[Any]:
    """Every window that is watched and in use in this process, whatever arena it is of. They stay while somebody has the list."""
    return [window for watch in list(_watches.values()) if (window := watch()) is not None]


class MemfdArena:
    """An Arena over a memory file. It owns the descriptor."""

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self._fd = fd
        self._mappings: dict[bool, tuple[mmap.mmap, int]] = {}
        self._to_prefault: deque[tuple[int, int]] = deque()
        self._prefaulting = False
        forks.own(self)

    def __repr__(self) -> str:
        return f"MemfdArena(fd={self._fd}, size={self.size})"

    @classmethod
    def create(cls, size: int) -> Self:
        """Make a new, empty arena of `size` bytes, rounded up to whole pages. Raises OSError, which says what to do."""
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, f"shared memory needs Linux (memfd_create), and this is {sys.platform}")
        import fcntl  # Not on Windows, where this module must import.

        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if size <= 0:
            raise ValueError("the arena must have a positive size")
        fd = os.memfd_create("actorflow-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            try:
                os.ftruncate(fd, size)
            except OSError as error:
                raise no_room(error, size, "made") from error
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, size)

    @classmethod
    def attach(cls, fd: int, size: int) -> Self:
        """Use the arena of another process, whose descriptor was inherited or received. Takes over `fd`."""
        actual = os.fstat(fd).st_size
        if actual < size:
            raise ValueError(f"the memory file has {actual} bytes, {size} were announced")
        return cls(fd, size)

    def fileno(self) -> int:
        """The descriptor, to be passed on; -1 after `close`."""
        return self._fd

    def view(self, offset: int, size: int, *, writable: bool = False) -> memoryview:
        """Return the bytes `[offset, offset + size)`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"[{offset}, {offset + size}) is outside of an arena of {self.size} bytes")
        mapping, base = self._mappings.get(writable) or self._map(writable)
        # A ctypes array is the one object of the standard library that offers foreign memory as a buffer and
        # can be watched. Its length is part of its type: powers of two keep the number of types small.
        window = (ctypes.c_ubyte * (1 << max(size - 1, 0).bit_length())).from_address(base + offset)
        window.mapping = mapping  # type: ignore[attr-defined]  # AR-2
        window.arena = self  # type: ignore[attr-defined]  # For `private`, of whoever gets the view.
        view = memoryview(window).cast("B")[:size]
        return view if writable else view.toreadonly()

    def private(self, view: memoryview) -> tuple[Any, int] | None:
        """A writable mapping of a view's pages that nobody else sees the changes of, and where in it the view begins. It keeps the view.

        None where there is no more: the arena is closed, or the system has no room for one more mapping.
        """
        if self._fd < 0:
            return None
        with _address_of(view) as address:
            offset = address - self._mappings[False][1]
        first = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        size, access = offset + len(view) - first, mmap.PROT_READ | mmap.PROT_WRITE
        # Not Python's mmap: that keeps a descriptor for each.
        libc = _libc()
        libc.mmap.restype = ctypes.c_void_p
        length = ctypes.c_size_t(size)
        start = libc.mmap(None, length, access, mmap.MAP_PRIVATE, self._fd, ctypes.c_long(first))
        if start is None or start == _MAP_FAILED:
            return None
        window = (ctypes.c_ubyte * (1 << max(size - 1, 0).bit_length())).from_address(start)
        window.keeps = view  # type: ignore[attr-defined]  # A page that was not written to shows what is there now.
        watch = _Watch(window, _window_gone)
        watch.on_gone = lambda: libc.munmap(ctypes.c_void_p(start), length)
        _watches[id(watch)] = watch
        return window, offset - first

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy `data` to `offset`. Other threads run meanwhile when it is large."""
        size = len(data)
        if offset < 0 or offset + size > self.size:
            raise ValueError(f"[{offset}, {offset + size}) is outside of an arena of {self.size} bytes")
        mapping, base = self._mappings.get(True) or self._map(True)
        if size < GIL_FREE_BYTES_MIN:
            mapping[offset : offset + size] = data
        else:
            with _address_of(data) as address:
                ctypes.memmove(base + offset, address, size)

    def skew(self, data: bytes | memoryview) -> int:
        """How far behind the start of a page a copy of `data` is to begin.

        A copy whose target lies a little further into its page than its source is four times slower (measured: 3.9 GB/s at 192 bytes,
        15.9 at 0 and at -64): the processor takes each load for one that depends on the store just before it.
        """
        with _address_of(data) as address:
            return address % ALIASING_BYTES // 64 * 64

    def prefault(self, offset: int, size: int) -> None:
        """Make a range resident, in the background. Where the kernel cannot (before 5.14), the first write does."""
        self._to_prefault.append((offset, size))
        if not self._prefaulting:
            self._prefaulting = True
            threading.Thread(target=self._prefault, name="actorflow-prefault", daemon=True).start()

    def _prefault(self) -> None:
        madvise = _libc().madvise
        try:
            _, base = self._mappings.get(True) or self._map(True)
            while self._to_prefault and self._fd >= 0:
                offset, size = self._to_prefault.popleft()
                for start in range(offset, offset + size, PREFAULT_STEP_BYTES):
                    step = min(PREFAULT_STEP_BYTES, offset + size - start)
                    if madvise(ctypes.c_void_p(base + start), ctypes.c_size_t(step), _MADV_POPULATE_WRITE):
                        return
        except (ValueError, OSError):
            return  # Closed meanwhile, or it cannot be mapped: the first write says so, to somebody who can do something.
        finally:
            self._prefaulting = False

    def watch(self, view: memoryview, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` when `view` and all that came of it (slices, NumPy and Arrow buffers) is gone."""
        window = view.obj
        if not isinstance(window, ctypes.Array):
            raise TypeError("only a view made by this arena can be watched")
        watch = _Watch(window, _window_gone)
        watch.on_gone = on_gone
        _watches[id(watch)] = watch

    def release(self, offset: int, size: int) -> None:
        """Give the memory of a range back to the system: it reads as zeros until it is written again."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"[{offset}, {offset + size}) is outside of an arena of {self.size} bytes")
        if size and not _punch_hole(self._fd, offset, size):
            mapping, _ = self._mappings.get(True) or self._map(True)
            first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                mapping.madvise(mmap.MADV_REMOVE, first, last - first)

    def close(self) -> None:
        """Close the descriptor. Views stay valid (AR-2)."""
        fd, self._fd = self._fd, -1
        self._mappings.clear()
        if fd >= 0:
            os.close(fd)

    def abandon(self) -> None:
        """See forks.Owner. Views stay valid: a child sees what its parent saw."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _map(self, writable: bool) -> tuple[mmap.mmap, int]:
        if self._fd < 0:
            raise ValueError("the arena is closed")
        # Python asks for a writable buffer before it tells an address, so the mapping starts writable.
        try:
            mapping = mmap.mmap(self._fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise no_room(error, self.size, "mapped") from error
        base = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapping))
        if not writable and _libc().mprotect(ctypes.c_void_p(base), ctypes.c_size_t(self.size), mmap.PROT_READ):
            raise OSError(ctypes.get_errno(), "cannot make the arena's mapping read-only")  # AR-1
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_DONTDUMP)
        self._mappings[writable] = (mapping, base)
        return mapping, base


def no_room(error: OSError, size: int, what: str) -> OSError:
    """Why a process has no arena of this size, with the limit that most likely stands in the way, and what to do."""
    text = f"the object store of {format_bytes(size)} cannot be {what}: {error.strerror}"
    try:
        import resource  # Not on Windows.
    except ImportError:
        limits = {}
    else:
        limits = {
            errno.ENOMEM: ("addresses", "-v", resource.getrlimit(resource.RLIMIT_AS)[0], resource.RLIM_INFINITY),
            errno.EFBIG: ("a file", "-f", resource.getrlimit(resource.RLIMIT_FSIZE)[0], resource.RLIM_INFINITY),
        }
    if error.errno in limits:
        of_what, flag, limit, infinity = limits[error.errno]
        if limit != infinity:
            text += f" (the limit is {format_bytes(limit)} of {of_what}: ulimit {flag})"
    if error.errno in (errno.ENOMEM, errno.EFBIG, errno.EINVAL, errno.ENOSPC):
        text += "; start with a smaller object_store_memory="
    return OSError(error.errno, text)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class _PyBuffer(ctypes.Structure):
    """Py_buffer, as the stable ABI of Python 3.11 has it."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


@contextlib.contextmanager
def _address_of(data: bytes | memoryview) -> Generator[int]:
    """The address of contiguous bytes, read-only ones too; they stay where they are inside the block."""
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(buffer), 0)
    try:
        yield buffer.buf
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def _punch_hole(fd: int, offset: int, size: int) -> bool:
    """Give pages back. False where the C library or the kernel cannot."""
    fallocate = getattr(_libc(), "fallocate", None)
    if fallocate is None:
        return False
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    while fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        if code != errno.EINTR:
            raise OSError(code, f"cannot release {size} bytes of the arena: {os.strerror(code)}")
    return True


class ArenaServer:
    """Hands the arena's descriptor to whoever of this user connects to `path`. On a loop; it never blocks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, arena: MemfdArena) -> None:
        self._arena = arena
        self._listener = UnixListener(loop, path, self._accepted)

    def _accepted(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # The one who asked is already gone.
            socket.send_fds(sock, [_SIZE.pack(self._arena.size)], [self._arena.fileno()])

    def close(self) -> None:
        """Stop answering and unlink the socket."""
        self._listener.close()


def fetch_arena(path: str, timeout_s: float = FETCH_TIMEOUT_S) -> MemfdArena:
    """Get the arena of the node that serves it at `path`. Blocks, at most `timeout_s`. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(path)
        pid, user_id = peer_credentials(sock)
        if user_id != os.geteuid():
            raise PermissionError(errno.EACCES, f"process {pid} of user {user_id} offers the arena, not ours", path)
        data, fds = receive_fds(sock, _SIZE.size, 1)
    if len(data) != _SIZE.size or len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise ConnectionError(errno.ECONNRESET, "the node did not hand over its arena", path)
    return MemfdArena.attach(fds[0], _SIZE.unpack(data)[0])
