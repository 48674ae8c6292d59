"""The head's table of placement groups: state, act, compare. PG-n and PL-n are those of policy/placement_*.py."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from actorflow._core.base.errors import InternalError
from actorflow._core.base.resources import UNIT
from actorflow._core.policy.bundle_packing import BundleSpec, Strategy
from actorflow._core.policy.early import EARLY_S
from actorflow._core.policy.placement_decisions import (
    Answer,
    Cancel,
    Commit,
    Decision,
    HeldBundles,
    Prepare,
    Ready,
    Removed,
    Rescheduling,
    Return,
    Waiting,
)
from actorflow._core.policy.placement_groups import (
    KEEP_EXTRA_S,
    PACKS_MAX,
    PREPARE_TIMEOUT_S,
    STARVATION_S,
    TURN_S,
    PlacementGroups,
    retry_delay_s,
)
from actorflow._core.policy.placement_record import NEXT, STORY_EVENTS_MAX, Event, Group, GroupSpec, RemovedGroup, State

G, H, DRIVER, JOB = "group-g", "group-h", "driver-1", "job-1"
KEEP = PREPARE_TIMEOUT_S + KEEP_EXTRA_S
CPU, TWO, FOUR = {"CPU": UNIT}, {"CPU": 2 * UNIT}, {"CPU": 4 * UNIT}


def cluster(*cpus: int, **options: Any) -> PlacementGroups:
    table = PlacementGroups(**options)
    for number, amount in enumerate(cpus):
        join(table, f"n{number}", amount)
    return table


def join(
    table: PlacementGroups, node_id: str, cpus: int = 4, held: tuple[HeldBundles, ...] = (), now: float = 0.0, **options: Any
) -> list[Decision]:
    total = {"CPU": cpus * UNIT, "GPU": options.pop("gpus", 0) * UNIT}
    return table.node_joined(node_id, total, options.pop("labels", {}), held, now, **options)


def create(
    table: PlacementGroups, *bundles: dict[str, int], group: str = G, strategy: str = "PACK", now: float = 0.0, **options: Any
) -> list[Decision]:
    labels = options.pop("labels", {})
    specs = tuple(BundleSpec(resources, labels) for resources in bundles)
    job_over = options.pop("job_over", False)
    spec = GroupSpec(group, options.pop("job_id", JOB), Strategy(strategy), specs, **options)
    return table.create(spec, DRIVER, job_over=job_over, now=now)


def tried(table: PlacementGroups, now: float = 0.0) -> list[Decision]:
    decisions = table.schedule(now)
    table.check()
    return decisions


def ready(table: PlacementGroups, *bundles: dict[str, int], group: str = G, now: float = 0.0, **options: Any) -> list[Decision]:
    """Create it, and let every node prepare."""
    create(table, *bundles, group=group, now=now, **options)
    prepares = tried(table, now)
    assert prepares, f"{living(table, group)}: {living(table, group).reason}"
    decisions = [d for p in prepares if isinstance(p, Prepare) for d in table.prepared(p.node_id, group, p.attempt, now)]
    assert living(table, group).state is State.CREATED
    return decisions


def living(table: PlacementGroups, group: str = G) -> Group:
    found = table.find(group)
    assert isinstance(found, Group), found
    return found


def gone(table: PlacementGroups, group: str = G) -> RemovedGroup:
    found = table.find(group)
    assert isinstance(found, RemovedGroup), found
    return found


def refuse(table: PlacementGroups, node_id: str, attempt: int, now: float = 0.0, group: str = G) -> list[Decision]:
    return table.refused(node_id, group, attempt, "no room", now, Random(0))


def nodes_of(table: PlacementGroups, group: str = G) -> list[str]:
    return [place.node_id for _, place in sorted(living(table, group).placed.items())]


# Birth ------------------------------------------------------------------------------------------------------


def test_a_group_on_one_node_takes_one_round_trip() -> None:
    table = cluster(4)
    assert create(table, CPU, TWO) == [Answer(DRIVER, G)]
    assert tried(table) == [Prepare("n0", G, 1, {0: CPU, 1: TWO}, KEEP, commit=True)]
    assert living(table).state is State.PREPARING
    assert table.prepared("n0", G, 1, 0.1) == [Ready((DRIVER,), G, ("n0", "n0"), (1, 1))]
    assert living(table).state is State.CREATED
    table.check()


def test_two_nodes_prepare_and_then_both_commit() -> None:
    table = cluster(4, 4)
    create(table, CPU, CPU, strategy="STRICT_SPREAD")
    assert tried(table) == [Prepare("n0", G, 1, {0: CPU}, KEEP), Prepare("n1", G, 1, {1: CPU}, KEEP)]
    assert table.prepared("n1", G, 1, 0.1) == []
    assert table.prepared("n1", G, 1, 0.1) == [], "a copy of an answer is not the other answer"
    assert living(table).state is State.PREPARING
    assert table.prepared("n0", G, 1, 0.2) == [
        Commit("n0", G, 1),
        Commit("n1", G, 1),
        Ready((DRIVER,), G, ("n0", "n1"), (1, 1)),
    ]


def test_create_is_idempotent() -> None:
    table = cluster(4)
    create(table, CPU)
    assert create(table, CPU) == [Answer(DRIVER, G)]
    assert len(tried(table)) == 1
    table.prepared("n0", G, 1, 0.0)
    assert create(table, CPU) == [Answer(DRIVER, G), Ready((DRIVER,), G, ("n0",), (1,))]
    table.remove(G, by="a test", now=0.0)
    assert create(table, CPU) == [Answer(DRIVER, G, "it was removed by a test")], "PG-4: it does not come back"


@pytest.mark.parametrize(
    ("bundles", "options", "words"),
    [
        ([], {}, "it has no bundles: list at least one"),
        ([CPU, {}], {}, "bundle 1 asks for nothing"),
        ([CPU, {"GPU": 15_000}], {}, "Ask for a share of one (bundles[1]['GPU']=0.5) or for whole ones"),
        ([CPU] * 4, {}, "it has 4 bundles, and 3 is the limit"),
        ([CPU], {"name": "one"}, "'one' in namespace 'default' belongs to placement group first"),
        ([CPU], {"job_over": True}, "its job job-1 has ended: only detached placement groups live on"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(bundles: list[dict[str, int]], options: dict[str, Any], words: str) -> None:
    table = cluster(4, bundles_max=3)
    create(table, CPU, group="first", name="one")
    [answer] = create(table, *bundles, **options)
    assert isinstance(answer, Answer)
    assert words in answer.error
    assert gone(table).reason == answer.error
    table.check()


def test_names_are_free_again_when_the_group_is_removed() -> None:
    table = cluster(4)
    create(table, CPU, name="one")
    assert table.living().named("default", "one") is living(table)
    assert create(table, CPU, group=H, name="one", namespace="other") == [Answer(DRIVER, H)]
    assert table.living().near("default", "ona") == ["one"]
    assert table.living().near("third", "one") == ["one in default", "one in other"]
    table.remove(G, by="a test", now=0.0)
    assert table.living().named("default", "one") is None
    assert create(table, CPU, group="again", name="one") == [Answer(DRIVER, "again")]


def test_the_number_of_groups_is_bounded() -> None:
    table = cluster(4, groups_max=1, removed_max=1)
    create(table, CPU)
    [answer] = create(table, CPU, group=H)
    assert isinstance(answer, Answer)
    assert "there are 1 placement groups, the limit" in answer.error
    table.remove(G, by="a test", now=0.0)
    assert table.find(H) is None, "PG-7: the oldest is forgotten"


# Attempts that fail -----------------------------------------------------------------------------------------


def test_one_refusal_cancels_the_others_and_is_tried_again_after_a_delay() -> None:
    table = cluster(4, 4)
    create(table, CPU, CPU, strategy="STRICT_SPREAD")
    tried(table)
    table.prepared("n0", G, 1, 0.0)
    assert refuse(table, "n1", 1) == [Cancel("n0", G, 1)], "PG-5; the one that refused has nothing"
    assert living(table).state is State.PENDING
    assert "node n1 refused it: no room" in living(table).reason
    assert tried(table) == []
    deadline = table.next_deadline()
    assert deadline is not None
    assert 0.025 <= deadline <= 0.05
    table.tick(deadline, Random(0))
    prepares = tried(table, deadline)
    assert {(p.node_id, p.attempt) for p in prepares if isinstance(p, Prepare)} == {("n0", 2), ("n1", 2)}


def test_a_node_that_refused_is_avoided_until_it_says_something_new() -> None:
    table = cluster(4, 5)
    create(table, CPU)
    [first] = tried(table)
    assert isinstance(first, Prepare)
    assert first.node_id == "n0"
    refuse(table, "n0", 1)
    table.tick(1.0, Random(0))
    [second] = tried(table, 1.0)
    assert isinstance(second, Prepare)
    assert second.node_id == "n1"
    table.node_used("n0", {"CPU": 0})
    refuse(table, "n1", 2, now=1.0)
    table.tick(2.0, Random(0))
    [third] = tried(table, 2.0)
    assert isinstance(third, Prepare)
    assert third.node_id == "n0"


def test_who_has_no_other_node_asks_the_same_again() -> None:
    table = cluster(4)
    create(table, CPU)
    for attempt in range(1, 5):
        now = float(attempt * 10)
        table.tick(now, Random(0))
        [prepare] = tried(table, now)
        assert isinstance(prepare, Prepare)
        assert prepare.attempt == attempt
        refuse(table, "n0", attempt, now)


def test_words_of_old_attempts_change_nothing() -> None:
    """PG-2"""
    table = cluster(4, 4)
    create(table, CPU)
    tried(table)
    refuse(table, "n0", 1)
    table.tick(1.0, Random(0))
    [second] = tried(table, 1.0)
    assert second == Prepare("n1", G, 2, {0: CPU}, KEEP, commit=True)
    assert refuse(table, "n1", 1, 1.0) == []
    assert table.prepared("n0", G, 1, 1.0) == [Cancel("n0", G, 1)], "it must not keep what nobody waits for"
    assert table.prepared("n0", G, 2, 1.0) == [Cancel("n0", G, 2)], "it is not in this attempt"
    assert table.bundles_lost("n1", G, 1, "old", 1.0, Random(0)) == []
    assert living(table).state is State.PREPARING
    table.prepared("n1", G, 2, 1.0)
    assert refuse(table, "n1", 2, 1.0) == [], "it is decided"
    assert table.prepared("n1", G, 2, 1.0) == []
    assert living(table).state is State.CREATED
    table.check()


def test_an_old_answer_is_not_the_answer_to_a_new_question() -> None:
    """PG-2, from the same node."""
    table = cluster(4)
    create(table, CPU)
    tried(table)
    table.tick(PREPARE_TIMEOUT_S, Random(0))
    table.tick(PREPARE_TIMEOUT_S + 1, Random(0))
    assert [p.attempt for p in tried(table, PREPARE_TIMEOUT_S + 1) if isinstance(p, Prepare)] == [2]
    assert table.prepared("n0", G, 1, PREPARE_TIMEOUT_S + 1) == [Cancel("n0", G, 1)]
    assert living(table).state is State.PREPARING
    assert table.prepared("n0", G, 2, PREPARE_TIMEOUT_S + 1) == [Ready((DRIVER,), G, ("n0",), (2,))]


def test_a_node_that_does_not_answer_ends_the_attempt() -> None:
    table = cluster(4, 5)
    create(table, CPU)
    tried(table)
    assert table.tick(PREPARE_TIMEOUT_S - 0.1, Random(0)) == []
    assert table.tick(PREPARE_TIMEOUT_S, Random(0)) == [Cancel("n0", G, 1)]
    assert "no answer in 10 s on n0" in living(table).reason
    table.tick(PREPARE_TIMEOUT_S + 1, Random(0))
    [prepare] = tried(table, PREPARE_TIMEOUT_S + 1)
    assert isinstance(prepare, Prepare)
    assert prepare.node_id == "n1"


def test_the_delay_is_doubled_up_to_a_limit_and_not_the_same_for_all() -> None:
    class Most(Random):
        def random(self) -> float:
            return 1.0

    assert [retry_delay_s(n, Most()) for n in (1, 2, 3, 50)] == [0.05, 0.1, 0.2, 5.0]
    assert retry_delay_s(1, Random(1)) != retry_delay_s(1, Random(2))
    assert all(0.025 <= retry_delay_s(1, Random(seed)) <= 0.05 for seed in range(20))


def test_what_a_node_gave_back_after_the_decision_is_placed_again() -> None:
    """The commit came too late: the node's answer is a loss, and the others stay."""
    table = cluster(4, 4)
    ready(table, CPU, CPU, strategy="STRICT_SPREAD")
    decisions = table.bundles_lost("n1", G, 1, "no commit came in 30 s", 1.0, Random(0))
    assert decisions == [Rescheduling((DRIVER,), G, (1,), "node n1 gave them back: no commit came in 30 s")]
    assert tried(table, 1.0) == [Prepare("n1", G, 2, {1: CPU}, KEEP, commit=True)]
    assert table.bundles_lost("n1", G, 1, "again", 1.0, Random(0)) == []
    assert table.prepared("n1", G, 2, 1.0) == [Ready((DRIVER,), G, ("n0", "n1"), (1, 2))]


# Removal ----------------------------------------------------------------------------------------------------


def test_removed_while_it_waits() -> None:
    table = cluster(1)
    create(table, TWO)
    tried(table)
    assert table.remove(G, by="a test", now=1.0) == [Removed((DRIVER,), G, "it was removed by a test")]
    assert table.remove(G, by="another", now=2.0) == []
    assert gone(table).reason == "it was removed by a test"
    assert table.schedule(2.0) == []
    table.check()


def test_removed_in_the_middle_of_prepare() -> None:
    """Each node is told, whether it has answered or not; late answers of any kind are harmless."""
    table = cluster(4, 4)
    create(table, CPU, CPU, strategy="STRICT_SPREAD")
    tried(table)
    table.prepared("n0", G, 1, 0.0)
    removed = [Return("n0", G, 1), Return("n1", G, 1), Removed((DRIVER,), G, "it was removed by a test")]
    assert table.remove(G, by="a test", now=0.0) == removed
    assert table.prepared("n1", G, 1, 0.0) == [], "the Return is on its way"
    assert refuse(table, "n1", 1) == []
    table.returned("n1", G, 1)
    assert table.prepared("n1", G, 1, 0.0) == [Return("n1", G, 1)], "it must not keep what nobody knows"
    assert table.bundles_lost("n0", G, 1, "late", 0.0, Random(0)) == []
    table.check()


def test_room_is_there_again_when_the_node_says_so() -> None:
    table = cluster(2)
    ready(table, TWO)
    create(table, TWO, group=H)
    tried(table)
    assert table.remove(G, by="a test", now=0.0)[0] == Return("n0", G, 1)
    assert tried(table) == [], "its leases may run yet"
    table.returned("n0", G, 1)
    assert tried(table) == [Prepare("n0", H, 1, {0: TWO}, KEEP, commit=True)]
    table.returned("n0", G, 1)
    table.check()


def test_groups_end_with_their_creator_or_job_unless_they_are_detached() -> None:
    table = cluster(9)
    for group, options in {
        "of job": {},
        "of actor": {"creator": "actor-1"},
        "of survivor": {"creator": "actor-2"},
        "detached": {"creator": "actor-1", "detached": True},
        "of other": {"job_id": "job-2"},
    }.items():
        ready(table, CPU, group=group, **options)
    decisions = table.actor_died("actor-1", 1.0)
    assert [d.group_id for d in decisions if isinstance(d, Removed)] == ["of actor"]
    assert "actor actor-1, which created it, is dead" in gone(table, "of actor").reason
    decisions = table.job_ended(JOB, {"actor-2"}, 2.0)
    assert [d.group_id for d in decisions if isinstance(d, Removed)] == ["of job"]
    assert "its job job-1 has ended" in gone(table, "of job").reason
    assert {group.spec.group_id for group in table.living()} == {"of survivor", "detached", "of other"}
    table.check()


# Watchers ---------------------------------------------------------------------------------------------------


def test_watchers_are_told_what_is_and_what_changes() -> None:
    table = cluster(4)
    create(table, CPU)
    assert table.watch(G, "w", 0.0) == []
    tried(table)
    assert table.prepared("n0", G, 1, 0.0) == [Ready((DRIVER, "w"), G, ("n0",), (1,))]
    assert table.watch(G, "x", 0.0) == [Ready(("x",), G, ("n0",), (1,))]
    table.watcher_lost(DRIVER)
    assert table.remove(G, by="a test", now=0.0)[-1] == Removed(("w", "x"), G, "it was removed by a test")
    assert table.watch(G, "y", 0.0) == [Removed(("y",), G, "it was removed by a test")]
    table.check()


def test_words_that_are_faster_than_the_group_wait_for_it() -> None:
    table = cluster(4)
    assert table.watch(G, "w", 0.0) == []
    assert table.remove(H, by="a test", now=0.0) == []
    create(table, CPU)
    tried(table)
    assert table.prepared("n0", G, 1, 0.0) == [Ready(("w", DRIVER), G, ("n0",), (1,))]
    assert create(table, CPU, group=H) == [Answer(DRIVER, H, "it was removed by a test")]
    assert table.watch("never", "w", 0.0) == []
    [told] = table.tick(EARLY_S, Random(0))
    assert isinstance(told, Removed)
    assert "nothing is known of this placement group" in told.reason
    [answer] = create(table, CPU, group="never")
    assert isinstance(answer, Answer)
    assert answer.error, "PG-4: somebody was told that it is no more"


# Nodes ------------------------------------------------------------------------------------------------------


def test_a_lost_node_takes_its_bundles_along_and_the_others_stay() -> None:
    table = cluster(4, 4, 4)
    ready(table, CPU, CPU, strategy="STRICT_SPREAD")
    decisions = table.node_lost("n1", "it burns", 1.0)
    assert decisions == [Rescheduling((DRIVER,), G, (1,), "node n1 was lost: it burns")]
    assert living(table).state is State.RESCHEDULING
    assert tried(table, 1.0) == [Prepare("n2", G, 2, {1: CPU}, KEEP, commit=True)], "PG-6: not on n0"
    assert table.prepared("n2", G, 2, 1.5) == [Ready((DRIVER,), G, ("n0", "n2"), (1, 2))]
    assert table.node_lost("n1", "again", 2.0) == []


def test_strict_pack_moves_whole() -> None:
    table = cluster(4, 4)
    ready(table, CPU, CPU, strategy="STRICT_PACK")
    [rescheduling] = table.node_lost("n0", "gone", 1.0)
    assert rescheduling == Rescheduling((DRIVER,), G, (0, 1), "node n0 was lost: gone")
    assert tried(table, 1.0) == [Prepare("n1", G, 2, {0: CPU, 1: CPU}, KEEP, commit=True)]


def test_pack_comes_together_again_and_spread_stays_apart() -> None:
    table = cluster(2, 2, 4)
    ready(table, TWO, TWO, group="pack", strategy="PACK")
    assert nodes_of(table, "pack") == ["n2", "n2"]
    ready(table, TWO, TWO, group="spread", strategy="SPREAD")
    assert nodes_of(table, "spread") == ["n0", "n1"]
    join(table, "n3", 9)
    table.node_lost("n2", "gone", 1.0)
    table.node_lost("n0", "gone", 1.0)
    prepares = tried(table, 1.0)
    assert {(p.node_id, p.group_id, tuple(p.bundles)) for p in prepares if isinstance(p, Prepare)} == {
        ("n3", "pack", (0, 1)),
        ("n3", "spread", (0,)),
    }


def test_a_node_lost_in_the_middle_of_prepare() -> None:
    table = cluster(4, 4, 4)
    create(table, CPU, CPU, strategy="STRICT_SPREAD")
    tried(table)
    table.prepared("n1", G, 1, 0.0)
    assert table.node_lost("n0", "gone", 0.0) == [Cancel("n1", G, 1)]
    prepares = tried(table)
    assert {(p.node_id, p.attempt) for p in prepares if isinstance(p, Prepare)} == {("n1", 2), ("n2", 2)}, "at once"


def test_a_second_loss_while_the_first_is_repaired() -> None:
    """The attempt under way is given up, and one attempt places all that is missing."""
    table = cluster(4, 4, 4, 4)
    ready(table, CPU, CPU, strategy="STRICT_SPREAD")
    table.node_lost("n0", "gone", 1.0)
    [prepare] = tried(table, 1.0)
    assert prepare == Prepare("n2", G, 2, {0: CPU}, KEEP, commit=True)
    assert table.node_lost("n1", "gone", 2.0) == [Cancel("n2", G, 2), Rescheduling((DRIVER,), G, (1,), "node n1 was lost: gone")]
    assert tried(table, 2.0) == [Prepare("n2", G, 3, {0: CPU}, KEEP), Prepare("n3", G, 3, {1: CPU}, KEEP)]


def test_a_node_that_comes_back_returns_what_has_moved() -> None:
    table = cluster(4, 4)
    ready(table, CPU, strategy="STRICT_SPREAD")
    create(table, CPU, group=H, strategy="STRICT_SPREAD")
    tried(table)
    table.prepared("n0", H, 1, 0.0)
    table.node_lost("n0", "gone", 1.0)
    for prepare in tried(table, 1.0):
        assert isinstance(prepare, Prepare)
        table.prepared("n1", prepare.group_id, prepare.attempt, 1.0)
    table.remove(H, by="a test", now=2.0)
    held = (HeldBundles(G, 1, (0,), True), HeldBundles(H, 1, (0,), True), HeldBundles("unknown", 7, (0,), True))
    assert join(table, "n0", 4, held) == [Cancel("n0", G, 1), Return("n0", H, 1), Return("n0", "unknown", 7)]
    assert nodes_of(table) == ["n1"]
    table.check()


def test_a_new_connection_to_a_node_that_was_not_missed() -> None:
    """What is held is kept, what was under way is said again, and what the node has lost is placed again."""
    table = cluster(9, 9)
    for group in ("kept", "uncommitted", "forgotten", "removed"):
        ready(table, CPU, group=group)
    table.remove("removed", by="a test", now=0.0)
    create(table, CPU, group="asked")
    tried(table)
    held = (HeldBundles("kept", 1, (0,), True), HeldBundles("uncommitted", 1, (0,), False))
    decisions = join(table, "n0", 9, held, now=1.0)
    assert decisions == [
        Commit("n0", "uncommitted", 1),
        Return("n0", "removed", 1),
        Rescheduling((DRIVER,), "forgotten", (0,), "node n0 came back without them"),
        Prepare("n0", "asked", 1, {0: CPU}, KEEP, commit=True),
    ]
    assert living(table, "kept").state is living(table, "uncommitted").state is State.CREATED
    table.check()


def test_an_answer_that_was_lost_with_the_connection() -> None:
    table = cluster(4, 4)
    create(table, CPU)
    tried(table)
    assert join(table, "n0", 4, (HeldBundles(G, 1, (0,), True),)) == [Ready((DRIVER,), G, ("n0",), (1,))]


def test_claims_over_a_new_connection() -> None:
    """One goes on to wait; one that the head has given up in the meantime is cancelled."""
    table = cluster(4)
    table.node_used("n0", FOUR)
    create(table, FOUR)
    tried(table)
    table.tick(STARVATION_S, Random(0))
    [prepare] = tried(table, STARVATION_S)
    assert isinstance(prepare, Prepare)
    assert prepare.claim
    held = (HeldBundles(G, 1, (0,), committed=False, claimed=True), HeldBundles(G, 0, (0,), committed=False, claimed=True))
    assert join(table, "n0", 4, held, now=6.0) == [Cancel("n0", G, 0)]
    assert living(table).state is State.PREPARING
    assert table.prepared("n0", G, 1, 7.0) == [Ready((DRIVER,), G, ("n0",), (1,))]


def test_what_was_prepared_and_is_gone_ends_the_attempt() -> None:
    table = cluster(4, 4)
    create(table, CPU, CPU, strategy="STRICT_SPREAD")
    tried(table)
    table.prepared("n0", G, 1, 0.0)
    assert join(table, "n0", 4) == [Cancel("n1", G, 1)]
    assert living(table).state is State.PENDING


# Room that there is not -------------------------------------------------------------------------------------


def told(decisions: list[Decision]) -> Waiting:
    [waiting] = [d for d in decisions if isinstance(d, Waiting)]
    return waiting


def test_what_no_nodes_could_ever_hold_says_so_once_and_waits_for_others() -> None:
    table = cluster(4, 2)
    create(table, CPU, {"GPU": UNIT})
    waiting = told(tried(table))
    assert waiting.infeasible
    assert waiting.reason == "bundle 1 asks for 1 GPU, and the nearest node, n0, has no GPU in all"
    assert table.watch(G, "w", 0.0) == [Waiting(("w",), G, waiting.reason, True)]
    table.node_used("n0", {"CPU": UNIT})
    table.node_used("n0", {})
    assert tried(table, 1.0) == [], "PL-4"
    join(table, "n2", 1, gpus=1, now=2.0)
    assert tried(table, 2.0) == [Prepare("n2", G, 1, {0: CPU, 1: {"GPU": UNIT}}, KEEP, commit=True)]


def test_what_does_not_fit_now_says_so_and_is_not_called_infeasible() -> None:
    table = cluster(4)
    table.node_used("n0", {"CPU": 3 * UNIT})
    create(table, TWO)
    waiting = told(tried(table))
    assert not waiting.infeasible
    assert waiting.reason == "bundle 0 asks for 2 CPU, and the nearest node, n0, has 1 CPU free"
    table.node_used("n0", {"CPU": 2 * UNIT})
    assert isinstance(tried(table)[0], Prepare)


def test_a_loss_can_make_a_group_infeasible_and_a_new_node_mends_it() -> None:
    table = cluster(4, 4)
    ready(table, CPU, CPU, strategy="STRICT_SPREAD")
    table.node_lost("n1", "gone", 1.0)
    waiting = told(tried(table, 1.0))
    assert waiting.infeasible
    assert "each bundle needs a node of its own, and 0 of 1 can ever have one" in waiting.reason
    join(table, "n2", 4, now=2.0)
    assert isinstance(tried(table, 2.0)[0], Prepare)


def test_what_was_infeasible_is_looked_at_again_when_more_is_lost() -> None:
    """A bundle that a node has given back is no change of the nodes, and still another question."""
    table = cluster()
    for node_id in ("n1", "n2"):
        join(table, node_id, labels={"zone": "a"})
    bundles = (BundleSpec(CPU), BundleSpec(CPU, {"zone": "a"}))
    table.create(GroupSpec(G, JOB, Strategy.STRICT_SPREAD, bundles), DRIVER, job_over=False, now=0.0)
    for prepare in tried(table):
        assert isinstance(prepare, Prepare)
        table.prepared(prepare.node_id, G, 1, 0.0)
    assert nodes_of(table) == ["n1", "n2"]
    table.node_lost("n2", "gone", 1.0)
    join(table, "n3", now=1.0)
    assert told(tried(table, 1.0)).infeasible, "the only node with the label has the other bundle"
    table.bundles_lost("n1", G, 1, "late", 2.0, Random(0))
    assert {p.node_id: list(p.bundles) for p in tried(table, 2.0) if isinstance(p, Prepare)} == {"n1": [1], "n3": [0]}


def test_without_nodes_nothing_is_infeasible() -> None:
    table = cluster()
    create(table, CPU)
    waiting = told(tried(table))
    assert (waiting.reason, waiting.infeasible) == ("the cluster has no node at the moment", False)
    join(table, "n0")
    assert isinstance(tried(table)[0], Prepare)


def test_all_of_one_shape_are_told_that_it_is_infeasible() -> None:
    table = cluster(1)
    groups = [f"g{number}" for number in range(5)]
    for group in groups:
        create(table, TWO, group=group)
    assert [d.group_id for d in tried(table) if isinstance(d, Waiting) and d.infeasible] == groups
    join(table, "n1", 2)
    decisions = tried(table)
    assert [d.group_id for d in decisions if isinstance(d, Prepare)] == ["g0"]
    assert [d.group_id for d in decisions if isinstance(d, Waiting) and not d.infeasible] == groups[1:]
    table.node_lost("n1", "gone", 1.0)
    decisions = tried(table, 1.0)
    assert [d.group_id for d in decisions if isinstance(d, Waiting) and d.infeasible] == groups


# Order and starvation ---------------------------------------------------------------------------------------


def prepared_groups(decisions: list[Decision]) -> list[str]:
    return [d.group_id for d in decisions if isinstance(d, Prepare)]


def test_priority_and_then_age() -> None:
    table = cluster(2)
    ready(table, TWO, group="first")
    create(table, TWO, group="old")
    create(table, TWO, group="young")
    create(table, TWO, group="high", priority=1)
    tried(table)
    order = []
    before = "first"
    for now in (1.0, 2.0, 3.0):
        table.remove(before, by="a test", now=now)
        table.returned("n0", before, 1)
        [before] = prepared_groups(tried(table, now))
        table.prepared("n0", before, 1, now)
        order.append(before)
    assert order == ["high", "old", "young"]


def test_a_small_group_may_pass_a_big_one_that_has_not_waited_long() -> None:
    table = cluster(4)
    ready(table, TWO, group="first")
    create(table, FOUR, group="big")
    tried(table)
    create(table, TWO, group="small", now=1.0)
    assert prepared_groups(tried(table, 1.0)) == ["small"]


def test_nothing_overtakes_one_that_starves_and_then_it_steps_back() -> None:
    """PL-2, and the rest after a turn: whoever waits for ever does not block the others for ever."""
    table = cluster(4)
    ready(table, TWO, group="first")
    create(table, FOUR, group="big")
    tried(table)
    table.tick(STARVATION_S, Random(0))
    tried(table, STARVATION_S)
    create(table, TWO, group="small", now=STARVATION_S)
    assert tried(table, STARVATION_S)[-1:] != [], "the reason is told"
    assert living(table, "small").state is State.PENDING
    assert table.next_deadline() == STARVATION_S + TURN_S
    table.tick(STARVATION_S + TURN_S, Random(0))
    assert prepared_groups(tried(table, STARVATION_S + TURN_S)) == ["small"]


def test_one_that_starves_gets_what_is_returned_before_a_younger_one() -> None:
    table = cluster(4)
    ready(table, TWO, group="first")
    ready(table, TWO, group="second")
    create(table, FOUR, group="big")
    tried(table)
    table.tick(6.0, Random(0))
    tried(table, 6.0)
    create(table, TWO, group="small", now=6.0)
    for group in ("first", "second"):
        table.remove(group, by="a test", now=7.0)
        table.returned("n0", group, 1)
        decisions = tried(table, 7.0)
    assert prepared_groups(decisions) == ["big"]


def test_what_was_kept_for_one_that_is_removed_is_for_others() -> None:
    table = cluster(4)
    ready(table, TWO, group="first")
    create(table, FOUR, group="big")
    tried(table)
    table.tick(6.0, Random(0))
    tried(table, 6.0)
    create(table, TWO, group="small", now=6.0)
    assert prepared_groups(tried(table, 6.0)) == []
    table.remove("big", by="a test", now=7.0)
    assert prepared_groups(tried(table, 7.0)) == ["small"]


def test_a_turn_holds_up_only_what_needs_the_same() -> None:
    table = cluster(4, 4)
    join(table, "gpu", 0, gpus=1)
    for group in ("first", "second"):
        ready(table, TWO, group=group, strategy="STRICT_PACK")
    assert nodes_of(table, "first") == nodes_of(table, "second") == ["n0"]
    create(table, FOUR, CPU, group="big", strategy="STRICT_SPREAD")
    ready(table, CPU, group="third")
    tried(table)
    table.tick(6.0, Random(0))
    tried(table, 6.0)
    create(table, {"GPU": UNIT}, group="gpu", now=6.0)
    assert prepared_groups(tried(table, 6.0)) == ["gpu"]


def test_a_higher_priority_is_not_held_up_by_a_turn() -> None:
    table = cluster(4)
    ready(table, TWO, group="first")
    create(table, FOUR, group="big")
    tried(table)
    table.tick(6.0, Random(0))
    tried(table, 6.0)
    create(table, TWO, group="high", priority=1, now=6.0)
    assert prepared_groups(tried(table, 6.0)) == ["high"]


def test_one_that_starves_claims_what_leases_outside_have() -> None:
    table = cluster(4)
    table.node_used("n0", {"CPU": 3 * UNIT})
    create(table, FOUR)
    tried(table)
    table.tick(STARVATION_S, Random(0))
    assert tried(table, STARVATION_S) == [Prepare("n0", G, 1, {0: FOUR}, TURN_S + KEEP_EXTRA_S, commit=True, claim=True)]
    assert table.tick(STARVATION_S + TURN_S, Random(0)) == [Cancel("n0", G, 1)]
    assert "no room in 30 s on n0" in living(table).reason


def test_a_node_that_refuses_one_that_starves_gets_a_claim() -> None:
    """The head thinks that there is room, and the node knows better."""
    table = cluster(4)
    create(table, FOUR)
    tried(table)
    refuse(table, "n0", 1, 4.0)
    table.tick(STARVATION_S, Random(0))
    [prepare] = tried(table, STARVATION_S)
    assert isinstance(prepare, Prepare)
    assert prepare.claim


def test_many_are_tried_in_several_steps_and_nobody_is_forgotten() -> None:
    """PL-3"""
    table = cluster(4)
    ready(table, FOUR, group="first")
    count = PACKS_MAX * 2
    for number in range(count):
        create(table, {"CPU": 2 * UNIT + number}, group=f"g{number}")
    create(table, CPU, group="last")
    table.remove("first", by="a test", now=0.0)
    steps = 0
    while table.next_deadline() == 0.0:
        table.schedule(0.0)
        steps += 1
    assert steps >= 3
    table.returned("n0", "first", 1)
    first = prepared_groups(table.schedule(0.0))
    assert first == ["g0"]
    rest = []
    while table.next_deadline() == 0.0:
        rest += prepared_groups(table.schedule(0.0))
    assert rest == ["last"]


def test_schedule_is_cheap_when_nothing_has_changed() -> None:
    table = cluster(1)
    create(table, TWO)
    tried(table)
    assert table.next_deadline() != 0.0
    assert table.schedule(0.0) == []


# The states -------------------------------------------------------------------------------------------------


def test_nothing_leaves_removed_and_every_other_pair_is_in_the_table_or_a_bug() -> None:
    assert not any(state is State.REMOVED for state, _ in NEXT)
    table = cluster(4)
    ready(table, CPU)
    group = living(table)
    with pytest.raises(InternalError, match=r"is created and met ATTEMPTED: x\n(.|\n)*created by job(.|\n)*committed"):
        group.move(Event.ATTEMPTED, 0.0, "x")


def test_the_story_is_bounded_and_keeps_its_beginning() -> None:
    table = cluster(4)
    create(table, CPU)
    for attempt in range(1, 60):
        now = attempt * 10.0
        table.tick(now, Random(0))
        tried(table, now)
        refuse(table, "n0", attempt, now)
    story = living(table).story
    assert len(story) == STORY_EVENTS_MAX
    assert story[0][1:] == ("created by job", JOB)
