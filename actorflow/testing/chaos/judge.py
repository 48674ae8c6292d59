"""What a run comes to: from what the program, the code in the cluster and the conductor have written down. Pure, and without mercy.

CJ-1  A call ends in its oracle's value, or in an error of a sort that its kind of work allows, and then not before anything was harmed.
CJ-2  A call that is not tried again begins to run at most once.
CJ-3  What an actor with checkpoints has acknowledged is there in the end, once, in its order. What it has not may be there, once.
CJ-4  Once a life of an actor has begun, no earlier one runs a call, but for one that stood still and has just woken up.
CJ-5  What was hit, and is called on, goes on again.
CJ-6  Nothing is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from actorflow.testing.chaos.records import Account, Call, Harm, Note, Story
from actorflow.testing.chaos.recovery import Recovery, recoveries
from actorflow.testing.chaos.schedule import KILLS, Kind
from actorflow.testing.chaos.work import WORK

WOKEN_S = 1.0
"""So long may a life act that stood still while it was given up: until its node has ended it."""
EXCUSE_S = 30.0
"""An error comes within this time of a fault: being given up takes ten seconds, a busy machine some more."""
UNNOTICED_S = 5.0
"""What does not last longer nobody may notice but by waiting."""


@dataclass
class Verdict:
    """What was found, in words, and what it is to be read against."""

    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Those that were allowed, by kind of work and sort."""
    harms: Counter[Kind] = field(default_factory=Counter)
    recoveries: list[Recovery] = field(default_factory=list)
    seconds: float = 0.0
    began: float = 0.0
    """On the clock of the harms."""

    def problems(self) -> list[str]:
        """All that is wrong, in words."""
        kinds = ("wrong", "lost", "duplicated", "hung", "left")
        return [f"{kind}: {what}" for kind in kinds for what in getattr(self, kind)]


def judge(story: Story, errors_of: Mapping[str, frozenset[str]]) -> Verdict:
    """`errors_of`: the sorts of errors that the system may answer with beside those in WORK."""
    verdict = Verdict(wrong=list(story.wrong), hung=list(story.hung), left=list(story.left))
    verdict.began, verdict.seconds = story.began, story.ended - story.began
    verdict.calls.update(call.kind for call in story.calls)
    verdict.harms.update(harm.kind for harm in story.harms)
    _judge_errors(story.calls, story.harms, errors_of, verdict)
    _judge_once(story.calls, story.notes, verdict)
    _judge_lives(story.notes, story.harms, verdict)
    for account in story.accounts:
        _judge_account(account, verdict)
    verdict.recoveries = recoveries(story.calls, story.notes, story.harms)
    for recovery in verdict.recoveries:
        if recovery.seconds is None:  # CJ-5
            verdict.hung.append(f"{recovery.what} did not go on after fault {recovery.harm.number} ({recovery.harm.kind})")
    return verdict


def _judge_errors(calls: Iterable[Call], harms: Iterable[Harm], errors_of: Mapping[str, frozenset[str]], verdict: Verdict) -> None:
    reasons = [harm for harm in harms if _is_reason(harm)]
    for call in calls:
        if not call.error:
            continue
        words = f"{call.call} of {call.target} ended in {call.text}"
        if call.error not in WORK[call.kind].errors | errors_of.get(call.kind, frozenset()):
            verdict.wrong.append(words)
        elif not any(harm.at <= call.ended and harm.until + EXCUSE_S >= call.began for harm in reasons):
            verdict.wrong.append(f"{words} (and nothing had been harmed)")
        else:
            verdict.errors[call.kind, call.error] += 1


def _is_reason(harm: Harm) -> bool:
    """False for what ends no process: nobody may notice that but by waiting."""
    return harm.kind in KILLS or (harm.kind in (Kind.STOP_NODE, Kind.PARTITION) and harm.until - harm.at > UNNOTICED_S)


def _judge_once(calls: Iterable[Call], notes: Iterable[Note], verdict: Verdict) -> None:
    ran = Counter(note.call for note in notes if note.what == "run")
    for call in calls:
        if WORK[call.kind].once and ran[call.call] > 1:  # CJ-2
            verdict.duplicated.append(f"{call.call} of {call.target} began to run {ran[call.call]} times")
        if call.target != "here" and not call.error and not ran[call.call]:
            verdict.wrong.append(f"{call.call} has a value, and never ran")


def _judge_lives(notes: Iterable[Note], harms: Iterable[Harm], verdict: Verdict) -> None:
    stood = [harm for harm in harms if harm.kind is Kind.STOP_NODE]
    lives: dict[str, list[int]] = {}
    for note in notes:
        if note.what == "born":
            lives.setdefault(note.target, []).append(note.pid)
            continue
        late = note.target in lives and note.pid != lives[note.target][-1]
        if late and not any(note.pid in harm.pids and harm.at <= note.at <= harm.until + WOKEN_S for harm in stood):  # CJ-4
            verdict.duplicated.append(f"{note.target}: {note.call} ran in process {note.pid} after a later life had begun")


def _judge_account(account: Account, verdict: Verdict) -> None:
    seen, order = Counter(account.seen), list(account.seen)
    gone = [number for number in account.acknowledged if number not in seen]
    if gone:
        verdict.lost.append(f"{account.target} had acknowledged {gone}, and has {order}")
    if twice := [number for number, times in seen.items() if times > 1]:
        verdict.duplicated.append(f"{account.target} has {twice} more than once: {order}")
    if order != sorted(order):
        verdict.wrong.append(f"{account.target} has its effects out of order: {order}")
