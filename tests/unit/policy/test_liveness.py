"""Who is alive (LV-1 to LV-6): the two sides alone, and against each other over lines that are late, or cut."""

from __future__ import annotations

from heapq import heappop, heappush
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.policy.liveness import (
    BEAT_S,
    BEATS_MAX,
    INDIRECT_MAX_S,
    LEASE_S,
    LOOK_S,
    QUIET_S,
    RELAY_AFTER_S,
    RELAYS_MAX,
    SILENCE_S,
    Detour,
    Lease,
    Watch,
)


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


# Through others -------------------------------------------------------------------------------------------------


def looked(watch: Watch, since: float, until: float) -> list[tuple[float, str, str]]:
    """Who was given up meanwhile, and when."""
    now, told = since, []
    while now <= until:
        told += [(now, node_id, reason) for node_id, reason in watch.look(now)]
        now += LOOK_S
    return told


def test_lv_4_a_beat_that_others_pass_on_counts_as_any_other() -> None:
    watch = Watch()
    watch.heard("a", 0.0)
    for now in range(4, 40):
        assert watch.heard_through("a", float(now))
    assert watch.only_through_others("a")
    [(at, node_id, reason)] = looked(watch, 39.0, 60.0)
    assert (at, node_id) == (39.0 + SILENCE_S, "a")
    assert reason == "nothing was heard of it for 9.0 s, and before that only through other nodes, for 35.0 s"


def test_lv_4_who_is_not_watched_is_neither_counted_nor_answered() -> None:
    watch = Watch()
    assert not watch.heard_through("a", 0.0)
    assert watch.empty
    watch.heard("a", 0.0)
    assert [node_id for _, node_id, _ in looked(watch, 0.0, SILENCE_S)] == ["a"]
    assert not watch.heard_through("a", SILENCE_S + 0.1), "it is given up, and stays so"
    assert not watch.only_through_others("a")
    watch.heard("b", 20.0)
    watch.heard_through("b", 21.0)
    watch.forget("b")
    assert not watch.heard_through("b", 22.0)


def test_lv_5_a_node_is_heard_only_through_others_for_so_long_and_given_up_when_its_lease_is_over() -> None:
    watch, last = Watch(), 0.0
    watch.heard("a", 0.0)
    counted = [now for now in range(4, 100) if watch.heard_through("a", float(now))]
    assert counted == list(range(4, 4 + int(INDIRECT_MAX_S)))
    last = float(counted[-1])
    [(at, _, reason)] = looked(watch, last, last + 30.0)
    assert at == last + SILENCE_S, "not at once: the last answer is the lease of then"
    assert reason == "it was heard only through other nodes for 60 s, and its link with the head did not come back"


def test_lv_5_who_asks_others_although_its_beats_come_is_not_in_reach() -> None:
    """Answers do not arrive: the head hears the node itself all the time, and the time through others has its end nevertheless."""
    watch, counted = Watch(), []
    for now in range(100):
        assert not watch.heard("a", float(now))
        if watch.heard_through("a", now + 0.5):
            counted.append(now)
    assert counted == list(range(int(INDIRECT_MAX_S)))
    assert watch.only_through_others("a")


def test_a_beat_of_the_node_itself_ends_it_when_others_have_been_quiet_for_a_while() -> None:
    watch = Watch()
    watch.heard("a", 0.0)
    watch.heard_through("a", 4.0)
    assert not watch.heard("a", 4.0 + QUIET_S - 0.1)
    assert watch.heard("a", 4.0 + QUIET_S)
    assert not watch.only_through_others("a")
    assert not watch.heard("a", 20.0), "it is told once"
    assert watch.heard_through("a", 21.0), "and the time begins anew"


def test_lv_2_a_pause_of_the_head_counts_for_nobody_who_is_heard_through_others() -> None:
    watch = Watch()
    watch.look(0.0)
    watch.heard("a", 0.0)
    watch.heard_through("a", 0.1)
    assert watch.look(LOOK_S) == []
    assert watch.look(LOOK_S + 2 * INDIRECT_MAX_S) == []
    assert watch.heard_through("a", 1.0 + 2 * INDIRECT_MAX_S)


def test_others_are_asked_while_the_head_itself_does_not_answer() -> None:
    detour = Detour()
    assert not detour.wanted(100.0), "nothing was said"
    for number in range(1, 5):
        detour.beat(number, float(number))
    assert not detour.wanted(1.0 + RELAY_AFTER_S - 0.1)
    assert detour.wanted(1.0 + RELAY_AFTER_S)
    [other] = detour.choose(["b"], Random(1))
    assert detour.brought(other)
    assert detour.wanted(4.0), "an answer that others bring is none of the head itself"
    detour.answered(2)
    assert not detour.wanted(4.0)
    assert detour.wanted(3.0 + RELAY_AFTER_S)
    detour.answered(99)
    assert not detour.wanted(1_000.0)


def test_lv_6_an_answer_counts_only_of_those_that_were_asked() -> None:
    detour = Detour()
    detour.beat(1, 0.0)
    assert not detour.brought("b")
    assert detour.wanted(3.0)
    assert detour.choose(["b"], Random(1)) == ["b"]
    assert not detour.brought("c")
    assert detour.brought("b")
    detour.answered(1)
    assert not detour.wanted(4.0)
    assert not detour.brought("b"), "that was for another time"


def test_who_is_asked_first_is_drawn() -> None:
    assert len({tuple(Detour().choose(["b", "c", "d", "e", "f"], Random(seed))) for seed in range(20)}) > 10


@given(seed=st.integers(0, 1_000), count=st.integers(0, 12))
def test_all_others_are_asked_before_one_is_asked_again_but_for_those_that_are_of_use(seed: int, count: int) -> None:
    nodes, detour, rng = [f"n{index}" for index in range(count)], Detour(), Random(seed)
    asked: list[str] = []
    while len(asked) < count:
        chosen = detour.choose(nodes, rng)
        assert len(chosen) == len(set(chosen)) == min(RELAYS_MAX, count)
        fresh = count - len(asked)
        assert len(set(chosen) - set(asked)) == min(RELAYS_MAX, fresh)
        asked += [node for node in chosen if node not in asked]
    if count > RELAYS_MAX:
        useful = asked[-1]
        for _ in range(5):
            assert detour.brought(useful)
            assert useful in detour.choose(nodes, rng)
        nodes.remove(useful)
        detour.brought(useful)
        assert useful not in detour.choose(nodes, rng), "it is gone"


@given(
    seed=st.integers(0, 1 << 32),
    good=st.integers(1, 30),
    loss=st.floats(0.0, 1.0),
    late_s=st.floats(0.0, 8.0),
    phase=st.floats(0.0, LOOK_S),
)
def test_lv_1_holds_whichever_way_beats_and_answers_go(seed: int, good: int, loss: float, late_s: float, phase: float) -> None:
    """Each beat goes two ways, in no order: straight, the first `good` ones, and through others. So do answers; some never arrive."""
    rng = Random(seed)
    trips = [[None if rng.random() < loss else rng.random() * late_s for _ in range(4)] for _ in range(100)]
    lease, watch, ended = Lease(), Watch(), False
    events: list[tuple[float, int, str, int]] = []

    def later(at: float, trip: float | None, what: str, number: int) -> None:
        if trip is not None:
            heappush(events, (at + trip, len(events) + number * 1000, what, number))

    for index in range(100):
        later(index * BEAT_S, 0.0, "beat", index)
    for step in range(300):
        later(phase + step * LOOK_S, 0.0, "look", step)
    while events:
        now, _, what, number = heappop(events)
        if what == "beat":
            if ended or lease.over(now):
                ended = True
                continue
            assert lease.beat(now) == number + 1
            there, _, through, _ = trips[number]
            later(now, there if number < good else None, "heard", number)
            later(now, through, "passed on", number)
        elif what == "heard":
            watch.heard("node", now)
            later(now, trips[number][1], "answered", number)
        elif what == "passed on":
            if watch.heard_through("node", now):
                later(now, trips[number][3], "answered", number)
        elif what == "answered":
            lease.answered(number + 1)
        elif watch.look(now):
            # Answers that are on their way still count when they come.
            while events:
                _, _, what, number = heappop(events)
                if what == "answered":
                    lease.answered(number + 1)
            assert lease.until is None or lease.until <= now - (SILENCE_S - LEASE_S) + 1e-9
