"""How long it took after a fault until what it hit went on again. Pure.

CV-1  An actor is hit by a fault when its last answer before came from a process that the fault hit, and it was called again. It is back
      with the first call that began after the fault and ended in a value: the time until that end counts.
CV-2  A task is hit when it ran in such a process, and its caller had no answer yet. It is back when the caller has its value.
CV-3  The time counts from the beginning of the fault: of what is stopped for two seconds, two seconds are no recovery that failed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from actorflow.testing.chaos.records import Call, Harm, Note
from actorflow.testing.chaos.work import WORK


class Recovery(NamedTuple):
    """What one fault hit, and when that was back; `seconds` is None for what never was."""

    harm: Harm
    what: str
    seconds: float | None


def recoveries(calls: Sequence[Call], notes: Sequence[Note], harms: Sequence[Harm]) -> list[Recovery]:
    """Of all faults, in their order."""
    by_target: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.began):
        if WORK[call.kind].standing:
            by_target[call.target].append(call)
    tasks = {call.call: call for call in calls if call.target == "task" and not WORK[call.kind].errors}
    found = []
    for harm in sorted(harms, key=lambda harm: harm.at):
        found += [Recovery(harm, target, seconds) for target, seconds in _actors(by_target, harm)]
        found += [Recovery(harm, call, seconds) for call, seconds in _tasks(tasks, notes, harm)]
    return found


def _actors(by_target: dict[str, list[Call]], harm: Harm) -> Iterable[tuple[str, float | None]]:
    for target, calls in by_target.items():  # CV-1
        before = [call for call in calls if call.pid and call.ended <= harm.at]
        after = [call for call in calls if call.began > harm.at]
        if before and after and max(before, key=lambda call: call.ended).pid in harm.pids:
            back = [call.ended - harm.at for call in after if not call.error]
            yield target, min(back, default=None)


def _tasks(tasks: dict[str, Call], notes: Iterable[Note], harm: Harm) -> Iterable[tuple[str, float | None]]:
    where: dict[str, int] = {}
    for note in notes:
        if note.what == "run" and note.at <= harm.at and note.call in tasks:
            where[note.call] = note.pid
    for name, pid in where.items():  # CV-2
        call = tasks[name]
        if pid in harm.pids and call.ended > harm.at:
            yield name, None if call.error else call.ended - harm.at


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
