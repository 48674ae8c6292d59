"""An actor that goes on in another process, as its node is to leave: nothing that it was asked is lost, and nothing runs twice.

    MV-1  What runs may end, and is answered. What has not started goes back to its callers, in order, and so does what comes later.
    MV-2  When nothing runs any more, its state is stored, if it can tell it; then it leaves. The next incarnation is made after that.
    MV-3  The last word to its callers says so: what was sent here and has no answer has not run. Who did not hear it cannot know, as after
          a crash. It is not said when a call was cut off here, by a kill or at the end of the node.
    MV-4  Calls that do not end may wait for others of the same actor: so calls are taken again after QUIET_S, and it is tried again later.
    MV-5  An actor whose state cannot be stored stays here to the deadline, with its state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from actorflow._core.protocol import messages as m

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor


log = logging.getLogger("actorflow")

LOOK_S = 0.005
QUIET_S = 3.0
"""How long new calls are given back while others do not end."""
AGAIN_S = 10.0
"""After so long it is tried again."""


def move(host: Host, actor: HostedActor) -> None:
    """Its node says that it is to move. Idempotent. Under the lock."""
    if actor.moves is not None or actor.leaving or actor.exiting:
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
    host.core.later(QUIET_S, partial(_give_way, host, actor, actor.moves))


def _give_way(host: Host, actor: HostedActor, moves: object) -> None:
    """MV-4. Under the lock."""
    if actor.leaving and actor.moves is moves:
        _stay(host, actor)
        host.core.later(AGAIN_S, partial(_try_again, host, actor))


def _try_again(host: Host, actor: HostedActor) -> None:
    if host.actors.get(actor.spec.actor_id) is actor and not actor.killed:
        move(host, actor)


def _stay(host: Host, actor: HostedActor) -> None:
    """It takes calls again, in this life. Under the lock."""
    actor.moves, actor.leaving, actor.exiting = None, False, False
    actor.watched = actor.on_quiet is not None
    _tell_all(host.core, m.NotTaken(actor.spec.actor_id, actor.incarnation, goes_on=True))


def _tell_all(core: Core, message: m.NotTaken) -> None:
    for peer in core.peers.open():
        if peer.role in ("driver", "worker"):
            peer.send(message)


def say_it_has_gone(core: Core, actor: HostedActor) -> None:
    """MV-3. Under the lock."""
    _tell_all(core, m.NotTaken(actor.spec.actor_id, actor.incarnation, all=True))


async def _before_it_leaves(host: Host, actor: HostedActor) -> bool:
    """On the user's loop, when no call runs any more. Its answers may still be on their way: large ones wait for room, for example.

    False: it stays (MV-5).
    """
    moves = actor.moves
    await _until(lambda: actor.moves is not moves or actor.has_answered(host))
    if actor.moves is not moves:
        return True  # It does not move any more: it ends here, for another reason.
    if not await _store_state(host, actor):
        with host.core.lock:
            if actor.moves is not moves:
                return True
            _stay(host, actor)
        log.error("%s stays on its node, which is to leave, until the deadline: its state could not be stored", actor.label)
        return False
    await _until(lambda: actor.has_answered(host))  # With checkpoint_every="call" the last answers have waited for that.
    return True


async def _until(done: Callable[[], bool]) -> None:
    """Answers go many ways, of which each would have to tell; so it is looked, for the moment that it takes."""
    while True:
        if done():
            return
        await asyncio.sleep(LOOK_S)


async def _store_state(host: Host, actor: HostedActor) -> bool:
    """MV-2. False when there is one, and it could not be stored."""
    if not hasattr(actor.instance, "__checkpoint__"):
        return True
    from actorflow._core.worker.checkpoints import Checkpoints

    checkpoints = host.checkpoints.get(actor.spec.actor_id)
    if checkpoints is None:
        checkpoints = host.checkpoints[actor.spec.actor_id] = Checkpoints(host, actor)
    return await checkpoints.last()
