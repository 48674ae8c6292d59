"""The network port of a simulated process: real bytes over simulated wires (`links.py`).

SN-1: `connection_lost` comes exactly once for every stream whose host lives, and nothing is received after
      it.
SN-2: `close` sends what is buffered; `abort`, a reset and the death of the process lose it.
SN-3: nothing is called from within `write`, `close` or `abort`: the handler hears of it in a later handle.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.base.addresses import job_of
from actorflow._core.io.ports import PassSource, PlacingHandler, Proof, Stream, StreamHandler
from actorflow._core.io.visits import HostJob, with_pass
from actorflow.testing.links import Pipe
from actorflow.testing.loop import SimHandle

if TYPE_CHECKING:
    from actorflow._core.security.keys import Key
    from actorflow.testing.fabric import Fabric
    from actorflow.testing.host import Host
    from actorflow.testing.members import Member

SCHEMES = ("unix:", "tcp:")
PATH_BYTES_MAX = 107
"""As for unix sockets outside."""
CLOSE_TIMEOUT_S = 5.0
"""How long a closed stream waits for its peer to take what is buffered."""
CLOSED_THERE = "closed by the peer"


class SimStream:
    """One end of a connection."""

    __slots__ = ("_handler", "_lost_said", "_takers", "closed", "closing", "host", "key", "lasting", "number", "outgoing", "peer", "proof")

    outgoing: Pipe
    peer: SimStream

    def __init__(self, host: Host, handler: StreamHandler | None, lasting: bool) -> None:
        self.host = host
        self.lasting = lasting
        """See ports.Stream."""
        self.proof: Proof | None = None
        """See ports.Stream: of connections between jobs. Members of one job do not shake hands here."""
        self.number = 0
        """The number of the connection; both ends have the same."""
        self.key = 0
        """The number of this end."""
        self._handler = handler
        self.closing = False
        """True after `close`: no more is sent or received, but what is buffered still leaves."""
        self.closed = False
        self._lost_said = False
        self._takers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"SimStream({self.number}: {self.host.name} with {self.peer.host.name})"

    # -- the port

    def write(self, data: bytes | memoryview) -> None:
        """See ports.Stream."""
        if self.closing or self.closed or not data:
            return
        self.outgoing.send(data if type(data) is bytes else bytes(data))

    def share_reads(self) -> None:
        """See ports.Stream: a simulated process has one loop that reads."""

    def buffered_bytes(self) -> int:
        """See ports.Stream."""
        return self.outgoing.backlog_bytes

    def when_taken(self, fn: Callable[[], None]) -> None:
        """See ports.Stream."""
        self._takers.append(fn)
        if self.closed or not self.outgoing.backlog:
            self._tell_takers()

    def _tell_takers(self) -> None:
        takers, self._takers = self._takers, []
        loop = self.host.loop
        for fn in takers:
            loop.push(SimHandle(fn, (), loop, self.host.context))

    def hand_to(self, handler: PlacingHandler) -> None:
        """See ports.Stream: here the bytes are copied."""
        self._handler = handler

    def close(self) -> None:
        """See ports.Stream."""
        if not self.closing and not self.closed:
            self.closing = True
            if self.outgoing.backlog:
                give_up_at = self.host.world.now + CLOSE_TIMEOUT_S
                self.host.world.at_host(
                    self.host, give_up_at, self._shut, "closed by this side; data was left"
                )
            else:
                self._shut("closed by this side")

    def abort(self) -> None:
        """See ports.Stream."""
        self.closing = True
        self._shut("aborted by this side")

    # -- for the pipes, the fabric and the host

    def attach(self, handler: StreamHandler) -> None:
        """Set the handler of an accepted stream."""
        self._handler = handler

    def deliver(self, data: bytes) -> None:
        """Bytes arrived."""
        self.host.world.delivered(self.host, data)
        # A hook of the world may just have killed this host, and after `close` nothing is received.
        if self.closing or not self.host.alive or self._handler is None:
            return
        try:
            self._handler.data_received(data)
        except Exception as error:
            message = "data_received failed; its stream is closed"
            self.host.loop.call_exception_handler({"message": message, "exception": error})
            self.lost(f"the handler of this side failed: {error!r}")

    def drained(self) -> None:
        """Nothing is buffered any more."""
        self._tell_takers()
        if self.closing:
            self._shut("closed by this side")

    def lost(self, reason: str) -> None:
        """The end of the other side arrived."""
        if not self.closed:
            self._leave()
            self._say_lost(reason)

    def cut_off(self, *, quiet: bool) -> None:
        """The process of this end is gone; unless `quiet`, its kernel closes the connection."""
        if self.closed:
            return
        if quiet:
            self.closed = True
            self.outgoing.mute()
            self.host.network.forget(self)
        else:
            self._leave()

    def _shut(self, reason: str) -> None:
        if not self.closed:
            self._leave()
            loop = self.host.loop
            loop.push(SimHandle(self._say_lost, (reason,), loop, self.host.context))

    def _leave(self) -> None:
        self.closed = True
        incoming = self.peer.outgoing
        # As the kernel does: closing with bytes unread is a reset for the peer, though what it was sent
        # arrives.
        unread = bool(incoming.flight) and not self.peer.closed
        incoming.forget()
        self.outgoing.end("connection reset by peer" if unread else CLOSED_THERE)
        self.host.network.forget(self)
        if self.host.alive:
            self._tell_takers()

    def _say_lost(self, reason: str) -> None:
        if not self._lost_said:
            self._lost_said = True
            if self._handler is not None:
                self._handler.connection_lost(reason)


class SimListener:
    """A bound address."""

    def __init__(self, network: SimNetwork, key: str, accept: Callable[[Stream], StreamHandler]) -> None:
        self._network = network
        self._accept = accept
        self.key = key
        self.open = True
        """False once it is closed or its process is dead."""

    @property
    def host(self) -> Host:
        """The process that listens."""
        return self._network.host

    def close(self) -> None:
        """See ports.Listener. Connections that were not accepted yet are closed."""
        if self.open:
            self.open = False
            self._network.fabric.unbind(self.key, self)
            self._network.listeners.pop(self.key, None)

    def accepted(self, stream: SimStream) -> None:
        """A connection arrived (on the listener's loop)."""
        if not self.open:
            stream.cut_off(quiet=False)
            return
        host = stream.host
        host.world.note(host.name, f"accepts connection {stream.number} from {stream.peer.host.name}")
        stream.attach(self._accept(stream))


class SimNetwork:
    """The network as one process sees it. `Host.network`."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.listeners: dict[str, SimListener] = {}
        self._streams: dict[int, SimStream] = {}
        self._host_job = HostJob()
        self.member: Member | None = None
        """Whom this process is, and with which keys; None where it has none."""

    def visit_as(self, job_id: str, passes: PassSource) -> None:
        """See ports.VisitingNetwork."""
        self._host_job = HostJob(job_id, passes)

    @property
    def fabric(self) -> Fabric:
        """The network of the world."""
        return self.host.world.fabric

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> SimListener:
        """See ports.Network."""
        _check_address(address)
        key = self.fabric.place(address, self.host.machine)
        listener = SimListener(self, key, accept)
        if not self.fabric.bind(key, listener):
            raise OSError(errno.EADDRINUSE, "cannot listen: the address is in use", address)
        self.listeners[key] = listener
        return listener

    def lasts(self, address: str) -> bool:
        """See ports.Network: connections between machines may break."""
        return address.startswith("tcp:")

    async def connect(self, address: str, handler: StreamHandler) -> SimStream:
        """See ports.Network. It takes as long as a first packet does; errors as for real sockets."""
        _check_address(address)
        job_id = job_of(address)
        passes = self._host_job.passes_to(job_id) if self.member is not None else None
        if passes is None:
            return await self._connect(address, handler)
        return await with_pass(passes, job_id, lambda key: self._connect(address, handler, key))

    async def _connect(self, address: str, handler: StreamHandler, visit: Key | None = None) -> SimStream:
        fabric = self.fabric
        key = fabric.place(address, self.host.machine)
        listener = fabric.listener(key)
        if listener is None:
            await self._sleep(fabric.profile.latency_min_s)
            listener = fabric.listener(key)  # it may have come meanwhile
        if listener is not None:
            await self._reach(listener.host, address)
            listener = fabric.listener(key)
        if listener is None and address.startswith("unix:"):
            raise FileNotFoundError(errno.ENOENT, "no such socket", address)
        if listener is None or not listener.open:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens", address)
        proofs = self._shake_hands(listener.host, address, visit) if visit is not None else (None, None)
        stream = self._join(listener, handler, self.lasts(address))
        stream.proof, stream.peer.proof = proofs
        return stream

    def _shake_hands(self, other: Host, address: str, key: Key) -> tuple[Proof, Proof]:
        """What both sides have proven, with the real handshake in a moment. Raises ConnectionRefusedError."""
        from actorflow._core.security.errors import HandshakeRefused
        from actorflow.testing.members import shake_hands

        try:
            return shake_hands(self.host, other, address, key)
        except HandshakeRefused as error:
            self.host.world.note(self.host.name, f"is refused by {other.name}: {error}")
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(error), address) from error

    async def _reach(self, target: Host, address: str) -> None:
        """Wait as long as a first packet takes, or for as long as the link is cut, within the bound."""
        link, back = self.fabric.link(self.host, target), self.fabric.link(target, self.host)
        world = self.host.world
        timeout_s = link.profile.connect_timeout_s
        give_up_at = world.now + timeout_s
        await self._sleep(link.latency_s())
        while link.cut or back.cut:
            if world.now >= give_up_at:
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout_s:g} s", address)
            await self._sleep(min(0.2, give_up_at - world.now))

    async def _sleep(self, delay_s: float) -> None:
        future: asyncio.Future[None] = self.host.loop.create_future()
        timer = self.host.loop.call_later(delay_s, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def _join(self, listener: SimListener, handler: StreamHandler, lasting: bool) -> SimStream:
        fabric, world, target = self.fabric, self.host.world, listener.host
        near, far = SimStream(self.host, handler, lasting), SimStream(target, None, lasting)
        there, back = fabric.link(self.host, target), fabric.link(target, self.host)
        accepted_at = world.now + there.latency_s()
        near.peer, far.peer = far, near
        near.outgoing = Pipe(world, there, near, far, opens_at=accepted_at)
        far.outgoing = Pipe(world, back, far, near, opens_at=accepted_at)
        near.number = far.number = number = fabric.connected(near, far)
        near.key, far.key = 2 * number, 2 * number + 1
        self._streams[near.key] = near
        target.network._streams[far.key] = far
        world.at_host(target, accepted_at, listener.accepted, far)
        return near

    def forget(self, stream: SimStream) -> None:
        """A stream of this process is closed."""
        self._streams.pop(stream.key, None)
        self.fabric.closed(stream.number)

    def streams(self) -> list[SimStream]:
        """The open streams of this process, oldest first."""
        return list(self._streams.values())

    def host_ended(self, *, quiet: bool) -> None:
        """The process is gone: its sockets close by themselves. `quiet`: nobody is told."""
        for listener in self.listeners.values():
            listener.open = False  # the socket file stays, as after a kill
        for stream in self.streams():
            stream.cut_off(quiet=quiet)


def _check_address(address: str) -> None:
    if not address.startswith(SCHEMES):
        message = f"cannot use address {address!r}: expected unix:/path/to/a.sock or tcp:host:port"
        raise OSError(errno.EAFNOSUPPORT, message)
    if address.startswith("unix:") and len(address.encode()) - len("unix:") > PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a socket path has at most {PATH_BYTES_MAX} bytes", address)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
