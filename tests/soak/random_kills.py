"""The kill test: random programs, killed at random moments, and what is left of them.

    python -m tests.soak.random_kills --runs 200 --seed 1

Each run starts a driver with a random workload (tests/soak/workload.py) and sends SIGKILL to random workers, or to the driver itself.
Every call must end in the right value or in a typed error, within a bound; afterwards no process, no session directory, no socket and
nothing in /dev/shm may be left. The last line sums up; a failure names the seed that repeats its choices.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from actorflow._core.boot.session_dir import sweep_stale
from tests.integration import leaks

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
END_S = 60.0
GONE_S = 10.0
"""After the end of a driver everything is gone within this time."""


@dataclass
class Report:
    """What came of some runs."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    hung: int = 0
    leaked: int = 0
    failed_seeds: list[int] = field(default_factory=list)

    def line(self) -> str:
        kills = ", ".join(f"{kind} {self.kills[kind]}" for kind in ("worker", "driver"))
        calls = ", ".join(f"{name} {number}" for name, number in sorted(self.calls.items()))
        return (
            f"{self.runs} runs; kills: {kills}; steps: {calls or 'none told'}; "
            f"wrong {self.wrong}, hung {self.hung}, leaked {self.leaked}"
        )


@dataclass
class Outcome:
    """What came of one run."""

    kills: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)


def workers(directory: str) -> list[int]:
    """The worker processes of the run, in the order of their pids."""
    return sorted(pid for pid, command in leaks.processes(directory).items() if command.startswith("actorflow-worker"))


def run_once(seed: int) -> Outcome:
    """One run. The choices follow from the seed; the moments depend on the machine as well."""
    rng = random.Random(seed)
    seconds = 0.3 + rng.random() * 0.7
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="afk-") as directory:
        memory = leaks.shared_memory(directory)
        out, err = Path(directory, "out"), Path(directory, "err")
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            driver = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.workload", str(seed), f"{seconds:.3f}"],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                cwd=ROOT,
                env={**os.environ, "ACTORFLOW_TMPDIR": directory},
            )
        try:
            _disturb(driver, directory, out, rng, seconds, outcome)
            code = driver.wait(END_S)
        except subprocess.TimeoutExpired:
            outcome.hung.append("the driver did not end")
            driver.kill()
            code = driver.wait()
        _read(out.read_text(), outcome)
        if code not in (0, 1, -signal.SIGKILL) or (code and not (outcome.kills["driver"] or outcome.wrong or outcome.hung)):
            outcome.wrong.append(f"the driver ended with {code}: {err.read_text()[-2000:]}")
        if outcome.kills["driver"] and leaks.until(lambda: not leaks.processes(directory), GONE_S):
            # A driver that dies between making the directory and starting the node leaves it to the next start (SD-2).
            sweep_stale([directory], age_s=0)
        if not leaks.until(lambda: not leaks.leftovers(directory), GONE_S):
            outcome.leaked += leaks.leftovers(directory)
            for pid in leaks.processes(directory):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        outcome.leaked += [f"/dev/shm/{name}" for name in leaks.shared_memory(directory) - memory]
    return outcome


def _disturb(
    driver: subprocess.Popen[bytes], directory: str, out: Path, rng: random.Random, seconds: float, outcome: Outcome
) -> None:
    """Kill what the seed says, when it says."""
    driver_dies = rng.random() < 0.3
    while_starting = driver_dies and rng.random() < 0.2
    if while_starting:
        time.sleep(rng.random() * 0.6)
    elif not leaks.until(lambda: "ready" in out.read_text() or driver.poll() is not None, START_S):
        outcome.hung.append("the driver did not start")
    moments = sorted(rng.random() * seconds for _ in range(1 if driver_dies else rng.randrange(1, 5)))
    began = time.monotonic()
    for number, moment in enumerate(moments):
        if not while_starting:
            time.sleep(max(0.0, began + moment - time.monotonic()))
        if driver_dies and number == len(moments) - 1:
            driver.kill()
            outcome.kills["driver"] += 1
        elif living := workers(directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(living), signal.SIGKILL)
                outcome.kills["worker"] += 1


def _read(text: str, outcome: Outcome) -> None:
    for line in text.splitlines():
        if line.startswith("wrong"):
            outcome.wrong.append(line)
        elif line.startswith("hung"):
            outcome.hung.append(line)
        elif line.startswith("counts "):
            for pair in line.split()[1:]:
                name, number = pair.split("=")
                outcome.calls[name] += int(number)


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Kill random processes of random programs, and see what is left.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; each run takes the next one")
    options = parser.parse_args(argv)
    first = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "little")
    report = Report()
    began = time.monotonic()
    print(f"seeds {first} to {first + options.runs - 1}", flush=True)
    for seed in range(first, first + options.runs):
        outcome = run_once(seed)
        report.runs += 1
        report.kills += outcome.kills
        report.calls += outcome.calls
        report.wrong += len(outcome.wrong)
        report.hung += len(outcome.hung)
        report.leaked += len(outcome.leaked)
        problems = [*outcome.wrong, *outcome.hung, *(f"leaked: {what}" for what in outcome.leaked)]
        if problems:
            report.failed_seeds.append(seed)
            print(f"seed {seed}:", *problems, sep="\n  ", flush=True)
        elif sys.stderr.isatty():
            sys.stderr.write(f"\r{report.runs} of {options.runs}")
    print(f"{report.line()}; {time.monotonic() - began:.0f} s", flush=True)
    if report.failed_seeds:
        print("failed seeds:", *report.failed_seeds, flush=True)
    return 1 if report.failed_seeds else 0


if __name__ == "__main__":
    sys.exit(main())
