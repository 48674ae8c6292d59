"""The node's shell, in a simulated world: what it says to whom, and that nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.protocol.messages import (
    ActorDied,
    ActorExit,
    ActorFailed,
    ActorLost,
    ActorReady,
    Allocate,
    Allocated,
    Blocked,
    CancelLease,
    Carved,
    FreeExtent,
    HandOver,
    HostActor,
    Hosted,
    KillActor,
    KillLease,
    LeaseGranted,
    LeaseLost,
    LeaseRefused,
    Leave,
    NodeInfo,
    Pin,
    Pinned,
    ReclaimLease,
    RequestLease,
    ReturnLease,
    ReturnSlabs,
    Shutdown,
    StateQuery,
    StateReply,
    Unblocked,
    Unpin,
    WorkerLog,
    WriterLost,
)
from actorflow.testing import Host, World
from tests.unit.node.fakes import CPU, Cluster, FakeWorker, Speaker

PAGE = 4096


@pytest.fixture
def world() -> Iterator[World]:
    with World(3) as world:
        yield world


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)


# Joining -----------------------------------------------------------------------------------------------------


def test_the_node_tells_the_head_first_what_it_has(cluster: Cluster) -> None:
    about = NodeInfo("node", "unix:/c/node.sock", {"CPU": 2 * UNIT, "disk": 4 * UNIT})
    assert cluster.head.received == [about, Hosted([])]


def test_whoever_joins_hears_where_the_head_is(cluster: Cluster) -> None:
    driver = cluster.driver()
    assert driver.peer is not None
    assert driver.peer.welcome_info == {"head": "unix:/c/head.sock", "cancel_grace_s": "5.0"}
    assert driver.peer.process_id == "node"


def test_a_stranger_is_sent_away(cluster: Cluster, world: World) -> None:
    stranger = Speaker(world.host("stranger"), "worker", "stranger", "job")
    stranger.join()
    cluster.until(lambda: stranger.lost)


def test_who_says_what_is_not_for_it_to_say_is_cut_off(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(KillActor("a"))
    cluster.until(lambda: driver.lost)


def test_a_job_begins_with_workers(world: World) -> None:
    cluster = Cluster(world, prestart=2)
    cluster.driver()
    cluster.until(lambda: len(cluster.workers) == 2)
    [worker, _] = cluster.workers.values()
    assert worker.spec.sys_path == ("/src/driver",)
    assert worker.spec.node_address == "unix:/c/node.sock"


# Leases ------------------------------------------------------------------------------------------------------


def test_a_lease_is_granted_returned_and_granted_again_with_the_same_worker(cluster: Cluster) -> None:
    driver = cluster.driver()
    first = cluster.lease(driver, 1)
    driver.send(ReturnLease(1))
    assert cluster.lease(driver, 2) is first
    [granted, _] = driver.got(LeaseGranted)
    assert granted == LeaseGranted(1, first.process_id, f"unix:/c/{first.process_id}.sock")
    driver.send(ReturnLease(2), ReturnLease(2))
    cluster.settle()
    assert cluster.free() == {"CPU": 2, "disk": 4}
    cluster.check()


def test_a_request_is_idempotent(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU), RequestLease(1, CPU))
    cluster.settle()
    assert len(driver.got(LeaseGranted)) == 1
    assert cluster.free()["CPU"] == 1


def test_a_request_waits_for_room_and_can_be_cancelled(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(*(RequestLease(n, CPU) for n in (1, 2, 3, 4)), CancelLease(3))
    cluster.settle()
    assert [granted.lease for granted in driver.got(LeaseGranted)] == [1, 2]
    driver.send(ReturnLease(1))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 3)
    assert driver.got(LeaseGranted)[2].lease == 4


def test_a_request_that_is_cancelled_while_its_worker_starts_leaves_nothing(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU), CancelLease(1))
    cluster.settle()
    assert driver.got(LeaseGranted) == []
    assert cluster.free()["CPU"] == 2
    cluster.check()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (RequestLease(1, {"CPU": 3 * UNIT}), "it asks for 3 CPU, and this node has 2 CPU in all"),
        (RequestLease(1, {"GPU": UNIT}), "0 GPU"),
        (RequestLease(1, {"CPU": -1}), "negative"),
        (RequestLease(1, CPU, env='{"env_var": {}}'), "env_var"),
    ],
)
def test_what_can_never_be_is_refused_at_once(cluster: Cluster, request_: RequestLease, words: str) -> None:
    driver = cluster.driver()
    driver.send(request_)
    cluster.until(lambda: driver.got(LeaseRefused))
    [refused] = driver.got(LeaseRefused)
    assert (refused.lease, refused.kind) == (1, "infeasible")
    assert words in refused.reason


def test_a_worker_is_born_into_its_environment(world: World) -> None:
    cluster = Cluster(world, resources={"CPU": 2 * UNIT, "GPU": 2 * UNIT}, device_ids={"GPU": [3, 5]})
    driver = cluster.driver()
    env = json.dumps({"env_vars": {"A": "1"}, "working_dir": "/data"})
    worker = cluster.lease(driver, 1, resources={"GPU": UNIT}, env=env)
    assert worker.spec.env == {"A": "1", "CUDA_VISIBLE_DEVICES": "3"}
    assert worker.spec.working_dir == "/data"
    assert driver.got(LeaseGranted)[0].devices == {"GPU": [3]}
    assert cluster.lease(driver, 2).spec.env == {"CUDA_VISIBLE_DEVICES": ""}
    assert cluster.lease(driver, 3, resources={"GPU": UNIT}).spec.env == {"CUDA_VISIBLE_DEVICES": "5"}


def test_a_worker_with_a_device_is_gone_before_the_device_is_free(world: World) -> None:
    cluster = Cluster(world, resources={"CPU": 2 * UNIT, "GPU": UNIT})
    driver = cluster.driver()
    worker = cluster.lease(driver, 1, resources={"GPU": UNIT})
    worker.deaf = True
    driver.send(ReturnLease(1, retire=True), RequestLease(2, {"GPU": UNIT}))
    world.run_for(2.0)
    assert len(driver.got(LeaseGranted)) == 1
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)
    assert not worker.host.alive, "it was asked to leave, did not, and was killed"


def test_a_retired_worker_leaves(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    driver.send(ReturnLease(1, retire=True))
    cluster.until(lambda: not worker.host.alive)
    assert worker.got(Shutdown) != []
    assert cluster.lease(driver, 2) is not worker


def test_a_retired_worker_that_may_stay_is_not_used_and_goes_when_nobody_needs_it(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    worker.needed = True
    driver.send(ReturnLease(1, retire=True, stays=True))
    cluster.settle(3.0)
    assert worker.host.alive
    assert cluster.lease(driver, 2) is not worker
    worker.needed = False
    cluster.until(lambda: not worker.host.alive)
    assert len(worker.got(Leave)) > 1


def test_a_worker_is_killed_for_its_lease_and_not_for_one_that_has_ended(cluster: Cluster) -> None:
    driver = cluster.driver()
    first, second = cluster.lease(driver, 1), cluster.lease(driver, 2)
    driver.send(ReturnLease(1), KillLease(1, "too late"), KillLease(2, "it does not end"), KillLease(7, "unknown"))
    cluster.until(lambda: driver.got(LeaseLost))
    [lost] = driver.got(LeaseLost)
    assert lost.lease == 2
    assert "it does not end" in lost.cause
    assert first.host.alive
    assert not second.host.alive


def test_idle_workers_over_the_limit_leave_and_a_node_at_rest_has_no_timer(world: World) -> None:
    cluster = Cluster(world, idle_keep=1, idle_timeout_s=1.0)
    driver = cluster.driver()
    workers = [cluster.lease(driver, n) for n in (1, 2)]
    driver.send(ReturnLease(1), ReturnLease(2))
    cluster.settle(5.0)
    assert [worker.host.alive for worker in workers].count(True) == 1
    assert [when for when, loop in world.timers() if loop is cluster.host.loop] == []


def test_an_idle_worker_that_is_needed_stays_and_is_used_again(world: World) -> None:
    cluster = Cluster(world, idle_keep=0, idle_timeout_s=1.0)
    driver = cluster.driver()
    workers = [cluster.lease(driver, n) for n in (1, 2)]
    for worker in workers:
        worker.needed = True
    driver.send(ReturnLease(1), ReturnLease(2))
    cluster.settle(30.0)
    assert all(worker.host.alive for worker in workers)
    assert sum(len(worker.got(Leave)) for worker in workers) > 0
    assert cluster.lease(driver, 4) in workers


# The end of workers ------------------------------------------------------------------------------------------


def test_a_dead_worker_is_told_once_with_signal_memory_and_last_lines(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 7)
    worker.host.write_output("stderr", b"one\ntwo\nthe end")
    cluster.kill(worker)
    cluster.until(lambda: driver.got(LeaseLost))
    cluster.settle()
    [lost] = driver.got(LeaseLost)
    assert (lost.lease, lost.worker_id, lost.pid) == (7, worker.process_id, worker.host.pid)
    assert (lost.signal, lost.exit_code) == (9, None)
    assert lost.peak_memory_bytes > 0
    assert lost.log == ["one", "two", "the end"]
    assert f"worker {worker.process_id} (pid {worker.host.pid}) was killed by SIGKILL" in lost.cause
    assert "not by actorflow" in lost.cause
    assert cluster.free()["CPU"] == 2
    cluster.check()


def test_an_exit_code_is_told(cluster: Cluster) -> None:
    driver = cluster.driver()
    cluster.lease(driver, 1).host.exit(3)
    cluster.until(lambda: driver.got(LeaseLost))
    [lost] = driver.got(LeaseLost)
    assert (lost.signal, lost.exit_code) == (None, 3)
    assert "exited with code 3" in lost.cause


def test_a_worker_that_lost_only_its_connection_is_told_once_and_killed(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    worker.deaf = True
    worker.peers.close(abort=True)
    cluster.until(lambda: driver.got(LeaseLost))
    assert "lost its connection" in driver.got(LeaseLost)[0].cause
    cluster.settle()
    assert not worker.host.alive
    assert len(driver.got(LeaseLost)) == 1
    assert cluster.free()["CPU"] == 2


def test_a_lost_driver_takes_its_workers_and_requests_along(cluster: Cluster, world: World) -> None:
    driver, other = cluster.driver("d1"), cluster.driver("d2")
    worker, kept = cluster.lease(driver, 1), cluster.lease(other, 1)
    driver.send(RequestLease(2, CPU))
    nested = RequestLease(1, {"disk": UNIT})
    worker.send(nested)
    cluster.until(lambda: worker.got(LeaseGranted))
    world.kill(driver.host)
    cluster.settle()
    assert not worker.host.alive
    assert [w for w in cluster.workers.values() if w.host.alive] == [kept]
    assert cluster.free() == {"CPU": 1, "disk": 4}
    assert cluster.node._book.waiting == 0
    cluster.check()


def test_the_end_of_a_job_ends_its_idle_workers(cluster: Cluster, world: World) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    driver.send(ReturnLease(1))
    cluster.settle()
    assert worker.host.alive
    world.kill(driver.host)
    cluster.until(lambda: not worker.host.alive)


def test_a_job_with_two_drivers_ends_with_the_last(cluster: Cluster, world: World) -> None:
    first, second = cluster.driver("d1", "job"), cluster.driver("d2", "job")
    worker = cluster.lease(first, 1)
    first.send(ReturnLease(1))
    cluster.settle()
    world.kill(first.host)
    cluster.settle()
    assert worker.host.alive
    assert cluster.lease(second, 1) is worker


def test_workers_that_do_not_start_are_refused_with_the_reason(cluster: Cluster) -> None:
    def broken(spec: WorkerSpec, host: Host) -> None:
        host.write_output("stderr", b"ModuleNotFoundError: No module named 'nope'\n")
        host.exit(1)

    cluster.make_worker = broken
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU), RequestLease(2, CPU))
    cluster.until(lambda: len(driver.got(LeaseRefused)) == 2)
    refused = driver.got(LeaseRefused)[0]
    assert refused.kind == "worker_failed"
    assert "exited with code 1" in refused.reason
    assert "No module named 'nope'" in refused.reason
    cluster.settle()
    assert cluster.free()["CPU"] == 2
    cluster.check()


NOWHERE = json.dumps({"working_dir": "/nowhere"})


def test_a_working_dir_that_is_not_there_is_refused_before_a_worker_is_tried(cluster: Cluster) -> None:
    cluster.processes.missing_dirs.add("/nowhere")
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, env=NOWHERE))
    cluster.place("a1", env=NOWHERE)
    cluster.place("a2", env=NOWHERE, shared=True)
    cluster.until(lambda: driver.got(LeaseRefused) and len(cluster.head.got(ActorFailed)) == 2)
    [refused] = driver.got(LeaseRefused)
    assert (refused.lease, refused.kind) == (1, "environment")
    assert "'/nowhere' does not exist" in refused.reason
    assert [(failed.actor_id, failed.died.kind) for failed in cluster.head.got(ActorFailed)] == [
        ("a1", "environment"),
        ("a2", "environment"),
    ]
    assert "'/nowhere' does not exist" in cluster.head.got(ActorFailed)[0].died.reason
    assert cluster.workers == {}
    assert cluster.free()["CPU"] == 2
    cluster.check()


def test_a_working_dir_that_goes_away_meanwhile_is_told_as_such(cluster: Cluster) -> None:
    """The check came before the fork: what the workers failed of is looked at again."""

    def goes_away(spec: WorkerSpec, host: Host) -> None:
        cluster.processes.missing_dirs.add("/nowhere")
        host.exit(1)

    cluster.make_worker = goes_away
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU, env=NOWHERE))
    cluster.place("a1", env=NOWHERE)
    cluster.until(lambda: driver.got(LeaseRefused) and cluster.head.got(ActorFailed))
    assert driver.got(LeaseRefused)[0].kind == "environment"
    assert cluster.head.got(ActorFailed)[0].died.kind == "environment"
    cluster.settle()
    assert cluster.free()["CPU"] == 2
    cluster.check()


def test_a_worker_that_does_not_connect_is_killed_in_time(world: World) -> None:
    cluster = Cluster(world, worker_register_timeout_s=2.0)
    born: list[Host] = []
    cluster.make_worker = lambda spec, host: born.append(host)
    driver = cluster.driver()
    driver.send(RequestLease(1, CPU))
    cluster.until(lambda: driver.got(LeaseRefused))
    assert "did not connect to the node within 2 s" in driver.got(LeaseRefused)[0].reason
    cluster.settle()
    assert [host for host in born if host.alive] == []


def test_a_spawn_that_fails_is_tried_again(cluster: Cluster) -> None:
    cluster.processes.fail_next_spawn()
    driver = cluster.driver()
    cluster.lease(driver, 1)


# Sharing -----------------------------------------------------------------------------------------------------


def test_a_lease_is_asked_back_for_somebody_who_waits(cluster: Cluster) -> None:
    rich, poor = cluster.driver("rich"), cluster.driver("poor")
    for number in (1, 2):
        cluster.lease(rich, number)
    poor.send(RequestLease(1, CPU))
    cluster.until(lambda: rich.got(ReclaimLease))
    assert rich.got(ReclaimLease) == [ReclaimLease(1)]
    rich.send(ReturnLease(1))
    cluster.until(lambda: poor.got(LeaseGranted))


def test_semantics_24_a_blocked_worker_lends_its_cpu(world: World) -> None:
    cluster = Cluster(world, resources={"CPU": UNIT})
    driver = cluster.driver()
    parent = cluster.lease(driver, 1, name="parent")
    parent.send(RequestLease(1, CPU, name="child"))
    cluster.settle(0.5)
    assert parent.got(LeaseGranted) == []
    parent.send(Blocked())
    cluster.until(lambda: parent.got(LeaseGranted))
    parent.send(Unblocked())
    cluster.settle(0.5)
    assert cluster.free()["CPU"] == -1
    driver.send(RequestLease(2, CPU))
    parent.send(ReturnLease(1))
    cluster.settle(0.5)
    assert len(driver.got(LeaseGranted)) == 1, "nothing is granted until the debt is repaid"
    driver.send(ReturnLease(1))
    cluster.until(lambda: len(driver.got(LeaseGranted)) == 2)


def test_semantics_24_over_the_cap_the_error_names_the_chain(world: World) -> None:
    cluster = Cluster(world, resources={"CPU": UNIT}, extra_workers_max=2)
    client: Speaker = cluster.driver()
    for level in range(3):
        client = cluster.lease(client, 1, name=f"f{level}")
        client.send(Blocked())
    client.send(RequestLease(1, CPU, name="f3"))
    cluster.until(lambda: client.got(LeaseRefused))
    [refused] = client.got(LeaseRefused)
    assert refused.kind == "too_deep"
    assert "f0 -> f1 -> f2 -> f3" in refused.reason


# Actors ------------------------------------------------------------------------------------------------------


def test_a_dedicated_actor_gets_a_worker_of_its_own(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.actor("a1", resources=CPU)
    [order] = worker.got(HostActor)
    assert (order.spec.actor_id, order.incarnation, order.devices) == ("a1", 1, {})
    assert cluster.head.got(ActorReady) == [ActorReady("a1", 1, worker.process_id, worker.spec.address)]
    assert cluster.free()["CPU"] == 1
    assert cluster.lease(driver, 1) is not worker


def test_placing_twice_makes_one_actor(cluster: Cluster) -> None:
    cluster.place("a1")
    cluster.place("a1")
    cluster.settle()
    assert len(cluster.head.got(ActorReady)) == 1
    assert len(cluster.workers) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resources": {"CPU": 9 * UNIT}}, "asks for 9 CPU, and this node has 2 CPU"),
        ({"resources": {"CPU": -1}}, "negative"),
        ({"env": "{"}, "cannot be used"),
    ],
)
def test_an_actor_that_can_never_be_placed_says_so(cluster: Cluster, fields: dict[str, Any], words: str) -> None:
    cluster.place("a1", **fields)
    cluster.until(lambda: cluster.head.got(ActorFailed))
    [failed] = cluster.head.got(ActorFailed)
    assert (failed.actor_id, failed.incarnation, failed.died.kind) == ("a1", 1, "unschedulable")
    assert words in failed.died.reason


def test_an_actor_waits_for_resources_and_leases_are_asked_back_for_it(cluster: Cluster) -> None:
    driver = cluster.driver()
    for number in (1, 2):
        cluster.lease(driver, number)
    cluster.place("a1", resources=CPU)
    cluster.until(lambda: driver.got(ReclaimLease))
    driver.send(ReturnLease(driver.got(ReclaimLease)[0].lease))
    cluster.until(lambda: cluster.head.got(ActorReady))


def test_a_constructor_that_raises_is_reported_and_its_worker_leaves(cluster: Cluster) -> None:
    cluster.place("a1", resources=CPU)
    slow_workers(cluster)
    cluster.until(lambda: [w for w in cluster.workers.values() if w.actors])
    [worker] = cluster.workers.values()
    died = ActorDied("init_failed", "its constructor raised ValueError: no")
    worker.send(ActorFailed("a1", 1, died))
    cluster.until(lambda: cluster.head.got(ActorFailed))
    cluster.settle()
    assert cluster.head.got(ActorFailed) == [ActorFailed("a1", 1, died)]
    assert cluster.head.got(ActorLost) == []
    assert not worker.host.alive
    assert cluster.free()["CPU"] == 2


def slow_workers(cluster: Cluster) -> None:
    """Workers born from now on do not say that an actor is ready."""

    def make(spec: WorkerSpec, host: Host) -> FakeWorker:
        worker = FakeWorker(spec, host)
        worker.slow = True
        return worker

    cluster.make_worker = make


def test_a_crashed_actor_is_lost_with_its_last_lines(cluster: Cluster) -> None:
    worker = cluster.actor("a1", resources=CPU)
    worker.host.write_output("stdout", b"almost there\n")
    cluster.kill(worker, 11)
    cluster.until(lambda: cluster.head.got(ActorLost))
    cluster.settle()
    [lost] = cluster.head.got(ActorLost)
    assert (lost.actor_id, lost.incarnation, lost.expected, lost.spent) == ("a1", 1, False, True)
    assert "killed by SIGSEGV" in lost.cause
    assert "almost there" in lost.cause
    assert cluster.free()["CPU"] == 2


def test_an_actor_that_exits_with_0_ended_itself(cluster: Cluster) -> None:
    cluster.actor("a1").host.exit(0)
    cluster.until(lambda: cluster.head.got(ActorLost))
    assert cluster.head.got(ActorLost)[0].expected


@pytest.mark.parametrize("graceful", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_living_actor_ends_when_the_head_says_so(cluster: Cluster, shared: bool, graceful: bool) -> None:
    worker = cluster.actor("a1", shared=shared)
    cluster.head.send(KillActor("a1", True, graceful, 1), KillActor("a1", True, graceful, 1))
    cluster.until(lambda: cluster.head.got(ActorLost))
    cluster.settle()
    [lost] = cluster.head.got(ActorLost)
    assert (lost.actor_id, lost.incarnation, lost.expected) == ("a1", 1, True)
    if graceful or shared:
        assert worker.got(ActorExit) == [ActorExit("a1", graceful)]
    assert not worker.host.alive, "a dedicated worker goes with its actor, a host when it is empty"
    cluster.check()


@pytest.mark.parametrize("graceful", [True, False])
def test_an_actor_that_waits_for_resources_can_be_ended(cluster: Cluster, graceful: bool) -> None:
    cluster.actor("a1", resources={"CPU": 2 * UNIT})
    cluster.place("a2", resources=CPU)
    cluster.head.send(KillActor("a2", True, graceful, 1))
    cluster.until(lambda: cluster.head.got(ActorLost))
    assert cluster.head.got(ActorLost)[0].expected
    cluster.settle()
    assert cluster.node._book.waiting == 0


@pytest.mark.parametrize("graceful", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_an_actor_in_its_constructor_can_be_ended(cluster: Cluster, shared: bool, graceful: bool) -> None:
    slow_workers(cluster)
    cluster.place("a1", shared=shared)
    cluster.until(lambda: [w for w in cluster.workers.values() if w.actors])
    [worker] = cluster.workers.values()
    worker.deaf = True
    cluster.head.send(KillActor("a1", True, graceful, 1))
    cluster.settle(1.0)
    worker.deaf = False
    if worker.host.alive:
        worker.ready("a1")
    cluster.until(lambda: cluster.head.got(ActorLost))
    assert cluster.head.got(ActorLost)[0].expected
    assert cluster.head.got(ActorReady) == []


def test_a_kill_for_another_incarnation_does_nothing(cluster: Cluster) -> None:
    cluster.actor("a1", incarnation=2)
    cluster.head.send(KillActor("a1", True, False, 1), KillActor("nobody", True, False, 1))
    cluster.settle()
    assert cluster.head.got(ActorLost) == []


@pytest.mark.parametrize("shared", [True, False])
def test_a_newer_incarnation_replaces_an_older_one(cluster: Cluster, shared: bool) -> None:
    cluster.actor("a1", shared=shared, resources={"disk": UNIT})
    cluster.place("a1", 2, shared=shared, resources={"disk": UNIT})
    cluster.until(lambda: [ready for ready in cluster.head.got(ActorReady) if ready.incarnation == 2])
    cluster.settle()
    assert [lost.incarnation for lost in cluster.head.got(ActorLost) if lost.incarnation == 2] == []
    assert cluster.free()["disk"] == 3
    cluster.check()


# Shared actors (SEMANTICS 22) --------------------------------------------------------------------------------


def test_shared_actors_of_a_job_live_in_one_process(cluster: Cluster) -> None:
    for number in range(20):
        cluster.place(f"a{number}", shared=True)
    cluster.until(lambda: len(cluster.head.got(ActorReady)) == 20)
    assert len(cluster.workers) == 1
    assert len({ready.worker_id for ready in cluster.head.got(ActorReady)}) == 1


def test_a_shared_actor_that_ends_leaves_the_others_alone(cluster: Cluster) -> None:
    worker = cluster.actor("a1", shared=True)
    cluster.actor("a2", shared=True)
    cluster.head.send(KillActor("a1", True, False, 1))
    cluster.until(lambda: cluster.head.got(ActorLost))
    cluster.settle(10.0)
    assert worker.host.alive
    assert [lost.actor_id for lost in cluster.head.got(ActorLost)] == ["a1"]


def test_semantics_22_who_does_not_end_takes_the_host_along_and_the_others_are_victims(cluster: Cluster) -> None:
    worker = cluster.actor("bad", shared=True, class_name="Stubborn")
    cluster.actor("good", shared=True)
    worker.deaf = True
    cluster.head.send(KillActor("bad", True, False, 1))
    cluster.settle(4.0)
    assert worker.host.alive
    cluster.until(lambda: len(cluster.head.got(ActorLost)) == 2)
    lost = {message.actor_id: message for message in cluster.head.got(ActorLost)}
    assert (lost["bad"].expected, lost["good"].expected, lost["good"].spent) == (True, False, False)
    assert "Stubborn (bad)" in lost["good"].cause
    cluster.place("good", 2, shared=True)
    cluster.until(lambda: [ready for ready in cluster.head.got(ActorReady) if ready.incarnation == 2])


def test_a_host_that_crashes_takes_all_its_actors_along(cluster: Cluster) -> None:
    worker = cluster.actor("a1", shared=True)
    cluster.actor("a2", shared=True)
    worker.host.write_output("stderr", b"boom\n")
    cluster.kill(worker)
    cluster.until(lambda: len(cluster.head.got(ActorLost)) == 2)
    assert {(lost.expected, lost.spent) for lost in cluster.head.got(ActorLost)} == {(False, True)}
    assert "boom" in cluster.head.got(ActorLost)[0].cause


def test_an_actor_without_a_worker_fails_with_the_reason(cluster: Cluster) -> None:
    cluster.make_worker = lambda spec, host: host.exit(1)
    cluster.place("a1", shared=True)
    cluster.place("a2", resources=CPU)
    cluster.until(lambda: len(cluster.head.got(ActorFailed)) == 2)
    assert {failed.died.kind for failed in cluster.head.got(ActorFailed)} == {"crashed"}
    assert "exited with code 1" in cluster.head.got(ActorFailed)[0].died.reason
    cluster.settle()
    assert cluster.free()["CPU"] == 2


# The store ---------------------------------------------------------------------------------------------------


def allocate(cluster: Cluster, client: Speaker, token: int, size: int) -> Allocated:
    client.send(Allocate(token, size))
    cluster.until(lambda: [answer for answer in client.got(Allocated) if answer.token == token])
    return next(answer for answer in client.got(Allocated) if answer.token == token)


def test_an_extent_is_pinned_freed_and_its_pages_go_back(cluster: Cluster) -> None:
    driver = cluster.driver()
    answer = allocate(cluster, driver, 1, 100)
    extent = answer.extent
    assert (answer.offset, answer.error) == (0, "")
    cluster.arena.view(0, 100, writable=True)[:] = b"x" * 100
    driver.send(Pin(5, extent), FreeExtent(extent), Pin(6, extent))
    cluster.until(lambda: len(driver.got(Pinned)) == 2)
    assert driver.got(Pinned) == [Pinned(5, True), Pinned(6, False)]
    assert bytes(cluster.arena.view(0, 1)) == b"x"
    driver.send(Unpin(extent))
    cluster.settle(0.1)
    assert bytes(cluster.arena.view(0, 1)) != b"x"
    assert cluster.node._store.book.used_bytes() == 0


def test_a_result_outlives_its_writer_once_it_is_handed_over(cluster: Cluster, world: World) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    result, half_written = allocate(cluster, worker, 1, PAGE), allocate(cluster, worker, 2, PAGE)
    worker.send(HandOver(result.extent, "driver"), HandOver(half_written.extent, "nobody"))
    cluster.settle(0.1)
    cluster.kill(worker)
    cluster.settle()
    assert [extent.number for extent in cluster.node._store.book.extents()] == [result.extent]
    world.kill(driver.host)
    cluster.settle()
    assert cluster.node._store.book.used_bytes() == 0


@pytest.mark.parametrize("seed", range(20))
def test_nw_3_the_last_words_of_a_worker_are_heard_also_after_the_news_of_its_death(seed: int) -> None:
    """Its caller may have the result already, and reads it without asking."""
    with World(seed) as world:
        cluster = Cluster(world)
        driver = cluster.driver()
        worker = cluster.lease(driver, 1)
        result = allocate(cluster, worker, 1, PAGE)
        worker.send(HandOver(result.extent, "driver"), RequestLease(77, CPU))
        assert worker.peer is not None
        worker.peer.flush()
        cluster.kill(worker)
        cluster.settle()
        assert [extent.number for extent in cluster.node._store.book.extents()] == [result.extent]
        assert not cluster.node._workers._reaped
        driver.send(ReturnLease(1))
        cluster.settle()
        assert cluster.free()["CPU"] == 2, "what it asked for itself died with it"


def slab(cluster: Cluster, client: Speaker, size: int) -> Allocated:
    client.send(Allocate(77, size, slab=True))
    cluster.until(lambda: [answer for answer in client.got(Allocated) if answer.token == 77])
    return next(answer for answer in client.got(Allocated) if answer.token == 77)


def test_a_pin_that_comes_before_the_word_of_its_object_waits_for_it(cluster: Cluster) -> None:
    """ST-5: the writer's word and the reader's pin come by different connections."""
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    number = slab(cluster, worker, 8 * PAGE).extent | 1
    driver.send(Pin(5, number))
    cluster.settle(0.1)
    assert driver.got(Pinned) == []
    worker.send(Carved(number, PAGE), HandOver(number, "driver"))
    cluster.until(lambda: driver.got(Pinned))
    assert driver.got(Pinned) == [Pinned(5, True)]


def test_a_pin_on_an_object_that_never_comes_is_answered_when_its_writer_is_gone(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    number = slab(cluster, worker, 8 * PAGE).extent | 1
    driver.send(Pin(5, number), FreeExtent(number))
    cluster.settle(0.1)
    cluster.kill(worker)
    cluster.until(lambda: driver.got(Pinned))
    assert driver.got(Pinned) == [Pinned(5, False)]
    cluster.settle()
    assert cluster.node._store.book.used_bytes() == 0
    assert not cluster.node._store._early_frees


def test_an_object_that_was_freed_before_the_word_of_it_came_is_freed_then(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    given = slab(cluster, worker, 8 * PAGE)
    driver.send(FreeExtent(given.extent | 1))
    cluster.settle(0.1)
    worker.send(Carved(given.extent | 1, PAGE), HandOver(given.extent | 1, "driver"))
    cluster.settle(0.1)
    assert [extent.number for extent in cluster.node._store.book.extents()] == [given.extent]


def test_slabs_are_asked_back_when_room_is_short(cluster: Cluster) -> None:
    driver, other = cluster.driver("d1"), cluster.driver("d2")
    given = slab(cluster, driver, 16 * PAGE)
    other.send(Allocate(1, 60 * PAGE))
    cluster.until(lambda: driver.got(ReturnSlabs))
    driver.send(FreeExtent(given.extent))
    cluster.until(lambda: other.got(Allocated))
    assert other.got(Allocated)[0].error == ""


def test_who_carves_what_is_not_his_is_cut_off(cluster: Cluster) -> None:
    driver, other = cluster.driver("d1"), cluster.driver("d2")
    given = slab(cluster, driver, 16 * PAGE)
    other.send(Carved(given.extent | 1, PAGE))
    cluster.until(lambda: other.peer.lost)
    assert not driver.peer.lost


def test_the_owner_is_asked_about_what_a_dead_writer_has_handed_over(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    result = allocate(cluster, worker, 1, PAGE)
    worker.send(HandOver(result.extent, "driver"))
    cluster.settle(0.1)
    cluster.kill(worker)
    cluster.until(lambda: driver.got(WriterLost))
    assert driver.got(WriterLost) == [WriterLost(worker.process_id, [result.extent])]


def test_who_waits_for_room_gets_it_or_the_numbers(cluster: Cluster) -> None:
    driver, other = cluster.driver("d1"), cluster.driver("d2")
    big = allocate(cluster, driver, 1, 63 * PAGE)
    driver.send(Pin(9, big.extent))
    other.send(Allocate(1, 2 * PAGE))
    cluster.until(lambda: other.got(Allocated))
    [denied] = other.got(Allocated)
    assert "8 KiB asked for by driver d2" in denied.error
    assert "pinned (252 KiB by driver d1 (pid " in denied.error
    other.send(Allocate(2, 2 * PAGE))
    cluster.settle(1.0)
    driver.send(FreeExtent(big.extent), Unpin(big.extent))
    cluster.until(lambda: len(other.got(Allocated)) == 2)
    assert other.got(Allocated)[1].error == ""


# Output ------------------------------------------------------------------------------------------------------


def test_output_reaches_the_driver_of_the_job_with_the_name_of_what_runs(cluster: Cluster) -> None:
    driver, other = cluster.driver(), cluster.driver("other")
    worker = cluster.lease(driver, 1, name="work")
    worker.host.write_output("stdout", b"hello\nwor")
    worker.host.write_output("stdout", b"ld\n")
    cluster.until(lambda: len(driver.got(WorkerLog)) == 2)
    expected = WorkerLog(worker.process_id, worker.host.pid, "work", "stdout", ["hello"])
    assert driver.got(WorkerLog)[0] == expected
    assert driver.got(WorkerLog)[1].lines == ["world"]
    assert other.got(WorkerLog) == []
    actor = cluster.actor("a1")
    actor.host.write_output("stderr", b"ready\n")
    cluster.until(lambda: len(driver.got(WorkerLog)) == 3)
    assert (driver.got(WorkerLog)[2].name, driver.got(WorkerLog)[2].stream) == ("Counter", "stderr")


def test_a_driver_that_does_not_read_misses_lines_and_is_told_how_many(world: World) -> None:
    cluster = Cluster(world, log_backlog_bytes_max=1000)
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    driver.host.pause()
    printed = 0
    for _ in range(400):
        worker.host.write_output("stdout", (b"x" * 100 + b"\n") * 10)
        printed += 10
        cluster.settle(0.01)
    driver.host.unpause()
    cluster.settle(2.0)
    logs = driver.got(WorkerLog)
    seen = sum(len(message.lines) for message in logs)
    assert 0 < seen < printed
    assert seen + sum(message.dropped for message in logs) == printed


def test_each_worker_that_prints_has_a_file(world: World, tmp_path: Path) -> None:
    cluster = Cluster(world, log_dir=str(tmp_path / "logs"))
    driver = cluster.driver()
    worker = cluster.lease(driver, 1)
    cluster.lease(driver, 2)
    worker.host.write_output("stdout", b"one\n")
    worker.host.write_output("stderr", b"two")
    cluster.settle(0.1)
    [path] = (tmp_path / "logs").iterdir()
    assert path.name == f"worker-{worker.process_id}.log"
    assert path.read_bytes() == b"one\ntwo"
    cluster.run(cluster.host, cluster.node.stop("the files are closed"))


# Looking -----------------------------------------------------------------------------------------------------


def ask(cluster: Cluster, kind: str, **fields: Any) -> tuple[list[dict[str, Any]], StateReply]:
    token = len(cluster.head.got(StateReply)) + 1
    cluster.head.send(StateQuery(token, kind, **fields))
    cluster.until(lambda: len(cluster.head.got(StateReply)) == token)
    reply = cluster.head.got(StateReply)[-1]
    assert reply.token == token
    return json.loads(reply.rows), reply


def test_the_nodes_own_tables(cluster: Cluster) -> None:
    driver = cluster.driver()
    worker = cluster.lease(driver, 4, name="work", priority=2)
    actor = cluster.actor("a1", resources=CPU)
    driver.send(RequestLease(5, CPU, name="waits"))
    cluster.settle(0.05)
    workers, _ = ask(cluster, "workers")
    states = {row["worker_id"]: (row["state"], row["actors"], row["pid"]) for row in workers}
    assert states[worker.process_id] == ("leased", [], worker.host.pid)
    assert states[actor.process_id] == ("actor", ["a1"], actor.host.pid)
    assert all(row["memory_bytes"] > 1_000_000 for row in workers)
    leases, _ = ask(cluster, "leases")
    assert [(row["lease"], row["state"], row["name"], row["priority"]) for row in leases] == [
        (4, "granted", "work", 2),
        (5, "queued", "waits", 0),
    ]
    resources, _ = ask(cluster, "resources")
    assert {row["resource"]: (row["total"], row["free"], row["waiting"]) for row in resources} == {
        "CPU": (2, 0, 1),
        "disk": (4, 4, 0),
    }
    cluster.kill(worker)
    cluster.settle()
    workers, _ = ask(cluster, "workers")
    [dead] = [row for row in workers if row["state"] == "dead"]
    assert "killed by SIGKILL" in dead["reason"]
    assert dead["memory_bytes"] == 0
    limited, reply = ask(cluster, "workers", limit=1)
    assert (len(limited), reply.truncated) == (1, True)


def answers(speaker: Speaker, rows: list[Any]) -> None:
    """Let a process answer queries."""

    def answer(message: Any) -> None:
        if isinstance(message, StateQuery):
            speaker.send(StateReply(message.token, json.dumps(rows).encode()))

    speaker.on_message = answer


def test_processes_are_asked_and_the_silent_are_named(cluster: Cluster) -> None:
    driver, silent = cluster.driver("d1"), cluster.driver("d2")
    worker = cluster.lease(driver, 1)
    answers(driver, [{"task": "t1"}, {"task": "t2"}])
    answers(worker, [{"task": "t3"}])
    rows, reply = ask(cluster, "tasks", timeout_s=1.0)
    assert sorted(row["task"] for row in rows) == ["t1", "t2", "t3"]
    assert reply.missing == ["d2"]
    answers(silent, [])
    rows, reply = ask(cluster, "tasks", limit=2)
    assert (len(rows), reply.missing, reply.truncated) == (2, [], True)


def test_a_process_that_is_lost_meanwhile_is_named_at_once(cluster: Cluster, world: World) -> None:
    driver = cluster.driver()
    cluster.head.send(StateQuery(1, "events", timeout_s=60.0))
    cluster.until(lambda: driver.got(StateQuery))
    before = world.now
    world.kill(driver.host)
    cluster.until(lambda: cluster.head.got(StateReply))
    assert cluster.head.got(StateReply)[0].missing == ["driver"]
    assert world.now - before < 1.0


def test_nonsense_is_answered_with_words(cluster: Cluster) -> None:
    rows, reply = ask(cluster, "dreams")
    assert rows == []
    assert "'dreams'" in reply.error
    driver = cluster.driver()
    driver.on_message = lambda message: driver.send(StateReply(message.token, b"{"))
    rows, reply = ask(cluster, "tasks")
    assert "not JSON" in reply.error


# The end -----------------------------------------------------------------------------------------------------


def test_semantics_26_the_owners_end_is_seen_by_its_connection(world: World) -> None:
    cluster = Cluster(world, owner="driver")
    driver = cluster.driver()
    cluster.driver("another")
    assert cluster.gone == []
    world.kill(driver.host)
    cluster.until(lambda: cluster.gone)
    assert "driver driver is gone" in cluster.gone[0]


def test_the_owner_ends_its_cluster_and_nobody_else_does(world: World) -> None:
    cluster = Cluster(world, owner="driver")
    driver, other = cluster.driver(), cluster.driver("other")
    other.send(Shutdown("mine"))
    cluster.settle(0.5)
    assert cluster.gone == []
    driver.send(Shutdown("done"), Shutdown("done"))
    cluster.until(lambda: cluster.gone)
    assert cluster.gone == ["done"]


def test_a_cluster_whose_owner_never_comes_ends(world: World) -> None:
    cluster = Cluster(world, owner="driver", owner_timeout_s=5.0)
    cluster.settle(6.0)
    assert cluster.gone == ["its driver did not connect within 5 s"]


def test_stop_leaves_no_process_and_no_connection(cluster: Cluster, world: World) -> None:
    driver = cluster.driver()
    workers = [cluster.lease(driver, 1), cluster.actor("a1"), cluster.actor("a2", shared=True)]
    workers[0].deaf = True
    driver.send(RequestLease(9, {"CPU": 2 * UNIT}))
    cluster.settle(0.1)
    cluster.run(cluster.host, cluster.node.stop("the test is over"))
    cluster.settle(0.1)
    assert [worker.host.alive for worker in workers] == [False] * 3
    assert driver.lost
    assert [when for when, loop in world.timers() if loop is cluster.host.loop] == []
    cluster.run(cluster.host, cluster.node.stop("twice"))


def test_the_head_may_go_and_come_back(cluster: Cluster, world: World) -> None:
    worker = cluster.actor("a1")
    cluster.head.peers.close()
    cluster.settle(0.5)
    cluster.kill(worker)
    cluster.settle(0.5)
    cluster.head.received.clear()
    cluster.run(cluster.head.host, cluster.head.peers.listen("unix:/c/head.sock"))
    cluster.until(lambda: cluster.head.got(ActorLost))
    assert isinstance(cluster.head.received[0], NodeInfo)
    assert [lost.actor_id for lost in cluster.head.got(ActorLost)] == ["a1"]


def test_a_node_without_a_head_does_not_start(world: World) -> None:
    with pytest.raises(TimeoutError):
        LonelyCluster(world, head_timeout_s=1.0)


class LonelyCluster(Cluster):
    """The head is not there."""

    def run(self, host: Host, coro: Any) -> Any:
        if host is self.head.host:
            coro.close()
            return None
        return super().run(host, coro)


def test_workers_that_die_at_random_leave_nothing_behind(sim_seed: int) -> None:
    with World(sim_seed) as world:
        cluster = Cluster(world, prestart=1)
        rng = world.rng("test")
        driver = cluster.driver()
        for number in range(1, 40):
            driver.send(RequestLease(number, {"CPU": rng.choice([UNIT, UNIT // 2, 2 * UNIT])}))
            cluster.place(f"a{number}", shared=rng.random() < 0.5, resources={"disk": rng.choice([0, UNIT])})
            world.run_for(rng.uniform(0, 0.02))
            living = [worker for worker in cluster.workers.values() if worker.host.alive]
            if living and rng.random() < 0.5:
                cluster.kill(rng.choice(living))
            for granted in driver.got(LeaseGranted):
                if rng.random() < 0.3:
                    driver.send(ReturnLease(granted.lease, retire=rng.random() < 0.2))
            if rng.random() < 0.3:
                cluster.head.send(KillActor(f"a{rng.randint(1, number)}", True, rng.random() < 0.5, 1))
            cluster.check()
        driver.send(*(ReturnLease(number) for number in range(1, 40)))
        for number in range(1, 40):
            cluster.head.send(KillActor(f"a{number}", True, False, 1))
        cluster.settle(20.0)
        ends = [message.actor_id for message in cluster.head.got(ActorLost) + cluster.head.got(ActorFailed)]
        assert sorted(ends) == sorted(f"a{number}" for number in range(1, 40)), "NA-1"
        assert cluster.free() == {"CPU": 2, "disk": 4}
        answered = {message.lease for message in driver.got(LeaseGranted) + driver.got(LeaseRefused)}
        assert answered <= set(range(1, 40))
        world.kill(driver.host)
        cluster.settle(10.0)
        assert [worker for worker in cluster.workers.values() if worker.host.alive] == []
        cluster.check()
