"""The promise of a disk that fills: a clear error to the one who caused it, and nobody else notices (docs/internals/failures.md)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from tests.integration.leaks import until
from tests.integration.programs import Programs
from tests.integration.small_disk import fill, needs_disk, small_disk

pytestmark = [pytest.mark.local_only("small disks of its own, on this host"), needs_disk]

MB = 1_000_000
STORE = 64 * MB
ITEMS = 1_000_000  # int64: 8 MB each
NOTICED_S = 2.0
"""A call beside that takes no longer than this has noticed nothing: there are two processors, and the puts are busy."""


class Counter(af.Actor, num_cpus=0):
    def __init__(self) -> None:
        self.value = 0

    @af.method
    async def add(self) -> int:
        self.value += 1
        return self.value


@af.remote(num_cpus=1)
def total(value: Any) -> int:
    return int(value.sum())


async def beside(counter: Any, ended: asyncio.Event) -> tuple[int, float]:
    """Somebody else, who calls an actor all the time: how many calls, and how long the longest took."""
    calls, worst_s = 0, 0.0
    while not ended.is_set():
        begun = time.monotonic()
        calls += 1
        assert await counter.add() == calls
        worst_s = max(worst_s, time.monotonic() - begun)
        await asyncio.sleep(0.005)
    return calls, worst_s


async def put_until_full() -> tuple[list[Any], str]:
    """References to arrays, and the error of the one for which there was no room."""
    refs: list[Any] = []
    while len(refs) < 40:
        try:
            refs.append(await af.put(np.full(ITEMS, len(refs), dtype=np.int64)))
        except af.ObjectStoreFullError as error:
            return refs, str(error)
    raise AssertionError(f"{len(refs) * 8} MB were taken by a store of 64 MB and a disk of 48 MB")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param(0, "the last 5% are left alone", id="no room"),
        pytest.param(6, "No space left on device", id="no files", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_while_spilling_is_an_error_of_the_put_and_nobody_else_notices(tmp_path: Path, files: int, says: str) -> None:
    async def main() -> None:
        counter = await Counter.remote()
        ended = asyncio.Event()
        other = asyncio.ensure_future(beside(counter, ended))
        refs, error = await put_until_full()
        assert "8 MB asked for" in error or "7.6 MiB asked for" in error
        assert says in error
        ended.set()
        calls, worst_s = await other
        assert calls > 100
        assert worst_s < NOTICED_S
        del refs[-2:]  # They were put last, so they are in memory: what is on the disk needs a place there to be read.
        for number, ref in enumerate(refs):
            assert await total(ref) == number * ITEMS, "nothing is lost that was taken"
        del refs[::2], ref
        late = await af.put(np.full(ITEMS, 99, dtype=np.int64))
        assert await total(late) == 99 * ITEMS, "room that comes free is used again"

    with small_disk(tmp_path / "disk", size="48m", files=files) as disk:
        with af.init(num_cpus=1, object_store_memory=STORE, object_spilling_directory=disk, log_to_driver=False):
            af.sync(main())
        assert until(lambda: os.listdir(disk) == []), "DI-3"


@pytest.mark.slow
def test_a_disk_that_others_fill_while_it_is_spilled_to_loses_nothing_that_is_there(tmp_path: Path) -> None:
    """The node leaves room on its disk; another program takes that too."""

    async def main(disk: Path) -> None:
        refs = [await af.put(np.full(ITEMS, number, dtype=np.int64)) for number in range(10)]
        assert any(path.name != "lock" for path in disk.rglob("*") if path.is_file()), "80 MB do not fit in 64"
        others = fill(disk)
        more, error = await put_until_full()
        assert "is free" in error or "are free" in error or "No space left on device" in error
        more.clear()
        for number, ref in enumerate(refs):
            assert await total(ref) == number * ITEMS
        others.unlink()
        late = [await af.put(np.full(ITEMS, number, dtype=np.int64)) for number in range(3)]
        assert [await total(ref) for ref in late] == [number * ITEMS for number in range(3)], "it is written again when there is room"

    with small_disk(tmp_path / "disk", size="96m") as disk:
        with af.init(num_cpus=1, object_store_memory=STORE, object_spilling_directory=disk, log_to_driver=False):
            af.sync(main(disk))


def test_log_files_on_a_full_disk_stop_nobody_and_the_driver_has_all_lines(programs: Programs, own_home: str) -> None:
    """The whole session directory is on it: workers print on, start and end, and the program ends in order."""
    with small_disk(Path(own_home) / "d", size="4m") as disk:
        program = programs.start(
            """
            @af.remote
            def talk(name, lines):
                for number in range(lines):
                    print(name, number, "x" * 1000)
                return os.getpid()

            class Talker(af.Actor):
                def say(self):
                    print("an actor speaks", flush=True)
                    return os.getpid()

            async def main():
                await talk("before", 3)
                print("ready", flush=True)
                while not os.path.exists("full"):
                    await asyncio.sleep(0.01)
                pids = await asyncio.gather(*(talk(f"after{number}", 300) for number in range(4)))
                pids.append(await Talker.remote().say())
                print(f"went on {len(pids)}", flush=True)  # one piece: workers' lines come between the words of a print
                os.kill(pids[0], signal.SIGKILL)
                print(f"again {await talk('late', 1) > 0}", flush=True)

            af.run(main, num_cpus=2)
            """,
            env={"ACTORFLOW_TMPDIR": str(disk)},
        )
        program.says("ready")
        others = fill(disk)
        Path(program._out.parent, "full").touch()
        assert program.ends() == 0, program.told()
        assert "went on 5" in program.out(), program.told()
        assert "again True" in program.out(), program.told()
        for number in range(4):
            assert f"after{number} 299 " in program.out(), "every line reaches the driver"
        assert "an actor speaks" in program.out()
        assert "late 0" in program.out()
        others.unlink()
        assert not list(disk.glob("actorflow-*/*")), "the session directory is gone"


def test_a_node_that_loses_its_log_files_to_a_full_disk_says_so(programs: Programs, own_home: str) -> None:
    """Once, in its own log, which has room for that: only what workers print is too much here."""
    with small_disk(Path(own_home) / "d", size="4m") as disk:
        program = programs.start(
            """
            @af.remote
            def talk():
                for number in range(8):
                    print("x" * 100_000)

            async def main():
                print("ready", flush=True)
                while not os.path.exists("full"):
                    await asyncio.sleep(0.01)
                await talk()
                await talk()
                print("done", flush=True)
                while not os.path.exists("seen"):
                    await asyncio.sleep(0.01)

            af.run(main, num_cpus=1, log_to_driver=False)
            """,
            env={"ACTORFLOW_TMPDIR": str(disk)},
        )
        program.says("ready")
        [log] = disk.glob("actorflow-*/*/logs/node.log")
        with open(log, "ab") as out:
            out.write(b"-\n")  # The page that this takes has room for more.
        others = fill(disk)
        Path(program._out.parent, "full").touch()
        program.says("done")
        others.unlink()
        said = log.read_text()
        Path(program._out.parent, "seen").touch()
        assert program.ends() == 0, program.told()
        assert said.count("no more worker output is written to") == 1
        assert "No space left on device" in said
