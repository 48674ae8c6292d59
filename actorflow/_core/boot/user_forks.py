"""Forks by the user: os.fork, multiprocessing, a DataLoader, gunicorn with preload (SEMANTICS 29).

A process that has a runtime watches its forks. The zygote has none: its forks are births of workers, of which nothing here knows.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from actorflow._core.base import current
from actorflow._core.io import blocking, forks
from actorflow._core.io.arena import live_windows
from actorflow._core.worker.core import Core
from actorflow._core.worker.forked import turn_away

_runtimes: WeakSet[Core] = WeakSet()
_hooked = False
_forking = threading.local()


def watch(core: Core) -> None:
    """See to the forks of this process for as long as the runtime lives."""
    global _hooked
    _runtimes.add(core)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def part(core: Core) -> None:
    """The runtime ends. On its loop, before that does."""
    _runtimes.discard(core)
    if not _runtimes:
        for hold in forks.holds():
            hold.release()


def _before() -> None:
    windows = live_windows() if _runtimes else []
    _forking.hold = forks.Hold(windows) if windows else None


def _in_parent() -> None:
    hold: forks.Hold | None = _forking.hold
    _forking.hold = None
    if hold is not None:
        runtime = next(iter(_runtimes), None)
        if runtime is not None:
            hold.forked(runtime.ports.loop)


def _in_child() -> None:
    hold: forks.Hold | None = _forking.hold
    forks.forget_holds()
    if hold is not None:
        hold.inherited()
        forks.keep_for_ever(hold)
    runtimes = list(_runtimes)
    _runtimes.clear()
    if runtimes:
        current.forked(runtimes[0].identity.pid, runtimes[0].node.address if hasattr(runtimes[0], "node") else "")
        blocking.abandon_thread_loop()
        forks.abandon_all()
        for core in runtimes:
            turn_away(core)

