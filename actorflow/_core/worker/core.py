"""The core of a driver or a worker: it owns objects, submits calls and resolves references.

User code calls in from any thread, under the ports' lock; messages come in on the protocol's loop, a batch at a time, under the same
lock. A call is written to the socket by the thread that makes it whenever the way is free: nobody stands between caller and worker.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from actorflow._core.base.errors import (
    ActorAlreadyExistsError,
    ActorNotFoundError,
    ActorUnschedulableError,
    ActorflowError,
    ClusterConnectionError,
    ObjectFreedError,
    OwnerDiedError,
    TaskCancelledError,
    TaskTimeoutError,
)
from actorflow._core.base.ids import new_id
from actorflow._core.io.blocking import block_on
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.serialization import tracebacks, values
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.actors import ActorCalls, ActorClient
from actorflow._core.worker.calls import Call, CallState, pack, unsettled
from actorflow._core.worker.context import deadline as deadline_var
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.references import Entry, References
from actorflow._core.worker.store import StoreClient
from actorflow._core.worker.streams import STREAM_WINDOW, Stream, StreamState, close_message, credit_after
from actorflow._core.worker.tasks import Lease, LeaseClass, TaskSubmitter
from actorflow._core.worker.wakers import Callback, Countdown, FutureWaiter, Gates, Waiter

if TYPE_CHECKING:
    from actorflow._core.base.targets import ActorTarget, FunctionTarget, MethodTarget
    from actorflow._core.io.ports import Arena, Ports
    from actorflow._core.worker.host import Host

log = logging.getLogger("actorflow")

DRAIN_S = 0.1
"""How often dropped handles are counted when nothing else happens (SEMANTICS 18)."""
Blocker = Callable[[Coroutine[Any, Any, Any], float | None], Any]
"""How blocking code waits: see io/blocking.py; the simulator has its own."""


class Core:
    """See the module. One per driver and per worker; `host` is the part that runs calls, None in a driver."""

    def __init__(self, ports: Ports, identity: Identity, arena: Arena | None = None, blocker: Blocker = block_on) -> None:
        self.ports = ports
        self.lock = ports.lock
        self.identity = identity
        self.blocker = blocker
        self.gates = Gates(ports.loop, ports.lock)
        self.references = References(self)
        self.dropped = self.references.dropped
        self.dropped_streams: deque[StreamState] = deque()
        self.tasks = TaskSubmitter(self)
        self.actors = ActorCalls(self)
        self.store = StoreClient(self, arena)
        self.peers = Peers(ports, identity, self, self._schedule)
        self.host: Host | None = None
        self.node: Peer
        self.head: Peer
        self.node_id = ""
        self.closed: BaseException | None = None
        self.on_lost: Callable[[str], None] | None = None
        self.on_log: Callable[[m.WorkerLog], None] | None = None
        self.pending_acks: dict[str, list[int]] = {}
        self._by_process: dict[str, Peer] = {}
        self._dirty: list[Peer] = []
        self._pumps: dict[LeaseClass, None] = {}
        self._in_batch = False
        self._flush_scheduled = False
        self._tokens = 0
        self._answers: dict[int, Callable[[Any], None]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._kept: set[asyncio.Task[Any]] = set()
        self.lifetimes: dict[int, str] = {}
        self._handlers: dict[type, Callable[[Peer, Any], None]] = {
            m.Reply: self._on_reply,
            m.StreamItem: self._on_stream_item,
            m.StreamEnd: self._on_stream_end,
            m.AddBorrow: self.references.on_add_borrow,
            m.BorrowAck: self.references.on_borrow_ack,
            m.DropBorrow: self.references.on_drop_borrow,
            m.Fetch: self.references.on_fetch,
            m.Fetched: self.references.on_fetched,
            m.LeaseGranted: self.tasks.on_granted,
            m.LeaseRefused: self.tasks.on_refused,
            m.LeaseLost: self.tasks.on_lost,
            m.ReclaimLease: self.tasks.on_reclaim,
            m.GaveBack: self.tasks.on_gave_back,
            m.ActorState: self.actors.on_state,
            m.CreateActorReply: self.actors.on_create_reply,
            m.FindActorReply: self._on_answer,
            m.StateReply: self._on_answer,
            m.StateQuery: self._on_state_query,
            m.Allocated: self.store.on_allocated,
            m.Pinned: self.store.on_pinned,
            m.WorkerLog: self._on_worker_log,
            m.Shutdown: self._on_shutdown,
        }

    # -- life

    async def start(self, node_address: str) -> None:
        """Listen, join the node and the head. On the protocol's loop. Raises ClusterConnectionError."""
        loop = self.ports.loop
        await self.peers.listen(self.identity.address)
        self._ready = loop.create_future()
        self.node = self.peers.connect(node_address)
        await self._ready
        info = self.node.welcome_info
        self.node_id = self.node.process_id
        self._ready = loop.create_future()
        self.head = self.peers.connect(info["head"])
        await self._ready
        self._ready = None
        loop.call_later(DRAIN_S, self._drain_timer)

    def handle(self, message: type, handler: Callable[[Peer, Any], None]) -> None:
        """Let the host take a kind of message."""
        self._handlers[message] = handler

    def close(self, *, abort: bool = False) -> None:
        """Say goodbye to everybody. On the protocol's loop. What still waits here fails."""
        error = ClusterConnectionError("actorflow has been shut down in this process")
        with self.batch():
            self.closed = self.closed or error
            self._fail_everything(self.closed)
        self.peers.close(abort=abort)

    def _fail_everything(self, error: BaseException) -> None:
        assert isinstance(error, Exception)
        self.tasks.fail_all(error)
        self.actors.fail_all(error)
        self.store.fail_all(str(error))
        for entry in list(self.references.owned.entries.values()):
            if entry.outcome is None and entry.call is not None:
                self.settle_error(entry.call, error)
        for borrowed in list(self.references.borrowed.entries.values()):
            if borrowed.outcome is None:
                self.settled_borrow(borrowed, self.failed(error))
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer(error)

    def _drain_timer(self) -> None:
        if self.closed is None:
            if self.dropped or self.store.unpinned or self.dropped_streams:
                with self.batch():
                    pass
            self.ports.loop.call_later(DRAIN_S, self._drain_timer)

    # -- batches, flushes, peers

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Hold the lock; at the end, count dropped handles and write everything that was said. On the protocol's loop."""
        with self.lock:
            outer, self._in_batch = self._in_batch, True
            try:
                yield
                if not outer:
                    self._finish_batch()
            finally:
                self._in_batch = outer

    def _finish_batch(self) -> None:
        while self._pumps:
            pumps, self._pumps = self._pumps, {}
            for klass in pumps:
                self.tasks.pump(klass)
        if self.dropped:
            self.references.drain()
        if self.dropped_streams:
            self._drain_streams()
        if self.store.unpinned:
            self.store.drain()
        if self._dirty:
            self._flush_dirty()

    def _flush_dirty(self) -> None:
        dirty, self._dirty = self._dirty, []
        for peer in dirty:
            peer.flush()

    def _schedule(self, peer: Peer) -> None:
        self._dirty.append(peer)
        if self._in_batch or self._flush_scheduled:
            return
        self._flush_scheduled = True
        if self.ports.in_loop_thread():
            self.ports.loop.call_soon(self._flush)
        else:
            self.ports.loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        with self.lock:
            self._flush_scheduled = False
        with self.batch():
            pass

    def push(self, peer: Peer, message: m.AnyMessage, *, urgent: bool) -> None:
        """Send on the call path: `urgent` writes now, from this thread; otherwise what follows soon goes with it."""
        if peer.post(message):
            if urgent and not self._in_batch:
                peer.flush()
            else:
                self._schedule(peer)
        elif urgent and not self._in_batch:
            peer.flush()

    def flush_now(self, peer: Peer) -> None:
        """Write what is queued for this peer, unless the running batch will."""
        if not self._in_batch:
            peer.flush()

    def pump_later(self, klass: LeaseClass) -> None:
        """Fill freed workers at the end of the batch, once."""
        self._pumps[klass] = None

    def later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """Run `fn` on the protocol's loop, under the lock, after a while. Any thread."""

        def run() -> None:
            if self.closed is None:
                with self.batch():
                    fn()

        loop = self.ports.loop
        if self.ports.in_loop_thread():
            loop.call_later(delay_s, run)
        else:
            loop.call_soon_threadsafe(loop.call_later, delay_s, run)

    def peer(self, process_id: str, address: str) -> Peer:
        """The connection to a process; made when there is none."""
        peer = self._by_process.get(process_id)
        if peer is None or peer.lost:
            peer = self._by_process[process_id] = self.peers.connect(address, process_id)
        return peer

    def all_peers(self) -> list[Peer]:
        """Every connection of this process, to flush them before it ends."""
        return list(dict.fromkeys([self.node, self.head, *self._by_process.values()]))

    def known_peer(self, process_id: str) -> Peer | None:
        """The connection to a process if there is one."""
        return self._by_process.get(process_id)

    def peer_ready(self, peer: Peer) -> None:
        """See PeerHandler."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
        with self.batch():
            known = self._by_process.get(peer.process_id)
            if known is None or known.lost:
                self._by_process[peer.process_id] = peer

    def messages_received(self, peer: Peer, messages: list[m.AnyMessage]) -> None:
        """See PeerHandler."""
        handlers = self._handlers
        with self.batch():
            for message in messages:
                handler = handlers.get(type(message))
                if handler is None:
                    log.error("%s sent %s, which a %s does not take", peer, type(message).__name__, self.identity.role)
                    peer.close(abort=True)
                    return
                handler(peer, message)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """See PeerHandler."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ClusterConnectionError(f"cannot join the cluster at {peer.address}: {reason}"))
            return
        with self.batch():
            if self._by_process.get(peer.process_id) is peer:
                del self._by_process[peer.process_id]
            if self.closed is not None:
                return
            if peer is getattr(self, "node", None) or peer is getattr(self, "head", None):
                self._cluster_lost(reason)
                return
            self.tasks.peer_lost(peer)
            self.actors.peer_lost(peer)
            if self.host is not None:
                self.host.peer_lost(peer)
            self._stream_peer_lost(peer)
            if peer.process_id:
                for entry in self.references.lost(peer.process_id):
                    self.settled_borrow(
                        entry, self.failed(OwnerDiedError(f"the owner of the object, process {entry.owner}, is gone ({reason})"))
                    )

    def _cluster_lost(self, reason: str) -> None:
        error = ClusterConnectionError(f"the connection to the cluster is lost: {reason}. Start again with af.init()")
        self.closed = error
        self._fail_everything(error)
        if self.on_lost is not None:
            self.on_lost(reason)

    def _on_shutdown(self, peer: Peer, message: m.Shutdown) -> None:
        self._cluster_lost(message.reason or "it was shut down")

    def _on_worker_log(self, peer: Peer, message: m.WorkerLog) -> None:
        if self.on_log is not None:
            self.on_log(message)

    def check_open(self) -> None:
        """Raise when this runtime has ended."""
        if self.closed is not None:
            raise self.closed

    # -- making calls

    def define(self, peer: Peer, target: FunctionTarget | ActorTarget) -> None:
        """Ship a function to a worker that has not seen it."""
        assert isinstance(getattr(target, "function_id", None), str)
        peer.defined.add(target.function_id)  # type: ignore[union-attr]
        peer.send(m.Define(target.function_id, target.name, target.pickle))  # type: ignore[union-attr]

    @staticmethod
    def _prepare(target: FunctionTarget) -> None:
        """Pickle a function at its first use."""
        target.pickle = values.dumps(target.fn, f"function {target.name}").data
        target.function_id = hashlib.sha256(target.pickle).hexdigest()[:24]

    def _new_call(
        self, target: FunctionTarget | MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any, *, direct: bool
    ) -> tuple[Call, Pickled | None]:
        """Make the call and its entries, pins included. The caller holds the lock when it goes on."""
        if self.closed is not None:
            raise self.closed
        call = Call(None, target, options)  # type: ignore[arg-type]  # the entry follows, when nothing can fail any more
        large = pack(call, args, kwargs)
        with self.lock:
            owned = self.references.owned
            entry = call.entry = owned.new()
            entry.call = call
            if direct:
                entry.pins = 1
                entry.seen = True
            returns = options.num_returns
            if type(returns) is int and returns > 1:
                call.more = [owned.new() for _ in range(returns - 1)]
                for more in call.more:
                    more.call = call
            if call.pins:
                for pinned in call.pins:
                    pinned.pins += 1
        return call, large

    def _start(self, call: Call, large: Pickled | None, actor: ActorClient | None) -> None:
        """Send the call, or wait for what it needs. Under the lock."""
        timeout_s = self._time_left(call.options.timeout)
        if timeout_s is not None:
            self._arm_timeout(call, timeout_s)
        if actor is not None:
            call.place = actor
        if large is not None:
            self._move_arguments(call, large)
        if call.deps:
            for entry in unsettled(call.deps):
                call.waiting_for += 1
                self.when_settled(entry, lambda settled, call=call: self._argument_ready(call))
        if actor is not None:
            self.actors.submit(actor, call)
        elif not call.waiting_for:
            self._enqueue_task(call)

    def _enqueue_task(self, call: Call) -> None:
        failed = self._failed_argument(call)
        if failed is not None:
            self._finish(call, failed)
        else:
            self.tasks.enqueue(call)

    @staticmethod
    def _failed_argument(call: Call) -> m.Failed | None:
        for entry in call.deps or ():
            if type(entry.outcome) is m.Failed:
                if type(entry) is Owned:
                    entry.seen = True
                return entry.outcome
        return None

    def _argument_ready(self, call: Call) -> None:
        call.waiting_for -= 1
        if call.waiting_for or call.state is CallState.DONE:
            return
        if type(call.place) is not ActorClient:
            self._enqueue_task(call)
            return
        failed = self._failed_argument(call)
        if failed is not None:
            self._finish(call, failed)
        self.actors.pump(call.place)

    def _move_arguments(self, call: Call, large: Pickled) -> None:
        """Arguments over the inline bound become an object of their own (SEMANTICS 15): copied now, moved when there is room."""
        stored = call.stored = self.references.owned.new()
        stored.pins, stored.seen = 1, True
        call.waiting_for += 1
        copied = values.owned_bytes(large)

        def moved(result: m.Stored | Exception) -> None:
            if isinstance(result, Exception):
                self._settle_entry(stored, self.failed(result))
                call.deps = [*(call.deps or ()), stored]
            else:
                result.refs = None
                self._settle_entry(stored, result)
            self._argument_ready(call)

        self.store.write(Pickled(copied.data, copied.buffers, None), moved)

    def context_of(self, call: Call, peer: Peer) -> m.CallContext | None:
        """What this call carries beyond its arguments; None for most."""
        options = call.options
        group = getattr(options, "concurrency_group", "") or ""
        if not (call.pins or call.stored or call.stream or call.timer or call.more or group or options.num_returns == 0):
            return None
        context = m.CallContext(group=group, num_returns=1 + len(call.more or ()))
        if options.num_returns == 0:
            context.num_returns = 0
        if call.timer is not None:
            context.timeout_s = max(call.timer[1] - self.ports.monotonic(), 0.0)
        if call.deps:
            context.deps = [entry.outcome for entry in call.deps]  # type: ignore[misc]  # all are settled by now
        if call.refs:
            context.refs = self.references.groups(call.refs)
        if call.stored is not None:
            context.stored = call.stored.outcome  # type: ignore[assignment]
        if call.stream is not None:
            context.stream_window = STREAM_WINDOW
        return context

    def _time_left(self, timeout_s: float | None) -> float | None:
        """The smaller of the call's own timeout and what the enclosing deadline leaves (SEMANTICS 7)."""
        enclosing = deadline_var.get()
        if enclosing is None:
            return timeout_s
        left = max(enclosing - self.ports.monotonic(), 0.0)
        return left if timeout_s is None else min(left, timeout_s)

    def _arm_timeout(self, call: Call, timeout_s: float) -> None:
        call.timer = (timeout_s, self.ports.monotonic() + timeout_s)
        self.later(timeout_s, lambda: self._timed_out(call))

    def _timed_out(self, call: Call) -> None:
        if call.state is CallState.DONE:
            return
        where = {CallState.WAITING: "while it waited for its arguments", CallState.QUEUED: "before it was sent"}
        error = TaskTimeoutError(
            f"{call.target.name} did not end within its timeout of {call.timer[0]:g} s: it was cancelled "
            f"{where.get(call.state, 'while it ran')}"
        )
        failed = self.failed(error)
        self.cancel_call(call, force=False)
        if call.state is not CallState.DONE:
            # The caller hears of it now; the remote end goes on (SEMANTICS 4).
            self._settle_entries(call, failed)
        elif call.entry.outcome is not None:
            call.entry.outcome = failed

    def submit(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        """See Runtime."""
        if not target.function_id:
            self._prepare(target)
        call, large = self._new_call(target, args, kwargs, options, direct=False)
        call.retries_left = options.max_retries
        return self._started(call, large, None)

    def submit_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        """See Runtime."""
        if actor.max_pending_calls > 0:
            with self.lock:
                self.actors.check_room(actor)
        call, large = self._new_call(method, args, kwargs, options, direct=False)
        retries = options.max_task_retries
        call.retries_left = actor.max_task_retries if retries is None else retries
        return self._started(call, large, actor)

    def _started(self, call: Call, large: Pickled | None, actor: ActorClient | None) -> Any:
        call.entry.site = sys._getframe(3)
        call.entry.site = (call.entry.site.f_code.co_filename, call.entry.site.f_lineno)
        with self.lock:
            if call.target.kind in ("generator", "async_generator"):
                stream = self._make_stream(call)
                self._start(call, large, actor)
                return stream
            refs = [self.references.handle(entry) for entry in (call.entry, *(call.more or ()))]
            self._start(call, large, actor)
        if call.options.num_returns == 0:
            return None
        return refs[0] if call.more is None else refs

    def call(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        """See Runtime."""
        if target.kind in ("generator", "async_generator"):
            return self.submit(target, args, kwargs, options)
        return self._call_task(target, args, kwargs, options)

    async def _call_task(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> Any:
        if not target.function_id:
            self._prepare(target)
        call, large = self._new_call(target, args, kwargs, options, direct=True)
        call.retries_left = options.max_retries
        return await self._run_direct(call, large, None)

    def call_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        """See Runtime."""
        if method.kind in ("generator", "async_generator"):
            return self.submit_method(actor, method, args, kwargs, options)
        return self._call_method(actor, method, args, kwargs, options)

    async def _call_method(
        self, actor: ActorClient, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any
    ) -> Any:
        while actor.max_pending_calls > 0 and actor.pending() >= actor.max_pending_calls:
            await self.wait_room(actor, options)
        call, large = self._new_call(method, args, kwargs, options, direct=True)
        retries = options.max_task_retries
        call.retries_left = actor.max_task_retries if retries is None else retries
        return await self._run_direct(call, large, actor)

    async def _run_direct(self, call: Call, large: Pickled | None, actor: ActorClient | None) -> Any:
        """Send and wait: no handle is ever made. Cancelling cancels the call, always (SEMANTICS 1)."""
        entry = call.entry
        waiter = FutureWaiter(self.gates.current())
        with self.lock:
            entry.waiters = [waiter]
            self._start(call, large, actor)
        try:
            if entry.outcome is None:
                await self._blocked(waiter.future)
            outcome = entry.outcome
            if type(outcome) is m.Inline:
                if outcome.refs is None:
                    return values.loads(outcome.data, outcome.buffers)
                return self.open_inline(entry, outcome)
            results = [self.open(entry), *map(self.open, call.more or ())]
            return await results[0] if len(results) == 1 else [await result for result in results]
        except asyncio.CancelledError:
            if entry.outcome is None:
                with self.lock:
                    self.cancel_call(call, force=False)
            raise
        finally:
            with self.lock:
                self.references.unpin_all((entry,))

    async def _blocked(self, future: asyncio.Future[None]) -> None:
        """Wait; in a worker this may give the CPU back (SEMANTICS 24)."""
        if self.host is None:
            await future
        else:
            await self.host.wait_blocked(future)

    # -- the end of calls

    def _on_reply(self, peer: Peer, message: m.Reply) -> None:
        entry = self.references.owned.entries.get(message.seq)
        call: Call | None = entry.call if entry is not None else None
        outcome = message.outcome
        if call is None or message.attempt != call.attempt or call.state is not CallState.PUSHED:
            self._drop_reply(peer, message)
            return
        if message.borrowed:
            for index in message.borrowed:
                self.references.owned.lend(index, peer.process_id)
        if type(call.place) is Lease:
            self.tasks.completed(call, message.run_us)
        else:
            self.actors.completed(call)
        if type(outcome) is m.Failed and call.retries_left and self._try_again(call, outcome):
            return
        if outcome.refs or message.more or message.hold:
            self._adopt_reply(peer, call, message)
        else:
            self._finish(call, outcome)

    def _adopt_reply(self, peer: Peer, call: Call, message: m.Reply) -> None:
        """The result contains references: hold the arguments until every owner has counted us (SEMANTICS 13)."""
        pins, call.pins = call.pins, ()

        def registered() -> None:
            if message.hold:
                peer.send(m.Release(message.hold))
            self.references.unpin_all(pins)

        outcomes = [message.outcome, *(message.more or ())]
        groups = [group for outcome in outcomes for group in outcome.refs or ()]
        self.references.adopt(groups, peer.process_id, registered)
        self._finish(call, message.outcome, message.more)

    def _drop_reply(self, peer: Peer, message: m.Reply) -> None:
        """A late or double answer (SEMANTICS 6): let go of whatever it brought."""
        groups = [group for outcome in (message.outcome, *(message.more or ())) for group in outcome.refs or ()]
        if groups:
            self.references.unpin_all(self.references.adopt(groups, peer.process_id, lambda: None))
        if message.hold:
            peer.send(m.Release(message.hold))
        for outcome in (message.outcome, *(message.more or ())):
            if type(outcome) is m.Stored:
                self.store.free(outcome)

    def _try_again(self, call: Call, outcome: m.Failed) -> bool:
        wanted = call.options.retry_exceptions
        if not wanted or call.cancelled:
            return False
        error = self.error_of(outcome)
        if wanted is not True and not isinstance(error, tuple(wanted)):
            return False
        if call.retries_left > 0:
            call.retries_left -= 1
        if type(call.place) is Lease:
            call.retries_left += 1 if call.retries_left >= 0 else 0
            self.tasks.retry(call)
        else:
            call.attempt += 1
            call.state = CallState.QUEUED
            self.actors.submit(call.place, call)
        return True

    def _finish(self, call: Call, outcome: m.Outcome, more: Sequence[m.Outcome] | None = None) -> None:
        """The call is over, for good. Under the lock."""
        call.state = CallState.DONE
        if call.stream is not None and not call.stream.ended:
            self._end_stream(call.stream, outcome)
        self._settle_entries(call, outcome, more)
        pins, call.pins = call.pins, ()
        if pins:
            self.references.unpin_all(pins)
        if call.stored is not None:
            stored, call.stored = call.stored, None
            if stored.outcome is None:
                stored.outcome = m.Inline(b"")
            self.references.unpin_all((stored,))

    def _settle_entries(self, call: Call, outcome: m.Outcome, more: Sequence[m.Outcome] | None = None) -> None:
        self._settle_entry(call.entry, outcome)
        for position, entry in enumerate(call.more or ()):
            self._settle_entry(entry, more[position] if more is not None and position < len(more) else outcome)

    def _settle_entry(self, entry: Owned, outcome: m.Outcome) -> None:
        if not self.references.owned.settle(entry, outcome):
            return
        entry.call = None
        waiters = entry.waiters
        if waiters:
            entry.waiters = None
            for waiter in waiters:
                waiter.settled(entry)
        if not entry.local and self.references.owned.settled_free(entry):
            self.references.free(entry)

    def settle_error(self, call: Call, error: BaseException) -> None:
        """End a call with an error of ours."""
        if call.state is not CallState.DONE:
            self._finish(call, self.failed(error))

    def settle_cancelled(self, call: Call) -> None:
        """End a call that will not run (any more)."""
        self.settle_error(call, TaskCancelledError(f"{call.target.name} was cancelled before it ended"))

    def settled_borrow(self, entry: Borrowed, outcome: m.Outcome) -> None:
        """The outcome of somebody else's object is known here."""
        entry.outcome = outcome
        waiters, entry.waiters = entry.waiters, None
        for waiter in waiters or ():
            waiter.settled(entry)

    def when_settled(self, entry: Entry, fn: Callable[[Any], None]) -> None:
        """Call `fn(entry)` when the outcome is there. Under the lock."""
        self.add_waiter(entry, Callback(fn))

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
            peer = self.peer(entry.owner, entry.address)
            peer.send(m.Fetch(entry.index))

    # -- cancelling

    def cancel_entry(self, entry: Entry, *, force: bool) -> bool:
        """`ref.cancel()`: acts for all who wait (SEMANTICS 3). False when there was nothing left to cancel."""
        if type(entry) is Borrowed:
            raise ActorflowError("only the owner of a reference can cancel its call; this process has borrowed it")
        with self.lock:
            call = entry.call
            if call is None:
                return False
            self.cancel_call(call, force=force)
            return True

    def cancel_call(self, call: Call, *, force: bool) -> None:
        """Under the lock. Queued: settled here. Pushed: the worker is asked, and its answer settles it."""
        if call.cancelled or call.state is CallState.DONE:
            return
        call.cancelled = True
        if type(call.place) is ActorClient:
            self.actors.cancel(call)
        elif call.state is CallState.WAITING:
            self.settle_cancelled(call)
        else:
            self.tasks.cancel(call, force=force)

    def send_cancel(self, peer: Peer, call: Call) -> None:
        """Ask the worker."""
        peer.send(m.Cancel(call.entry.index, call.attempt))
        self.flush_now(peer)

    # -- waiting for objects

    async def wait_settled(self, entry: Entry) -> None:
        """Wait for the outcome; a cancelled wait may cancel the call (SEMANTICS 1)."""
        gate = self.gates.current()
        with self.lock:
            if entry.outcome is not None:
                return
            waiter = FutureWaiter(gate)
            self.add_waiter(entry, waiter)
        try:
            await self._blocked(waiter.future)
        except asyncio.CancelledError:
            self._wait_cancelled(entry, waiter)
            raise

    def _wait_cancelled(self, entry: Entry, waiter: Waiter) -> None:
        with self.lock:
            if entry.waiters and waiter in entry.waiters:
                entry.waiters.remove(waiter)
            if type(entry) is Owned and entry.outcome is None and not entry.waiters and not entry.pins and not entry.borrowers:
                call = entry.call
                if call is not None:
                    entry.seen = True
                    self.cancel_call(call, force=False)

    async def wait_many(self, entries: Sequence[Entry], count: int) -> None:
        """Wait until `count` of the entries are settled. Stopping to wait cancels nothing (SEMANTICS 2)."""
        gate = self.gates.current()
        with self.lock:
            missing = [entry for entry in entries if entry.outcome is None]
            left = count - (len(entries) - len(missing))
            if left <= 0:
                return
            waiter = Countdown(gate, left)
            for entry in missing:
                self.add_waiter(entry, waiter)
        try:
            await self._blocked(waiter.future)
        finally:
            if waiter.left > 0:
                with self.lock:
                    for entry in missing:
                        if entry.waiters and waiter in entry.waiters:
                            entry.waiters.remove(waiter)

    # -- values

    def open_inline(self, entry: Entry, outcome: m.Inline) -> Any:
        """The value of a small object."""
        if outcome.refs is None:
            return values.loads(outcome.data, outcome.buffers)
        with self.lock:
            table = self.references.table(outcome.refs)
        return values.loads(outcome.data, outcome.buffers, table)

    async def open(self, entry: Entry) -> Any:
        """The value of any object, or its error raised."""
        outcome = entry.outcome
        if type(outcome) is m.Inline:
            return self.open_inline(entry, outcome)
        if type(outcome) is m.Failed:
            if type(entry) is Owned:
                entry.seen = True
            raise self.error_of(outcome)
        assert type(outcome) is m.Stored
        return await self.open_stored(outcome)

    async def open_stored(self, outcome: m.Stored) -> Any:
        """The value of an object in shared memory: its buffers are read-only views of it (SEMANTICS 14)."""
        data, buffers = await self.store.read(outcome)
        with self.lock:
            table = self.references.table(outcome.refs)
        return values.loads(data, buffers, table)

    async def put(self, value: Any) -> ObjectRef[Any]:
        """Make an object that this process owns."""
        self.check_open()
        pickled = values.dumps(value)
        refs = [ref._entry for ref in pickled.refs] if pickled.refs else []
        if pickled.size() <= values.INLINE_BYTES_MAX:
            pickled = values.owned_bytes(pickled)
            with self.lock:
                groups = self.references.groups(refs) if refs else None
                entry = self.references.owned.new()
                entry.outcome = m.Inline(pickled.data, pickled.buffers, groups)  # type: ignore[arg-type]
                for inner in refs:
                    inner.pins += 1
                return self.references.handle(entry)
        return await self._put_large(pickled, refs)

    async def _put_large(self, pickled: Pickled, refs: list[Entry]) -> ObjectRef[Any]:
        from actorflow._core.worker.store import layout

        waiter = FutureWaiter(self.gates.current())
        answer: list[Any] = []

        def allocated(message: m.Allocated) -> None:
            answer.append(message)
            waiter.settled(message)

        with self.lock:
            for inner in refs:
                inner.pins += 1
            self.store.allocate(layout(pickled)[0], allocated)
            self.flush_now(self.node)
        await waiter.future
        if answer[0].error:
            from actorflow._core.base.errors import ObjectStoreFullError

            raise ObjectStoreFullError(answer[0].error)
        stored = self.store.fill(answer[0], pickled)
        with self.lock:
            entry = self.references.owned.new()
            entry.outcome = stored
            return self.references.handle(entry)

    def freed(self, entry: Owned) -> None:
        """An object of ours is gone. Under the lock."""
        outcome = entry.outcome
        if type(outcome) is m.Stored:
            self.store.free(outcome)
        elif type(outcome) is m.Failed and not entry.seen:
            self._log_unseen(entry, outcome)
        elif entry.index in self.lifetimes:
            self.actors.out_of_scope(self.lifetimes.pop(entry.index))

    def _log_unseen(self, entry: Owned, outcome: m.Failed) -> None:
        error = self.error_of(outcome)
        if isinstance(error, TaskCancelledError) or self.closed is not None:
            return
        where = f"{entry.site[0]}:{entry.site[1]}" if entry.site else "an unknown place"
        log.error("a call submitted at %s failed, and nobody looked at its result: %s: %s", where, type(error).__name__, error)

    def forget_outcome(self, entry: Borrowed) -> None:
        """A borrowed object is no longer referred to here. Its owner frees what it owns."""

    def ghost(self, index: int) -> Owned:
        """Stands for an object of ours that is gone (OW-2)."""
        entry = Owned(index)
        entry.seen = True
        entry.outcome = self.failed(ObjectFreedError(f"object {index} of this process was freed: its last reference was dropped"))
        return entry

    def freed_outcome(self, entry: Borrowed) -> m.Failed:
        """What a borrower is told about an object that its owner does not have any more."""
        return self.failed(ObjectFreedError(f"object {entry.index} of process {entry.owner} was freed: its last reference was dropped"))

    # -- errors as outcomes

    def failed(self, error: BaseException) -> m.Failed:
        """An error of ours as an outcome: it travels as it is, without a remote traceback."""
        return m.Failed(b"\0" + values.dumps_plain(error))

    def error_of(self, outcome: m.Failed) -> BaseException:
        """The exception to raise for an outcome; a new one each time."""
        if outcome.error[:1] == b"\0":
            error = values.loads_plain(outcome.error[1:])
            assert isinstance(error, BaseException)
            return error
        return tracebacks.restore(outcome.error[1:], loads=values.loads_plain)

    # -- streams

    def _make_stream(self, call: Call) -> Stream[Any]:
        call.stream = StreamState(call)
        call.entry.pins += 1
        call.entry.seen = True
        return Stream(self, call.stream)

    def _stream_of(self, seq: int, attempt: int) -> StreamState | None:
        entry = self.references.owned.entries.get(seq)
        call = entry.call if entry is not None else None
        if call is None or call.attempt != attempt:
            return None
        state: StreamState | None = call.stream
        return state

    def _on_stream_item(self, peer: Peer, message: m.StreamItem) -> None:
        state = self._stream_of(message.seq, message.attempt)
        outcome = message.outcome

        def registered() -> None:
            if message.hold:
                peer.send(m.Release(message.hold))

        pins = self.references.adopt(outcome.refs, peer.process_id, registered)
        if state is None or state.closed or message.index < state.received:
            # Closed, or a retried generator that begins again: what was received already is dropped.
            self.references.unpin_all(pins)
            if type(outcome) is m.Stored:
                self.store.free(outcome)
            return
        state.received = message.index + 1
        entry = self.references.owned.new()
        entry.outcome, entry.local, entry.seen = outcome, 1, True
        state.items.append(entry)
        state.wake()

    def _on_stream_end(self, peer: Peer, message: m.StreamEnd) -> None:
        entry = self.references.owned.entries.get(message.seq)
        call: Call | None = entry.call if entry is not None else None
        if call is None or call.attempt != message.attempt or call.state is not CallState.PUSHED:
            return
        if type(call.place) is Lease:
            self.tasks.completed(call, 1_000_000)
        else:
            self.actors.completed(call)
        if type(message.error) is m.Failed and call.retries_left and self._try_again(call, message.error):
            return
        self._finish(call, message.error or m.Inline(b""))

    def _end_stream(self, state: StreamState, outcome: m.Outcome) -> None:
        state.ended = True
        if type(outcome) is m.Failed:
            state.error = self.error_of(outcome)
        state.call.entry.pins -= 1
        state.wake()

    def _stream_peer_lost(self, peer: Peer) -> None:
        """Streams end with their call: the lease or the actor settles it."""

    async def next_item(self, state: StreamState) -> Owned:
        """The next entry, with one handle counted; StopAsyncIteration or the error at the end."""
        while True:
            gate = self.gates.current()
            with self.lock:
                if state.items:
                    entry = state.items.popleft()
                    credit = credit_after(state)
                    if credit is not None and not state.ended:
                        self._send_to_producer(state, credit)
                    return entry
                if state.ended or state.closed:
                    error, state.error = state.error, None
                    if error is not None and not state.closed:
                        raise error
                    raise StopAsyncIteration
                waiter = FutureWaiter(gate)
                state.waiters.append(waiter)
            await self._blocked(waiter.future)

    async def open_and_drop(self, entry: Owned) -> Any:
        """The value of an item that nobody else refers to."""
        try:
            return await self.open(entry)
        finally:
            self.dropped.append(entry)

    def _send_to_producer(self, state: StreamState, message: m.StreamCredit | m.StreamClose) -> None:
        place = state.call.place
        peer = place.peer if place is not None and state.call.state is CallState.PUSHED else None
        if peer is not None and not peer.lost:
            peer.send(message)

    def close_stream(self, state: StreamState) -> None:
        """Stop the producer; drop what has not been taken."""
        with self.lock:
            if state.closed:
                return
            state.closed = True
            while state.items:
                self.dropped.append(state.items.popleft())
            if not state.ended:
                if state.call.state is CallState.PUSHED:
                    self._send_to_producer(state, close_message(state))
                else:
                    self.cancel_call(state.call, force=False)
            state.wake()

    def _drain_streams(self) -> None:
        while self.dropped_streams:
            self.close_stream(self.dropped_streams.popleft())

    # -- actors

    def create_actor(self, target: ActorTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: Any) -> ActorClient:
        """See Runtime."""
        from actorflow._core.worker.create import create_actor

        return create_actor(self, target, args, kwargs, options)

    def restore_actor(self, actor_id: str, lifetime: ObjectRef[Any] | None, class_name: str, class_blob: bytes) -> ActorClient:
        """A handle arrived: the client of its actor."""
        with self.lock:
            client = self.actors.client(actor_id, class_name, watch=True)
            client.class_blob = client.class_blob or class_blob
            if client.lifetime is None and lifetime is not None:
                client.lifetime = lifetime
        return client

    async def wait_actor(self, actor: ActorClient, what: str) -> None:
        """Wait until an actor is `alive` (or dead), `dead`, or has `room`."""
        gate = self.gates.current()
        waiter = FutureWaiter(gate)
        with self.lock:
            if not self.actors.wait(actor, what, waiter):
                return
        await self._blocked(waiter.future)

    async def wait_room(self, actor: ActorClient, options: Any) -> None:
        """See Runtime."""
        await self.wait_actor(actor, "room")

    async def wait_alive(self, actor: ActorClient) -> None:
        """See Runtime."""
        await self.wait_actor(actor, "alive")
        if actor.state == "dead":
            raise self.actors.dead_error(actor)

    async def wait_dead(self, actor: ActorClient) -> str:
        """See Runtime."""
        await self.wait_actor(actor, "dead")
        return actor.died.reason if actor.died is not None else "unknown"

    async def outcome(self, call: Any) -> BaseException | None:
        """See Runtime: how the call behind an ObjectRef or a Stream ended, without its value."""
        if isinstance(call, Stream):
            state = call._state
            while not state.ended:
                waiter = FutureWaiter(self.gates.current())
                with self.lock:
                    if state.ended:
                        break
                    state.waiters.append(waiter)
                await waiter.future
            return state.error
        entry = call._entry
        await self.wait_many([entry], 1)
        if type(entry) is Owned:
            entry.seen = True
        return self.error_of(entry.outcome) if type(entry.outcome) is m.Failed else None

    async def find_actor(self, name: str, namespace: str | None) -> tuple[ActorClient, bytes]:
        """See Runtime."""
        namespace = namespace or self.identity.namespace
        reply: m.FindActorReply = await self.ask(lambda token: m.FindActor(token, name, namespace))
        if not reply.actor_id:
            raise ActorNotFoundError(self._not_found(reply, name, namespace))
        # What is found by name is kept alive by its owner's handles, not by ours: names do not count (SEMANTICS 23).
        return self.restore_actor(reply.actor_id, None, reply.class_name, reply.methods), reply.methods

    @staticmethod
    def _not_found(reply: m.FindActorReply, name: str, namespace: str) -> str:
        text = f"there is no actor named {name!r} in namespace {namespace!r}"
        if reply.near:
            text += f"; near names: {', '.join(map(repr, reply.near))}"
        if reply.elsewhere:
            text += f"; namespaces that have it: {', '.join(map(repr, reply.elsewhere))}"
        return text

    async def state(self, kind: str, *, limit: int, timeout_s: float) -> list[dict[str, Any]]:
        """See Runtime."""
        reply: m.StateReply = await self.ask(lambda token: m.StateQuery(token, kind, limit, timeout_s))
        if reply.missing:
            log.warning("af.state %s: no answer in time from %s", kind, ", ".join(reply.missing))
        rows: list[dict[str, Any]] = msgspec.json.decode(reply.rows)
        return rows

    async def kill_actor(self, actor: ActorClient, *, no_restart: bool, graceful: bool) -> None:
        """See Runtime."""
        with self.lock:
            self.head.send(m.KillActor(actor.actor_id, no_restart, graceful))
        if no_restart:
            await self.wait_actor(actor, "dead")

    def refused_error(self, reason: str) -> Exception:
        """An actor that the head did not take: a name clash or an impossible demand."""
        if "name" in reason:
            return ActorAlreadyExistsError(reason)
        return ActorUnschedulableError(reason)

    # -- questions to the head

    async def ask(self, make: Callable[[int], m.AnyMessage]) -> Any:
        """Send a message with a token to the head and wait for its answer."""
        waiter = FutureWaiter(self.gates.current())
        answer: list[Any] = []

        def answered(message: Any) -> None:
            answer.append(message)
            waiter.settled(message)

        self.check_open()
        with self.lock:
            self._tokens += 1
            token = self._tokens
            self._answers[token] = answered
            self.head.send(make(token))
            self.flush_now(self.head)
        try:
            await waiter.future
        finally:
            with self.lock:
                self._answers.pop(token, None)
        if isinstance(answer[0], BaseException):
            raise answer[0]
        return answer[0]

    def _on_answer(self, peer: Peer, message: m.FindActorReply | m.StateReply) -> None:
        answered = self._answers.pop(message.token, None)
        if answered is not None:
            answered(message)

    def _on_state_query(self, peer: Peer, message: m.StateQuery) -> None:
        from actorflow._core.worker.inspect import answer_query

        peer.send(m.StateReply(message.token, answer_query(self, message)))

    # -- blocking code

    def block_on(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> Any:
        """Run a coroutine to its end for blocking code. Raises TimeoutError after `timeout_s`."""
        return self.blocker(coroutine, timeout_s)

    def concurrent_future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        """See ObjectRef.future."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        async def carry() -> None:
            try:
                future.set_result(await ref)
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise

        loop = self.ports.loop
        loop.call_soon_threadsafe(lambda: self._keep(loop.create_task(carry(), name="ObjectRef.future")))
        return future

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def new_id(self) -> str:
        """A fresh random id."""
        return new_id(self.ports.rng)
