"""The worlds of the conformance suites: to put an adapter to the test, add a factory to its port's list."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
import uvloop

from tests.conformance.leaks import nothing_is_left
from tests.conformance.real_worlds import (
    LocalNetworkWorld,
    LoopFactory,
    RealArenaWorld,
    RealExecutorWorld,
    RealFilesWorld,
    RealNetworkWorld,
    RealProcessWorld,
    RealSpillWorld,
)
from tests.conformance.simulated_worlds import (
    SimulatedArenaWorld,
    SimulatedExecutorWorld,
    SimulatedFilesWorld,
    SimulatedNetworkWorld,
    SimulatedProcessWorld,
    SimulatedSpillWorld,
)
from tests.conformance.tcp_world import TcpNetworkWorld
from tests.conformance.worlds import ArenaWorld, ExecutorWorld, FilesWorld, NetworkWorld, ProcessWorld, SpillWorld

SEEDS = (1, 2, 3)


@contextmanager
def real_network(loop_factory: LoopFactory) -> Iterator[NetworkWorld]:
    # Not pytest's tmp_path: its names may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="af-") as directory:
        with closing(RealNetworkWorld(loop_factory, Path(directory))) as world:
            yield world


@contextmanager
def tcp_network(loop_factory: LoopFactory, *, tls: bool, handed_over: bool = False) -> Iterator[NetworkWorld]:
    with tempfile.TemporaryDirectory(prefix="af-") as directory:
        with closing(TcpNetworkWorld(loop_factory, tls=tls, directory=Path(directory) if handed_over else None)) as world:
            yield world


@contextmanager
def real_spill(loop_factory: LoopFactory, target: str = "") -> Iterator[SpillWorld]:
    with tempfile.TemporaryDirectory(prefix="af-") as directory:
        with closing(RealSpillWorld(loop_factory, Path(directory), target)) as world:
            yield world


@contextmanager
def real_files(loop_factory: LoopFactory) -> Iterator[FilesWorld]:
    with tempfile.TemporaryDirectory(prefix="af-") as directory:
        with closing(RealFilesWorld(loop_factory, Path(directory))) as world:
            yield world


NETWORKS: dict[str, Callable[[], AbstractContextManager[NetworkWorld]]] = {
    "asyncio": lambda: real_network(asyncio.new_event_loop),
    "uvloop": lambda: real_network(uvloop.new_event_loop),
    "tcp-asyncio": lambda: tcp_network(asyncio.new_event_loop, tls=False),
    "tcp-uvloop": lambda: tcp_network(uvloop.new_event_loop, tls=False),
    "tls-asyncio": lambda: tcp_network(asyncio.new_event_loop, tls=True),
    "tls-uvloop": lambda: tcp_network(uvloop.new_event_loop, tls=True),
    "tls-handed-over": lambda: tcp_network(uvloop.new_event_loop, tls=True, handed_over=True),
    "local": lambda: closing(LocalNetworkWorld(asyncio.new_event_loop)),
    **{f"simulated-{seed}": lambda seed=seed: closing(SimulatedNetworkWorld(seed)) for seed in SEEDS},
}
ARENAS: dict[str, Callable[[], AbstractContextManager[ArenaWorld]]] = {
    "memfd": lambda: closing(RealArenaWorld(asyncio.new_event_loop)),
    "simulated": lambda: closing(SimulatedArenaWorld(1)),
}
SPILLS: dict[str, Callable[[], AbstractContextManager[SpillWorld]]] = {
    "directory-asyncio": lambda: real_spill(asyncio.new_event_loop),
    "directory-uvloop": lambda: real_spill(uvloop.new_event_loop),
    "named-directory": lambda: real_spill(uvloop.new_event_loop, "DIRECTORY"),
    # To pyarrow a directory is as good as a bucket.
    "uri": lambda: real_spill(uvloop.new_event_loop, "file://DIRECTORY"),
    **{f"simulated-{seed}": lambda seed=seed: closing(SimulatedSpillWorld(seed)) for seed in SEEDS},
}
FILES: dict[str, Callable[[], AbstractContextManager[FilesWorld]]] = {
    "asyncio": lambda: real_files(asyncio.new_event_loop),
    "uvloop": lambda: real_files(uvloop.new_event_loop),
    **{f"simulated-{seed}": lambda seed=seed: closing(SimulatedFilesWorld(seed)) for seed in SEEDS},
}
PROCESSES: dict[str, Callable[[], AbstractContextManager[ProcessWorld]]] = {
    "asyncio": lambda: closing(RealProcessWorld(asyncio.new_event_loop)),
    "uvloop": lambda: closing(RealProcessWorld(uvloop.new_event_loop)),
    **{f"simulated-{seed}": lambda seed=seed: closing(SimulatedProcessWorld(seed)) for seed in SEEDS},
}
EXECUTORS: dict[str, Callable[[], AbstractContextManager[ExecutorWorld]]] = {
    "asyncio": lambda: closing(RealExecutorWorld(asyncio.new_event_loop)),
    "uvloop": lambda: closing(RealExecutorWorld(uvloop.new_event_loop)),
    **{f"simulated-{seed}": lambda seed=seed: closing(SimulatedExecutorWorld(seed)) for seed in SEEDS},
}


@pytest.fixture(params=NETWORKS)
def network_world(request: pytest.FixtureRequest) -> Iterator[NetworkWorld]:
    with nothing_is_left(), NETWORKS[request.param]() as world:
        yield world


@pytest.fixture(params=ARENAS)
def arena_world(request: pytest.FixtureRequest) -> Iterator[ArenaWorld]:
    with nothing_is_left(), ARENAS[request.param]() as world:
        yield world


@pytest.fixture(params=SPILLS)
def spill_world(request: pytest.FixtureRequest) -> Iterator[SpillWorld]:
    with nothing_is_left(), SPILLS[request.param]() as world:
        yield world


@pytest.fixture(params=FILES)
def files_world(request: pytest.FixtureRequest) -> Iterator[FilesWorld]:
    with nothing_is_left(), FILES[request.param]() as world:
        yield world


@pytest.fixture(params=PROCESSES)
def process_world(request: pytest.FixtureRequest) -> Iterator[ProcessWorld]:
    with nothing_is_left(), PROCESSES[request.param]() as world:
        yield world


@pytest.fixture(params=EXECUTORS)
def executor_world(request: pytest.FixtureRequest) -> Iterator[ExecutorWorld]:
    with nothing_is_left(), EXECUTORS[request.param]() as world:
        yield world
