"""A worker leaves in order: what it has leased goes back, and what it has said is written before it goes (SEMANTICS 17)."""

from __future__ import annotations

import threading
import time

from actorflow._core.worker.core import SENT_POLL_S, SENT_S, Core


def say_last_words(core: Core) -> None:
    """Return when all has left, within SENT_S. On the user's thread, which runs nothing else meanwhile."""
    with core.lock:
        core.tasks.return_all_idle()
    for peer in list(core.all_peers()):
        peer.flush()
    deadline = time.monotonic() + SENT_S
    while core.has_unsent() and time.monotonic() < deadline:
        threading.Event().wait(SENT_POLL_S)
