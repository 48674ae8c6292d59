"""An actor that goes on in another process, as its node is to leave: nothing that it was asked is lost, and nothing runs twice.

    MV-1  What runs may end, and is answered. What has not started goes back to its callers, in order, and so does what comes later.
    MV-2  When nothing runs any more, its state is stored, if it can tell it; then it leaves. The next incarnation is made after that.
    MV-3  The last word to its callers says so: what was sent here and has no answer has not run. Who did not hear it cannot know, as after
          a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from actorflow._core.protocol import messages as m

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor


LOOK_S = 0.005


def move(host: Host, actor: HostedActor) -> None:
    """Its node says that it is to move. Idempotent. Under the lock."""
    if actor.moves is not None or actor.leaving:
        return

    actor.moves = partial(_before_it_leaves, host, actor)
    back: dict[Peer, list[int]] = {}
    for group in actor.mailbox.groups():
        for waiting in actor.mailbox.take_waiting(group):
            if host.calls.pop(waiting.key, None) is not None:
                back.setdefault(waiting.peer, []).append(waiting.message.seq)
    for peer, seqs in back.items():
        peer.send(m.NotTaken(actor.spec.actor_id, actor.incarnation, sorted(seqs)))
    actor.leave(host, graceful=True)


def say_it_has_gone(core: Core, actor: HostedActor) -> None:
    """MV-3. Under the lock."""
    for peer in core.all_peers():
        if peer.role in ("driver", "worker"):
            peer.send(m.NotTaken(actor.spec.actor_id, actor.incarnation, all=True))


async def _before_it_leaves(host: Host, actor: HostedActor) -> None:
    """On the user's loop, when no call runs any more. Its answers may still be on their way: large ones wait for room, for example."""
    await _until(lambda: _answered(host, actor))
    await _store_state(host, actor)
    # With checkpoint_every="call" the last answers have waited for that. What they carry is kept until it has been taken over.
    await _until(lambda: _answered(host, actor) and (actor.spec.shared or not host.holds))


async def _until(done: Callable[[], bool]) -> None:
    """Answers go many ways, of which each would have to tell; so it is looked, for the moment that it takes."""
    while True:
        if done():
            return
        await asyncio.sleep(LOOK_S)


def _answered(host: Host, actor: HostedActor) -> bool:
    with host.core.lock:
        return not actor.late_answers and all(incoming.actor is not actor for incoming in host.calls.values())


async def _store_state(host: Host, actor: HostedActor) -> None:
    """MV-2."""
    if not hasattr(actor.instance, "__checkpoint__"):
        return
    from actorflow._core.worker.checkpoints import Checkpoints

    checkpoints = host.checkpoints.get(actor.spec.actor_id)
    if checkpoints is None:
        checkpoints = host.checkpoints[actor.spec.actor_id] = Checkpoints(host, actor)
    await checkpoints.last()
