"""policy/durable_objects.py: DO-5, what actors are to make for detached calls."""

from __future__ import annotations

import random

import pytest

from actorflow._core.policy.durable_objects import COPYING_MAX, Durable, DurableObjects
from actorflow._core.policy.durable_steps import Adopt, Answer, Copy, Drop, EndMaker, Settled, Step, Write
from actorflow._core.protocol.messages import ActorDied, Failed, Inline, Outcome, Stored

MAKER = "maker"
NOW = 100.0
DIED = ActorDied("crashed", "signal 9")
CANCELLED = ActorDied("cancelled", "it was cancelled by driver d")
FIRST, SECOND = ("first life", 1), ("second life", 2)
BROKEN = [Write(1), Write(1), Settled(1), EndMaker(MAKER, "")]


def over(by: tuple[str, int] | None = FIRST) -> list[Step]:
    """The end of a promise that is kept, by this life of its maker."""
    return [Write(1), Settled(1), EndMaker(MAKER, by[0] if by is not None else "")]


def stored(node: str = "a", extent: int = 100, size: int = 5_000_000) -> Stored:
    return Stored(node, extent, 0, size, b"", [(0, size)], None, "worker")


def promise(index: int = 1, maker: str = MAKER, work: list[int] | None = None) -> Durable:
    return Durable(index, "default", "job", None, 0.0, maker=maker, name="train", work=work or [])


def table(*nodes: str, **bounds: int) -> DurableObjects:
    made = DurableObjects(**bounds)
    for node in nodes:
        assert made.node_joined(node) == []
    assert made.promise(promise()) == [Write(1)]
    assert made.is_open(1)
    made.check()
    return made


def test_do_5_what_is_promised_is_there_when_enough_nodes_have_it() -> None:
    made = table("a", "b")
    assert made.make(1, stored(), FIRST) == [Write(1), Adopt("a", 1, 100, "worker")]
    assert made.kept("a", 1, 100) == [Write(1), Copy("b", 1, 5_000_000, "a", 100)]
    assert made.is_open(1), "it might still be lost"
    assert made.kept("b", 1, 9) == [Write(1), Answer(*FIRST, 2), *over()]
    assert not made.is_open(1)
    outcome, _ = made.outcome(1, "b")
    assert isinstance(outcome, Stored)
    made.check()


@pytest.mark.parametrize("outcome", [Inline(b"small"), Failed(b"error")])
def test_do_5_small_values_and_errors_are_there_at_once(outcome: Outcome) -> None:
    made = table()
    assert made.make(1, outcome, FIRST) == [Write(1), Answer(*FIRST, 0), *over()]
    assert made.outcome(1, "a") == (outcome, "")
    made.check()


def test_do_5_said_again_it_is_as_it_was() -> None:
    made = table("a", "b")
    assert made.promise(promise()) == []
    made.make(1, stored(), FIRST)
    assert made.make(1, stored(), FIRST) == [Write(1), Adopt("a", 1, 100, "worker")]
    made.kept("a", 1, 100)
    assert made.make(1, stored(), FIRST) == []
    made.kept("b", 1, 9)
    assert made.make(1, stored(), FIRST) == [Answer(*FIRST, 2)], "the head was away when it answered"
    made.check()


def test_do_5_what_is_lost_before_it_is_kept_is_promised_again() -> None:
    made = table("a", "b")
    made.make(1, stored(), FIRST)
    made.kept("a", 1, 100)
    steps = made.node_lost("a", "reset")
    assert Drop("", 1, (("a", 100),)) in steps
    [answer] = [step for step in steps if isinstance(step, Answer)]
    assert not answer.over, "its maker puts it once more"
    assert made.is_open(1)
    made.check()
    assert made.make(1, stored("b", 7), SECOND) == [Write(1), Adopt("b", 2, 7, "worker")]
    assert made.kept("b", 2, 7) == [Write(1), Answer(*SECOND, 1), *over(SECOND)]
    made.check()


def test_do_5_what_was_refused_is_promised_again() -> None:
    made = table("a")
    made.make(1, stored(), FIRST)
    steps = made.failed("a", 1, "the process that wrote it is gone", NOW)
    assert Answer(*FIRST, 0, "the process that wrote it is gone") in steps
    assert made.is_open(1)
    made.check()


def test_do_5_without_its_maker_the_promise_is_broken() -> None:
    made = table("a")
    assert made.maker_gone("somebody else", DIED) == []
    assert made.maker_gone(MAKER, DIED) == BROKEN
    assert not made.is_open(1)
    found = made.find(1)
    assert found is not None
    assert found.died is DIED
    assert made.outcome(1, "a") == (None, "")
    assert made.maker_gone(MAKER, DIED) == []
    made.check()


def test_do_5_what_it_has_given_before_it_was_gone_may_be_kept() -> None:
    made = table("a")
    made.make(1, stored(), FIRST)
    assert made.maker_gone(MAKER, DIED) == [Write(1)]
    assert made.is_open(1)
    assert made.kept("a", 1, 100) == [Write(1), Answer(*FIRST, 1), *over()]
    made.check()


def test_do_5_or_it_is_broken_after_all() -> None:
    made = table("a")
    made.make(1, stored(), FIRST)
    made.maker_gone(MAKER, DIED)
    steps = made.failed("a", 1, "the process that wrote it is gone", NOW)
    assert Settled(1) in steps
    assert not made.is_open(1)
    made.check()


def test_do_5_another_life_makes_another_one() -> None:
    """The first has died before its node had heard that it is the cluster's; whatever that node says of it later is not of this one."""
    made = table("a", "b")
    made.make(1, stored("a", 100), FIRST)
    steps = made.make(1, stored("b", 7), SECOND)
    assert [step for step in steps if isinstance(step, Answer)] == [Answer(*FIRST, 0, "another life of its maker has made it once more")]
    assert Drop("", 1, (("a", 100),)) in steps
    assert Adopt("b", 2, 7, "worker") in steps
    assert made.kept("a", 1, 100) == [Drop("", 1, (("a", 100),))]
    assert made.failed("b", 1, "it was of the first", NOW) == []
    assert made.kept("b", 2, 7) == [Write(1), Copy("a", 2, 5_000_000, "b", 7)]
    made.check()
    assert Drop("", 2, (("b", 7),)) in made.free([1])[1]
    made.check()


def test_dc_2_what_has_been_kept_stands() -> None:
    made = table("a", "b")
    made.make(1, stored("a", 100), FIRST)
    made.kept("a", 1, 100)
    assert made.make(1, stored("b", 7), SECOND) == [], "the first one is being copied"
    assert made.kept("b", 1, 9) == [Write(1), Answer(*SECOND, 2), *over(SECOND)]
    made.check()


def test_do_5_a_cancel_breaks_it_and_comes_too_late_where_there_is_a_value() -> None:
    made = table("a")
    assert made.cancel(1, CANCELLED) == BROKEN
    assert made.cancel(1, CANCELLED) == []
    [answer] = made.make(1, Inline(b""), FIRST)
    assert isinstance(answer, Answer)
    assert answer.over
    assert "it was cancelled by driver d" in answer.error
    made = table("a")
    made.make(1, stored(), FIRST)
    assert made.cancel(1, CANCELLED) == []
    assert made.cancel(5, CANCELLED) == []
    made.check()


def test_do_5_what_is_freed_before_it_is_made_ends_its_maker() -> None:
    made = table("a")
    assert made.free([1])[1] == [Write(1), Write(1), Settled(1), EndMaker(MAKER, "")]
    [answer] = made.make(1, Inline(b""), FIRST)
    assert isinstance(answer, Answer)
    assert answer.over
    assert len(made) == 0
    made.check()


@pytest.mark.parametrize("how", ["made", "broken", "cancelled", "freed"])
def test_do_5_the_arguments_go_with_the_end_of_the_call(how: str) -> None:
    made = table()
    made.put(Durable(9, "default", "job", Inline(b"arguments"), 0.0, putter=FIRST))
    made.promise(promise(2, "other", work=[9]))
    ends = {
        "made": lambda: made.make(2, Inline(b"result"), FIRST),
        "broken": lambda: made.maker_gone("other", DIED),
        "cancelled": lambda: made.cancel(2, CANCELLED),
        "freed": lambda: made.free([2])[1],
    }
    assert Write(9) in ends[how]()
    assert made.find(9) is None
    made.check()


def test_do_5_there_is_room_for_a_result_or_an_error() -> None:
    made = table(inline_bytes_max=3)
    [answer] = made.make(1, Inline(b"four"), FIRST)
    assert isinstance(answer, Answer)
    assert answer.full
    assert made.is_open(1)
    assert Answer(*FIRST, 0) in made.make(1, Failed(b"no room"), FIRST)
    made.check()


def test_do_5_it_stays_promised_over_the_lives_of_the_head() -> None:
    before = table("a", "b")
    before.make(1, stored(), FIRST)
    before.kept("a", 1, 100)
    made = DurableObjects()
    for found in before.all():
        found.putter, found.copying = None, ""
        made.restore(found)
    made.node_joined("a")
    made.node_joined("b")
    made.all_here("a", {1: 100})
    made.all_here("b", {})
    made.go_on()
    assert made.is_open(1)
    assert made.kept("b", 1, 9) == [Write(1), *over(None)], "its maker need not say it again"
    assert made.make(1, stored(), FIRST) == [Answer(*FIRST, 2)]
    made.check()


@pytest.mark.parametrize("seed", range(60))
def test_do_5_random_events(seed: int) -> None:
    """Every promise ends, its readers are told once and its maker is ended once, whoever dies."""
    rng = random.Random(seed)
    made = DurableObjects()
    nodes: list[str] = []
    settled: dict[int, int] = {}
    ended: dict[str, int] = {}
    under_way: list[Adopt | Copy] = []
    makers: dict[str, int] = {}
    promised: list[int] = []
    extent = 0

    def obey(steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Settled):
                settled[step.index] = settled.get(step.index, 0) + 1
                assert not made.is_open(step.index)
            elif isinstance(step, EndMaker):
                ended[step.actor_id] = ended.get(step.actor_id, 0) + 1
                makers.pop(step.actor_id, None)
            elif isinstance(step, Adopt | Copy):
                under_way.append(step)
        made.check()

    def event(what: float) -> None:
        nonlocal extent
        if what < 0.1 and len(nodes) < 4:
            nodes.append(f"n{rng.random()}")
            obey(made.node_joined(nodes[-1]))
        elif what < 0.15 and nodes:
            node = nodes.pop(rng.randrange(len(nodes)))
            under_way[:] = [step for step in under_way if step.node != node]
            obey(made.node_lost(node, "reset"))
        elif what < 0.3:
            index = rng.getrandbits(62)
            promised.append(index)
            makers[f"m{index}"] = index
            obey(made.promise(promise(index, f"m{index}")))
        elif what < 0.55 and makers:
            maker = rng.choice(list(makers))
            extent += 1
            large = stored(rng.choice(nodes), extent) if nodes and rng.random() < 0.8 else Inline(b"x")
            obey(made.make(makers[maker], large, (maker, extent)))
        elif what < 0.6 and makers:
            obey(made.maker_gone(rng.choice(list(makers)), DIED))
        elif what < 0.63 and makers:
            obey(made.cancel(rng.choice(list(makers.values())), CANCELLED))
        elif what < 0.66 and makers:
            obey(made.free([rng.choice(list(makers.values()))])[1])
        elif under_way:
            step = under_way.pop(rng.randrange(len(under_way)))
            if rng.random() < 0.2:
                obey(made.failed(step.node, step.index, "it has not got it", NOW))
            else:
                extent += 1
                obey(made.kept(step.node, step.index, step.extent if isinstance(step, Adopt) else extent))

    for _ in range(400):
        event(rng.random())
    for maker in list(makers):
        obey(made.maker_gone(maker, DIED))
    while under_way:
        event(1.0)
    assert settled == dict.fromkeys(promised, 1)
    assert ended == {f"m{index}": 1 for index in promised}


# The end of one is the end of another


def restored(*order: str, nodes: tuple[str, ...] = ("a",), others: int = 0) -> DurableObjects:
    """What a head finds in its memory: a promise whose value one node has, the arguments of its call, and more."""
    made = DurableObjects()
    for node in nodes:
        made.node_joined(node)
    for number in range(others):
        made.restore(there(100 + number, 1000 + number))
    found = {"promise": there(1, 100, MAKER, [9]), "work": there(9, 5)}
    for name in order:
        made.restore(found[name])
    return made


def there(index: int, extent: int, maker: str = "", work: list[int] | None = None) -> Durable:
    found = Durable(index, "default", "job", stored("a", extent), 0.0, maker=maker, work=work or [])
    found.homes, found.adopted = {"a": extent}, True
    return found


ORDERS = pytest.mark.parametrize("order", [("work", "promise"), ("promise", "work")])


@ORDERS
def test_do_5_all_nodes_are_back_and_a_promise_is_kept(order: tuple[str, str]) -> None:
    made = restored(*order)
    made.all_here("a", {1: 100, 9: 5})
    assert EndMaker(MAKER, "") in made.go_on()
    made.check()
    assert made.find(9) is None
    made.node_joined("b")
    made.check()


@ORDERS
def test_do_5_a_node_is_lost_with_a_promised_value_and_its_arguments(order: tuple[str, str]) -> None:
    made = restored(*order, nodes=("a", "b"))
    made.maker_gone(MAKER, DIED)
    made.node_lost("a", "reset")
    made.check()
    made.node_joined("c")
    made.check()


@ORDERS
def test_do_5_the_only_node_is_to_leave(order: tuple[str, str]) -> None:
    made = restored(*order)
    made.node_leaves("a")
    made.check()
    made.node_joined("c")
    made.check()


def test_do_5_what_is_short_goes_with_another_one_that_is_short() -> None:
    made = restored("promise", "work", others=COPYING_MAX)
    made.node_joined("b")
    made.go_on()
    made.check()
    made.node_lost("b", "reset")
    made.check()


def test_dc_2_a_later_life_comes_too_late_when_the_maker_is_gone() -> None:
    made = table("a", "b")
    made.make(1, stored("a", 1), FIRST)
    made.maker_gone(MAKER, DIED)
    [answer] = made.make(1, stored("b", 2), SECOND)
    assert isinstance(answer, Answer)
    assert answer.over
    assert made.is_open(1), "what the first has given may still be kept"
    made.check()
