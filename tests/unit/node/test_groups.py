"""The node's shell of placement groups, with a scripted head: what it answers, gives back by itself, and says again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.placement_wish import in_group
from actorflow._core.protocol.messages import (
    ActorFailed,
    ActorLost,
    GroupWord,
    LeaseGranted,
    LeaseLost,
    LeaseRefused,
    Message,
    ReclaimLease,
    RequestLease,
    ReturnLease,
)
from actorflow._core.protocol.messages import group as words
from actorflow.testing import World
from tests.unit.node.fakes import CPU, Cluster

W = TypeVar("W", bound=Message)
G = "0123456789ab"


@pytest.fixture
def world() -> Iterator[World]:
    with World(11) as world:
        yield world


@pytest.fixture
def cluster(world: World) -> Iterator[Cluster]:
    cluster = Cluster(world)
    yield cluster
    groups = cluster.node._context.groups
    cluster.node._book.check(groups.bundles.check().amounts if groups is not None else None)


def tell(cluster: Cluster, *said: Any) -> None:
    cluster.head.send(*map(words.say, said))
    cluster.settle(0.1)


def heard(cluster: Cluster, kind: type[W]) -> list[W]:
    """What the head was told of this kind."""
    told = [words.hear(message) for message in cluster.head.got(GroupWord)]
    return [word for word in told if isinstance(word, kind)]


def prepared(cluster: Cluster, *bundles: dict[str, int], **fields: Any) -> None:
    tell(cluster, words.PrepareBundles(G, 1, dict(enumerate(bundles)), **{"keep_s": 5.0, "commit": True} | fields))


def test_a_node_without_groups_has_no_room_for_them_and_says_nothing(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.lease(driver, 1)
    cluster.settle(1.0)
    assert cluster.node._context.groups is None
    assert cluster.head.got(GroupWord) == []
    driver.send(*_requests(2, 0))
    cluster.until(lambda: driver.got(LeaseRefused))
    assert [(refused.lease, refused.kind) for refused in driver.got(LeaseRefused)] == [(2, "moved")]


def _requests(first: int, *indexes: int, **fields: Any) -> list[Any]:
    return [RequestLease(first + n, **{"resources": CPU, "placement": in_group(G, index)} | fields) for n, index in enumerate(indexes)]


def test_bundles_are_prepared_committed_and_returned(cluster: Cluster) -> None:
    prepared(cluster, CPU)
    assert heard(cluster, words.BundlesPrepared) == [words.BundlesPrepared(G, 1)]
    assert cluster.free()["CPU"] == 1
    prepared(cluster, CPU)  # The word comes twice.
    assert cluster.free()["CPU"] == 1
    tell(cluster, words.ReturnBundles(G, 1))
    assert heard(cluster, words.BundlesReturned) == [words.BundlesReturned(G, 1)]
    assert cluster.free()["CPU"] == 2


def test_what_is_never_committed_is_given_back_and_the_head_hears_of_it(cluster: Cluster) -> None:
    prepared(cluster, CPU, commit=False)
    driver = cluster.driver()
    driver.send(*_requests(1, 0))
    cluster.settle(4.0)
    assert driver.got(LeaseGranted) == []
    cluster.settle(2.0)
    [lost] = heard(cluster, words.BundlesLost)
    assert (lost.attempt, lost.reason) == (1, "no commit came in 5 s")
    assert cluster.free()["CPU"] == 2
    assert [refused.kind for refused in driver.got(LeaseRefused)] == ["moved"], "NG-2"
    tell(cluster, words.CommitBundles(G, 1))
    assert len(heard(cluster, words.BundlesLost)) == 2


def test_the_head_hears_what_is_used_before_it_hears_a_refusal(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.lease(driver, 1)
    prepared(cluster, CPU, CPU)
    told = [words.hear(message) for message in cluster.head.got(GroupWord)]
    assert told[0] == words.OutsideUsed({"CPU": UNIT})
    assert isinstance(told[1], words.BundlesRefused)
    assert "1 CPU more than there is free" in told[1].reason
    driver.send(ReturnLease(1))
    cluster.settle(0.1)
    assert heard(cluster, words.OutsideUsed)[-1] == words.OutsideUsed({})


def test_a_claim_waits_and_keeps_what_becomes_free(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.lease(driver, 1)
    cluster.lease(driver, 2)
    prepared(cluster, CPU, CPU, claim=True)
    driver.send(RequestLease(3, CPU))
    cluster.settle(0.1)
    driver.send(ReturnLease(1))
    cluster.settle(0.2)
    assert heard(cluster, words.BundlesPrepared) == []
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1, 2], "what is free is kept for the claim"
    driver.send(ReturnLease(2))
    cluster.settle(0.1)
    assert heard(cluster, words.BundlesPrepared) == [words.BundlesPrepared(G, 1)]
    tell(cluster, words.ReturnBundles(G, 1))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 3)


def test_who_waits_for_any_bundle_goes_into_one_that_was_claimed(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.lease(driver, 1)
    tell(cluster, words.PrepareBundles(G, 1, {0: CPU}, keep_s=60.0, commit=True))
    cluster.actor("actor-1", resources=CPU, placement=in_group(G, 0))
    tell(cluster, words.PrepareBundles(G, 2, {1: CPU}, keep_s=60.0, commit=True, claim=True))
    driver.send(*_requests(2, -1))
    cluster.settle(0.1)
    driver.send(ReturnLease(1))
    cluster.settle(2.0)
    assert heard(cluster, words.BundlesPrepared)[-1] == words.BundlesPrepared(G, 2)
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1, 2]


def test_leases_and_actors_run_in_bundles_and_end_with_them(cluster: Cluster) -> None:
    prepared(cluster, CPU, CPU)
    driver = cluster.driver()
    worker = cluster.lease(driver, 1, placement=in_group(G, 0))
    driver.send(*_requests(2, 0))
    host = cluster.actor("actor-1", resources=CPU, placement=in_group(G, 1))
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1]
    tell(cluster, words.ReturnBundles(G, 1))
    cluster.settle(2.0)
    [lost] = driver.got(LeaseLost)
    assert (lost.lease, lost.removed, "its placement group was removed" in lost.cause) == (1, True, True)
    assert [(refused.lease, refused.kind) for refused in driver.got(LeaseRefused)] == [(2, "moved")]
    assert not worker.host.alive
    assert not host.host.alive
    assert [(lost.actor_id, lost.expected) for lost in cluster.head.got(ActorLost)] == [("actor-1", False)]
    assert heard(cluster, words.BundlesReturned) == [words.BundlesReturned(G, 1)]
    assert cluster.free()["CPU"] == 2


def test_nothing_is_back_while_a_lease_runs(cluster: Cluster) -> None:
    prepared(cluster, CPU)
    worker = cluster.lease(cluster.driver(), 1, placement=in_group(G, 0))
    cluster.processes.kill = lambda worker_id, signal: None  # type: ignore[method-assign]  # a kill that takes its time
    tell(cluster, words.ReturnBundles(G, 1))
    cluster.settle(1.0)
    assert heard(cluster, words.BundlesReturned) == []
    assert cluster.free()["CPU"] == 1
    cluster.kill(worker)
    cluster.settle(1.0)
    assert heard(cluster, words.BundlesReturned) == [words.BundlesReturned(G, 1)]
    assert cluster.free()["CPU"] == 2


def test_what_a_cancelled_bundle_gives_back_goes_to_who_waits_outside(cluster: Cluster) -> None:
    prepared(cluster, CPU, CPU)
    driver = cluster.driver()
    worker = cluster.lease(driver, 1, placement=in_group(G, 0))
    cluster.processes.kill = lambda worker_id, number: None  # type: ignore[method-assign]  # a kill that takes its time
    driver.send(RequestLease(2, CPU))
    tell(cluster, words.CancelBundles(G, 1))
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1], "the lease that runs keeps both bundles"
    cluster.kill(worker)
    cluster.settle(1.0)
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1, 2]


def test_an_actor_for_a_bundle_that_is_not_here_goes_back_to_the_head(cluster: Cluster) -> None:
    prepared(cluster, CPU)
    cluster.place("elsewhere", placement=in_group(G, 4))
    cluster.place("too-large", resources={"CPU": 2 * UNIT}, placement=in_group(G, 0))
    cluster.settle(0.5)
    [lost] = cluster.head.got(ActorLost)
    assert (lost.actor_id, lost.spent, lost.expected) == ("elsewhere", False, False)
    [failed] = cluster.head.got(ActorFailed)
    assert (failed.actor_id, failed.died.kind) == ("too-large", "unschedulable")


def test_an_actor_that_waits_for_any_bundle_goes_back_to_the_head_with_the_one_that_could_hold_it(cluster: Cluster) -> None:
    two = {"CPU": 2 * UNIT}
    tell(cluster, words.PrepareBundles(G, 1, {0: {"disk": UNIT}}, keep_s=5.0, commit=True))
    cluster.place("too-large", resources=two, placement=in_group(G, -1))
    tell(cluster, words.PrepareBundles(G, 2, {1: two}, keep_s=5.0, commit=True))
    cluster.lease(cluster.driver(), 1, resources=two, placement=in_group(G, 1))
    cluster.place("waits", resources=two, placement=in_group(G, -1))
    cluster.settle(0.1)
    tell(cluster, words.CancelBundles(G, 2))
    cluster.settle(1.0)
    assert cluster.head.got(ActorFailed) == [], "bundle 0 is here and smaller, and says nothing of the others"
    assert [(lost.actor_id, lost.spent) for lost in cluster.head.got(ActorLost)] == [("too-large", False), ("waits", False)]


def test_leases_are_asked_back_for_others_of_the_bundle(cluster: Cluster) -> None:
    prepared(cluster, CPU)
    first, second = cluster.driver("first"), cluster.driver("second")
    cluster.lease(first, 1, placement=in_group(G, 0))
    second.send(*_requests(1, 0))
    cluster.until(lambda: first.got(ReclaimLease))
    assert [message.lease for message in first.got(ReclaimLease)] == [1]


def test_ng_3_a_new_connection_begins_with_what_is_held(cluster: Cluster) -> None:
    prepared(cluster, CPU)
    assert cluster.head.peer is not None
    cluster.host.loop.call_soon_threadsafe(cluster.node._context.groups.joined)  # type: ignore[union-attr]
    cluster.settle(0.1)
    assert heard(cluster, words.BundlesHeld) == [words.BundlesHeld([words.HeldEntry(G, 1, [0], True)])]
    cluster.head.host.loop.call_soon_threadsafe(lambda: cluster.head.peer.close(abort=True))  # type: ignore[union-attr]
    cluster.settle(2.0)
    assert len(heard(cluster, words.BundlesHeld)) == 2
