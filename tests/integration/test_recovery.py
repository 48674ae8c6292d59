"""Results whose files are lost are made again, on real processes (SC-15, SC-16)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af

pytestmark = pytest.mark.local_only("the files of one small store are deleted")

ITEMS = 1_000_000  # int64: 8 MB each
STORE = 64_000_000
COUNT = 16


@pytest.fixture
def session(home: Path) -> Iterator[Any]:
    with af.init(num_cpus=2, object_store_memory=STORE, log_to_driver=False) as session:
        yield session


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each task that has run."""
    path = tmp_path / "ran"
    path.touch()
    return path


def lose_files(home: Path) -> int:
    """As if the disk were gone. Returns how many files there were."""
    lost = 0
    for path in home.glob("actorflow-*/*/spill/*"):
        with contextlib.suppress(FileNotFoundError):  # Its object has just been freed.
            os.unlink(path)
            lost += 1
    return lost


def note(ran: str, what: str) -> None:
    with open(ran, "a") as file:
        file.write(f"{what}\n")


@af.remote
def make(ran: str, number: int) -> Any:
    note(ran, f"make {number}")
    return np.full(ITEMS, number, dtype=np.int64)


@af.remote
def add(ran: str, left: Any, right: Any) -> Any:
    note(ran, "add")
    return left + right


@af.remote
def small(ran: str) -> int:
    note(ran, "small")
    return 1


@af.remote
def total(value: Any) -> int:
    return int(value.sum())


@af.remote
async def total_of_box(box: list[Any]) -> int:
    return int((await box[0]).sum())


@af.remote(max_retries=0)
def make_once(number: int) -> Any:
    return np.full(ITEMS, number, dtype=np.int64)


async def fill() -> list[Any]:
    """Push everything else to disk: half as much again as there is room for, as what is older goes first."""
    return [await af.put(np.zeros(ITEMS)) for _ in range(12)]


def test_lost_results_are_made_again_for_who_awaits_them(session: Any, home: Path, ran: Path) -> None:
    async def main() -> None:
        refs = [make.remote(str(ran), number) for number in range(COUNT)]
        await af.wait(refs, num_returns=COUNT)
        lost = lose_files(home)
        assert lost
        for number, ref in enumerate(refs):
            assert (await ref == number).all()
        again = len(ran.read_text().splitlines()) - COUNT
        assert again >= lost

    af.sync(main())


def test_lost_arguments_are_made_again_before_the_call_that_needs_them(session: Any, home: Path, ran: Path) -> None:
    async def main() -> None:
        refs = [make.remote(str(ran), number) for number in range(COUNT)]
        await af.wait(refs, num_returns=COUNT)
        assert lose_files(home)
        assert await af.get([total.remote(ref) for ref in refs]) == [number * ITEMS for number in range(COUNT)]

    af.sync(main())


def test_a_borrower_has_its_owner_make_it_again(session: Any, home: Path, ran: Path) -> None:
    async def main() -> None:
        refs = [make.remote(str(ran), number) for number in range(COUNT)]
        await af.wait(refs, num_returns=COUNT)
        assert lose_files(home)
        assert await af.get([total_of_box.remote([ref]) for ref in refs]) == [number * ITEMS for number in range(COUNT)]

    af.sync(main())


def test_a_chain_whose_links_are_gone_is_made_again_from_its_beginning(session: Any, home: Path, ran: Path) -> None:
    links = 30

    async def main() -> None:
        ref = make.remote(str(ran), 1)
        one = small.remote(str(ran))
        for _ in range(links):
            ref = add.remote(str(ran), ref, one)
        assert (await ref == 1 + links).all()
        kept = await fill()
        assert lose_files(home)
        ran.write_text("")
        assert (await ref == 1 + links).all()
        assert ran.read_text().split("\n")[:-1] == ["make 1", *["add"] * links], "the small result was kept"
        assert kept

    af.sync(main())


@pytest.mark.parametrize("why", ["max_retries is 0", "only results of tasks", "over 100 KiB", "contained references"])
def test_what_cannot_be_made_again_says_why(session: Any, home: Path, why: str) -> None:
    @af.remote
    def copy(value: Any) -> Any:
        return value.copy()

    @af.remote
    async def copy_box(box: list[Any]) -> Any:
        return (await box[0]).copy()

    async def main() -> None:
        value = np.ones(ITEMS)
        if why == "max_retries is 0":
            ref = make_once.remote(1)
        elif why == "over 100 KiB":
            ref = copy.remote(value)
        elif why == "contained references":
            ref = copy_box.remote([await af.put(value)])
        else:
            ref = await af.put(value)
        await af.wait([ref])
        kept = await fill()
        assert lose_files(home)
        with pytest.raises(af.ObjectLostError, match=re.escape(why)):
            await ref
        with pytest.raises(af.ObjectLostError, match=re.escape(why)):
            await total.remote(ref)
        assert kept

    af.sync(main())


def test_a_call_is_repeated_as_often_as_max_retries_says(session: Any, home: Path, ran: Path) -> None:
    async def main() -> None:
        ref = make.options(max_retries=2).remote(str(ran), 7)
        await af.wait([ref])
        for _ in range(2):
            kept = await fill()
            assert lose_files(home)
            assert (await ref == 7).all()
            await asyncio.sleep(0)
        kept = await fill()
        assert lose_files(home)
        with pytest.raises(af.ObjectLostError, match="has been used up"):
            await ref
        assert ran.read_text().splitlines() == ["make 7"] * 3
        assert kept

    af.sync(main())
