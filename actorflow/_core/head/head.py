"""The head: it knows the nodes, the jobs and the actors with their names, and decides who lives where.

It never unpickles what users send, and no call passes through it. This module only wires: peers come and go,
and each message goes to the room that serves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import InternalError
from actorflow._core.base.ids import ProcessId, new_id
from actorflow._core.head.actors import Actors
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.directory import Directory
from actorflow._core.head.jobs import Jobs
from actorflow._core.head.nodes import Nodes, node_id_of
from actorflow._core.head.state import StateDesk
from actorflow._core.head.view import View
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import Ports
from actorflow._core.policy.jobs import JobState
from actorflow._core.protocol.messages import (
    ActorFailed,
    ActorLost,
    ActorOutOfScope,
    ActorReady,
    AnyMessage,
    AskPass,
    Beat,
    BeatOf,
    CancelDetached,
    CreateActor,
    Draining,
    DrainNode,
    FetchDurable,
    FindActor,
    FreeDurable,
    GroupWord,
    Hosted,
    KeptHere,
    KillActor,
    Locate,
    Message,
    NodeInfo,
    NodeLoad,
    PutDurable,
    SaveCheckpoint,
    StartDetached,
    StateQuery,
    StateReply,
    Supervise,
    Unsupervise,
    WatchActor,
)
from actorflow._core.protocol.session import Identity

if TYPE_CHECKING:
    from actorflow._core.head.drains import Drains
    from actorflow._core.head.durable import DurableRoom
    from actorflow._core.head.groups import Groups
    from actorflow._core.head.ledger import Ledger
    from actorflow._core.head.returning import Returning
    from actorflow._core.head.supervision import Supervisions
    from actorflow._core.head.watch import NodeWatch
    from actorflow._core.io.state_log import StateLog
    from actorflow._core.security.keys import Keyring

log = logging.getLogger(__name__)

Handler = Callable[[Peer, Any], None]

NODE = frozenset({"node"})
DRIVER = frozenset({"driver"})
PROCESS = frozenset({"driver", "worker"})
ANYONE = NODE | PROCESS


class Head:
    """The head role of one cluster."""

    def __init__(self, ports: Ports, config: HeadConfig, memory: StateLog | None = None) -> None:
        """`memory`: where what it knows outlives it, and what an earlier life knew is found; None: nowhere."""
        self._ports = ports
        self.config = config
        self._ledger: Ledger | None = None
        self._returning: Returning | None = None
        self.process_id: ProcessId = config.process_id or new_id(ports.rng)
        info = {**config.info, "head": config.address}
        identity = Identity("head", self.process_id, address=config.address, pid=config.pid, info=info)
        schedule = self._schedule if memory is not None else None
        self._peers = Peers(ports, identity, self, schedule, gated=memory is not None)
        self._stopping = False
        self.on_node_lost: Callable[[str], None] | None = None
        """Told of each node that is given up: it is not to come back as the one it was."""
        self._directory = Directory()
        self._nodes = Nodes(ports)
        self._view = View(ports, self._nodes)
        self._watch: NodeWatch | None = None
        self._drains: Drains | None = None
        self._jobs = Jobs(ports)
        self._actors = Actors(ports, config, self._directory, self._nodes, self._view, self._jobs)
        if memory is not None:
            self._remember(memory)
        self._state = StateDesk(ports, self._nodes, self._jobs, self._actors, config.state_queries_max)
        self.pass_ring: Keyring | None = None
        """The root of the keys of jobs, for passes between them; None in a cluster that has no keys."""
        self._opened: Groups | None = None
        self._durable: DurableRoom | None = None
        actors = self._actors
        actors.in_group = lambda spec, incarnation: self._groups().pick(spec, incarnation)
        self._handlers: dict[type[Message], tuple[frozenset[str], Handler]] = {
            NodeInfo: (NODE, self._node_info),
            DrainNode: (PROCESS, lambda peer, message: self._draining().wanted(peer, message)),
            Draining: (NODE, lambda peer, message: self._draining().draining(peer, message)),
            NodeLoad: (NODE, lambda peer, message: self._view.load(node_id_of(peer), message)),
            Beat: (NODE, self._beat),
            BeatOf: (NODE, self._beat_of),
            ActorReady: (NODE, actors.ready),
            ActorFailed: (NODE, actors.failed),
            ActorLost: (NODE, actors.lost),
            Hosted: (NODE, self._hosted),
            StateReply: (NODE, self._state.reply),
            AskPass: (PROCESS, self._ask_pass),
            CreateActor: (PROCESS, actors.create),
            WatchActor: (PROCESS, actors.watch),
            FindActor: (PROCESS, actors.find),
            ActorOutOfScope: (PROCESS, actors.out_of_scope),
            KillActor: (ANYONE, actors.kill),
            SaveCheckpoint: (ANYONE, actors.save_checkpoint),
            StateQuery: (ANYONE, self._state.query),
            Supervise: (PROCESS, lambda peer, message: self._supervisions().begin(peer, message)),
            Unsupervise: (PROCESS, lambda peer, message: self._supervisions().end(peer, message)),
            GroupWord: (ANYONE, lambda peer, message: self._groups().word(peer, message)),
            PutDurable: (PROCESS, lambda peer, message: self._durables().put(peer, message)),
            FetchDurable: (PROCESS, lambda peer, message: self._durables().fetch(peer, message)),
            FreeDurable: (PROCESS, lambda peer, message: self._durables().free(peer, message)),
            StartDetached: (PROCESS, lambda peer, message: self._durables().start(peer, message)),
            CancelDetached: (PROCESS, lambda peer, message: self._durables().cancel(peer, message)),
            KeptHere: (NODE, lambda peer, message: self._durables().kept_here(peer, message)),
            Locate: (NODE, lambda peer, message: self._durables().locate(peer, message)),
        }

    def _groups(self) -> Groups:
        """The room of the placement groups, opened when the first one is spoken of."""
        if self._opened is None:
            from actorflow._core.head.groups import Groups

            self._opened = Groups(self._ports, self.process_id, self._directory, self._nodes, self._jobs, self._actors)
            self._actors.on_dead = self._opened.actor_died
            self._state.groups = self._opened
            if self._drains is not None:
                self._drains.groups_opened(self._opened)
            if self._ledger is not None:
                self._ledger.groups = self._opened
                self._opened.touch = self._ledger.touch
        return self._opened

    def _supervisions(self) -> Supervisions:
        """The room of supervised actors, opened when somebody wants some."""
        if self._actors.supervisions is None:
            from actorflow._core.head.supervision import Supervisions

            self._actors.supervisions = Supervisions(self._ports, self._directory, self._actors)
            if self._ledger is not None:
                self._actors.supervisions.touch = self._ledger.touch
        return self._actors.supervisions

    def _draining(self) -> Drains:
        """The room of nodes that are to leave, opened when one is."""
        if self._drains is None:
            from actorflow._core.head.drains import Drains

            rooms = self._directory, self._nodes, self._view, self._actors
            self._drains = Drains(self._ports, *rooms, lambda: self._opened, lambda: self._durable, self._node_given_up)
        return self._drains

    def _durables(self) -> DurableRoom:
        """The room of objects that the cluster owns, opened when there is one."""
        if self._durable is None:
            from actorflow._core.head.durable import DurableRoom

            self._durable = DurableRoom(self._ports, self._directory, self._nodes, self._jobs, self._actors, self._in_use)
            self._actors.on_gone = self._durable.actor_gone
            self._actors.table.makes_object = self._durable.table.is_maker
            self._state.durables = self._durable
            if self._ledger is not None:
                self._ledger.durables = self._durable
                self._durable.touch = self._ledger.touch
            self._durable.returning = self._returning is not None and not self._returning.is_over
            if self._drains is not None:
                self._drains.durables_opened(self._durable)
        return self._durable

    def _in_use(self, namespace: str) -> bool:
        """Somebody of this namespace lives: a job, or a detached actor."""
        if any(job.namespace == namespace and job.state is JobState.RUNNING for job in self._jobs.table.jobs()):
            return True
        return any(actor.spec.namespace == namespace for actor in self._actors.table.living())

    async def start(self) -> None:
        """Listen at `config.address`. Raises OSError when it is taken."""
        if self._ledger is not None:
            self._come_back(self._ledger)
        await self._peers.listen(self.config.address)

    async def stop(self) -> None:
        """Close everything. Nobody is declared lost for it: the cluster goes on, or ends by other means."""
        self._stopping = True
        if self._returning is not None:
            self._returning.stop()
        self._actors.stop()
        self._view.stop()
        if self._drains is not None:
            self._drains.stop()
        if self._watch is not None:
            self._watch.stop()
        self._state.stop()
        if self._opened is not None:
            self._opened.stop()
        if self._durable is not None:
            self._durable.stop()
        self._peers.close()

    # -- PeerHandler

    def peer_ready(self, peer: Peer) -> None:
        """A process is connected."""
        self._directory.enter(peer)
        if self._returning is not None:
            self._returning.process_is_back(peer.process_id)
        if peer.role == "driver":
            self._jobs.driver_ready(peer)

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        """Each message goes to its room."""
        handlers, role = self._handlers, peer.role
        for message in () if self._stopping else messages:
            roles, handle = handlers.get(type(message), _NOBODY)
            if role not in roles:
                log.error(
                    "%r said %s, which a %s never says to a head; its connection is closed",
                    peer,
                    message,
                    role,
                )
                peer.close(abort=True)
                break
            try:
                handle(peer, message)
            except (InternalError, AssertionError) as error:
                # One actor's broken story must not stop the head for everybody else.
                self._report(f"{type(message).__name__} from {peer!r}", error)
        if self._opened is not None:
            self._opened.turn_over()
        if self._ledger is not None:
            self._ledger.turn_over()

    def peer_lost(self, peer: Peer, reason: str) -> None:
        """A process is gone, and what hangs on it: its actors, its job, its node."""
        alive_elsewhere = not self._directory.leave(peer)
        if self._stopping:
            return
        try:
            if peer.role == "node":
                if self._drains is not None:
                    reason = self._drains.why_gone(node_id_of(peer), reason)
                self._node_given_up(peer, reason)
                return
            if alive_elsewhere:
                return
            self._process_lost(peer.process_id, reason, peer.job_id if peer.role == "driver" else "")
        except (InternalError, AssertionError) as error:
            self._report(f"the loss of {peer!r}", error)

    def _process_lost(self, process_id: ProcessId, reason: str, job_id: str) -> None:
        """A driver or worker is gone. `job_id`: of a driver."""
        end = self._jobs.driver_lost(job_id, process_id, reason) if job_id else None
        if end is not None:
            self._actors.job_ended(end)
            if self._opened is not None:
                self._opened.job_ended(end)
            if self._durable is not None:
                self._durable.somebody_went()
        self._actors.process_lost(process_id, reason)
        if self._actors.supervisions is not None:
            self._actors.supervisions.owner_lost(process_id, reason)
        if self._opened is not None:
            self._opened.process_lost(process_id)
        if self._durable is not None:
            self._durable.process_gone(process_id)

    # -- memory

    def _remember(self, memory: StateLog) -> None:
        from actorflow._core.head.ledger import Ledger

        self._ledger = ledger = Ledger(self._ports, memory, self._nodes, self._jobs, self._actors)
        for room in (self._nodes, self._jobs, self._actors):
            room.touch = ledger.touch

    def _schedule(self, peer: Peer) -> None:
        assert self._ledger is not None, "only a head that remembers holds back what it says"
        self._ledger.schedule(peer)

    def _come_back(self, ledger: Ledger) -> None:
        """Know what an earlier life knew, and wait for those who were there."""
        from actorflow._core.head.returning import Returning

        self._supervisions()
        if not ledger.restore():
            return
        nodes = list(self._nodes.membership.nodes())
        self._view.restore(nodes)
        for node in nodes:
            if node.drains:
                self._draining().restore(node.node_id, node.drains)
        if ledger.has_groups():
            ledger.restore_groups(self._groups())
        if ledger.has_durables():
            ledger.restore_durables(self._durables().table)
        table = self._actors.table.living()
        drivers = {driver: job.job_id for job in self._jobs.table.jobs() for driver in job.drivers}
        owners = {actor.spec.owner: None for actor in table if not actor.spec.detached}
        supervisors = {one.owner: None for one in self._supervisions().book.all() if not one.detached}
        log.warning("the head is back: it knows %d nodes, %d jobs and %d actors", len(nodes), len(drivers), len(table))
        self._actors.hold()
        self._returning = Returning(
            self._ports,
            [node.node_id for node in nodes],
            {**drivers, **owners, **supervisors},
            self._not_back,
            lambda process_id, reason: self._process_lost(process_id, reason, drivers.get(process_id, "")),
            self._settled,
        )
        if self._durable is not None:
            self._durable.returning = True
        self._returning.begin()

    def _settled(self) -> None:
        if self._opened is not None:
            self._opened.go_on()
        if self._durable is not None:
            self._durable.go_on()
        self._actors.go_on()

    def _not_back(self, node_id: ProcessId, reason: str) -> None:
        if self._nodes.given_up(node_id, reason):
            self._forget_node(node_id, reason)
            if self.on_node_lost is not None:
                self.on_node_lost(node_id)

    def _hosted(self, peer: Peer, message: Hosted) -> None:
        node_id = node_id_of(peer)
        if self._returning is not None and self._returning.awaits_node(node_id):
            if self._opened is not None:
                self._opened.hosted(peer, message)
            self._actors.hosted(peer, message)
            self._returning.node_is_back(node_id)
        else:
            self._actors.strays(peer, message)

    # -- steps

    def _node_info(self, peer: Peer, message: NodeInfo) -> None:
        if peer.proof is not None and message.node_id != peer.process_id:
            log.error("%r says that it is node %s; its connection is closed", peer, message.node_id)
            peer.close(abort=True)
            return
        old = self._nodes.replaced_by(peer, message)
        if old is not None:
            # What it said on the old connection may be lost: it begins anew.
            self._node_lost(old, "it connected again")
            old.close(abort=True)
        self._nodes.info(peer, message)
        self._view.joined(message)
        node = self._nodes.membership.find(message.node_id)
        if self._opened is not None and node is not None:
            self._opened.node_joined(node)
        if self._durable is not None:
            self._durable.node_joined(message.node_id)
        if self._drains is not None:
            self._drains.node_joined(message.node_id)
        self._actors.node_joined(message.node_id)

    def _ask_pass(self, peer: Peer, message: AskPass) -> None:
        from actorflow._core.head.passes import answer  # Only between hosts, where a cluster has keys.

        living = self._actors.table.living().count(message.job_id)
        peer.send(answer(self.pass_ring, peer, message, self._jobs.table, living, self._ports.wall_time()))

    def _beat(self, peer: Peer, message: Beat) -> None:
        if self._watch is None:
            from actorflow._core.head.watch import NodeWatch

            self._watch = NodeWatch(self._ports, self)
        self._watch.beat(node_id_of(peer), peer, message)

    def _beat_of(self, peer: Peer, message: BeatOf) -> None:
        if self._watch is not None:
            self._watch.beat_of(peer, message)

    def alive_by_another_way(self, peer: Peer) -> bool:
        """See KnowsBetter: others hear that node, so neither it nor who is on it is gone. The watch says when it is."""
        node_id = node_id_of(peer) if peer.role == "node" else peer.node_id
        return self._watch is not None and self._watch.knows_apart(node_id)

    def node_apart(self, node_id: ProcessId, reason: str) -> None:
        """See watch.Told: what is there goes on, and nothing new goes there."""
        log.warning("node %s is %s", node_id, reason)
        self._nodes.membership.apart(node_id, reason)
        self._view.apart(node_id)
        if self._opened is not None:
            self._opened.node_drains(node_id)
        if self._durable is not None:
            self._durable.node_apart(node_id)

    def node_in_reach(self, node_id: ProcessId) -> None:
        """See watch.Told: it is a node as the others are."""
        log.warning("node %s is heard by itself again", node_id)
        self._nodes.membership.in_reach(node_id)
        self._view.in_reach(node_id)
        node = self._nodes.membership.find(node_id)
        if self._opened is not None and node is not None and not node.drains:
            self._opened.node_in_reach(node_id)
        if self._durable is not None:
            self._durable.node_in_reach(node_id)
        self._actors.node_joined(node_id)

    def node_silent(self, node_id: ProcessId, reason: str) -> None:
        """See watch.Told: it is lost."""
        peer = self._nodes.peer(node_id)
        if peer is not None:
            self._node_given_up(peer, reason)
            # Whoever is on that machine is as far away as it is.
            for other in (peer, *self._directory.on_node(node_id)):
                other.close(abort=True)

    def _node_given_up(self, peer: Peer, reason: str) -> None:
        node_id = self._node_lost(peer, reason)
        if node_id is None:
            return
        if self.on_node_lost is not None:
            self.on_node_lost(node_id)

    def _node_lost(self, peer: Peer, reason: str) -> ProcessId | None:
        node_id = self._nodes.lost(peer, reason)
        if node_id is not None:
            self._forget_node(node_id, reason)
        return node_id

    def _forget_node(self, node_id: ProcessId, reason: str) -> None:
        log.warning("node %s is lost: %s", node_id, reason)
        left = self._drains is not None and self._drains.lost(node_id)
        self._view.lost(node_id)
        if self._watch is not None:
            self._watch.lost(node_id)
        self._state.node_lost(node_id)
        if self._opened is not None:
            self._opened.node_lost(node_id, reason)
        if self._durable is not None:
            self._durable.node_lost(node_id, reason)
        self._actors.node_lost(node_id, reason, left=left)

    def _report(self, what: str, error: Exception) -> None:
        context = {"message": f"actorflow head: a bug met {what}", "exception": error}
        self._ports.loop.call_exception_handler(context)


def _nobody(peer: Peer, message: AnyMessage) -> None:
    raise InternalError(f"{type(message).__name__} from {peer!r} has no handler and got to one")


_NOBODY: tuple[frozenset[str], Handler] = (frozenset(), _nobody)
