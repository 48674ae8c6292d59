"""How many calls may be on their way to one worker: short ones run ahead, long ones and unrepeatable ones do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.pipelining import PIPELINE_CALLS_MAX, PIPELINE_US, average, may_push

UNKNOWN = -1.0
SHORT_US = 10.0
TIMES_US = st.floats(0.0, 1e9)


def filled(run_us: float) -> int:
    """How many calls of this length go to one worker, one after another."""
    inflight, load_us = 0, 0.0
    while may_push(inflight=inflight, load_us=load_us, run_us=run_us, retriable=True):
        inflight, load_us = inflight + 1, load_us + run_us
    return inflight


@pytest.mark.parametrize("retriable", [True, False])
@pytest.mark.parametrize("run_us", [UNKNOWN, SHORT_US, 1e9])
def test_an_idle_worker_takes_any_call(run_us: float, retriable: bool) -> None:
    assert may_push(inflight=0, load_us=0.0, run_us=run_us, retriable=retriable)


def test_a_call_of_unknown_length_goes_alone() -> None:
    assert filled(UNKNOWN) == 1


def test_a_call_that_must_not_run_twice_goes_alone() -> None:
    assert not may_push(inflight=1, load_us=SHORT_US, run_us=SHORT_US, retriable=False)


@pytest.mark.parametrize(
    ("run_us", "calls"),
    [
        (0.0, PIPELINE_CALLS_MAX),
        (1.0, PIPELINE_CALLS_MAX),
        (PIPELINE_US / 20, 20),
        (PIPELINE_US / 2, 2),
        (PIPELINE_US / 2 + 1, 1),
        (PIPELINE_US * 10, 1),
    ],
)
def test_a_worker_gets_as_many_as_it_does_in_the_time_that_is_allowed(run_us: float, calls: int) -> None:
    assert filled(run_us) == calls


def test_a_short_call_does_not_queue_behind_a_long_one() -> None:
    assert not may_push(inflight=1, load_us=PIPELINE_US, run_us=SHORT_US, retriable=True)


@given(inflight=st.integers(0, 1_000), load_us=TIMES_US, run_us=TIMES_US, retriable=st.booleans())
def test_both_bounds_hold_for_all_but_the_first_call(inflight: int, load_us: float, run_us: float, retriable: bool) -> None:
    pushed = may_push(inflight=inflight, load_us=load_us, run_us=run_us, retriable=retriable)
    within = inflight < PIPELINE_CALLS_MAX and load_us + run_us <= PIPELINE_US
    assert pushed == (inflight == 0 or (retriable and within))


# The average ------------------------------------------------------------------------------------------------


def test_the_first_measurement_is_the_average() -> None:
    assert average(UNKNOWN, 70.0) == 70.0


def test_a_great_rise_is_followed_at_once() -> None:
    assert average(10.0, 41.0) == 41.0


def test_a_fall_is_followed_slowly() -> None:
    assert average(1_000.0, 0.0) == pytest.approx(800.0)
    assert average(1_000.0, 999.0) == pytest.approx(999.8)


def test_it_comes_back_from_one_long_call() -> None:
    estimate_us = average(10.0, 1_000_000.0)
    measured = 0
    while estimate_us > PIPELINE_US / 2:
        estimate_us, measured = average(estimate_us, 10.0), measured + 1
    assert measured < 40


@given(previous_us=TIMES_US, measured_us=TIMES_US)
def test_the_average_lies_between_what_was_and_what_is(previous_us: float, measured_us: float) -> None:
    low, high = sorted((previous_us, measured_us))
    assert low <= average(previous_us, measured_us) <= high or average(previous_us, measured_us) == pytest.approx(low)
