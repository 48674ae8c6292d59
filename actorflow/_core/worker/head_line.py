"""The line from a driver or worker to a head that may go away and come back: what has no answer yet is said again.

    HN-1  A question to the head is answered, however often the head comes back meanwhile: it is said on each new connection until then, in
          the order in which the questions were made. All of them are idempotent.
    HN-2  What the head tells those who watch is asked for anew on each new connection, so no news is missed.
    HN-3  While the head is away everything else goes on; calls between processes never see it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.protocol.messages import AnyMessage, WatchActor

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")

RETRY_FIRST_S = 0.02
RETRY_MAX_S = 0.5

Key = tuple[str, str | int]


class HeadLine:
    """See the module. Under the ports' lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[Key, AnyMessage] = {}
        self._retry_s = RETRY_FIRST_S
        self._lost = False
        self.returns = False
        """The head of this cluster comes back when it goes away. Said by the node."""
        self.on_return: list[Callable[[], None]] = []
        """What else has to be asked anew."""

    def ask(self, what: str, key: str | int, message: AnyMessage) -> Peer:
        """Say it, again and again until it is `answered`. Returns the connection, which the caller may flush."""
        if self.returns:
            self._open[what, key] = message
        head = self._core.head
        head.send(message)
        return head

    def push(self, what: str, key: str | int, message: AnyMessage, *, urgent: bool = False) -> None:
        """As `ask`, on the call path (`Core.push`)."""
        if self.returns:
            self._open[what, key] = message
        self._core.push(self._core.head, message, urgent=urgent)

    def answered(self, what: str, key: str | int) -> None:
        """The answer is here, or nobody waits for it any more."""
        self._open.pop((what, key), None)

    def asked(self, what: str, key: str | int) -> AnyMessage | None:
        """What was asked and is not answered yet."""
        return self._open.get((what, key))

    def has_unsent(self) -> bool:
        """There are questions, and no head that they have been said to."""
        return self._lost and bool(self._open)

    def lost(self, reason: str) -> None:
        """The connection is gone, or could not be made."""
        self._lost = True
        if self._retry_s == RETRY_FIRST_S:
            log.info("the head is away: %s", reason)
        self._core.later(self._retry_s, self._again)
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _again(self) -> None:
        if self._core.closed is None:
            self._core.connect_head()

    def ready(self) -> None:
        """There is a connection, to the head that was there before or to its next life."""
        self._retry_s = RETRY_FIRST_S
        if not self._lost:
            return  # The first one: what was asked is on its way.
        self._lost = False
        head = self._core.head
        for actor_id in self._core.actors.watched():
            if ("create", actor_id) not in self._open:
                head.send(WatchActor(actor_id))
        for ask in self.on_return:
            ask()
        for message in self._open.values():
            head.send(message)
