"""Many seeds of the whole, in several processes; one of them again; a plan from a file; or the smallest plan that fails like one.

    python -m tests.sim.whole --seeds 10000 --jobs 2        what `make sim SEEDS=10000` runs
    python -m tests.sim.whole --seed 17                     this one again
    python -m tests.sim.whole --seed 17 --show              its plan, to be edited
    python -m tests.sim.whole --seed 17 --shrink            a small plan that fails in the same way
    python -m tests.sim.whole --plan plan.txt               run that plan

It ends with 1 when something has failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.sim.whole import again
from tests.sim.whole.draw import draw
from tests.sim.whole.many import run_many
from tests.sim.whole.plan import Plan, PlanError
from tests.sim.whole.run import run
from tests.sim.whole.shrink import Shrinker


def run_one(plan: Plan, command: str, *, detail: bool) -> int:
    """Run one plan, and say what came of it."""
    outcome = run(plan, detail=detail)
    print(f"{outcome.steps} steps, {outcome.virtual_s:.1f} virtual seconds, digest {outcome.digest}")
    for title, counts in (("operations", outcome.operations), ("faults", outcome.faults), ("markers", outcome.markers)):
        print(f"{title}: " + (", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"))
    for violation in outcome.violations:
        print(f"\n{violation}")
    print(f"\n{'FAILED' if outcome.violations else 'passed'}; again: {command}")
    return min(len(outcome.violations), 1)


def shrink(plan: Plan) -> int:
    """Print a small plan that fails like this one."""
    outcome = again.quietly(plan)
    if not outcome.violations:
        print("it passes: there is nothing to shrink")
        return 0
    names = outcome.invariants
    shrinker = Shrinker(lambda small: bool(names & again.quietly(small).invariants))
    small = shrinker.shrink(plan)
    print(f"# {plan.size} lines, {small.size} of them are left after {shrinker.runs} runs; it fails in {', '.join(sorted(names))}")
    print(f"# python -m tests.sim.whole --plan FILE\n{small}", end="")
    return 1


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.whole", description="Seeds of whole clusters under faults.")
    parser.add_argument("--seeds", type=int, default=1000, help="so many of them")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--plan", type=Path, help="the plan in this file")
    parser.add_argument("--show", action="store_true", help="print the plan")
    parser.add_argument("--shrink", action="store_true", help="find a small plan that fails in the same way")
    parser.add_argument("--rare", action="store_true", help="in how many runs each marker was reached")
    parser.add_argument("--detail", action="store_true", help="keep a detailed trace")
    parser.add_argument("--known", action="store_true", help="the seeds and plans that ever failed, first")
    options = parser.parse_args()
    if options.seed is None and options.plan is None:
        known = [*(name for name in again.failed_plans() if not again.open_defect(name)), *again.failed_seeds()] if options.known else []
        seeds = list(dict.fromkeys([*known, *range(options.first, options.first + options.seeds)]))
        figure = run_many(seeds, options.jobs)
        print("\n".join([*(figure.rare() if options.rare else ()), *figure.lines()]), flush=True)
        return min(figure.failed, 1)
    try:
        plan = draw(options.seed) if options.plan is None else again.read(options.plan.read_text())
    except PlanError as error:
        parser.error(f"{options.plan}: {error}")
    command = f"python -m tests.sim.whole {f'--seed {options.seed}' if options.plan is None else f'--plan {options.plan}'}"
    if options.show:
        print(plan, end="")
        return 0
    again.begin()
    return shrink(plan) if options.shrink else run_one(plan, command, detail=options.detail)


if __name__ == "__main__":
    sys.exit(main())
