"""ObjectRef: a handle to a value that is there or will be."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from actorflow._core.base.ids import CLUSTER
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.protocol.messages import Inline
from actorflow._core.serialization.values import note_reference, reference_at

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core

T = TypeVar("T")


class ObjectRef(msgspec.Struct, Generic[T], eq=False, weakref=True):
    """A reference to an object, owned by the process that asked for it. Await it for the value.

    `await ref` gives the value or raises the error of the call that makes it. A ref may be awaited any number of times, from any loop
    and thread; each await gives a fresh copy. The object lives as long as anybody refers to it.
    """

    __module__ = "actorflow"

    # A struct, whose constructor is C: a value may hold ten thousand of these. Whoever makes one has counted it in `entry.local` already,
    # under the lock.
    _core: Core
    _entry: Owned | Borrowed

    def __del__(self) -> None:
        # SEMANTICS 18: any thread, in the middle of a collection, at exit: one append, nothing else.
        self._core.dropped.append(self._entry)

    def __await__(self) -> Generator[Any, None, T]:
        entry = self._entry
        if entry.outcome is None:
            yield from self._core.objects.wait_settled(entry).__await__()
        outcome = entry.outcome
        if type(outcome) is Inline:
            return self._core.objects.open_inline(entry, outcome)  # type: ignore[no-any-return]
        return (yield from self._core.objects.open(entry).__await__())  # type: ignore[no-any-return]

    def done(self) -> bool:
        """True when the value, or the error, is known in this process."""
        return self._entry.outcome is not None

    def cancel(self, *, force: bool = False, recursive: bool = True) -> bool:
        """Ask for the end of the call that makes this object; True when it was not finished yet, as far as this process knows.

        A call that has not started never will; running `async def` code and running `def` tasks get asyncio.CancelledError; `def` methods
        of actors are not torn: they look at `af.check_cancelled()`. Whoever awaits the ref gets TaskCancelledError. A task that has not
        ended after the grace (`af.init(cancel_grace=)`) ends with its worker; `force=True` kills the worker of a running task at once, and
        raises OptionError for the call of an actor. The calls that the call itself has made end with it, unless `recursive=False`.
        Whoever has a reference may cancel: a borrower's word goes to the owner.
        """
        return self._core.cancels.cancel_entry(self._entry, force=force, recursive=recursive)

    def future(self) -> concurrent.futures.Future[T]:
        """A `concurrent.futures.Future` with the same end, for code that wants one; cancelling it does not cancel the call."""
        return self._core.concurrent_future(self)

    async def _wait(self) -> T:
        return await self

    def as_task(self) -> asyncio.Task[T]:
        """An asyncio Task that awaits this ref on the running loop; cancelling it counts as a cancelled `await` (SEMANTICS 1)."""
        return asyncio.ensure_future(self._wait())

    def __reduce__(self) -> tuple[Any, ...]:
        return reference_at, (note_reference(self, repr(self)),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._entry is self._entry

    def __hash__(self) -> int:
        return hash(id(self._entry))

    def __repr__(self) -> str:
        entry = self._entry
        owner = self._core.identity.process_id if isinstance(entry, Owned) else entry.owner
        state = "pending" if entry.outcome is None else type(entry.outcome).__name__.lower()
        return f"ObjectRef(af-{owner if owner == CLUSTER else owner[:6]}-{entry.index} {state})"
