"""policy/durable_objects.py: DO-1 to DO-4 and DO-6, one by one and under random events."""

from __future__ import annotations

import random

import pytest

from actorflow._core.policy.durable_objects import AGAIN_MAX_S, AGAIN_S, COPIES, COPYING_MAX, Durable, DurableObjects
from actorflow._core.policy.durable_steps import Adopt, Answer, Copy, Drop, Step, Write
from actorflow._core.protocol.messages import Inline, Stored

PUTTER = ("driver", 7)
NOW = 100.0


def stored(node: str = "a", extent: int = 100, size: int = 5_000_000) -> Stored:
    return Stored(node, extent, 0, size, b"", [(0, size)], None, "worker")


def small(size: int = 10) -> Inline:
    return Inline(bytes(size))


def new(index: int = 1, outcome: Inline | Stored | None = None, ends_at: float | None = None, namespace: str = "default") -> Durable:
    return Durable(index, namespace, "job", outcome or stored(), 0.0, ends_at, putter=PUTTER)


def table(*nodes: str, **bounds: int) -> DurableObjects:
    made = DurableObjects(**bounds)
    for node in nodes:
        assert made.node_joined(node) == []
    return made


def kept(made: DurableObjects, index: int = 1) -> DurableObjects:
    """An object of node `a` that two nodes have."""
    made.put(new(index, stored(extent=100 + index)))
    [copy] = [step for step in made.kept("a", index, 100 + index) if isinstance(step, Copy)]
    assert Answer(*PUTTER, COPIES) in made.kept(copy.node, index, 200 + index)
    made.check()
    return made


def where(made: DurableObjects, index: int = 1) -> dict[str, int]:
    found = made.find(index)
    assert found is not None
    return found.homes


def test_do_1_the_putter_is_told_when_two_nodes_have_it() -> None:
    made = table("a", "b")
    assert made.put(new()) == [Write(1), Adopt("a", 1, 100, "worker")]
    assert made.kept("a", 1, 100) == [Write(1), Copy("b", 1, 5_000_000, "a", 100)]
    assert made.kept("b", 1, 9) == [Write(1), Answer(*PUTTER, 2)]
    assert where(made) == {"a": 100, "b": 9}
    made.check()


def test_do_1_with_one_node_that_is_enough_and_the_next_one_that_comes_gets_it() -> None:
    made = table("a")
    made.put(new())
    assert made.kept("a", 1, 100) == [Write(1), Answer(*PUTTER, 1)]
    made.check()
    assert made.node_joined("b") == [Copy("b", 1, 5_000_000, "a", 100)]
    assert made.kept("b", 1, 9) == [Write(1)]
    made.check()


def test_do_1_a_small_value_is_with_the_head() -> None:
    made = table()
    assert made.put(new(outcome=small())) == [Write(1), Answer(*PUTTER, 0)]
    assert made.outcome(1, "a") == (small(), "")
    made.check()


def test_do_1_said_again_it_is_as_it_was() -> None:
    made = table("a", "b")
    made.put(new())
    assert made.put(new()) == [Adopt("a", 1, 100, "worker")]
    made.kept("a", 1, 100)
    assert made.put(new()) == [], "it is being fetched"
    made.kept("b", 1, 9)
    assert made.put(new()) == [Answer(*PUTTER, 2)]
    assert len(made) == 1


def test_do_1_a_node_that_cannot_have_it_is_not_asked_twice_until_it_comes_anew() -> None:
    made = table("a", "b", "c")
    made.put(new())
    made.kept("a", 1, 100)
    assert made.failed("b", 1, "no room", NOW) == [Copy("c", 1, 5_000_000, "a", 100)]
    assert made.failed("c", 1, "no room", NOW) == [Answer(*PUTTER, 1)]
    made.check()
    assert made.node_joined("b") == [Copy("b", 1, 5_000_000, "a", 100)]


def test_do_4_what_its_writer_took_along_is_refused_with_the_reason() -> None:
    made = table("a", "b")
    made.put(new())
    steps = made.failed("a", 1, "the process that wrote it is gone", NOW)
    assert Answer(*PUTTER, 0, "the process that wrote it is gone") in steps
    assert made.outcome(1, "a") == (None, "the process that wrote it is gone")
    assert len(made) == 0


def test_do_4_what_was_written_on_a_node_that_is_gone_is_refused() -> None:
    made = table("b")
    assert made.put(new()) == [Answer(*PUTTER, 0, "node a, where it was written, is gone")]
    made = table("a")
    made.put(new())
    [answer] = [step for step in made.node_lost("a", "reset") if isinstance(step, Answer)]
    assert "node a is lost: reset, and no other node has it" in answer.error


def test_do_4_there_is_a_bound_on_objects_and_on_small_values() -> None:
    made = table(objects_max=1)
    made.put(new(1, small()))
    [answer] = made.put(new(2, small()))
    assert isinstance(answer, Answer)
    assert answer.full
    assert "the cluster owns 1 objects already" in answer.error
    made = table(inline_bytes_max=100)
    made.put(new(1, small(60)))
    [answer] = made.put(new(2, small(60)))
    assert isinstance(answer, Answer)
    assert "is all that its head keeps: free some with af.free" in answer.error
    made.free([1])
    assert Answer(*PUTTER, 0) in made.put(new(2, small(60)))
    made.check()


def test_do_2_all_nodes_are_told_of_what_is_freed_and_of_every_place_that_it_had() -> None:
    made = kept(table("a", "b", "c"))
    count, steps = made.free([1, 5])
    assert count == 1
    assert steps == [Write(1), Drop("", 1, (("a", 101), ("b", 201)))]
    assert made.free([1]) == (0, [])
    assert made.outcome(1, "a") == (None, "")
    made.check()


def test_do_2_a_copy_that_comes_too_late_is_dropped() -> None:
    made = table("a", "b")
    made.put(new())
    made.kept("a", 1, 100)
    made.free([1])
    assert made.kept("b", 1, 9) == [Drop("", 1, (("b", 9),))]
    made.check()


def test_do_2_it_goes_at_its_time_and_with_its_namespace() -> None:
    made = table()
    for index, ends_at, namespace in ((1, 5.0, "x"), (2, 3.0, "y"), (3, None, "x")):
        made.put(new(index, small(), ends_at, namespace))
    assert made.next_at() == 3.0
    assert made.tick(2.9) == []
    assert made.tick(3.0) == [Write(2)]
    made.free([1])
    assert made.next_at() is None
    assert made.namespace_over("y") == []
    assert made.namespace_over("x") == [Write(3)]
    assert len(made) == 0
    made.check()


def test_do_3_another_node_fetches_what_a_lost_one_kept() -> None:
    made = kept(table("a", "b", "c"))
    assert made.node_lost("a", "reset") == [Write(1), Copy("c", 1, 5_000_000, "b", 201)]
    made.check()
    assert made.node_lost("b", "reset")[0] == Write(1), "before c has it: it is lost"
    assert made.outcome(1, "c")[0] is None
    made.check()


def test_do_3_the_one_that_fetches_dies() -> None:
    made = kept(table("a", "b", "c", "d"))
    made.node_lost("a", "reset")
    assert made.node_lost("c", "reset") == [Copy("d", 1, 5_000_000, "b", 201)]
    made.check()


def test_do_3_a_node_that_is_to_leave_keeps_it_until_another_has_it() -> None:
    made = kept(table("a", "b", "c"))
    assert made.node_leaves("a") == [Copy("c", 1, 5_000_000, "b", 201)]
    assert where(made) == {"a": 101, "b": 201}
    assert made.kept("c", 1, 9) == [Write(1), Write(1), Drop("a", 1, (("a", 101),))]
    assert where(made) == {"b": 201, "c": 9}
    assert made.node_leaves("a") == [], "said again"
    made.check()


def test_do_3_where_there_is_no_other_node_the_one_that_stays_is_enough() -> None:
    made = kept(table("a", "b"))
    assert made.node_leaves("a") == [Write(1), Drop("a", 1, (("a", 101),))]
    assert where(made) == {"b": 201}
    assert made.node_leaves("b") == [], "nobody else has it: it stays to the end"
    assert where(made) == {"b": 201}
    made.check()


def test_do_3_so_many_at_one_time_and_the_others_after_them() -> None:
    made = table("a", "b")
    for index in range(1, 2 * COPYING_MAX + 1):
        kept(made, index)
    made.node_lost("b", "reset")
    steps = made.node_joined("c")
    assert len([step for step in steps if isinstance(step, Copy)]) == COPYING_MAX
    made.check()
    done = 0
    while copies := [step for step in steps if isinstance(step, Copy)]:
        steps = []
        for copy in copies:
            steps += made.kept("c", copy.index, 1000 + copy.index)
            done += 1
            made.check()
    assert done == 2 * COPYING_MAX


def test_do_3_what_a_disk_does_not_give_back_is_fetched_from_the_other_and_the_last_one_is_kept() -> None:
    made = kept(table("a", "b", "c"))
    assert made.failed("a", 1, "on disk", NOW) == [Drop("a", 1, (("a", 101),)), Write(1), Copy("c", 1, 5_000_000, "b", 201)]
    assert made.failed("b", 1, "on disk", NOW) == [], "perhaps the next time"
    assert where(made) == {"b": 201}
    made.check()


def test_do_3_a_node_that_had_no_room_is_asked_again_each_time_later() -> None:
    made = kept(table("a", "b", "c"))
    assert made.next_at() is None
    made.node_lost("b", "reset")
    now, pauses = NOW, []
    copy = Copy("c", 1, 5_000_000, "a", 101)
    for _ in range(40):
        assert made.failed("c", 1, "no room", now) == []
        at = made.next_at()
        assert at is not None
        assert made.tick(at - 0.01) == []
        assert made.tick(at) == [copy]
        assert made.next_at() is None
        made.check()
        pauses.append(at - now)
        now = at
    assert pauses[:3] == [AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S]
    assert pauses[10:] == [AGAIN_MAX_S] * 30
    assert made.kept("c", 1, 9) == [Write(1)]
    made.check()


def test_do_3_who_is_to_be_asked_again_waits_for_those_that_fetch() -> None:
    made = table("a", "b", "c")
    for index in range(1, COPYING_MAX + 2):
        kept(made, index)
    steps = [*made.node_lost("b", "reset"), *made.node_lost("c", "reset"), *made.node_joined("d")]
    copies = [step for step in steps if isinstance(step, Copy)]
    first = copies[-1]
    assert made.failed("d", first.index, "no room", NOW), "another one comes first"
    at = NOW + AGAIN_S
    assert made.tick(at) == [], "so many fetch already"
    made.check()
    assert made.next_at() == at + AGAIN_S
    made.free([found.index for found in made.all() if found.copying])
    assert [step.index for step in made.tick(at + AGAIN_S) if isinstance(step, Copy)] == [first.index]


def test_do_3_what_is_freed_or_kept_meanwhile_is_not_asked_for_again() -> None:
    made = kept(table("a", "b", "c"))
    made.node_lost("b", "reset")
    made.failed("c", 1, "no room", NOW)
    made.free([1])
    assert made.next_at() is None
    made = kept(table("a", "b", "c"))
    made.node_lost("b", "reset")
    made.failed("c", 1, "no room", NOW)
    assert made.node_joined("d") == [Copy("d", 1, 5_000_000, "a", 101)]
    made.kept("d", 1, 9)
    assert made.tick(NOW + AGAIN_S) == []
    made.check()


def test_do_3_the_source_dies_and_whoever_fetched_from_there_is_asked_at_once() -> None:
    """Whether the head or the one that fetches hears of it first."""
    made = kept(table("a", "b", "c"))
    assert made.node_leaves("a") == [Copy("c", 1, 5_000_000, "b", 201)]
    assert made.node_lost("b", "reset") == [Write(1)], "it fetches"
    assert made.failed("c", 1, "b is gone", NOW) == [Copy("c", 1, 5_000_000, "a", 101)]
    made.check()
    made = kept(table("a", "b", "c"))
    made.node_leaves("a")
    assert made.failed("c", 1, "b is gone", NOW) == []
    assert where(made) == {"a": 101, "b": 201}, "it stays on the one that leaves, as long as another is to be asked once more"
    assert made.node_lost("b", "reset") == [Write(1), Copy("c", 1, 5_000_000, "a", 101)]
    made.check()


def test_do_3_the_second_time_it_is_fetched_from_elsewhere() -> None:
    made = kept(table("a", "b", "c"))
    made.node_leaves("a")
    made.failed("c", 1, "b is not heard", NOW)
    assert made.tick(NOW + AGAIN_S) == [Copy("c", 1, 5_000_000, "a", 101)]
    assert made.failed("c", 1, "no room", NOW) == [Write(1), Drop("a", 1, (("a", 101),))], "that was all that could be done"
    assert where(made) == {"b": 201}
    made.check()


def test_do_6_a_node_with_a_bad_link_is_asked_only_when_there_is_no_other() -> None:
    made = table("a", "b", "c")
    assert made.node_apart("b") == []
    made.put(new())
    assert made.kept("a", 1, 100) == [Write(1), Copy("c", 1, 5_000_000, "a", 100)]
    assert made.node_lost("c", "reset") == [Copy("b", 1, 5_000_000, "a", 100)]
    made.check()
    assert made.node_joined("d") == [Copy("d", 1, 5_000_000, "a", 100)], "and instead of it as soon as there is another"
    made.check()
    assert made.kept("b", 1, 7) == [Write(1), Answer(*PUTTER, 2)], "it was faster all the same"
    assert made.kept("d", 1, 9) == [Drop("d", 1, (("d", 9),))]
    made.check()


def test_do_6_what_is_on_its_way_to_a_node_with_a_bad_link_goes_elsewhere() -> None:
    made = table("a", "b", "c")
    made.put(new())
    assert made.kept("a", 1, 100) == [Write(1), Copy("b", 1, 5_000_000, "a", 100)]
    assert made.node_apart("b") == [Copy("c", 1, 5_000_000, "a", 100)]
    assert made.node_apart("c") == [], "now there is no other"
    made.check()
    assert made.node_in_reach("b") == [], "it fetches it already"
    found = made.find(1)
    assert found is not None
    assert found.copying == "b"
    made.check()
    assert made.node_in_reach("c") == []
    assert made.kept("b", 1, 7) == [Write(1), Answer(*PUTTER, 2)]
    made.check()


def test_do_6_a_node_that_leaves_does_not_wait_for_a_bad_link() -> None:
    made = kept(table("a", "b", "c", "d"))
    made.node_apart("c")
    assert made.node_leaves("a") == [Copy("d", 1, 5_000_000, "b", 201)]
    made.check()
    made = kept(table("a", "b", "c", "d"))
    made.node_leaves("a")
    assert made.node_apart("c") == [Copy("d", 1, 5_000_000, "b", 201)]
    assert made.failed("d", 1, "no room", NOW) == [], "nobody else can, and it fetches it already"
    made.check()
    assert made.tick(NOW + AGAIN_S) == [Copy("d", 1, 5_000_000, "a", 101)]
    made.check()


def test_do_6_a_node_that_is_lost_and_comes_back_has_a_link() -> None:
    made = table("a", "b", "c")
    made.node_apart("b")
    made.node_apart("nobody")
    made.node_lost("b", "not heard")
    made.node_joined("b")
    made.put(new())
    assert made.kept("a", 1, 100) == [Write(1), Copy("c", 1, 5_000_000, "a", 100)]
    assert made.node_apart("c") == [Copy("b", 1, 5_000_000, "a", 100)]


def test_a_node_that_was_away_is_told_again() -> None:
    made = table("a", "b")
    made.put(new())
    assert made.node_joined("a") == [Adopt("a", 1, 100, "worker")]
    made.kept("a", 1, 100)
    assert made.node_joined("b") == [Copy("b", 1, 5_000_000, "a", 100)]
    made.kept("b", 1, 9)
    assert made.node_joined("a") == made.node_joined("b") == []


def test_a_reader_gets_what_is_near_and_what_it_has_not_tried() -> None:
    made = kept(table("a", "b", "c"))
    outcome, _ = made.outcome(1, "b")
    assert isinstance(outcome, Stored)
    assert (outcome.node, outcome.extent, outcome.owner) == ("b", 201, "cluster")
    outcome, _ = made.outcome(1, "b", [("b", 201)])
    assert isinstance(outcome, Stored)
    assert outcome.node == "a"
    assert made.outcome(1, "b", [("b", 201), ("a", 101)]) == (
        None,
        "4.8 MiB that the cluster owns could not be read from a, b, which keep it",
    )
    assert where(made) == {"a": 101, "b": 201}, "whoever reads may be cut off: that says nothing of the object"


def test_a_node_that_connects_again_says_all_that_it_has() -> None:
    made = kept(table("a", "b", "c"))
    assert made.all_here("b", {1: 201}) == []
    assert made.all_here("b", {1: 201, 5: 7}) == [Drop("", 5, (("b", 7),))]
    again = Copy("b", 1, 5_000_000, "a", 101)
    assert made.all_here("b", {}) == [Write(1), again]
    made.check()
    assert made.all_here("b", {}) == [again], "it does not fetch it any more"
    made.check()


def test_what_was_known_in_an_earlier_life_of_the_head() -> None:
    before = kept(table("a", "b"))
    before.put(new(2, stored(extent=7)))
    before.put(new(3, small(), 4.0))
    made = DurableObjects()
    for found in before.all():
        found.putter, found.copying = None, ""
        made.restore(found)
    made.node_joined("a")
    assert made.all_here("a", {1: 101}) == [Adopt("a", 2, 7, "worker")]
    made.node_joined("b")
    made.all_here("b", {1: 201})
    assert made.go_on() == []
    assert made.next_at() == 4.0
    made.kept("a", 2, 7)
    made.check()


@pytest.mark.parametrize("seed", range(60))
def test_random_events(seed: int) -> None:
    """Nothing is lost as long as one node that has it lives, everybody is answered once, and what is freed is freed everywhere."""
    rng = random.Random(seed)
    made = DurableObjects()
    held: dict[str, dict[int, int]] = {}
    """What the nodes have."""
    asked: dict[int, int] = {}
    answered: dict[int, int] = {}
    freed: set[int] = set()
    under_way: list[Step] = []
    extent = 0

    def obey(steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Answer):
                answered[step.token] = answered.get(step.token, 0) + 1
            elif isinstance(step, Adopt | Copy):
                under_way.append(step)
            elif isinstance(step, Drop):
                for node in [step.node] if step.node else list(held):
                    held.get(node, {}).pop(step.index, None)
        made.check()

    for turn in range(400):
        what = rng.random()
        if rng.random() < 0.1:
            obey(made.tick(NOW + turn))
        if rng.random() < 0.05 and held:
            obey(rng.choice((made.node_apart, made.node_in_reach))(rng.choice(list(held))))
        if what < 0.05 and len(held) < 6:
            node = f"n{turn}"
            held[node] = {}
            obey(made.node_joined(node))
        elif what < 0.09 and len(held) > 2:
            node = rng.choice(list(held))
            had = held.pop(node)
            under_way = [step for step in under_way if step.node != node]
            alone = {index for index in had if not any(index in others for others in held.values())}
            before = {found.index for found in made.all() if found.adopted}
            obey(made.node_lost(node, "reset"))
            assert before - {found.index for found in made.all()} <= alone, "DO-3: another node had it"
        elif what < 0.12 and held:
            obey(made.node_leaves(rng.choice(list(held))))
        elif what < 0.4 and held:
            node, index = rng.choice(list(held)), turn + 1
            extent += 1
            asked[turn] = index
            one = Durable(index, "default", "job", stored(node, extent), 0.0, putter=("driver", turn))
            if rng.random() < 0.2:
                one.outcome = small()
            obey(made.put(one))
        elif what < 0.5 and len(made):
            index = rng.choice([found.index for found in made.all()])
            freed.add(index)
            obey(made.free([index])[1])
            assert not any(index in others for others in held.values()), "DO-2"
        elif under_way:
            step = under_way.pop(rng.randrange(len(under_way)))
            if rng.random() < 0.15:
                obey(made.failed(step.node, step.index, "no room", NOW + turn))
            elif isinstance(step, Adopt):
                held[step.node][step.index] = step.extent
                obey(made.kept(step.node, step.index, step.extent))
            elif isinstance(step, Copy):
                extent += 1
                held[step.node][step.index] = extent
                obey(made.kept(step.node, step.index, extent))
    while under_way:
        step = under_way.pop()
        assert isinstance(step, Adopt | Copy)
        extent += 1
        number = step.extent if isinstance(step, Adopt) else extent
        held[step.node][step.index] = number
        obey(made.kept(step.node, step.index, number))
    assert answered == dict.fromkeys(asked, 1), "DO-1: everybody is told, once"
    for found in made.all():
        for node, number in found.homes.items():
            assert held[node][found.index] == number
    assert all(index in {found.index for found in made.all()} for others in held.values() for index in others), "DO-2"
