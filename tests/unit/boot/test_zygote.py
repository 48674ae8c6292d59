"""What a forked worker finds, and what becomes of it: with a real zygote and real processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actorflow._core.boot.forked_child import THREAD_VARIABLES
from actorflow._core.boot.process_title import COMM_BYTES_MAX
from actorflow._core.boot.zygote import FORKS_AT_ONCE
from actorflow._core.io import processes as module
from actorflow._core.io.zygote_link import PACKET_BYTES_MAX
from tests.unit.boot.conftest import node

ROOT = Path(__file__).resolve().parents[3]


async def gone(pid: int) -> None:
    """Wait until process `pid` has ended: any process, not only a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        async with asyncio.timeout(20):
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


# -- what a worker finds


async def test_a_worker_finds_itself_in_order() -> None:
    async with node("facts") as here:
        await here.life_of(env={"MY_VARIABLE": "yes"})
        facts = here.said()
        assert facts["spec"] == ["w1", "job", "unix:/node.sock", "unix:/w.sock"]
        assert facts["session"] == facts["pid"] == here.events.pids["w1"]
        assert facts["parent"] == here.zygote_pid
        assert facts["sigint"], "rule 27: workers ignore SIGINT"
        assert facts["sigterm"]
        assert facts["sigchld"]
        assert facts["blocked"] == []
        assert facts["stdin"] == "/dev/null"
        assert facts["env"]["MY_VARIABLE"] == "yes"
        assert facts["threads"] == 1
        assert facts["gc"] is True


async def test_a_worker_inherits_no_descriptor() -> None:
    async with node("facts") as here:
        await here.life_of()
        assert here.said()["fds"] == [0, 1, 2]


async def test_workers_that_are_forked_together_inherit_nothing_of_each_other() -> None:
    async with node("facts") as here:
        names = [f"w{number}" for number in range(2 * FORKS_AT_ONCE + 1)]
        for name in names:
            here.spawn(name)
        for name in names:
            assert (await here.end_of(name)).exit_code == 0
            assert here.said(name)["fds"] == [0, 1, 2]
            assert here.said(name)["pid"] == here.events.pids[name]


async def test_a_worker_keeps_what_it_was_given() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    async with node("facts", keep_fds=(writer,)) as here:
        await here.life_of()
        assert here.said()["fds"] == [0, 1, 2, writer]
    os.close(reader)
    os.close(writer)


async def test_a_worker_is_told_by_its_name() -> None:
    async with node("facts") as here:
        await here.life_of("af12")
        facts = here.said("af12")
        assert facts["comm"] == "actorflow-worker"[:COMM_BYTES_MAX]
        assert facts["cmdline"] == "actorflow-worker af12"


async def test_working_dir_and_search_path(tmp_path: Path) -> None:
    async with node("facts") as here:
        await here.life_of("plain")
        await here.life_of("w1", working_dir=str(tmp_path), sys_path=("/new/one", "/new/two"))
        plain, facts = here.said("plain"), here.said("w1")
        assert facts["cwd"] == str(tmp_path)
        assert facts["path"] == [str(tmp_path), *plain["path"], "/new/one", "/new/two"]


async def test_a_directory_on_the_path_already_is_not_added_again() -> None:
    async with node("facts") as here:
        await here.life_of("plain")
        known = here.said("plain")["path"]
        await here.life_of("w1", sys_path=tuple(known))
        assert here.said("w1")["path"] == known


async def test_no_two_workers_draw_the_same_numbers() -> None:
    async with node("facts", modules=("numpy", "numpy.random")) as here:
        for name in ("w1", "w2", "w3"):
            here.spawn(name)
        for name in ("w1", "w2", "w3"):
            await here.end_of(name)
        drawn = [here.said(name) for name in ("w1", "w2", "w3")]
        assert len({facts["random"] for facts in drawn}) == 3
        assert len({facts["numpy"] for facts in drawn}) == 3


async def test_one_thread_each_for_numeric_libraries_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    async with node("facts", modules=("numpy",)) as here:
        await here.life_of(env={"OMP_NUM_THREADS": "3"})
        found = {name: here.said()["env"][name] for name in THREAD_VARIABLES}
        assert found == {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "7"}


# -- how a worker ends


async def test_a_worker_that_returns_has_succeeded() -> None:
    async with node("tidy") as here:
        assert (await here.life_of()).exit_code == 0
        assert here.output() == "thread\nexit handler\n"


async def test_a_worker_that_fails_says_why() -> None:
    async with node("fail") as here:
        assert (await here.life_of()).exit_code == 1
        assert here.output(stream="stderr").endswith("ZeroDivisionError: a bug\n")


@pytest.mark.parametrize(("said", "code", "stderr"), [("null", 0, ""), ("7", 7, ""), ("-1", 255, ""), ('"words"', 1, "words\n")])
async def test_every_way_to_exit(said: str, code: int, stderr: str) -> None:
    async with node("leave") as here:
        assert (await here.life_of(env={"LEAVE": said})).exit_code == code
        assert here.output(stream="stderr") == stderr


async def test_a_working_dir_that_does_not_exist(tmp_path: Path) -> None:
    async with node("facts") as here:
        assert (await here.life_of(working_dir=str(tmp_path / "nowhere"))).exit_code == 1
        assert "FileNotFoundError" in here.output(stream="stderr")


async def test_all_output_comes_before_the_exit() -> None:
    async with node("chatter") as here:
        await here.life_of()
        assert here.output() == "x" * 1_000_000 + "end"


async def test_output_that_is_no_text_does_not_fail() -> None:
    async with node("odd_text") as here:
        assert (await here.life_of()).exit_code == 0
        assert here.output() == "grüße \\udcff\n"


async def test_the_peak_memory_is_told() -> None:
    async with node("use_memory") as here:
        assert 80_000_000 < (await here.life_of()).peak_memory_bytes < 400_000_000


async def test_zy_3_forgotten_children_die_with_the_worker() -> None:
    async with node("leave_a_child") as here:
        await here.life_of()
        await gone(here.said())


async def test_a_daemon_that_holds_the_output_does_not_hold_up_the_exit() -> None:
    async with node("leave_a_child") as here:
        started_at = time.monotonic()
        await here.life_of(env={"DAEMON": "1"})
        assert time.monotonic() - started_at < 10
        daemon = here.said()
        os.kill(daemon, signal.SIGKILL)
        await gone(daemon)


# -- what cannot be started


async def test_a_module_that_cannot_be_imported_is_named() -> None:
    async with node("facts", modules=("no_such_module",)) as here:
        end = await here.life_of()
        assert end.describe().startswith("could not be started: the zygote could not import")
        assert "No module named 'no_such_module'" in end.detail
        assert (end.exit_code, end.signal, end.pid) == (None, None, 0)


async def test_an_entry_that_does_not_exist_is_named() -> None:
    async with node("no_such_entry") as here:
        assert "no_such_entry" in (await here.life_of()).detail


async def test_a_zygote_with_threads_refuses_to_fork() -> None:
    async with node("facts", modules=("tests.unit.boot.thread_at_import",)) as here:
        detail = (await here.life_of()).detail
        assert "has 2 threads and must have one" in detail
        assert "import it in the worker instead" in detail


async def test_an_environment_that_is_too_large() -> None:
    async with node("facts") as here:
        end = await here.life_of("w1", env={"LARGE": "x" * PACKET_BYTES_MAX})
        assert "environment" in end.detail
        assert (await here.life_of("w2", env={"LARGE": "x" * 100_000})).exit_code == 0


async def test_without_descriptors_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node("facts") as here:
        monkeypatch.setattr(module.os, "pipe2", fails_with_emfile)
        assert "Too many open files" in (await here.life_of()).detail
        monkeypatch.undo()
        assert (await here.life_of("w2")).exit_code == 0


def fails_with_emfile(flags: int) -> tuple[int, int]:
    raise OSError(24, "Too many open files")


# -- deaths


async def test_the_zygote_dies_and_its_workers_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with node("wait") as here:
            for name in ("w1", "w2"):
                here.spawn(name)
            await here.events.until(lambda: here.events.said("w1", b"READY")() and here.events.said("w2", b"READY")())
            pids = [here.events.pids[name] for name in ("w1", "w2")]
            os.kill(here.zygote_pid, signal.SIGKILL)
            for name in ("w1", "w2"):
                end = await here.end_of(name)
                assert end.describe() == "the zygote died, and its workers with it"
            for pid in pids:
                await gone(pid)
            assert "the zygote died" in (await here.life_of("w3")).detail
            here.processes.kill("w3", signal.SIGKILL)
    assert "this node can start no more workers" in caplog.text


async def test_zy_2_the_node_dies_and_everything_with_it() -> None:
    async with node("wait") as here:
        here.spawn()
        await here.events.until(here.events.said("w1", b"READY"))
        # What the death of the node looks like from the zygote.
        here.processes._unlink("for the test")
        await gone(here.events.pids["w1"])
        await gone(here.zygote_pid)


async def test_a_stopped_worker_ends_too() -> None:
    async with node("wait") as here:
        here.spawn()
        await here.events.until(here.events.said("w1", b"READY"))
        here.processes.kill("w1", signal.SIGSTOP)
        await here.processes.stop(0.05)
        assert here.events.exits["w1"].signal in (signal.SIGTERM, signal.SIGKILL)


async def test_an_event_that_fails_does_not_lose_the_others() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    async with node("facts") as here:

        def broken(worker_id: str, stream: str, data: bytes) -> None:
            raise ZeroDivisionError("a bug")

        here.events.process_output = broken  # type: ignore[method-assign]
        assert (await here.life_of()).exit_code == 0
    assert {type(error) for error in reported} == {ZeroDivisionError}


# -- a zygote that is forked, as a node does it

FORKING_NODE = """
import sys
from actorflow._core.boot.zygote import start_zygote
from actorflow._core.io.zygote_link import ZygoteHandle
print("before the fork")
handle = start_zygote((), entry="tests.unit.boot.worker_entries:wait")
assert "asyncio" in sys.modules
import asyncio, signal, uvloop
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.io.processes import ZygoteProcesses
from tests.conformance.worlds import Events

async def main():
    processes, events = ZygoteProcesses(asyncio.get_running_loop(), handle), Events()
    await processes.start(events)
    processes.spawn(WorkerSpec("w1", "job", "n", "a"))
    await events.until(events.said("w1", b"READY"))
    print(handle.pid, events.pids["w1"], flush=True)
    if "die" in sys.argv:
        signal.raise_signal(signal.SIGKILL)
    await processes.stop(5)
    print(events.exits["w1"].describe())

uvloop.run(main())
"""


def run_node(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", FORKING_NODE, *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_node_that_forks_its_zygote() -> None:
    run = run_node()
    assert (run.returncode, run.stderr) == (0, "")
    first, _, last = run.stdout.splitlines()
    assert (first, last) == ("before the fork", "killed by SIGTERM")


async def test_a_node_that_is_killed_leaves_no_process() -> None:
    run = await asyncio.to_thread(run_node, "die")
    assert run.returncode == -signal.SIGKILL
    for pid in map(int, run.stdout.splitlines()[-1].split()):
        await gone(pid)


def test_a_process_with_threads_may_not_fork_a_zygote() -> None:
    code = "import tests.unit.boot.thread_at_import\nfrom actorflow._core.boot.zygote import start_zygote\nstart_zygote(())"
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, env=environ)
    assert run.returncode == 1
    assert "has 2 threads and must have one" in run.stderr


@pytest.mark.parametrize("before", ["", "os.kill(zygote.pid, signal.SIGSTOP)", "zygote.end()"])
def test_a_node_waits_for_the_end_of_its_zygote(before: str) -> None:
    """Also one that has never served: it leaves no process that ends a moment later. Twice is as good as once."""
    code = f"""
import logging, os, signal
from actorflow._core.boot.zygote import start_zygote
logging.basicConfig(format="%(message)s")
zygote = start_zygote(())
{before}
zygote.end(0.2 if {"SIGSTOP" in before} else 30.0)
try:
    os.kill(zygote.pid, 0)
except ProcessLookupError:
    print("ended")
"""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, env=environ)
    assert run.stdout == "ended\n", run.stderr
    assert ("killed" in run.stderr) == ("SIGSTOP" in before)
