"""Random histories of the head's table and the nodes' ledgers together: what must hold whatever happens.

Words between head and node go through queues that keep their order. A queue is lost when its connection is;
words at its front come twice when a connection was resumed. Nodes die, are cut off and come back, and join;
leases run inside bundles and beside them. At the end everything under way is delivered, and then the two sides
must agree: nothing is held for a group that is not there, and every group that fits is CREATED.
"""

from __future__ import annotations

from collections import Counter, deque
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.base.resources import UNIT, ResourceSet
from actorflow._core.policy.bundle_packing import BundleSpec, NotPacked, Place, Strategy, pack
from actorflow._core.policy.bundles import Bundles, ReservationState
from actorflow._core.policy.placement_decisions import (
    Answer,
    BundleLease,
    BundlesLost,
    Cancel,
    Commit,
    Decision,
    KillLease,
    NodeDecision,
    Prepare,
    Prepared,
    PrepareRefused,
    Ready,
    Removed,
    Rescheduling,
    Return,
    Returned,
    ToHead,
    ToNode,
    Waiting,
)
from actorflow._core.policy.placement_groups import PlacementGroups
from actorflow._core.policy.placement_record import Group, GroupSpec, State
from actorflow._core.policy.resource_pool import ResourcePool

LIVING_MAX = 6
NODES_MAX = 4
DELIVERED_KEPT = 4
"""How many words a resumed connection may bring a second time."""

DEMANDS = [{"CPU": UNIT}, {"CPU": 2 * UNIT}, {"CPU": 3 * UNIT}, {"CPU": UNIT, "GPU": UNIT}, {"GPU": 2 * UNIT}]
LABELS = [{}, {}, {}, {"zone": "a"}]
AMOUNTS = st.sampled_from(DEMANDS)
SPECS = st.lists(st.builds(BundleSpec, AMOUNTS, st.sampled_from(LABELS)), min_size=1, max_size=4)


class SimNode:
    """One node: its ledger, its resources, and the two directions of its connection to the head."""

    def __init__(self, node_id: str, cpus: int, gpus: int, zone: str) -> None:
        self.node_id = node_id
        self.labels = {"zone": zone}
        self.pool = ResourcePool({"CPU": cpus * UNIT, "GPU": gpus * UNIT}, {"GPU": range(gpus)})
        self.bundles = Bundles(self.pool)
        self.connected = True
        self.to_node: deque[ToNode] = deque()
        self.to_head: deque[ToHead] = deque()
        self.had: deque[ToNode] = deque(maxlen=DELIVERED_KEPT)
        """What the node was told last over this connection."""
        self.said: deque[ToHead] = deque(maxlen=DELIVERED_KEPT)
        self.leases: list[BundleLease] = []
        self.dying: list[BundleLease] = []
        self.outside: list[tuple[dict[str, int], dict[str, list[int]]]] = []

    def used_outside(self) -> dict[str, int]:
        used = ResourceSet()
        for demand, _ in self.outside:
            used.add(demand)
        return used.amounts

    def do(self, decisions: list[NodeDecision]) -> None:
        for decision in decisions:
            if isinstance(decision, KillLease):
                assert decision.lease in self.leases, "a lease that has ended is killed"
                self.leases.remove(decision.lease)
                self.dying.append(decision.lease)
            elif self.connected:
                self.to_head.append(decision)

    def hear(self, word: ToNode, now: float) -> None:
        match word:
            case Prepare():
                self.do(
                    self.bundles.prepare(
                        word.group_id, word.attempt, word.bundles, now, keep_s=word.keep_s, commit=word.commit, claim=word.claim
                    )
                )
            case Commit():
                self.do(self.bundles.commit(word.group_id, word.attempt))
            case Cancel():
                self.do(self.bundles.cancel(word.group_id, word.attempt))
            case Return():
                self.do(self.bundles.return_group(word.group_id, word.attempt))
        self.do(self.bundles.admit())

    def cut(self) -> None:
        """The connection is gone, with what was on its way."""
        for queue in (self.to_node, self.to_head, self.had, self.said):
            queue.clear()


class Histories(RuleBasedStateMachine):
    """Each rule is one event: of a user, of a node, of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rng = Random(0)
        self.table = PlacementGroups(starvation_s=5.0, turn_s=10.0, prepare_timeout_s=3.0)
        self.nodes: dict[str, SimNode] = {}
        self.made = 0
        self.removed: set[str] = set()
        self.attempts: Counter[str] = Counter()

    # -- what the head decides

    def do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Prepare() | Commit() | Cancel() | Return():
                    node = self.nodes.get(decision.node_id)
                    assert node is not None, "a word to a node that is dead"
                    assert node.connected, "a word to a node that is lost"
                    if isinstance(decision, Prepare):
                        assert decision.group_id not in self.removed, "PG-4"
                        assert decision.attempt >= self.attempts[decision.group_id], "PG-1"
                        self.attempts[decision.group_id] = decision.attempt
                    node.to_node.append(decision)
                case Ready():
                    assert decision.group_id not in self.removed, "PG-4"
                    self.strict(decision)
                case Removed():
                    self.removed.add(decision.group_id)
                case Answer(error=error):
                    if error:
                        self.removed.add(decision.group_id)

    def strict(self, decision: Ready) -> None:
        group = self.table.find(decision.group_id)
        assert isinstance(group, Group)
        for node_id, attempt in zip(decision.nodes, decision.attempts, strict=True):
            node = self.nodes[node_id]
            held = {(h.group_id, h.attempt) for h in node.bundles.held() if not h.claimed}
            lost = {(word.group_id, word.attempt) for word in node.to_head if isinstance(word, BundlesLost)}
            assert (decision.group_id, attempt) in held | lost, f"it is ready, and {node_id} has nothing of it"
        if group.spec.strategy is Strategy.STRICT_PACK:
            assert len(set(decision.nodes)) == 1, "PG-6"
        if group.spec.strategy is Strategy.STRICT_SPREAD:
            assert len(set(decision.nodes)) == len(decision.nodes), "PG-6"
        for node_id, bundle in zip(decision.nodes, group.spec.bundles, strict=True):
            assert all(self.nodes[node_id].labels.get(k) == v for k, v in bundle.labels.items()), "BP-1"

    def head_hears(self, node: SimNode, word: ToHead) -> None:
        node_id = node.node_id
        match word:
            case Prepared():
                self.do(self.table.prepared(node_id, word.group_id, word.attempt, self.now))
            case PrepareRefused():
                self.do(self.table.refused(node_id, word.group_id, word.attempt, word.reason, self.now, self.rng))
            case BundlesLost():
                self.do(self.table.bundles_lost(node_id, word.group_id, word.attempt, word.reason, self.now, self.rng))
            case Returned():
                self.table.returned(node_id, word.group_id, word.attempt)

    def node(self, index: int) -> SimNode:
        return list(self.nodes.values())[index % len(self.nodes)]

    def some(self, index: int) -> str:
        living = [group.spec.group_id for group in self.table.living()]
        return living[index % len(living)]

    # -- users

    @initialize(cpus=st.integers(1, 6))
    def first(self, cpus: int) -> None:
        self.join(cpus, 1, "a")
        self.join(4, 0, "b")

    @rule(
        strategy=st.sampled_from(Strategy),
        bundles=SPECS,
        priority=st.integers(0, 1),
        detached=st.booleans(),
        creator=st.sampled_from(["", "actor"]),
    )
    def create(self, strategy: Strategy, bundles: list[BundleSpec], priority: int, detached: bool, creator: str) -> None:
        if len(self.table.living()) >= LIVING_MAX:
            return
        self.made += 1
        spec = GroupSpec(f"g{self.made}", "job", strategy, tuple(bundles), detached=detached, creator=creator, priority=priority)
        self.do(self.table.create(spec, "driver", job_over=False, now=self.now))

    @precondition(lambda self: len(self.table.living()))
    @rule(index=st.integers(0, 50))
    def remove(self, index: int) -> None:
        self.do(self.table.remove(self.some(index), by="a test", now=self.now))

    @rule(which=st.sampled_from(["actor", "job"]))
    def owner_ends(self, which: str) -> None:
        if which == "actor":
            self.do(self.table.actor_died("actor", self.now))
        else:
            self.do(self.table.job_ended("job", {"actor"}, self.now))
        for group in self.table.living():
            assert group.spec.detached or group.spec.creator == ("actor" if which == "job" else "")

    @rule()
    def schedule(self) -> None:
        while True:
            self.do(self.table.schedule(self.now))
            if self.table.next_deadline() != 0.0:
                return

    # -- the network

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9), count=st.integers(1, 3), to_head=st.booleans())
    def deliver(self, index: int, count: int, to_head: bool) -> None:
        node = self.node(index)
        for _ in range(count):
            if to_head and node.to_head:
                answer = node.to_head.popleft()
                node.said.append(answer)
                self.head_hears(node, answer)
            elif not to_head and node.to_node:
                word = node.to_node.popleft()
                node.had.append(word)
                node.hear(word, self.now)

    @rule()
    def deliver_all(self) -> None:
        self.schedule()
        while any(node.to_node or node.to_head for node in self.nodes.values()):
            for index in range(len(self.nodes)):
                self.deliver(index, 1, False)
                self.deliver(index, 1, True)
            self.schedule()
        self.agree()

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9), words=st.integers(0, DELIVERED_KEPT), answers=st.integers(0, DELIVERED_KEPT))
    def connection_is_resumed(self, index: int, words: int, answers: int) -> None:
        """The last of what had arrived comes again, in order, before what is yet to come."""
        node = self.node(index)
        node.to_node.extendleft(list(reversed(node.had))[:words])
        node.to_head.extendleft(list(reversed(node.said))[:answers])

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def new_connection(self, index: int) -> None:
        """The head has not noticed that the old one was gone."""
        node = self.node(index)
        if node.connected:
            node.cut()
            self.say_hello(node)

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def node_is_cut_off(self, index: int) -> None:
        node = self.node(index)
        if node.connected:
            node.connected = False
            node.cut()
            self.do(self.table.node_lost(node.node_id, "cut off", self.now))

    @precondition(lambda self: any(not node.connected for node in self.nodes.values()))
    @rule()
    def nodes_come_back(self) -> None:
        for node in self.nodes.values():
            if not node.connected:
                node.connected = True
                self.say_hello(node)

    def say_hello(self, node: SimNode) -> None:
        held = node.bundles.held()
        decisions = self.table.node_joined(
            node.node_id, node.pool.total.amounts, node.labels, held, self.now, outside=node.used_outside()
        )
        self.do(decisions)

    # -- nodes

    @rule(cpus=st.integers(1, 6), gpus=st.integers(0, 2), zone=st.sampled_from(["a", "b"]))
    def join(self, cpus: int, gpus: int, zone: str) -> None:
        if len(self.nodes) < NODES_MAX:
            self.made += 1
            node = self.nodes[f"n{self.made}"] = SimNode(f"n{self.made}", cpus, gpus, zone)
            self.say_hello(node)

    @precondition(lambda self: len(self.nodes) > 1)
    @rule(index=st.integers(0, 9))
    def node_dies(self, index: int) -> None:
        node = self.node(index)
        del self.nodes[node.node_id]
        self.do(self.table.node_lost(node.node_id, "died", self.now))

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9), demand=AMOUNTS)
    def lease_outside(self, index: int, demand: dict[str, int]) -> None:
        node = self.node(index)
        claimed = node.bundles.claimed()
        if node.pool.fits(demand) and all(units <= node.pool.free.get(n) - claimed.get(n, 0) for n, units in demand.items()):
            node.outside.append((demand, node.pool.take(demand)))

    @precondition(lambda self: any(node.outside for node in self.nodes.values()))
    @rule(index=st.integers(0, 9))
    def lease_outside_ends(self, index: int) -> None:
        node = self.node(index)
        if node.outside:
            node.pool.give(*node.outside.pop())
            node.do(node.bundles.admit())

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def node_reports(self, index: int) -> None:
        node = self.node(index)
        if node.connected:
            self.table.node_used(node.node_id, node.used_outside())

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9), which=st.integers(0, 9), bundle=st.integers(-1, 3), demand=AMOUNTS)
    def lease_in_bundle(self, index: int, which: int, bundle: int, demand: dict[str, int]) -> None:
        node = self.node(index)
        reservations = list(node.bundles.reservations())
        if reservations:
            group_id = reservations[which % len(reservations)].group_id
            lease = node.bundles.take(group_id, bundle, demand, None)
            if lease is not None:
                node.leases.append(lease)

    @precondition(lambda self: self.nodes)
    @rule(index=st.integers(0, 9))
    def leases_end(self, index: int) -> None:
        node = self.node(index)
        for lease in [*node.leases, *node.dying]:
            node.do(node.bundles.give(lease))
        node.leases.clear()
        node.dying.clear()
        node.do(node.bundles.admit())

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 16.0, 40.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.table.tick(self.now, self.rng))
        for node in self.nodes.values():
            node.do(node.bundles.tick(self.now))
            node.do(node.bundles.admit())

    # -- what must hold

    @invariant()
    def holds(self) -> None:
        self.table.check()
        for node in self.nodes.values():
            used = node.bundles.check()
            used.add(node.used_outside())
            node.pool.check(used)
            assert all(units >= 0 for units in node.pool.free.amounts.values()), f"{node.node_id} is over its capacity"

    def teardown(self) -> None:
        """Everything gets on, nothing more happens: now both sides must agree."""
        self.nodes_come_back()
        for _ in range(40):
            for index, node in enumerate(self.nodes.values()):
                self.leases_end(index)
                while node.outside:
                    self.lease_outside_ends(index)
                self.node_reports(index)
            self.deliver_all()
            self.time(1.0)
            self.holds()
        self.deliver_all()
        for node in self.nodes.values():
            states = {reservation.state for reservation in node.bundles.reservations()}
            assert states <= {ReservationState.COMMITTED}, f"{states} at rest"
        self.everything_that_fits_is_there()
        for group in list(self.table.living()):
            self.do(self.table.remove(group.spec.group_id, by="a test", now=self.now))
        self.deliver_all()
        for index, node in enumerate(self.nodes.values()):
            self.leases_end(index)
            self.deliver_all()
            assert list(node.bundles.reservations()) == []
            assert node.pool.free == node.pool.total, "after return everything is back"
        self.table.check()

    def agree(self) -> None:
        """Everything is delivered: without any time passing the head and the nodes that it knows say the same."""
        placed, under_way = set(), set()
        for group in self.table.living():
            for place in group.placed.values():
                placed.add((place.node_id, group.spec.group_id, place.attempt))
            for node_id in group.inflight.bundles if group.inflight is not None else ():
                under_way.add((node_id, group.spec.group_id, group.attempt))
        there = {
            (node.node_id, reservation.group_id, reservation.attempt): reservation.state
            for node in self.nodes.values()
            if node.connected
            for reservation in node.bundles.reservations()
            if reservation.state is not ReservationState.RETURNING
        }
        assert placed | under_way == there.keys(), f"only the head: {(placed | under_way) - there.keys()}, only nodes: {there}"
        assert all(there[key] is ReservationState.COMMITTED for key in placed), "a commit did not arrive"

    def everything_that_fits_is_there(self) -> None:
        for group in self.table.living():
            if group.state is State.CREATED:
                continue
            assert group.waits(), f"{group} is not at rest"
            has = group.has()
            places = [Place(n.node_id, n.labels, n.pool.free.amounts, has.get(n.node_id, 0)) for n in self.nodes.values()]
            assert isinstance(pack(group.spec.strategy, group.wanted(), places), NotPacked), f"{group} fits: {group.reason}"
            assert group.reason


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


def walk(seed: int, steps: int) -> Counter[str]:
    """One long history, chosen by a seed: deeper than those above, which begin small. Returns what was decided."""
    rng = Random(seed)
    world = Histories()
    decided: Counter[str] = Counter()
    do = world.do

    def counted(decisions: list[Decision]) -> None:
        decided.update(type(decision).__name__ for decision in decisions)
        decided.update("Claim" for decision in decisions if isinstance(decision, Prepare) and decision.claim)
        do(decisions)

    world.do = counted  # type: ignore[method-assign]
    world.first(rng.randint(1, 6))

    def create() -> None:
        bundles = [BundleSpec(rng.choice(DEMANDS), rng.choice(LABELS)) for _ in range(rng.randint(1, 4))]
        world.create(rng.choice(list(Strategy)), bundles, rng.randint(0, 1), rng.random() < 0.5, rng.choice(["", "actor"]))

    def number() -> int:
        return rng.randint(0, 50)

    actions = [
        (12, create),
        (12, world.schedule),
        (30, lambda: world.deliver(number(), rng.randint(1, 3), rng.random() < 0.5)),
        (6, world.deliver_all),
        (6, lambda: len(world.table.living()) and world.remove(number())),
        (1, lambda: world.owner_ends(rng.choice(["actor", "job"]))),
        (4, lambda: world.connection_is_resumed(number(), rng.randint(0, DELIVERED_KEPT), rng.randint(0, DELIVERED_KEPT))),
        (2, lambda: world.new_connection(number())),
        (2, lambda: world.node_is_cut_off(number())),
        (4, world.nodes_come_back),
        (4, lambda: world.join(rng.randint(1, 6), rng.randint(0, 2), rng.choice("ab"))),
        (2, lambda: len(world.nodes) > 1 and world.node_dies(number())),
        (6, lambda: world.lease_outside(number(), rng.choice(DEMANDS))),
        (6, lambda: world.lease_outside_ends(number())),
        (4, lambda: world.node_reports(number())),
        (12, lambda: world.lease_in_bundle(number(), number(), rng.randint(-1, 3), rng.choice(DEMANDS))),
        (4, lambda: world.leases_end(number())),
        (8, lambda: world.time(rng.choice([0.1, 0.1, 1.0, 1.0, 4.0, 16.0, 40.0]))),
    ]
    weights = [weight for weight, _ in actions]
    for _ in range(steps):
        [(_, action)] = rng.choices(actions, weights)
        action()
        world.holds()
    world.teardown()
    return decided


@pytest.mark.parametrize("seed", range(8))
def test_a_long_history(seed: int) -> None:
    assert walk(seed, 400)["Ready"], f"seed {seed}"


def test_long_histories_see_everything() -> None:
    """Else they prove little."""
    decided = sum((walk(seed, 300) for seed in range(10, 16)), Counter())
    for kind in (Prepare, Commit, Cancel, Return, Ready, Rescheduling, Removed, Waiting):
        assert decided[kind.__name__] >= 5, f"{kind.__name__} was seldom decided: {decided}"
    assert decided["Claim"] >= 2, f"claims were seldom made: {decided}"
