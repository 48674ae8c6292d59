"""An actor that goes on in another process, as its node is to leave: nothing that it was asked is lost, and nothing runs twice.

    MV-1  What runs may end, and is answered. What has not started goes back to its callers, in order, and so does what comes later.
    MV-3  The last word to its callers says so. Who did not hear it cannot know of what was not answered, as after a crash.
    MV-2  When nothing runs any more, its state is stored, if it can tell it; then it leaves. The next incarnation is made after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow._core.protocol import messages as m

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor


def move(host: Host, actor: HostedActor) -> None:
    """Its node says that it is to move. Idempotent. Under the lock."""
    if actor.moves is not None or actor.leaving:
        return

    async def store_state() -> None:
        await _store_state(host, actor)

    actor.moves = store_state
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


async def _store_state(host: Host, actor: HostedActor) -> None:
    """MV-2. On the user's loop."""
    if not hasattr(actor.instance, "__checkpoint__"):
        return
    from actorflow._core.worker.checkpoints import Checkpoints

    checkpoints = host.checkpoints.get(actor.spec.actor_id)
    if checkpoints is None:
        checkpoints = host.checkpoints[actor.spec.actor_id] = Checkpoints(host, actor)
    await checkpoints.last()
