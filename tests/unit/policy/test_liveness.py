"""Who is alive (LV-1 to LV-3): the two sides alone, and against each other over a line that is late, or cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.liveness import BEAT_S, BEATS_MAX, LEASE_S, LOOK_S, SILENCE_S, Lease, Watch


def test_a_node_is_silent_after_silence_s_and_told_once() -> None:
    watch = Watch()
    watch.heard("a", 0.0)
    watch.heard("b", 3.0)
    now, told = 0.0, []
    while now < 20.0:
        told += [(node_id, now) for node_id, _ in watch.look(now)]
        now += LOOK_S
    assert [node_id for node_id, _ in told] == ["a", "b"]
    assert [at for _, at in told] == [SILENCE_S, 3.0 + SILENCE_S]
    assert watch.empty


def test_lv_2_the_heads_own_pause_is_nobodys_silence() -> None:
    watch = Watch()
    watch.look(0.0)
    watch.heard("a", 0.0)
    assert watch.look(LOOK_S) == []
    assert watch.look(60.0) == [], "the head has slept, and so it has not listened"
    now, told = 60.0, []
    while not told:
        now += LOOK_S
        told = watch.look(now)
    # What was silence before and after the pause is one.
    assert now == 60.0 + SILENCE_S - 2 * LOOK_S


def test_who_is_gone_is_not_watched() -> None:
    watch = Watch()
    watch.heard("a", 0.0)
    watch.forget("a")
    watch.forget("b")
    assert watch.empty
    assert watch.look(100.0) == []


def test_a_lease_begins_with_the_first_answer_and_counts_from_the_beat() -> None:
    lease = Lease()
    first, second = lease.beat(0.0), lease.beat(1.0)
    assert not lease.over(1_000.0), "before the head has ever answered there is nothing to lose"
    lease.answered(second)
    assert lease.until == 1.0 + LEASE_S
    lease.answered(first)
    lease.answered(99)
    assert lease.until == 1.0 + LEASE_S
    assert not lease.over(LEASE_S + 0.9)
    assert lease.over(LEASE_S + 1.0)


def test_beats_without_an_answer_are_bounded() -> None:
    lease = Lease()
    numbers = [lease.beat(float(n)) for n in range(BEATS_MAX * 3)]
    assert len(lease._sent) == BEATS_MAX
    lease.answered(numbers[-1])
    assert not lease._sent


@given(
    there=st.lists(st.floats(0.0, 5.0), min_size=40, max_size=40),
    back=st.lists(st.floats(0.0, 5.0), min_size=40, max_size=40),
    lost=st.sets(st.integers(0, 39)),
    phase=st.floats(0.0, LOOK_S),
)
def test_lv_1_a_lease_is_over_before_the_node_is_given_up(there: list[float], back: list[float], lost: set[int], phase: float) -> None:
    """Each beat and its answer take their time, some never arrive: whatever they do, the node has ended when the head gives it up."""
    events: list[tuple[float, str, int]] = []
    lease, watch = Lease(), Watch()
    arrivals, answers = 0.0, 0.0
    for index in range(40):
        sent_at = index * BEAT_S
        number = index + 1
        events.append((sent_at, "beat", number))
        if index not in lost:
            arrivals = max(arrivals, sent_at + there[index])  # In order, as on a connection.
            answers = max(answers, arrivals + back[index])
            events += [(arrivals, "heard", number), (answers, "answered", number)]
    events += [(phase + step * LOOK_S, "look", 0) for step in range(140)]
    given_up_at = None
    untils = []
    for now, what, number in sorted(events):
        if what == "beat":
            assert lease.beat(now) == number
        elif what == "heard":
            watch.heard("node", now)
        elif what == "answered":
            lease.answered(number)
        elif watch.look(now):
            given_up_at = now
            break
        untils.append(lease.until)
    if given_up_at is not None and lease.until is not None:
        assert lease.until <= given_up_at - (SILENCE_S - LEASE_S) + 1e-9
