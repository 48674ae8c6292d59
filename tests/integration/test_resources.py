"""Resources are admission control; environments of workers; order of who is served (SEMANTICS 24, 25)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration import leaks

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls take all 4 CPUs, or both GPUs"


@af.remote
def devices(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "unset")


class Meter:
    """How many calls overlap, seen from files: `enter` and `leave` are marks with times."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def most(self) -> int:
        marks: list[tuple[float, int]] = []
        for file in self.directory.iterdir():
            began, ended = map(float, file.read_text().split())
            marks += [(began, 1), (ended, -1)]
        running = most = 0
        for _, step in sorted(marks):
            running += step
            most = max(most, running)
        return most


@af.remote
def stay(directory: str, n: int, seconds: float = 0.1) -> int:
    began = time.monotonic()
    time.sleep(seconds)
    Path(directory, str(n)).write_text(f"{began} {time.monotonic()}")
    return n


@pytest.mark.parametrize(
    ("demand", "at_once"),
    [
        ({"num_cpus": 1}, 4),
        ({"num_cpus": 2}, 2),
        ({"num_cpus": 0, "resources": {"special": 1}}, 2),
        ({"num_cpus": 0, "resources": {"special": 0.5}}, 4),
        ({"num_cpus": 0, "memory": "4GiB"}, 2),
        ({"num_cpus": 0, "num_gpus": 1}, 2),
        ({"num_cpus": 0, "num_gpus": 0.5}, 4),
    ],
    ids=str,
)
async def test_no_more_run_at_once_than_resources_allow(demand: dict[str, Any], at_once: int, tmp_path: Path) -> None:
    refs = [stay.options(**demand).remote(str(tmp_path), n) for n in range(2 * at_once)]
    assert await af.get(refs) == list(range(2 * at_once))
    assert 1 < Meter(tmp_path).most() <= at_once


async def test_cuda_visible_devices_names_the_granted_gpus() -> None:
    assert await devices() == ""
    one = await af.get([devices.options(num_gpus=1).remote(0.2) for _ in range(2)])
    assert sorted(one) == ["0", "1"]
    assert await devices.options(num_gpus=2)() == "0,1"
    halves = await af.get([devices.options(num_gpus=0.5).remote(0.2) for _ in range(4)])
    assert sorted(halves) == ["0", "0", "1", "1"]


async def test_an_actor_keeps_its_gpu_until_it_ends() -> None:
    class Holds(af.Actor, num_gpus=1):
        def devices(self) -> str:
            return os.environ["CUDA_VISIBLE_DEVICES"]

    one, other = Holds.remote(), Holds.remote()
    assert sorted([await one.devices(), await other.devices()]) == ["0", "1"]
    waits = devices.options(num_gpus=1).remote()
    assert await af.wait([waits], timeout=0.2) == ([], [waits])
    await af.kill(one)
    assert await waits in ("0", "1")


async def test_an_actor_with_cpus_takes_them_from_tasks(tmp_path: Path) -> None:
    class Holds(af.Actor, num_cpus=3):
        def ping(self) -> int:
            return 1

    holder = await Holds.remote()
    await af.get([stay.remote(str(tmp_path), n, 0.05) for n in range(4)])
    assert Meter(tmp_path).most() == 1
    await af.kill(holder)


async def test_24_a_waiting_parent_lends_its_cpu_and_not_its_gpu() -> None:
    @af.remote(num_cpus=4, num_gpus=2)
    def parent() -> str:
        assert af.sync(devices.options(num_cpus=4).remote()) == ""
        gpu = devices.options(num_cpus=0, num_gpus=1).remote()
        ready, _ = af.sync(af.wait([gpu], timeout=0.3))
        gpu.cancel()
        return "not lent" if not ready else "lent"

    assert await parent() == "not lent"


async def test_24_a_wide_and_deep_tree_of_tasks_ends() -> None:
    @af.remote
    async def tree(depth: int) -> int:
        if not depth:
            return 1
        return sum(await asyncio.gather(*[tree(depth - 1) for _ in range(3)]))

    @af.remote
    def sync_tree(depth: int) -> int:
        return 1 if not depth else sum(af.sync(af.get([sync_tree.remote(depth - 1) for _ in range(2)])))

    assert await tree(3) == 27
    assert await sync_tree(3) == 8


async def test_25_tasks_behind_a_long_one_go_to_other_workers() -> None:
    @af.remote
    def nap(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    await af.get([nap.remote(0.0) for _ in range(100)])  # The function looks quick: calls are pipelined.
    began = time.monotonic()
    long = nap.remote(3.0)
    assert await af.get([nap.remote(0.0) for _ in range(100)], timeout=2) == [0.0] * 100
    assert time.monotonic() - began < 2.5
    assert await long == 3.0


async def test_higher_priority_is_served_first() -> None:
    @af.remote(num_cpus=4)
    def when(seconds: float) -> float:
        time.sleep(seconds)
        return time.monotonic()

    running = when.remote(0.3)
    low = [when.options(priority=0).remote(0.01) for _ in range(3)]
    high = [when.options(priority=10).remote(0.01) for _ in range(3)]
    await running
    assert max(await af.get(high)) < min(await af.get(low))


async def test_env_vars_and_working_dir(tmp_path: Path) -> None:
    @af.remote
    def look() -> tuple[str | None, str]:
        return os.environ.get("COLOUR"), os.getcwd()

    (tmp_path / "data.txt").write_text("in the working directory")

    class Reads(af.Actor, working_dir=str(tmp_path), env_vars={"COLOUR": "green"}):
        def read(self) -> tuple[str, str | None]:
            return Path("data.txt").read_text(), os.environ.get("COLOUR")

    assert await look() == (None, os.getcwd())
    assert await look.options(env_vars={"COLOUR": "red"})() == ("red", os.getcwd())
    assert await look.options(working_dir=str(tmp_path))() == (None, str(tmp_path))
    assert await look.options(runtime_env={"env_vars": {"COLOUR": "blue"}})() == ("blue", os.getcwd())
    assert await look() == (None, os.getcwd())
    assert await Reads.remote().read() == ("in the working directory", "green")


async def test_a_module_in_the_working_dir_is_importable(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("VALUE = 42\n")

    @af.remote(working_dir=str(tmp_path))
    def use() -> int:
        import only_there  # type: ignore[import-not-found]

        return int(only_there.VALUE)

    assert await use() == 42


async def test_a_working_dir_that_is_not_there_is_an_error_that_names_it() -> None:
    workers = {row["worker_id"] for row in await af.state.list_workers()}
    with pytest.raises(af.RuntimeEnvError) as caught:
        await devices.options(working_dir="/nowhere/at/all")()
    text = str(caught.value)
    assert text.startswith("devices did not run: its working directory '/nowhere/at/all' does not exist on this machine")
    assert "make it, or give working_dir= the path of a directory that is there" in text
    assert caught.value.reason in text
    assert {row["worker_id"] for row in await af.state.list_workers()} <= workers, "no worker was tried for it"


async def test_what_is_no_directory_cannot_be_a_working_dir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ref = devices.options(working_dir=str(tmp_path / "file"), max_retries=-1).remote()
    with pytest.raises(af.RuntimeEnvError, match="is no directory"):
        await ref


@pytest.mark.parametrize("options", [{}, {"process": "shared", "num_cpus": 0}, {"max_restarts": -1}], ids=str)
async def test_an_actor_whose_working_dir_is_not_there_says_so(options: dict[str, Any]) -> None:
    class Lost(af.Actor):
        async def where(self) -> str:
            return os.getcwd()

    actor = Lost.options(working_dir="/nowhere/at/all", **options).remote()
    with pytest.raises(af.RuntimeEnvError, match="/nowhere/at/all"):
        await actor.where()
    with pytest.raises(af.RuntimeEnvError, match="/nowhere/at/all"):
        await actor


async def test_a_working_dir_that_was_made_after_all_is_used(tmp_path: Path) -> None:
    later = tmp_path / "later"

    @af.remote(working_dir=str(later))
    def where() -> str:
        return os.getcwd()

    with pytest.raises(af.RuntimeEnvError):
        await where()
    later.mkdir()
    assert await where() == str(later)


async def test_workers_of_different_environments_do_not_mix() -> None:
    @af.remote
    def colour() -> str:
        return os.environ.get("COLOUR", "none")

    colours = ["red", "green", "blue", "none"] * 5
    refs = [colour.remote() if c == "none" else colour.options(env_vars={"COLOUR": c}).remote() for c in colours]
    assert await af.get(refs) == colours


async def test_resources_come_back_after_cancel_kill_and_crash(cluster: Any) -> None:
    @af.remote(num_cpus=4, max_retries=0)
    def crash() -> None:
        os._exit(1)

    @af.remote(num_cpus=4)
    async def forever() -> None:
        await asyncio.Event().wait()

    for _ in range(2):
        with pytest.raises(af.WorkerCrashedError):
            await crash()
        ref = forever.remote()
        await af.wait([ref], timeout=0.1)
        ref.cancel()
        with pytest.raises(af.TaskCancelledError):
            await ref
    assert await asyncio.to_thread(leaks.until, lambda: af.sync(_free()) == 4.0)


async def _free() -> float:
    return (await af.available_resources())["CPU"]
