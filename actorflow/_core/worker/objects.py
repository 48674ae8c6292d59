"""Objects: waiting for them, opening them, putting them, and what happens when they go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectFreedError, TaskCancelledError
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.duals import describe
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.inspect import site_text
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.store import LostExtent
from actorflow._core.worker.turns import SMALL_PUTS
from actorflow._core.worker.wakers import Countdown, FutureWaiter, Waiter

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry

log = logging.getLogger("actorflow")


class Objects:
    """The objects that one process waits for and holds."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.lifetimes: dict[int, str] = {}
        """Objects that stand for the life of an actor (SEMANTICS 23), by index: the actor's id."""
        self.lives: dict[str, int] = {}
        """The inverse, for actors with a process of their own."""

    # -- waiting for objects

    async def wait_settled(self, entry: Entry) -> None:
        """Wait for the outcome; a cancelled wait may cancel the call (SEMANTICS 1)."""
        gate = self._core.gates.current()
        with self._core.lock:
            if entry.outcome is not None:
                return
            waiter = FutureWaiter(gate)
            self._core.caller.add_waiter(entry, waiter)
        try:
            if self._core.host is None:
                await waiter.future
            else:
                await self._core.host.lending.wait(waiter.future)
        except asyncio.CancelledError:
            self._wait_cancelled(entry, waiter)
            raise

    def _wait_cancelled(self, entry: Entry, waiter: Waiter) -> None:
        with self._core.lock:
            if entry.waiters and waiter in entry.waiters:
                entry.waiters.remove(waiter)
            if type(entry) is Owned and entry.outcome is None and not entry.waiters and not entry.pins and not entry.borrowers:
                call = entry.call
                if call is not None:
                    entry.seen = True
                    self._core.cancels.cancel(call)

    async def wait_many(self, entries: Sequence[Entry], count: int) -> None:
        """Wait until `count` of the entries are settled. Stopping to wait cancels nothing (SEMANTICS 2)."""
        gate = self._core.gates.current()
        with self._core.lock:
            missing = [entry for entry in entries if entry.outcome is None]
            left = count - (len(entries) - len(missing))
            if left <= 0:
                return
            waiter = Countdown(gate, left)
            for entry in missing:
                self._core.caller.add_waiter(entry, waiter)
        try:
            await self._core.caller.blocked(waiter.future)
        finally:
            if waiter.left > 0:
                with self._core.lock:
                    for entry in missing:
                        if entry.waiters and waiter in entry.waiters:
                            entry.waiters.remove(waiter)

    # -- values

    def open_inline(self, entry: Entry, outcome: m.Inline) -> Any:
        """The value of a small object."""
        if outcome.refs is None:
            return values.loads(outcome.data, outcome.buffers)
        with self._core.lock:
            table = self._core.references.table(outcome.refs)
        return values.loads(outcome.data, outcome.buffers, table)

    async def open_all(self, entries: Sequence[Entry]) -> list[Any]:
        """The values of many objects, or the first error raised."""
        opened: list[Any] = []
        for entry in entries:
            outcome = entry.outcome
            if type(outcome) is m.Inline and outcome.refs is None:
                opened.append(values.loads(outcome.data, outcome.buffers))
            else:
                opened.append(await self.open(entry))
        return opened

    async def open(self, entry: Entry) -> Any:
        """The value of any object, or its error raised. What is lost is made again, if that can be."""
        core, store = self._core, self._core.store
        if core.turns.due():
            await core.turns.give()
        while True:
            outcome = entry.outcome
            if outcome is None:
                # It was lost, by whoever found that out. To give up waiting does not end what makes it again: others have it, too.
                await self.wait_many([entry], 1)
                continue
            if type(outcome) is m.Inline:
                return self.open_inline(entry, outcome)
            if type(outcome) is m.Failed:
                if type(entry) is Owned:
                    entry.seen = True
                raise core.error_of(outcome)
            assert type(outcome) is m.Stored
            with core.lock:
                if entry.outcome is not outcome:
                    continue
                here = type(entry) is Owned and not store.may_be_away(outcome)
                content: Any = store.read_own(outcome) if here else None
            try:
                # Its buffers are read-only views (SEMANTICS 14).
                data, buffers = content or await store.read(outcome)
            except LostExtent as lost:
                with core.lock:
                    core.recovery.lost(entry, (lost.node, lost.extent), lost.why)
                continue
            return self._load_stored(outcome, data, buffers)

    def _load_stored(self, outcome: m.Stored, data: bytes | memoryview, buffers: list[memoryview]) -> Any:
        with self._core.lock:
            table = self._core.references.table(outcome.refs)
        return values.loads(data, buffers, table)

    async def put(self, value: Any) -> ObjectRef[Any]:
        """Make an object that this process owns."""
        self._core.check_open()
        pickled = values.dumps(value)
        refs = [ref._entry for ref in pickled.refs] if pickled.refs else []
        if pickled.size() <= values.INLINE_BYTES_MAX:
            pickled = values.owned_bytes(pickled)
            with self._core.lock:
                groups = self._core.references.groups(refs) if refs else None
                entry = self._core.references.owned.new()
                entry.outcome = m.Inline(pickled.data, pickled.buffers, groups)  # type: ignore[arg-type]
                for inner in refs:
                    inner.pins += 1
                ref = self._core.references.handle(entry)
            if not entry.index % SMALL_PUTS and self._core.turns.due():
                await self._core.turns.give()
            return ref
        return await self._put_large(pickled, refs)

    async def _put_large(self, pickled: Pickled, refs: list[Entry]) -> ObjectRef[Any]:
        """Through shared memory: into our slab, or the extent is asked of the node. The copy is made by this thread."""
        core = self._core
        with core.lock:
            # What was dropped before this put makes room for it, while its pages are warm.
            core.references.drain()
            core.store.drain()
            for inner in refs:
                inner.pins += 1
        try:
            stored = core.store.write_now(pickled)
        except BaseException:
            with core.lock:
                core.references.unpin_all(refs)
            raise
        if stored is not None:
            ref = self._own_stored(stored)
            if core.turns.due():
                # When it is copied, and not before: it may be changed by whoever has this turn.
                await core.turns.give()
            return ref
        try:
            stored = await core.store.put(pickled)
        except BaseException:
            with core.lock:
                core.references.unpin_all(refs)
            raise
        return self._own_stored(stored)

    def _own_stored(self, stored: m.Stored) -> ObjectRef[Any]:
        with self._core.lock:
            entry = self._core.references.owned.new()
            entry.outcome = stored
            self._core.store.owns(stored)
            return self._core.references.handle(entry)

    def freed(self, entry: Owned) -> None:
        """An object of ours is gone. Under the lock."""
        outcome = entry.outcome
        if type(outcome) is m.Stored:
            self._core.store.free(outcome)
        elif type(outcome) is m.Failed and not entry.seen:
            self._log_unseen(entry, outcome)
        elif entry.index in self.lifetimes:
            actor_id = self.lifetimes.pop(entry.index)
            self.lives.pop(actor_id, None)
            self._core.actors.out_of_scope(actor_id)

    def _log_unseen(self, entry: Owned, outcome: m.Failed) -> None:
        error = self._core.error_of(outcome)
        if isinstance(error, TaskCancelledError) or self._core.closed is not None:
            return
        where = site_text(entry.site) if entry.site else "an unknown place"
        log.error("a call submitted at %s failed, and nobody looked at its result: %s", where, describe(error))

    def forget_outcome(self, entry: Borrowed) -> None:
        """A borrowed object is no longer referred to here. Its owner frees what it owns."""

    def ghost(self, index: int) -> Owned:
        """Stands for an object of ours that is gone (OW-2)."""
        entry = Owned(index)
        entry.seen = True
        entry.pins = 1  # for good: each ghost of an object is another one, so pins and unpins need not meet
        entry.outcome = self._core.failed(ObjectFreedError(f"object {index} of this process was freed: its last reference was dropped"))
        return entry

    def freed_outcome(self, entry: Borrowed) -> m.Failed:
        """What a borrower is told about an object that its owner does not have any more."""
        text = f"object {entry.index} of process {entry.owner} was freed: its last reference was dropped"
        return self._core.failed(ObjectFreedError(text))
