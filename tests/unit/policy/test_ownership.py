"""Who owns what, and when it may go: the tables by themselves, then whole histories of processes that exchange references.

OW-n are the invariants of policy/ownership.py. The histories run the real tables, the real wire of worker/references.py and the real
packing of calls and results; the test is the network, which delivers each connection in order and the connections in any order.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorflow._core.base.errors import OwnerDiedError, TaskCancelledError
from actorflow._core.policy.ownership import Borrowed, Borrows, Owned, Ownership
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.serialization import values
from actorflow._core.worker.caller import Caller
from actorflow._core.worker.calls import Call, CallState, pack
from actorflow._core.worker.cancels import Cancels
from actorflow._core.worker.incoming import Incoming, load_arguments, pack_result, still_borrowed
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.objects import Objects
from actorflow._core.worker.references import References
from actorflow._core.worker.turns import Turns
from actorflow._core.worker.wakers import Callback

VALUE = m.Inline(b"value")

# The tables -------------------------------------------------------------------------------------------------


def owned(table: Ownership, *, local: int = 0, pins: int = 0, settled: bool = True) -> Owned:
    entry = table.new()
    entry.local, entry.pins = local, pins
    if settled:
        table.settle(entry, VALUE)
    return entry


def test_ow_1_the_last_handle_frees_a_settled_object() -> None:
    table = Ownership()
    entry = owned(table, local=3)
    assert not table.drop_local(entry, 2)
    assert entry.referred()
    assert table.drop_local(entry)
    assert table.entries == {}


def test_ow_1_an_object_waits_for_its_outcome_before_it_goes() -> None:
    table = Ownership()
    entry = owned(table, local=1, settled=False)
    assert not table.drop_local(entry)
    assert entry.index in table.entries
    assert table.settle(entry, VALUE)
    assert table.settled_free(entry)
    assert table.entries == {}


def test_ow_1_an_argument_outlives_its_handles_until_it_is_unpinned() -> None:
    """SEMANTICS 13: arguments that are refs are pinned until the reply."""
    table = Ownership()
    entry = owned(table, local=1, pins=1)
    assert not table.drop_local(entry)
    assert table.unpin(entry)
    assert table.entries == {}


def test_ow_1_a_settled_object_with_a_borrower_stays() -> None:
    table = Ownership()
    entry = owned(table, local=1)
    assert table.lend(entry.index, "b")
    assert not table.drop_local(entry)
    assert table.give_back(entry.index, "b", 1) is entry
    assert table.entries == {}


def test_ow_1_more_drops_than_handles_are_a_bug_of_ours() -> None:
    table = Ownership()
    with pytest.raises(AssertionError, match="OW-1"):
        table.drop_local(owned(table))
    with pytest.raises(AssertionError, match="OW-1"):
        table.unpin(owned(table))


def test_ow_2_a_freed_index_is_never_used_again() -> None:
    table = Ownership()
    first = owned(table, local=1)
    table.drop_local(first)
    assert table.new().index != first.index
    assert not table.lend(first.index, "b")
    assert table.give_back(first.index, "b", 1) is None
    assert first.borrowers is None


def test_ow_3_the_first_outcome_stays() -> None:
    table = Ownership()
    entry = owned(table, local=1)
    assert not table.settle(entry, m.Failed(b"late"))
    assert entry.outcome is VALUE


def test_ow_4_a_reference_that_crosses_a_drop_is_not_lost() -> None:
    table = Ownership()
    entry = owned(table)
    table.lend(entry.index, "b")
    table.lend(entry.index, "b")  # on its way while `b` drops what it has seen: one
    assert table.give_back(entry.index, "b", 1) is None
    assert entry.borrowers == {"b": 1}
    assert table.give_back(entry.index, "b", 1) is entry


def test_ow_4_a_drop_that_overtakes_its_loan_does_not_free() -> None:
    table = Ownership()
    entry = owned(table)
    assert table.give_back(entry.index, "b", 1) is None
    assert entry.referred()
    table.lend(entry.index, "c")
    table.lend(entry.index, "b")
    assert entry.borrowers == {"c": 1}
    assert table.give_back(entry.index, "c", 1) is entry


def test_a_lost_borrower_gives_back_all_that_it_held() -> None:
    """SEMANTICS 17 from the other side: owners outlive their borrowers without a trace of them."""
    table = Ownership()
    only_his, also_mine, not_ready, others = owned(table), owned(table, local=1), owned(table, settled=False), owned(table)
    for entry in (only_his, also_mine, not_ready):
        table.lend(entry.index, "b", 7)
    table.lend(others.index, "c")
    assert table.borrower_lost("b") == [only_his]
    assert table.borrower_lost("b") == []
    assert list(table.entries.values()) == [also_mine, not_ready, others]


def test_a_borrowed_object_is_one_entry_until_nothing_refers_to_it() -> None:
    table = Borrows()
    entry = table.get("o", "unix:o", 5)
    assert table.get("o", "unix:o", 5) is entry
    assert table.get("p", "unix:p", 5) is not entry
    entry.local, entry.pins = 2, 1
    assert not table.drop_local(entry, 2)
    assert entry.referred()
    assert table.unpin(entry)
    assert table.get("o", "unix:o", 5) is not entry


def test_a_borrower_may_not_drop_more_than_it_has() -> None:
    table = Borrows()
    with pytest.raises(AssertionError, match="OW-1"):
        table.drop_local(table.get("o", "unix:o", 1))
    with pytest.raises(AssertionError, match="OW-1"):
        table.unpin(table.get("o", "unix:o", 1))


def test_a_lost_owner_takes_what_is_not_known_yet_and_forgets_the_debts() -> None:
    """SEMANTICS 17: OwnerDiedError for what only the owner knew. OW-4: it wrote us off, so nothing is owed any more."""
    table = Borrows()
    known, unknown, other = table.get("o", "unix:o", 1), table.get("o", "unix:o", 2), table.get("p", "unix:p", 1)
    known.outcome = VALUE
    known.owed, other.owed = 2, 1
    assert table.owner_lost("o") == [unknown]
    assert (known.owed, other.owed) == (0, 1)


# Processes --------------------------------------------------------------------------------------------------

LOST = "lost"
"""Stands on a wire where its sender died: what was sent before still arrives."""
TARGET = SimpleNamespace(name="f")
OPTIONS = SimpleNamespace(num_returns=1, special=False)


class Net:
    """One wire for each ordered pair of processes."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.wires: dict[tuple[str, str], deque[Any]] = {}
        self.born: dict[tuple[str, int], int] = {}
        """When an object was made. Values refer to older objects only: cycles are not counted away, and not claimed to be."""

    def wire(self, source: str, target: str) -> deque[Any]:
        return self.wires.setdefault((source, target), deque())

    def busy(self) -> list[tuple[str, str]]:
        return [ends for ends, wire in self.wires.items() if wire]

    def deliver(self, source: str, target: str) -> None:
        message = self.wires[source, target].popleft()
        if self.processes[target].alive:
            self.processes[target].receive(source, message)

    def deliver_all(self, order: int = 0) -> None:
        """Until nothing is under way; `order` is a seed for which wire comes next."""
        choice = random.Random(order).choice
        while busy := self.busy():
            self.deliver(*choice(busy))

    def kill(self, name: str) -> None:
        """As kill -9: what it has sent arrives, what was sent to it does not."""
        self.processes[name].alive = False
        for other in self.processes:
            if other != name:
                self.wire(other, name).clear()
                self.wire(name, other).append(LOST)


class FakePeer:
    """One end of a connection."""

    def __init__(self, net: Net, here: str, there: str) -> None:
        self.net = net
        self.here = here
        self.process_id = there
        self.lost = False

    def send(self, message: m.AnyMessage) -> None:
        if not self.lost and self.net.processes[self.process_id].alive:
            self.net.wire(self.here, self.process_id).append(message)


class Running:
    """A call that a process executes: its code holds the references among its arguments."""

    def __init__(self, incoming: Incoming, refs: list[ObjectRef[Any]]) -> None:
        self.incoming = incoming
        self.refs = refs


class Process:
    """One process: as much of a Core as references need, and the user code that holds handles."""

    def __init__(self, net: Net, name: str) -> None:
        self.net = net
        self.name = name
        self.alive = True
        self.identity = Identity("worker", name, address=f"unix:{name}")
        self.lock = contextlib.nullcontext()
        self.closed: BaseException | None = None
        self.pending_acks: dict[str, Any] = {}
        core: Any = self
        self.references = References(core)
        self.dropped = self.references.dropped
        self.objects = Objects(core)
        self.host = None
        self.turns = Turns(lambda: 0.0)
        self.cancels = Cancels(core)
        self.caller = Caller(core)
        self.actors = SimpleNamespace(completed=lambda call: None)
        self.handles: list[ObjectRef[Any]] = []
        self.running: list[Running] = []
        self.calls: dict[int, tuple[FakePeer, Call]] = {}
        self.holds: dict[int, tuple[FakePeer, list[Any]]] = {}
        self._peers: dict[str, FakePeer] = {}
        self._next_hold = 1

    # -- what References, Caller and Objects ask of a Core

    def known_peer(self, name: str) -> FakePeer | None:
        return self._peers.get(name)

    def peer(self, name: str, address: str = "") -> FakePeer:
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = FakePeer(self.net, self.name, name)
            if not self.net.processes[name].alive:
                self.net.wire(name, self.name).append(LOST)  # nobody answers there
        return peer

    def check_open(self) -> None:
        pass

    @staticmethod
    def failed(error: BaseException) -> m.Failed:
        return m.Failed(b"\0" + values.dumps_plain(error))

    @staticmethod
    def error_of(outcome: m.Failed) -> Any:
        return values.loads_plain(outcome.error[1:])

    # -- what user code does

    def put(self, refs: list[ObjectRef[Any]]) -> None:
        ref = finish_now(self.objects.put(refs))
        self.note_birth(ref._entry)
        self.handles.append(ref)

    def call(self, worker: str, refs: list[ObjectRef[Any]]) -> None:
        """As Caller.submit, for a worker that is there. References whose outcome is known are arguments of their own."""
        call: Call = Call(TARGET, OPTIONS, 0)  # type: ignore[arg-type]
        known = [ref for ref in refs if type(ref._entry.outcome) is m.Inline]
        assert pack(call, (refs, *known), {}) is None
        for pinned in call.pins:
            pinned.pins += 1
        entry = call.entry = self.references.owned.new()
        entry.call, entry.seen, call.state = call, True, CallState.PUSHED
        self.note_birth(entry)
        self.handles.append(self.references.handle(entry))
        peer = self.peer(worker)
        self.calls[entry.index] = (peer, call)
        deps: Any = [dep.outcome for dep in call.deps or ()]
        context = m.CallContext(deps=deps, refs=self.references.groups(call.refs or ()))
        peer.send(m.TaskCall(entry.index, 0, 0, "f", call.args, call.buffers, context))

    def give_up(self, index: int) -> None:
        """Settle a call that still runs elsewhere: its answer will find nobody."""
        self.caller.finish(self.calls.pop(index)[1], self.failed(TaskCancelledError("enough")))
        self.end_batch()

    def end_call(self, which: int, keep: list[int], returned: list[int], *, fails: bool) -> None:
        """The code of a call ends: it keeps some references, returns some, and lets go of the others."""
        running = self.running.pop(which)
        incoming = running.incoming
        within_reach = [*running.refs, *self.handles]
        before = self.net.born.get((incoming.peer.process_id, incoming.message.seq), 0)
        self.handles += choose(running.refs, keep)
        result = [ref for ref in choose(within_reach, returned) if self.birth(ref._entry) < before]
        running.refs, within_reach = [], []
        core: Any = self
        if fails:
            self.reply(incoming, self.failed(ValueError("no")), [])
        else:
            pack_result(core, incoming, result, lambda outcome, hold: self.reply(incoming, outcome, hold))
        del result
        self.end_batch()

    def reply(self, incoming: Incoming, outcome: m.Outcome, hold: list[Any]) -> None:
        """As Host._send_reply."""
        core: Any = self
        peer: Any = incoming.peer
        reply = m.Reply(incoming.message.seq, incoming.message.attempt, outcome)
        if hold:
            reply.hold, self._next_hold = self._next_hold, self._next_hold + 1
            self.holds[reply.hold] = (peer, hold)
        own, third = still_borrowed(core, incoming)
        reply.borrowed = own or None
        self.references.register(third, lambda: peer.send(reply))

    def look(self, ref: ObjectRef[Any]) -> None:
        """Open what is known; ask for what is not."""
        entry = ref._entry
        if type(entry.outcome) is m.Inline:
            self.handles += self.objects.open_inline(entry, entry.outcome)
        elif entry.outcome is None:
            self.caller.add_waiter(entry, Callback(lambda settled: None))

    # -- what arrives

    def receive(self, source: str, message: Any) -> None:
        """One message, as a batch of its own."""
        if message is LOST:
            self.lost(source)
        else:
            self.dispatch(self.peer(source), message)
        self.end_batch()

    def dispatch(self, peer: Any, message: m.AnyMessage) -> None:
        references, core = self.references, self
        match message:
            case m.TaskCall():
                incoming = Incoming(peer, message, None)
                args, _ = load_arguments(core, incoming)  # type: ignore[arg-type]
                self.running.append(Running(incoming, [ref for refs in args for ref in refs]))
            case m.Reply():
                self.calls.pop(message.seq, None)
                self.caller.on_reply(peer, message)
            case m.Release():
                references.unpin_all(self.holds.pop(message.hold)[1])
            case m.AddBorrow():
                references.on_add_borrow(peer, message)
            case m.BorrowAck():
                references.on_borrow_ack(peer, message)
            case m.DropBorrow():
                references.on_drop_borrow(peer, message)
            case m.Fetch():
                references.on_fetch(peer, message)
            case m.Fetched():
                references.on_fetched(peer, message)
            case _:
                raise AssertionError(f"nobody sends {message}")

    def lost(self, name: str) -> None:
        """As Core.peer_lost and what it calls."""
        peer = self._peers.pop(name, None)
        if peer is not None:
            peer.lost = True
        for index, (worker, call) in list(self.calls.items()):
            if worker is peer:
                del self.calls[index]
                self.caller.finish(call, self.failed(OwnerDiedError("the worker is gone")))
        for hold, (holder, entries) in list(self.holds.items()):
            if holder is peer:
                del self.holds[hold]
                self.references.unpin_all(entries)
        for entry in self.references.lost(name):
            self.caller.settled_borrow(entry, self.failed(OwnerDiedError("the owner is gone")))

    def end_batch(self) -> None:
        self.references.drain()

    # -- what the test wants to know

    def note_birth(self, entry: Owned) -> None:
        self.net.born[self.name, entry.index] = len(self.net.born) + 1

    def birth(self, entry: Owned | Borrowed) -> int:
        owner = entry.owner if isinstance(entry, Borrowed) else self.name
        return self.net.born[owner, entry.index]

    def counts(self) -> dict[tuple[str, int], int]:
        """OW-4: how often this process believes to have been counted, by object."""
        return {key: entry.owed for key, entry in self.references.borrowed.entries.items() if entry.owed}


def finish_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


def choose(refs: list[ObjectRef[Any]], picks: list[int]) -> list[ObjectRef[Any]]:
    """Some of the references, each once; none when there are none."""
    return [refs[at] for at in dict.fromkeys(pick % len(refs) for pick in picks)] if refs else []


# Single stories ---------------------------------------------------------------------------------------------


def net_of(*names: str) -> Net:
    net = Net()
    net.processes.update({name: Process(net, name) for name in names})
    return net


def test_what_a_call_keeps_is_borrowed_when_its_reply_comes() -> None:
    """SEMANTICS 13: the arguments are pinned until the reply, and the reply says what is still held."""
    net = net_of("a", "b")
    a, b = net.processes.values()
    a.put([])
    a.call("b", [a.handles[0]])
    a.handles.clear()
    net.deliver_all()
    b.end_call(0, keep=[0], returned=[], fails=False)
    net.deliver_all()
    [entry] = a.references.owned.entries.values()
    assert (entry.pins, entry.borrowers) == (0, {"b": 1})
    b.handles.clear()
    b.end_batch()
    net.deliver_all()
    assert a.references.owned.entries == {}, "OW-1"


def test_what_a_call_keeps_is_borrowed_although_nobody_waits_for_its_reply() -> None:
    """OW-4: the worker believes to be counted, so it must be."""
    net = net_of("a", "b")
    a, b = net.processes.values()
    a.put([])
    a.call("b", [a.handles[0]])
    net.deliver_all()
    a.give_up(2)
    b.end_call(0, keep=[0], returned=[], fails=False)
    net.deliver_all()
    assert a.references.owned.entries[1].borrowers == {"b": 1}


def test_a_loan_that_comes_after_its_drop_frees() -> None:
    """OW-4 and OW-1: the reply that says `I hold it` may wait for a third owner while the drop does not."""
    net = net_of("a", "b", "c")
    a, b, c = net.processes.values()
    c.put([])
    a.call("c", [])
    net.deliver_all()
    net.born["c", 1] = 0
    c.end_call(0, keep=[], returned=[0], fails=False)
    c.handles.clear()
    net.deliver_all()
    a.look(a.handles[0])
    a.put([])
    a.call("b", a.handles[1:])
    net.deliver_all()
    b.end_call(0, keep=[0, 1], returned=[], fails=False)
    b.handles.clear()
    b.end_batch()
    net.deliver("b", "a")
    a.give_up(3)
    a.handles.clear()
    a.end_batch()
    assert a.references.owned.entries[2].borrowers == {"b": -1}
    net.deliver_all()
    assert [process.references.owned.entries for process in (a, b, c)] == [{}, {}, {}], "OW-1"


def test_ow_2_an_own_object_that_comes_back_after_its_end_is_gone_and_harms_nobody() -> None:
    net = net_of("a", "b")
    a, b = net.processes.values()
    a.put([])
    a.call("b", [a.handles[0]])
    net.deliver_all()
    a.give_up(2)
    a.handles.clear()
    a.end_batch()
    b.end_call(0, keep=[0], returned=[], fails=False)
    net.deliver_all()
    assert a.references.owned.entries == {}
    a.call("b", [])
    net.deliver_all()
    b.end_call(0, keep=[], returned=[0], fails=False)
    net.deliver_all()
    a.look(a.handles[0])
    assert type(a.handles[1]._entry.outcome) is m.Failed
    assert a.references.owned.entries.keys() == {3}, "OW-2: a freed index is never revived"
    a.handles.clear()
    a.end_batch()
    assert a.references.owned.entries == {}


def test_a_loan_that_crosses_a_drop_is_not_lost() -> None:
    """OW-4, on the wire: the owner lends a second time while the borrower pays back what it has seen of the first."""
    net = net_of("a", "b")
    a, b = net.processes.values()
    a.put([])
    b.call("a", [])
    net.deliver_all()
    a.end_call(0, keep=[], returned=[0], fails=False)
    net.deliver_all()
    b.call("a", [])
    net.deliver_all()
    a.end_call(0, keep=[], returned=[0], fails=False)
    a.handles.clear()
    a.end_batch()
    del b.handles[0]
    b.end_batch()
    assert ([type(x) for x in net.wires["a", "b"]], [type(x) for x in net.wires["b", "a"]]) == ([m.Reply], [m.DropBorrow])
    net.deliver("b", "a")
    assert a.references.owned.entries[1].borrowers == {"b": 1}
    net.deliver_all()
    assert b.counts() == {("a", 1): 1}


def test_a_result_is_held_until_its_receiver_is_counted() -> None:
    """SEMANTICS 13: refs inside results are held by the sender until the receiver's borrow is acknowledged."""
    net = net_of("a", "b", "c")
    a, b, c = net.processes.values()
    c.put([])
    c.call("b", c.handles)
    net.deliver_all()
    b.end_call(0, keep=[0], returned=[], fails=False)
    net.deliver_all()
    c.handles.clear()
    c.end_batch()
    a.call("b", [])
    net.deliver_all()
    b.end_call(0, keep=[], returned=[0], fails=False)
    b.handles.clear()
    b.end_batch()
    net.deliver("b", "a")
    assert [ends for ends in net.busy() if "b" in ends] == [], "b holds on until a says Release"
    net.deliver("a", "c")
    assert c.references.owned.entries[1].borrowers == {"b": 1, "a": 1}
    net.deliver_all()
    assert c.references.owned.entries[1].borrowers == {"a": 1}


def test_nothing_is_lent_to_a_caller_that_is_gone() -> None:
    net = net_of("a", "b")
    a, b = net.processes.values()
    b.put([])
    a.call("b", [])
    net.deliver_all()
    net.kill("a")
    net.deliver_all()
    net.born["a", 1] = 2
    b.end_call(0, keep=[], returned=[0], fails=False)
    b.handles.clear()
    b.end_batch()
    assert b.references.owned.entries == {}, "OW-1"


def test_thousands_of_references_travel_in_one_group_and_return_in_one_message() -> None:
    """SEMANTICS 13: borrow messages are batched (10,000 refs, one message)."""
    many = 2_000
    net = net_of("a", "b", "c")
    a, b, c = net.processes.values()
    for _ in range(many):
        a.put([])
    a.call("b", a.handles)
    a.handles.clear()
    [call] = net.wires["a", "b"]
    assert [len(group.indices) for group in call.context.refs] == [many]
    net.deliver_all()
    b.call("c", b.running[0].refs)
    [forwarded] = net.wires["b", "c"]
    assert [len(group.indices) for group in forwarded.context.refs] == [many]
    net.deliver_all()
    c.end_call(0, keep=list(range(many)), returned=[], fails=False)
    assert [type(message) for message in net.wires["c", "a"]] == [m.AddBorrow]
    net.deliver_all()
    c.handles.clear()
    c.end_batch()
    assert [type(message) for message in net.wires["c", "a"]] == [m.DropBorrow]


NESTED = 5_000
"""As deep as values lie within one another: far deeper than Python's stack."""


def nest(process: Process) -> None:
    """Leave one handle: to a value with a reference to a value with a reference to ..."""
    process.put([])
    for _ in range(NESTED):
        process.put(process.handles[-1:])
        del process.handles[0]
    process.end_batch()
    assert len(process.references.owned.entries) == NESTED + 1


def lent_nest() -> tuple[Net, Process, Process]:
    """What `nest` leaves at "a", with the only handle at "b"."""
    net = net_of("a", "b")
    a, b = net.processes.values()
    nest(a)
    a.call("b", [a.handles[0]])
    a.handles.clear()
    net.deliver_all()
    b.end_call(0, keep=[0], returned=[], fails=False)
    net.deliver_all()
    return net, a, b


def test_ow_1_values_within_values_go_with_the_last_handle_however_deep() -> None:
    [a] = net_of("a").processes.values()
    nest(a)
    a.handles.clear()
    a.end_batch()
    assert a.references.owned.entries == {}, "OW-1"


def test_ow_1_a_borrower_that_has_looked_all_the_way_down_lets_go_of_all_with_one_message() -> None:
    net, a, b = lent_nest()
    for _ in range(NESTED):
        b.look(b.handles[-1])
        net.deliver_all()
        b.look(b.handles[-1])
        del b.handles[1:-1]
    b.end_batch()
    del b.handles[1:]
    b.end_batch()
    assert len(a.references.owned.entries) == NESTED + 1, "the borrower keeps the outermost, and that all the others"
    assert len(b.references.borrowed.entries) == NESTED + 1
    net.deliver_all()
    b.handles.clear()
    b.end_batch()
    assert b.references.borrowed.entries == {}
    assert [type(message) for message in net.wires["b", "a"]] == [m.DropBorrow]
    net.deliver_all()
    a.handles.clear()
    a.end_batch()
    assert a.references.owned.entries == {}, "OW-1"


def test_ow_1_a_borrower_that_is_lost_frees_what_is_nested() -> None:
    net, a, _ = lent_nest()
    net.kill("b")
    a.end_batch()
    net.deliver_all()
    assert a.references.owned.entries == {}, "OW-1"


# Histories --------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
HANDLES_MAX = 8
PICK = st.integers(0, 30)
PICKS = st.lists(PICK, max_size=3)
ORDER = st.sampled_from([0, 0, 1, 2, 3, 4])


class Exchange(RuleBasedStateMachine):
    """Nobody dies: every reference that anybody holds leads to an object."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net_of(*NAMES)

    @property
    def living(self) -> list[Process]:
        return [process for process in self.net.processes.values() if process.alive]

    def some(self, pick: int) -> Process:
        return self.living[pick % len(self.living)]

    def then(self, order: int) -> None:
        """Deliver everything, or (0) nothing: prompt deliveries lead far, slow ones let messages cross."""
        if order:
            self.net.deliver_all(order)

    @rule(who=PICK, picks=PICKS)
    def put(self, who: int, picks: list[int]) -> None:
        process = self.some(who)
        if len(process.handles) < HANDLES_MAX:
            process.put(choose(process.handles, picks))

    @rule(who=PICK, worker=st.integers(1, len(NAMES) - 1), picks=PICKS, order=ORDER)
    def call(self, who: int, worker: int, picks: list[int], order: int) -> None:
        process = self.some(who)
        if len(process.handles) < HANDLES_MAX:
            process.call(NAMES[(NAMES.index(process.name) + worker) % len(NAMES)], choose(process.handles, picks))
        self.then(order)

    @rule(pick=PICK, keep=PICKS, returned=PICKS, fails=st.sampled_from([False, False, False, True]), order=ORDER)
    @precondition(lambda self: any(process.running for process in self.living))
    def end_call(self, pick: int, keep: list[int], returned: list[int], fails: bool, order: int) -> None:
        busy = [process for process in self.living if process.running]
        process = busy[pick % len(busy)]
        process.end_call(pick % len(process.running), keep, returned, fails=fails)
        self.then(order)

    @rule(who=PICK, pick=PICK, order=ORDER)
    @precondition(lambda self: any(process.handles for process in self.living))
    def look(self, who: int, pick: int, order: int) -> None:
        holders = [process for process in self.living if process.handles]
        process = holders[who % len(holders)]
        if len(process.handles) < HANDLES_MAX:
            process.look(process.handles[pick % len(process.handles)])
        self.then(order)

    @rule(who=PICK, pick=PICK, count=st.integers(1, HANDLES_MAX), counted=st.booleans())
    @precondition(lambda self: any(process.handles for process in self.living))
    def drop(self, who: int, pick: int, count: int, counted: bool) -> None:
        """SEMANTICS 18: a dropped handle is counted now or later."""
        holders = [process for process in self.living if process.handles]
        process = holders[who % len(holders)]
        first = pick % len(process.handles)
        del process.handles[first : first + count]
        if counted:
            process.end_batch()

    @rule(pick=PICK)
    @precondition(lambda self: self.net.busy())
    def deliver(self, pick: int) -> None:
        busy = self.net.busy()
        self.net.deliver(*busy[pick % len(busy)])

    # -- what holds at any time

    @invariant()
    def nothing_live_is_freed(self) -> None:
        for process in self.living:
            for owner, index in process.references.borrowed.entries:
                entries = self.net.processes[owner].references.owned.entries
                assert index in entries, f"OW-1, SEMANTICS 13: {process.name} refers to {owner}-{index}, which is gone"

    @invariant()
    def what_is_in_the_table_is_alive(self) -> None:
        for process in self.living:
            for entry in process.references.owned.entries.values():
                assert entry.outcome is None or entry.referred() or entry.call, "OW-1"
            for borrowed in process.references.borrowed.entries.values():
                assert borrowed.referred(), "OW-1"

    def check_counts(self) -> None:
        """With nothing under way, both sides have counted the same."""
        self.net.deliver_all()
        for process in self.living:
            process.end_batch()
        self.net.deliver_all()
        for borrower in self.living:
            counted = {
                (owner.name, entry.index): entry.borrowers[borrower.name]
                for owner in self.living
                for entry in owner.references.owned.entries.values()
                if entry.borrowers and borrower.name in entry.borrowers
            }
            expected = {key: owed for key, owed in borrower.counts().items() if self.exists(*key)}
            assert counted == expected, "OW-4"

    def exists(self, owner: str, index: int) -> bool:
        process = self.net.processes[owner]
        return process.alive and index in process.references.owned.entries

    def teardown(self) -> None:
        """When everybody has let go of everything, nothing is left anywhere."""
        self.check_counts()
        while any(process.running for process in self.living):
            for process in self.living:
                for _ in range(len(process.running)):
                    process.end_call(0, [], [], fails=False)
            self.check_counts()
        for process in self.living:
            process.handles.clear()
        self.check_counts()
        for process in self.living:
            assert process.references.owned.entries == {}, "OW-1: an object is left that nobody refers to"
            assert process.references.borrowed.entries == {}
            assert process.holds == {}, "SEMANTICS 13: held, and never released"
            assert not any(process.pending_acks.values())
        self.close()

    def close(self) -> None:
        for process in self.net.processes.values():
            process.handles.clear()
            process.running.clear()


class Losses(Exchange):
    """Processes die and calls are given up, at any moment: references may lead nowhere then, but nothing is left behind."""

    @rule(who=PICK, order=ORDER)
    @precondition(lambda self: len(self.living) > 1 and any(process.running for process in self.living))
    def kill(self, who: int, order: int) -> None:
        self.net.kill(self.some(who).name)
        self.then(order)

    @rule(who=PICK, pick=PICK)
    @precondition(lambda self: any(process.calls for process in self.living))
    def give_up(self, who: int, pick: int) -> None:
        callers = [process for process in self.living if process.calls]
        process = callers[who % len(callers)]
        process.give_up(list(process.calls)[pick % len(process.calls)])

    @invariant()
    def nothing_live_is_freed(self) -> None:
        """OW-4: whoever is counted by a living owner has what it borrowed."""
        for owner in self.living:
            for entry in owner.references.owned.entries.values():
                assert entry.borrowers is None or all(entry.borrowers.values()), "OW-4"


TestExchange = Exchange.TestCase
TestLosses = Losses.TestCase
# What goes wrong here takes four or five calls that cross: shorter histories, and more of them, see less.
TestExchange.settings = TestLosses.settings = settings(stateful_step_count=100, suppress_health_check=[HealthCheck.too_slow])
