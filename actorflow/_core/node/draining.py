"""A node that is to leave in order: it takes nothing new, waits until nothing is left here, and leaves; at its deadline in any case.

    ND-1  From the word on no lease is granted here, what waits is sent to other nodes, and workers that are lent are asked back.
    ND-2  The node leaves when no task, no actor and no driver is left here, and what its objects' owners need of them is elsewhere; or at
          the deadline. Of several words the soonest deadline holds.
    ND-3  Its word that it drains is said again on each connection with the head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.io.peers import Peer
from actorflow._core.protocol.messages import Drain, Draining

if TYPE_CHECKING:
    from actorflow._core.node.context import NodeContext

DRAINED = "it was drained"
"""With this the reason begins, for whoever has to know that it is not to begin again."""
LOOK_S = 0.1
"""How often it is looked whether anything is left."""


class LeavesInOrder:
    """See the module. `left_here()`: what is still here, in words; `leave(reason)`: called once."""

    def __init__(
        self,
        context: NodeContext,
        begin: Callable[[], None],
        left_here: Callable[[], list[str]],
        leave: Callable[[str], None],
        why_not: str = "",
    ) -> None:
        self._context = context
        self._begin = begin
        self._left_here = left_here
        self._leave = leave
        self._why_not = why_not
        self._deadline = 0.0
        self._reason = ""
        self._begun = False
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self, peer: Peer, message: Drain) -> None:
        """The head wants this node to leave."""
        self.wanted(message.deadline_s, message.reason)

    def wanted(self, deadline_s: float, reason: str) -> None:
        """This node is to leave. See ND-2."""
        if self._why_not:
            self._context.head.send(Draining(deadline_s, reason, self._why_not))
            return
        deadline = self._context.now() + max(deadline_s, 0.0)
        if not self._begun:
            self._begun, self._deadline, self._reason = True, deadline, reason
            self._context.draining = True
            self._begin()
            self._timer = self._context.ports.loop.call_later(LOOK_S, self._look)
        elif deadline < self._deadline:
            self._deadline = deadline
        self.say()

    def say(self) -> None:
        """ND-3."""
        if self._begun:
            self._context.head.send_if_there(Draining(max(self._deadline - self._context.now(), 0.0), self._reason))

    def _look(self) -> None:
        """ND-2."""
        left = self._left_here()
        now = self._context.now()
        if left and now < self._deadline:
            self._timer = self._context.ports.loop.call_later(LOOK_S, self._look)
            return
        self._timer = None
        what = f"its time was over, with {', '.join(left)} left" if left else "nothing was left here"
        told = f"{DRAINED} ({self._reason}): {what}"
        self._context.head.send_if_there(Draining(0.0, self._reason, left=told))
        self._context.head.flush()
        self._leave(told)
