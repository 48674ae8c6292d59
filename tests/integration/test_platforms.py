"""What works without Linux (SEMANTICS 31), as far as Linux can tell: with what others lack out of reach. See other_platform.py."""

from __future__ import annotations

import pytest

from tests.integration.programs import ROOT, Programs

pytestmark = pytest.mark.local_only("what works without Linux, where there are no nodes")

PRETEND = f"""
sys.path.insert(0, {str(ROOT)!r})
del sys.modules["actorflow"], af
from tests.integration.other_platform import pretend
pretend(sys.argv[1])
import actorflow as af
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_31_every_name_is_there_and_a_cluster_of_processes_says_why_not(programs: Programs, platform: str) -> None:
    program = programs.run(
        PRETEND
        + """
for name in af.__all__:
    getattr(af, name)
if sys.platform == "darwin":
    import actorflow.testing, actorflow.testing.pytest

for start in (lambda: af.init(), lambda: af.init(address="auto"), lambda: af.init(address="unix:/tmp/x")):
    try:
        start()
    except af.ClusterStartError as error:
        print(error)
    assert not af.is_initialized()

async def main(): ...
try:
    af.run(main)
except af.ClusterStartError as error:
    print(error)
""",
        platform,
    )
    lines = program.out().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert f"needs Linux, and this is {platform}" in line
        assert 'af.init(mode="in_process")' in line


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_31_in_process_runs_a_whole_program(programs: Programs, platform: str) -> None:
    program = programs.run(
        PRETEND
        + """
import numpy as np

@af.remote
def square(x):
    return x * x

@af.remote
async def total(array):
    return int(array.sum())

@af.remote
def numbers(n):
    yield from range(n)

@af.remote
def fail():
    raise LookupError("remote")

class Counter(af.Actor, max_restarts=1):
    def __init__(self):
        self.value = 0

    async def add(self, by=1):
        self.value += by
        return self.value

class Plain(af.Actor):
    def double(self, x):
        return 2 * x

async def main():
    assert await asyncio.gather(*[square(n) for n in range(50)]) == [n * n for n in range(50)]
    ref = await af.put(np.arange(500_000))
    assert await total(ref) == 500_000 * 499_999 // 2
    large = await square(np.ones(200_000))
    assert large.sum() == 200_000 and not large.flags.writeable
    del large, ref
    assert [n async for n in numbers(200)] == list(range(200))
    counter = Counter.options(name="counter").remote()
    assert [await counter.add() for _ in range(3)] == [1, 2, 3]
    assert await (await af.get_actor("counter")).add() == 4
    assert await Plain.remote().double(4) == 8
    try:
        await fail()
        raise AssertionError
    except LookupError as error:
        assert isinstance(error, af.TaskError)
    ref = total.remote(square.remote(np.ones(200_000)))
    assert await ref == 200_000
    await af.kill(counter)
    try:
        await counter.add()
        raise AssertionError
    except af.ActorDiedError:
        pass
    assert [row["state"] for row in await af.state.list_nodes()] == ["alive"]
    print("all is well")

for _ in range(2):
    af.run(main, num_cpus=4, mode="in_process", object_store_memory="64MiB")

with af.init(mode="in_process"):
    print(af.sync(square(3)), list(numbers(3)))
""",
        platform,
    )
    assert program.out() == "all is well\nall is well\n9 [0, 1, 2]\n"
