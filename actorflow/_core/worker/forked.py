"""What becomes of a runtime in a process that the user forks: nothing of it may be used, and all that is left of it says so."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from actorflow._core.base import current
from actorflow._core.io.forks import keep_for_ever
from actorflow._core.worker.core import Core


class _Nowhere:
    """Where dropped handles go that nobody counts (SEMANTICS 18: ignored when the pid has changed)."""

    def append(self, dropped: object) -> None:
        """Take no note."""


class _ForkedStreams:
    dropped = _Nowhere()

    def __getattr__(self, name: str) -> NoReturn:
        raise current.forked_error()


class ForkedCore:
    """The core of the parent, in its child: references, streams and handles that were made before the fork still point to it."""

    def __init__(self, core: Core) -> None:
        self.identity = core.identity
        self.dropped = _Nowhere()
        self.streams = _ForkedStreams()

    def __getattr__(self, name: str) -> NoReturn:
        raise current.forked_error()

    def __repr__(self) -> str:
        return f"<the runtime of the process {self.identity.pid} that this one was forked from>"


class NoWayBack:
    """What a host in a forked child has for its core: a host comes to it when code of the user's has returned, or has failed."""

    def __getattr__(self, name: str) -> NoReturn:
        came_back()


def came_back() -> NoReturn:
    """A child has returned from the call that forked it. The loop that it finds, and the call that it would answer, are its parent's."""
    sys.stderr.write(f"actorflow: process {os.getpid()}, forked in a task or an actor, returned from that call and ends here\n")
    os._exit(1)


def turn_away(core: Core) -> None:
    """Make a ForkedCore of this core, in place. In a forked child."""
    if core.host is not None:
        # Here and now, where it is possible: one more turn of the loop would watch, for its parent, descriptors that are closed here.
        core.host.core = NoWayBack()  # type: ignore[assignment]
        core.host.executor.loop.call_soon(came_back)
    state: dict[str, Any] = core.__dict__
    keep_for_ever(state)
    core.__dict__ = dict(ForkedCore(core).__dict__)
    core.__class__ = ForkedCore  # type: ignore[assignment]
