"""Clusters of real processes, and the check that nothing of them is left.

A test with the argument `cluster` uses the one cluster of its module, and must leave that at rest: no object, no
lease, every resource free. Any other test must leave no process, no file, no shared memory, no thread of ours.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration import leaks, three_hosts
from tests.integration.programs import Programs

CLUSTER: dict[str, Any] = {"num_cpus": 4, "num_gpus": 2, "resources": {"special": 2.0}, "memory": "8GiB"}
REST_S = 8.0
HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[Path]:
    """The temporary directory of this run's clusters, for this process and all that it starts."""
    plan = three_hosts.layout()
    with tempfile.TemporaryDirectory(prefix="aft-") as directory, pytest.MonkeyPatch.context() as patch:
        directory = directory if plan is None else str(plan.home)
        patch.setenv("ACTORFLOW_TMPDIR", directory)
        patch.delenv("ACTORFLOW_ADDRESS", raising=False)
        patch.setenv("ACTORFLOW_SIMULATED_DEVICES", "")  # What this machine has is not what the tests are about.
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        yield Path(directory)
        assert leaks.until(lambda: not leaks.leftovers(directory)), leaks.leftovers(directory)


@pytest.fixture(scope="module")
def module_cluster(home: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    options = {**CLUSTER, **getattr(request.module, "CLUSTER_OPTIONS", {})}
    if (plan := three_hosts.layout()) is not None:
        with leaks.nothing_is_left(home):
            with three_hosts.cluster(plan, options, getattr(request.module, "ON_ONE_NODE", "")) as session:
                yield session
        return
    with leaks.nothing_is_left(home):
        with af.init(**options, log_to_driver=False) as session:
            yield session


def at_work(session: Any) -> list[str]:
    """What the driver's core and the cluster still hold, in words; empty at rest."""
    core = session._driver.core
    with core.lock:
        core.references.drain()
        left = [f"object {entry!r}" for entry in map(_shown, core.references.owned.entries.values())]
        left += [f"borrowed {entry.owner}-{entry.index}" for entry in core.references.borrowed.entries.values()]
        left += [f"call {call.target.name} {call.state}" for call in core.tasks.pending()]
    for row in af.sync(rows("resources")):
        if row["free"] != row["total"] or row["waiting"]:
            left.append(f"{row['resource']}: {row['free']} of {row['total']} free, {row['waiting']} waited for")
    left += [f"actor {row['class_name']} {row['actor_id']} {row['state']}" for row in af.sync(rows("actors")) if row["state"] != "dead"]
    return left


def _shown(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("index", "outcome", "local", "pins", "borrowers", "site")}


async def rows(kind: str) -> list[dict[str, Any]]:
    """The rows of a kind, as the cluster gives them."""
    from actorflow import _runtime

    found: list[Any] = await _runtime.current().state(kind, limit=10_000, timeout_s=5.0)
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a run against three hosts, what cannot have sense there is left out."""
    three_hosts.deselect(config, items, lambda item: HERE in item.path.parents)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """In such a run, say so."""
    three_hosts.summary(terminalreporter)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Let fixtures know that their test has failed: its traceback keeps alive what it used."""
    del item
    outcome: Any = yield
    if call.when == "call":
        FAILED.update({outcome.get_result().nodeid} if call.excinfo is not None else ())


FAILED: set[str] = set()


@pytest.fixture
def cluster(module_cluster: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The cluster of this module: 4 CPUs, 2 GPUs, 2 of `special`, 8 GiB. At rest before and after the test."""
    yield module_cluster
    known = module_cluster.__dict__.setdefault("test_leftovers", set())
    gc.collect()
    if request.node.nodeid in FAILED:
        known.update(at_work(module_cluster))
        return
    at_rest = leaks.until(lambda: known.issuperset(at_work(module_cluster)), REST_S)
    left = sorted(set(at_work(module_cluster)) - known)
    known.update(left)  # Told once, and not by every test that follows.
    assert at_rest, left


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest, home: Path) -> Iterator[None]:
    """For tests that make their own cluster."""
    if "cluster" in request.fixturenames:
        yield
        return
    with leaks.nothing_is_left(home):
        yield


@pytest.fixture
def programs(home: Path, tmp_path: Path) -> Iterator[Programs]:
    """Drivers in processes of their own."""
    running = Programs(tmp_path)
    yield running
    running.end()


@pytest.fixture
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory for the clusters of one program, apart from those of the module's cluster: pass it as ACTORFLOW_TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="afp-") as directory:
        with leaks.nothing_is_left(directory):
            yield directory
        assert os.path.isdir(directory)
