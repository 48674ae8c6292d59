"""Every error actorflow raises, in one tree. What a user may catch is exported as `actorflow.X`.

    ActorflowError
    ├── OptionError (ValueError)                 an option has a value that cannot be right
    │   └── OptionTypeError (TypeError)          an option has a value of the wrong type
    ├── NotInitializedError (RuntimeError)       used before af.init or after af.shutdown
    ├── AlreadyInitializedError (RuntimeError)   a second af.init with other options
    ├── ForkedError (RuntimeError)               used in a child of os.fork
    ├── ClusterConnectionError (ConnectionError) no cluster answers at that address
    ├── ClusterStartError                        a local cluster did not come up
    ├── NotYetSupportedError (NotImplementedError)
    ├── SerializationError (TypeError)           a value cannot be pickled; the path to the culprit is named
    ├── DeserializationError                     a value cannot be unpickled here
    ├── RuntimeEnvError                          the environment of a worker cannot be made
    ├── TaskError                                the user's code raised: also an instance of the raised type
    ├── TaskCancelledError                       somebody cancelled the call
    ├── CancelIgnored                            the call did not listen to its cancellation
    ├── TaskTimeoutError (TimeoutError)          `timeout=` as an option, af.timeout: the call was cancelled
    ├── GetTimeoutError (TimeoutError)           `timeout=` of get, wait, as_completed: the call goes on
    ├── WorkerCrashedError                       the process that ran the call died
    │   ├── OutOfMemoryError                     ... because memory ran out
    │   └── NodeDiedError                        ... with its node, or is out of reach with it
    ├── TaskUnschedulableError                   no node can ever run this task
    ├── PlacementGroupError                      a placement group cannot be had, or used
    │   ├── PlacementGroupUnschedulableError     no set of nodes can ever hold it
    │   ├── PlacementGroupNotFoundError (ValueError)  no placement group has this name
    │   └── PlacementGroupRemovedError           it is no more
    │       └── TaskPlacementGroupRemoved        ... and the task with it
    ├── ActorError
    │   ├── ActorDiedError                       final: the actor will not come back
    │   │   └── ActorPlacementGroupRemoved       ... because its placement group is no more
    │   ├── SupervisionError                     a supervision has given up, and has ended its actors
    │   ├── ActorUnavailableError                temporary: the call may or may not have run
    │   ├── CheckpointError                      the call has run, and the state after it could not be stored
    │   └── ActorUnschedulableError              no node can ever host this actor
    ├── ActorAlreadyExistsError (ValueError)     the name is taken
    ├── ActorNotFoundError (ValueError)          no actor has this name
    ├── PendingCallsLimitExceeded                `.remote()` on a full mailbox
    ├── BackpressureError                        a bounded queue of the cluster is full
    ├── ObjectLostError                          the value of a reference cannot be had any more
    │   ├── OwnerDiedError                       ... because the process that owned it is gone
    │   ├── ObjectFreedError                     ... because it was freed
    │   └── ObjectReconstructionFailedError      ... and running its task again did not help
    ├── ObjectStoreFullError                     the shared memory of a node is full
    ├── OutOfDiskError                           the disk a node spills to is full
    ├── ProtocolError                            internal: a peer spoke wrongly
    └── InternalError                            a bug of ours: please report it

All of them pickle with their attributes. `TimeoutError`, `ValueError` and the other builtin parents are
there so that code which does not know actorflow handles the error as well.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar, overload

T = TypeVar("T")


def explain(
    *,
    what: str,
    which: str = "",
    why: str = "",
    next_step: str = "",
    story: Iterable[str] = (),
    log_tail: Iterable[str] = (),
) -> str:
    """The one form of our messages: `which what: why. Next step.`, then what happened before, line by line.

    >>> explain(which="Counter(af-7f2)", what="died", why="killed by SIGKILL", next_step="set max_restarts")
    'Counter(af-7f2) died: killed by SIGKILL. Set max_restarts.'
    """
    text = f"{which} {what}".strip().rstrip(".")
    if why:
        text = f"{text}: {why.strip().rstrip('.')}"
    if next_step:
        text = f"{_ended(text)} {_sentence(next_step.strip().rstrip('.'))}"
    lines = [_ended(text)]
    for title, block in (("What happened before:", list(story)), ("Its last output:", list(log_tail))):
        if block:
            lines += [title, *(f"  {line.rstrip()}" for line in block)]
    return "\n".join(lines)


def _ended(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _sentence(text: str) -> str:
    """`text` with a capital letter, unless it begins with code (`af.put(...) waits`)."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first.rstrip(",").isalpha() else text


class ActorflowError(Exception):
    """The root of the tree: `except actorflow.ActorflowError` catches whatever actorflow itself raises.

    The one positional argument is the message. Keyword arguments are the facts that a program may want to
    read, and become attributes; which ones an error has is declared in its class.
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(*((message,) if message else ()))
        for name, value in facts.items():
            if not _is_fact(type(self), name):
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
            setattr(self, name, value)

    @classmethod
    def explain(
        cls,
        *,
        what: str,
        which: str = "",
        why: str = "",
        next_step: str = "",
        story: Iterable[str] = (),
        log_tail: Iterable[str] = (),
        **facts: Any,
    ) -> Self:
        """Make the error with a message in the one form (see `explain` in this module) and its facts.

        A class that declares `reason` or `log_tail` keeps `why` and `log_tail` in them too.
        """
        lines = tuple(log_tail)
        text = explain(what=what, which=which, why=why, next_step=next_step, story=story, log_tail=lines)
        for name, value in (("reason", why), ("log_tail", lines)):
            if _is_fact(cls, name):
                facts.setdefault(name, value)
        return cls(text, **facts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without `__init__`; a class of the tree by its name, wherever it is exported."""
        cls = type(self)
        known = TREE.get(cls.__name__) is cls
        return _rebuild, (cls.__name__ if known else cls, self.args, dict(self.__dict__))


def _is_fact(cls: type, name: str) -> bool:
    """True when `cls`, or a parent below ActorflowError, declares the attribute `name`."""
    below = (base for base in cls.__mro__ if base is not ActorflowError and issubclass(base, ActorflowError))
    return not name.startswith("_") and any(name in vars(base) for base in below)


def _rebuild(cls: str | type[ActorflowError], args: tuple[Any, ...], state: dict[str, Any]) -> ActorflowError:
    kind = TREE[cls] if isinstance(cls, str) else cls
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


# Wrong use, and getting started -----------------------------------------------------------------------------


class OptionError(ActorflowError, ValueError):
    """An option is unknown, or its value cannot be right.

    Raised where it is written, before anything runs. Your code is at fault.
    """

    option: str = ""


class OptionTypeError(OptionError, TypeError):
    """An option has a value of the wrong type. The message says which types would be right."""


class NotInitializedError(ActorflowError, RuntimeError):
    """actorflow was used before `af.init` or after `af.shutdown`.

    Call `af.init()`, or run the program with `af.run(main)`.
    """


class AlreadyInitializedError(ActorflowError, RuntimeError):
    """`af.init` was called again with other options than the first time. The message shows the difference."""


class ForkedError(ActorflowError, RuntimeError):
    """actorflow was used in a child made by `os.fork`, where no connection of the parent may be used.

    Call `af.init(address=...)` in the child (in a `post_fork` hook or a lifespan handler), or start children
    with `spawn`.
    """


class ClusterConnectionError(ActorflowError, ConnectionError):
    """No cluster answers at the address, or the connection to it is lost for good.

    Check the address and that the cluster runs.
    """

    address: str = ""
    reason: str = ""


class ClusterStartError(ActorflowError):
    """A local cluster did not come up. The message has the reason and the last lines its processes logged."""

    reason: str = ""
    log_tail: tuple[str, ...] = ()


class NotYetSupportedError(ActorflowError, NotImplementedError):
    """This is part of the design and not built yet. The message says what to use meanwhile."""


# Values -----------------------------------------------------------------------------------------------------


class SerializationError(ActorflowError, TypeError):
    """A value cannot be pickled, so it cannot leave this process. `path` leads to the part that is to blame.

    Take that part out of the value, make it again on the other side, or teach it `__reduce__`.
    """

    path: str = ""


class DeserializationError(ActorflowError):
    """A value that another process pickled cannot be unpickled here.

    Most often a module is missing here or differs: make it importable, or send it with `working_dir`.
    """


class RuntimeEnvError(ActorflowError):
    """The environment a worker should have (variables, working directory) cannot be made.

    The call did not run.
    """

    reason: str = ""


# How calls end ----------------------------------------------------------------------------------------------


class Hop(NamedTuple):
    """One remote call that an exception passed through."""

    function_name: str
    task: str
    process_id: str
    pid: int
    actor: str = ""

    def describe(self) -> str:
        """The call in words, for messages: `work (task-1f2e3d-7, process 9f3a21c0ffee, pid 4211)`."""
        where = f"{self.task}, process {self.process_id}, pid {self.pid}"
        if self.actor:
            where = f"{where}, actor {self.actor}"
        return f"{self.function_name} ({where})"


@dataclass(slots=True)
class Origin:
    """What actorflow knows of a remote exception: its one attribute of ours, `__actorflow__` (SEMANTICS 10).

    `hops`: outermost first. `traceback`: the remote part of the traceback, where this process has it as an
    object; `text`: the same in words, where not. `cause`: the original, when the exception is only a
    wrapper of it.
    """

    hops: tuple[Hop, ...] = ()
    traceback: TracebackType | None = None
    text: str = ""
    cause: BaseException | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the traceback as text: frames stay where they are."""
        text = self.text
        if not text and self.traceback is not None:
            text = f"Traceback (most recent call last):\n{''.join(traceback.format_tb(self.traceback))}"
        return Origin, (self.hops, None, text, self.cause)

    @property
    def outermost(self) -> Hop:
        """The call that the receiver of the exception made."""
        return self.hops[0] if self.hops else Hop("", "", "", 0)


_UNKNOWN = Origin()


def origin_of(error: BaseException) -> Origin | None:
    """The origin kept in `error`, or None for an exception that did not come through a remote call."""
    try:
        found = object.__getattribute__(error, "__dict__").get("__actorflow__")
    except AttributeError:
        return None
    return found if isinstance(found, Origin) else None


class Told(Generic[T]):
    """An attribute of TaskError, read from its origin.

    Not a property: an attribute of the user's exception that has the same name must win (SEMANTICS 10), and
    an instance's own attribute wins only over a descriptor without `__set__`.
    """

    def __init__(self, read: Callable[[TaskError, Origin], T], doc: str) -> None:
        self._read = read
        self.__doc__ = doc

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...
    @overload
    def __get__(self, error: TaskError, owner: type) -> T: ...
    def __get__(self, error: TaskError | None, owner: type) -> Self | T:
        if error is None:
            return self
        return self._read(error, origin_of(error) or _UNKNOWN)


def traceback_text(error: BaseException, origin: Origin) -> str:
    """The remote part of the traceback of `error` as text, however it is kept."""
    if origin.text or origin.traceback is None:
        return origin.text
    return "".join(traceback.format_exception(type(error), error, origin.traceback))


class TaskError(ActorflowError):
    """The code of a task or of an actor's method raised an exception in another process.

    The exception you catch is an instance of TaskError and of the type that was raised, so `except
    ValueError` and `except actorflow.TaskError` both catch it, and it has the attributes of the original.
    Its traceback shows the remote frames below the local ones. It is a plain TaskError when the original
    could not be sent (the message says why), or is of a kind that must not be raised on this side, such as
    KeyboardInterrupt.

    When the exception passed through several remote calls, the attributes tell of the outermost: the call
    you made. `hops` has all.
    """

    def __init__(
        self,
        message: str = "",
        *,
        function_name: str = "",
        task: str = "",
        process_id: str = "",
        pid: int = 0,
        actor: str = "",
        remote_traceback: str = "",
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        hop = Hop(function_name, task, process_id, pid, actor)
        self.__dict__["__actorflow__"] = Origin((hop,) if any(hop) else (), None, remote_traceback, cause)

    function_name = Told(lambda _, origin: origin.outermost.function_name, "What was called.")
    task = Told(lambda _, origin: origin.outermost.task, "The name of the call, as `af.state` shows it.")
    process_id = Told(lambda _, origin: origin.outermost.process_id, "The id of the process that ran it.")
    pid = Told(lambda _, origin: origin.outermost.pid, "The operating system's number of that process.")
    actor = Told(lambda _, origin: origin.outermost.actor, "The actor that ran the call; empty for a task.")
    hops = Told(lambda _, origin: origin.hops, "All remote calls it passed through, outermost first.")
    remote_traceback = Told(traceback_text, "The remote part of the traceback, as text.")
    cause = Told(lambda _, origin: origin.cause, "The exception in its own type, if it came.")

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (cls, args, state) = super().__reduce__()
        if origin := origin_of(self):
            text = traceback_text(self, origin)
            state["__actorflow__"] = Origin(origin.hops, None, text, origin.cause)
        return rebuild, (cls, args, state)


class TaskCancelledError(ActorflowError):
    """Somebody cancelled the call, and you were waiting for its result.

    `CancelledError` would mean that you are cancelled.
    """

    function_name: str = ""
    task: str = ""
    reason: str = ""


class CancelIgnored(ActorflowError):
    """The call was told to stop and did not listen within the grace period.

    A method of an actor is not torn down from outside, as that could leave the actor's state in pieces.

    Await something, or call `af.check_cancelled()`, in the method; or declare it
    `@af.method(interruptible=True)`.
    """

    function_name: str = ""
    task: str = ""
    actor: str = ""
    stack: str = ""


class TaskTimeoutError(ActorflowError, TimeoutError):
    """The time given to the call itself ran out, and the call was cancelled.

    It was given as the option `timeout=`, or by an `af.timeout` block around it, here or in a caller.
    """

    function_name: str = ""
    task: str = ""
    timeout_s: float | None = None


class GetTimeoutError(ActorflowError, TimeoutError):
    """Waiting took longer than `timeout=` of get or wait allows.

    Only the waiting stopped: the call goes on, and may be awaited again.
    """

    timeout_s: float | None = None


class WorkerCrashedError(ActorflowError):
    """The process that ran the call died. `reason` says how; the message has the last lines it logged.

    A task is retried up to `max_retries` times before you see this.
    """

    function_name: str = ""
    task: str = ""
    process_id: str = ""
    pid: int = 0
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    peak_memory_bytes: int = 0
    log_tail: tuple[str, ...] = ()


class OutOfMemoryError(WorkerCrashedError):
    """The process was stopped because memory ran out.

    Ask for more with `memory=`, run fewer at once, or use smaller pieces.
    """


class NodeDiedError(WorkerCrashedError):
    """The node that ran the call died, or is out of reach; `node` is its id. The call may have run there, to its end or not.

    Tasks with retries left are tried again on other nodes before you see this.
    """

    node: str = ""


class TaskUnschedulableError(ActorflowError):
    """No node of the cluster can ever have what the task asks for.

    Ask for less, or add a node; the message has the numbers.
    """

    function_name: str = ""
    task: str = ""
    reason: str = ""


class PlacementGroupError(ActorflowError):
    """A placement group cannot be had, or used. The message says which and why."""

    group_id: str = ""
    reason: str = ""


class PlacementGroupUnschedulableError(PlacementGroupError):
    """No set of the cluster's nodes can ever hold the placement group; the message has the bundle and the nearest node.

    The group still waits, until it is removed: a node that joins may change it.
    """


class PlacementGroupNotFoundError(PlacementGroupError, ValueError):
    """No placement group has this name in the namespace. The message lists names like it."""


class PlacementGroupRemovedError(PlacementGroupError):
    """The placement group is no more: somebody has removed it, or its creator or job is gone."""


class TaskPlacementGroupRemoved(PlacementGroupRemovedError):
    """The placement group of the task is no more, and what ran in it was ended with it."""

    function_name: str = ""


# Actors -----------------------------------------------------------------------------------------------------


class ActorError(ActorflowError):
    """A call failed because of the state of its actor, not because of what the method did."""

    actor: str = ""
    actor_id: str = ""
    reason: str = ""
    log_tail: tuple[str, ...] = ()


class ActorDiedError(ActorError):
    """The actor is dead and will not come back.

    `max_restarts` would let it restart; the message says why it died.
    """


class ActorPlacementGroupRemoved(ActorDiedError, PlacementGroupRemovedError):
    """The placement group of the actor is no more, and the actor with it."""


class SupervisionError(ActorError):
    """A supervision has given up: its actors failed more often than it bears, or one of them cannot come back. They have ended with it.

    The message has the last failure. Mend what fails, or let `af.supervise` bear more (`max_restarts`, `within`).
    """

    supervision: str = ""


class ActorUnavailableError(ActorError):
    """The actor is restarting or cannot be reached now. The call may or may not have run.

    Call again when running it twice is safe; with `max_task_retries` that happens by itself.
    """


class CheckpointError(ActorError):
    """The actor has run the call, and its state after it could not be stored: a restart would not have what the call has done.

    Only with `checkpoint_every="call"`, where an answer means that the state is stored. The actor goes on.
    """


class ActorUnschedulableError(ActorError):
    """No node of the cluster can ever have what the actor asks for. Ask for less, or add a node."""


class ActorAlreadyExistsError(ActorflowError, ValueError):
    """An actor of this name lives in the namespace. Choose another name, or say `get_if_exists=True`."""

    name: str = ""
    namespace: str = ""


class ActorNotFoundError(ActorflowError, ValueError):
    """No living actor has this name in the namespace. The message lists what is there."""

    name: str = ""
    namespace: str = ""


# Full -------------------------------------------------------------------------------------------------------


class PendingCallsLimitExceeded(ActorflowError):
    """`.remote()` found the mailbox full (`max_pending_calls`).

    The call was not made. `await f(x)` and `await f.submit(x)` wait.
    """

    limit: int = 0


class BackpressureError(ActorflowError):
    """A bounded queue of the cluster is full, and what you asked for was not taken.

    Wait for earlier work, or go slower.
    """

    limit: int = 0


class ObjectStoreFullError(ActorflowError):
    """The node's shared memory has no room.

    Drop references that are no longer needed, or use `await af.put`, which waits.
    """

    requested_bytes: int = 0
    capacity_bytes: int = 0


class OutOfDiskError(ActorflowError):
    """The disk that takes spilled objects and logs is full. Free some space there."""

    directory: str = ""


# Objects ----------------------------------------------------------------------------------------------------


class ObjectLostError(ActorflowError):
    """The value of a reference is gone and cannot be made again."""

    object_id: str = ""
    reason: str = ""


class OwnerDiedError(ObjectLostError):
    """The process that owned the object is gone, and the object with it.

    `af.put(value, durable=True)` survives its owner.
    """


class ObjectFreedError(ObjectLostError):
    """The object was used after it was freed, by `af.free` or because its last known reference was gone."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The value was lost, and running its task again failed or was not allowed (`max_retries`)."""


# Not yours --------------------------------------------------------------------------------------------------


class ProtocolError(ActorflowError):
    """A peer sent what the protocol does not allow.

    The connection is closed. Internal: a call never ends in this error.
    """


class InternalError(ActorflowError):
    """actorflow broke one of its own rules.

    Please report it with the traceback; your code is not at fault.
    """


# The tree ---------------------------------------------------------------------------------------------------


def _walk(cls: type[ActorflowError]) -> Iterator[type[ActorflowError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _walk(child)


TREE: dict[str, type[ActorflowError]] = {cls.__name__: cls for cls in _walk(ActorflowError)}
"""Every class of the tree by its name."""

for _class in TREE.values():
    _class.__module__ = "actorflow"  # so tracebacks say `actorflow.ActorDiedError`, the name to catch
