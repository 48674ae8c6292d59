"""A node with a lease, whose head does not answer it any more: other nodes do, or not. LV-n are those of policy/liveness.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.node.tenancy import GIVEN_UP
from actorflow._core.policy.liveness import BEAT_S, LEASE_S, RELAY_AFTER_S, RELAYS_MAX
from actorflow._core.protocol.messages import (
    AnyMessage,
    Beat,
    BeatHeard,
    BeatHeardOf,
    BeatOf,
    NodeEntry,
    NodesChanged,
    RelayBeat,
)
from actorflow.testing import World
from tests.unit.node.fakes import Cluster, Speaker


@pytest.fixture
def world() -> Iterator[World]:
    with World(5) as world:
        yield world


class Leased(Cluster):
    """A node with a lease. The head answers beats while `answers`."""

    def __init__(self, world: World, others: int = 0, *, has_lease: bool = True) -> None:
        super().__init__(world, has_lease=has_lease)
        self.answers = True
        self.head.on_message = self._answer
        self.others = [self._other(f"other-{number}") for number in range(others)]
        entries = [NodeEntry(one.process_id, f"unix:/c/{one.process_id}", 1, {"CPU": UNIT}, {"CPU": UNIT}) for one in self.others]
        self.head.send(NodesChanged(entries, whole=True))
        world.run_for(3.0)

    def _other(self, name: str) -> Speaker:
        other = Speaker(self.world.host(name), "node", name)
        self.run(other.host, other.peers.listen(f"unix:/c/{name}"))
        return other

    def _answer(self, message: AnyMessage) -> None:
        if isinstance(message, Beat) and self.answers:
            self.head.send(BeatHeard(message.number))

    def asked(self) -> list[str]:
        return [one.process_id for one in self.others if one.got(RelayBeat)]


def brings(other: Speaker) -> None:
    """From now on it brings an answer to each beat."""

    def answer(message: AnyMessage) -> None:
        if isinstance(message, RelayBeat):
            other.send(BeatHeard(message.number))

    other.on_message = answer


def test_nobody_is_asked_while_the_head_answers(world: World) -> None:
    cluster = Leased(world, others=2)
    world.run_for(30.0)
    assert cluster.asked() == []
    assert cluster.gone == []


def test_lv_4_an_answer_that_another_node_brings_is_a_lease_as_any_other(world: World) -> None:
    cluster = Leased(world, others=5)
    for other in cluster.others:
        brings(other)
    cluster.answers = False
    world.run_for(RELAY_AFTER_S)
    assert cluster.asked() == []
    world.run_for(2 * BEAT_S)
    assert len(cluster.asked()) == RELAYS_MAX
    world.run_for(30.0)
    assert len(cluster.asked()) == RELAYS_MAX, "those that are of use are asked again"
    assert cluster.gone == []
    numbers = [message.number for message in cluster.head.got(Beat)]
    assert len(numbers) > 30, "it is said to the head too, all the time"
    for other in cluster.others:
        other.on_message = lambda message: None
    world.run_for(LEASE_S - 1.5)
    assert cluster.gone == []
    world.run_for(2.0)
    assert cluster.gone == [GIVEN_UP]
    assert len(cluster.asked()) == 5, "and others when they are not"


def test_lv_6_an_answer_of_one_that_was_not_asked_is_none(world: World) -> None:
    cluster = Leased(world, others=0)
    stranger = Speaker(world.host("stranger"), "node", "stranger")
    stranger.join()
    cluster.until(lambda: stranger.peer is not None and stranger.peer.role == "node")
    cluster.answers = False
    for _ in range(20):
        stranger.send(*(BeatHeard(number) for number in range(100)))
        world.run_for(0.5)
    assert cluster.gone == [GIVEN_UP]


def test_beats_of_others_are_passed_on_and_their_answers_back(world: World) -> None:
    cluster = Leased(world)
    other = Speaker(world.host("other"), "node", "other")
    other.join()
    cluster.until(lambda: other.peer is not None and other.peer.role == "node")
    other.send(RelayBeat(17))
    world.run_for(0.5)
    assert cluster.head.got(BeatOf) == [BeatOf("other", 17)]
    assert other.got(BeatHeard) == []
    cluster.head.send(BeatHeardOf("other", 17), BeatHeardOf("nobody", 18))
    world.run_for(0.5)
    assert other.got(BeatHeard) == [BeatHeard(17)]


def test_lv_6_who_is_not_answered_passes_nothing_on(world: World) -> None:
    cluster = Leased(world)
    other = Speaker(world.host("other"), "node", "other")
    other.join()
    cluster.until(lambda: other.peer is not None and other.peer.role == "node")
    cluster.answers = False
    world.run_for(RELAY_AFTER_S + 2 * BEAT_S)
    other.send(RelayBeat(17))
    world.run_for(0.5)
    assert cluster.head.got(BeatOf) == []
    cluster.answers = True
    world.run_for(2.0)
    other.send(RelayBeat(18))
    world.run_for(0.5)
    assert cluster.head.got(BeatOf) == [BeatOf("other", 18)]


def test_lv_6_the_first_node_passes_nothing_on(world: World) -> None:
    """Who cannot reach the head cannot reach it either, or only the connection with the head is bad: as in a cluster of two nodes."""
    cluster = Leased(world, has_lease=False)
    other = Speaker(world.host("other"), "node", "other")
    other.join()
    cluster.until(lambda: other.peer is not None and other.peer.role == "node")
    other.send(RelayBeat(17))
    world.run_for(0.5)
    assert cluster.head.got(BeatOf) == []
    assert not other.lost


def test_lp_4_the_head_is_known_to_live_as_long_as_the_lease_lasts(world: World) -> None:
    cluster = Leased(world)
    peer = cluster.node._head._peer
    assert peer is not None
    assert cluster.node.alive_by_another_way(peer)
    cluster.answers = False
    world.run_for(LEASE_S - 1.5)
    assert cluster.node.alive_by_another_way(peer)
    world.run_for(2.0)
    assert not cluster.node.alive_by_another_way(peer)


def test_nobody_is_asked_when_the_link_with_the_head_has_ended(world: World) -> None:
    """The next life of the head does not watch this node, and a new link begins anew."""
    cluster = Leased(world, others=3)
    world.kill(cluster.head.host)
    cluster.until(lambda: cluster.gone)
    assert cluster.asked() == []
