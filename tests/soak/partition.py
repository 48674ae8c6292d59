"""The partition test: a node of three is cut off for a while in the middle of work, on hosts with networks of their own.

    python -m tests.soak.partition --seconds 30 --rounds 3 [--one-way | --partial | --from-head]

Three hosts (network namespaces) have a node each, with TLS between them; a fourth one has a register (tests/soak/register.py) that all of
them reach all the time. In each round a driver makes calls of tasks and of actors, with and without retries, while one node is cut off. The
actors act by themselves as well. In the end every call must have ended in its value or in a typed error; those with retries in their
value; a call without retries has run at most once; no life of an actor has acted after the first act of the next; and the node is back as a
new one. The driver is on the host with the head, on the other one that is not cut off, and on the one that is, in turn: there its calls may
end in `ClusterConnectionError`, and it must be able to join again. `--one-way`: packets are dropped in one direction only, in turn.
`--partial`: only between two nodes without the head, so nobody is given up; one has the driver, and actors and workers on the other.
`--from-head`: only between a node and the head's host, so another node passes on its beats and nobody is given up, for a minute.

It needs root, iproute2 and nftables. The exit code is 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from actorflow.testing.lan import Lan, problem
from tests.integration import leaks
from tests.security.hosts import ROOT, Host
from tests.soak.partition_judge import Cut, Verdict, judge
from tests.soak.register import Write, read_writes

REGISTER_PORT = 4700
WARM_S = 3.0
"""Work before the cut."""
AFTER_S = 3.0
"""Work after the node is back."""
START_S = 60.0
BACK_S = 60.0
END_S = 90.0
CPUS = 2


class Round(NamedTuple):
    """`driver`: on the host of the head, on the `other` one that stays, or on the `cut` one. `way`: which packets are dropped; `some`:
    all between the two nodes without the head; `head`: all between the node and the head's host."""

    driver: str
    way: str

    @property
    def stays(self) -> bool:
        """Nobody is given up."""
        return self.way in ("some", "head")


def plan(rounds: int, *, one_way: bool = False, partial: bool = False, from_head: bool = False) -> list[Round]:
    """What is done in each round."""
    if partial or from_head:
        return [Round("other", "some" if partial else "head")] * rounds
    ways = ("out", "in") if one_way else ("both",)
    drivers = itertools.cycle(("head", "other", "cut"))
    return [Round(next(drivers), ways[number % len(ways)]) for number in range(rounds)]


class Program:
    """One program on a host, that talks in lines of JSON."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self._name = arguments[0]
        self._path = host.home / f"{self._name}.out"
        self._errors = host.home / f"{self._name}.err"
        with open(self._path, "wb") as out, open(self._errors, "wb") as err:
            self._process = host.lan.start(
                [sys.executable, "-m", "tests.soak.partition_driver", *arguments],
                stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=ROOT, env=host.env(ACTORFLOW_ADDRESS=host.place),
            )  # fmt: skip

    def lines(self) -> list[dict[str, Any]]:
        """What it has said so far."""
        whole, _, _ = self._path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def until(self, condition: Callable[[list[dict[str, Any]]], bool], timeout_s: float) -> bool:
        """Wait for what it says; False when it does not say it in time."""
        leaks.until(lambda: condition(self.lines()) or self._process.poll() is not None, timeout_s)
        return condition(self.lines())

    def tell(self, line: str) -> None:
        """Say a line to it."""
        stdin: IO[bytes] | None = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended early: its exit code is looked at.
            stdin.write(line.encode() + b"\n")
            stdin.flush()

    def end(self, timeout_s: float) -> str:
        """Wait for its end, and say what is wrong with it."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"`{self._name}` did not end within {timeout_s:g} s: {self._errors.read_text()[-2000:]}"
        return f"`{self._name}` ended with {code}: {self._errors.read_text()[-3000:]}" if code else ""


class Partition:
    """The hosts, the register, and the rounds on them."""

    def __init__(self, lan: Lan, directory: Path, *, seconds: float, name: str = "") -> None:
        self._lan = lan
        self._seconds = seconds
        self._name = name
        self.hosts = [Host(lan_host, directory / f"h{index}") for index, lan_host in enumerate(lan.hosts[:3])]
        self._register_host = lan.hosts[3]
        self._register = f"{self._register_host.address}:{REGISTER_PORT}"
        self._file = directory / "register"
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start the register and the nodes."""
        command = [sys.executable, "-m", "tests.soak.register", self._register_host.address, str(REGISTER_PORT), str(self._file)]
        process = self._register_host.start(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the register has started"
        head, *others = self.hosts
        head.head(cpus=CPUS)
        for host in others:
            host.join(head, cpus=CPUS, ACTORFLOW_TOKEN=head.token("join"))

    def round(self, what: Round) -> Verdict:
        """Cut one of the nodes off, and judge."""
        number = next(self._numbers)
        name = f"{self._name}r{number}"
        victim, other = self.hosts[1:] if number % 2 else self.hosts[:0:-1]
        on = {"head": self.hosts[0], "other": other, "cut": victim}[what.driver]
        driver_cut = what.driver == "cut"
        before = len(self.writes())
        watcher = Program(self.hosts[0], "watch", victim.address)
        worker = Program(on, "work", self._register, name, victim.address, *(["--detached"] if driver_cut else []))
        if not watcher.until(bool, START_S) or not worker.until(bool, START_S):
            ends = [watcher.end(0.1), worker.end(0.1)]
            return Verdict(hung=[f"round {number} did not start", *filter(None, ends)])
        old = {row[0] for row in watcher.lines()[-1]["nodes"] if row[1]}
        time.sleep(WARM_S)
        cut_at = self._cut(victim, what.way)
        time.sleep(max(0.0, cut_at + self._seconds - time.monotonic()))
        self._lan.heal()
        healed_at = time.monotonic()
        if not what.stays:
            watcher.until(lambda lines: any(row[1] and row[2] == "alive" and row[0] not in old for row in lines[-1]["nodes"]), BACK_S)
        if driver_cut:
            worker.until(lambda lines: any("back" in line for line in lines), BACK_S)
        time.sleep(AFTER_S)
        worker.tell("end")
        problems = [worker.end(END_S)]
        names = [f"{name}-{place}-{mode}" for place in ("cut", "whole") for mode in ("once", "again")] if driver_cut else []
        watcher.tell(" ".join(["end", *names]))
        problems.append(watcher.end(END_S))
        cut = Cut(cut_at, healed_at, driver_cut, from_head=not what.stays, detached=len(names))
        verdict = judge(worker.lines(), watcher.lines(), self.writes()[before:], cut)
        verdict.wrong += filter(None, problems)
        return verdict

    def writes(self) -> list[Write]:
        """What the register has."""
        return read_writes(self._file.read_text())

    def _cut(self, victim: Host, way: str) -> float:
        """Cut the node off from the others; the register is none of them. Returns when it began."""
        now = time.monotonic()
        for host in self.hosts:
            spared = {"some": host is self.hosts[0], "head": host is not self.hosts[0]}.get(way, False)
            if host is not victim and not spared:
                if way != "in":
                    self._lan.cut(victim.lan, host.lan)
                if way != "out":
                    self._lan.cut(host.lan, victim.lan)
        return now

    def stop(self) -> list[str]:
        """End the nodes; says what is left of them."""
        for host in self.hosts:
            host.stop()
        return [
            f"left on {host.address}: {command}"
            for host in self.hosts
            if not leaks.until(lambda home=host.home: not leaks.processes(home))  # type: ignore[misc]
            for command in leaks.processes(host.home).values()
        ]


@contextlib.contextmanager
def partition(directory: Path, *, seconds: float, name: str = "") -> Iterator[Partition]:
    """A cluster on three hosts, with a register on the fourth. Afterwards nothing of it is left."""
    with Lan(4) as lan:
        running = Partition(lan, directory, seconds=seconds, name=name)
        try:
            running.start()
            yield running
        finally:
            left = running.stop()
        assert not left, left


def table(verdict: Verdict, rounds: int) -> str:
    """The figures of all rounds."""
    errors = ", ".join(f"{kind} {number}" for kind, number in sorted(verdict.errors.items())) or "none"
    rows = [
        ("rounds", str(rounds)),
        ("calls made", f"{sum(verdict.calls.values())}: " + ", ".join(f"{kind} {n}" for kind, n in sorted(verdict.calls.items()))),
        ("results", str(sum(verdict.results.values()))),
        ("typed errors", errors),
        ("wrong", str(len(verdict.wrong))),
        ("hung", str(len(verdict.hung))),
        ("acted twice", f"{len(verdict.twice)} of {verdict.acts} acts in {verdict.lives} lives"),
        ("calls without retries that ran twice", str(len(verdict.ran_twice))),
        ("calls with retries that failed", str(len(verdict.failed_retries))),
        ("calls that overtook others", str(len(verdict.disorder))),
        ("s between two lives of an actor", _span(verdict.gaps_s)),
        ("s until an actor acted again", _span(verdict.acted_s)),
        ("s until an actor answered again", _span(verdict.answered_s)),
        ("s from healing until the node was back", _span(verdict.back_s)),
        ("... and a driver on it", _span(verdict.driver_back_s)),
        ("s that the longest call took", _span(verdict.longest_s)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _span(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}" if values else "-"


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Cut a node off in the middle of work, and see what becomes of it.")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long it is cut off; a node is given up after 9 to 9.5 s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-way", action="store_true", help="drop packets in one direction only, in turn")
    parser.add_argument("--partial", action="store_true", help="cut it off from the node that has the driver, not from the head")
    parser.add_argument("--from-head", action="store_true", help="cut it off from the head's host, and not from the other node")
    options = parser.parse_args(argv)
    if why := problem():
        print(f"cannot be run here: {why}")
        return 1
    total = Verdict()
    with tempfile.TemporaryDirectory(prefix="afs-") as directory, partition(Path(directory), seconds=options.seconds) as running:
        rounds = plan(options.rounds, one_way=options.one_way, partial=options.partial, from_head=options.from_head)
        for number, what in enumerate(rounds, start=1):
            verdict = running.round(what)
            total.add(verdict)
            problems = verdict.problems()
            back = f"node back after {_span(verdict.back_s)} s"
            print(f"round {number} (driver: {what.driver}, dropped: {what.way}): {back}, {len(problems)} problems", flush=True)
            print(*(f"  {text}" for text in problems[:20]), sep="\n" if problems else "", end="\n" if problems else "", flush=True)
    print(table(total, options.rounds), flush=True)
    return 1 if total.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
