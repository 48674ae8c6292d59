"""The newest checkpoint of each actor, kept by the head for its next incarnation (SEMANTICS 21)."""

from __future__ import annotations

from dataclasses import dataclass

from actorflow._core.base.ids import ActorId
from actorflow._core.base.resources import format_bytes

CHECKPOINT_BYTES_MAX = 64 * 1024 * 1024
CHECKPOINTS_BYTES_MAX = 1024 * 1024 * 1024


@dataclass(slots=True)
class Checkpoint:
    """One state, and which write of which incarnation it was."""

    incarnation: int
    number: int
    data: bytes


class CheckpointStore:
    """The checkpoints of all living actors.

    CP-1: an actor's checkpoint is never replaced by an older one, of its incarnation or of one before.
    CP-2: what `save` accepts is what the next incarnation gets, unless a newer one is accepted.
    CP-3: one checkpoint is at most `bytes_max`, all together `total_bytes_max`; beyond is an error, never
    a loss of what was accepted.
    """

    __slots__ = ("_by_actor", "_bytes_max", "_total_bytes", "_total_bytes_max")

    def __init__(self, bytes_max: int = CHECKPOINT_BYTES_MAX, total_bytes_max: int = CHECKPOINTS_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._total_bytes_max = total_bytes_max
        self._by_actor: dict[ActorId, Checkpoint] = {}
        self._total_bytes = 0

    def save(self, actor_id: ActorId, incarnation: int, number: int, data: bytes, *, current: int | None) -> str:
        """Keep what `incarnation` wrote; `current` is the incarnation the actor is at, None when it is dead.

        Returns why it is refused; an empty string when it, or a newer one of its incarnation, is kept.
        """
        if current is None:
            return "the actor is dead"
        if incarnation != current:
            return f"incarnation {incarnation} wrote it, and the actor is at incarnation {current}"
        if len(data) > self._bytes_max:
            return (
                f"it has {format_bytes(len(data))}, a checkpoint may have {format_bytes(self._bytes_max)}: "
                f"keep large data with af.put(durable=True), and the references in the state"
            )
        old = self._by_actor.get(actor_id)
        if old is not None and old.incarnation == incarnation and number <= old.number:
            return ""
        total = self._total_bytes + len(data) - (len(old.data) if old is not None else 0)
        if total > self._total_bytes_max:
            return (
                f"with it the checkpoints of all actors would have {format_bytes(total)}, and the head keeps "
                f"{format_bytes(self._total_bytes_max)}"
            )
        assert old is None or old.incarnation <= incarnation, f"CP-1: {old.incarnation} after {incarnation}"
        self._by_actor[actor_id] = Checkpoint(incarnation, number, data)
        self._total_bytes = total
        return ""

    def find(self, actor_id: ActorId) -> Checkpoint | None:
        """The newest one of an actor."""
        return self._by_actor.get(actor_id)

    def restore(self, actor_id: ActorId, checkpoint: Checkpoint) -> None:
        """One of the head's earlier life, accepted then."""
        self._by_actor[actor_id] = checkpoint
        self._total_bytes += len(checkpoint.data)

    def newest(self, actor_id: ActorId) -> bytes | None:
        """What the next incarnation gets."""
        checkpoint = self._by_actor.get(actor_id)
        return checkpoint.data if checkpoint is not None else None

    def drop(self, actor_id: ActorId) -> None:
        """The actor is dead."""
        checkpoint = self._by_actor.pop(actor_id, None)
        if checkpoint is not None:
            self._total_bytes -= len(checkpoint.data)

    def total_bytes(self) -> int:
        """The size of all checkpoints."""
        return self._total_bytes
