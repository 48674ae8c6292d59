"""How a process that is not the owner of the port gets its connections: the node sends it the sockets.

    process                                         node
       | -- its id, 24 bytes --------------------->  |   over a unix socket that only this user may connect to
       | <----------------------------- 1 byte ----  |   from now on it is known, or another is by that name
       | <---- preface, 64 bytes, and a socket ----  |   for each connection that names it
       | <---- other bytes, without a socket ------  |   new keys and certificates (io/cluster_access.py)

    HD-1  A socket is with one process at a time: the node closes its own descriptor when the other has it, or cannot have it.
    HD-2  When the node is gone nobody new comes; connections that are there stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from actorflow._core.io import forks
from actorflow._core.io.gateway import Gateway, Take
from actorflow._core.io.socket_stream import WOULD_BLOCK
from actorflow._core.io.sockets import Accepting, bind_unix, peer_credentials, receive_fds
from actorflow._core.security.wire import NAME_BYTES_MAX, PREFACE_BYTES, Preface

SOCKETS_PER_EVENT = 64
REGISTERED, TAKEN = b"\1", b"\2"
REGISTER_TIMEOUT_S = 5.0
NEWS_BYTES_MAX = 64 * 1024
NEWS_RETRY_S = 1.0
"""When to try again with a process that takes nothing at the moment."""


class HandoverServer:
    """The node's side: it registers the processes that come with the gateway."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, gateway: Gateway) -> None:
        self._loop = loop
        self._gateway = gateway
        self._path = path
        self._links: dict[socket.socket, Callable[[], object]] = {}
        self._named: dict[str, socket.socket] = {}
        self._news: dict[str, bytes] = {}
        """What a process could not take yet: the newest only."""
        self._retry: asyncio.TimerHandle | None = None
        self.on_registered: Callable[[str], object] = lambda name: None
        self.on_gone: Callable[[str], object] = lambda name: None
        self._listener = forks.own_socket(bind_unix(path, socket.SOCK_SEQPACKET))
        self._accepting = Accepting(loop, self._listener, path, self._on_accepted)

    def close(self) -> None:
        """Hand over no more."""
        self._accepting.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        for link in list(self._links):
            self._drop(link)
        if self._retry is not None:
            self._retry.cancel()

    def names(self) -> list[str]:
        """The processes that are registered."""
        return list(self._named)

    def tell(self, name: str, news: bytes) -> None:
        """Send a process its new keys and certificates, now or when it can take them; for one that is gone, a no-op."""
        link = self._named.get(name)
        if link is None:
            return
        self._news.pop(name, None)
        try:
            link.send(news)
        except WOULD_BLOCK:
            self._news[name] = news
            if self._retry is None:
                self._retry = self._loop.call_later(NEWS_RETRY_S, self._tell_again)
        except OSError:
            return  # It is just going, which the next read sees.

    def _tell_again(self) -> None:
        self._retry = None
        for name, news in list(self._news.items()):
            self.tell(name, news)

    def _on_accepted(self, link: socket.socket) -> None:
        if peer_credentials(link)[1] != os.geteuid():
            link.close()
            return
        self._links[forks.own_socket(link)] = lambda: None
        self._loop.add_reader(link.fileno(), self._on_readable, link)

    def _on_readable(self, link: socket.socket) -> None:
        try:
            data = link.recv(NAME_BYTES_MAX)
        except WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(link)
            return
        name, answer = data.rstrip(b"\0").decode("latin-1"), REGISTERED
        self._links[link]()
        try:
            withdraw = self._gateway.register(name, lambda sock, preface: _send(link, sock, preface))
        except OSError:
            self._links[link] = lambda: None
            answer = TAKEN
        else:
            self._named[name] = link

            def leave() -> None:
                withdraw()
                self._named.pop(name, None)
                self._news.pop(name, None)
                self.on_gone(name)

            self._links[link] = leave
        with contextlib.suppress(OSError):  # It is gone again, which the next read sees.
            link.send(answer)
            if answer == REGISTERED:
                self.on_registered(name)

    def _drop(self, link: socket.socket) -> None:
        self._links.pop(link)()
        self._loop.remove_reader(link.fileno())
        link.close()


def _send(link: socket.socket, sock: socket.socket, preface: Preface) -> bool:
    try:
        socket.send_fds(link, [preface.encode()], [sock.fileno()])
    except OSError:
        return False  # Its buffer is full, or it is just going.
    sock.close()
    return True


class HandoverClient:
    """A process's side: `take` gets each socket with its preface, `on_news` new keys and certificates. On a loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: socket.socket, take: Take, on_news: Callable[[bytes], object] | None = None
    ) -> None:
        self._loop = loop
        self._take = take
        self._on_news = on_news
        self._link: socket.socket | None = link
        loop.add_reader(link.fileno(), self._on_readable)

    @classmethod
    async def register(
        cls,
        loop: asyncio.AbstractEventLoop,
        path: str,
        name: str,
        take: Take,
        on_news: Callable[[bytes], object] | None = None,
    ) -> Callable[[], object]:
        """Have the node whose server is at `path` send what is for `name`; returns what ends that. Raises OSError."""
        link = forks.own_socket(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        try:
            link.connect(path)
            if peer_credentials(link)[1] != os.geteuid():
                raise PermissionError(errno.EPERM, "another user listens there, not our node", path)
            link.send(name.encode().ljust(NAME_BYTES_MAX, b"\0"))
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                answer = await loop.sock_recv(link, len(REGISTERED))
            if answer == TAKEN:
                raise OSError(errno.EADDRINUSE, f"the name {name!r} is in use: another process is registered under it", path)
            if answer != REGISTERED:
                raise ConnectionResetError(errno.ECONNRESET, "the node is going, and registers nobody any more", path)
        except TimeoutError:
            link.close()
            raise TimeoutError(errno.ETIMEDOUT, f"the node did not answer for {REGISTER_TIMEOUT_S:g} s", path) from None
        except BaseException:
            link.close()
            raise
        return cls(loop, link, take, on_news).close

    def close(self) -> None:
        """Take no more."""
        link, self._link = self._link, None
        if link is not None:
            self._loop.remove_reader(link.fileno())
            link.close()

    def _on_readable(self) -> None:
        for _ in range(SOCKETS_PER_EVENT):
            if self._link is None:
                return
            try:
                data, fds = receive_fds(self._link, NEWS_BYTES_MAX, 1)
            except WOULD_BLOCK:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.close()  # HD-2
                return
            if not fds and self._on_news is not None and len(data) != PREFACE_BYTES:
                self._on_news(data)
            for fd in fds:
                self._take(forks.own_socket(socket.socket(fileno=fd)), Preface.decode(data))
