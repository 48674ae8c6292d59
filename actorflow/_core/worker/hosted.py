"""An actor in its worker: the instance, its mailbox, its checkpoints and its end (SEMANTICS 19-23).

    AE-1  An actor that ends in order has answered all that it has run, and leaves when those answers have left, or after TAKEN_S.
    AE-2  From the moment at which it begins to leave nothing begins in it any more. Who calls it then is told that the call has not run:
          it is made again in the next life, or ends in ActorDiedError, at once where there is none.
    AE-3  Of an actor that was killed nothing begins any more, and nothing is said of what was cut off: its callers hear of its end.
    AE-4  Nothing of an actor stays in a process that it shares: neither tasks nor calls nor a state that was to be stored.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ActorDiedError, ActorUnavailableError, OptionError
from actorflow._core.base.targets import METHOD_OPTIONS
from actorflow._core.policy.mailbox import Mailbox
from actorflow._core.protocol import messages as m
from actorflow._core.serialization.duals import describe
from actorflow._core.worker import incoming as arguments
from actorflow._core.worker.call_threads import CallThreads
from actorflow._core.worker.context import CAPTURED, RunningCall, declared, running_call
from actorflow._core.worker.context import deadline as deadline_var
from actorflow._core.worker.incoming import Incoming
from actorflow._core.worker.loop_watch import LoopWatch
from actorflow._core.worker.own_tasks import OwnTasks

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.stored_replies import Answers

log = logging.getLogger("actorflow")

ASYNC_CONCURRENCY = 1000
"""Calls of an async actor that run at a time, unless `max_concurrency` says otherwise."""


TAKEN_S = 5.0
"""So long an actor that leaves waits at most until its last answers have left, and as long again until what is in them is taken over."""
TAKEN_POLL_S = 0.005
GONE_MAX = 10_000
"""So many lives that have left are remembered."""


class KeptSpec:
    """What a worker keeps of an ActorSpec. The rest, most of all the pickle of the class, is for the constructor only."""

    __slots__ = ("actor_id", "checkpoint_every", "class_name", "shared")

    def __init__(self, spec: m.ActorSpec) -> None:
        self.actor_id = spec.actor_id
        self.class_name = sys.intern(spec.class_name)
        self.shared = spec.shared
        self.checkpoint_every = spec.checkpoint_every


class HostedActor:
    """One incarnation of one actor. There may be ten thousand in a process."""

    __slots__ = (
        "_exit", "_left", "after_call", "answers", "cls", "exiting", "incarnation", "instance", "interruptible", "is_async", "killed",
        "last", "late_answers", "leaving", "mailbox", "methods", "moves", "on_quiet", "spec", "starting", "threads", "threads_max", "turn",
        "watched", "width",
    )  # fmt: skip

    def __init__(self, spec: m.ActorSpec, incarnation: int, cls: type) -> None:
        self.spec = KeptSpec(spec)
        self.incarnation = incarnation
        self.cls = cls
        self.is_async = is_async_class(cls)
        self.instance: Any = None
        limit = spec.max_concurrency or (ASYNC_CONCURRENCY if self.is_async else 1)
        self.mailbox: Mailbox[Incoming] = Mailbox({"": limit, **spec.groups})
        self.width = limit + sum(spec.groups.values())
        """Calls that may run at a time."""
        self.threads_max = self.width if not self.is_async and self.width > 1 else 0
        """For `def` methods that run at the same time; 0: one after the other, on the user's thread."""
        self.threads: CallThreads[Incoming] | None = None
        self.after_call: Callable[[Incoming, Any], bool] | None = None
        """Told of a call and what it has returned. True: who is told has it answered, later."""
        self.answers: Answers | None = None
        """The last answers that are kept with its state (AS-1)."""
        self.starting = 0
        """Calls that run as tasks and have not begun: those behind them do not overtake them (SEMANTICS 20)."""
        self.turn = asyncio.Lock()
        self.leaving = False
        """It is to end when its mailbox is empty."""
        self.exiting = False
        """It leaves: no call begins any more (AE-2)."""
        self.last = False
        """... and there is no other life in which it may: who calls it is told at once, as its exit hook may be waiting for just that."""
        self.moves: Callable[[], Awaitable[bool]] | None = None
        """It goes on on another node: what to do when no call runs any more, before it leaves. False: it stays after all."""
        self.late_answers = 0
        """Calls that have ended, and whose answer waits for the word of an owner."""
        self.killed = False
        self.on_quiet: Callable[[], None] | None = None
        """Called once, under the lock, when no call runs."""
        self.watched = False
        """Somebody waits for the end of calls: `leaving`, or `on_quiet`."""
        self.interruptible: frozenset[str] = frozenset() if self.threads_max else interruptible_methods(cls)
        """`def` methods that a cancel may tear (SEMANTICS 5). Only the user's thread can be interrupted."""
        self.methods: dict[str, tuple[Callable[..., Any], bool, str]] = {}
        """What `method` has found."""
        self._exit: Callable[..., Any] | None = None
        self._left: asyncio.Future[str] | None = None

    @property
    def entered(self) -> bool:
        """It has a context that it has not left yet."""
        return self._exit is not None and (self._left is None or not self._left.done())

    @property
    def label(self) -> str:
        """The actor as people see it."""
        return f"{self.spec.class_name}(af-actor-{self.spec.actor_id[:6]})"

    def method(self, name: str) -> tuple[Callable[..., Any], bool, str]:
        """What to run: (bound method, it is `async def`, its name for people). Raises AttributeError."""
        known = self.methods.get(name)
        if known is None:
            if name.startswith("_"):
                raise AttributeError(f"{self.label}: {name!r} is private to the actor")
            bound = getattr(self.instance, name)
            known = self.methods[name] = (bound, inspect.iscoroutinefunction(bound), f"{self.spec.class_name}.{name}")
        return known

    def keep_method(self, name: str, bound: Callable[..., Any], is_async: bool, label: str) -> None:
        """Have this run from now on when the method is called."""
        self.methods[name] = (bound, is_async, label)

    async def restore(self, host: Host, checkpoint: bytes) -> None:
        """Give the new instance the state of the life before."""
        restore = getattr(self.instance, "__restore__", None)
        if restore is None:
            log.warning("%s has a checkpoint but no __restore__: it starts afresh", self.label)
        else:
            from actorflow._core.worker.restoring import restored

            self.answers = await restored(host.core, self, restore, checkpoint)

    async def enter(self, host: Host) -> None:
        """Enter its context; from then on there are checkpoints."""
        if hasattr(self.instance, "__aenter__"):
            await self.instance.__aenter__()
            self._exit = self.instance.__aexit__
        elif hasattr(self.instance, "__enter__"):
            self.instance.__enter__()
            self._exit = self.instance.__exit__
        if hasattr(self.instance, "__checkpoint__") and self.spec.checkpoint_every is not None:
            from actorflow._core.worker.checkpoints import Checkpoints

            Checkpoints(host, self).start()

    def leave(self, host: Host, *, graceful: bool, returns: bool = True) -> None:
        """The actor is to end: when its mailbox is empty (graceful), or now. `returns`: there is to be another life. Under the lock."""
        self.last = not returns
        if not graceful:
            host.executor.loop.call_soon_threadsafe(self._abandon, host)
        elif not self.leaving:
            self.leaving = self.watched = True
            self._check_left(host)

    def call_ended(self, host: Host) -> None:
        """A call has ended, and none has started in its place. Under the lock."""
        if self.on_quiet is not None and not self.mailbox.running():
            on_quiet, self.on_quiet = self.on_quiet, None
            self.watched = self.leaving
            on_quiet()
        self._check_left(host)

    def when_quiet(self, host: Host, then: Callable[[], None]) -> None:
        """Start no new call, and call `then` when those that run have ended; `Host.let_go` ends it. Under the lock."""
        self.mailbox.hold()
        self.on_quiet, self.watched = then, True
        self.call_ended(host)

    def _check_left(self, host: Host) -> None:
        """Leave when the last call has ended."""
        if self.leaving and not self.mailbox.running() and not self.mailbox.waiting():
            self.leaving, self.exiting = False, True
            host.executor.loop.call_soon_threadsafe(self._start_exit, host)

    def _start_exit(self, host: Host) -> None:
        context = copy_context()
        context.run(self.runs_hook, host, "__aexit__")  # So that it is among its own tasks: a kill ends it.
        host.keep(host.executor.loop.create_task(self._leave(host), name=f"exit {self.label}", context=context))

    async def _leave(self, host: Host) -> None:
        if self.moves is not None and not await self.moves():
            return
        if (checkpoints := host.checkpoints.get(self.spec.actor_id)) is not None:
            await checkpoints.answered()
        await _until(host, lambda: self.has_answered(host))
        if not self.spec.shared:
            await _until(host, lambda: not host.holds)
        trouble = await self.leave_context(host)
        if host.own_tasks is not None and self.is_here(host):
            await host.own_tasks.end_within(self.spec.actor_id, self.label, host.core.cancels.grace_s)
        if self.is_here(host):  # Else it was killed meanwhile, and its end was told.
            self._forget(host)
            host.actor_left(self, f"its last handle is gone, or it was asked to stop{trouble}")

    def is_here(self, host: Host) -> bool:
        """False when it has left or was killed: there may be another life of it by now."""
        return host.actors.get(self.spec.actor_id) is self

    def has_answered(self, host: Host) -> bool:
        """All that it has run is answered. A large answer may have to wait for room, others for the word of an owner."""
        with host.core.lock:
            return not self.late_answers and all(incoming.actor is not self for incoming in host.calls.values())

    def runs_hook(self, host: Host, name: str) -> None:
        """What runs in this context is its own code, and of no call: what it begins ends with it (SEMANTICS 22)."""
        running_call.set(RunningCall(host.core.identity.process_id, 0, 0, f"{self.spec.class_name}.{name}", self.spec.actor_id, None))
        deadline_var.set(None)

    def _forget(self, host: Host) -> None:
        """AE-4: also not what its last code has begun, nor calls that its end has left without an answer."""
        with host.core.lock:
            checkpoints = host.checkpoints.get(self.spec.actor_id)
            if checkpoints is not None and checkpoints.actor is self:
                del host.checkpoints[self.spec.actor_id]
                host.core.head_line.answered("checkpoint", self.spec.actor_id)
            for incoming in [incoming for incoming in host.calls.values() if incoming.actor is self]:
                del host.calls[incoming.key]
        if host.own_tasks is not None:
            host.own_tasks.end(self.spec.actor_id)

    async def leave_context(self, host: Host) -> str:
        """Run its exit hook, once; whoever comes second waits for the first. Returns what went wrong, for people."""
        if self._exit is None:
            return ""
        if self._left is not None:
            return await asyncio.shield(self._left)
        left = self._left = asyncio.get_running_loop().create_future()
        trouble = ""
        self.runs_hook(host, "__aexit__")
        try:
            await resolved(self._exit(None, None, None))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (self.killed or _asked_to_end()):
                raise
            # The actor is gone either way; its exit hook must not keep the process. It may have cancelled something and awaited it.
            log.exception("%s: its exit hook failed", self.label)
            trouble = f"; its exit hook failed: {describe(error)}"
        finally:
            left.set_result(trouble)
        return trouble

    def _abandon(self, host: Host) -> None:
        """It was killed (AE-3). On the user's loop."""
        running = []
        with host.core.lock:
            self.killed, self.moves = True, None  # MV-3
            if self.is_here(host):
                del host.actors[self.spec.actor_id]
            _remember_gone(host, self)  # What comes while its code cleans up has not run either.
            for group in self.mailbox.groups():
                self.mailbox.take_waiting(group)
            host.drop_ready(self)
            for incoming in [incoming for incoming in host.calls.values() if incoming.actor is self]:
                incoming.cancelled = True
                if incoming.task is not None:
                    running.append(incoming)
                else:  # It has not begun, or waits for its answer to leave.
                    del host.calls[incoming.key]
        for incoming in running:
            host.cancel_running(incoming)
        tasks = [incoming.task for incoming in running if incoming.task is not None]
        host.keep(host.executor.loop.create_task(self._leave_when_quiet(host, tasks), name=f"end {self.label}"))

    async def _leave_when_quiet(self, host: Host, tasks: list[asyncio.Task[Any]]) -> None:
        """Code that does not listen to its cancel keeps the actor here: its node ends the whole process after the grace (NA-3)."""
        if tasks:
            await asyncio.wait(tasks)
        if host.own_tasks is not None and (own := host.own_tasks.end(self.spec.actor_id)):
            await asyncio.wait(own)
        self._forget(host)
        host.actor_left(self, "it was killed")


def _asked_to_end() -> bool:
    """Somebody has cancelled this task itself, and not only what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _until(host: Host, done: Callable[[], bool]) -> None:
    """Return when the last answers have left (AE-1), or those who got what is in them hold it: nobody else does. Bounded."""
    give_up_at = host.core.ports.monotonic() + TAKEN_S
    while not done() and host.core.ports.monotonic() < give_up_at:  # noqa: ASYNC110  # answers go many ways
        await asyncio.sleep(TAKEN_POLL_S)


def has_left(host: Host, actor: HostedActor) -> None:
    """It is not here any more. Who calls a life that has left in order, not knowing that, is told so (AE-2). Under the lock."""
    if actor.is_here(host):
        del host.actors[actor.spec.actor_id]
    if actor.killed:
        return
    if actor.moves is not None:
        from actorflow._core.worker.moving import say_it_has_gone

        say_it_has_gone(host.core, actor)
    _remember_gone(host, actor)


def _remember_gone(host: Host, actor: HostedActor) -> None:
    host.gone[actor.spec.actor_id, actor.incarnation] = None
    if len(host.gone) > GONE_MAX:
        del host.gone[next(iter(host.gone))]


def has_ended(actor: HostedActor) -> ActorDiedError:
    """A call for an actor that is just leaving for good."""
    reason = "it leaves: it was asked to stop, or its last handle is gone, and it takes no calls any more"
    return ActorDiedError(f"{actor.label} is dead: {reason}", actor=actor.label, actor_id=actor.spec.actor_id, reason=reason)


def not_here(message: m.ActorCall, actor: HostedActor | None) -> ActorUnavailableError:
    """Fencing: a call for another life of the actor must not run."""
    here = f": this is incarnation {actor.incarnation}" if actor is not None else " any more"
    return ActorUnavailableError(f"actor {message.actor} (incarnation {message.incarnation}) is not here{here}")


def no_group(actor: HostedActor, group: str) -> OptionError:
    """A call for a concurrency group that is not there."""
    known = ", ".join(repr(name) for name in actor.mailbox.groups() if name) or "none"
    return OptionError(f"{actor.label} has no concurrency group {group!r}; it has: {known}")


def late_answer(incoming: Incoming, answer: Callable[[], None]) -> Callable[[], None]:
    """The last word of a call that is over waits for others: its actor waits for that if it moves. Both under the lock."""
    actor = incoming.actor
    if actor is None:
        return answer
    actor.late_answers += 1

    def answered() -> None:
        actor.late_answers -= 1
        answer()

    return answered


def is_async_class(cls: type) -> bool:
    """True when one public method is `async def`: then all calls run on the loop. Hooks do not count (SEMANTICS 19)."""
    seen: set[str] = set()
    for base in cls.__mro__:
        for name, member in vars(base).items():
            if name[0] == "_" or name in seen:
                continue
            seen.add(name)
            member = getattr(member, "__wrapped__", member)
            if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member):
                return True
    return False


@functools.lru_cache(maxsize=128)
def interruptible_methods(cls: type) -> frozenset[str]:
    """The methods that say so with `@af.method(interruptible=True)`."""
    return frozenset(
        name
        for name in dir(cls)
        if not name.startswith("_")
        and getattr(getattr(inspect.getattr_static(cls, name, None), METHOD_OPTIONS, None), "interruptible", False)
    )


async def resolved(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def host_actor(host: Host, message: m.HostActor) -> None:
    """Become, or take in, an actor. On the user's thread."""
    if message.spec.shared and host.loop_watch is None:
        host.loop_watch, host.own_tasks = LoopWatch(host), OwnTasks(host.executor)
        host.loop_watch.start()
    host.keep(host.executor.loop.create_task(_construct(host, message), name=f"construct {message.spec.class_name}"))


async def _construct(host: Host, message: m.HostActor) -> None:
    spec, core = message.spec, host.core
    call = m.ActorCall(0, 0, spec.actor_id, message.incarnation, "__init__", spec.args, spec.buffers)
    if spec.deps or spec.refs or spec.stored:
        call.context = m.CallContext(deps=spec.deps, refs=spec.refs, stored=spec.stored)
    incoming = Incoming(core.node, call, None)
    name = f"{spec.class_name}.__init__"
    incoming.running = RunningCall(spec.owner, 0, 0, name, spec.actor_id, None)
    running_call.set(incoming.running)
    # What an earlier call of this worker ran under is none of its business (SEMANTICS 8).
    deadline_var.set(None)
    declared.set(spec.values)
    step = "constructor"
    try:
        actor = HostedActor(spec, message.incarnation, host.actor_class(spec))
        if incoming.needs_store():
            args, kwargs = await arguments.load_arguments_async(core, incoming)
        else:
            args, kwargs = arguments.load_arguments(core, incoming)
        if host.tenure.over():
            return
        # `__init__`, then `__restore__`, then its context is entered; then calls may come (SEMANTICS 21).
        actor.instance = actor.cls(*args, **kwargs)
        if message.checkpoint is not None:
            step = "__restore__"
            await actor.restore(host, message.checkpoint)
            step = "constructor"
        elif message.incarnation > 1 and hasattr(actor.cls, "__restore__"):
            why = ", as it has no checkpoint_every" if spec.checkpoint_every is None else ""
            log.warning("%s was restarted (incarnation %d) without a state: none had been stored%s", actor.label, message.incarnation, why)
        await actor.enter(host)
        if spec.values is not None and CAPTURED in spec.values:
            from actorflow._core.worker.captured import capture_in_methods

            capture_in_methods(actor, spec.values[CAPTURED])
    except BaseException as error:
        # Whatever ends a constructor, SystemExit included, is the end of this actor and not of our loop.
        failed = arguments.failure(core, incoming, error)
        reason = error.reason if step == "__restore__" and isinstance(error, ActorDiedError) else f"its {step} raised {describe(error)}"
        with core.lock:
            core.node.send(m.ActorFailed(spec.actor_id, message.incarnation, m.ActorDied("init_failed", reason, failed)))
        if host.own_tasks is not None:
            await host.own_tasks.end_within(spec.actor_id, name, core.cancels.grace_s)
        return
    finally:
        running_call.set(None)
    del args, kwargs
    with core.lock:
        host.actors[spec.actor_id] = actor
        _register_borrows(host, incoming)
        address = core.identity.address
        core.push(core.node, m.ActorReady(spec.actor_id, message.incarnation, core.identity.process_id, address), urgent=False)


def _register_borrows(host: Host, incoming: Incoming) -> None:
    if not incoming.borrowed:
        return
    own, third = arguments.still_borrowed(host.core, incoming)
    assert not own, "the node owns no objects"
    host.core.references.register(third, lambda: None)

