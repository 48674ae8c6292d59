"""Many seeds in several processes: how it goes, what fails, and the figure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from tests.sim.whole import again
from tests.sim.whole.figure import Figure
from tests.sim.whole.run import Outcome

BLOCK = 20
"""Seeds that are run one after the other, before anybody asks for news."""
NEWS_S = 60.0
SHOWN_MAX = 20
"""Failures that are told in full."""


def run_block(seeds: list[int]) -> list[Outcome]:
    """In one of the processes."""
    return [again.quietly(seed) for seed in seeds]


def run_many(seeds: list[int], jobs: int) -> Figure:
    """Run them all, and tell how it goes."""
    figure, started = Figure(), time.monotonic()
    last_news, blocks = started, _blocks(seeds)
    running: set[Future[list[Outcome]]] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=again.begin) as pool:
        while True:
            while len(running) < 2 * jobs and (block := next(blocks, None)) is not None:
                running.add(pool.submit(run_block, block))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for outcome in [outcome for future in done for outcome in future.result()]:
                figure.add(outcome)
                if outcome.violations:
                    _tell(outcome, figure.failed)
            if time.monotonic() - last_news > NEWS_S:
                last_news = time.monotonic()
                print(f"{last_news - started:6.0f} s: {figure.seeds} of {len(seeds)} seeds, {figure.failed} failed", flush=True)
    taken = time.monotonic() - started
    print(f"{taken:.0f} s with {jobs} processes, {taken * jobs / max(figure.seeds, 1):.2f} s a seed", flush=True)
    return figure


def _blocks(seeds: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(seeds), BLOCK):
        yield seeds[first : first + BLOCK]


def _tell(outcome: Outcome, number: int) -> None:
    said = [f"FAILED seed {outcome.plan.seed}: {', '.join(sorted(outcome.invariants))}"]
    if number <= SHOWN_MAX:
        said += [f"  {violation}"[:2_000] for violation in outcome.violations[:5]]
    said += [f"again: python -m tests.sim.whole --seed {outcome.plan.seed}", ""]
    print("\n".join(said), flush=True)
