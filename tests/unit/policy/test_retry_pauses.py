"""The pauses before a call is tried again. RY-n are those of policy/retry_pauses.py."""

from __future__ import annotations

import random

import pytest

from actorflow._core.policy.retry_pauses import (
    LOST_S,
    LOST_S_MAX,
    MEMORY_S,
    MEMORY_S_MAX,
    MEMORY_TRIES_MAX,
    RAISED_S_MAX,
    pause_after_error_s,
    pause_after_loss_s,
    pause_for_memory_s,
)


class Longest:
    """Draws the most."""

    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == (0.5, 1.0), "RY-3"
        return b


def test_ry_1_what_was_lost_is_tried_again_at_once_then_after_pauses_that_double() -> None:
    pauses = [pause_after_loss_s(losses, Longest()) for losses in range(1, 100)]
    assert pauses[:4] == [0.0, LOST_S, 2 * LOST_S, 4 * LOST_S]
    assert pauses[-1] == LOST_S_MAX


@pytest.mark.parametrize("first_s", [0.0, 0.1, 5.0, 100.0])
def test_ry_2_what_raised_waits_as_its_caller_says_then_twice_as_long(first_s: float) -> None:
    pauses = [pause_after_error_s(errors, first_s, Longest()) for errors in range(1, 2000)]
    assert pauses[0] == first_s
    assert pauses[1] == min(2 * first_s, max(first_s, RAISED_S_MAX))
    assert pauses[-1] == (max(first_s, RAISED_S_MAX) if first_s else 0.0)


def test_ry_3_calls_that_failed_together_do_not_come_back_together() -> None:
    rng = random.Random(1)
    pauses = {pause_after_error_s(3, 0.1, rng) for _ in range(100)}
    assert len(pauses) == 100
    assert all(0.2 <= pause <= 0.4 for pause in pauses)


def test_ry_4_memory_has_tries_of_its_own() -> None:
    pauses = [pause_for_memory_s(tries, Longest()) for tries in range(MEMORY_TRIES_MAX + 1)]
    assert pauses[:2] == [MEMORY_S, 2 * MEMORY_S]
    assert pauses[-2:] == [MEMORY_S_MAX, None]
