"""Runs rows: opens a row in every system, then lets the systems take turns, one sample each per round.

Every system lives in one long-lived process tree of its own, started at its first row. Only one is asked to
work at any time; the others wait in a blocking read. In each round the order moves on by one, so that no
system always runs after the same neighbour. A short pause between samples lets the last one's clean-up end.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.remote import Program, ProgramFailed, python_of
from benchmarks.rows import Row

PAUSE_S = 0.25
#: The longest step of any row takes some 15 seconds (Ray, n:n); a system silent for this long hangs.
SILENCE_MAX_S = 300.0


@dataclass(slots=True)
class RowResult:
    """What was measured for a row: per column one rate per round (None where the sample failed)."""

    row: Row
    rates: dict[str, list[float | None]] = field(default_factory=dict)
    #: CPU that processes outside the measured system used, in cores, one value per sample.
    foreign_cpus: list[float] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def median(self, column: str) -> float | None:
        known = [rate for rate in self.rates.get(column, ()) if rate is not None]
        return statistics.median(known) if known else None

    def ratios(self, column: str, other: str) -> list[float]:
        """The ratio of two columns, round by round."""
        pairs = zip(self.rates.get(column, ()), self.rates.get(other, ()), strict=False)
        return [a / b for a, b in pairs if a is not None and b is not None]

    def ratio(self, column: str, other: str) -> float | None:
        """The median of the per-round ratios."""
        ratios = self.ratios(column, other)
        return statistics.median(ratios) if ratios else None


def program_key(column: str) -> str:
    """The process a column is measured in: `inline` wants a runtime of its own, other variants share one."""
    return column if column.endswith(":inline") else column.partition(":")[0]


class Conductor:
    """Owns the systems' processes; use as a context manager, so that none of them outlives the run."""

    def __init__(self, *, rounds: int, seconds: float, say: Callable[[str], None]) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._say = say
        self._logs = tempfile.TemporaryDirectory(prefix="actorflow-bench-")
        self._programs: dict[str, Program] = {}
        #: Processes that outlived the end of their system and had to be killed, by system.
        self.left_behind: dict[str, list[str]] = {}

    def __enter__(self) -> Conductor:
        processes.become_subreaper()
        return self

    def __exit__(self, *exc: object) -> None:
        for key in list(self._programs):
            self._stop(key)
        self._logs.cleanup()

    def run(self, row: Row, columns: Iterable[str]) -> RowResult:
        """Measure one row."""
        result = RowResult(row)
        opened: list[str] = []
        for column in columns:
            if self._guard(result, column, lambda c: self._ask(c, row, "open")) is not None:
                opened.append(column)
                result.rates[column] = []
        for column in opened:
            self._sample(result, column, row.warmup_s, keep=False)
        for turn in range(self._rounds):
            first = turn % max(1, len(opened))
            for column in opened[first:] + opened[:first]:
                self._sample(result, column, self._seconds, keep=True)
        for column in opened:
            if column not in result.errors:
                self._guard(result, column, lambda c: self._ask(c, row, "close"))
        return result

    def _sample(self, result: RowResult, column: str, seconds: float, *, keep: bool) -> None:
        rate = None
        if column not in result.errors:
            time.sleep(PAUSE_S)
            program = self._programs[program_key(column)]
            own, machine, start = _cpu_of(program), processes.machine_cpu_seconds(), time.monotonic()
            rate = self._guard(result, column, lambda c: self._ask(c, result.row, "run", seconds))
            elapsed = time.monotonic() - start
            foreign = (processes.machine_cpu_seconds() - machine) - (_cpu_of(program) - own)
            if keep:
                result.foreign_cpus.append(max(0.0, foreign / elapsed))
        if keep:
            result.rates[column].append(rate)

    def _guard(self, result: RowResult, column: str, ask: Callable[[str], float]) -> float | None:
        """Ask; a system that fails loses this row, is ended, and starts afresh with its next one."""
        try:
            return ask(column)
        except ProgramFailed as error:
            result.errors[column] = str(error)
            self._say(f"{result.row.key}: {column} failed: {error}")
            self._stop(program_key(column))
            # Other columns of the same process lost their workloads with it.
            for other in result.rates:
                if program_key(other) == program_key(column):
                    result.errors.setdefault(other, f"lost with {column}")
            return None

    def _ask(self, column: str, row: Row, what: str, seconds: float = 0.0) -> float:
        program = self._program(program_key(column))
        variant = column.partition(":")[2]
        workload = f"{row.key}:{variant}" if variant and variant != "inline" else row.key
        request = {"do": what, "workload": workload, "row": row.key, "seconds": seconds}
        rate = program.ask(request, SILENCE_MAX_S).get("rate", 0.0)
        assert isinstance(rate, float)
        return rate

    def _program(self, key: str) -> Program:
        if key not in self._programs:
            system, _, variant = key.partition(":")
            module = f"benchmarks.systems.{system if system == 'floor' else system + '_'}"
            command = [python_of(system), "-m", module, *([variant] if variant else [])]
            self._programs[key] = Program(command, log=Path(self._logs.name) / f"{key}.log")
        return self._programs[key]

    def _stop(self, key: str) -> None:
        program = self._programs.pop(key, None)
        if program is not None and (left := program.stop()):
            self.left_behind.setdefault(key, []).extend(left)
            self._say(f"{key} left processes behind: {left}")


def _cpu_of(program: Program) -> float:
    return processes.cpu_seconds(program.tree())


def say(text: str) -> None:
    """Progress goes to stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)
