"""Errors that teach: what went wrong, where, and what to do next (SEMANTICS 10, and what bad input gets)."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")


class Refused(Exception):
    """An error with a constructor of its own and attributes."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"refused with {code}")
        self.code = code
        self.detail = detail


# Remote exceptions ------------------------------------------------------------------------------------------


async def test_10_a_remote_exception_is_also_of_its_own_type() -> None:
    @af.remote
    def fail() -> None:
        raise Refused(7, detail="too late")

    with pytest.raises(Refused) as caught:
        await fail()
    error: Any = caught.value
    assert isinstance(error, af.TaskError)
    assert (error.code, error.detail) == (7, "too late")
    assert "refused with 7" in str(error)
    assert error.function_name.endswith("fail")
    assert error.pid != os.getpid()


async def test_10_through_several_hops_the_type_stays_and_every_hop_is_told() -> None:
    @af.remote
    def innermost(x: int) -> float:
        return 1 / x

    @af.remote
    async def middle(x: int) -> float:
        return await innermost(x)

    class Outer(af.Actor):
        async def call(self, x: int) -> float:
            return await middle(x)

    outer = Outer.remote()
    with pytest.raises(ZeroDivisionError) as caught:
        await outer.call(0)
    error: Any = caught.value
    assert [hop.function_name.split(".")[-1] for hop in error.hops] == ["call", "middle", "innermost"]
    shown = "".join(traceback.format_exception(error))
    assert "return 1 / x" in shown
    assert "return await middle(x)" in shown
    assert shown.index("return await middle(x)") < shown.index("return 1 / x")
    assert "actorflow/_core" not in shown.split("return await middle(x)")[1]


async def test_10_an_error_survives_another_pickle() -> None:
    @af.remote
    def fail() -> None:
        raise Refused(7, detail="too late")

    with pytest.raises(Refused) as caught:
        await fail()
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, Refused)
    assert again.detail == "too late"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_10_what_must_not_be_raised_here_comes_wrapped(kind: type[BaseException]) -> None:
    @af.remote
    def fail() -> None:
        raise kind("out of the ordinary")

    with pytest.raises(af.TaskError, match="out of the ordinary") as caught:
        await fail()
    assert not isinstance(caught.value, kind)

    @af.remote
    async def fail_async() -> None:
        raise kind("out of the ordinary")

    if kind is not StopIteration:  # A coroutine cannot raise it: Python makes it a RuntimeError.
        with pytest.raises(af.TaskError, match="out of the ordinary"):
            await fail_async()


async def test_an_error_of_a_class_from_main_code_and_an_exception_group() -> None:
    class Local(ValueError):
        pass

    @af.remote
    def fail() -> None:
        raise Local("made here")

    @af.remote
    async def fail_all() -> None:
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

    with pytest.raises(ValueError, match="made here") as caught:
        await fail()
    assert type(caught.value).__mro__[1:].count(Local) == 1 or isinstance(caught.value, Local)
    with pytest.raises(ExceptionGroup) as group:
        await fail_all()
    assert group.group_contains(ValueError, match="one")


# Values that cannot travel ----------------------------------------------------------------------------------


async def test_an_unpicklable_argument_is_named_by_its_path() -> None:
    @af.remote
    def take(value: Any) -> None: ...

    with pytest.raises(af.SerializationError) as caught:
        take.remote({"config": {"locks": [threading.Lock()]}})
    assert "'config'" in str(caught.value)
    assert "'locks'" in str(caught.value)
    assert "lock" in str(caught.value)


async def test_an_unpicklable_result_and_exception_are_named_by_their_paths() -> None:
    class Holder:
        def __init__(self) -> None:
            self.handle = threading.Lock()

    @af.remote
    def give() -> Any:
        return [1, Holder()]

    class Heavy(Exception):
        pass

    @af.remote
    def fail() -> None:
        error = Heavy("heavy")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(af.SerializationError, match=r"\[1\]\.handle"):
        await give()
    with pytest.raises(af.TaskError, match="heavy"):
        await fail()


async def test_a_lambda_that_captures_a_socket_says_so() -> None:
    with socket.socket() as sock:
        task = af.remote(lambda: sock.fileno())
        with pytest.raises(af.SerializationError, match="sock") as caught:
            task.remote()
        assert "socket" in str(caught.value)
        with pytest.raises(af.SerializationError, match="sock"):
            await task()
        with pytest.raises(af.SerializationError):
            await af.put(sock)


# Wrong calls ------------------------------------------------------------------------------------------------


async def test_wrong_arguments_are_told_before_anything_is_sent() -> None:
    @af.remote
    def two(a: int, b: int) -> int:
        return a + b

    class Takes(af.Actor):
        def __init__(self, size: int) -> None:
            self.size = size

        def get(self, key: str) -> int:
            return self.size

    for wrong in (lambda: two.remote(1), lambda: two(1, 2, 3), lambda: two.remote(1, c=2), lambda: Takes.remote()):
        with pytest.raises(TypeError, match="test_errors"):
            wrong()
    takes = Takes.remote(1)
    with pytest.raises(TypeError, match="key"):
        takes.get.remote()
    with pytest.raises(AttributeError, match="Did you mean: 'get'|Did you mean 'get'"):
        takes.gett


# What can never run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("demand", [{"num_cpus": 64}, {"num_gpus": 3}, {"resources": {"special": 3}}, {"resources": {"none": 1}}])
async def test_an_infeasible_task_or_actor_is_told_within_a_second(demand: dict[str, Any]) -> None:
    @af.remote(**demand)
    def big() -> None: ...

    class Big(af.Actor, **demand):
        def ping(self) -> None: ...

    began = time.monotonic()
    with pytest.raises(af.TaskUnschedulableError, match=r"(?s)CPU|GPU|special|none"):
        await big()
    with pytest.raises(af.ActorUnschedulableError, match=r"(?s)CPU|GPU|special|none"):
        await Big.remote()
    assert time.monotonic() - began < 2.0


async def test_infeasible_memory_is_told() -> None:
    @af.remote(memory="1TiB")
    def big() -> None: ...

    with pytest.raises(af.TaskUnschedulableError, match="memory"):
        await big()


# Dead workers -----------------------------------------------------------------------------------------------


async def test_a_dead_workers_signal_and_last_lines_are_in_the_error() -> None:
    @af.remote(max_retries=0)
    def die() -> None:
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    with pytest.raises(af.WorkerCrashedError, match="SIGSEGV") as caught:
        await die()
    error = caught.value
    assert "the last words" in str(error)
    assert error.signal == signal.SIGSEGV
    assert error.exit_code is None
    assert error.pid > 0
    assert error.function_name.endswith("die")
    assert any("the last words" in line for line in error.log_tail)
    assert error.peak_memory_bytes > 1_000_000


async def test_an_exit_code_is_in_the_error() -> None:
    @af.remote(max_retries=0)
    def leave() -> None:
        sys.stderr.write("leaving with 17\n")
        os._exit(17)

    with pytest.raises(af.WorkerCrashedError, match="17") as caught:
        await leave()
    assert caught.value.exit_code == 17
    assert caught.value.signal is None
    assert "leaving with 17" in str(caught.value)


async def test_the_last_lines_of_a_lost_actor_stand_at_the_end_of_the_error_of_its_call() -> None:
    class Restarts(af.Actor, max_restarts=1):
        def die(self) -> None:
            print("line 1\nline 2", flush=True)
            os._exit(3)

    actor = await Restarts.remote()
    with pytest.raises(af.ActorUnavailableError) as caught:
        await actor.die()
    first, *lines = str(caught.value).splitlines()
    assert re.fullmatch(
        r"Restarts\(af-actor-\w+\)\.die was under way when the actor was lost, and may or may not have run: worker \w+ .* exited with "
        r"code 3; its peak memory was .* MiB\. The actor restarts: call again, or set max_task_retries to have it tried again\.",
        first,
    )
    assert lines[0] == "Its last output:"
    assert lines[-2:] == ["  line 1", "  line 2"]


async def test_the_error_of_a_call_whose_tries_are_used_up_says_so() -> None:
    class Restarts(af.Actor, max_restarts=-1, max_task_retries=1):
        def die(self) -> None:
            os._exit(5)

    actor = await Restarts.remote()
    with pytest.raises(af.ActorUnavailableError) as caught:
        await actor.die()
    first = str(caught.value).splitlines()[0]
    assert ".die (attempt 2) was under way when the actor was lost" in first
    assert first.endswith("The actor restarts: call again, or set a larger max_task_retries, as those are used up.")


async def test_a_dead_actors_story_is_in_the_error() -> None:
    class Fragile(af.Actor):
        def die(self) -> None:
            print("an actor's last words", flush=True)
            os._exit(3)

    fragile = await Fragile.remote()
    with pytest.raises(af.ActorDiedError, match="an actor's last words") as caught:
        await fragile.die()
    assert "max_restarts" in str(caught.value)
    assert "Fragile" in caught.value.actor


async def test_an_unretrieved_failure_is_logged_once_with_its_call_site_rule_1(caplog: pytest.LogCaptureFixture) -> None:
    @af.remote
    def fail() -> None:
        raise LookupError("nobody looks")

    fail.remote()
    while "nobody looks" not in caplog.text:
        await asyncio.sleep(0.01)
    [record] = [record for record in caplog.records if "nobody looks" in record.getMessage()]
    assert "test_errors.py" in record.getMessage()


async def test_1_a_failure_that_somebody_has_seen_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    @af.remote
    def fail(words: str) -> None:
        raise LookupError(words)

    @af.remote
    async def look(refs: list[Any]) -> str:
        try:
            await refs[0]
        except LookupError:
            return "seen there"
        return "no error"

    for use in (lambda ref: af.get(ref), lambda ref: look([ref]), lambda ref: look(ref)):
        ref = fail.remote("somebody looks")
        try:
            assert await use(ref) == "seen there"
        except LookupError:
            pass
        del ref
    cancelled = af.remote(time.sleep).remote(0.2)
    cancelled.cancel()
    del cancelled
    fail.remote("nobody looks")
    while "nobody looks" not in caplog.text:
        await asyncio.sleep(0.01)
    assert "somebody looks" not in caplog.text
    assert "cancelled" not in caplog.text


async def test_1_an_unretrieved_failure_of_an_actors_method_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(af.Actor):
        def fail(self) -> None:
            raise LookupError("nobody looks at it")

        def ping(self) -> None: ...

    fails = Fails.remote()
    for _ in range(3):
        fails.fail.remote()
    await fails.ping()
    while caplog.text.count("nobody looks at it") < 3:
        await asyncio.sleep(0.01)
    await fails.ping()
    assert caplog.text.count("nobody looks at it") == 3
    assert caplog.text.count("test_errors.py:") >= 3
