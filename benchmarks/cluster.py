"""The cluster benchmark: calls between nodes over loopback TCP, plain and under TLS, beside the same kind of echo, and the join of a node.

    python -m benchmarks.cluster                       everything, 5 rounds, beside Ray's multi-node Cluster
    python -m benchmarks.cluster --rounds 3 --seconds 0.5 --systems actorflow,floor --check --json cluster.json

Systems alternate within a round, and ratios are taken within it; what is shown are medians. TLS is compared with an echo under TLS. Ray has
no TLS here: its column is its plain one.

Ray's processes work also when nobody calls, which on two cores is felt by whoever is measured beside them. So there are two passes: without
Ray, which gives the rates and what they are of the floor, and with it, which gives Ray's rates and how many times those the others have
there. Both passes are shown; the targets are of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # also as `python benchmarks/cluster.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import processes, report
from benchmarks.conductor import SILENCE_MAX_S, say
from benchmarks.remote import Program, ProgramFailed, python_of
from benchmarks.rows import CLUSTER_ROWS, Row
from benchmarks.targets import CLUSTER, JOIN_S_MAX

COLUMNS = {
    "actorflow": ("actorflow", ""),
    "actorflow inline": ("actorflow", "inline"),
    "actorflow tls": ("actorflow", "tls"),
    "actorflow tls inline": ("actorflow", "tls inline"),
    "ray": ("ray", ""),
    "floor": ("floor", ""),
    "floor tls": ("floor", "tls"),
}
"""By name: the system, and the arguments of its program."""
WARMUP_S = 1.0
PAUSE_S = 0.1

Rates = dict[str, dict[str, list[float]]]
"""By row and column, one for each round."""


class Bench:
    """The programs, and what they gave."""

    def __init__(self, logs: Path, columns: Iterable[str]) -> None:
        self.rates: Rates = {row.key: {} for row in CLUSTER_ROWS}
        self.joins: list[float] = []
        self.problems: list[str] = []
        self._logs = logs
        self._programs = {name: self._start(name) for name in columns}

    def _start(self, name: str) -> Program:
        system, arguments = COLUMNS[name]
        command = [python_of(system), "-m", f"benchmarks.systems.cluster_{system}", *arguments.split()]
        return Program(command, log=self._logs / f"{name.replace(' ', '-')}.log")

    def close(self) -> None:
        """End the programs."""
        for name, program in self._programs.items():
            self.problems += [f"{name} left behind {left}" for left in program.stop()]

    def measure(self, row: Row, rounds: int, seconds: float) -> None:
        """Fill one row."""
        names = [name for name in self._programs if self._ask(name, row, "open") is not None]
        for name in names:
            self._ask(name, row, "run", WARMUP_S)
        rates = self.rates[row.key] = {name: [] for name in names}
        for turn in range(rounds):
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                time.sleep(PAUSE_S)
                rate = self._ask(name, row, "run", seconds)
                if rate is not None:
                    rates[name].append(rate)
        for name in names:
            self._ask(name, row, "close")

    def _ask(self, name: str, row: Row, what: str, seconds: float = 0.0) -> float | None:
        try:
            request = {"do": what, "workload": row.key, "row": row.key, "seconds": seconds}
            return float(self._programs[name].ask(request, SILENCE_MAX_S).get("rate", 0.0))
        except ProgramFailed as error:
            self.problems.append(f"{row.key}: {name}: {error}")
            say(self.problems[-1])
            return None

    def join(self, times: int) -> None:
        """How long nodes take to join, from the command to the head that knows them."""
        from actorflow.testing import Cluster

        with Cluster() as cluster:
            for _ in range(times):
                begun = time.perf_counter()
                node = cluster.add_node()
                self.joins.append(time.perf_counter() - begun)
                cluster.remove(node)

    def ratio(self, row: str, column: str, to: str) -> float | None:
        """The median of the ratios within the rounds."""
        mine, other = self.rates[row].get(column, []), self.rates[row].get(to, [])
        return statistics.median(a / b for a, b in zip(mine, other, strict=False)) if mine and other else None

    def table(self) -> str:
        lines = []
        for row in CLUSTER_ROWS:
            for name, rates in self.rates[row.key].items():
                floor = "floor tls" if "tls" in name else "floor"
                of_floor, over_ray = self.ratio(row.key, name, floor), self.ratio(row.key, name, "ray")
                cells = [f"{of_floor:.0%}" if of_floor else "-", f"{over_ray:.1f}" if over_ray else "-"]
                lines.append([row.title, name, report.number(statistics.median(rates) if rates else None), *cells])
        text = report.table(["row", "column", "calls/s", "of the floor", "x Ray"], lines)
        if self.joins:
            text += f"\n\njoin of a node: {statistics.median(self.joins):.3f} s ({min(self.joins):.3f} to {max(self.joins):.3f})"
        return text

    def check(self) -> tuple[str, bool]:
        """The targets, and whether all that was measured is met."""
        lines, fine = [], True
        for target in CLUSTER:
            value = self.ratio(target.row, target.column, target.floor)
            met = value is not None and value >= target.of_floor
            fine = fine and (met or value is None)
            verdict = "not measured" if value is None else "met" if met else "NOT MET"
            bound, measured = f"{target.of_floor:.0%} of {target.floor}", f"{value:.0%}" if value else "-"
            lines.append([f"{target.row}, {target.column}", bound, measured, verdict])
        if self.joins:
            value = statistics.median(self.joins)
            fine = fine and value <= JOIN_S_MAX
            lines.append(["join of a node", f"at most {JOIN_S_MAX:g} s", f"{value:.3f} s", "met" if value <= JOIN_S_MAX else "NOT MET"])
        return report.table(["", "target", "measured", "verdict"], lines), fine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.cluster", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="samples per column and row (default 5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a sample (default 0.5)")
    parser.add_argument("--joins", type=int, default=7, help="nodes that join (default 7)")
    parser.add_argument("--systems", default="actorflow,ray,floor", help="comma-separated (default: all)")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the targets of the acceptance list")
    return parser.parse_args()


def run(systems: Iterable[str], rounds: int, seconds: float) -> Bench:
    """One pass over all rows."""
    with tempfile.TemporaryDirectory(prefix="actorflow-bench-") as logs:
        bench = Bench(Path(logs), [name for name, (system, _) in COLUMNS.items() if system in systems])
        try:
            for row in CLUSTER_ROWS:
                bench.measure(row, rounds, seconds)
        finally:
            bench.close()
    return bench


def main() -> int:
    args = arguments()
    systems = args.systems.split(",")
    processes.become_subreaper()
    bench = run([system for system in systems if system != "ray"], args.rounds, args.seconds)
    if "actorflow" in systems:
        bench.join(args.joins)
    print(bench.table())
    beside = run(systems, args.rounds, args.seconds) if "ray" in systems else None
    if beside is not None:
        bench.problems += beside.problems
        print(f"\nwith the processes of Ray on the same {os.cpu_count()} cores:\n\n{beside.table()}")
    if args.json:
        told = {"rates": bench.rates, "beside ray": beside.rates if beside else {}, "joins": bench.joins, "problems": bench.problems}
        Path(args.json).write_text(json.dumps(told, indent=1))
    fine = True
    if args.check:
        text, fine = bench.check()
        print(f"\n{text}")
    return 0 if fine and not bench.problems else 1


if __name__ == "__main__":
    sys.exit(main())
