"""Fixtures for pytest: a cluster for the run, a namespace for each test with a look at what it leaves, a simulated cluster.

    pytest_plugins = ["actorflow.testing.pytest"]          # in the conftest.py at the root of the tests

    async def test_shop(af_namespace):                     # on a cluster of real processes, started once
        cart = await Cart.options(name="cart").remote()
        ...

    def test_shop_under_simulation(af_sim):                # one thread, virtual time, and always the same run
        assert af_sim(seed=7).run(shop) == 12

All of them are plain fixtures: the runtime has a thread of its own, so they work beside any plugin for async tests (SEMANTICS 30).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

import actorflow as af
from actorflow import _runtime

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._session import Session
    from actorflow.testing.cluster import SimCluster

LEAK_S = 3.0
"""How long what a test has dropped may take to go."""
POLL_S = 0.02
UNDER_WAY = ("waiting", "queued", "pushed")

_failed = pytest.StashKey[bool]()
_seeds = pytest.StashKey[list[int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    parser.getgroup("actorflow").addoption("--af-seed", type=int, default=None, help="the seed of every af_sim that is not given one")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Remember that a test failed, for the fixtures that end after it, and show the seeds of its simulations."""
    report = cast("pytest.TestReport", (yield))
    if report.failed:
        item.stash[_failed] = True
        for seed in item.stash.get(_seeds, []):
            again = f"pytest '{item.nodeid}' --af-seed {seed}"
            report.sections.append(("af_sim", f"seed {seed}; the same run again: af_sim(seed={seed}), or {again}"))
    return cast("None", report)


@pytest.fixture(scope="session")
def af_cluster_options() -> dict[str, Any]:
    """The options of `af.init` for `af_cluster`. Override this fixture to have others."""
    return {"num_cpus": 4, "log_to_driver": False}


@pytest.fixture(scope="session")
def af_cluster(af_cluster_options: dict[str, Any]) -> Iterator[Session]:
    """A local cluster of this run's own, started once; the session that `af.init` gives."""
    with af.init(**{"address": "", **af_cluster_options}) as session:
        yield session


@pytest.fixture
def af_namespace(af_cluster: Session, request: pytest.FixtureRequest) -> Iterator[str]:
    """The namespace of this test: actors are named and found there. Afterwards no actor, call or object of the test may be left."""
    identity = cast("Core", _runtime.current()).identity
    outer, identity.namespace = identity.namespace, f"{request.node.name}-{os.urandom(3).hex()}"
    known = af.sync(_all())
    try:
        yield identity.namespace
    finally:
        identity.namespace = outer
    if request.node.stash.get(_failed, False):
        return  # Its traceback keeps alive what it used.
    left = _left(known)
    if left:
        af.sync(_end_named_actors(left))
        lines = "\n".join(f"  {text}" for text in left.values())
        pytest.fail(f"{request.node.name} leaves behind, {LEAK_S:g} s after its end:\n{lines}", pytrace=False)


def _left(known: dict[str, str]) -> dict[str, str]:
    """What is there and was not before, when it had time to go."""
    give_up_at = time.monotonic() + LEAK_S
    while True:
        gc.collect()
        left = {one: text for one, text in af.sync(_all()).items() if one not in known}
        if not left or time.monotonic() >= give_up_at:
            return left
        time.sleep(POLL_S)


async def _all() -> dict[str, str]:
    """Every actor that lives, every call under way, every object that somebody refers to: in words, by id."""
    found: dict[str, str] = {}
    for actor in await af.state.list_actors():
        if actor["state"] != "dead":
            name = f" named {actor['name']!r} in namespace {actor['namespace']!r}" if actor["name"] else ""
            found[actor["actor_id"]] = f"actor {actor['class_name']}{name} ({actor['actor_id']}), {actor['state']}"
    for task in await af.state.list_tasks():
        if task["state"] in UNDER_WAY:
            found[task["task"]] = f"call of {task['name']} ({task['task']}), {task['state']}{_made(task['call_site'])}"
    for thing in await af.state.list_objects():
        held = f"{thing['local_refs']} references in its owner, {thing['borrowers']} processes that borrow it"
        if thing["owner"] == "cluster":
            held = "it is durable, so it stays until `await af.free(ref)`"
        found[thing["object_id"]] = f"object {thing['object_id']} of {thing['size_bytes']} bytes: {held}{_made(thing['call_site'])}"
    return found


def _made(call_site: str) -> str:
    return f", made at {call_site}" if call_site else ""


async def _end_named_actors(left: dict[str, str]) -> None:
    """So that the tests that follow have the resources."""
    for actor in await af.state.list_actors():
        if actor["actor_id"] in left and actor["name"]:
            await af.kill(await af.get_actor(actor["name"], namespace=actor["namespace"]))


@pytest.fixture
def af_sim(request: pytest.FixtureRequest) -> Iterator[Callable[..., SimCluster]]:
    """`af_sim(seed, **options)` makes a simulated cluster; `options` are those of SimCluster. Without a seed it takes a new one.

    At the end of a test that passed, the cluster is ended, and nothing of it may be left. A test that failed shows the seed.
    """
    from actorflow.testing.cluster import SimCluster
    from actorflow.testing.world import World

    clusters: list[SimCluster] = []

    def make(seed: int | None = None, **options: Any) -> SimCluster:
        if seed is None:
            seed = request.config.getoption("--af-seed")
        if seed is None:
            seed = int.from_bytes(os.urandom(4), "big")
        request.node.stash.setdefault(_seeds, []).append(seed)
        clusters.append(SimCluster(World(seed), **options))
        return clusters[-1]

    yield make
    try:
        if not request.node.stash.get(_failed, False):
            for cluster in clusters:
                cluster.stop()
    finally:
        for cluster in clusters:
            cluster.world.close()
