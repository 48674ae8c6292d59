"""The life of actors: state, act, compare. Rules are those of SEMANTICS, AC-n those of policy/actors.py."""

from __future__ import annotations

from typing import Any

import pytest

from actorflow._core.base.errors import InternalError
from actorflow._core.policy.actor_decisions import Answer, Decision, FindNode, Forget, Place, Publish, Stop
from actorflow._core.policy.actor_record import NEXT, STORY_EVENTS_MAX, Actor, State, restart_delay_s
from actorflow._core.policy.actors import PLACE_TIMEOUT_S, STEADY_S, ActorTable
from actorflow._core.policy.early import EARLY_S
from actorflow._core.policy.graveyard import DeadActor, tell_story
from actorflow._core.protocol.messages import ActorDied, ActorSpec, ActorState, CreateActorReply

A, B, NODE, WORKER, DRIVER, JOB = "actor-a", "actor-b", "node-1", "worker-1", "driver-1", "job-1"


def spec(actor_id: str = A, **options: Any) -> ActorSpec:
    owner = options.pop("owner", DRIVER)
    job_id = options.pop("job_id", JOB)
    resources = options.pop("resources", {})
    return ActorSpec(
        actor_id, job_id, owner, "unix:/owner", "class-1", "Counter", b"pickle", b"methods", b"args", None,
        None, None, resources, namespace=options.pop("namespace", "default"), **options,
    )  # fmt: skip


def create(table: ActorTable, actor_id: str = A, now: float = 0.0, creator: str = DRIVER, **options: Any) -> list[Decision]:
    get_if_exists = options.pop("get_if_exists", False)
    job_over = options.pop("job_over", False)
    return table.create(spec(actor_id, **options), creator, get_if_exists=get_if_exists, job_over=job_over, now=now)


def alive(table: ActorTable, actor_id: str = A, now: float = 0.0, worker: str = WORKER, **options: Any) -> Actor:
    create(table, actor_id, now, **options)
    table.placed(actor_id, 1, NODE, now)
    table.ready(actor_id, 1, NODE, worker, f"unix:/{worker}", now)
    return living(table, actor_id)


def again(table: ActorTable, actor_id: str, incarnation: int, now: float) -> None:
    table.placed(actor_id, incarnation, NODE, now)
    table.ready(actor_id, incarnation, NODE, WORKER, "unix:/w", now)


def lose(table: ActorTable, actor_id: str, incarnation: int, now: float, **options: Any) -> list[Decision]:
    options = {"expected": False, "spent": True, **options}
    return table.lost(actor_id, incarnation, NODE, "killed by SIGKILL", now=now, **options)


def living(table: ActorTable, actor_id: str = A) -> Actor:
    actor = table.find(actor_id)
    assert isinstance(actor, Actor)
    return actor


def dead(table: ActorTable, actor_id: str = A) -> DeadActor:
    actor = table.find(actor_id)
    assert isinstance(actor, DeadActor)
    return actor


def told(decisions: list[Decision], watcher: str = DRIVER) -> list[ActorState]:
    return [d.state for d in decisions if isinstance(d, Publish) and watcher in d.watchers]


# Birth ------------------------------------------------------------------------------------------------------


def test_create_answers_and_looks_for_a_node() -> None:
    table = ActorTable()
    assert create(table) == [Answer(DRIVER, CreateActorReply(A)), FindNode(A, 1, 0.0)]
    made = living(table).spec
    assert table.wants_node(A, 1) is made
    assert table.placed(A, 1, NODE, 0.1) == [Place(NODE, 1, made)]
    assert table.wants_node(A, 1) is None


def test_ready_is_told_to_the_creator_and_to_watchers() -> None:
    table = ActorTable()
    create(table)
    table.placed(A, 1, NODE, 0.1)
    assert table.watch(A, "w2", 0.2) == [Publish(("w2",), ActorState(A, "pending", 1))]
    state = ActorState(A, "alive", 1, WORKER, "unix:/w")
    assert table.ready(A, 1, NODE, WORKER, "unix:/w", 0.3) == [Publish((DRIVER, "w2"), state)]
    assert table.ready(A, 1, NODE, WORKER, "unix:/w", 0.4) == [], "a repeated word changes nothing"


def test_create_is_idempotent_by_id() -> None:
    table = ActorTable()
    alive(table)
    decisions = create(table, now=1.0)
    assert decisions[0] == Answer(DRIVER, CreateActorReply(A))
    assert [state.state for state in told(decisions)] == ["alive"]
    assert len(decisions) == 2, "no second incarnation is placed (AC-1)"


def test_a_taken_name_is_an_error_that_says_what_to_do() -> None:
    table = ActorTable()
    create(table, name="counter")
    (answer,) = create(table, B, name="counter")
    assert isinstance(answer, Answer)
    assert answer.reply.existing == A
    assert "'counter'" in answer.reply.error
    assert "get_if_exists=True" in answer.reply.error
    assert dead(table, B).died.kind == "refused"
    other = create(table, "actor-c", name="counter", namespace="other")
    assert other[0] == Answer(DRIVER, CreateActorReply("actor-c"))


def test_get_if_exists_names_the_actor_that_is_there_and_its_state() -> None:
    table = ActorTable()
    alive(table, name="counter")
    decisions = create(table, B, name="counter", get_if_exists=True, creator="driver-2")
    assert decisions[0] == Answer("driver-2", CreateActorReply(B, existing=A, class_id="class-1"))
    assert [(s.actor_id, s.state) for s in told(decisions, "driver-2")] == [(A, "alive")]
    assert living(table).watchers == (DRIVER, "driver-2")


def test_a_name_is_free_again_after_death() -> None:
    table = ActorTable()
    create(table, name="counter")
    table.kill(A, no_restart=True, graceful=False, by="a test", now=1.0)
    assert create(table, B, name="counter")[0] == Answer(DRIVER, CreateActorReply(B))


def test_a_handle_may_be_faster_than_its_actor() -> None:
    table = ActorTable()
    assert table.watch(A, "w2", 0.0) == []
    decisions = create(table, now=0.1)
    assert [state.state for state in told(decisions, "w2")] == ["pending"]
    assert living(table).watchers == ("w2", DRIVER)
    assert table.next_deadline() is None


def test_a_kill_may_be_faster_than_its_actor() -> None:
    table = ActorTable()
    assert table.kill(A, no_restart=True, graceful=False, by="a test", now=0.0) == []
    decisions = create(table, now=0.1)
    assert [state.state for state in told(decisions)] == ["dead"]
    assert FindNode(A, 1, 0.0) not in decisions


def test_a_life_that_is_to_end_for_another_ends_once_however_often_it_is_said() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)

    def bounced(incarnation: int, now: float) -> list[Decision]:
        return table.kill(A, no_restart=False, graceful=False, by="a test", now=now, incarnation=incarnation)

    assert bounced(1, 1.0) == [Stop(NODE, A, 1, False, returns=True)]
    assert bounced(1, 1.1) == []
    lose(table, A, 1, 1.2, expected=True)
    again(table, A, 2, 1.3)
    assert bounced(1, 2.0) == [] and living(table).incarnation == 2, "the life that was meant is over"
    assert any(isinstance(decision, Stop) for decision in bounced(2, 3.0)), "this one has no other after it"


def test_who_watches_what_never_comes_is_told_so() -> None:
    table = ActorTable()
    table.watch(A, "w2", 0.0)
    assert table.next_deadline() == EARLY_S
    assert table.tick(EARLY_S - 0.1) == []
    (publish,) = table.tick(EARLY_S)
    assert isinstance(publish, Publish)
    assert publish.state.died is not None
    assert publish.state.died.kind == "forgotten"
    late = create(table, now=EARLY_S + 1)
    assert [state.state for state in told(late)] == ["dead"], "AC-2: it was called dead, so it stays dead"


def test_a_head_that_is_full_refuses() -> None:
    table = ActorTable(actors_max=1)
    create(table)
    (answer,) = create(table, B)
    assert isinstance(answer, Answer)
    assert answer.reply.error.startswith("1 actors are alive, the limit")


# Finding a node ---------------------------------------------------------------------------------------------


def test_an_actor_that_no_node_can_ever_hold_dies_at_once() -> None:
    table = ActorTable()
    create(table)
    decisions = table.not_placed(A, 1, "it asks for 9 CPU", infeasible=True, now=0.0)
    (state,) = told(decisions)
    assert state.died is not None
    assert (state.died.kind, state.died.reason) == ("unschedulable", "it asks for 9 CPU")


def test_an_actor_waits_for_the_first_node_but_not_for_ever() -> None:
    table = ActorTable()
    create(table, now=1.0)
    assert table.not_placed(A, 1, "no node", infeasible=False, now=1.0) == []
    assert table.node_joined(NODE) == [FindNode(A, 1, 0.0)]
    assert table.next_deadline() == 1.0 + PLACE_TIMEOUT_S
    assert table.tick(1.0 + PLACE_TIMEOUT_S - 0.1) == []
    assert table.not_placed(A, 1, "it asks for 9 CPU", infeasible=False, now=2.0) == []
    (state,) = told(table.tick(1.0 + PLACE_TIMEOUT_S))
    assert state.died is not None
    assert state.died.kind == "unschedulable"
    assert state.died.reason == "no node that could hold it came within 30 s: it asks for 9 CPU", "as it was the last time"


def test_a_restart_waits_for_a_node_that_may_come_back() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    assert table.node_lost(NODE, "reset", 1.0)[-1] == FindNode(A, 2, 0.0)
    assert table.not_placed(A, 2, "it asks for 9 CPU", infeasible=True, now=1.0) == []
    stop = Stop(NODE, A, 1, graceful=False)
    actor = table.find(A)
    assert isinstance(actor, Actor)
    assert tell_story(actor.story, 1.0)[-1] == "+0.000 s  waits for a node: it asks for 9 CPU"
    assert table.node_joined(NODE) == [stop, FindNode(A, 2, 0.0)], "what was given up is ended before anything"
    assert table.node_joined(NODE) == [FindNode(A, 2, 0.0)]


def test_a_place_found_too_late_is_not_used() -> None:
    table = ActorTable()
    create(table)
    table.kill(A, no_restart=True, graceful=False, by="a test", now=0.0)
    assert table.placed(A, 1, NODE, 0.1) == []


# Losing an incarnation --------------------------------------------------------------------------------------


def test_without_restarts_a_crash_is_the_end_and_its_error_teaches() -> None:
    table = ActorTable()
    alive(table)
    decisions = lose(table, A, 1, now=2.0)
    (state,) = told(decisions)
    assert state.died is not None
    assert state.died.kind == "crashed"
    assert state.died.reason == "killed by SIGKILL (max_restarts=0, set it to let the actor restart)"
    assert state.died.story[0] == f"+0.000 s  created by {DRIVER}"
    assert state.died.story[1] == f"+0.000 s  placed on node {NODE}"
    assert decisions[-1] == Forget(A, state.died)


def test_the_log_lines_of_a_cause_stay_at_its_end() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    lose(table, A, 1, 1.0)
    again(table, A, 2, 1.0)
    table.lost(A, 2, NODE, "killed by SIGKILL\nlast line", expected=False, spent=True, now=2.0)
    allowed = "it was restarted 1 time, all that max_restarts=1 allows"
    assert dead(table).died.reason == f"killed by SIGKILL ({allowed})\nlast line"


@pytest.mark.parametrize(
    ("retries", "allowed"),
    [
        (0, "max_retries=0, set it to have it tried again"),
        (1, "it was tried again 1 time, all that max_retries=1 allows"),
        (2, "it was tried again 2 times, all that max_retries=2 allows"),
    ],
)
def test_the_end_of_a_detached_call_is_told_in_the_words_of_a_call(retries: int, allowed: str) -> None:
    table = ActorTable()
    table.makes_object = lambda actor_id: actor_id == A
    alive(table, max_restarts=retries)
    for incarnation in range(1, retries + 1):
        lose(table, A, incarnation, 1.0)
        again(table, A, incarnation + 1, 1.0)
    lose(table, A, retries + 1, 2.0)
    assert dead(table).died.reason == f"killed by SIGKILL ({allowed})"


def test_restarts_stop_at_max_restarts() -> None:
    table = ActorTable()
    alive(table, max_restarts=2)
    for incarnation in (1, 2):
        decisions = lose(table, A, incarnation, now=1.0)
        assert [state.state for state in told(decisions)] == ["restarting"]
        assert living(table).incarnation == incarnation + 1
        again(table, A, incarnation + 1, now=1.0)
    assert [state.state for state in told(lose(table, A, 3, now=2.0))] == ["dead"], "AC-3"


def test_restarting_tells_why_the_incarnation_before_ended() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    (state,) = told(lose(table, A, 1, now=1.0))
    assert (state.state, state.incarnation) == ("restarting", 2)
    assert state.died == ActorDied("crashed", "killed by SIGKILL")


def test_the_last_one_of_a_name_is_found_among_the_dead() -> None:
    table = ActorTable()
    alive(table, max_restarts=0, name="x")
    assert table.last_named("default", "x") is None
    lose(table, A, 1, now=1.0)
    found = table.last_named(dead(table).namespace, "x")
    assert found is not None
    assert found.actor_id == A
    assert table.last_named("another", "x") is None


def test_the_first_restart_is_at_once_and_later_ones_wait_longer() -> None:
    table = ActorTable()
    alive(table, max_restarts=-1)
    delays = []
    for incarnation in range(1, 10):
        (find,) = [d for d in lose(table, A, incarnation, now=1.0) if isinstance(d, FindNode)]
        delays.append(find.delay_s)
        again(table, A, incarnation + 1, now=1.0)
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    (find,) = [d for d in lose(table, A, 10, now=1.0 + STEADY_S) if isinstance(d, FindNode)]
    assert find.delay_s == 0.0, "it had been alive for long"
    pauses = [detail for _, what, detail in living(table).story if what == "restarts in"]
    assert pauses == [f"{delay_s:g} s" for delay_s in delays if delay_s][-len(pauses):], "its story says how long each took"
    assert pauses
    assert restart_delay_s(10_000) == 5.0


def test_rule_22_victims_of_a_co_tenant_do_not_spend_max_restarts() -> None:
    table = ActorTable()
    alive(table, shared=True, max_restarts=0)
    for incarnation in range(1, 6):
        assert [s.state for s in told(lose(table, A, incarnation, 1.0, spent=False))] == ["restarting"]
        again(table, A, incarnation + 1, 1.0)
    assert living(table).restarts == 0
    assert [s.state for s in told(lose(table, A, 6, 1.0))] == ["dead"]


def test_a_constructor_that_raises_is_the_end_whatever_max_restarts_says() -> None:
    table = ActorTable()
    create(table, max_restarts=-1)
    table.placed(A, 1, NODE, 0.0)
    died = ActorDied("init_failed", "ValueError: no")
    (state,) = told(table.failed(A, 1, NODE, died, 0.1))
    assert state == ActorState(A, "dead", 1, died=died)


def test_a_process_that_dies_in_the_constructor_is_a_crash() -> None:
    table = ActorTable()
    create(table, max_restarts=1)
    table.placed(A, 1, NODE, 0.0)
    assert [state.state for state in told(lose(table, A, 1, 0.1))] == ["restarting"]


def test_an_actor_that_ends_itself_is_not_restarted() -> None:
    table = ActorTable()
    alive(table, max_restarts=-1)
    lose(table, A, 1, 1.0, expected=True)
    assert dead(table).died.kind == "exited"


@pytest.mark.parametrize(("incarnation", "node"), [(1, NODE), (3, NODE), (2, "node-2"), (2, "")])
def test_ac6_stale_words_change_nothing(incarnation: int, node: str) -> None:
    table = ActorTable()
    alive(table, max_restarts=-1)
    lose(table, A, 1, 1.0)
    table.placed(A, 2, NODE, 1.0)
    before = living(table).story.copy()
    assert table.lost(A, incarnation, node, "late", expected=False, spent=True, now=2.0) == []
    assert table.failed(A, incarnation, node, ActorDied("init_failed", "late"), 2.0) == []
    stop = Stop(node, A, incarnation, graceful=False)
    assert table.ready(A, incarnation, node, "w", "unix:/w", 2.0) == [stop], "who got that far is ended"
    assert living(table).state is State.RESTARTING
    assert living(table).story == before


def test_words_of_an_unplaced_incarnation_are_stale() -> None:
    table = ActorTable()
    create(table)
    assert table.lost(A, 1, "", "late", expected=False, spent=True, now=1.0) == []
    assert living(table).state is State.PENDING


# Being ended ------------------------------------------------------------------------------------------------


def test_a_kill_is_told_at_once_and_late_words_are_fenced() -> None:
    table = ActorTable()
    alive(table, max_restarts=-1)
    decisions = table.kill(A, no_restart=True, graceful=False, by="driver driver-1", now=1.0)
    assert decisions[0] == Stop(NODE, A, 1, graceful=False)
    assert [state.died for state in told(decisions)] == [ActorDied("killed", "it was killed by driver driver-1")]
    assert lose(table, A, 1, 1.1, expected=True) == []
    assert table.kill(A, no_restart=True, graceful=False, by="again", now=1.2) == []


def test_a_kill_that_may_restart_waits_for_the_end_of_the_old_incarnation() -> None:
    table = ActorTable()
    alive(table, max_restarts=1)
    stop = Stop(NODE, A, 1, graceful=False, returns=True)
    assert table.kill(A, no_restart=False, graceful=False, by="a test", now=1.0) == [stop]
    assert table.kill(A, no_restart=False, graceful=False, by="a test", now=1.0) == [], "idempotent"
    decisions = lose(table, A, 1, 1.1, expected=True)
    assert [state.state for state in told(decisions)] == ["restarting"]
    assert FindNode(A, 2, 0.0) in decisions
    again(table, A, 2, 1.2)
    decisions = table.kill(A, no_restart=False, graceful=False, by="a test", now=2.0)
    assert [state.state for state in told(decisions)] == ["dead"], "no restart was left"


def test_rule_23_out_of_scope_drains_before_it_ends() -> None:
    table = ActorTable()
    alive(table, max_restarts=5)
    assert table.out_of_scope(A, 1.0) == [Stop(NODE, A, 1, graceful=True)]
    assert table.out_of_scope(A, 1.1) == [], "idempotent"
    assert living(table).state is State.ALIVE, "what is in the mailbox still runs"
    (state,) = told(lose(table, A, 1, 2.0, expected=True))
    assert state.died is not None
    assert state.died.kind == "out_of_scope"


def test_rule_23_a_crash_while_draining_is_told_as_a_crash_and_not_restarted() -> None:
    table = ActorTable()
    alive(table, max_restarts=5)
    table.out_of_scope(A, 1.0)
    (state,) = told(lose(table, A, 1, 2.0))
    assert state.died is not None
    assert (state.died.kind, state.died.reason) == (
        "crashed",
        "while it was to end gracefully, killed by SIGKILL",
    )


def test_out_of_scope_before_it_was_placed_ends_at_once() -> None:
    table = ActorTable()
    create(table)
    table.not_placed(A, 1, "no node", infeasible=False, now=0.0)
    assert [state.state for state in told(table.out_of_scope(A, 1.0))] == ["dead"]
    assert table.next_deadline() is None


def test_a_detached_actor_has_no_scope() -> None:
    table = ActorTable()
    alive(table, detached=True)
    assert table.out_of_scope(A, 1.0) == []


def test_a_forced_kill_overtakes_a_graceful_one() -> None:
    table = ActorTable()
    alive(table)
    assert table.kill(A, no_restart=True, graceful=True, by="a", now=1.0) == [Stop(NODE, A, 1, graceful=True)]
    assert living(table).state is State.ALIVE
    decisions = table.kill(A, no_restart=True, graceful=False, by="b", now=2.0)
    assert decisions[0] == Stop(NODE, A, 1, graceful=False)
    assert dead(table).died.kind == "killed"


def test_actors_end_with_their_owner_unless_detached() -> None:
    table = ActorTable()
    alive(table, A, owner="worker-9")
    alive(table, B, owner="worker-9", detached=True)
    decisions = table.owner_lost("worker-9", "reset", 1.0)
    assert [(s.actor_id, s.died.kind) for s in told(decisions) if s.died] == [(A, "owner_died")]
    assert living(table, B).state is State.ALIVE
    assert table.owner_lost("worker-9", "reset", 1.1) == []


def test_actors_end_with_their_job_unless_detached_or_made_by_one_that_lives_on() -> None:
    table = ActorTable()
    alive(table, "plain")
    alive(table, "detached", detached=True, worker="worker-d")
    alive(table, "child", owner="worker-d", worker="worker-c")
    alive(table, "grandchild", owner="worker-c", worker="worker-g")
    alive(table, "foreign", job_id="job-2")
    decisions = table.job_ended(JOB, "its driver is gone", 1.0)
    assert [d.actor_id for d in decisions if isinstance(d, Forget)] == ["plain"]
    late = create(table, "late", owner="worker-c", job_over=True)
    assert late[0] == Answer(DRIVER, CreateActorReply("late"))
    (refused,) = create(table, "orphan", owner="worker-x", job_over=True)
    assert isinstance(refused, Answer)
    assert "has ended" in refused.reply.error
    ended = [d.actor_id for d in table.owner_lost("worker-d", "killed", 2.0) if isinstance(d, Forget)]
    assert ended == ["child"]


def test_a_lost_watcher_is_forgotten() -> None:
    table = ActorTable()
    alive(table)
    table.watch(A, "w2", 1.0)
    table.watcher_lost("w2")
    table.watcher_lost(DRIVER)
    assert not [d for d in lose(table, A, 1, 2.0) if isinstance(d, Publish)]


# Memory and story -------------------------------------------------------------------------------------------


def test_a_late_watcher_is_told_the_cause() -> None:
    table = ActorTable()
    alive(table)
    (state,) = told(lose(table, A, 1, 1.0))
    assert table.watch(A, "late", 99.0) == [Publish(("late",), state)]


def test_ac7_the_dead_are_remembered_up_to_a_bound() -> None:
    table = ActorTable(dead_actors_max=3)
    for number in range(5):
        create(table, f"actor-{number}")
        table.kill(f"actor-{number}", no_restart=True, graceful=False, by="a test", now=1.0)
    assert [d.actor_id for d in table.dead()] == ["actor-4", "actor-3", "actor-2"]
    assert table.find("actor-0") is None


def test_ac7_the_dead_are_remembered_up_to_a_size() -> None:
    table = ActorTable(dead_bytes_max=10_000)
    for number in range(5):
        create(table, f"actor-{number}")
        table.placed(f"actor-{number}", 1, NODE, 0.0)
        table.failed(f"actor-{number}", 1, NODE, ActorDied("init_failed", "x" * 4_000), 0.0)
    assert [d.actor_id for d in table.dead()] == ["actor-4", "actor-3"]


def test_a_story_is_bounded_and_keeps_its_beginning() -> None:
    table = ActorTable()
    alive(table, max_restarts=-1)
    for incarnation in range(1, 40):
        lose(table, A, incarnation, float(incarnation))
        again(table, A, incarnation + 1, float(incarnation))
    story = living(table).story
    assert len(story) == STORY_EVENTS_MAX
    assert story[0] == (0.0, "created by", DRIVER)
    assert story[-1] == (39.0, "ready in worker", WORKER)


def test_nothing_leaves_dead() -> None:
    assert State.DEAD not in {state for state, _ in NEXT}, "AC-2"


def test_an_unknown_step_raises_with_the_story() -> None:
    table = ActorTable()
    alive(table)
    with pytest.raises(InternalError) as caught:
        table.failed(A, 1, NODE, ActorDied("init_failed", "after ready"), 1.0)
    assert "is alive and met FAILED: after ready" in str(caught.value)
    assert f"placed on node {NODE}" in str(caught.value)


def test_ac1_two_lives_of_one_incarnation_are_a_bug() -> None:
    table = ActorTable()
    alive(table)
    with pytest.raises(InternalError, match="met READY"):
        table.ready(A, 1, NODE, "another worker", "unix:/w", 1.0)
