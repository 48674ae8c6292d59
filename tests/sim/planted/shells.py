"""Bugs in the shells: what is not sent on, not given back, or taken for something else."""

from __future__ import annotations

from typing import Any

from actorflow._core.head import durable as head_durable
from actorflow._core.head import view
from actorflow._core.io import lasting_peers, peers
from actorflow._core.node import store as node_store
from actorflow._core.policy.durable_steps import EndMaker
from actorflow._core.protocol import messages
from actorflow._core.worker import caller, cancels, copies, hosted, producer, retries, streams, tasks, tenure
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


def _pins_again(original: Any) -> Any:
    def unpin(self: Any, peer: Any, message: Any) -> None:
        if message.extent % 3:
            original(self, peer, message)

    return unpin


def _deaths_for_free(original: Any) -> Any:
    def rests_after_loss(self: Any, call: Any) -> bool:
        call.retries_left += 1 if call.retries_left > 0 else 0
        return bool(original(self, call))

    return rests_after_loss


def _spends_two(original: Any) -> Any:
    def rests_after_loss(self: Any, call: Any) -> bool:
        if call.retries_left > 1:
            call.retries_left -= 1
        return bool(original(self, call))

    return rests_after_loss


def _rests_for_good(original: Any) -> Any:
    def forget(self: Any, call: Any) -> None:
        self._resting.pop(call, None)

    return forget


def _errors_for_free(original: Any) -> Any:
    def try_again(self: Any, call: Any, outcome: Any) -> bool:
        again = bool(original(self, call, outcome))
        if again and call.attempt % 2 and call.retries_left >= 0:
            call.retries_left += 1
        return again

    return try_again


def _gone_before_its_answers(original: Any) -> Any:
    def leave(self: Any, host: Any, *, graceful: bool) -> None:
        if self.moves is not None:
            for peer in host.core.all_peers():
                if peer.role in ("driver", "worker"):
                    peer.send(messages.NotTaken(self.spec.actor_id, self.incarnation, all=True))
        original(self, host, graceful=graceful)

    return leave


def _freed_before_it_is_here(original: Any) -> Any:
    def fetch(self: Any, entry: Any, stored: Any) -> None:
        original(self, entry, stored)
        self._core.node.send(messages.FreeObject(stored.node, stored.extent, [stored.node]))

    return fetch


def _nobody_is_waited_for(original: Any) -> Any:
    def foreign(self: Any) -> int:
        owners = [extent.owner for extent in self.book.extents()]
        return int(original(self)) - owners.count("cluster")

    return foreign


def _not_written_down(original: Any) -> Any:
    def obey(self: Any, steps: Any) -> None:
        touch, self.touch = self.touch, lambda kind, key: None
        original(self, steps)
        self.touch = touch

    return obey


def _mended_once(original: Any) -> Any:
    def go_on_mending(self: Any) -> bool:
        return False

    return go_on_mending


def _only_what_is_written(original: Any) -> Any:
    def has_unsent(self: Any) -> bool:
        return bool(self.buffered_bytes())

    return has_unsent


def _as_ever(original: Any) -> Any:
    def apart(self: Any, node_id: str) -> None:
        pass

    return apart


def _makers_live(original: Any) -> Any:
    def obey(self: Any, steps: Any) -> None:
        original(self, [step for step in steps if not isinstance(step, EndMaker) or step.by])

    return obey


def _acts_on(original: Any) -> Any:
    def may_act(self: Any, now: float) -> bool:
        return True

    return may_act


MUTANTS = [
    Mutant(
        "acts in its sleep", "LV-7: a worker of a machine that stood still begins a call",
        tenure.Tenure, "may_act", _acts_on, "stands_still",
    ),
    Mutant(
        "made for nobody", "DO-5: a detached call that was cancelled goes on",
        head_durable.DurableRoom, "_obey", _makers_live, "cancelled_call_ends",
    ),
    Mutant(
        "gone before its answers", "MV-3: the last word of an actor that moves comes before the answers of what runs",
        hosted.HostedActor, "leave", _gone_before_its_answers, "actor_goes_on_elsewhere",
    ),
    Mutant(
        "freed before it is here", "an object on a node that is to leave is freed there before its owner has it",
        copies.Copies, "_fetch", _freed_before_it_is_here, "draining",
    ),
    Mutant(
        "leaves without a care", "DO-3: a node leaves before another has what it keeps for the cluster",
        node_store.Store, "foreign", _nobody_is_waited_for, "both_nodes_that_keep_it",
    ),
    Mutant(
        "not written down", "HM-1: what the head knows of an object of the cluster's is not in its journal",
        head_durable.DurableRoom, "_obey", _not_written_down, "the_head_dies_and_what_was_put",
    ),
    Mutant(
        "mended once", "LP-4: the time to mend is over though the other side is known to live",
        lasting_peers.LastingPeer, "_go_on_mending", _mended_once, "one_bad_link",
    ),
    Mutant(
        "gone before it is connected", "what a process says at its end waits for no connection that is being made",
        peers.Peer, "has_unsent", _only_what_is_written, "says_at_its_end",
    ),
    Mutant("placed out of reach", "HV-3: actors go to a node that nobody can tell", view.View, "apart", _as_ever, "one_bad_link"),
    Mutant(
        "lease nobody wants", "a lease that came too late is kept",
        tasks.TaskSubmitter, "on_granted", _granted_and_not_wanted, "a call is cancelled",
    ),
    Mutant("given back and lost", "one of the calls given back is forgotten", tasks.TaskSubmitter, "on_gave_back", _one_is_lost, "tasks"),
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
    Mutant("pin kept", "ST-2: what nobody reads stays pinned", node_store.Store, "unpin", _pins_again, "memory"),
    Mutant("deaths for free", "an attempt that died does not count", tasks.TaskSubmitter, "_rests_after_loss", _deaths_for_free, "budgets"),
    Mutant("counts for two", "a retry spends two of them", tasks.TaskSubmitter, "_rests_after_loss", _spends_two, "budgets"),
    Mutant(
        "rests for good", "a call that does not rest any more counts for its actor's max_pending_calls",
        retries.Retries, "forget", _rests_for_good, "max_pending_calls",
    ),
    Mutant("errors for free", "every other attempt that raised does not count", caller.Caller, "try_again", _errors_for_free, "budgets"),
]
