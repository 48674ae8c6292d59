"""What the head's actor policy asks of its shell."""

from __future__ import annotations

from dataclasses import dataclass

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.protocol.messages import ActorDied, ActorSpec, ActorState, CreateActorReply


@dataclass(slots=True)
class Answer:
    """Send the reply to the creator."""

    to: ProcessId
    reply: CreateActorReply


@dataclass(slots=True)
class FindNode:
    """After `delay_s`, pick a node for this incarnation and say `placed`, or why not: `not_placed`."""

    actor_id: ActorId
    incarnation: int
    delay_s: float


@dataclass(slots=True)
class Place:
    """Send the incarnation to its node, with the newest checkpoint."""

    node_id: ProcessId
    incarnation: int
    spec: ActorSpec


@dataclass(slots=True)
class Stop:
    """Tell the node to end this incarnation; `graceful`: what is queued runs first; `moves`: what is queued goes on in the next one;
    `returns`: there is to be a next one.
    """

    node_id: ProcessId
    actor_id: ActorId
    incarnation: int
    graceful: bool
    moves: bool = False
    returns: bool = False


@dataclass(slots=True)
class Publish:
    """Tell the watchers the state."""

    watchers: tuple[ProcessId, ...]
    state: ActorState


@dataclass(frozen=True, slots=True)
class Ending:
    """The event that has ended an incarnation."""

    key: str = ""
    """The same for all that it has ended, and of no other event; empty where it has ended nobody else."""
    node_id: ProcessId = ""
    """Where that was."""
    of_node: bool = False
    """The node itself is gone."""


@dataclass(slots=True)
class LifeLost:
    """An incarnation of a supervised actor is gone, and another one follows. `asked`: it was to go."""

    actor_id: ActorId
    cause: str
    asked: bool
    ending: Ending


@dataclass(slots=True)
class Forget:
    """The actor is dead: drop what is kept for its next incarnation."""

    actor_id: ActorId
    died: ActorDied


Decision = Answer | FindNode | Place | Stop | Publish | LifeLost | Forget
