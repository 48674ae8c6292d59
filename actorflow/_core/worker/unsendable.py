"""Messages that could not be encoded come back here: whoever waits for what they should have brought gets an error in its place.

    UN-1  Nobody waits for an answer to a message that was never sent.
    UN-2  An end of a call or of an actor is always told: what cannot be encoded of it is replaced.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from actorflow._core.base.errors import SerializationError
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.unencodable import blame, fits, text_made_fit
from actorflow._core.worker.calls import CallState
from actorflow._core.worker.tasks import Lease

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

log = logging.getLogger("actorflow")


def take_back(core: Core, peer: Peer, message: m.AnyMessage, error: Exception) -> None:
    """See the module. Under the lock, on the protocol's loop."""
    why = blame(message, error)
    if isinstance(message, (m.TaskCall, m.ActorCall)):
        _call(core, message, why)
    elif isinstance(message, m.RequestLease):
        core.tasks.request_unsendable(message.lease, SerializationError(f"{message.name} cannot ask for a worker: {why}"))
    elif isinstance(message, m.Define):
        core.tasks.define_unsendable(peer, message.function, SerializationError(f"{message.name} cannot be sent to a worker: {why}"))
    elif isinstance(message, m.CreateActor):
        spec = message.spec
        core.actors.creation_unsendable(spec.actor_id, SerializationError(f"{spec.class_name} cannot be created: {why}"))
    elif isinstance(message, (m.FindActor, m.StateQuery, m.StartDetached, m.PutDurable)):
        core.directory.unsendable(message.token, SerializationError(f"{type(message).__name__} cannot be sent: {why}"))
    elif (fit := _replaced(core, message, why)) is not None:
        peer.send(fit)
    else:
        peer.send_what_fits(message, error)


def _call(core: Core, message: m.TaskCall | m.ActorCall, why: str) -> None:
    entry = core.references.owned.entries.get(message.seq)
    call = entry.call if entry is not None else None
    if call is None:
        call = core.cancels.orphans.get(message.seq)
    if call is None or call.attempt != message.attempt or call.state is not CallState.PUSHED:
        return  # It has ended in another way meanwhile.
    if type(call.place) is Lease:
        core.tasks.completed(call, -1)
    else:
        core.actors.completed(call)
    core.caller.settle_error(call, SerializationError(f"{call.target.name} was not sent: {why}"))


def _replaced(core: Core, message: m.AnyMessage, why: str) -> m.AnyMessage | None:
    """What is said in place of the end of a call, of one of its items, or of an actor; None for other messages (UN-2)."""
    failed = core.failed(SerializationError(f"the result cannot be sent: {why}"))
    if isinstance(message, m.Reply):
        # What it says of references stays true: the caller counts them, and lets go.
        return m.Reply(message.seq, message.attempt, failed, message.run_us, None, message.borrowed, message.hold)
    if isinstance(message, m.StreamItem):
        return m.StreamItem(message.seq, message.attempt, message.index, failed, message.hold)
    if isinstance(message, m.StreamEnd):
        return m.StreamEnd(message.seq, message.attempt, message.count, failed)
    if isinstance(message, m.Fetched):
        return m.Fetched(message.index, failed)
    if isinstance(message, m.ActorFailed):
        died: m.ActorDied = text_made_fit(message.died)
        fit = m.ActorFailed(message.actor_id, message.incarnation, died)
        if not fits(fit):  # Its error is too large; the reason in words is not.
            fit.died = m.ActorDied(died.kind, died.reason)
        return fit
    if isinstance(message, m.SaveCheckpoint) and core.host is not None:
        refused = m.CheckpointSaved(message.actor_id, message.incarnation, message.number, f"it was not sent: {why}")
        core.host.route(m.CheckpointSaved)(core.node, refused)  # type: ignore[misc]  # a host takes it
    return None
