"""Making calls: from the arguments to the outcome. Everything here runs under the ports' lock, on the thread that calls."""

from __future__ import annotations

import asyncio
import hashlib
import operator
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import TaskCancelledError, TaskTimeoutError
from actorflow._core.base.ids import CLUSTER
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.policy.work_list import WorkList
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.actors import ActorClient
from actorflow._core.worker.calls import Call, CallState, pack, unsettled
from actorflow._core.worker.context import CAPTURED, TRACER, declared, declared_values, running_call
from actorflow._core.worker.context import deadline as deadline_var
from actorflow._core.worker.large_arguments import Large
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.tasks import Lease
from actorflow._core.worker.wakers import Dependent, FutureWaiter, Waiter

if TYPE_CHECKING:
    from actorflow._core.base.targets import ActorTarget, FunctionTarget, MethodTarget
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry


PUSHED = CallState.PUSHED
STREAMING = frozenset({"generator", "async_generator"})


class Caller:
    """The calls that one process makes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._entries = core.references.owned.entries
        self._orphans = core.cancels.orphans
        self._ready: WorkList[Callable[[], None]] = WorkList(operator.call)
        """What waited for entries that are settled now: see Dependent."""

    # -- making calls

    def define(self, peer: Peer, target: FunctionTarget | ActorTarget) -> None:
        """Ship a function to a worker that has not seen it."""
        assert isinstance(getattr(target, "function_id", None), str)
        peer.defined.add(target.function_id)  # type: ignore[union-attr]
        peer.send(m.Define(target.function_id, target.name, target.pickle))  # type: ignore[union-attr]

    @staticmethod
    def _prepare(target: FunctionTarget) -> None:
        """Pickle a function at its first use."""
        target.pickle = values.dumps_code(target.fn, f"function {target.name}")
        target.function_id = hashlib.sha256(target.pickle).hexdigest()[:24]

    def _pack(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled | None:
        """Pickle the arguments; what is too large to travel inline is returned. Raises when this runtime has ended."""
        if self._core.closed is not None:
            raise self._core.closed
        return pack(call, args, kwargs) if args or kwargs else None

    def _register(self, call: Call) -> Owned:
        """Make the entries of the call's results and pin its arguments. Under the lock."""
        owned = self._core.references.owned
        entry = call.entry = owned.new()
        entry.call = call
        if self._core.host is not None and (running := running_call.get()) is not None:
            self._core.cancels.note_child(running, entry.index)
        if call.extra:
            returns = call.options.num_returns
            if returns != 1 and type(returns) is int and returns > 1:
                call.more = [owned.new() for _ in range(returns - 1)]
                for more in call.more:
                    more.call = call
            for pinned in call.pins:
                pinned.pins += 1
        return entry

    def _start(self, call: Call, large: Large | None, actor: ActorClient | None) -> None:
        """Send the call, or wait for what it needs. Under the lock."""
        if call.extra or large is not None or deadline_var.get() is not None or declared.get() is not None or TRACER in sys.modules:
            call.extra = True
            self._start_extra(call, large, actor)
        if actor is not None:
            self._core.actors.submit(actor, call)
        elif not call.extra:
            self._core.tasks.enqueue(call)
        elif not call.waiting_for:
            self._enqueue_task(call)

    def _start_extra(self, call: Call, large: Large | None, actor: ActorClient | None) -> None:
        timeout_s = self._time_left(call.options.timeout)
        if timeout_s is not None:
            self._arm_timeout(call, timeout_s)
        if (taken := declared_values()) is not None:
            call.values = taken
        if (taken is not None and CAPTURED in taken) or (actor is None and call.options.capture_child_tasks):
            from actorflow._core.worker.captured import capture

            capture(call, actor)
        if actor is not None:
            call.place = actor
        if large is not None:
            self._move_arguments(call, large)
        self.wait_for_arguments(call)

    def wait_for_arguments(self, call: Call) -> None:
        """Have `argument_ready` called for each reference among the arguments whose object is not there yet."""
        for entry in unsettled(call.deps or ()):
            call.waiting_for += 1
            self.when_settled(entry, partial(self.argument_ready, call))

    def _enqueue_task(self, call: Call) -> None:
        failed = self.failed_argument(call)
        if failed is not None:
            self.finish(call, failed)
        else:
            self._core.tasks.enqueue(call)

    @staticmethod
    def failed_argument(call: Call) -> m.Failed | None:
        """The error of an argument; it is the call's then. One that was there may be lost while the call waits for a worker."""
        for entry in call.deps or ():
            if type(entry.outcome) is m.Failed:
                if type(entry) is Owned:
                    entry.seen = True
                return entry.outcome
        return None

    def lacks_arguments(self, call: Call) -> bool:
        """True when an argument has been lost since it was there: the call waits for it once more, and must not be sent yet."""
        if not call.deps or not unsettled(call.deps):
            return False
        self.wait_for_arguments(call)
        return True

    def argument_ready(self, call: Call) -> None:
        """One thing less that the call waits for: it goes on its way when that was the last."""
        call.waiting_for -= 1
        if call.waiting_for or call.state is CallState.DONE:
            return
        if not isinstance(call.place, ActorClient):
            self._enqueue_task(call)
            return
        failed = self.failed_argument(call)
        if failed is not None:
            self.finish(call, failed)
        self._core.actors.pump(call.place)

    def _move_arguments(self, call: Call, large: Large) -> None:
        """Arguments over the inline bound become an object of their own (SEMANTICS 15)."""
        stored = call.stored = self._core.references.owned.new()
        stored.pins, stored.seen = 1, True
        call.waiting_for += 1

        def moved(result: m.Stored | Exception) -> None:
            if isinstance(result, Exception):
                self.settle_entry(stored, self._core.failed(result))
                call.deps = [*(call.deps or ()), stored]
            else:
                self.settle_entry(stored, result)
            if later:
                self.argument_ready(call)
            else:
                call.waiting_for -= 1

        later = False
        self._core.large_arguments.move(large, moved)
        later = True

    def context_of(self, call: Call) -> m.CallContext | None:
        """What this call carries beyond its arguments; None for most."""
        options = call.options
        group = getattr(options, "concurrency_group", "") or ""
        values = call.values
        if not (call.pins or call.stored or call.stream or call.deadline or call.more or group or values or options.num_returns == 0):
            return None
        context = m.CallContext(values=values, group=group, num_returns=1 + len(call.more or ()))
        if options.num_returns == 0:
            context.num_returns = 0
        if call.deadline:
            context.timeout_s = max(call.deadline - self._core.ports.monotonic(), 0.0)
        if call.deps:
            context.deps = [entry.outcome for entry in call.deps]  # type: ignore[misc]  # all are settled by now
        if call.refs:
            context.refs = self._core.references.groups(call.refs)
        if call.stored is not None:
            context.stored = call.stored.outcome  # type: ignore[assignment]
        if call.stream is not None:
            # An attempt after the first begins again at item 0: it may go as far as the consumer has allowed by now.
            context.stream_window = call.stream.credited
        return context

    def _time_left(self, timeout_s: float | None) -> float | None:
        """The smaller of the call's own timeout and what the enclosing deadline leaves (SEMANTICS 7)."""
        enclosing = deadline_var.get()
        if enclosing is None:
            return timeout_s
        left = max(enclosing - self._core.ports.monotonic(), 0.0)
        return left if timeout_s is None else min(left, timeout_s)

    def _arm_timeout(self, call: Call, timeout_s: float) -> None:
        call.extra = True
        call.deadline = self._core.ports.monotonic() + timeout_s
        if call.options.timeout is not None or not call.entry.pins:
            # A direct call without a timeout of its own is cancelled with the block that has one.
            call.timer = self._core.later(timeout_s, lambda: self._timed_out(call))
            call.timeout_s = timeout_s

    def _timed_out(self, call: Call) -> None:
        if call.state is CallState.DONE:
            return
        queued = f"before attempt {call.attempt + 1}" if call.errors or call.losses or call.memory_tries else "before it was sent"
        where = {CallState.WAITING: "while it waited for its arguments", CallState.QUEUED: queued}
        error = TaskTimeoutError(
            f"{call.target.name} did not end within its timeout of {call.timeout_s:g} s: it was cancelled "
            f"{where.get(call.state, 'while it ran')}"
        )
        # The caller hears of it now; the remote end goes on (SEMANTICS 4).
        self._core.cancels.settle_early(call, self._core.failed(error))
        self._core.cancels.cancel(call)

    def submit(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        """See Runtime."""
        if not target.function_id:
            self._prepare(target)
        call = Call(target, options, options.max_retries)
        large = pack(call, args, kwargs) if args or kwargs else None
        return self._submit(call, self._place(call, large) if large is not None else None, None, sys._getframe(2))

    def submit_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        """See Runtime."""
        if actor.max_pending_calls > 0:
            with self._core.lock:
                self._core.actors.check_room(actor)
        retries = options.max_task_retries
        call = Call(method, options, actor.max_task_retries if retries is None else retries)
        large = pack(call, args, kwargs) if args or kwargs else None
        return self._submit(call, self._place(call, large) if large is not None else None, actor, sys._getframe(2))

    def _place(self, call: Call, large: Pickled) -> Large:
        return self._core.large_arguments.place(large, call.target.name)

    def _submit(self, call: Call, large: Large | None, actor: ActorClient | None, frame: Any) -> Any:
        """Start now, and give a reference, a list of them, or a stream."""
        core = self._core
        with core.lock:
            if core.closed is not None:
                raise core.closed
            entry = self._register(call)
            entry.site = (frame.f_code, frame.f_lasti)
            if call.target.kind in STREAMING:
                stream = core.streams.make(call)
                self._start(call, large, actor)
                return stream
            if call.more is None:
                entry.local = 1
                ref: ObjectRef[Any] = ObjectRef(core, entry)
                self._start(call, large, actor)
                return None if call.options.num_returns == 0 else ref
            refs = [core.references.handle(entry) for entry in (entry, *call.more)]
            self._start(call, large, actor)
            return refs

    def call(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        """See Runtime."""
        if target.kind in STREAMING:
            return self.submit(target, args, kwargs, options)
        call = self._call_task(target, args, kwargs, options)
        call.__qualname__ = target.name  # type: ignore[attr-defined]  # What Python shows of a call that nobody has awaited.
        return call

    async def _call_task(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        if not target.function_id:
            self._prepare(target)
        call = Call(target, options, options.max_retries)
        return await self._run_direct(call, self._pack(call, args, kwargs), None)

    def call_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        """See Runtime."""
        if method.kind in STREAMING:
            return self.submit_method(actor, method, args, kwargs, options)
        call = self._call_method(actor, method, args, kwargs, options)
        call.__qualname__ = method.name  # type: ignore[attr-defined]
        return call

    async def _call_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        while actor.max_pending_calls > 0 and actor.pending() >= actor.max_pending_calls:
            await self._core.directory.wait_room(actor, options)
        retries = options.max_task_retries
        call = Call(method, options, actor.max_task_retries if retries is None else retries)
        return await self._run_direct(call, self._pack(call, args, kwargs), actor)

    async def _run_direct(self, call: Call, large: Pickled | None, actor: ActorClient | None) -> Any:
        """Send and wait: no handle is ever made. Cancelling cancels the call, always (SEMANTICS 1)."""
        core = self._core
        placed = await core.large_arguments.place_soon(large) if large is not None else None
        waiter = FutureWaiter(core.gates.current())
        with core.lock:
            if core.closed is not None:
                raise core.closed
            entry = self._register(call)
            entries = (entry, *call.more) if call.more else (entry,)
            for result in entries:
                result.pins, result.seen = 1, True
            entry.waiters = [waiter]
            self._start(call, placed, actor)
        try:
            if entry.outcome is None:
                if core.host is None:
                    await waiter.future
                else:
                    await core.host.lending.wait(waiter.future)
            outcome = entry.outcome
            if type(outcome) is m.Inline and call.more is None:
                if outcome.refs is None:
                    return values.loads(outcome.data, outcome.buffers)
                return core.objects.open_inline(entry, outcome)
            results = [await core.objects.open(result) for result in entries]
            return results[0] if len(results) == 1 else results
        except asyncio.CancelledError:
            if entry.outcome is None:
                with core.lock:
                    core.cancels.cancel(call)
                    core.cancels.left(entry)
            raise
        except TaskTimeoutError:
            with core.lock:
                core.cancels.left(entry)
            raise
        finally:
            with core.lock:
                core.references.unpin_all(entries)

    async def blocked(self, future: asyncio.Future[None]) -> None:
        """Wait; in a worker this may give the CPU back (SEMANTICS 24)."""
        if self._core.host is None:
            await future
        else:
            await self._core.host.lending.wait(future)

    # -- the end of calls

    def on_reply(self, peer: Peer, message: m.Reply) -> None:
        entry = self._entries.get(message.seq)
        call: Call | None = entry.call if entry is not None else None
        outcome = message.outcome
        if (
            call is not None and not call.extra and call.state is PUSHED and message.attempt == call.attempt
            and type(outcome) is m.Inline and outcome.refs is None and not (message.more or message.hold or message.borrowed)
        ):  # fmt: skip
            self._finish_plain(entry, call, outcome, message.run_us)  # type: ignore[arg-type]  # it has a call, so it is there
            return
        if message.borrowed:
            # Whatever became of the call: the worker holds them, and will give back what it believes to be counted (OW-4).
            for index in message.borrowed:
                self._core.references.lent(index, peer.process_id)
        if call is None and self._orphans:
            call = self._orphans.get(message.seq)
        if call is None or message.attempt != call.attempt or call.state is not CallState.PUSHED:
            self._drop_reply(peer, message)
            return
        if type(call.place) is Lease:
            self._core.tasks.completed(call, message.run_us)
        else:
            self._core.actors.completed(call)
        if self._orphans and message.seq in self._orphans:
            self._drop_reply(peer, message)
            self.finish(call, m.Inline(b""))
            return
        if type(outcome) is m.Failed:
            if outcome.lost and self._core.recovery.arguments_lost(call, outcome.lost, outcome.why):
                return
            if call.retries_left and self.try_again(call, outcome):
                return
        if outcome.refs or message.more or message.hold:
            self._adopt_reply(peer, call, message)
        else:
            self.finish(call, outcome)

    def _finish_plain(self, entry: Owned, call: Call, outcome: m.Inline, run_us: int) -> None:
        """`completed` and `finish` for what most calls are: no references, no timer, nothing pinned, one small value."""
        place = call.place
        if type(place) is Lease:
            self._core.tasks.completed(call, run_us)
        else:
            place.inflight.pop(entry.index, None)
            if place.waiters:
                self._core.actors.completed(call)
        call.state = CallState.DONE
        entry.call = None
        entry.outcome = outcome
        waiters = entry.waiters
        if waiters is not None:
            entry.waiters = None
            for waiter in waiters:
                waiter.settled(entry)
            if self._ready.items:
                self._ready.run()
        if not entry.local and self._core.references.owned.settled_free(entry):
            self._core.references.free(entry)

    def _adopt_reply(self, peer: Peer, call: Call, message: m.Reply) -> None:
        """The result contains references: hold the arguments until every owner has counted us (SEMANTICS 13)."""
        pins, call.pins = call.pins, ()

        def registered() -> None:
            if message.hold:
                peer.send(m.Release(message.hold))
            self._core.references.unpin_all(pins)

        outcomes = [message.outcome, *(message.more or ())]
        groups = [group for outcome in outcomes for group in outcome.refs or ()]
        self._core.references.adopt(groups, peer.process_id, registered)
        self.finish(call, message.outcome, message.more)

    def _drop_reply(self, peer: Peer, message: m.Reply) -> None:
        """A late or double answer (SEMANTICS 6): let go of whatever it brought."""
        groups = [group for outcome in (message.outcome, *(message.more or ())) for group in outcome.refs or ()]
        if groups:
            self._core.references.unpin_all(self._core.references.adopt(groups, peer.process_id, lambda: None))
        if message.hold:
            peer.send(m.Release(message.hold))
        self._drop_outcomes([message.outcome, *(message.more or ())])

    def _drop_outcomes(self, outcomes: Sequence[m.Outcome]) -> None:
        for outcome in outcomes:
            if type(outcome) is m.Stored:
                self._core.store.free(outcome)

    def try_again(self, call: Call, outcome: m.Failed) -> bool:
        wanted = call.options.retry_exceptions
        if not wanted or call.cancelled:
            return False
        error = self._core.error_of(outcome)
        if wanted is not True and not isinstance(error, tuple(wanted)):
            return False
        self._core.retries.after_error(call, error)
        return True

    def finish(self, call: Call, outcome: m.Outcome, more: Sequence[m.Outcome] | None = None) -> None:
        """The call is over, for good. Under the lock."""
        call.state = CallState.DONE
        if call.timer is not None:
            call.timer.cancel()
        if self._orphans:
            self._core.cancels.ended(call)
        if call.stream is not None and not call.stream.ended:
            self._core.streams.end(call.stream, outcome)
        if type(call.place) is Lease and (type(outcome) is m.Stored or more):
            self._core.recovery.keep(call, [outcome, *(more or ())])
        self.settle_entries(call, outcome, more)
        pins, call.pins = call.pins, ()
        if pins:
            self._core.references.unpin_all(pins)
        if call.stored is not None:
            stored, call.stored = call.stored, None
            if stored.outcome is None:
                stored.outcome = m.Inline(b"")
            self._core.references.unpin_all((stored,))

    def settle_entries(self, call: Call, outcome: m.Outcome, more: Sequence[m.Outcome] | None = None) -> None:
        """All results of a call have their outcomes."""
        self.settle_entry(call.entry, outcome)
        for position, entry in enumerate(call.more or ()):
            self.settle_entry(entry, more[position] if more is not None and position < len(more) else outcome)

    def settle_entry(self, entry: Owned, outcome: m.Outcome) -> None:
        if not self._core.references.owned.settle(entry, outcome):
            if type(outcome) is m.Stored:
                self._core.store.free(outcome)  # A result that is there was made again for the sake of another one.
            return
        entry.call = None
        if type(outcome) is m.Stored:
            self._core.store.owns(outcome)
        waiters = entry.waiters
        if waiters:
            entry.waiters = None
            for waiter in waiters:
                waiter.settled(entry)
            if self._ready.items:
                self._ready.run()
        if not entry.local and self._core.references.owned.settled_free(entry):
            self._core.references.free(entry)

    def settle_error(self, call: Call, error: BaseException) -> None:
        """End a call with an error of ours."""
        if call.state is not CallState.DONE:
            self.finish(call, self._core.failed(error))

    def settle_cancelled(self, call: Call) -> None:
        """End a call that will not run (any more)."""
        text = f"{call.target.name} was cancelled before it ended"
        self.settle_error(call, TaskCancelledError(f"{text}, and its worker was killed: {call.killed}" if call.killed else text))

    def settled_borrow(self, entry: Borrowed, outcome: m.Outcome) -> None:
        """The outcome of somebody else's object is known here."""
        entry.outcome = outcome
        waiters, entry.waiters = entry.waiters, None
        for waiter in waiters or ():
            waiter.settled(entry)
        if self._ready.items:
            self._ready.run()

    def when_settled(self, entry: Entry, fn: Callable[[], None]) -> None:
        """Call `fn` once when the outcome of `entry`, which is not there yet, is. Whatever it settles is its own affair. Under the lock."""
        assert entry.outcome is None, "whoever has it already has nothing to wait for"
        self.add_waiter(entry, Dependent(fn, self._ready))

    def add_waiter(self, entry: Entry, waiter: Waiter) -> None:
        """Register a waiter with an unsettled entry; what is borrowed is asked of its owner. Under the lock."""
        if entry.outcome is not None:
            waiter.settled(entry)
            return
        if entry.waiters is None:
            entry.waiters = []
        entry.waiters.append(waiter)
        if type(entry) is Borrowed and not entry.fetching:
            entry.fetching = True
            if entry.owner == CLUSTER:
                self._core.durables.fetch(entry)
                return
            peer = self._core.peer(entry.owner, entry.address)
            peer.send(m.Fetch(entry.index))
