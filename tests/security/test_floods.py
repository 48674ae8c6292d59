"""The promise for a peer that floods, or says what makes no sense: an error for it, in bounded time, and nobody else notices.

Against one real node with a driver that works all the time. What strangers say at the port: `test_strangers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _nodes, _runtime
from actorflow._core.io.tcp_network import TcpNetwork
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.messages import Hello, NodesChanged, Welcome
from actorflow._core.protocol.session import Identity, Session
from actorflow._core.security.lobby import SOURCE_MAX, TOTAL_MAX
from actorflow._core.security.preface import HANDSHAKE_TIMEOUT_S
from actorflow._core.security.roles import Role
from tests.conformance.worlds import Recorder
from tests.integration import leaks
from tests.integration.programs import Programs
from tests.security.flood import flood, problem
from tests.security.strangers import BOUND_S, Bystander, Target

pytestmark = pytest.mark.timeout(240)

OPTIONS: dict[str, Any] = {"num_cpus": 1, "memory": "1GiB", "object_store_memory": "64MiB"}
MANY = 10_000
ACCEPTS = 64
"""Connections that are accepted in one turn of the loop, before they are turned away."""
START_S = 12.0
"""A new program, with its imports, on a busy machine."""
needs_descriptors = pytest.mark.skipif(bool(problem(MANY)), reason=problem(MANY) or "there are descriptors for many connections")


@pytest.fixture
def nothing_is_left() -> None:
    """The cluster of this module looks itself."""


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[tuple[Target, Bystander]]:
    with leaks.nothing_is_left(home):
        node = _nodes.start(port=0, **OPTIONS)
        try:
            with af.init(address=node.tcp, log_to_driver=False):
                bystander = Bystander()
                try:
                    yield Target([node], False), bystander
                finally:
                    bystander.end()
        finally:
            _nodes.stop()


@pytest.fixture
def target(running: tuple[Target, Bystander]) -> Iterator[Target]:
    """The cluster. Afterwards its node lives, and the driver beside has noticed nothing."""
    bystander = running[1]
    bystander.worst_s = 0.0
    yield running[0]
    bystander.has_noticed_nothing()
    assert os.path.exists(f"/proc/{running[0].nodes[0].pid}/exe")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


def descriptors(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def cpu_s(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_idle(pid: int, seconds: float = 2.0) -> bool:
    """True when it uses less than a third of a processor."""
    before = cpu_s(pid)
    time.sleep(seconds)
    return cpu_s(pid) - before < seconds / 3


class Watch:
    """Looks all the time how many descriptors a process has."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = False
        self.most = 0
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended:
            self.most = max(self.most, len(descriptors(self._pid)))
            time.sleep(0.002)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._thread.join()


NEWCOMER = """
        @af.remote(num_cpus=0)
        def where():
            return af.get_runtime_context().node_id

        async def main():
            async with af.init(log_to_driver=False):
                print("admitted", await where(), flush=True)

        asyncio.run(main())
"""


def newcomer(programs: Programs, target: Target) -> float:
    """A driver on this host, by its socket: how long it takes until it has run a task, its start included."""
    begun = time.monotonic()
    program = programs.run(NEWCOMER, env={"ACTORFLOW_ADDRESS": target.nodes[0].tcp})
    assert "admitted" in program.out()
    return time.monotonic() - begun


def caller(target: Target, node_id: str) -> float:
    """One who comes by the port, from another address than the flood: how long until it is admitted, with all that it is refused before."""
    key, certificate = target.driver_of("job-late")
    begun = time.monotonic()
    while said := target.knock(node_id, target.security(Role.DRIVER, "job-late", key, certificate)):
        assert "too many connections" in said, said
        time.sleep(0.1)
    return time.monotonic() - begun


@needs_descriptors
@pytest.mark.parametrize("sources", [1, TOTAL_MAX // SOURCE_MAX], ids=["from one host", "from several"])
def test_ten_thousand_open_connections_that_say_nothing_cost_a_bounded_number_of_descriptors_and_keep_nobody_out(
    target: Target, programs: Programs, sources: int
) -> None:
    pid = target.nodes[0].pid
    [row] = af.sync(af.state.list_nodes())
    before = len(descriptors(pid))
    addresses = [f"127.0.0.{number + 2}" for number in range(sources)]
    with Watch(pid) as watch, flood(target.host, target.port, MANY, addresses):
        called = caller(target, row["node_id"])
        joined = newcomer(programs, target)
        # All 10,000 are open still, on their side.
        assert leaks.until(lambda: len(descriptors(pid)) <= before + 3, HANDSHAKE_TIMEOUT_S + 3), "descriptors are given back"
        assert is_idle(pid)
    assert watch.most <= before + min(sources * SOURCE_MAX, TOTAL_MAX) + ACCEPTS
    assert joined < START_S
    assert called < (1.0 if sources == 1 else HANDSHAKE_TIMEOUT_S + 2.0)


def one_more(pid: int) -> int:
    """The limit with which a process can have one descriptor more: a new one gets the lowest number that is free."""
    taken = descriptors(pid)
    return next(number for number in range(max(taken) + 2) if number not in taken) + 1


def test_a_node_without_a_free_descriptor_does_not_spin_and_takes_connections_again_when_it_has_some(
    target: Target, programs: Programs
) -> None:
    node = target.nodes[0]
    [row] = af.sync(af.state.list_nodes())
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    log = Path(node.path, "logs", "node.log")
    said = log.read_text().count("\n")
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (one_more(node.pid), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(ACCEPTS // 2):
                stack.enter_context(socket.create_connection((target.host, target.port), BOUND_S))
            assert leaks.until(lambda: "Too many open files" in log.read_text(), BOUND_S), "it says what is wrong"
            assert is_idle(node.pid)
            assert log.read_text().count("\n") - said < 40, "and does not fill its log"
    finally:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert caller(target, row["node_id"]) < HANDSHAKE_TIMEOUT_S + 2.0
    assert newcomer(programs, target) < START_S


@pytest.mark.parametrize("name", ["access.sock", "handover.sock"])
def test_a_node_without_a_free_descriptor_does_not_spin_for_who_comes_by_its_sockets_either(target: Target, name: str) -> None:
    node = target.nodes[0]
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    log = Path(node.path, "logs", "node.log")
    said = log.stat().st_size
    with contextlib.ExitStack() as stack:
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (one_more(node.pid), hard))
        stack.callback(resource.prlimit, node.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(20):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.connect(f"{node.path}/{name}")
        time.sleep(0.5)
        assert is_idle(node.pid)
        assert log.stat().st_size - said < 10_000, "and does not fill its log"


# -- those who have proven who they are


class Insider:
    """A process of a job, with the job's key, that says what it likes."""

    def __init__(self, target: Target, name: str, job: str) -> None:
        self._target = target
        self._name = name
        self._job = job
        self.recorder = Recorder()

    async def connect(self) -> None:
        """Be admitted."""
        key, _ = await asyncio.to_thread(self._target.driver_of, self._job)
        network = TcpNetwork(asyncio.get_running_loop(), self._target.security(Role.DRIVER, self._job, key), None)
        address = f"tcp:{self._target.host}:{self._target.port}/{self._name}"
        self.recorder.stream = await network.connect(address, self.recorder)

    async def introduce(self) -> None:
        """Say who it is, and hear that it is welcome."""
        session = Session(Identity("driver", self._job, self._job, pid=os.getpid()), acceptor=False)
        self.say(session.outgoing())
        await self.recorder.until(lambda: bool(self.recorder.chunks))
        session.receive(self.recorder.data)
        assert session.ready

    def say(self, data: bytes) -> None:
        self.recorder.stream.write(data)

    async def is_turned_out(self) -> bool:
        """Its connection ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BOUND_S):
                await self.recorder.until(lambda: bool(self.recorder.lost))
        return bool(self.recorder.lost)


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


MALFORMED: dict[str, bytes] = {
    "no message": frame(b"\xc1\xc1\xc1"),
    "a message of no kind": frame(b"\x91\x93\xcd\x27\x0f\x01\x02"),
    "a message with fields of another": frame(b"\x91\x92\x46\xa1x"),
    "a pickle": frame(b"\x80\x04N."),
    "longer than any frame": struct.pack("<I", 0xFFFFFFFF) + bytes(1000),
    "what only the head may say": encode([NodesChanged([], [])]),
    "who it is, once more": encode([Hello("1", "driver", "d", "j", "")]),
    "a welcome": encode([Welcome("x", "node")]),
}


@pytest.mark.parametrize("to", ["node", "head", "worker"])
@pytest.mark.parametrize("what", MALFORMED, ids=[name.replace(" ", "-") for name in MALFORMED])
async def test_a_malformed_frame_of_an_admitted_peer_ends_its_connection_and_nobody_else_notices(
    target: Target, to: str, what: str
) -> None:
    rows: Any = await af.state.list_workers() if to == "worker" else await af.state.list_nodes()
    row = next(row for row in rows if row["state"] not in ("dead", "starting"))
    job: str = _runtime.current().identity.job_id if to == "worker" else "job-flood"  # type: ignore[attr-defined]
    insider = Insider(target, "head" if to == "head" else row[f"{to}_id"], job)
    await insider.connect()
    await insider.introduce()
    insider.say(MALFORMED[what])
    assert await insider.is_turned_out()
