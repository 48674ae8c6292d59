"""Many seeds in several processes: how it goes, what fails, and the figure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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


What = int | str
"""A seed, or the name of a plan that has failed."""


def run_block(block: list[What]) -> list[tuple[What, Outcome]]:
    """In one of the processes."""
    return [(what, again.quietly(what)) for what in block]


def run_many(seeds: Sequence[What], jobs: int) -> Figure:
    """Run them all, and tell how it goes."""
    figure, started = Figure(), time.monotonic()
    last_news, blocks = started, _blocks(seeds)
    running: set[Future[list[tuple[What, Outcome]]]] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=again.begin) as pool:
        while True:
            while len(running) < 2 * jobs and (block := next(blocks, None)) is not None:
                running.add(pool.submit(run_block, block))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for what, outcome in [pair for future in done for pair in future.result()]:
                figure.add(outcome)
                if outcome.violations:
                    _tell(what, outcome, figure.failed)
            if time.monotonic() - last_news > NEWS_S:
                last_news = time.monotonic()
                print(f"{last_news - started:6.0f} s: {figure.seeds} of {len(seeds)} seeds, {figure.failed} failed", flush=True)
    taken = time.monotonic() - started
    print(f"{taken:.0f} s with {jobs} processes, {taken * jobs / max(figure.seeds, 1):.2f} s a seed", flush=True)
    return figure


def _blocks(seeds: Sequence[What]) -> Iterator[list[What]]:
    for first in range(0, len(seeds), BLOCK):
        yield list(seeds[first : first + BLOCK])


def _tell(what: What, outcome: Outcome, number: int) -> None:
    said = [f"FAILED {f'seed {what}' if isinstance(what, int) else what}: {', '.join(sorted(outcome.invariants))}"]
    if number <= SHOWN_MAX:
        said += [f"  {violation}"[:2_000] for violation in outcome.violations[:5]]
    said += [f"again: {command_of(what)}", ""]
    print("\n".join(said), flush=True)


def command_of(what: What) -> str:
    """The command that runs this one again."""
    how = f"--seed {what}" if isinstance(what, int) else f"--plan tests/sim/whole/failed_plans/{what}.txt"
    return f"python -m tests.sim.whole {how}"
