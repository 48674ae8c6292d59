"""Which nodes are worth going to for what lies there."""

from __future__ import annotations

from actorflow._core.policy.locality import HOLDERS_MAX, LOCALITY_BYTES_MIN, worth_going_to

BIG = LOCALITY_BYTES_MIN


def test_what_lies_on_one_node_counts_together() -> None:
    assert worth_going_to([("a", BIG // 2), ("b", BIG), ("a", BIG)], "near") == {"a": BIG + BIG // 2, "b": BIG}


def test_ly_1_little_is_no_reason_to_go() -> None:
    assert worth_going_to([("a", BIG - 1), ("b", BIG)], "near") == {"b": BIG}
    assert worth_going_to([], "near") == {}


def test_ly_2_the_near_one_comes_first_of_those_that_have_equally_much() -> None:
    pieces = [("c", BIG), ("a", BIG), ("b", BIG), ("d", BIG + 1)]
    assert list(worth_going_to(pieces, "b")) == ["d", "b", "a", "c"]


def test_few_are_named_those_with_the_most() -> None:
    pieces = [(f"n{number}", BIG + number) for number in range(100)]
    assert list(worth_going_to(pieces, "")) == [f"n{number}" for number in range(99, 99 - HOLDERS_MAX, -1)]
