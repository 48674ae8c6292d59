"""The pauses between the lives of a process. PB-n are those of policy/life_pauses.py."""

from __future__ import annotations

from actorflow._core.policy.life_pauses import PAUSE_FIRST_S, PAUSE_MAX_S, STEADY_S, LifePauses


def test_pb_1_a_life_that_had_answered_for_a_second_is_followed_at_once() -> None:
    pauses = LifePauses()
    assert [pauses.after(STEADY_S) for _ in range(50)] == [PAUSE_FIRST_S] * 50


def test_pb_1_also_after_ones_that_had_not() -> None:
    pauses = LifePauses()
    for _ in range(20):
        pauses.after(0.0)
    assert pauses.after(STEADY_S) == PAUSE_FIRST_S


def test_pb_2_pauses_double_up_to_the_longest() -> None:
    pauses = LifePauses()
    assert [pauses.after(0.9 * STEADY_S) for _ in range(4)] == [PAUSE_FIRST_S * 2**i for i in range(4)]
    assert [pauses.after(0.0) for _ in range(10)][-2:] == [PAUSE_MAX_S, PAUSE_MAX_S]
