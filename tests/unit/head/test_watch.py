"""Nodes that are heard only through others, as the head sees it (LV-4, LV-5, HV-3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.head.rows import node_rows
from actorflow._core.policy.liveness import INDIRECT_MAX_S, LOOK_S, QUIET_S, SILENCE_S
from actorflow._core.protocol.messages import (
    ActorState,
    Beat,
    BeatHeard,
    BeatHeardOf,
    BeatOf,
    CreateActor,
    GroupWord,
    NodeInfo,
    NodesChanged,
    PlaceActor,
)
from actorflow._core.protocol.messages import group as words
from tests.unit.head.harness import Cluster, Party, spec


@pytest.fixture(params=[False, True], ids=["", "durable"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(durable=request.param) as cluster:
        yield cluster


def row(cluster: Cluster) -> tuple[str, str]:
    """What the head says of node 3."""
    [node] = [one for one in node_rows(cluster.head._nodes.membership, 0.0) if one["node_id"] == "node-3"]
    return node["state"], node["reason"]


def three(cluster: Cluster) -> tuple[Party, Party, Party]:
    """Node 3 has a label that no other has; all of them have sent a beat."""
    first, second = cluster.node("node-1", cpus=1), cluster.node("node-2")
    third = cluster.party("node", "node-3", job_id="")
    third.send(NodeInfo("node-3", "unix:/node-3", {"CPU": 8 * UNIT, "disk": UNIT}, {}))
    for node in (first, second, third):
        node.send(Beat(1))
    cluster.run()
    assert [len(node.take(BeatHeard)) for node in (first, second, third)] == [1, 1, 1]
    return first, second, third


def beats(cluster: Cluster, seconds: float, *nodes: Party, of: Party | None = None, by: Party | None = None) -> list[int]:
    """Those nodes are heard, and one through another. Returns the numbers of its beats that were answered."""
    for number in range(int(seconds)):
        for node in nodes:
            node.send(Beat(number))
        if of is not None and by is not None:
            by.send(BeatOf(of.name, number))
        cluster.run(1.0)
    return [answer.number for answer in by.take(BeatHeardOf)] if by is not None else []


def test_lv_4_a_node_that_is_heard_through_another_lives_and_its_row_says_so(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    assert beats(cluster, 20.0, first, second, of=third, by=second) == list(range(20))
    assert third.take(BeatHeard) == [], "the answer goes the way of the beat"
    assert row(cluster) == ("alive", "heard only through other nodes: node node-2 passes on what it says")
    third.send(Beat(50))
    cluster.run(0.1)
    assert row(cluster)[1] != ""
    beats(cluster, QUIET_S, first, second)
    third.send(Beat(51))
    cluster.run(0.1)
    assert row(cluster) == ("alive", "")


def test_lv_4_whom_the_head_does_not_watch_or_has_given_up_is_not_answered(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    second.send(BeatOf("nobody", 1))
    cluster.run()
    assert second.take(BeatHeardOf) == []
    beats(cluster, SILENCE_S + 1.0, first, second)
    assert row(cluster)[0] == "lost"
    assert beats(cluster, 3.0, first, second, of=third, by=second) == []
    assert row(cluster)[0] == "lost"


def test_lv_5_it_is_given_up_after_a_while_and_what_it_has_begins_elsewhere(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    answered = beats(cluster, 80.0, first, second, of=third, by=second)
    assert len(answered) == int(INDIRECT_MAX_S)
    assert row(cluster) == (
        "lost", "it was heard only through other nodes for 60 s, and its link with the head did not come back",
    )  # fmt: skip
    assert third.lost


def test_hv_3_nothing_new_is_placed_there_and_the_nodes_are_not_told(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    driver = cluster.driver()
    beats(cluster, 1.0, first, second, of=third, by=second)
    for node in (first, second, third):
        node.take(NodesChanged)
    for number in range(6):
        driver.send(CreateActor(spec(f"actor-{number}", "driver-1", resources={"CPU": UNIT})))
    beats(cluster, 1.0, first, second, of=third, by=second)
    assert third.take(PlaceActor) == []
    assert len(first.take(PlaceActor)) + len(second.take(PlaceActor)) == 6
    assert not any(entry.draining for change in second.take(NodesChanged) for entry in change.nodes)


def test_hv_3_what_no_other_could_hold_waits_for_it(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    driver = cluster.driver()
    beats(cluster, 1.0, first, second, of=third, by=second)
    driver.send(CreateActor(spec("actor-a", "driver-1", resources={"disk": UNIT})))
    driver.send(CreateActor(spec("actor-b", "driver-1", resources={"tape": UNIT})))
    beats(cluster, 5.0, first, second, of=third, by=second)
    assert third.take(PlaceActor) == []
    dead = [state for state in driver.take(ActorState) if state.state == "dead"]
    assert [state.actor_id for state in dead] == ["actor-b"]
    beats(cluster, QUIET_S, first, second)
    beats(cluster, 1.0, first, second, third)
    assert [place.spec.actor_id for place in third.take(PlaceActor)] == ["actor-a"]


def prepared(node: Party) -> list[str]:
    """Of which groups it is to have bundles."""
    heard = [words.hear(word) for word in node.take(GroupWord)]
    return [word.group_id for word in heard if isinstance(word, words.PrepareBundles)]


@pytest.mark.parametrize("opened", ["before", "after"])
def test_hv_3_no_bundle_goes_there_either_until_it_is_heard_again(cluster: Cluster, opened: str) -> None:
    first, second, third = three(cluster)
    driver = cluster.driver()

    def group(name: str) -> None:
        driver.send(words.say(words.CreateGroup(name, "job-1", "PACK", [{"disk": UNIT}])))

    if opened == "before":
        driver.send(words.say(words.WatchGroup("nobody")))
        cluster.run()
    beats(cluster, 1.0, first, second, of=third, by=second)
    group("group-a")
    beats(cluster, 3.0, first, second, of=third, by=second)
    assert prepared(third) == []
    beats(cluster, QUIET_S, first, second)
    beats(cluster, 2.0, first, second, third)
    assert prepared(third) == ["group-a"]


def test_lp_4_neither_the_node_nor_who_is_on_it_is_taken_for_gone_meanwhile(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    head = cluster.head
    node, other = head._nodes.peer("node-3"), head._nodes.peer("node-2")
    assert node is not None
    assert other is not None
    driver = cluster.driver()
    [there] = [peer for peer in head._directory._peers.values() if peer.process_id == "driver-1"]
    there.node_id = "node-3"
    assert [head.alive_by_another_way(peer) for peer in (node, other, there)] == [False, False, False]
    beats(cluster, 1.0, first, second, of=third, by=second)
    assert [head.alive_by_another_way(peer) for peer in (node, other, there)] == [True, False, True]
    beats(cluster, SILENCE_S + 2 * LOOK_S, first, second)
    assert [head.alive_by_another_way(peer) for peer in (node, other, there)] == [False, False, False]
    assert driver.lost, "it is as far away as its node"


def test_a_node_that_is_lost_and_joins_anew_is_as_any_other(cluster: Cluster) -> None:
    first, second, third = three(cluster)
    beats(cluster, 1.0, first, second, of=third, by=second)
    beats(cluster, SILENCE_S + 1.0, first, second)
    assert row(cluster)[0] == "lost"
    again = cluster.party("node", "node-3", job_id="", host="node-3 again")
    again.send(NodeInfo("node-3", "unix:/node-3", {"CPU": 8 * UNIT, "disk": UNIT}, {}))
    cluster.run()
    assert row(cluster) == ("alive", "")
    cluster.driver().send(CreateActor(spec("actor-a", "driver-1", resources={"disk": UNIT})))
    cluster.run()
    assert len(again.take(PlaceActor)) == 1


def test_hm_1_answers_to_beats_that_were_passed_on_go_past_what_waits_for_the_disk() -> None:
    with Cluster(durable=True) as cluster:
        first, second, third = three(cluster)
        cluster.disk.sync_errors_planned = 10_000
        cluster.driver().send(CreateActor(spec("actor-a", "driver-1", resources={"CPU": UNIT})))
        assert beats(cluster, 3.0, first, second, of=third, by=second) == [0, 1, 2]
        assert [node.take(PlaceActor) for node in (first, second)] == [[], []]
        cluster.disk.sync_errors_planned = 0
        cluster.run(3.0)
        assert len(first.take(PlaceActor) + second.take(PlaceActor)) == 1
