"""Background tasks of a program that are still there when it ends: cancelled under `af.run`, and nowhere a traceback of our own."""

from __future__ import annotations

import signal

import pytest

from tests.integration.programs import Programs

pytestmark = pytest.mark.local_only("how local clusters end")

WATCHERS = """
@af.remote
async def never():
    await asyncio.Event().wait()

@af.remote
def square(x):
    return x * x

async def watch(ref, started):
    try:
        started.set()
        await ref
    except BaseException as error:
        print("watcher:", type(error).__name__, flush=True)
        raise
    finally:
        print("squared", await square(3), flush=True)

async def start():
    started = asyncio.Event()
    task = asyncio.create_task(watch(never.remote(), started))
    await started.wait()
    return task
"""


@pytest.mark.parametrize("options", ["", ", inline=True", ", mode='in_process'"])
def test_they_are_cancelled_while_they_may_still_call(programs: Programs, options: str) -> None:
    program = programs.run(
        f"""{WATCHERS}
async def main():
    global kept
    kept = await start()
    return 5

print(af.run(main, num_cpus=2{options}), kept.cancelled())
"""
    )
    assert program.out() == "watcher: CancelledError\nsquared 9\n5 True\n"
    assert "never retrieved" not in program.err()
    assert "Traceback" not in program.err()


def test_they_are_cancelled_when_main_fails_too(programs: Programs) -> None:
    program = programs.start(
        f"""{WATCHERS}
async def main():
    global kept
    kept = await start()
    raise ValueError("of main")

af.run(main, num_cpus=2)
"""
    )
    assert program.ends() == 1
    assert program.out() == "watcher: CancelledError\nsquared 9\n"
    assert program.err().rstrip().endswith("ValueError: of main")
    assert program.err().count("Traceback") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_they_are_cancelled_after_ctrl_c_and_sigterm(programs: Programs, number: signal.Signals, code: int) -> None:
    """SEMANTICS 27"""
    program = programs.start(
        f"""{WATCHERS}
async def main():
    global kept
    kept = await start()
    try:
        print("ready", flush=True)
        await never()
    finally:
        print("main squared", await square(2), flush=True)

af.run(main, num_cpus=2)
"""
    )
    program.says("ready")
    program.signal(number)
    assert program.ends() == code, program.told()
    assert program.out() == "ready\nmain squared 4\nwatcher: CancelledError\nsquared 9\n"
    assert "never retrieved" not in program.err()


def test_one_that_does_not_listen_holds_the_end_for_a_second(programs: Programs) -> None:
    program = programs.run(
        f"""{WATCHERS}
async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            told.append(time.monotonic())
            if len(told) == 2:  # The second one is of asyncio.Runner, which would wait for ever.
                print("runs:", af.is_initialized())
                return

async def main():
    global kept
    kept = asyncio.create_task(deaf())
    await square(2)

told = []
af.run(main, num_cpus=2)
print(0.9 < told[1] - told[0] < 5)
"""
    )
    assert program.out() == "runs: False\nTrue\n"


def test_an_error_of_their_cleanup_is_shown(programs: Programs) -> None:
    program = programs.run(
        f"""{WATCHERS}
async def clumsy(started):
    try:
        started.set()
        await never()
    finally:
        raise KeyError("of the cleanup")

async def main():
    started = asyncio.Event()
    global kept
    kept = asyncio.create_task(clumsy(started))
    await started.wait()

af.run(main, num_cpus=2)
"""
    )
    assert "KeyError: 'of the cleanup'" in program.err()
    assert "main() had ended" in program.err()


def test_on_a_loop_of_the_program_no_traceback_tells_that_it_was_shut_down(programs: Programs) -> None:
    """They are not ours to cancel (SEMANTICS 3): they fail, and whoever awaits one of them gets that."""
    program = programs.run(
        """
@af.remote
async def never():
    await asyncio.Event().wait()

async def wait(*refs):
    await asyncio.gather(*refs)

async def group(ref):
    async with asyncio.TaskGroup() as tg:
        tg.create_task(wait(ref))

async def fails(ref):
    try:
        await ref
    except af.ClusterConnectionError:
        raise LookupError("an error of its own") from None

async def main():
    async with af.init(num_cpus=2):
        tasks = [asyncio.create_task(make(never.remote())) for make in (wait, wait, group, fails)]
        await asyncio.wait(tasks, timeout=0.01)
    try:
        await tasks[0]
    except af.ClusterConnectionError as error:
        print(error)
    done, pending = await asyncio.wait(tasks)
    assert not pending

asyncio.run(main())
"""
    )
    assert program.out() == "actorflow has been shut down in this process\n"
    assert program.err().count("never retrieved") == 1, program.told()
    assert "LookupError: an error of its own" in program.err()
