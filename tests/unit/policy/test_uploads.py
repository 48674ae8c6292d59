"""What a node serves, one event after the other. The whole way between nodes is in test_transfers.py."""

import pytest

from actorflow._core.policy.transfer_records import (
    Again,
    Cut,
    Held,
    Hold,
    LetGo,
    ObjectName,
    Refusal,
    Refuse,
    Request,
    Send,
    StillHere,
    UploadDecision,
)
from actorflow._core.policy.uploads import CROWD_S, KEEP_S, LEVEL_S, SLOW_S, UploadBook, UploadLimits

CHUNK = 100
LIMITS = UploadLimits(chunk_bytes=CHUNK)
X, Y = ObjectName("me", 1), ObjectName("me", 2)
LARGE = Held(1, 3000, 30)
SMALL = Held(1, 300, 3)


def ask(
    uploads: UploadBook,
    peer: str,
    name: ObjectName = X,
    *,
    held: Held | None = LARGE,
    attempt: int = 1,
    first: int = 0,
    count: int = 3,
    now: float = 0.0,
) -> list[UploadDecision]:
    decisions = uploads.requested(Request(peer, name, attempt, first, count), held, now)
    uploads.check()
    return decisions


def sends(decisions: list[UploadDecision]) -> list[tuple[str, int]]:
    return [(decision.peer, decision.index) for decision in decisions if isinstance(decision, Send)]


def number(decisions: list[UploadDecision]) -> int:
    [hold] = [decision for decision in decisions if isinstance(decision, Hold)]
    return hold.upload


def refusals(decisions: list[UploadDecision]) -> list[tuple[str, Refusal, tuple[str, ...]]]:
    return [(decision.peer, decision.why, decision.others) for decision in decisions if isinstance(decision, Refuse)]


# One peer ---------------------------------------------------------------------------------------------------


def test_chunks_are_sent_in_order_two_at_a_time_and_the_extent_is_held_meanwhile() -> None:
    uploads = UploadBook(LIMITS)
    held = Held(1, 250, 3)
    begun = ask(uploads, "a", held=held)
    assert begun == [
        Hold(1, "a", 1, on_disk=False),
        Send(1, "a", X, 1, 0, 1, 0, 100, on_disk=False),
        Send(1, "a", X, 1, 1, 1, 100, 100, on_disk=False),
    ]
    assert uploads.sent(1, 0.1) == [Send(1, "a", X, 1, 2, 1, 200, 50, on_disk=False)], "the last is shorter"
    assert uploads.sent(1, 0.2) == []
    assert uploads.sent(1, 0.3) == []
    assert uploads.left("a", X, 1, True, 0.4) == [LetGo(1, "a", 1, on_disk=False)]
    assert uploads.left("a", X, 1, True, 0.4) == []
    assert uploads.idle
    uploads.check()


def test_up_4_only_what_was_asked_for_is_sent_and_more_is_asked_for_in_order() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a", count=1)
    assert uploads.sent(1, 0.0) == []
    assert sends(ask(uploads, "a", first=1, count=2)) == [("a", 1), ("a", 2)]
    decisions = ask(uploads, "a", first=5, count=2)
    assert refusals(decisions) == [("a", Refusal.GONE, ())], "it thinks to have something else than we"
    assert uploads.sent(1, 0.0) == []
    assert uploads.sent(1, 0.0) == [LetGo(1, "a", 1, on_disk=False)]


@pytest.mark.parametrize(("held", "first", "count"), [(None, 0, 1), (LARGE, -1, 2), (LARGE, 0, 0), (LARGE, 29, 2), (LARGE, 30, 1)])
def test_what_is_not_here_or_makes_no_sense_is_refused(held: Held | None, first: int, count: int) -> None:
    uploads = UploadBook(LIMITS)
    assert refusals(ask(uploads, "a", held=held, first=first, count=count)) == [("a", Refusal.GONE, ())]
    assert uploads.idle


def test_up_2_an_extent_is_held_until_its_last_byte_is_out() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a")
    assert uploads.left("a", X, 1, False, 0.0) == [], "two chunks are in the transport's hands"
    uploads.check()
    assert uploads.sent(1, 0.0) == []
    assert uploads.sent(1, 0.0) == [LetGo(1, "a", 1, on_disk=False)]


def test_a_new_attempt_takes_the_place_of_the_old_one() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a", attempt=4, count=1)
    assert ask(uploads, "a", attempt=3) == [], "late"
    again = ask(uploads, "a", attempt=6, first=5, count=1)
    assert again == [Hold(2, "a", 1, on_disk=False), Send(2, "a", X, 6, 5, 1, 500, 100, on_disk=False)]
    assert uploads.left("a", X, 4, False, 0.0) == [], "late"
    assert uploads.sent(1, 0.0) == [LetGo(1, "a", 1, on_disk=False)]
    assert sends(ask(uploads, "a", attempt=6, first=6, count=1)) == [("a", 6)], "the new one goes on"
    assert uploads.uploads() == [("a", X, 7, 30)]
    uploads.check()


def test_from_disk_the_file_is_held_and_a_failure_is_the_end() -> None:
    uploads = UploadBook(LIMITS)
    begun = ask(uploads, "a", held=Held(1, 3000, 30, on_disk=True))
    assert begun[0] == Hold(1, "a", 1, on_disk=True)
    assert refusals(uploads.cannot_read(1, 0.0)) == [("a", Refusal.GONE, ())]
    assert uploads.cannot_read(1, 0.0) == []
    assert uploads.sent(1, 0.0) == []
    assert uploads.sent(1, 0.0) == [LetGo(1, "a", 1, on_disk=True)]


# Several ----------------------------------------------------------------------------------------------------


def test_up_5_peers_take_turns_by_the_chunk() -> None:
    uploads = UploadBook(UploadLimits(chunk_bytes=CHUNK, sends_max=1))
    first = number(ask(uploads, "a", count=4))
    second = number(ask(uploads, "b", Y, count=4))
    third = number(ask(uploads, "a", ObjectName("me", 3), count=2))
    order = []
    now_sending = first
    for _ in range(9):
        decisions = uploads.sent(now_sending, 0.0)
        uploads.check()
        for decision in decisions:
            assert isinstance(decision, Send)
            now_sending = decision.upload
            order.append(decision.upload)
    assert order == [first, second, third, second, first, second, third, second, first]


def test_up_1_bounds() -> None:
    limits = UploadLimits(chunk_bytes=CHUNK, uploads_max=3, sends_max=3)
    uploads = UploadBook(limits)
    begun = [ask(uploads, peer, ObjectName("me", at)) for at, peer in enumerate("abcd")]
    assert [sends(decisions) for decisions in begun] == [[("a", 0), ("a", 1)], [("b", 0)], [], []]
    assert begun[3] == [], "d is kept, and told so"
    assert uploads.tick(KEEP_S) == [StillHere("d", ObjectName("me", 3), 1)]
    uploads.check()
    decisions = uploads.left("c", ObjectName("me", 2), 1, False, 2.0)
    assert decisions == [LetGo(3, "c", 1, on_disk=False), Again(Request("d", ObjectName("me", 3), 1, 0, 3))]
    assert Hold(4, "d", 1, on_disk=False) in ask(uploads, "d", ObjectName("me", 3))


def test_requests_that_are_kept_have_a_bound() -> None:
    uploads = UploadBook(UploadLimits(chunk_bytes=CHUNK, uploads_max=1, waiting_max=1))
    ask(uploads, "a", X)
    assert ask(uploads, "b", Y) == []
    assert ask(uploads, "b", Y) == [], "the same request"
    assert refusals(ask(uploads, "c", ObjectName("me", 3))) == [("c", Refusal.BUSY, ())]


# Broadcast --------------------------------------------------------------------------------------------------


def test_a_large_object_makes_a_chain() -> None:
    uploads = UploadBook(LIMITS)
    assert sends(ask(uploads, "a")) == [("a", 0), ("a", 1)]
    assert refusals(ask(uploads, "b")) == [("b", Refusal.BUSY, ("a",))]
    assert refusals(ask(uploads, "c")) == [("c", Refusal.BUSY, ("b", "a"))]
    assert refusals(ask(uploads, "d")) == [("d", Refusal.BUSY, ("c", "a", "b"))]


def test_a_small_object_makes_a_tree() -> None:
    uploads = UploadBook(LIMITS)
    served = [peer for peer in "ab" if sends(ask(uploads, peer, held=SMALL))]
    assert served == ["a", "b"]
    named = [refusals(ask(uploads, peer, held=SMALL))[0][2][0] for peer in "cdefghij"]
    assert sorted(named) == sorted("aabbccdd"), "each serves two, the first ones first"
    assert all(other < peer for other, peer in zip(named, "cdefghij", strict=True)), "nobody waits for one that came later"


def test_up_6_who_comes_back_is_served_or_kept() -> None:
    uploads = UploadBook(LIMITS)
    for peer in "abcdef":
        ask(uploads, peer)
    for peer in "bcd":
        assert number(ask(uploads, peer, attempt=2))
    assert ask(uploads, "e", attempt=2) == [], "four are served, and it is not sent away twice"
    assert uploads.node_lost("b", 0.0) == [Again(Request("e", X, 2, 0, 3))]
    uploads.check()


def test_who_has_it_all_is_named_also_to_those_that_came_before() -> None:
    uploads = UploadBook(LIMITS)
    for peer in "abc":
        ask(uploads, peer)
    uploads.left("c", X, 7, True, 0.0)
    ask(uploads, "d")
    uploads.node_lost("a", 0.0)
    ask(uploads, "e")
    assert refusals(ask(uploads, "b", held=Held(1, 3000, 2), first=5, attempt=2))[0][2][0] == "c"


def test_the_beginning_of_an_object_is_served_while_the_rest_comes() -> None:
    uploads = UploadBook(LIMITS)
    assert sends(ask(uploads, "a", held=Held(1, 3000, 1))) == [("a", 0)]
    assert uploads.sent(1, 0.0) == []
    assert sends(uploads.grown(X, 2, 0.5)) == [("a", 1)]
    uploads.sent(1, 0.5)
    assert uploads.next_at() == KEEP_S
    assert uploads.tick(KEEP_S) == [StillHere("a", X, 1)]
    assert uploads.tick(100.0) == [StillHere("a", X, 1)], "as long as it takes: what we wait for ends by itself"
    assert sends(uploads.grown(X, 3, 100.0)) == [("a", 2)]
    uploads.check()


def test_up_3_who_is_level_waits_until_we_are_ahead_and_not_for_long() -> None:
    uploads = UploadBook(LIMITS)
    begun = Held(1, 3000, 4)
    for peer in "ab":
        assert ask(uploads, peer, held=begun, first=4) == []
    assert uploads.idle is False
    assert uploads.grown(X, 4, 0.5) == []
    assert uploads.grown(X, 5, 1.0) == [Again(Request(peer, X, 1, 4, 3)) for peer in "ab"]
    assert ask(uploads, "c", held=begun, first=4, now=1.0) == []
    assert uploads.next_at() == 1.0 + LEVEL_S
    assert refusals(uploads.tick(1.0 + LEVEL_S)) == [("c", Refusal.BEHIND, ())]
    uploads.check()


def test_up_3_who_is_ahead_of_us_is_sent_on() -> None:
    uploads = UploadBook(LIMITS)
    assert refusals(ask(uploads, "a", held=Held(1, 3000, 4), first=5)) == [("a", Refusal.BEHIND, ())]


def test_what_is_gone_is_refused_to_all_of_its_peers() -> None:
    uploads = UploadBook(LIMITS)
    begun = Held(1, 3000, 2)
    ask(uploads, "a", held=begun, count=1)
    ask(uploads, "b", held=begun, first=2)
    uploads.sent(1, 0.0)
    decisions = uploads.gone(X, 0.0)
    assert sorted(refusals(decisions)) == [("a", Refusal.GONE, ()), ("b", Refusal.GONE, ())]
    assert LetGo(1, "a", 1, on_disk=False) in decisions
    assert uploads.idle
    uploads.check()


def test_a_peer_that_is_lost_waits_for_nothing() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a", held=Held(1, 3000, 2), first=2)
    assert uploads.node_lost("a", 0.0) == []
    assert uploads.grown(X, 3, 0.0) == []
    assert uploads.idle


# Time -------------------------------------------------------------------------------------------------------


def test_a_slow_peer_keeps_nobody_from_being_served_and_nobody_is_sent_to_it() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "slow")
    assert uploads.next_at() == SLOW_S
    assert uploads.tick(SLOW_S) == []
    assert sends(ask(uploads, "b", now=0.5)) == [("b", 0), ("b", 1)]
    assert refusals(ask(uploads, "c", now=0.5)) == [("c", Refusal.BUSY, ("b",))]


def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a")
    uploads.tick(SLOW_S)
    [cut] = uploads.tick(LIMITS.idle_s)
    assert isinstance(cut, Cut)
    assert uploads.node_lost("a", 10.0) == [], "its bytes are still in the transport's hands"
    uploads.sent(1, 10.0)
    assert uploads.sent(1, 10.0) == [LetGo(1, "a", 1, on_disk=False)]


def test_a_peer_that_asks_for_nothing_is_dropped() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a", count=1)
    uploads.sent(1, 1.0)
    assert uploads.tick(10.9) == []
    assert uploads.tick(11.0) == [Refuse("a", X, 1, Refusal.BUSY), LetGo(1, "a", 1, on_disk=False)]


def test_a_crowd_is_forgotten_after_a_while() -> None:
    uploads = UploadBook(LIMITS)
    ask(uploads, "a", count=1)
    uploads.sent(1, 0.0)
    uploads.left("a", X, 1, True, 1.0)
    assert uploads.next_at() == 1.0 + CROWD_S
    assert uploads.tick(1.0 + CROWD_S) == []
    assert uploads.next_at() is None
