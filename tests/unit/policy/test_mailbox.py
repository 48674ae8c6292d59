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


class Histories(RuleBasedStateMachine):
    """A mailbox beside the plainest model of one: a queue and a set of running calls for each group."""

    @initialize(limit=st.integers(1, 3), io=st.integers(1, 3))
    def make(self, limit: int, io: int) -> None:
        self.limits = {"": limit, "io": io}
        self.box: Mailbox[int] = Mailbox(dict(self.limits))
        self.queues: dict[str, deque[int]] = {group: deque() for group in GROUPS}
        self.running: dict[str, set[int]] = {group: set() for group in GROUPS}
        self.arrived = 0
        self.started: list[int] = []
        self.taken_out: set[int] = set()

    def start(self, call: int, group: str) -> None:
        assert call not in self.started, "MB-3: started twice"
        assert call not in self.taken_out, "MB-3: started after it was taken out"
        assert not any(call > waiting for waiting in self.queues[group]), "MB-1"
        self.started.append(call)
        self.running[group].add(call)

    @rule(group=st.sampled_from(GROUPS))
    def offer(self, group: str) -> None:
        self.arrived += 1
        if self.box.offer(("caller", self.arrived), self.arrived, group):
            self.start(self.arrived, group)
        else:
            self.queues[group].append(self.arrived)

    @rule(group=st.sampled_from(GROUPS), pick=st.integers(0, 10))
    def finish(self, group: str, pick: int) -> None:
        running = self.running[group]
        if not running:
            return
        running.remove(sorted(running)[pick % len(running)])
        following = self.box.finished(group)
        expected = self.queues[group].popleft() if self.queues[group] else None
        assert following == expected, "MB-1"
        if following is not None:
            self.start(following, group)

    @precondition(lambda self: self.arrived)
    @rule(pick=st.integers(0, 50))
    def withdraw(self, pick: int) -> None:
        """Of any call that ever came."""
        call = pick % self.arrived + 1
        [*queues] = [queue for queue in self.queues.values() if call in queue]
        assert self.box.withdraw(("caller", call)) == (call if queues else None), "MB-3"
        for queue in queues:
            queue.remove(call)
            self.taken_out.add(call)

    @rule(group=st.sampled_from(GROUPS))
    def take_waiting(self, group: str) -> None:
        taken = self.box.take_waiting(group)
        assert taken == list(self.queues[group])
        self.taken_out.update(taken)
        self.queues[group].clear()

    @invariant()
    def limits_hold_and_no_room_is_left_unused(self) -> None:
        for group, limit in self.limits.items():
            assert len(self.running[group]) <= limit, "MB-2"
            assert len(self.running[group]) == limit or not self.queues[group], "a call waits although there is room"

    @invariant()
    def it_counts_right(self) -> None:
        assert self.box.running() == sum(map(len, self.running.values()))
        assert self.box.waiting() == sum(map(len, self.queues.values()))

    def teardown(self) -> None:
        """Every call that came was started or taken out, once everything that runs has ended."""
        if not hasattr(self, "box"):
            return
        for group in GROUPS:
            while self.running[group]:
                self.finish(group, 0)
        assert sorted([*self.started, *self.taken_out]) == list(range(1, self.arrived + 1)), "MB-3"
        self.it_counts_right()


TestHistories = Histories.TestCase
