"""The head is killed again and again under load: do calls go on, is it back in time, and does it know everything?

    python -m tests.soak.head_kills --kills 50

A cluster of two nodes, with a named detached actor, others that are made and ended all the time, a placement group, objects that the
cluster owns, detached calls, tasks, and a loop that calls an actor every millisecond. After each kill the head is asked until it answers;
then all that it had acknowledged must be there. The last line sums up.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field

import actorflow as af
from actorflow.testing import Cluster

BACK_S_MAX = 2.0
GAP_S_MAX = 1.0
BETWEEN_S = 2.0
"""From the answer of one life to the kill of it: most come when the next life is ready, as it is when a head runs for a while."""


class Counter(af.Actor, max_restarts=-1, num_cpus=0):
    """Counts its calls: one that runs twice, or not at all, is seen."""

    def __init__(self) -> None:
        self.value = 0

    async def add(self) -> int:
        self.value += 1
        return self.value


class Kept(af.Actor, max_restarts=-1, max_task_retries=-1, checkpoint_every="call", num_cpus=0):
    """What it has acknowledged is in the head's journal."""

    def __init__(self) -> None:
        self.value = 0

    def __checkpoint__(self) -> int:
        return self.value

    def __restore__(self, value: int) -> None:
        self.value = value

    async def put(self, value: int) -> int:
        self.value = max(self.value, value)
        return self.value


@af.remote(num_cpus=0.1)
async def double(number: int) -> int:
    return 2 * number


@af.remote(num_cpus=0.1)
async def put_and_go(number: int) -> list[af.ObjectRef[list[int]]]:
    """An object that the cluster owns; every fifth is so large that nodes keep it, the others are with the head."""
    return [await af.put([number] * (100_000 if number % 5 == 0 else 1), durable=True)]


@af.remote(num_cpus=0, lifetime="detached", max_retries=0)
async def double_apart(number: int) -> int:
    """A detached call, under way when the head is killed. It may not begin twice: it would be lost then."""
    await asyncio.sleep(1)
    return 2 * number


@af.remote(num_cpus=0.1)
async def first_of_all(refs: list[af.ObjectRef[list[int]]]) -> list[int]:
    """Read in a process that asks the head for each."""
    return [value[0] for value in await af.get(refs)]


@dataclass
class Seen:
    """What came of it."""

    gaps: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    calls: int = 0

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Write down what is not as it must be."""
        if got != wanted:
            self.problems.append(f"{what}: {got!r}, must be {wanted!r}")


async def call_on(counter: Counter, seen: Seen, over: asyncio.Event) -> None:
    """The calls that nobody stands between."""
    last = time.monotonic()
    while not over.is_set():
        seen.calls += 1
        seen.expect("a count", await counter.add(), seen.calls)
        now = time.monotonic()
        seen.gaps.append(now - last)
        last = now
        await asyncio.sleep(0.001)


async def churn(over: asyncio.Event, seen: Seen) -> None:
    """Actors come and go, and tasks run, all the time."""
    number = 0
    while not over.is_set():
        number += 1
        actor = await Counter.options(name=f"churn-{number}").remote()
        seen.expect("the first count of a new actor", await actor.add(), 1)
        seen.expect("a task", await double(number), 2 * number)
        await af.kill(actor)


async def kill_on(cluster: Cluster, kills: int, seen: Seen) -> None:
    """Kill, wait, look; again and again."""
    over = asyncio.Event()
    steady = await Counter.options(name="steady", lifetime="detached").remote()
    kept = Kept.options(name="kept").remote()
    group = af.placement_group([{"CPU": 1}] * 2, strategy="SPREAD", name="group")
    await group.ready()
    objects: list[af.ObjectRef[list[int]]] = []
    made: list[af.ObjectRef[int]] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(call_on(steady, seen, over))
        tasks.create_task(churn(over, seen))
        try:
            for number in range(1, kills + 1):
                seen.expect("what is kept", await kept.put(number), number)
                objects += await put_and_go(number)
                made.append(await double_apart.submit(number))
                await asyncio.to_thread(cluster.kill_head)
                begun = time.monotonic()
                rows = await af.state.list_actors()
                seen.back.append(time.monotonic() - begun)
                names = {row["name"] for row in rows if row["state"] == "alive"}
                seen.expect("named actors", {"steady", "kept"} <= names, True)
                seen.expect("groups", [row["state"] for row in await af.state.list_placement_groups()], ["created"])
                seen.expect("jobs", [row["state"] for row in await af.state.list_jobs()], ["running"])
                seen.expect("nodes", [row["state"] for row in await af.state.list_nodes()], ["alive", "alive"])
                seen.expect("objects of the cluster", await first_of_all(objects), list(range(1, number + 1)))
                await af.kill(kept, no_restart=False)
                seen.expect("what was kept", await kept.put(0), number)
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r{number} of {kills}")
                await asyncio.sleep(BETWEEN_S)
        finally:
            over.set()
    seen.expect("detached calls", await af.get(made), [2 * number for number in range(1, kills + 1)])
    seen.expect("results that were there to be freed", await af.free(made), kills)
    seen.expect("objects that were there to be freed", await af.free(objects), kills)
    await group.remove()
    await af.kill(await af.get_actor("steady"))


async def run(kills: int) -> Seen:
    """One cluster, so many kills."""
    seen = Seen()
    with Cluster(2, num_cpus=2) as cluster:
        async with af.init(address=cluster.address, log_to_driver=False):
            await kill_on(cluster, kills, seen)
    return seen


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Kill the head again and again, under load.")
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args(argv)
    seen = asyncio.run(run(options.kills))
    for problem in seen.problems[:20]:
        print(problem)
    back, gap = max(seen.back), max(seen.gaps)
    fine = not seen.problems and back < BACK_S_MAX and gap < GAP_S_MAX
    print(
        f"{options.kills} kills of the head; {seen.calls} calls, the largest gap between two answers {gap * 1e3:.0f} ms"
        f" (at most {GAP_S_MAX:g} s); the head answered again after {statistics.median(seen.back):.2f} s in the middle,"
        f" {back:.2f} s at most (at most {BACK_S_MAX:g} s); wrong or lost {len(seen.problems)}: {'met' if fine else 'NOT MET'}"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
