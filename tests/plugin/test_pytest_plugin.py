"""The fixtures of `actorflow.testing.pytest`, each in runs of pytest of their own (SEMANTICS 30)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_readme import blocks_of
from tests.integration import leaks

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]

HEADER = """
import asyncio
import pytest
import actorflow as af

@af.remote
def square(x):
    return x * x

@af.remote
async def slow(seconds):
    await asyncio.sleep(seconds)

class Counter(af.Actor):
    def __init__(self):
        self.value = 0

    async def add(self, by=1):
        self.value += by
        return self.value

KEPT = []
"""


@pytest.fixture
def runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Pytester]:
    with tempfile.TemporaryDirectory(prefix="afq-") as home:
        monkeypatch.setenv("ACTORFLOW_TMPDIR", home)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.delenv("ACTORFLOW_ADDRESS", raising=False)
        pytester.makeconftest('pytest_plugins = ["actorflow.testing.pytest"]\n')
        pytester.makeini("[pytest]\nasyncio_mode = auto\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
        yield pytester
        assert leaks.until(lambda: not leaks.leftovers(home)), leaks.leftovers(home)


def outcome(runs: pytest.Pytester, source: str, *arguments: str, **expected: int) -> str:
    """Run a file of tests, compare how many passed, failed and so on, and return what pytest printed."""
    runs.makepyfile(HEADER + source)
    result = runs.runpytest_subprocess(*arguments, timeout=50)
    assert result.parseoutcomes() == expected, result.stdout.str()
    return result.stdout.str()


def test_30_one_cluster_for_the_run_in_sync_and_async_tests(runs: pytest.Pytester) -> None:
    outcome(
        runs,
        """
ADDRESSES = set()

def test_blocking(af_cluster):
    ADDRESSES.add(af_cluster.address)
    assert af.sync(square(3)) == 9

async def test_on_a_loop(af_cluster):
    ADDRESSES.add(af_cluster.address)
    assert await square(4) == 16

class TestWithAFixture:
    @pytest.fixture
    async def counter(self, af_namespace):
        counter = await Counter.remote()
        yield counter
        await af.kill(counter)

    async def test_it(self, counter, af_cluster):
        assert await counter.add() == 1
        ADDRESSES.add(af_cluster.address)
        assert len(ADDRESSES) == 1
""",
        passed=3,
    )


def test_30_the_options_of_the_cluster_are_a_fixture(runs: pytest.Pytester) -> None:
    outcome(
        runs,
        """
@pytest.fixture(scope="session")
def af_cluster_options():
    return {"num_cpus": 1, "resources": {"special": 2}, "mode": "in_process"}

def test_it(af_cluster):
    assert af.sync(af.cluster_resources())["special"] == 2
""",
        passed=1,
    )


def test_30_a_namespace_for_each_test(runs: pytest.Pytester) -> None:
    outcome(
        runs,
        """
@pytest.mark.parametrize("turn", [1, 2])
async def test_each_has_its_own(af_namespace, turn):
    counter = await Counter.options(name="the one").remote()
    assert await (await af.get_actor("the one")).add() == 1
    assert await af.get_actor("the one", namespace=af_namespace) == counter
    with pytest.raises(af.ActorNotFoundError):
        await af.get_actor("the one", namespace="default")
    ref = await af.put("dropped with the test")
    assert [row["namespace"] for row in await af.state.list_actors() if row["state"] == "alive"] == [af_namespace]
""",
        passed=2,
    )


def test_30_what_a_test_leaves_behind_fails_it_with_names(runs: pytest.Pytester) -> None:
    printed = outcome(
        runs,
        """
async def test_leaves_an_actor(af_namespace):
    KEPT.append(await Counter.options(name="forgotten").remote())

async def test_leaves_a_detached_actor(af_namespace):
    await Counter.options(name="immortal", lifetime="detached").remote()

async def test_leaves_an_object(af_namespace):
    KEPT.append(await af.put("x" * 1000))

async def test_leaves_a_durable_object(af_namespace):
    await af.put("y" * 1000, durable=True)

async def test_leaves_a_call(af_namespace):
    KEPT.append(slow.remote(20))

async def test_leaves_nothing(af_namespace):
    assert await square(2) == 4

def test_only_of_the_one_before(af_namespace):
    KEPT.clear()
""",
        passed=7,
        errors=5,
    )
    for line in (
        r"test_leaves_an_actor leaves behind, 3 s after its end:",
        r"actor Counter named 'forgotten' in namespace 'test_leaves_an_actor-\w+' \(\w+\), alive",
        r"actor Counter named 'immortal' in namespace 'test_leaves_a_detached_actor-\w+' \(\w+\), alive",
        r"object \S+ of 10\d\d bytes: 1 references in its owner, 0 processes that borrow it",
        r"object \S+ of 10\d\d bytes: it is durable, so it stays until `await af.free\(ref\)`",
        r"call of slow \(\S+\), pushed",
    ):
        assert re.search(line, printed), f"{line}\n{printed}"
    assert not re.search("test_leaves_nothing leaves|test_only_of_the_one_before leaves", printed)


def test_30_a_test_that_fails_is_not_blamed_for_what_its_traceback_holds(runs: pytest.Pytester) -> None:
    printed = outcome(
        runs,
        """
async def test_fails(af_namespace):
    counter = await Counter.remote()
    assert await counter.add() == 2

async def test_passes(af_namespace):
    assert await square(2) == 4
""",
        passed=1,
        failed=1,
    )
    assert "leaves behind" not in printed


SIMULATED = """
async def shop():
    counter = Counter.remote()
    await slow(3600)
    return await counter.add(5)
"""


def test_30_a_simulated_cluster(runs: pytest.Pytester) -> None:
    outcome(
        runs,
        SIMULATED
        + """
def test_a_seed(af_sim):
    assert af_sim(7).run(shop, timeout_s=10_000) == 5

def test_two_clusters_and_no_seed(af_sim):
    one, two = af_sim(num_cpus=1), af_sim(seed=7, num_cpus=8)
    assert one.world.seed != two.world.seed
    assert one.run(shop, timeout_s=10_000) == two.run(shop, timeout_s=10_000) == 5

def digest(af_sim, seed):
    cluster = af_sim(seed)
    cluster.run(shop, timeout_s=10_000)
    return cluster.world.trace.digest

def test_the_same_seed_is_the_same_run(af_sim):
    assert digest(af_sim, 1) == digest(af_sim, 1) != digest(af_sim, 2)
""",
        passed=3,
    )


def test_30_a_simulated_test_that_fails_prints_its_seed(runs: pytest.Pytester) -> None:
    source = (
        SIMULATED
        + """
def test_it(af_sim):
    cluster = af_sim()
    assert cluster.run(shop, timeout_s=10_000) == 6, f"with {cluster.world.seed}"
"""
    )
    printed = outcome(runs, source, failed=1)
    found = re.search(r"seed (\d+); the same run again: af_sim\(seed=\1\), or pytest '\S+::test_it' --af-seed \1", printed)
    assert found is not None, printed
    assert f"with {found[1]}" in printed
    assert "seed 12345;" in outcome(runs, source, "--af-seed", "12345", failed=1)


def test_30_a_simulation_that_leaves_a_process_fails(runs: pytest.Pytester) -> None:
    printed = outcome(
        runs,
        SIMULATED
        + """
def test_it(af_sim):
    cluster = af_sim(3)
    async def for_ever():
        await asyncio.sleep(1e6)
    cluster.driver(for_ever)
    cluster.world.run_for(1.0)
""",
        passed=1,
        errors=1,
    )
    assert "left: the process driver-0" in printed
    assert "seed 3;" in printed


def test_30_the_tests_of_the_guide(runs: pytest.Pytester) -> None:
    blocks = {block.language: block.text for block in blocks_of(ROOT / "docs" / "guide" / "testing.md")}
    runs.makeconftest(blocks["python conftest"])
    runs.makepyfile(blocks["python test"])
    result = runs.runpytest_subprocess("-o", "asyncio_mode=strict", timeout=50)
    assert result.parseoutcomes() == {"passed": 3}, result.stdout.str()
