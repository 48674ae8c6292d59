"""EP-1 to EP-3: who gets which certificate, and which lives of a node are admitted."""

from __future__ import annotations

import pytest

from actorflow._core.security.enrolment import admit_node, certificate_name, fence_lost_node, fence_rows, take_fence_rows
from actorflow._core.security.fences import REMOVED, Fences
from actorflow._core.security.roles import KeyKind


@pytest.mark.parametrize(
    ("kind", "job_id", "name"),
    [
        (KeyKind.JOIN, "", "node/me"),
        (KeyKind.NODE, "", "node/me"),
        (KeyKind.NODE, "job-1", "job/job-1"),
        (KeyKind.CLIENT, "", "job/me"),
        (KeyKind.CLIENT, "me", "job/me"),
    ],
)
def test_ep_1_what_a_certificate_names(kind: KeyKind, job_id: str, name: str) -> None:
    assert certificate_name(kind, "me", job_id) == name


@pytest.mark.parametrize(
    ("kind", "job_id"),
    [
        (KeyKind.JOIN, "job-1"),
        (KeyKind.CLIENT, "job-1"),
        (KeyKind.JOB, ""),
        (KeyKind.JOB, "me"),
        (KeyKind.NODE, "a b"),
        (KeyKind.NODE, "x" * 33),
        (KeyKind.NODE, "\n"),
    ],
)
def test_ep_1_what_nobody_gets(kind: KeyKind, job_id: str) -> None:
    with pytest.raises(ValueError, match="gives no right|no id of a job"):
        certificate_name(kind, "me", job_id)


def test_ep_2_an_id_is_given_once() -> None:
    fences = Fences()
    assert admit_node(fences, "n") == 1
    assert fences.admits("n", 1)
    with pytest.raises(ValueError, match="the id n is known already.*start the node anew"):
        admit_node(fences, "n")
    assert admit_node(fences, "other") == 1


@pytest.mark.parametrize("known", [True, False])
def test_ep_3_a_lost_node_never_comes_back(known: bool) -> None:
    fences = Fences()
    if known:
        admit_node(fences, "n")
    fence_lost_node(fences, "n")
    assert not any(fences.admits("n", incarnation) for incarnation in (0, 1, 2, 2**64 - 1))
    with pytest.raises(ValueError, match="known already"):
        admit_node(fences, "n")


def test_fences_travel_as_they_are() -> None:
    ours, theirs = Fences(), Fences()
    for name in ("a", "b", "c"):
        admit_node(ours, name)
    fence_lost_node(ours, "b")
    rows = fence_rows(ours, 10)
    assert all(-1 <= oldest < 2**63 for _, oldest in rows), "a message can carry it"
    take_fence_rows(theirs, rows)
    assert sorted(theirs.rows()) == sorted(ours.rows()) == [("a", 1), ("b", REMOVED), ("c", 1)]
    assert fence_rows(ours, 2) == rows[-2:], "the newest"
