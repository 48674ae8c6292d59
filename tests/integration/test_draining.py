"""Nodes that leave in order, with real processes: by the command, by SIGTERM, and at their deadline."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
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
from tests.integration.leaks import until

pytestmark = pytest.mark.local_only("nodes of its own on one host, which leave")

OPTIONS: dict[str, Any] = {"memory": "1GiB", "object_store_memory": "64MiB"}
HERE, THERE = {"here": 1.0}, {"there": 100.0}


def here() -> str:
    from actorflow import _runtime

    return str(_runtime.current().node_id)  # type: ignore[attr-defined]


class Ledger(af.Actor, num_cpus=1, max_restarts=1, max_concurrency=4):
    def __init__(self) -> None:
        self.entries: list[int] = []

    def __checkpoint__(self) -> list[int]:
        return self.entries

    def __restore__(self, entries: list[int]) -> None:
        self.entries = entries

    @af.method
    async def add(self, number: int) -> int:
        await asyncio.sleep(0.002)
        self.entries.append(number)
        return len(self.entries)

    @af.method
    async def all(self) -> tuple[list[int], str]:
        return self.entries, here()


@af.remote(max_retries=0, num_cpus=0)
def block(number: int) -> bytes:
    return bytes([number]) * 1_000_000


@af.remote(max_retries=0, num_cpus=0)
async def where(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return here()


@contextmanager
def two_nodes(**options: Any) -> Iterator[list[_nodes.StartedNode]]:
    """The one that is to leave is the second."""
    nodes = [_nodes.start(port=0, num_cpus=2, resources=HERE, **OPTIONS)]
    try:
        nodes.append(_nodes.start(address=nodes[0].tcp, num_cpus=2, resources=THERE, **OPTIONS, **options))
        yield nodes
    finally:
        _nodes.stop()


async def on_the_second() -> tuple[Any, str]:
    """An actor there, and the node."""
    other = await where.options(resources={"there": 1}).remote(0.0)
    ledger = await Ledger.options(scheduling_strategy=af.NodeAffinity(other, soft=True)).remote()
    assert (await ledger.all())[1] == other
    return ledger, other


async def command(*arguments: str) -> tuple[int, str]:
    """The code and the output of `actorflow ...`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "actorflow.cli", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_node_drains_by_the_command_and_nobody_s_call_fails() -> None:
    with two_nodes() as nodes:
        async with af.init(address=nodes[0].tcp):
            ledger, other = await on_the_second()
            refs = [block.options(resources={"there": 1}).remote(number) for number in range(1, 5)]
            await af.wait(refs, num_returns=4)
            slow = where.options(resources={"there": 1}).remote(1.0)
            calls = [ledger.add.remote(number) for number in range(100)]
            drained = asyncio.create_task(command("drain", other[:8], "--deadline", "60", "--address", nodes[0].tcp))
            while not drained.done():
                calls.append(ledger.add.remote(len(calls)))
                await asyncio.sleep(0.003)
            assert sorted(await af.get(calls)) == list(range(1, len(calls) + 1)), "each ran once, in one state"
            entries, place = await ledger.all()
            assert sorted(entries) == list(range(len(calls)))
            assert place == here()
            assert await slow == other, "what ran there has ended there"
            code, output = await drained
            assert code == 0, output
            why = f"it was drained (`actorflow drain` by {getpass.getuser()}): nothing was left here"
            assert output.endswith(f"node {other} has left: {why}\n"), output
            assert [len(value) * value[0] for value in await af.get(refs)] == [number * 1_000_000 for number in range(1, 5)]
            assert [row["restarts"] for row in await af.state.list_actors()] == [0]
            assert until(lambda: not os.path.exists(nodes[1].path), 10.0)


async def test_the_command_may_look_through_the_node_that_leaves() -> None:
    """As on its own host. It is no driver that the node would wait for."""
    with two_nodes() as nodes:
        async with af.init(address=nodes[1].tcp):
            other = here()
        begun = time.monotonic()
        code, output = await command("drain", other, "--deadline", "60", "--address", nodes[1].tcp)
        assert code == 0, output
        assert f"node {other} has left" in output
        assert time.monotonic() - begun < 20.0
        assert until(lambda: not os.path.exists(nodes[1].path), 10.0)


class Pays(af.Actor, num_cpus=0, max_restarts=1):
    @af.method
    async def pay(self, path: Path) -> None:
        with path.open("a") as file:
            file.write(f"{here()}\n")
        await asyncio.sleep(100.0)

    @af.method
    async def node(self) -> str:
        return here()


async def test_what_the_deadline_cuts_off_does_not_run_again(tmp_path: Path) -> None:
    """It has no max_task_retries: it is an error, as after a crash (MV-3)."""
    paid = tmp_path / "paid"
    with two_nodes() as nodes:
        async with af.init(address=nodes[0].tcp):
            other = await where.options(resources={"there": 1}).remote(0.0)
            actor = await Pays.options(scheduling_strategy=af.NodeAffinity(other, soft=True)).remote()
            call = actor.pay.remote(paid)
            assert until(paid.exists, 10.0)
            await af.drain_node(other, deadline=1.0)
            with pytest.raises(af.ActorUnavailableError):
                await call
            assert await actor.node() == here()
            assert paid.read_text() == f"{other}\n"


@af.remote(max_retries=0, num_cpus=0)
async def where_then(begun: str, seconds: float) -> str:
    Path(begun).touch()
    await asyncio.sleep(seconds)
    return here()


async def test_sigterm_drains_a_node_that_has_joined(tmp_path: Path) -> None:
    with two_nodes(drain_deadline=60.0) as nodes:
        async with af.init(address=nodes[0].tcp):
            ledger, other = await on_the_second()
            slow = where_then.options(resources={"there": 1}).remote(str(tmp_path / "begun"), 1.0)
            await ledger.add(1)
            while not (tmp_path / "begun").exists():
                await asyncio.sleep(0.01)
            os.kill(nodes[1].pid, signal.SIGTERM)
            assert await slow == other
            while (await ledger.all())[1] == other:
                await asyncio.sleep(0.05)
            assert (await ledger.all())[0] == [1]
            assert await asyncio.to_thread(os.waitpid, nodes[1].pid, 0) == (nodes[1].pid, 0)


@pytest.mark.parametrize("how", ["a second SIGTERM", "stop"])
async def test_it_ends_at_once_where_that_is_wanted(how: str) -> None:
    with two_nodes(drain_deadline=60.0) as nodes:
        async with af.init(address=nodes[0].tcp):
            slow = where.options(resources={"there": 1}).remote(100.0)
            other = await where.options(resources={"there": 1}).remote(0.0)
            os.kill(nodes[1].pid, signal.SIGTERM)
            while [row["state"] for row in await af.state.list_nodes() if row["node_id"] == other] != ["draining"]:
                await asyncio.sleep(0.05)
            begun = time.monotonic()
            if how == "stop":
                await asyncio.to_thread(_nodes.stop, [nodes[1].pid])
            else:
                os.kill(nodes[1].pid, signal.SIGTERM)
            with pytest.raises(af.WorkerCrashedError):
                await slow
            assert time.monotonic() - begun < 10.0


async def test_the_command_says_what_is_wrong() -> None:
    with two_nodes() as nodes:
        async with af.init(address=nodes[0].tcp):
            first = here()
        code, output = await command("drain", "nowhere", "--address", nodes[0].tcp)
        assert code == 1
        assert output.endswith("actorflow drain: node 'nowhere': no living node has it; `actorflow status` lists the nodes\n")
        code, output = await command("drain", first, "--address", nodes[0].tcp)
        assert code == 1
        assert "it is the first node of the cluster, which ends with it: use `actorflow stop` there" in output
        code, output = await command("status", "--address", nodes[0].tcp)
        assert f"\n  {first} alive {nodes[0].tcp}\n" in output
