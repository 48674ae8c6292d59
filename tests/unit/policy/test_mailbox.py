"""The mailbox: order, limits, and that each call starts once or is taken out once. MB-n are the invariants of policy/mailbox.py."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.policy.mailbox import Mailbox

GROUPS = ("", "io")


def mailbox(limit: int = 1, **groups: int) -> Mailbox[str]:
    return Mailbox({"": limit, **groups})


def offer(box: Mailbox[str], *calls: str, group: str = "") -> list[bool]:
    return [box.offer(call, call, group) for call in calls]


def test_mb_1_calls_start_in_the_order_of_their_arrival() -> None:
    """SEMANTICS 20."""
    box = mailbox()
    assert offer(box, "a", "b", "c") == [True, False, False]
    assert [box.finished(), box.finished(), box.finished()] == ["b", "c", None]
    assert offer(box, "d") == [True]


def test_mb_2_as_many_run_as_the_limit_says() -> None:
    box = mailbox(limit=2)
    assert offer(box, "a", "b", "c") == [True, True, False]
    assert (box.running(), box.waiting()) == (2, 1)
    assert box.finished() == "c"
    assert (box.running(), box.waiting()) == (2, 0)


def test_mb_2_groups_do_not_wait_for_one_another() -> None:
    box = mailbox(io=1)
    assert offer(box, "a", "b") == [True, False]
    assert offer(box, "x", "y", group="io") == [True, False]
    assert box.finished("io") == "y"
    assert (box.running(), box.waiting()) == (2, 1)
    assert box.groups() == ["", "io"]


def test_mb_2_more_ends_than_starts_are_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="MB-2"):
        mailbox().finished()


def test_an_unknown_group_is_a_key_error_and_changes_nothing() -> None:
    box = mailbox()
    with pytest.raises(KeyError):
        box.offer("a", "a", "io")
    assert (box.running(), box.waiting()) == (0, 0)


def test_mb_3_a_withdrawn_call_never_starts() -> None:
    box = mailbox()
    offer(box, "a", "b", "c")
    assert box.withdraw("b") == "b"
    assert box.waiting() == 1
    assert [box.finished(), box.finished()] == ["c", None]


@pytest.mark.parametrize("key", ["a", "b", "never came"])
def test_mb_3_what_does_not_wait_cannot_be_withdrawn(key: str) -> None:
    """It runs, was withdrawn before, or never came."""
    box = mailbox()
    offer(box, "a", "b")
    box.withdraw("b")
    assert box.withdraw(key) is None


def test_a_group_whose_waiting_calls_were_all_withdrawn_is_free_again() -> None:
    box = mailbox()
    offer(box, "a", "b", "c")
    box.withdraw("c")
    box.withdraw("b")
    assert box.finished() is None
    assert (box.running(), box.waiting()) == (0, 0)
    assert offer(box, "d") == [True]


def test_what_has_not_started_can_be_taken_out_in_order() -> None:
    """SEMANTICS 25: a worker gives back the tasks that it has not started."""
    box = mailbox(io=1)
    offer(box, "a", "b", "c", "d")
    offer(box, "x", "y", group="io")
    box.withdraw("c")
    assert box.take_waiting() == ["b", "d"]
    assert box.take_waiting() == []
    assert (box.running(), box.waiting()) == (2, 1)
    assert box.finished() is None


def test_a_call_that_was_taken_out_may_come_again() -> None:
    box = mailbox()
    offer(box, "a", "b", "c")
    box.withdraw("c")
    box.take_waiting()
    assert offer(box, "b", "c") == [False, False]
    assert [box.finished(), box.finished()] == ["b", "c"]


def test_a_call_that_came_again_has_its_new_place_and_not_its_old_one() -> None:
    """MB-1: a call that was cancelled and tried again arrives a second time, behind those that came meanwhile."""
    box = mailbox()
    offer(box, "a", "b", "c", "d", "e")
    box.withdraw("b")
    assert offer(box, "b") == [False]
    assert box.waiting() == 4
    assert [box.finished() for _ in range(5)] == ["c", "d", "e", "b", None]


def test_mb_4_what_is_held_starts_in_order_when_it_is_let_go() -> None:
    """SEMANTICS 21: a checkpoint is taken when no call runs, and new ones are held meanwhile."""
    box = mailbox(limit=2, io=1)
    assert offer(box, "a", "b", "c") == [True, True, False]
    box.hold()
    assert offer(box, "d") == [False]
    assert offer(box, "x", group="io") == [False]
    assert [box.finished(), box.finished()] == [None, None]
    assert (box.running(), box.waiting()) == (0, 3)
    assert box.withdraw("c") == "c"
    assert box.release() == ["d", "x"]
    assert (box.running(), box.waiting()) == (2, 0)
    assert offer(box, "e", "f") == [True, False]


def test_mb_4_no_more_start_than_may_when_some_still_run() -> None:
    box = mailbox(limit=2)
    offer(box, "a", "b", "c", "d")
    box.hold()
    box.finished()
    assert box.release() == ["c"]
    assert (box.running(), box.waiting()) == (2, 1)
    assert box.finished() == "d"


class Counted:
    """A key that counts how often it is compared or hashed."""

    looks = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Counted.looks += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return isinstance(other, Counted) and other.number == self.number


@pytest.mark.parametrize("order", [1, -1], ids=["oldest first", "newest first"])
def test_to_withdraw_all_of_a_long_queue_costs_a_few_looks_each(order: int) -> None:
    """A caller that gives up on 2,000 calls must not cost two million comparisons."""
    count = 2_000
    box: Mailbox[int] = Mailbox({"": 1})
    for number in range(count + 1):
        box.offer(Counted(number), number)
    Counted.looks = 0
    for number in range(1, count + 1)[::order]:
        assert box.withdraw(Counted(number)) == number
    assert Counted.looks < 10 * count
    assert (box.waiting(), box.finished()) == (0, None)


class Histories(RuleBasedStateMachine):
    """A mailbox beside the plainest model of one: a queue and a set of running calls for each group."""

    @initialize(limit=st.integers(1, 3), io=st.integers(1, 3))
    def make(self, limit: int, io: int) -> None:
        self.limits = {"": limit, "io": io}
        self.box: Mailbox[int] = Mailbox(dict(self.limits))
        self.queues: dict[str, deque[int]] = {group: deque() for group in GROUPS}
        self.running: dict[str, set[int]] = {group: set() for group in GROUPS}
        self.arrived = 0
        self.held = False
        self.keys: dict[int, tuple[str, int]] = {}
        self.started: list[int] = []
        self.taken_out: dict[int, bool] = {}
        """Calls that were taken out, and whether they have come again since."""

    def start(self, call: int, group: str) -> None:
        assert not self.held, "MB-4"
        assert call not in self.started, "MB-3: started twice"
        assert call not in self.taken_out, "MB-3: started after it was taken out"
        assert not any(call > waiting for waiting in self.queues[group]), "MB-1"
        self.started.append(call)
        self.running[group].add(call)

    def arrive(self, key: tuple[str, int], group: str) -> None:
        self.arrived += 1
        self.keys[self.arrived] = key
        if self.box.offer(key, self.arrived, group):
            self.start(self.arrived, group)
        else:
            self.queues[group].append(self.arrived)

    @rule(group=st.sampled_from(GROUPS))
    def offer(self, group: str) -> None:
        self.arrive(("caller", self.arrived + 1), group)

    @rule(group=st.sampled_from(GROUPS), pick=st.integers(0, 10))
    def come_again(self, group: str, pick: int) -> None:
        """A call that was taken out, under its old key."""
        calls = [call for call, again in self.taken_out.items() if not again]
        if calls:
            call = calls[pick % len(calls)]
            self.taken_out[call] = True
            self.arrive(self.keys[call], group)

    @rule(group=st.sampled_from(GROUPS), pick=st.integers(0, 10))
    def finish(self, group: str, pick: int) -> None:
        running = self.running[group]
        if not running:
            return
        running.remove(sorted(running)[pick % len(running)])
        following = self.box.finished(group)
        expected = self.queues[group].popleft() if self.queues[group] and not self.held else None
        assert following == expected, "MB-1"
        if following is not None:
            self.start(following, group)

    @precondition(lambda self: self.arrived)
    @rule(pick=st.integers(0, 50))
    def withdraw(self, pick: int) -> None:
        """Of any call that ever came, waiting or not."""
        key = self.keys[pick % self.arrived + 1]
        waiting = [(queue, call) for queue in self.queues.values() for call in queue if self.keys[call] == key]
        assert self.box.withdraw(key) == (waiting[0][1] if waiting else None), "MB-3"
        for queue, call in waiting:
            queue.remove(call)
            self.taken_out[call] = False

    @rule()
    def hold(self) -> None:
        self.held = True
        self.box.hold()

    @rule()
    def release(self) -> None:
        self.held = False
        started = self.box.release()
        for group in GROUPS:
            while self.queues[group] and len(self.running[group]) < self.limits[group]:
                assert started, "MB-4"
                call = self.queues[group].popleft()
                assert started.pop(0) == call, "MB-1"
                self.start(call, group)
        assert started == [], "MB-4"

    @rule(group=st.sampled_from(GROUPS))
    def take_waiting(self, group: str) -> None:
        taken = self.box.take_waiting(group)
        assert taken == list(self.queues[group])
        self.taken_out.update(dict.fromkeys(taken, False))
        self.queues[group].clear()

    @invariant()
    def limits_hold_and_no_room_is_left_unused(self) -> None:
        for group, limit in self.limits.items():
            assert len(self.running[group]) <= limit, "MB-2"
            full = len(self.running[group]) == limit
            assert self.held or full or not self.queues[group], "a call waits although there is room"

    @invariant()
    def it_counts_right(self) -> None:
        assert self.box.running() == sum(map(len, self.running.values()))
        assert self.box.waiting() == sum(map(len, self.queues.values()))

    def teardown(self) -> None:
        """Every call that came was started or taken out, once everything that runs has ended."""
        if not hasattr(self, "box"):
            return
        self.release()
        for group in GROUPS:
            while self.running[group]:
                self.finish(group, 0)
        assert sorted([*self.started, *self.taken_out]) == list(range(1, self.arrived + 1)), "MB-3"
        self.it_counts_right()


TestHistories = Histories.TestCase
