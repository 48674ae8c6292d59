"""Calls that failed wait before they are tried again, and may end, be cancelled and be counted as any that wait (RY-1, RY-2)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import simulate

AT: list[float] = []
"""When the attempts began. All simulated processes share this module."""


def attempt() -> int:
    """One begins; returns which, from 1."""
    AT.append(asyncio.get_running_loop().time())
    return len(AT)


def end_process() -> None:
    raise SystemExit(3)


@af.remote(num_cpus=0.1, retry_exceptions=True, max_retries=4)
async def raises(times: int) -> int:
    number = attempt()
    if number <= times:
        raise ConnectionError(f"attempt {number}")
    return number


@af.remote(num_cpus=0.1, max_retries=4)
async def ends(times: int) -> int:
    number = attempt()
    if number <= times:
        asyncio.get_running_loop().call_soon(end_process)
        await asyncio.Event().wait()
    return number


class Flaky(af.Actor, max_task_retries=5):
    def __init__(self) -> None:
        self.stops = False

    @af.method(retry_exceptions=True, retry_delay=1.0)
    async def raises(self, times: int) -> int:
        number = attempt()
        if number <= times:
            raise ConnectionError(f"attempt {number}")
        return number

    async def quick(self) -> str:
        return "quick"


def pauses() -> list[float]:
    return [later - earlier for earlier, later in zip(AT, AT[1:], strict=False)]


def run(program: Callable[[], Awaitable[Any]], seed: int) -> Any:
    AT.clear()
    return simulate(program, seed=seed)


def test_ry_2_the_pauses_after_exceptions_double(sim_seed: int) -> None:
    async def program() -> int:
        return await raises.options(retry_delay=2.0)(4)

    assert run(program, sim_seed) == 5
    for number, pause in enumerate(pauses()):
        assert 2.0**number <= pause <= 2.0 ** (number + 1) + 0.5


def test_ry_2_none_is_made_when_none_is_wanted(sim_seed: int) -> None:
    async def program() -> int:
        return await raises.options(retry_delay=0)(4)

    assert run(program, sim_seed) == 5
    assert AT[-1] - AT[0] < 0.5


def test_ry_1_what_ends_its_worker_is_made_again_at_once_and_then_ever_later(sim_seed: int) -> None:
    async def program() -> int:
        return await ends(4)

    assert run(program, sim_seed) == 5
    for pause, least in zip(pauses(), (0.0, 0.05, 0.1, 0.2), strict=True):
        assert least <= pause < 2 * least + 1.0


def test_ry_2_others_of_the_actor_do_not_wait_for_one_that_does(sim_seed: int) -> None:
    async def program() -> tuple[int, str, float]:
        flaky = Flaky.remote()
        slow = flaky.raises.remote(3)
        while not AT:
            await asyncio.sleep(0.01)
        began = asyncio.get_running_loop().time()
        quick = await flaky.quick()
        quick_s = asyncio.get_running_loop().time() - began
        return await slow, quick, quick_s

    value, quick, quick_s = run(program, sim_seed)
    assert (value, quick) == (4, "quick")
    assert quick_s < 0.4
    assert AT[-1] - AT[0] >= 0.5 + 1.0 + 2.0


@pytest.mark.parametrize("what", ["task", "method"])
def test_a_call_is_cancelled_in_its_pause(what: str, sim_seed: int) -> None:
    async def program() -> float:
        flaky = Flaky.remote()
        method: Any = raises if what == "task" else flaky.raises
        call = method.options(retry_delay=50.0).remote(9)
        while not AT:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        call.cancel()
        with pytest.raises(af.TaskCancelledError):
            await call
        assert await flaky.quick() == "quick"
        return asyncio.get_running_loop().time() - began

    assert run(program, sim_seed) < 1.0
    assert len(AT) == 1


@pytest.mark.parametrize("what", ["task", "method"])
def test_a_timeout_ends_a_call_in_its_pause(what: str, sim_seed: int) -> None:
    async def program() -> float:
        flaky = Flaky.remote()
        began = asyncio.get_running_loop().time()
        with pytest.raises(af.TaskTimeoutError):
            if what == "task":
                await raises.options(retry_delay=50.0, timeout=5.0)(9)
            else:
                await flaky.raises.options(retry_delay=50.0, timeout=5.0)(9)
        return asyncio.get_running_loop().time() - began

    assert run(program, sim_seed) < 7.0
    assert len(AT) == 1


def test_rule_23_an_actor_whose_last_handle_is_gone_stays_for_a_call_in_its_pause(sim_seed: int) -> None:
    async def program() -> int:
        call = Flaky.remote().raises.remote(2)
        return await call

    assert run(program, sim_seed) == 3


def test_a_graceful_end_waits_for_a_call_in_its_pause(sim_seed: int) -> None:
    async def program() -> int:
        flaky = Flaky.remote()
        call = flaky.raises.remote(2)
        while not AT:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await af.kill(flaky, graceful=True)
        return await call

    assert run(program, sim_seed) == 3


def test_a_call_in_its_pause_counts_for_max_pending_calls(sim_seed: int) -> None:
    async def program() -> int:
        flaky = Flaky.options(max_pending_calls=1).remote()
        call = flaky.raises.remote(1)
        while not AT:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        with pytest.raises(af.PendingCallsLimitExceeded):
            flaky.quick.remote()
        assert await call == 2
        assert await flaky.quick.remote() == "quick"
        return len(AT)

    assert run(program, sim_seed) == 2


def test_a_call_in_its_pause_ends_with_its_actor(sim_seed: int) -> None:
    async def program() -> float:
        flaky = Flaky.remote()
        call = flaky.raises.options(retry_delay=50.0).remote(9)
        while not AT:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        await af.kill(flaky)
        with pytest.raises(af.ActorDiedError):
            await call
        return asyncio.get_running_loop().time() - began

    assert run(program, sim_seed) < 5.0


def test_ry_2_a_detached_call_pauses_too(sim_seed: int) -> None:
    async def program() -> int:
        return await (await raises.options(lifetime="detached", retry_delay=2.0).submit(2))

    assert run(program, sim_seed) == 3
    for number, pause in enumerate(pauses()):
        assert 2.0**number <= pause <= 2.0 ** (number + 1) + 0.5
