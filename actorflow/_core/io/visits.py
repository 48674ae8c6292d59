"""How a network connects with a pass, to a process of another job (security/passes.py).

    VS-1  A pass that is refused is not used again: another one is asked for, once, and then the error is the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from actorflow._core.io.ports import PassSource, Stream
from actorflow._core.security.errors import Code, HandshakeRefused
from actorflow._core.security.keys import Key

S = TypeVar("S", bound=Stream)

WORN = (Code.NOT_ADMITTED, Code.EXPIRED)
"""What is said to a pass whose secret was replaced, or whose time is over. It may also be for good: that the second try shows."""


class HostJob:
    """Whom a process visits, and whom it need not. Of a process without passes, such as a node: nobody."""

    __slots__ = ("_job_id", "_passes")

    def __init__(self, job_id: str = "", passes: PassSource | None = None) -> None:
        self._job_id = job_id
        self._passes = passes

    def passes_to(self, job_id: str) -> PassSource | None:
        """Where a pass to this job is found; None: none is needed."""
        return self._passes if job_id and job_id != self._job_id else None


async def with_pass(passes: PassSource, job_id: str, connect: Callable[[Key], Awaitable[S]]) -> S:
    """Connect with a pass to this job. Raises OSError."""
    key = await passes.pass_for(job_id)
    try:
        return await connect(key)
    except OSError as error:
        refused = error.__cause__
        if not isinstance(refused, HandshakeRefused) or refused.code not in WORN or refused.cut:
            raise
        passes.refused(job_id, key)
    return await connect(await passes.pass_for(job_id))
