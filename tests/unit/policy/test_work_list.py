"""Work that leads to more of its kind (WL-1, WL-2)."""

from __future__ import annotations

import sys

import pytest

from actorflow._core.policy.work_list import WorkList


def test_wl_1_what_comes_of_something_is_done_after_it_in_order() -> None:
    story: list[str] = []
    within: list[bool] = []

    def do(name: str) -> None:
        story.append(f"{name} begins")
        if len(name) < 3:
            for child in "ab":
                line.add(name + child)
                within.append(line.run())
        story.append(f"{name} ends")

    line = WorkList(do)
    line.add("x")
    assert line.run()
    order = ["x", "xa", "xb", "xaa", "xab", "xba", "xbb"]
    assert story == [f"{name} {what}" for name in order for what in ("begins", "ends")]
    assert within == [False] * 6, "within a run there is nothing to wait for"
    assert not line.items


def test_wl_1_a_chain_may_be_longer_than_any_stack() -> None:
    length = 20 * sys.getrecursionlimit()
    done: list[int] = []

    def do(number: int) -> None:
        done.append(number)
        if number < length:
            line.add(number + 1)
            line.run()

    line = WorkList(do)
    line.add(1)
    line.run()
    assert done == list(range(1, length + 1))


def test_wl_2_what_raises_does_not_keep_the_others_from_being_done() -> None:
    done: list[int] = []

    def do(number: int) -> None:
        done.append(number)
        if number == 1:
            line.add(4)
            raise ValueError("one")
        if number == 3:
            raise KeyboardInterrupt

    line = WorkList(do)
    for number in (1, 2):
        line.add(number)
    with pytest.raises(ValueError, match="one"):
        line.run()
    assert done == [1, 2, 4]
    for number in (1, 3, 2):
        line.add(number)
    with pytest.raises(BaseExceptionGroup) as raised:
        line.run()
    assert [type(error) for error in raised.value.exceptions] == [ValueError, KeyboardInterrupt], "none is lost"
    assert done == [1, 2, 4, 1, 3, 2, 4]
    line.add(2)
    assert line.run()
    assert not line.items
