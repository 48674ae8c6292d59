"""What a call has returned, while it waits until the state of its actor is stored, and with that state.

    AS-1  The last answers to each caller are kept with the state that has what their calls did. A call that comes again, as its answer
          was lost with the life before, gets that answer and does not run again.
    AS-2  What is kept is bounded. A call may run again, as with any actor, when its caller has more of them under way, or when it has
          returned a large value, or references.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import SerializationError
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import INLINE_BYTES_MAX, Pickled
from actorflow._core.worker.actor_state import Answered, Part

if TYPE_CHECKING:
    from actorflow._core.worker.incoming import Incoming

CALLERS_MAX = 64
ANSWERS_MAX = 16
"""Of one caller."""
ANSWER_BYTES_MAX = 4096
"""Of all that one call has returned."""
BYTES_MAX = 256 << 10
"""Of all answers together."""

Key = tuple[str, int]
"""A call: who made it, and its number there."""


class Answers:
    """The last answers of an actor, by caller. Those whose state is not stored yet are kept as well, and are not given to anybody."""

    def __init__(self, answers: Iterable[Answered] = ()) -> None:
        self._by_caller: OrderedDict[str, deque[Answered]] = OrderedDict()
        self._unstored: set[Key] = set()
        self._bytes = 0
        for answer in answers:
            self._add(answer)

    def _add(self, answer: Answered) -> None:
        mine = self._by_caller.setdefault(answer.caller, deque())
        mine.append(answer)
        self._bytes += _size(answer)
        self._by_caller.move_to_end(answer.caller)
        if len(mine) > ANSWERS_MAX:
            self._drop_first(mine)
        while len(self._by_caller) > CALLERS_MAX or self._bytes > BYTES_MAX:
            caller, oldest = next(iter(self._by_caller.items()))
            self._drop_first(oldest)
            if not oldest:
                del self._by_caller[caller]

    def _drop_first(self, mine: deque[Answered]) -> None:
        answer = mine.popleft()
        self._bytes -= _size(answer)
        self._unstored.discard((answer.caller, answer.seq))

    def add(self, key: Key, copy: Any, returns: int) -> None:
        """A call has returned this (see `copied`), and the state that has what it did is on its way to the store."""
        if returns > 1 and not (isinstance(copy, list) and len(copy) == returns):
            return  # That is an error.
        parts = [_part(part) for part in (copy if returns > 1 else [copy])]
        answer = Answered(*key, [part for part in parts if part is not None])
        if len(answer.parts) == len(parts) and _size(answer) <= ANSWER_BYTES_MAX:
            self._unstored.add(key)
            self._add(answer)

    def stored(self, key: Key) -> None:
        """The state is stored that has what this call did."""
        self._unstored.discard(key)

    def forget(self, key: Key) -> None:
        """That state could not be stored."""
        self._unstored.discard(key)
        mine = self._by_caller.get(key[0])
        if mine is None:
            return
        for answer in [answer for answer in mine if answer.seq == key[1]]:
            mine.remove(answer)
            self._bytes -= _size(answer)
        if not mine:
            del self._by_caller[key[0]]

    def find(self, key: Key) -> list[m.Outcome] | None:
        """What this call has returned, if that is known and stored."""
        if key not in self._unstored:
            for answer in self._by_caller.get(key[0], ()):
                if answer.seq == key[1]:
                    return [m.Inline(data, buffers) for data, buffers in answer.parts]
        return None

    def all(self) -> list[Answered]:
        """Those that are to be kept."""
        return [answer for mine in self._by_caller.values() for answer in mine]


def _size(answer: Answered) -> int:
    return sum(len(data) + sum(map(len, buffers or ())) for data, buffers in answer.parts)


def _part(copy: Any) -> Part | None:
    """None: too large, or not to be kept."""
    if type(copy) is Pickled:
        if copy.refs or copy.size() > ANSWER_BYTES_MAX:
            return None
        return copy.data, [bytes(buffer) for buffer in copy.buffers] if copy.buffers is not None else None
    if type(copy) in values.SIMPLE and not values.is_large(copy):
        data = pickle.dumps(copy, 5)
        return (data, None) if len(data) <= ANSWER_BYTES_MAX else None
    return None


def copied(incoming: Incoming, value: Any) -> tuple[Any, bool]:
    """A copy that nobody changes, for `Host.deliver`, and whether it is large. What cannot travel stays as it is, and fails there."""
    returns = incoming.returns
    if returns == 0:
        return None, False
    name = f"the result of {incoming.running.name if incoming.running else incoming.name}"
    if returns == 1 or not isinstance(value, (tuple, list)):
        copy = _copy(value, name)
        return copy, _is_large(copy)
    parts = [_copy(part, name) for part in value]
    return parts, any(map(_is_large, parts))


def _copy(value: Any, name: str) -> Any:
    if type(value) in values.SIMPLE:
        return value
    try:
        pickled = values.dumps(value, name)
    except SerializationError:
        return value
    return values.owned_bytes(pickled)


def _is_large(copy: Any) -> bool:
    return copy.size() > INLINE_BYTES_MAX if type(copy) is Pickled else values.is_large(copy)
