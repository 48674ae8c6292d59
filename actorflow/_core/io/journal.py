"""The log of a state in files: segments with records, and at most one snapshot that counts.

A new snapshot is made beside the commits, when the records since the last one are larger than it.

JL-1: after an error of the disk nothing is told to be durable before the whole state is on the disk anew, in a file of its own:
nobody knows what a failed sync has left. JL-2: segments and snapshots that are not needed are removed, so that the files are at most
some four times as large as the state, plus `snapshot_bytes_min`. JL-3: a torn tail, which nobody was told of, is cut at the next start;
damage is an error, never a guess.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import NamedTuple, Self

from actorflow._core.io.ports import Files
from actorflow._core.io.state_log import RETRY_FIRST_S, RETRY_MAX_S, State, StateLog, apply
from actorflow._core.protocol.journal_format import (
    Change,
    JournalDamagedError,
    encode_header,
    encode_record,
    encode_snapshot,
    read_segment,
    read_snapshot,
)

log = logging.getLogger(__name__)

SEGMENT, SNAPSHOT = "journal-", "snapshot-"
SNAPSHOT_BYTES_MIN = 4 << 20


class Found(NamedTuple):
    """What is in the files at the start, all of it durable."""

    state: State
    last: int
    snapshot_bytes: int
    segment_bytes: int


class Journal(StateLog):
    """One journal, open for writing. Made by `open`; everything on the loop that opened it."""

    def __init__(self, files: Files, found: Found, snapshot_bytes_min: int) -> None:
        super().__init__(found.state, found.last)
        self._files = files
        self._bytes_min = snapshot_bytes_min
        self._snapshot_bytes = found.snapshot_bytes
        self._bytes_since = found.segment_bytes
        """In the segments that the last snapshot does not cover."""
        self._segment = ""
        """The file that is written to; empty: the next record begins one."""
        self._snapshotting: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, files: Files, *, snapshot_bytes_min: int = SNAPSHOT_BYTES_MIN) -> Self:
        """Read what is there, cut a torn tail, and be ready to write.

        Raises JournalDamagedError, JournalSchemaError, and OSError when the disk cannot be read or synced.
        """
        return cls(files, await _recover(files), snapshot_bytes_min)

    async def close(self) -> None:
        """See StateLog."""
        await super().close()
        if self._snapshotting is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._snapshotting

    # -- committing

    async def _store(self, first: int, writes: list[list[Change]]) -> int:
        try:
            await self._append(first, writes)
        except OSError as error:
            return await self._write_anew(error)
        return first + len(writes) - 1

    async def _append(self, first: int, writes: list[list[Change]]) -> None:
        pieces = [encode_record(number, self._durable, changes) for number, changes in enumerate(writes, first)]
        if not self._segment:
            self._segment = f"{SEGMENT}{first:020}"
            pieces.insert(0, encode_header(first))
        data = b"".join(pieces)
        await self._files.append(self._segment, data)
        self._bytes_since += len(data)

    async def _write_anew(self, error: OSError) -> int:
        """The disk has failed: the whole state goes to it in a new file (JL-1)."""
        log.error("the journal cannot be written: %s; nothing new is acknowledged until it can", error)
        self._segment = ""
        self.problem = f"the journal cannot be written: {error}"
        if self._snapshotting is not None:
            self._snapshotting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._snapshotting
        pause_s = RETRY_FIRST_S
        while not self._closed:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)
            number = self._written
            self._queue.clear()
            try:
                await self._snapshot(number, self._as_changes())
            except OSError as again:
                self.problem = f"the journal cannot be written: {again}"
                continue
            log.warning("the journal can be written again")
            self.problem = ""
            self._bytes_since = 0
            return number
        log.error("the journal is closed, and the last changes are not in it: %s", self.problem)
        self._queue.clear()
        return self._durable

    # -- snapshots

    def _stored(self) -> None:
        """At a boundary: all that is written is in the segments up to here, or in the queue for the next one."""
        if self._snapshotting is not None or self._queue or self._bytes_since < max(self._bytes_min, self._snapshot_bytes):
            return
        self._segment = ""  # The next record begins a new one, which the snapshot does not cover.
        self._bytes_since = 0
        taken = self._snapshot_quietly(self._durable, self._as_changes())
        self._snapshotting = asyncio.get_running_loop().create_task(taken)

    async def _snapshot_quietly(self, number: int, state: list[Change]) -> None:
        """The records are on the disk: a snapshot that cannot be written now is tried again when they have grown."""
        try:
            await self._snapshot(number, state)
        except OSError as error:
            log.warning("a snapshot of the journal cannot be written: %s", error)
        finally:
            self._snapshotting = None

    def _as_changes(self) -> list[Change]:
        return [Change(kind, key, value) for (kind, key), value in self._state.items()]

    async def _snapshot(self, number: int, state: list[Change]) -> None:
        name = f"{SNAPSHOT}{number:020}"
        await self._files.replace(name, encode_snapshot(number, state))
        self._snapshot_bytes = sum(len(change.key) + len(change.value or b"") for change in state)
        for other in self._files.paths(SNAPSHOT):
            if other < name:
                self._remove(other)
        for segment in self._files.paths(SEGMENT):
            if segment != self._segment and _first_of(segment) <= number:
                self._remove(segment)

    def _remove(self, path: str) -> None:
        try:
            self._files.remove(path)
        except OSError as error:
            log.warning("%s is of no use any more and cannot be removed: %s", path, error)


def _first_of(segment: str) -> int:
    return int(segment.removeprefix(SEGMENT))


async def _recover(files: Files) -> Found:
    state: State = {}
    last = snapshot_bytes = segment_bytes = 0
    snapshots = files.paths(SNAPSHOT)
    if snapshots:
        data = files.read(snapshots[-1])
        snapshot_bytes = len(data)
        last, changes = read_snapshot(data, snapshots[-1])
        apply(state, changes)
    covered = last
    segments = files.paths(SEGMENT)
    for at, name in enumerate(segments):
        following = _first_of(segments[at + 1]) if at + 1 < len(segments) else None
        if following is not None and following <= covered + 1:
            continue  # Of before the snapshot: it came back, or could not be removed.
        data = files.read(name)
        segment = read_segment(data, name, covered)
        if segment is not None and segment.first > last + 1:
            raise JournalDamagedError(f"records {last + 1} to {segment.first - 1} are missing before {name}")
        for record in segment.records if segment is not None else ():
            if record.number > last:
                apply(state, record.changes)
                last = record.number
        if following is not None and following > last + 1:
            raise JournalDamagedError(f"{name}: its records from {last + 1} to {following - 1} are gone")
        if segment is None or not segment.records:
            files.remove(name)
        elif segment.sound_bytes < len(data):
            torn = len(data) - segment.sound_bytes
            log.warning("%s: its last %d bytes were not wholly written and never acknowledged; they are cut", name, torn)
            await files.replace(name, [data[: segment.sound_bytes]])
        else:
            await files.sync(name)
        segment_bytes += len(data)
    return Found(state, last, snapshot_bytes, segment_bytes)
