"""Looking: `af.state`, `af.timeline`, the resources of the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"


@af.remote
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class Named(af.Actor):
    def ping(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os._exit(9)


async def until(condition: Any) -> Any:
    async with asyncio.timeout(10):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


async def test_nodes_jobs_and_resources() -> None:
    nodes = await af.nodes()
    assert {node["state"] for node in nodes} == {"alive"}
    assert sum(node["resources"].get("CPU", 0) for node in nodes) == 4
    jobs = await af.state.list_jobs()
    assert [job["pid"] for job in jobs if job["state"] == "running"] == [os.getpid()]
    totals = await af.cluster_resources()
    assert (totals["CPU"], totals["GPU"], totals["special"], totals["memory"]) == (4, 2, 2, 8 << 30)

    async def busy() -> bool:
        return (await af.available_resources())["CPU"] == 3

    ref = nap.remote(0.5)
    await until(busy)
    await ref


async def test_actors_with_their_story_and_the_cause_of_death() -> None:
    actor = await Named.options(name="shown", num_cpus=1).remote()
    pid = await actor.ping()
    [row] = [row for row in await af.state.list_actors() if row["name"] == "shown"]
    assert (row["class_name"], row["state"], row["namespace"]) == ("Named", "alive", "default")
    assert row["resources"] == {"CPU": 1.0}
    [worker] = [row for row in await af.state.list_workers() if row["pid"] == pid]
    assert worker["state"] == "actor"
    assert 5_000_000 < worker["memory_bytes"] < 1_000_000_000
    with pytest.raises(af.ActorDiedError):
        await actor.die()
    [row] = [row for row in await af.state.list_actors() if row["name"] == "shown"]
    assert row["state"] == "dead"
    assert "9" in row["reason"]
    assert len(row["story"]) >= 3


class Hoard(af.Actor):
    def __init__(self) -> None:
        self.kept: list[bytearray] = []

    def keep(self, size: int) -> int:
        self.kept.append(bytearray(b"x") * size)
        return os.getpid()


async def test_the_memory_of_a_worker_is_measured_when_somebody_asks() -> None:
    actor = Hoard.remote()

    async def memory(pid: int) -> int:
        return next(row["memory_bytes"] for row in await af.state.list_workers() if row["pid"] == pid)

    before = await memory(await actor.keep(1))
    grown = await memory(await actor.keep(100_000_000)) - before
    assert 95_000_000 < grown < 200_000_000


async def test_tasks_that_run_wait_and_ended() -> None:
    refs = [nap.options(num_cpus=4).remote(0.4) for _ in range(3)]

    async def states() -> list[str]:
        return [row["state"] for row in await af.state.list_tasks() if row["name"].endswith("nap")]

    async def all_there() -> bool:
        seen = await states()
        return "pushed" in seen and "queued" in seen

    await until(all_there)
    assert await af.get(refs) == [0.4] * 3

    async def finished() -> bool:
        return (await states()).count("finished") >= 3

    await until(finished)


async def test_objects_and_leases() -> None:
    small, large = await af.put("small"), await af.put(b"x" * 1_000_000)
    rows = await af.state.list_objects()
    assert any(row["size_bytes"] >= 1_000_000 and row["place"] != "inline" for row in rows)
    assert any(row["size_bytes"] < 100 and row["place"] == "inline" for row in rows)
    ref = nap.remote(0.3)

    async def leased() -> bool:
        return any(row["state"] == "granted" and row["resources"] == {"CPU": 1.0} for row in await af.state.list_leases())

    await until(leased)
    await ref
    del small, large


async def test_the_timeline_is_a_trace_that_perfetto_reads(tmp_path: Path) -> None:
    await af.get([nap.remote(0.02) for _ in range(8)])
    path = tmp_path / "trace.json"
    await af.timeline(str(path))
    trace = json.loads(path.read_text())
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X" and event["name"].endswith("nap")]
    assert len(spans) >= 8
    assert all(span["dur"] >= 0 and {"pid", "tid", "ts"} <= span.keys() for span in spans)
    assert sum(span["dur"] >= 20_000 for span in spans) >= 8


async def test_a_limit_is_kept_and_checked() -> None:
    await af.get([nap.remote(0.0) for _ in range(20)])
    assert len(await af.state.list_tasks(limit=5)) <= 5
    with pytest.raises(ValueError, match="limit"):
        await af.state.list_tasks(limit=0)


async def test_the_command_line_shows_the_cluster(cluster: Any) -> None:
    import subprocess
    import sys

    actor = await Named.options(name="on-the-command-line").remote()
    command = [sys.executable, "-m", "actorflow.cli", "status"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert "CPU" in done.stdout
    assert await actor.ping()


async def test_who_looks_at_the_cluster_is_no_job_of_it(cluster: Any) -> None:
    import subprocess
    import sys

    def running(jobs: list[Any]) -> int:
        return sum(row["state"] == "running" for row in jobs)

    assert await nap.remote(0.0) == 0.0
    before = await af.state.list_jobs()
    workers = await af.state.list_workers()
    command = [sys.executable, "-m", "actorflow.cli", "status"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    counts = [text for text in (f"{running(before)} running", f"{len(before) - running(before)} ended") if text[0] != "0"]
    assert f"jobs: {', '.join(sorted(counts))}" in done.stdout
    assert [row["job_id"] for row in await af.state.list_jobs()] == [row["job_id"] for row in before]
    assert {row["worker_id"] for row in await af.state.list_workers()} <= {row["worker_id"] for row in workers}
