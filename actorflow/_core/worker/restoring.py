"""Giving the next life of an actor the state that the one before had stored (SEMANTICS 21)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ActorDiedError
from actorflow._core.serialization.duals import describe
from actorflow._core.worker import actor_state
from actorflow._core.worker.stored_replies import Answers

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.hosted import HostedActor


async def restored(core: Core, actor: HostedActor, restore: Callable[[Any], Any], checkpoint: bytes) -> Answers | None:
    """Restore its state; returns the answers that were stored with it. Raises ActorDiedError: another life would fare no better."""
    try:
        kept = actor_state.loads(core, checkpoint)
    except BaseException as error:
        why = f"its stored state cannot be unpickled: {describe(error)}"
        raise _dead(actor, why, "have __checkpoint__ return what can be pickled and unpickled") from error
    try:
        done = restore(kept.state)
        if inspect.isawaitable(done):
            await done
    except BaseException as error:
        why = f"its __restore__ raised {describe(error)}"
        raise _dead(actor, why, "mend __restore__, which is given what __checkpoint__ has returned in the life before") from error
    return Answers(kept.answers) if kept.answers else None


def _dead(actor: HostedActor, why: str, next_step: str) -> ActorDiedError:
    return ActorDiedError.explain(
        which=actor.label,
        what=f"could not go on from its checkpoint when it was restarted (incarnation {actor.incarnation}), and is dead for good, whatever "
        "max_restarts says",
        why=why,
        next_step=f"{next_step}, and make the actor anew",
        actor=actor.label,
        actor_id=actor.spec.actor_id,
    )
