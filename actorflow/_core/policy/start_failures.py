"""Starts of workers that failed: when to try again, and when to say that it is no use. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from actorflow._core.policy.worker_records import WorkerKey

KEYS_MAX = 1000
"""Environments whose failures are remembered; the oldest are forgotten first."""


@dataclass(slots=True)
class _Row:
    """Failed starts of one key, in a row."""

    count: int = 0
    reason: str = ""
    last_at: float = 0.0


class StartFailures:
    """Failed starts by key.

    SF-1: after `failures_max` failures in a row a key is given up for `backoff_s`; then one more try is made.
    SF-2: a success forgets all failures of its key.
    """

    __slots__ = ("_rows", "backoff_s", "failures_max")

    def __init__(self, failures_max: int, backoff_s: float) -> None:
        self.failures_max = failures_max
        self.backoff_s = backoff_s
        self._rows: dict[WorkerKey, _Row] = {}

    def failed(self, key: WorkerKey, reason: str, now: float) -> None:
        """A worker of this key did not come up."""
        row = self._rows.setdefault(key, _Row())
        row.count += 1
        row.reason = reason
        row.last_at = now
        if len(self._rows) > KEYS_MAX:
            del self._rows[next(iter(self._rows))]

    def succeeded(self, key: WorkerKey) -> None:
        """A worker of this key came up."""
        self._rows.pop(key, None)

    def given_up(self, key: WorkerKey, now: float) -> str:
        """Why no worker of this key is to be started now; an empty string when one may be."""
        row = self._rows.get(key)
        if row is None or row.count < self.failures_max:
            return ""
        if now - row.last_at < self.backoff_s:
            return f"{row.count} workers in a row did not start; the last one: {row.reason}"
        row.count = self.failures_max - 1
        return ""

    def forget_job(self, job_id: str) -> None:
        """The job is over."""
        for key in [key for key in self._rows if key.job_id == job_id]:
            del self._rows[key]
