"""Objects that the cluster owns, as a process sees them: it puts them, reads them as it reads what it borrows, and frees them.

The head is their owner: it knows what they are and where, and counts no references (docs/internals/durable-objects.md).

    DP-1  What is put has no references but to other objects that the cluster owns: those inside it are put first.
    DP-2  Who has put it is told when it is kept. Until then this process owns what it has written, and frees it when that fails.
    DP-3  A reader that cannot have it from one node asks for another, until there is none that it has not tried.
    DP-4  Who has freed it reads it no more, neither from its node nor as the small value that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectFreedError, ObjectLostError, ObjectStoreFullError, SerializationError
from actorflow._core.base.ids import CLUSTER
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.store import LostExtent

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry

log = logging.getLogger("actorflow")

INDEX_BITS = 62
"""Indices are drawn: nobody has to be asked for one, and none comes again in another life of the head."""
DEPTH_MAX = 100
"""How deep objects may lie in one another that are put together."""
APART_BYTES_MAX = 64 * 1024 * 1024
"""Of what lies inside: what is larger is not copied once more in this process, though others may have to wait for it."""
ASK = "durable"
FREED = "an object that the cluster owned was freed, by a program, at its time, or with its namespace"


class DurableCalls:
    """See the module."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._tried: dict[int, list[tuple[str, int]]] = {}
        """Where an object could not be read, since it was asked for."""
        self._told_alone = False

    # -- putting

    async def put(self, value: Any, lasts_s: float) -> ObjectRef[Any]:
        """Have the cluster own an object of `value`, and those in it. Returns when it is kept.

        Raises SerializationError, ObjectStoreFullError, ObjectLostError, and what the error of a failed call inside is.
        """
        self._core.check_open()
        return await self.put_pickled(values.dumps(value), lasts_s)

    async def put_pickled(self, pickled: Pickled, lasts_s: float = 0.0, made: dict[Entry, ObjectRef[Any]] | None = None) -> ObjectRef[Any]:
        """As `put`, of what has been pickled. `made`: where to write down what becomes of what is inside."""
        known = made if made is not None else {}
        return await self._put(pickled, [ref._entry for ref in pickled.refs or ()], lasts_s, known, 0)

    async def make(self, promised: int, value: Any) -> None:
        """This is the object that a detached call has promised. Raises as `put`; ObjectFreedError when nobody waits for it any more."""
        pickled = values.dumps(value)
        await self._put(pickled, [ref._entry for ref in pickled.refs or ()], 0.0, {}, 0, promised)

    async def _put(
        self,
        pickled: Pickled,
        entries: Sequence[Entry],
        lasts_s: float,
        known: dict[Entry, ObjectRef[Any]],
        depth: int,
        promised: int = 0,
    ) -> ObjectRef[Any]:
        core = self._core
        if pickled.size() <= values.INLINE_BYTES_MAX:
            pickled = values.owned_bytes(pickled)  # It may be changed while those inside it are put.
        elif entries:
            pickled = Pickled(bytes(pickled.data), [bytes(part) for part in pickled.buffers or ()], pickled.refs)
        inner = [(await self._durable(entry, lasts_s, known, depth))._entry for entry in entries]
        with core.lock:
            groups = core.references.groups(inner) if inner else None
            index = promised or new_index(core)
        outcome: m.Inline | m.Stored
        if pickled.size() <= values.INLINE_BYTES_MAX:
            outcome = m.Inline(pickled.data, pickled.buffers, groups)  # type: ignore[arg-type]  # they are bytes by now
        else:
            outcome = await core.store.put(Pickled(pickled.data, pickled.buffers, None))
            outcome.refs = groups
        await self._have_kept(m.PutDurable(0, index, outcome, lasts_s, promised > 0))
        with core.lock:
            entry = core.references.borrowed.get(CLUSTER, "", index)
            if entry.outcome is None:
                if isinstance(outcome, m.Stored):
                    outcome.owner = CLUSTER
                entry.outcome = outcome
                for other in inner:
                    other.pins += 1
            return core.references.handle(entry)

    async def _have_kept(self, put: m.PutDurable) -> None:
        core, outcome = self._core, put.outcome

        def numbered(token: int) -> m.PutDurable:
            put.token = token
            return put

        answer: m.DurablePut | None = None
        try:
            answer = await core.directory.ask(numbered)
            assert answer is not None
            if answer.error and answer.over:
                raise ObjectFreedError(answer.error)
            if answer.error and answer.full:
                raise ObjectStoreFullError(f"af.put(durable=True): {answer.error}")
            if answer.error:
                raise ObjectLostError(f"af.put(durable=True): the value could not be kept: {answer.error}")
        except BaseException:
            with core.lock:
                if core.closed is None:
                    # Should the head have it by now, it lets go of it; should the node not have heard of that, it frees it for us.
                    if not put.promised:
                        self.free_soon([put.index])
                    if isinstance(outcome, m.Stored) and (answer is not None or not put.promised):  # Else the head may have it.
                        core.node.send(m.FreeExtent(outcome.extent))
            raise
        if isinstance(outcome, m.Stored) and answer.copies < 2 and not self._told_alone:
            self._told_alone = True
            log.warning("af.put(durable=True): the cluster has one node: what it owns survives processes, and not this machine")

    def free_soon(self, indices: list[int]) -> None:
        """Nobody has a reference to these, should there be any. Under the lock."""
        self._core.directory.say(lambda token: m.FreeDurable(token, indices))

    async def _durable(self, entry: Entry, lasts_s: float, known: dict[Entry, ObjectRef[Any]], depth: int) -> ObjectRef[Any]:
        """The object of the cluster's that has the same value (DP-1)."""
        core = self._core
        if type(entry) is Borrowed and entry.owner == CLUSTER:
            with core.lock:
                return core.references.handle(entry)
        if entry in known:
            return known[entry]
        if depth >= DEPTH_MAX:
            raise SerializationError(f"af.put(durable=True): references lie in one another more than {DEPTH_MAX} deep")
        with core.lock:
            held = core.references.handle(entry)  # Whatever happens to the value that it is in.
        while True:
            await core.objects.wait_settled(entry)
            outcome = entry.outcome
            if type(outcome) is m.Failed:
                if type(entry) is Owned:
                    entry.seen = True
                raise core.error_of(outcome)
            if outcome is None:
                continue
            try:
                pickled = await self._content(outcome)  # type: ignore[arg-type]  # the other two
                break
            except LostExtent as lost:
                with core.lock:
                    core.recovery.lost(entry, (lost.node, lost.extent), lost.why)
        with core.lock:
            inner = core.references.table(outcome.refs)
        ref = await self._put(pickled, [each._entry for each in inner], lasts_s, known, depth + 1)
        known[entry] = ref
        del held, inner
        return ref

    async def _content(self, outcome: m.Inline | m.Stored) -> Pickled:
        if isinstance(outcome, m.Inline):
            return Pickled(outcome.data, outcome.buffers, None)
        data, buffers = await self._core.store.read(outcome)
        if outcome.size <= APART_BYTES_MAX:
            # What it is read from would be held while it waits for room: several who do so would wait for one another (SEMANTICS 16).
            return Pickled(bytes(data), [bytes(part) for part in buffers], None)
        return Pickled(data, buffers, None)  # type: ignore[arg-type]  # a view does as well

    # -- reading

    def fetch(self, entry: Borrowed) -> None:
        """Ask what it is, and where. Under the lock."""
        core, index = self._core, entry.index
        core.flush_now(core.head_line.ask(ASK, index, m.FetchDurable(index, self._tried.get(index, []))))

    def lost(self, entry: Borrowed, place: tuple[str, int]) -> None:
        """It could not be read there (DP-3). Under the lock."""
        self._tried.setdefault(entry.index, []).append(place)
        entry.fetching = True
        self.fetch(entry)

    def on_fetched(self, peer: Peer, message: m.FetchedDurable) -> None:
        """What the head knows of it."""
        core, index = self._core, message.index
        core.head_line.answered(ASK, index)
        entry = core.references.borrowed.entries.get((CLUSTER, index))
        if entry is None or entry.outcome is not None:
            self._tried.pop(index, None)
            return
        outcome: m.Outcome
        if message.died is not None:
            from actorflow._core.worker.detached import broken

            outcome = message.died.error or core.failed(broken(message.name, message.died))
        elif message.outcome is None:
            self._tried.pop(index, None)
            outcome = core.failed(ObjectLostError(message.error) if message.error else ObjectFreedError(FREED))
        else:
            outcome = message.outcome
            core.references.adopt(outcome.refs, CLUSTER, lambda: None)
        core.caller.settled_borrow(entry, outcome)

    def forgotten(self, index: int) -> None:
        """Nothing here refers to it any more. Under the lock."""
        self._tried.pop(index, None)
        self._core.head_line.answered(ASK, index)

    # -- freeing

    async def free(self, indices: list[int]) -> int:
        """Free them, for everybody. Returns how many there were."""
        core = self._core
        answer: m.DurablesFreed = await core.directory.ask(lambda token: m.FreeDurable(token, indices))
        with core.lock:
            for index in indices:
                # Its node may not have heard of that yet: whoever reads it here from now on asks the head.
                entry = core.references.borrowed.entries.get((CLUSTER, index))
                if entry is None:
                    continue
                outcome = entry.outcome
                if isinstance(outcome, m.Stored):
                    core.recovery.lost(entry, (outcome.node, outcome.extent), "it was freed")
                elif isinstance(outcome, m.Inline):
                    # The value itself is here, and nobody need be asked: the head has it no more, or never had.
                    core.caller.settled_borrow(entry, core.failed(ObjectFreedError(FREED)))
                    if outcome.refs:
                        core.references.unpin_all(core.references.entries_of(outcome.refs))
        return answer.count


def new_index(core: Core) -> int:
    """A number for an object of the cluster's."""
    return core.ports.rng.getrandbits(INDEX_BITS) + 1


def is_durable(entry: Entry) -> bool:
    """The cluster owns it."""
    return type(entry) is Borrowed and entry.owner == CLUSTER
