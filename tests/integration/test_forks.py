"""Processes that the user forks: os.fork, multiprocessing, a DataLoader, gunicorn with preload (SEMANTICS 29, and 18 in a child)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.integration import leaks
from tests.integration.programs import ROOT, Programs

pytestmark = pytest.mark.local_only("programs with local clusters of their own that fork")

PRELUDE = """
import contextlib, gc, multiprocessing, threading, warnings
import numpy as np

warnings.simplefilter("ignore", DeprecationWarning)  # From Python 3.12 on, of every fork of a process with threads.
MB = 1 << 20


@af.remote
def square(x):
    return x * x

@af.remote
def zeros(n):
    return np.zeros(n * MB, np.uint8)

@af.remote
def numbers(n):
    yield from range(n)

class Counter(af.Actor):
    def __init__(self):
        self.value = 0

    async def add(self, by=1):
        self.value += by
        return self.value

async def put(n, fill):
    return await af.put(np.full(n * MB, fill, np.uint8))

def forked(fn):
    "Run fn in a forked child, and return its pid."
    pid = os.fork()
    if not pid:
        code = 1
        try:
            fn()
            code = 0
        finally:
            sys.stdout.flush()
            if code:
                import traceback
                traceback.print_exc()
            os._exit(code)
    return pid

def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"

def sockets():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:"):
                found.add(link)
    return found
"""


def test_29_every_use_in_a_child_says_what_to_do(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
def child():
    uses = {
        "call": lambda: af.sync(square(2)),
        "remote": lambda: square.remote(2),
        "a reference that is there": lambda: af.sync(ready),
        "a reference that is not": lambda: af.sync(pending),
        "get": lambda: af.sync(af.get([ready])),
        "wait": lambda: af.sync(af.wait([pending])),
        "put": lambda: af.sync(af.put(1)),
        "a stream": lambda: next(stream),
        "an actor": lambda: af.sync(counter.add()),
        "an actor's reference": lambda: counter.add.remote(),
        "a new actor": lambda: Counter.remote(),
        "the context": lambda: af.get_runtime_context(),
        "cancel": lambda: pending.cancel(),
        "state": lambda: af.sync(af.state.list_actors()),
    }
    for name, use in uses.items():
        try:
            use()
        except af.ForkedError as error:
            for word in ("post_fork", "lifespan", f"address={session.address!r}", str(os.getppid())):
                assert word in str(error), (name, word)
        else:
            raise AssertionError(name)
    assert not af.is_initialized()
    assert "ObjectRef" in repr(ready) and "Stream" in repr(stream)
    af.shutdown()  # Ends nothing: it is the parent's.

with af.init(num_cpus=2) as session:
    ready, pending, stream, counter = square.remote(2), af.remote(time.sleep).remote(1), numbers(200), Counter.remote()
    assert af.sync(ready) == 4 and af.sync(counter.add()) == 1 and next(stream) == 0
    wait(forked(child))
    assert af.sync(counter.add()) == 2
    assert list(stream) == list(range(1, 200))
    assert af.sync(pending) is None
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


def test_29_a_child_keeps_no_connection_and_the_parent_keeps_its_epoll_sets(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
before = sockets()

def child():
    assert not sockets() & ours, sockets() & ours
    sys.exit(0)  # With all that the interpreter takes apart at its end.

with af.init(num_cpus=2) as session:
    assert af.sync(square(2)) == 4
    threads = [threading.Thread(target=lambda: af.sync(square(2))) for _ in range(2)]  # Threads with private loops, two of them ended.
    for thread in threads:
        thread.start()
        thread.join()
    go, gone = threading.Event(), []
    waiting = threading.Thread(target=lambda: (af.sync(square(3)), go.wait(), gone.append(af.sync(square(4), timeout=10))))
    waiting.start()
    time.sleep(0.2)
    ours = sockets() - before
    assert ours
    for _ in range(5):
        pid = os.fork()
        if not pid:
            child()
        assert os.waitpid(pid, 0)[1] == 0
        for n in range(50):
            assert af.sync(square(n), timeout=10) == n * n
    go.set()
    waiting.join()
    assert gone == [16]
print("all is well")
"""
    )
    assert program.out() == "all is well\n"
    assert "ResourceWarning" not in program.err()
    assert "event loop" not in program.err()


def test_29_a_fork_in_the_middle_of_a_put(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
stop = threading.Event()
counts = []

def putter(fill):
    made = 0
    while not stop.is_set():
        ref = af.sync(put(3, fill))
        assert af.sync(ref).sum() == fill * 3 * MB
        made += 1
    counts.append(made)

with af.init(num_cpus=1, object_store_memory=256 * MB) as session:
    putters = [threading.Thread(target=putter, args=(fill,)) for fill in (1, 2)]
    for thread in putters:
        thread.start()
    for n in range(30):
        time.sleep(0.01)
        wait(forked(lambda: gc.collect()))
    stop.set()
    for thread in putters:
        thread.join()
    assert len(counts) == 2 and min(counts) > 0, counts
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


@pytest.mark.parametrize("end", ["exits", "is killed", "becomes another program"])
def test_29_views_that_were_alive_at_the_fork_stay_pinned_until_the_child_ends(programs: Programs, end: str) -> None:
    program = programs.run(
        PRELUDE
        + f"end = {end!r}\n"
        + """
def child():
    os.close(go_on)
    os.read(waits, 1)
    assert array.sum() == 7 * 40 * MB, "what the child sees has changed"
    os.write(tells, b"seen")
    time.sleep(0.3)
    if end == "becomes another program":
        os.execvp("sleep", ["sleep", "3"])
    if end == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)

def fits():
    try:
        ref = af.sync(put(40, 9), timeout=0.2)
    except (af.ObjectStoreFullError, af.GetTimeoutError):
        return False
    return True

waits, go_on = os.pipe()
hears, tells = os.pipe()
with af.init(num_cpus=1, object_store_memory=64 * MB) as session:
    ref = af.sync(put(40, 7))
    array = af.sync(ref)
    pid = forked(child)
    os.close(waits)
    del ref, array
    gc.collect()
    time.sleep(0.4)
    assert not fits(), "the room is used again, and a child still looks at it"
    os.close(go_on)
    assert os.read(hears, 4) == b"seen"
    give_up = time.monotonic() + 10
    began = time.monotonic()
    while not fits():
        assert time.monotonic() < give_up, "nobody noticed that the child has ended"
    assert time.monotonic() - began < 2.5
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


def test_29_a_grandchild_keeps_the_pin_as_well(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
def child():
    forked(lambda: (os.read(waits, 1), os.write(tells, b"1" if array.sum() == 7 * 40 * MB else b"0")))

waits, go_on = os.pipe()
hears, tells = os.pipe()
with af.init(num_cpus=1, object_store_memory=64 * MB) as session:
    ref = af.sync(put(40, 7))
    array = af.sync(ref)
    wait(forked(child))
    del ref, array
    gc.collect()
    time.sleep(0.4)
    try:
        af.sync(put(40, 9), timeout=0.3)
        raise SystemExit("the room is used again, and a grandchild still looks at it")
    except (af.ObjectStoreFullError, af.GetTimeoutError):
        pass
    os.write(go_on, b"1")
    assert os.read(hears, 1) == b"1"
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


def test_29_a_child_may_start_or_join_a_cluster_itself(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
def joins():
    af.init(address=session.address, log_to_driver=False)
    assert af.sync(square(5)) == 25
    assert af.sync(af.sync(af.get_actor("shared")).add()) == 2
    assert len(af.sync(zeros(2))) == 2 * MB
    try:
        af.sync(counter.add())  # A handle of the parent's stays the parent's.
        raise AssertionError
    except af.ForkedError:
        pass
    af.shutdown()

def starts():
    with af.init(num_cpus=1, log_to_driver=False) as own:
        assert own.address != session.address
        assert af.sync(square(6)) == 36
        assert af.sync(af.sync(put(2, 1))).sum() == 2 * MB
        wait(forked(forked_again))

def forked_again():
    try:
        square.remote(1)
        raise AssertionError
    except af.ForkedError as error:
        assert str(os.getppid()) in str(error)

with af.init(num_cpus=2) as session:
    counter = Counter.options(name="shared").remote()
    assert af.sync(counter.add()) == 1
    wait(forked(joins))
    assert af.sync(counter.add()) == 3
    wait(forked(starts))
    assert af.sync(counter.add()) == 4
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


@pytest.mark.parametrize("options", [{}, {"mode": "in_process"}, {"inline": True}], ids=["processes", "in_process", "inline"])
def test_29_forks_of_every_kind_of_driver(programs: Programs, options: dict[str, object]) -> None:
    program = programs.run(
        PRELUDE
        + f"options = {options!r}\n"
        + """
def child():
    try:
        square.remote(1)
        raise AssertionError
    except af.ForkedError:
        pass

async def main():
    async with af.init(num_cpus=1, **options):
        assert await square(2) == 4
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0
        assert await asyncio.gather(*[square(n) for n in range(100)]) == [n * n for n in range(100)]
asyncio.run(main())
print("all is well")
"""
    )
    assert program.out() == "all is well\n"


# In tasks and actors ----------------------------------------------------------------------------------------

LOADER = """
def load(n, queue):
    try:
        square.remote(1)
    except af.ForkedError:
        queue.put((n, int(array[n])))

def all_loaded():
    global array
    array = af.sync(zeros(4)) + np.arange(4 * MB, dtype=np.uint8)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    loaders = [context.Process(target=load, args=(n, queue)) for n in (1, 2)]
    for loader in loaders:
        loader.start()
    found = sorted(queue.get(timeout=20) for _ in loaders)
    for loader in loaders:
        loader.join()
    return found, [loader.exitcode for loader in loaders]
"""


def test_29_multiprocessing_inside_a_task_and_inside_actors(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + LOADER
        + """
@af.remote
def task():
    return all_loaded()

class Sync(af.Actor):
    def load(self):
        return all_loaded()

class Async(af.Actor):
    async def load(self):
        return all_loaded()

class Threaded(af.Actor, max_concurrency=2):
    def load(self):
        return all_loaded()

async def main():
    for call in (task, Sync.remote().load, Async.remote().load, Threaded.remote().load):
        found = await call()
        assert found == ([(1, 1), (2, 2)], [0, 0]), (call, found)
        found = await call()
        assert found == ([(1, 1), (2, 2)], [0, 0]), (call, found)
    print("all is well")

af.run(main, num_cpus=4)
"""
    )
    assert program.out() == "all is well\n"


def test_29_a_child_that_returns_from_the_call_that_forked_it_ends(programs: Programs) -> None:
    program = programs.run(
        PRELUDE
        + """
@af.remote
def forgets_to_exit():
    pid = os.fork()
    return os.waitpid(pid, 0)[1] if pid else None

@af.remote
async def forgets_on_the_loop():
    pid = os.fork()
    return os.waitpid(pid, 0)[1] if pid else None

@af.remote
async def forgets_and_closes_what_the_loop_watches():
    # As the child does with sockets of ours: a turn of the loop would end there with SIGABRT, as it is about to watch it.
    reader, writer = os.pipe()
    asyncio.get_running_loop().add_reader(reader, print)
    pid = os.fork()
    if not pid:
        os.close(reader)
        return
    asyncio.get_running_loop().remove_reader(reader)
    os.close(reader)
    os.close(writer)
    return os.waitpid(pid, 0)[1]

class Forgets(af.Actor):
    async def plain(self):
        pid = os.fork()
        return os.waitpid(pid, 0)[1] if pid else None

    async def after_a_turn(self):
        await asyncio.sleep(0)
        return await self.plain()

    async def fails(self):
        pid = os.fork()
        if not pid:
            raise ValueError
        return os.waitpid(pid, 0)[1]

class ForgetsInAThread(af.Actor, max_concurrency=2):
    def call(self):
        pid = os.fork()
        return os.waitpid(pid, 0)[1] if pid else None

async def main():
    actor, threaded = Forgets.remote(), ForgetsInAThread.remote()
    methods = [actor.plain, actor.after_a_turn, actor.fails, threaded.call]
    for f in (forgets_to_exit, forgets_on_the_loop, forgets_and_closes_what_the_loop_watches, *methods):
        for _ in range(2):
            status = await f()
            assert os.waitstatus_to_exitcode(status) == 1, (f, status)
    assert await square(3) == 9
    print("all is well")

af.run(main, num_cpus=3)
"""
    )
    assert "all is well\n" in program.out()
    assert "returned from that call and ends here" in program.err()


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

DATA_LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, n):
        return int(self.array[n]) ** 2

def total():
    array = af.sync(af.sync(af.put(np.arange(100_000)))) [:1000]
    loader = DataLoader(Squares(array), batch_size=100, num_workers=2, multiprocessing_context="fork")
    return sum(int(batch.sum()) for batch in loader)
"""


@needs_torch
@pytest.mark.timeout(120)
def test_29_a_data_loader_inside_a_task_and_in_a_driver(programs: Programs) -> None:
    program = programs.start(
        PRELUDE
        + DATA_LOADER
        + """
@af.remote
def task():
    return total()

expected = sum(n * n for n in range(1000))
with af.init(num_cpus=2, log_to_driver=False):
    assert af.sync(task()) == expected
    assert total() == expected
    assert af.sync(task()) == expected
print("all is well")
"""
    )
    assert program.ends(100) == 0, program.told()
    assert program.out() == "all is well\n"


# The end ----------------------------------------------------------------------------------------------------

FORKED_AND_BUSY = """
def lives_on():
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)
    time.sleep(float(after))

def start():
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=lives_on) for _ in range(2)]
    for child in children:
        child.start()
    return children

@af.remote
def task():
    children = start()
    print("busy in a task", os.getpid(), flush=True)
    time.sleep(60)

with af.init(num_cpus=1):
    array = af.sync(zeros(4))
    children = start()
    ref = task.remote()
    time.sleep(60)
"""


def test_29_kill_9_of_the_parent_ends_the_cluster_though_its_children_live(programs: Programs, home: Path) -> None:
    """The children hold no connection: the node sees the end of its driver at once, and not when they have ended."""
    program = programs.start("after = 4\n" + PRELUDE + FORKED_AND_BUSY)
    program.says("busy in a task")
    program.process.kill()
    assert program.ends() == -signal.SIGKILL
    began = time.monotonic()
    assert leaks.until(lambda: not any("actorflow" in command for command in leaks.processes(home).values()), 3.0)
    assert time.monotonic() - began < 3.5
    children = [command for command in leaks.processes(home).values() if "program" in command]
    assert len(children) == 2, "the two of the driver live a while longer, and those of the task have gone with their worker"
    assert leaks.until(lambda: not leaks.leftovers(home)), leaks.leftovers(home)


@needs_torch
@pytest.mark.timeout(120)
def test_29_kill_9_of_a_process_with_a_data_loader_leaves_nothing(programs: Programs, home: Path) -> None:
    program = programs.start(
        PRELUDE
        + DATA_LOADER
        + """
class Slow(Squares):
    def __getitem__(self, n):
        time.sleep(0.02)
        return 1

with af.init(num_cpus=1):
    for batch in DataLoader(Slow(af.sync(zeros(1))), batch_size=1, num_workers=2, multiprocessing_context="fork"):
        print("busy", flush=True)
"""
    )
    program.says("busy", 60.0)
    program.process.kill()
    assert program.ends() == -signal.SIGKILL
    # A DataLoader's worker looks every five seconds whether its parent lives.
    assert leaks.until(lambda: not leaks.leftovers(home), 20.0), leaks.leftovers(home)


# Servers ----------------------------------------------------------------------------------------------------


def test_29_a_server_that_preloads_its_application(programs: Programs) -> None:
    """As gunicorn --preload does it: the parent imports the application, which starts actorflow, and forks."""
    program = programs.run(
        PRELUDE
        + """
session = af.init(num_cpus=2)
assert af.sync(square(1)) == 1

def serve(n, post_fork):
    try:
        af.sync(square(n))
        raise AssertionError
    except af.ForkedError as error:
        assert "post_fork" in str(error)
    post_fork()
    for _ in range(20):
        assert af.sync(square(n)) == n * n
    async def request():
        return await square(n + 1)
    assert asyncio.run(request()) == (n + 1) ** 2
    print("served", flush=True)

def post_fork():
    af.init(address=session.address)

for pid in [forked(lambda: serve(n, post_fork)) for n in (5, 6)]:
    wait(pid)
assert af.sync(square(9)) == 81
af.shutdown()
"""
    )
    assert program.out() == "served\n" * 2


@pytest.mark.skipif(shutil.which("gunicorn", path=Path(sys.executable).parent) is None, reason="gunicorn is not installed")
def test_29_gunicorn_with_preload(home: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(
            """
            import actorflow as af

            @af.remote
            def square(x):
                return x * x

            session = af.init(num_cpus=1)

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(af.sync(square(7))).encode()]
            """
        )
    )
    (tmp_path / "settings.py").write_text(
        textwrap.dedent(
            """
            bind, workers, preload_app = "unix:web.sock", 2, True

            def post_fork(server, worker):
                import actorflow as af, shop
                try:
                    shop.square.remote(1)
                except af.ForkedError:
                    af.init(address=shop.session.address)

            def post_worker_init(worker):
                open(f"ready-{worker.pid}", "w").close()
            """
        )
    )
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "settings.py", "shop:application"],
            cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        # The file is there before anybody listens.
        assert leaks.until(lambda: _listens(tmp_path / "web.sock"), 60.0), (tmp_path / "log").read_text()
        # A worker that is still on its way does not hear that it is to end, and gunicorn waits half a minute for it.
        assert leaks.until(lambda: len(list(tmp_path.glob("ready-*"))) == 2, 60.0), (tmp_path / "log").read_text()
        for _ in range(4):
            assert _get(tmp_path / "web.sock").endswith(b"49"), (tmp_path / "log").read_text()
    finally:
        server.terminate()
        server.wait(20)


def _listens(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def _get(path: Path) -> bytes:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_29_a_child_forked_while_the_cluster_starts_does_not_keep_it_alive(programs: Programs, home: Path) -> None:
    program = programs.start(
        """
        async def main():
            session = af.init(num_cpus=1, log_to_driver=False)
            pid = os.fork()
            if not pid:
                import gc
                del session
                gc.collect()
                time.sleep(60)
            await session
            assert await af.remote(abs)(-1) == 1
            print("child", pid, "alive", flush=True)
            time.sleep(60)

        asyncio.run(main())
        """
    )
    program.says("alive")
    child = int(program.out().split()[1])
    try:
        assert leaks.files(home)
        program.process.kill()
        assert leaks.until(lambda: not leaks.files(home)), leaks.files(home)
        os.kill(child, 0)  # It lives on.
        assert "Exception ignored" not in program.err(), program.err()
    finally:
        os.kill(child, signal.SIGKILL)
