"""The head as its peers see it: messages in, messages out, over a simulated network in virtual time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from actorflow._core.base.state_rows import ActorRow, JobRow, NodeRow
from actorflow._core.io.ports import Proof
from actorflow._core.protocol.messages import (
    ActorDied,
    ActorFailed,
    ActorLost,
    ActorOutOfScope,
    ActorReady,
    ActorState,
    CheckpointSaved,
    CreateActor,
    CreateActorReply,
    FindActor,
    FindActorReply,
    KillActor,
    NodeInfo,
    PlaceActor,
    SaveCheckpoint,
    StateQuery,
    StateReply,
    WatchActor,
)
from actorflow.testing.errors import SimulationFailed
from tests.unit.head.harness import HEAD, Cluster, spec

A = "actor-a"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


# Actors -----------------------------------------------------------------------------------------------------


def test_an_actor_is_created_placed_and_told(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    assert driver.peer.welcome_info["head"] == HEAD
    driver.send(CreateActor(spec(A, "driver-1")))
    cluster.run()
    assert driver.take(CreateActorReply) == [CreateActorReply(A)]
    (place,) = node.take(PlaceActor)
    assert (place.spec.actor_id, place.incarnation, place.checkpoint) == (A, 1, None)
    assert place.spec.namespace == "default"
    node.send(ActorReady(A, 1, "worker-1", "unix:/w1"))
    cluster.run()
    assert driver.take(ActorState) == [ActorState(A, "alive", 1, "worker-1", "unix:/w1")]


def test_many_actors_of_a_class_share_its_pickle(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    driver.send(*(CreateActor(spec(f"actor-{number}", "driver-1")) for number in range(3)))
    cluster.run()
    kept = [actor.spec for actor in cluster.head._actors.table.living()]
    assert len(kept) == 3
    assert len({id(one.class_pickle) for one in kept}) == len({id(one.methods) for one in kept}) == 1
    assert len(node.take(PlaceActor)) == 3


def test_watchers_are_told_now_and_at_each_change(cluster: Cluster) -> None:
    node, driver, worker = cluster.node(), cluster.driver(), cluster.party("worker", "worker-9")
    worker.send(WatchActor(A))
    cluster.run()
    assert worker.states() == [], "its handle was faster than the actor"
    cluster.make_alive(driver, node, max_restarts=1)
    assert worker.states() == ["pending", "alive"]
    worker.send(WatchActor(A))
    node.send(ActorLost(A, 1, "killed by SIGKILL"))
    cluster.run()
    assert worker.states() == ["alive", "restarting"]
    assert cluster.answer_ready(node).incarnation == 2
    node.send(ActorLost(A, 2, "killed by SIGKILL"))
    cluster.run()
    *_, last = worker.take(ActorState)
    assert last.died is not None
    assert last.died.kind == "crashed"


def test_restarts_wait_longer_and_longer(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=-1)
    for incarnation in range(1, 6):
        node.send(ActorLost(A, incarnation, "killed by SIGKILL"))
        cluster.run(0.01)
        assert bool(node.take(PlaceActor)) == (incarnation == 1), "only the first restart is at once"
        if incarnation > 1:
            cluster.run(1.0)
            assert [place.incarnation for place in node.take(PlaceActor)] == [incarnation + 1]
        node.send(ActorReady(A, incarnation + 1, "w", "unix:/w"))
        cluster.run(0.01)


def test_a_kill_during_the_wait_for_a_restart_ends_it(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=-1)
    node.send(ActorLost(A, 1, "killed"), ActorLost(A, 2, "killed"))
    cluster.run(0.01)
    node.take(PlaceActor)
    node.send(ActorLost(A, 2, "killed"))
    cluster.run(0.01)
    driver.send(KillActor(A))
    cluster.run(10.0)
    assert node.take(PlaceActor) == []
    assert driver.states()[-1] == "dead"


def test_a_constructor_error_reaches_the_creator(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    driver.send(CreateActor(spec(A, "driver-1", max_restarts=3)))
    cluster.run()
    died = ActorDied("init_failed", "ValueError: no")
    node.send(ActorFailed(A, 1, died))
    cluster.run()
    assert driver.take(ActorState) == [ActorState(A, "dead", 1, died=died)]
    assert node.take(KillActor) == []


def test_what_no_node_can_hold_is_told_at_once_with_the_numbers(cluster: Cluster) -> None:
    cluster.node(cpus=4)
    driver = cluster.driver()
    driver.send(CreateActor(spec(A, "driver-1", resources={"CPU": 90_000})))
    cluster.run(0.5)
    (state,) = driver.take(ActorState)
    assert state.died is not None
    assert state.died.kind == "unschedulable"
    assert "it asks for 9 CPU, and no node can ever hold that: node node-1 has 4 CPU" in state.died.reason


def test_an_actor_that_is_faster_than_the_first_node_waits_for_it(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(CreateActor(spec(A, "driver-1")), CreateActor(spec("actor-b", "driver-1")))
    cluster.run(20.0)
    assert driver.states() == []
    node = cluster.node()
    assert [place.spec.actor_id for place in node.take(PlaceActor)] == [A, "actor-b"]


def test_without_any_node_an_actor_does_not_wait_for_ever(cluster: Cluster) -> None:
    driver, worker = cluster.driver(), cluster.party("worker", "worker-9")
    driver.send(CreateActor(spec(A, "driver-1")))
    cluster.run(1.0)
    worker.send(WatchActor("never-made"))
    cluster.run(15.0)
    assert worker.states() == ["dead"], "the alarm for the later, shorter wait rings first"
    cluster.run(20.0)
    assert driver.states() == ["dead"]


def test_a_node_that_gets_more_resources_gets_who_waits(cluster: Cluster) -> None:
    node, driver = cluster.node(cpus=4), cluster.driver()
    cluster.make_alive(driver, node, resources={"CPU": 40_000}, max_restarts=1)
    node.send(NodeInfo("node-1", "unix:/node-1", {"CPU": 10_000}))
    node.send(ActorLost(A, 1, "killed"))
    cluster.run()
    assert node.take(PlaceActor) == []
    node.send(NodeInfo("node-1", "unix:/node-1", {"CPU": 40_000}))
    cluster.run()
    assert [place.incarnation for place in node.take(PlaceActor)] == [2]


def test_names_are_found_and_near_ones_are_told(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver(namespace="blue")
    cluster.make_alive(driver, node, name="counter")
    driver.send(FindActor(1, "counter", ""), FindActor(2, "conter", "blue"), FindActor(3, "counter", "green"))
    cluster.run()
    found, near, elsewhere = driver.take(FindActorReply)
    assert (found.actor_id, found.class_name, found.methods, found.owner) == (
        A,
        "Counter",
        b"methods",
        "driver-1",
    )
    assert (near.actor_id, near.near) == ("", ["counter"])
    assert (elsewhere.actor_id, elsewhere.near, elsewhere.elsewhere) == ("", [], ["blue"])


def test_get_if_exists_shares_the_actor(cluster: Cluster) -> None:
    node, first, second = cluster.node(), cluster.driver(), cluster.driver("driver-2", "job-2")
    cluster.make_alive(first, node, name="counter")
    second.send(CreateActor(spec("actor-b", "driver-2", job_id="job-2", name="counter"), get_if_exists=True))
    second.send(CreateActor(spec("actor-c", "driver-2", job_id="job-2", name="counter")))
    cluster.run()
    shared, refused = second.take(CreateActorReply)
    assert shared == CreateActorReply("actor-b", existing=A, class_id="class-1")
    assert (refused.existing, refused.error[:19]) == (A, "the name 'counter' ")
    assert [(state.actor_id, state.state) for state in second.take(ActorState)] == [(A, "alive")]
    assert node.take(PlaceActor) == []


def test_a_kill_goes_to_the_node_with_its_incarnation(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=1)
    driver.send(KillActor(A, no_restart=False))
    cluster.run()
    assert cluster.kills(node) == [(A, 1, False)]
    node.send(ActorLost(A, 1, "killed by SIGKILL", expected=True))
    cluster.run()
    assert cluster.answer_ready(node).incarnation == 2
    driver.send(KillActor(A, graceful=True))
    cluster.run()
    assert cluster.kills(node) == [(A, 2, True)]
    assert driver.states() == ["alive", "restarting", "alive"]
    driver.send(KillActor(A))
    cluster.run()
    assert cluster.kills(node) == [(A, 2, False)]
    assert driver.states() == ["dead"]


def test_rule_23_an_actor_out_of_scope_is_drained(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node)
    driver.send(ActorOutOfScope(A))
    cluster.run()
    assert cluster.kills(node) == [(A, 1, True)]
    assert driver.states() == ["alive"]
    node.send(ActorLost(A, 1, "", expected=True))
    cluster.run()
    (state,) = driver.take(ActorState)
    assert state.died is not None
    assert state.died.kind == "out_of_scope"


def test_rule_22_a_victim_of_a_co_tenant_restarts_for_free(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, shared=True)
    node.send(ActorLost(A, 1, "its host process died", spent=False))
    cluster.run()
    assert cluster.answer_ready(node).incarnation == 2


# Checkpoints ------------------------------------------------------------------------------------------------


def test_rule_21_the_next_incarnation_gets_the_newest_checkpoint(cluster: Cluster) -> None:
    node, driver, worker = cluster.node(), cluster.driver(), cluster.party("worker", "worker-9")
    cluster.make_alive(driver, node, max_restarts=1)
    worker.send(SaveCheckpoint(A, 1, 1, b"one"), SaveCheckpoint(A, 1, 2, b"two"))
    cluster.run()
    assert worker.take(CheckpointSaved) == [CheckpointSaved(A, 1, 1), CheckpointSaved(A, 1, 2)]
    node.send(ActorLost(A, 1, "killed"))
    cluster.run()
    worker.send(SaveCheckpoint(A, 1, 3, b"from the dead"))
    cluster.run()
    (refused,) = worker.take(CheckpointSaved)
    assert refused.error == "incarnation 1 wrote it, and the actor is at incarnation 2"
    assert refused.over
    assert cluster.answer_ready(node).checkpoint == b"two"
    driver.send(KillActor(A))
    cluster.run()
    assert cluster.head._actors.checkpoints.total_bytes() == 0


# Who is gone ------------------------------------------------------------------------------------------------


def test_a_lost_node_takes_its_actors_with_it(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, "actor-a", max_restarts=1)
    cluster.make_alive(driver, node, "actor-b")
    cluster.kill(node)
    states = {(state.actor_id, state.state) for state in driver.take(ActorState)}
    assert {("actor-a", "restarting"), ("actor-b", "dead")} <= states
    second = cluster.node("node-2")
    assert [(p.spec.actor_id, p.incarnation) for p in second.take(PlaceActor)] == [("actor-a", 2)]


def test_a_lost_worker_takes_the_actors_it_owns(cluster: Cluster) -> None:
    node, driver, worker = cluster.node(), cluster.driver(), cluster.party("worker", "worker-9")
    cluster.make_alive(worker, node)
    driver.send(WatchActor(A))
    cluster.kill(worker)
    assert cluster.kills(node) == [(A, 1, False)]
    *_, last = driver.take(ActorState)
    assert last.died is not None
    assert last.died.kind == "owner_died"


def test_detached_actors_outlive_their_job(cluster: Cluster) -> None:
    node, driver, other = cluster.node(), cluster.driver(), cluster.driver("driver-2", "job-2")
    cluster.make_alive(driver, node, "actor-a")
    cluster.make_alive(driver, node, "actor-b", detached=True)
    other.send(WatchActor("actor-a"), WatchActor("actor-b"))
    cluster.run()
    other.take(ActorState)
    cluster.kill(driver)
    assert [(s.actor_id, s.died and s.died.kind) for s in other.take(ActorState)] == [("actor-a", "job_ended")]
    assert cluster.kills(node) == [("actor-a", 1, False)]
    node.send(ActorLost("actor-b", 1, "killed by SIGKILL", expected=True))
    cluster.run()
    assert [(s.actor_id, s.state) for s in other.take(ActorState)] == [("actor-b", "dead")]


def test_a_process_that_connects_again_is_not_lost(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node)
    again = cluster.party("driver", "driver-1", host="driver-1, again")
    cluster.kill(driver)
    assert cluster.kills(node) == []
    cluster.kill(again)
    assert cluster.kills(node) == [(A, 1, False)]


def test_a_node_that_connects_again_begins_anew(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, "actor-a", max_restarts=1)
    again = cluster.party("node", "node-1", job_id="", host="node-1, again")
    again.send(NodeInfo("node-1", "unix:/node-1", {"CPU": 40_000}), ActorReady("actor-a", 1, "w", "unix:/w"))
    cluster.run()
    assert node.lost, "the old connection is closed"
    assert cluster.kills(again) == [("actor-a", 1, False)] * 2, "once for having been there, once for its word"
    assert cluster.answer_ready(again).incarnation == 2
    assert driver.states() == ["alive", "restarting", "alive"]
    cluster.kill(again)
    assert driver.states() == ["dead"]


def test_who_wants_to_know_is_told_of_nodes_that_are_given_up_and_of_no_others(cluster: Cluster) -> None:
    lost: list[str] = []
    cluster.head.on_node_lost = lost.append
    cluster.node()
    again = cluster.party("node", "node-1", job_id="", host="node-1, again")
    again.send(NodeInfo("node-1", "unix:/node-1", {"CPU": 40_000}))
    cluster.run()
    cluster.kill(cluster.driver())
    cluster.kill(cluster.party("node", "node-2", job_id=""))
    assert lost == [], "a new connection of the same node, a driver, and one that has not said what it is"
    cluster.kill(again)
    assert lost == ["node-1"]


def test_a_node_that_has_proven_who_it_is_cannot_say_that_it_is_another(cluster: Cluster) -> None:
    first = cluster.node("node-1")
    rogue = cluster.party("node", "rogue", job_id="")
    peer = next(peer for peer in cluster.head._peers._open if peer.process_id == "rogue")
    peer.proof = Proof("node", "rogue", "", "NODE")  # As between machines.
    rogue.send(NodeInfo("node-1", "unix:/elsewhere", {"CPU": 40_000}))
    cluster.run()
    assert rogue.lost
    assert not first.lost


def test_a_driver_of_an_ended_job_is_refused(cluster: Cluster) -> None:
    cluster.kill(cluster.driver())
    late = cluster.party("driver", "driver-3")
    assert late.lost


def test_a_message_that_its_sender_never_says_ends_the_connection(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    driver.send(ActorReady(A, 1, "w", "unix:/w"))
    cluster.run()
    assert driver.lost
    assert not node.lost


def test_a_bug_in_one_actors_story_is_reported_and_nobody_else_notices(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node)
    node.send(ActorFailed(A, 1, ActorDied("init_failed", "after ready")))
    with pytest.raises(SimulationFailed, match="is alive and met FAILED"):
        cluster.run()
    cluster.make_alive(driver, node, "actor-b")
    assert driver.states() == ["alive", "alive"]


def test_a_stopped_head_declares_nobody_lost(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    cluster.make_alive(driver, node, max_restarts=-1)
    cluster.world.run_until(cluster.host.run(cluster.head.stop()))
    cluster.run(60.0)
    assert node.lost
    assert driver.lost
    assert driver.states() == ["alive"]


# Looking ----------------------------------------------------------------------------------------------------


def test_rows_of_the_heads_own_tables(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver(namespace="blue")
    cluster.make_alive(driver, node, name="counter", resources={"CPU": 5_000})
    driver.send(CreateActor(spec("actor-b", "driver-1")), KillActor("actor-b"))
    driver.send(*(StateQuery(token, kind) for token, kind in enumerate(["nodes", "jobs", "actors"])))
    cluster.run()
    nodes, jobs, actors = (json.loads(reply.rows) for reply in driver.take(StateReply))
    for rows, columns in ((nodes, NodeRow), (jobs, JobRow), (actors, ActorRow)):
        assert all(list(row) == list(columns.__annotations__) for row in rows)
    assert [(row["node_id"], row["state"], row["resources"]) for row in nodes] == [("node-1", "alive", {"CPU": 4})]
    assert [(row["job_id"], row["namespace"], row["actors"]) for row in jobs] == [("job-1", "blue", 1)]
    alive, dead = actors
    assert (alive["state"], alive["name"], alive["resources"]) == ("alive", "counter", {"CPU": 0.5})
    assert alive["story"][1].endswith("s  placed on node node-1")
    assert abs(alive["created_at"] - cluster.host.ports.wall_time()) < 10
    assert (dead["state"], dead["died"], dead["reason"]) == (
        "dead",
        "killed",
        "it was killed by driver driver-1",
    )


def test_one_actor_and_a_limit(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    for number in range(3):
        cluster.make_alive(driver, node, f"actor-{number}")
    driver.send(StateQuery(1, "actors", limit=2), StateQuery(2, "actors", actor_id="actor-1"))
    driver.send(StateQuery(3, "actors", actor_id="nobody"), StateQuery(4, "actorz"))
    cluster.run()
    some, one, none, wrong = driver.take(StateReply)
    assert ([row["actor_id"] for row in json.loads(some.rows)], some.truncated) == (
        ["actor-2", "actor-1"],
        True,
    )
    assert ([row["actor_id"] for row in json.loads(one.rows)], one.truncated) == (["actor-1"], False)
    assert none.rows == b"[]"
    assert wrong.error.startswith("there is no kind of state 'actorz': known are nodes, jobs, actors, placement_groups, tasks")


def test_nodes_answer_together_and_the_silent_are_named_in_time(cluster: Cluster) -> None:
    nodes = [cluster.node(f"node-{number}") for number in range(4)]
    driver = cluster.driver()
    driver.send(StateQuery(7, "tasks", limit=3, timeout_s=2.0))
    cluster.run(0.1)
    questions = [node.take(StateQuery)[0] for node in nodes]
    assert {question.timeout_s for question in questions} == {1.6}
    rows = [b'[{"task":"a"},{"task":"b"}]', b'[{"task":"c"},{"task":"d"}]', b"not json"]
    for node, question, answer in zip(nodes, questions, rows, strict=False):
        node.send(StateReply(question.token, answer, ["worker-5"] if node is nodes[0] else []))
    cluster.run(1.0)
    assert driver.take(StateReply) == []
    cluster.run(0.9)
    (reply,) = driver.take(StateReply)
    assert (reply.token, reply.missing, reply.truncated) == (7, ["worker-5", "node-2", "node-3"], True)
    assert [row["task"] for row in json.loads(reply.rows)] == ["a", "b", "c"]
    assert "node-2 answered with what is not JSON" in reply.error
    nodes[3].send(StateReply(questions[3].token, b"[]"))
    cluster.run()
    assert driver.take(StateReply) == [], "HS-1: once"


def test_a_lost_node_does_not_hold_up_an_answer(cluster: Cluster) -> None:
    node, driver = cluster.node(), cluster.driver()
    driver.send(StateQuery(1, "workers", timeout_s=30.0))
    cluster.run()
    cluster.kill(node)
    (reply,) = driver.take(StateReply)
    assert (reply.rows, reply.missing) == (b"[]", ["node-1"])
    driver.send(StateQuery(2, "workers", timeout_s=30.0))
    cluster.run()
    (reply,) = driver.take(StateReply)
    assert (reply.rows, reply.missing) == (b"[]", []), "no node is left to ask"


def test_queries_under_way_are_bounded() -> None:
    with Cluster(state_queries_max=2) as cluster:
        cluster.node()
        driver = cluster.driver()
        driver.send(*(StateQuery(token, "tasks") for token in range(3)))
        cluster.run()
        (reply,) = driver.take(StateReply)
        assert reply.token == 2
        assert "the limit of this head" in reply.error
        cluster.run(5.0)
        assert [reply.missing for reply in driver.take(StateReply)] == [["node-1"], ["node-1"]]
