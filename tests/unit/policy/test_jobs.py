"""The life of jobs: JO-n are the invariants of policy/jobs.py."""

from __future__ import annotations

import pytest

from actorflow._core.base.errors import InternalError
from actorflow._core.policy.jobs import NEXT, EndJob, Job, JobEvent, JobState, JobTable, Refuse, _next

JOB, DRIVER = "job-1", "driver-1"


def job(table: JobTable, job_id: str = JOB) -> Job:
    (found,) = [found for found in table.jobs() if found.job_id == job_id]
    return found


def test_a_job_begins_with_its_driver_and_ends_with_it() -> None:
    table = JobTable()
    assert table.driver_connected(JOB, DRIVER, "ns", 42, 1.0) == []
    assert (job(table).state, job(table).namespace, job(table).pid) == (JobState.RUNNING, "ns", 42)
    assert not table.is_over(JOB)
    assert table.driver_lost(JOB, DRIVER, "reset", 2.0) == [EndJob(JOB, "its driver is gone: reset")]
    assert (job(table).state, job(table).ended_at) == (JobState.ENDED, 2.0)
    assert table.is_over(JOB)


def test_jo2_a_job_with_two_drivers_ends_with_the_last() -> None:
    table = JobTable()
    for driver in ("driver-1", "driver-2", "driver-2"):
        assert table.driver_connected(JOB, driver, "", 1, 1.0) == []
    assert table.driver_lost(JOB, "driver-1", "reset", 2.0) == []
    assert table.driver_lost(JOB, "driver-1", "reset", 2.0) == []
    assert not table.is_over(JOB)
    assert table.driver_lost(JOB, "driver-2", "reset", 3.0) == [EndJob(JOB, "its driver is gone: reset")]


def test_jo1_a_driver_that_comes_back_too_late_is_refused() -> None:
    table = JobTable()
    table.driver_connected(JOB, DRIVER, "", 1, 1.0)
    table.driver_lost(JOB, DRIVER, "reset", 2.0)
    (refused,) = table.driver_connected(JOB, DRIVER, "", 1, 3.0)
    assert isinstance(refused, Refuse)
    assert refused.reason == "job job-1 has ended (its driver is gone: reset); begin a new one with af.init()"
    assert table.driver_lost(JOB, DRIVER, "refused", 3.0) == []
    assert job(table).ended_at == 2.0


def test_jo3_ended_jobs_are_remembered_up_to_a_bound() -> None:
    table = JobTable(ended_max=2)
    for number in range(4):
        table.driver_connected(f"job-{number}", DRIVER, "", 1, 1.0)
    for number in range(3):
        table.driver_lost(f"job-{number}", DRIVER, "reset", 2.0)
    assert [found.job_id for found in table.jobs()] == ["job-3", "job-2", "job-1"]


def test_nothing_leaves_ended() -> None:
    assert JobState.ENDED not in {state for state, _ in NEXT}
    with pytest.raises(InternalError, match="JO-1"):
        _next(Job(JOB, "", DRIVER, 1, 1.0, JobState.ENDED), JOB, JobEvent.DRIVER_CONNECTED)
