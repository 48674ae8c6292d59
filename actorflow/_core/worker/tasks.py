"""Submitting tasks: leases are asked of the node, tasks are pushed straight to the leased workers. Runs under the ports' lock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import NodeDiedError, OutOfMemoryError, RuntimeEnvError, WorkerCrashedError
from actorflow._core.base.ids import task_name
from actorflow._core.policy.pipelining import average, may_push
from actorflow._core.policy.retry_pauses import pause_after_loss_s, pause_for_memory_s
from actorflow._core.protocol.messages import (
    CancelLease,
    GaveBack,
    LeaseGranted,
    LeaseLost,
    LeaseRedirect,
    LeaseRefused,
    ReclaimLease,
    RequestLease,
    ReturnLease,
    Stored,
    TaskCall,
    WornOut,
)
from actorflow._core.worker.calls import Call, CallState, unschedulable

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

LEASE_IDLE_S = 0.02
"""A lease without work is kept this long for the next task, unless the node says that somebody waits."""
REQUESTS_MAX = 16
"""Unanswered lease requests per scheduling class: bounds what a burst of tasks asks of the node at once."""
IN_VAIN_PAUSE_S, IN_VAIN_PAUSE_S_MAX = 0.01, 0.5
IN_VAIN_MAX = 1_000
"""Pauses before a lease is asked for anew when the node that we are sent to is gone, and of how many nodes that is remembered."""
LOSS_REPORT_S = 1.0
"""How long the node is given to say why a worker died before the loss is reported without a cause."""


class Lease:
    """The right to push tasks to one worker."""

    __slots__ = (
        "closing", "inflight", "klass", "lease_id", "load_us", "lost", "node", "peer", "pushed", "reclaimed", "worker_id", "worn",
    )  # fmt: skip

    def __init__(self, lease_id: int, klass: LeaseClass, peer: Peer, worker_id: str, node: Peer) -> None:
        self.lease_id = lease_id
        self.klass = klass
        self.peer = peer
        self.worker_id = worker_id
        self.node = node
        """The node that has granted it."""
        self.inflight: dict[int, Call] = {}
        self.load_us = 0.0
        self.pushed = 0
        """Calls ever pushed: with `max_calls` the worker is retired after so many."""
        self.reclaimed = False
        self.worn = False
        """A task was interrupted there: the worker is not used again."""
        self.closing = False
        self.lost = False


class Request:
    """A lease that is asked for."""

    __slots__ = ("excluded", "klass", "node")

    def __init__(self, klass: LeaseClass, node: Peer) -> None:
        self.klass = klass
        self.node = node
        """Who is asked."""
        self.excluded: list[str] = []
        """Nodes that have sent it on."""


class LeaseClass:
    """Tasks that may share workers: the same resources, environment and priority, and the same other node for their arguments."""

    __slots__ = ("arguments_on", "full", "in_group", "key", "leases", "options", "queue", "requests", "sweeping")

    def __init__(self, key: Any, options: Any, arguments_on: str = "") -> None:
        self.key = key
        self.arguments_on = arguments_on
        """The other node that has the most of the arguments of its tasks (worker/locality.py); empty for most classes."""
        self.options = options
        self.queue: deque[Call] = deque()
        self.leases: dict[int, Lease] = {}
        self.requests: set[int] = set()
        self.full = False
        """No lease takes another call now; cleared whenever one ends."""
        self.sweeping = False
        self.in_group: bool = options.in_group
        """Its tasks run in a placement group: another room knows whom to ask (worker/groups.py)."""

    @property
    def over(self) -> bool:
        """True while it has neither work nor leases."""
        return not (self.queue or self.leases or self.requests)


class TaskSubmitter:
    """All tasks of one process on their way to workers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._classes: dict[Any, LeaseClass] = {}
        self._requests: dict[int, Request] = {}
        self._leases: dict[int, Lease] = {}
        self._next_lease = 1
        self._in_vain: dict[str, int] = {}
        """Nodes that we were sent to and could not reach, and how often."""
        self._run_us: dict[str, float] = {}
        """Moving average of the time one call of a function runs, by its id: it sets how deep calls are pipelined."""

    # -- submitting

    def enqueue(self, call: Call) -> None:
        """The call's arguments are there: send it when a worker is free."""
        key = call.options.scheduling_key
        node_id = self._other_holder(call) if call.extra and call.deps else ""
        klass = self._classes.get((key, node_id) if node_id else key)
        if klass is None:
            klass = self._new_class(key, call.options, node_id)
        call.state = CallState.QUEUED
        klass.queue.append(call)
        if not klass.full:
            self._pump(klass)

    def _other_holder(self, call: Call) -> str:
        """The other node that has the most of the arguments of a call; empty when there is none."""
        me = self._core.node_id
        if call.options.in_group or all(type(entry.outcome) is not Stored or entry.outcome.node == me for entry in call.deps or ()):
            return ""
        from actorflow._core.worker import locality  # Where there is one node it is never needed.

        return locality.other_node(self._core, call)

    def _new_class(self, key: Any, options: Any, node_id: str) -> LeaseClass:
        if node_id:
            for old in [old for old, klass in self._classes.items() if klass.arguments_on and klass.over]:
                del self._classes[old]  # LH-2
            key = key, node_id
        klass = self._classes[key] = LeaseClass(key, options, node_id)
        return klass

    def _pump(self, klass: LeaseClass) -> None:
        queue = klass.queue
        while queue:
            call = queue[0]
            if call.state is not CallState.QUEUED:
                queue.popleft()
                continue
            if call.extra and self._core.caller.lacks_arguments(call):
                queue.popleft()
                call.state = CallState.WAITING
                continue
            if call.extra and call.deps and (failed := self._core.caller.failed_argument(call)) is not None:
                queue.popleft()
                self._core.caller.finish(call, failed)
                continue
            lease = self._pick(klass, call)
            if lease is None:
                klass.full = bool(klass.leases)
                break
            queue.popleft()
            self._push(lease, call)
        if queue:
            self._request(klass)
        elif klass.requests:
            self._withdraw(klass)

    def _pick(self, klass: LeaseClass, call: Call) -> Lease | None:
        run_us = self._run_us.get(call.target.function_id, -1.0)  # type: ignore[union-attr]  # tasks have function targets
        retriable = call.retries_left != 0
        best: Lease | None = None
        for lease in klass.leases.values():
            if lease.closing or lease.reclaimed or lease.lost:
                continue
            if best is not None and lease.load_us >= best.load_us and len(lease.inflight) >= len(best.inflight):
                continue
            if may_push(inflight=len(lease.inflight), load_us=lease.load_us, run_us=run_us, retriable=retriable):
                best = lease
        return best

    def _push(self, lease: Lease, call: Call) -> None:
        target: Any = call.target
        peer = lease.peer
        core = self._core
        if target.function_id not in peer.defined:
            core.caller.define(peer, target)
        call.state = CallState.PUSHED
        call.place = lease
        inflight = lease.inflight
        first = not inflight
        seq = call.entry.index
        inflight[seq] = call
        lease.pushed += 1
        if call.options.calls_max and lease.pushed >= call.options.calls_max:
            lease.reclaimed = True
        lease.load_us += self._run_us.get(target.function_id, 0.0)
        message = TaskCall(seq, call.attempt, lease.lease_id, target.function_id, call.args)
        if call.extra:
            message.buffers = call.buffers
            message.context = core.caller.context_of(call)
        core.push(peer, message, urgent=first)

    def _request(self, klass: LeaseClass) -> None:
        if klass.in_group:
            for node in self._core.groups.route(klass):
                self._request_of(klass, node)
            return
        want = min(len(klass.queue), REQUESTS_MAX) - len(klass.requests)
        for _ in range(want):
            self._request_of(klass, self._core.node)

    def _request_of(self, klass: LeaseClass, node: Peer) -> None:
        lease_id = self._next_lease
        self._next_lease += 1
        klass.requests.add(lease_id)
        request = self._requests[lease_id] = Request(klass, node)
        self._ask(lease_id, request)

    def _ask(self, lease_id: int, request: Request) -> None:
        options, call = request.klass.options, request.klass.queue[0]
        wanted = (options.resources, options.priority, options.env, call.target.name, options.placement)
        message = RequestLease(lease_id, *wanted, request.excluded, retriable=call.retries_left != 0)
        if call.extra and (call.deps or call.stored is not None):
            from actorflow._core.worker import locality

            message.locality = locality.bytes_by_node(self._core, call)
        request.node.send(message)

    def _withdraw(self, klass: LeaseClass) -> None:
        for lease_id in klass.requests:
            request = self._requests.pop(lease_id, None)
            if request is not None:
                request.node.send(CancelLease(lease_id))
        klass.requests.clear()

    def on_redirect(self, peer: Peer, message: LeaseRedirect) -> None:
        """Another node had better be asked."""
        request = self._requests.get(message.lease)
        if request is None or request.node is not peer:
            return
        if not request.klass.queue:
            del self._requests[message.lease]
            request.klass.requests.discard(message.lease)
            return
        if message.node_id != request.klass.arguments_on:  # That one may send it back: it was not asked for want of room here.
            request.excluded.append(peer.process_id)
        request.node = self._core.peer(message.node_id, message.address)
        if request.node.lost:
            self._node_lost(request.node)
        else:
            self._ask(message.lease, request)

    # -- the life of a lease

    def on_granted(self, peer: Peer, message: LeaseGranted) -> None:
        """A worker is ours."""
        request = self._requests.pop(message.lease, None)
        if request is None:
            peer.send(ReturnLease(message.lease))
            return
        klass = request.klass
        klass.requests.discard(message.lease)
        self._in_vain.pop(peer.process_id, None)
        worker = self._core.peer(message.worker_id, message.address)
        lease = Lease(message.lease, klass, worker, message.worker_id, peer)
        klass.leases[message.lease] = self._leases[message.lease] = lease
        klass.full = False
        if worker.lost:
            self._connection_lost(lease)
        self._pump(klass)
        if not lease.inflight:
            self._sweep_later(klass)

    def on_refused(self, peer: Peer, message: LeaseRefused) -> None:
        """This can never be granted: all tasks of the class fail."""
        request = self._requests.pop(message.lease, None)
        if request is None:
            return
        klass = request.klass
        klass.requests.discard(message.lease)
        if message.kind == "moved":
            if klass.queue:
                self._core.groups.contradicted(klass)
            return
        if klass.leases and message.kind not in ("infeasible", "environment"):
            return
        queue, klass.queue = klass.queue, deque()
        for call in queue:
            if call.state is CallState.QUEUED:
                error: Exception
                if message.kind == "infeasible":
                    error = unschedulable(call, message.reason)
                elif message.kind == "environment":
                    error = RuntimeEnvError.explain(which=call.target.name, what="did not run", why=message.reason)
                else:
                    error = WorkerCrashedError(f"no worker could be started for {call.target.name}: {message.reason}")
                self._core.caller.settle_error(call, error)

    def fail_class(self, klass: LeaseClass, error_of: Callable[[Call], Exception], *, drop: bool) -> None:
        """None of the tasks that wait can ever run. `drop`: nor will others of this class."""
        self._withdraw(klass)
        queue, klass.queue = klass.queue, deque()
        if drop and self._classes.get(klass.key) is klass:
            del self._classes[klass.key]
        for call in queue:
            if call.state is CallState.QUEUED:
                self._core.caller.settle_error(call, error_of(call))

    def asked_by(self, klass: LeaseClass) -> list[Peer]:
        """Who is asked for leases of this class now, once for each request."""
        return [self._requests[lease_id].node for lease_id in klass.requests]

    def on_reclaim(self, peer: Peer, message: ReclaimLease) -> None:
        """Somebody waits: give it back when what is on its way is done."""
        lease = self._leases.get(message.lease)
        if lease is not None:
            lease.reclaimed = True
            self._return_if_idle(lease)
            if lease.klass.queue:
                self._request(lease.klass)

    def on_worn_out(self, peer: Peer, message: WornOut) -> None:
        """A task was interrupted there (SEMANTICS 5): its answer and those behind it come back now, and then the worker goes."""
        lease = self._leases.get(message.lease)
        if lease is not None:
            lease.worn = lease.reclaimed = True

    def on_lost(self, peer: Peer, message: LeaseLost) -> None:
        """The worker died, and the node says how."""
        lease = self._leases.get(message.lease)
        if lease is not None:
            self._lose(lease, message)

    def peer_lost(self, peer: Peer) -> None:
        """The connection to a worker is gone: the node will say why. Or to a node, and its workers with it."""
        if peer.role == "node" or any(request.node is peer for request in self._requests.values()):
            self._node_lost(peer)
        for lease in [lease for lease in self._leases.values() if lease.peer is peer]:
            self._connection_lost(lease)

    def _node_lost(self, node: Peer) -> None:
        """Another node is gone: what was asked of it is asked of ours again, and what its workers had is lost."""
        requested = [request.klass for request in self._requests.values() if request.node is node]
        leased = [lease.klass for lease in self._leases.values() if lease.node is node]
        for klass in dict.fromkeys(requested + leased):
            if klass.in_group:
                self._core.groups.contradicted(klass)
        for lease_id, request in list(self._requests.items()):
            if request.node is node:
                del self._requests[lease_id]
                request.klass.requests.discard(lease_id)
        self._ask_anew(node.process_id, dict.fromkeys(requested))
        cause = f"the connection to its node {node.process_id} broke"
        for lease in [lease for lease in self._leases.values() if lease.node is node]:
            self._lose(lease, LeaseLost(lease.lease_id, lease.worker_id, cause), node.process_id)

    def _ask_anew(self, node_id: str, classes: Iterable[LeaseClass]) -> None:
        """At once, and with pauses when it goes on: our node sends us there until it knows that this one is gone."""
        times = self._in_vain.get(node_id, 0)
        self._in_vain[node_id] = times + 1
        if len(self._in_vain) > IN_VAIN_MAX:
            del self._in_vain[next(iter(self._in_vain))]
        for klass in classes:
            if not times:
                self._ask_if_wanted(klass)
            else:
                self._core.later(min(IN_VAIN_PAUSE_S * 2.0 ** min(times, 8), IN_VAIN_PAUSE_S_MAX), partial(self._ask_if_wanted, klass))

    def _ask_if_wanted(self, klass: LeaseClass) -> None:
        if klass.queue:
            self._request(klass)

    def _connection_lost(self, lease: Lease) -> None:
        if lease.lost:
            return
        lease.lost = True
        cause = "the connection to it broke and its node did not say why"
        self._core.later(LOSS_REPORT_S, lambda: self._lose(lease, LeaseLost(lease.lease_id, lease.worker_id, cause)))

    def _lose(self, lease: Lease, death: LeaseLost, node_id: str = "") -> None:
        """`node_id`: the node that is gone, and its workers with it."""
        if self._leases.pop(lease.lease_id, None) is None:
            return
        klass = lease.klass
        klass.leases.pop(lease.lease_id, None)
        lease.lost = True
        again: list[Call] = []
        cause = death.cause
        kind: type[WorkerCrashedError] = OutOfMemoryError if death.out_of_memory else WorkerCrashedError
        of_node = {"node": node_id} if node_id else {}
        if node_id:
            kind = NodeDiedError
        for position, call in enumerate(lease.inflight.values()):
            # Workers run tasks in order: only the first can be the one that died with it, so only it spends a retry.
            if call.cancelled:
                self._core.caller.settle_cancelled(call)
            elif death.removed:
                error = self._core.groups.removed_error(klass.options.placement, call.target.name)
                self._core.caller.settle_error(call, error)
            elif death.out_of_memory and position == 0 and call.retries_left and self._again_later(call, lease, cause):
                pass
            elif call.retries_left == 0:
                self._core.caller.settle_error(
                    call,
                    kind.explain(
                        which=f"{call.target.name} (attempt {call.attempt + 1})",
                        what=f"was lost with its worker {lease.worker_id}",
                        why=cause,
                        next_step=_next_step(call, death),
                        story=call.story or (),
                        log_tail=death.log,
                        function_name=call.target.name,
                        task=task_name(self._core.identity.process_id, call.entry.index),
                        process_id=lease.worker_id,
                        pid=death.pid,
                        exit_code=death.exit_code,
                        signal=death.signal,
                        peak_memory_bytes=death.peak_memory_bytes,
                        **of_node,
                    ),
                )
            else:
                call.note(f"attempt {call.attempt + 1} was lost with worker {lease.worker_id}: {cause}")
                if position or death.left or not self._rests_after_loss(call):
                    self._prepare_retry(call)
                    again.append(call)
        lease.inflight.clear()
        klass.queue.extendleft(reversed(again))
        klass.full = False
        self._pump(klass)

    def _again_later(self, call: Call, lease: Lease, cause: str) -> bool:
        """Memory ran out where it ran: that has tries of its own, with pauses, in which others may end. False when they are used up."""
        pause_s = pause_for_memory_s(call.memory_tries, self._core.ports.rng)
        if pause_s is None:
            call.retries_left = 0
            return False
        call.memory_tries += 1
        call.note(f"attempt {call.attempt + 1} was lost with worker {lease.worker_id}, next one in {pause_s:.1f} s: {cause}")
        self._core.retries.rest(call, pause_s)
        return True

    def _rests_after_loss(self, call: Call) -> bool:
        """It ran where the worker was lost, and spends a retry. True when there is a pause before the next attempt."""
        if call.retries_left > 0:
            call.retries_left -= 1
        call.losses += 1
        pause_s = pause_after_loss_s(call.losses, self._core.ports.rng)
        if pause_s:
            self._core.retries.rest(call, pause_s)
        return pause_s > 0

    @staticmethod
    def _prepare_retry(call: Call) -> None:
        call.attempt += 1
        call.state = CallState.QUEUED
        call.place = None

    def on_gave_back(self, peer: Peer, message: GaveBack) -> None:
        """The worker is busy with something long: these were not started (SEMANTICS 25)."""
        lease = self._leases.get(message.lease)
        if lease is None:
            return
        again = []
        for seq in message.seqs:
            call = lease.inflight.pop(seq, None)
            if call is None:
                continue
            lease.load_us -= self._run_us.get(call.target.function_id, 0.0)  # type: ignore[union-attr]
            if call.cancelled:
                self._core.caller.settle_cancelled(call)
                continue
            call.attempt += 1
            call.state = CallState.QUEUED
            call.place = None
            again.append(call)
        lease.klass.queue.extendleft(reversed(again))
        running = next(iter(lease.inflight.values()), None)
        if running is not None:
            # What runs there is long, whatever its average said: nothing is pushed behind it. It may wait for just these calls.
            lease.load_us = math.inf
            function: str = running.target.function_id  # type: ignore[union-attr]
            self._run_us[function] = max(self._run_us.get(function, 0.0), 20_000.0)
        self._pump(lease.klass)
        if running is None:
            # Nothing is left there, and no reply will come that would have it looked at.
            self._core.pump_later(lease.klass)

    def completed(self, call: Call, run_us: int) -> None:
        """A reply came, or none ever will (`run_us` < 0): the worker is free for more."""
        lease: Lease = call.place
        lease.inflight.pop(call.entry.index, None)
        target: Any = call.target
        if lease.inflight:
            lease.load_us = max(lease.load_us - self._run_us.get(target.function_id, 0.0), 0.0)
        else:
            lease.load_us = 0.0
        if run_us >= 0:
            self._run_us[target.function_id] = average(self._run_us.get(target.function_id, -1.0), run_us)
        klass = lease.klass
        klass.full = False
        self._core.pump_later(klass)

    def request_unsendable(self, lease_id: int, error: Exception) -> None:
        """What a class of tasks asks for cannot be said, so none of them can run."""
        request = self._requests.pop(lease_id, None)
        if request is not None:
            request.klass.requests.discard(lease_id)
            self.fail_class(request.klass, lambda call: error, drop=False)

    def define_unsendable(self, peer: Peer, function: str, error: Exception) -> None:
        """A worker will never know this function: what was pushed there of it does not run."""
        peer.defined.discard(function)
        for lease in [lease for lease in self._leases.values() if lease.peer is peer]:
            for call in list(lease.inflight.values()):
                if call.target.function_id == function:  # type: ignore[union-attr]  # tasks have function targets
                    self.completed(call, -1)
                    self._core.caller.settle_error(call, error)

    def pump(self, klass: LeaseClass) -> None:
        """After a batch of replies: fill the freed workers, and let go of those that are not needed."""
        if klass.queue:
            self._pump(klass)
        elif klass.requests:
            self._withdraw(klass)
        for lease in list(klass.leases.values()):
            if not lease.inflight:
                if lease.reclaimed:
                    self._return_if_idle(lease)
                elif not klass.sweeping:
                    self._sweep_later(klass)

    def _sweep_later(self, klass: LeaseClass) -> None:
        if not klass.sweeping:
            klass.sweeping = True
            self._core.later(LEASE_IDLE_S, lambda: self._sweep(klass, dict.fromkeys(self._idle(klass))))

    def _idle(self, klass: LeaseClass) -> list[int]:
        return [lease.lease_id for lease in klass.leases.values() if not lease.inflight]

    def _sweep(self, klass: LeaseClass, idle_before: dict[int, None]) -> None:
        klass.sweeping = False
        for lease in list(klass.leases.values()):
            if not lease.inflight and lease.lease_id in idle_before and not klass.queue:
                lease.reclaimed = True
                self._return_if_idle(lease)
        if self._idle(klass):
            self._sweep_later(klass)

    def _return_if_idle(self, lease: Lease) -> None:
        if lease.inflight or lease.closing or lease.lost:
            return
        lease.closing = True
        self._leases.pop(lease.lease_id, None)
        lease.klass.leases.pop(lease.lease_id, None)
        calls_max = lease.klass.options.calls_max
        used_up = bool(calls_max and lease.pushed >= calls_max)
        lease.node.send(ReturnLease(lease.lease_id, used_up or lease.worn, lease.worn and not used_up))

    def return_idle(self, klass: LeaseClass) -> None:
        """Give back the leases without work at once."""
        for lease in [lease for lease in klass.leases.values() if not lease.inflight]:
            lease.reclaimed = True
            self._return_if_idle(lease)
            self._core.flush_now(lease.node)

    def return_all_idle(self) -> None:
        """Give back all leases without work, as this process ends: its death would end these workers, and they may own what others hold."""
        for lease in [lease for lease in self._leases.values() if not lease.inflight]:
            lease.reclaimed = True
            self._return_if_idle(lease)
            lease.node.flush()  # Not with the end of the batch: there may be none.

    def pending(self) -> list[Call]:
        """Every call that is queued or pushed, for the state API."""
        queues = [self._core.retries.calls(), *(klass.queue for klass in self._classes.values())]
        calls = [call for queue in queues for call in queue if call.state is CallState.QUEUED]
        return calls + [call for lease in self._leases.values() for call in lease.inflight.values()]

    def fail_all(self, error: Exception) -> None:
        """The cluster is gone: nothing will run any more."""
        for call in self.pending():
            self._core.caller.settle_error(call, error)
        for klass in self._classes.values():
            klass.queue.clear()
        self._leases.clear()
        self._core.retries.take()


def _next_step(call: Call, death: LeaseLost) -> str:
    if death.out_of_memory and call.memory_tries:
        times = call.memory_tries + 1
        return f"it ran out of memory {times} times and is not tried again: have it need less, or ask with memory= so that fewer run"
    return f"it is not tried again (max_retries={call.options.max_retries})" + ("; see the worker's last lines" if death.log else "")
