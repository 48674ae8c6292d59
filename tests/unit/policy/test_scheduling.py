"""The choice of a node: each rule alone, and all of them against a model that looks at every node.

CH-n are the invariants of policy/scheduling.py. `python -m benchmarks.scheduling` measures what a choice costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.cluster_view import DEBIT_S, SETTLE_S, ClusterView
from actorflow._core.policy.label_selectors import ACCELERATOR_LABEL, NODE_ID_LABEL, parse_selector, parse_selectors
from actorflow._core.policy.node_index import LEVELS, PACKED_BELOW
from actorflow._core.policy.node_records import Debit, NodeReport
from actorflow._core.policy.scheduling import DRAWN_SHARE, LOCALITY_BYTES_MIN, Scheduler, could_hold
from actorflow._core.policy.work_class import (
    Chosen,
    Decision,
    Infeasible,
    NodeAffinity,
    Queued,
    Request,
    Strategy,
    WorkClass,
)

MANY = LOCALITY_BYTES_MIN
A100 = "accelerator_type:A100"


class Cluster:
    """A scheduler whose nodes are written in whole amounts, and whose clock stands still."""

    def __init__(self, seed: int = 0) -> None:
        self.view = ClusterView()
        self.scheduler = Scheduler(self.view)
        self.rng = Random(seed)
        self.version = 0

    def node(
        self,
        node_id: str,
        total: Mapping[str, float],
        free: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        draining: bool = False,
        apart: bool = False,
    ) -> None:
        self.version += 1
        amounts, rest = units(total), units({**total, **(free or {})})
        self.view.update(NodeReport(node_id, self.version, amounts, rest, labels or {}, draining, apart), 0.0)

    def choose(self, work: WorkClass, **more: object) -> Decision:
        request = Request(work)
        for name, value in more.items():
            setattr(request, name, value)
        decision = self.scheduler.choose(request, 0.0, self.rng)
        self.scheduler.check()
        return decision

    def send(self, work: WorkClass, **more: object) -> str:
        """Choose, and send it there."""
        decision = self.choose(work, **more)
        assert isinstance(decision, Chosen), decision
        self.view.debit(decision.node_id, work.resources, 0.0)
        return decision.node_id


def units(amounts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount * UNIT) for name, amount in amounts.items()}


def cpus(count: float, *selectors: dict[str, str], strategy: Strategy | NodeAffinity = Strategy.DEFAULT) -> WorkClass:
    return work({"CPU": count}, *selectors, strategy=strategy)


def work(
    amounts: Mapping[str, float], *selectors: dict[str, str], strategy: Strategy | NodeAffinity = Strategy.DEFAULT
) -> WorkClass:
    return WorkClass(units(amounts), selectors=[parse_selector("labels", each) for each in selectors], strategy=strategy)


def of_cpus(*counts: int, seed: int = 0) -> Cluster:
    cluster = Cluster(seed)
    for number, count in enumerate(counts):
        cluster.node(f"n{number}", {"CPU": count})
    return cluster


# Pack, then spread ------------------------------------------------------------------------------------------


def test_nodes_are_filled_to_the_half_the_near_one_first() -> None:
    cluster = of_cpus(4, 4, 4)
    assert [cluster.send(cpus(1), local="n1") for _ in range(6)] == ["n1", "n1", "n0", "n0", "n2", "n2"]


def test_without_a_near_node_the_first_is_filled_first() -> None:
    assert [of_cpus(4, 4).choose(cpus(1), local=local) for local in ("", "gone")] == [Chosen("n0"), Chosen("n0")]


def test_above_the_half_the_least_used_wins() -> None:
    cluster = of_cpus(8, 8, 8)
    for node_id, free in (("n0", 2), ("n1", 4), ("n2", 3)):
        cluster.node(node_id, {"CPU": 8}, {"CPU": free})
    assert [cluster.choose(cpus(1), local=local) for local in ("", "n0", "n1")] == [Chosen("n1")] * 3


def test_among_the_least_used_the_near_one_wins() -> None:
    cluster = of_cpus(4, 4, 4)
    for node_id in ("n0", "n1", "n2"):
        cluster.node(node_id, {"CPU": 4}, {"CPU": 2})
    assert cluster.send(cpus(1), local="n2") == "n2"
    assert cluster.send(cpus(1), local="n2") in {"n0", "n1"}, "it is used more than the others now"


def test_the_draw_is_over_a_fifth_of_the_nodes_and_those_used_as_little() -> None:
    cluster = Cluster()
    levels = {f"n{number}": PACKED_BELOW + 1 + (number + 1) // 3 for number in range(20)}  # 2 at the lowest, then 3 and 3 ...
    for node_id, level in levels.items():
        cluster.node(node_id, {"CPU": LEVELS}, {"CPU": LEVELS - level})
    for local in ("", "n3", "n19"):  # near is no reason unless a node is among the least used of all
        counts = Counter(cluster.choose(cpus(1), local=local) for _ in range(400))
        assert set(counts) == {Chosen(node_id) for node_id in ("n0", "n1", "n2", "n3", "n4")}, "20 / 5 are 4, and n4 is as n3"
        assert min(counts.values()) > 400 / 5 / 2


def test_utilisation_is_that_of_the_scarcest_resource_asked_for() -> None:
    cluster = Cluster()
    cluster.node("n0", {"CPU": 8, "memory": 8}, {"memory": 1})
    cluster.node("n1", {"CPU": 8, "memory": 8}, {"CPU": 3})
    assert cluster.choose(cpus(1)) == Chosen("n0"), "its memory is not asked for"
    assert cluster.choose(work({"CPU": 1, "memory": 1})) == Chosen("n1"), "5/8 used beats 7/8 used"


def test_work_that_asks_for_nothing_is_drawn_among_all_that_are_used_as_little() -> None:
    cluster = of_cpus(4, 4, 4, 4)
    cluster.node("n3", {"CPU": 4}, {"CPU": 0})
    cluster.node("n4", {"disk": 1})
    counts = Counter(cluster.choose(work({}), local="n0") for _ in range(400))
    assert set(counts) == {Chosen("n0"), Chosen("n1"), Chosen("n2"), Chosen("n4")}
    assert min(counts.values()) > 50


def test_a_burst_does_not_go_to_one_node() -> None:
    cluster = of_cpus(*[4] * 10)
    assert Counter(cluster.send(cpus(1), local="n0") for _ in range(40)) == {f"n{number}": 4 for number in range(10)}
    assert isinstance(cluster.choose(cpus(1)), Queued)


def test_fractions_and_what_is_left_of_them() -> None:
    cluster = Cluster()
    cluster.node("n0", {"GPU": 1})
    assert [cluster.send(work({"GPU": 0.3})) for _ in range(3)] == ["n0"] * 3
    assert isinstance(cluster.choose(work({"GPU": 0.3})), Queued)
    assert cluster.send(work({"GPU": 0.1})) == "n0"


# Accelerators -----------------------------------------------------------------------------------------------


def with_a_gpu_node() -> Cluster:
    cluster = Cluster()
    cluster.node("gpu", {"CPU": 4, "GPU": 1, A100: 1})
    cluster.node("plain", {"CPU": 4})
    return cluster


def test_nodes_with_accelerators_are_for_those_who_need_them() -> None:
    cluster = with_a_gpu_node()
    assert [cluster.send(cpus(1), local="gpu") for _ in range(5)] == ["plain"] * 4 + ["gpu"], "the last one: no other has room"
    assert cluster.send(work({"CPU": 1, "GPU": 0.5})) == "gpu"
    assert with_a_gpu_node().send(work({"CPU": 1, A100: 0.001})) == "gpu"
    assert {with_a_gpu_node().send(work({})) for _ in range(20)} == {"plain"}


def test_accelerators_of_another_kind_are_avoided_too() -> None:
    cluster = Cluster()
    cluster.node("tpu", {"CPU": 4, "TPU": 4, "accelerator_type:TPU-V5": 1})
    cluster.node("plain", {"CPU": 4})
    assert cluster.send(cpus(1), local="tpu") == "plain"
    assert cluster.send(work({"TPU": 4})) == "tpu", "they are where their resource is"


def test_the_kind_of_accelerator_is_a_label_too() -> None:
    cluster = with_a_gpu_node()
    cluster.node("h100", {"CPU": 4, "GPU": 1, "accelerator_type:H100": 1})
    assert cluster.choose(work({"GPU": 1}, {ACCELERATOR_LABEL: "in(H100,H200)"})) == Chosen("h100")
    assert cluster.choose(work({"GPU": 1}, {ACCELERATOR_LABEL: "!H100"})) == Chosen("gpu")


# Locality ---------------------------------------------------------------------------------------------------


def test_the_node_with_the_most_of_the_arguments_wins_when_it_has_room() -> None:
    cluster = of_cpus(4, 4, 4, 4)
    sizes = {"n1": 5 * MANY, "n2": 7 * MANY, "gone": 9 * MANY}
    sent = [cluster.send(cpus(1), local="n0", locality=sizes) for _ in range(9)]
    assert sent == ["n2"] * 4 + ["n1"] * 4 + ["n0"]


def test_few_bytes_are_not_worth_the_way() -> None:
    cluster = of_cpus(4, 4)
    assert cluster.choose(cpus(1), local="n0", locality={"n1": MANY - 1}) == Chosen("n0")
    assert cluster.choose(cpus(1), local="n0", locality={"n1": MANY}) == Chosen("n1")


def test_of_nodes_with_equally_much_the_near_one_wins_then_the_first() -> None:
    cluster = of_cpus(4, 4, 4)
    sizes = dict.fromkeys(["n2", "n1"], MANY)
    assert cluster.choose(cpus(1), local="n2", locality=sizes) == Chosen("n2")
    assert cluster.choose(cpus(1), local="n0", locality=sizes) == Chosen("n1")


def test_spread_goes_its_round_all_the_same() -> None:
    cluster = of_cpus(4, 4)
    work_class = cpus(1, strategy=Strategy.SPREAD)
    assert {cluster.send(work_class, locality={"n0": MANY}) for _ in range(2)} == {"n0", "n1"}


# Spread -----------------------------------------------------------------------------------------------------


def test_each_node_in_its_turn() -> None:
    cluster = of_cpus(9, 9, 9)
    cluster.node("n1", {"CPU": 9}, {"CPU": 2})
    sent = [cluster.send(cpus(1, strategy=Strategy.SPREAD)) for _ in range(9)]
    first = int(sent[0][1:])
    turns = [f"n{(first + step) % 3}" for step in range(9)]
    # n1 has room for two: then the others go on without it.
    skipped = [node_id for number, node_id in enumerate(turns) if node_id != "n1" or turns[:number].count("n1") < 2]
    assert sent[: len(skipped)] == skipped
    assert sent.count("n1") == 2


def test_the_first_turn_is_drawn_so_that_many_do_not_begin_at_one_node() -> None:
    firsts = {of_cpus(4, 4, 4, 4, seed=seed).send(cpus(1, strategy=Strategy.SPREAD)) for seed in range(40)}
    assert firsts == {"n0", "n1", "n2", "n3"}


def test_classes_have_turns_of_their_own() -> None:
    cluster = of_cpus(9, 9)
    one, two = cpus(1, strategy=Strategy.SPREAD), cpus(2, strategy=Strategy.SPREAD)
    sent = [(cluster.send(one), cluster.send(two)) for _ in range(2)]
    assert {first for first, _ in sent} == {second for _, second in sent} == {"n0", "n1"}


# Labels -----------------------------------------------------------------------------------------------------


def with_zones() -> Cluster:
    cluster = Cluster()
    for number, zone in enumerate("abcb"):
        cluster.node(f"n{number}", {"CPU": 2}, labels={"zone": zone})
    cluster.node("n4", {"CPU": 2})
    return cluster


@pytest.mark.parametrize(
    ("selector", "right"),
    [
        ({"zone": "b"}, {"n1", "n3"}),
        ({"zone": "!b"}, {"n0", "n2", "n4"}),
        ({"zone": "in(a,c)"}, {"n0", "n2"}),
        ({"zone": "!in(a,c)"}, {"n1", "n3", "n4"}),
        ({NODE_ID_LABEL: "n3"}, {"n3"}),
        ({NODE_ID_LABEL: "!in(n3,n4)"}, {"n0", "n1", "n2"}),
        ({"zone": "in(a,b)", NODE_ID_LABEL: "!n0"}, {"n1", "n3"}),
    ],
)
def test_only_nodes_with_the_labels(selector: dict[str, str], right: set[str]) -> None:
    cluster = with_zones()
    assert {cluster.send(cpus(1, selector), local="n4") for _ in range(2 * len(right))} == right
    assert isinstance(cluster.choose(cpus(1, selector)), Queued)


def test_ch4_fallbacks_are_tried_in_their_order() -> None:
    cluster = with_zones()
    some = cpus(2, {"zone": "x"}, {"zone": "c"}, {"zone": "b"})
    assert [cluster.send(some) for _ in range(3)] == ["n2", "n1", "n3"]
    waiting = cluster.choose(some)
    assert isinstance(waiting, Queued)
    assert waiting.node_id == "n2", "the first selector that a node can ever meet"
    selectors = parse_selectors("label_selector", {"zone": "x"}, "fallback", [{}])
    assert cluster.choose(WorkClass({"CPU": 2 * UNIT}, selectors=selectors)) == Chosen("n0")


def test_labels_that_change_are_seen() -> None:
    cluster = with_zones()
    assert cluster.choose(cpus(1, {"zone": "a"})) == Chosen("n0")
    cluster.node("n0", {"CPU": 2}, labels={"zone": "z"})
    assert isinstance(cluster.choose(cpus(1, {"zone": "a"})), Infeasible)
    assert cluster.choose(cpus(1, {"zone": "z"})) == Chosen("n0")


# Affinity ---------------------------------------------------------------------------------------------------


def test_hard_affinity_is_there_or_nowhere() -> None:
    cluster = of_cpus(2, 2)
    there = cpus(2, strategy=NodeAffinity("n1"))
    assert cluster.choose(there, excluded=["n1"]) == Queued("n1", "it asks for node n1, which has no room now")
    assert cluster.send(there, local="n0", locality={"n0": MANY}) == "n1"
    assert cluster.choose(there) == Queued("n1", "it asks for node n1, which has no room now")
    cluster.view.remove("n1")
    gone = cluster.choose(there)
    assert gone == Infeasible("it asks for node n1 only, which is not in the cluster or not any more")


def test_hard_affinity_to_a_node_that_could_never_hold_it() -> None:
    cluster = of_cpus(2, 8)
    never = cluster.choose(cpus(4, strategy=NodeAffinity("n0")))
    assert isinstance(never, Infeasible)
    assert never.reason == "it asks for 4 CPU on node n0 only, which has 2 CPU in all (2 CPU too few)"
    cluster.node("n1", {"CPU": 8}, draining=True)
    drained = cluster.choose(cpus(4, strategy=NodeAffinity("n1")))
    assert isinstance(drained, Infeasible)
    assert drained.reason.endswith("which is being drained")
    anything = cluster.choose(cpus(0, strategy=NodeAffinity("n1")))
    assert isinstance(anything, Infeasible)
    assert anything.reason == "it asks for node n1 only, which is being drained"


def test_soft_affinity_goes_elsewhere_when_it_must_and_waits_when_it_need_not() -> None:
    cluster = of_cpus(2, 2)
    there = cpus(2, strategy=NodeAffinity("n1", soft=True))
    assert cluster.send(there, local="n0") == "n1"
    assert cluster.choose(there) == Queued("n1", "it asks for node n1, which has no room now")
    cluster.node("n1", {"CPU": 2}, draining=True)
    assert cluster.choose(there) == Chosen("n0")
    cluster.node("n1", {"CPU": 1})
    assert cluster.choose(there) == Chosen("n0")
    cluster.view.remove("n1")
    assert cluster.choose(there) == Chosen("n0")


def test_affinity_with_labels_needs_both() -> None:
    cluster = with_zones()
    assert cluster.choose(cpus(1, {"zone": "b"}, strategy=NodeAffinity("n3"))) == Chosen("n3")
    other = cluster.choose(cpus(1, {"zone": "b"}, strategy=NodeAffinity("n0")))
    assert isinstance(other, Infeasible)
    assert other.reason.endswith("which has the label zone=a")


# Excluded, draining, full, and none at all ------------------------------------------------------------------


def test_nodes_that_sent_it_on_are_not_chosen_again() -> None:
    cluster = of_cpus(4, 4, 4)
    assert cluster.choose(cpus(1), local="n0", excluded=["n0", "gone"]) == Chosen("n1")
    assert cluster.choose(cpus(1), local="n0", excluded=["n0", "n1"]) == Chosen("n2")
    waits = cluster.choose(cpus(1), local="n0", excluded=["n0", "n1", "n2"])
    assert waits == Queued("n0", "of the 3 nodes that could hold it none has room now")


def test_a_node_out_of_reach_gets_nothing_until_it_is_back() -> None:
    cluster = of_cpus(4, 2)
    cluster.node("n0", {"CPU": 4}, apart=True)
    assert cluster.send(cpus(1)) == "n1"
    pinned = cluster.choose(cpus(4, strategy=NodeAffinity("n0")))
    assert isinstance(pinned, Infeasible)
    assert pinned.reason.endswith("which is heard only through other nodes at the moment")
    n0, n1 = cluster.view.nodes()
    assert could_hold(cpus(4), n0)
    assert not could_hold(cpus(4), n1)
    assert not could_hold(cpus(1, strategy=NodeAffinity("n0")), n1)
    assert could_hold(cpus(1, strategy=NodeAffinity("n0", soft=True)), n1)
    assert not could_hold(cpus(1, {"zone": "a"}), n0)
    cluster.node("n0", {"CPU": 4})
    assert cluster.send(cpus(4)) == "n0"


def test_a_draining_node_gets_nothing_new() -> None:
    cluster = of_cpus(4, 4)
    cluster.node("n0", {"CPU": 4}, draining=True)
    assert {cluster.choose(cpus(1), local="n0", locality={"n0": MANY}) for _ in range(3)} == {Chosen("n1")}
    cluster.node("n1", {"CPU": 2})
    last = cluster.choose(cpus(4))
    assert isinstance(last, Infeasible)
    assert last.reason.endswith("the nearest is node n0, which is being drained")
    assert last.missing == {}


def test_who_finds_no_room_waits_near_or_where_least_is_used() -> None:
    cluster = of_cpus(4, 4, 4)
    for node_id, free in (("n0", 1), ("n1", 3), ("n2", 0)):
        cluster.node(node_id, {"CPU": 4}, {"CPU": free})
    waits = [cluster.choose(cpus(4), local=local) for local in ("n2", "", "gone")]
    assert [wait.node_id for wait in waits if isinstance(wait, Queued)] == ["n2", "n1", "n1"]
    cluster.node("gpu", {"CPU": 4, "GPU": 1}, {"CPU": 0})
    near = cluster.choose(cpus(4), local="gpu")
    assert isinstance(near, Queued)
    assert near.node_id == "n1", "and not before a GPU that others need"


def test_who_waits_does_so_at_a_node_that_has_not_sent_it_on() -> None:
    cluster = of_cpus(4, 4, 4)
    for node_id in ("n0", "n1", "n2"):
        cluster.node(node_id, {"CPU": 4}, {"CPU": 0})
    waits = cluster.choose(cpus(1), local="n1", excluded=["n0", "n1"])
    assert isinstance(waits, Queued)
    assert waits.node_id == "n2"


def test_a_choice_sees_that_what_was_sent_long_ago_is_not_on_its_way() -> None:
    cluster = of_cpus(1)
    cluster.send(cpus(1))
    request = Request(cpus(1))
    assert isinstance(cluster.scheduler.choose(request, DEBIT_S / 2, cluster.rng), Queued)
    assert cluster.scheduler.choose(request, DEBIT_S, cluster.rng) == Chosen("n0")


def test_without_a_node_everything_waits() -> None:
    assert Cluster().choose(cpus(1)) == Queued(None, "the cluster has no node at the moment")
    assert isinstance(Cluster().choose(cpus(1, strategy=NodeAffinity("n1"))), Infeasible)


# Infeasible -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "reason", "nearest", "missing"),
    [
        (
            work({"CPU": 9}),
            "it asks for 9 CPU, and no node can ever hold that: the nearest is node big, which has 8 CPU in all (1 CPU too few)",
            "big",
            {"CPU": 1},
        ),
        (
            work({"CPU": 8, "GPU": 2}),
            "it asks for 8 CPU and 2 GPU, and no node can ever hold that: the nearest is node gpu, "
            "which has 4 CPU in all (4 CPU too few) and 1 GPU in all (1 GPU too few)",
            "gpu",
            {"CPU": 4, "GPU": 1},
        ),
        (
            work({"CPU": 1, "specail": 1}),
            "it asks for 1 CPU and 1 specail, and no node can ever hold that: the nearest is node big, "
            "which has no specail. Did you mean 'special' instead of 'specail'?",
            "big",
            {"specail": 1},
        ),
        (
            work({"GPU": 1, "accelerator_type:A10": 0.001}),
            "it asks for 1 GPU and an accelerator of the type A10, and no node can ever hold that: the nearest is node gpu, "
            "which has no accelerator of the type A10. Did you mean 'A100' instead of 'A10'?",
            "gpu",
            {"accelerator_type:A10": 0.001},
        ),
        (
            work({"CPU": 1}, {"zone": "eu1"}),
            "it asks for 1 CPU and the labels zone=eu1, and no node can ever hold that: the nearest is node big, "
            "which has the label zone=eu-1. Did you mean 'eu-1' instead of 'eu1'?",
            "big",
            {},
        ),
        (
            work({"CPU": 6}, {"zone": "us-1"}, {"zonne": "in(a,b)"}),
            "it asks for 6 CPU and the labels zone=us-1 or zonne=in(a,b), and no node can ever hold that: the nearest is node "
            "gpu, which has 4 CPU in all (2 CPU too few). Did you mean 'zone' instead of 'zonne'?",
            "gpu",
            {"CPU": 2},
        ),
        (
            work({}, {"disk": "fast"}),
            "it asks for the labels disk=fast, and no node can ever hold that: the nearest is node big, which has no label disk",
            "big",
            {},
        ),
    ],
)
def test_the_nearest_node_and_what_is_missing_there(asked: WorkClass, reason: str, nearest: str, missing: dict[str, float]) -> None:
    cluster = Cluster()
    cluster.node("big", {"CPU": 8, "special": 1}, labels={"zone": "eu-1"})
    cluster.node("gpu", {"CPU": 4, "GPU": 1, A100: 1}, labels={"zone": "us-1"})
    decision = cluster.choose(asked)
    assert decision == Infeasible(reason, nearest, units(missing))
    assert cluster.choose(asked) is decision, "the search is made once"


def test_a_node_that_stays_is_nearer_than_one_that_drains() -> None:
    cluster = Cluster()
    cluster.node("n0", {"CPU": 8}, draining=True)
    cluster.node("n1", {"CPU": 8})
    decision = cluster.choose(cpus(9))
    assert isinstance(decision, Infeasible)
    assert decision.nearest == "n1"
    cluster.view.remove("n1")
    decision = cluster.choose(cpus(9))
    assert isinstance(decision, Infeasible)
    assert decision.reason.endswith("node n0, which has 8 CPU in all (1 CPU too few) and is being drained")


def test_what_was_infeasible_goes_to_a_node_that_joins() -> None:
    cluster = of_cpus(4)
    assert isinstance(cluster.choose(cpus(8)), Infeasible)
    cluster.node("n1", {"CPU": 8})
    assert cluster.choose(cpus(8)) == Chosen("n1")
    cluster.view.remove("n1")
    assert isinstance(cluster.choose(cpus(8)), Infeasible)


# Classes, and the same choices again ------------------------------------------------------------------------


def test_classes_are_equal_when_they_ask_for_the_same() -> None:
    one, two = work({"CPU": 1, "disk": 2}, {"zone": "a"}), work({"disk": 2, "CPU": 1, "GPU": 0}, {"zone": "a"})
    assert one == two
    assert hash(one) == hash(two)
    others = [work({"CPU": 1, "disk": 2}), work({"CPU": 1, "disk": 2}, {"zone": "!a"}), cpus(1), cpus(1, strategy=Strategy.SPREAD)]
    assert len({one, *others}) == 5


def test_forgotten_classes_cost_nothing_but_time() -> None:
    cluster = of_cpus(4, 4)
    cluster.scheduler.classes_max = 2
    assert [cluster.choose(cpus(count)) for count in (1, 2, 3, 4, 1)] == [Chosen("n0")] * 5


def trace(seed: int) -> str:
    cluster = Cluster(seed)
    for number in range(12):
        cluster.node(f"n{number}", {"CPU": 4}, {"CPU": 1 + number % 2}, labels={"zone": "abc"[number % 3], "rack": f"r{number % 4}"})
    classes = [
        work({}),
        work({}, {"zone": "in(a,b)", "rack": "!r1"}),
        work({}, strategy=Strategy.SPREAD),
        cpus(1),
        cpus(1, {"zone": "a"}, {"zone": "b"}),
        cpus(1, strategy=Strategy.SPREAD),
    ]
    sent = []
    for number in range(36):
        decision = cluster.choose(classes[number % 6], locality={"n3": MANY, "n4": MANY})
        assert not isinstance(decision, Infeasible)
        sent.append(f"{decision.node_id}{'' if isinstance(decision, Chosen) else '*'}")
        if isinstance(decision, Chosen):
            cluster.view.debit(decision.node_id, classes[number % 6].resources, 0.0)
    return " ".join(sent)


def test_ch2_the_same_seed_makes_the_same_choices_in_every_process() -> None:
    """Written down, since another process hashes names in another order."""
    assert trace(1) == TRACE_OF_SEED_1
    assert trace(2) != TRACE_OF_SEED_1


TRACE_OF_SEED_1 = (
    "n3 n3 n2 n3 n3 n9 n3 n3 n3 n4 n0 n10 n3 n3 n4 n7 n6 n11 "
    "n3 n3 n5 n5 n9 n1 n3 n3 n6 n7 n1 n2 n3 n3 n7 n5 n0* n8"
)


# Against a model that looks at every node -------------------------------------------------------------------


class ModelNode:
    """A node as the model knows it."""

    def __init__(self, report: NodeReport) -> None:
        self.report = report
        self.debits: list[Debit] = []

    def free(self, name: str) -> int:
        debited = sum(debit.resources.get(name, 0) for debit in self.debits)
        return max(0, min(self.report.available.get(name, 0), self.report.total.get(name, 0)) - debited)

    def level(self, names: list[str]) -> int:
        levels = [0]
        for name in names:
            total = self.report.total.get(name, 0)
            levels.append((total - self.free(name)) * LEVELS // total if total else 0)
        return max(levels)

    @property
    def accelerated(self) -> bool:
        return any(name == "GPU" or name.startswith("accelerator_type:") for name, units in self.report.total.items() if units)

    @property
    def labels(self) -> dict[str, str]:
        kinds = sorted(name.partition(":")[2] for name in self.report.total if name.startswith("accelerator_type:"))
        accelerator = {ACCELERATOR_LABEL: kinds[0]} if kinds else {}
        return {**self.report.labels, NODE_ID_LABEL: self.report.node_id, **accelerator}


NODE_IDS = [f"n{number}" for number in range(14)]
AT_FIRST = 11
"""More than twice DRAWN_SHARE, so that a draw may be among two levels."""
RESOURCES = ["CPU", "GPU", "disk", A100]
SELECTORS = [{}, {"zone": "a"}, {"zone": "!a"}, {"zone": "in(a,b)"}, {"zone": "!in(a,c)", "rack": "r"}, {NODE_ID_LABEL: "in(n1,n2)"}]

small = st.integers(0, 8)
demands = st.dictionaries(st.sampled_from(RESOURCES), st.integers(1, 6), max_size=2)
strategies = st.one_of(
    st.just(Strategy.DEFAULT),
    st.just(Strategy.SPREAD),
    st.builds(NodeAffinity, st.sampled_from(NODE_IDS), st.booleans()),
)


@st.composite
def reports(draw: st.DrawFn, versions: st.SearchStrategy[int]) -> NodeReport:
    total = draw(st.dictionaries(st.sampled_from(RESOURCES), small, max_size=4))
    available = {name: draw(st.integers(-1, units + 1)) for name, units in total.items() if draw(st.integers(0, 9))}
    labels = draw(st.dictionaries(st.sampled_from(["zone", "rack"]), st.sampled_from(["a", "b", "c", "r"])))
    return NodeReport(draw(st.sampled_from(NODE_IDS)), draw(versions), total, available, labels, draw(st.integers(0, 7)) == 0)


works = st.builds(
    lambda demand, selectors, strategy: WorkClass(
        demand, selectors=[parse_selector("labels", SELECTORS[number]) for number in selectors], strategy=strategy
    ),
    demands,
    st.lists(st.integers(0, len(SELECTORS) - 1), max_size=3),
    strategies,
)


class SchedulingMachine(RuleBasedStateMachine):
    """Reports, departures, debits and choices in any order; after each step the invariants, after each choice the model."""

    def __init__(self) -> None:
        super().__init__()
        self.view = ClusterView()
        self.scheduler = Scheduler(self.view, classes_max=5)
        self.rng = Random(7)
        self.now = 100.0
        self.slots: list[str] = []
        self.nodes: dict[str, ModelNode] = {}
        self.sent: list[Debit] = []
        self.turns: dict[WorkClass, list[str]] = {}

    # -- what happens

    @initialize(free=st.lists(st.integers(0, 4), min_size=AT_FIRST, max_size=AT_FIRST), zones=st.booleans())
    def join(self, free: list[int], zones: bool) -> None:
        for number, units in enumerate(free):
            labels = {"zone": "abc"[number % 3]} if zones else {}
            self.report(NodeReport(f"n{number}", 1, {"CPU": 8, "disk": 8}, {"CPU": units, "disk": 8}, labels))

    @rule(report=reports(st.integers(1, 6)))
    def report(self, report: NodeReport) -> None:
        known = self.nodes.get(report.node_id)
        newer = known is None or report.version > known.report.version
        assert self.view.update(report, self.now) == newer
        if known is None:
            self.nodes[report.node_id] = ModelNode(report)
            if "" in self.slots:
                self.slots[self.slots.index("")] = report.node_id
            else:
                self.slots.append(report.node_id)
        elif newer:
            known.report = report
            known.debits = [debit for debit in known.debits if debit.at > self.now - SETTLE_S]

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def free_some(self, data: st.DataObject) -> None:
        """The usual report: only what is available has changed."""
        node = self.nodes[data.draw(st.sampled_from(sorted(self.nodes)))]
        old = node.report
        available = {name: data.draw(st.integers(0, units)) for name, units in old.total.items()}
        report = NodeReport(old.node_id, old.version + 1, dict(old.total), available, dict(old.labels), old.draining)
        self.report(report)

    @rule(node_id=st.sampled_from(NODE_IDS))
    def remove(self, node_id: str) -> None:
        assert self.view.remove(node_id) == (node_id in self.nodes)
        if self.nodes.pop(node_id, None) is not None:
            self.slots[self.slots.index(node_id)] = ""

    @rule(step=st.sampled_from([0.01, SETTLE_S, DEBIT_S / 2, DEBIT_S]))
    def pass_time(self, step: float) -> None:
        self.now += step
        self.view.expire(self.now)
        for node in self.nodes.values():
            node.debits = [debit for debit in node.debits if debit.at > self.now - DEBIT_S]

    @rule(node_id=st.sampled_from(NODE_IDS), demand=demands)
    def debit(self, node_id: str, demand: dict[str, int]) -> None:
        debit = self.view.debit(node_id, demand, self.now)
        assert (debit is not None) == (node_id in self.nodes)
        if debit is not None:
            self.nodes[node_id].debits.append(debit)
            self.sent.append(debit)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        debit = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        self.view.settle(debit)
        for node in self.nodes.values():
            node.debits = [other for other in node.debits if other is not debit]

    @rule(
        work=works,
        local=st.sampled_from(["", *NODE_IDS]),
        locality=st.dictionaries(st.sampled_from(NODE_IDS), st.sampled_from([1, MANY, 2 * MANY]), max_size=3),
        excluded=st.lists(st.sampled_from(NODE_IDS), max_size=3),
    )
    def choose(self, work: WorkClass, local: str, locality: dict[str, int], excluded: list[str]) -> None:
        request = Request(work, local, locality, excluded)
        decision = self.scheduler.choose(request, self.now, self.rng)
        expected = self.expected(request)
        kind = type(decision)
        assert kind is expected[0], f"{decision}, the model says {expected}"
        if isinstance(decision, Infeasible):
            assert (decision.nearest in expected[1]) if expected[1] else decision.nearest is None
        else:
            assert decision.node_id in expected[1], f"{decision}, the model says {expected}"

    # -- what should

    def expected(self, request: Request) -> tuple[type[Decision], set[str | None]]:
        """The kind of the answer, and which nodes it may name."""
        work = request.work
        could = [self.who_could(work, number) for number in range(len(work.selectors))]
        affinity = work.strategy
        if isinstance(affinity, NodeAffinity):
            node_id = affinity.node_id
            if any(node_id in each for each in could):
                room = node_id not in request.excluded and self.has_room(node_id, work)
                return (Chosen if room else Queued), {node_id}
            if not affinity.soft:
                return Infeasible, {node_id} if node_id in self.nodes else set()
        for each in could:
            room = [n for n in each if n not in request.excluded and self.has_room(n, work)]
            if room:
                return Chosen, set(self.best(request, room, len(each)))
        for each in could:
            if each:
                return Queued, set(self.places_to_wait(request, each))
        if not self.nodes:
            return Queued, {None}
        return Infeasible, {*self.nodes}

    def who_could(self, work: WorkClass, number: int) -> list[str]:
        """In the order of the slots."""
        return [
            node_id
            for node_id in self.slots
            if node_id
            and not (node := self.nodes[node_id]).report.draining
            and work.selectors[number].holds(node.labels)
            and all(units <= node.report.total.get(name, 0) for name, units in work.resources.items())
        ]

    def has_room(self, node_id: str, work: WorkClass) -> bool:
        return all(units <= self.nodes[node_id].free(name) for name, units in work.resources.items())

    def best(self, request: Request, room: list[str], could: int) -> list[str]:
        if request.work.strategy is Strategy.SPREAD:
            return room
        holders = [(-size, n != request.local, room.index(n), n) for n, size in request.locality.items() if size >= MANY and n in room]
        if holders:
            return [min(holders)[3]]
        room = self.without_accelerators(request, room)
        levels = {n: self.nodes[n].level([*request.work.resources] or ["CPU"]) for n in room}
        low = [n for n in room if levels[n] < PACKED_BELOW]
        if low and request.work.resources:
            return [request.local] if request.local in low else low[:1]
        if request.work.resources and levels.get(request.local, LEVELS + 1) == min(levels.values()):
            return [request.local]
        return self.least(levels, could)

    def places_to_wait(self, request: Request, could: list[str]) -> list[str]:
        some = [n for n in could if n not in request.excluded] or could
        if request.work.strategy is Strategy.SPREAD:
            return some
        some = self.without_accelerators(request, some)
        if request.local in some:
            return [request.local]
        return self.least({n: self.nodes[n].level([*request.work.resources] or ["CPU"]) for n in some}, len(could))

    def without_accelerators(self, request: Request, some: list[str]) -> list[str]:
        if any(name == "GPU" or name.startswith("accelerator_type:") for name in request.work.resources):
            return some
        return [n for n in some if not self.nodes[n].accelerated] or some

    def least(self, levels: dict[str, int], could: int) -> list[str]:
        share = min(max(1, could // DRAWN_SHARE), len(levels))
        bound = sorted(levels.values())[share - 1]
        return [n for n, level in levels.items() if level <= bound]

    @invariant()
    def holds(self) -> None:
        self.scheduler.check()
        assert [node.node_id for node in sorted(self.view.nodes(), key=lambda node: node.slot)] == [n for n in self.slots if n]
        for node_id, node in self.nodes.items():
            record = self.view.get(node_id)
            assert record is not None
            for name in record.total:
                assert record.available[name] == node.free(name), f"{name} on {node_id}"


TestSchedulingMachine = SchedulingMachine.TestCase
TestSchedulingMachine.settings = settings(max_examples=50, stateful_step_count=40)
