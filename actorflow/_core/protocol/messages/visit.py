"""Visits: processes of one job that speak with those of another, between hosts (security/passes.py)."""

from actorflow._core.protocol.messages.base import Message


class AskPass(Message, tag=141):
    """driver or worker -> head: a pass to those of this job, please. Answered by PassGiven. Idempotent."""

    job_id: str


class PassGiven(Message, tag=142):
    """head -> driver or worker: the pass under each secret that is valid, as (id of the secret, key), the one in use first.

    `visitor_job`, `expires`: the rest of what names it. `error` says why there is none.
    """

    job_id: str
    visitor_job: str = ""
    expires: int = 0
    keys: list[tuple[bytes, bytes]] = []
    error: str = ""

    def __repr__(self) -> str:
        return f"PassGiven({self.job_id}, {self.error or 'granted'})"


class TurnedOut(Message, tag=143):
    """either -> either, last on a link between jobs: you have said what a visitor may not; a close follows."""

    reason: str
