"""The node: it lends the resources of one machine, and keeps its worker processes and its shared memory.

This module only wires: processes come and go, each message goes to the room that serves it, and after
each event `_pump` carries out what the books decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from actorflow._core.base.ids import new_id
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Arena, Ports, Processes, ProcessExit, SpillFiles
from actorflow._core.node.actors import Actors
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.context import Client, Holder, NodeContext, client_of
from actorflow._core.node.elsewhere import MOVE_AGAIN_S, Elsewhere
from actorflow._core.node.head_link import HeadLink
from actorflow._core.node.jobs import Jobs
from actorflow._core.node.leases import Leases
from actorflow._core.node.logs import Logs
from actorflow._core.node.state import State
from actorflow._core.node.store import Store
from actorflow._core.node.workers import Workers
from actorflow._core.policy.leases import LeaseBook
from actorflow._core.policy.worker_pool import WorkerPool
from actorflow._core.policy.worker_records import Decision, Refuse, Retire, Spawn, WorkerKey
from actorflow._core.protocol.messages import (
    ActorFailed,
    ActorLost,
    ActorReady,
    AdoptObject,
    Allocate,
    AnyMessage,
    BeatHeard,
    BeatHeardOf,
    BeatOf,
    Blocked,
    CancelLease,
    Carved,
    CopyObject,
    Drain,
    DropObjects,
    FreeExtent,
    FreeObject,
    GroupWord,
    HandOver,
    Hosted,
    KillActor,
    KillLease,
    LastWordTaken,
    LeaveParts,
    Message,
    Needed,
    NodeGone,
    NodeInfo,
    NodeLeaves,
    NodesChanged,
    Part,
    PartsTaken,
    Pin,
    PlaceActor,
    Pull,
    ReadParts,
    RelayBeat,
    RequestLease,
    ReturnLease,
    Shutdown,
    Spillable,
    StateQuery,
    StateReply,
    Unblocked,
    Unpin,
)
from actorflow._core.protocol.session import Identity

if TYPE_CHECKING:
    from actorflow._core.node.draining import LeavesInOrder
    from actorflow._core.node.durable import KeptObjects
    from actorflow._core.node.memory import MemoryGauge, MemoryWatch
    from actorflow._core.node.parts import Parts
    from actorflow._core.node.tenancy import Tenancy
    from actorflow._core.node.transfers import Transfers

log = logging.getLogger(__name__)

TICK_S = 0.1
"""How often time is looked at while something waits for it; a node at rest has no timer."""

Handler = Callable[[Peer, Any], None]

HEAD = frozenset({"head"})
NODE = frozenset({"node"})
DRIVER = frozenset({"driver"})
WORKER = frozenset({"worker"})
PROCESS = DRIVER | WORKER


class Node:
    """The node role of one machine. All methods on the ports' loop.

    `on_driver_gone(reason)` is called once, when the cluster's owner is gone, says so, or never comes. `spill`: where to put what the
    arena has no room for; None: nowhere. `memory`: says how much there is, for `config.memory_threshold`.
    """

    def __init__(
        self,
        ports: Ports,
        config: NodeConfig,
        processes: Processes,
        arena: Arena,
        on_driver_gone: Callable[[str], None],
        spill: SpillFiles | None = None,
        memory: MemoryGauge | None = None,
    ) -> None:
        self.config = config
        self.node_id = config.node_id or new_id(ports.rng)
        self._ports = ports
        self._draw_id = partial(new_id, ports.rng)
        self._processes = processes
        self._on_driver_gone: Callable[[str], None] | None = on_driver_gone
        self._clients: dict[str, Peer] = {}
        self._stopping = False
        self._parting: set[str] = set()
        """Workers that were told of the end, and whose processes are still there."""
        self._parted = asyncio.Event()
        self._moved_at = 0.0
        self._ticking: asyncio.TimerHandle | None = None
        self._owner_timer: asyncio.TimerHandle | None = None
        info = {**config.info, "head": config.head_address, "cancel_grace_s": repr(config.cancel_grace_s)}
        identity = Identity("node", self.node_id, address=config.address, pid=config.pid, info=info)
        self._peers = Peers(ports, identity, self)
        about = NodeInfo(self.node_id, config.address, config.resources, config.labels)
        self._head = HeadLink(ports, config.head_address, about, self._hosted)
        self._book = LeaseBook(
            config.resources,
            config.devices(),
            device_types=config.device_types,
            starvation_s=config.starvation_s,
            blocked_max=config.blocked_max(),
        )
        self._pool = WorkerPool(config.pool_limits())
        self._context = context = NodeContext(ports, config, self.node_id, self._head, self._book, self._pool)
        self._jobs = Jobs()
        self._logs = Logs(context, self._jobs)
        self._workers = Workers(context, processes, self._jobs, self._logs)
        self._elsewhere = Elsewhere(context, ports.rng)
        self._tenancy: Tenancy | None = None
        self._leaves: LeavesInOrder | None = None
        self._kept: KeptObjects | None = None
        self._leases = Leases(context, self._workers, self._elsewhere)
        self._actors = Actors(context, self._workers, self._elsewhere)
        self._context = context
        self._transfers: Transfers | None = None
        self._parts: Parts | None = None
        self._store = Store(context, arena, self._clients.get, spill, self._move_objects, lambda: self._elsewhere.alone)
        self._memory: MemoryWatch | None = None
        if memory is not None and config.memory_threshold:
            from actorflow._core.node.memory import MemoryWatch

            self._memory = MemoryWatch(context, self._workers, self._store, memory)
            self._workers.on_killed = self._memory.killed
        self._state = State(context, self._workers, self._connected)
        self._handlers: dict[type[Message], tuple[frozenset[str], Handler]] = self._table()

    def _table(self) -> dict[type[Message], tuple[frozenset[str], Handler]]:
        leases, actors, store = self._leases, self._actors, self._store
        return {
            RequestLease: (PROCESS, leases.request),
            CancelLease: (PROCESS, leases.cancel),
            ReturnLease: (PROCESS, leases.returned),
            KillLease: (PROCESS, leases.kill),
            Blocked: (WORKER, leases.blocked),
            Unblocked: (WORKER, leases.unblocked),
            Needed: (WORKER, self._workers.needed),
            PlaceActor: (HEAD, actors.place),
            KillActor: (HEAD, actors.kill),
            ActorReady: (WORKER, actors.ready),
            ActorFailed: (WORKER, actors.failed),
            ActorLost: (WORKER, actors.left),
            Allocate: (PROCESS, store.allocate),
            Carved: (PROCESS, store.carved),
            HandOver: (PROCESS, store.hand_over),
            FreeExtent: (PROCESS, store.free),
            Pin: (PROCESS, store.pin),
            Unpin: (PROCESS, store.unpin),
            Spillable: (PROCESS, store.spillable),
            Pull: (PROCESS, self._first_of_transfers),
            FreeObject: (PROCESS, self._first_of_transfers),
            **dict.fromkeys((Part, PartsTaken, ReadParts, LeaveParts), (DRIVER, self._first_of_parts)),
            StateQuery: (HEAD, self._state.query),
            StateReply: (PROCESS, self._state.reply),
            Shutdown: (DRIVER, self._shutdown),
            NodesChanged: (HEAD, self._nodes_changed),
            BeatHeard: (HEAD | NODE, self._beat_heard),
            RelayBeat: (NODE, self._relay_beat),
            BeatHeardOf: (HEAD, self._beat_heard_of),
            Drain: (HEAD, lambda peer, message: self._draining().drain(peer, message)),
            LastWordTaken: (HEAD, lambda peer, message: self._draining().taken()),
            AdoptObject: (HEAD, lambda peer, message: self._keeping().adopt(peer, message)),
            CopyObject: (HEAD, lambda peer, message: self._keeping().copy(peer, message)),
            DropObjects: (HEAD, lambda peer, message: self._keeping().drop(peer, message)),
            GroupWord: (HEAD, self._group_word),
        }

    def _move_objects(self) -> Transfers:
        """The room for objects of other nodes, made when it is needed."""
        if self._transfers is None:
            from actorflow._core.node.transfers import Transfers

            find, address_of = self._clients.get, self._elsewhere.address_of
            self._transfers = Transfers(self._context, self._peers, self._store, find, address_of, self._arm)
            self._handlers.update(self._transfers.handlers())
        return self._transfers

    def _keeping(self) -> KeptObjects:
        """The room of what the cluster owns, opened when there is something."""
        if self._kept is None:
            from actorflow._core.node.durable import KeptObjects

            self._kept = KeptObjects(self._context, self._store, self._move_objects)
        return self._kept

    # -- leaving

    def drain(self, deadline_s: float, reason: str) -> None:
        """Leave in order: when nothing is left here, or after that time, when the machine ends. `on_driver_gone` is told then."""
        self._draining().wanted(deadline_s, reason, machine_ends=True)

    def _draining(self) -> LeavesInOrder:
        """The room of a node that is to leave, opened then."""
        if self._leaves is None:
            from actorflow._core.node.draining import LeavesInOrder

            # The head would go with the first node, and the cluster with it.
            why_not = "" if self.config.has_lease else "it is the first node of the cluster, which ends with it: use `actorflow stop` there"
            self._leaves = LeavesInOrder(self._context, self._leave_begins, self._left_here, self._leave, why_not)
        return self._leaves

    def _leave_begins(self) -> None:
        self._leases.ask_all_back()
        self._elsewhere.looked_at()
        self._move_on(self._ports.monotonic())

    def _left_here(self) -> list[str]:
        """What keeps a node that is to leave, in words."""
        drivers = sum(1 for peer in self._connected() if peer.role == "driver" and peer.job_id)  # Others only look.
        counts = {"task": len(self._leases.granted()), "actor": len(self._actors), "driver": drivers, "object": self._store.foreign()}
        return [f"{number} {what}{'s' if number > 1 else ''}" for what, number in counts.items() if number]

    def _leave(self, reason: str) -> None:
        self._leases.left_behind(reason)
        self._driver_gone(reason)

    def _first_of_transfers(self, peer: Peer, message: Message) -> None:
        self._move_objects()
        self._handlers[type(message)][1](peer, message)

    def _first_of_parts(self, peer: Peer, message: Message) -> None:
        """The room for values of drivers without shared memory is made when there is one."""
        from actorflow._core.node.parts import Parts

        self._parts = parts = Parts(self._context, self._store)
        for kind, handle in ((Part, parts.part), (PartsTaken, parts.taken), (ReadParts, parts.read), (LeaveParts, parts.leave)):
            self._handlers[kind] = (DRIVER, cast(Handler, handle))
        self._handlers[type(message)][1](peer, message)

    # -- life

    async def start(self) -> None:
        """Be ready to spawn, join the head, listen. Raises OSError, and TimeoutError when no head answers."""
        await self._processes.start(self)
        self._head.connect(self._peers)
        try:
            async with asyncio.timeout(self.config.head_timeout_s):
                await self._head.ready
        except TimeoutError:
            where = f"the head at {self.config.head_address}"
            raise TimeoutError(f"{where} did not answer for {self.config.head_timeout_s:g} s: {self._head.trouble}") from None
        await self._peers.listen(self.config.address)
        if self.config.has_lease:
            from actorflow._core.node.tenancy import Tenancy

            others = self._elsewhere.others
            self._tenancy = Tenancy(self._context, self._give_up, self._processes.let_live, others, self._ask_node)
            self._tenancy.start()
        if self._memory is not None:
            self._memory.start()
        if self.config.owner:
            self._owner_timer = self._ports.loop.call_later(self.config.owner_timeout_s, self._owner_late)

    async def others_know(self) -> None:
        """Return when the nodes that were there before know of this one. Raises TimeoutError."""
        async with asyncio.timeout(self.config.head_timeout_s):
            await self._elsewhere.heard.wait()

    async def stop(self, reason: str) -> None:
        """Send the workers away, wait until their processes are gone, and close every connection."""
        if self._stopping:
            return
        self._stopping = True
        self._on_driver_gone = None
        for timer in (self._ticking, self._owner_timer):
            if timer is not None:
                timer.cancel()
        self._head.close()
        self._elsewhere.stop()
        if self._leaves is not None:
            self._leaves.stop()
        if self._tenancy is not None:
            self._tenancy.stop()
        if self._memory is not None:
            self._memory.stop()
        self._actors.stop()
        self._state.stop()
        if self._context.groups is not None:
            self._context.groups.stop()
        for worker in self._workers.all():
            if worker.peer is not None and not worker.peer.lost:
                worker.peer.send(Shutdown(reason))
                worker.peer.flush()
                self._parting.add(worker.worker_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.farewell_s):
                while self._parting:
                    await self._parted.wait()
        await self._processes.stop(self.config.stop_grace_s)
        self._workers.stop()
        if self._transfers is not None:
            self._transfers.stop()
        self._store.close()
        self._logs.close()
        self._peers.close()

    def _shutdown(self, peer: Peer, message: Shutdown) -> None:
        if self.config.owner in ("", peer.process_id) and peer.proof is None:  # Nobody owns a cluster that others reach.
            self._driver_gone(message.reason or f"driver {peer.process_id} has shut it down")
        else:
            log.warning("%r wants to end a cluster that belongs to driver %s", peer, self.config.owner)

    def _nodes_changed(self, peer: Peer, message: NodesChanged) -> None:
        leaving = set(self._elsewhere.leaving)
        for node_id in self._elsewhere.changed(peer, message):
            self._other_gone(node_id)
            if self._transfers is not None:
                self._transfers.node_gone(node_id)
        for node_id in self._elsewhere.leaving:
            if node_id not in leaving:
                for client in self._connected():
                    client.send(NodeLeaves(node_id))
        self._move_on(self._ports.monotonic())

    def _hosted(self) -> Hosted:
        groups = self._context.groups
        return Hosted(self._actors.hosted(), groups.held() if groups is not None else [])

    def _group_word(self, peer: Peer, message: GroupWord) -> None:
        if self._context.groups is None:
            from actorflow._core.node.groups import Groups

            self._context.groups = Groups(self._context, self._pump)
        self._context.groups.word(peer, message)

    def _move_on(self, now: float) -> None:
        if not self._elsewhere.alone:
            self._moved_at = now
            self._leases.move_on(now)
            self._actors.move_on(now)

    def _other_gone(self, node_id: str) -> None:
        """Another node is lost: so is whoever is on it, though a connection may not show it yet."""
        gone = NodeGone(node_id, f"node {node_id} is lost")
        for client in list(self._clients.values()):
            if client.node_id == node_id:
                client.close(abort=True)
            else:
                client.send(gone)

    def _beat_heard(self, peer: Peer, message: BeatHeard) -> None:
        if self._tenancy is not None:
            self._tenancy.answered(peer, message)

    def _ask_node(self, node_id: str, message: RelayBeat) -> None:
        self._move_objects().links.send(node_id, message)

    def _relay_beat(self, peer: Peer, message: RelayBeat) -> None:
        """Another node is not answered by the head."""
        if self._tenancy is not None and not self._tenancy.on_detour:  # LV-6
            self._head.send_if_there(BeatOf(peer.process_id, message.number))

    def _beat_heard_of(self, peer: Peer, message: BeatHeardOf) -> None:
        if self._transfers is not None:
            self._transfers.links.say(message.node_id, BeatHeard(message.number))

    def _give_up(self, reason: str) -> None:
        """Nobody here may act any more."""
        for worker in self._workers.all():
            self._processes.kill(worker.worker_id, signal.SIGKILL)
        self._driver_gone(reason)

    def _owner_late(self) -> None:
        self._owner_timer = None
        if self.config.owner not in self._clients:
            self._driver_gone(f"its driver did not connect within {self.config.owner_timeout_s:g} s")

    def _driver_gone(self, reason: str) -> None:
        tell, self._on_driver_gone = self._on_driver_gone, None
        if tell is not None:
            tell(self.last_word or reason)

    @property
    def last_word(self) -> str:
        """Why it leaves in order, when nothing is left to do but to be heard (ND-4); empty before that."""
        return self._leaves.last_word if self._leaves is not None else ""

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        """A process is connected."""
        if self._head.is_head(peer):
            self._head.peer_ready()
            if self._tenancy is not None:
                self._tenancy.linked()
            if self._leaves is not None:
                self._leaves.say()
            if self._kept is not None:
                self._kept.say_all()
            if self._context.groups is not None:
                self._context.groups.joined()
            return
        if (peer.role == "node" or peer.state is not None) and not self._stopping and self._move_objects().links.ready(peer):
            return
        if peer.role not in PROCESS or peer.process_id in self._clients or self._stopping:
            log.warning("%r has no business here, or is here already: its connection is closed", peer)
            peer.close(abort=True)
            return
        guest = peer.node_id not in ("", self.node_id)
        worker = self._workers.connected(peer) if peer.role == "worker" and not guest else None
        if peer.role == "driver" or guest or worker is not None:
            peer.state = Client(peer, worker)
            self._clients[peer.process_id] = peer
            if not guest:
                for node_id in self._elsewhere.leaving:
                    peer.send(NodeLeaves(node_id))
        if guest and peer.role == "worker":
            self._jobs.guest_ready(peer)
        if peer.role == "driver" and self._jobs.driver_ready(peer) and self.config.prestart and not guest:
            self._pool.prestart(WorkerKey(peer.job_id), self.config.prestart)
        self._pump()

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        """Each message goes to its room."""
        handlers = self._handlers
        role = peer.role if peer.state is not None or self._head.is_head(peer) else ""
        for message in messages:
            roles, handle = handlers.get(type(message), _NOBODY)
            if role not in roles:
                log.error(
                    "%r said %s, which is not for it to say; its connection is closed",
                    peer,
                    type(message).__name__,
                )
                peer.close(abort=True)
                break
            if self._workers.hears(peer, type(message)):
                handle(peer, message)
        self._pump()

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """A process is gone, and what hangs on it."""
        if self._head.is_head(peer):
            self._head.peer_lost(reason)
            return
        if self._transfers is not None and self._transfers.links.is_link(peer):
            self._transfers.links.lost(peer, reason)
            return
        if self._stopping or self._clients.get(peer.process_id) is not peer:
            return
        del self._clients[peer.process_id]
        worker = client_of(peer).worker
        if worker is not None:
            self._workers.disconnected(peer, worker, reason)
        self._state.process_lost(peer.process_id)
        self._leases.client_lost(peer, reason)
        if self._parts is not None:
            self._parts.client_lost(peer.process_id)
        if peer.node_id in ("", self.node_id):
            self._store.client_lost(peer.process_id)  # What a guest owns here is its own node's business.
            if self._transfers is not None:
                self._transfers.client_lost(peer.process_id)
        if peer.role == "driver" and self._jobs.driver_lost(peer):
            self._workers.end_job(peer.job_id, f"its job is over: driver {peer.process_id} is gone ({reason})")
        if peer.process_id == self.config.owner:
            self._driver_gone(f"its driver {peer.process_id} is gone: {reason}")
        self._pump()

    def alive_by_another_way(self, peer: Peer) -> bool:
        """See KnowsBetter: while the lease lasts the head has heard this node, whatever their connection is like."""
        return self._head.is_head(peer) and self._tenancy is not None and self._tenancy.lasts

    # -- ProcessEvents

    def process_started(self, worker_id: str, pid: int) -> None:
        """A worker process exists."""
        self._workers.started(worker_id, pid)

    def process_exited(self, exit: ProcessExit) -> None:
        """A worker process is reaped."""
        self._parting.discard(exit.worker_id)
        if self._stopping and not self._parting:
            self._parted.set()
        if not self._stopping:
            self._workers.exited(exit)
            self._pump()

    def process_output(self, worker_id: str, stream: str, data: bytes) -> None:
        """A worker has printed something."""
        worker = self._workers.get(worker_id)
        if worker is not None and (worker.peer is not None or not self._stopping):
            self._logs.output(worker, stream, data)
            self._arm()

    # -- deciding

    def _pump(self) -> None:
        """Carry out what the books decide, until they decide nothing more."""
        if self._stopping:
            return
        book, pool, groups = self._book, self._pool, self._context.groups
        now = self._ports.monotonic()
        while True:
            if groups is not None:
                granted = groups.admit(now) if not self._context.has_left else []
            else:
                granted = book.admit(now) if not self._context.draining else []
            for ticket in granted:
                cast(Holder, ticket.holder).admitted()
            decisions = pool.decide(now, self._draw_id)
            for decision in decisions:
                self._carry_out(decision)
            if not granted and not decisions and not self._leases.refuse_too_deep(now):
                break
        self._elsewhere.looked_at()
        if groups is not None:
            groups.looked_at()
        self._arm()

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, Spawn):
            self._workers.spawn(decision)
        elif isinstance(decision, Retire):
            self._workers.retire(decision)
        elif isinstance(decision, Refuse):
            cast(Holder, decision.claim.holder).refused(decision.kind, decision.reason)
        else:
            worker = self._workers.get(decision.worker_id)
            assert worker is not None, "WP-1: the pool uses living workers"
            cast(Holder, decision.claim.holder).fulfilled(worker)

    def _arm(self) -> None:
        """Look at the clock again in a while, if anything waits for it."""
        groups = self._context.groups
        asked = self._book.waiting or (groups is not None and groups.waiting)
        waits = asked or self._context.draining or self._pool.has_deadlines or self._store.has_deadlines or self._logs.behind
        if waits and self._ticking is None and not self._stopping:
            self._ticking = self._ports.loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = self._ports.monotonic()
        self._leases.reclaim(now)
        if now - self._moved_at >= MOVE_AGAIN_S:
            self._move_on(now)
        self._pool.expire(now)
        self._store.expire(now, self._name)
        self._logs.catch_up()
        self._pump()

    def _connected(self) -> Iterator[Peer]:
        """The processes of this node: guests are asked by theirs."""
        return (peer for peer in self._clients.values() if peer.node_id in ("", self.node_id))

    def _name(self, process_id: str) -> str:
        """A process as errors call it."""
        if self._transfers is not None and (words := self._transfers.describe_client(process_id)):
            return words
        peer = self._clients.get(process_id)
        if peer is None:
            return f"process {process_id}"
        worker = client_of(peer).worker
        if worker is not None and worker.occupant is not None:
            return f"{worker.occupant.name} on {worker.label()}"
        return f"{peer.role} {process_id} (pid {peer.pid})"


def _nobody(peer: Peer, message: AnyMessage) -> None:
    raise AssertionError(f"{type(message).__name__} has no room")


_NOBODY: tuple[frozenset[str], Handler] = (frozenset(), _nobody)
