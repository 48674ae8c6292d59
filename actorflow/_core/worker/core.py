"""The core of a driver or a worker: it owns objects, submits calls and resolves references.

User code calls in from any thread, under the ports' lock; messages come in on the protocol's loop, a batch at a time, under the same
lock. A call is written to the socket by the thread that makes it whenever the way is free: nobody stands between caller and worker.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import (
    ClusterConnectionError,
    OwnerDiedError,
)
from actorflow._core.base.ids import new_id
from actorflow._core.io.blocking import block_on
from actorflow._core.io.notebook import Ticker, in_notebook, interruptible
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import VisitingNetwork
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.serialization import tracebacks, values
from actorflow._core.worker.actors import ActorCalls
from actorflow._core.worker.caller import Caller
from actorflow._core.worker.cancels import Cancels
from actorflow._core.worker.directory import Directory
from actorflow._core.worker.head_line import HeadLine
from actorflow._core.worker.large_arguments import LargeArguments
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.objects import Objects
from actorflow._core.worker.recovery import Recovery
from actorflow._core.worker.references import References
from actorflow._core.worker.retries import Retries
from actorflow._core.worker.store import StoreClient
from actorflow._core.worker.streams import StreamCalls
from actorflow._core.worker.tasks import LeaseClass, TaskSubmitter
from actorflow._core.worker.turns import Turns
from actorflow._core.worker.wakers import Gates, LoopGate

if TYPE_CHECKING:
    from actorflow._core.io.ports import Arena, Ports, Reads
    from actorflow._core.worker.durable import DurableCalls
    from actorflow._core.worker.groups import GroupCalls
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.passes import Passes
    from actorflow._core.worker.supervision import SupervisionCalls
    from actorflow._core.worker.visitors import Visitors

log = logging.getLogger("actorflow")

BURST_FLUSH = 64
"""Calls, or replies, that are queued on a connection before they are written without waiting for the end of the turn."""
DRAIN_S = 0.1
"""How often dropped handles are counted when nothing else happens (SEMANTICS 18)."""
DRAIN_IDLE_S = 1.0
"""The same where there is no reference: a thousand idle actors must cost no more than the looking."""
SENT_S = 1.0
"""So long a process that ends waits at most until what it has said has left it."""
SENT_POLL_S = 0.001
TAKEN_POLL_S = 0.005
SHUT_DOWN = "actorflow has been shut down in this process"
"""What those get who wait while the program itself ends the runtime."""
Handler = Callable[[Peer, Any], None]
Blocker = Callable[[Coroutine[Any, Any, Any], float | None], Any]
"""How blocking code waits: see io/blocking.py; the simulator has its own."""


class Later:
    """Something to be done after a while; cancelled, it lets go of what it would have done."""

    __slots__ = ("_core", "_fn")

    def __init__(self, core: Core, fn: Callable[[], None]) -> None:
        self._core = core
        self._fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        """Do nothing when the time has come. Under the lock."""
        self._fn = None

    def run(self) -> None:
        """The time has come."""
        if self._fn is not None and self._core.closed is None:
            with self._core.batch():
                fn, self._fn = self._fn, None  # A loop may keep a timer that has run for a while, and with it what it was about.
                if fn is not None:
                    fn()


async def _reading(reads: Reads, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with reads.lent(asyncio.get_running_loop()):
        return await coroutine


def _remote_store(core: Core) -> StoreClient:
    from actorflow._core.worker.remote_store import RemoteStore  # Only for drivers from outside.

    return RemoteStore(core)


class Core:
    """See the module. One per driver and per worker; `host` is the part that runs calls, None in a driver."""

    def __init__(
        self, ports: Ports, identity: Identity, arena: Arena | None = None, blocker: Blocker = block_on, *, outside: bool = False
    ) -> None:
        """`outside`: on a machine that is no node of the cluster; its node keeps its large values."""
        self.ports = ports
        self.lock = ports.lock
        self.identity = identity
        self.blocker = blocker
        self.gates = Gates(ports.lock, self._new_waiting_loop)
        self.turns = Turns(ports.monotonic)
        self.references = References(self)
        self.dropped = self.references.dropped
        self.cancels = Cancels(self)
        self.caller = Caller(self)
        self.objects = Objects(self)
        self.recovery = Recovery(self)
        self.large_arguments = LargeArguments(self)
        self.streams = StreamCalls(self)
        self.directory = Directory(self)
        self.tasks = TaskSubmitter(self)
        self.actors = ActorCalls(self)
        self.retries = Retries(self)
        self._handlers: dict[type, Handler] = {}
        self.store = _remote_store(self) if outside else StoreClient(self, arena)
        self.peers = Peers(ports, identity, self, self._schedule)
        self.host: Host | None = None
        self.node: Peer
        self._head: Peer | None = None
        self.head_line = HeadLine(self)
        self._head_address = ""
        self.node_id = ""
        self.closed: BaseException | None = None
        self._groups: GroupCalls | None = None
        self._supervisions: SupervisionCalls | None = None
        self._durables: DurableCalls | None = None
        self.passes: Passes | None = None
        """With which it visits other jobs; None where that takes none."""
        self._visitors: Visitors | None = None
        if isinstance(ports.network, VisitingNetwork):
            from actorflow._core.worker.passes import Passes

            self.passes = Passes(self)
            ports.network.visit_as(identity.job_id or identity.process_id, self.passes)
        self.on_lost: Callable[[str], None] | None = None
        self.on_log: Callable[[m.WorkerLog], None] | None = None
        self.pending_acks: dict[str, set[int]] = {}
        self._by_process: dict[str, Peer] = {}
        self._dirty: list[Peer] = []
        self._pumps: dict[LeaseClass, None] = {}
        self._in_batch = False
        self.flush_scheduled = False
        self._ready: asyncio.Future[None] | None = None
        self._early: list[tuple[Peer, list[m.AnyMessage]]] = []
        self._kept: set[asyncio.Task[Any]] = set()
        # The public face's way in (see actorflow._runtime.Runtime): bound here, so that a call passes no further layer.
        self.submit = self.caller.submit
        self.submit_method = self.caller.submit_method
        self.call = self.caller.call
        self.call_method = self.caller.call_method
        self.put = self.objects.put
        self.create_actor = self.directory.create_actor
        self.restore_actor = self.directory.restore_actor
        self.find_actor = self.directory.find_actor
        self.kill_actor = self.directory.kill_actor
        self.wait_room = self.directory.wait_room
        self.wait_alive = self.directory.wait_alive
        self.wait_dead = self.directory.wait_dead
        self.outcome = self.directory.outcome
        self.state = self.directory.state

    # -- life

    async def start(self, node_address: str) -> None:
        """Listen, join the node and the head. On the protocol's loop. Raises ClusterConnectionError."""
        loop = self.ports.loop
        await self.peers.listen(self.identity.address)
        self._ready = loop.create_future()
        self.node = self.peers.connect(node_address)
        await self._ready
        self._ready = None
        loop.call_later(DRAIN_IDLE_S, self._drain_timer)

    def close(self, *, abort: bool = False) -> None:
        """Say goodbye to everybody. On the protocol's loop. What still waits here fails."""
        self.end()
        self.peers.close(abort=abort)

    def end(self) -> None:
        """From now on nothing can be asked here, and what still waits fails; the connections stay. On the protocol's loop."""
        error = ClusterConnectionError(SHUT_DOWN)
        with self.batch():
            self.closed = self.closed or error
            self._fail_everything(self.closed)

    def _fail_everything(self, error: BaseException) -> None:
        assert isinstance(error, Exception)
        self.tasks.fail_all(error)
        self.actors.fail_all(error)
        self.store.fail_all(str(error))
        self.large_arguments.wake()
        for entry in list(self.references.owned.entries.values()):
            if entry.outcome is None and entry.call is not None:
                self.caller.settle_error(entry.call, error)
        for borrowed in list(self.references.borrowed.entries.values()):
            if borrowed.outcome is None:
                self.caller.settled_borrow(borrowed, self.failed(error))
        self.directory.fail_all(error)
        if self._groups is not None:
            self._groups.fail_all()
        if self._supervisions is not None:
            self._supervisions.fail_all()

    def _drain_timer(self) -> None:
        if self.closed is None:
            if self.dropped or self.store.unpinned or self.streams.dropped:
                with self.batch():
                    pass
            has_references = self.references.owned.entries or self.references.borrowed.entries
            self.ports.loop.call_later(DRAIN_S if has_references else DRAIN_IDLE_S, self._drain_timer)

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
        if self.streams.dropped:
            self.streams.drain()
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
        if self._in_batch or self.flush_scheduled:
            return
        self.flush_scheduled = True
        ports = self.ports
        if ports.in_loop_thread():
            ports.loop.call_soon(self._flush)
        elif ports.reads is not None:
            ports.reads.leave_for_tick(self._flush)
            # The protocol's thread need not wake for it: this loop does it when its turn ends; should it block before, the tick does.
            running = asyncio._get_running_loop()
            if running is not None:
                running.call_soon(self._flush)
        else:
            ports.loop.call_soon_threadsafe(self._flush)

    def flush_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """What waits to be flushed leaves when the turn of `loop` ends: code was running on its thread that did not see it."""
        loop.call_soon(self._flush)

    def _flush(self) -> None:
        with self.lock:
            if not self.flush_scheduled:
                return
            self.flush_scheduled = False
        with self.batch():
            pass

    def _new_waiting_loop(self, gate: LoopGate) -> None:
        reads = self.ports.reads
        if self.ports.busy_poll is not None:
            gate.busy_poll = self.ports.busy_poll(gate.loop)
        if gate.loop is self.ports.loop:
            return
        if reads is not None:
            reads.adopt(gate.loop)
        if self.blocker is block_on and in_notebook():  # Not a simulated loop: those would never be at rest.
            gate.ticker = Ticker(gate.loop)

    def push(self, peer: Peer, message: m.AnyMessage, *, urgent: bool) -> None:
        """Send on the call path: `urgent` writes now, from this thread; otherwise what follows soon goes with it, up to a burst."""
        queued = peer.post(message)
        if (urgent or queued >= BURST_FLUSH) and not self._in_batch:
            peer.flush()
        elif queued == 1:
            self._schedule(peer)

    def flush_now(self, peer: Peer) -> None:
        """Write what is queued for this peer, unless the running batch will."""
        if not self._in_batch:
            peer.flush()

    def pump_later(self, klass: LeaseClass) -> None:
        """Fill freed workers at the end of the batch, once."""
        self._pumps[klass] = None

    def later(self, delay_s: float, fn: Callable[[], None]) -> Later:
        """Run `fn` on the protocol's loop, under the lock, after a while. Any thread."""
        later = Later(self, fn)
        loop = self.ports.loop
        if self.ports.in_loop_thread():
            loop.call_later(delay_s, later.run)
        else:
            loop.call_soon_threadsafe(loop.call_later, delay_s, later.run)
        return later

    @property
    def head(self) -> Peer:
        """The connection to the head. A worker makes it when it has something to say: most have not, and a cluster has many of them."""
        if self._head is None:
            self._head = self.peers.connect(self._head_address)
        return self._head

    def connect_head(self) -> None:
        """Connect to the head once more."""
        self._head = self.peers.connect(self._head_address)

    @property
    def groups(self) -> GroupCalls:
        """Placement groups; made when there is one."""
        if self._groups is None:
            from actorflow._core.worker.groups import GroupCalls

            self._groups = GroupCalls(self)
        return self._groups

    @property
    def durables(self) -> DurableCalls:
        """Objects that the cluster owns; made when there is one."""
        if self._durables is None:
            from actorflow._core.worker.durable import DurableCalls

            self._durables = DurableCalls(self)
        return self._durables

    @property
    def supervisions(self) -> SupervisionCalls:
        """Supervised actors; made when there are some."""
        if self._supervisions is None:
            from actorflow._core.worker.supervision import SupervisionCalls

            self._supervisions = SupervisionCalls(self)
        return self._supervisions

    def peer(self, process_id: str, address: str) -> Peer:
        """The connection to a process; made when there is none."""
        peer = self._by_process.get(process_id)
        if peer is None or peer.lost or (peer.proof is not None and not self._is_of(peer, address)):
            peer = self._by_process[process_id] = self.peers.connect(address, process_id)
        return peer

    def _is_of(self, peer: Peer, address: str) -> bool:
        if self._visitors is None:
            return True
        from actorflow._core.worker.visitors import is_of

        return is_of(peer, address)

    def all_peers(self) -> list[Peer]:
        """Every connection of this process, to flush them before it ends."""
        return list(dict.fromkeys([self.node, *filter(None, [self._head]), *self._by_process.values()]))

    def has_unsent(self) -> bool:
        """Something that was said is still in this process, perhaps for a connection that is being made: it must not end yet."""
        with self.lock:
            return self.head_line.has_unsent() or any(peer.has_unsent() for peer in self.all_peers())

    async def until_sent(self) -> None:
        """Let leave what has been said, before this process goes. On the protocol's loop. Bounded."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SENT_S
        while self.closed is None and self.has_unsent() and loop.time() < until:  # noqa: ASYNC110  # each of many may be the last
            await asyncio.sleep(SENT_POLL_S)

    def known_peer(self, process_id: str) -> Peer | None:
        """The connection to a process if there is one."""
        return self._by_process.get(process_id)

    def peer_ready(self, peer: Peer) -> None:
        """See PeerHandler."""
        if self._ready is not None and not self._ready.done():
            if peer is self.node:
                self.cancels.grace_s = float(peer.welcome_info.get("cancel_grace_s", self.cancels.grace_s))
                self._head_address = peer.welcome_info["head"]
                self.head_line.returns = "head_returns" in peer.welcome_info
                self._know_cluster(peer.process_id)  # Also that of a driver from outside, whose values lie there.
                if self.identity.role == "driver":
                    self._head = self.peers.connect(self._head_address)  # It makes the job known.
                else:
                    self._ready.set_result(None)
            elif peer is self._head:
                self._ready.set_result(None)
        elif peer is self._head and self.head_line.returns:
            with self.batch():
                self.head_line.ready()
        if peer.proof is not None and peer.proof.key == "VISIT" and not self._of_other_jobs().came(peer):
            return
        with self.batch():
            known = self._by_process.get(peer.process_id)
            if known is None or known.lost:
                self._by_process[peer.process_id] = peer
        if self.ports.reads is not None and peer.role in ("driver", "worker"):
            # The call path: whoever waits for an answer, or has a call to run, reads it.
            peer.share_reads()

    def _of_other_jobs(self) -> Visitors:
        """What stands before this process for peers of other jobs; made when there is one."""
        if self._visitors is None:
            from actorflow._core.worker.visitors import Visitors

            self._visitors = Visitors(self)
        return self._visitors

    def _on_turned_out(self, peer: Peer, message: m.TurnedOut) -> None:
        self._of_other_jobs().turned_us_out(peer, message)

    def _on_pass(self, peer: Peer, message: m.PassGiven) -> None:
        if self.passes is not None:
            self.passes.on_given(peer, message)

    def _know_cluster(self, node_id: str) -> None:
        """Hear those who were too early, before the loop that reads beside this one hears more of them (PE-1)."""
        with self.lock:
            self.node_id = self.identity.node_id = node_id
            early, self._early = self._early, []
            for other, messages in early:
                if not other.lost:
                    self.messages_received(other, messages)

    def messages_received(self, peer: Peer, messages: list[m.AnyMessage]) -> None:
        """See PeerHandler."""
        if not self.node_id:
            # A caller that the node has told of us may be here before the node's welcome: it waits until we know our cluster.
            self._early.append((peer, messages))
            return
        handlers = self._handlers
        with self.lock:
            self._in_batch = True
            try:
                for message in messages:
                    handler = handlers.get(type(message))
                    if handler is None and (handler := self._route(type(message))) is None:
                        log.error("%s sent %s, which a %s does not take", peer, type(message).__name__, self.identity.role)
                        peer.close(abort=True)
                        return
                    handler(peer, message)
                self._finish_batch()
            finally:
                self._in_batch = False

    def take(self, kind: type, handler: Handler) -> None:
        """Let `handler` have the messages of a kind that few processes are sent."""
        self._handlers[kind] = handler

    def _route(self, kind: type) -> Handler | None:
        """Who takes this kind of message; found once, when the first of them is here."""
        find = _ROUTES.get(kind)
        handler = find(self) if find is not None else self.host.route(kind) if self.host is not None else None
        if handler is not None:
            self._handlers[kind] = handler
        return handler

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """See PeerHandler."""
        if peer is self._head and self.head_line.returns and self.closed is None:
            with self.batch():
                self.head_line.lost(reason)
            return
        joining = self._ready is not None and (peer is self.node or peer is self._head)
        if joining and self._ready is not None and not self._ready.done():
            self._ready.set_exception(ClusterConnectionError(f"cannot join the cluster at {peer.address}: {reason}"))
            return
        with self.batch():
            if self._by_process.get(peer.process_id) is peer:
                del self._by_process[peer.process_id]
            if self.closed is not None:
                return
            if peer is getattr(self, "node", None):
                self._cluster_lost(reason)
                return
            if peer is self._head:
                self._part(reason, 0.0)  # Its node hears of that too, and ends in order.
                return
            self.tasks.peer_lost(peer)
            self.actors.peer_lost(peer, reason)
            self.store.peer_lost(peer.process_id)
            if self.host is not None:
                self.host.peer_lost(peer)
            if peer.process_id:
                for entry in self.references.lost(peer.process_id):
                    self.caller.settled_borrow(
                        entry, self.failed(OwnerDiedError(f"the owner of the object, process {entry.owner}, is gone ({reason})"))
                    )

    def alive_by_another_way(self, peer: Peer) -> bool:
        """See KnowsBetter: a node without a head ends, and has not."""
        return peer is self._head and not self.node.lost

    def unsendable(self, peer: Peer, message: m.AnyMessage, error: Exception) -> None:
        """See TakesBack: whoever waits for an answer to it has one here."""
        from actorflow._core.worker.unsendable import take_back  # Hardly ever needed.

        with self.batch():
            take_back(self, peer, message, error)

    def _cluster_lost(self, reason: str) -> None:
        if self.closed is not None:
            return
        error = ClusterConnectionError(f"the connection to the cluster is lost: {reason}. Start again with af.init()")
        self.closed = error
        self._fail_everything(error)
        if self.on_lost is not None:
            self.on_lost(reason)

    def lease_over(self, reason: str) -> None:
        """This worker must not act any more. Under the lock."""
        self._cluster_lost(reason)

    def _on_node_gone(self, peer: Peer, message: m.NodeGone) -> None:
        """What was asked of the node, and calls to processes there, end now, and not when TCP finds out."""
        if peer is self.node:
            self.store.node_leaves(message.node_id, gone=True)
            for process_id, other in list(self._by_process.items()):
                if message.node_id in (other.node_id, process_id):
                    other.close(abort=True)

    def _on_node_leaves(self, peer: Peer, message: m.NodeLeaves) -> None:
        if peer is self.node:
            self.store.node_leaves(message.node_id, gone=False)

    def _on_shutdown(self, peer: Peer, message: m.Shutdown) -> None:
        self.tasks.return_all_idle()
        self._part_when_taken(message.reason or "it was shut down", self.ports.monotonic() + SENT_S)

    def _part_when_taken(self, reason: str, until: float) -> None:
        """Receivers of what was in the last answers have to take it over first: nobody else holds it."""
        if self.host is not None and self.host.holds and self.ports.monotonic() < until:
            self.later(TAKEN_POLL_S, lambda: self._part_when_taken(reason, until))
        elif self.closed is None:
            self._part(reason, until)

    def _part(self, reason: str, until: float) -> None:
        """The cluster ends, or this worker's part in it: what runs here is told first, and what it has said leaves before it."""
        if self.host is not None:
            from actorflow._core.worker.farewell import farewell

            if farewell(self.host, lambda: self._part_when_sent(reason, until)):
                return
        self._part_when_sent(reason, until)

    def _part_when_sent(self, reason: str, until: float) -> None:
        """As `until_sent`: it may have spoken to somebody whose connection is only being made, such as the head."""
        if self.closed is None and self.ports.monotonic() < until and self.has_unsent():
            self.later(SENT_POLL_S, lambda: self._part_when_sent(reason, until))
        else:
            self._cluster_lost(reason)

    def _on_leave(self, peer: Peer, message: m.Leave) -> None:
        """Nobody uses this worker. What it owns would go with it, and so would the calls it has made (SEMANTICS 17)."""
        owned = self.references.owned.entries.values()
        if any(entry.borrowers or entry.call is not None for entry in owned) or (self.host is not None and self.host.holds):
            peer.send(m.Needed())
        else:
            self.tasks.return_all_idle()
            self._part_when_sent(message.reason, self.ports.monotonic() + SENT_S)

    def _on_worker_log(self, peer: Peer, message: m.WorkerLog) -> None:
        if self.on_log is not None:
            self.on_log(message)

    def check_open(self) -> None:
        """Raise when this runtime has ended."""
        if self.closed is not None:
            raise self.closed

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

    # -- blocking code

    def block_on(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> Any:
        """Run a coroutine to its end for blocking code. Raises TimeoutError after `timeout_s`."""
        with self.lock:
            if self._dirty:
                self._flush_dirty()
        if self.host is not None:
            coroutine = self.host.interrupts.blocking(coroutine)
        if self.ports.reads is not None:
            coroutine = _reading(self.ports.reads, coroutine)
        if not in_notebook():
            return self.blocker(coroutine, timeout_s)
        with interruptible():
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


_ROUTES: dict[type, Callable[[Core], Handler]] = {
    m.Reply: lambda core: core.caller.on_reply,
    m.StreamItem: lambda core: core.streams.on_item,
    m.StreamEnd: lambda core: core.streams.on_end,
    m.AddBorrow: lambda core: core.references.on_add_borrow,
    m.BorrowAck: lambda core: core.references.on_borrow_ack,
    m.DropBorrow: lambda core: core.references.on_drop_borrow,
    m.Fetch: lambda core: core.references.on_fetch,
    m.Fetched: lambda core: core.references.on_fetched,
    m.LeaseGranted: lambda core: core.tasks.on_granted,
    m.LeaseRefused: lambda core: core.tasks.on_refused,
    m.LeaseRedirect: lambda core: core.tasks.on_redirect,
    m.LeaseLost: lambda core: core.tasks.on_lost,
    m.ReclaimLease: lambda core: core.tasks.on_reclaim,
    m.GaveBack: lambda core: core.tasks.on_gave_back,
    m.WornOut: lambda core: core.tasks.on_worn_out,
    m.NotListening: lambda core: core.cancels.on_not_listening,
    m.CancelObject: lambda core: core.cancels.on_cancel_object,
    m.ActorState: lambda core: core.actors.on_state,
    m.NotTaken: lambda core: core.actors.on_not_taken,
    m.CreateActorReply: lambda core: core.actors.on_create_reply,
    m.FindActorReply: lambda core: core.directory.on_answer,
    m.GroupWord: lambda core: core.groups.on_word,
    m.SuperviseReply: lambda core: core.supervisions.on_reply,
    m.SupervisionOver: lambda core: core.supervisions.on_over,
    m.StateReply: lambda core: core.directory.on_answer,
    m.DrainReply: lambda core: core.directory.on_answer,
    m.DurablePut: lambda core: core.directory.on_answer,
    m.DurablesFreed: lambda core: core.directory.on_answer,
    m.FetchedDurable: lambda core: core.durables.on_fetched,
    m.StateQuery: lambda core: core.directory.on_state_query,
    m.Allocated: lambda core: core.store.on_allocated,
    m.Pinned: lambda core: core.store.on_pinned,
    m.ReturnSlabs: lambda core: core.store.on_return_slabs,
    m.WriterLost: lambda core: core.store.on_writer_lost,
    m.MaySpill: lambda core: core.store.on_may_spill,
    m.CopyHere: lambda core: core.store.copies.on_copy,
    m.Locate: lambda core: core.store.copies.on_locate,
    m.Rebuild: lambda core: core.recovery.on_rebuild,
    m.WorkerLog: lambda core: core._on_worker_log,
    m.Shutdown: lambda core: core._on_shutdown,
    m.Leave: lambda core: core._on_leave,
    m.NodeGone: lambda core: core._on_node_gone,
    m.NodeLeaves: lambda core: core._on_node_leaves,
    m.PassGiven: lambda core: core._on_pass,
    m.TurnedOut: lambda core: core._on_turned_out,
}
"""Who takes which message. A worker looks up what it is sent, and no more: each entry would cost its start two copied pages."""
