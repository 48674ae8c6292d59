"""Calls that wait for one another, and values within one another, far deeper than Python's stack: all of them end, and nothing stays.

Each link once took five frames: a chain of 150 whose root failed never ended, and half of what was nested was never freed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime

pytestmark = pytest.mark.usefixtures("cluster")

LENGTH = 5_000
TIMEOUT_S = 60.0
"""For what takes a second or two where nothing else runs."""


@af.remote
async def step(value: int) -> int:
    return value + 1


@af.remote
async def root(kind: str) -> int:
    await asyncio.sleep(3600 if kind == "is cancelled" else 0.2)
    if kind == "fails":
        raise ValueError("the root")
    return 0


@af.remote(max_retries=0)
async def dies() -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@af.remote
async def gather(*values: int) -> int:
    return len(values)


class Steps(af.Actor, max_concurrency=4_000):
    """Takes steps, and can call itself."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.deepest = 0
        self.held: list[Any] = []

    async def step(self, value: int) -> int:
        return value + 1

    async def get(self) -> int:
        return self.first

    async def descend(self, me: Any, levels: int) -> int:
        """Calls itself, and the last one waits for ever."""
        self.deepest += 1
        try:
            if not levels:
                await asyncio.sleep(3600)
            return int(await me.descend(me, levels - 1))
        finally:
            self.deepest -= 1

    async def depth(self) -> int:
        return self.deepest

    async def unwrap(self, held: list[Any]) -> int:
        """Look at all values that are within one another, and keep the outermost reference."""
        self.held = held
        [ref], levels = held, 0
        while value := await ref:
            [ref], levels = value, levels + 1
        return levels

    async def drop(self) -> None:
        self.held = []


async def ended(ref: Any) -> Any:
    """The value of a reference, or its error."""
    try:
        return await asyncio.wait_for(ref, TIMEOUT_S)
    except (af.TaskError, af.ActorflowError, ValueError) as error:
        return error


async def chain_of(first: Any, kind: str, actor: Any) -> list[Any]:
    steps = {"tasks": [step], "calls of an actor": [actor.step], "both": [step, actor.step]}[kind]
    refs = [first]
    for position in range(LENGTH):
        refs.append(steps[position % len(steps)].remote(refs[-1]))
    return refs


@pytest.mark.parametrize("kind", ["tasks", "calls of an actor", "both"])
@pytest.mark.parametrize("end", ["fails", "is cancelled", "gives a value"])
async def test_a_chain_ends_as_its_root_does(kind: str, end: str) -> None:
    actor = await Steps.remote()
    refs = await chain_of(root.remote(end), kind, actor)
    if end == "is cancelled":
        refs[0].cancel()
    last = await ended(refs[-1])
    if end == "gives a value":
        assert last == LENGTH
    else:
        assert isinstance(last, ValueError if end == "fails" else af.TaskCancelledError)
    ready, pending = await af.wait(refs, num_returns=len(refs), timeout=TIMEOUT_S)
    assert (len(ready), len(pending)) == (len(refs), 0), "no link is left behind"
    assert await asyncio.wait_for(step(1), TIMEOUT_S) == 2, "and others go on"


async def test_many_that_wait_for_a_root_that_fails_end_and_so_does_who_waits_for_them() -> None:
    first = root.remote("fails")
    many = [step.remote(first) for _ in range(LENGTH)]
    assert isinstance(await ended(gather.remote(*many)), ValueError)


async def test_a_chain_ends_when_the_worker_of_its_root_dies() -> None:
    refs = await chain_of(dies.remote(), "both", Steps.remote())
    assert isinstance(await ended(refs[-1]), af.WorkerCrashedError)


async def test_an_argument_that_has_failed_already_is_the_end_of_a_call() -> None:
    actor = await Steps.remote()
    failed = root.remote("fails")
    assert isinstance(await ended(failed), ValueError)
    for method in (step, actor.step, Steps.remote().step):
        for call in (method.remote, method):
            with pytest.raises(ValueError, match="the root"):
                await call(failed)


async def test_a_chain_of_actors_that_are_made_of_one_anothers_results_ends() -> None:
    ref: Any = root.remote("fails")
    for _ in range(400):
        actor = Steps.options(num_cpus=0).remote(ref)
        ref = actor.get.remote()
    assert isinstance(await ended(ref), ValueError)


async def in_a_worker(end: str) -> tuple[str, int]:
    """As a task: what a worker owns it settles and frees by itself."""
    refs = await chain_of(root.remote(end), "tasks", Steps)
    if end == "is cancelled":
        refs[0].cancel()
    found = type(await ended(refs[-1])).__name__
    del refs
    ref = await af.put(0)
    for _ in range(LENGTH):
        ref = await af.put([ref])
    del ref
    return found, await left_of_mine()


async def left_of_mine() -> int:
    """How many objects this process owns, once those that it has dropped are counted."""
    core: Any = _runtime.current()
    gc.collect()
    with core.lock:
        core.references.drain()
        return len(core.references.owned.entries)


@pytest.mark.parametrize("end", ["fails", "is cancelled"])
async def test_chains_and_nested_values_of_a_worker_end_there(end: str) -> None:
    found, left = await asyncio.wait_for(af.remote(in_a_worker)(end), TIMEOUT_S)
    assert ("ValueError" if end == "fails" else "TaskCancelledError") in found
    assert left == 0


async def test_values_within_values_are_freed_with_the_last_reference() -> None:
    before = await left_of_mine()
    ref = await af.put(0)
    for _ in range(LENGTH):
        ref = await af.put([ref])
    assert await left_of_mine() == before + LENGTH + 1
    del ref
    assert await left_of_mine() == before


async def test_a_borrower_that_has_looked_at_all_of_them_lets_go_of_all() -> None:
    levels = 1_000
    actor = await Steps.remote()
    ref = await af.put(0)
    for _ in range(levels):
        ref = await af.put([ref])
    assert await asyncio.wait_for(actor.unwrap([ref]), TIMEOUT_S) == levels
    del ref
    assert await left_of_mine() > levels, "the actor has the outermost"
    await actor.drop()
    async with asyncio.timeout(TIMEOUT_S):
        while await left_of_mine() > levels:
            await asyncio.sleep(0.02)


async def test_the_cancel_of_a_call_that_others_were_made_by_reaches_the_last_of_them() -> None:
    levels = 1_000
    actor = await Steps.remote()
    ref = actor.descend.remote(actor, levels)
    async with asyncio.timeout(TIMEOUT_S):
        while await actor.depth() <= levels:
            await asyncio.sleep(0.02)
        ref.cancel()
        assert isinstance(await ended(ref), af.TaskCancelledError)
        while await actor.depth():
            await asyncio.sleep(0.02)
