"""Peers: the other processes this one talks to, as objects with a `send`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from actorflow._core.base.errors import ProtocolError
from actorflow._core.io.ports import Listener, Ports, Proof, Stream, StreamHandler
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.messages import AnyMessage
from actorflow._core.protocol.session import Identity, Session

if TYPE_CHECKING:
    from actorflow._core.io.bulk import ChunkSink
    from actorflow._core.io.lasting_peers import Links

log = logging.getLogger("actorflow")

FIRST_PAUSES_S = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Between machines: before each further try of a first connection that is reset in its handshake."""


class PeerHandler(Protocol):
    """What a role is told of its peers, on the ports' loop.

    Messages of a peer that shares its reads come on the reader's loop as well, under the ports' lock; nothing else is called under it.
    """

    def peer_ready(self, peer: Peer) -> None:
        """The handshake is done; for accepted connections this is the first that is heard of the peer."""

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        """Messages, in the order the peer sent them."""

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """The connection is gone (or was never made). Exactly once for each peer ever handed out."""


@runtime_checkable
class TakesBack(Protocol):
    """A PeerHandler that wants what it sent and nobody can encode (PE-3)."""

    def unsendable(self, peer: Peer, message: AnyMessage, error: Exception) -> None:
        """`message` was not sent, and never will be; those beside it were. On the ports' loop, some time after its flush."""


@runtime_checkable
class KnowsBetter(Protocol):
    """A PeerHandler that may know of a peer whose connection cannot be made again that it lives (LP-4). Others do not."""

    def alive_by_another_way(self, peer: Peer) -> bool:
        """True when the other side is known to live. On the ports' loop."""


class Peer:
    """One connection to one process. Sending is allowed before it is up: messages wait, in order.

    PE-1: messages arrive in the order of `send`, once each, or the peer is lost.
    PE-2: between machines a peer is what it has proven to be, whatever it says.
    PE-3: a message that cannot be encoded costs no other message anything, and its sender is told.
    """

    __slots__ = (
        "_free", "_handler", "_lost", "_out", "_ports", "_schedule", "_session", "_stream", "address", "defined", "job_id",
        "namespace", "node_id", "pid", "process_id", "proof", "role", "state", "sys_path",
    )  # fmt: skip

    def __init__(
        self, ports: Ports, identity: Identity, handler: PeerHandler, schedule: Callable[[Peer], None], *, acceptor: bool
    ) -> None:
        self._ports = ports
        self._handler = handler
        self._schedule = schedule
        self._session = Session(identity, acceptor=acceptor)
        self._stream: Stream | None = None
        self._out: list[AnyMessage] = []
        self._free: int | None = None
        """How many of these may leave, the oldest first; None: all, always."""
        self._lost = False
        self.proof: Proof | None = None
        """What it has proven to be; None within a machine."""
        self.process_id = ""
        self.role = ""
        self.address = ""
        self.job_id = ""
        self.namespace = ""
        self.pid = 0
        self.sys_path: list[str] = []
        self.node_id = ""
        """The node on whose machine it is; empty where that does not matter, or is not known yet."""
        self.defined: set[str] = set()
        self.state: object = None
        """Free for the role: its own record of this peer."""

    def __repr__(self) -> str:
        return f"Peer({self.role} {self.process_id} at {self.address})"

    @property
    def lost(self) -> bool:
        """True once the connection has ended; sends are then dropped."""
        return self._lost

    def send(self, message: AnyMessage) -> None:
        """Queue `message`; it leaves with the next flush. Callers on other threads hold the ports' lock."""
        self._out.append(message)
        if len(self._out) == 1 or self._free is not None:  # Behind a gate others may be there that have no way at the moment.
            self._schedule(self)

    def post(self, message: AnyMessage) -> int:
        """As `send`, but the flush is the caller's business: returns how many messages wait; for the first one it must be arranged."""
        self._out.append(message)
        return len(self._out)

    def queued(self) -> int:
        """Messages that wait for the next flush."""
        return len(self._out)

    def buffered_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._stream.buffered_bytes() if self._stream is not None else 0

    def has_unsent(self) -> bool:
        """Something is still in this process: it waits for the connection, for a flush, or for the peer to take what came before."""
        return not self._lost and (bool(self._out) or self.buffered_bytes() > 0)

    def flush(self) -> None:
        """Write all that is queued. Any thread; takes the ports' lock."""
        with self._ports.lock:
            if not self._out or self._lost:
                self._out.clear()
                return
            if self._stream is None or not self._session.ready:
                return
            if self._free is None:
                out, self._out = self._out, []
            elif not (out := self._take_free()):
                return
            try:
                data = encode(out)
            except Exception:
                data = b"".join(self._encode_each(out))
            self._stream.write(data)

    def _take_free(self) -> list[AnyMessage]:
        """What may leave now, behind a gate."""
        out, free = self._out, self._free or 0
        self._free, self._out = 0, out[free:]
        return out[:free]

    # -- behind a gate

    def hold_back(self) -> None:
        """From now on a message leaves only when `let_go` says so."""
        self._free = 0

    @property
    def held(self) -> int:
        """How many messages wait to be let go."""
        return len(self._out) - (self._free or 0) if self._free is not None else 0

    def let_go(self, count: int) -> None:
        """The oldest of those that are held may leave, and do."""
        with self._ports.lock:
            if self._free is not None and not self._lost:
                self._free += count
                assert self._free <= len(self._out), "more were let go than were held"
                self.flush()

    def send_past(self, message: AnyMessage) -> None:
        """Send a message now, past those that are held."""
        with self._ports.lock:
            if self._free is None:
                self.send(message)
                return
            self._out.insert(0, message)
            self._free += 1
            self.flush()

    def _encode_each(self, messages: Sequence[AnyMessage]) -> list[bytes]:
        """A frame for each message that can be encoded, in order; the others go back to who sent them (PE-3)."""
        frames: list[bytes] = []
        loop = self._ports.loop
        for message in messages:
            try:
                frames.append(encode([message]))
            except Exception as error:
                # Not from here: whoever flushes is in the middle of something, and may be on any thread.
                if self._ports.in_loop_thread():
                    loop.call_soon(self._give_back, message, error)
                else:
                    loop.call_soon_threadsafe(self._give_back, message, error)
        return frames

    def _give_back(self, message: AnyMessage, error: Exception) -> None:
        if isinstance(self._handler, TakesBack):
            self._handler.unsendable(self, message, error)
        else:
            self.send_what_fits(message, error)

    def send_what_fits(self, message: AnyMessage, error: Exception) -> None:
        """Send a message that cannot be encoded with its text made fit: for words to people. The log has it when that does not help."""
        from actorflow._core.protocol import unencodable  # Hardly ever needed.

        fit = unencodable.text_made_fit(message)
        if unencodable.fits(fit):
            with self._ports.lock:
                self.send(fit)
        else:
            log.error("%s for %r was not sent: %s", type(message).__name__, self, unencodable.blame(message, error))

    def close(self, *, abort: bool = False) -> None:
        """Flush and close; `abort` drops what is queued."""
        if self._stream is None:
            self._fail("closed before it was connected")
        elif abort:
            self._stream.abort()
        else:
            self.flush()
            self._stream.close()

    def share_reads(self) -> None:
        """Let the loop that waits for this peer read from it. On the ports' loop, when the handshake is done."""
        if self._stream is not None:
            self._stream.share_reads()

    def heard_by(self, handler: PeerHandler) -> None:
        """From now on `handler` is told of this peer, in place of who was. Called in `peer_ready`."""
        self._handler = handler

    # -- chunks

    def read_chunks(self, sink: ChunkSink) -> None:
        """From now on the bytes of chunks follow some messages (io/bulk.py). Called in `peer_ready`."""
        from actorflow._core.io.bulk import BulkReader  # Only between nodes.

        if self._stream is not None:
            self._stream.hand_to(BulkReader(self, self._handler, sink, self._session.rest()))

    def send_chunk(self, message: AnyMessage, data: bytes | memoryview, taken: Callable[[], None]) -> None:
        """Send the bytes of a chunk behind its message. `taken` is called later, when they are needed no more. On the loop."""
        self.send(message)
        self.flush()
        if self._lost or self._stream is None:
            self._ports.loop.call_soon(taken)
            return
        self._stream.write(data)
        self._stream.when_taken(taken)

    def give_up(self, reason: str) -> None:
        """What the peer says makes no sense. On the loop."""
        if self._stream is not None:
            self._stream.abort()
        self._fail(reason)

    # -- StreamHandler

    def stream_handler(self) -> StreamHandler:
        """What its stream is to tell."""
        return self

    def attached(self, stream: Stream) -> None:
        """The stream exists: send our part of the handshake."""
        if self._lost:
            stream.abort()
            return
        self._stream = stream
        self.proof = stream.proof
        self._write_handshake()

    def data_received(self, data: bytes) -> None:
        """Bytes from the stream."""
        session = self._session
        was_ready = session.ready
        try:
            messages = session.receive(data)
        except ProtocolError as error:
            self._write_handshake()
            if self._stream is not None:
                self._stream.close()
            if self._ports.in_loop_thread():
                self._fail(str(error))
            else:
                self._ports.loop.call_soon_threadsafe(self._fail, str(error))
            return
        if not was_ready and session.ready:
            self._ready()
        if messages and not self._lost:
            self._handler.messages_received(self, messages)

    def connection_lost(self, reason: str) -> None:
        """The stream ended."""
        self._fail(reason)

    def _write_handshake(self) -> None:
        data = self._session.outgoing()
        if data and self._stream is not None:
            self._stream.write(data)

    def _ready(self) -> None:
        self._write_handshake()
        hello, welcome = self._session.hello, self._session.welcome
        if hello is not None:
            self.process_id, self.role, self.address = hello.process_id, hello.role, hello.address
            self.job_id, self.namespace, self.pid, self.sys_path = hello.job_id, hello.namespace, hello.pid, hello.sys_path
            self.node_id = hello.node_id
        elif welcome is not None:
            self.process_id, self.role, self.node_id = welcome.process_id, welcome.role, welcome.node_id
        if self.proof is not None and (problem := self._contradicts(self.proof)):
            assert self._stream is not None
            self._stream.abort()
            self._fail(problem)
            return
        self._handler.peer_ready(self)
        self.flush()

    def _contradicts(self, proof: Proof) -> str:
        """PE-2: what a peer says of itself, and has not proven; empty when all is right."""
        said, proven = (self.role, self.process_id), (proof.role, proof.process_id)
        if said != proven:
            return f"it says that it is {' '.join(said)}, and has proven to be {' '.join(proven)}"
        if proof.job_id and self.job_id not in ("", proof.job_id):
            return f"it says that it belongs to job {self.job_id}, and has the key of job {proof.job_id}"
        return ""

    def _fail(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = True
        self._out.clear()
        self._handler.peer_lost(self, reason)

    @property
    def welcome_info(self) -> dict[str, str]:
        """What the acceptor said of itself and its cluster; empty before the handshake."""
        return self._session.welcome.info if self._session.welcome is not None else {}


class Peers:
    """Makes and accepts peers for one process, and closes them all."""

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        handler: PeerHandler,
        schedule: Callable[[Peer], None] | None = None,
        *,
        gated: bool = False,
    ) -> None:
        """`gated`: what is sent is held until it is let go (`Peer.let_go`)."""
        self._ports = ports
        self._gated = gated
        self.identity = identity
        self._handler = handler
        self._schedule = schedule or self._schedule_on_loop
        self._listeners: list[Listener] = []
        self._connecting: dict[asyncio.Task[None], Peer] = {}
        self._open: dict[Peer, None] = {}
        self._links: Links | None = None

    async def listen(self, address: str) -> None:
        """Accept peers at `address`. Raises OSError."""
        self._listeners.append(await self._ports.network.listen(address, self._accept))

    def connect(self, address: str, process_id: str = "", *, lasting: bool = True) -> Peer:
        """Return a peer at once; it connects in the background. Any thread.

        Failure to connect is `peer_lost`. Not `lasting`: so is the loss of its connection between machines too.
        """
        peer = self._make(lasting=lasting and self._ports.network.lasts(address), acceptor=False)
        peer.address, peer.process_id = address, process_id
        if self._ports.in_loop_thread():
            self._start(peer)
        else:
            self._ports.loop.call_soon_threadsafe(self._start, peer)
        return peer

    def _start(self, peer: Peer) -> None:
        task = self._ports.loop.create_task(self._connect(peer), name=f"connect {peer.address}")
        self._connecting[task] = peer
        task.add_done_callback(lambda done: self._connecting.pop(done, None))

    async def _connect(self, peer: Peer) -> None:
        problem: OSError
        pauses = iter(FIRST_PAUSES_S if self._ports.network.lasts(peer.address) else ())
        while True:
            try:
                stream = await self._ports.network.connect(peer.address, peer.stream_handler())
                break
            except ConnectionResetError as error:
                # Somebody is there, and the line broke in the handshake: as for links that are up, that is no reason to give it up.
                problem, pause_s = error, next(pauses, None)
            except OSError as error:
                problem, pause_s = error, None
            if pause_s is None or peer.lost:
                peer.connection_lost(f"cannot connect to {peer.address}: {problem}")
                return
            await asyncio.sleep(pause_s)
        self._open[peer] = None
        peer.attached(stream)

    def _make(self, *, lasting: bool, acceptor: bool) -> Peer:
        peer = self._new(lasting=lasting, acceptor=acceptor)
        if self._gated:
            peer.hold_back()
        return peer

    def _new(self, *, lasting: bool, acceptor: bool) -> Peer:
        if not lasting:
            return Peer(self._ports, self.identity, self._handler, self._schedule, acceptor=acceptor)
        from actorflow._core.io.lasting_peers import LastingPeer, Links

        if self._links is None:
            self._links = Links()
        return LastingPeer(self._ports, self.identity, self._handler, self._schedule, self._links, acceptor=acceptor)

    def _accept(self, stream: Stream) -> StreamHandler:
        peer = self._make(lasting=stream.lasting, acceptor=True)
        self._open = {open_peer: None for open_peer in self._open if not open_peer.lost} if len(self._open) > 64 else self._open
        self._open[peer] = None
        handler = peer.stream_handler()
        peer.attached(stream)
        return handler

    def _schedule_on_loop(self, peer: Peer) -> None:
        if self._ports.in_loop_thread():
            self._ports.loop.call_soon(peer.flush)
        else:
            self._ports.loop.call_soon_threadsafe(peer.flush)

    def open(self) -> list[Peer]:
        """The connections that there are: both ends of one with this process itself."""
        return [peer for peer in self._open if not peer.lost]

    def close(self, *, abort: bool = False) -> None:
        """Stop listening and close every connection."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for task, peer in list(self._connecting.items()):
            task.cancel()
            peer.close(abort=abort)
        for peer in list(self._open):
            if not peer.lost:
                peer.close(abort=abort)
        self._open.clear()
