"""Bugs planted by hand in policy, and the hunt for them: are the scenarios any good?

    python -m tests.sim.mutants            hunt all of them
    python -m tests.sim.mutants mailbox    hunt those whose name begins so

A mutant replaces one method of a pure policy by one that a tired programmer could have written. The hunt runs
the scenarios with one seed after the other until one of them fails; without the mutant all of them pass.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actorflow._core.policy import checkpoints, leases, mailbox, object_store, ownership, worker_pool
from tests.sim import judged

SEEDS = 60
"""Seeds within which each is to be found."""


@dataclass(frozen=True)
class Mutant:
    """One planted bug: `make(original)` gives the method that replaces `owner.method`."""

    name: str
    why: str
    owner: type
    method: str
    make: Callable[[Any], Any]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within this block the bug is there."""
        original = self.owner.__dict__[self.method]
        function = original.__func__ if isinstance(original, staticmethod) else original
        changed = self.make(function)
        setattr(self.owner, self.method, staticmethod(changed) if isinstance(original, staticmethod) else changed)
        try:
            yield
        finally:
            setattr(self.owner, self.method, original)


def _newest_first(original: Any) -> Any:
    def finished(self: Any, group: str = "") -> Any:
        self._groups[group].queue.reverse()
        following = original(self, group)
        self._groups[group].queue.reverse()
        return following

    return finished


def _one_loan(original: Any) -> Any:
    def count(entry: Any, borrower: str, count: int) -> None:
        entry.borrowers = entry.borrowers or {}
        if count > 0:
            entry.borrowers[borrower] = 1
        else:
            entry.borrowers.pop(borrower, None)

    return count


def _takes_nothing(original: Any) -> Any:
    def grant(self: Any, ticket: Any, now: float) -> None:
        original(self, ticket, now)
        self._free.add(ticket.demand)

    return grant


def _stays_idle(original: Any) -> Any:
    def fulfil(self: Any, claim: Any, worker: Any, now: float) -> None:
        idle = worker.state is worker_pool.WorkerState.IDLE
        original(self, claim, worker, now)
        if idle and claim.purpose is worker_pool.Purpose.LEASE:
            self._make_idle(worker, now)

    return fulfil


def _ignores_pins(original: Any) -> Any:
    def free_if_unused(self: Any, extent: Any, now: float) -> Any:
        pins, extent.pins = extent.pins, 0
        freed = original(self, extent, now)
        extent.pins = pins
        return freed

    return free_if_unused


def _keeps_the_first(original: Any) -> Any:
    def save(self: Any, actor_id: str, incarnation: int, number: int, data: bytes, *, current: int | None) -> str:
        if actor_id in self._by_actor and number % 3 == 0:
            return ""
        return str(original(self, actor_id, incarnation, number, data, current=current))

    return save


def _leaves_under_a_reader(original: Any) -> Any:
    def written(self: Any, number: int, now: float) -> Any:
        extent = self._extents[number]
        pins, extent.pins = extent.pins, 0
        freed = original(self, number, now)
        extent.pins = pins
        return freed

    return written


def _forgets_the_file(original: Any) -> Any:
    def free_if_unused(self: Any, extent: Any, now: float) -> Any:
        freed = original(self, extent, now)
        return None if freed is None or not freed.size else dataclasses.replace(freed, on_disk=False)

    return free_if_unused


MUTANTS = [
    Mutant("mailbox order", "MB-1: the newest waiting call starts first", mailbox.Mailbox, "finished", _newest_first),
    Mutant("ownership counts", "OW-4: a borrower is counted once, however often it was lent to", ownership.Ownership, "_count", _one_loan),
    Mutant("lease granted twice", "LE-2: what a lease has taken is granted again", leases.LeaseBook, "_grant", _takes_nothing),
    Mutant("worker for two", "WP-1: a leased worker is still idle, and is leased again", worker_pool.WorkerPool, "_fulfil", _stays_idle),
    Mutant("extent under a reader", "ST-2: a pinned extent is freed", object_store.ExtentBook, "_free_if_unused", _ignores_pins),
    Mutant("leaves under a reader", "ST-7: it leaves while somebody reads it", object_store.ExtentBook, "written", _leaves_under_a_reader),
    Mutant("file left", "ST-8: its file is not deleted", object_store.ExtentBook, "_free_if_unused", _forgets_the_file),
    Mutant("checkpoint lost", "CP-2: an accepted checkpoint is not kept", checkpoints.CheckpointStore, "save", _keeps_the_first),
]


def hunt(mutant: Mutant, seeds: int = SEEDS) -> tuple[str, int, str] | None:
    """The scenario and the seed that find it, and what they say; None when all seeds pass."""
    with mutant.planted():
        for seed in range(seeds):
            for name, run in judged.RUNS.items():
                try:
                    run(seed)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    return name, seed, f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    return None


def main() -> int:
    """Hunt, and say what was found."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    escaped = 0
    for mutant in MUTANTS:
        if mutant.name.startswith(wanted):
            found = hunt(mutant)
            escaped += found is None
            print(f"{mutant.name} ({mutant.why}): {f'found by {found[0]} with seed {found[1]}: {found[2]}' if found else 'ESCAPED'}")
    return min(escaped, 1)


if __name__ == "__main__":
    sys.exit(main())
