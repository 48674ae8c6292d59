"""Nodes that are to leave, as the head sees it. DR-n are those of head/drains.py."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from actorflow._core.head.returning import RETURN_S
from actorflow._core.protocol.messages import (
    ActorLost,
    Drain,
    Draining,
    DrainNode,
    DrainReply,
    KillActor,
    LastWordTaken,
    NodesChanged,
    PlaceActor,
    StateQuery,
    StateReply,
)
from tests.unit.head.harness import Cluster

A = "actor-a"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(durable=True) as cluster:
        yield cluster


def states(cluster: Cluster) -> dict[str, tuple[str, str]]:
    asker = cluster.driver("asker", "job-9")
    asker.send(StateQuery(1, "nodes", 10, 1.0))
    cluster.run()
    (reply,) = asker.take(StateReply)
    return {row["node_id"]: (row["state"], row["reason"]) for row in json.loads(reply.rows)}


def test_dr_1_who_asks_is_answered_by_the_node_s_word(cluster: Cluster) -> None:
    first, node, driver = cluster.node("node-1"), cluster.node("node-2"), cluster.driver()
    driver.send(DrainNode(7, "node-2", 30.0, "a new disk"))
    cluster.run()
    assert node.take(Drain) == [Drain(30.0, "a new disk")]
    assert driver.take(DrainReply) == []
    node.send(Draining(30.0, "a new disk"))
    cluster.run()
    assert driver.take(DrainReply) == [DrainReply(7, "node-2")]
    assert [entry.draining for change in first.take(NodesChanged) for entry in change.nodes if entry.node_id == "node-2"][-1]
    assert states(cluster)["node-2"] == ("draining", "a new disk")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("node", "node 'node': 2 nodes have ids that begin so: node-1, node-2; `actorflow status` lists the nodes"),
        ("", "node '': no living node has it; `actorflow status` lists the nodes"),
        ("nobody", "node 'nobody': no living node has it; `actorflow status` lists the nodes"),
    ],
)
def test_dr_1_or_by_what_is_wrong(cluster: Cluster, name: str, said: str) -> None:
    cluster.node("node-1"), cluster.node("node-2")
    driver = cluster.driver()
    driver.send(DrainNode(7, name, 30.0, "a new disk"))
    cluster.run()
    assert driver.take(DrainReply) == [DrainReply(7, error=said)]


def test_dr_1_or_by_the_end_of_the_node(cluster: Cluster) -> None:
    cluster.node("node-1")
    node, driver = cluster.node("node-2"), cluster.driver()
    driver.send(DrainNode(7, "node-2", 30.0, "a new disk"))
    cluster.run()
    cluster.kill(node)
    assert driver.take(DrainReply) == [DrainReply(7, "node-2", "node node-2 cannot be drained: it is gone")]


def test_dr_2_what_can_move_is_told_when_there_is_room_for_it_and_goes_there(cluster: Cluster) -> None:
    node, driver = cluster.node("node-1", cpus=1), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=1, resources={"CPU": 10_000})
    node.send(Draining(30.0, "a new disk"))
    cluster.run(2.0)
    assert node.take(KillActor) == [], "there is nowhere else"
    other = cluster.node("node-2", cpus=1)
    cluster.run(1.0)
    assert node.take(KillActor) == [KillActor(A, False, True, 1, moves=True)]
    node.send(ActorLost(A, 1, "it has left", expected=True))
    cluster.run()
    (place,) = other.take(PlaceActor)
    assert place.incarnation == 2
    assert node.take(PlaceActor) == []


def test_dr_3_a_node_that_leaves_says_how_and_costs_no_restart(cluster: Cluster) -> None:
    node, driver = cluster.node("node-1"), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=1)
    node.send(Draining(30.0, "a new disk"), Draining(0.0, "a new disk", left="it was drained (a new disk): its time was over"))
    cluster.run()
    cluster.kill(node)
    assert states(cluster)["node-1"] == ("lost", "it was drained (a new disk): its time was over")
    (actor,) = cluster.head._actors.table.living()
    assert (actor.incarnation, actor.restarts) == (2, 0)


def test_a_head_that_comes_back_hears_it_from_the_node_and_has_not_counted_the_life(cluster: Cluster) -> None:
    node, driver = cluster.node("node-1"), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=1)
    cluster.node("node-2")
    node.send(Draining(30.0, "a new disk"))
    cluster.run()
    assert len(node.take(KillActor)) == 1
    cluster.come_back()
    (actor,) = cluster.head._actors.table.living()
    assert actor.moving


LEFT = "it was drained (a new disk): nothing was left here"


def test_dr_4_a_node_where_nothing_is_left_is_gone_with_its_last_word_also_for_the_next_head(cluster: Cluster) -> None:
    cluster.node("node-1")
    node, driver = cluster.node("node-2"), cluster.driver()
    node.send(Draining(30.0, "a new disk"), Draining(0.0, "a new disk", left=LEFT, empty=True))
    cluster.run()
    assert node.take(LastWordTaken) == [LastWordTaken()]
    assert states(cluster)["node-2"] == ("lost", LEFT)
    assert driver.take(DrainReply) == []
    cluster.come_back()
    assert cluster.head._nodes.membership.living() == ["node-1"]


def test_dr_4_where_something_is_left_it_is_gone_when_it_has_ended_and_the_next_head_knows_that_it_was_to_go(cluster: Cluster) -> None:
    node, driver = cluster.node("node-1"), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=1, detached=True)
    node.send(Draining(30.0, "a new disk"), Draining(0.0, "a new disk", left=LEFT))
    cluster.run()
    assert node.take(LastWordTaken) == [LastWordTaken()]
    assert states(cluster)["node-1"] == ("draining", "a new disk")
    cluster.come_back()
    membership = cluster.head._nodes.membership
    (known,) = membership.nodes()
    assert known.drains == "a new disk"
    cluster.run(RETURN_S)
    assert membership.living() == []
    (actor,) = cluster.head._actors.table.living()
    assert (actor.incarnation, actor.restarts) == (2, 0), "DR-3"


def test_dr_4_a_last_word_that_is_said_once_more_is_answered_once_more(cluster: Cluster) -> None:
    """Its answer was lost with the connection."""
    cluster.node("node-1")
    node = cluster.node("node-2")
    for _ in range(2):
        node.send(Draining(30.0, "a new disk"), Draining(0.0, "a new disk", left=LEFT, empty=True))
        cluster.run()
        assert node.take(LastWordTaken) == [LastWordTaken()]
    assert states(cluster)["node-2"] == ("lost", LEFT)
