"""Placement groups on this node: bundles are set aside and given back as the head says, and leases run in them.

This room is opened by the first word about a group that comes from the head: a node without bundles has no part of it. The policies
are `policy/bundles.py` and `policy/group_book.py`.

NG-1: what the bundles decide is carried out in order, before the node looks at anything else.
NG-2: whoever waits for a bundle that is not here any more is told so at once, and asks the head where it is.
NG-3: a new connection to the head begins with what is held here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import cast

from actorflow._core.base.errors import ProtocolError
from actorflow._core.base.ids import GroupId
from actorflow._core.base.resources import CPU
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import Holder, NodeContext
from actorflow._core.policy.bundles import Bundles
from actorflow._core.policy.group_book import GroupBook
from actorflow._core.policy.placement_decisions import BundlesLost, KillLease, NodeDecision, Prepared, PrepareRefused
from actorflow._core.policy.placement_wish import group_of
from actorflow._core.policy.tickets import Refused, Ticket, TicketKind
from actorflow._core.protocol.messages import GroupWord, HeldBundle
from actorflow._core.protocol.messages import group as words

log = logging.getLogger(__name__)

REPORT_S = 0.02
"""How long a change of what leases outside bundles use waits for more of them."""


class Groups:
    """See the module."""

    def __init__(self, context: NodeContext, pump: Callable[[], None]) -> None:
        self._context = context
        self._pump = pump
        self._books: dict[GroupId, GroupBook] = {}
        """Of the groups in which somebody has, or wants, a lease."""
        self._said: list[NodeDecision] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_at = 0.0
        self._report: asyncio.TimerHandle | None = None
        self._told: dict[str, int] = {}
        self._spoke = False
        self.bundles = Bundles(context.book.pool)
        """To be read by others, written here."""

    def stop(self) -> None:
        """No timer fires from now on."""
        for timer in (self._deadline, self._report):
            if timer is not None:
                timer.cancel()
        self._deadline = self._report = None

    # -- from and to the head

    def word(self, peer: Peer, message: GroupWord) -> None:
        """The head says something about a group. The node looks at what follows when all words of this turn are heard."""
        try:
            word = words.hear(message)
        except ProtocolError as error:
            log.error("%r says what is no word about groups; its connection is closed: %s", peer, error)
            peer.close(abort=True)
            return
        bundles = self.bundles
        if isinstance(word, words.PrepareBundles):
            now = self._context.now()
            self._said += bundles.prepare(
                word.group_id, word.attempt, word.bundles, now, keep_s=word.keep_s, commit=word.commit, claim=word.claim
            )
        elif isinstance(word, words.CommitBundles):
            self._said += bundles.commit(word.group_id, word.attempt)
        elif isinstance(word, words.CancelBundles):
            self._said += bundles.cancel(word.group_id, word.attempt)
        elif isinstance(word, words.ReturnBundles):
            self._said += bundles.return_group(word.group_id, word.attempt)
        else:
            log.error("%r said %s, which a head never says to a node", peer, word)
            return
        self._context.book.touch()
        self._look_at(word.group_id)
        self._carry_out()
        self._set_deadline()

    def joined(self) -> None:
        """There is a new connection to the head (NG-3)."""
        held = [words.HeldEntry(h.group_id, h.attempt, list(h.indexes), h.committed, h.claimed) for h in self.bundles.held()]
        if held:
            self._context.head.send(words.say(words.BundlesHeld(held)))
        self._told = {}
        self.looked_at()

    def held(self) -> list[HeldBundle]:
        """All that is here."""
        return [HeldBundle(h.group_id, h.attempt, list(h.indexes), h.committed, h.claimed) for h in self.bundles.held()]

    def looked_at(self) -> None:
        """Something may have changed here: tell the head soon what is used outside bundles. The turn is over: what was said goes."""
        if self._spoke:
            self._spoke = False
            self._context.head.flush()
        if self._report is None and self._outside() != self._told:
            self._report = self._context.ports.loop.call_later(REPORT_S, self._tell)

    def _tell(self) -> None:
        self._report = None
        outside = self._outside()
        if outside != self._told:
            self._told = outside
            self._context.head.send(words.say(words.OutsideUsed(outside)))

    def _outside(self) -> dict[str, int]:
        """What other leases use. CPU that is only lent is theirs: bundles cannot have it."""
        pool = self._context.book.pool
        used = {}
        for name, total in pool.total.amounts.items():
            units = total - pool.free.get(name) - self.bundles.taken.get(name) + (pool.lent if name == CPU else 0)
            if units:
                used[name] = units
        return used

    # -- leases

    def request(self, placement: str, kind: TicketKind, client: str, demand: dict[str, int], priority: int, name: str) -> Ticket | Refused:
        """A ticket for a part of a bundle."""
        group_id, index = group_of(placement)
        book = self._books.get(group_id)
        if book is None:
            config = self._context.config
            book = GroupBook(
                group_id, self.bundles, self._context.book.by_process, self._said,
                starvation_s=config.starvation_s, blocked_max=config.blocked_max(),
            )  # fmt: skip
        answer = book.request_in(index, kind, client, demand, self._context.now(), priority=priority, name=name)
        if isinstance(answer, Ticket):
            self._books[group_id] = book
        return answer

    def books(self) -> Iterable[GroupBook]:
        """The tickets in bundles, group by group."""
        return self._books.values()

    @property
    def waiting(self) -> bool:
        """True while somebody waits for room in a bundle."""
        return any(book.waiting for book in self._books.values())

    def admit(self, now: float) -> list[Ticket]:
        """Grant what can be granted: claims of bundles first, then leases outside and inside of them."""
        served = self.bundles.admit()
        for decision in served:
            # A claim that was served may be open to leases at once, and somebody may wait for one.
            if isinstance(decision, Prepared) and (book := self._books.get(decision.group_id)) is not None:
                book.touch()
        self._said += served
        self._carry_out()
        if self.bundles.gave_back():
            self._context.book.touch()
        # On a node that is to leave, only what belongs into the bundles that are there.
        granted = self._context.book.admit(now, self.bundles.claimed()) if not self._context.draining else []
        for group_id, book in list(self._books.items()):
            granted += book.admit(now)
            if book.idle():
                del self._books[group_id]
        if self._said:
            self._carry_out()
        return granted

    def _look_at(self, group_id: GroupId) -> None:
        """There is another state of its bundles: some may be open now, and some gone (NG-2)."""
        book = self._books.get(group_id)
        if book is None:
            return
        book.touch()
        for ticket, refused in book.stranded():
            cast(Holder, ticket.holder).refused(refused.kind, refused.reason)

    # -- decisions

    def _carry_out(self) -> None:
        """NG-1."""
        while self._said:
            said = self._said[:]
            self._said.clear()  # The books hold this very list.
            for decision in said:
                self._carry_out_one(decision)
            self._context.book.touch()

    def _carry_out_one(self, decision: NodeDecision) -> None:
        self._spoke = True
        send = self._context.head.send
        if isinstance(decision, KillLease):
            ticket = cast(Ticket, decision.lease.holder)
            cast(Holder, ticket.holder).evicted(decision.reason, removed=decision.removed)
        elif isinstance(decision, Prepared):
            send(words.say(words.BundlesPrepared(decision.group_id, decision.attempt)))
        elif isinstance(decision, PrepareRefused):
            # The head has thought that there is room: it must hear first what else is used here.
            self._tell()
            send(words.say(words.BundlesRefused(decision.group_id, decision.attempt, decision.reason)))
        elif isinstance(decision, BundlesLost):
            send(words.say(words.BundlesLost(decision.group_id, decision.attempt, decision.reason)))
        else:
            send(words.say(words.BundlesReturned(decision.group_id, decision.attempt)))

    # -- time

    def _set_deadline(self) -> None:
        """Have what is never committed given back in time."""
        at = self.bundles.next_deadline()
        if at is None or (self._deadline is not None and self._deadline_at <= at):
            return
        if self._deadline is not None:
            self._deadline.cancel()
        delay_s = max(0.0, at - self._context.now())
        self._deadline, self._deadline_at = self._context.ports.loop.call_later(delay_s, self._ring), at

    def _ring(self) -> None:
        self._deadline = None
        groups = dict.fromkeys(reservation.group_id for reservation in self.bundles.reservations())
        self._said += self.bundles.tick(self._context.now())
        self._carry_out()
        for group_id in groups:
            self._look_at(group_id)
        self._set_deadline()
        self._pump()
