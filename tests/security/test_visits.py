"""Actors that are called by other jobs, between nodes: what visitors can do, and what they cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import actorflow as af
from actorflow import _credentials, _nodes
from actorflow._core.base.addresses import parse_tcp, split
from actorflow._core.boot.session_dir import sweep_stale
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.real import real_ports
from actorflow._core.io.tcp_network import TcpNetwork
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.security.keys import Key
from actorflow._core.security.passes import PASS_VALID_S, pass_key
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.tls import Credentials
from actorflow._core.security.wire import OPENING_BYTES, PREFACE_BYTES, VERDICT_BYTES, Verdict
from tests.integration import leaks
from tests.security.strangers import BOUND_S, Target, tap

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 2, "memory": "1GiB", "object_store_memory": "64MiB"}
LARGE = 3_000_000


class Shelf(af.Actor, num_cpus=0):
    """Keeps what it is given, and gives it back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @af.method
    async def size(self, value: Any) -> int:
        return len(value)

    @af.method
    async def make(self, size: int) -> bytes:
        return bytes(size)

    @af.method
    async def count(self, end: int, size: int) -> AsyncIterator[bytes]:
        for number in range(end):
            yield bytes([number]) * size

    @af.method
    async def put(self, size: int) -> list[Any]:
        return [await af.put(bytes(size))]

    @af.method
    async def keep(self, refs: list[Any]) -> int:
        self.kept += refs
        return sum([len(await ref) for ref in refs])

    @af.method
    async def kept_sizes(self) -> list[int]:
        return [len(await ref) for ref in self.kept]

    @af.method
    async def drop(self) -> None:
        self.kept.clear()

    @af.method
    async def call(self, other: Any, value: bytes) -> int:
        return await other.size(value)

    @af.method
    async def place(self) -> tuple[str, int]:
        return af.get_runtime_context().node_id, os.getpid()

    @af.method
    async def passes(self) -> list[str]:
        """The jobs to which this process has been given passes."""
        from actorflow import _runtime

        core: Any = _runtime.current()
        return list(core.passes._book._kept)


@af.remote
async def use(shelf: Any, value: bytes) -> tuple[int, str]:
    return await shelf.size(value), af.get_runtime_context().node_id


@af.remote
async def total(refs: list[Any]) -> int:
    return sum([len(await ref) for ref in refs])


@pytest.fixture
def nothing_is_left() -> None:
    """The cluster of this module looks itself."""


@pytest.fixture(scope="module", params=[True, False], ids=["TLS", "in the open"])
def two_nodes(request: pytest.FixtureRequest, home: Path) -> Iterator[Target]:
    with leaks.nothing_is_left(home):
        nodes = [_nodes.start(port=0, tls=request.param, **OPTIONS)]
        try:
            nodes.append(_nodes.start(address=nodes[0].tcp, **OPTIONS))
            yield Target(nodes, request.param)
        finally:
            _nodes.stop()


def on(node: _nodes.StartedNode, *, soft: bool = False) -> Any:
    """Where this node is, for an actor or a task."""
    rows = af.sync(af.state.list_nodes())
    [node_id] = [row["node_id"] for row in rows if row["address"].startswith(f"tcp:{node.tcp}/") and row["state"] == "alive"]
    return af.NodeAffinity(node_id, soft=soft)


class Made(NamedTuple):
    """An actor, as one who is outside knows it."""

    job: str
    worker_id: str
    address: str


@pytest.fixture
def shelf(two_nodes: Target) -> Iterator[Made]:
    """A detached actor on the first node, whose job is over."""
    with af.init(address=two_nodes.nodes[0].tcp, log_to_driver=False) as session:
        options = {"name": "shelf", "lifetime": "detached", "scheduling_strategy": on(two_nodes.nodes[0])}
        made = Shelf.options(**options).remote()  # type: ignore[call-overload]
        assert af.sync(made.size(b"12")) == 2
        job = session._driver.core.identity.job_id
        [row] = [row for row in af.sync(af.state.list_actors()) if row["name"] == "shelf" and row["state"] == "alive"]
    yield Made(job, row["worker_id"], row["address"])
    with af.init(address=two_nodes.nodes[0].tcp, log_to_driver=False):
        af.sync(af.kill(af.sync(af.get_actor("shelf"))))


# -- what is to be had


def test_all_that_is_to_be_had_of_a_detached_actor_of_another_job_on_another_node(two_nodes: Target, shelf: Made) -> None:
    async def main() -> None:
        found = await af.get_actor("shelf")
        assert await found.size(b"123") == 3
        assert await found.size(bytes(LARGE)) == LARGE
        assert len(await found.make(LARGE)) == LARGE
        for size in (10, LARGE):
            assert [item[0] async for item in found.count(5, size)] == list(range(5))
            [theirs] = await found.put(size)
            assert len(await theirs) == size
            assert await total([theirs]) == size
            del theirs
        mine = [await af.put(bytes(size)) for size in (10, LARGE)]
        assert await found.keep(mine) == 10 + LARGE
        del mine
        assert await found.kept_sizes() == [10, LARGE]
        await found.drop()

    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False):
        af.sync(main(), timeout=120)


def test_handles_go_on_to_tasks_and_actors_of_the_visiting_job_on_any_node(two_nodes: Target, shelf: Made) -> None:
    async def main() -> None:
        found = await af.get_actor("shelf")
        used = set()
        for place in places:
            size, node_id = await use.options(scheduling_strategy=place)(found, bytes(LARGE))
            assert size == LARGE
            used.add(node_id)
            other = Shelf.options(scheduling_strategy=place).remote()  # type: ignore[call-overload]
            assert await other.call(found, bytes(LARGE)) == LARGE
            # The other way round: the actor of the other job calls ours, and reads what ours owns.
            assert await found.call(other, bytes(LARGE)) == LARGE
            [of_other] = await other.put(LARGE)
            assert await found.keep([of_other]) == LARGE
            if len(used) == 1:
                assert await found.passes() == [], "those have come to it: the links are there"
            await found.drop()
            await af.kill(other)  # It may ask for a pass to tell this one, too late, that it has dropped what it had kept.
        assert len(used) == 2
        silent = Shelf.options(scheduling_strategy=places[1]).remote()  # type: ignore[call-overload]
        await silent.size(b"")
        assert await found.call(silent, bytes(LARGE)) == LARGE
        assert await found.passes() == [job]
        await af.kill(silent)

    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False) as session:
        job = session._driver.core.identity.job_id
        places = [on(node) for node in two_nodes.nodes]
        af.sync(main(), timeout=120)


OWNER = """
import sys
import actorflow as af
from tests.security.test_visits import Shelf, on

class Node:
    tcp = {tcp!r}

with af.init(address={tcp!r}, log_to_driver=False):
    shelf = Shelf.options(name="of-the-living", scheduling_strategy=on(Node)).remote()
    mine = [af.sync(af.put(bytes(3_000_000)))]
    af.sync(shelf.keep(mine))
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_job_that_goes_on_is_visited_too_and_what_its_driver_owns_is_read(two_nodes: Target) -> None:
    program = textwrap.dedent(OWNER.format(tcp=two_nodes.nodes[0].tcp))
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False):
                found = af.sync(af.get_actor("of-the-living"))
                assert af.sync(found.kept_sizes(), timeout=60) == [3_000_000]
                assert af.sync(found.size(bytes(LARGE)), timeout=60) == LARGE
        finally:
            process.communicate(b"\n", timeout=60)
    assert process.returncode == 0


def test_the_head_creates_no_actor_for_another_job(two_nodes: Target, shelf: Made) -> None:
    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False) as session:
        session._driver.core.identity.job_id = shelf.job  # It says so; it has proven another.
        with pytest.raises(af.ActorUnschedulableError, match="creates actors of that job only"):
            af.sync(Shelf.remote().size(b""), timeout=60)


# -- attacks


ROGUE = "rogue-job"


def host_key(target: Target, shelf: Made) -> Key:
    """The key of the host job, as its members have it."""
    return target.driver_of(shelf.job)[0]


def rogue_pass(target: Target, shelf: Made, visitor: str = ROGUE, expires: float = 0.0) -> Key:
    """A pass as the head would give it to this driver."""
    return pass_key(host_key(target, shelf), visitor, ROGUE, int(expires or time.time() + PASS_VALID_S))


def certificate(target: Target, job: str = ROGUE) -> Credentials | None:
    return target.driver_of(job)[1]


def knocks(target: Target, shelf: Made, key: Key, me: str = ROGUE, credentials: Credentials | None = None, **more: Any) -> str:
    mine = credentials or certificate(target)
    return target.knock(f"{shelf.worker_id}@{shelf.job}", target.security(Role.DRIVER, me, key, mine), **more)


def test_a_forged_pass_that_of_another_visitor_and_one_that_has_expired(two_nodes: Target, shelf: Made) -> None:
    right = rogue_pass(two_nodes, shelf)
    assert knocks(two_nodes, shelf, right) == "", "this is what it may"
    own = two_nodes.driver_of(ROGUE)[0]
    for forged in (
        Key(right.id, bytes(32)),
        Key(right.id, own.material),
        Key(right.id, pass_key(own, ROGUE, shelf.job, right.id.expires).material),
        rogue_pass(two_nodes, shelf, visitor="another"),
    ):
        assert "has not proven" in knocks(two_nodes, shelf, forged)
    assert "has not proven" in knocks(two_nodes, shelf, right, me="another"), "a stolen one, in the name of its thief"
    assert "has expired" in knocks(two_nodes, shelf, rogue_pass(two_nodes, shelf, expires=time.time() - 1))
    if two_nodes.tls:
        for wrong in (certificate(two_nodes, shelf.job), certificate(two_nodes, "a-third-job"), two_nodes.credentials()):
            assert "has not proven" in knocks(two_nodes, shelf, right, credentials=wrong), "it shows the certificate of its own job"


def test_no_key_of_the_host_job_comes_from_a_pass(two_nodes: Target, shelf: Made) -> None:
    right, job_key = rogue_pass(two_nodes, shelf), host_key(two_nodes, shelf)
    as_member = Key(job_key.id, right.material)
    for mine in (certificate(two_nodes), certificate(two_nodes, shelf.job)):
        security = two_nodes.security(Role.DRIVER, ROGUE, as_member, mine)
        assert "has not proven" in two_nodes.knock(shelf.worker_id, security)
    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False):
        node_id = on(two_nodes.nodes[0]).node_id
    for name in ("head", "enrolment", node_id):
        said = two_nodes.knock(name, two_nodes.security(Role.DRIVER, ROGUE, right, certificate(two_nodes)))
        assert "has not proven" in said or "we expected" in said, "a pass is good at processes of jobs only"


def test_a_visit_that_is_replayed(two_nodes: Target, shelf: Made) -> None:
    with tap(two_nodes) as between:
        assert knocks(two_nodes, shelf, rogue_pass(two_nodes, shelf), port=between.port) == ""
    said = b"".join(between.said)
    for parts in ([said], [said[: PREFACE_BYTES + OPENING_BYTES], said[PREFACE_BYTES + OPENING_BYTES :]]):
        heard, seconds = two_nodes.says(*parts)
        assert seconds < BOUND_S
        if two_nodes.tls:
            assert heard[:1] in (b"", b"\x15", b"\x16"), "nothing but TLS, which it cannot read"
        else:
            assert Verdict.decode(heard[-VERDICT_BYTES:]).code != 0


class Rogue:
    """A visitor with a good pass that speaks for itself: a PeerHandler."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.over = asyncio.Event()
        self.heard: list[m.AnyMessage] = []

    def peer_ready(self, peer: Peer) -> None:
        self.ready.set()

    def messages_received(self, peer: Peer, messages: list[m.AnyMessage]) -> None:
        self.heard += messages

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.over.set()


def says(target: Target, shelf: Made, *messages: m.AnyMessage, me: str = ROGUE) -> list[m.AnyMessage]:
    """What is answered to a visitor that says this, until the link is closed. Raises TimeoutError when it is not."""

    security = target.security(Role.DRIVER, me, rogue_pass(target, shelf, me), certificate(target))

    async def visit() -> list[m.AnyMessage]:
        loop = asyncio.get_running_loop()
        ports = real_ports(loop, lock=False)
        ports.network = TcpNetwork(loop, security, None)
        rogue = Rogue()
        peers = Peers(ports, Identity("driver", me, ROGUE), rogue)
        try:
            async with asyncio.timeout(BOUND_S):
                peer = peers.connect(str(parse_tcp(split(shelf.address)[0])), shelf.worker_id, lasting=False)
                await rogue.ready.wait()
                for message in messages:
                    peer.send(message)
                await rogue.over.wait()
        finally:
            peers.close(abort=True)
            await asyncio.sleep(0)
        return rogue.heard

    return asyncio.run(visit())


SPEC = m.ActorSpec("a" * 12, "j", "o", "", "c", "C", b"", b"", b"", None, None, None, {})
FORBIDDEN: list[m.AnyMessage] = [
    m.CreateActor(SPEC),
    m.HostActor(SPEC, 1),
    m.Define("f" * 24, "f", b"\x80\x04N."),
    m.TaskCall(1, 0, 1, "f" * 24, b""),
    m.Shutdown("because"),
    m.Leave(),
    m.ActorExit("a" * 12),
    m.ActorState("a" * 12, "dead"),
    m.Pinned(1),
    m.NodeGone("n", "because"),
    m.PassGiven("job"),
    m.StateQuery(1, "tasks", 10, 1.0),
]


def test_a_visitor_that_says_what_it_may_not_is_turned_out(two_nodes: Target, shelf: Made) -> None:
    for message in FORBIDDEN:
        heard = says(two_nodes, shelf, message)
        assert [type(one) for one in heard] == [m.TurnedOut], message
        assert f"{type(message).__name__} was refused: a process of another job may call actors" in heard[0].reason  # type: ignore[union-attr]
    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False):
        found = af.sync(af.get_actor("shelf"))
        assert af.sync(found.size(b"still"), timeout=60) == 5, "and the one that was visited lives on"


def test_a_visitor_that_poses_as_the_process_that_it_visits(two_nodes: Target, shelf: Made) -> None:
    [turned_out] = says(two_nodes, shelf, me=shelf.worker_id)
    assert isinstance(turned_out, m.TurnedOut)
    assert "another process is known by the id" in turned_out.reason


# -- what changes meanwhile


def test_an_actor_that_restarts_on_another_node_is_found_again(two_nodes: Target) -> None:
    """By the death of its node, with a third one for that."""
    third = _nodes.start(address=two_nodes.nodes[0].tcp, **OPTIONS)
    with af.init(address=two_nodes.nodes[0].tcp, log_to_driver=False):
        options = {"name": "moves", "lifetime": "detached", "max_restarts": -1, "scheduling_strategy": on(third, soft=True)}
        first = af.sync(Shelf.options(**options).remote().place())  # type: ignore[call-overload]
    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False):
        found = af.sync(af.get_actor("moves"))
        assert af.sync(found.place(), timeout=60) == first
        os.kill(third.pid, 9)
        deadline = time.monotonic() + 60
        place = first
        while place == first:
            assert time.monotonic() < deadline
            with contextlib.suppress(af.ActorUnavailableError):
                place = af.sync(found.place(), timeout=30)
        assert place[0] != first[0]
        for node in two_nodes.nodes:
            assert af.sync(use.options(scheduling_strategy=on(node))(found, bytes(LARGE)), timeout=60)[0] == LARGE
        af.sync(af.kill(found))
    sweep_stale(age_s=0)  # A node that was killed leaves its directory to the next start.


def test_passes_follow_a_secret_that_is_replaced(two_nodes: Target, shelf: Made) -> None:
    """Last, as the tokens of this module would end with it."""
    credentials = two_nodes.nodes[0].credentials
    with af.init(address=two_nodes.nodes[1].tcp, log_to_driver=False) as session:
        core: Any = session._driver.core
        found = af.sync(af.get_actor("shelf"))
        assert af.sync(found.size(b"1"), timeout=60) == 1
        for step in ("add", "promote", "retire"):
            _credentials.replace_secret(step, credentials=credentials)
            valid = [key.id.secret_id for key in two_nodes.secrets.keyring().for_job("j").keys]

            def heard(valid: list[bytes] = valid) -> bool:
                keys = [two_nodes.access(f"d-{node.pid}")._ring().keys for node in two_nodes.nodes]
                return all([key.id.secret_id for key in ring] == valid for ring in keys)

            assert leaks.until(heard, 30)
            time.sleep(0.5)  # Until it has reached the workers, of which nothing outside tells.
            [peer] = [peer for peer in core.all_peers() if peer.proof is not None and peer.proof.key == KeyKind.VISIT.name]
            core.ports.loop.call_soon_threadsafe(peer.close)
            assert leaks.until(lambda peer=peer: peer.lost, 10)  # type: ignore[misc]
            size, deadline = None, time.monotonic() + 60
            while size is None:
                assert time.monotonic() < deadline
                with contextlib.suppress(af.ActorUnavailableError):  # That was asked before the loss was seen.
                    size = af.sync(found.size(b"22"), timeout=60)
            assert size == 2
