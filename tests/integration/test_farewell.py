"""The end of a cluster while code runs in it: it is cancelled, and actors leave their contexts, before their processes end (FA-1, FA-2)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Self

import pytest

import actorflow as af

pytestmark = pytest.mark.local_only("how local clusters end")

OPTIONS: dict[str, Any] = {"num_cpus": 3, "log_to_driver": False}


class Writer(af.Actor):
    """Says in a file when it is left: `began` once, then `left`, both only once each."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        note(self.path, "began")
        await asyncio.sleep(0.1)
        note(self.path, "left")

    async def ping(self) -> None: ...


class Plain(af.Actor):
    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        note(self.path, "left")

    def ping(self) -> None: ...


class Failing(af.Actor):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        raise RuntimeError("not today")

    def ping(self) -> None: ...


def note(path: str, what: str) -> None:
    with open(path, "a") as file:
        file.write(f"{what}\n")


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@af.remote
async def slow(path: str) -> None:
    note(path, "runs")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.1)
        note(path, "cleaned up")


@af.remote
async def deaf(path: str) -> None:
    note(path, "runs")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(path, "heard")


@af.remote
def busy(path: str) -> None:
    note(path, "runs")
    time.sleep(60)


async def until(path: Path, line: str) -> None:
    async with asyncio.timeout(30):
        while line not in notes(path):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kept", [True, False], ids=["the handle lives", "the handle has just gone"])
@pytest.mark.parametrize("process", ["dedicated", "shared"])
def test_fa_2_actors_leave_their_contexts_once(tmp_path: Path, kept: bool, process: str) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    handles: list[Any] = []

    async def main() -> None:
        one, other = Writer.options(process=process).remote(str(a)), Plain.remote(str(b))  # type: ignore[attr-defined]
        await one.ping()
        await other.ping()
        if kept:
            handles.extend([one, other])

    af.run(main, **OPTIONS)
    assert (notes(a), notes(b)) == (["began", "left"], ["left"])


def test_code_that_runs_is_cancelled_and_may_clean_up(tmp_path: Path) -> None:
    path = tmp_path / "a"
    refs: list[Any] = []

    async def main() -> None:
        refs.append(slow.remote(str(path)))
        await until(path, "runs")

    af.run(main, **OPTIONS)
    assert notes(path) == ["runs", "cleaned up"]


def test_code_that_was_cancelled_just_before_goes_on_cleaning_up(tmp_path: Path) -> None:
    path = tmp_path / "a"

    async def main() -> None:
        call = asyncio.ensure_future(slow(str(path)))
        await until(path, "runs")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    af.run(main, **OPTIONS)
    assert notes(path) == ["runs", "cleaned up"]


@pytest.mark.parametrize("code", [deaf, busy], ids=["deaf", "busy"])
def test_fa_1_code_that_does_not_listen_does_not_hold_up_the_end(tmp_path: Path, code: Any) -> None:
    path = tmp_path / "a"
    refs: list[Any] = []
    ended: list[float] = []

    async def main() -> None:
        refs.append(code.remote(str(path)))
        await until(path, "runs")
        ended.append(time.monotonic())

    af.run(main, **OPTIONS)
    assert time.monotonic() - ended[0] < 10
    assert notes(path) == (["runs", "heard"] if code is deaf else ["runs"])


def test_a_hook_that_fails_does_not_keep_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a"
    handles: list[Any] = []

    async def main() -> None:
        handles.extend([Failing.remote(), Writer.remote(str(path))])
        await handles[0].ping()
        await handles[1].ping()

    af.run(main, **OPTIONS)
    assert notes(path) == ["began", "left"]
