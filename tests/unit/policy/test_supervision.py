"""Who is restarted with whom, and when a supervision gives up."""

from __future__ import annotations

import random

import pytest

from actorflow._core.policy.actor_decisions import Ending
from actorflow._core.policy.supervision import (
    DEPTH_MAX,
    MEMBERS_MAX,
    ON_PURPOSE,
    TOGETHER_S,
    Bounce,
    EndMember,
    Over,
    Strategy,
    Supervision,
    SupervisionBook,
    SupervisionDecision,
    Unsupervised,
)

LOST = Ending()
"""Something that has ended nobody else."""


def begin(book: SupervisionBook, name: str, *members: str, strategy: str = "one_for_one", **fields: object) -> Supervision:
    values: dict[str, object] = {"owner": "p", "job_id": "j", "max_restarts": 2, "within_s": 5.0, **fields}
    one = Supervision(name, members=list(members), strategy=Strategy(strategy), **values)  # type: ignore[arg-type]
    assert book.problem_with(one) == ""
    book.begin(one)
    return one


def bounced(decisions: list[SupervisionDecision]) -> list[str]:
    assert all(isinstance(decision, Bounce) for decision in decisions), decisions
    return [decision.actor_id for decision in decisions if isinstance(decision, Bounce)]


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", []), ("one_for_all", ["a", "c", "d"]), ("rest_for_one", ["c", "d"])],
)
def test_who_is_restarted_with_whom(strategy: str, restarted: list[str]) -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b", "c", "d", strategy=strategy)
    decisions = book.lost("b", "killed by SIGKILL", asked=False, now=1.0, ending=LOST)
    assert bounced(decisions) == restarted
    if decisions:
        assert decisions[0].reason == f"b, which is supervised with it ({strategy}), failed: killed by SIGKILL"  # type: ignore[union-attr]
    book.check()


def test_sv_1_restarts_that_were_asked_for_are_no_failures() -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b", strategy="one_for_all")
    for now in range(20):
        assert book.lost("a", "asked", asked=True, now=float(now), ending=LOST) == []
    assert bounced(book.lost("a", "crash", asked=False, now=30.0, ending=LOST)) == ["b"]


def test_sv_2_what_one_event_has_ended_counts_once() -> None:
    """However long the head takes to hear of it all, and with what else happens meanwhile."""
    book = SupervisionBook()
    begin(book, "s", "a", "b", "c", "d", max_restarts=2)
    node = Ending("node n at 7.0", "n", of_node=True)
    for number, member in enumerate("abc"):
        assert book.lost(member, "its node was lost", asked=False, now=7.0 + number * 0.001, ending=node) == []
        assert book.lost("d", "its worker died", asked=False, now=7.0 + number * 0.001, ending=Ending("w", "m")) == []
    assert book.lost("a", "crash", asked=False, now=8.0, ending=Ending("x", "m"))[-1].gave_up  # type: ignore[union-attr]


def test_sv_2_two_events_of_one_moment_count_twice() -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b", max_restarts=1)
    assert book.lost("a", "its worker died", asked=False, now=7.0, ending=Ending("w1", "n")) == []
    assert book.lost("b", "its worker died", asked=False, now=7.0, ending=Ending("w2", "n"))[-1].gave_up  # type: ignore[union-attr]


def test_sv_2_who_goes_just_before_the_node_does_counts_with_it() -> None:
    for before_s, gave_up in ((TOGETHER_S * 0.9, False), (TOGETHER_S * 1.1, True)):
        for node_id, other in (("n", gave_up), ("m", True)):
            book = SupervisionBook()
            begin(book, "s", "a", "b", max_restarts=1)
            assert book.lost("a", "its worker died", asked=False, now=7.0, ending=Ending("w", node_id)) == []
            node = Ending("node n at 8", "n", of_node=True)
            assert bool(book.lost("b", "its node was lost", asked=False, now=7.0 + before_s, ending=node)) is other


def test_sv_2_a_supervision_that_begins_anew_does_not_count_the_rest_of_what_it_has_begun_for() -> None:
    book = SupervisionBook()
    inner = begin(book, "inner", "a", "b", max_restarts=0)
    begin(book, "outer", "inner", "c", max_restarts=1)
    node = Ending("node n at 1", "n", of_node=True)
    assert bounced(book.lost("a", "its node was lost", asked=False, now=1.0, ending=node)) == ["a", "b"]
    assert book.lost("b", "its node was lost", asked=False, now=1.1, ending=node) == []
    assert not inner.failures
    assert book.lost("c", "its node was lost", asked=False, now=1.2, ending=node) == []
    assert book.lost("c", "crash", asked=False, now=1.3, ending=LOST)[-1].gave_up  # type: ignore[union-attr]


def test_sv_3_too_many_failures_and_it_gives_up() -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b")
    assert book.lost("a", "one", asked=False, now=0.0, ending=LOST) == []
    assert book.lost("b", "two", asked=False, now=1.0, ending=LOST) == []
    # The first one is older than `within_s` by now.
    assert book.lost("a", "three", asked=False, now=5.5, ending=LOST) == []
    *ends, over = book.lost("b", "four", asked=False, now=5.6, ending=LOST)
    why = "3 failures within 5 s, and 2 are allowed; the last one: b: four"
    assert ends == [EndMember("a", f"its supervision gave up: {why}"), EndMember("b", f"its supervision gave up: {why}")]
    assert over == Over("s", "p", why, True)
    assert book.find("s") is None
    assert book.of("a") is None
    book.check()


def test_sv_3_a_member_that_cannot_come_back_ends_the_others() -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b")
    ends = book.dead("a", "init_failed", "its constructor raised")
    assert ends[0] == EndMember("b", "its supervision gave up: a cannot come back: its constructor raised")
    assert ends[1] == Over("s", "p", "a cannot come back: its constructor raised", True, final=True)


@pytest.mark.parametrize("kind", sorted(ON_PURPOSE))
def test_sv_4_who_was_ended_on_purpose_leaves(kind: str) -> None:
    book = SupervisionBook()
    begin(book, "s", "a", "b", strategy="one_for_all")
    assert book.dead("a", kind, "") == []
    assert book.lost("b", "crash", asked=False, now=1.0, ending=LOST) == []
    assert book.dead("b", kind, "") == [Over("s", "p", "all its members have ended", False)]
    book.check()


def test_sv_5_an_actor_has_one_supervision() -> None:
    book = SupervisionBook()
    begin(book, "s", "a")

    def problem(*members: str) -> str:
        return book.problem_with(Supervision("t", "p", "j", list(members), Strategy.ONE_FOR_ONE, 1, 1.0))

    assert problem("b", "a") == "a is supervised already, by s"
    assert problem("b", "b") == "b is named twice"
    assert problem() == "it has no members"
    assert "are the most" in problem(*map(str, range(MEMBERS_MAX + 1)))
    assert "the limit of this head" in SupervisionBook(0).problem_with(Supervision("t", "p", "j", ["b"], Strategy.ONE_FOR_ONE, 1, 1.0))


def test_the_end_leaves_the_actors_alone() -> None:
    book = SupervisionBook()
    begin(book, "in", "a", "b")
    begin(book, "out", "in", "c")
    assert book.end("out", "it was stopped") == [
        Unsupervised("a"),
        Unsupervised("b"),
        Over("in", "p", "out has ended: it was stopped", False),
        Unsupervised("c"),
        Over("out", "p", "it was stopped", False),
    ]
    assert book.end("out", "again") == []
    assert list(book.all()) == []


def test_it_is_over_when_its_owner_is_gone() -> None:
    book = SupervisionBook()
    begin(book, "s", "a")
    begin(book, "t", "b", detached=True)
    begin(book, "u", "c", owner="q")
    assert [d.supervision for d in book.owner_lost("p", "crash") if isinstance(d, Over)] == ["s"]
    assert [one.id for one in book.all()] == ["t", "u"]


def test_the_one_above_takes_up_what_is_too_much_for_the_one_below() -> None:
    book = SupervisionBook()
    begin(book, "in", "a", "b", max_restarts=0)
    begin(book, "out", "in", "c", strategy="one_for_all", max_restarts=1)
    # The inner one bears nothing: it begins anew, and so does its neighbour.
    assert bounced(book.lost("a", "crash", asked=False, now=1.0, ending=LOST)) == ["a", "b", "c"]
    *ends, last = book.lost("b", "crash", asked=False, now=2.0, ending=LOST)
    assert [end.actor_id for end in ends if isinstance(end, EndMember)] == ["a", "b", "c"]
    assert isinstance(last, Over)
    assert last.supervision == "out"
    assert "2 failures within 5 s, and 1 is allowed; the last one: in: it gave up: 1 failure within 5 s" in last.reason
    book.check()


def test_a_member_that_is_missing_below_ends_all_above() -> None:
    book = SupervisionBook()
    begin(book, "in", "a", "b")
    begin(book, "out", "in", "c", max_restarts=99)
    ends = book.dead("a", "unschedulable", "no node")
    assert sorted(end.actor_id for end in ends if isinstance(end, EndMember)) == ["b", "c"]
    assert [(end.supervision, end.final) for end in ends if isinstance(end, Over)] == [("in", True), ("out", True)]
    book.check()


def test_one_that_ends_inside_leaves_the_one_above() -> None:
    book = SupervisionBook()
    begin(book, "in", "a")
    outer = begin(book, "out", "in", "c")
    book.end("in", "stopped")
    assert outer.members == ["c"]
    book.check()


def test_sv_6_with_the_last_that_was_in_it_the_one_above_ends_too() -> None:
    for how in ("the actor", "the inner one", "its owner"):
        book = SupervisionBook()
        begin(book, "in", "a", owner="q")
        begin(book, "mid", "in")
        begin(book, "out", "mid")
        if how == "the actor":
            decisions = book.dead("a", "killed", "")
        else:
            decisions = book.end("in", "stopped") if how == "the inner one" else book.owner_lost("q", "crash")
        over = [(one.supervision, one.gave_up) for one in decisions if isinstance(one, Over)]
        assert over == [("in", False), ("mid", False), ("out", False)]
        assert decisions[-1].reason == "all its members have ended"  # type: ignore[union-attr]
        assert not list(book.all())
        book.check()


def test_members_are_called_what_people_call_them() -> None:
    book = SupervisionBook(name_of=lambda member: f"the {member}")
    begin(book, "s", "reader", "writer", strategy="one_for_all", max_restarts=1)
    reason = "the reader, which is supervised with it (one_for_all), failed: crash"
    assert book.lost("reader", "crash", asked=False, now=0.0, ending=LOST) == [Bounce("writer", reason)]
    problem = book.problem_with(Supervision("t", "p", "j", ["reader"], Strategy.ONE_FOR_ONE, 1, 1.0))
    assert problem == "the reader is supervised already, by the s"
    over = book.lost("writer", "crash", asked=False, now=1.0, ending=LOST)[-1]
    assert over == Over("s", "p", "2 failures within 5 s, and 1 is allowed; the last one: the writer: crash", True)


def test_the_depth_has_a_bound() -> None:
    book = SupervisionBook()
    begin(book, "s1", "a")
    for depth in range(2, DEPTH_MAX + 1):
        begin(book, f"s{depth}", f"s{depth - 1}")
    assert "deep at most" in book.problem_with(Supervision("t", "p", "j", [f"s{DEPTH_MAX}"], Strategy.ONE_FOR_ONE, 1, 1.0))


def test_random_histories_keep_the_book_in_order() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        book, actors, now = SupervisionBook(), [f"a{n}" for n in range(12)], 0.0
        living, numbers = set(actors), iter(range(10_000))
        for _ in range(60):
            now += rng.choice((0.0, 0.1, 1.0, 4.0))
            what, actor = rng.random(), rng.choice(actors)
            decisions: list[SupervisionDecision] = []
            if what < 0.25:
                free = [one for one in [*sorted(living), *(s.id for s in book.all())] if book._above.get(one) is None]
                members = rng.sample(free, min(len(free), rng.randint(1, 4)))
                owner, strategy = rng.choice("pq"), rng.choice(list(Strategy))
                one = Supervision(f"s{next(numbers)}", owner, "j", members, strategy, rng.randint(0, 3), 5.0)
                if not book.problem_with(one):
                    book.begin(one)
            elif what < 0.8 and actor in living:
                decisions = book.lost(actor, "crash", asked=rng.random() < 0.3, now=now, ending=LOST)
            elif what < 0.9 and actor in living:
                living.discard(actor)
                decisions = book.dead(actor, rng.choice(("killed", "crashed")), "")
            elif what < 0.92:
                decisions = book.end(rng.choice([*(s.id for s in book.all()), ""]), "")
            elif what < 0.94:
                decisions = book.owner_lost(rng.choice("pq"), "")
            for decision in decisions:
                if isinstance(decision, EndMember):
                    living.discard(decision.actor_id)
                    assert book.dead(decision.actor_id, "crashed", "") == []
                elif isinstance(decision, Bounce):
                    assert decision.actor_id in living
            book.check()
