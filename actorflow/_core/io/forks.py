"""What a process that the user forks lets go of, and what its parent keeps for it (SEMANTICS 29).

A forked child has every descriptor and every page of its parent, and none of its other threads. The hooks that call what is here
are in `boot/user_forks.py`.

    FK-1  The child gives a descriptor back with close(2) and nothing else. An epoll set belongs to both: to unregister in the child
          is to unregister in the parent. A connection belongs to both: to shut it down in the child ends it for the parent.
    FK-2  What the parent showed of the shared memory at the fork stays there until the child, and whoever the child has forked, has
          ended or become another program: each of them holds one end of a pipe, and the parent waits for the end of the other.
    FK-3  What is dropped in a child is never taken apart: an event loop that is closed there unregisters itself (FK-1).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from typing import Any, Protocol
from weakref import WeakSet


class Owner(Protocol):
    """Has descriptors that a forked child must not keep."""

    def abandon(self) -> None:
        """Close them, in a child of this process: by close(2) only (FK-1)."""


_owners: WeakSet[Owner] = WeakSet()
_sockets: WeakSet[socket.socket] = WeakSet()


def own(owner: Owner) -> None:
    """Have `owner.abandon()` called in children, for as long as it lives."""
    _owners.add(owner)


def own_socket(sock: socket.socket) -> socket.socket:
    """Have this socket closed in children."""
    _sockets.add(sock)
    return sock


def abandon_all() -> None:
    """Give back every descriptor of ours. In a forked child, which has one thread."""
    for sock in list(_sockets):
        fd = sock.detach()  # The object must not close the number again, which may be another's by then.
        if fd >= 0:
            os.close(fd)
    for owner in list(_owners):
        with contextlib.suppress(OSError):  # Two that stand for the same descriptor, as an arena that was inherited and attached.
            owner.abandon()
    _sockets.clear()
    _owners.clear()


def keep_for_ever(thing: Any) -> None:
    """Never take `thing` apart in this process, not at its end either (FK-3)."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def abandon_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Close what an event loop of ours watches and is woken with, as far as it can be told; the loop is never used again."""
    keep_for_ever(loop)
    backend_id = getattr(loop, "_get_backend_id", None)  # uvloop's
    things = [getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock")]  # asyncio's
    for fd in [backend_id()] if backend_id is not None else [thing.fileno() for thing in things if thing is not None]:
        os.close(fd)


class Hold:
    """What one fork keeps in the parent: windows of the shared memory, until the last process that may see them is gone (FK-2)."""

    def __init__(self, windows: list[Any]) -> None:
        self._windows = windows
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._read, self._write = os.pipe()
        except OSError:
            # No descriptor left: nobody will tell when the child has ended, so they stay as long as this process.
            self._read = self._write = -1

    def forked(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the parent: wait on `loop` for the end of the children."""
        if self._read < 0:
            keep_for_ever(self._windows)
            return
        os.close(self._write)
        _holds.add(self)
        try:
            loop.call_soon_threadsafe(self._watch, loop)
        except RuntimeError:
            self.release()  # The runtime has just ended.

    def inherited(self) -> None:
        """In the child: keep the end whose closing tells the parent, for good, and no more."""
        if self._read >= 0:
            os.close(self._read)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self in _holds:
            self._loop = loop
            loop.add_reader(self._read, self.release)

    def release(self) -> None:
        """Let go. On the loop that watches, if there is one."""
        if self in _holds:
            _holds.discard(self)
            if self._loop is not None:
                self._loop.remove_reader(self._read)
            os.close(self._read)
            self._windows.clear()


_holds: set[Hold] = set()


def holds() -> list[Hold]:
    """What this process keeps for its children."""
    return list(_holds)


def forget_holds() -> None:
    """In a child: what the parent keeps for others is none of its business."""
    for hold in holds():
        os.close(hold._read)
    _holds.clear()
