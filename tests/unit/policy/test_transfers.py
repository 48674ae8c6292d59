"""Objects between nodes, both books together: whatever fails, readers get the right bytes or a reason, and nothing is left over."""

import heapq
from collections import Counter
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.policy.pulls import PullLimits
from actorflow._core.policy.transfer_records import Arrived, NotComing, ObjectName, Send, Why
from actorflow._core.policy.uploads import UploadLimits
from tests.unit.policy.transfer_world import CHUNK, Node, Wire, World

PULLS = PullLimits(share=0.5, small_share=0.4, chunk_bytes=CHUNK, window=3, pulls_max=2, small_pulls_max=2)
UPLOADS = UploadLimits(chunk_bytes=CHUNK, uploads_max=3, of_object_max=2, large_chunks=6, sends_max=3)


def pair(pages: int = 100) -> tuple[World, Node, Node]:
    world = World()
    return world, world.add("a", pages), world.add("b", pages)


def answer(node: Node, reader: str = "r", token: int = 1) -> Arrived | NotComing | None:
    return node.waits[reader, token].answer


# From one to another ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 40 * CHUNK])
def test_an_object_comes_whole(size: int) -> None:
    world, a, b = pair()
    name = a.put(size)
    b.want("r", 1, name)
    world.run()
    assert isinstance(answer(b), Arrived)
    assert list(world.located[name]) == ["a", "b"]
    assert b.pulls.copies() == [name]


def test_what_is_on_disk_is_served_from_its_file_and_takes_no_room() -> None:
    world, a, b = pair()
    name = a.put(10 * CHUNK, on_disk=True)
    b.want("r", 1, name)
    world.run()
    assert isinstance(answer(b), Arrived)
    assert a.arena.used_bytes() == 0


def test_a_file_that_is_deleted_meanwhile_is_still_read_to_its_end() -> None:
    world, a, b = pair()
    name = a.put(10 * CHUNK, on_disk=True)
    b.want("r", 1, name)
    world.deliver("b", "a")
    del a.files[name.extent]
    world.run()
    assert isinstance(answer(b), Arrived)


def test_a_source_dies_and_another_goes_on_from_the_first_chunk_that_is_missing() -> None:
    world, a, b = pair()
    c = world.add("c", 100)
    name = a.put(20 * CHUNK)
    b.want("r", 1, name)
    world.run()
    c.want("r", 1, name)
    sent = 0
    while c.pulls.held(name) is None or c.pulls.pulls()[0][2] < 7:
        for source, target in world.busy_sends():
            world.send_ends(source, target)
            sent += 1
        for source, target in world.busy_wires():
            world.deliver(source, target)
    world.kill("a")
    have = c.pulls.pulls()[0][2]
    served: list[int] = []
    world.send_begins = lambda source, send: served.append(send.index)  # type: ignore[method-assign]
    world.run()
    assert isinstance(answer(c), Arrived)
    assert served == list(range(have, 20)), "PU-3: no chunk comes twice"


def test_without_any_source_the_reader_hears_that_it_is_lost_and_why() -> None:
    world, a, b = pair()
    name = a.put(20 * CHUNK)
    b.want("r", 1, name)
    world.kill("a")
    world.run()
    lost = answer(b)
    assert isinstance(lost, NotComing)
    assert lost.why is Why.LOST
    assert [word for word in ("80 KiB", "node a", "0 of 20") if word not in lost.reason] == []
    assert b.arena.used_bytes() == 0


def test_an_owner_that_knows_better_is_believed_five_times() -> None:
    """The source says that it is gone, and the owner goes on naming it."""
    world, a, b = pair()
    name = a.put(5 * CHUNK)
    a.lose(name)
    b.want("r", 1, name)
    world.run()
    lost = answer(b)
    assert isinstance(lost, NotComing)
    assert "asked 5 times" in lost.reason
    assert "a does not have it" in lost.reason


def test_a_full_arena_denies_and_dropping_copies_makes_room() -> None:
    world = World()
    a, b = world.add("a", 100), world.add("b", 20)
    first, second = a.put(8 * CHUNK), a.put(8 * CHUNK)
    mine = b.put(8 * CHUNK)
    b.want("r", 1, first)
    world.run()
    b.want("r", 2, second)
    world.run()
    denied = answer(b, token=2)
    assert isinstance(denied, NotComing)
    assert denied.why is Why.NO_ROOM
    b.drop_copies()
    assert b.pulls.copies() == [first], "somebody reads it"
    b.unpin("r", 1)
    b.want("r", 3, second)
    b.drop_copies()
    world.run()
    assert isinstance(answer(b, token=3), Arrived)
    assert list(world.located[first]) == ["a"], "the owner knows that the copy is gone"
    assert b.look(mine) is not None


def test_two_nodes_that_are_level_do_not_wait_for_each_other_for_ever() -> None:
    """Both have the same part and the home is gone: each is told of the other. UP-3."""
    world = World()
    a, b, c = (world.add(node, 100) for node in "abc")
    name = a.put(30 * CHUNK)
    b.want("r", 1, name)
    c.want("r", 1, name)
    while min([node.pulls.pulls()[0][2] for node in (b, c)]) < 5:
        for source, target in world.busy_sends():
            if world.nodes[target].pulls.pulls()[0][2] < 5:
                world.send_ends(source, target)
        for source, target in world.busy_wires():
            if (source, target) in world.wires:
                world.deliver(source, target)
        world.now += 0.3
        for node in (a, b, c):
            node.tick()
    world.kill("a")
    for node in (b, c):
        node.obey(node.pulls.locations(name, ["b", "c"], world.now))
    world.run()
    assert [type(answer(node)) for node in (b, c)] == [NotComing, NotComing]


# Broadcast, in time -----------------------------------------------------------------------------------------

CHUNK_S = 0.001
"""A MiB at about 1 GB/s."""
DELAY_S = 0.0002


class TimedWorld(World):
    """Each node has one way out, which carries one chunk at a time, and takes in a chunk in `CHUNK_S / speed`. Messages take DELAY_S."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[float, int, str, str, str]] = []
        self.numbers = count()
        self.speed: dict[str, float] = {}
        self.out_free: dict[str, float] = {}
        self.link_free: dict[tuple[str, str], float] = {}
        self.sent: Counter[str] = Counter()

    def later(self, at: float, what: str, source: str, target: str) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), what, source, target))

    def post(self, source: str, target: str, message: Wire) -> None:
        super().post(source, target, message)
        self.later(self.now + DELAY_S, "deliver", source, target)

    def send_begins(self, source: str, send: Send) -> None:
        self.out_free[source] = max(self.out_free.get(source, 0.0), self.now) + CHUNK_S / self.speed.get(source, 1.0)
        link = (source, send.peer)
        taken = max(self.link_free.get(link, 0.0), self.now) + CHUNK_S / self.speed.get(send.peer, 1.0)
        self.link_free[link] = max(self.out_free[source], taken)
        self.sent[source] += 1
        self.later(self.link_free[link], "sent", *link)

    def kill(self, dead: str) -> None:
        super().kill(dead)
        self.events = [event for event in self.events if dead not in event[3:]]
        heapq.heapify(self.events)
        for node, peer in self.busy_sends():
            assert peer != dead, node

    def run_until(self, at: float) -> None:
        """Let everything happen until then, or until nobody waits."""
        next_tick = self.now
        while self.now < at and any(node.pulls.waiting for node in self.nodes.values()):
            if self.events and self.events[0][0] <= next_tick:
                self.now, _, what, source, target = heapq.heappop(self.events)
                if what == "sent":
                    self.send_ends(source, target)
                else:
                    self.deliver(source, target)
                continue
            self.now = next_tick
            next_tick += 0.1
            for node in list(self.nodes.values()):
                node.tick()


def broadcast(receivers: int, chunks: int, *, slow: str = "", dies: str = "", dies_at: float = 0.0) -> tuple[float, TimedWorld]:
    """One object from one node to many at once: when did the last one (the slow one not counted) have it?"""
    world = TimedWorld()
    pulls, uploads = PullLimits(chunk_bytes=CHUNK), UploadLimits(chunk_bytes=CHUNK)
    home = world.add("home", 2 * chunks, pulls, uploads)
    names = [f"n{number:02}" for number in range(receivers)]
    name = home.put(chunks * CHUNK)
    for node in names:
        world.add(node, 4 * chunks + 4, pulls, uploads)
    if slow:
        world.speed[slow] = 0.002
    for node in names:
        world.nodes[node].want("r", 1, name)
    if dies:
        world.run_until(dies_at)
        world.kill(dies)
    last = 0.0
    while waiting := [node for node in world.nodes if node not in ("home", slow) and not isinstance(answer(world.nodes[node]), Arrived)]:
        assert world.now < 60.0, f"{waiting} still wait"
        world.run_until(world.now + CHUNK_S / 4)
        last = world.now
    world.check()
    return last, world


@pytest.mark.parametrize(("receivers", "most"), [(4, 1.1), (16, 1.2), (64, 1.6)])
def test_a_broadcast_of_256_mib_takes_little_longer_than_one_pull(receivers: int, most: float) -> None:
    alone, _ = broadcast(1, 256)
    took, world = broadcast(receivers, 256)
    assert took <= most * alone, f"{took / alone:.2f}"
    assert world.sent["home"] <= 2 * 256, "the home sends it little more than once"


def test_without_the_help_of_others_it_would_take_as_many_times_as_there_are_receivers() -> None:
    """The model can tell the difference."""
    alone, _ = broadcast(1, 64)
    world = TimedWorld()
    everybody = UploadLimits(chunk_bytes=CHUNK, large_chunks=1000, tree_fan_out=100, of_object_max=100)
    home = world.add("home", 200, None, everybody)
    name = home.put(64 * CHUNK)
    for number in range(4):
        world.add(f"n{number}", 200, PullLimits(chunk_bytes=CHUNK)).want("r", 1, name)
    world.run_until(10.0)
    assert world.now > 3.9 * alone


def test_a_small_object_goes_through_a_tree() -> None:
    alone, _ = broadcast(1, 2)
    took, _ = broadcast(16, 2)
    assert took < 9 * alone, f"{took / alone:.2f}, and one after the other it would be 16"


def test_a_slow_receiver_does_not_hold_up_those_before_it() -> None:
    alone, _ = broadcast(1, 64)
    took, world = broadcast(4, 64, slow="n03")
    assert took <= 1.3 * alone, f"{took / alone:.2f}"
    assert world.nodes["n03"].pulls.waiting == 1


def test_who_comes_later_is_not_sent_to_a_slow_receiver() -> None:
    alone, _ = broadcast(1, 64)
    world = TimedWorld()
    home = world.add("home", 200, None, UploadLimits(chunk_bytes=CHUNK))
    name = home.put(64 * CHUNK)
    world.speed["slow"] = 0.002
    world.add("slow", 200, PullLimits(chunk_bytes=CHUNK)).want("r", 1, name)
    world.run_until(2.0)
    began = world.now
    for node in ("n1", "n2"):
        world.add(node, 200, PullLimits(chunk_bytes=CHUNK)).want("r", 1, name)
    world.run_until(began + 1.5 * alone)
    assert [type(answer(world.nodes[node])) for node in ("n1", "n2")] == [Arrived, Arrived]
    assert world.nodes["slow"].pulls.waiting == 1


@pytest.mark.parametrize("dies", ["n00", "n01", "n03"])
def test_a_receiver_dies_in_the_middle_and_those_behind_it_go_on(dies: str) -> None:
    alone, _ = broadcast(1, 128)
    took, _ = broadcast(5, 128, dies=dies, dies_at=alone / 2)
    assert took <= 2.5 * alone, f"{took / alone:.2f}"


def test_the_home_dies_when_one_has_it_and_all_the_others_get_it() -> None:
    alone, world = broadcast(1, 128)
    name = next(iter(world.objects))
    world.kill("home")
    for number in range(1, 5):
        world.add(f"n{number:02}", 600, PullLimits(chunk_bytes=CHUNK)).want("r", 1, name)
    began = world.now
    world.run_until(60.0)
    assert all(isinstance(answer(node), Arrived) for node in world.nodes.values())
    assert world.now - began <= 2.5 * alone


# In any order -----------------------------------------------------------------------------------------------


def shuffle_along(world: World, rng: Random, *, moves: int = 1_000_000) -> None:
    """Whatever can move next, one of them does; time passes when nothing can."""
    for move in range(moves):
        sends, wires = world.busy_sends(), world.busy_wires()
        if wires and (not sends or rng.random() < 0.7):
            world.deliver(*rng.choice(wires))
        elif sends:
            world.send_ends(*rng.choice(sends))
        elif all(node.at_rest for node in world.nodes.values()):
            return
        else:
            assert world.now < 1000.0, "no rest"
            world.now += 0.25
            for node in list(world.nodes.values()):
                node.tick()
        if move % 8 == 0:
            world.check()


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_when_nothing_fails_everybody_gets_everything(seed: int, sizes: list[int]) -> None:
    world, rng = World(), Random(seed)
    for number in range(6):
        world.add(f"n{number}", 200, PULLS, UPLOADS)
    names = [world.nodes["n0"].put(size * CHUNK) for size in sizes]
    for node in list(world.nodes.values())[1:]:
        for token, name in enumerate(names):
            node.want("r", token, name)
            shuffle_along(world, rng, moves=rng.randrange(6))
    shuffle_along(world, rng)
    assert all(isinstance(seen.answer, Arrived) for node in world.nodes.values() for seen in node.waits.values())


@given(seed=st.integers(0, 2**32), size=st.integers(1, 30), moves=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_one_copy_that_the_owner_knows_of_is_enough_for_all(seed: int, size: int, moves: int) -> None:
    world, rng = World(), Random(seed)
    for number in range(6):
        world.add(f"n{number}", 200, PULLS, UPLOADS)
    name = world.nodes["n0"].put(size * CHUNK)
    world.nodes["n1"].want("r", 1, name)
    world.run()
    for node in list(world.nodes.values())[2:]:
        node.want("r", 1, name)
    shuffle_along(world, rng, moves=moves)
    world.kill("n0")
    shuffle_along(world, rng, moves=moves)
    world.kill("n5")
    shuffle_along(world, rng)
    assert all(isinstance(seen.answer, Arrived) for node in world.nodes.values() for seen in node.waits.values())


# Everything at once -----------------------------------------------------------------------------------------


class Transfers(RuleBasedStateMachine):
    """Five nodes with little room, and everything that can go wrong, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.tokens = count(1)
        self.born = count(5)

    @initialize(sizes=st.lists(st.sampled_from([1, 2, 7, 9]), min_size=2, max_size=4), on_disk=st.booleans())
    def begin(self, sizes: list[int], on_disk: bool) -> None:
        for number in range(5):
            self.world.add(f"n{number}", 24, PULLS, UPLOADS)
        for at, pages in enumerate(sizes):
            self.put(at, pages, short=at == 1, on_disk=on_disk and at == 0)

    def node(self, number: int) -> Node:
        names = sorted(self.world.nodes)
        return self.world.nodes[names[number % len(names)]]

    @rule(at=st.integers(0, 9), pages=st.sampled_from([1, 2, 5, 9, 12]), short=st.booleans(), on_disk=st.booleans())
    def put(self, at: int, pages: int, short: bool, on_disk: bool) -> None:
        node = self.node(at)
        if len(self.world.objects) < 12 and not node.arena.waiting and node.arena.used_bytes() + pages * CHUNK <= 12 * CHUNK:
            node.put(pages * CHUNK - short * 100, on_disk=on_disk)

    def names(self) -> list[ObjectName]:
        return [name for name in self.world.objects if name not in self.world.freed]

    @precondition(lambda self: self.names())
    @rule(at=st.integers(0, 9), which=st.integers(0, 99), reader=st.sampled_from(["r", "s"]), hint=st.integers(0, 9))
    def want(self, at: int, which: int, reader: str, hint: int) -> None:
        node, name = self.node(at), self.names()[which % len(self.names())]
        if name.home != node.node:
            node.want(reader, next(self.tokens), name, [self.node(hint).node])

    @precondition(lambda self: self.names())
    @rule(which=st.integers(0, 99), moves=st.integers(0, 8))
    def want_everywhere(self, which: int, moves: int) -> None:
        name = self.names()[which % len(self.names())]
        for node in list(self.world.nodes.values()):
            if name.home != node.node:
                node.want("r", next(self.tokens), name)
        self.everything_moves(moves)

    @rule(at=st.integers(0, 9), which=st.integers(0, 99))
    def leave(self, at: int, which: int) -> None:
        node = self.node(at)
        waits = [key for key, seen in node.waits.items() if not seen.left and seen.answer is None]
        if waits:
            node.leave(*waits[which % len(waits)])

    @rule(at=st.integers(0, 9), reader=st.sampled_from(["r", "s"]))
    def reader_dies(self, at: int, reader: str) -> None:
        node = self.node(at)
        for (who, _), seen in node.waits.items():
            seen.left = seen.left or (who == reader and seen.answer is None)
        node.obey(node.pulls.reader_lost(reader, self.world.now))
        node.pins = {key: extent for key, extent in node.pins.items() if key[0] != reader}
        node.arena.client_lost(reader, self.world.now)
        node.serve()

    @rule(at=st.integers(0, 9), which=st.integers(0, 99))
    def unpin(self, at: int, which: int) -> None:
        node = self.node(at)
        if node.pins:
            node.unpin(*list(node.pins)[which % len(node.pins)])

    @rule(at=st.integers(0, 9))
    def drop_copies(self, at: int) -> None:
        self.node(at).drop_copies()

    @rule(at=st.integers(0, 9), which=st.integers(0, 99))
    def lose(self, at: int, which: int) -> None:
        node = self.node(at)
        if node.home:
            node.lose(list(node.home)[which % len(node.home)])

    @precondition(lambda self: self.names())
    @rule(which=st.integers(0, 99))
    def free(self, which: int) -> None:
        self.world.free(self.names()[which % len(self.names())])

    @rule(at=st.integers(0, 9))
    def kill(self, at: int) -> None:
        if len(self.world.nodes) > 2:
            self.world.kill(self.node(at).node)

    @rule()
    def join(self) -> None:
        if len(self.world.nodes) < 6:
            self.world.add(f"n{next(self.born)}", 24, PULLS, UPLOADS)

    @rule(one=st.integers(0, 9), other=st.integers(0, 9))
    def cut(self, one: int, other: int) -> None:
        if self.node(one) is not self.node(other):
            self.world.cut(self.node(one).node, self.node(other).node)

    @rule(answers=st.booleans())
    def owner_is_deaf(self, answers: bool) -> None:
        self.world.owner_answers = answers

    @rule(which=st.integers(0, 99), times=st.integers(1, 5), whole=st.integers(0, 9))
    def send(self, which: int, times: int, whole: int) -> None:
        for _ in range(times):
            if busy := self.world.busy_sends():
                self.world.send_ends(*busy[which % len(busy)], whole=whole > 0)

    @rule(which=st.integers(0, 99), times=st.integers(1, 8))
    def deliver(self, which: int, times: int) -> None:
        for _ in range(times):
            if busy := self.world.busy_wires():
                self.world.deliver(*busy[which % len(busy)])

    @rule(rounds=st.integers(1, 12))
    def everything_moves(self, rounds: int) -> None:
        for _ in range(rounds):
            for source, target in self.world.busy_sends():
                if target in self.world.nodes[source].sends:
                    self.world.send_ends(source, target)
            for pair in self.world.busy_wires():
                if pair in self.world.wires:
                    self.world.deliver(*pair)

    @rule(rounds=st.integers(1, 4))
    def one_after_the_other_moves(self, rounds: int) -> None:
        """Some connections are always behind."""
        for source, target in self.world.busy_sends()[:rounds]:
            if target in self.world.nodes[source].sends:
                self.world.send_ends(source, target)
        for pair in self.world.busy_wires()[:rounds]:
            while pair in self.world.wires:
                self.world.deliver(*pair)

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds
        for node in list(self.world.nodes.values()):
            node.tick()

    @invariant()
    def the_books_are_right(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """At rest everybody has an answer, and nothing is held."""
        self.world.owner_answers = True
        self.world.run(seconds=200.0)
        for node in self.world.nodes.values():
            for (reader, token), seen in node.waits.items():
                assert seen.left or seen.answer is not None, f"PU-4: {reader} {token} on {node.node} was forgotten"
            assert node.pulls.bytes_under_way == 0, "PU-1: nothing is under way"
            pins = {extent.number: extent.pins for extent in node.arena.extents() if extent.pins}
            assert sum(pins.values()) == len(node.pins), "UP-2: only readers have pins"
            for reader, token in list(node.pins):
                node.unpin(reader, token)
            node.drop_copies()
            for name in list(node.home):
                node.lose(name)
            assert node.arena.used_bytes() == 0, "PU-2: all room is free again"
            assert node.arena.waiting == 0


TestTransfers = Transfers.TestCase
TestTransfers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
