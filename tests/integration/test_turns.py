"""Awaits of what is ready, without end: the loop has its turns all the same, so that timeouts and Ctrl-C get through."""

from __future__ import annotations

import signal

import pytest

from tests.integration.programs import Programs

pytestmark = pytest.mark.local_only("a program of its own, with a cluster of its own")

OPERATIONS = """
LARGE = bytes(1_000_000)

async def endlessly(name):
    small, large = await af.put(1), await af.put(LARGE)
    failed = af.remote(lambda: 1 / 0).options(max_retries=0).remote()
    await af.wait([failed])
    while time.monotonic() < give_up_at:
        match name:
            case "put large": await af.put(LARGE)
            case "put small": await af.put(1)
            case "get small": await af.get(small)
            case "get large": await af.get(large)
            case "await large": await large
            case "wait": await af.wait([small])
            case "poll": await af.wait([small], timeout=0)
            case "as_completed":
                async for ref in af.as_completed([small, large]):
                    pass
            case "failed":
                try:
                    await failed
                except ZeroDivisionError:
                    pass

give_up_at = time.monotonic() + 30
"""


@pytest.mark.parametrize(
    "name", ["put large", "put small", "get small", "get large", "await large", "wait", "poll", "as_completed", "failed"]
)
def test_2_a_timeout_ends_it(programs: Programs, name: str) -> None:
    program = programs.run(
        f"""{OPERATIONS}
async def main():
    turns = 0
    async def others():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1
    beside = asyncio.create_task(others())
    try:
        async with asyncio.timeout(0.5):
            await endlessly({name!r})
    except TimeoutError:
        print("timed out,", turns >= 5)

af.run(main, num_cpus=1)
"""
    )
    assert program.out() == "timed out, True\n"


def test_27_ctrl_c_ends_it(programs: Programs) -> None:
    program = programs.start(
        f"""{OPERATIONS}
async def main():
    print("ready", flush=True)
    try:
        await endlessly("put large")
    finally:
        print("cleanup", await af.get(await af.put(7)), flush=True)

af.run(main, num_cpus=1)
"""
    )
    program.says("ready")
    program.signal(signal.SIGINT)
    assert program.ends(20) == -signal.SIGINT, program.told()
    assert program.out() == "ready\ncleanup 7\n"
