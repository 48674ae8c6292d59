"""The hunt for bugs that were planted by hand, in policy, protocol and shells (`planted/`): are the scenarios any good?

    python -m tests.sim.mutants                    hunt all of them
    python -m tests.sim.mutants mailbox            hunt those whose name begins so
    python -m tests.sim.mutants --seeds 2000       ... with so many seeds

A hunt plants one bug and runs the simulated tests with one seed after the other until one of them fails; without the bug all of them pass.
The tests are those that `make sim` runs with a whole cluster in them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from typing import NamedTuple

from tests.sim import judged
from tests.sim.planted import conversations, policies, shells
from tests.sim.planted.mutant import Mutant

SEEDS = 60
"""Seeds within which each is to be found, unless more are asked for."""
MUTANTS = [*policies.MUTANTS, *conversations.MUTANTS, *shells.MUTANTS]
FIRST_SEEDS = 20
CLUSTERS = (
    "budgets", "cluster", "nodes", "transfers", "partitions", "placement_groups", "supervision", "chains", "checkpoints", "remote_drivers",
    "links", "draining", "draining_races", "draining_objects", "durable_objects", "durable_races", "detached_calls",
    "detached_races", "one_bad_link", "retry_pauses", "stored_state", "shared_ends", "orderly_ends", "moves", "leaving", "ends_that_meet",
)  # fmt: skip
"""The tests with a whole cluster in them: `test_<name>.py`."""
TWICE = "test_the_same_seed"
"""Of no use here: what these tests compare has the same bug."""


class Found(NamedTuple):
    """The test and the seed that have found a bug, and what they say."""

    test: str
    seed: int
    says: str
    taken_s: float


@cache
def runs() -> Mapping[str, Callable[[int], None]]:
    """What is run with each seed: the scenarios of a cluster on one node first, which take least time."""
    from tests.sim.seeds import seeded_tests

    found = dict(judged.RUNS)
    for name, run in seeded_tests().items():
        file, _, test = name.partition("::")
        if any(file.endswith(f"/test_{cluster}.py") for cluster in CLUSTERS) and not test.startswith(TWICE):
            found[name] = run
    return found


def hunt(mutant: Mutant, seeds: int = SEEDS) -> Found | None:
    """None when all seeds pass."""
    began = time.monotonic()
    with mutant.planted():
        for seed, name, run in order(mutant, seeds):
            try:
                run(seed)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                says = f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]
                return Found(name.format(seed), seed, says, time.monotonic() - began)
    return None


def order(mutant: Mutant, seeds: int) -> Iterator[tuple[int, str, Callable[[int], None]]]:
    """What is run: a few seeds of what is near or quick, then all tests with one seed after the other."""
    tests = runs()
    first = {name: run for name, run in tests.items() if mutant.near and mutant.near in name} or judged.RUNS
    few = min(seeds, FIRST_SEEDS)
    for seed in range(few):
        for name, run in first.items():
            yield seed, name, run
    for seed in range(seeds):
        for name, run in tests.items():
            if seed >= few or name not in first:
                yield seed, name, run


def begin() -> None:
    """Once in each process that hunts."""
    warnings.simplefilter("error")
    # What dies there dies on purpose.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    runs()


def _hunt(number: int, seeds: int) -> Found | None:
    return hunt(MUTANTS[number], seeds)


def main(argv: list[str] | None = None) -> int:
    """Hunt, and say what was found."""
    parser = argparse.ArgumentParser(description="Plant bugs one at a time, and see which are found.")
    parser.add_argument("name", nargs="?", default="", help="only those whose name begins so")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds to be tried with each")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(argv)
    wanted = [number for number, mutant in enumerate(MUTANTS) if mutant.name.startswith(options.name)]
    caught, worst = 0, 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn"), initializer=begin) as pool:
        for number, found in zip(wanted, pool.map(partial(_hunt, seeds=options.seeds), wanted), strict=True):
            mutant = MUTANTS[number]
            if found is None:
                print(f"{mutant.name} ({mutant.why}): ESCAPED", flush=True)
                continue
            caught, worst = caught + 1, max(worst, found.seed)
            print(f"{mutant.name} ({mutant.why}): {found.taken_s:.0f} s, {found.test} with seed {found.seed}: {found.says}", flush=True)
    print(f"{caught} of {len(wanted)} planted bugs were found within {options.seeds} seeds; the last of them with seed {worst}", flush=True)
    return min(len(wanted) - caught, 1)


if __name__ == "__main__":
    sys.exit(main())
