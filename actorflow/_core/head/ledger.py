"""The head's memory: what its rooms have changed goes into a log, and what it says waits until that is on the disk.

    HM-1  Nobody is told what the head would not know any more after a crash: a message leaves when all that was changed before it was
          sent is durable. Beats are answered at once: they promise nothing.
    HM-2  What is in the log at the end of a turn is what the rooms have then, however many steps led there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from actorflow._core.head import records
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.actor_record import Actor
from actorflow._core.policy.graveyard import DeadActor
from actorflow._core.policy.placement_record import Group
from actorflow._core.protocol.journal_format import Change

if TYPE_CHECKING:
    from actorflow._core.head.actors import Actors
    from actorflow._core.head.durable import DurableRoom
    from actorflow._core.head.groups import Groups
    from actorflow._core.head.jobs import Jobs
    from actorflow._core.head.nodes import Nodes
    from actorflow._core.io.state_log import StateLog
    from actorflow._core.policy.durable_objects import DurableObjects

DEAD_KEPT_MAX = 10_000
ENDED_KEPT_MAX = 1_000
REMOVED_KEPT_MAX = 1_000
"""Of the dead, of the ended jobs and of the removed groups the newest survive the head; the others are remembered only by it."""


class Ledger:
    """See the module. `touch(kind, key)` is what the rooms call when they have changed something."""

    def __init__(self, ports: Ports, log: StateLog, nodes: Nodes, jobs: Jobs, actors: Actors) -> None:
        self._ports = ports
        self._log = log
        self._nodes = nodes
        self._jobs = jobs
        self._actors = actors
        self._touched: dict[tuple[str, str], None] = {}
        self._classes: dict[str, set[str]] = {}
        """The living actors of each class that is in the log."""
        self._class_of: dict[str, str] = {}
        self._bounded = {"dead": _Bounded(DEAD_KEPT_MAX), "ended": _Bounded(ENDED_KEPT_MAX), "removed": _Bounded(REMOVED_KEPT_MAX)}
        self.groups: Groups | None = None
        """The room of the placement groups, when it is open."""
        self.durables: DurableRoom | None = None
        """... and that of the objects that the cluster owns."""
        self._peers: dict[Peer, int] = {}
        """Peers with messages that are held, and how many of them have a number that they wait for."""
        self._turn_is_due = False

    def offset(self) -> float:
        """Wall time minus the head's clock."""
        return self._ports.wall_time() - self._ports.monotonic()

    def touch(self, kind: str, key: str) -> None:
        """This has changed, or is new, or is gone."""
        self._touched[kind, key] = None
        self._turn_soon()

    # -- messages

    def schedule(self, peer: Peer) -> None:
        """A peer has something to say."""
        self._peers.setdefault(peer, 0)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._ports.loop.call_soon(self.turn_over)

    def turn_over(self) -> None:
        """What was changed is written, and what was said waits for it."""
        self._turn_is_due = False
        if self._touched:
            touched, self._touched = self._touched, {}
            changes = self._changes_of(touched)
            if changes:
                self._log.write(changes)
        new = []
        for peer, waiting in list(self._peers.items()):
            if peer.lost:
                del self._peers[peer]
            elif count := peer.held - waiting:
                self._peers[peer] = waiting + count
                new.append((peer, count))
        if new:
            self._log.when_durable(self._log.number, lambda: self._let_go(new))

    def _let_go(self, messages: list[tuple[Peer, int]]) -> None:
        for peer, count in messages:
            waiting = self._peers.get(peer, 0) - count
            if peer.lost or (waiting == 0 and peer.held == count):
                self._peers.pop(peer, None)
            else:
                self._peers[peer] = waiting
            peer.let_go(count)
        if self._peers:
            self._turn_soon()  # A peer that had messages waiting is not scheduled for the next one.

    # -- changes

    def _changes_of(self, touched: Iterable[tuple[str, str]]) -> list[Change]:
        """What is another value than in the log. An entry that goes and comes back within a turn has its last value."""
        outcome: dict[tuple[str, str], bytes | None] = {}
        for kind, key in touched:
            for change in getattr(self, f"_{kind}")(key):
                outcome[change.kind, change.key] = change.value
        old = self._log.state
        return [Change(kind, key, value) for (kind, key), value in outcome.items() if old.get((kind, key)) != value]

    def _actor(self, actor_id: str) -> Iterator[Change]:
        found = self._actors.table.find(actor_id)
        if isinstance(found, Actor):
            spec = found.spec
            if actor_id not in self._class_of:
                self._class_of[actor_id] = spec.class_id
                others = self._classes.setdefault(spec.class_id, set())
                if not others:
                    yield Change("class", spec.class_id, records.encode(records.ClassRecord(spec.class_pickle, spec.methods)))
                others.add(actor_id)
                yield Change("actor", actor_id, records.bare(spec))
            yield Change("life", actor_id, records.encode(records.life_of(found, self.offset())))
            return
        class_id = self._class_of.pop(actor_id, None)
        if class_id is not None:
            others = self._classes[class_id]
            others.discard(actor_id)
            if not others:
                del self._classes[class_id]
                yield Change("class", class_id, None)
            for kind in ("actor", "life", "checkpoint"):
                yield Change(kind, actor_id, None)
        if isinstance(found, DeadActor):
            yield Change("dead", actor_id, records.dead_record(found, self.offset()))
            yield from self._bound("dead", actor_id)

    def _checkpoint(self, actor_id: str) -> Iterator[Change]:
        kept = self._actors.checkpoints.find(actor_id)
        if kept is not None:
            yield Change("checkpoint", actor_id, records.encode(records.CheckpointRecord(kept.incarnation, kept.number, kept.data)))

    def _job(self, job_id: str) -> Iterator[Change]:
        job = self._jobs.table.find(job_id)
        if job is None:
            return
        running = job.ended_at is None
        record = records.encode(records.job_record(job, self.offset()))
        yield Change("job", job_id, record if running else None)
        if not running:
            yield Change("ended", job_id, record)
            yield from self._bound("ended", job_id)

    def _node(self, node_id: str) -> Iterator[Change]:
        node = self._nodes.membership.find(node_id)
        yield Change("node", node_id, records.encode(records.node_record(node, self.offset())) if node is not None else None)

    def _group(self, group_id: str) -> Iterator[Change]:
        found = self.groups.table.find(group_id) if self.groups is not None else None
        if isinstance(found, Group):
            yield Change("group", group_id, records.encode(records.group_record(found, self.offset())))
            return
        yield Change("group", group_id, None)
        if found is not None:
            yield Change("removed", group_id, records.encode(records.removed_record(found, self.offset())))
            yield from self._bound("removed", group_id)

    def _supervision(self, nothing: str) -> Iterator[Change]:
        """All of them: there are few, and what happens to one may change others."""
        room = self._actors.supervisions
        now = {one.id: one for one in room.book.all()} if room is not None else {}
        for kind, key in [entry for entry in self._log.state if entry[0] == "supervision"]:
            if key not in now:
                yield Change(kind, key, None)
        for one in now.values():
            yield Change("supervision", one.id, records.encode(records.supervision_record(one, self.offset())))

    def _over(self, supervision_id: str) -> Iterator[Change]:
        room = self._actors.supervisions
        over = room.over.get(supervision_id) if room is not None else None
        yield Change("over", supervision_id, records.encode(over) if over is not None else None)

    def _durable(self, index: str) -> Iterator[Change]:
        found = self.durables.table.find(int(index)) if self.durables is not None else None
        yield Change("durable", index, records.encode(records.durable_record(found, self.offset())) if found is not None else None)

    def _bound(self, kind: str, key: str) -> Iterator[Change]:
        for oldest in self._bounded[kind].enter(key):
            yield Change(kind, oldest, None)

    # -- the beginning

    def has_groups(self) -> bool:
        """There is something about placement groups in the log."""
        return any(kind in ("group", "removed") for kind, _ in self._log.state)

    def restore_groups(self, groups: Groups) -> None:
        """Give their room what is in the log; the nodes of the earlier life have joined it."""
        now, offset = self._ports.monotonic(), self.offset()
        for (kind, key), value in self._log.state.items():
            if kind == "group":
                groups.restore(records.group_from(key, records.decode_group(value), now, offset))
            elif kind == "removed":
                groups.table.restore_removed(key, records.removed_from(key, records.decode_removed(value), offset))

    def has_durables(self) -> bool:
        """There are objects that the cluster owns in the log."""
        return any(kind == "durable" for kind, _ in self._log.state)

    def restore_durables(self, table: DurableObjects) -> None:
        """Give their room what is in the log."""
        for (kind, key), value in self._log.state.items():
            if kind == "durable":
                table.restore(records.durable_from(int(key), records.decode_durable(value), self.offset()))

    def restore(self) -> bool:
        """Give the rooms what is in the log. False when there is nothing: this is the first life of the head."""
        state, now, offset = self._log.state, self._ports.monotonic(), self.offset()
        by_kind: dict[str, dict[str, bytes]] = {}
        for (kind, key), value in state.items():
            by_kind.setdefault(kind, {})[key] = value
        nodes = by_kind.get("node", {})
        for node_id, value in nodes.items():
            self._nodes.membership.restore(records.node_from(node_id, records.decode_node(value), offset))
        for kind in ("ended", "job"):
            for job_id, value in by_kind.get(kind, {}).items():
                self._jobs.table.restore(records.job_from(job_id, records.decode_job(value), offset))
        for kind in self._bounded:
            for key in by_kind.get(kind, {}):
                self._bounded[kind].enter(key)
        for value in by_kind.get("dead", {}).values():
            self._actors.table.restore_dead(records.dead_from(value, offset))
        classes = {key: records.decode_class(value) for key, value in by_kind.get("class", {}).items()}
        checkpoints = by_kind.get("checkpoint", {})
        lives = by_kind.get("life", {})
        for actor_id, value in by_kind.get("actor", {}).items():
            spec = records.decode_spec(value)
            spec.class_pickle, spec.methods = classes[spec.class_id].pickle, classes[spec.class_id].methods
            life = records.decode_life(lives[actor_id])
            checkpoint = records.decode_checkpoint(checkpoints[actor_id]) if actor_id in checkpoints else None
            self._actors.restore(records.actor_from(spec, life, now, offset), life.node_id, checkpoint)
            self._class_of[actor_id] = spec.class_id
            self._classes.setdefault(spec.class_id, set()).add(actor_id)
        for value in by_kind.get("over", {}).values():
            self._actors.restore_over(records.decode_over(value))
        supervisions = by_kind.get("supervision", {})
        if supervisions:
            self._actors.restore_supervisions(
                records.supervision_from(key, records.decode_supervision(value), offset) for key, value in supervisions.items()
            )
        return bool(state)


class _Bounded:
    """The newest keys of a kind."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def enter(self, key: str) -> list[str]:
        """One more; returns those that make room for it."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        return [self._keys.popitem(last=False)[0] for _ in range(len(self._keys) - self._most)]
