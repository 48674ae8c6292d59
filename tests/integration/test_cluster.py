"""A cluster of several real nodes on this host: work and calls between them over TCP, nodes that die, and what cannot be joined."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _nodes
from actorflow._core.boot.session_dir import sweep_stale
from actorflow._core.security.credential_files import CredentialDir, SecretFile
from actorflow.testing.fault_proxy import FaultProxy
from tests.integration import leaks
from tests.integration.leaks import until

pytestmark = pytest.mark.local_only("nodes of its own on one host that are killed, cut off or refused")

OPTIONS: dict[str, Any] = {"memory": "1GiB", "object_store_memory": "64MiB"}


@contextmanager
def cluster(*cpus: float, tls: bool = False) -> Iterator[list[_nodes.StartedNode]]:
    """Nodes with so many CPUs each, the head in the first."""
    nodes = [_nodes.start(port=0, num_cpus=cpus[0], tls=tls, **OPTIONS)]
    try:
        for count in cpus[1:]:
            nodes.append(_nodes.start(address=nodes[0].tcp, num_cpus=count, **OPTIONS))
        yield nodes
    finally:
        _nodes.stop()


def here() -> str:
    from actorflow import _runtime

    return str(_runtime.current().node_id)  # type: ignore[attr-defined]


@af.remote
async def where(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return here()


@af.remote
async def parent(children: int) -> list[str]:
    return await asyncio.gather(*(where(0.2) for _ in range(children)))


class Counter(af.Actor, num_cpus=1, max_restarts=-1, max_task_retries=-1):
    def __init__(self) -> None:
        self.value = 0

    @af.method
    async def add(self) -> tuple[int, str]:
        self.value += 1
        return self.value, here()


@af.remote
async def use(counter: Any) -> tuple[int, str]:
    return await counter.add()


@pytest.mark.parametrize("tls", [False, True], ids=["in the open", "TLS"])
@pytest.mark.parametrize("driver_on", [0, 1], ids=["driver beside the head", "driver on another node"])
async def test_tasks_and_actors_run_on_every_node_and_call_one_another(driver_on: int, tls: bool) -> None:
    with cluster(2, 2, tls=tls) as nodes:
        assert [node.tls for node in nodes] == [tls, tls]
        async with af.init(address=nodes[driver_on].tcp):
            running = asyncio.gather(*(where(1.0) for _ in range(4)))
            while not (tasks := [row["task"] for row in await af.state.list_tasks()]):
                await asyncio.sleep(0.05)
            assert len(tasks) == len(set(tasks)), "a process with work on two nodes is asked by one of them"
            assert len(set(await running)) == 2, "all four at one time need both nodes"
            counters = [await Counter.remote() for _ in range(4)]
            places = [(await counter.add())[1] for counter in counters]
            assert sorted(places.count(place) for place in set(places)) == [2, 2]
            for counter in counters:
                await af.kill(counter)
            counter = await Counter.remote()
            answers = await asyncio.gather(*(use.options(num_cpus=0.5)(counter) for _ in range(8)))
            assert sorted(value for value, _ in answers) == list(range(1, 9))
            assert len(await parent(6)) == 6


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
async def test_nodes_over_ipv6() -> None:
    nodes = [_nodes.start(host="::1", port=0, tls=True, num_cpus=1, **OPTIONS)]
    try:
        assert nodes[0].tcp.startswith("[::1]:")
        nodes.append(_nodes.start(address=nodes[0].tcp, host="::1", num_cpus=1, **OPTIONS))
        async with af.init(address=nodes[1].tcp):
            assert len(set(await asyncio.gather(where(1.0), where(1.0)))) == 2
    finally:
        _nodes.stop()


async def test_the_death_of_a_node_costs_attempts_and_no_calls() -> None:
    with cluster(1, 2) as nodes:
        async with af.init(address=nodes[0].tcp):
            refs = [where.options(max_retries=5).remote(0.5) for _ in range(9)]
            await af.wait(refs, num_returns=2)
            os.killpg(nodes[1].pid, signal.SIGKILL)
            assert len(await af.get(refs)) == 9
    sweep_stale(age_s=0)  # As the next start does.


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_nodes_advertise_a_port_that_leads_to_theirs() -> None:
    ports = [free_port(), free_port()]
    async with FaultProxy("127.0.0.1", ports[0]) as to_head, FaultProxy("127.0.0.1", ports[1]) as to_other:
        try:
            head = await asyncio.to_thread(_nodes.start, port=ports[0], advertise_port=to_head.port, num_cpus=1, **OPTIONS)
            assert head.tcp == f"127.0.0.1:{to_head.port}"
            join: dict[str, Any] = {"address": head.tcp, "port": ports[1], "advertise_port": to_other.port}
            other = await asyncio.to_thread(lambda: _nodes.start(**join, num_cpus=1, **OPTIONS))
            assert to_head.connections, "it has joined through the port that was advertised"
            async with af.init(address=head.tcp):
                assert {node["address"].split("/")[0] for node in await af.nodes()} == {f"tcp:{head.tcp}", f"tcp:{other.tcp}"}
                assert len(set(await asyncio.gather(where(1.0), where(1.0)))) == 2
                counters = [await Counter.remote() for _ in range(2)]
                assert len({home for _, home in await asyncio.gather(*(counter.add() for counter in counters))}) == 2
                assert to_other.connections
        finally:
            await asyncio.to_thread(_nodes.stop)


@af.remote
async def deaf(path: str) -> None:
    Path(path).touch()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_the_grace_of_a_cancel_is_that_of_the_nodes(tmp_path: Path) -> None:
    node = _nodes.start(port=0, num_cpus=1, cancel_grace=0.3, **OPTIONS)
    try:
        async with af.init(address=node.tcp):
            ref = deaf.remote(str(tmp_path / "runs"))
            while not (tmp_path / "runs").exists():
                await asyncio.sleep(0.01)
            ref.cancel()
            with pytest.raises(af.TaskCancelledError, match="did not end within 0.3 s of its cancel"):
                await ref
    finally:
        _nodes.stop()


@pytest.mark.parametrize(
    "given", [{"cancel_grace": -1.0}, {"cancel_grace": float("nan")}, {"advertise_port": -1}, {"advertise_port": 65_536}]
)
def test_options_of_a_node_are_checked_before_it_is_started(given: dict[str, Any]) -> None:
    with pytest.raises(af.OptionError, match=next(iter(given))):
        _nodes.start(port=0, num_cpus=1, **given, **OPTIONS)


def test_what_cannot_be_joined_or_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(af.ClusterStartError, match=f"port {port}: the port is in use"):
            _nodes.start(port=port, num_cpus=1, **OPTIONS)
    with pytest.raises(af.ClusterStartError, match="no head of this user on this host listens there"):
        _nodes.start(address="127.0.0.1:1", num_cpus=1, **OPTIONS)
    with pytest.raises(af.ClusterConnectionError, match=r"no node of this user listens at 127\.0\.0\.1:1"):
        af.sync(af.init(address="127.0.0.1:1"))


def test_a_node_with_another_secret_is_not_admitted(home: Any) -> None:
    from actorflow._core.security.credential_files import CredentialDir

    CredentialDir(str(home / "other")).create("other", wall_time=0.0)
    with cluster(1) as nodes:
        with pytest.raises(af.ClusterStartError, match="has not proven that it is of this cluster"):
            _nodes.start(address=nodes[0].tcp, credentials=str(home / "other"), num_cpus=1, **OPTIONS)


def test_the_commands() -> None:
    def actorflow(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "actorflow.cli", *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    try:
        said = actorflow("start", "--head", "--port", "0", "--num-cpus", "1", "--memory", "1GiB", "--object-store-memory", "64MiB")
        address = said.split("node at ")[1].split(" ")[0]
        assert f"actorflow start --address {address}" in said
        actorflow("start", "--address", address, "--num-cpus", "3", "--resource", "disk=2", "--object-store-memory", "64MiB")
        status = actorflow("status", "--address", address)
        assert "nodes: 2" in status
        assert "CPU: 4 free of 4" in status
        assert "disk: 2 free of 2" in status
        assert actorflow("token", "join", "--single-use").startswith("afjoin1_")
        assert actorflow("token", "client", "--valid-minutes", "0").startswith("afclient1_")
        ids = [actorflow("secret", step).split(": ")[1].split(". ")[0] for step in ("add", "promote", "retire")]
        assert ids[0].split(" and ") == ids[1].split(" and ")[::-1]
        assert ids[2] == ids[1].split(" and ")[0]
    finally:
        ended = actorflow("stop")
    assert ended.count("has ended") == 2
    assert actorflow("stop").strip() == "no node of this user runs here"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("start --head --port 99999", "port=99999: a port from 1 to 65535 is needed"),
        ("start --head --port -1", "port=-1: a port from 1 to 65535 is needed"),
        ("start --head --object-store-memory 1B", "object_store_memory=1) is no size of an object store"),
        ("start --head --object-store-memory 100TiB", "and this machine has"),
        ("start --head --label zone=a --label zone=b", "--label zone=... is given 2 times: a node has one value for each name"),
        ("start --head --resource disk=1 --resource disk=1", "--resource disk=... is given 2 times"),
        ("start --head --token-file join.token", "token_file='join.token': the first node joins nobody"),
        ("start --head --memory 10", "memory='10': that is 10 B, and a node needs 1 MiB or more; write a unit, as in"),
        ("start --head --num-cpus nan", "num_cpus=nan is not a finite number. Give an amount, 0 or more"),
        ("start --head --drain-deadline -1", "drain_deadline=-1.0: seconds are needed, 0 or more"),
        ("start --address 127.0.0.1", "127.0.0.1 is no address of a node. Give HOST:PORT"),
        ("start --address nohost.invalid:6380", "nohost.invalid cannot be used: the name does not resolve"),
        ("token client --valid-minutes -5", "--valid-minutes -5: from 0, which is for ever"),
        ("token client --valid-minutes 1e400", "--valid-minutes inf: from 0, which is for ever"),
        ("drain nobody", 'address="auto": no actorflow cluster of this user runs on this host'),
        ("status --address nohost.invalid:6380", "nohost.invalid cannot be used: the name does not resolve"),
    ],
)
def test_a_command_that_cannot_be_says_so_in_one_line(arguments: str, says: str) -> None:
    done = subprocess.run([sys.executable, "-m", "actorflow.cli", *arguments.split()], capture_output=True, text=True)
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stderr.startswith(f"actorflow {arguments.split()[0]}: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_start_that_fails_says_why_in_one_line() -> None:
    """What the node process said last, without the traceback on the way there, which is in its log."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "actorflow.cli", "start", "--head", "--port", str(port)], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("actorflow start: the node cannot start: ")
    assert f"port {port}: the port is in use" in done.stderr


@pytest.mark.parametrize("journal", ["file", "file/below", "taken"])
def test_a_head_without_a_journal_says_so_in_one_line_and_leaves_no_credentials(tmp_path: Path, journal: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    credentials = tmp_path / "new" / "credentials"
    arguments = ["start", "--head", "--port", "0", "--journal", str(tmp_path / journal), "--credentials", str(credentials)]
    with (tmp_path / "taken" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run([sys.executable, "-m", "actorflow.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("actorflow start: the node cannot start: the head cannot start: its journal ")
    assert f"in {tmp_path / journal}: " in done.stderr
    assert not credentials.exists()


def test_credentials_that_were_there_outlive_a_start_that_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    directory = CredentialDir(str(tmp_path / "credentials"))
    secrets, _ = directory.create("shop", wall_time=time.time())
    with pytest.raises(af.ClusterStartError, match="it is a file"):
        _nodes.start(port=0, journal=str(tmp_path / "file"), credentials=directory.path, **OPTIONS)
    assert SecretFile(directory.secret).secrets == secrets
    assert directory.load_authority()


def test_half_of_some_credentials_outlives_a_start_that_fails_for_it(tmp_path: Path) -> None:
    directory = CredentialDir(str(tmp_path / "credentials"))
    directory.create("shop", wall_time=time.time())
    os.unlink(directory.secret)
    with pytest.raises(af.ActorflowError, match="it exists, and may be in use by a cluster"):
        _nodes.start(port=0, credentials=directory.path, **OPTIONS)
    assert directory.load_authority()
    assert not directory.exists()


def test_stop_removes_what_nodes_have_left_that_were_killed(home: Path) -> None:
    """The first node's directory, with what it has in memory, and that of the other's life before it began again."""
    head = _nodes.start(port=0, num_cpus=1, **OPTIONS)
    try:
        joined = _nodes.start(address=head.tcp, num_cpus=1, **OPTIONS)
        os.kill(head.pid, signal.SIGKILL)
        os.waitpid(head.pid, 0)
        assert until(lambda: [node.path for node in _nodes.find([joined.pid])] not in ([], [joined.path]), 30.0), "in its second life"
        done = subprocess.run([sys.executable, "-m", "actorflow.cli", "stop"], check=True, capture_output=True, text=True)
        os.waitpid(joined.pid, 0)
        ended, removed = done.stdout.splitlines()
        assert f"(pid {joined.pid}) has ended" in ended
        assert sorted(removed.partition(": ")[2].split(", ")) == sorted([head.path, joined.path])
        assert not leaks.processes(home)
        assert not leaks.files(home)
        assert not leaks.shared_memory(home)
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)


def test_of_several_clusters_one_is_shown_and_none_is_drained_that_was_not_named() -> None:
    """WC-1, WC-2. Two nodes of one cluster are one, by whatever name it was joined."""

    def actorflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "actorflow.cli", *arguments], capture_output=True, text=True)

    with cluster(1) as (first,):
        by_name = f"localhost:{first.tcp.rpartition(':')[2]}"
        joined = _nodes.start(address=by_name, num_cpus=1, **OPTIONS)
        alone = actorflow("status")
        assert "clusters" not in alone.stderr
        assert "nodes: 2 alive" in alone.stdout
        other = _nodes.start(port=0, num_cpus=1, **OPTIONS)
        shown = actorflow("status")
        assert "nodes: 1 alive" in shown.stdout
        assert f"this is the newest of 2 clusters here, {other.tcp}; name one with --address: {joined.tcp}\n" in shown.stderr
        refused = actorflow("drain", "abc")
        assert refused.returncode == 1
        both = f"{other.tcp}, {joined.tcp}"
        assert refused.stderr == f"actorflow drain: 2 clusters of this user have nodes here; name one with --address: {both}\n"
        named = actorflow("drain", "abc", "--address", first.tcp)
        assert "node 'abc': no living node has it" in named.stderr


def test_a_node_that_is_not_the_first_sends_those_that_would_join_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(1, 1) as (first, second):
        with pytest.raises(af.ClusterStartError, match=rf"not the first one of its cluster.*--address {first.tcp}"):
            _nodes.start(address=second.tcp, num_cpus=1, **OPTIONS)
        monkeypatch.setenv("ACTORFLOW_SECRET", "x")
        with pytest.raises(af.ActorflowError, match="the variable ACTORFLOW_SECRET does not hold a cluster secret"):
            _nodes.start(address=first.tcp, num_cpus=1, **OPTIONS)


def test_a_name_of_the_host_is_as_good_as_its_address() -> None:
    with cluster(1) as (node,):
        port = node.tcp.rpartition(":")[2]
        with af.init(address=f"localhost:{port}", log_to_driver=False):
            assert af.sync(af.nodes())[0]["state"] == "alive"


def test_a_node_whose_head_is_gone_can_be_ended_while_it_waits_for_it(home: Path) -> None:
    """It has given itself up and would begin again when the head is back: `actorflow stop` finds it all the same."""
    head = _nodes.start(port=0, num_cpus=1, **OPTIONS)
    try:
        joined = _nodes.start(address=head.tcp, num_cpus=1, **OPTIONS)
        os.kill(head.pid, signal.SIGKILL)
        os.waitpid(head.pid, 0)
        _nodes.forget(head.path)
        assert until(lambda: [node.path for node in _nodes.find([joined.pid])] not in ([], [joined.path]), 30.0), "in its second life"
        assert [node.pid for node in _nodes.stop()] == [joined.pid]
        # The test is its parent.
        assert os.waitpid(joined.pid, 0)[1] == 0, "in order"
        assert not leaks.processes(home)
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)


def test_a_node_that_is_told_to_end_while_it_gives_itself_up_does_not_begin_again(home: Path) -> None:
    """Its zygote stands still, so that its end takes the time to be told."""
    head = _nodes.start(port=0, num_cpus=1, **OPTIONS)
    try:
        joined = _nodes.start(address=head.tcp, num_cpus=1, **OPTIONS)
        zygote = next(pid for pid in leaks.processes(home) if leaks.parent(pid) == joined.pid)
        os.kill(zygote, signal.SIGSTOP)
        os.kill(head.pid, signal.SIGKILL)
        os.waitpid(head.pid, 0)
        _nodes.forget(head.path)
        log = Path(joined.path, "logs", "node.log")
        assert until(lambda: "It ends with all that it runs" in log.read_text(), 30.0)
        os.kill(joined.pid, signal.SIGTERM)
        os.kill(zygote, signal.SIGCONT)
        assert os.waitpid(joined.pid, 0)[1] == 0, "in order, and in its first life"
        assert not leaks.processes(home)
        assert not leaks.files(home)
        assert not leaks.shared_memory(home)
    finally:
        _nodes.stop()
        sweep_stale(age_s=0)
