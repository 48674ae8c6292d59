"""Who has to end when memory runs out: before the system ends somebody of its own choice. Pure.

    below PRESSED_SHARE under the threshold    nothing
    from there on                              the object store gives back what it need not have in memory
    above the threshold                        one worker is ended, and the next when that one is gone and it was not enough

    MW-1  Nothing is ended that would not help: a worker with less than VICTIM_BYTES_MIN of its own is no candidate.
    MW-2  What is on its way out counts as gone: nobody is ended for memory that is about to come free.
    MW-3  Work that is tried again ends before work that is not; of that the newest of the largest group: it has the least to lose, and
          the others of its group go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import NamedTuple

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.base.resources import format_bytes

THRESHOLD = 0.95
"""The share of the memory that may be in use."""
PRESSED_SHARE = 0.05
"""So far below the threshold the store begins to make room."""
VICTIM_BYTES_MIN = 64 * 1024 * 1024
NAMED_MAX = 3
"""Workers that the reason names."""


def check_memory_threshold(where: str, value: object) -> None:
    """Raises OptionError, OptionTypeError. `where`: who is asked, for the error."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionTypeError(f"{where}(memory_usage_threshold={value!r}): a share is needed, a number and not {type(value).__name__}")
    if not 0 <= value <= 1:
        raise OptionError(f"{where}(memory_usage_threshold={value!r}): a share from 0 to 1 is needed; 0 leaves it to the system")


class MemoryUse(NamedTuple):
    """What is in use of what there is. `where`: `on this machine`."""

    used_bytes: int
    limit_bytes: int
    where: str

    @property
    def share(self) -> float:
        """The used part, from 0 to 1."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes else 0.0


class Candidate(NamedTuple):
    """A worker that runs something. `memory_bytes`: what would come free with it. `since`: when it began."""

    worker_id: str
    label: str
    job_id: str
    name: str
    """The function or the class of the actor: with the job, the group."""
    retriable: bool
    since: float
    memory_bytes: int


class Victim(NamedTuple):
    """End this worker, for this reason."""

    worker_id: str
    reason: str


def is_pressed(use: MemoryUse, threshold: float) -> bool:
    """True when the store is to make room."""
    return use.share >= threshold - PRESSED_SHARE


def is_over(use: MemoryUse, threshold: float, leaving_bytes: int) -> bool:
    """True when somebody has to end (MW-2)."""
    return use.used_bytes - leaving_bytes > threshold * use.limit_bytes


def choose(use: MemoryUse, threshold: float, candidates: Iterable[Candidate]) -> Victim | None:
    """Who ends (MW-3); None: nobody whose end would help (MW-1)."""
    able = [candidate for candidate in candidates if candidate.memory_bytes >= VICTIM_BYTES_MIN]
    if not able:
        return None
    pool = [candidate for candidate in able if candidate.retriable] or able
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in pool:
        groups.setdefault((candidate.job_id, candidate.name), []).append(candidate)
    largest = groups[max(groups, key=lambda name: (len(groups[name]), sum(one.memory_bytes for one in groups[name]), name))]
    newest = max(largest, key=lambda one: (one.since, one.worker_id))
    return Victim(newest.worker_id, _reason(use, threshold, newest, len(largest), able))


def _reason(use: MemoryUse, threshold: float, victim: Candidate, group: int, able: list[Candidate]) -> str:
    who = "the only one" if group == 1 else f"the newest of {group}"
    kind = "which is tried again" if victim.retriable else "as nothing that is tried again had memory to give"
    most = ", ".join(
        f"{one.label} ({one.name}) {format_bytes(one.memory_bytes)}" for one in nlargest(NAMED_MAX, able, key=lambda one: one.memory_bytes)
    )
    return (
        f"memory ran out {use.where}: {format_bytes(use.used_bytes)} of {format_bytes(use.limit_bytes)} were in use, "
        f"{use.share:.0%}, and {threshold:.0%} may be. It had {format_bytes(victim.memory_bytes)} and was {who} that ran {victim.name}, "
        f"{kind}. The most had {most}"
    )
