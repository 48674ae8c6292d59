"""Objects that the cluster owns: which there are, which nodes keep them, and who is to have another one. Pure.

    WRITTEN --- its node has it ---> KEPT --- enough nodes have it ---> its putter is told
     ^ |                              |
     | | the writer is gone           | no node has it any more
     | v                              v
     | refused                      LOST     freed from each of them: by a program, at its time, with its namespace
     |
    PROMISED --- its maker is gone, or it was cancelled ---> BROKEN      an actor is to make it: the result of a detached call

    DO-1  A putter is told that its object is kept when COPIES nodes have it, or as many as there are. What the head knows itself, as the
          value is small, has no nodes.
    DO-2  An object goes when it is freed and not before; what was freed is never had again, and every node is told.
    DO-3  When a node is lost, or is to leave, another one fetches what it kept, as long as one has it. A node that is to leave keeps its
          objects until then. A node that could not have it is asked again, each time later, and then for what another one has. One whose
          source is gone is asked at once.
    DO-4  Nothing is refused or lost without a reason that its readers get.
    DO-5  What is promised has an end: its maker lives until it is kept, and what was refused or lost before that is promised again. When
          the maker is gone the promise is broken. Readers are answered when it is kept, broken or freed, and not before.
    DO-6  Who is to fetch is a node that the head hears by itself, as long as there is one: nobody waits for a bad link (HV-3).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from actorflow._core.base.ids import CLUSTER, ActorId, ProcessId
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.durable_steps import (
    Adopt,
    Answer,
    Copy,
    Drop,
    EndMaker,
    ObjectIndex,
    Settled,
    Step,
    Write,
)
from actorflow._core.protocol.messages import ActorDied, Inline, Outcome, Stored

COPIES = 2
"""So many nodes keep an object, where there are so many: one may be lost."""
COPYING_MAX = 16
"""Objects that are being fetched by nodes at one time, because of others that were lost."""
OBJECTS_MAX = 1_000_000
INLINE_BYTES_MAX = 256 * 1024 * 1024
"""What the head itself keeps, of all small values together."""
LOST_MAX = 10_000
"""Of those that are lost: how many reasons are remembered, the newest."""
PAST_MAX = 16
TRIED_MAX = 32
"""Of those that too few nodes keep: how many are looked at whenever something has changed."""

AGAIN_S = 10.0
"""So much later a node that could not have an object is asked again; each time later than before ..."""
AGAIN_MAX_S = 320.0
"""... and at most so much."""


@dataclass(slots=True)
class Unfit:
    """A node could not have an object."""

    source: ProcessId
    """From there. Empty: it had it, and its disk did not give it back."""
    times: int
    """How often it could not."""
    until: float | None
    """When it is asked again. None: it may be asked."""


@dataclass(slots=True)
class Durable:
    """One object. Written by DurableObjects only. Times are the head's clock."""

    index: ObjectIndex
    namespace: str
    job_id: str
    outcome: Outcome | None
    """None: it is promised, or the promise is broken. An error: that of the call that was to make it."""
    created_at: float
    ends_at: float | None = None
    maker: ActorId = ""
    """The actor that is to make it, until it is kept."""
    name: str = ""
    """What its maker calls, for people."""
    work: list[ObjectIndex] = field(default_factory=list)
    """The objects that were made for that call, of its arguments: they are freed when it is over."""
    died: ActorDied | None = None
    """Why its maker could not make it."""
    kept_as: ObjectIndex = 0
    """Its number with nodes: its own, and another one each time that it is made anew. So no node takes the one for the other."""
    homes: dict[ProcessId, int] = field(default_factory=dict)
    """The nodes that keep it, and its extent there."""
    past: list[tuple[ProcessId, int]] = field(default_factory=list)
    """Where it was before, the last PAST_MAX of them: readers may have copies from there, which are known by that name."""
    adopted: bool = False
    """Its writer's node has taken it over, or it needs none."""
    putter: tuple[ProcessId, int] | None = None
    """Who waits to hear of it."""
    copying: ProcessId = ""
    """Who fetches it at the moment."""
    asked: dict[ProcessId, ProcessId] = field(default_factory=dict)
    """Who was told to fetch it, from where, and has not answered: also those that are not waited for any more."""
    unfit: dict[ProcessId, Unfit] = field(default_factory=dict)
    """Nodes that could not, until something changes there."""

    @property
    def size(self) -> int:
        """Bytes."""
        return size_of(self.outcome)


def size_of(outcome: Outcome | None) -> int:
    """Bytes of a value."""
    if isinstance(outcome, Stored):
        return outcome.size
    return len(outcome.data) + sum(map(len, outcome.buffers or ())) if isinstance(outcome, Inline) else 0


class DurableObjects:
    """All of them. Each method is one event, and returns what has to be done about it, in order."""

    __slots__ = (
        "_anew", "_apart", "_bytes", "_copying", "_inline_max", "_leaving", "_lost", "_makers", "_nodes", "_objects", "_objects_max",
        "_short", "_times",
    )  # fmt: skip

    def __init__(self, *, objects_max: int = OBJECTS_MAX, inline_bytes_max: int = INLINE_BYTES_MAX) -> None:
        self._objects: dict[ObjectIndex, Durable] = {}
        self._objects_max = objects_max
        self._inline_max = inline_bytes_max
        self._bytes = 0
        """Of what the head keeps itself."""
        self._nodes: dict[ProcessId, int] = {}
        """The nodes of the cluster, and how many objects each keeps or fetches."""
        self._leaving: set[ProcessId] = set()
        self._apart: set[ProcessId] = set()
        """Nodes that the head hears only through others."""
        self._copying: dict[ObjectIndex, None] = {}
        self._short: dict[ObjectIndex, None] = {}
        """Objects that too few nodes keep, and nobody fetches."""
        self._times: list[tuple[float, ObjectIndex, ProcessId]] = []
        """A heap: when which object ends (""), and when which node is asked for it again; also of what has come to nothing."""
        self._anew: dict[ObjectIndex, ObjectIndex] = {}
        """What has been made anew, by its number with nodes."""
        self._makers: dict[ActorId, ObjectIndex] = {}
        """Who is to make what (DO-5)."""
        self._lost: OrderedDict[ObjectIndex, str] = OrderedDict()
        """Those that are gone without having been freed, and why."""

    # -- processes

    def put(self, new: Durable) -> list[Step]:
        """Somebody wants it kept. Said again, it is as it was."""
        assert new.putter is not None, "somebody wants to know"
        known = self._objects.get(new.index)
        if known is not None:
            known.putter = new.putter
            if not known.adopted and isinstance(known.outcome, Stored):
                return [Adopt(known.outcome.node, known.kept_as, known.outcome.extent, known.outcome.owner)]
            return self._settled(known)
        if problem := self.no_room() or self._no_room_inside(new.outcome):
            return [Answer(*new.putter, 0, problem, full=True)]
        if new.index in self._lost:
            return [Answer(*new.putter, 0, self._lost[new.index])]
        if problem := self._not_there(new.outcome):
            return [Answer(*new.putter, 0, problem)]
        self._enter(new)
        return self._written(new)

    def _not_there(self, outcome: Outcome | None) -> str:
        if isinstance(outcome, Stored) and outcome.node not in self._nodes:
            return f"node {outcome.node}, where it was written, is gone"
        return ""

    def _written(self, found: Durable) -> list[Step]:
        """It has a value."""
        if isinstance(found.outcome, Stored):
            return [Write(found.index), Adopt(found.outcome.node, found.kept_as, found.outcome.extent, found.outcome.owner)]
        found.adopted = True
        return [Write(found.index), *self._settled(found)]

    # -- promises (DO-5)

    def promise(self, new: Durable) -> list[Step]:
        """An actor is to make it. Said again, it is as it was. There must be room."""
        assert new.maker, "somebody has to make it"
        assert new.outcome is None, "it is not there yet"
        if new.index in self._objects:
            return []
        self._enter(new)
        return [Write(new.index)]

    def is_open(self, index: ObjectIndex) -> bool:
        """It is promised, and neither kept nor broken: whoever wants it waits."""
        found = self._objects.get(index)
        return found is not None and bool(found.maker)

    def make(self, index: ObjectIndex, outcome: Outcome, putter: tuple[ProcessId, int]) -> list[Step]:
        """Its maker has it: a value, or the error of its call. Said again, it is as it was; another life of the maker may say another."""
        found = self._objects.get(index)
        if found is None:
            return [Answer(*putter, 0, "nobody is to have it any more: it was freed", over=True)]
        if found.outcome is None and found.died is not None:
            return [Answer(*putter, 0, f"nobody waits for it any more: {found.died.reason}", over=True)]
        if found.died is not None and found.outcome != outcome:
            return [Answer(*putter, 0, f"another life of its maker has made it: {found.died.reason}", over=True)]
        if found.adopted or found.outcome == outcome:
            found.putter = putter
            return self._settled(found) if found.adopted else self._written(found)
        if problem := self._no_room_inside(outcome):
            return [Answer(*putter, 0, problem, full=True)]
        if problem := self._not_there(outcome):
            return [Answer(*putter, 0, problem)]
        steps = self._unmake(found, "another life of its maker has made it once more") if found.outcome is not None else []
        found.putter, found.outcome = putter, outcome
        if isinstance(outcome, Inline):
            self._bytes += found.size
        return [*steps, *self._written(found)]

    def _unmake(self, found: Durable, why: str) -> list[Step]:
        """What its maker has made is gone before it was kept: it is to be made again, or the promise is broken."""
        steps: list[Step] = [Write(found.index)]
        if isinstance(found.outcome, Stored):
            steps.append(self._drop_all(found))
        self._let_go(found)
        found.outcome, found.adopted, found.homes, found.past = None, False, {}, []
        found.unfit, found.asked = {}, {}
        found.kept_as += 1
        self._anew[found.kept_as] = found.index
        if found.putter is not None:
            steps.append(Answer(*found.putter, 0, why))
            found.putter = None
        return [*steps, *self._over(found)] if found.died is not None else steps

    def is_maker(self, actor_id: ActorId) -> bool:
        """True for the actor of a detached call that is not over."""
        return actor_id in self._makers

    def maker_gone(self, actor_id: ActorId, died: ActorDied) -> list[Step]:
        """The actor will make nothing any more. What it has given already may still be kept."""
        index = self._makers.get(actor_id)
        if index is None:
            return []
        found = self._objects[index]
        found.died = died
        return [Write(index), *(self._over(found) if found.outcome is None else [])]

    def cancel(self, index: ObjectIndex, died: ActorDied) -> list[Step]:
        """Nobody wants it any more; whoever waits is told so."""
        found = self._objects.get(index)
        if found is None or found.outcome is not None or found.died is not None:
            return []
        found.died = died
        return [Write(index), *self._over(found)]

    def _over(self, found: Durable, by: ProcessId = "") -> list[Step]:
        """The promise is kept, broken or freed: its maker ends, and its readers go on."""
        maker, found.maker = found.maker, ""
        del self._makers[maker]
        work, found.work = found.work, []
        if found.outcome is not None:
            found.died = None  # It had made it before.
        return [Write(found.index), Settled(found.index), EndMaker(maker, by), *self.free(work)[1]]

    def _enter(self, new: Durable) -> None:
        self._objects[new.index] = new
        new.kept_as = new.kept_as or new.index
        if new.kept_as != new.index:
            self._anew[new.kept_as] = new.index
        if isinstance(new.outcome, Inline):
            self._bytes += new.size
        if new.maker:
            self._makers[new.maker] = new.index
        if new.ends_at is not None:
            heapq.heappush(self._times, (new.ends_at, new.index, ""))

    def no_room(self) -> str:
        """Why there is no room for one more object; empty when there is."""
        if len(self._objects) >= self._objects_max:
            return f"the cluster owns {len(self._objects)} objects already, and no more can be known: free some with af.free"
        return ""

    def _no_room_inside(self, outcome: Outcome | None) -> str:
        if isinstance(outcome, Inline) and self._bytes + size_of(outcome) > self._inline_max:
            return (
                f"the cluster owns {format_bytes(self._bytes)} of small values already, and {format_bytes(self._inline_max)} is all that "
                "its head keeps: free some with af.free, or put many of them as one"
            )
        return ""

    def free(self, indices: Iterable[ObjectIndex]) -> tuple[int, list[Step]]:
        """Nobody is to have these any more. How many there were."""
        steps: list[Step] = []
        count = 0
        for index in indices:
            found = self._objects.get(index)
            if found is not None:
                count += 1
                steps += self._end(found, "")
        return count, steps

    def find(self, index: ObjectIndex) -> Durable | None:
        """The object."""
        return self._objects.get(index)

    def outcome(self, index: ObjectIndex, near: ProcessId, tried: Iterable[tuple[ProcessId, int]] = ()) -> tuple[Outcome | None, str]:
        """What a reader on the node `near` gets; or None, and why it is gone (empty: it was freed, or never was).

        `tried`: where it could not read it. A reader may be cut off from a node that is well, so that says nothing of the object.
        """
        found = self._objects.get(index)
        if found is None:
            return None, self._lost.get(index, "")
        outcome = found.outcome
        if not isinstance(outcome, Stored):
            return outcome, ""  # None: the promise is broken, and `died` says why.
        homes = dict(found.homes or {outcome.node: outcome.extent})  # Not adopted yet: only its putter knows it.
        for node, extent in tried:
            if homes.get(node) == extent:
                del homes[node]
        if not homes:
            return None, f"{format_bytes(found.size)} that the cluster owns could not be read from {', '.join(found.homes)}, which keep it"
        node = near if near in homes else next((node for node in homes if node not in self._leaving), next(iter(homes)))
        at = Stored(node, homes[node], outcome.offset, outcome.size, outcome.data, outcome.spans, outcome.refs, CLUSTER)
        return at, ""

    # -- nodes

    def node_joined(self, node: ProcessId) -> list[Step]:
        """A node came, or came back: what it was told while it was away it has not heard."""
        self._nodes.setdefault(node, 0)
        steps: list[Step] = []
        for found in self._each():
            found.unfit.pop(node, None)
            found.asked.pop(node, None)
            outcome = found.outcome
            if not found.adopted and isinstance(outcome, Stored) and outcome.node == node:
                steps.append(Adopt(node, found.kept_as, outcome.extent, outcome.owner))
            elif found.copying == node:
                steps.append(self._copy(found))
        return [*steps, *self._around(), *self._mend()]

    def node_apart(self, node: ProcessId) -> list[Step]:
        """A node is heard only through others (DO-6)."""
        if node not in self._nodes:
            return []
        self._apart.add(node)
        return self._around()

    def node_in_reach(self, node: ProcessId) -> list[Step]:
        """It is heard by itself again."""
        self._apart.discard(node)
        return self._around()

    def _around(self) -> list[Step]:
        """DO-6: what is on its way to nodes that are apart."""
        steps: list[Step] = []
        for found in [self._objects[index] for index in self._copying]:
            if found.copying in self._apart:
                steps += self._settled(found)
        return steps

    def node_leaves(self, node: ProcessId) -> list[Step]:
        """A node is to leave: others are to have what it keeps (DO-3)."""
        if node not in self._nodes or node in self._leaving:
            return []
        self._leaving.add(node)
        steps: list[Step] = []
        for found in self._each():
            if found.copying == node:
                self._copy_ends(found)
            if found.adopted:
                steps += self._settled(found)
        return steps

    def node_lost(self, node: ProcessId, reason: str) -> list[Step]:
        """A node is gone, with all that it kept."""
        self._nodes.pop(node, None)
        self._leaving.discard(node)
        self._apart.discard(node)
        steps: list[Step] = []
        for found in self._each():
            found.unfit.pop(node, None)
            found.asked.pop(node, None)
            if found.copying == node:
                self._copy_ends(found)
                if node not in found.homes:
                    steps += self._settled(found)
            outcome = found.outcome
            if node in found.homes or (not found.adopted and isinstance(outcome, Stored) and outcome.node == node):
                steps += self._home_gone(found, node, f"node {node} is lost: {reason}")
        return [*steps, *self._mend()]

    def _kept_as(self, index: ObjectIndex) -> Durable | None:
        """The object that nodes know by this number."""
        found = self._objects.get(self._anew.get(index, index))
        return found if found is not None and found.kept_as == index else None

    def kept(self, node: ProcessId, index: ObjectIndex, extent: int) -> list[Step]:
        """A node has it."""
        found = self._kept_as(index)
        if found is None:
            return [Drop("", index, ((node, extent),))]  # DO-2: it was freed meanwhile, and others may have copies of this one.
        found.asked.pop(node, None)
        if found.copying == node:
            self._copy_ends(found)
        if found.homes.get(node) == extent or node not in self._nodes:
            return []
        outcome = found.outcome
        is_writers = isinstance(outcome, Stored) and (outcome.node, outcome.extent) == (node, extent)
        if not is_writers and found.adopted and self._enough(found):
            return [Drop(node, index, ((node, extent),))]  # Somebody else was faster.
        found.homes[node] = extent
        found.adopted = found.adopted or is_writers
        self._nodes[node] += 1
        return [Write(found.index), *self._settled(found), *self._mend()]

    def failed(self, node: ProcessId, index: ObjectIndex, why: str, now: float) -> list[Step]:
        """A node has not got it, and will not."""
        found = self._kept_as(index)
        if found is None:
            return []
        outcome = found.outcome
        if not found.adopted and isinstance(outcome, Stored) and outcome.node == node:
            return self._end(found, why)
        source = found.asked.pop(node, "")
        if source in found.homes:  # Else nobody could have had it from there.
            self._cannot(found, node, source, now)
        if found.copying == node:
            self._copy_ends(found)
            return [*self._settled(found), *self._mend()]
        if node in found.homes and len(found.homes) > 1:
            # A disk that does not give it back, at least this time. Where no other node has it, it may the next time.
            self._cannot(found, node, "", now)
            drop = Drop(node, index, ((node, found.homes[node]),))
            return [drop, *self._home_gone(found, node, why)]
        return []

    def all_here(self, node: ProcessId, kept: dict[ObjectIndex, int]) -> list[Step]:
        """A node has connected, and this is all that it has: what we believed it had, and it has not, is gone from there."""
        steps: list[Step] = []
        for index, extent in kept.items():
            steps += self.kept(node, index, extent)
        for found in self._each():
            if node in found.homes and kept.get(found.kept_as) != found.homes[node]:
                steps += self._home_gone(found, node, f"node {node} does not have it any more")
            elif found.copying == node and found.kept_as not in kept:
                found.asked.pop(node, None)
                self._copy_ends(found)
                steps += self._settled(found)
            elif not found.adopted and isinstance(found.outcome, Stored) and found.outcome.node == node:
                steps.append(Adopt(node, found.kept_as, found.outcome.extent, found.outcome.owner))
        return [*steps, *self._mend()]

    # -- time, and the end of namespaces

    def next_at(self) -> float | None:
        """When `tick` has something to do, or None."""
        while self._times:
            at, index, node = self._times[0]
            found = self._objects.get(index)
            if found is not None and (not node or ((unfit := found.unfit.get(node)) is not None and unfit.until == at)):
                return at
            heapq.heappop(self._times)
        return None

    def tick(self, now: float) -> list[Step]:
        """Time has passed."""
        steps: list[Step] = []
        while (at := self.next_at()) is not None and at <= now:
            _, index, node = heapq.heappop(self._times)
            if node:
                steps += self._again(self._objects[index], node, now)
            else:
                steps += self.free([index])[1]
        return steps

    def _again(self, found: Durable, node: ProcessId, now: float) -> list[Step]:
        """A node that could not have it may be asked again, as long as too few have it."""
        unfit = found.unfit[node]
        if found.index in self._short and len(self._copying) >= COPYING_MAX:
            unfit.until = now + AGAIN_S
            heapq.heappush(self._times, (unfit.until, found.index, node))
            return []
        unfit.until = None
        return self._settled(found)

    def _cannot(self, found: Durable, node: ProcessId, source: ProcessId, now: float) -> None:
        times = found.unfit[node].times if node in found.unfit else 0
        until = now + min(AGAIN_S * 2 ** min(times, 16), AGAIN_MAX_S)
        found.unfit[node] = Unfit(source, times + 1, until)
        heapq.heappush(self._times, (until, found.index, node))

    def namespace_over(self, namespace: str) -> list[Step]:
        """Nobody is left who could have a reference."""
        return self.free([found.index for found in self._objects.values() if found.namespace == namespace])[1]

    # -- memory

    def restore(self, found: Durable) -> None:
        """It was there in an earlier life of the head. Its nodes have joined, or will be lost."""
        self._enter(found)
        for node in found.homes:
            self._nodes[node] = self._nodes.get(node, 0) + 1

    def go_on(self) -> list[Step]:
        """All nodes of the earlier life are back, or lost."""
        steps: list[Step] = []
        for found in self._each():
            if found.adopted:
                steps += self._settled(found)
        return steps

    def all(self) -> Iterator[Durable]:
        """In the order in which they came."""
        return iter(self._objects.values())

    def _each(self) -> Iterator[Durable]:
        """All that are there when it is their turn: the end of one may be the end of another."""
        for found in list(self._objects.values()):
            if self._objects.get(found.index) is found:
                yield found

    def __len__(self) -> int:
        """How many there are."""
        return len(self._objects)

    # -- steps

    def _enough(self, found: Durable) -> bool:
        """COPIES nodes that stay have it."""
        return sum(node not in self._leaving for node in found.homes) >= COPIES

    def _settled(self, found: Durable) -> list[Step]:
        """See to it that enough nodes have it, and tell the putter when that is so (DO-1)."""
        if not isinstance(found.outcome, Stored):
            return self._answer(found) if found.adopted else []
        if not found.homes:
            return []
        steps: list[Step] = []
        index = found.index
        if self._enough(found):
            self._short.pop(index, None)
            return [*self._leave_the_leaving(found), *self._answer(found)]
        node = self._another(found)
        if found.copying in self._apart and node and node not in self._apart:
            self._copy_ends(found)  # Should it have it all the same, it may say so.
        if not found.copying and not node:
            # There is no other node, or none that can.
            if any(node not in self._leaving for node in found.homes) and not self._may_yet(found):
                steps += self._leave_the_leaving(found)
            self._short[index] = None
            return [*steps, *self._answer(found)]
        if found.copying:
            return []
        if found.putter is None and len(self._copying) >= COPYING_MAX:
            self._short[index] = None
            return []
        self._short.pop(index, None)
        found.copying = node
        self._copying[index] = None
        self._nodes[node] += 1
        return [self._copy(found)] if node not in found.asked else []  # It fetches it already: one answer, one question.

    def _copy(self, found: Durable) -> Copy:
        unfit = found.unfit.get(found.copying)
        failed = unfit.source if unfit is not None else ""
        found.asked[found.copying] = home = min(found.homes, key=lambda home: (home == failed, home in self._leaving))
        return Copy(found.copying, found.kept_as, found.size, home, found.homes[home])

    def _another(self, found: Durable) -> ProcessId:
        """The node that keeps least, of those that could have it, and one that is apart only when no other could (DO-6)."""
        unfit = {node for node, unfit in found.unfit.items() if unfit.until is not None}
        fit = [node for node in self._nodes if node not in found.homes and node not in self._leaving and node not in unfit]
        return min(fit, key=lambda node: (node in self._apart, self._nodes[node]), default="")

    def _may_yet(self, found: Durable) -> bool:
        """A node that could not have it once is to be asked again, then for what another one has."""
        others = [unfit for node, unfit in found.unfit.items() if node in self._nodes and node not in (*found.homes, *self._leaving)]
        return any(unfit.times < 2 for unfit in others)

    def _leave_the_leaving(self, found: Durable) -> list[Step]:
        """DO-3: those that are to leave need not keep it any more."""
        steps: list[Step] = []
        for node in [node for node in found.homes if node in self._leaving]:
            name = (node, found.homes[node])
            self._leave(found, node)
            steps.append(Drop(node, found.kept_as, (name,)))
        return [Write(found.index), *steps] if steps else []

    def _answer(self, found: Durable) -> list[Step]:
        """It is kept (DO-1)."""
        putter, found.putter = found.putter, None
        steps: list[Step] = [Answer(*putter, len(found.homes))] if putter is not None else []
        return [*steps, *self._over(found, putter[0] if putter is not None else "")] if found.maker else steps

    def _copy_ends(self, found: Durable) -> None:
        if found.copying in self._nodes:
            self._nodes[found.copying] -= 1
        found.copying = ""
        self._copying.pop(found.index, None)

    def _leave(self, found: Durable, node: ProcessId) -> None:
        """A node does not keep it any more."""
        extent = found.homes.pop(node, None)
        if extent is None:
            return
        if node in self._nodes:
            self._nodes[node] -= 1
        found.past = [*found.past, (node, extent)][-PAST_MAX:]

    def _home_gone(self, found: Durable, node: ProcessId, why: str) -> list[Step]:
        self._leave(found, node)
        for other in [other for other, unfit in found.unfit.items() if unfit.source == node]:
            del found.unfit[other]  # It was not their fault, perhaps.
        if found.homes:
            return [Write(found.index), *self._settled(found)]
        return self._end(found, f"{format_bytes(found.size)} that the cluster owned: {why}, and no other node has it")

    def _end(self, found: Durable, why: str) -> list[Step]:
        """It is freed, or lost, for the reason `why` (DO-4)."""
        if found.maker and why:
            return self._unmake(found, why)
        index = found.index
        del self._objects[index]
        self._let_go(found)
        if why:
            self._lost[index] = why
            if len(self._lost) > LOST_MAX:
                self._lost.popitem(last=False)
        steps: list[Step] = [Write(index)]
        if found.putter is not None:
            steps.append(Answer(*found.putter, 0, why or "it was freed before it was kept"))
        if isinstance(found.outcome, Stored):
            steps.append(self._drop_all(found))
        return [*steps, *self._over(found)] if found.maker else steps

    def _let_go(self, found: Durable) -> None:
        """Nothing of it counts any more."""
        self._anew.pop(found.kept_as, None)
        self._short.pop(found.index, None)
        if isinstance(found.outcome, Inline):
            self._bytes -= found.size
        if found.copying:
            self._copy_ends(found)
        for node in found.homes:
            if node in self._nodes:
                self._nodes[node] -= 1

    @staticmethod
    def _drop_all(found: Durable) -> Drop:
        assert isinstance(found.outcome, Stored), "only what is stored has places"
        return Drop("", found.kept_as, tuple(sorted({*found.homes.items(), *found.past, (found.outcome.node, found.outcome.extent)})))

    def _mend(self) -> list[Step]:
        """There may be room now for those that too few nodes keep."""
        steps: list[Step] = []
        for index in list(islice(self._short, TRIED_MAX)):
            if len(self._copying) >= COPYING_MAX:
                break
            if index not in self._short:
                continue  # It went with another one of these.
            del self._short[index]  # To the end of the line, should it be as before.
            steps += self._settled(self._objects[index])
        return steps

    def check(self) -> None:
        """Assert what always holds; for tests."""
        for found in self._objects.values():
            assert not found.homes or isinstance(found.outcome, Stored), "DO-1: a small value has no nodes"
            assert (found.index in self._copying) == bool(found.copying), "DO-3: who fetches is counted"
            heard = found.copying not in self._apart or self._enough(found) or self._another(found) in ("", *self._apart)
            assert heard, "DO-6: who fetches is heard"
            assert not found.copying or found.copying in found.asked, "DO-3: who fetches was told to"
            assert found.outcome is not None or found.maker or found.died is not None, "DO-5: a promise has somebody who is to keep it"
            assert self._kept_as(found.kept_as) is found, "DO-5: what was made anew is found"
            assert not found.maker or self._makers[found.maker] == found.index, "DO-5: makers are known"
            assert found.died is None or found.outcome is not None or not found.maker, "DO-5: a broken promise is over"
            if isinstance(found.outcome, Stored) and found.adopted:
                assert found.homes, "DO-4: what nobody has is lost"
                assert found.copying or self._enough(found) or found.index in self._short, "DO-3: it is seen to"
        counts = dict.fromkeys(self._nodes, 0)
        for found in self._objects.values():
            for node in (*found.homes, found.copying):
                if node in counts:
                    counts[node] += 1
        assert len(self._makers) == sum(bool(found.maker) for found in self._objects.values()), "DO-5: makers are counted"
        assert counts == self._nodes, "DO-3: what each node keeps is counted"
        assert self._bytes == sum(found.size for found in self._objects.values() if isinstance(found.outcome, Inline)), "DO-1: bytes"
