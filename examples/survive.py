"""A cluster of three nodes loses a node and its head in the middle of work, and the answer is right.

    python examples/survive.py [--files N]

Detached calls count the words of Python's standard library, a batch of files each, on nodes of which one is killed meanwhile; an actor
with checkpoints adds up what they return. The head is killed too. At the end the same is done in this one process, and both must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import actorflow as af
from actorflow.testing import Cluster

WORD = re.compile(r"[A-Za-z_]{3,}")
BATCH_FILES = 24


def count_words(paths: list[str]) -> Counter[str]:
    """Shared by the cluster's calls and the check."""
    found: Counter[str] = Counter()
    for path in paths:
        found.update(word.lower() for word in WORD.findall(Path(path).read_text(encoding="utf-8", errors="replace")))
    return found


@af.remote(num_cpus=1, lifetime="detached", max_retries=-1)
def count(paths: list[str]) -> Counter[str]:
    """A call that outlives its process, its node and this program. It takes its time, so that something can happen meanwhile."""
    time.sleep(0.5)
    return count_words(paths)


class Sum(af.Actor, num_cpus=0, max_restarts=-1, max_task_retries=-1, checkpoint_every="call"):
    """What it has acknowledged it has, also in its next life; each batch once."""

    def __init__(self) -> None:
        self.batches: set[int] = set()
        self.total: Counter[str] = Counter()

    async def add(self, batch: int, counts: Counter[str]) -> int:
        """Take in the counts of a batch; returns how many there are."""
        if batch not in self.batches:
            self.batches.add(batch)
            self.total.update(counts)
        return len(self.batches)

    async def result(self) -> Counter[str]:
        """All of it."""
        return self.total

    def __checkpoint__(self) -> tuple[set[int], Counter[str]]:
        return self.batches, self.total

    def __restore__(self, state: tuple[set[int], Counter[str]]) -> None:
        self.batches, self.total = state


async def total_of(batches: list[list[str]], cluster: Cluster) -> Counter[str]:
    """Count in the cluster, and hurt it."""
    away = cluster.nodes[1]
    [node_id] = [row["node_id"] for row in await af.state.list_nodes() if away.address in row["address"]]
    total = Sum.options(scheduling_strategy=af.NodeAffinity(node_id, soft=True)).remote()
    await total
    refs = [await count.submit(batch) for batch in batches]
    for number, ref in enumerate(refs):
        await total.add(number, await ref)
        if number == len(refs) // 4:
            print("a node is killed, with the actor and the calls that run there")
            cluster.kill(away)
        if number == len(refs) // 2:
            print("the head is killed")
            await asyncio.to_thread(cluster.kill_head)
    await af.free(refs)
    return await total.result()


def main() -> int:
    """Run, compare, and return the exit code."""
    parser = argparse.ArgumentParser(description="Count words in a cluster that is hurt meanwhile.")
    parser.add_argument("--files", type=int, default=200, help="so many files of the standard library")
    files = sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))[: parser.parse_args().files]
    batches = [files[start : start + BATCH_FILES] for start in range(0, len(files), BATCH_FILES)]

    async def program() -> Counter[str]:
        async with af.init(address=cluster.address, log_to_driver=False):
            return await total_of(batches, cluster)

    with Cluster(3, num_cpus=2) as cluster:
        found = asyncio.run(program())
    right = found == count_words(files)
    print(f"{len(files)} files in {len(batches)} calls, {found.total()} words; {'as' if right else 'NOT as'} counted in one process")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
