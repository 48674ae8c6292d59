"""From a list that makes a run fail to a short one that does: parts are left out, large ones first and then one by one (delta debugging).

    SK-1  what is returned has made the run fail, and is a part of what was given, in its order
    SK-2  it takes `runs_max` runs at most
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from actorflow.testing.errors import SimulationMisuse

T = TypeVar("T")

RUNS_MAX = 250


def shrink(items: Sequence[T], fails: Callable[[list[T]], bool], runs_max: int = RUNS_MAX) -> list[T]:
    """A short part of `items` with which `fails(part)` is still true: faults of a Nemesis by number (`only`), or steps of a plan of yours.

    `fails` runs the seed with these alone and says whether it failed in the same way. Raises SimulationMisuse when it does not with all.
    """
    best, runs, parts = list(items), 1, 2
    if not fails(list(best)):
        raise SimulationMisuse("shrink: it does not fail with all of them: is it the same seed, and does all of the run come from it?")
    while best and runs < runs_max:
        parts = min(parts, len(best))
        for rest in _without_each(best, parts):
            runs += 1
            if fails(list(rest)):
                best, parts = rest, max(parts - 1, 2)
                break
            if runs >= runs_max:
                return best
        else:
            if parts == len(best):
                return best
            parts *= 2
    return best


def _without_each(items: list[T], parts: int) -> Iterator[list[T]]:
    for part in range(parts):
        first, last = len(items) * part // parts, len(items) * (part + 1) // parts
        yield items[:first] + items[last:]
