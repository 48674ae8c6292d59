"""A worker begins no call when its node's lease is over (LV-7): the machine stood still, and what ran on it runs elsewhere by now.

Its node and its zygote end it then, but they wake up when it does. So it looks by itself, at a number that its node has written.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")

LOOK_S = 1.0
"""Within this time after a look the next one is left out. Less than any lease has left while its node is heard."""
OVER = "its node was not heard for as long as its lease lasts, so what ran here runs elsewhere"


class Tenure:
    """See the module. `until`: before this moment of the ports' clock nothing has to be looked at."""

    __slots__ = ("_core", "left_s", "until")

    def __init__(self, core: Core) -> None:
        self._core = core
        self.left_s: Callable[[], float] | None = None
        """How long the node's lease lasts; None: it has none, or is of this process. Set by whoever makes the worker."""
        self.until = 0.0

    def over(self) -> bool:
        """As `may_act`, the other way round, for who has not looked at the clock."""
        now = self._core.ports.monotonic()
        return now >= self.until and not self.may_act(now)

    def may_act(self, now: float) -> bool:
        """Look. When it is over this process ends, and nothing more begins in it."""
        if self.left_s is None:
            self.until = math.inf
            return True
        left_s = self.left_s()
        if left_s > 0:
            self.until = now + min(left_s, LOOK_S)
            return True
        core = self._core
        if core.closed is None:
            log.error("worker %s ends: %s", core.identity.process_id, OVER)
            with core.batch():
                core.lease_over(OVER)
        return False
