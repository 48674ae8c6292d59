"""Watches the loop that shared actors share: who blocks it is named (SEMANTICS 22)."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host

log = logging.getLogger("actorflow")

BLOCKED_LOOP_S = 1.0
"""A loop that does not get its turn for so long is told of."""
PERIOD_S = 0.5
FRAMES_MAX = 3
_OURS = f"{Path(__file__).parents[2]}/"


class LoopWatch:
    """Asks the loop for a sign of life while calls are here. Runs on the protocol's thread, under the lock, but for the sign itself."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked: float | None = None
        self._told = False
        self._thread_id = 0
        self._sign()

    def start(self) -> None:
        """Begin, and go on as long as the process."""
        self._host.core.later(PERIOD_S, self._tick)

    def _tick(self) -> None:
        now = self._host.core.ports.monotonic()
        if self._asked is None:
            if self._host.calls:
                self._asked = now
                self._host.executor.loop.call_soon_threadsafe(self._sign)
        elif now - self._asked >= BLOCKED_LOOP_S and not self._told:
            self._told = True
            self._tell(now - self._asked)
        self.start()

    def _sign(self) -> None:
        """On the user's loop."""
        self._thread_id = threading.get_ident()
        self._asked, self._told = None, False

    def _tell(self, seconds: float) -> None:
        host = self._host
        task = asyncio.current_task(host.executor.loop)
        call = host.stepping or next((incoming for incoming in host.calls.values() if task is not None and incoming.task is task), None)
        who = f"{call.actor.label}, in {call.name}()," if call is not None and call.actor is not None else "code of one of them"
        log.warning(
            "%s has blocked the loop of this process, which %d shared actors use, for %.1f s: await what waits there, or take "
            'process="dedicated". It is at\n%s',
            who,
            len(host.actors),
            seconds,
            self._where(),
        )

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread_id)
        found: list[traceback.FrameSummary] = []
        while frame is not None and len(found) < FRAMES_MAX:
            if not frame.f_code.co_filename.startswith(_OURS):
                found.append(traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
            elif found:
                break
            frame = frame.f_back
        return "".join(traceback.format_list(found[::-1])).rstrip()
