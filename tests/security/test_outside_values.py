"""A driver from outside and values of any size, with real processes on hosts of their own, under TLS."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from actorflow.testing.lan import problem
from tests.security.hosts import PROGRAM, RUN, Host, hosts

pytestmark = [pytest.mark.skipif(bool(problem()), reason=problem() or "there can be hosts"), pytest.mark.timeout(300)]

FORMS = """
import numpy as np

def value(seed, count=300_000):
    return np.random.default_rng(seed).integers(0, 1 << 30, count)

def same(got, seed, count=300_000):
    return bool(np.array_equal(got, value(seed, count)))

@af.remote
def make(seed):
    return value(seed)

@af.remote
def total(*arrays):
    return sum(int(array.sum()) for array in arrays)

@af.remote
def several(count):
    for number in range(count):
        yield value(number)

@af.remote(num_returns=2)
def two(seed):
    return value(seed), [value(seed + 1), value(seed + 2)]

class Keeper(af.Actor):
    def __init__(self, first):
        self.first = first

    def add(self, array):
        return int(self.first.sum()) + int(array.sum())

    def hold(self, refs):
        self.refs = refs

async def main():
    checks = {}
    ref = await af.put(value(1))
    sums = [int(value(seed).sum()) for seed in range(4)]
    checks["put, get"] = same(await ref, 1) and same((await af.get([ref, ref]))[1], 1)
    checks["read-only"] = not (await ref).flags.writeable
    nodes = [node["node_id"] for node in await af.state.list_nodes()]
    checks["nodes"] = len(nodes) == 2
    for node in nodes:
        there = af.NodeAffinity(node)
        checks["arguments"] = await total.options(scheduling_strategy=there)(ref, value(2)) == sums[1] + sums[2]
        checks["a result"] = same(await make.options(scheduling_strategy=there)(3), 3)
        keeper = await Keeper.options(scheduling_strategy=there, num_cpus=0).remote(value(0))
        checks["an actor"] = await keeper.add(value(3)) == sums[0] + sums[3]
        await af.kill(keeper)
    checks["a stream"] = [same(item, number) for number, item in enumerate([item async for item in several(3)])] == [True] * 3
    first, second = two.remote(5)
    checks["two results"] = same(await first, 5) and same((await second)[1], 7)
    nested = await af.put([value(2), {"inside": ref}])
    opened = await nested
    checks["nested"] = same(opened[0], 2) and same(await opened[1]["inside"], 1)
    refs = [make.remote(number) for number in range(6)]
    ready, pending = await af.wait(refs, num_returns=6, timeout=60)
    checks["many at a time"] = not pending and [same(one, n) for n, one in enumerate(await af.get(refs))] == [True] * 6
    del refs, ready, opened, nested, first, second
    big = np.arange(5_000_000)
    checks["most of the store"] = bool(np.array_equal(await (await af.put(big)), big))
    held = [await af.put(value(number, 2_000_000)) for number in range(6)]
    checks["what was on disk"] = [same(await one, number, 2_000_000) for number, one in enumerate(held)] == [True] * 6
    try:
        await af.put(np.zeros(100 << 20, dtype=np.uint8))
    except af.ObjectStoreFullError as error:
        checks["too large"] = "100 MiB" in str(error)
    return [name for name, good in checks.items() if not good]
"""
BROKEN_OFF = """
import numpy as np

async def main():
    big = np.ones(5_000_000)
    print("begun", flush=True)
    while True:
        await (await af.put(big))
"""
ROOM = """
import numpy as np

async def main():
    big = np.ones(6_000_000)
    for _ in range(3):
        assert (await (await af.put(big))).sum() == 6_000_000
    return "room"
"""


def start(host: Host, address: str, program: str, **env: str) -> subprocess.Popen[str]:
    """A driver that goes on."""
    file = host.home / "going_on.py"
    file.write_text(f"{PROGRAM}\n{textwrap.dedent(program)}\n{RUN}")
    options = {"env": host.env(ACTORFLOW_ADDRESS=address, **env), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = host.lan.start([sys.executable, str(file)], **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_a_driver_from_outside_gives_and_gets_values_of_any_size(short_path: Path) -> None:
    with hosts(3, short_path) as (a, b, outside):
        a.head()
        b.join(a, ACTORFLOW_TOKEN=a.token("join"))
        assert outside.drive(a.place, FORMS, ACTORFLOW_TOKEN=a.token("client")) == []
        assert "ERROR" not in a.log() + b.log()


def test_ps_2_what_it_had_begun_when_it_was_killed_is_given_back(short_path: Path) -> None:
    with hosts(2, short_path) as (a, outside):
        a.head()
        token = a.token("client")
        for _ in range(4):
            with start(outside, a.place, BROKEN_OFF, ACTORFLOW_TOKEN=token) as driver:
                driver.kill()
        assert outside.drive(a.place, ROOM, ACTORFLOW_TOKEN=token) == "room"
        assert "ERROR" not in a.log()


def test_whoever_gives_or_gets_is_told_when_the_node_is_gone(short_path: Path) -> None:
    with hosts(2, short_path) as (a, outside):
        a.head()
        with start(outside, a.place, BROKEN_OFF, ACTORFLOW_TOKEN=a.token("client")) as driver:
            a.stop()
            _, said = driver.communicate(timeout=60)
        assert "ClusterConnectionError: the connection to the cluster is lost" in said
        assert driver.returncode == 1
