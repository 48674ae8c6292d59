"""One living actor: its states in one table, what is known of it, and its story."""

from __future__ import annotations

from enum import Enum, auto

from actorflow._core.base.errors import InternalError
from actorflow._core.base.ids import ProcessId
from actorflow._core.policy.graveyard import DeadActor, Story, tell_story
from actorflow._core.protocol.messages import ActorDied, ActorSpec, ActorState

STORY_EVENTS_MAX = 32
DETAIL_CHARS_MAX = 200

RESTART_DELAY_S = 0.1
RESTART_DELAY_S_MAX = 5.0


class State(Enum):
    """Where an actor is in its life. The values are what `ActorState` says."""

    PENDING = "pending"
    ALIVE = "alive"
    RESTARTING = "restarting"
    DEAD = "dead"


class Event(Enum):
    """What moves an actor, when all that decides about it (restarts left, fencing) has been looked at."""

    PLACED = auto()
    READY = auto()
    FAILED = auto()
    LOST = auto()
    LOST_FOR_GOOD = auto()
    ASKED_TO_STOP = auto()
    UNSCHEDULABLE = auto()
    KILLED = auto()
    UNREFERENCED = auto()
    OWNER_LOST = auto()
    JOB_ENDED = auto()


NEXT: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.PLACED): State.PENDING,
    (State.RESTARTING, Event.PLACED): State.RESTARTING,
    (State.PENDING, Event.READY): State.ALIVE,
    (State.RESTARTING, Event.READY): State.ALIVE,
    # The constructor raised, or no node will ever do: neither can happen to an actor that is alive.
    (State.PENDING, Event.FAILED): State.DEAD,
    (State.RESTARTING, Event.FAILED): State.DEAD,
    (State.PENDING, Event.UNSCHEDULABLE): State.DEAD,
    (State.RESTARTING, Event.UNSCHEDULABLE): State.DEAD,
    # The incarnation is gone, and there is another one.
    (State.PENDING, Event.LOST): State.RESTARTING,
    (State.ALIVE, Event.LOST): State.RESTARTING,
    (State.RESTARTING, Event.LOST): State.RESTARTING,
    # It goes on until its node says that it has ended.
    (State.PENDING, Event.ASKED_TO_STOP): State.PENDING,
    (State.ALIVE, Event.ASKED_TO_STOP): State.ALIVE,
    (State.RESTARTING, Event.ASKED_TO_STOP): State.RESTARTING,
    **{
        (state, event): State.DEAD
        for state in (State.PENDING, State.ALIVE, State.RESTARTING)
        for event in (
            Event.LOST_FOR_GOOD,
            Event.KILLED,
            Event.UNREFERENCED,
            Event.OWNER_LOST,
            Event.JOB_ENDED,
        )
    },
}
"""All there is. Nothing leaves DEAD: what comes too late is fenced off before it gets here."""

_WORDS = {
    Event.PLACED: "placed on node",
    Event.READY: "ready in worker",
    Event.FAILED: "failed:",
    Event.LOST: "lost:",
    Event.LOST_FOR_GOOD: "lost for good:",
    Event.ASKED_TO_STOP: "asked to stop:",
    Event.UNSCHEDULABLE: "unschedulable:",
    Event.KILLED: "killed:",
    Event.UNREFERENCED: "out of scope:",
    Event.OWNER_LOST: "owner lost:",
    Event.JOB_ENDED: "job ended:",
}

_STORY_HELPS = frozenset({"crashed", "unschedulable"})


def restart_delay_s(losses_in_a_row: int) -> float:
    """How long a restart waits: not at all the first time, then 0.1 s, doubled each time up to 5 s."""
    if losses_in_a_row == 0:
        return 0.0
    return min(RESTART_DELAY_S * 2.0 ** min(losses_in_a_row - 1, 16), RESTART_DELAY_S_MAX)


class Actor:
    """What the head knows of one actor that is not dead. Written by ActorTable only."""

    __slots__ = (
        "address", "bouncing", "created_at", "ended", "incarnation", "last_node_id", "leaving",
        "losses_in_a_row", "moving", "node_id", "ready_at", "restarts", "spec", "state", "story", "supervised", "watchers",
        "worker_id",
    )  # fmt: skip

    def __init__(self, spec: ActorSpec, now: float) -> None:
        self.spec = spec
        self.state = State.PENDING
        self.incarnation = 1
        """The one that is alive or being made; incarnations begin at 1."""
        self.restarts = 0
        """Those that count against max_restarts."""
        self.losses_in_a_row = 0
        """Incarnations lost since one was alive for long: sets the delay of the next restart."""
        self.node_id: ProcessId = ""
        """Where the current incarnation is, or is being made; empty when it has to be placed."""
        self.last_node_id: ProcessId = ""
        """Where the newest incarnation that was placed is or was."""
        self.worker_id: ProcessId = ""
        self.address = ""
        self.leaving: ActorDied | None = None
        """It was told to end gracefully, for this reason."""
        self.bouncing = False
        """The current incarnation was told to end, to be followed by another one."""
        self.moving = False
        """... on another node, as its own is to leave. Set with `bouncing`; such a life does not count."""
        self.ended: ActorDied | None = None
        """Why it is dead, or why the incarnation before ended."""
        self.supervised = False
        """Its supervision decides on its restarts, and not `max_restarts`."""
        self.watchers: tuple[ProcessId, ...] = ()
        self.created_at = now
        self.ready_at: float | None = None
        self.story: Story = [(now, "created by", spec.owner)]

    def move(self, event: Event, now: float, detail: str) -> None:
        """Take one step in the table. A pair that is not in it is our bug, and its error tells the story."""
        following = NEXT.get((self.state, event))
        if following is None:
            told = "\n  ".join(tell_story(self.story, self.created_at))
            raise InternalError(
                f"actor {self.spec.class_name} ({self.spec.actor_id}) is {self.state.value} and met "
                f"{event.name}: {detail}\n  {told}"
            )
        self.state = following
        self.tell(now, _WORDS[event], detail)

    def tell(self, now: float, what: str, detail: str = "") -> None:
        """Add to the story; the second oldest event makes room, as the beginning is worth more."""
        first_line = detail.partition("\n")[0][:DETAIL_CHARS_MAX]
        self.story.append((now, what, first_line))
        if len(self.story) > STORY_EVENTS_MAX:
            del self.story[1]

    def may_restart(self) -> bool:
        """True when a loss that counts would be followed by another incarnation."""
        return self.supervised or self.spec.max_restarts < 0 or self.restarts < self.spec.max_restarts

    def may_move(self) -> bool:
        """True when it may have another life at all: one that moves is not counted."""
        return self.supervised or self.spec.max_restarts != 0

    def why_no_restart(self, cause: str, *, makes_object: bool = False) -> str:
        """The cause of the last loss, with what would have to be different to survive it. `makes_object`: for a detached call."""
        limit = self.spec.max_restarts
        # Who made the call knows of no actor: he has said max_retries.
        option, again = ("max_retries", "tried again") if makes_object else ("max_restarts", "restarted")
        allowed = f"{option}=0, set it to {'have it tried again' if makes_object else 'let the actor restart'}"
        if limit:
            allowed = f"it was {again} {self.restarts} time{'' if self.restarts == 1 else 's'}, all that {option}={limit} allows"
        first_line, newline, rest = cause.partition("\n")
        return f"{first_line.rstrip('.')} ({allowed}){newline}{rest}"

    def as_state(self) -> ActorState:
        """What watchers are told."""
        died = self.ended if self.state is State.RESTARTING else None
        return ActorState(self.spec.actor_id, self.state.value, self.incarnation, self.worker_id, self.address, died)

    def as_dead(self, now: float) -> DeadActor:
        """What is kept when it is dead."""
        spec, died = self.spec, self.ended
        if died is None:
            raise InternalError(f"AC-2: actor {spec.actor_id} is dead and has no cause")
        if died.kind in _STORY_HELPS or (died.kind == "init_failed" and self.incarnation > 1):
            died = ActorDied(died.kind, died.reason, died.error, tell_story(self.story, self.created_at))
        return DeadActor(
            spec.actor_id, spec.class_name, spec.name, spec.namespace, spec.job_id, spec.owner, spec.detached,
            spec.shared, self.incarnation, self.restarts, spec.max_restarts, self.last_node_id,
            self.worker_id, spec.resources, self.created_at, now, died, self.story,
        )  # fmt: skip
