"""The standstill test: a node of three is stopped (SIGSTOP) for a while in the middle of work, and goes on.

    python -m tests.soak.standstill --seconds 60 --rounds 2 [--process-alone]

As when a virtual machine is moved, or its host swaps. A driver beside the head calls actors that act by themselves as well, with and
without retries, and runs tasks everywhere. In the end every call must have ended in its value or in a typed error, those with retries in
their value; the head has given the node up in time; its actors have begun again elsewhere; no answer comes from an earlier life; what the
earlier life does when it wakes up is over in a moment; and the node is back as a new one. `--process-alone`: only the node process is
stopped, and its workers run on.

The exit code is 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import actorflow as af
from actorflow._core.policy.liveness import LEASE_S, LOOK_S, SILENCE_S
from actorflow.testing import Cluster
from actorflow.testing.nodes import Node

ACT_S = 0.1
BUSY_S = 3.0
"""How much longer things may take where the machine has other work."""
NOTICED_S = SILENCE_S + LOOK_S
WAKING_S = 1.0
"""A machine that stood still can act for the moment between its waking up and the end of its workers (docs/internals/nodes.md)."""
BACK_S = 30.0
"""From going on until it is there as a new node."""
END_S = 60.0


class Beacon(af.Actor, max_restarts=-1, num_cpus=0, resources={"far": 1}):
    """Acts by itself, and when it is called. Each act is a line in a file; the clock is that of the machine."""

    def __init__(self, path: str) -> None:
        self._path = path
        with open(path, "a+") as file:
            file.seek(0)
            self.life = 1 + sum(line.endswith("born\n") for line in file)
            file.write(f"{time.monotonic()} {self.life} born\n")
        self._acting = asyncio.ensure_future(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(ACT_S)
            self._act()

    def _act(self) -> None:
        with open(self._path, "a") as file:
            file.write(f"{time.monotonic()} {self.life} act\n")

    @af.method
    async def echo(self, number: int) -> tuple[int, int, str]:
        self._act()
        return number, self.life, af.get_runtime_context().node_id


@af.remote(max_retries=-1, num_cpus=1)
async def square(number: int) -> int:
    await asyncio.sleep(0.3)
    return number * number


@dataclass
class Verdict:
    """What was seen. Times in seconds."""

    wrong: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    """Calls, by how they ended."""
    noticed_s: float = 0.0
    """From the stop until the head had given the node up."""
    acted_s: float = 0.0
    """... until its actor acted elsewhere."""
    together_s: float = 0.0
    """For how long acts of an earlier life were seen after the first one of the next."""
    back_s: float = 0.0
    """From going on until the node was there as a new one."""

    def require(self, holds: bool, words: str) -> None:
        """Note what is wrong."""
        if not holds:
            self.wrong.append(words)

    def line(self) -> str:
        """For people."""
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.ends.items()))
        return (
            f"noticed after {self.noticed_s:.1f} s, acted elsewhere after {self.acted_s:.1f} s, two lives for {self.together_s:.2f} s, "
            f"back after {self.back_s:.1f} s; calls: {ends}; wrong: {len(self.wrong)}"
        )


class Caller:
    """One who calls an actor all the time."""

    def __init__(self, beacon: Any, verdict: Verdict, *, again: bool) -> None:
        self._beacon = beacon
        self._verdict = verdict
        self._again = again
        self.ended = False
        self.highest = 0
        """The newest life that has answered."""
        self.node = ""

    async def call(self) -> None:
        """Until `ended`."""
        number = 0
        while not self.ended:
            number += 1
            try:
                async with asyncio.timeout(END_S):
                    echoed, life, self.node = await self._beacon.echo(number)
            except TimeoutError:
                self._verdict.wrong.append(f"call {number} did not end within {END_S:g} s")
                return
            except (af.ActorUnavailableError, af.ActorDiedError) as error:
                self._verdict.ends[type(error).__name__] += 1
                self._verdict.require(not self._again, f"a call with retries ended in {type(error).__name__}: {error}")
            else:
                self._verdict.ends["value"] += 1
                self._verdict.require(echoed == number, f"call {number} gave {echoed}")
                self._verdict.require(life >= self.highest, f"call {number} was answered by life {life} after life {self.highest}")
                self.highest = max(self.highest, life)
            await asyncio.sleep(ACT_S / 2)


async def tasks(verdict: Verdict, until: asyncio.Event) -> None:
    """Tasks everywhere, with retries."""
    first = 0
    while not until.is_set():
        refs = [square.remote(number) for number in range(first, first + 4)]
        async with asyncio.timeout(END_S):
            verdict.require(await af.get(refs) == [number * number for number in range(first, first + 4)], "a task gave a wrong value")
        verdict.ends["task"] += len(refs)
        first += 4


def acts(path: Path) -> dict[int, list[float]]:
    """When each life has acted, its birth included."""
    found: dict[int, list[float]] = {}
    for line in path.read_text().splitlines():
        at, life, _ = line.split()
        found.setdefault(int(life), []).append(float(at))
    return found


async def states() -> dict[str, tuple[str, str]]:
    """State and address of each node that the head knows."""
    return {row["node_id"]: (row["state"], row["address"]) for row in await af.state.list_nodes()}


async def until(condition: Any, timeout_s: float) -> bool:
    """Wait for what the condition, a function that is awaited, says."""
    give_up_at = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() >= give_up_at:
            return False
        await asyncio.sleep(0.02)
    return True


def send(cluster: Cluster, node: Node, number: int, *, process_alone: bool) -> None:
    """Stop a node, or have it go on."""
    if process_alone:
        os.kill(node.pid, number)
    elif number == signal.SIGSTOP:
        cluster.pause(node)
    else:
        cluster.resume(node)


async def stand_still(cluster: Cluster, directory: Path, *, seconds: float, process_alone: bool = False) -> Verdict:
    """One round, with a cluster of the head and two nodes with a resource `far`. `seconds`: more than it takes to be noticed."""
    verdict = Verdict()
    paths = [directory / f"{name}-{time.monotonic_ns()}" for name in ("once", "again")]
    once, again = await Beacon.remote(str(paths[0])), await Beacon.options(max_task_retries=-1).remote(str(paths[1]))
    callers = [Caller(once, verdict, again=False), Caller(again, verdict, again=True)]
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.call())
        group.create_task(tasks(verdict, ended))
        try:
            await _round(cluster, callers, paths, verdict, seconds, process_alone=process_alone)
        finally:
            ended.set()
            for caller in callers:
                caller.ended = True
    for beacon in (once, again):
        await af.kill(beacon)
    return verdict


async def _round(
    cluster: Cluster, callers: list[Caller], paths: list[Path], verdict: Verdict, seconds: float, *, process_alone: bool
) -> None:
    async def calls_are_answered() -> bool:
        return all(caller.highest for caller in callers)

    verdict.require(await until(calls_are_answered, END_S), "the actors did not answer")
    await asyncio.sleep(1.0)
    old = callers[1].node
    address = (await states())[old][1]
    victim = next(node for node in cluster.nodes if address.startswith(f"tcp:{node.address}/"))
    ours = [path for caller, path in zip(callers, paths, strict=True) if caller.node == old]
    stopped_at = time.monotonic()
    send(cluster, victim, signal.SIGSTOP, process_alone=process_alone)
    try:

        async def given_up() -> bool:
            return (await states())[old][0] == "lost"

        verdict.require(await until(given_up, NOTICED_S + BUSY_S), f"it was not noticed within {NOTICED_S + BUSY_S:g} s")
        verdict.noticed_s = time.monotonic() - stopped_at

        async def acted() -> bool:
            return all(len(acts(path)) > 1 for path in ours)

        verdict.require(await until(acted, BUSY_S), "its actors did not begin again elsewhere")
        verdict.acted_s = max((acts(path).get(2, [time.monotonic()])[0] for path in ours), default=0.0) - stopped_at
        verdict.require(verdict.acted_s > LEASE_S, "its actors began again before its lease was over (LV-1)")
        await asyncio.sleep(max(0.0, stopped_at + seconds - time.monotonic()))
    finally:
        went_on_at = time.monotonic()
        send(cluster, victim, signal.SIGCONT, process_alone=process_alone)

    async def is_back() -> bool:
        found = await states()
        return sum(state == "alive" for state, _ in found.values()) == len(cluster.nodes) and found[old][0] == "lost"

    verdict.require(await until(is_back, BACK_S), "it did not come back as a new node")
    verdict.back_s = time.monotonic() - went_on_at
    await asyncio.sleep(1.0)
    for path in ours:
        lives = [times for _, times in sorted(acts(path).items())]
        for before, after in zip(lives, lives[1:], strict=False):
            together = [at for at in before if at > after[0]]
            early = [at for at in together if at < went_on_at]
            verdict.require(not early, f"an earlier life acted {len(early)} times beside the next one while its node stood still")
            late_s = max(together, default=went_on_at) - went_on_at
            verdict.together_s = max(verdict.together_s, late_s)
            verdict.require(late_s < WAKING_S, f"an earlier life acted for {late_s:.1f} s after its node went on")
    verdict.require(callers[1].highest >= 2, "the next life has not answered")


def three_nodes() -> Cluster:
    """The cluster of a round: the head, and two nodes that actors may be on."""
    cluster = Cluster(1, num_cpus=1)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2, resources={"far": 2})
    except BaseException:
        cluster.close()
        raise
    return cluster


async def rounds(directory: Path, options: argparse.Namespace) -> int:
    """All of them; how many things were wrong."""
    wrong = 0
    with three_nodes() as cluster:
        async with af.init(address=cluster.address, log_to_driver=False):
            for number in range(1, options.rounds + 1):
                verdict = await stand_still(cluster, directory, seconds=options.seconds, process_alone=options.process_alone)
                print(f"round {number}: {verdict.line()}", flush=True)
                print(*(f"  {words}" for words in verdict.wrong[:20]), sep="\n" if verdict.wrong else "", end="", flush=True)
                wrong += len(verdict.wrong)
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Stop a node in the middle of work, and see what becomes of it.")
    parser.add_argument("--seconds", type=float, default=60.0, help=f"how long it is stopped; it is given up after {NOTICED_S:g} s")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--process-alone", action="store_true", help="stop the node process only: its workers run on")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="aft-") as directory, contextlib.ExitStack() as stack:
        stack.callback(os.environ.__setitem__, "ACTORFLOW_TMPDIR", os.environ.get("ACTORFLOW_TMPDIR", ""))
        os.environ["ACTORFLOW_TMPDIR"] = directory
        return 1 if asyncio.run(rounds(Path(directory), options)) else 0


if __name__ == "__main__":
    sys.exit(main())
