"""Chains of calls that wait for one another end without recursion. No process, no wire: nothing here is ever sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actorflow._core.base.errors import TaskCancelledError
from actorflow._core.base.targets import FunctionTarget, MethodTarget
from actorflow._core.io.peers import Peer
from actorflow._core.io.real import real_ports
from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.wakers import Callback
from actorflow.options import DEFAULT_TASK, MethodOptions

LENGTH = 5_000
"""Five frames a link would be 25 times what Python allows."""


def step(value: int) -> int:
    return value + 1


FUNCTION = FunctionTarget(step, "step", "sync")
METHOD = MethodTarget("step", "async", None)


class Chains:
    """A driver whose node and whose actor never answer."""

    def __init__(self) -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        self.core = Core(ports, Identity("driver", "d" * 16, "job", "", 0))
        self.core.node = Peer(ports, self.core.identity, self.core, lambda peer: None, acceptor=False)
        self.actor = self.core.actors.client("a" * 16, "Steps", watch=False)

    def task(self, *args: Any) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = self.core.submit(FUNCTION, args, {}, DEFAULT_TASK)
        return ref

    def method(self, *args: Any) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = self.core.submit_method(self.actor, METHOD, args, {}, MethodOptions())
        return ref

    def chain(self, kind: str, length: int = LENGTH) -> list[ObjectRef[Any]]:
        """The root, and those that wait for it."""
        kinds: list[Callable[..., ObjectRef[Any]]] = {
            "tasks": [self.task], "calls of an actor": [self.method], "both": [self.task, self.method]
        }[kind]  # fmt: skip
        refs = [self.task(0)]
        for position in range(length):
            refs.append(kinds[position % len(kinds)](refs[-1]))
        return refs

    def watch(self, refs: list[ObjectRef[Any]]) -> list[int]:
        """The positions of those that are settled, as that happens."""
        order: list[int] = []
        positions = {ref._entry: position for position, ref in enumerate(refs)}
        for ref in refs:
            self.core.caller.add_waiter(ref._entry, Callback(lambda settled: order.append(positions[settled])))
        return order


@pytest.fixture
def chains(runner: asyncio.Runner) -> Chains:
    async def make() -> Chains:
        return Chains()

    return runner.run(make())


@pytest.mark.parametrize("kind", ["tasks", "calls of an actor", "both"])
def test_a_cancelled_root_ends_all_that_wait_for_it_in_their_order(chains: Chains, kind: str) -> None:
    refs = chains.chain(kind)
    order = chains.watch(refs)
    assert chains.core.cancels.cancel_entry(refs[0]._entry)
    assert order == list(range(LENGTH + 1))
    root, last = refs[0]._entry.outcome, refs[-1]._entry.outcome
    assert last is root
    assert isinstance(root, m.Failed)
    assert isinstance(chains.core.error_of(root), TaskCancelledError)
    refs.clear()
    chains.core.references.drain()
    assert chains.core.references.owned.entries == {}, "OW-1"


def test_many_that_wait_for_one_end_before_those_that_wait_for_them(chains: Chains) -> None:
    root = chains.task(0)
    first = [chains.task(root) for _ in range(LENGTH)]
    second = [chains.task(ref) for ref in first]
    order = chains.watch([root, *first, *second, chains.task(*second)])
    chains.core.cancels.cancel_entry(root._entry)
    assert order == list(range(2 * LENGTH + 2))


def test_a_borrowed_root_that_fails_ends_the_chain(chains: Chains) -> None:
    core = chains.core
    borrowed = core.references.borrowed.get("gone", "unix:gone", 1)
    borrowed.fetching = True  # its owner was asked, and does not answer
    with core.lock:
        refs = [core.references.handle(borrowed)]
    for _ in range(LENGTH):
        refs.append(chains.task(refs[-1]))
    order = chains.watch(refs)
    with core.lock:
        core.caller.settled_borrow(borrowed, core.failed(ValueError("gone")))
    assert order == list(range(LENGTH + 1))


def test_a_root_that_ends_well_sends_the_next_on_its_way_and_no_other(chains: Chains) -> None:
    refs = chains.chain("tasks")
    entries = [ref._entry for ref in refs]
    for position in range(1_000):
        chains.core.caller.finish(entries[position].call, m.Inline(b"value"))  # type: ignore[union-attr]  # all are our own
        [call] = [call for call in chains.core.tasks.pending() if call.entry.outcome is None]
        assert call.entry is entries[position + 1]


def test_the_end_of_the_runtime_ends_a_chain(chains: Chains) -> None:
    refs = chains.chain("both")
    order = chains.watch(refs)
    chains.core.end()
    assert sorted(order) == list(range(LENGTH + 1))


def test_what_raises_where_something_waits_is_told_and_holds_up_nobody(chains: Chains) -> None:
    """A bug in one place must not leave calls waiting that have nothing to do with it."""
    root = chains.task(0)
    entry = root._entry

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    chains.core.caller.when_settled(entry, broken)
    rest = [chains.task(root)]
    rest.append(chains.task(rest[0]))
    assert isinstance(entry, Owned)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        chains.core.caller.finish(entry.call, chains.core.failed(ValueError("root")))
    assert all(ref._entry.outcome is entry.outcome for ref in rest)
