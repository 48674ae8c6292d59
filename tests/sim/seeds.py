"""Many seeds of every simulated test, in several processes: what `make sim-scenarios` runs.

    python -m tests.sim.seeds --seeds 3000
    python -m tests.sim.seeds --seeds 3000 --from 1000 --only "a worker dies"

pytest makes an item of each test and seed, which for a hundred thousand of them costs more than running them. Here pytest only
finds the tests; the seeds are numbers. What fails is shown with the command that runs it again, under pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import logging
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.sim import judged

BLOCK = 10
"""Seeds of one test that are run one after the other, before anybody asks for news."""
HUNG_S = 600
"""A block that takes longer shows where it stands, and ends the run."""
FAILURES_MAX = 20
"""Failures of one test that are shown; it goes no further."""
NEWS_S = 60.0
FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


class Failure(NamedTuple):
    """A seed with which a test failed."""

    seed: int
    text: str


class Seeded:
    """A pytest plugin that keeps the tests that have a seed, by their names with the seed left out."""

    def __init__(self) -> None:
        self.tests: dict[str, Callable[[int], None]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            params = dict(item.callspec.params) if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
            if "sim_seed" not in params:
                continue
            assert isinstance(item, pytest.Function)
            del params["sim_seed"]
            others = set(item.fixturenames) - set(params) - {"sim_seed", "request", "event_loop_policy"}
            if others:
                raise pytest.UsageError(f"{item.nodeid} needs more than a seed: {', '.join(sorted(others))}")
            self.tests[item.nodeid.replace("seed=0", "seed={}")] = call_of(item.function, params)


def call_of(function: Callable[..., None], params: dict[str, Any]) -> Callable[[int], None]:
    return lambda seed: function(sim_seed=seed, **params)


def seeded_tests() -> dict[str, Callable[[int], None]]:
    """All of them, as pytest finds them."""
    found = Seeded()
    options = ["-p", "no:cacheprovider", "--collect-only", "-qq", "--seeds", "1", "--rootdir", str(ROOT), str(FOLDER)]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(options, plugins=[found])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"pytest cannot collect {FOLDER.name}: {code!r}\n{said.getvalue()}")
    return found.tests


# -- in the processes that run them

_tests: dict[str, Callable[[int], None]] = {}


def begin(faults: int) -> None:
    """Once in each of them."""
    _tests.update(seeded_tests())
    judged.limits["faults per seed"] = faults
    warnings.simplefilter("error")
    # What dies there dies on purpose; of a seed that is run again pytest shows what was logged.
    logging.getLogger().addHandler(logging.NullHandler())


def run_block(name: str, seeds: range) -> list[Failure]:
    """Run one test with these seeds."""
    faulthandler.dump_traceback_later(HUNG_S, exit=True)
    failures = []
    for seed in seeds:
        try:
            _tests[name](seed)
        except Exception:
            failures.append(Failure(seed, traceback.format_exc()))
    faulthandler.cancel_dump_traceback_later()
    return failures


# -- in the one that asks


def blocks(names: list[str], seeds: range) -> Iterator[tuple[str, range]]:
    """All tests get their first seeds before one gets its next: what is broken shows early."""
    for first in range(seeds.start, seeds.stop, BLOCK):
        for name in names:
            yield name, range(first, min(first + BLOCK, seeds.stop))


def again(name: str, seed: int) -> str:
    """The command that runs this seed again."""
    return f"python -m pytest '{name.format(f'{seed}')}' --seeds-from {seed} --seeds {seed + 1}"


def run(names: list[str], seeds: range, jobs: int, faults: int) -> int:
    """Run them all, tell how it goes, and return how many failed."""
    started = last_news = time.monotonic()
    failed: Counter[str] = Counter()
    done = 0
    todo = blocks(names, seeds)
    running: dict[Future[list[Failure]], tuple[str, range]] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin, initargs=(faults,)) as pool:
        while True:
            while len(running) < 2 * jobs and (block := next(todo, None)) is not None:
                if failed[block[0]] < FAILURES_MAX:
                    running[pool.submit(run_block, *block)] = block
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, part = running.pop(future)
                for failure in future.result():
                    failed[name] += 1
                    print(f"FAILED {name.format(failure.seed)}\n{failure.text}again: {again(name, failure.seed)}\n", flush=True)
                done += len(part)
            if time.monotonic() - last_news > NEWS_S:
                last_news = time.monotonic()
                print(f"{last_news - started:6.0f} s: {done} of {len(names) * len(seeds)} runs, {failed.total()} failed", flush=True)
    taken = time.monotonic() - started
    print(f"{len(names)} tests, seeds {seeds.start} to {seeds.stop - 1}: {done} runs in {taken:.0f} s, {failed.total()} failed", flush=True)
    return failed.total()


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Many seeds of every simulated test.")
    parser.add_argument("--seeds", type=int, default=1000, help="up to this one")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="tests whose name contains this")
    parser.add_argument("--faults", type=int, default=1, help="steps of each seed with the fault, of the four that pytest tries")
    options = parser.parse_args()
    names = [name for name in seeded_tests() if options.only in name]
    if not names:
        parser.error(f"no test has {options.only!r} in its name")
    return min(run(names, range(options.first, options.seeds), options.jobs, options.faults), 1)


if __name__ == "__main__":
    sys.exit(main())
