"""Bugs in the shells: what is not sent on, not given back, or taken for something else."""

from __future__ import annotations

from typing import Any

from actorflow._core.node import store as node_store
from actorflow._core.worker import cancels, copies, producer, references, streams, tasks
from tests.sim.planted.mutant import Mutant


def _granted_and_not_wanted(original: Any) -> Any:
    def on_granted(self: Any, peer: Any, message: Any) -> None:
        if message.lease in self._requests:
            original(self, peer, message)

    return on_granted


def _one_is_lost(original: Any) -> Any:
    def on_gave_back(self: Any, peer: Any, message: Any) -> None:
        lease = self._leases.get(message.lease)
        if lease is not None and message.seqs:
            lease.inflight.pop(message.seqs[-1], None)
        original(self, peer, message)

    return on_gave_back


def _never_counted(original: Any) -> Any:
    def prepare_retry(self: Any, call: Any, *, spend: bool) -> None:
        original(self, call, spend=False)

    return prepare_retry


def _same_attempt(original: Any) -> Any:
    def prepare_retry(self: Any, call: Any, *, spend: bool) -> None:
        original(self, call, spend=spend)
        call.attempt -= 1

    return prepare_retry


def _for_good(original: Any) -> Any:
    def credit_after(self: Any, until: int) -> None:
        if until > self.until:
            self.until = until  # And whoever waits is not woken.

    return credit_after


def _again(original: Any) -> Any:
    def on_item(self: Any, peer: Any, message: Any) -> None:
        state = self._stream_of(message.seq, message.attempt)
        if state is not None and message.index < state.received:
            state.received = message.index  # It begins again, and so do we.
        original(self, peer, message)

    return on_item


def _children_live(original: Any) -> Any:
    def cancel_all(self: Any, children: Any) -> None:
        original(self, list(children or ())[1:])

    return cancel_all


def _copies_stay(original: Any) -> Any:
    def freed(self: Any, stored: Any) -> list[str]:
        nodes = original(self, stored)
        return [node for node in nodes if node == stored.node]

    return freed


def _acknowledged_at_once(original: Any) -> Any:
    def register(self: Any, third: Any, then: Any) -> None:
        then()
        original(self, third, lambda: None)

    return register


def _pins_again(original: Any) -> Any:
    def unpin(self: Any, peer: Any, message: Any) -> None:
        if message.extent % 3:
            original(self, peer, message)

    return unpin


MUTANTS = [
    Mutant(
        "lease nobody wants", "a lease that came too late is kept",
        tasks.TaskSubmitter, "on_granted", _granted_and_not_wanted, "a call is cancelled",
    ),
    Mutant("given back and lost", "one of the calls given back is forgotten", tasks.TaskSubmitter, "on_gave_back", _one_is_lost, "tasks"),
    Mutant("retry not counted", "a retry is not counted", tasks.TaskSubmitter, "_prepare_retry", _never_counted, "a worker dies"),
    Mutant(
        "attempt not counted", "an attempt has the number of the last",
        tasks.TaskSubmitter, "_prepare_retry", _same_attempt, "a worker dies",
    ),
    Mutant(
        "credit unheard", "SEMANTICS 12: a producer that waits does not hear of its credit",
        producer.Producer, "credit", _for_good, "streams",
    ),
    Mutant("items twice", "an item of a stream that begins again is given twice", streams.StreamCalls, "on_item", _again, "streams"),
    Mutant(
        "a child lives", "SEMANTICS 3: the first child of a cancelled call goes on",
        cancels.Cancels, "cancel_all", _children_live, "families",
    ),
    Mutant("copies stay", "a node with a copy is not told that its object is freed", copies.Copies, "freed", _copies_stay, "transfers"),
    Mutant(
        "borrow not awaited", "arguments go before their owner counts",
        references.References, "register", _acknowledged_at_once, "borrowers",
    ),
    Mutant("pin kept", "ST-2: what nobody reads stays pinned", node_store.Store, "unpin", _pins_again, "memory"),
]
