"""The asking side of enrolment: a process's connection to the head's desk, over which its keys and certificates come.

    EN-1  What is asked is answered, refused or given up within its timeout; what was not answered is asked again on the next connection.
    EN-2  While the desk is away it is called again and again, a little later each time, until `close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actorflow._core.base.errors import ActorflowError, ClusterConnectionError
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Ports
from actorflow._core.protocol.messages import AnyMessage, ClusterKeys, Enrol, Enrolled
from actorflow._core.protocol.session import Identity

log = logging.getLogger("actorflow")

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 5.0
ENROL_TIMEOUT_S = 10.0
JOIN_AGAIN_TIMEOUT_S = 3600.0
"""Of a node that was cut off and begins again: nobody waits for it, and the head may stay away for a while."""
NEWS_S = 60.0
"""So often at most the log says that somebody waits for the desk in vain."""
REQUESTS_MAX = 1024
"""Unanswered requests; one more is refused."""


class Enrolment:
    """See the module. On the ports' loop. `on_keys` gets what the desk says unasked."""

    def __init__(
        self, ports: Ports, identity: Identity, address: str, on_keys: Callable[[ClusterKeys], None], *, timeout_s: float = ENROL_TIMEOUT_S
    ) -> None:
        self.timeout_s = timeout_s
        self._ports = ports
        self._identity = identity
        self._address = address
        self._on_keys = on_keys
        self._peers: Peers | None = None
        self._peer: Peer | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_FIRST_S
        self._number = 0
        self._waiting: dict[int, tuple[Enrol, asyncio.Future[Enrolled]]] = {}
        self._news_at = float("-inf")
        self.trouble = "it does not answer"
        """Why the desk could not be reached the last time."""

    def connect(self) -> None:
        """Begin to connect."""
        self._peers = Peers(self._ports, self._identity, self)
        self._peer = self._peers.connect(self._address)

    def close(self) -> None:
        """Connect no more, and close what is open."""
        peers, self._peers, self._peer = self._peers, None, None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if peers is not None:
            peers.close()

    async def enrol(self, job_id: str = "", request: bytes = b"") -> Enrolled:
        """Have the desk sign a request. Raises ClusterConnectionError, with the reason."""
        timeout_s = self.timeout_s
        if len(self._waiting) >= REQUESTS_MAX:
            raise self._error(f"{REQUESTS_MAX} requests wait for it already")
        self._number += 1
        message = Enrol(self._number, job_id, request)
        future: asyncio.Future[Enrolled] = self._ports.loop.create_future()
        self._waiting[message.number] = message, future
        if self._peer is not None and self._peer.role and not self._peer.lost:
            self._peer.send(message)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError:
            raise self._error(f"{self.trouble} (waited {timeout_s:g} s)") from None
        finally:
            del self._waiting[message.number]
        if answer.error:
            raise self._error(answer.error)
        return answer

    def give_up(self, error: ActorflowError) -> None:
        """What was asked so far fails with this."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(self._error(str(error)))

    def _error(self, why: str) -> ClusterConnectionError:
        return ClusterConnectionError.explain(which=self._address, what="gives no keys and certificates", why=why)

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        """The desk is there."""
        self._retry_s = RETRY_FIRST_S
        for message, future in self._waiting.values():
            if not future.done():
                peer.send(message)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        """Answers, and news."""
        for message in messages:
            if isinstance(message, ClusterKeys):
                self._on_keys(message)
            elif isinstance(message, Enrolled):
                _, future = self._waiting.get(message.number, (None, None))
                if future is not None and not future.done():
                    future.set_result(message)
            else:
                log.error("%r said %s, which a desk never says; its connection is closed", peer, type(message).__name__)
                peer.close(abort=True)
                return

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """EN-2."""
        if peer is not self._peer:
            return  # It was closed here, and there may be another one by now.
        self.trouble = reason
        if self._peers is not None and self._retry is None:
            self._retry = self._ports.loop.call_later(self._retry_s, self._again)
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
            now = self._ports.monotonic()
            if self._waiting and now >= self._news_at + NEWS_S:
                self._news_at = now
                log.warning("%s is waited for, and called again and again (up to %g s): %s", self._address, self.timeout_s, reason)

    def _again(self) -> None:
        self._retry = None
        if self._peers is not None:
            self._peer = self._peers.connect(self._address)
