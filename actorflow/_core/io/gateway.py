"""The one TCP port of a node: who connects names a process in its first 64 bytes, and that process gets the socket.

Nothing but those bytes is read here, and nothing of what follows passes through here: the way of a call is as short over TCP as within
the machine. A firewall has one port for each machine to know of.

    GW-1  A connection is closed, or given to its process, within the time that a handshake may take.
    GW-2  At most as many wait here as the lobby has room for; who comes then is told that it is full.
    GW-3  Who is refused is told why as far as the preface allows it, and the reason is in our log, for a few of many.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable
from functools import partial

from actorflow._core.base.addresses import TcpAddress
from actorflow._core.io import forks
from actorflow._core.io.socket_stream import WOULD_BLOCK
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.exposure import listening_problem
from actorflow._core.security.lobby import Lobby
from actorflow._core.security.preface import HANDSHAKE_TIMEOUT_S, PrefaceReader
from actorflow._core.security.wire import Preface

log = logging.getLogger("actorflow")

BACKLOG = 1024
ACCEPTS_PER_EVENT = 64
ACCEPT_RETRY_S = 0.5
"""How long to wait when this process has no descriptor left."""
REFUSALS_LOGGED_PER_S = 5

Take = Callable[[socket.socket, Preface], bool]
"""Gets a socket whose preface has been read. False: it cannot take one now."""


def tune(sock: socket.socket) -> None:
    """What every TCP connection of ours has: no waiting for more to send, and an end within half a minute when the other host is gone."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 25_000)):
        if hasattr(socket, option):  # Linux has all of them.
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class RefusalLog:
    """Writes a few of many refusals into our log (GW-3): whoever knocks a million times must not fill a disk."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._from = 0.0
        self._logged = 0

    def write(self, source: str, error: HandshakeRefused) -> None:
        """One refusal."""
        now = self._clock()
        if now >= self._from + 1.0:
            self._from, self._logged = now, 0
        self._logged += 1
        if self._logged <= REFUSALS_LOGGED_PER_S:
            log.warning("connection from %s: %s", source, error)


class _Visitor:
    """A connection whose preface is not complete."""

    __slots__ = ("reader", "sock", "source", "timer")

    def __init__(self, sock: socket.socket, source: str, reader: PrefaceReader) -> None:
        self.sock = sock
        self.source = source
        self.reader = reader
        self.timer: asyncio.TimerHandle | None = None


class Gateway:
    """See the module. On a loop; it never blocks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        protocol_version: int,
        tls: bool,
        secret: bool = True,
        lobby: Lobby | None = None,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._loop = loop
        self._protocol_version = protocol_version
        self._tls = tls
        self._secret = secret
        self._wall_time = wall_time
        self._lobby = lobby if lobby is not None else Lobby()
        self._listeners: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._takers: dict[str, Take] = {}
        self._visitors: dict[_Visitor, None] = {}
        self._refusals = RefusalLog(loop.time)

    async def listen(self, host: str, port: int) -> int:
        """Open the port, 0 for any, on every address that `host` has; return which it is.

        Raises OSError with what to do: the port is in use, the host is none of ours, or others could reach it without a secret.
        """
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {host}: the name does not resolve ({error.strerror})") from error
        addresses = list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))
        problem = listening_problem(host, [address for _, address in addresses], secret=self._secret, tls=self._tls)
        if problem:
            raise PermissionError(errno.EPERM, f"this process {problem}")
        try:
            for family, address in addresses:
                sock = _bind(family, address, port)
                port = int(sock.getsockname()[1])
                self._listeners[forks.own_socket(sock)] = None
        except BaseException:
            self._close_listeners()
            raise
        for sock in self._listeners:
            self._loop.add_reader(sock.fileno(), self._on_acceptable, sock)
        return port

    def register(self, name: str, take: Take) -> Callable[[], object]:
        """Give connections for `name` to `take`; returns what ends that, once. Raises OSError when somebody has that name already."""
        if name in self._takers:
            raise OSError(errno.EADDRINUSE, f"the name {name!r} is in use: a process of that id is registered at this port")
        self._takers[name] = take
        return partial(self._takers.pop, name, None)

    async def open_door(self, name: str, take: Take) -> Callable[[], object]:
        """`register`, as a TcpNetwork wants it."""
        return self.register(name, take)

    def close(self) -> None:
        """Close the port, and what waits here."""
        self._close_listeners()
        for visitor in list(self._visitors):
            self._leave(visitor)
            visitor.sock.close()
        self._takers.clear()

    def _close_listeners(self) -> None:
        for sock, retry in self._listeners.items():
            if retry is not None:
                retry.cancel()
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()

    # -- connections

    def _on_acceptable(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                sock, place = listener.accept()
            except (*WOULD_BLOCK, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory. The connection stays queued, so the loop would call at once.
                log.warning("cannot accept on %s: %s; next try in %s s", listener.getsockname(), error, ACCEPT_RETRY_S)
                self._loop.remove_reader(listener.fileno())
                self._listeners[listener] = self._loop.call_later(ACCEPT_RETRY_S, self._accept_again, listener)
                return
            self._visit(forks.own_socket(sock), str(place[0]))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._listeners[listener] = None
            self._loop.add_reader(listener.fileno(), self._on_acceptable, listener)

    def _visit(self, sock: socket.socket, source: str) -> None:
        reader = PrefaceReader(
            protocol_version=self._protocol_version,
            wall_time=self._wall_time(),
            deadline=self._loop.time() + HANDSHAKE_TIMEOUT_S,
            plain_allowed=not self._tls,
        )
        visitor = _Visitor(sock, source, reader)
        try:
            tune(sock)
        except OSError:
            sock.close()  # It is gone already.
            return
        if not self._lobby.enter(source):
            self._refuse(visitor, reader.turn_away(Code.BUSY, "too many connections wait here for their handshake"))
            return
        self._visitors[visitor] = None
        visitor.timer = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self._on_late, visitor)
        self._loop.add_reader(sock.fileno(), self._on_readable, visitor)

    def _on_late(self, visitor: _Visitor) -> None:
        try:
            visitor.reader.check(self._loop.time())
        except HandshakeRefused as error:
            self._turn_out(visitor, error)

    def _on_readable(self, visitor: _Visitor) -> None:
        reader = visitor.reader
        try:
            data = visitor.sock.recv(reader.wanted)
            if not data:
                raise reader.closed()
            reader.receive(data, self._loop.time())
            if reader.preface is not None:
                self._hand_on(visitor, reader.preface)
        except WOULD_BLOCK:
            return
        except OSError:
            self._turn_out(visitor, reader.closed())
        except HandshakeRefused as error:
            self._turn_out(visitor, error)

    def _hand_on(self, visitor: _Visitor, preface: Preface) -> None:
        take = self._takers.get(preface.target)
        if take is None:
            raise visitor.reader.turn_away(Code.TARGET, f"no process {preface.target!r} is reached by this port")
        self._leave(visitor)
        if not take(visitor.sock, preface):
            self._refuse(visitor, visitor.reader.turn_away(Code.BUSY, f"process {preface.target} takes no connection now"))

    def _turn_out(self, visitor: _Visitor, error: HandshakeRefused) -> None:
        self._leave(visitor)
        self._refuse(visitor, error)

    def _leave(self, visitor: _Visitor) -> None:
        del self._visitors[visitor]
        self._lobby.leave(visitor.source)
        if visitor.timer is not None:
            visitor.timer.cancel()
        self._loop.remove_reader(visitor.sock.fileno())

    def _refuse(self, visitor: _Visitor, error: HandshakeRefused) -> None:
        say_and_close(visitor.sock, visitor.reader.outgoing())
        self._refusals.write(visitor.source, error)


def say_and_close(sock: socket.socket, data: bytes) -> None:
    """Send what fits into a socket's buffer, and close it in a way that lets the peer read it."""
    with contextlib.suppress(OSError), sock:
        if data:
            sock.send(data)
        sock.shutdown(socket.SHUT_WR)
        # What lies unread here would turn the close into a reset, and the peer would not see our last word.
        sock.recv(65_536)


def _bind(family: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        place = TcpAddress(address, port)
        why = {
            errno.EADDRINUSE: "the port is in use: stop what listens there, or choose another port (0 for any)",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
            errno.EACCES: "ports below 1024 need a privilege: choose a higher one",
        }.get(error.errno or 0, error.strerror)
        raise OSError(error.errno, f"cannot listen on {place.host} port {port}: {why}") from error
    return sock
