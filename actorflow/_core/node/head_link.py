"""The node's connection to its head."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Ports
from actorflow._core.protocol.messages import ActorFailed, ActorLost, AnyMessage, Hosted, NodeInfo

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 0.5
REPEAT_S = 15.0
ENDS_MAX = 10_000
UNSENT_MAX = 200_000
"""Messages kept while the head is away: each tells the end or the birth of one actor."""


class HeadLink:
    """Sends to the head, and connects again when the connection is lost.

    HL-1: NodeInfo is the first message on every connection.
    HL-2: what is said while there is no connection is said on the next one, in order.
    HL-3: what was said in the last moments before a connection ended is said once more on the next one, where it is of an end: nobody
          knows whether it was heard. Then follows what there is.
    """

    def __init__(self, ports: Ports, address: str, info: NodeInfo, hosted: Callable[[], Hosted]) -> None:
        self._ports = ports
        self._address = address
        self._info = info
        self._hosted = hosted
        self._ends: deque[tuple[float, AnyMessage]] = deque(maxlen=ENDS_MAX)
        """The last ends that were said, and when."""
        self._peers: Peers | None = None
        self._peer: Peer | None = None
        self._unsent: deque[AnyMessage] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_FIRST_S
        self.trouble = ""
        """Why it could not be reached the last time."""
        self.ready: asyncio.Future[None] = ports.loop.create_future()
        """Done at the first handshake."""

    def connect(self, peers: Peers) -> None:
        """Start to connect."""
        self._peers = peers
        self._peer = peers.connect(self._address)

    @property
    def linked(self) -> bool:
        """The handshake was made and the link has not ended since, though its connection may be broken at the moment."""
        return self._peer is not None and not self._peer.lost and bool(self._peer.role)

    def is_head(self, peer: Peer) -> bool:
        """True for the present connection."""
        return peer is self._peer

    def peer_ready(self) -> None:
        """The handshake is done."""
        assert self._peer is not None
        self._retry_s = RETRY_FIRST_S
        self._peer.send(self._info)
        since = self._ports.monotonic() - REPEAT_S
        for said_at, message in list(self._ends):
            if said_at >= since:
                self._peer.send(message)
        while self._unsent:
            self._say(self._peer, self._unsent.popleft())
        self._peer.send(self._hosted())
        if not self.ready.done():
            self.ready.set_result(None)

    def peer_lost(self, reason: str) -> None:
        """The connection is gone, or was not made: try again, a little later each time."""
        self.trouble = reason
        if self._retry is not None or self._peers is None:
            return
        if self.ready.done():
            log.warning("the head at %s is away: %s", self._address, reason)
        self._retry = self._ports.loop.call_later(self._retry_s, self._again)
        self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)

    def send(self, message: AnyMessage) -> None:
        """Tell the head, now or when it is back."""
        peer = self._peer
        if peer is not None and not peer.lost and peer.role:
            self._say(peer, message)
        elif len(self._unsent) < UNSENT_MAX:
            self._unsent.append(message)
        else:
            log.error("the head is away and %d messages wait for it; dropped: %s", UNSENT_MAX, message)

    def _say(self, peer: Peer, message: AnyMessage) -> None:
        if isinstance(message, ActorLost | ActorFailed):
            self._ends.append((self._ports.monotonic(), message))
        peer.send(message)

    def send_if_there(self, message: AnyMessage) -> None:
        """Tell the head what is of no use later."""
        if self._peer is not None and self.linked:
            self._peer.send(message)

    def flush(self) -> None:
        """Write what was said, instead of at the end of this turn of the loop."""
        if self._peer is not None:
            self._peer.flush()

    def close(self) -> None:
        """Connect no more."""
        self._peers = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _again(self) -> None:
        self._retry = None
        if self._peers is not None:
            self._peer = self._peers.connect(self._address)
