"""The node looks after memory: who ends, who is told what, and what the store gives back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorflow._core.node.memory import TELL_S
from actorflow._core.policy.memory_watch import MemoryUse
from actorflow._core.protocol.messages import ActorLost, LeaseLost
from actorflow.testing import World
from tests.unit.node.fakes import Cluster, FakeWorker

GIB = 1 << 30


class FakeGauge:
    """A machine of 100 GiB."""

    def __init__(self) -> None:
        self.others = 10 * GIB
        self.own: dict[int, int] = {}
        self.kills = 0
        self.living = lambda pid: True

    def use(self) -> MemoryUse:
        return MemoryUse(self.others + sum(size for pid, size in self.own.items() if self.living(pid)), 100 * GIB, "here")

    def private_bytes(self, pid: int) -> int:
        return self.own.get(pid, 0)

    def system_kills(self) -> int:
        return self.kills

    def has(self, worker: FakeWorker, size: int) -> FakeWorker:
        self.own[worker.host.pid] = size
        return worker


@pytest.fixture
def world() -> Iterator[World]:
    with World(3) as world:
        yield world


@pytest.fixture
def gauge() -> FakeGauge:
    return FakeGauge()


@pytest.fixture
def cluster(world: World, gauge: FakeGauge) -> Cluster:
    cluster = Cluster(world, memory=gauge, memory_threshold=0.95, resources={"CPU": 80_000})
    gauge.living = lambda pid: any(worker.host.pid == pid and worker.host.alive for worker in cluster.workers.values())
    return cluster


def test_the_newest_of_the_largest_group_ends_and_its_owner_hears_why(cluster: Cluster, gauge: FakeGauge) -> None:
    driver = cluster.driver()
    first = gauge.has(cluster.lease(driver, 1, name="f"), 20 * GIB)
    cluster.settle(0.1)
    second = gauge.has(cluster.lease(driver, 2, name="f"), 20 * GIB)
    other = gauge.has(cluster.lease(driver, 3, name="g"), 20 * GIB)
    cluster.settle()
    assert not driver.got(LeaseLost)
    gauge.others = 40 * GIB
    cluster.settle()
    [lost] = driver.got(LeaseLost)
    assert (lost.lease, lost.out_of_memory) == (2, True)
    assert "was killed by SIGKILL by its node: memory ran out here: 100 GiB of 100 GiB were in use" in lost.cause
    assert [first.host.alive, second.host.alive, other.host.alive] == [True, False, True]
    assert cluster.free()["CPU"] == 6
    cluster.check()


def test_one_after_the_other_until_it_is_enough(cluster: Cluster, gauge: FakeGauge) -> None:
    driver = cluster.driver()
    workers = [gauge.has(cluster.lease(driver, number, name="f"), 10 * GIB) for number in range(1, 6)]
    gauge.others = 70 * GIB
    cluster.settle()
    assert sum(worker.host.alive for worker in workers) == 2
    assert len(driver.got(LeaseLost)) == 3


def test_what_is_not_tried_again_ends_last(cluster: Cluster, gauge: FakeGauge) -> None:
    driver = cluster.driver()
    careful = gauge.has(cluster.lease(driver, 1, name="careful", retriable=False), 30 * GIB)
    actor = gauge.has(cluster.actor("a", max_restarts=0), 30 * GIB)
    restartable = gauge.has(cluster.actor("b", max_restarts=-1), 5 * GIB)
    gauge.others = 33 * GIB
    cluster.settle()
    assert [careful.host.alive, actor.host.alive, restartable.host.alive] == [True, True, False]
    [lost] = cluster.head.got(ActorLost)
    assert (lost.actor_id, lost.expected) == ("b", False)
    assert "memory ran out here" in lost.cause
    gauge.others = 50 * GIB
    cluster.settle()
    assert careful.host.alive != actor.host.alive


def test_others_have_the_memory_nobody_ends_and_it_is_said_now_and_then(
    cluster: Cluster, gauge: FakeGauge, caplog: pytest.LogCaptureFixture
) -> None:
    worker = gauge.has(cluster.lease(cluster.driver(), 1), 1 << 20)
    gauge.others = 99 * GIB
    cluster.settle(2.5 * TELL_S)
    assert worker.host.alive
    told = [record.getMessage() for record in caplog.records if "memory runs out" in record.getMessage()]
    assert len(told) == 3
    assert "99 GiB of 100 GiB are in use, and no worker of this node has much (all of them together 1 MiB): others have it" in told[0]


def test_a_worker_that_the_system_has_ended_for_its_memory_is_told_as_such(cluster: Cluster, gauge: FakeGauge) -> None:
    driver = cluster.driver()
    first, second = cluster.lease(driver, 1), cluster.lease(driver, 2)
    gauge.kills += 1
    cluster.kill(first)
    cluster.until(lambda: driver.got(LeaseLost))
    cluster.kill(second)
    cluster.until(lambda: len(driver.got(LeaseLost)) == 2)
    one, two = driver.got(LeaseLost)
    assert one.out_of_memory
    assert "killed by SIGKILL by the system, as memory ran out" in one.cause
    assert not two.out_of_memory
    assert "not by actorflow" in two.cause


def test_the_store_makes_room_while_memory_is_short(cluster: Cluster, gauge: FakeGauge) -> None:
    store = cluster.node._store
    assert store.book.spill_share == 0.8
    gauge.others = 92 * GIB
    cluster.settle()
    assert store.book.spill_share == 0.3
    assert store._keep_warm(0.0) is False
    gauge.others = 50 * GIB
    cluster.settle()
    assert store.book.spill_share == 0.8


def test_where_nobody_says_how_much_there_is_nobody_looks(world: World) -> None:
    class Silent(FakeGauge):
        def use(self) -> None:  # type: ignore[override]
            return None

    cluster = Cluster(world, memory=Silent(), memory_threshold=0.95)
    assert cluster.node._memory is not None
    assert cluster.node._memory._timer is None
