"""Who ends when memory runs out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.policy.memory_watch import (
    VICTIM_BYTES_MIN,
    Candidate,
    MemoryUse,
    check_memory_threshold,
    choose,
    is_over,
    is_pressed,
)

GIB = 1 << 30
USE = MemoryUse(97 * GIB, 100 * GIB, "on this machine")


def worker(number: int, name: str = "f", *, retriable: bool = True, since: float = 0.0, memory: int = GIB, job: str = "j") -> Candidate:
    return Candidate(f"w{number}", f"worker w{number}", job, name, retriable, since, memory)


def chosen(*candidates: Candidate) -> str:
    victim = choose(USE, 0.95, candidates)
    return victim.worker_id if victim is not None else ""


def test_mw_3_the_newest_of_the_largest_group_ends() -> None:
    assert chosen(worker(1, "f", since=5), worker(2, "f", since=7), worker(3, "g", since=9)) == "w2"
    # Of groups of one size the one with the most memory.
    assert chosen(worker(1, "f", since=5, memory=2 * GIB), worker(3, "g", since=9)) == "w1"
    # The same name in two jobs is two groups.
    assert chosen(worker(1, "f", since=9), worker(2, "g", job="k"), worker(3, "g", job="k", since=1), worker(4, "g")) == "w3"


def test_mw_3_what_is_tried_again_ends_first() -> None:
    others = [worker(number, "g", retriable=False, since=number) for number in range(2, 6)]
    assert chosen(worker(1, "f"), *others) == "w1"
    assert chosen(*others) == "w5"


def test_mw_1_nobody_ends_who_has_nothing_to_give() -> None:
    assert chosen() == ""
    assert chosen(worker(1, memory=VICTIM_BYTES_MIN - 1)) == ""
    # One that is not tried again ends before one whose end would not help.
    assert chosen(worker(1, memory=VICTIM_BYTES_MIN - 1), worker(2, retriable=False)) == "w2"


def test_mw_2_what_is_about_to_come_free_counts_as_free() -> None:
    assert is_over(USE, 0.95, 0)
    assert is_over(USE, 0.95, 2 * GIB - 1)
    assert not is_over(USE, 0.95, 2 * GIB)


def test_the_store_is_pressed_before_anybody_ends() -> None:
    for used, pressed, over in ((80, False, False), (90, True, False), (95, True, False), (96, True, True)):
        use = MemoryUse(used * GIB, 100 * GIB, "")
        assert (is_pressed(use, 0.95), is_over(use, 0.95, 0)) == (pressed, over), used
    assert MemoryUse(0, 0, "").share == 0.0


def test_the_reason_has_the_numbers() -> None:
    candidates = [worker(1, since=1, memory=3 * GIB), worker(2, since=2), worker(3, "g", retriable=False, memory=9 * GIB)]
    victim = choose(USE, 0.95, candidates)
    assert victim is not None
    assert victim.reason == (
        "memory ran out on this machine: 97 GiB of 100 GiB were in use, 97%, and 95% may be. It had 1 GiB and was the newest of 2 "
        "that ran f, which is tried again. The most had worker w3 (g) 9 GiB, worker w1 (f) 3 GiB, worker w2 (f) 1 GiB"
    )
    alone = choose(USE, 0.95, candidates[2:])
    assert alone is not None
    assert "was the only one that ran g, as nothing that is tried again had memory to give" in alone.reason


@given(
    st.lists(
        st.builds(
            Candidate,
            st.uuids().map(str), st.just("w"), st.sampled_from("jk"), st.sampled_from("fgh"), st.booleans(),
            st.integers(0, 5).map(float), st.integers(0, 3 * VICTIM_BYTES_MIN),
        ),
        max_size=12,
        unique_by=lambda candidate: candidate.worker_id,
    )
)  # fmt: skip
def test_the_choice_keeps_its_rules(candidates: list[Candidate]) -> None:
    victim = choose(USE, 0.95, candidates)
    able = [one for one in candidates if one.memory_bytes >= VICTIM_BYTES_MIN]
    assert (victim is None) == (not able)
    if victim is None:
        return
    [one] = [one for one in candidates if one.worker_id == victim.worker_id]
    assert one in able
    assert one.retriable or not any(other.retriable for other in able)
    group = [other for other in able if (other.job_id, other.name, other.retriable) == (one.job_id, one.name, one.retriable)]
    assert one.since == max(other.since for other in group)
    again = choose(USE, 0.95, reversed(candidates))
    assert again is not None
    assert again.worker_id == victim.worker_id


@pytest.mark.parametrize("value", [True, "0.9", None])
def test_a_threshold_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(OptionTypeError, match=r"af\.init\(memory_usage_threshold="):
        check_memory_threshold("af.init", value)


@pytest.mark.parametrize("value", [-0.1, 1.5, 95, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match="a share from 0 to 1 is needed"):
        check_memory_threshold("af.init", value)
