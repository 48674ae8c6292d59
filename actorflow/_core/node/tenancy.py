"""The node's lease: it says to the head that it lives, and ends everything when nobody has answered for too long.

While the head does not answer, other nodes are asked to pass on what it says. The policy is `policy/liveness.py`. A node in the head's own
process has no lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.liveness import BEAT_S, Detour, Lease
from actorflow._core.protocol.messages import Beat, BeatHeard, RelayBeat

log = logging.getLogger(__name__)

GIVEN_UP = "the head has not answered this node for as long as its lease lasts"
"""The reason that the node ends for."""


class Tenancy:
    """See the module. `others`: the nodes that are known to live; `ask`: say something to one of them."""

    def __init__(
        self,
        context: NodeContext,
        end: Callable[[str], None],
        let_live: Callable[[float], None],
        others: Callable[[], list[ProcessId]],
        ask: Callable[[ProcessId, RelayBeat], None],
    ) -> None:
        self._context = context
        self._end = end
        self._let_live = let_live
        self._others = others
        self._ask = ask
        self._lease = Lease()
        self._detour = Detour()
        self._by_detour = False
        """Others were asked with the last beat."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._beat()

    def linked(self) -> None:
        """The link with the head is a new one. Its beat does not wait: a head that dies again and again may not live until the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._beat()

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def lasts(self) -> bool:
        """There is a lease, and it is not over."""
        return self._lease.until is not None and not self._lease.over(self._context.now())

    @property
    def on_detour(self) -> bool:
        """The head itself does not answer at the moment."""
        return self._detour.wanted(self._context.now())

    def answered(self, peer: Peer, message: BeatHeard) -> None:
        """The head has heard us: it says so itself, or another node does that has passed on our beat."""
        if peer.role != "node":
            self._detour.answered(message.number)
        elif not self._detour.brought(peer.process_id):
            return  # LV-6
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
        number = self._lease.beat(now)
        self._detour.beat(number, now)
        self._context.head.send_if_there(Beat(number))
        self._ask_others(number, now)
        wait_s = BEAT_S if self._lease.until is None else min(BEAT_S, self._lease.until - now)
        self._timer = self._context.ports.loop.call_later(wait_s, self._beat)

    def _ask_others(self, number: int, now: float) -> None:
        # Without a link that is up or being mended nobody is asked: the head is another one by now, or takes this node for a new one.
        linked = self._context.head.linked
        wanted = linked and self._detour.wanted(now)
        if wanted and not self._by_detour:
            log.warning("the head does not answer: other nodes are asked to pass on what this one says")
        elif self._by_detour and linked and not wanted:
            log.warning("the head answers again")
        self._by_detour = wanted
        for node_id in self._detour.choose(self._others(), self._context.ports.rng) if wanted else ():
            self._ask(node_id, RelayBeat(number))
