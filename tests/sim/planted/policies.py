"""Bugs in policy: what is counted, compared, given back and said to whom."""

from __future__ import annotations

import dataclasses
from typing import Any

from actorflow._core.policy import (
    actor_record,
    actors,
    bundles,
    checkpoints,
    durable_objects,
    durable_steps,
    leases,
    liveness,
    mailbox,
    object_store,
    ownership,
    pulls,
    worker_pool,
)
from actorflow._core.policy.worker_records import Purpose, WorkerState
from tests.sim.planted.mutant import Mutant


def _newest_first(original: Any) -> Any:
    def finished(self: Any, group: str = "") -> Any:
        self._groups[group].queue.reverse()
        following = original(self, group)
        self._groups[group].queue.reverse()
        return following

    return finished


def _one_loan(original: Any) -> Any:
    def count(entry: Any, borrower: str, count: int) -> None:
        entry.borrowers = entry.borrowers or {}
        if count > 0:
            entry.borrowers[borrower] = 1
        else:
            entry.borrowers.pop(borrower, None)

    return count


def _takes_nothing(original: Any) -> Any:
    def grant(self: Any, ticket: Any, now: float) -> None:
        original(self, ticket, now)
        self._free.add(ticket.demand)

    return grant


def _stays_idle(original: Any) -> Any:
    def fulfil(self: Any, claim: Any, worker: Any, now: float) -> None:
        idle = worker.state is WorkerState.IDLE
        original(self, claim, worker, now)
        if idle and claim.purpose is Purpose.LEASE:
            self._make_idle(worker, now)

    return fulfil


def _ignores_pins(original: Any) -> Any:
    def free_if_unused(self: Any, extent: Any, now: float) -> Any:
        pins, extent.pins = extent.pins, 0
        freed = original(self, extent, now)
        extent.pins = pins
        return freed

    return free_if_unused


def _keeps_the_first(original: Any) -> Any:
    def save(self: Any, actor_id: str, incarnation: int, number: int, data: bytes, *, current: int | None) -> str:
        if actor_id in self._by_actor and number % 3 == 0:
            return ""
        return str(original(self, actor_id, incarnation, number, data, current=current))

    return save


def _leaves_under_a_reader(original: Any) -> Any:
    def written(self: Any, number: int, now: float) -> Any:
        extent = self._extents[number]
        pins, extent.pins = extent.pins, 0
        freed = original(self, number, now)
        extent.pins = pins
        return freed

    return written


def _forgets_the_file(original: Any) -> Any:
    def free_if_unused(self: Any, extent: Any, now: float) -> Any:
        freed = original(self, extent, now)
        return None if freed is None or not freed.size else dataclasses.replace(freed, on_disk=False)

    return free_if_unused


def _stays_in_line(original: Any) -> Any:
    def withdraw(self: Any, key: Any) -> Any:
        for room in self._groups.values():
            for item in room.queue:
                if item[0] == key:
                    return item[1]
        return None

    return withdraw


def _wakes_nobody(original: Any) -> Any:
    def release(self: Any, ticket: Any) -> None:
        was = self._dirty
        original(self, ticket)
        self._dirty = was

    return release


def _lends_for_good(original: Any) -> Any:
    def take_back_cpu(self: Any, ticket: Any, cpu: int) -> None:
        self.pool.lent -= cpu

    return take_back_cpu


def _frees_nothing_of_the_dead(original: Any) -> Any:
    def borrower_lost(self: Any, borrower: str) -> list[Any]:
        for entry in self.entries.values():
            if entry.borrowers:
                entry.borrowers.pop(borrower, None)
        return []

    return borrower_lost


def _forgets_to_look(original: Any) -> Any:
    def unpin(self: Any, entry: Any) -> bool:
        entry.pins -= 1
        return False

    return unpin


def _serves_the_first(original: Any) -> Any:
    def serve(self: Any, now: float) -> Any:
        served = original(self, now) if len(self._waiters) < 2 else []
        return served[:1]

    return serve


def _pins_of_the_dead(original: Any) -> Any:
    def client_lost(self: Any, client: str, now: float) -> Any:
        record = self._clients.get(client)
        kept = dict(record.pins) if record is not None else {}
        if record is not None:
            record.pins = {}
        freed = original(self, client, now)
        return [one for one in freed if one.extent not in kept]

    return client_lost


def _too_early(original: Any) -> Any:
    def look(self: Any, now: float) -> Any:
        silence_s, self._silence_s = self._silence_s, liveness.LEASE_S - 3.0
        silent = original(self, now)
        self._silence_s = silence_s
        return silent

    return look


def _never_over(original: Any) -> Any:
    def answered(self: Any, number: int) -> None:
        original(self, number)
        if self.until is not None:
            self.until += liveness.LEASE_S

    return answered


def _through_for_good(original: Any) -> Any:
    def heard_through(self: Any, node_id: str, now: float) -> Any:
        if node_id in self._through:
            self._through[node_id].since = now
        return original(self, node_id, now)

    return heard_through


def _through_and_out(original: Any) -> Any:
    def heard_through(self: Any, node_id: str, now: float) -> Any:
        counts = original(self, node_id, now)
        if not counts and node_id in self._through:
            self._heard[node_id] = now - self._silence_s
            self._heard.move_to_end(node_id, last=False)
        return counts

    return heard_through


def _one_chunk_short(original: Any) -> Any:
    def received(self: Any, source: str, name: Any, attempt: int, index: int, length: int, now: float) -> Any:
        pull = self._present(source, name, attempt)
        if pull is not None and pull.chunks > 1 and index == pull.chunks - 2 == pull.have:
            pull.have += 1
            return [*self._complete(pull), *self._admit()]
        return original(self, source, name, attempt, index, length, now)

    return received


def _keeps_its_lane(original: Any) -> Any:
    def remove(self: Any, pull: Any) -> None:
        lane = self._small_lane if pull.small else self._large_lane
        before = lane.bytes, lane.pulls
        original(self, pull)
        lane.bytes, lane.pulls = before

    return remove


def _keeps_the_bundle(original: Any) -> Any:
    def give_back_when_idle(self: Any, reservation: Any) -> Any:
        take, self._pool.give = self._pool.give, lambda amounts, devices: None
        try:
            return original(self, reservation)
        finally:
            self._pool.give = take

    return give_back_when_idle


def _one_too_many(original: Any) -> Any:
    def offer(self: Any, key: Any, call: Any, group: str = "") -> bool:
        room = self._groups[group]
        if room.limit and room.running == room.limit and not room.queue:
            room.running += 1
            return True
        return bool(original(self, key, call, group))

    return offer


def _one_life_more(original: Any) -> Any:
    return lambda self: original(self) or self.restarts == self.spec.max_restarts


def _one_life_less(original: Any) -> Any:
    return lambda self: original(self) and self.restarts + 1 != self.spec.max_restarts


def _stays_for_good(original: Any) -> Any:
    def expire(self: Any, now: float) -> None:
        limits, self.limits = self.limits, dataclasses.replace(self.limits, idle_keep=1 << 30)
        original(self, now)
        self.limits = limits

    return expire


def _counts_moves(original: Any) -> Any:
    def lose(self: Any, actor: Any, cause: str, expected: bool, spent: bool, now: float) -> Any:
        if actor.moving:
            actor.restarts += 1
        return original(self, actor, cause, expected, spent, now)

    return lose


def _one_is_enough(original: Any) -> Any:
    def enough(self: Any, found: Any) -> bool:
        return bool(found.homes)

    return enough


def _tells_the_homes(original: Any) -> Any:
    def end(self: Any, found: Any, why: str) -> Any:
        steps = original(self, found, why)
        last = steps[-1]
        if isinstance(last, durable_steps.Drop) and found.homes:
            steps[-1] = dataclasses.replace(last, node=next(iter(found.homes)))
        return steps

    return end


def _unheard(original: Any) -> Any:
    def maker_gone(self: Any, actor_id: Any, died: Any) -> Any:
        return []

    return maker_gone


def _answers_at_once(original: Any) -> Any:
    def is_open(self: Any, index: Any) -> bool:
        found = self.find(index)
        return found is not None and found.outcome is None and bool(found.maker) and len(self._nodes) > 99

    return is_open


def _never_again(original: Any) -> Any:
    def again(self: Any, found: Any, node: str, now: float) -> Any:
        return []

    return again


def _any_link_will_do(original: Any) -> Any:
    def node_apart(self: Any, node: str) -> Any:
        return []

    return node_apart


MUTANTS = [
    Mutant(
        "a promise for ever", "DO-5: the end of the actor that was to make an object is not heard",
        durable_objects.DurableObjects, "maker_gone", _unheard, "without_retries",
    ),
    Mutant(
        "answered too early", "DO-5: readers of what is promised are answered at once",
        durable_objects.DurableObjects, "is_open", _answers_at_once, "detached_calls",
    ),
    Mutant(
        "a move counts", "AC-8: an actor that moves spends a restart", actors.ActorTable, "_lose", _counts_moves, "actor_goes_on_elsewhere"
    ),
    Mutant(
        "one home is enough", "DO-1: a putter is told when one node has its object",
        durable_objects.DurableObjects, "_enough", _one_is_enough, "one_node_that_keeps_it",
    ),
    Mutant(
        "freed in one place", "DO-2: of an object that is freed one node hears",
        durable_objects.DurableObjects, "_end", _tells_the_homes, "outlives_its_putter",
    ),
    Mutant(
        "asked once", "DO-3: a node that could not have an object once is never asked again",
        durable_objects.DurableObjects, "_again", _never_again, "full_for_a_while",
    ),
    Mutant(
        "any link will do", "DO-6: a node with a bad link is asked for objects as the others are",
        durable_objects.DurableObjects, "node_apart", _any_link_will_do, "while_a_link_is_bad",
    ),
    Mutant("mailbox order", "MB-1: the newest waiting call starts first", mailbox.Mailbox, "finished", _newest_first, "actors"),
    Mutant(
        "ownership counts", "OW-4: a borrower is counted once, however often it was lent to",
        ownership.Ownership, "_count", _one_loan, "borrowers",
    ),
    Mutant("lease granted twice", "LE-2: what a lease has taken is granted again", leases.LeaseBook, "_grant", _takes_nothing, "tasks"),
    Mutant(
        "worker for two", "WP-1: a leased worker is still idle, and is leased again",
        worker_pool.WorkerPool, "_fulfil", _stays_idle, "tasks",
    ),
    Mutant("extent under a reader", "ST-2: a pinned extent is freed", object_store.ExtentBook, "_free_if_unused", _ignores_pins, "losses"),
    Mutant(
        "leaves under a reader", "ST-7: it leaves while somebody reads it",
        object_store.ExtentBook, "written", _leaves_under_a_reader, "memory",
    ),
    Mutant("file left", "ST-8: its file is not deleted", object_store.ExtentBook, "_free_if_unused", _forgets_the_file, "memory"),
    Mutant(
        "checkpoint lost", "CP-2: an accepted checkpoint is not kept",
        checkpoints.CheckpointStore, "save", _keeps_the_first, "a worker dies",
    ),
    Mutant(
        "mailbox withdraw", "MB-3: a call that was taken out starts all the same",
        mailbox.Mailbox, "withdraw", _stays_in_line, "a call is cancelled",
    ),
    Mutant("lease wake-up", "who waits is not looked at when a lease ends", leases.LeaseBook, "release", _wakes_nobody, "tasks"),
    Mutant("lease lent", "LE-1: a CPU that was lent is not taken back", leases.LeaseBook, "_take_back_cpu", _lends_for_good, "tasks"),
    Mutant(
        "ownership dead", "OW-1: what only a dead process had stays",
        ownership.Ownership, "borrower_lost", _frees_nothing_of_the_dead, "borrowers",
    ),
    Mutant("ownership pins", "OW-1: the last pin frees nothing", ownership.Ownership, "unpin", _forgets_to_look, "borrowers"),
    Mutant("extent queue", "ST-4: of two that wait none is served", object_store.ExtentBook, "serve", _serves_the_first, "memory"),
    Mutant(
        "extent of the dead", "ST-3: pins of a dead process stay",
        object_store.ExtentBook, "client_lost", _pins_of_the_dead, "objects on disk",
    ),
    Mutant("node too early", "LV-1: a node is given up before its lease is over", liveness.Watch, "look", _too_early, "partitions"),
    Mutant("node too late", "LV-1: a lease is twice as long", liveness.Lease, "answered", _never_over, "partitions"),
    Mutant(
        "through for good", "LV-5: others speak for a node for ever",
        liveness.Watch, "heard_through", _through_for_good, "one_bad_link",
    ),
    Mutant(
        "through and out", "LV-1: a node is lost in the moment in which others may not speak for it any more",
        liveness.Watch, "heard_through", _through_and_out, "one_bad_link",
    ),
    Mutant("pull short", "an object is complete one chunk before its last", pulls.PullBook, "received", _one_chunk_short, "transfers"),
    Mutant("pull lane", "PU-1: what has ended counts as under way", pulls.PullBook, "_remove", _keeps_its_lane, "transfers"),
    Mutant(
        "bundle kept", "BL-1: a bundle's room is not given back",
        bundles.Bundles, "_give_back_when_idle", _keeps_the_bundle, "placement_groups",
    ),
    Mutant("mailbox width", "MB-2: one call too many runs", mailbox.Mailbox, "offer", _one_too_many, "budgets"),
    Mutant("one life more", "AC-3: an actor is restarted once too often", actor_record.Actor, "may_restart", _one_life_more, "budgets"),
    Mutant("one life less", "the last restart that is allowed is not made", actor_record.Actor, "may_restart", _one_life_less, "budgets"),
    Mutant("idle for good", "workers that nobody needs stay", worker_pool.WorkerPool, "expire", _stays_for_good, "budgets"),
]
