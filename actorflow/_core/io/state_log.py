"""A state that outlives its process: every change is recorded before it is acknowledged.

The state is a map from (kind, key) to bytes. `write` takes changes and gives them a number; what was written while the storage was busy
goes to it at once (group commit). `Journal` keeps it in files, `RedisLog` in a Redis.

DL-1: what `when_durable` has told is there after any crash that the storage survives. DL-2: what is there after a crash is the outcome of
the first n writes, for some n. DL-3: who waits is told in the order of the numbers, and never of what may be lost. While the storage
refuses, it is tried until it does not, and `problem` says what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from actorflow._core.protocol.journal_format import Change

WRITE_BYTES_MAX = 512 << 20
RETRY_FIRST_S, RETRY_MAX_S = 0.05, 2.0

State = dict[tuple[str, str], bytes]
Told = Callable[[], None]


class StateLog:
    """What all of them have in common: the state, what is to be written, and who waits for it. Everything on one loop."""

    def __init__(self, state: State, last: int) -> None:
        self._state = state
        self._written = self._durable = last
        self._queue: deque[list[Change]] = deque()
        self._waiting: deque[tuple[int, Told]] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._closed = False
        self.problem = ""
        """What keeps changes from becoming durable at the moment; empty most of the time."""

    @property
    def state(self) -> State:
        """All that was written, durable or not. To be read only."""
        return self._state

    @property
    def number(self) -> int:
        """Of the last write."""
        return self._written

    def write(self, changes: Sequence[Change]) -> int:
        """Apply and record some changes, as one; returns the number to wait for. Stored soon after.

        Raises ValueError when they are larger than WRITE_BYTES_MAX together; nothing is changed then.
        """
        if self._closed:
            raise RuntimeError("the log of the state is closed: nothing can be written to it any more")
        size = sum(len(change.key) + len(change.value or b"") for change in changes)
        if size > WRITE_BYTES_MAX:
            raise ValueError(f"{size} bytes in one write to the log of the state: at most {WRITE_BYTES_MAX} are possible")
        apply(self._state, changes)
        self._queue.append(list(changes))
        self._written += 1
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit())
        return self._written

    def when_durable(self, number: int, fn: Told) -> None:
        """Call `fn` when all writes up to this one are durable; at once when they are. To be asked in the order of the numbers."""
        if number <= self._durable:
            fn()
            return
        assert not self._waiting or self._waiting[-1][0] <= number, "DL-3: asked out of order"
        self._waiting.append((number, fn))

    async def close(self) -> None:
        """Store what is left, unless the storage refuses it, and end. What could not be stored was never acknowledged."""
        self._closed = True
        if self._committing is not None:
            if self.problem:
                self._committing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._committing

    async def _store(self, first: int, writes: list[list[Change]]) -> int:
        """Store these writes, the first of which has this number; return the number up to which all is durable now.

        Tries until it succeeds. When the log is closed meanwhile it may give up, and returns what is durable.
        """
        raise NotImplementedError

    def _stored(self) -> None:
        """Something became durable; called after those who waited for it."""

    async def _commit(self) -> None:
        """Until nothing is left to write."""
        try:
            while self._queue:
                writes = list(self._queue)
                self._queue.clear()
                self._became_durable(await self._store(self._durable + 1, writes))
                self._stored()
        finally:
            self._committing = None

    def _became_durable(self, number: int) -> None:
        assert self._durable <= number <= self._written, "DL-1: what was not written is not durable"
        self._durable = number
        while self._waiting and self._waiting[0][0] <= number:
            self._tell(self._waiting.popleft()[1])

    def _tell(self, fn: Told) -> None:
        try:
            fn()
        except Exception as error:
            context = {"message": "somebody who waited for the log of the state has failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


def apply(state: State, changes: Iterable[Change]) -> None:
    """Make these changes."""
    for change in changes:
        if change.value is None:
            state.pop((change.kind, change.key), None)
        else:
            state[change.kind, change.key] = change.value
