"""The startup benchmark: time to the first result, idle memory and CPU, actors a second, queued tasks.

    python -m benchmarks.startup                       everything, beside Ray: some 10 minutes
    python -m benchmarks.startup --measures idle,dedicated --systems actorflow --check --json startup.json

Each sample is a fresh program in its system's own interpreter, and the systems alternate.

first      from just before the interpreter is started to the first task's result, cluster start included
idle       5 s after the first result: PSS of the driver, PSS of every other process of the cluster; then the
           CPU time all of them use in 10 s, in percent of one CPU
dedicated  actors with a process each: from the first `.remote()` until all are alive; growth of PSS, driver
           included, per actor. Ray creates fewer of them (--ray-actors): each takes it a quarter of a second
shared     the same for actors that share processes, which Ray does not have
tasks      no-op tasks queued at once in one list, then all results: growth of the driver's peak RSS per task,
           and the rate. Ray gets fewer of them (--ray-tasks)
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:  # also as `python benchmarks/startup.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import processes, report
from benchmarks.conductor import say
from benchmarks.remote import Program, ProgramFailed, python_of
from benchmarks.targets import STARTUP

SYSTEMS = ("actorflow", "ray", "floor")
MEASURES = ("first", "idle", "dedicated", "shared", "tasks")
SETTLE_S, IDLE_S = 5.0, 10.0
ANSWER_MAX_S = 1800.0
SCENES = Path(__file__).resolve().parent / "systems"

Facts = dict[str, float]


def settled_pss(program: Program) -> tuple[int, int]:
    """PSS of the driver and of everything below it, in bytes."""
    pids = program.tree()
    return processes.pss_bytes(pids[:1]), processes.pss_bytes(pids[1:])


def first(program: Program, count: int) -> Facts:
    return {"first_result_s": program.listen(ANSWER_MAX_S)["at"] - program.started_at}


def idle(program: Program, count: int) -> Facts:
    program.listen(ANSWER_MAX_S)
    time.sleep(SETTLE_S)
    driver, cluster = settled_pss(program)
    pids = program.tree()
    before, start = processes.cpu_seconds(pids), time.monotonic()
    time.sleep(IDLE_S)
    used = processes.cpu_seconds(pids) - before
    return {
        "idle_cluster_mb": cluster / 1e6,
        "idle_driver_mb": driver / 1e6,
        "idle_processes": len(pids),
        "idle_cpu_percent": 100 * used / (time.monotonic() - start),
    }


def actors(program: Program, count: int) -> tuple[float, float]:
    """Actors per second, and growth of the whole tree's PSS per actor in bytes."""
    program.listen(ANSWER_MAX_S)
    time.sleep(1.0)
    before = sum(settled_pss(program))
    seconds = program.ask({}, ANSWER_MAX_S)["seconds"]
    time.sleep(1.0)
    return count / seconds, (sum(settled_pss(program)) - before) / count


def dedicated(program: Program, count: int) -> Facts:
    rate, each = actors(program, count)
    return {"dedicated_per_s": rate, "dedicated_mb_each": each / 1e6}


def shared(program: Program, count: int) -> Facts:
    rate, each = actors(program, count)
    return {"shared_per_s": rate, "shared_kb_each": each / 1e3}


def tasks(program: Program, count: int) -> Facts:
    program.listen(ANSWER_MAX_S)
    told = program.ask({}, ANSWER_MAX_S)
    return {
        "million_per_s": count / told["seconds"],
        "million_queued_per_s": count / told["queued_s"],
        "million_kb_each": told["peak_kb"] * 1.024 / count,
        "million_queued_kb_each": told["queued_kb"] * 1.024 / count,
    }


TAKE: dict[str, Callable[[Program, int], Facts]] = {
    "first": first,
    "idle": idle,
    "dedicated": dedicated,
    "shared": shared,
    "tasks": tasks,
}
TITLES = {
    "first_result_s": "interpreter start to first result, s",
    "idle_cluster_mb": "idle cluster, MB PSS",
    "idle_driver_mb": "its driver, MB PSS",
    "idle_processes": "processes, driver included",
    "idle_cpu_percent": "idle CPU, % of one",
    "dedicated_per_s": "dedicated actors per s",
    "dedicated_mb_each": "each, MB PSS",
    "shared_per_s": "shared actors per s",
    "shared_kb_each": "each, KB PSS",
    "million_per_s": "queued no-op tasks: done per s",
    "million_queued_per_s": "queued per s",
    "million_kb_each": "each, KB of the driver's peak RSS",
    "million_queued_kb_each": "the same when the last is queued",
}


class Startup:
    """Takes the samples; remembers what went wrong and what was left behind."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        #: figure -> system -> one value per run
        self.values: dict[str, dict[str, list[float]]] = {}
        self.problems: list[str] = []

    def sample(self, measure: str, system: str, count: int) -> None:
        scene = "idle" if measure in ("first", "idle") else measure
        log = self._logs / f"{system}-{measure}.log"
        program = Program([python_of(system), SCENES / f"startup_{system}.py", scene, str(count)], log=log)
        try:
            for name, value in TAKE[measure](program, count).items():
                self.values.setdefault(name, {}).setdefault(system, []).append(value)
        except ProgramFailed as error:
            self._problem(f"{measure}: {error}")
        finally:
            if left := program.stop():
                self._problem(f"{measure}: {system} left processes behind: {left}")

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        say(text)

    def median(self, name: str, system: str) -> float | None:
        values = self.values.get(name, {}).get(system)
        return statistics.median(values) if values else None

    def table(self) -> str:
        lines = []
        for name in self.values:
            cells = [self.median(name, system) for system in SYSTEMS]
            ours, ray = cells[0], cells[1]
            factor = ours / ray if ours is not None and ray else None
            spread = self.values[name].get("actorflow", [])
            lines.append(
                [
                    TITLES[name],
                    *map(report.number, cells),
                    report.number(factor),
                    f"{report.number(min(spread))} to {report.number(max(spread))}" if spread else "-",
                ]
            )
        return report.table(["", "actorflow", "Ray", "floor", "actorflow/Ray", "actorflow, all runs"], lines)

    def check(self) -> str:
        lines = []
        for target in STARTUP:
            value = self.median(target.measure, "actorflow")
            verdict = "not measured"
            if value is not None:
                met = value <= target.bound if target.at_most else value >= target.bound
                verdict = "met" if met else "NOT MET"
            bound = f"{'at most' if target.at_most else 'at least'} {target.bound:g}"
            lines.append([TITLES[target.measure], bound, report.number(value), verdict])
        return report.table(["", "target", "measured", "verdict"], lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.startup", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of the first-result measure (default 7)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each other measure (default 3)")
    parser.add_argument(
        "--measures", default=",".join(MEASURES), help=f"comma-separated, of {', '.join(MEASURES)}"
    )
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated (default: all)")
    parser.add_argument("--actors", type=int, default=200, help="dedicated actors of actorflow (default 200)")
    parser.add_argument("--ray-actors", type=int, default=20, help="dedicated actors of Ray (default 20)")
    parser.add_argument("--shared-actors", type=int, default=10_000, help="shared actors (default 10,000)")
    parser.add_argument(
        "--tasks", type=int, default=1_000_000, help="queued tasks of actorflow (default 1,000,000)"
    )
    parser.add_argument("--ray-tasks", type=int, default=50_000, help="queued tasks of Ray (default 50,000)")
    parser.add_argument("--json", metavar="PATH", help="write everything measured there")
    parser.add_argument(
        "--check", action="store_true", help="compare with the figures of the acceptance list"
    )
    return parser.parse_args()


def main() -> int:
    args = arguments()
    counts = {
        ("dedicated", "actorflow"): args.actors,
        ("dedicated", "ray"): args.ray_actors,
        ("shared", "actorflow"): args.shared_actors,
        ("tasks", "actorflow"): args.tasks,
        ("tasks", "ray"): args.ray_tasks,
        **{("first", system): 0 for system in SYSTEMS},
        ("idle", "actorflow"): 0,
        ("idle", "ray"): 0,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated run ends its programs too
    processes.become_subreaper()
    with tempfile.TemporaryDirectory(prefix="actorflow-bench-") as logs:
        startup = Startup(Path(logs))
        for measure in args.measures.split(","):
            for _ in range(args.runs if measure == "first" else args.rounds):
                for system in args.systems.split(","):
                    if (measure, system) in counts:
                        say(f"{measure} {system}")
                        startup.sample(measure, system, counts[measure, system])
                        if args.json:
                            report.write_json(
                                args.json,
                                {
                                    "values": startup.values,
                                    "problems": startup.problems,
                                    "counts": {
                                        f"{m} {s}": count for (m, s), count in counts.items() if count
                                    },
                                },
                            )
    print(startup.table())
    if args.check:
        print()
        print(startup.check())
    return 1 if startup.problems else 0


if __name__ == "__main__":
    sys.exit(main())
