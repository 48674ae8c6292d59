"""The placement benchmark: placement groups created, made ready and removed, beside Ray when it is there (`make peers`).

    python -m benchmarks.placement                     both systems, 3 rounds of 2 s samples
    python -m benchmarks.placement --systems actorflow --rounds 1 --check

sequential    one group after the other: what one of them costs whoever waits for it
concurrent    100 at one time, as in Ray's own microbenchmark
...4          the same with four bundles each

A local cluster of one node each. The policy alone is measured by placement_policy.py.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from pathlib import Path

if not __package__:  # also as `python benchmarks/placement.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import processes, report
from benchmarks.conductor import say
from benchmarks.remote import PEERS_PYTHON, Program, ProgramFailed, python_of
from benchmarks.targets import PLACEMENT

SYSTEMS = ("actorflow", "ray")
TOGETHER = 100
ROWS = {
    "sequential": (1, 1, "one after the other"),
    "sequential4": (4, 1, "one after the other, 4 bundles each"),
    "concurrent": (1, TOGETHER, f"{TOGETHER} at one time"),
    "concurrent4": (4, TOGETHER, f"{TOGETHER} at one time, 4 bundles each"),
}
ANSWER_MAX_S = 120.0
SCENES = Path(__file__).resolve().parent / "systems"

Rates = dict[str, dict[str, list[float]]]
"""Row, system, one rate for each round."""


def measure(systems: list[str], rounds: int, seconds: float, logs: Path) -> tuple[Rates, list[str]]:
    """Start each system once, and take samples in turn."""
    rates: Rates = {row: {} for row in ROWS}
    problems: list[str] = []
    programs: dict[str, Program] = {}
    try:
        for system in systems:
            programs[system] = Program([python_of(system), SCENES / f"placement_{system}.py"], log=logs / f"{system}.log")
            programs[system].listen(ANSWER_MAX_S)
        for number in range(rounds):
            for row, (bundles, together, _) in ROWS.items():
                for system, program in programs.items():
                    say(f"round {number + 1}: {row} {system}")
                    ask = {"bundles": bundles, "together": together, "seconds": seconds}
                    rates[row].setdefault(system, []).append(program.ask(ask, ANSWER_MAX_S)["rate"])
    except ProgramFailed as error:
        problems.append(str(error))
        say(str(error))
    finally:
        for system, program in programs.items():
            if left := program.stop():
                problems.append(f"{system} left processes behind: {left}")
                say(problems[-1])
    return rates, problems


def median(rates: Rates, row: str, system: str) -> float | None:
    values = rates[row].get(system)
    return statistics.median(values) if values else None


def ratio(rates: Rates, row: str) -> float | None:
    """The median of the ratios of the rounds: both were measured within seconds of one another."""
    pairs = list(zip(rates[row].get("actorflow", []), rates[row].get("ray", []), strict=False))
    return statistics.median(ours / ray for ours, ray in pairs) if pairs else None


def table(rates: Rates) -> str:
    lines = []
    for row, (_, _, title) in ROWS.items():
        ours = rates[row].get("actorflow", [])
        spread = f"{report.number(min(ours))} to {report.number(max(ours))}" if ours else "-"
        cells = [report.number(median(rates, row, system)) for system in SYSTEMS]
        lines.append([title, *cells, report.number(ratio(rates, row)), spread])
    return report.table(["groups created and removed, per s", "actorflow", "Ray", "actorflow/Ray", "actorflow, all rounds"], lines)


def check(rates: Rates) -> str:
    lines = []
    for target in PLACEMENT:
        value = ratio(rates, target.row)
        verdict = "not measured" if value is None else "met" if value >= target.over_ray else "NOT MET"
        lines.append([ROWS[target.row][2], f"at least {target.over_ray:g} x Ray", report.number(value), verdict])
    return report.table(["", "target", "measured", "verdict"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.placement", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="samples of each row (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a sample (default 2)")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated (default: all that are there)")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument("--check", action="store_true", help="compare with the figures of the acceptance list")
    args = parser.parse_args()
    systems = [system for system in args.systems.split(",") if system != "ray" or PEERS_PYTHON.exists()]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated run ends its programs too
    processes.become_subreaper()
    with tempfile.TemporaryDirectory(prefix="actorflow-bench-") as logs:
        rates, problems = measure(systems, args.rounds, args.seconds, Path(logs))
    if args.json:
        report.write_json(args.json, {"rates": rates, "problems": problems})
    print(table(rates))
    if args.check:
        print()
        print(check(rates))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
