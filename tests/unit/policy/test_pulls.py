"""What a node fetches, one event after the other. The whole way between nodes is in test_transfers.py."""

import pytest

from actorflow._core.policy.pulls import ASK_AGAIN_S, BUSY_ROUNDS, BUSY_S, PullBook, PullLimits, Stage
from actorflow._core.policy.transfer_records import (
    NOWHERE,
    Arrived,
    AskLocations,
    AskRoom,
    CancelRoom,
    GiveRoom,
    Grew,
    Held,
    Leave,
    NotComing,
    ObjectName,
    PullDecision,
    Refusal,
    Request,
    TellOwner,
    Why,
)

CHUNK = 100
LIMITS = PullLimits(share=0.5, small_share=0.2, pulls_max=3, small_pulls_max=2, window=4, chunk_bytes=CHUNK)
ARENA = 20_000
"""10,000 bytes may be under way: 8,000 large, 2,000 small, and small is what has 500 at most."""
X, Y, Z = ObjectName("home", 1), ObjectName("home", 2), ObjectName("other", 3)


def book(limits: PullLimits = LIMITS) -> PullBook:
    return PullBook("me", ARENA, limits)


def want(pulls: PullBook, name: ObjectName, size: int = 1000, *, token: int = 1, reader: str = "r", now: float = 0.0) -> list[PullDecision]:
    decisions = pulls.want(reader, token, name, size, "owner", [], now)
    pulls.check()
    return decisions


def moving(pulls: PullBook, name: ObjectName = X, size: int = 1000, *, token: int = 1) -> Request:
    """Bring a pull as far as its first request. Its extent is 7, at 4096."""
    [ask] = want(pulls, name, size, token=token)
    assert isinstance(ask, AskRoom)
    [request] = pulls.room_granted(ask.pull, 7, 4096, 0.0)
    assert isinstance(request, Request)
    return request


def receive(pulls: PullBook, request: Request, first: int, end: int, *, now: float = 0.0, size: int = CHUNK) -> list[PullDecision]:
    decisions: list[PullDecision] = []
    for index in range(first, end):
        decisions += pulls.received(request.peer, request.name, request.attempt, index, size, now)
        pulls.check()
    return decisions


def sources_asked(decisions: list[PullDecision]) -> list[str]:
    return [decision.peer for decision in decisions if isinstance(decision, Request)]


# One object -------------------------------------------------------------------------------------------------


def test_from_the_wish_to_the_copy() -> None:
    pulls = book()
    assert want(pulls, X, 950) == [AskRoom(1, 950)]
    [request] = pulls.room_granted(1, 7, 4096, 0.0)
    assert request == Request("home", X, 2, 0, 4)
    assert pulls.place("home", X, 2, 0, CHUNK) == 4096
    assert receive(pulls, Request("home", X, 2, 0, 4), 0, 1) == [Grew(X, 1)]
    assert receive(pulls, Request("home", X, 2, 0, 4), 1, 2) == [Grew(X, 2), Request("home", X, 2, 4, 2)]
    assert pulls.place("home", X, 2, 2, CHUNK) == 4096 + 2 * CHUNK
    assert pulls.held(X) == Held(7, 950, 2)
    receive(pulls, Request("home", X, 2, 0, 4), 2, 9)
    last = pulls.received("home", X, 2, 9, 50, 1.0)
    assert last == [Grew(X, 10), Leave("home", X, 2, complete=True), TellOwner("owner", X, here=True), Arrived("r", 1, X, 7)]
    assert pulls.held(X) == Held(7, 950, 10)
    assert (pulls.waiting, pulls.bytes_under_way, pulls.next_at()) == (0, 0, None)
    pulls.check()


def test_pu_5_one_pull_for_all_who_want_it() -> None:
    pulls = book()
    request = moving(pulls)
    assert want(pulls, X, token=2) == []
    assert want(pulls, X, token=2) == [], "the same wish twice is one"
    assert want(pulls, X, reader="s") == []
    answers = [d for d in receive(pulls, request, 0, 10) if isinstance(d, Arrived)]
    assert [(answer.reader, answer.token) for answer in answers] == [("r", 1), ("r", 2), ("s", 1)]
    assert want(pulls, X, token=9) == [Arrived("r", 9, X, 7)], "it is here"


def test_pu_6_no_more_than_a_window_is_asked_for() -> None:
    pulls = book()
    request = moving(pulls, size=3000)
    asked = [(request.first, request.count)]
    for index in range(30):
        assert asked[-1][0] + asked[-1][1] - index <= LIMITS.window
        more = [d for d in receive(pulls, request, index, index + 1) if isinstance(d, Request)]
        asked += [(d.first, d.count) for d in more]
    assert asked == [(0, 4)] + [(first, 2) for first in range(4, 30, 2)], "each chunk once, in order"


def test_an_impossible_size_is_refused() -> None:
    [answer] = want(book(), X, 0)
    assert isinstance(answer, NotComing)
    assert "at least 1 byte" in answer.reason


# PU-1: who has a turn ---------------------------------------------------------------------------------------


def test_pu_1_large_ones_take_turns_and_small_ones_pass() -> None:
    pulls = book()
    assert want(pulls, X, 5000, token=1) == [AskRoom(1, 5000)]
    assert want(pulls, Y, 4000, token=2) == [], "9,000 are more than 8,000"
    assert want(pulls, Z, 2000, token=3) == [], "it would fit, but Y came before"
    small = [ObjectName("home", number) for number in range(10, 14)]
    asked = [decision for token, name in enumerate(small, 10) for decision in want(pulls, name, 400, token=token)]
    assert asked == [AskRoom(4, 400), AskRoom(5, 400)], "PU-1: two of the small ones pass"
    assert pulls.leave("r", 1, 0.0) == [CancelRoom(1), AskRoom(2, 4000), AskRoom(3, 2000), AskRoom(6, 400)]
    pulls.check()
    assert pulls.bytes_under_way == 7200


def test_pu_1_one_that_is_larger_than_the_lane_goes_alone() -> None:
    pulls = book()
    assert want(pulls, X, 600, token=1) == [AskRoom(1, 600)]
    assert want(pulls, Y, 15_000, token=2) == []
    assert want(pulls, Z, 600, token=3) == [], "it is not passed for ever"
    assert pulls.leave("r", 1, 0.0) == [CancelRoom(1), AskRoom(2, 15_000)]
    assert pulls.leave("r", 2, 0.0) == [CancelRoom(2), AskRoom(3, 600)]
    pulls.check()


def test_small_ones_do_not_starve_the_large_one() -> None:
    """Small ones that came later never use the lane that a large one waits for."""
    pulls = book()
    want(pulls, X, 7000, token=1)
    want(pulls, Y, 7000, token=2)
    for token in range(10, 30):
        want(pulls, ObjectName("home", token), 400, token=token)
    [_, *next_] = pulls.leave("r", 1, 0.0)
    assert next_[0] == AskRoom(2, 7000)


def test_a_full_queue_is_an_answer() -> None:
    pulls = book(PullLimits(chunk_bytes=CHUNK, queued_max=1, pulls_max=1))
    want(pulls, X, token=1)
    want(pulls, Y, token=2)
    [answer] = want(pulls, Z, token=3)
    assert isinstance(answer, NotComing)
    assert answer.why is Why.NO_ROOM
    assert pulls.waiting == 2


# PU-2: room -------------------------------------------------------------------------------------------------


def test_without_room_all_readers_hear_why_and_the_next_has_its_turn() -> None:
    pulls = book(PullLimits(chunk_bytes=CHUNK, pulls_max=1))
    want(pulls, X, token=1)
    want(pulls, X, token=2)
    want(pulls, Y, token=3)
    decisions = pulls.room_denied(1, "full: 3 GiB pinned by d1", 1.0)
    assert decisions[-1] == AskRoom(2, 1000)
    answers = [d for d in decisions if isinstance(d, NotComing)]
    assert {(answer.token, answer.why, answer.reason) for answer in answers} == {
        (token, Why.NO_ROOM, "full: 3 GiB pinned by d1") for token in (1, 2)
    }
    assert pulls.room_denied(1, "twice", 1.0) == []
    pulls.check()


def test_pu_2_room_that_comes_too_late_is_given_back() -> None:
    pulls = book()
    want(pulls, X)
    assert pulls.leave("r", 1, 0.0) == [CancelRoom(1)]
    assert pulls.room_granted(1, 7, 4096, 0.0) == [GiveRoom(None, 7)]
    assert pulls.room_denied(1, "", 0.0) == []
    pulls.check()


def test_the_last_reader_ends_a_pull_at_each_stage() -> None:
    queued = book(PullLimits(chunk_bytes=CHUNK, pulls_max=1, small_pulls_max=0))
    want(queued, X, token=1)
    want(queued, Y, token=2)
    assert queued.leave("r", 2, 0.0) == []
    assert [name for name, *_ in queued.pulls()] == [X]
    queued.check()

    fed = book()
    request = moving(fed)
    want(fed, X, reader="s")
    assert fed.leave("s", 1, 0.0) == []
    assert fed.leave("r", 1, 0.0) == [Leave("home", X, request.attempt, complete=False), GiveRoom(X, 7)]
    assert fed.received("home", X, request.attempt, 0, CHUNK, 0.0) == [], "it was on its way"
    assert fed.place("home", X, request.attempt, 0, CHUNK) == NOWHERE
    fed.check()

    asking = book()
    moving(asking)
    assert asking.node_lost("home", 0.0) == [AskLocations("owner", X)]
    assert asking.leave("r", 1, 0.0) == [GiveRoom(X, 7)]
    assert asking.locations(X, ["n2"], 0.0) == []

    busy = book()
    request = moving(busy)
    assert busy.refused("home", X, request.attempt, Refusal.BUSY, [], 0.0) == []
    assert busy.reader_lost("r", 0.0) == [GiveRoom(X, 7)]
    assert busy.leave("r", 1, 0.0) == []
    assert busy.next_at() is None


def test_copies_are_dropped_longest_unused_first_and_not_while_they_are_pinned() -> None:
    pulls = book()
    for extent, name in enumerate((X, Y, Z), 1):
        [ask] = want(pulls, name, 100)
        assert isinstance(ask, AskRoom)
        [request] = pulls.room_granted(ask.pull, extent, 0, 0.0)
        assert isinstance(request, Request)
        receive(pulls, request, 0, 1)
    want(pulls, X, token=2)
    assert pulls.copies() == [Y, Z, X]
    assert pulls.make_room(150, {2}) == [
        *(GiveRoom(Z, 3), TellOwner("owner", Z, here=False)),
        *(GiveRoom(X, 1), TellOwner("owner", X, here=False)),
    ]
    assert pulls.make_room(150, {2}) == []
    assert pulls.freed(Y) == [GiveRoom(Y, 2)], "PU-2: the owner knows; who has it pinned still reads it"
    assert pulls.freed(Y) == []
    pulls.check()


# PU-3: chunks -----------------------------------------------------------------------------------------------


def test_pu_3_what_comes_twice_or_late_has_no_place() -> None:
    pulls = book()
    old = moving(pulls)
    receive(pulls, old, 0, 2)
    assert pulls.place("home", X, old.attempt, 1, CHUNK) == NOWHERE
    assert receive(pulls, old, 1, 2) == []
    pulls.locations(X, ["n2"], 0.0)
    [new] = pulls.node_lost("home", 0.0)
    assert new == Request("n2", X, old.attempt + 1, 2, 4), "from the first that is missing"
    for source, attempt in (("home", old.attempt), ("home", old.attempt + 1), ("n2", old.attempt)):
        assert pulls.place(source, X, attempt, 2, CHUNK) == NOWHERE
        assert pulls.received(source, X, attempt, 2, CHUNK, 0.0) == []
        assert pulls.refused(source, X, attempt, Refusal.GONE, [], 0.0) == []
        assert pulls.corrupt(source, X, attempt, "", 0.0) == []
    assert pulls.pulls() == [(X, Stage.MOVING, 2, 10)]
    pulls.check()


def test_an_attempt_of_an_earlier_pull_of_the_same_object_is_fenced_too() -> None:
    pulls = book()
    first = moving(pulls)
    pulls.leave("r", 1, 0.0)
    second = moving(pulls)
    assert second.attempt > first.attempt
    assert pulls.place("home", X, first.attempt, 0, CHUNK) == NOWHERE


def test_pu_3_a_chunk_of_another_length_has_no_place() -> None:
    pulls = book()
    request = moving(pulls, size=950)
    receive(pulls, request, 0, 3)
    assert pulls.place("home", X, request.attempt, 3, CHUNK) != NOWHERE
    assert pulls.place("home", X, request.attempt, 3, CHUNK + 1) == NOWHERE, "it would be written over what is behind it"


def test_an_owner_that_cannot_be_reached_costs_its_copies_and_no_pull() -> None:
    pulls = book()
    receive(pulls, moving(pulls), 0, 10)
    [ask] = want(pulls, Y, token=2)
    assert isinstance(ask, AskRoom)
    assert pulls.owner_away("another") == []
    assert pulls.owner_away("owner") == [GiveRoom(X, 7)]
    pulls.check()
    assert pulls.waits("r", 2)
    assert not pulls.waits("r", 1), "it was answered"


@pytest.mark.parametrize(("index", "length"), [(0, 99), (0, 101), (1, 100), (4, 100)], ids=["short", "long", "gap", "not asked for"])
def test_a_source_that_sends_nonsense_is_left(index: int, length: int) -> None:
    pulls = book()
    request = moving(pulls)
    pulls.locations(X, ["n2"], 0.0)
    decisions = pulls.received("home", X, request.attempt, index, length, 0.0)
    assert decisions == [Leave("home", X, request.attempt, complete=False), Request("n2", X, request.attempt + 1, 0, 4)]
    pulls.check()


def test_a_corrupt_chunk_is_asked_of_another() -> None:
    pulls = book()
    request = moving(pulls)
    receive(pulls, request, 0, 1)
    decisions = pulls.corrupt("home", X, request.attempt, "sent a chunk with a wrong checksum", 0.0)
    assert decisions == [Leave("home", X, request.attempt, complete=False), AskLocations("owner", X)]
    assert pulls.place("home", X, request.attempt, 1, CHUNK) == NOWHERE


# Sources ----------------------------------------------------------------------------------------------------


def test_a_source_that_brings_nothing_is_left_and_one_that_says_wait_is_not() -> None:
    pulls = book()
    request = moving(pulls)
    pulls.locations(X, ["n2"], 0.0)
    assert pulls.next_at() == 5.0
    pulls.still_here("home", X, request.attempt, 3.0)
    receive(pulls, request, 0, 1, now=4.0)
    assert pulls.next_at() == 9.0
    pulls.still_here("n2", X, request.attempt, 8.0)
    assert pulls.tick(8.9) == []
    assert pulls.tick(9.0) == [Leave("home", X, request.attempt, complete=False), Request("n2", X, request.attempt + 1, 1, 4)]
    pulls.check()


def test_a_busy_source_names_others_and_is_tried_again() -> None:
    pulls = book()
    request = moving(pulls)
    [next_] = pulls.refused("home", X, request.attempt, Refusal.BUSY, ["n2", "me", "n3"], 0.0)
    assert isinstance(next_, Request)
    assert next_.peer == "n2"
    [next_] = pulls.refused("n2", X, next_.attempt, Refusal.BEHIND, ["n3", "n2"], 0.0)
    assert isinstance(next_, Request)
    assert next_.peer == "n3"
    assert pulls.refused("n3", X, next_.attempt, Refusal.BUSY, ["n2"], 1.0) == [], "n2 has no more than we"
    assert pulls.next_at() == 1.0 + BUSY_S
    assert pulls.tick(1.0) == []
    assert sources_asked(pulls.tick(1.0 + BUSY_S)) == ["home"]
    pulls.check()


def test_when_all_are_busy_for_long_the_owner_is_asked_for_more() -> None:
    pulls = book()
    moving(pulls)
    asked: list[float] = []
    waits: list[float] = []
    now = 0.0
    for _ in range(BUSY_ROUNDS + 2):
        attempt = pulls._pulls[X].attempt
        asked += [now for d in pulls.refused("home", X, attempt, Refusal.BUSY, [], now) if isinstance(d, AskLocations)]
        at = pulls.next_at()
        assert at is not None
        waits.append(round(at - now, 3))
        now = at
        assert sources_asked(pulls.tick(now)) == ["home"]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert len(asked) >= 1
    pulls.refused("home", X, pulls._pulls[X].attempt, Refusal.BUSY, [], now)
    assert sources_asked(pulls.locations(X, ["n5"], now)) == ["n5"], "at once"
    pulls.check()


def test_a_node_that_is_lost_is_not_asked() -> None:
    pulls = book()
    moving(pulls)
    pulls.locations(X, ["n2"], 0.0)
    assert pulls.node_lost("n2", 0.0) == []
    assert pulls.node_lost("home", 0.0) == [AskLocations("owner", X)]


def test_nodes_begin_at_different_places_of_the_list() -> None:
    firsts = set()
    for number in range(20):
        pulls = PullBook(f"n{number}", ARENA, LIMITS)
        moving(pulls)
        pulls.node_lost("home", 0.0)
        firsts.update(sources_asked(pulls.locations(X, ["a", "b", "c"], 0.0)))
    assert firsts == {"a", "b", "c"}


def test_an_owner_is_asked_five_times_before_the_object_is_lost() -> None:
    pulls = book()
    moving(pulls)
    now = 0.0
    assert pulls.node_lost("home", now) == [AskLocations("owner", X)]
    for pause in (ASK_AGAIN_S, 2 * ASK_AGAIN_S, 4 * ASK_AGAIN_S, 8 * ASK_AGAIN_S):
        assert sources_asked(pulls.locations(X, ["home"], now)) == ["home"], "once more, since the owner says so"
        assert pulls.node_lost("home", now) == []
        pulls.check()
        assert pulls.next_at() == now + pause
        now += pause
        assert pulls.tick(now) == [AskLocations("owner", X)]
    assert sources_asked(pulls.locations(X, ["home"], now)) == ["home"]
    gave, answer = pulls.node_lost("home", now)
    assert gave == GiveRoom(X, 7)
    assert isinstance(answer, NotComing)
    assert answer.why is Why.LOST
    assert [word for word in ("1000 B", "node home", "0 of 10 chunks", "5 times", "connection is lost") if word not in answer.reason] == []
    pulls.check()


def test_a_chunk_is_a_new_beginning() -> None:
    pulls = book()
    moving(pulls)
    for chunk in range(8):
        assert pulls.node_lost("home", 0.0) == [AskLocations("owner", X)]
        [request] = pulls.locations(X, ["home"], 0.0)
        assert isinstance(request, Request)
        receive(pulls, request, chunk, chunk + 1)


def test_an_owner_that_knows_of_no_copy_or_of_ours_only() -> None:
    for nodes in ([], ["me"]):
        pulls = book()
        moving(pulls)
        pulls.node_lost("home", 0.0)
        # Word of a copy may be on its way to it: it is asked again, twice, and not at once.
        now = 0.0
        for pause in (ASK_AGAIN_S, 2 * ASK_AGAIN_S):
            assert pulls.locations(X, nodes, now) == []
            assert pulls.next_at() == now + pause
            now += pause
            assert pulls.tick(now) == [AskLocations("owner", X)]
        answer = pulls.locations(X, nodes, now)[-1]
        assert isinstance(answer, NotComing)
        assert answer.why is Why.LOST
        pulls.check()


def test_an_owner_that_does_not_answer() -> None:
    pulls = book()
    moving(pulls)
    pulls.node_lost("home", 0.0)
    decisions: list[PullDecision] = []
    asked = 1
    while pulls.waiting:
        at = pulls.next_at()
        assert at is not None
        decisions = pulls.tick(at)
        asked += AskLocations("owner", X) in decisions
    assert asked == 5
    answer = decisions[-1]
    assert isinstance(answer, NotComing)
    assert "its owner owner did not answer for 5 s" in answer.reason


def test_what_is_freed_or_has_no_owner_any_more_does_not_come() -> None:
    pulls = book()
    request = moving(pulls)
    decisions = pulls.freed(X)
    assert decisions[:2] == [Leave("home", X, request.attempt, complete=False), GiveRoom(X, 7)]
    assert [d.why for d in decisions if isinstance(d, NotComing)] == [Why.FREED]

    receive(pulls, moving(pulls, Y), 0, 10)
    moving(pulls, X)
    decisions = pulls.owner_lost("owner")
    assert [d.name for d in decisions if isinstance(d, GiveRoom)] == [X, Y], "the pull, and the copy"
    assert [d.why for d in decisions if isinstance(d, NotComing)] == [Why.OWNER_LOST]
    assert pulls.owner_lost("owner") == []
    pulls.check()
