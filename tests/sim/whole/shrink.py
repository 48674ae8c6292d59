"""From a plan that fails to a small one that fails alike: lines are left out (`actorflow.testing.shrink`), then whole drivers and nodes.

SH-1  what is returned fails in an invariant that the plan given has failed in
SH-2  it takes `runs_max` runs at most
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from actorflow.testing import shrink
from tests.sim.whole.plan import Driver, Plan

RUNS_MAX = 250
Fails = Callable[[Plan], bool]


class Line(NamedTuple):
    """A step of a driver, or of the faults (-1)."""

    driver: int
    number: int


class _Tired(Exception):
    """As many runs were made as may be."""


class Shrinker:
    """`fails(plan)` runs a plan and says whether it fails in the same way."""

    def __init__(self, fails: Fails, runs_max: int = RUNS_MAX) -> None:
        self.runs = 0
        self._fails = fails
        self._runs_max = runs_max
        self._best: Plan | None = None

    def shrink(self, plan: Plan) -> Plan:
        """The smallest that was found."""
        self._best = plan
        try:
            self._drop_lines()
            self._simplify()
            self._drop_lines()
        except _Tired:
            pass
        return self._best

    @property
    def best(self) -> Plan:
        """The smallest so far."""
        assert self._best is not None
        return self._best

    def _try(self, plan: Plan) -> bool:
        if self.runs >= self._runs_max:
            raise _Tired
        self.runs += 1
        if not self._fails(plan):
            return False
        self._best = plan
        return True

    def _drop_lines(self) -> None:
        plan = self.best
        lines = lines_of(plan)

        def fails(kept: list[Line]) -> bool:
            """With all of them it has failed already."""
            return len(kept) == len(lines) or self._try(without(plan, [line for line in lines if line not in kept]))

        shrink(lines, fails, self._runs_max)

    def _simplify(self) -> None:
        """Whole drivers and nodes, and what makes a run special."""
        while any(self._try(plan) for plan in _simpler(self.best)):
            pass


def lines_of(plan: Plan) -> list[Line]:
    """All that may be left out; the faults first, as they are mostly beside the point."""
    found = [Line(-1, number) for number in range(len(plan.faults))]
    return found + [Line(at, number) for at, driver in enumerate(plan.drivers) for number in range(len(driver.steps))]


def without(plan: Plan, lines: Sequence[Line]) -> Plan:
    """The plan, these left out."""
    gone = set(lines)
    drivers = tuple(
        Driver(driver.args, tuple(step for number, step in enumerate(driver.steps) if (at, number) not in gone))
        for at, driver in enumerate(plan.drivers)
    )
    faults = tuple(fault for number, fault in enumerate(plan.faults) if (-1, number) not in gone)
    return replace(plan, drivers=drivers, faults=faults)


def _simpler(plan: Plan) -> Iterator[Plan]:
    for at, driver in enumerate(plan.drivers):
        if not driver.steps and len(plan.drivers) > 1:
            yield replace(plan, drivers=plan.drivers[:at] + plan.drivers[at + 1 :])
    if len(plan.nodes) > 1:
        yield replace(plan, nodes=plan.nodes[:-1])
    for name, simple in (("books", 0), ("prestart", 0), ("scheme", "unix")):
        if plan.args.get(name, simple) != simple:
            yield replace(plan, args={**plan.args, name: simple})
    for at, driver in enumerate(plan.drivers):
        for name in ("outside", "inline"):
            if driver.args.get(name):
                changed = Driver({**driver.args, name: 0}, driver.steps)
                yield replace(plan, drivers=(*plan.drivers[:at], changed, *plan.drivers[at + 1 :]))
