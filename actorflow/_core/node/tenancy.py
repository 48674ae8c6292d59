"""The node's lease: it says to the head that it lives, and ends everything when nobody has answered for too long.

The policy is `policy/liveness.py`. A node in the head's own process has no lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actorflow._core.node.context import NodeContext
from actorflow._core.policy.liveness import BEAT_S, Lease
from actorflow._core.protocol.messages import Beat, BeatHeard

log = logging.getLogger(__name__)

GIVEN_UP = "the head has not answered this node for as long as its lease lasts"
"""The reason that the node ends for."""


class Tenancy:
    """See the module."""

    def __init__(self, context: NodeContext, end: Callable[[str], None], let_live: Callable[[float], None]) -> None:
        self._context = context
        self._end = end
        self._let_live = let_live
        self._lease = Lease()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._beat()

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, message: BeatHeard) -> None:
        """The head has heard us."""
        self._lease.answered(message.number)
        if self._lease.until is not None:
            # Whoever started the workers counts too: this process may stand still when the lease ends.
            self._let_live(self._lease.until - self._context.now())

    def _beat(self) -> None:
        now = self._context.now()
        if self._lease.over(now):
            log.error("%s: what runs here is ended, since the head has started it elsewhere or is about to", GIVEN_UP)
            self._timer = None
            self._end(GIVEN_UP)
            return
        self._context.head.send_if_there(Beat(self._lease.beat(now)))
        wait_s = BEAT_S if self._lease.until is None else min(BEAT_S, self._lease.until - now)
        self._timer = self._context.ports.loop.call_later(wait_s, self._beat)
