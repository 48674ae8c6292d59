"""Actors: kinds, order, concurrency, names, life and death, restarts, checkpoints (SEMANTICS 19-23)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._core.worker import checkpoints
from tests.integration import leaks
from tests.integration.conftest import rows

pytestmark = pytest.mark.usefixtures("cluster")


class Counter(af.Actor):
    """A sync actor."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[int] = []

    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def note(self, n: int) -> None:
        self.seen.append(n)

    def all(self) -> list[int]:
        return self.seen

    def pid(self) -> int:
        return os.getpid()

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Async(af.Actor):
    """An async actor that shows how many of its calls run at once."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.seen: list[int] = []
        self.gate = asyncio.Event()

    async def stay(self, seconds: float) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
        return self.most

    async def note(self, n: int) -> None:
        self.seen.append(n)
        await asyncio.sleep(0)

    async def all(self) -> list[int]:
        return self.seen

    async def wait(self) -> str:
        await self.gate.wait()
        return "opened"

    async def open(self) -> None:
        self.gate.set()


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def state_of(name: str) -> list[str]:
    return [row["state"] for row in await rows("actors") if row["class_name"].endswith(name)]


# Calls ------------------------------------------------------------------------------------------------------


async def test_a_sync_actor_keeps_state_and_a_handle_is_awaited_alive() -> None:
    counter = await Counter.remote(10)
    assert await counter.add() == 11
    assert await counter.add.remote(by=2) == 13
    assert await (await counter.add.submit(3)) == 16


async def test_the_untyped_form_af_remote_on_a_plain_class() -> None:
    @af.remote(num_cpus=1)
    class Plain:
        def __init__(self, x: int) -> None:
            self.x = x

        def get(self) -> int:
            return self.x

    handle = Plain.remote(5)
    assert await handle.get() == 5
    assert await Plain.options(num_cpus=0).remote(6).get.remote() == 6


async def test_20_calls_of_a_sync_actor_run_in_the_order_of_submission() -> None:
    counter = Counter.remote()
    for n in range(2000):
        counter.note.remote(n)
    assert await counter.all() == list(range(2000))


async def test_20_an_async_actor_starts_calls_in_the_order_of_submission() -> None:
    actor = Async.remote()
    for n in range(2000):
        actor.note.remote(n)
    assert await actor.all() == list(range(2000))


async def test_20_a_call_that_waits_for_its_argument_holds_back_those_behind_it() -> None:
    @af.remote
    def slow(n: int) -> int:
        time.sleep(0.2)
        return n

    counter = Counter.remote()
    counter.note.remote(af.deref(slow.remote(1)))
    counter.note.remote(2)
    assert await counter.all() == [1, 2]


async def test_async_calls_run_at_once_up_to_max_concurrency() -> None:
    free, narrow = Async.remote(), Async.options(max_concurrency=2).remote()
    assert max(await asyncio.gather(*[free.stay(0.2) for _ in range(50)])) == 50
    assert max(await asyncio.gather(*[narrow.stay(0.01) for _ in range(8)])) == 2


async def test_async_calls_of_one_actor_can_wait_for_each_other() -> None:
    actor = Async.remote()
    waiting = actor.wait.remote()
    await actor.open()
    assert await waiting == "opened"


async def test_19_def_methods_of_an_async_actor_run_on_its_one_thread() -> None:
    class Mixed(af.Actor):
        def __init__(self) -> None:
            self.made_on = threading.get_ident()

        def sync_thread(self) -> bool:
            return threading.get_ident() == self.made_on

        async def async_thread(self) -> bool:
            return threading.get_ident() == self.made_on

    mixed = Mixed.remote()
    assert await mixed.sync_thread()
    assert await mixed.async_thread()


async def test_19_hooks_do_not_make_an_actor_async_and_one_public_method_does() -> None:
    class Hooks(af.Actor):
        def __init__(self) -> None:
            self.running = 0

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *exc: object) -> None: ...

        async def _private(self) -> None: ...

        def overlap(self) -> int:
            self.running += 1
            time.sleep(0.02)
            found, self.running = self.running, 0
            return found

    class OneAsync(Hooks):
        async def arrive(self, n: int) -> int:
            self.running += 1
            while self.running < n:
                await asyncio.sleep(0.001)
            return self.running

    hooks, one = Hooks.remote(), OneAsync.remote()
    assert await asyncio.gather(*[hooks.overlap() for _ in range(5)]) == [1] * 5
    assert await asyncio.gather(*[one.arrive(5) for _ in range(5)]) == [5] * 5


async def test_19_def_methods_of_an_async_actor_may_use_its_loop() -> None:
    class Mixed(af.Actor):
        def __init__(self) -> None:
            self.done: list[int] = []

        async def use(self) -> None: ...

        def start(self, n: int) -> None:
            self.task = asyncio.get_running_loop().create_task(self._later(n))

        async def _later(self, n: int) -> None:
            await asyncio.sleep(0)
            self.done.append(n)

        def all(self) -> list[int]:
            return self.done

    mixed = Mixed.remote()
    await mixed.start(7)
    while await mixed.all() != [7]:
        await asyncio.sleep(0.01)


async def test_19_a_direct_call_of_any_method_is_awaitable_and_a_generators_is_a_stream() -> None:
    class Every(af.Actor):
        def plain(self) -> int:
            return 1

        async def later(self) -> int:
            return 2

        def items(self) -> Any:
            yield 3

    every = Every.remote()
    assert [await every.plain(), await every.later()] == [1, 2]
    assert [n async for n in every.items()] == [3]


async def test_20_both_forms_of_a_call_and_large_arguments_keep_their_order() -> None:
    class Sized(af.Actor):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def note(self, n: int, data: bytes) -> None:
            self.seen.append(n)

        def all(self) -> list[int]:
            return self.seen

    actor = Sized.remote()  # Not alive yet when the first calls are made.
    calls = []
    for n in range(60):
        data = b"x" * (1_000_000 if n % 7 == 3 else 10)
        if n % 2:
            calls.append(asyncio.ensure_future(actor.note(n, data)))
            await asyncio.sleep(0)  # A direct call is made at its first step.
        else:
            actor.note.remote(n, data)
    await asyncio.gather(*calls)
    assert await actor.all() == list(range(60))


async def test_20_order_is_per_caller_whoever_else_calls() -> None:
    @af.remote
    async def call(actor: Any, who: int, n: int) -> None:
        for step in range(n):
            actor.note.remote(who * 1000 + step)
        await actor.all()

    for actor in (Counter.remote(), Async.remote()):
        await asyncio.gather(*[call(actor, who, 200) for who in range(3)])
        seen = await actor.all()
        assert [[n % 1000 for n in seen if n // 1000 == who] for who in range(3)] == [list(range(200))] * 3


async def test_a_threaded_actor_runs_def_methods_at_once() -> None:
    class Threaded(af.Actor, max_concurrency=3):
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def meet(self) -> int:
            return self.barrier.wait(10)

    threaded = Threaded.remote()
    assert sorted(await asyncio.gather(*[threaded.meet() for _ in range(3)])) == [0, 1, 2]


async def test_concurrency_groups_have_limits_of_their_own() -> None:
    class Grouped(af.Actor, concurrency_groups={"io": 2}):
        def __init__(self) -> None:
            self.running = 0
            self.most = 0

        @af.method(concurrency_group="io")
        async def read(self) -> int:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0.02)
            self.running -= 1
            return self.most

        async def other(self) -> str:
            return "not held up"

    grouped = Grouped.remote()
    reads = [grouped.read.remote() for _ in range(6)]
    assert await grouped.other() == "not held up"
    assert max(await af.get(reads)) == 2


async def test_max_pending_calls_raises_for_remote_and_waits_for_a_direct_call() -> None:
    actor = Async.options(max_pending_calls=2).remote()
    first = [actor.wait.remote(), actor.wait.remote()]
    with pytest.raises(af.PendingCallsLimitExceeded, match="max_pending_calls=2"):
        actor.open.remote()
    direct = asyncio.create_task(actor.all())
    submitted = asyncio.create_task(actor.all.submit())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(direct), 0.05)
    first[0].cancel()
    assert await direct == []
    assert await (await submitted) == []
    with pytest.raises(af.TaskCancelledError):
        await first[0]
    await actor.open()
    assert await first[1] == "opened"


async def test_a_generator_method_is_a_stream() -> None:
    class Source(af.Actor):
        def up_to(self, n: int) -> Any:
            yield from range(n)

        async def down_from(self, n: int) -> Any:
            while n:
                yield n
                n -= 1

    source = Source.remote()
    assert [x async for x in source.up_to(5)] == [0, 1, 2, 3, 4]
    assert [x async for x in source.down_from(3)] == [3, 2, 1]


async def test_an_actor_calls_itself_and_others_through_handles_passed_around() -> None:
    class Relay(af.Actor):
        def __init__(self, target: Any) -> None:
            self.target = target

        async def through(self, n: int) -> int:
            return await self.target.add(n)

        async def give(self) -> Any:
            return self.target

    counter = Counter.remote()
    relay = Relay.remote(counter)
    assert await relay.through(4) == 4
    back = await relay.give()
    assert back == counter
    assert await back.add(1) == 5

    @af.remote
    async def use(handles: list[Any]) -> int:
        return await handles[0].add(10)

    assert await use([counter]) == 15


# Names ------------------------------------------------------------------------------------------------------


async def test_named_actors_are_found_and_names_are_unique() -> None:
    counter = await Counter.options(name="the-counter").remote(1)
    found = await af.get_actor("the-counter")
    assert found == counter
    assert await found.add() == 2
    with pytest.raises(af.ActorAlreadyExistsError, match="the-counter"):
        await Counter.options(name="the-counter").remote()
    with pytest.raises(af.ActorNotFoundError, match="the-counter"):
        await af.get_actor("the-counters")
    await af.kill(counter)
    with pytest.raises(af.ActorNotFoundError):
        await af.get_actor("the-counter")


async def test_get_if_exists_gives_the_one_that_lives() -> None:
    options = Counter.options(name="single", get_if_exists=True)
    many = [options.remote() for _ in range(5)]
    assert sorted(await asyncio.gather(*[one.add() for one in many])) == [1, 2, 3, 4, 5]
    assert len(set(many)) == 1


async def test_namespaces_keep_names_apart() -> None:
    here = await Counter.options(name="twin").remote(1)
    there = await Counter.options(name="twin", namespace="other").remote(100)
    assert here != there
    assert await (await af.get_actor("twin")).add() == 2
    assert await (await af.get_actor("twin", namespace="other")).add() == 101
    with pytest.raises(af.ActorNotFoundError, match="nowhere"):
        await af.get_actor("twin", namespace="nowhere")


class Broken(af.Actor, lifetime="detached"):
    def __init__(self, crash: bool = False) -> None:
        if crash:
            os._exit(7)
        raise ValueError("no such table")

    async def ping(self) -> None: ...


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("held", [False, True])
async def test_a_detached_actor_that_cannot_begin_is_logged_when_nobody_waits_for_it(
    crash: bool, held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"broken {crash} {held}"
    actor = Broken.options(name=name).remote(crash)
    if not held:
        del actor
    async with asyncio.timeout(20):
        while "nobody waits for it" not in caplog.text:
            await asyncio.sleep(0.01)
    [line] = [record.getMessage() for record in caplog.records]
    why = "exited with code 7" if crash else "its constructor raised ValueError: no such table"
    assert line.startswith(f"detached actor {name!r}, ")
    assert "Broken(af-actor-" in line
    assert why in line
    with pytest.raises(af.ActorNotFoundError) as caught:
        await af.get_actor(name)
    assert f"there is no actor named {name!r} in namespace 'default'; the last one is dead: " in str(caught.value)
    assert why in str(caught.value)


async def test_a_detached_actor_that_cannot_begin_is_not_logged_when_somebody_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no such table"):
        await Broken.remote().ping()
    with pytest.raises(ValueError, match="no such table"):
        await Broken.remote()
    assert not caplog.records


async def test_a_detached_actor_outlives_its_handles_until_it_is_killed() -> None:
    await Counter.options(name="kept", lifetime="detached").remote(7)
    gc.collect()
    kept = await af.get_actor("kept")
    assert await kept.add() == 8
    await af.kill(kept)
    with pytest.raises(af.ActorDiedError):
        await kept.add()


# The end ----------------------------------------------------------------------------------------------------


async def test_23_the_last_handle_gone_drains_the_mailbox_and_stops() -> None:
    @af.remote
    def write(path: str, text: str) -> None:
        Path(path).write_text(text)

    class Writer(af.Actor):
        def work(self, path: str) -> None:
            time.sleep(0.05)
            with open(path, "a") as file:
                file.write("x")

        def pid(self) -> int:
            return os.getpid()

    import tempfile

    with tempfile.NamedTemporaryFile("r") as file:
        writer = Writer.remote()
        pid = await writer.pid()
        for _ in range(5):
            writer.work.remote(file.name)
        del writer
        assert await asyncio.to_thread(leaks.until, lambda: is_gone(pid))
        assert file.read() == "xxxxx"


async def test_23_a_handle_to_itself_does_not_count() -> None:
    class Selfish(af.Actor):
        async def keep(self, me: Any) -> int:
            self.me = me
            return os.getpid()

    actor = Selfish.remote()
    pid = await actor.keep(actor)
    del actor
    assert await asyncio.to_thread(leaks.until, lambda: is_gone(pid))


async def test_23_a_cycle_of_handles_leaks_and_is_shown_in_the_state() -> None:
    class Cyclic(af.Actor):
        async def keep(self, other: Any) -> None:
            self.other = other

    one, other = (Cyclic.options(name=name).remote() for name in ("cycle-one", "cycle-other"))
    await asyncio.gather(one.keep(other), other.keep(one))
    del one, other
    gc.collect()
    await asyncio.sleep(0.3)
    shown = [row for row in await rows("actors") if row["class_name"].endswith("Cyclic") and row["state"] == "alive"]
    assert sorted(row["name"] for row in shown) == ["cycle-one", "cycle-other"]
    await af.kill(await af.get_actor("cycle-one"))
    # The other one's last handle was in the one that is gone.
    while [row for row in await rows("actors") if row["name"] == "cycle-other" and row["state"] != "dead"]:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["get_if_exists", "get_actor"])
async def test_23_a_named_actor_of_an_older_cells_class_gets_a_warning(how: str, caplog: pytest.LogCaptureFixture) -> None:
    def run_cell(result: int) -> Any:
        class Cell(af.Actor):
            async def get(self) -> int:
                return result

        return Cell

    old = run_cell(1)
    handle = await old.options(name="of-a-cell").remote()
    assert await (await af.get_actor("of-a-cell")).get() == 1
    assert await old.options(name="of-a-cell", get_if_exists=True).remote().get() == 1
    assert "older definition" not in caplog.text
    new = run_cell(2)
    await new.remote()
    for _ in range(2):
        if how == "get_actor":
            again = await af.get_actor("of-a-cell")
        else:
            again = await new.options(name="of-a-cell", get_if_exists=True).remote()
        assert await again.get() == 1
    assert caplog.text.count("runs an older definition of its class") == 1
    assert "Cell" in caplog.text
    await af.kill(handle)
    assert await new.options(name="of-a-cell", get_if_exists=True).remote().get() == 2


async def test_23_after_the_last_handle_the_mailbox_is_drained_before_the_exit_hook(tmp_path: Path) -> None:
    class Orderly(af.Actor):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exc: object) -> None:
            self.write("exit")

        def write(self, what: str) -> None:
            with open(tmp_path / "story", "a") as file:
                file.write(f"{what} ")

        def work(self, n: int) -> None:
            time.sleep(0.02)
            self.write(str(n))

    orderly = Orderly.remote()
    for n in range(5):
        orderly.work.remote(n)
    del orderly
    story = tmp_path / "story"
    assert await asyncio.to_thread(leaks.until, lambda: story.exists() and "exit" in story.read_text())
    assert story.read_text() == "0 1 2 3 4 exit "


async def test_23_a_handle_inside_another_actor_keeps_it_alive() -> None:
    class Keeper(af.Actor):
        async def take(self, handle: Any) -> None:
            self.handle = handle

        async def ask(self) -> int:
            return await self.handle.add()

    counter, keeper = Counter.remote(), Keeper.remote()
    pid = await counter.pid()
    await keeper.take(counter)
    del counter
    gc.collect()
    assert await keeper.ask() == 1
    del keeper
    assert await asyncio.to_thread(leaks.until, lambda: is_gone(pid))


async def test_kill_ends_an_actor_and_its_calls() -> None:
    counter = await Counter.remote()
    pid = await counter.pid()
    running = counter.sleep.remote(60)
    await af.kill(counter)
    with pytest.raises(af.ActorDiedError):
        await running
    with pytest.raises(af.ActorDiedError):
        await counter.add()
    assert await af.wait_dead(counter)
    assert await asyncio.to_thread(leaks.until, lambda: is_gone(pid))


async def test_a_graceful_kill_runs_what_is_in_the_mailbox() -> None:
    counter = await Counter.remote()
    refs = [counter.sleep.remote(0.05) for _ in range(3)]
    await af.kill(counter, graceful=True)
    assert await af.get(refs, timeout=5) == [0.05] * 3


async def test_a_constructor_that_raises_is_the_error_of_the_handle_and_of_calls() -> None:
    class Broken(af.Actor):
        def __init__(self) -> None:
            raise LookupError("nothing here")

        def get(self) -> int:
            return 1

    broken = Broken.remote()
    with pytest.raises(LookupError, match="nothing here"):
        await broken
    with pytest.raises(LookupError, match="nothing here"):
        await broken.get()


async def test_a_context_manager_actor_is_entered_before_its_first_call_and_left(tmp_path: Path) -> None:
    log = tmp_path / "log"

    class Entered(af.Actor):
        def __init__(self, path: str) -> None:
            self.path = path
            self.inside = False

        async def __aenter__(self) -> Any:
            self.inside = True
            return self

        async def __aexit__(self, *exc: object) -> None:
            Path(self.path).write_text("left")

        async def is_inside(self) -> bool:
            return self.inside

    class Plain(af.Actor):
        def __init__(self, path: str) -> None:
            self.path = path

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *exc: object) -> None:
            Path(self.path).write_text("left")

        def ping(self) -> int:
            return 1

    entered, plain = Entered.remote(str(log)), Plain.remote(str(tmp_path / "plain"))
    assert await entered.is_inside()
    assert await plain.ping() == 1
    del entered, plain
    assert await asyncio.to_thread(leaks.until, log.exists)
    assert await asyncio.to_thread(leaks.until, (tmp_path / "plain").exists)


# Restarts ---------------------------------------------------------------------------------------------------


async def test_a_lost_actor_restarts_within_max_restarts() -> None:
    counter = await Counter.options(max_restarts=1).remote(5)
    assert await counter.add() == 6
    with pytest.raises(af.ActorUnavailableError, match="under way"):
        await counter.die()
    assert await counter.add() == 6  # A new life, from the start.
    with pytest.raises(af.ActorDiedError, match="SIGKILL"):
        await counter.die()
    with pytest.raises(af.ActorDiedError):
        await counter.add()


async def test_max_task_retries_runs_a_call_again_at_most_once_without(tmp_path: Path) -> None:
    class Flaky(af.Actor, max_restarts=2):
        def once(self, path: str) -> str:
            if not os.path.exists(path):
                Path(path).touch()
                os._exit(3)
            return "second life"

    flaky = Flaky.options(max_task_retries=1).remote()
    assert await flaky.once(str(tmp_path / "a")) == "second life"
    strict = Flaky.remote()
    with pytest.raises(af.ActorUnavailableError):
        await strict.once(str(tmp_path / "b"))
    assert await strict.once(str(tmp_path / "b")) == "second life"


async def test_kill_with_no_restart_false_restarts() -> None:
    counter = await Counter.options(max_restarts=1).remote(3)
    pid = await counter.pid()
    await af.kill(counter, no_restart=False)

    async def other_pid() -> bool:
        try:
            return await counter.pid() != pid
        except af.ActorUnavailableError:
            return False

    while not await other_pid():
        await asyncio.sleep(0.01)
    assert await counter.add() == 4


@pytest.mark.parametrize("every", ["call", 0.05])
async def test_21_a_restarted_actor_gets_its_checkpoint(every: Any) -> None:
    class Kept(af.Actor, max_restarts=1, checkpoint_every=every):
        def __init__(self) -> None:
            self.value = 0
            self.how = "made"

        def __checkpoint__(self) -> int:
            return self.value

        async def __restore__(self, state: int) -> None:
            self.value = state
            self.how = "restored"

        def add(self, n: int) -> int:
            self.value += n
            return self.value

        def get(self) -> tuple[int, str]:
            return self.value, self.how

        def die(self) -> None:
            os._exit(1)

    kept = Kept.remote()
    for n in range(10):
        await kept.add(n)
    if every != "call":
        await asyncio.sleep(0.3)  # Time is what this option is about: longer than `every` on any machine.
    with pytest.raises(af.ActorUnavailableError):
        await kept.die()
    assert await kept.get() == (45, "restored")


async def test_21_a_checkpoint_by_time_of_an_async_actor_sees_no_call_half_done() -> None:
    class Bank(af.Actor, max_restarts=1, checkpoint_every=0.1):
        def __init__(self) -> None:
            self.accounts = {"left": 1000, "right": 0}
            self.sums: list[int] = []

        async def move(self, seconds: float) -> None:
            self.accounts["left"] -= 1
            await asyncio.sleep(seconds)
            self.accounts["right"] += 1

        async def look(self) -> tuple[dict[str, int], list[int]]:
            return self.accounts, self.sums

        async def crash(self) -> None:
            os._exit(1)

        async def __checkpoint__(self) -> dict[str, int]:
            await asyncio.sleep(0.001)
            self.sums.append(sum(self.accounts.values()))
            return self.accounts

        def __restore__(self, accounts: dict[str, int]) -> None:
            self.accounts = accounts

    bank = Bank.remote()
    moves = []
    for number in range(300):
        moves.append(bank.move.remote(0.001 * (number % 30)))
        await asyncio.sleep(0.003)
    await af.get(moves)

    async def at_rest() -> bool:
        accounts, sums = await bank.look()
        assert accounts == {"left": 700, "right": 300}
        return len(sums) >= 3

    async with asyncio.timeout(10):
        while not await at_rest():
            await asyncio.sleep(0.02)
    _, sums = await bank.look()
    assert sums == [1000] * len(sums)
    with pytest.raises(af.ActorUnavailableError):
        await bank.crash()
    accounts, _ = await bank.look()
    assert sum(accounts.values()) == 1000
    assert accounts["right"] > 0


@pytest.mark.parametrize("is_async", [False, True])
async def test_21_a_restart_is_init_then_restore_then_calls_and_hooks_have_the_thread_of_calls(is_async: bool, tmp_path: Path) -> None:
    """SEMANTICS 19 and 21."""
    path = tmp_path / "story"

    class Told(af.Actor, max_restarts=1, checkpoint_every="call"):
        def __init__(self, path: str) -> None:
            self.path = path
            self.tell("init")

        def tell(self, what: str) -> None:
            with open(self.path, "a") as file:
                file.write(f"{what} {threading.current_thread() is threading.main_thread()}\n")

        async def __aenter__(self) -> Any:
            self.tell("enter")
            return self

        async def __aexit__(self, *exc: object) -> None:
            self.tell("exit")

        async def __checkpoint__(self) -> str:
            await asyncio.sleep(0)
            self.tell("checkpoint")
            return "state"

        async def __restore__(self, state: str) -> None:
            await asyncio.sleep(0)
            self.tell(f"restore-{state}")

        def call(self) -> None:
            self.tell("call")

        def die(self) -> None:
            os._exit(1)

    if is_async:

        async def extra(self: Any) -> None: ...

        Told.extra = extra  # type: ignore[attr-defined]
    told = Told.remote(str(path))
    await told.call()
    with pytest.raises(af.ActorUnavailableError):
        await told.die()
    await told.call()
    del told
    assert await asyncio.to_thread(leaks.until, lambda: "exit" in path.read_text())
    lines = [line.split() for line in path.read_text().splitlines()]
    once = ["init", "enter", "call", "checkpoint"]
    assert [line[0] for line in lines] == [*once, "init", "restore-state", *once[1:], "exit"]
    assert {line[1] for line in lines} == {"True"}


async def test_21_what_was_acknowledged_is_stored_though_the_checkpoint_takes_its_time(tmp_path: Path) -> None:
    """SEMANTICS 21: `checkpoint_every="call"` holds the reply until the state that the call has made is stored."""

    class Slow(af.Actor, max_restarts=1, checkpoint_every="call"):
        def __init__(self) -> None:
            self.done: list[str] = []

        async def __checkpoint__(self) -> list[str]:
            state = list(self.done)
            await asyncio.sleep(0.1)
            return state

        def __restore__(self, state: list[str]) -> None:
            self.done = state

        async def add(self, what: str, seconds: float) -> str:
            await asyncio.sleep(seconds)
            self.done.append(what)
            return what

        async def all(self) -> list[str]:
            return self.done

        async def die(self) -> None:
            os._exit(1)

    slow = await Slow.remote()
    for round in range(4):
        assert await asyncio.gather(slow.add(f"a{round}", 0.0), slow.add(f"b{round}", 0.05)) == [f"a{round}", f"b{round}"]
    with pytest.raises(af.ActorUnavailableError):
        await slow.die()
    assert sorted(await slow.all()) == sorted([f"{name}{round}" for round in range(4) for name in "ab"])


@pytest.mark.parametrize("problem", ["raises", "lock"])
async def test_21_a_call_whose_state_cannot_be_stored_says_so(problem: str) -> None:
    class Broken(af.Actor, checkpoint_every="call"):
        def __restore__(self, state: Any) -> None: ...

        def __checkpoint__(self) -> Any:
            if problem == "raises":
                raise LookupError("no state")
            return threading.Lock()

        def add(self, n: int) -> int:
            return n + 1

    broken = Broken.remote()
    outcomes = await asyncio.wait_for(asyncio.gather(*(broken.add(n) for n in range(3)), return_exceptions=True), 10)
    why = "LookupError: no state" if problem == "raises" else "cannot pickle"
    assert [type(one) for one in outcomes] == [af.CheckpointError] * 3 and all(why in str(one) for one in outcomes)


class Item:
    def __init__(self, number: int) -> None:
        self.number = number


async def test_21_a_state_is_not_pickled_while_calls_on_threads_change_it() -> None:
    class Table(af.Actor, num_cpus=0, max_concurrency=4, checkpoint_every="call"):
        def __init__(self) -> None:
            self.items: dict[Any, Item] = {number: Item(number) for number in range(5000)}

        def __checkpoint__(self) -> Any:
            return self.items

        def __restore__(self, items: Any) -> None:
            self.items = items

        def put(self, key: int) -> int:
            for number in range(10):
                self.items[key, number] = Item(number)
                time.sleep(0.001)
            return key

    table = Table.remote()
    assert await asyncio.gather(*(table.put(key) for key in range(20))) == list(range(20))


async def test_21_a_call_on_a_thread_is_answered_while_another_waits_for_it_or_lasts() -> None:
    class Table(af.Actor, num_cpus=0, max_restarts=1, max_concurrency=4, checkpoint_every="call"):
        def __init__(self) -> None:
            checkpoints.QUIET_S = 0.3
            self.count = 0
            self.ends = threading.Event()

        def __checkpoint__(self) -> int:
            return self.count

        def __restore__(self, count: int) -> None:
            self.count = count

        def inner(self) -> int:
            self.count += 1
            return self.count

        def outer(self, table: Any) -> int:
            return int(af.sync(table.inner()))

        def lasts(self) -> None:
            self.ends.wait()

        def end(self) -> None:
            self.ends.set()

        def crash(self) -> None:
            os._exit(1)

    table = Table.remote()
    assert await asyncio.wait_for(table.outer(table), 20.0) == 1
    lasts = table.lasts.remote()
    assert [await asyncio.wait_for(table.inner(), 20.0) for _ in range(20)] == list(range(2, 22))
    assert not lasts.done()
    await table.end()
    await lasts
    with pytest.raises(af.ActorUnavailableError):
        await table.crash()
    assert await table.inner() == 22


# Shared actors ----------------------------------------------------------------------------------------------


class Light(af.Actor, process="shared", num_cpus=0):
    """One of many in a process."""

    def __init__(self) -> None:
        self.value = 0

    async def add(self, by: int) -> int:
        self.value += by
        return self.value

    async def pid(self) -> int:
        return os.getpid()

    async def never(self) -> None:
        await asyncio.Event().wait()


async def test_22_shared_actors_live_in_one_process_and_keep_their_own_state() -> None:
    many = [Light.remote() for _ in range(200)]
    assert await asyncio.gather(*[one.add(n) for n, one in enumerate(many)]) == list(range(200))
    assert len(set(await asyncio.gather(*[one.pid() for one in many]))) <= 2


async def test_22_a_killed_shared_actor_leaves_its_neighbours_alone() -> None:
    one, other = await Light.remote(), await Light.remote()
    running = one.never.remote()
    await af.kill(one)
    with pytest.raises(af.ActorDiedError):
        await running
    assert await other.add(1) == 1


class Shelf(af.Actor, process="shared", num_cpus=0):
    """Keeps handles: to itself, and to others in its process."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def keep(self, handle: Any) -> int:
        self.kept.append(handle)
        return os.getpid()

    async def make(self) -> str:
        """A shared actor that this one owns, and that gets a handle to itself."""
        self.child = Shelf.remote()
        await self.child.keep(self.child)
        return repr(self.child)

    async def give(self) -> Any:
        return self.kept[0]

    async def pass_on(self, other: Any) -> None:
        await other.keep(self.kept[0])

    async def call_kept(self) -> int:
        return int(await self.kept[0].count())

    async def count(self) -> int:
        return len(self.kept)

    async def drop(self) -> None:
        self.kept.clear()


async def state_by_id(handle_text: str) -> str:
    """The state of an actor, by the text of a handle that may be gone."""
    return next(row["state"] for row in await af.state.list_actors() if row["actor_id"] in handle_text)


async def out_of_scope(handle_text: str) -> bool:
    """True when the last handle of an actor of ours is gone. All that were dropped here are counted first."""
    gc.collect()
    core: Any = _runtime.current()
    with core.lock:
        core.references.drain()
    [row] = [row for row in await af.state.list_actors() if row["actor_id"] in handle_text]
    return row["state"] == "dead" or any("out of scope" in line for line in row["story"])


async def ends(handle_text: str) -> bool:
    async with asyncio.timeout(10):
        while await state_by_id(handle_text) != "dead":
            gc.collect()
            await asyncio.sleep(0.01)
    return True


async def test_23_a_shared_actors_handle_to_itself_does_not_count() -> None:
    neighbour = await Light.remote()
    shelf = Shelf.remote()
    assert await shelf.keep(shelf) == await neighbour.pid()
    assert await shelf.call_kept() == 1, "it can be used all the same"
    name = repr(shelf)
    del shelf
    assert await ends(name)
    assert await neighbour.add(1) == 1


async def test_23_a_handle_to_a_neighbour_in_the_same_process_counts() -> None:
    one, other = Shelf.remote(), Shelf.remote()
    assert await one.keep(one) == await other.keep(one)
    name = repr(one)
    del one
    gc.collect()
    assert await other.call_kept() == 1
    assert not await out_of_scope(name)
    assert await other.call_kept() == 1
    await other.drop()
    assert await ends(name)


async def test_23_a_shared_actor_hands_itself_on() -> None:
    """What it gives away counts, for a neighbour and for another process, though what it keeps does not."""
    one, other = Shelf.remote(), Shelf.remote()
    await one.keep(one)
    await one.pass_on(other)
    returned = await one.give()
    name = repr(one)
    del one
    gc.collect()
    assert await returned.count() == 1
    del returned
    assert not await out_of_scope(name)
    assert await other.call_kept() == 1
    await other.drop()
    assert await ends(name)


async def test_23_a_shared_actor_that_a_neighbour_made_and_that_keeps_itself() -> None:
    parent = Shelf.remote()
    name = await parent.make()
    assert await state_by_id(name) == "alive"
    del parent
    assert await ends(name)


async def test_22_a_kill_cancels_what_runs_and_what_waits_never_starts(tmp_path: Path) -> None:
    class Notes(af.Actor, process="shared", max_concurrency=1):
        async def work(self, path: str) -> None:
            Path(path).write_text("started")
            try:
                await asyncio.Event().wait()
            finally:
                Path(path).write_text("cancelled")

    running, waiting = tmp_path / "running", tmp_path / "waiting"
    notes = await Notes.remote()
    refs = [notes.work.remote(str(running)), notes.work.remote(str(waiting))]
    assert await asyncio.to_thread(leaks.until, running.exists)
    await af.kill(notes)
    for ref in refs:
        with pytest.raises(af.ActorDiedError):
            await ref
    assert await asyncio.to_thread(leaks.until, lambda: running.read_text() == "cancelled")
    assert not waiting.exists()


@pytest.mark.parametrize("how", ["swallows", pytest.param("blocks", marks=pytest.mark.slow)])
async def test_22_who_does_not_listen_to_a_kill_takes_its_process_along_and_co_tenants_restart_for_free(how: str, tmp_path: Path) -> None:
    """SEMANTICS 22: within the grace of 5 s, and without spending `max_restarts`."""

    class Stubborn(af.Actor, process="shared"):
        async def hang(self, path: str) -> None:
            Path(path).touch()
            while how == "blocks":
                time.sleep(0.1)  # noqa: ASYNC251  # its loop is blocked
            while True:
                try:
                    await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    continue

        async def pid(self) -> int:
            return os.getpid()

    started = tmp_path / "started"
    stubborn, neighbour = await Stubborn.remote(), await Light.options(max_restarts=1).remote()
    pid = await neighbour.pid()
    assert await stubborn.pid() == pid
    stubborn.hang.remote(str(started))
    assert await asyncio.to_thread(leaks.until, started.exists)
    began = time.monotonic()
    await af.kill(stubborn)
    assert await asyncio.to_thread(leaks.until, lambda: is_gone(pid), 20.0)
    assert time.monotonic() - began > 3.0
    while True:
        try:
            assert await neighbour.pid() != pid
            break
        except af.ActorUnavailableError:
            await asyncio.sleep(0.01)
    [row] = [row for row in await rows("actors") if row["class_name"].endswith("Light") and row["state"] == "alive"]
    assert row["restarts"] == 0, row


async def test_22_def_methods_and_cpus_are_refused_for_shared_actors() -> None:
    with pytest.raises(af.OptionError, match="blocking"):

        class Blocking(af.Actor, process="shared"):
            def blocking(self) -> None: ...

    for demand in ({"num_cpus": 1}, {"num_gpus": 1}, {"num_gpus": 0.5}):
        with pytest.raises(af.OptionError, match="shared"):
            Light.options(**demand)


async def test_who_waits_for_an_actor_and_is_held_by_nobody_else_is_not_collected() -> None:
    """asyncio holds tasks weakly, and the table of actors its handles: something must hold both."""

    class Plain(af.Actor):
        async def ping(self) -> str:
            return "pong"

    gone: list[str] = []

    def let_go() -> None:
        async def end(actor: Any) -> None:
            gone.append(await af.wait_dead(actor))

        actor = Plain.options(name="to be waited for").remote()
        task = asyncio.get_running_loop().create_task(end(actor))
        task.add_done_callback(lambda _: None)

    let_go()
    await (await af.get_actor("to be waited for")).ping()
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)
    await af.kill(await af.get_actor("to be waited for"))
    assert await asyncio.to_thread(leaks.until, lambda: gone)
