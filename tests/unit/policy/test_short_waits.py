"""When a loop stays awake for an answer (SW-1 to SW-3)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.short_waits import SHORT_IN_A_ROW, SHORT_S, ShortWaits


def after(waits_s: list[float]) -> ShortWaits:
    waits, now = ShortWaits(), 100.0
    for wait_s in waits_s:
        waits.begin(now)
        waits.end(now + wait_s)
        now += 1.0
    return waits


def test_sw_1_a_row_of_short_waits_comes_first() -> None:
    for number in range(SHORT_IN_A_ROW):
        assert not after([SHORT_S / 2] * number).begin(200.0)
    assert after([SHORT_S / 2] * SHORT_IN_A_ROW).begin(200.0)


def test_sw_1_a_long_wait_ends_the_row() -> None:
    assert not after([SHORT_S / 2] * 10 + [SHORT_S * 1.01]).begin(200.0)


def test_sw_2_an_answer_that_takes_its_time_is_not_stayed_awake_for() -> None:
    waits = after([SHORT_S / 2] * SHORT_IN_A_ROW)
    assert waits.begin(200.0)
    assert waits.still(200.0 + SHORT_S * 0.9)
    assert not waits.still(200.0 + SHORT_S * 1.1)
    waits.end(201.0)
    assert not waits.begin(202.0), "the row has ended"


def test_sw_3_two_at_once_end_the_row() -> None:
    waits = after([SHORT_S / 2] * SHORT_IN_A_ROW)
    assert waits.begin(200.0)
    waits.give_up()
    assert not waits.still(200.0 + SHORT_S / 2)
    assert not waits.begin(201.0)


@given(st.lists(st.sampled_from([SHORT_S / 2, SHORT_S * 2]), max_size=200))
def test_sw_2_what_is_lost_by_it_is_bounded(waits_s: list[float]) -> None:
    """Nobody stays awake in vain for longer than one SHORT_S for every row of short waits, whatever comes when."""
    waits, now, in_vain, short = ShortWaits(), 0.0, 0, 0
    for wait_s in waits_s:
        if waits.begin(now) and wait_s >= SHORT_S:
            assert not waits.still(now + wait_s)
            in_vain += 1
        short += wait_s < SHORT_S
        waits.end(now + wait_s)
        now += 1.0
    assert in_vain <= short // SHORT_IN_A_ROW
