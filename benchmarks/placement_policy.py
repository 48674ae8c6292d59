"""The pure policy of placement groups, without processes or network: how long the decisions alone take.

    python benchmarks/placement_policy.py

Prints for several sizes of the cluster: creating and removing one group after the other, many groups at one time
(all steps of both sides each), and one pass over groups that do not fit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.bundle_packing import BundleSpec, Strategy
from actorflow._core.policy.bundles import Bundles
from actorflow._core.policy.placement_decisions import Cancel, Commit, Decision, Prepare, Prepared, Return, Returned
from actorflow._core.policy.placement_groups import PlacementGroups
from actorflow._core.policy.placement_record import GroupSpec
from actorflow._core.policy.resource_pool import ResourcePool

CPUS = 64


class Cluster:
    """A head's table and the ledgers of its nodes; what one says the other hears at once."""

    def __init__(self, nodes: int) -> None:
        self.table = PlacementGroups()
        self.ledgers: dict[str, Bundles] = {}
        for number in range(nodes):
            total = {"CPU": CPUS * UNIT}
            self.ledgers[f"n{number}"] = Bundles(ResourcePool(total))
            self.table.node_joined(f"n{number}", total, {}, (), 0.0)

    def create(self, group_id: str, strategy: Strategy, bundles: int, cpus: int = 1) -> None:
        specs = (BundleSpec({"CPU": cpus * UNIT}),) * bundles
        self.table.create(GroupSpec(group_id, "job", strategy, specs), "driver", job_over=False, now=0.0)
        self.carry(self.table.schedule(0.0))

    def remove(self, group_id: str) -> None:
        self.carry(self.table.remove(group_id, by="a benchmark", now=0.0))
        self.carry(self.table.schedule(0.0))

    def carry(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if not isinstance(decision, Prepare | Commit | Cancel | Return):
                continue
            ledger = self.ledgers[decision.node_id]
            match decision:
                case Prepare(_, group_id, attempt, bundles, keep_s, commit, claim):
                    answers = ledger.prepare(group_id, attempt, bundles, 0.0, keep_s=keep_s, commit=commit, claim=claim)
                case Commit(_, group_id, attempt):
                    answers = ledger.commit(group_id, attempt)
                case Cancel(_, group_id, attempt):
                    answers = ledger.cancel(group_id, attempt)
                case Return(_, group_id, attempt):
                    answers = ledger.return_group(group_id, attempt)
            for answer in answers:
                if isinstance(answer, Prepared):
                    self.carry(self.table.prepared(decision.node_id, answer.group_id, answer.attempt, 0.0))
                elif isinstance(answer, Returned):
                    self.table.returned(decision.node_id, answer.group_id, answer.attempt)


def seconds(act: Callable[[], None]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def one_by_one(cluster: Cluster, strategy: Strategy, bundles: int, count: int) -> None:
    for number in range(count):
        cluster.create(f"{strategy.value}{bundles}-{number}", strategy, bundles)
        cluster.remove(f"{strategy.value}{bundles}-{number}")


def together(cluster: Cluster, count: int) -> None:
    for number in range(count):
        cluster.create(f"many-{number}", Strategy.PACK, 1)
    for number in range(count):
        cluster.remove(f"many-{number}")


def one_pass(nodes: int) -> float:
    """A node says that it has more room, and everyone who waits is tried."""
    cluster = Cluster(nodes)
    for number in range(nodes):
        cluster.create(f"full-{number}", Strategy.STRICT_PACK, 1, CPUS)
    for number in range(500):
        cluster.create(f"waiting-{number}", Strategy.PACK, 1 + number % 10)
    cluster.table.node_used("n0", {"CPU": 1})
    cluster.table.node_used("n0", {})
    return seconds(lambda: cluster.carry(cluster.table.schedule(0.0)))


def main() -> None:
    """Print the table."""
    print(f"{'nodes':>6}  {'what':<44} {'us each':>9} {'per s':>8}")
    for nodes in (1, 4, 100, 2_000):
        cluster = Cluster(nodes)
        for strategy in Strategy:
            for bundles in (1, 4):
                if bundles <= nodes:
                    act = partial(one_by_one, cluster, strategy, bundles, 200)
                    show(nodes, f"{strategy.value}, {bundles} bundles: create, remove", seconds(act) / 200)
        show(nodes, "PACK, 1 bundle: 60 at one time", seconds(partial(together, cluster, 60)) / 60)
        show(nodes, "a pass over 500 that wait", one_pass(nodes))


def show(nodes: int, what: str, each: float) -> None:
    """Print one row."""
    print(f"{nodes:>6}  {what:<44} {each * 1e6:>9.0f} {1 / each:>8.0f}")


if __name__ == "__main__":
    main()
