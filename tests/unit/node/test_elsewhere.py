"""Where a node sends requests: it knows the others from the head, and answers owners with whom to ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.placement_wish import wish_text
from actorflow._core.protocol.messages import (
    CancelLease,
    Drain,
    Draining,
    LeaseGranted,
    LeaseRedirect,
    LeaseRefused,
    NodeEntry,
    NodeGone,
    NodeLoad,
    NodesChanged,
    ReclaimLease,
    RequestLease,
)
from actorflow.testing import World
from tests.unit.node.fakes import CPU, Cluster

OTHER = NodeEntry("other", "unix:/other.sock", 1, {"CPU": 8 * UNIT}, {"CPU": 8 * UNIT}, {"zone": "b"})


@pytest.fixture
def world() -> Iterator[World]:
    with World(7) as world:
        yield world


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)


def told(cluster: Cluster, *nodes: NodeEntry, gone: tuple[str, ...] = ()) -> None:
    """The head says what there is, this node among it."""
    own = NodeEntry("node", "unix:/c/node.sock", 1, {"CPU": 2 * UNIT}, {"CPU": 2 * UNIT})
    cluster.head.send(NodesChanged([own, *nodes], list(gone)))
    cluster.settle(0.05)


def full(version: int = 2) -> NodeEntry:
    return NodeEntry("other", "unix:/other.sock", version, {"CPU": 8 * UNIT}, {"CPU": 0}, {"zone": "b"})


def test_a_node_that_is_alone_says_nothing_and_sends_nobody_on(cluster: Cluster) -> None:
    driver = cluster.driver()
    for lease in range(1, 5):
        driver.send(RequestLease(lease, CPU))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)
    cluster.settle(1.0)
    assert driver.got(LeaseRedirect) == []
    assert cluster.head.got(NodeLoad) == []


def test_what_has_no_room_here_is_sent_to_a_node_that_has(cluster: Cluster) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    driver.send(*(RequestLease(lease, CPU) for lease in range(1, 5)))
    cluster.until(lambda: len(driver.got(LeaseGranted)) + len(driver.got(LeaseRedirect)) == 4)
    assert {redirect.node_id for redirect in driver.got(LeaseRedirect)} == {"other"}
    assert {redirect.address for redirect in driver.got(LeaseRedirect)} == {"unix:/other.sock"}
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1], "from the half on another that is idle is better"


def test_work_goes_where_its_arguments_lie_though_there_is_room_here(cluster: Cluster) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, locality={"other": 5 << 20, "node": 4 << 20}))
    driver.send(RequestLease(2, CPU, locality={"node": 5 << 20, "other": 4 << 20}))
    driver.send(RequestLease(3, CPU, locality={"gone": 5 << 20}))
    cluster.until(lambda: len(driver.got(LeaseRedirect)) + len(driver.got(LeaseGranted)) == 3)
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [2]
    assert [redirect.lease for redirect in driver.got(LeaseRedirect)] == [1, 3], "3: from the half on the idle one is better, as ever"


def test_el_4_only_where_the_arguments_lie_is_it_known_whether_there_is_room(cluster: Cluster) -> None:
    told(cluster, full())
    driver = cluster.driver()
    there = {"other": 5 << 20, "node": 4 << 20}
    driver.send(RequestLease(1, CPU, locality=there))
    cluster.until(lambda: driver.got(LeaseRedirect))
    assert driver.got(LeaseRedirect)[0].node_id == "other"
    driver.send(RequestLease(1, CPU, excluded=["other"], locality=there))
    cluster.until(lambda: driver.got(LeaseGranted))
    assert len(driver.got(LeaseRedirect)) == 1, "the other one has sent it back, and here is room"


@pytest.mark.parametrize("wish", [wish_text({"zone": "!b"}), wish_text(None, node="node"), wish_text(None, node="node", soft=True)])
def test_el_4_not_to_a_node_that_is_not_meant(cluster: Cluster, wish: str) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, placement=wish, locality={"other": 5 << 20}))
    cluster.until(lambda: driver.got(LeaseGranted))
    assert driver.got(LeaseRedirect) == []


def test_el_4_not_to_a_node_that_could_not_hold_it(cluster: Cluster) -> None:
    told(cluster, NodeEntry("other", "unix:/other.sock", 1, {"disk": UNIT}, {"disk": UNIT}))
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, locality={"other": 5 << 20}))
    cluster.until(lambda: driver.got(LeaseGranted))
    assert driver.got(LeaseRedirect) == []


def test_el_3_one_that_has_wandered_enough_stays(cluster: Cluster) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    driver.send(*(RequestLease(lease, CPU, excluded=["a", "b", "c"]) for lease in range(1, 4)))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)
    cluster.settle(0.2)
    assert driver.got(LeaseRedirect) == []
    driver.send(RequestLease(4, CPU))
    cluster.until(lambda: driver.got(LeaseRedirect))
    assert driver.got(LeaseRedirect)[0].lease == 4
    cluster.until(lambda: len(driver.got(LeaseRedirect)) == 2)
    assert driver.got(LeaseRedirect)[1].lease == 3, "not for ever: it waits here, and there is room there"


def test_what_waits_moves_when_another_node_has_news(cluster: Cluster) -> None:
    told(cluster, full())
    driver = cluster.driver()
    driver.send(*(RequestLease(lease, CPU) for lease in range(1, 4)))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)
    cluster.settle(0.3)
    assert driver.got(LeaseRedirect) == [], "it is full as well"
    room = NodeEntry("other", "unix:/other.sock", 3, {"CPU": 8 * UNIT}, {"CPU": 1 * UNIT})
    cluster.head.send(NodesChanged([room]))
    cluster.until(lambda: driver.got(LeaseRedirect))
    assert [redirect.lease for redirect in driver.got(LeaseRedirect)] == [3]
    driver.send(CancelLease(3))  # Nothing of it is here any more.
    cluster.settle(1.0)
    assert cluster.node._book.waiting == 0


def test_a_node_that_is_gone_is_asked_no_more(cluster: Cluster) -> None:
    told(cluster, OTHER)
    cluster.head.send(NodesChanged([], ["other"]))
    driver = cluster.driver()
    driver.send(*(RequestLease(lease, CPU) for lease in range(1, 5)))
    cluster.settle(1.0)
    assert driver.got(LeaseRedirect) == []
    assert len(driver.got(LeaseGranted)) == 2


def test_who_has_gone_while_the_head_was_away_is_asked_no_more(cluster: Cluster) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    own = NodeEntry("node", "unix:/c/node.sock", 1, {"CPU": 2 * UNIT}, {"CPU": 2 * UNIT})
    cluster.head.send(NodesChanged([own], whole=True))
    cluster.settle(0.05)
    driver.send(*(RequestLease(lease, CPU) for lease in range(1, 5)))
    cluster.settle(0.5)
    assert driver.got(LeaseRedirect) == []
    assert [gone.node_id for gone in driver.got(NodeGone)] == ["other"], "calls to it end now"


def test_the_head_hears_what_is_free_when_there_are_others(cluster: Cluster) -> None:
    told(cluster, OTHER)
    driver = cluster.driver()
    cluster.lease(driver, 1)
    cluster.until(lambda: any(load.available["CPU"] == UNIT for load in cluster.head.got(NodeLoad)))
    versions = [load.version for load in cluster.head.got(NodeLoad)]
    assert versions == sorted(set(versions))


def test_labels_are_looked_at_on_a_single_node_too(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, placement='{"labels": {"zone": "b"}}'))
    cluster.until(lambda: driver.got(LeaseRefused))
    assert "zone=b" in driver.got(LeaseRefused)[0].reason
    told(cluster, OTHER)
    driver.send(RequestLease(2, CPU, placement='{"labels": {"zone": "b"}}'))
    cluster.until(lambda: driver.got(LeaseRedirect))
    assert driver.got(LeaseRedirect)[0].node_id == "other"


def test_el_5_a_node_that_is_to_leave_keeps_nothing_that_another_could_hold(world: World) -> None:
    cluster = Cluster(world, has_lease=True)
    told(cluster, OTHER)
    driver = cluster.driver()
    cluster.head.send(Drain(60.0, "a new disk"))
    cluster.until(lambda: cluster.head.got(Draining))
    driver.send(RequestLease(1, CPU), RequestLease(2, CPU, excluded=["other"]))
    cluster.until(lambda: driver.got(LeaseRedirect))
    cluster.settle(1.0)
    assert [redirect.lease for redirect in driver.got(LeaseRedirect)] == [1, 2]
    assert driver.got(LeaseGranted) == []


def test_nd_1_what_waits_on_a_node_that_is_to_leave_goes_to_where_it_may_wait_as_well(world: World) -> None:
    cluster = Cluster(world, has_lease=True)
    told(cluster, full())
    driver = cluster.driver()
    driver.send(*(RequestLease(lease, CPU) for lease in range(1, 5)))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)
    cluster.head.send(Drain(60.0, "a new disk"))
    cluster.until(lambda: len(driver.got(LeaseRedirect)) == 2)
    assert sorted(reclaim.lease for reclaim in driver.got(ReclaimLease)) == [1, 2], "and what is lent is asked back"
