"""How long it took after a fault until what it hit went on again. Pure.

GO-1  An actor is hit by a fault when its last answer before came from a process that the fault hit, and it was called again. It is back
      with the first call that began after the fault and ended in a value: the time until that end counts.
GO-2  A task is hit when it ran in such a process, and its caller had no answer yet. It is back when the caller has its value.
GO-3  The time counts from the beginning of the fault: of what is stopped for two seconds, two seconds are no recovery that failed.
    GO-4  What a second fault hits before it is back from the first, or while its node is stopped or cut off, is counted apart.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from actorflow.testing.chaos.records import Call, Harm, Note
from actorflow.testing.chaos.schedule import Kind
from actorflow.testing.chaos.work import WORK

WHOLE = frozenset({Kind.STOP_NODE, Kind.PARTITION, Kind.KILL_NODE, Kind.KILL_HEAD})
"""What hits a node hits workers of it that are younger than the fault as well."""


class Recovery(NamedTuple):
    """What one fault hit, and when that was back; `seconds` is None for what never was."""

    harm: Harm
    what: str
    seconds: float | None
    is_task: bool = False
    pid: int = 0
    """The process that it was in."""
    mixed: bool = False
    """Another fault hit it meanwhile, so the time is of both."""


def recoveries(calls: Iterable[Call], notes: Iterable[Note], harms: Iterable[Harm]) -> list[Recovery]:
    """Of all faults, in their order."""
    ordered = sorted(harms, key=lambda harm: harm.at)
    standing: dict[str, list[Call]] = defaultdict(list)
    tasks: dict[str, Call] = {}
    for call in sorted(calls, key=lambda call: call.began):
        if WORK[call.kind].standing:
            standing[call.target].append(call)
        elif call.target == "task" and not WORK[call.kind].errors:
            tasks[call.call] = call
    found = [each for target, made in standing.items() for each in _of_actor(target, made, ordered)]
    found += _of_tasks(tasks, notes, ordered)
    return [each._replace(mixed=_is_mixed(each, ordered)) for each in sorted(found, key=lambda each: each.harm.number)]


def _is_mixed(found: Recovery, harms: Iterable[Harm]) -> bool:  # GO-4
    until = found.harm.at + (found.seconds or 0.0)
    return any(
        harm.number != found.harm.number
        and harm.at < until
        and (harm.at > found.harm.at or harm.until > found.harm.at)
        and (found.pid in harm.pids or (harm.kind in WHOLE and harm.where == found.harm.where))
        for harm in harms
    )


def _of_actor(target: str, calls: Sequence[Call], harms: Iterable[Harm]) -> Iterator[Recovery]:
    """Its calls are made one after the other, so they end in the order in which they began."""
    answered = [call for call in calls if not call.error]
    began, ended = [call.began for call in answered], [call.ended for call in answered]
    for harm in harms:  # GO-1
        before, back = bisect_right(ended, harm.at), bisect_right(began, harm.at)
        if before and answered[before - 1].pid in harm.pids and calls[-1].began > harm.at:
            seconds = ended[back] - harm.at if back < len(answered) else None
            yield Recovery(harm, target, seconds, pid=answered[before - 1].pid)


def _of_tasks(tasks: Mapping[str, Call], notes: Iterable[Note], harms: Sequence[Harm]) -> Iterator[Recovery]:
    runs: dict[str, list[Note]] = defaultdict(list)
    for note in notes:
        if note.what == "run" and note.call in tasks:
            runs[note.call].append(note)
    moments = [harm.at for harm in harms]
    for name, begun in runs.items():  # GO-2
        call = tasks[name]
        for harm in harms[bisect_left(moments, call.began) : bisect_left(moments, call.ended)]:
            last = next((note for note in reversed(begun) if note.at <= harm.at), None)
            if last is not None and last.pid in harm.pids:
                yield Recovery(harm, name, None if call.error else call.ended - harm.at, is_task=True, pid=last.pid)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
