"""What the running code is: which call of which actor, and how long it may still run."""

from __future__ import annotations

from contextvars import ContextVar


class RunningCall:
    """One call that runs in this process."""

    __slots__ = ("__dict__", "actor_id", "attempt", "deadline", "name", "owner", "seq")

    cancelled = False
    """What `af.check_cancelled()` looks at."""
    blocked = 0
    """How many of its awaits wait for other results."""
    children: list[int] | None = None
    """The calls that it has made, by the numbers of their first results; those that have ended are taken out now and then."""
    children_max = 64
    """When the next look for ended ones is due."""

    def __init__(self, owner: str, seq: int, attempt: int, name: str, actor_id: str, deadline: float | None) -> None:
        self.owner = owner
        self.seq = seq
        self.attempt = attempt
        self.name = name
        self.actor_id = actor_id
        self.deadline = deadline


running_call: ContextVar[RunningCall | None] = ContextVar("actorflow_running_call", default=None)
"""The call that the running code belongs to; None in a driver's own code."""

deadline: ContextVar[float | None] = ContextVar("actorflow_deadline", default=None)
"""When the innermost `af.timeout` or timed call ends, on this process's monotonic clock (SEMANTICS 7)."""
