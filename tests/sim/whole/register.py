"""What user code of a run tells about itself, outside of the cluster: no crash loses it. Simulated processes share this module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actorflow import _runtime

if TYPE_CHECKING:
    from actorflow.testing import History, Host
    from actorflow.testing.cluster import SimCluster


class Register:
    """The record of one run."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.cluster: SimCluster | None = None
        self.tries: dict[str, int] = {}
        self.begun: dict[str, Host] = {}
        """Code that says when it ends, however it ends, and the process that it ran in."""
        self._lives = 0
        self._homes: dict[str, list[tuple[str, Host]]] = {}
        """The lives of each actor, and the processes that they were in."""

    def here(self) -> Host:
        """The process whose code runs."""
        assert self.cluster is not None
        core: Any = _runtime.current()
        return next(host for host, one in self.cluster.cores.items() if one is core)

    def born(self, target: str) -> str:
        """An actor begins a life, which ends with its process at the latest. Returns its name."""
        self._lives += 1
        life, history = f"life {self._lives}", self.history
        for before, host in self._homes.get(target, ()):
            if host.paused:
                # It was given up while it stood still. It may wake up, and must not run a call any more (CK-4).
                history.life_ended(target, before)
        self._homes.setdefault(target, []).append((life, self.here()))
        history.life_began(target, life)
        self.here().on_end.append(lambda host: history.life_ended(target, life))
        return life


current: Register | None = None


def register() -> Register:
    """The one of the run."""
    assert current is not None, "there is a run"
    return current


@contextmanager
def used(one: Register) -> Iterator[None]:
    """Within this block user code tells it."""
    global current
    before, current = current, one
    try:
        yield
    finally:
        current = before


def executed(call: int, target: str = "", life: str = "") -> None:
    """The code of a call begins."""
    register().history.executed(call, target, life)


def tried(key: str) -> int:
    """Count one try of `key`; returns how many there were before."""
    tries = register().tries
    before = tries.get(key, 0)
    tries[key] = before + 1
    return before


@contextmanager
def witnessed(key: str) -> Iterator[None]:
    """What is begun is ended, unless its process was killed (WH-6)."""
    one = register()
    key = f"{key} try {tried(key)}"
    one.begun[key] = one.here()
    try:
        yield
    finally:
        del one.begun[key]
