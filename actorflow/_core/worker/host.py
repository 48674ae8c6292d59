"""The host: the part of a worker that runs calls. Messages come in on the protocol's thread, user code runs on the user's."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import SerializationError
from actorflow._core.policy.mailbox import Mailbox
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.worker import incoming as arguments
from actorflow._core.worker.apart import HiddenLoop, apart
from actorflow._core.worker.call_threads import CallThreads
from actorflow._core.worker.context import RunningCall, declared, running_call
from actorflow._core.worker.context import deadline as deadline_var
from actorflow._core.worker.first_step import FirstSteps
from actorflow._core.worker.hosted import HostedActor, has_ended, has_left, host_actor, late_answer, no_group, not_here
from actorflow._core.worker.incoming import Incoming
from actorflow._core.worker.interrupts import Interrupts
from actorflow._core.worker.lending import Lending
from actorflow._core.worker.many_results import deliver_many
from actorflow._core.worker.producer import on_close, on_credit, produce
from actorflow._core.worker.tenure import Tenure
from actorflow._core.worker.tidying import Tidying
from actorflow._core.worker.waiting_tasks import WaitingTasks

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.io.ports import Executor
    from actorflow._core.worker.checkpoints import Checkpoints
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.inspect import Events
    from actorflow._core.worker.references import Entry

log = logging.getLogger("actorflow")

RUN_S = 0.002
"""How long calls are run one after another before the user's loop gets a turn."""


class Host:
    """See the module. Everything that is not user code runs under the ports' lock."""

    def __init__(self, core: Core, executor: Executor, on_exit: Callable[[int], None]) -> None:
        self.core = core
        self.executor = executor
        self.on_exit = on_exit
        self.functions: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.waiting_tasks = WaitingTasks(self)
        self.tasks = self.waiting_tasks.mailbox
        self.actors: dict[str, HostedActor] = {}
        self.gone: dict[tuple[str, int], None] = {}
        """Actors that have left in order, and their incarnations here: the latest. What comes for them has not run (AE-2, MV-1)."""
        self.calls: dict[tuple[str, int], Incoming] = {}
        self.holds: dict[int, tuple[Peer, list[Entry]]] = {}
        self.events: Events | None = None
        """The calls that have ended here, for the state API."""
        self.loop_watch: Any = None
        self.own_tasks: Any = None
        self.stepping: Incoming | None = None
        """The call whose first step runs now, outside of any task."""
        self.holds_cpu = True
        self.ends = False  # When its actor has left: this process goes when what it has said has left it.
        self._monotonic = core.ports.monotonic
        self.tenure = Tenure(core)
        self._create_task = executor.loop.create_task
        self._first_steps = FirstSteps(executor.loop, self._carried)
        self._ready: deque[tuple[Mailbox[Incoming], Incoming]] = deque()
        """Calls that may start, in order."""
        self._hidden = HiddenLoop(core, executor.hides_loop)
        self._next_hold = 1
        self.lending = Lending(self)
        self.tidying = Tidying(self)
        self.checkpoints: dict[str, Checkpoints] = {}
        self.interrupts = Interrupts(self)
        self._kept: set[asyncio.Task[Any]] = set()
        self._classes: dict[str, type] = {}

    # -- messages

    def route(self, kind: type) -> Callable[[Peer, Any], None] | None:
        """Who takes this kind of message here."""
        find = _ROUTES.get(kind)
        return find(self) if find is not None else None

    def _on_define(self, peer: Peer, message: m.Define) -> None:
        self.names[message.function] = message.name
        self.functions.setdefault(message.function, message.pickle)

    def _on_task(self, peer: Peer, message: m.TaskCall) -> None:
        if self.waiting_tasks.worn_out:
            peer.send(m.GaveBack(message.lease, [message.seq]))
            return
        incoming = Incoming(peer, message, None)
        self.calls[incoming.key] = incoming
        if self.tasks.offer(incoming.key, incoming):
            self._start_soon(self.tasks, incoming)
        else:
            self.waiting_tasks.one_waits()

    def _on_actor_call(self, peer: Peer, message: m.ActorCall) -> None:
        actor = self.actors.get(message.actor)
        incoming = Incoming(peer, message, actor)
        if actor is None or actor.incarnation != message.incarnation:
            if (message.actor, message.incarnation) in self.gone:
                peer.send(m.NotTaken(message.actor, message.incarnation, [message.seq]))
                return
            if not self.ends:  # Then its caller hears of the end of this process, and tries again what may be tried again.
                self._send_reply(incoming, self.core.failed(not_here(message, actor)), [], 0)
            return
        if actor.exiting and actor.last:
            self._send_reply(incoming, self.core.failed(has_ended(actor)), [], 0)
            return
        if actor.exiting or actor.moves is not None:
            peer.send(m.NotTaken(message.actor, message.incarnation, [message.seq]))
            return
        if (checkpoints := self.checkpoints.get(message.actor)) is not None and checkpoints.knows(incoming):
            return
        group = incoming.context.group if incoming.context is not None else ""
        self.calls[incoming.key] = incoming
        try:
            start = actor.mailbox.offer(incoming.key, incoming, group)
        except KeyError:
            self.end(incoming, self.core.failed(no_group(actor, group)), [])
            return
        if start:
            self._start_soon(actor.mailbox, incoming)

    def let_go(self, actor: HostedActor) -> None:
        """Start the calls that were held. Under the lock."""
        for incoming in actor.mailbox.release():
            self._start_soon(actor.mailbox, incoming)

    def _start_soon(self, mailbox: Mailbox[Incoming], incoming: Incoming) -> None:
        """Hand a call to the user's thread, behind those that may start and have not: all that arrived together go together."""
        self._ready.append((mailbox, incoming))
        if len(self._ready) == 1:
            self.executor.submit(self._run_ready)

    def drop_ready(self, actor: HostedActor) -> None:
        """Its calls that may start do not: it was killed. On the user's thread, under the lock."""
        kept = [each for each in self._ready if each[1].actor is not actor]
        self._ready.clear()
        self._ready.extend(kept)

    def on_cancel(self, peer: Peer, message: m.Cancel) -> None:
        key = (peer.process_id, message.seq)
        incoming = self.calls.get(key)
        if incoming is None or incoming.message.attempt != message.attempt:
            return
        if incoming.cancelled:
            if message.recursive and not incoming.recursive:
                incoming.recursive = True
                self.interrupts.cancel_children(incoming)
            return
        incoming.cancelled = True
        incoming.recursive = message.recursive
        mailbox = incoming.actor.mailbox if incoming.actor is not None else self.tasks
        checkpoints = self.checkpoints.get(incoming.actor.spec.actor_id) if incoming.actor is not None else None
        if checkpoints is not None and not peer.lost and checkpoints.cancelled(incoming):
            return
        if mailbox.withdraw(key) is not None:
            self.end(incoming, arguments.failure(self.core, incoming, asyncio.CancelledError()), [])
            return
        if incoming.running is not None:
            incoming.running.cancelled = True
        self.interrupts.cancel(incoming)
        self.executor.loop.call_soon_threadsafe(self.cancel_running, incoming)

    def cancel_running(self, incoming: Incoming) -> None:
        """End the code of a call that is marked as cancelled. On the user's loop."""
        if incoming.producer is not None:
            incoming.producer.close()
        task = incoming.task
        # A task that is cancelled before its first step never runs, and would never answer: `_run_async` looks by itself.
        if task is not None and (
            incoming.suspended or inspect.getcoroutinestate(task.get_coro()) != inspect.CORO_CREATED  # type: ignore[arg-type]
        ):
            task.cancel()
            self.interrupts.tell(incoming)

    def _on_release(self, peer: Peer, message: m.Release) -> None:
        held = self.holds.pop(message.hold, None)
        if held is not None:
            self.core.references.unpin_all(held[1])

    def _on_host_actor(self, peer: Peer, message: m.HostActor) -> None:
        self.holds_cpu = bool(message.spec.resources.get("CPU"))
        self.executor.submit(lambda: host_actor(self, message))

    def _on_actor_exit(self, peer: Peer, message: m.ActorExit) -> None:
        actor = self.actors.get(message.actor_id)
        if actor is not None and message.moves:
            from actorflow._core.worker.moving import move  # Only where a node is to leave.

            move(self, actor)
        elif actor is not None:
            actor.moves = None  # It ends here, whatever was to become of it.
            actor.leave(self, graceful=message.graceful, returns=message.returns)

    def _on_checkpoint_saved(self, peer: Peer, message: m.CheckpointSaved) -> None:
        # That life may be over. Then nobody else would say that it is answered, and it would be said again whenever a head comes back.
        line = self.core.head_line
        said = line.asked("checkpoint", message.actor_id)
        if isinstance(said, m.SaveCheckpoint) and (said.incarnation, said.number) == (message.incarnation, message.number):
            line.answered("checkpoint", message.actor_id)
        if (checkpoints := self.checkpoints.get(message.actor_id)) is not None:
            checkpoints.on_saved(message)

    def peer_lost(self, peer: Peer) -> None:
        """A caller is gone: nobody waits for its calls any more, and what was held for it may go."""
        for key, incoming in list(self.calls.items()):
            if incoming.peer is peer:
                self.on_cancel(peer, m.Cancel(key[1], incoming.message.attempt))
        for hold, (holder, entries) in list(self.holds.items()):
            if holder is peer:
                del self.holds[hold]
                self.core.references.unpin_all(entries)

    # -- actors

    def actor_class(self, spec: m.ActorSpec) -> type:
        """The class of an actor; unpickled once. Raises DeserializationError."""
        cls = self._classes.get(spec.class_id)
        if cls is None:
            cls = self._classes[spec.class_id] = values.loads(spec.class_pickle)
        return cls

    def actor_left(self, actor: HostedActor, cause: str) -> None:
        """An actor has ended here: a dedicated worker ends with it. On the user's thread."""
        core = self.core
        with core.lock:
            has_left(self, actor)
            if actor.threads is not None:
                actor.threads.close()
            if actor.spec.shared:
                core.push(core.node, m.ActorLost(actor.spec.actor_id, actor.incarnation, cause, expected=True), urgent=True)
        if not actor.spec.shared:
            self.ends = True
            self.on_exit(0)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Own a task until it ends; its failure is logged."""
        self._kept.add(task)
        task.add_done_callback(self._kept_done)

    def _kept_done(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())

    # -- running

    def _run_ready(self) -> None:
        """Start what may start, in order, on the user's thread, until nothing is left or others should have a turn."""
        ready, hidden, until = self._ready, self._hidden, 0.0
        try:
            while ready:
                try:
                    mailbox, incoming = ready.popleft()
                except IndexError:
                    return  # A thread of the actor was faster.
                actor = incoming.actor
                if incoming.context is None and actor is not None and not (self.holds_cpu or actor.starting) and actor.is_async:
                    if hidden.loop is not None:
                        hidden.show()
                    following = self._run_plain(mailbox, incoming, actor)
                else:
                    following = self._take_next(mailbox, incoming) if self._begin(incoming) else None
                if following is not None:
                    ready.append((mailbox, following))  # Behind those that were ready before it (MB-1).
                if not until:
                    until = incoming.started + RUN_S
                elif self._monotonic() > until:
                    return
        finally:
            hidden.show()
            if ready:
                self.executor.submit(self._run_ready)

    def _take_next(self, mailbox: Mailbox[Incoming], ended: Incoming) -> Incoming | None:
        """A call is over: the one that may start in its place."""
        actor, context = ended.actor, ended.context
        with self.core.lock:
            following = mailbox.finished(context.group if context is not None and actor is not None else "")
            if following is None and actor is not None and actor.watched:
                actor.call_ended(self)
        return following

    def _next(self, incoming: Incoming) -> None:
        """A call that ran on its own, as a coroutine, is over: start the one behind it."""
        mailbox = incoming.actor.mailbox if incoming.actor is not None else self.tasks
        following = self._take_next(mailbox, incoming)
        if following is not None:
            # Not from here: this is the task of another call.
            self._start_soon(mailbox, following)

    def _begin(self, incoming: Incoming) -> bool:
        """Start a call. True when it has ended already, and the next may start; False when it ends later, by itself."""
        fn, actor = self._prepare(incoming), incoming.actor
        if fn is None:
            return True
        if incoming.is_async or (actor is not None and actor.starting and not actor.threads_max):
            self._run_as_task(incoming, fn)
            return False
        if actor is not None and actor.threads_max:
            incoming.fn = fn
            self._threads_of(actor).put(incoming)
            return False
        self._hidden.suit(actor)
        # A context of its own: what it sets no other call sees (SEMANTICS 8).
        copy_context().run(self._run_sync, incoming, fn)
        return True

    def _run_as_task(self, incoming: Incoming, fn: Callable[..., Any]) -> None:
        """As a task of its own. Until it has started, so have the calls of its actor behind it (SEMANTICS 20)."""
        if incoming.actor is not None and incoming.actor.is_async:
            incoming.actor.starting += 1
        incoming.task = self._create_task(self._run_async(incoming, fn))

    def _prepare(self, incoming: Incoming) -> Callable[..., Any] | None:
        """Find the code of a call that starts now. None: there is none, and the call has been answered; or this process ends (LV-7)."""
        incoming.started = started = self._monotonic()
        if started >= self.tenure.until and not self.tenure.may_act(started):
            return None
        try:
            fn, is_async = self._code(incoming)
        except Exception as error:
            # Whatever the user's module does when it is imported here.
            self.end(incoming, arguments.failure(self.core, incoming, error), [])
            return None
        context = incoming.context
        incoming.is_async = is_async or (context is not None and (context.stream_window > 0 or incoming.needs_store()))
        return fn

    def _code(self, incoming: Incoming) -> tuple[Callable[..., Any], bool]:
        message, actor, context = incoming.message, incoming.actor, incoming.context
        if type(message) is m.TaskCall:
            known = self.functions[message.function]
            if type(known) is bytes:
                fn = values.loads(known)
                known = self.functions[message.function] = (fn, inspect.iscoroutinefunction(fn))
            fn, is_async = known
            name, actor_id = self.names[message.function], ""
        else:
            fn, is_async, name = actor.method(message.method)  # type: ignore[union-attr]  # an ActorCall has one
            actor_id = message.actor  # type: ignore[union-attr]
        deadline = None
        if context is not None and context.timeout_s is not None:
            deadline = incoming.started + context.timeout_s
        incoming.running = RunningCall(incoming.peer.process_id, message.seq, message.attempt, name, actor_id, deadline)
        return fn, is_async

    def _enter(self, incoming: Incoming) -> None:
        running = incoming.running
        assert running is not None
        running_call.set(running)
        if running.deadline is not None or deadline_var.get() is not None:
            deadline_var.set(running.deadline)
        values = incoming.context.values if incoming.context is not None else None
        if values is not declared.get():
            declared.set(values)
        if self.holds_cpu:
            self.lending.begin()

    def _leave(self) -> None:
        if self.holds_cpu:
            self.lending.end()

    def _run_sync(self, incoming: Incoming, fn: Callable[..., Any]) -> None:
        self._enter(incoming)
        actor = incoming.actor
        try:
            if actor is None or (actor.interruptible and incoming.message.method in actor.interruptible):  # type: ignore[union-attr]
                value = self.interrupts.run(incoming, fn)
            elif incoming.cancelled:
                raise asyncio.CancelledError
            else:
                args, kwargs = arguments.load_arguments(self.core, incoming)
                value = fn(*args, **kwargs)
                args, kwargs = (), {}
        except BaseException as error:
            # SystemExit and KeyboardInterrupt too: user code ends its call, never this worker.
            self._leave()
            self._fail(incoming, error)
        else:
            self._leave()
            self._deliver(incoming, value)
        finally:
            running_call.set(None)

    def _threads_of(self, actor: HostedActor) -> CallThreads[Incoming]:
        if actor.threads is None:
            actor.threads = CallThreads(actor.threads_max, self._run_in_thread, actor.spec.class_name)
        return actor.threads

    def _run_in_thread(self, incoming: Incoming) -> Incoming | None:
        """Run a call on a thread of its actor. Returns the one that may start in its place there."""
        actor = incoming.actor
        assert actor is not None
        incoming.thread = threading.get_ident()
        copy_context().run(self._run_sync, incoming, incoming.fn)
        following = self._take_next(actor.mailbox, incoming)
        while following is not None:
            if self._ready:
                # Others are before it (MB-1): it waits in their line, and this thread takes the first of them.
                self._start_soon(actor.mailbox, following)
                following = self._first_ready()
                if following is None:
                    return None
            if following.context is not None:
                # It may be for the loop: a generator, or its arguments must be fetched first.
                self._start_soon(actor.mailbox, following)
                return None
            fn = self._prepare(following)
            if fn is not None:
                following.fn = fn
                return following
            following = self._take_next(actor.mailbox, following)
        return None

    def _first_ready(self) -> Incoming | None:
        try:
            return self._ready.popleft()[1]
        except IndexError:
            return None

    def _run_plain(self, mailbox: Mailbox[Incoming], incoming: Incoming, actor: HostedActor) -> Incoming | None:
        """Start what most calls of an async actor are: nothing comes with them but their arguments. Returns the one that may start next.

        What `_begin`, `_deliver` and `_take_next` do for any call, in one go: the short way of the call path.
        """
        message, peer = incoming.message, incoming.peer
        assert type(message) is m.ActorCall
        known = actor.methods.get(message.method)
        if known is None or not known[1]:
            # The first call of a method, or a `def` one.
            return self._take_next(mailbox, incoming) if self._begin(incoming) else None
        started = incoming.started = self._monotonic()
        if started >= self.tenure.until and not self.tenure.may_act(started):
            return None
        fn = incoming.fn = known[0]
        incoming.is_async = True
        running = incoming.running = RunningCall(peer.process_id, message.seq, message.attempt, known[2], message.actor, None)
        self.stepping = incoming
        try:
            if incoming.cancelled:
                raise asyncio.CancelledError
            step = self._first_steps.run(incoming, _coroutine_of)
        except BaseException as error:
            self._fail(incoming, error)
            return self._take_next(mailbox, incoming)
        finally:
            self.stepping = None
        if step is None:
            self._run_as_task(incoming, fn)
            return None
        task, value = step
        if task is not None:
            incoming.task = task
            incoming.suspended = True
            return None
        if type(value) not in values.SIMPLE or values.is_large(value) or actor.after_call is not None:
            self._deliver(incoming, value)
            return self._take_next(mailbox, incoming)
        outcome = m.Inline(pickle.dumps(value, 5))
        run_us = int((self._monotonic() - started) * 1e6)
        if self.events is not None:
            self.events.append((running, started, run_us, False))
        core = self.core
        with core.lock:
            self.calls.pop(incoming.key, None)
            core.push(peer, m.Reply(message.seq, message.attempt, outcome, run_us), urgent=not self.calls)
            following = mailbox.finished()
            if following is None and actor.watched:
                actor.call_ended(self)
        return following

    def _carried(self, incoming: Incoming, value: Any, error: BaseException | None) -> None:
        """A call that had suspended is over. In its task, which other calls do not run in: the next one waits for the next turn."""
        incoming.task = None  # It stands by for other calls from now on, and a late cancel of this one must not reach them.
        if error is not None:
            self._fail(incoming, error)
        else:
            self._deliver(incoming, value)
        self._next(incoming)

    async def _run_async(self, incoming: Incoming, fn: Callable[..., Any]) -> None:
        self._enter(incoming)
        context = incoming.context
        try:
            args, kwargs = await self._arguments_in_turn(incoming)
            if self.tenure.over():
                raise asyncio.CancelledError
            if context is not None and context.stream_window:
                await produce(self, incoming, fn, args, kwargs)
                return
            if incoming.actor is None and not inspect.iscoroutinefunction(fn):
                # A `def` task that is here for its arguments only, which lay in shared memory.
                value = apart(self, incoming, self.interrupts.call, incoming, fn, args, kwargs)
            elif inspect.iscoroutinefunction(fn):
                value = fn(*args, **kwargs)
            else:
                value = apart(self, incoming, fn, *args, **kwargs)
            if type(value) is CoroutineType or inspect.isawaitable(value):
                value = await value
            args, kwargs = (), {}
        except BaseException as error:
            self._leave()
            self._fail(incoming, error)
            self._next(incoming)
            if not incoming.cancelled and isinstance(error, asyncio.CancelledError):
                raise
        else:
            self._leave()
            self._deliver(incoming, value)
            self._next(incoming)

    async def _arguments_in_turn(self, incoming: Incoming) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call that runs as a task. Those of one actor get theirs, and start, in order, however long it takes."""
        actor = incoming.actor
        if actor is None or not actor.is_async:
            return await self._arguments(incoming)
        try:
            async with actor.turn:
                return await self._arguments(incoming)
        finally:
            actor.starting -= 1

    async def _arguments(self, incoming: Incoming) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if incoming.cancelled:
            raise asyncio.CancelledError
        if incoming.context is None:
            return values.load_arguments(incoming.message.args, incoming.message.buffers, ())
        if incoming.needs_store():
            return await arguments.load_arguments_async(self.core, incoming)
        return arguments.load_arguments(self.core, incoming)

    # -- results

    def _deliver(self, incoming: Incoming, value: Any) -> None:
        """Pack what the code returned and reply, perhaps when the state of the actor is stored."""
        actor = incoming.actor
        if actor is None or actor.after_call is None or not actor.after_call(incoming, value):
            self.deliver(incoming, value)

    def _fail(self, incoming: Incoming, error: BaseException) -> None:
        """What the code raised is the reply, perhaps when the state of the actor is stored."""
        outcome, actor = arguments.failure(self.core, incoming, error), incoming.actor
        if actor is None or actor.after_call is None or not actor.after_call(incoming, outcome):
            self.end(incoming, outcome, [])

    def deliver(self, incoming: Incoming, value: Any) -> None:
        """Pack what the code returned, or pack it further, and reply. Any thread."""
        returns = incoming.returns
        try:
            if type(value) in values.SIMPLE and returns == 1 and not values.is_large(value):
                # The commonest result by far needs no more than its pickle.
                outcome = m.Inline(pickle.dumps(value, 5))
                if incoming.context is None:
                    self._end_plain(incoming, outcome)
                else:
                    self.end(incoming, outcome, [])
            elif returns > 1:
                deliver_many(self, incoming, value, returns)
            else:
                arguments.pack_result(
                    self.core, incoming, None if returns == 0 else value, lambda outcome, hold: self.end(incoming, outcome, hold)
                )
        except SerializationError as error:
            self.end(incoming, arguments.failure(self.core, incoming, error), [])

    def _end_plain(self, incoming: Incoming, outcome: m.Inline) -> None:
        """`end` for a call that came without references and gives none."""
        started, message, peer = incoming.started, incoming.message, incoming.peer
        run_us = int((self._monotonic() - started) * 1e6)
        if self.events is not None:
            self.events.append((incoming.running, started, run_us, False))  # type: ignore[arg-type]  # it has run
        core, actor = self.core, incoming.actor
        with core.lock:
            self.calls.pop(incoming.key, None)
            reply = m.Reply(message.seq, message.attempt, outcome, run_us)
            if actor is not None and actor.threads_max:
                self._post(incoming, peer, reply)
            else:
                core.push(peer, reply, urgent=not self.calls)

    def end(self, incoming: Incoming, outcome: m.Outcome, hold: list[Entry], more: list[m.Outcome] | None = None) -> None:
        """The call is over: reply, after the owners of what it still borrows have been told. Any thread."""
        run_us = int((self._monotonic() - incoming.started) * 1e6) if incoming.started else 0
        if self.events is not None and incoming.running is not None:
            self.events.append((incoming.running, incoming.started, run_us, type(outcome) is m.Failed))
        self._send_reply(incoming, outcome, hold, run_us, more)

    def _send_reply(
        self, incoming: Incoming, outcome: m.Outcome, hold: list[Entry], run_us: int, more: list[m.Outcome] | None = None
    ) -> None:
        message, peer, core = incoming.message, incoming.peer, self.core
        with core.lock:
            if self.calls.get(incoming.key) is incoming:  # Else it comes from an earlier life, and is here again.
                del self.calls[incoming.key]
            if type(outcome) is m.Failed:
                self.tidying.call_failed()
                if incoming.parting or incoming.cut_off():
                    return
            reply = m.Reply(message.seq, message.attempt, outcome, run_us, more)
            if hold:
                reply.hold = self._next_hold
                self._next_hold += 1
                self.holds[reply.hold] = (peer, hold)
            if incoming.borrowed:
                own, third = arguments.still_borrowed(core, incoming)
                reply.borrowed = own or None
                if third:
                    core.references.register(third, late_answer(incoming, lambda: peer.send(reply)))
                    return
            self._post(incoming, peer, reply)

    def send_item(self, incoming: Incoming, index: int, outcome: m.Outcome, hold: list[Entry]) -> None:
        """One item of a stream. Any thread."""
        core, peer, message = self.core, incoming.peer, incoming.message
        with core.lock:
            item = m.StreamItem(message.seq, message.attempt, index, outcome)
            if hold:
                item.hold = self._next_hold
                self._next_hold += 1
                self.holds[item.hold] = (peer, hold)
            core.push(peer, item, urgent=False)

    def end_stream(self, incoming: Incoming, end: m.StreamEnd) -> None:
        """A generator has ended: say so, perhaps when the state of the actor is stored. On the user's loop."""
        self._leave()
        actor = incoming.actor
        if actor is None or actor.after_call is None or not actor.after_call(incoming, end):
            self.say_end(incoming, end)
        self._next(incoming)

    def say_end(self, incoming: Incoming, end: m.StreamEnd) -> None:
        """The last word of a stream. Any thread."""
        core, peer = self.core, incoming.peer
        with core.lock:
            if self.calls.get(incoming.key) is incoming:  # It may have come again, and runs from its beginning then.
                del self.calls[incoming.key]
            if incoming.cut_off():
                return
            if incoming.borrowed and not incoming.parting:
                own, owners = arguments.still_borrowed(core, incoming)
                if own:
                    # The end of a stream has no room for them as a reply has: the caller is told like any other owner.
                    owners[peer.process_id, peer.address] = own
                core.references.register(owners, late_answer(incoming, lambda: core.push(peer, end, urgent=True)))
            elif not incoming.parting:  # As for a reply: what is lost with its worker may be tried again.
                core.push(peer, end, urgent=True)

    def _post(self, incoming: Incoming, peer: Peer, reply: m.Reply) -> None:
        # Replies of one turn go together; this one goes now when no call is here that could add to it. On a pool of threads calls have
        # no turns: there those that wait for a thread will add to it, while those that run may run for long.
        actor = incoming.actor
        more = self.calls if actor is None or not actor.threads_max else actor.mailbox.waiting()
        self.core.push(peer, reply, urgent=not more)


def _coroutine_of(incoming: Incoming) -> Any:
    """The coroutine of an async call that is about to take its first step, in its own context already."""
    running_call.set(incoming.running)
    if deadline_var.get() is not None:
        deadline_var.set(None)
    if declared.get() is not None:
        declared.set(None)
    message = incoming.message
    if not message.args:
        return incoming.fn()
    args, kwargs = values.loads(message.args, message.buffers)
    return incoming.fn(*args, **kwargs)


_ROUTES: dict[type, Callable[[Host], Callable[[Peer, Any], None]]] = {
    m.TaskCall: lambda host: host._on_task,
    m.ActorCall: lambda host: host._on_actor_call,
    m.Cancel: lambda host: host.on_cancel,
    m.Define: lambda host: host._on_define,
    m.Release: lambda host: host._on_release,
    m.StreamCredit: lambda host: partial(on_credit, host),
    m.StreamClose: lambda host: partial(on_close, host),
    m.HostActor: lambda host: host._on_host_actor,
    m.ActorExit: lambda host: host._on_actor_exit,
    m.CheckpointSaved: lambda host: host._on_checkpoint_saved,
}
