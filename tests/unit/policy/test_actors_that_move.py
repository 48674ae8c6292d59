"""Actors whose node is to leave. AC-n are those of policy/actors.py."""

from __future__ import annotations

from actorflow._core.policy.actor_decisions import FindNode, Stop
from actorflow._core.policy.actors import ActorTable
from actorflow._core.protocol.messages import ActorDied, ActorSpec, HostedActor
from tests.unit.policy.test_actors import NODE, WORKER, A, B, again, alive, dead, living, lose, told

REASON = "its machine is taken back"


def anywhere(spec: ActorSpec) -> bool:
    return True


def test_ac_8_an_actor_that_moves_spends_no_restart_and_does_not_wait() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    for incarnation in range(1, 6):
        assert table.move_away(NODE, anywhere, REASON, 1.0) == [Stop(NODE, A, incarnation, graceful=True, moves=True, returns=True)]
        decisions = lose(table, A, incarnation, 1.0, expected=True)
        (find,) = [d for d in decisions if isinstance(d, FindNode)]
        assert (find.incarnation, find.delay_s) == (incarnation + 1, 0.0)
        (state,) = told(decisions)
        assert state.died is not None
        assert state.died.drained, "whoever calls it may know that it has answered all that it took"
        again(table, A, incarnation + 1, 1.0)
    assert living(table).restarts == 0
    assert [s.state for s in told(lose(table, A, 6, 2.0))] == ["restarting"], "this one is a failure, and the first"
    assert living(table).restarts == 1


def test_ac_8_nor_does_one_whose_process_dies_while_it_is_to_move() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    table.move_away(NODE, anywhere, REASON, 1.0)
    lose(table, A, 1, 1.0)
    assert living(table).restarts == 0


def test_an_actor_that_may_have_no_other_life_stays() -> None:
    table = ActorTable()
    alive(table, max_restarts=0)
    assert table.move_away(NODE, anywhere, REASON, 1.0) == []
    table.node_lost(NODE, "it was drained", 2.0, left=True)
    assert dead(table).died.reason.startswith(f"its node {NODE} has left: it was drained (max_restarts=0")


def test_it_moves_when_there_is_room_elsewhere_and_is_told_once() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    assert table.move_away(NODE, lambda spec: False, REASON, 1.0) == []
    assert len(table.move_away(NODE, anywhere, REASON, 2.0)) == 1
    assert table.move_away(NODE, anywhere, REASON, 3.0) == []


def test_ac_8_what_is_left_when_the_node_leaves_spends_no_restart_either() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    decisions = table.node_lost(NODE, "its time was over", 2.0, left=True)
    assert [s.state for s in told(decisions)] == ["restarting"]
    assert living(table).restarts == 0


def test_one_that_is_killed_while_it_is_to_move_is_dead_when_it_has_left() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    table.move_away(NODE, anywhere, REASON, 1.0)
    table.kill(A, no_restart=True, graceful=True, by="driver d", now=1.1)
    lose(table, A, 1, 1.2, expected=True)
    assert dead(table).died.kind == "killed"


def test_one_that_is_about_to_end_is_left_alone() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    alive(table, B, max_restarts=1)
    table.kill(A, no_restart=True, graceful=True, by="driver d", now=1.0)
    table.bounce(B, "its supervision wants it", 1.0)
    assert table.move_away(NODE, anywhere, REASON, 1.1) == []


def test_a_head_that_is_back_says_again_that_it_is_to_move() -> None:
    table = ActorTable()
    actor = alive(table, max_restarts=1)
    table.move_away(NODE, anywhere, REASON, 1.0)
    hosted = [HostedActor(A, 1, WORKER, f"unix:/{WORKER}")]
    assert table.node_hosts(NODE, hosted, 2.0) == [Stop(NODE, A, 1, graceful=True, moves=True, returns=True)]
    actor.leaving = ActorDied("killed", "it was killed")
    assert table.node_hosts(NODE, hosted, 2.0) == [Stop(NODE, A, 1, graceful=True, moves=False)]
