"""The log of a state in a Redis that others operate: it outlives the machine of the head.

The Redis has the state itself, a hash with a field for each entry, and the number of the last write. A write goes there as one step that
asks first whether the Redis is where it should be (`RedisServer.write`), so nothing is compacted, and nothing is read but at the start.

RG-1: a write that may have arrived and was not answered is said again with its number, and counts once.
RG-2: each life of a head takes the log before it reads it, and gets a token that is larger than all before. What is said with an earlier
token is refused: a head that another has followed writes nothing any more, and ends (fencing).
RG-3: a Redis that has forgotten writes, as after a failover to a replica, is given the whole state anew before anything is told to be
durable; that is noticed with the next write, or when the lease is renewed.
RG-4: who has the log keeps a lease of LEASE_S on it. Another one waits until the lease is over, and one that is renewed is an error: two
clusters cannot share a log. The next life of the same head does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from actorflow._core.io.state_log import RETRY_FIRST_S, RETRY_MAX_S, State, StateLog
from actorflow._core.protocol.journal_format import Change

log = logging.getLogger(__name__)

LEASE_S = 3.0
RENEW_S = LEASE_S / 3
ASK_AGAIN_S = 0.25
PART_BYTES = 16 << 20
"""So much goes to the Redis in one step, or one write if that is larger: it serves nobody else meanwhile."""
PASSWORD_FILE_VARIABLE = "ACTORFLOW_JOURNAL_PASSWORD_FILE"
SCHEMES = ("redis", "rediss", "unix")


def is_url(where: str) -> bool:
    """The log is to be in a Redis, and not in a directory."""
    return "://" in where


def check_url(where: str) -> None:
    """Raises ValueError when this is no URL of a Redis, or has a password in it."""
    parts = urlsplit(where)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{parts.scheme}:// is not known; a directory is, and a Redis: {', '.join(f'{name}://' for name in SCHEMES)}")
    if parts.password is not None:
        raise ValueError(
            "everybody on this machine could see the password in the URL: write it into a file, and the path of the file into"
            f" {PASSWORD_FILE_VARIABLE}"
        )
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("it names no Redis; expected for example redis://10.0.0.7:6379/0#production")


class LogTakenError(Exception):
    """Another head has the log: this one must end."""


class Grant(NamedTuple):
    """A life that has taken the log."""

    token: int
    holder: str
    life: str
    """Tells two lives apart that got the same token, from a Redis that has forgotten the first."""


class Found(NamedTuple):
    """The log was taken, and this is in it."""

    grant: Grant
    state: State
    last: int


class Held(NamedTuple):
    """The log was not taken: another has a lease on it."""

    holder: str
    left_s: float


class RedisServer(Protocol):
    """What a `RedisLog` needs of a Redis; each call is one step there. All raise OSError when it cannot be had: nobody knows if it
    was done.
    """

    where: str
    """Its address, without a password."""

    async def take(self, holder: str, lease_s: float) -> Found | Held:
        """Take the log unless another has a lease on it. Raises JournalSchemaError where a later version has written it."""

    async def write(self, grant: Grant, first: int, last: int, changes: Sequence[Change]) -> int:
        """Make these changes, which are those of the writes `first` to `last`, if the last write there is that before `first`.

        Returns the number of the last write there. Raises LogTakenError (RG-2).
        """

    async def replace(self, grant: Grant, last: int, state: State) -> None:
        """Have this state and no other, with this number. All or nothing. Raises LogTakenError (RG-2)."""

    async def renew(self, grant: Grant, lease_s: float) -> int:
        """Prolong the lease. Returns the number of the last write there. Raises LogTakenError (RG-2)."""

    async def release(self, grant: Grant) -> None:
        """Give the lease back, if it is there."""

    async def close(self) -> None:
        """End the connection."""


class RedisLog(StateLog):
    """The log of one life of a head. Made by `open`; everything on the loop that opened it."""

    def __init__(self, server: RedisServer, found: Found, taken: Callable[[str], None]) -> None:
        super().__init__(found.state, found.last)
        self._server = server
        self._grant = found.grant
        self._taken = taken
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="renew the lease on the log")

    @classmethod
    async def open(cls, server: RedisServer, holder: str, taken: Callable[[str], None]) -> Self:
        """Take the log for `holder`, which is the same for all lives of one head. `taken(reason)` is called when another head has taken it.

        Raises BlockingIOError when another one has it (RG-4), JournalSchemaError, and OSError when the Redis cannot be had.
        """
        return cls(server, await _take(server, holder), taken)

    async def close(self) -> None:
        """See StateLog. The lease is given back."""
        await super().close()
        self._renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._renewing
        with contextlib.suppress(OSError):
            await self._server.release(self._grant)
        await self._server.close()

    # -- committing

    async def _store(self, first: int, writes: list[list[Change]]) -> int:
        durable, pause_s = first - 1, RETRY_FIRST_S
        parts = list(_parts(first, writes))
        while parts:
            part = parts[0]
            try:
                there = await self._server.write(self._grant, *part)
                if there == part.last:
                    durable = part.last
                    del parts[0]
                else:
                    durable, parts = await self._write_anew(there), []
            except LogTakenError as error:
                await self._lost(error)
            except OSError as error:
                if not self.problem:
                    log.error("%s: %s; nothing new is acknowledged until it answers", self._server.where, error)
                self.problem = f"{self._server.where}: {error}"
                if self._closed:
                    log.error("the log is closed, and the last changes are not in it")
                    self._queue.clear()
                    return durable
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                pause_s = RETRY_FIRST_S
                if self.problem:
                    log.warning("%s answers again", self._server.where)
                    self.problem = ""
        return durable

    async def _write_anew(self, there: int) -> int:
        """It has forgotten writes (RG-3). What is in the queue is in the state."""
        number, state, covered = self._written, dict(self._state), len(self._queue)
        log.warning(
            "%s has forgotten writes: its last one is %d, and %d was durable; it gets all anew", self._server.where, there, self._durable
        )
        await self._server.replace(self._grant, number, state)
        for _ in range(covered):
            self._queue.popleft()
        return number

    async def _lost(self, error: LogTakenError) -> None:
        """Nothing is acknowledged any more: the one who is told ends this life."""
        self.problem = f"{self._server.where}: {error}"
        self._taken(self.problem)
        await asyncio.get_running_loop().create_future()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            durable = self._durable
            try:
                there = await self._server.renew(self._grant, LEASE_S)
            except LogTakenError as error:
                await self._lost(error)
            except OSError as error:
                log.warning("the lease on the log is not renewed: %s: %s", self._server.where, error)
            else:
                if there < durable and self._committing is None and not self._closed:
                    self.write([])  # It has forgotten something, which this finds as any write does.


class _Part(NamedTuple):
    first: int
    last: int
    changes: list[Change]


def _parts(first: int, writes: list[list[Change]]) -> Iterator[_Part]:
    changes: list[Change] = []
    begin, size = first, 0
    for number, write in enumerate(writes, first):
        changes += write
        size += sum(len(change.key) + len(change.value or b"") for change in write)
        if size >= PART_BYTES:
            yield _Part(begin, number, changes)
            changes, begin, size = [], number + 1, 0
    if changes or begin < first + len(writes):
        yield _Part(begin, first + len(writes) - 1, changes)


async def _take(server: RedisServer, holder: str) -> Found:
    """Wait for as long as the lease of another one runs, and no longer."""
    clock = asyncio.get_running_loop().time
    free_at: float | None = None
    while True:
        answer = await server.take(holder, LEASE_S)
        if isinstance(answer, Found):
            return answer
        over_at = clock() + answer.left_s
        if free_at is None:
            free_at = over_at
            log.warning(
                "%s: head %s has a lease on this log for %.1f s more; waiting for its end", server.where, answer.holder, answer.left_s
            )
        elif over_at > free_at + 0.5 * RENEW_S:
            why = f"the head {answer.holder} keeps its state there and is alive: end that cluster, or give this one another name behind #"
            raise BlockingIOError(errno.EWOULDBLOCK, why, server.where)
        await asyncio.sleep(min(ASK_AGAIN_S, max(0.05, answer.left_s)))
