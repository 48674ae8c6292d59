"""The life of a cluster: every form of its start, every kind of end, and that nothing is left (SEMANTICS 26, 27)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

import actorflow as af
from tests.integration import leaks
from tests.integration.programs import Program, Programs

pytestmark = pytest.mark.local_only("how local clusters start and end")

OPTIONS: dict[str, Any] = {"num_cpus": 2, "log_to_driver": False}


@af.remote
def square(x: int) -> int:
    return x * x


# The forms of init ------------------------------------------------------------------------------------------


def test_a_bare_call_in_blocking_code() -> None:
    session = af.init(**OPTIONS)
    assert af.is_initialized()
    assert af.sync(square(3)) == 9
    assert "running" in repr(session)
    af.shutdown()
    assert not af.is_initialized()
    af.shutdown()  # A second call does nothing.


def test_with() -> None:
    with af.init(**OPTIONS):
        assert af.sync(square(3)) == 9
    assert not af.is_initialized()


async def test_async_with() -> None:
    async with af.init(**OPTIONS):
        assert await square(3) == 9
    assert not af.is_initialized()


async def test_await_and_a_bare_call_on_a_loop() -> None:
    session = await af.init(**OPTIONS)
    assert await square(3) == 9
    await af.shutdown()
    assert "ended" in repr(session)
    af.init(**OPTIONS)
    assert await square(4) == 16
    await af.shutdown()
    await af.shutdown()


def test_run_returns_what_main_returns_and_takes_a_coroutine_or_a_function() -> None:
    async def main() -> int:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        return await square(5)

    assert af.run(main, **OPTIONS) == 25
    assert af.run(main(), **OPTIONS) == 25


def test_an_exception_in_main_comes_out_of_run() -> None:
    async def main() -> None:
        square.remote(2)
        raise LookupError("in main")

    with pytest.raises(LookupError, match="in main"):
        af.run(main, **OPTIONS)
    assert not af.is_initialized()


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
def test_inside_an_applications_own_loop(new_loop: Any, inline: bool) -> None:
    async def application() -> list[int]:
        async with af.init(**OPTIONS, inline=inline):
            return await asyncio.gather(*[square(n) for n in range(100)])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        for _ in range(2):
            assert runner.run(application()) == [n * n for n in range(100)]


async def test_inline_awaits_from_other_threads_work_too() -> None:
    async def use() -> int:
        return await square(7)

    async with af.init(**OPTIONS, inline=True):
        assert await asyncio.to_thread(lambda: asyncio.run(use())) == 49
        assert await asyncio.to_thread(af.sync, square.remote(3)) == 9


def test_inline_without_a_loop_says_what_to_write() -> None:
    with pytest.raises(af.ActorflowError, match="await af.init"):
        with af.init(**OPTIONS, inline=True):
            pass


def test_several_clusters_one_after_another() -> None:
    pids = set()
    for n in range(3):
        with af.init(**OPTIONS):
            assert af.sync(square(n)) == n * n
            pids.add(af.sync(af.remote(os.getpid)()))
    assert len(pids) == 3


def test_the_same_options_twice_are_the_same_session_and_others_an_error_with_the_difference() -> None:
    with af.init(**OPTIONS) as session:
        assert af.init(**OPTIONS) is session
        with pytest.raises(af.AlreadyInitializedError, match=r"num_cpus: 2 is running, 3 was asked for"):
            af.init(num_cpus=3, log_to_driver=False)
        assert af.sync(square(3)) == 9


def test_a_block_that_finds_it_running_leaves_it_running() -> None:
    with af.init(**OPTIONS):
        with af.init(**OPTIONS):
            assert af.sync(square(2)) == 4
        assert af.sync(square(3)) == 9
    assert not af.is_initialized()
    af.init(**OPTIONS)
    with af.init(**OPTIONS):
        pass
    assert af.run(main_of_a_guest, **OPTIONS) == 16
    assert af.sync(square(3)) == 9
    af.shutdown()


async def main_of_a_guest() -> int:
    return await square(4)


def test_a_run_that_cannot_start_leaves_alone_what_runs() -> None:
    with af.init(**OPTIONS):
        with pytest.raises(af.AlreadyInitializedError):
            af.run(main_of_a_guest(), num_cpus=7)
        with pytest.raises(TypeError, match=r"af\.run takes an `async def` function"):
            af.run(3)  # type: ignore[arg-type]
        assert af.sync(square(3)) == 9


def test_the_namespace_of_a_program_is_that_of_its_actors() -> None:
    class Named(af.Actor):
        def ping(self) -> None: ...

    async def keep() -> None:
        named = await Named.options(name="one").remote()
        assert await af.get_actor("one", namespace="mine") == named
        with pytest.raises(af.ActorNotFoundError, match="mine"):
            await af.get_actor("one", namespace="default")

    af.run(keep, **OPTIONS, namespace="mine")


def test_one_printed_line_says_which_cluster_was_joined(capsys: pytest.CaptureFixture[str]) -> None:
    with af.init(**OPTIONS):
        pass
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("actorflow: started a local cluster at ")


def test_init_from_a_thread_that_is_not_the_main_one() -> None:
    results: list[Any] = []

    def work() -> None:
        with af.init(**OPTIONS):
            results.append(af.sync(square(6)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [36]


def test_26_no_signal_handler_is_installed_by_init() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    with af.init(**OPTIONS):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before


@pytest.mark.parametrize("options", [{"inline": True}, {"mode": "in_process"}], ids=str)
async def test_26_no_signal_handler_is_installed_by_other_forms_of_init_either(options: dict[str, Any]) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)
    before = [signal.getsignal(number) for number in numbers]
    async with af.init(**OPTIONS, **options):
        assert await square(3) == 9
        assert [signal.getsignal(number) for number in numbers] == before
    assert [signal.getsignal(number) for number in numbers] == before


def test_27_run_puts_the_handlers_back_that_were_there() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]

    async def main() -> int:
        return await square(3)

    for _ in range(2):
        assert af.run(main, **OPTIONS) == 9
        assert [signal.getsignal(number) for number in numbers] == before


def test_13_a_busy_owner_does_not_hold_up_a_worker_that_has_its_call(tmp_path: Path) -> None:
    """SEMANTICS 13: the value or its place travels with the call, so the worker asks nobody."""

    class Noting(af.Actor):
        def busy(self, seconds: float) -> None:
            time.sleep(seconds)

        def note(self, path: str, small: int, large: bytes) -> None:
            Path(path).write_text(f"{small} {len(large)}")

    async def main() -> None:
        path, noting = tmp_path / "note", await Noting.remote()
        small, large = square.remote(3), await af.put(b"x" * 1_000_000)
        await small
        busy = noting.busy.remote(1.0)
        ref = noting.note.remote(str(path), af.deref(small), af.deref(large))
        await asyncio.sleep(0.2)  # It is in the mailbox of the actor, and has not been looked at.
        assert not path.exists()
        # With inline=True nothing of the owner's protocol runs while this blocks.
        assert leaks.until(lambda: path.exists() and path.read_text() == "9 1000000", 5.0)
        await af.get([busy, ref])

    af.run(main, **OPTIONS, inline=True)


def test_22_a_shared_actor_that_blocks_its_loop_is_named(programs: Programs) -> None:
    program = programs.run(
        """
        class Light(af.Actor, process="shared"):
            async def ping(self):
                return 1

            async def careless(self, seconds):
                time.sleep(seconds)  # the line to blame

        async def main():
            light, careless = Light.remote(), await Light.remote()
            await light.ping()
            await careless.careless(0.4)
            await careless.careless(2.5)
            assert await light.ping() == 1
            await asyncio.sleep(0.3)  # What workers print comes when it comes.

        af.run(main, num_cpus=1)
        """
    )
    told = program.out() + program.err()
    assert told.count("has blocked the loop of this process") == 1, program.told()
    assert "in Light.careless(), has blocked the loop of this process, which 2 shared actors use" in told
    assert "time.sleep(seconds)  # the line to blame" in told


def test_directories_and_sockets_are_for_this_user_only(home: Path) -> None:
    with af.init(**OPTIONS):
        [session] = home.glob("actorflow-*/*")
        assert session.stat().st_mode & 0o777 == 0o700
        assert session.parent.stat().st_mode & 0o777 == 0o700
        assert (session / "node.sock").exists()


def test_in_process_mode_refuses_what_needs_a_process() -> None:
    async def main() -> int:
        with pytest.raises(af.RuntimeEnvError, match="need mode='processes'"):
            await square.options(env_vars={"A": "1"})(3)
        with pytest.raises(af.RuntimeEnvError, match="need mode='processes'"):
            await square.options(working_dir="/")(3)
        return await square(3)

    # With GPUs: that a worker without one is to see none is no reason to refuse it.
    assert af.run(main, num_cpus=2, num_gpus=1, mode="in_process") == 9


def test_in_process_mode_runs_everything_here() -> None:
    async def main() -> int:
        assert await af.remote(os.getpid)() == os.getpid()
        return await square(3)

    assert af.run(main, num_cpus=2, mode="in_process") == 9


@af.remote(num_cpus=0)
async def owns() -> list[Any]:
    return [await af.put(np.ones(200_000, np.uint8))]


@af.remote(num_cpus=0)
class Leases:
    async def ask(self) -> list[Any]:
        return [af.get_runtime_context().process_id, *await owns()]

    async def begin(self) -> None:
        Kept.options(name="kept").remote()


@af.remote(num_cpus=0, max_calls=1)
async def leases_once() -> list[Any]:
    return [af.get_runtime_context().process_id, *await owns()]


@af.remote(num_cpus=0, lifetime="detached")
class Kept:
    async def call(self) -> str:
        return "there"


def test_17_in_process_mode_who_ends_in_order_ends_no_worker_that_owns_what_others_hold() -> None:
    """And has said what it said, as a process has."""

    async def main() -> list[int]:
        sums = []
        for how in ("graceful", "dropped", "task"):
            if how == "task":
                worker_id, ref = await leases_once()
            else:
                actor: Any = Leases.remote()
                worker_id, ref = await actor.ask()
                if how == "graceful":
                    await af.kill(actor, graceful=True)
                del actor
            async with asyncio.timeout(20.0):
                while any(row["worker_id"] == worker_id and row["state"] != "dead" for row in await af.state.list_workers()):
                    await asyncio.sleep(0.05)
            sums.append(int((await asyncio.wait_for(ref, 20.0)).sum()))
        begins = Leases.remote()
        await begins.begin()
        await af.kill(begins, graceful=True)
        assert await (await af.get_actor("kept")).call() == "there"
        return sums

    assert af.run(main, num_cpus=2, mode="in_process") == [200_000] * 3


def test_in_process_mode_lets_def_code_run_a_loop_of_its_own() -> None:
    @af.remote
    def by_run(x: int) -> int:
        async def two() -> int:
            return await square(x) + await square.remote(x)

        return asyncio.run(two())

    with af.init(mode="in_process"):
        assert af.sync(by_run(3)) == 18


def test_8_the_declared_context_and_contextvars_in_process() -> None:
    """SEMANTICS 8: the workers are in this process, and what is not declared does not reach them either."""
    plain: ContextVar[str] = ContextVar("plain", default="unset")
    VARS["plain"] = plain

    class Constructed(af.Actor):
        def __init__(self) -> None:
            self.at_construction = look()

        async def look(self) -> list[Any]:
            await asyncio.sleep(0)
            return [self.at_construction, look()]

    async def main() -> None:
        plain.set("changed again")
        with af.context(tenant="a"):
            actor = Constructed.remote()
            assert await af.remote(look)() == ({"tenant": "a"}, "unset")
            assert [one async for one in af.remote(looks)(2)] == [({"tenant": "a"}, "unset")] * 2
            with af.context(tenant="b"):
                assert await actor.look() == [({"tenant": "a"}, "unset"), ({"tenant": "b"}, "unset")]
                assert await af.remote(look_nested)() == ({"tenant": "b", "step": "2"}, "unset")
        assert await af.remote(look)() == ({}, "unset")
        assert await actor.look() == [({"tenant": "a"}, "unset"), ({}, "unset")]

    plain.set("changed")
    with af.context(tenant="of the start"):
        session = af.init(num_cpus=2, mode="in_process", log_to_driver=False)
    with session:
        af.sync(main())


def test_8_an_actor_is_not_constructed_under_what_a_task_before_it_had() -> None:
    """SEMANTICS 7 and 8: actors get workers that have run tasks."""

    class Constructed(af.Actor, num_cpus=1):
        def __init__(self) -> None:
            self.at_construction = dict(af.context.current()), af.sync(square.options(num_cpus=0)(3))
            self.thread = threading.get_ident()

        def look(self) -> Any:
            return self.at_construction, self.thread

    async def main() -> None:
        with af.context(tenant="a"):
            before = await af.remote(threading.get_ident).options(timeout=0.2)()
        await asyncio.sleep(0.3)
        actor = Constructed.remote()
        assert await actor.look() == (({}, 9), before)

    af.run(main, num_cpus=1, mode="in_process")


VARS: dict[str, ContextVar[str]] = {}


def look() -> Any:
    return dict(af.context.current()), VARS["plain"].get()


def looks(n: int) -> Any:
    for _ in range(n):
        yield look()


def look_nested() -> Any:
    with af.context(step="2"):
        return af.sync(af.remote(look)())


# A second driver --------------------------------------------------------------------------------------------

JOINS = """
    @af.remote
    def square(x):
        return x * x

    async def main():
        shared = await af.get_actor("shared")
        print("squared", await square(6), "added", await shared.add(5), flush=True)

    af.run(main, address=sys.argv[1] if len(sys.argv) > 1 else None)
"""


class Shared(af.Actor):
    def __init__(self) -> None:
        self.value = 100

    def add(self, n: int) -> int:
        self.value += n
        return self.value


async def test_a_second_process_joins_with_address_auto_or_the_variable(programs: Programs, home: Path) -> None:
    async with af.init(**OPTIONS):
        shared = await Shared.options(name="shared").remote()
        joined = programs.start(JOINS, "auto")
        assert await asyncio.to_thread(joined.ends) == 0, joined.told()
        assert "squared 36 added 105" in joined.out()
        assert "joined the cluster" in joined.err()
        by_variable = programs.start(JOINS, env={"ACTORFLOW_ADDRESS": "auto"})
        assert await asyncio.to_thread(by_variable.ends) == 0, by_variable.told()
        assert await shared.add(0) == 110
        assert await square(2) == 4  # The cluster outlives the drivers that joined it.


def test_address_auto_without_a_cluster_is_an_error(programs: Programs) -> None:
    program = programs.start(JOINS, "auto")
    assert program.ends() == 1
    assert "ClusterConnectionError" in program.err()
    assert "af.init()" in program.err()


async def test_the_work_of_a_joined_driver_that_is_killed_ends_with_it(programs: Programs) -> None:
    async with af.init(**OPTIONS):
        joined = programs.start(
            """
            class Kept(af.Actor):
                def pid(self):
                    return os.getpid()

            async def main():
                kept = await Kept.remote()
                print("pid", await kept.pid(), flush=True)
                await af.remote(time.sleep)(60)

            af.run(main, address="auto")
            """
        )
        await asyncio.to_thread(joined.says, "pid ")
        pid = int(joined.out().split()[1])
        joined.process.kill()
        joined.ends()
        assert await asyncio.to_thread(leaks.until, lambda: not Path(f"/proc/{pid}").exists())
        free = af.available_resources
        while (await free())["CPU"] != 2:
            await asyncio.sleep(0.02)
        assert await square(3) == 9


# Ends -------------------------------------------------------------------------------------------------------

BUSY = """
    @af.remote
    def nap(seconds):
        time.sleep(seconds)

    class Counter(af.Actor):
        async def wait(self):
            await asyncio.sleep(60)

    async def main():
        counter = await Counter.remote()
        refs = [nap.remote(60), nap.remote(60), counter.wait.remote()]
        large = await af.put(b"x" * 10_000_000)
        try:
            await asyncio.sleep(0.2)
            print("busy", flush=True)
            await asyncio.gather(*refs)
        finally:
            print("finally", flush=True)
"""


def busy(programs: Programs, rest: str) -> Program:
    program = programs.start(BUSY + rest)
    program.says("busy")
    return program


def test_27_ctrl_c_once_cancels_main(programs: Programs) -> None:
    program = busy(programs, "    af.run(main, num_cpus=2)")
    program.signal(signal.SIGINT)
    assert program.ends(10) != 0
    assert "finally" in program.out()
    assert "KeyboardInterrupt" in program.err()


def test_27_sigterm_counts_as_the_first_ctrl_c(programs: Programs) -> None:
    program = busy(programs, "    af.run(main, num_cpus=2)")
    program.signal(signal.SIGTERM)
    assert program.ends(10) != 0
    assert "finally" in program.out()


def test_27_ctrl_c_twice_gives_up_on_cleanup(programs: Programs) -> None:
    program = programs.start(
        """
        async def main():
            ref = af.remote(time.sleep).remote(60)
            try:
                await asyncio.sleep(0.2)
                print("busy", flush=True)
                await ref
            finally:
                print("stubborn", flush=True)
                await asyncio.sleep(60)

        af.run(main, num_cpus=2)
        """
    )
    program.says("busy")
    program.signal(signal.SIGINT)
    program.says("stubborn")
    program.signal(signal.SIGINT)
    assert program.ends(10) != 0


@pytest.mark.parametrize(
    ("line", "name"),
    [("await nested()  # of a coroutine", "nested"), ("time.sleep(60)  # of blocking code", "main"), ("await ref", "main")],
    ids=["waits", "blocks", "reference"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_27_the_line_that_does_not_listen_is_printed(programs: Programs, number: signal.Signals, line: str, name: str) -> None:
    program = programs.start(
        f"""
        async def nested():
            await asyncio.sleep(60)  # of a coroutine

        async def main():
            ref = af.remote(time.sleep).remote(60)
            try:
                await asyncio.sleep(0.2)
                print("busy", flush=True)
                await asyncio.sleep(60)
            finally:
                {line}

        af.run(main, num_cpus=1)
        """
    )
    program.says("busy")
    program.signal(number)
    assert leaks.until(lambda: "gives up on it" in program.err()), program.told()
    assert f"actorflow: {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'} has cancelled main()" in program.err()
    shown = program.err().partition(" at\n")[2].splitlines()
    assert "program0.py" in shown[0]
    assert shown[0].endswith(f" in {name}")
    assert shown[1].strip() == ("await asyncio.sleep(60)  # of a coroutine" if name == "nested" else line)
    program.signal(signal.SIGINT)
    assert program.ends(10) != 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_27_the_second_one_ends_a_main_that_never_listens(programs: Programs, first: signal.Signals) -> None:
    program = programs.start(
        """
        async def main():
            await af.remote(lambda: 1)()
            print("busy", flush=True)
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    print("no", flush=True)

        try:
            af.run(main, num_cpus=1)
        except KeyboardInterrupt:
            print("given up", flush=True)
        """
    )
    program.says("busy")
    program.signal(first)
    program.says("no")
    program.signal(signal.SIGINT)
    assert program.ends(10) == 0, program.told()
    assert "given up" in program.out()
    assert "Task was destroyed" not in program.err()


def test_27_a_main_that_listens_is_not_told_of(programs: Programs) -> None:
    program = busy(programs, "    af.run(main, num_cpus=2)")
    program.signal(signal.SIGINT)
    program.ends(10)
    assert "goes on" not in program.err()


def test_27_a_ctrl_c_for_the_whole_group_does_not_reach_the_workers(programs: Programs) -> None:
    program = programs.start(
        """
        @af.remote
        def nap():
            time.sleep(1)
            return "slept"

        async def main():
            ref = nap.remote()
            await asyncio.sleep(0.2)
            print("busy", flush=True)
            print(await ref, flush=True)

        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
        af.run(main, num_cpus=1)
        """
    )
    program.says("busy")
    os.killpg(program.pid, signal.SIGINT)
    assert program.ends() == 0, program.told()
    assert "interrupted" in program.out()
    assert "slept" in program.out()


@pytest.mark.parametrize("moment", ["busy", "starting"])
def test_26_kill_9_of_the_driver_leaves_nothing(programs: Programs, home: Path, moment: str) -> None:
    program = programs.start(BUSY + "    af.run(main, num_cpus=2)")
    if moment == "busy":
        program.says("busy")
    else:
        assert leaks.until(lambda: any("node_main" in command for command in leaks.processes(home).values()))
    program.process.kill()
    assert program.ends() == -signal.SIGKILL
    assert leaks.until(lambda: not leaks.leftovers(home)), leaks.leftovers(home)


def test_what_a_driver_left_that_was_killed_before_its_node_started_goes_with_the_next_start(programs: Programs, home: Path) -> None:
    killed = programs.start(
        """
        import subprocess

        async def main():
            pass

        subprocess.Popen = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
        af.run(main)
        """
    )
    assert killed.ends() == -signal.SIGKILL
    [left] = home.glob("actorflow-*/*")
    long_ago = time.time() - 60.0
    os.utime(left, (long_ago, long_ago))
    following = programs.start(BUSY + "    af.run(main, num_cpus=1)")
    following.says("busy")
    assert not left.exists()
    following.process.kill()
    following.ends()
    assert leaks.until(lambda: not leaks.leftovers(home)), leaks.leftovers(home)


def test_26_kill_9_of_a_driver_whose_node_is_ready_and_that_has_not_joined_leaves_nothing(programs: Programs, home: Path) -> None:
    program = programs.start(
        """
        from actorflow._core.boot.node_launch import ClusterPlan, launch

        cluster = launch(ClusterPlan("", {"CPU": 10_000}, 2**26, "default", False, 1))
        print(os.read(cluster._ready_fd, 16), flush=True)
        time.sleep(60)
        """
    )
    program.says("b'ready'")
    program.process.kill()
    assert program.ends() == -signal.SIGKILL
    assert leaks.until(lambda: not leaks.leftovers(home), 5), leaks.leftovers(home)


def test_kill_9_of_the_node_ends_workers_and_every_call(programs: Programs, home: Path) -> None:
    program = programs.start(
        """
        @af.remote
        def nap():
            time.sleep(60)

        async def main():
            refs = [nap.remote() for _ in range(8)]
            await asyncio.sleep(0.2)
            print("busy", flush=True)
            for ref in refs:
                try:
                    await ref
                except af.ActorflowError as error:
                    print(type(error).__name__, flush=True)

        af.run(main, num_cpus=2)
        """
    )
    program.says("busy")
    [node] = [pid for pid, command in leaks.processes(home).items() if "node_main" in command and leaks.parent(pid) == program.pid]
    os.kill(node, signal.SIGKILL)
    assert program.ends(15) == 0, program.told()
    assert program.out().count("ClusterConnectionError") == 8, program.told()


def test_an_exception_in_main_leaves_nothing_and_shows_its_traceback(programs: Programs) -> None:
    program = programs.start(
        BUSY.replace("await asyncio.gather(*refs)", "raise LookupError('in main')") + "    af.run(main, num_cpus=2)"
    )
    assert program.ends() == 1
    assert "LookupError: in main" in program.err()


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "os._exit(4)", "raise SystemExit", "1/0"], ids=["falls off", "exit", "_exit", "SystemExit", "error"]
)
def test_a_program_that_forgets_to_shut_down(programs: Programs, end: str) -> None:
    program = programs.start(
        f"""
        af.init(num_cpus=2)

        @af.remote
        def one():
            return 1

        ref = af.remote(time.sleep).remote(60)
        print(af.sync(one()), flush=True)
        {end}
        """
    )
    code = program.ends(10)
    assert program.out() == "1\n"
    assert code == {"": 0, "sys.exit(3)": 3, "os._exit(4)": 4, "raise SystemExit": 0, "1/0": 1}[end]
    if end != "1/0":
        assert "Traceback" not in program.err()


def test_26_atexit_cleans_up_only_in_the_pid_that_made_the_runtime(programs: Programs) -> None:
    program = programs.run(
        """
        import atexit

        @af.remote
        def one():
            return 1

        af.init(num_cpus=1)
        assert af.sync(one()) == 1
        pid = os.fork()
        if not pid:
            atexit._run_exitfuncs()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(af.sync(one()))
        """
    )
    assert program.out() == "1\n"


def test_29_a_forked_child_that_exits_does_not_end_the_cluster(programs: Programs) -> None:
    program = programs.run(
        """
        @af.remote
        def one():
            return 1

        with af.init(num_cpus=1):
            assert af.sync(one()) == 1
            pid = os.fork()
            if not pid:
                sys.exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            print(af.sync(one()))
        """
    )
    assert program.out() == "1\n"


def test_18_handles_that_go_in_a_forked_child_or_at_exit_change_nothing(programs: Programs) -> None:
    """SEMANTICS 18: ignored when the pid has changed; at exit without a word."""
    program = programs.run(
        """
        import gc

        @af.remote
        def one():
            return 1

        class Counter(af.Actor):
            def add(self):
                return 1

        af.init(num_cpus=2, log_to_driver=False)
        refs, counter = [one.remote() for _ in range(100)], Counter.remote()
        large = af.sync(af.put(b"x" * 1_000_000))
        assert af.sync(counter.add()) == 1
        pid = os.fork()
        if not pid:
            del refs, counter, large
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        time.sleep(0.3)
        assert af.sync(af.get(refs)) == [1] * 100
        assert len(af.sync(large)) == 1_000_000
        assert af.sync(counter.add()) == 1
        print("all there", flush=True)
        cycle = [refs, counter, large]
        cycle.append(cycle)
        """
    )
    assert program.out() == "all there\n"
    assert "Exception ignored" not in program.err()
    assert "Traceback" not in program.err()


def test_26_the_thread_that_started_a_cluster_may_end(programs: Programs) -> None:
    """SEMANTICS 26: the node watches the driver by its socket; a parent-death signal would come with the end of the thread."""
    program = programs.run(
        """
        import threading

        @af.remote
        def one():
            return 1

        thread = threading.Thread(target=lambda: af.init(num_cpus=1, log_to_driver=False))
        thread.start()
        thread.join()
        for _ in range(3):
            assert af.sync(one()) == 1
            time.sleep(0.3)
        print(af.sync(one()))
        """
    )
    assert program.out() == "1\n"


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "return_from_main"])
def test_26_a_forked_child_that_ends_in_any_way_leaves_the_cluster_alone(programs: Programs, end: str) -> None:
    program = programs.run(
        f"""
        @af.remote
        def one():
            return 1

        return_from_main = None
        af.init(num_cpus=1, log_to_driver=False)
        assert af.sync(one()) == 1
        pid = os.fork()
        if not pid:
            {end}
        else:
            assert os.waitpid(pid, 0)[1] == 0
            time.sleep(0.2)
            print(af.sync(one()), flush=True)
        """
    )
    assert program.out() == "1\n"


def test_a_start_is_quick_and_an_end_too() -> None:
    with af.init(**OPTIONS):  # Modules are imported, and files cached.
        pass
    began = time.monotonic()
    with af.init(**OPTIONS):
        assert af.sync(square(2)) == 4
    assert time.monotonic() - began < 5.0  # 0.5 s on an idle machine; this one may be busy.
