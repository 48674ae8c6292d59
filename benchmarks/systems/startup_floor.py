"""The floor of the startup benchmark: an interpreter gets an answer from one child over a pipe, on uvloop."""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from benchmarks.systems.scene import tell, wait_turn


async def main() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print('ok')", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    await child.stdout.readline()
    tell(at=time.monotonic())
    await child.wait()
    wait_turn()


if __name__ == "__main__":
    uvloop.run(main())
