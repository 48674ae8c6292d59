"""The nodes and the pick of one: ME-n are the invariants of policy/membership.py."""

from __future__ import annotations

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.membership import Membership, NotPicked, Picked, Request


def cluster(*cpus: int) -> Membership:
    membership = Membership()
    for number, count in enumerate(cpus, start=1):
        membership.joined(f"node-{number}", f"unix:/{number}", {"CPU": count * UNIT}, {}, 0.0)
    return membership


def ask(**units: int) -> Request:
    return Request({name: amount * UNIT for name, amount in units.items()})


def test_the_first_node_that_could_hold_it_is_picked() -> None:
    membership = cluster(2, 8)
    assert membership.pick(ask(CPU=1)) == Picked("node-1")
    assert membership.pick(ask(CPU=4)) == Picked("node-2")
    assert membership.pick(ask()) == Picked("node-1")


def test_labels_must_match() -> None:
    membership = cluster(2)
    membership.joined("node-2", "unix:/2", {"CPU": UNIT}, {"zone": "b"}, 0.0)
    assert membership.pick(Request({}, {"zone": "b"})) == Picked("node-2")
    missed = membership.pick(Request({}, {"zone": "c"}))
    assert isinstance(missed, NotPicked)
    assert missed.infeasible


def test_without_a_node_nothing_is_infeasible() -> None:
    assert Membership().pick(ask(CPU=1)) == NotPicked("the cluster has no node at the moment", infeasible=False)


def test_what_no_node_can_hold_is_said_with_the_numbers() -> None:
    missed = cluster(2, 4, 4, 4, 4).pick(ask(CPU=9))
    assert isinstance(missed, NotPicked)
    assert missed.infeasible
    assert missed.reason == (
        "it asks for 9 CPU, and no node can ever hold that: node node-1 has 2 CPU, node node-2 has 4 CPU, "
        "node node-3 has 4 CPU, so it is with the other 2"
    )


def test_a_misspelt_resource_is_named() -> None:
    membership = cluster(2)
    membership.joined("node-1", "unix:/1", {"CPU": UNIT, "special": UNIT}, {}, 0.0)
    missed = membership.pick(ask(specail=1))
    assert isinstance(missed, NotPicked)
    assert missed.reason.endswith("Did you mean 'special' instead of 'specail'?")


def test_a_node_may_say_again_what_it_has() -> None:
    membership = cluster(2)
    membership.joined("node-1", "unix:/1", {"CPU": 16 * UNIT}, {}, 5.0)
    assert membership.pick(ask(CPU=9)) == Picked("node-1")
    (node,) = membership.nodes()
    assert node.joined_at == 0.0


def test_me1_a_lost_node_is_not_picked_until_it_comes_back() -> None:
    membership = cluster(2, 2)
    assert membership.lost("node-1", "reset", 1.0)
    assert not membership.lost("node-1", "reset", 1.0)
    assert membership.pick(ask(CPU=1)) == Picked("node-2")
    known = [(node.node_id, node.reason) for node in membership.nodes()]
    assert known == [("node-2", ""), ("node-1", "reset")]
    membership.joined("node-1", "unix:/1", {"CPU": UNIT}, {}, 2.0)
    assert membership.living() == ["node-2", "node-1"]
    assert [(node.node_id, node.reason) for node in membership.nodes()] == [("node-2", ""), ("node-1", "")]


def test_lost_nodes_are_remembered_up_to_a_bound() -> None:
    membership = Membership(lost_max=2)
    for number in range(4):
        membership.joined(f"node-{number}", "", {}, {}, 0.0)
        membership.lost(f"node-{number}", "reset", 1.0)
    assert [node.node_id for node in membership.nodes()] == ["node-3", "node-2"]
