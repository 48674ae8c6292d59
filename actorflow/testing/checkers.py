"""Pure checks of a `History`: what must hold of every run, whatever the faults.

Each check takes a history and returns its violations. The names are quoted by tests and by the text of
InvariantBroken.

    CK-1  one terminal result: every call of a living caller ends, once
    CK-2  the oracle's value: a value is what a run without a cluster gives
    CK-3  typed errors: an error is of a type that the scenario allows
    CK-4  one live incarnation: two incarnations of an actor never live at the same time
    CK-5  per-caller order: calls of one caller to one actor start in the order in which they were made
    CK-6  at most once: no call starts twice (unless the scenario allows retries)
    CK-7  nothing leaked: at rest, no task, connection, thread or view is left
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from actorflow.testing.errors import InvariantBroken
from actorflow.testing.history import Call, History
from actorflow.testing.misuse import check_checks

Check = Callable[[History], "list[Violation]"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which one invariant does not hold."""

    invariant: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


def one_terminal_result(history: History) -> list[Violation]:
    """CK-1: every call has exactly one end; calls of a caller that was killed may have none."""
    found: list[Violation] = []
    for call in history.calls:
        if len(call.ends) > 1:
            found.append(Violation("CK-1", f"{call} ended {len(call.ends)} times"))
        elif not call.ends and call.caller not in history.dead_callers:
            found.append(Violation("CK-1", f"{call} never ended"))
    return found


def values_match(oracle: Callable[[Call], Any]) -> Check:
    """CK-2: make the check that each value equals what `oracle(call)` returns."""

    def check(history: History) -> list[Violation]:
        found: list[Violation] = []
        for call in history.calls:
            for end in call.ends:
                if end.error is None and end.value != (expected := oracle(call)):
                    found.append(Violation("CK-2", f"{call} returned {end.value!r}, not {expected!r}"))
        return found

    return check


def errors_allowed(*types: type[BaseException]) -> Check:
    """CK-3: make the check that each error is of one of these types."""

    def check(history: History) -> list[Violation]:
        return [
            Violation("CK-3", f"{call} raised {end.error!r}")
            for call in history.calls
            for end in call.ends
            if end.error is not None and not isinstance(end.error, types)
        ]

    return check


def errors_allowed_by(rule: Callable[[Call], tuple[type[BaseException], ...]]) -> Check:
    """CK-3: make the check that each error is of one of the types that `rule(call)` allows for this call."""

    def check(history: History) -> list[Violation]:
        return [
            Violation("CK-3", f"{call} raised {end.error!r}")
            for call in history.calls
            for end in call.ends
            if end.error is not None and not isinstance(end.error, rule(call))
        ]

    return check


def one_live_incarnation(history: History) -> list[Violation]:
    """CK-4: the lives of an actor do not overlap, and calls run only in a living incarnation."""
    found: list[Violation] = []
    latest: dict[str, Any] = {}
    for life in history.lives:
        before = latest.get(life.target)
        if before is not None and (before.ended is None or before.ended > life.began):
            both = f"{before.incarnation} still lives when {life.incarnation} begins"
            found.append(Violation("CK-4", f"{life.target}: {both}"))
        latest[life.target] = life
    ends = {(life.target, life.incarnation): life.ended for life in history.lives}
    for execution in history.executions:
        ended = ends.get((execution.target, execution.incarnation))
        if ended is not None and execution.order > ended:
            dead = f"{execution.target} {execution.incarnation}"
            found.append(Violation("CK-4", f"call {execution.call} ran in {dead}, which was dead"))
    return found


def per_caller_order(history: History) -> list[Violation]:
    """CK-5: among the calls of one caller to one target that started, a later one does not start first."""
    found: list[Violation] = []
    latest: dict[tuple[str, str], Call] = {}
    started: set[int] = set()
    for execution in history.executions:
        call = history.calls[execution.call]
        if call.number in started:
            continue  # a retry; CK-6 judges it
        started.add(call.number)
        before = latest.get((call.caller, call.target))
        if before is not None and before.number > call.number:
            found.append(Violation("CK-5", f"{call} started after {before}"))
        else:
            latest[call.caller, call.target] = call
    return found


def at_most_once(history: History) -> list[Violation]:
    """CK-6: no call starts twice."""
    return at_most_once_where(lambda call: True)(history)


def at_most_once_where(applies: Callable[[Call], bool]) -> Check:
    """CK-6: make the check that no call to which it applies starts twice."""

    def check(history: History) -> list[Violation]:
        counts: dict[int, int] = {}
        for execution in history.executions:
            counts[execution.call] = counts.get(execution.call, 0) + 1
        return [
            Violation("CK-6", f"{history.calls[number]} started {count} times")
            for number, count in counts.items()
            if count > 1 and applies(history.calls[number])
        ]

    return check


ALWAYS: tuple[Check, ...] = (one_terminal_result, one_live_incarnation, per_caller_order)
"""The checks that every scenario wants."""


def check(history: History, checks: Iterable[Check] = ALWAYS, *, seed: object = None) -> None:
    """Apply checks; raise InvariantBroken with all violations, and the seed to replay them with."""
    require([violation for one in check_checks(history, checks, History) for violation in one(history)], seed=seed)


def require(violations: list[Violation], *, seed: object = None) -> None:
    """Raise InvariantBroken unless there are none."""
    if violations:
        head = f"{len(violations)} violations" + (f" with seed {seed}" if seed is not None else "")
        raise InvariantBroken("\n".join([f"{head}:", *map(str, violations)]))
