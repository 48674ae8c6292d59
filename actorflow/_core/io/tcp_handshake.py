"""A TCP connection from its first byte to a proven peer: preface, TLS, challenge. The rules are in `security`; here are the bytes.

    TH-1  All of it is done within HANDSHAKE_TIMEOUT_S, or the connection is closed.
    TH-2  A peer that is refused hears the verdict that the rules have for it, and nothing else.
    TH-3  What a peer says behind its handshake is not lost: it comes with the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from actorflow._core.io.socket_stream import RECV_BYTES
from actorflow._core.io.tls_stream import TlsLink
from actorflow._core.security.challenge import BARE, Acceptor, Binding, Connector, Expected, Proven, Terms
from actorflow._core.security.errors import Code, HandshakeRefused, refused
from actorflow._core.security.keys import Key
from actorflow._core.security.preface import HANDSHAKE_TIMEOUT_S, PrefaceReply
from actorflow._core.security.tls import TlsSide, binding_of, tls_failure
from actorflow._core.security.wire import Preface, Verdict


@dataclass(slots=True)
class Security:
    """What a process proves itself with. Replace parts of it when secrets or certificates change: what begins later goes by the new ones.

    `server` and `client` are None where there is no TLS, which is on loopback only.
    """

    terms: Terms
    key: Callable[[str], Key]
    """The key to connect with to a process of this name."""
    server: TlsSide | None = None
    client: TlsSide | None = None
    wall_time: Callable[[], float] = time.time

    @property
    def tls(self) -> bool:
        """True when this process speaks TLS."""
        return self.client is not None


@dataclass(slots=True)
class Admitted:
    """A connection whose peer is proven. `early`: what it has said already. `link`: None without TLS."""

    sock: socket.socket
    peer: Proven
    link: TlsLink | None
    early: bytes


class _Wire:
    """Reads and writes of a handshake, in the open or under TLS."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self.link: TlsLink | None = None

    async def receive_raw(self) -> bytes:
        """Bytes as they are on the wire; none at the end."""
        try:
            return await self._loop.sock_recv(self._sock, RECV_BYTES)
        except ConnectionError:
            return b""

    async def send_raw(self, data: bytes) -> None:
        """Write all of it. A peer that is gone is noticed by the next read."""
        if data:
            with contextlib.suppress(ConnectionError):
                await self._loop.sock_sendall(self._sock, data)

    async def shake_hands(self, link: TlsLink, opened: Callable[[bytes], bytes] = bytes) -> None:
        """The handshake of TLS. `opened` sees what comes first. Raises HandshakeRefused."""
        while True:
            try:
                link.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self.send_raw(link.outgoing.read())
                data = await self.receive_raw()
                if not data:
                    why = "closed in the middle of the TLS handshake; the log of the other side may say why"
                    raise HandshakeRefused(why, code=Code.NOT_ADMITTED, cut=True) from None
                link.incoming.write(opened(data))
            except ssl.SSLError as error:
                await self.send_raw(link.outgoing.read())  # The alert that tells the peer.
                raise tls_failure(error) from error
        await self.send_raw(link.outgoing.read())
        self.link = link

    async def receive(self) -> bytes:
        """What the peer says; none at the end. Raises HandshakeRefused."""
        if self.link is None:
            return await self.receive_raw()
        try:
            while not (opened := self.link.open(b"")):
                data = await self.receive_raw()
                if not data:
                    return b""
                if opened := self.link.open(data):
                    break
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise tls_failure(error) from error
        return opened

    def rest(self) -> bytes:
        """What has been read and not been opened yet."""
        with contextlib.suppress(ssl.SSLError):  # The reader of the connection meets it too.
            return self.link.open(b"") if self.link is not None else b""
        return b""

    async def send(self, data: bytes) -> None:
        """Say it."""
        if data:
            await self.send_raw(self.link.seal(data) if self.link is not None else data)


async def admit(loop: asyncio.AbstractEventLoop, sock: socket.socket, preface: Preface, security: Security) -> Admitted:
    """The side that was called, behind the preface. Raises HandshakeRefused, with `sock` still open."""
    wire = _Wire(loop, sock)
    deadline = loop.time() + HANDSHAKE_TIMEOUT_S
    try:
        async with asyncio.timeout_at(deadline):
            binding = BARE
            if preface.tls:
                if security.server is None:
                    await wire.send_raw(Verdict(Code.PLAIN, security.terms.protocol_version, security.wall_time()).encode())
                    raise refused(Code.PLAIN, "a peer wants TLS, and this process has no certificate for it")
                await wire.shake_hands(TlsLink(security.server.context, server_side=True))
                assert wire.link is not None
                binding = binding_of(wire.link.tls, security.server)
            acceptor = Acceptor(security.terms, preface, binding, wall_time=security.wall_time(), deadline=deadline)
            return await _complete(loop, wire, sock, acceptor)
    except TimeoutError:
        raise refused(Code.TIMEOUT, f"the handshake was not done within {HANDSHAKE_TIMEOUT_S:g} s") from None


async def introduce(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, name: str, security: Security, key: Key, expected: Expected
) -> Admitted:
    """The side that calls, on a connected socket, with this key. Raises HandshakeRefused, with `sock` still open."""
    wire = _Wire(loop, sock)
    deadline = loop.time() + HANDSHAKE_TIMEOUT_S
    preface = Preface(name, security.tls, security.terms.protocol_version, security.wall_time())
    try:
        async with asyncio.timeout_at(deadline):
            binding: Binding = BARE
            await wire.send_raw(preface.encode())
            if security.client is not None:
                reply = PrefaceReply(preface, deadline=deadline)
                await wire.shake_hands(
                    TlsLink(security.client.context, server_side=False), lambda data: reply.receive(data, loop.time())
                )
                assert wire.link is not None
                binding = binding_of(wire.link.tls, security.client)
            connector = Connector(security.terms, key, preface, binding, expected, deadline=deadline)
            return await _complete(loop, wire, sock, connector)
    except TimeoutError:
        raise refused(Code.TIMEOUT, f"the handshake was not done within {HANDSHAKE_TIMEOUT_S:g} s") from None


async def _complete(loop: asyncio.AbstractEventLoop, wire: _Wire, sock: socket.socket, side: Acceptor | Connector) -> Admitted:
    early = b""
    while True:
        await wire.send(side.outgoing())
        if side.done:
            break
        data = await wire.receive()
        if not data:
            raise side.closed()
        try:
            early = side.receive(data, loop.time())
        except HandshakeRefused:
            await wire.send(side.outgoing())  # TH-2
            raise
    assert side.peer is not None
    return Admitted(sock, side.peer, wire.link, early + wire.rest())
