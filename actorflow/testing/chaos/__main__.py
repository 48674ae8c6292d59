"""`python -m actorflow.testing.chaos`: see `--help`, and docs/guide/chaos.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time

from actorflow.testing.chaos import report
from actorflow.testing.chaos.conductor import ChaosError, Plan, conduct
from actorflow.testing.chaos.judge import judge
from actorflow.testing.chaos.options import Options, parse, repeats
from actorflow.testing.chaos.records import Story
from actorflow.testing.chaos.schedule import schedule
from actorflow.testing.chaos.systems import verbs_of

CANNOT = 2


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    options = parse(arguments)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "little")
    command = repeats(options, seed)
    try:
        verbs = verbs_of(options.system)
    except ImportError as error:
        _say(f"{options.system} cannot be imported by {sys.executable} ({error}): run this with the Python that has it, as in "
             f".venv-peers/bin/{command} after `make peers`")  # fmt: skip
        return CANNOT
    plan = Plan(
        options.system, seed, options.seconds, options.nodes, options.cpus,
        schedule(seed, options.seconds, options.rates), options.back_s, options.hang_s, options.comparable,
    )  # fmt: skip
    _say(f"seed {seed}: {len(plan.faults)} faults in {options.seconds:g} s")
    try:
        story = asyncio.run(_until_told(plan, options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say(f"given up; again: {command}")
        return CANNOT
    except ChaosError as error:
        _say(f"cannot be run: {error}")
        return CANNOT
    verdict = judge(story, verbs.errors_of)
    if options.json:
        shown = json.dumps(report.figures(verdict, system=options.system, seed=seed, command=command), indent=2)
    else:
        shown = report.text(verdict, system=options.system, seed=seed, command=command)
    sys.stdout.write(f"{shown}\n")
    return 1 if verdict.problems() else 0


async def _until_told(plan: Plan, options: Options) -> Story:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()

    def say(text: str) -> None:
        if not options.quiet:
            _say(f"[{time.monotonic() - began:6.1f}] {text}")

    return await conduct(plan, say)


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
