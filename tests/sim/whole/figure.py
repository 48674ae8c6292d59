"""What many runs came to, in a few lines."""

from __future__ import annotations

import re
from collections import Counter

from tests.sim.whole.markers import MARKERS
from tests.sim.whole.run import Outcome

WRONG = ("CK-2", "CK-5", "WH-4")
LOST = ("WH-2", "WH-3")
DUPLICATED = ("CK-4", "CK-6")


class Figure:
    """Add outcomes, then print it."""

    def __init__(self) -> None:
        self.seeds = 0
        self.failed = 0
        self.virtual_s = 0.0
        self.steps = 0
        self.steps_most = (0, 0)
        self.operations: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.markers: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """One run more."""
        self.seeds += 1
        self.failed += bool(outcome.violations)
        self.virtual_s += outcome.virtual_s
        self.steps += outcome.steps
        self.steps_most = max(self.steps_most, (outcome.steps, outcome.plan.seed))
        self.operations += outcome.operations
        self.faults += outcome.faults
        # In how many runs it was seen.
        self.markers.update(name for name, count in outcome.markers.items() if count)
        self.bad.update(kind_of(violation.invariant, violation.text) for violation in outcome.violations)

    def missing(self) -> list[str]:
        """Markers that no run has reached (MK-1)."""
        return [marker.name for marker in MARKERS if not self.markers[marker.name]]

    def lines(self) -> list[str]:
        """The figure."""
        missing = self.missing()
        reached = len(MARKERS) - len(missing)
        most, of = self.steps_most
        steps = f"{self.steps} steps, {self.steps // max(self.seeds, 1)} a seed, {most} at most (seed {of})"
        bad = ", ".join(f"{kind} {self.bad[kind]}" for kind in ("wrong", "lost", "duplicated", "hung", "left", "other"))
        return [
            f"seeds        {self.seeds}, of which {self.failed} failed",
            f"virtual time {self.virtual_s / 3600:.1f} hours, {steps}",
            f"operations   {self.operations.total()}: {_listed(self.operations)}",
            f"faults       {self.faults.total()}: {_listed(self.faults)}",
            f"markers      {reached} of {len(MARKERS)} reached" + (f"; missing: {', '.join(missing)}" if missing else ""),
            bad,
        ]

    def rare(self) -> list[str]:
        """In how many runs each marker was seen, the rarest first."""
        return [f"{self.markers[marker.name]:7} {marker.name}" for marker in sorted(MARKERS, key=lambda one: self.markers[one.name])]


def kind_of(invariant: str, text: str) -> str:
    """What a violation is, in the words of the figure."""
    if invariant == "CK-1":
        return "duplicated" if re.search(r"ended \d+ times", text) else "lost"
    for kind, names in (("wrong", WRONG), ("lost", LOST), ("duplicated", DUPLICATED), ("hung", ("WH-1",)), ("left", ("CK-7",))):
        if invariant in names:
            return kind
    return "other"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
