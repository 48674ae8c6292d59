"""References of one process: what it owns, what it borrows, and the messages that keep both sides' counts right.

The rules are in `policy/ownership.py`; the story is told in docs/internals/ownership.md. Everything here runs under the ports' lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from actorflow._core.base.ids import CLUSTER
from actorflow._core.policy.ownership import Borrowed, Borrows, Owned, Ownership
from actorflow._core.policy.work_list import WorkList
from actorflow._core.protocol.messages import (
    AddBorrow,
    BorrowAck,
    DropBorrow,
    Fetch,
    Fetched,
    Inline,
    Outcome,
    RefGroup,
)
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.wakers import Callback

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

Entry = Owned | Borrowed


class References:
    """The two tables of a process and their wire."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.owned = Ownership()
        self.borrowed = Borrows()
        self.dropped: deque[Entry] = deque()
        self._acks: dict[int, Callable[[], None]] = {}
        self._token = 0
        self._owing: dict[tuple[str, str], list[Borrowed]] = {}
        self._draining = False
        self._gone: WorkList[Sequence[RefGroup]] = WorkList(self._unpin_table)
        """The references inside values that are gone. Values may be nested as deep as users like."""

    # -- handles

    def handle(self, entry: Entry) -> ObjectRef[Any]:
        """Make one more handle."""
        entry.local += 1
        return ObjectRef(self._core, entry)

    def drain(self) -> None:
        """Count the handles that are gone since the last time (SEMANTICS 18)."""
        if self._draining:
            return
        self._draining = True
        try:
            dropped, owned, lifetimes = self.dropped, self.owned, self._core.objects.lifetimes
            while dropped:
                entry = dropped.popleft()
                if entry.local > 1 or (entry.local and entry.pins):
                    # Not the last word on it.
                    entry.local -= 1
                    continue
                if type(entry) is Owned:
                    if owned.drop_local(entry):
                        outcome = entry.outcome
                        if type(outcome) is not Inline or outcome.refs is not None or entry.index in lifetimes:
                            self._freed(entry)
                elif self.borrowed.drop_local(entry):  # type: ignore[arg-type]
                    self._forgotten(entry)  # type: ignore[arg-type]
        finally:
            self._draining = False
        if self._owing:
            self._pay_back()

    def lives_in(self, index: int, process_id: str) -> None:
        """An actor of ours runs in that process: its handle to itself does not count (SEMANTICS 23)."""
        entry = self.owned.at_home(index, process_id)
        if entry is not None:
            self._freed(entry)

    def origin(self, ref: ObjectRef[Any]) -> tuple[str, str, int]:
        """Where an object is from: what `renew` needs, and what keeps nothing alive."""
        entry, me = ref._entry, self._core.identity
        if type(entry) is Owned:
            return me.process_id, me.address, entry.index
        return entry.owner, entry.address, entry.index  # type: ignore[union-attr]

    def renew(self, owner: str, address: str, index: int) -> ObjectRef[Any]:
        """A handle to an object that nothing here need have referred to meanwhile. If it is gone its owner will say so (OW-2)."""
        [ref] = self.table([RefGroup(owner, address, [index])])
        return ref

    # -- pins: calls and values that contain references

    def unpin_all(self, entries: Sequence[Entry]) -> None:
        """What contained these is gone."""
        self._unpin(entries)
        if self._owing and not self._draining:
            self._pay_back()

    def _unpin(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if type(entry) is Owned:
                if self.owned.unpin(entry):
                    self._freed(entry)
            elif self.borrowed.unpin(entry):  # type: ignore[arg-type]
                self._forgotten(entry)  # type: ignore[arg-type]

    def _unpin_table(self, groups: Sequence[RefGroup]) -> None:
        self._unpin(self.entries_of(groups))

    def _value_gone(self, groups: Sequence[RefGroup]) -> None:
        """A value with these inside is gone, and others may go with it: none of them within another."""
        self._gone.add(groups)
        if self._gone.run() and self._owing and not self._draining:
            self._pay_back()

    def groups(self, entries: Sequence[Entry]) -> list[RefGroup]:
        """The wire form of a table of references, order kept: consecutive entries of one owner share a group."""
        groups: list[RefGroup] = []
        me = self._core.identity
        last = None
        for entry in entries:
            if type(entry) is Owned:
                owner, address = me.process_id, me.address
            else:
                owner, address = entry.owner, entry.address  # type: ignore[union-attr]
            if owner != last:
                groups.append(RefGroup(owner, address, []))
                last = owner
            groups[-1].indices.append(entry.index)
        return groups

    def entries_of(self, groups: Sequence[RefGroup]) -> list[Entry]:
        """The entries for references that arrived, in the order of their table."""
        # Ten thousand references are one table: the loops run in C.
        entries: list[Entry] = []
        me = self._core.identity.process_id
        for group in groups:
            owner, indices = group.owner, group.indices
            known: list[Any]
            if owner == me:
                known = list(map(self.owned.entries.get, indices))
                if None in known:
                    known = [entry or self._core.objects.ghost(index) for entry, index in zip(known, indices, strict=True)]
            else:
                known = list(map(self.borrowed.entries.get, zip(repeat(owner), indices)))
                if None in known:
                    known = [self.borrowed.get(owner, group.address, index) for index in indices]
            entries += known
        return entries

    def table(self, groups: Sequence[RefGroup] | None) -> list[ObjectRef[Any]]:
        """Handles for the references of a value that is about to be unpickled."""
        if not groups:
            return []
        core = self._core
        entries = self.entries_of(groups)
        for entry in entries:
            entry.local += 1
        return list(map(ObjectRef, repeat(core), entries))

    # -- sending and receiving values with references inside

    def lend_all(self, entries: Sequence[Entry], borrower: Peer) -> list[Entry]:
        """A value with these goes to `borrower`: count it for our own ones; return the others, pinned, to hold until it says Release."""
        hold: list[Entry] = []
        if borrower.lost:
            # Its borrows have been ended already: what is counted from now on nobody would give back.
            return hold
        for entry in entries:
            if type(entry) is Owned:
                self.owned.lend(entry.index, borrower.process_id)
            else:
                entry.pins += 1
                hold.append(entry)
        return hold

    def lent(self, index: int, borrower: str) -> bool:
        """`borrower` has counted itself, with a reply or by AddBorrow. False when the object is gone."""
        if not self.owned.lend(index, borrower):
            return False
        entry = self.owned.entries[index]
        if not entry.referred() and self.owned.settled_free(entry):
            # OW-4: its drop came first.
            self._freed(entry)
        return True

    def adopt(self, groups: Sequence[RefGroup] | None, sender: str, then: Callable[[], None]) -> list[Entry]:
        """A value with references arrived and is kept here: pin them all, and register with third owners.

        `then` is called when every owner has counted us (at once when there is no third owner). Returns the pinned entries.
        """
        if not groups:
            then()
            return []
        entries = self.entries_of(groups)
        third: dict[tuple[str, str], list[int]] = {}
        for entry in entries:
            entry.pins += 1
            if type(entry) is Borrowed and entry.owner != CLUSTER:  # Which counts nobody.
                entry.owed += 1
                if entry.owner != sender:
                    third.setdefault((entry.owner, entry.address), []).append(entry.index)
        self.register(third, then)
        return entries

    def register(self, third: dict[tuple[str, str], list[int]], then: Callable[[], None]) -> None:
        """Tell owners that we hold these from now on; `then` when all of them know."""
        left = len(third)
        if not left:
            then()
            return

        def acknowledged() -> None:
            nonlocal left
            left -= 1
            if not left:
                then()

        for (owner, address), indices in third.items():
            self._token += 1
            peer = self._core.peer(owner, address)
            if peer.lost:
                acknowledged()
                continue
            self._acks[self._token] = acknowledged
            self._core.pending_acks.setdefault(owner, set()).add(self._token)
            peer.send(AddBorrow(self._token, indices))

    def owner_gone(self, owner: str) -> None:
        """No acknowledgement will come from there any more; what waits for it goes on."""
        for token in sorted(self._core.pending_acks.pop(owner, ())):
            self._acknowledge(token)

    def _acknowledge(self, token: int) -> None:
        then = self._acks.pop(token, None)
        if then is not None:
            then()

    # -- messages

    def on_add_borrow(self, peer: Peer, message: AddBorrow) -> None:
        """An owner's part."""
        gone = [index for index in message.indices if not self.lent(index, peer.process_id)]
        peer.send(BorrowAck(message.token, gone))

    def on_borrow_ack(self, peer: Peer, message: BorrowAck) -> None:
        """A borrower's part. What is gone is found out by whoever asks for it."""
        self._core.pending_acks.get(peer.process_id, set()).discard(message.token)
        self._acknowledge(message.token)

    def on_drop_borrow(self, peer: Peer, message: DropBorrow) -> None:
        """An owner's part."""
        for index, count in zip(message.indices, message.counts, strict=True):
            entry = self.owned.give_back(index, peer.process_id, count)
            if entry is not None:
                self._freed(entry)

    def on_fetch(self, peer: Peer, message: Fetch) -> None:
        """An owner's part: answer when the object is settled."""
        entry = self.owned.entries.get(message.index)
        if entry is None:
            peer.send(Fetched(message.index, None))
        elif entry.outcome is not None:
            self._answer_fetch(peer, entry)
        else:
            self._core.caller.add_waiter(entry, Callback(lambda settled: self._answer_fetch(peer, settled)))

    def _answer_fetch(self, peer: Peer, entry: Owned) -> None:
        if peer.lost or entry.outcome is None:
            return
        entry.seen = True
        if entry.outcome.refs:
            # Ours are lent at once; others stay alive through this object, which the asker borrows until it has registered.
            self.lend_own(entry.outcome.refs, peer.process_id)
        peer.send(Fetched(entry.index, entry.outcome))

    def lend_own(self, groups: Sequence[RefGroup], borrower: str) -> None:
        """Count `borrower` for those references that we own."""
        me = self._core.identity.process_id
        for group in groups:
            if group.owner == me:
                for index in group.indices:
                    self.owned.lend(index, borrower)

    def on_fetched(self, peer: Peer, message: Fetched) -> None:
        """A borrower's part."""
        entry = self.borrowed.entries.get((peer.process_id, message.index))
        if entry is None or entry.outcome is not None:
            self._return_unwanted(peer, message.outcome)
            return
        outcome: Outcome = message.outcome if message.outcome is not None else self._core.objects.freed_outcome(entry)
        if outcome.refs:
            entry.pins += 1
            self.adopt(outcome.refs, peer.process_id, lambda: self.unpin_all((entry,)))
        self._core.caller.settled_borrow(entry, outcome)

    def _return_unwanted(self, peer: Peer, outcome: Outcome | None) -> None:
        if outcome is not None and outcome.refs:
            self.unpin_all(self.adopt(outcome.refs, peer.process_id, lambda: None))

    # -- the end of entries

    def _freed(self, entry: Owned) -> None:
        outcome = entry.outcome
        if outcome is not None and outcome.refs:
            self._value_gone(outcome.refs)
        self._core.objects.freed(entry)

    def free(self, entry: Owned) -> None:
        """The entry has just left the table."""
        self._freed(entry)

    def _forgotten(self, entry: Borrowed) -> None:
        if entry.owner == CLUSTER:
            self._core.durables.forgotten(entry.index)
        if entry.owed:
            self._owing.setdefault((entry.owner, entry.address), []).append(entry)
        if entry.outcome is not None:
            if entry.outcome.refs:
                self._value_gone(entry.outcome.refs)
            self._core.objects.forget_outcome(entry)

    def _pay_back(self) -> None:
        owing, self._owing = self._owing, {}
        for (owner, _), entries in owing.items():
            peer = self._core.known_peer(owner)
            if peer is None or peer.lost:
                # The owner counts by process: with the connection gone it has written us off already.
                continue
            peer.send(DropBorrow([entry.index for entry in entries], [entry.owed for entry in entries]))

    def lost(self, process_id: str) -> list[Borrowed]:
        """A process is gone: its borrows end; returns what we borrowed from it and do not know the outcome of."""
        for entry in self.owned.borrower_lost(process_id):
            self._freed(entry)
        self.owner_gone(process_id)
        return self.borrowed.owner_lost(process_id)
