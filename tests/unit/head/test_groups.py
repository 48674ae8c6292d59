"""The head's shell of placement groups, with scripted nodes and drivers."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.placement_wish import in_group
from actorflow._core.protocol.messages import ActorState, CreateActor, GroupWord, KillActor, Message, NodeInfo, PlaceActor
from actorflow._core.protocol.messages import group as words
from tests.unit.head.harness import Cluster, Party, spec

W = TypeVar("W", bound=Message)
G = "0123456789ab"
CPU = {"CPU": UNIT}


def said(party: Party, kind: type[W]) -> list[W]:
    """What came of this kind since the last time; other words stay."""
    heard = [(message, words.hear(message)) for message in party.received if isinstance(message, GroupWord)]
    found = [(message, word) for message, word in heard if isinstance(word, kind)]
    taken = [message for message, _ in found]
    party.received = [message for message in party.received if not any(message is one for one in taken)]
    return [word for _, word in found]


def say(cluster: Cluster, party: Party, *what: Any) -> None:
    party.send(*map(words.say, what))
    cluster.run()


def create(cluster: Cluster, driver: Party, *bundles: dict[str, int], **fields: Any) -> None:
    values = {"group_id": G, "job_id": "job-1", "strategy": "PACK"} | fields
    say(cluster, driver, words.CreateGroup(bundles=list(bundles), **values))


def made(cluster: Cluster, driver: Party, node: Party, *bundles: dict[str, int], **fields: Any) -> None:
    """A group that is ready on one node."""
    create(cluster, driver, *(bundles or (CPU,)), **fields)
    [prepare] = said(node, words.PrepareBundles)
    say(cluster, node, words.BundlesPrepared(G, prepare.attempt))
    [state] = said(driver, words.GroupState)
    assert state.state == "created"


def states(driver: Party) -> list[str]:
    return [state.state for state in said(driver, words.GroupState)]


def test_no_group_no_room() -> None:
    with Cluster() as cluster:
        cluster.node()
        driver = cluster.driver()
        cluster.run(1.0)
        assert cluster.head._opened is None
        say(cluster, driver, words.WatchGroup(G))
        assert cluster.head._opened is not None


def test_two_phases_over_two_nodes_and_the_end() -> None:
    with Cluster() as cluster:
        nodes = [cluster.node("node-1", 1), cluster.node("node-2", 1)]
        driver = cluster.driver()
        create(cluster, driver, CPU, CPU)
        assert [len(said(node, words.PrepareBundles)) for node in nodes] == [1, 1]
        say(cluster, nodes[0], words.BundlesPrepared(G, 1))
        assert states(driver) == []
        say(cluster, nodes[1], words.BundlesPrepared(G, 1))
        [state] = said(driver, words.GroupState)
        assert (state.state, sorted(state.nodes)) == ("created", ["node-1", "node-2"])
        assert state.addresses == {"node-1": "unix:/node-1", "node-2": "unix:/node-2"}
        assert [said(node, words.CommitBundles) for node in nodes] == [[words.CommitBundles(G, 1)]] * 2
        say(cluster, driver, words.RemoveGroup(G))
        assert states(driver) == ["removed"]
        assert [said(node, words.ReturnBundles) for node in nodes] == [[words.ReturnBundles(G, 1)]] * 2
        for node in nodes:
            say(cluster, node, words.BundlesReturned(G, 1))
        cluster.head._opened.table.check()  # type: ignore[union-attr]


def test_one_refuses_and_the_other_is_asked_to_cancel() -> None:
    with Cluster() as cluster:
        nodes = [cluster.node("node-1", 1), cluster.node("node-2", 1)]
        driver = cluster.driver()
        create(cluster, driver, CPU, CPU)
        say(cluster, nodes[0], words.BundlesPrepared(G, 1))
        say(cluster, nodes[1], words.OutsideUsed(CPU), words.BundlesRefused(G, 1, "a task has it"))
        assert said(nodes[0], words.CancelBundles) == [words.CancelBundles(G, 1)]
        [state] = said(driver, words.GroupState)
        assert (state.state, state.infeasible, "bundles ask for 2 CPU" in state.reason) == ("pending", False, True)
        say(cluster, nodes[1], words.OutsideUsed({}))
        cluster.run(1.0)
        assert [[prepare.attempt for prepare in said(node, words.PrepareBundles)] for node in nodes] == [[1, 2]] * 2


def test_what_can_never_be_is_said_to_the_creator() -> None:
    with Cluster() as cluster:
        cluster.node("node-1", 2)
        driver = cluster.driver()
        create(cluster, driver, {"CPU": 5 * UNIT})
        [state] = said(driver, words.GroupState)
        assert (state.state, state.infeasible) == ("pending", True)
        assert state.reason == "bundle 0 asks for 5 CPU, and the nearest node, node-1, has 2 CPU in all"
        create(cluster, driver, group_id="other")
        [refused] = said(driver, words.GroupRefused)
        assert "it has no bundles" in refused.reason
        create(cluster, driver, CPU, group_id="third", strategy="RANDOM")
        [refused] = said(driver, words.GroupRefused)
        assert "its specification is wrong" in refused.reason


def test_a_lost_node_takes_bundles_along_and_one_that_comes_back_is_asked_for_them() -> None:
    with Cluster() as cluster:
        node, driver = cluster.node("node-1", 1), cluster.driver()
        made(cluster, driver, node)
        again = cluster.party("node", "node-1", job_id="", host="node-1 again")
        again.send(NodeInfo("node-1", "unix:/node-1", CPU))
        again.send(words.say(words.BundlesHeld([words.HeldEntry(G, 1, [0], True)])))
        cluster.run()
        assert states(driver)[0] == "rescheduling"
        assert said(again, words.CancelBundles) == [words.CancelBundles(G, 1)]
        [prepare] = said(again, words.PrepareBundles)
        assert prepare.attempt == 2
        say(cluster, again, words.BundlesPrepared(G, 2))
        assert states(driver) == ["created"]
        again.send(NodeInfo("node-1", "unix:/node-1", {"CPU": 3 * UNIT}))
        cluster.run()
        assert states(driver) == [], "other totals, over the same connection: nothing is lost"
        cluster.head._opened.table.check()  # type: ignore[union-attr]


def test_actors_wait_for_their_group_and_end_with_it() -> None:
    with Cluster() as cluster:
        node, driver = cluster.node("node-1", 2), cluster.driver()
        driver.send(CreateActor(spec("actor-a", driver.name, placement=in_group(G, 0), max_restarts=5)))
        cluster.run()
        assert node.take(PlaceActor) == [], "HG-1: the group is not even known"
        create(cluster, driver, CPU)
        assert node.take(PlaceActor) == []
        say(cluster, node, words.BundlesPrepared(G, 1))
        place = cluster.answer_ready(node)
        assert place.incarnation == 1
        driver.take(ActorState)
        say(cluster, driver, words.RemoveGroup(G))
        [state] = driver.take(ActorState)
        assert (state.state, state.died.kind if state.died else "") == ("dead", "group_removed")
        kinds = [type(message) for message in node.received]
        assert kinds.index(KillActor) < kinds.index(GroupWord, kinds.index(KillActor)), "it ends because of its group, not of its worker"
        driver.send(CreateActor(spec("actor-b", driver.name, placement=in_group(G, 0))))
        cluster.run()
        assert driver.states() == ["dead"]
        assert cluster.head._opened._inside == {}  # type: ignore[union-attr]


def test_an_actor_for_any_bundle_waits_for_the_one_that_could_hold_it() -> None:
    two = {"CPU": 2 * UNIT}
    with Cluster() as cluster:
        small, large, driver = cluster.node("node-1", 1), cluster.node("node-2", 2), cluster.driver()
        create(cluster, driver, two, CPU)
        for node in (small, large):
            say(cluster, node, words.BundlesPrepared(G, 1))
        cluster.kill(large)
        assert states(driver)[-1] == "rescheduling"
        driver.send(CreateActor(spec("actor-a", driver.name, placement=in_group(G, -1), resources=two)))
        driver.send(CreateActor(spec("actor-b", driver.name, placement=in_group(G, -1), resources=CPU)))
        cluster.run()
        assert [place.spec.actor_id for place in small.take(PlaceActor)] == ["actor-b"]
        again = cluster.node("node-3", 2)
        say(cluster, again, words.BundlesPrepared(G, 2))
        assert [place.spec.actor_id for place in again.take(PlaceActor)] == ["actor-a"]
        assert [state.state for state in driver.take(ActorState) if state.actor_id == "actor-a"] == []


def test_an_actor_that_no_bundle_could_hold_ends_in_words() -> None:
    with Cluster() as cluster:
        node, driver = cluster.node("node-1", 4), cluster.driver()
        made(cluster, driver, node, CPU, CPU)
        driver.send(CreateActor(spec("actor-a", driver.name, placement=in_group(G, -1), resources={"CPU": 2 * UNIT})))
        cluster.run()
        [state] = driver.take(ActorState)
        assert state.died is not None
        assert (state.state, state.died.kind) == ("dead", "unschedulable")
        asked = "2 CPU is asked for in one bundle, and bundle 0 has 1 CPU, bundle 1 has 1 CPU"
        assert state.died.reason == f"placement group {G}: {asked}. Ask for less, or make the bundle larger"
        assert node.take(PlaceActor) == []
        assert cluster.head._opened._inside == {}  # type: ignore[union-attr]


def test_an_actor_whose_group_never_comes_is_told() -> None:
    with Cluster() as cluster:
        cluster.node("node-1", 2)
        driver = cluster.driver()
        driver.send(CreateActor(spec("actor-a", driver.name, placement=in_group(G, 0))))
        cluster.run(15.0)
        [state] = [state for state in driver.take(ActorState) if state.state == "dead"]
        assert state.died is not None
        assert "nothing is known of this placement group" in state.died.reason


def test_an_actor_is_told_when_others_push_its_group_out_of_the_early_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorflow._core.policy.early.EARLY_MAX", 1)
    with Cluster() as cluster:
        cluster.node("node-1", 2)
        driver = cluster.driver()
        for actor_id, group_id in (("actor-a", G), ("actor-b", "another")):
            driver.send(CreateActor(spec(actor_id, driver.name, placement=in_group(group_id, 0))))
        cluster.run()
        [state] = driver.take(ActorState)
        assert (state.actor_id, state.state) == ("actor-a", "dead")
        assert state.died is not None
        assert "nothing is known of this placement group" in state.died.reason
        cluster.run(15.0)
        assert [(state.actor_id, state.state) for state in driver.take(ActorState)] == [("actor-b", "dead")]
        assert cluster.head._opened._inside == {}  # type: ignore[union-attr]


def test_groups_end_with_their_job_but_for_the_detached() -> None:
    with Cluster() as cluster:
        node, driver = cluster.node("node-1", 4), cluster.driver()
        made(cluster, driver, node)
        create(cluster, driver, CPU, group_id="kept", detached=True)
        cluster.kill(driver)
        assert said(node, words.ReturnBundles) == [words.ReturnBundles(G, 1)]
        assert [group.spec.group_id for group in cluster.head._opened.table.living()] == ["kept"]  # type: ignore[union-attr]


def test_the_group_of_an_actor_that_is_dead_already_is_removed() -> None:
    with Cluster() as cluster:
        cluster.node("node-1", 4)
        driver = cluster.driver()
        create(cluster, driver, CPU, creator="nobody")
        [state] = said(driver, words.GroupState)
        assert (state.state, "which created it, is dead" in state.reason) == ("removed", True)


def test_who_says_what_is_not_for_it_to_say_is_sent_away() -> None:
    with Cluster() as cluster:
        node, driver = cluster.node(), cluster.driver()
        say(cluster, node, words.RemoveGroup(G))
        say(cluster, driver, words.BundlesPrepared(G, 1))
        assert node.lost
        assert driver.lost
        other = cluster.driver("driver-2", "job-2")
        other.send(GroupWord(b"nonsense"))
        cluster.run()
        assert other.lost
