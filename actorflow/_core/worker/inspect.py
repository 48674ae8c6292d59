"""What a process says of itself when the state API asks: its calls, its objects, its events."""

from __future__ import annotations

from collections import deque
from types import CodeType
from typing import TYPE_CHECKING, Any

import msgspec

from actorflow._core.base.ids import task_name
from actorflow._core.base.state_rows import EventRow, ObjectRow, TaskRow
from actorflow._core.protocol import messages as m
from actorflow._core.worker.calls import Call, CallState

if TYPE_CHECKING:
    from actorflow._core.policy.ownership import Owned
    from actorflow._core.worker.context import RunningCall
    from actorflow._core.worker.core import Core

EVENTS_MAX = 10_000
"""Ended calls that a worker remembers for `af.timeline` and `list_tasks`."""


class Events:
    """The last calls that ran here: (call, when it began, how long it ran, it failed). Made readable only when somebody asks."""

    def __init__(self, wall_offset_s: float) -> None:
        self._wall_offset_s = wall_offset_s
        self._ring: deque[tuple[RunningCall, float, int, bool]] = deque(maxlen=EVENTS_MAX)
        self.append = self._ring.append
        """A call has ended."""

    def spans(self, core: Core, limit: int) -> list[EventRow]:
        """The newest calls as spans of time, oldest first."""
        me = core.identity
        return [
            EventRow(
                time=started + self._wall_offset_s,
                duration_s=run_us / 1e6,
                kind="call",
                subject=task_name(call.owner, call.seq),
                name=call.name,
                process_id=me.process_id,
                pid=me.pid,
                detail="failed" if failed else "",
            )
            for call, started, run_us, failed in list(self._ring)[-limit:]
        ]

    def tasks(self, core: Core, limit: int) -> list[TaskRow]:
        """The newest calls as rows of ended tasks, oldest first."""
        me = core.identity
        return [
            TaskRow(
                task=task_name(call.owner, call.seq),
                name=call.name,
                state="failed" if failed else "finished",
                owner=call.owner,
                job_id=me.job_id,
                actor_id=call.actor_id,
                worker_id=me.process_id,
                attempt=call.attempt,
                started_at=started + self._wall_offset_s,
                ended_at=started + self._wall_offset_s + run_us / 1e6,
                call_site="",
            )
            for call, started, run_us, failed in list(self._ring)[-limit:]
        ]


def site_text(site: tuple[CodeType, int]) -> str:
    """`file:line` of a place in the program, kept as (code, offset): the line is looked up only when somebody asks."""
    code, offset = site
    line = next((line for start, end, line in code.co_lines() if start <= offset < end and line is not None), code.co_firstlineno)
    return f"{code.co_filename}:{line}"


def answer_query(core: Core, query: m.StateQuery) -> bytes:
    """The rows of this process for a kind of query, as a JSON array. Under the lock."""
    rows: list[Any] = []
    events = core.host.events if core.host is not None else None
    if query.kind == "tasks":
        rows = _tasks(core, query.limit)
        if events is not None:
            rows += events.tasks(core, query.limit - len(rows)) if len(rows) < query.limit else []
    elif query.kind == "objects":
        rows = _objects(core, query.limit)
    elif query.kind == "events" and events is not None:
        rows = events.spans(core, query.limit)
    return msgspec.json.encode(rows)


def _tasks(core: Core, limit: int) -> list[Any]:
    """Every call of this process that has not ended: its owner knows best."""
    me = core.identity
    rows: list[Any] = []
    for entry in core.references.owned.entries.values():
        call: Call | None = entry.call
        if call is None or call.entry is not entry:
            continue
        if len(rows) >= limit:
            break
        pushed = call.state is CallState.PUSHED
        rows.append(
            TaskRow(
                task=task_name(me.process_id, entry.index),
                name=call.target.name,
                state=call.state.value,  # type: ignore[typeddict-item]  # a call that has ended is not in the table
                owner=me.process_id,
                job_id=me.job_id,
                actor_id=getattr(call.place, "actor_id", ""),
                worker_id=getattr(call.place, "worker_id", "") if pushed else "",
                attempt=call.attempt,
                started_at=None,
                ended_at=None,
                call_site=_site(entry),
            )
        )
    return rows


def _objects(core: Core, limit: int) -> list[Any]:
    me = core.identity
    rows: list[Any] = []
    for entry in core.references.owned.entries.values():
        if len(rows) >= limit:
            break
        if entry.index in core.objects.lifetimes:
            # Stands for the life of an actor; it is no object of the user's.
            continue
        outcome = entry.outcome
        state = "pending" if outcome is None else "failed" if isinstance(outcome, m.Failed) else "ready"
        rows.append(
            ObjectRow(
                object_id=f"{me.process_id}-{entry.index}",
                owner=me.process_id,
                job_id=me.job_id,
                state=state,  # type: ignore[typeddict-item]
                size_bytes=_size(outcome),
                place=outcome.node if isinstance(outcome, m.Stored) else "inline",
                local_refs=entry.local,
                borrowers=len(entry.borrowers or ()),
                call_site=_site(entry),
            )
        )
    return rows


def _size(outcome: m.Outcome | None) -> int:
    if isinstance(outcome, m.Stored):
        return outcome.size
    if isinstance(outcome, m.Inline):
        return len(outcome.data) + sum(map(len, outcome.buffers or ()))
    return 0


def _site(entry: Owned) -> str:
    return site_text(entry.site) if entry.site else ""
