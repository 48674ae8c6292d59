"""What it costs to choose a node among many: no cluster, only the policy.

    python -m benchmarks.scheduling                          2,000 nodes, 7 rounds
    python -m benchmarks.scheduling --nodes 10000 --check    another number; the exit status says whether each row holds

Each decision of a row goes with one report of a node (what is free there has changed) and, when a node was chosen, with the debit
of what was sent. So the view is in motion as it is in a cluster, and its upkeep is in the figures. A round is some thousand
decisions; the figure of a round is the mean of its decisions, and the table gives the median, the best and the worst of the rounds.
"The slowest" is the longest single decision of all rounds, with its report and debit: it shows what comes seldom, such as the first
search for what is infeasible. Times are those of the processor: the policy never waits, and another program on the machine is not its cost.

The nodes are of three kinds, as mixed clusters are: of 64 CPUs, of 16 CPUs with a custom resource, and with GPUs. They are about
30 % used, or 75 % in the rows that say so, where packing is over and the least used are searched for.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

if not __package__:  # also as `python benchmarks/scheduling.py`
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.cluster_view import ClusterView
from actorflow._core.policy.label_selectors import parse_selectors
from actorflow._core.policy.node_records import NodeReport
from actorflow._core.policy.scheduling import Scheduler
from actorflow._core.policy.work_class import Chosen, Infeasible, NodeAffinity, Queued, Request, Strategy, WorkClass
from benchmarks import report

DECISION_US_MAX = 100.0
"""Says the acceptance list, for 2,000 nodes."""
GIB = 1 << 30


class Scene:
    """A cluster that never rests, and one who chooses."""

    def __init__(self, nodes: int, used: float, seed: int) -> None:
        self.rng = random.Random(seed)
        self.view = ClusterView()
        self.scheduler = Scheduler(self.view)
        self.used = used
        self.now = 0.0
        self.versions = count(1)
        self.reports = [self._first(number) for number in range(nodes)]
        for each in self.reports:
            self.view.update(each, self.now)
        self.coming = self._all_reports()

    def _first(self, number: int) -> NodeReport:
        total = {"CPU": 64 * UNIT, "memory": 256 * GIB * UNIT}
        if number % 4 == 1:
            total = {"CPU": 16 * UNIT, "memory": 64 * GIB * UNIT, "fast_disk": 4 * UNIT}
        elif number % 4 == 2:
            total = {"CPU": 64 * UNIT, "memory": 256 * GIB * UNIT, "GPU": 8 * UNIT, "accelerator_type:A100": UNIT}
        labels = {"zone": f"zone-{number % 7}", "market": "spot" if number % 3 else "on-demand"}
        return NodeReport(f"{number:012x}", next(self.versions), total, self._free(total), labels)

    def _free(self, total: dict[str, int]) -> dict[str, int]:
        """A whole number of CPUs, and any number of bytes."""
        free = {name: int(units * (1 - self.rng.uniform(0.5 * self.used, 1.5 * self.used))) for name, units in total.items()}
        free["CPU"] -= free["CPU"] % UNIT
        return free

    def _all_reports(self) -> Iterator[NodeReport]:
        """What the nodes say next, one after the other in an order that does not repeat. Made ahead: making them is not measured."""
        while True:
            block = []
            for node in self.rng.sample(self.reports, k=min(1_000, len(self.reports))):
                total = dict(node.total)
                block.append(NodeReport(node.node_id, next(self.versions), total, self._free(total), dict(node.labels)))
            yield from block

    def measure(self, requests: list[Request], kinds: tuple[type, ...]) -> tuple[float, float]:
        """Microseconds of a decision with its report and its debit: the mean, and the slowest."""
        reports = [next(self.coming) for _ in requests]
        gc.collect()
        gc.freeze()  # what was made ahead, for this row and the others, is no part of the cost
        view, scheduler, rng, clock = self.view, self.scheduler, self.rng, time.thread_time
        slowest, begun = 0.0, clock()
        before = begun
        for request, each in zip(requests, reports, strict=True):
            self.now += 0.0001
            view.update(each, self.now)
            decision = scheduler.choose(request, self.now, rng)
            if type(decision) is Chosen:
                view.debit(decision.node_id, request.work.resources, self.now)
            after = clock()
            slowest = max(slowest, after - before)
            before = after
            assert type(decision) in kinds, decision
        return (before - begun) / len(requests) * 1e6, slowest * 1e6


@dataclass
class Row:
    """One kind of request. `kinds`: what may be answered, so that a row measures what it says."""

    name: str
    make: Callable[[Scene], Request]
    used: float = 0.3
    kinds: tuple[type, ...] = (Chosen,)


CPU = {"CPU": UNIT}
CPU_AND_MEMORY = {"CPU": 2 * UNIT, "memory": 4 * GIB * UNIT}
ZONES = parse_selectors("label_selector", {"zone": "in(zone-1,zone-2)", "market": "!spot"}, "fallback", [{"zone": "zone-3"}])
NOWHERE = parse_selectors("label_selector", {"zone": "zone-99"})


def node_id(scene: Scene) -> str:
    """Any of the nodes."""
    return scene.rng.choice(scene.reports).node_id


def of_class(*works: WorkClass) -> Callable[[Scene], Request]:
    """Requests of these classes, from a node that is not always the same."""
    return lambda scene: Request(scene.rng.choice(works), node_id(scene))


def with_arguments(scene: Scene) -> Request:
    """Arguments on three nodes."""
    return Request(WorkClass(CPU), node_id(scene), {node_id(scene): size << 20 for size in (1, 20, 300)})


ONE = NodeAffinity("000000000010")
ROWS = [
    Row("default", of_class(WorkClass(CPU))),
    Row("default, most nodes over the half", of_class(WorkClass(CPU)), used=0.65, kinds=(Chosen, Queued)),
    Row("default, CPU and memory", of_class(WorkClass(CPU_AND_MEMORY))),
    Row("default, CPU and memory, over the half", of_class(WorkClass(CPU_AND_MEMORY)), used=0.65, kinds=(Chosen, Queued)),
    Row("default, asks for nothing", of_class(WorkClass({}))),
    Row("a GPU of one kind", of_class(WorkClass({"CPU": UNIT, "GPU": UNIT, "accelerator_type:A100": 10}))),
    Row("locality, three nodes", with_arguments),
    Row("spread", of_class(WorkClass(CPU, strategy=Strategy.SPREAD))),
    Row("label selector with fallback", of_class(WorkClass(CPU, selectors=ZONES))),
    Row("affinity, hard", of_class(WorkClass(CPU, strategy=ONE)), kinds=(Chosen, Queued)),
    Row("affinity, soft, node gone", of_class(WorkClass(CPU, strategy=NodeAffinity("gone", soft=True)))),
    Row("100 classes in turn", of_class(*(WorkClass({"CPU": UNIT * (1 + n % 10), "memory": n * GIB}) for n in range(100)))),
    Row("a new class each time", lambda scene: Request(WorkClass({"CPU": scene.rng.randrange(1, 4 * UNIT)}), node_id(scene))),
    Row("no node has room", of_class(WorkClass({"CPU": 64 * UNIT})), used=0.65, kinds=(Queued,)),
    Row("infeasible, of one class", of_class(WorkClass({"CPU": 999 * UNIT})), kinds=(Infeasible,)),
    Row("infeasible by label", of_class(WorkClass(CPU, selectors=NOWHERE)), kinds=(Infeasible,)),
]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.scheduling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--decisions", type=int, default=5_000, help="in each round and row (default 5000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help=f"fail when a row takes {DECISION_US_MAX:g} us or more")
    arguments = parser.parse_args()
    scenes = [Scene(arguments.nodes, row.used, arguments.seed) for row in ROWS]
    samples: list[list[float]] = [[] for _ in ROWS]
    slowest = [0.0] * len(ROWS)
    for _ in range(arguments.rounds):
        for number, (row, scene) in enumerate(zip(ROWS, scenes, strict=True)):
            requests = [row.make(scene) for _ in range(arguments.decisions)]
            mean, worst = scene.measure(requests, row.kinds)
            samples[number].append(mean)
            slowest[number] = max(slowest[number], worst)
            scene.view.check()
    lines = []
    for row, means, worst in zip(ROWS, samples, slowest, strict=True):
        figures = (statistics.median(means), min(means), max(means), worst)
        lines.append([row.name, *(f"{figure:,.1f}" for figure in figures)])
    print(f"{arguments.nodes:,} nodes; microseconds for a decision, one report and the debit; {report.machine()['cpu']}\n")
    print(report.table(["request", "median", "best round", "worst round", "the slowest"], lines))
    late = [row.name for row, means in zip(ROWS, samples, strict=True) if statistics.median(means) >= DECISION_US_MAX]
    if arguments.check:
        print(f"\nunder {DECISION_US_MAX:g} us: {'NOT MET by ' + ', '.join(late) if late else 'met by all'}")
    return 1 if arguments.check and late else 0


if __name__ == "__main__":
    sys.exit(main())
