"""The cluster ends while code runs here: it is cancelled, and actors leave their contexts, before this process ends.

FA-1: whatever that code does, the process ends FAREWELL_S later. Its node waits a little longer before it kills.
FA-2: an actor leaves its context once, also when it was about to leave for another reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor
    from actorflow._core.worker.incoming import Incoming

FAREWELL_S = 1.0


def farewell(host: Host, then: Callable[[], None]) -> bool:
    """Call `then` once, under the lock, when all is done or FAREWELL_S is over. False: there is nothing to be done. Under the lock."""
    running = [incoming for incoming in host.calls.values() if incoming.task is not None]
    actors = [actor for actor in host.actors.values() if actor.entered]
    if not running and not actors:
        return False
    for incoming in running:
        if incoming.actor is not None:
            incoming.actor.moves = None  # MV-3: what has no answer may have run.
    over = False

    def end() -> None:
        nonlocal over
        with host.core.lock:
            if not over:
                over = True
                then()

    def start() -> None:
        host.keep(host.executor.loop.create_task(_say(host, running, actors, end), name="farewell"))

    host.core.later(FAREWELL_S, end)
    host.executor.loop.call_soon_threadsafe(start)
    return True


async def _say(host: Host, running: list[Incoming], actors: list[HostedActor], end: Callable[[], None]) -> None:
    for incoming in running:
        if not incoming.cancelled:  # Else it is ending already, and is not to be disturbed.
            incoming.cancelled = incoming.parting = True
            host.cancel_running(incoming)
    tasks = [incoming.task for incoming in running if incoming.task is not None]
    if tasks:
        await asyncio.wait(tasks)
    for actor in actors:
        await actor.leave_context(host)
    host.core.ports.loop.call_soon_threadsafe(end)  # What it ends is the protocol loop's.
