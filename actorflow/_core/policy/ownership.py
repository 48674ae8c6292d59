"""Who owns what, who refers to it, and when it may go. Pure.

A process *owns* the objects it made: results of the calls it submitted and what it put. All other holders *borrow*. Both sides count.

Invariants:
OW-1  An entry leaves the table exactly when it is settled and nobody refers to it: no handle here (`local`), no call or value that
      contains it (`pins`), no borrower.
OW-2  A freed index is never revived: late borrows are answered with `gone`.
OW-3  An entry is settled at most once per attempt; a second outcome is dropped.
OW-4  Borrows are counted per borrower: each time a reference is sent to it, it owes one; it pays them back in one DropBorrow with the
      number it has seen. So a reference that crosses a drop on the wire is never lost.
"""

from __future__ import annotations

from typing import Any

from actorflow._core.protocol.messages import Outcome


class Owned:
    """One object that this process owns. `outcome` is None until it is settled."""

    __slots__ = ("__dict__", "call", "index", "local", "outcome", "pins", "site", "waiters")

    borrowers: dict[str, int] | None = None
    seen = False
    """Somebody has looked at the outcome; an unseen failure is logged when the entry goes (SEMANTICS 1)."""
    recipe: Any = None
    """How to make it again, for the results of tasks that are in shared memory."""
    made_again_as: Any = None
    """The entry that took its place: it was gone, and something that was made of it is made again."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.outcome: Outcome | None = None
        self.local = 0
        self.pins = 0
        self.waiters: list[Any] | None = None
        self.call: Any = None
        """What makes it: the call in flight; None for a put and after the end."""
        self.site: Any = None
        """Where in the program it was asked for: (code, offset of the instruction)."""

    def referred(self) -> bool:
        """True while anybody can still ask for it."""
        return self.local > 0 or self.pins > 0 or bool(self.borrowers)


class Ownership:
    """The table of owned objects of one process. Methods that can end an entry return True (or a list) when they did."""

    __slots__ = ("_homes", "_next", "entries")

    def __init__(self) -> None:
        self.entries: dict[int, Owned] = {}
        self._homes: dict[int, str] = {}
        """Processes whose borrow of an object does not count: of an object that stands for an actor's life, the actor's own."""
        self._next = 1

    def new(self) -> Owned:
        """Make an entry with a fresh index."""
        index = self._next
        self._next = index + 1
        entry = self.entries[index] = Owned(index)
        return entry

    def settle(self, entry: Owned, outcome: Outcome) -> bool:
        """The outcome is known. False when it was known already (OW-3)."""
        if entry.outcome is not None:
            return False
        entry.outcome = outcome
        return True

    def drop_local(self, entry: Owned, count: int = 1) -> bool:
        """`count` handles are gone. True when the entry is freed."""
        entry.local -= count
        assert entry.local >= 0, "OW-1: more handles dropped than made"
        return self._free_if_unreferred(entry)

    def unpin(self, entry: Owned) -> bool:
        """A call or a value that contained it is gone. True when the entry is freed."""
        entry.pins -= 1
        assert entry.pins >= 0, "OW-1: more pins dropped than made"
        return self._free_if_unreferred(entry)

    def lend(self, index: int, borrower: str, count: int = 1) -> bool:
        """`borrower` has been sent the reference `count` times. False when the object is gone (OW-2)."""
        entry = self.entries.get(index)
        if entry is None:
            return False
        self._count(entry, borrower, count)
        return True

    @staticmethod
    def _count(entry: Owned, borrower: str, count: int) -> None:
        """OW-4: the sum may be below zero for a moment, when a drop overtakes the loan it answers; only zero means gone."""
        if entry.borrowers is None:
            entry.borrowers = {}
        left = entry.borrowers.get(borrower, 0) + count
        if left:
            entry.borrowers[borrower] = left
        else:
            entry.borrowers.pop(borrower, None)

    def give_back(self, index: int, borrower: str, count: int) -> Owned | None:
        """`borrower` dropped it, having seen it `count` times. The entry when it is freed by that."""
        entry = self.entries.get(index)
        if entry is None:
            return None
        self._count(entry, borrower, -count)
        return entry if self._free_if_unreferred(entry) else None

    def at_home(self, index: int, process: str) -> Owned | None:
        """The actor whose life this object stands for runs in `process`: its handle to itself does not count (SEMANTICS 23).

        The entry when it is freed by that.
        """
        entry = self.entries.get(index)
        if entry is None:
            return None
        self._homes[index] = process
        return entry if self._free_if_unreferred(entry) else None

    def borrower_lost(self, borrower: str) -> list[Owned]:
        """The process is gone with all that it held. The entries freed by that."""
        freed = []
        for entry in [e for e in self.entries.values() if e.borrowers and borrower in e.borrowers]:
            assert entry.borrowers is not None
            del entry.borrowers[borrower]
            if self._free_if_unreferred(entry):
                freed.append(entry)
        return freed

    def settled_free(self, entry: Owned) -> bool:
        """Called after `settle`: True when nobody is left to be told, and the entry is freed."""
        return self._free_if_unreferred(entry)

    def _free_if_unreferred(self, entry: Owned) -> bool:
        if entry.local or entry.pins or entry.outcome is None:
            return False
        if entry.borrowers and any(borrower != self._homes.get(entry.index) for borrower in entry.borrowers):
            return False
        if self._homes:
            self._homes.pop(entry.index, None)
        return self.entries.pop(entry.index, None) is not None


class Borrowed:
    """One object of another process that this one refers to."""

    __slots__ = ("address", "fetching", "index", "local", "outcome", "owed", "owner", "pins", "waiters")

    def __init__(self, owner: str, address: str, index: int) -> None:
        self.owner = owner
        self.address = address
        self.index = index
        self.local = 0
        self.pins = 0
        self.owed = 0
        """How often the owner has counted us: 0 while only a caller's pin protects the reference."""
        self.outcome: Outcome | None = None
        self.waiters: list[Any] | None = None
        self.fetching = False

    def referred(self) -> bool:
        """True while anything here refers to it."""
        return self.local > 0 or self.pins > 0


class Borrows:
    """The table of borrowed objects of one process."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], Borrowed] = {}

    def get(self, owner: str, address: str, index: int) -> Borrowed:
        """The entry for a reference that arrived; made when it is new."""
        key = (owner, index)
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Borrowed(owner, address, index)
        return entry

    def drop_local(self, entry: Borrowed, count: int = 1) -> bool:
        """`count` handles are gone. True when nothing here refers to it any more, and the owner must be paid back."""
        entry.local -= count
        assert entry.local >= 0, "OW-1: more handles dropped than made"
        return self._forget_if_unreferred(entry)

    def unpin(self, entry: Borrowed) -> bool:
        """As `drop_local`, for a call or value that contained it."""
        entry.pins -= 1
        assert entry.pins >= 0, "OW-1: more pins dropped than made"
        return self._forget_if_unreferred(entry)

    def _forget_if_unreferred(self, entry: Borrowed) -> bool:
        if entry.local or entry.pins:
            return False
        return self.entries.pop((entry.owner, entry.index), None) is not None

    def owner_lost(self, owner: str) -> list[Borrowed]:
        """The owner's process is gone: all entries whose outcome is not known here. Nothing is owed to it any more (OW-4)."""
        lost = [entry for entry in self.entries.values() if entry.owner == owner]
        for entry in lost:
            entry.owed = 0
        return [entry for entry in lost if entry.outcome is None]
