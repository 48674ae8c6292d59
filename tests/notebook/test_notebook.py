"""A real kernel: a loop runs in every cell, cells are run again, and somebody presses the stop button (SEMANTICS 28)."""

from __future__ import annotations

import pytest

from tests.notebook.conftest import Notebook

INTERRUPT_S = 0.5
"""How soon an interrupt must have reached the cell."""

SETUP = """
@af.remote
def square(x):
    return x * x

@af.remote
async def slow(seconds):
    await asyncio.sleep(seconds)
    return seconds

@af.remote
async def numbers(n, pause=0.0):
    for i in range(n):
        await asyncio.sleep(pause)
        yield i

session = af.init(num_cpus=8, log_to_driver=False)
"""


@pytest.fixture(autouse=True)
def set_up(notebook: Notebook) -> None:
    """The first cell of every test; the runtime is the same one each time."""
    notebook.value(SETUP)


def test_28_a_cell_awaits(notebook: Notebook) -> None:
    assert notebook.value("await square(3)") == "9"
    assert notebook.value("ref = square.remote(4)\nawait ref") == "16"
    assert notebook.value("await asyncio.gather(square.remote(1), square(2))") == "[1, 4]"
    assert notebook.value("async for n in numbers(3):\n    print(n)") == "0\n1\n2\n"
    assert notebook.value("async with af.TaskGroup() as tg:\n    one = tg.submit(square, 5)\nprint(await one)") == "25\n"


def test_28_sync_may_block_a_cell_for_what_is_ours(notebook: Notebook) -> None:
    assert notebook.value("af.sync(square(3)), af.sync(square.remote(4))") == "(9, 16)"
    assert notebook.value("af.sync(af.get([square.remote(1), square.remote(2)]))") == "[1, 4]"
    assert notebook.value("af.sync(numbers(3)), af.sync(af.map(square, range(3)))") == "([0, 1, 2], [0, 1, 4])"
    assert notebook.value("af.sync(af.state.list_nodes())[0]['state']") == "'alive'"
    assert notebook.value("x = await square(2)\naf.sync(square(x))") == "16"
    assert "GetTimeoutError" in notebook.cell("af.sync(slow.remote(30), timeout=0.1)")


def test_28_a_plain_for_over_a_stream(notebook: Notebook) -> None:
    assert notebook.value("for n in numbers(3):\n    print(n)") == "0\n1\n2\n"
    assert notebook.value("sum(numbers(100))") == "4950"


def test_28_a_coroutine_of_the_user_gets_the_await_to_write(notebook: Notebook) -> None:
    shown = notebook.cell("async def mine():\n    return await square(3)\n\naf.sync(mine())")
    assert shown.startswith("RuntimeError"), shown
    assert "write `await mine(...)` instead" in shown
    assert "write `async for item in ours(...)`" in notebook.cell("async def ours():\n    yield 1\n\naf.sync(ours())")
    assert "write `await ...` instead" in notebook.cell("af.sync(asyncio.gather(square(1)))")
    assert notebook.value("await mine()") == "9"
    assert "`await main()`" in notebook.cell("af.run(mine)")


@pytest.mark.parametrize(
    ("waiting", "error"),
    [
        ("await slow.remote(60)", "CancelledError"),
        ("await slow(60)", "CancelledError"),
        ("await asyncio.gather(slow.remote(60), slow(60))", "CancelledError"),
        ("await af.get([slow.remote(2)])", "CancelledError"),
        ("async for n in numbers(2, 1.5): pass", "CancelledError"),
        ("af.sync(slow.remote(60))", "KeyboardInterrupt"),
        ("af.sync(slow(60))", "KeyboardInterrupt"),
        ("x = await square(1); af.sync(slow.remote(60))", "KeyboardInterrupt"),
        ("for n in numbers(2, 1.5): pass", "KeyboardInterrupt"),
        ("x = await square(1)\n    for n in numbers(2, 1.5): pass", "KeyboardInterrupt"),
    ],
)
def test_28_an_interrupt_reaches_the_cell(notebook: Notebook, waiting: str, error: str) -> None:
    """The kernel cancels a cell that awaits; where a cell blocks, the interrupt is raised. The runtime is as before."""
    code = f"try:\n    {waiting}\nexcept BaseException as error:\n    print(time.time(), type(error).__name__)"
    shown = notebook.cell(code, interrupt_after_s=0.7).split()
    assert shown[1:] == [error], shown
    assert 0 <= float(shown[0]) - notebook.interrupted_at < INTERRUPT_S
    assert notebook.value("await square(3), af.sync(square(4))") == "(9, 16)"


def test_28_an_interrupted_cell_shows_the_interrupt(notebook: Notebook) -> None:
    assert notebook.cell("af.sync(slow.remote(60))", interrupt_after_s=0.5).startswith("KeyboardInterrupt")
    assert notebook.cell("await slow.remote(60)", interrupt_after_s=0.5).startswith("CancelledError")


def test_1_an_interrupted_wait_cancels_the_call_as_a_cancelled_await_does(notebook: Notebook) -> None:
    running = "[row['name'] for row in await af.state.list_tasks() if row['state'] == 'running']"
    notebook.cell("af.sync(slow(61))", interrupt_after_s=0.5)
    notebook.cell("await slow(62)", interrupt_after_s=0.5)
    notebook.value("await asyncio.sleep(0.3)")
    assert "slow" not in notebook.value(running)


def test_28_the_ticker_ticks_while_something_is_awaited_and_then_no_more(notebook: Notebook) -> None:
    """Found by its effect: a loop that waits for nothing else wakes five times a second."""
    ticks = notebook.value(
        "from actorflow._core.io.notebook import Ticker\n"
        "counted = []\n"
        "plain, Ticker._tick = Ticker._tick, lambda self: (counted.append(1), plain(self))\n"
        "await slow(1.1)\n"
        "during = len(counted)\n"
        "await asyncio.sleep(1.0)\n"
        "Ticker._tick = plain\n"
        "print(during, len(counted))"
    ).split()
    assert 3 <= int(ticks[0]) <= 8
    assert int(ticks[1]) <= int(ticks[0]) + 1


# Cells that are run again -----------------------------------------------------------------------------------


def test_28_a_cell_with_init_that_is_run_again_gives_the_same_runtime(notebook: Notebook) -> None:
    assert notebook.value("again = af.init(num_cpus=8, log_to_driver=False)\nagain is session") == "True"
    assert notebook.value("await af.init(num_cpus=8, log_to_driver=False) is session") == "True"
    shown = notebook.cell("af.init(num_cpus=3, log_to_driver=False)")
    assert "AlreadyInitializedError" in shown
    assert "num_cpus: 8 is running, 3 was asked for" in shown


def test_28_a_function_that_is_defined_again_is_the_new_one(notebook: Notebook) -> None:
    define = "factor = {0}\n@af.remote\ndef times(x):\n    return factor * x\n"
    assert notebook.value(define.format(2) + "await times(3)") == "6"
    assert notebook.value(define.format(5) + "await times(3)") == "15"


def test_28_an_actor_class_that_is_defined_again(notebook: Notebook) -> None:
    define = "class Greeter(af.Actor):\n    async def hello(self):\n        return '{0}'\n"
    assert notebook.value(define.format("first") + "old = Greeter.options(name='greeter').remote()\nawait old.hello()") == "'first'"
    assert notebook.value(define.format("second") + "new = Greeter.remote()\nawait new.hello()") == "'second'"
    assert notebook.value("await old.hello()") == "'first'"
    assert notebook.value("found = Greeter.options(name='greeter', get_if_exists=True).remote()\nawait found.hello()").endswith("'first'")
    assert "ActorAlreadyExistsError" in notebook.cell("await Greeter.options(name='greeter').remote()")
    notebook.value("await af.kill(old)")
    assert notebook.value("found = Greeter.options(name='greeter', get_if_exists=True).remote()\nawait found.hello()") == "'second'"
    notebook.value("await af.kill(found); await af.kill(new)")


def test_28_shutdown_in_a_cell_and_a_new_start(notebook: Notebook) -> None:
    assert notebook.value("af.shutdown()\naf.is_initialized()") == "False"
    assert "NotInitializedError" in notebook.cell("await square(2)")
    assert notebook.value("af.init(num_cpus=1, log_to_driver=False)\nawait square(2)") == "4"
    assert notebook.value("await af.shutdown()\naf.is_initialized()") == "False"
    assert notebook.value("with af.init(num_cpus=1, log_to_driver=False):\n    print(af.sync(square(6)))") == "36\n"
    assert notebook.value("async with af.init(num_cpus=1, log_to_driver=False):\n    print(await square(7))") == "49\n"


def test_9_refs_of_a_cell_are_awaited_on_other_loops_and_threads(notebook: Notebook) -> None:
    """A loop in a thread beside the kernel's, as widgets and servers in notebooks have one."""
    code = """
import threading
async def beside(refs):
    shielded = await asyncio.wait_for(asyncio.shield(refs[0]), 10)
    return [shielded, *await asyncio.gather(*refs), await asyncio.ensure_future(refs[1])]

refs = [square.remote(n) for n in (2, 3)]
found = await asyncio.to_thread(lambda: asyncio.run(beside(refs)))
here = await asyncio.wait_for(refs[0], 10), await asyncio.gather(*refs), await asyncio.shield(refs[1])
print(found, here)
"""
    assert notebook.value(code) == "[4, 4, 9, 9] (4, [4, 9], 9)\n"
