"""The checkpoints the head keeps: CP-n are the invariants of policy/checkpoints.py."""

from __future__ import annotations

from actorflow._core.policy.checkpoints import CheckpointStore

A = "actor-a"


def test_rule_21_the_newest_checkpoint_of_the_current_incarnation_is_kept() -> None:
    store = CheckpointStore()
    assert store.newest(A) is None
    assert store.save(A, 1, 1, b"one", current=1) == ""
    assert store.save(A, 1, 3, b"three", current=1) == ""
    assert store.newest(A) == b"three"


def test_rule_21_an_older_incarnation_is_refused() -> None:
    store = CheckpointStore()
    store.save(A, 2, 1, b"second life", current=2)
    assert store.save(A, 1, 9, b"first life", current=2) == ("incarnation 1 wrote it, and the actor is at incarnation 2")
    assert store.newest(A) == b"second life"


def test_cp1_a_repeated_or_older_number_is_accepted_and_changes_nothing() -> None:
    store = CheckpointStore()
    store.save(A, 1, 2, b"two", current=1)
    assert store.save(A, 1, 2, b"again", current=1) == ""
    assert store.save(A, 1, 1, b"late", current=1) == ""
    assert store.newest(A) == b"two"


def test_cp2_a_new_incarnation_begins_to_count_anew() -> None:
    store = CheckpointStore()
    store.save(A, 1, 7, b"old", current=1)
    assert store.newest(A) == b"old", "what the next incarnation is given"
    assert store.save(A, 2, 1, b"new", current=2) == ""
    assert store.newest(A) == b"new"


def test_cp3_what_is_too_large_is_refused_and_nothing_is_lost() -> None:
    store = CheckpointStore(bytes_max=10, total_bytes_max=15)
    store.save(A, 1, 1, b"x" * 10, current=1)
    error = store.save(A, 1, 2, b"y" * 11, current=1)
    assert error.startswith("it has 11 B, a checkpoint may have 10 B: ")
    assert store.save("actor-b", 1, 1, b"z" * 6, current=1).startswith("with it the checkpoints of all actors would")
    assert store.newest(A) == b"x" * 10
    assert store.save(A, 1, 3, b"y" * 9, current=1) == "", "its own old one makes room"
    assert store.save("actor-b", 1, 1, b"z" * 6, current=1) == ""
    assert store.total_bytes() == 15


def test_a_dead_actor_has_none() -> None:
    store = CheckpointStore()
    store.save(A, 1, 1, b"one", current=1)
    store.drop(A)
    store.drop(A)
    assert store.newest(A) is None
    assert store.total_bytes() == 0
    assert store.save(A, 1, 2, b"two", current=None) == "the actor is dead"
