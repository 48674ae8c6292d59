"""A call as its owner keeps it, from submission to its last attempt; and the packing of its arguments."""

from __future__ import annotations

import enum
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import TaskUnschedulableError
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.serialization import values
from actorflow._core.serialization.values import EMPTY_ARGUMENTS, INLINE_BYTES_MAX, Pickled
from actorflow._core.worker.object_ref import ObjectRef

if TYPE_CHECKING:
    from actorflow._core.base.targets import FunctionTarget, MethodTarget
    from actorflow._core.worker.references import Entry


STORY_MAX = 16
"""Events that a call remembers."""


class Slot:
    """Stands in the pickled arguments where a top-level reference was; the receiver puts the value there."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return Slot, (self.position,)


class CallState(enum.Enum):
    """Where a call is. WAITING: for its arguments; QUEUED: for a worker; PUSHED: sent; DONE: settled for good."""

    WAITING = "waiting"
    QUEUED = "queued"
    PUSHED = "pushed"
    DONE = "done"


class Call:
    """One call in flight. A million of them may be queued: what few calls have is kept only by those that have it.

    `extra` is True when any of the attributes with a default here may have another value: then the call takes the longer way.
    """

    __slots__ = ("__dict__", "args", "attempt", "entry", "extra", "options", "place", "retries_left", "state", "target")

    buffers: list[bytes] | None = None
    refs: list[Entry] | None = None
    """References inside the arguments."""
    deps: list[Entry] | None = None
    """References that are arguments themselves: their outcomes travel instead (SEMANTICS 13)."""
    pins: Sequence[Entry] = ()
    stored: Owned | None = None
    """The arguments as an object of their own, when they are too large to travel inline."""
    more: list[Owned] | None = None
    """Entries of the second and further return values."""
    stream: Any = None
    waiting_for = 0
    cancelled = False
    spares_children = False
    """Cancelled with recursive=False."""
    killed = ""
    """Why its worker was killed for it."""
    ignores = False
    """It was cancelled and does not listen; its caller knows."""
    over: list[Any] | None = None
    """Who waits for the end of an orphan (CN-3)."""
    deadline = 0.0
    """When it must have ended, on this process's clock; 0: never."""
    timeout_s = 0.0
    timer: Any = None
    values: dict[str, str] | None = None
    """The declared context it takes along (SEMANTICS 8)."""
    losses = 0
    """How often it was lost with its worker, and spent a retry."""
    errors = 0
    """How often its code raised, and it was tried again."""
    memory_tries = 0
    """How often it was tried again because memory had run out."""
    story: list[str] | None = None
    """What happened to earlier attempts, for the error of the last one."""

    def note(self, event: str) -> None:
        """Remember what happened to an attempt; it is told when the last one fails too."""
        if self.story is None:
            self.story = []
        if len(self.story) < STORY_MAX:
            self.story.append(event)

    def __init__(self, target: FunctionTarget | MethodTarget, options: Any, retries_left: int) -> None:
        self.entry: Owned = None  # type: ignore[assignment]  # made when nothing can fail any more
        self.target = target
        self.options = options
        self.extra: bool = options.special
        self.args = EMPTY_ARGUMENTS
        self.attempt = 0
        self.retries_left = retries_left
        self.state = CallState.WAITING
        self.place: Any = None
        """The lease or the actor it has been pushed to."""


def pack(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled | None:
    """Pickle the arguments into `call`. Returns the pickle instead when it is too large to travel inline.

    Raises SerializationError. The caller pins `call.pins` under the lock afterwards.
    """
    if not kwargs:
        if not args:
            return None
        if all(type(argument) in values.SIMPLE for argument in args):
            data = pickle.dumps((args, kwargs), 5)
            if len(data) <= INLINE_BYTES_MAX:
                call.args = data
                return None
            return Pickled(data, None, None)
    call.extra = True
    deps: list[Entry] = []
    if any(type(argument) is ObjectRef for argument in args):
        args = tuple([_slot(argument, deps) for argument in args])
    if any(type(argument) is ObjectRef for argument in kwargs.values()):
        kwargs = {key: _slot(argument, deps) for key, argument in kwargs.items()}
    pickled = values.dump_arguments(args, kwargs)
    call.deps = deps or None
    if pickled.refs:
        call.refs = [ref._entry for ref in pickled.refs]
    if call.deps or call.refs:
        call.pins = [*(call.deps or ()), *(call.refs or ())]
    if pickled.size() > INLINE_BYTES_MAX:
        return pickled
    pickled = values.owned_bytes(pickled)
    call.args = pickled.data
    call.buffers = pickled.buffers  # type: ignore[assignment]  # owned_bytes has copied them
    return None


def _slot(argument: Any, deps: list[Entry]) -> Any:
    if type(argument) is not ObjectRef:
        return argument
    deps.append(argument._entry)
    return Slot(len(deps) - 1)


def unschedulable(call: Call, why: object) -> TaskUnschedulableError:
    """No node can run it, or none any more: an attempt that has run says what became of it."""
    text = f"{call.target.name} can never be scheduled: {why}"
    if call.story:
        which, events = f"{call.target.name} (attempt {call.attempt + 1})", "".join(f"\n  {event}" for event in call.story)
        text = f"{which} cannot be scheduled any more: {why}\nWhat happened before:{events}"
    return TaskUnschedulableError(text, function_name=call.target.name, reason=str(why))


def unsettled(entries: Sequence[Entry]) -> list[Owned | Borrowed]:
    """Those whose outcome is not known here yet."""
    return [entry for entry in entries if entry.outcome is None]
