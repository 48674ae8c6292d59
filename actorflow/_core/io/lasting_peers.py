"""Peers on other machines: a connection that breaks is made again, and the conversation goes on where it was (SEMANTICS 6).

Within a machine a connection ends when a process does. Between machines it may also be a router that forgot, or a cable. So the one
who connected connects again, and each side sends once more what the other did not get; who is asked meanwhile sees nothing of it but
the time. What it costs is in `protocol/links.py`: a count, and the frames of the last moments.

    LP-1  Messages arrive once each, in the order of `send`, over all connections of a link, or the peer is lost (PE-1).
    LP-2  A link whose process is gone ends at once: nobody listens there any more. One that cannot be made again ends after MEND_S, but
          for LP-4.
    LP-3  A link goes on only with the process that it was made with, and that has proven so again.
    LP-4  When the time to mend is over and the handler knows by another way that the other side lives, it begins anew; and so long a side
          that was connected to does not take it for gone. What waits to be sent is put by each time, within what a link keeps (RS-2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from actorflow._core.base.errors import ActorflowError
from actorflow._core.io.peers import KnowsBetter, Peer, PeerHandler
from actorflow._core.io.ports import Ports, Stream, Unwelcome
from actorflow._core.policy.link_resets import LinkResets
from actorflow._core.protocol.codec import BATCH_MESSAGES_MAX, encode
from actorflow._core.protocol.links import Ledger, LinkSession
from actorflow._core.protocol.messages import AnyMessage, Goodbye, Hello
from actorflow._core.protocol.session import Identity

log = logging.getLogger("actorflow")

MEND_S = 6.0
"""How long a broken connection may take to come back."""
TRY_S = 2.0
"""How long one try may take, with all handshakes."""
WAIT_S = MEND_S + 1.0
"""How long the side that was connected to waits for it."""
PAUSES_S = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Before each try to connect again, where the ones before did not succeed; the last one stays. Those that did, and broke at once, have
longer ones: policy/link_resets.py."""
PROBES_S = (0.0, 0.02, 0.1, 0.3)
"""Pauses before one looks whether a process is gone whose connection has broken."""
TELL_S = 0.2
"""How late the other side hears that little has arrived."""

GONE = (ConnectionRefusedError, FileNotFoundError)
"""Nobody listens there, or not the process that it was: it is gone, or its node is. See ports.Network."""


class Links:
    """The links that this process has accepted, by name."""

    def __init__(self) -> None:
        self._peers: dict[str, LastingPeer] = {}

    def enter(self, link: str, peer: LastingPeer) -> None:
        """A link begins."""
        self._peers[link] = peer

    def leave(self, link: str, peer: LastingPeer) -> None:
        """A link has ended."""
        if self._peers.get(link) is peer:
            del self._peers[link]

    def find(self, link: str) -> LastingPeer | None:
        """Whose link it is."""
        return self._peers.get(link)


class Leg:
    """One connection of a link: what its stream tells goes to the peer, until another connection takes over."""

    __slots__ = ("came_back", "peer", "stream")

    def __init__(self, peer: LastingPeer) -> None:
        self.peer = peer
        self.stream: Stream | None = None
        self.came_back: asyncio.Future[bool] | None = None
        """Of a connection that is made again: whether the conversation goes on by it."""

    def data_received(self, data: bytes) -> None:
        """See ports.StreamHandler."""
        try:
            self.peer.leg_received(self, data)
        except BaseException:
            self.peer.closing = True  # A message could not be handled: no other connection makes that good.
            raise

    def connection_lost(self, reason: str) -> None:
        """See ports.StreamHandler."""
        self.peer.leg_lost(self, reason)

    def end(self, came_back: bool) -> None:
        """Tell what became of it."""
        if self.came_back is not None and not self.came_back.done():
            self.came_back.set_result(came_back)


class LastingPeer(Peer):
    """See the module."""

    __slots__ = (
        "_acceptor", "_identity", "_ledger", "_leg", "_link", "_links", "_mending", "_met", "_own", "_resets", "_shares", "_tell_timer",
        "_up", "_why",
        "closing",
    )  # fmt: skip

    _session: LinkSession

    def __init__(
        self, ports: Ports, identity: Identity, handler: PeerHandler, schedule: Callable[[Peer], None], links: Links, *, acceptor: bool
    ) -> None:
        super().__init__(ports, identity, handler, schedule, acceptor=acceptor)
        self._identity = identity
        self._links = links
        self._acceptor = acceptor
        self._link = "" if acceptor else f"{ports.rng.getrandbits(128):032x}"
        self._ledger = Ledger()
        self._own: AnyMessage | None = None
        """What is to be said of the link itself, at the head of the next frame."""
        self._leg: Leg | None = None
        """The connection that counts, or the next one; None while there is neither."""
        self._up = False
        """The handshake is done, and all that had been lost is sent again. Guarded by the ports' lock."""
        self._met = False
        """The first handshake is done."""
        self._mending: asyncio.Task[None] | None = None
        self._resets = None if acceptor else LinkResets()
        self._tell_timer: asyncio.TimerHandle | None = None
        self._shares = False
        self._why = ""
        """Why the last connection broke; empty while it is there."""
        self.closing = False
        """This side ends it, so a loss is no reason to connect again."""
        self._enter(LinkSession(identity, acceptor=acceptor, link=self._link, judge=self._judge if acceptor else None))

    def _enter(self, session: LinkSession) -> None:
        self._session = session
        session.on_received = self._confirmed

    # -- sending

    def flush(self) -> None:
        """See Peer. While the connection is away, messages wait."""
        with self._ports.lock:
            if self._lost:
                self._out.clear()
            elif (self._out or self._own is not None) and self._up:
                assert self._stream is not None
                for data in self._take_frames():
                    if self._link:
                        self._ledger.add(data)
                    self._stream.write(data)

    def has_unsent(self) -> bool:
        """See Peer. What went by a connection that has broken may not have arrived, and goes again by the next one."""
        return super().has_unsent() or (not self._up and not self._lost and self._ledger.kept_bytes > 0)

    def _take_frames(self) -> Iterator[bytes]:
        """All that may leave now. Under the lock."""
        if self._free is None:
            out, self._out = self._out, []
        else:
            out = self._take_free()
        if self._own is not None:
            out.insert(0, self._own)
            self._own = None
        for at in range(0, len(out), BATCH_MESSAGES_MAX):
            batch = out[at : at + BATCH_MESSAGES_MAX]
            try:
                frames = [encode(batch)]
            except Exception:
                frames = self._encode_each(batch)
            yield from frames

    def _confirmed(self, received: int) -> None:
        with self._ports.lock:
            self._ledger.confirm(received)

    def close(self, *, abort: bool = False) -> None:
        """See Peer. The other side is told that this is meant."""
        self.closing = True
        if self._why and self._stream is None:
            self._fail("closed while its connection was broken")
            return
        if self._up and self._link and not abort:
            self.flush()
            self._own = Goodbye()
        super().close(abort=abort)

    def share_reads(self) -> None:
        """See Peer."""
        self._shares = True
        super().share_reads()

    # -- connections

    def stream_handler(self) -> Leg:
        """See Peer: of the next connection."""
        self._leg = leg = Leg(self)
        return leg

    def attached(self, stream: Stream) -> None:
        """See Peer."""
        if self._leg is not None:
            self._leg.stream = stream
        super().attached(stream)

    def leg_received(self, leg: Leg, data: bytes) -> None:
        """Bytes of a connection."""
        if leg is not self._leg:
            return
        self.data_received(data)
        session = self._session
        if session.untold and self._link and not self._lost:
            if session.much_untold:
                self._say(session.tell())
            elif self._tell_timer is None:
                if self._ports.in_loop_thread():
                    self._tell_later()
                else:
                    self._ports.loop.call_soon_threadsafe(self._tell_later)

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """A connection ended."""
        leg.end(False)
        if leg is not self._leg or self._lost:
            return
        if self.closing or self._session.goodbye or not self._link:
            self._fail(reason)
            return
        if self._resets is not None:
            self._resets.broke(self._session.frames, self._ports.loop.time())
        self._detach()
        self._why = self._why or reason
        self._mend()

    def _mend(self) -> None:
        if self._mending is None:
            log.debug("the connection with %r broke (%s)", self, self._why)
            mend = self._wait() if self._acceptor else self._connect_again()
            self._mending = self._ports.loop.create_task(mend, name=f"mend the connection with {self.process_id}")

    def _known_alive(self) -> bool:
        return isinstance(self._handler, KnowsBetter) and self._handler.alive_by_another_way(self)

    def _go_on_mending(self) -> bool:
        """The time to mend is over. True when there is more of it (LP-4)."""
        if self._lost or not self._known_alive():
            return False
        log.debug("the connection with %r is still broken, and the other side lives", self)
        with self._ports.lock:
            if self._link:
                for data in self._take_frames():  # They go as what was sent and did not arrive, so they are bounded like that.
                    self._ledger.add(data)
        return True

    def _detach(self) -> int:
        """No connection counts from now on. Returns how many frames have arrived."""
        with self._ports.lock:
            self._leg, self._stream, self._up = None, None, False
            return self._session.frames

    def _tell_later(self) -> None:
        if self._tell_timer is None and not self._lost:
            self._tell_timer = self._ports.loop.call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        self._tell_timer = None
        if not self._lost and self._session.untold:
            with self._ports.lock:
                self._say(self._session.tell())

    def _say(self, message: AnyMessage) -> None:
        """Say it with the next flush. Under the lock, or on a loop that reads alone."""
        self._own = message
        if not self._out:
            self._schedule(self)

    # -- the side that connected

    async def _connect_again(self) -> None:
        loop, resets = self._ports.loop, self._resets
        assert resets is not None, "who was connected to waits"
        begun = loop.time()
        give_up_at = begun + MEND_S
        problem = ""
        tries = 0
        while True:
            if loop.time() >= give_up_at:
                if not self._go_on_mending():
                    break
                give_up_at = loop.time() + MEND_S
            await asyncio.sleep(max(PAUSES_S[min(tries, len(PAUSES_S) - 1)], resets.pause_s()))
            tries += 1
            leg = self.stream_handler()
            leg.came_back = loop.create_future()
            frames = self._session.frames if self._met else -1
            self._enter(LinkSession(self._identity, acceptor=False, link=self._link, frames=frames))
            try:
                async with asyncio.timeout(TRY_S):
                    self.attached(await self._ports.network.connect(self.address, leg))
                    back = await leg.came_back
                    # It may have broken again before this task had its turn: then it never came back, and the time goes on.
                    if self._lost or (back and self._leg is leg):
                        self._mending = None
                        return
            except GONE:
                break  # LP-2
            except (OSError, TimeoutError) as error:
                problem = f": {error}" if str(error) else ""
            self._detach()
            if leg.stream is not None:
                leg.stream.abort()
        self._mending = None
        late = loop.time() >= give_up_at
        self._fail(f"{self._why}, and not back within {_periods(loop.time() - begun, MEND_S):g} s{problem}" if late else self._why)

    # -- the side that was connected to

    async def _wait(self) -> None:
        loop = self._ports.loop
        begun = loop.time()
        while True:
            until = loop.time() + WAIT_S
            gone = await self._seems_gone()
            if gone and not self._known_alive():
                break
            await asyncio.sleep(until - loop.time())
            if not self._go_on_mending():
                break
        self._mending = None
        self._fail(self._why if gone else f"{self._why}, and not back within {_periods(loop.time() - begun, WAIT_S):g} s")

    async def _seems_gone(self) -> bool:
        """Nobody listens at the other side's address."""
        network = self._ports.network
        # A process that dies closes one descriptor after the other: its connections may break while it still seems to listen.
        for pause_s in PROBES_S if self.address and network.lasts(self.address) else ():
            await asyncio.sleep(pause_s)
            try:
                stream = await network.connect(self.address, Probe())
            except Unwelcome as error:
                # A node has no key to a driver, nor has a worker of another job.
                log.debug("%r is there, and does not let us in: %s", self, error)
                break
            except GONE:
                return True  # LP-2
            except (OSError, ActorflowError) as error:  # Whatever it is, this wait has an end.
                log.debug("%r does not answer at the moment: %s", self, error)
            else:
                stream.abort()
                break
        return False

    def _judge(self, hello: Hello) -> tuple[int, str]:
        """A fresh connection goes on with a link: how much of it has arrived here, or why it cannot."""
        peer = self._links.find(hello.link)
        if peer is None:
            return 0, "" if hello.received < 0 else "this link is over"
        if (hello.process_id, hello.role) != (peer.process_id, peer.role) or self.proof != peer.proof:
            return 0, "this link is another process's"  # LP-3
        return peer.cut(max(hello.received, 0))

    def cut(self, received: int) -> tuple[int, str]:
        """Another connection is about to take over: nothing is taken from the one before any more."""
        before = self._leg
        frames = self._detach()
        self._why = self._why or "replaced by another connection"
        if before is not None and before.stream is not None:
            before.stream.abort()  # Half open, most likely: the other side knows better.
        with self._ports.lock:
            missing = self._ledger.missing(received)
        if missing is None:
            self._fail(f"{self._why}, and too much was under way")  # The other side hears it too, and does not come again.
            return frames, "too much was under way when the connection broke"
        self._mend()  # Until `_go_on`: the other one may still turn out to be no good, and this peer has no connection any more.
        return frames, ""

    def _ready(self) -> None:
        hello, welcome = self._session.hello, self._session.welcome
        known = self._links.find(hello.link) if hello is not None else None
        if known is not None:
            self._write_handshake()
            self._lost = True  # Its connection is the other's now; nobody has heard of this one.
            known.go_on_by(self)
        elif welcome is not None and self._met:
            said = f"{welcome.role} {welcome.process_id}"
            if said != f"{self.role} {self.process_id}" or (self.proof is not None and self._contradicts(self.proof)):
                self._fail(f"{self._why}, and {said} answers in its place")  # LP-3
            else:
                self._go_on(welcome.received)
        else:
            with self._ports.lock:
                self._up = True
            self._met, self._why = True, ""
            if self._resets is not None:
                self._resets.up(self._session.frames, self._ports.loop.time())
            if hello is not None:
                self._link = hello.link
                if self._link:  # Otherwise it lasts no longer than its connection.
                    self._links.enter(self._link, self)
            elif self._leg is not None:
                self._leg.end(True)
            super()._ready()

    def go_on_by(self, fresh: LastingPeer) -> None:
        """Take over the connection of a fresh peer."""
        hello, self._leg = fresh._session.hello, fresh._leg
        assert hello is not None
        assert self._leg is not None
        self._leg.peer = self
        self.proof = fresh.proof
        self._enter(fresh._session)
        with self._ports.lock:
            self._stream = fresh._stream
        self._go_on(max(hello.received, 0))

    def _go_on(self, received: int) -> None:
        """The connection is back: what the other side has not got goes first, then what has waited."""
        with self._ports.lock:
            stream, missing = self._stream, self._ledger.missing(received)
            assert stream is not None
            for frame in missing or ():
                stream.write(frame)
            self._up = missing is not None
        if missing is None:
            stream.abort()
            self._fail(f"{self._why}, and too much was under way")
            return
        log.debug("the connection with %r is back", self)
        self._why = ""
        if self._resets is not None:
            self._resets.up(self._session.frames, self._ports.loop.time())
        if self._acceptor:
            self._stop_mending()
        elif self._leg is not None:
            self._leg.end(True)
        if self._shares:
            stream.share_reads()
        self.flush()

    # -- the end

    def _stop_mending(self) -> None:
        mending, self._mending = self._mending, None
        if mending is not None:
            mending.cancel()

    def _fail(self, reason: str) -> None:
        if self._lost:
            return
        self._stop_mending()
        if self._tell_timer is not None:
            self._tell_timer.cancel()
            self._tell_timer = None
        self._links.leave(self._link, self)
        with self._ports.lock:
            self._up = False
            self._ledger.clear()
        super()._fail(reason)


def _periods(waited_s: float, period_s: float) -> float:
    """How long was waited, in whole periods."""
    return max(1, int(waited_s / period_s)) * period_s


class Probe:
    """The handler of a connection that only asks whether somebody is there."""

    def data_received(self, data: bytes) -> None:
        """See ports.StreamHandler."""

    def connection_lost(self, reason: str) -> None:
        """See ports.StreamHandler."""
