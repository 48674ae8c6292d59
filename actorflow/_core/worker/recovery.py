"""Results that are lost are made again, by their owner, which remembers how (policy/lineage.py). All of this under the ports' lock.

A result is lost when its bytes are not where its owner believes them to be: the disk that they went to cannot be read. Whoever finds
that out tells the owner, which runs the call again, and those before it whose results are needed and gone too. What cannot be made
again becomes an error that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actorflow._core.base.errors import ObjectLostError
from actorflow._core.base.ids import CLUSTER
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.lineage import Lineage, Recipe
from actorflow._core.policy.ownership import Borrowed, Owned
from actorflow._core.protocol import messages as m
from actorflow._core.worker.actors import ActorClient
from actorflow._core.worker.calls import Call, CallState

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry

LINEAGE_BYTES_MAX = 64 * 1024 * 1024

Place = tuple[str, int]
"""The node where a value was written, and its extent there."""


class Recovery:
    """One process's results that may have to be made again."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.lineage = Lineage(LINEAGE_BYTES_MAX)

    # -- remembering

    def keep(self, call: Call, outcomes: Sequence[m.Outcome]) -> None:
        """A task has ended: remember how it was called, for those of its results that are in shared memory."""
        entries = [call.entry, *(call.more or ())]
        problem = self._problem(call)
        for position, (entry, outcome) in enumerate(zip(entries, outcomes, strict=False)):
            if type(outcome) is not m.Stored or entry.outcome is not None:
                continue
            if problem:
                entry.recipe = Recipe(call.target, None, problem=problem)
                continue
            recipe = Recipe(
                call.target, call.options, call.args, call.buffers, call.deps or (), call.values,
                position=position, returns=len(entries), attempt=call.attempt, retries_left=call.retries_left,
            )  # fmt: skip
            recipe.cost += sum(_kept_bytes(entry) for entry in call.deps or ())
            self.lineage.keep(recipe)
            entry.recipe = recipe

    @staticmethod
    def _problem(call: Call) -> str:
        if call.stored is not None:
            return "its call had arguments of over 100 KiB, which are not kept: put them with af.put, and pass the reference"
        if call.refs:
            return "the arguments of its call contained references"
        if any(type(entry) is Borrowed for entry in call.deps or ()):
            return "an argument of its call belongs to another process"
        if any(type(entry.outcome) is m.Inline and entry.outcome.refs for entry in call.deps or ()):
            return "an argument of its call was a value with references inside"
        if not call.retries_left:
            return "its call may not be repeated: max_retries is 0, or has been used up"
        return ""

    # -- losing

    def lost(self, entry: Entry, place: Place, why: str) -> None:
        """The bytes of an object, as they were known here, are gone. Afterwards it is unsettled, or failed; or was made again already."""
        outcome = entry.outcome
        if type(outcome) is not m.Stored or (outcome.node, outcome.extent) != place:
            return
        entry.outcome = None
        if outcome.refs:
            self._core.references.unpin_all(self._core.references.entries_of(outcome.refs))
        if self._core.closed is not None:
            error = self._core.failed(self._core.closed)
            if type(entry) is Owned:
                self._core.caller.settle_entry(entry, error)
            else:
                self._core.caller.settled_borrow(entry, error)  # type: ignore[arg-type]  # it is the other kind
            return
        if type(entry) is Owned:
            self._core.store.free(outcome)
            self._make_again(entry, outcome.size, why)
            return
        assert type(entry) is Borrowed
        if entry.owner == CLUSTER:
            self._core.durables.lost(entry, place)
            return
        entry.fetching = True
        self._core.peer(entry.owner, entry.address).send(m.Rebuild(entry.index, place[1], why, place[0]))

    def on_rebuild(self, peer: Peer, message: m.Rebuild) -> None:
        """An owner's part: a borrower has found out. It gets the next outcome, whatever it is."""
        entry = self._core.references.owned.entries.get(message.index)
        if entry is not None:
            self.lost(entry, (message.node, message.extent), message.why)
        self._core.references.on_fetch(peer, m.Fetch(message.index))

    def arguments_lost(self, call: Call, places: Sequence[Place], why: str) -> bool:
        """The worker could not read these arguments: the call goes there again when they are back. False: nothing can be done."""
        stored = call.stored.outcome if call.stored is not None else None
        if call.cancelled or not call.deps or (type(stored) is m.Stored and (stored.node, stored.extent) in places):
            return False
        # None at all: another call has found the loss before, and what was lost is being made again, or was already.
        found = [
            (entry, (entry.outcome.node, entry.outcome.extent))
            for entry in call.deps
            if type(entry.outcome) is m.Stored and (entry.outcome.node, entry.outcome.extent) in places
        ]  # fmt: skip
        core = self._core
        call.attempt += 1
        call.state = CallState.WAITING
        call.waiting_for += 1  # So that it does not start before all of them have been looked at.
        for entry, place in found:
            self.lost(entry, place, why)
        core.caller.wait_for_arguments(call)
        if isinstance(call.place, ActorClient):
            core.actors.submit(call.place, call)
        else:
            call.place = None
        core.caller.argument_ready(call)
        return True

    def _make_again(self, lost: Owned, size: int, why: str) -> None:
        """Run the call of a lost result again, after those whose results it needs. A chain may be long: no recursion."""
        todo = [(lost, size)]
        calls: list[Call] = []
        while todo:
            entry, size = todo.pop()
            recipe: Recipe | None = entry.recipe
            if recipe is None or recipe.problem:
                error = _lost_error(recipe, size, why if entry is lost else "its last reference was dropped")
                self._core.caller.settle_entry(entry, self._core.failed(error))
                continue
            call = self._call_of(recipe, entry)
            calls.append(call)
            for position, dep in enumerate(recipe.deps):
                again = self._latest(dep)
                if again is None:
                    again = self._core.references.owned.new()
                    again.seen = True
                    if type(dep.outcome) is m.Stored:
                        again.recipe, dep.made_again_as = dep.recipe, again
                        todo.append((again, dep.outcome.size))
                    else:
                        again.outcome = dep.outcome  # It was small, and was kept.
                again.pins += 1
                call.deps[position] = again  # type: ignore[index]  # as many as the recipe has
            call.pins = tuple(call.deps or ())
        # Those that need nothing else first: each waits for what is made before it.
        for call in reversed(calls):
            call.waiting_for += 1
            self._core.caller.wait_for_arguments(call)
            self._core.caller.argument_ready(call)

    def _latest(self, dep: Owned) -> Owned | None:
        """The object as it is now, if it is still there."""
        entries = self._core.references.owned.entries
        while entries.get(dep.index) is not dep:
            if dep.made_again_as is None:
                return None
            dep = dep.made_again_as
        return dep

    def _call_of(self, recipe: Recipe, entry: Owned) -> Call:
        left = recipe.retries_left
        call = Call(recipe.target, recipe.options, left - 1 if left > 0 else left)
        call.extra = True
        call.args, call.buffers, call.values = recipe.args, recipe.buffers, recipe.values  # type: ignore[assignment]
        call.attempt = recipe.attempt + 1
        call.deps = list(recipe.deps) or None
        if recipe.returns > 1:
            # The others are as they were: what comes for them again goes at once.
            new = self._core.references.owned.new
            results = [entry if position == recipe.position else new() for position in range(recipe.returns)]
            for result in results:
                result.seen = result.seen or result is not entry
            call.entry, call.more = results[0], results[1:]
        else:
            call.entry = entry
        for result in (call.entry, *(call.more or ())):
            result.call = call
        entry.recipe = None
        return call


def _lost_error(recipe: Recipe | None, size: int, why: str) -> ObjectLostError:
    what = f"the result of {recipe.target.name}" if recipe is not None else "an object"
    problem = recipe.problem if recipe is not None else "only results of tasks are made again, and not what af.put, actors and streams gave"
    return ObjectLostError(f"{what} ({format_bytes(size)}) is lost: {why}. It cannot be made again: {problem}")


def _kept_bytes(dep: Entry) -> int:
    """What a small argument takes, which is kept as it is."""
    outcome = dep.outcome
    return len(outcome.data) + sum(map(len, outcome.buffers or ())) if type(outcome) is m.Inline else 0
