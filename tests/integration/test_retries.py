"""What is tried again, and how often."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"


def tick(path: str) -> int:
    """Count the attempts in a file; return the number of this one, from 1."""
    with open(path, "a") as file:
        file.write("x")
    return len(Path(path).read_text())


@af.remote
def dies_until(path: str, attempt: int) -> int:
    number = tick(path)
    if number < attempt:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@af.remote
def raises_until(path: str, attempt: int, kind: type[Exception] = ValueError) -> int:
    number = tick(path)
    if number < attempt:
        raise kind(f"attempt {number}")
    return number


async def test_a_task_whose_worker_died_runs_again(tmp_path: Path) -> None:
    assert await dies_until(str(tmp_path / "a"), 3) == 3
    assert await dies_until.options(max_retries=-1)(str(tmp_path / "b"), 6) == 6


@pytest.mark.parametrize("retries", [0, 2])
async def test_max_retries_bounds_the_attempts(retries: int, tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    with pytest.raises(af.WorkerCrashedError, match=f"max_retries={retries}"):
        await dies_until.options(max_retries=retries)(str(path), 100)
    assert len(path.read_text()) == retries + 1


async def test_many_tasks_survive_the_death_of_some_workers(tmp_path: Path) -> None:
    @af.remote
    def maybe(directory: str, n: int) -> int:
        path = Path(directory, str(n))
        if n % 10 == 0 and not path.exists():
            path.touch()
            os._exit(1)
        return n

    assert await af.get([maybe.remote(str(tmp_path), n) for n in range(60)]) == list(range(60))


async def test_an_exception_is_not_retried_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    with pytest.raises(ValueError, match="attempt 1"):
        await raises_until(str(path), 2)
    assert len(path.read_text()) == 1


async def test_retry_exceptions_for_all_and_for_some(tmp_path: Path) -> None:
    again = raises_until.options(retry_exceptions=True)
    assert await again(str(tmp_path / "a"), 3) == 3
    some = raises_until.options(retry_exceptions=[LookupError])
    assert await some(str(tmp_path / "b"), 3, KeyError) == 3
    with pytest.raises(ValueError, match="attempt 1"):
        await some(str(tmp_path / "c"), 3)


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_retry_exceptions_is_bounded_by_max_retries(retries: int, tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    with pytest.raises(ValueError, match=f"attempt {retries + 1}"):
        await raises_until.options(retry_exceptions=True, max_retries=retries)(str(path), 100)
    assert len(path.read_text()) == retries + 1


async def test_retries_of_a_method(tmp_path: Path) -> None:
    class Flaky(af.Actor):
        @af.method(retry_exceptions=True, max_task_retries=2)
        def work(self, path: str, attempt: int) -> int:
            number = tick(path)
            if number < attempt:
                raise ValueError(f"attempt {number}")
            return number

    flaky = Flaky.remote()
    assert await flaky.work(str(tmp_path / "a"), 3) == 3
    with pytest.raises(ValueError, match="attempt 3"):
        await flaky.work(str(tmp_path / "b"), 100)


async def test_max_calls_ends_a_worker_after_so_many(tmp_path: Path) -> None:
    @af.remote(max_calls=2, num_cpus=4)
    def pid() -> int:
        return os.getpid()

    pids = [await pid() for _ in range(6)]
    assert len(set(pids)) >= 3
    assert all(pids.count(one) <= 2 for one in pids)
    together: Any = await af.get([pid.remote() for _ in range(12)])
    assert all(together.count(one) <= 2 for one in together)


async def test_an_attempt_that_died_gives_its_arguments_again(tmp_path: Path) -> None:
    @af.remote
    def use(path: str, values: list[int], large: bytes) -> int:
        if tick(path) == 1:
            os._exit(1)
        return sum(values) + len(large)

    ref = await af.put([1, 2, 3])
    assert await use(str(tmp_path / "a"), ref, await af.put(b"x" * 500_000)) == 500_006
    assert await use(str(tmp_path / "b"), [1, 2, 3], b"x" * 500_000) == 500_006


@pytest.mark.parametrize("death", [10, 250])
async def test_a_stream_whose_producer_died_gives_every_item_once(death: int, tmp_path: Path) -> None:
    @af.remote
    def items(path: str) -> Any:
        first = tick(path) == 1
        for n in range(300):
            if first and n == death:
                os._exit(1)
            yield n

    assert [n async for n in items.remote(str(tmp_path / "a"))] == list(range(300))
