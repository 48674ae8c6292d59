"""A node that is to leave in order: it takes nothing new, waits until nothing is left here, and leaves; at its deadline in any case.

    ND-1  From the word on no lease is granted here, what waits is sent to other nodes, and workers that are lent are asked back.
    ND-2  The node leaves when no task, no actor and no driver is left here, and what its objects' owners need of them is elsewhere; or at
          the deadline. Of several words the soonest deadline holds.
    ND-3  Its word that it drains is said again on each connection with the head.
    ND-4  So is its last word, and it goes when that was taken: a head between two lives would take it for a node that died, and wait for
          it. It goes unheard LAST_WORD_S later, and in any case when the machine ends. From its last word on nothing begins here.
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
LAST_WORD_S = 5.0
"""How long a node that is done waits for a head: longer than one takes to be back, and shorter than the lease of a node (LEASE_S)."""


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
        self._machine_ends: float | None = None
        """The deadline of the machine, which no time can be added to."""
        self._begun = False
        self._empty = False
        self.last_word = ""
        """Why it leaves, and how; empty before that."""
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self, peer: Peer, message: Drain) -> None:
        """The head wants this node to leave."""
        self.wanted(message.deadline_s, message.reason)

    def wanted(self, deadline_s: float, reason: str, *, machine_ends: bool = False) -> None:
        """This node is to leave. See ND-2. `machine_ends`: it cannot be later."""
        if self._why_not:
            self._context.head.send(Draining(deadline_s, reason, self._why_not))
            return
        deadline = self._context.now() + max(deadline_s, 0.0)
        if machine_ends:
            self._machine_ends = deadline
        if not self._begun:
            self._begun, self._deadline, self._reason = True, deadline, reason
            self._context.draining = True
            self._begin()
            self._timer = self._context.ports.loop.call_later(LOOK_S, self._look)
        elif deadline < self._deadline:
            self._deadline = deadline
        self.say()

    def say(self) -> None:
        """ND-3, ND-4."""
        if self._begun:
            self._context.head.send_if_there(Draining(max(self._deadline - self._context.now(), 0.0), self._reason))
        if self.last_word:
            self._context.head.send_if_there(Draining(0.0, self._reason, left=self.last_word, empty=self._empty))

    def taken(self) -> None:
        """The head has heard the last word."""
        if self.last_word:
            self._go()

    def _look(self) -> None:
        """ND-2."""
        left = self._left_here()
        now = self._context.now()
        if left and now < self._deadline:
            self._timer = self._context.ports.loop.call_later(LOOK_S, self._look)
            return
        what = f"its time was over, with {', '.join(left)} left" if left else "nothing was left here"
        self.last_word, self._empty = f"{DRAINED} ({self._reason}): {what}", not left
        self._context.has_left = True
        self.say()
        self._context.head.flush()
        wait_s = LAST_WORD_S
        if self._machine_ends is not None:
            wait_s = min(wait_s, self._machine_ends - now)
        if wait_s > 0:
            self._timer = self._context.ports.loop.call_later(wait_s, self._go)
        else:
            self._go()

    def _go(self) -> None:
        self.stop()
        self._leave(self.last_word)
