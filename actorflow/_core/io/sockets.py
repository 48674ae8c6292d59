"""Unix sockets: the real Network of a cluster on one machine, and what other users of such sockets share."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable

from actorflow._core.base.addresses import PATH_BYTES_MAX, SCHEME
from actorflow._core.io import forks
from actorflow._core.io.ports import Listener, Stream, StreamHandler
from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.socket_stream import WOULD_BLOCK, HangupWatch, SocketStream

logger = logging.getLogger(__name__)

ACCEPTS_PER_EVENT = 64
BACKLOG = 1024

CONNECT_TIMEOUT_S = 5.0
CONNECT_RETRY_S = 0.01
"""How long to wait when the listener's queue is full: the kernel offers nothing to wait on."""
ACCEPT_RETRY_S = 0.5
"""How long to wait when this process has no descriptor left."""

_CREDENTIALS = struct.Struct("3i")


def unix_path(address: str) -> str:
    """Return the path of a `unix:/path` address. Raises OSError: another scheme, or too long a path."""
    if not address.startswith(SCHEME):
        raise OSError(errno.EAFNOSUPPORT, f"cannot use address {address!r}: expected unix:/path/to/a.sock")
    if not hasattr(socket, "AF_UNIX") or not hasattr(socket, "SO_PEERCRED"):
        message = f"unix sockets with peer credentials need Linux, and this is {sys.platform}"
        raise OSError(errno.EAFNOSUPPORT, message)
    path = address[len(SCHEME) :]
    size = len(os.fsencode(path))
    if size > PATH_BYTES_MAX:
        raise OSError(
            errno.ENAMETOOLONG,
            f"the socket path is {size} bytes long and the system allows {PATH_BYTES_MAX}: "
            "set ACTORFLOW_TMPDIR to a directory with a shorter name",
            path,
        )
    return path


def bind_unix(path: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a listening non-blocking socket at `path` that only this user may connect to."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        # On Linux the file takes the mode of the socket: no change of the umask, which all threads share.
        os.fchmod(listener.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen: {error.strerror}", path) from error
    return listener


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the other side, as the kernel knows them."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


def receive_fds(sock: socket.socket, bytes_max: int, fds_max: int, *, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that came with them; those are not inherited by what this process starts.

    `socket.recv_fds` ignores its flags up to Python 3.11, and so leaves a moment in which they are. When this
    process is out of descriptors, none comes. Raises OSError.
    """
    item = array.array("i")
    space = socket.CMSG_LEN(fds_max * item.itemsize)
    data, ancillary, happened, _ = sock.recvmsg(bytes_max, space, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            item.frombytes(content[: len(content) - len(content) % item.itemsize])
    fds = list(item)
    if happened & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        fds = []
    return data, fds


class Accepting:
    """Accepts from a listening socket on a loop, and rests for a while when this process has no descriptor left.

    Then the connection stays queued, so the loop would call at once, for ever.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, where: str, accepted: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._where = where
        self._accepted = accepted
        self._retry: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept no more, and close the listener."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _listen(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener.fileno(), self._on_acceptable)

    def _on_acceptable(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (*WOULD_BLOCK, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("cannot accept on %s: %s; next try in %s s", self._where, error, ACCEPT_RETRY_S)
            self._loop.remove_reader(self._listener.fileno())
            self._retry = self._loop.call_later(ACCEPT_RETRY_S, self._listen)
            return
        sock.setblocking(False)
        self._accepted(sock)


class UnixListener:
    """A bound socket file. Closing it removes the file, if it is still ours."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        accepted: Callable[[socket.socket], None],
        *,
        user_id: int | None = None,
    ) -> None:
        self._loop = loop
        self._path = path
        self._accepted = accepted
        self._user_id = os.geteuid() if user_id is None else user_id
        self._sock: socket.socket | None = forks.own_socket(bind_unix(path))
        self._retry: asyncio.TimerHandle | None = None
        self._inode = os.stat(path).st_ino
        self._listen()

    def close(self) -> None:
        """Stop accepting and unlink the file."""
        if self._sock is None:
            return
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._sock = None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)

    def _listen(self) -> None:
        self._retry = None
        if self._sock is not None:
            self._loop.add_reader(self._sock.fileno(), self._on_acceptable)

    def _on_acceptable(self) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            if self._sock is None:
                return
            try:
                sock, _ = self._sock.accept()
            except (*WOULD_BLOCK, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory. The connection stays queued, so the loop would call at once.
                logger.warning("cannot accept on %s: %s; next try in %s s", self._path, error, ACCEPT_RETRY_S)
                self._loop.remove_reader(self._sock.fileno())
                self._retry = self._loop.call_later(ACCEPT_RETRY_S, self._listen)
                return
            pid, user_id = peer_credentials(sock)
            if user_id != self._user_id:
                logger.warning("refused process %d of user %d on %s", pid, user_id, self._path)
                sock.close()
                continue
            sock.setblocking(False)
            self._accepted(forks.own_socket(sock))


class UnixNetwork:
    """Streams over unix sockets, for `unix:/path` addresses, on `loop`.

    `user_id`: the only user whose processes are spoken to; ours unless given. `reads`: where streams may share their reads.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, user_id: int | None = None, reads: SharedReads | None = None
    ) -> None:
        self._loop = loop
        self._user_id = user_id
        self._reads = reads
        self._hangups = HangupWatch(loop)

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """Bind `address`. Raises OSError."""

        def accepted(sock: socket.socket) -> None:
            stream = SocketStream(self._loop, sock, self._hangups, self._reads)
            try:
                handler = accept(stream)
            except BaseException:
                sock.close()
                raise
            stream.start(handler)

        return UnixListener(self._loop, unix_path(address), accepted, user_id=self._user_id)

    def lasts(self, address: str) -> bool:
        """See ports.Network: within a machine only a process that ends breaks a connection."""
        return False

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """Connect within CONNECT_TIMEOUT_S. Raises OSError."""
        path = unix_path(address)
        sock = forks.own_socket(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        try:
            await self._connect(sock, path)
            pid, user_id = peer_credentials(sock)
            if user_id != (os.geteuid() if self._user_id is None else self._user_id):
                message = f"process {pid} of user {user_id} listens there, not one of ours"
                raise PermissionError(errno.EACCES, message, path)
        except BaseException:
            sock.close()
            raise
        stream = SocketStream(self._loop, sock, self._hangups, self._reads)
        stream.start(handler)
        return stream

    async def _connect(self, sock: socket.socket, path: str) -> None:
        give_up_at = self._loop.time() + CONNECT_TIMEOUT_S
        while True:
            try:
                sock.connect(path)
                return
            except BlockingIOError:
                # The listener's queue is full, and on Linux no event tells when it no longer is.
                if self._loop.time() >= give_up_at:
                    message = f"the listener took no connection for {CONNECT_TIMEOUT_S:g} s"
                    raise TimeoutError(errno.ETIMEDOUT, message, path) from None
                await asyncio.sleep(CONNECT_RETRY_S)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
