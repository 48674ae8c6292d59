"""What the head tells it knows after any crash (HM-1, HM-2), and whom it waits for (HR-1, HR-2)."""

from __future__ import annotations

from actorflow._core.head.returning import RETURN_S
from actorflow._core.protocol.messages import (
    ActorState,
    Beat,
    BeatHeard,
    CheckpointSaved,
    CreateActor,
    CreateActorReply,
    FindActor,
    FindActorReply,
    Hosted,
    HostedActor,
    KillActor,
    NodeInfo,
    PlaceActor,
    SaveCheckpoint,
    Shutdown,
    WatchActor,
)
from tests.unit.head.harness import Cluster, Party, spec


def again(cluster: Cluster, role: str, name: str, job_id: str = "job-1") -> Party:
    """The same process, on a new connection."""
    return cluster.party(role, name, job_id, host=f"{name} on connection {cluster.lives}")


def node_again(cluster: Cluster, *hosted: HostedActor, name: str = "node-1") -> Party:
    node = again(cluster, "node", name, "")
    node.send(NodeInfo(name, f"unix:/{name}", {"CPU": 40_000}, {"zone": "a"}), Hosted(list(hosted)))
    cluster.run()
    return node


def test_hm_1_nobody_is_told_what_is_not_on_the_disk_and_beats_go_past() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.disk.sync_errors_planned = 10_000
        driver.send(CreateActor(spec("actor-a", "driver-1", name="one")))
        node.send(Beat(1))
        cluster.run(3.0)
        assert driver.received == []
        assert node.take(PlaceActor) == [], "a node that had it would have what the head forgets"
        assert len(node.take(BeatHeard)) == 1
        cluster.disk.sync_errors_planned = 0
        cluster.run(3.0)
        assert [reply.error for reply in driver.take(CreateActorReply)] == [""]
        assert len(node.take(PlaceActor)) == 1


def test_what_was_acknowledged_is_there_again() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.make_alive(driver, node, "actor-a", name="one", max_restarts=2)
        driver.send(SaveCheckpoint("actor-a", 1, 3, b"state"))
        cluster.run()
        assert len(driver.take(CheckpointSaved)) == 1
        cluster.come_back()
        driver = again(cluster, "driver", "driver-1")
        driver.send(FindActor(7, "one", ""), WatchActor("actor-a"))
        cluster.run()
        [found] = driver.take(FindActorReply)
        assert (found.actor_id, found.class_name, found.methods) == ("actor-a", "Counter", b"methods")
        [state] = driver.take(ActorState)
        assert (state.state, state.incarnation, state.worker_id) == ("alive", 1, "worker-of-actor-a")
        node = node_again(cluster)
        [place] = node.take(PlaceActor)
        assert (place.incarnation, place.checkpoint, place.spec.class_pickle) == (2, b"state", b"pickle"), "it was not there any more"


def test_hm_2_a_class_whose_last_actor_ends_in_the_turn_in_which_another_begins_is_kept() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.make_alive(driver, node, "actor-a")
        driver.send(KillActor("actor-a"), CreateActor(spec("actor-b", "driver-1")))
        cluster.run()
        cluster.come_back()
        node = node_again(cluster)
        [place] = node.take(PlaceActor)
        assert (place.spec.actor_id, place.spec.class_pickle) == ("actor-b", b"pickle")


def test_what_a_node_has_is_how_it_is() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        for actor_id in ("actor-a", "actor-b", "actor-c"):
            cluster.make_alive(driver, node, actor_id, max_restarts=1)
        driver.send(KillActor("actor-c"), CreateActor(spec("actor-d", "driver-1")))
        cluster.run()
        cluster.come_back()
        driver = again(cluster, "driver", "driver-1")
        node = node_again(
            cluster,
            HostedActor("actor-a", 1, "worker-of-actor-a", "unix:/worker-of-actor-a"),
            HostedActor("actor-c", 1, "worker-of-actor-c", "unix:/worker-of-actor-c"),
            HostedActor("actor-d", 1, "worker-of-actor-d", "unix:/worker-of-actor-d"),
        )
        assert cluster.kills(node) == [("actor-c", 1, False)], "it was killed, and its node has not heard of it"
        assert [(place.spec.actor_id, place.incarnation) for place in node.take(PlaceActor)] == [("actor-b", 2)]
        for actor_id in ("actor-a", "actor-b", "actor-c", "actor-d"):
            driver.send(WatchActor(actor_id))
        cluster.run()
        states = {state.actor_id: (state.state, state.incarnation) for state in driver.take(ActorState)}
        assert states == {"actor-a": ("alive", 1), "actor-b": ("restarting", 2), "actor-c": ("dead", 1), "actor-d": ("alive", 1)}


def test_hr_1_nothing_is_placed_before_all_nodes_are_back_and_hr_2_who_is_not_back_is_lost() -> None:
    with Cluster(durable=True) as cluster:
        first, driver = cluster.node("node-1"), cluster.driver()
        cluster.make_alive(driver, first, "actor-a", max_restarts=1)
        cluster.node("node-2")
        cluster.come_back()
        driver = again(cluster, "driver", "driver-1")
        second = node_again(cluster, name="node-2")
        driver.send(CreateActor(spec("actor-b", "driver-1")))
        cluster.run(RETURN_S - 2.0)
        assert second.take(PlaceActor) == [], "node-1 may come back in a moment"
        cluster.run(2.0)
        assert sorted((place.spec.actor_id, place.incarnation) for place in second.take(PlaceActor)) == [("actor-a", 2), ("actor-b", 1)]


def test_hr_2_a_driver_that_does_not_come_back_takes_its_job_along() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.make_alive(driver, node, "actor-a")
        cluster.make_alive(driver, node, "actor-b", detached=True, name="kept")
        cluster.come_back()
        node = node_again(
            cluster,
            HostedActor("actor-a", 1, "worker-of-actor-a", "unix:/worker-of-actor-a"),
            HostedActor("actor-b", 1, "worker-of-actor-b", "unix:/worker-of-actor-b"),
        )
        cluster.run(RETURN_S - 2.0)
        assert cluster.kills(node) == []
        cluster.run(2.0)
        assert cluster.kills(node) == [("actor-a", 1, False)]


def test_what_a_node_has_of_before_it_was_lost_is_ended_there_also_when_the_head_has_died_meanwhile() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.make_alive(driver, node, "actor-a")
        cluster.kill(node)  # To the head; the node has only lost its connection.
        cluster.come_back()
        node = node_again(cluster, HostedActor("actor-a", 1, "worker-of-actor-a", "unix:/worker-of-actor-a"))
        assert cluster.kills(node) == [("actor-a", 1, False)]


def test_a_driver_that_was_given_up_is_told_so_when_it_comes_back() -> None:
    with Cluster(durable=True) as cluster:
        cluster.node()
        driver = cluster.driver()
        cluster.kill(driver)  # To the head; the driver has only lost its connection.
        cluster.lives += 1
        back = again(cluster, "driver", "driver-1")
        [told] = back.take(Shutdown)
        assert "job job-1 has ended" in told.reason
        assert back.lost


def test_a_head_that_had_no_node_left_knows_the_rest_all_the_same() -> None:
    with Cluster(durable=True) as cluster:
        node, driver = cluster.node(), cluster.driver()
        cluster.make_alive(driver, node, "actor-a", detached=True, name="one", max_restarts=1)
        cluster.kill(node)
        cluster.come_back()
        again(cluster, "driver", "driver-1")
        fresh = node_again(cluster, name="node-2")
        [place] = fresh.take(PlaceActor)
        assert (place.spec.actor_id, place.incarnation) == ("actor-a", 2)
        cluster.run(RETURN_S)
        assert cluster.kills(fresh) == []
