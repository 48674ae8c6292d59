"""The promises for memory that runs short: in /dev/shm, in the object store, and in the control group of a container.

A machine that runs out of memory: `test_memory.py`; what is spilled: `test_spilling.py`; limits of a process: `test_limits.py`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from tests.integration.control_group import control_group, needs_group
from tests.integration.leaks import until
from tests.integration.programs import Programs
from tests.integration.small_disk import needs_disk

pytestmark = pytest.mark.local_only("memory of this host, and programs with clusters of their own")

MB = 1_000_000
STORE = 64 * MB
ITEMS = 1_000_000  # int64: 8 MB each

PRIVATE_MEMORY_DIR = """
        import ctypes, errno, subprocess
        import numpy as np

        # A /dev/shm of its own, which nobody else sees.
        assert ctypes.CDLL(None, use_errno=True).unshare(0x00020000) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", sys.argv[1], "small", "/dev/shm"], check=True)

        def fill():
            try:
                with open("/dev/shm/full", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            except OSError as error:
                return error.errno in (errno.ENOSPC, errno.EROFS)
"""


@needs_disk
@pytest.mark.parametrize("kind", ["size=64k", "size=64k,nr_inodes=2", "ro"], ids=["no room", "no files", "read-only"])
def test_a_full_dev_shm_changes_nothing(programs: Programs, kind: str) -> None:
    """The arena has no name in a file system, so the size of /dev/shm is no limit; sockets go elsewhere when they find no place there."""
    program = programs.run(
        PRIVATE_MEMORY_DIR
        + """
        @af.remote
        def make(number):
            return np.full(1_000_000, number, dtype=np.int64)

        @af.remote
        def total(value):
            return int(value.sum())

        class Keeper(af.Actor):
            async def keep(self, value):
                self.value = value
                return int(value[0])

        async def main():
            refs = [make.remote(number) for number in range(24)]
            refs += [await af.put(np.full(1_000_000, number, dtype=np.int64)) for number in range(24, 40)]
            keeper = Keeper.remote()
            assert await keeper.keep(refs[7]) == 7
            assert await af.get([total.remote(ref) for ref in refs]) == [number * 1_000_000 for number in range(40)]
            print("all is there", sorted(os.listdir("/dev/shm"))[-1:], flush=True)

        assert fill(), "it is full"
        af.run(main, num_cpus=2, object_store_memory="512MiB")
        print("left", [name for name in os.listdir("/dev/shm") if name != "full"])
        """,
        kind,
    )
    assert "all is there" in program.out(), program.told()
    assert "left []" in program.out(), program.told()
    assert "Traceback" not in program.told()


def test_from_80_percent_of_the_store_on_it_spills_and_puts_that_find_no_room_wait(home: Path) -> None:
    """Backpressure: a put waits while what was there before goes to disk, and for as long as somebody reads all that is there."""

    def files() -> list[Path]:
        return list(home.glob("actorflow-*/*/spill/*"))

    with af.init(num_cpus=1, object_store_memory=STORE, log_to_driver=False):
        refs = [af.sync(af.put(np.full(ITEMS, number, dtype=np.int64))) for number in range(6)]
        time.sleep(0.3)
        assert not files(), "48 of 64 MB are 75 %"
        refs.append(af.sync(af.put(np.full(ITEMS, 6, dtype=np.int64))))
        assert until(lambda: bool(files())), "56 of 64 MB are 88 %"
        held = [af.sync(af.get(ref)) for ref in refs]

        async def wait_for_room() -> Any:
            late = asyncio.ensure_future(put_two())
            await asyncio.sleep(0.5)
            assert not late.done(), "all that is here is being read, so nothing can go"
            held.clear()
            return await late

        async def put_two() -> list[Any]:
            return [await af.put(np.full(ITEMS, number, dtype=np.int64)) for number in (7, 8)]

        late = af.sync(wait_for_room())
        for number, ref in enumerate([*refs, *late]):
            assert (af.sync(af.get(ref)) == number).all()


HOGS = """
        with open(sys.argv[1] + "/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))

        @af.remote(max_retries=0)
        def hog(pause):
            blocks = []
            while True:
                block = bytearray(20 << 20)
                block[::4096] = b"x" * len(block[::4096])
                blocks.append(block)
                time.sleep(pause)

        @af.remote
        async def small(number):
            await asyncio.sleep(0.05)
            return number

        class Counter(af.Actor, num_cpus=0):
            def __init__(self):
                self.value = 0

            async def add(self):
                self.value += 1
                return self.value

        async def main():
            counter = await Counter.remote()
            await counter.add()
            calls = [small.remote(number) for number in range(100)]
            pause = float(sys.argv[2])
            try:
                await hog(pause)
            except af.OutOfMemoryError as error:
                print("told:", str(error).replace("\\n", " "), error.signal, error.peak_memory_bytes, flush=True)
            assert await af.get(calls) == list(range(100))
            assert await counter.add() == 2, "it is the same one"
            print("others went on", flush=True)

        af.run(main, num_cpus=2, object_store_memory="64MiB", log_to_driver=False)
"""
GROUP_BYTES = 800 << 20


@needs_group
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("pause", "who"), [("0.1", "node"), ("0", "system")], ids=["slowly", "faster than anybody looks"])
def test_memory_pressure_in_a_container_ends_the_one_that_takes_it_and_nobody_else(programs: Programs, pause: str, who: str) -> None:
    """Slowly: the node ends it before the system ends somebody, with the numbers of the control group. At once: the system is first."""
    with control_group(GROUP_BYTES) as group:
        program = programs.run(HOGS, str(group.path), pause)
        kills = group.kills()
    [told] = [line for line in program.out().splitlines() if line.startswith("told:")]
    assert "others went on" in program.out(), program.told()
    assert "SIGKILL" in told
    signal, peak = told.split()[-2:]
    assert signal == "9"
    assert int(peak) > 300 << 20
    if who == "node":
        assert kills == 0, "nobody was ended by the system"
        assert f"memory ran out in the control group {group.path}" in told
        assert "of 800 MiB were in use" in told
    else:
        assert kills <= 1, "the system has ended this one at most"
