"""Streams over TCP between proven peers, for `tcp:HOST:PORT/NAME` addresses; and the choice between TCP and the way inside a machine.

    TN-1  No byte of a peer reaches a handler before the peer has proven itself.
    TN-2  Connecting takes a bounded time, whatever the other side does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from actorflow._core.base.addresses import SCHEME, TcpAddress, parse_tcp, split
from actorflow._core.io import forks
from actorflow._core.io.gateway import RefusalLog, Take, say_and_close, tune
from actorflow._core.io.ports import Listener, Network, PassSource, Proof, Stream, StreamHandler, Unwelcome
from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.socket_stream import HangupWatch, SocketStream
from actorflow._core.io.tcp_handshake import Admitted, Security, admit, introduce
from actorflow._core.io.tls_stream import TlsStream
from actorflow._core.io.visits import HostJob, with_pass
from actorflow._core.security.challenge import Expected, Proven
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import Key
from actorflow._core.security.lobby import TOTAL_MAX, Lobby
from actorflow._core.security.roles import OF_JOBS, KeyKind, Role
from actorflow._core.security.wire import Preface

CONNECT_TIMEOUT_S = 5.0
"""To get a TCP connection; the handshake has a time of its own."""
ENROLMENT = "enrolment"
"""The name of the head's desk that gives out keys and certificates."""
WELL_KNOWN = ("", "head", ENROLMENT)
"""Names that are no process ids."""
OF_THE_HEAD = ("head", ENROLMENT)
"""... and that nobody but a head may answer to."""

Register = Callable[[str, Take], Awaitable[Callable[[], object]]]
"""Have connections for a name given to a function; returns what ends that. Of a gateway, or of a handover."""


class _Door:
    """Connections for one name, from the socket that is handed over to the stream that is proven."""

    def __init__(self, network: TcpNetwork, accept: Callable[[Stream], StreamHandler]) -> None:
        self._network = network
        self._accept = accept
        self._lobby = Lobby(total_max=TOTAL_MAX, source_max=TOTAL_MAX)
        self._admitting: set[asyncio.Task[None]] = set()
        self._refusals = RefusalLog(network.loop.time)
        self.withdraw: Callable[[], object] = lambda: None
        """Ends its registration."""

    def close(self) -> None:
        """Admit nobody any more."""
        self.withdraw()
        for task in list(self._admitting):
            task.cancel()

    def take(self, sock: socket.socket, preface: Preface) -> bool:
        """A connection for this name. False when too many are not admitted yet."""
        if not self._lobby.enter(""):
            return False
        task = self._network.loop.create_task(self._admit(sock, preface), name="admit a connection")
        self._admitting.add(task)
        task.add_done_callback(self._admitted)
        return True

    def _admitted(self, task: asyncio.Task[None]) -> None:
        self._admitting.discard(task)
        self._lobby.leave("")

    async def _admit(self, sock: socket.socket, preface: Preface) -> None:
        network = self._network
        try:
            admitted = await admit(network.loop, sock, preface, network.security)
        except HandshakeRefused as error:
            self._refusals.write(_place(sock), error)
            say_and_close(sock, b"")
            return
        except BaseException:
            sock.close()
            raise
        stream = network.stream_of(admitted)
        try:
            handler = self._accept(stream)
        except BaseException:
            sock.close()
            raise
        stream.start(handler, admitted.early)


class TcpNetwork:
    """The Network between machines, for one process. On `loop`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        security: Security,
        register: Register | None,
        *,
        reads: SharedReads | None = None,
        on_refused: Callable[[HandshakeRefused], object] | None = None,
    ) -> None:
        """`on_refused` hears why a handshake of ours was refused, before the one who has asked for the connection does."""
        self.loop = loop
        self.security = security
        self._register = register
        self._reads = reads
        self._on_refused = on_refused
        self._hangups = HangupWatch(loop)
        self._host_job = HostJob()

    def visit_as(self, job_id: str, passes: PassSource) -> None:
        """See ports.VisitingNetwork."""
        self._host_job = HostJob(job_id, passes)

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """Accept connections for the name in `address`, whose port is open already. Raises OSError."""
        if self._register is None:
            raise OSError(errno.EOPNOTSUPP, f"this process has no port for {address}: it only calls")
        door = _Door(self, accept)
        door.withdraw = await self._register(_parse(address).name, door.take)
        return door

    def lasts(self, address: str) -> bool:
        """See ports.Network."""
        return True

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """Connect to a process and have it prove itself. Raises OSError with the reason, of the kinds in ports.Network."""
        place = _parse(address)
        passes = self._host_job.passes_to(place.job)
        if passes is None:
            return await self._connect_with(self.security.key(place.name), place, address, handler)
        return await with_pass(passes, place.job, lambda key: self._connect_with(key, place, address, handler))

    async def _connect_with(self, key: Key, place: TcpAddress, address: str, handler: StreamHandler) -> Stream:
        visits = key.id.kind is KeyKind.VISIT
        sock = await self._connect(place)
        roles = frozenset({Role.HEAD}) if place.name in OF_THE_HEAD else OF_JOBS if visits else frozenset(Role)
        expected = Expected(roles, self.expected(place.name), job_id=place.job)
        try:
            admitted = await introduce(self.loop, sock, place.name, self.security, key, expected)
        except HandshakeRefused as error:
            sock.close()
            if self._on_refused is not None:
                self._on_refused(error)
            kind, number = _as_os_error(error)
            raise kind(number, str(error), address) from error
        except BaseException:
            sock.close()
            raise
        stream = self.stream_of(admitted, place.job)
        stream.start(handler, admitted.early)
        return stream

    def expected(self, name: str) -> str:
        """The process that must answer to a name; empty: whoever may."""
        return "" if name in WELL_KNOWN else name

    def stream_of(self, admitted: Admitted, host_job: str = "") -> SocketStream:
        """The stream over an admitted connection. `host_job`: whom this process visits by it."""
        stream: SocketStream
        if admitted.link is not None:
            stream = TlsStream(self.loop, admitted.sock, self._hangups, admitted.link, self._reads)
        else:
            stream = SocketStream(self.loop, admitted.sock, self._hangups, self._reads)
        stream.proof = proof_of(admitted.peer, host_job)
        return stream

    async def _connect(self, place: TcpAddress) -> socket.socket:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                found = await self.loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
                problem: OSError | None = None
                for family, _, _, _, where in found:
                    try:
                        return await self._connect_to(family, where)
                    except OSError as error:
                        problem = error
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"{place.host} port {place.port} did not answer for {CONNECT_TIMEOUT_S:g} s") from None
        except socket.gaierror as error:
            why = f"the name {place.host} does not resolve ({error.strerror}): check it, or give an IP address"
            raise OSError(errno.EHOSTUNREACH, why) from error
        assert problem is not None
        code = problem.errno or errno.ECONNREFUSED
        raise OSError(code, f"{place.host} port {place.port}: {os.strerror(code)}") from problem

    async def _connect_to(self, family: int, where: tuple[Any, ...]) -> socket.socket:
        sock = forks.own_socket(socket.socket(family, socket.SOCK_STREAM))
        try:
            tune(sock)
            await self.loop.sock_connect(sock, where)
        except BaseException:
            sock.close()
            raise
        return sock


class _Both:
    """Two listeners as one."""

    def __init__(self, first: Listener, second: Listener) -> None:
        self._first = first
        self._second = second

    def close(self) -> None:
        """Close both."""
        self._first.close()
        self._second.close()


class ClusterNetwork:
    """The Network of a process in a cluster of machines: the short way to whoever is on this one, TCP to all others.

    `directory` is that of the machine's session, with its unix sockets: no other machine, and no other node of this one, has the same.
    """

    def __init__(self, machine: Network, tcp: TcpNetwork, directory: str) -> None:
        self._machine = machine
        self._tcp = tcp
        self._directory = f"{SCHEME}{directory}/"

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """See ports.Network: at both parts of `address`."""
        remote, local = split(address)
        if not remote:
            return await self._machine.listen(local, accept)
        if not local:
            return await self._tcp.listen(remote, accept)
        listener = await self._machine.listen(local, accept)
        try:
            return _Both(listener, await self._tcp.listen(remote, accept))
        except BaseException:
            listener.close()
            raise

    def visit_as(self, job_id: str, passes: PassSource) -> None:
        """See ports.VisitingNetwork."""
        self._tcp.visit_as(job_id, passes)

    def lasts(self, address: str) -> bool:
        """See ports.Network: when it leads to another machine."""
        remote, local = split(address)
        return bool(remote) and not local.startswith(self._directory)

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """See ports.Network."""
        remote, local = split(address)
        if self.lasts(address):
            return await self._tcp.connect(remote, handler)
        return await self._machine.connect(local, handler)


def proof_of(peer: Proven, host_job: str = "") -> Proof:
    """What a handshake has proven. `host_job`: of a process that this one visits."""
    party, key_id = peer.party, peer.key_id
    job_id = ""
    if party.role in OF_JOBS and key_id.kind in (KeyKind.JOB, KeyKind.VISIT):
        # A pass names its visitor's job: who has accepted it hears whose visitor that is.
        job_id = host_job if key_id.kind is KeyKind.VISIT and host_job else key_id.subject
    return Proof(party.role.name.lower(), party.process_id, job_id, key_id.kind.name)


def _as_os_error(error: HandshakeRefused) -> tuple[type[OSError], int]:
    """The kind that says whether it would be the same the next time: see ports.Network."""
    if error.code is Code.TARGET:
        return FileNotFoundError, errno.ENOENT
    if error.code is Code.TIMEOUT:
        return TimeoutError, errno.ETIMEDOUT
    if error.code is Code.BUSY or error.cut:
        return ConnectionResetError, errno.ECONNRESET
    return Unwelcome, errno.ECONNREFUSED


def _parse(address: str) -> TcpAddress:
    try:
        return parse_tcp(address)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def _place(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "a peer that is gone"
