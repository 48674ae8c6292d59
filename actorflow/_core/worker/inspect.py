"""What a process says of itself when the state API asks: its calls, its objects, its events."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from actorflow._core.base.ids import task_name
from actorflow._core.protocol import messages as m
from actorflow._core.worker.calls import Call, CallState

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.incoming import Incoming

EVENTS_MAX = 10_000
"""Ended calls that a worker remembers for `af.timeline` and `list_tasks`."""


class Events:
    """The last calls that ran here, as tuples: cheap to keep, made readable only when somebody asks."""

    def __init__(self, wall_offset: float) -> None:
        self._wall_offset = wall_offset
        self._ring: deque[tuple[str, str, str, int, int, float, int, bool]] = deque(maxlen=EVENTS_MAX)

    def append(self, incoming: Incoming, run_us: int, failed: bool) -> None:
        """A call has ended."""
        running = incoming.running
        if running is not None:
            self._ring.append(
                (running.name, running.actor_id, running.owner, running.seq, running.attempt, incoming.started, run_us, failed)
            )

    def rows(self, core: Core, limit: int) -> list[dict[str, Any]]:
        """The newest events, oldest first."""
        me = core.identity
        return [
            {
                "name": name,
                "task": task_name(owner, seq),
                "actor_id": actor_id,
                "process_id": me.process_id,
                "pid": me.pid,
                "attempt": attempt,
                "started_at": started + self._wall_offset,
                "run_us": run_us,
                "failed": failed,
            }
            for name, actor_id, owner, seq, attempt, started, run_us, failed in list(self._ring)[-limit:]
        ]


def answer_query(core: Core, query: m.StateQuery) -> bytes:
    """The rows of this process for a kind of query, as a JSON array. Under the lock."""
    rows: list[dict[str, Any]] = []
    if query.kind == "tasks":
        rows = _tasks(core, query.limit)
    elif query.kind == "objects":
        rows = _objects(core, query.limit)
    elif query.kind == "events" and core.host is not None and core.host.events is not None:
        rows = core.host.events.rows(core, query.limit)
    return msgspec.json.encode(rows)


def _tasks(core: Core, limit: int) -> list[dict[str, Any]]:
    """Every call of this process that has not ended: the owner knows best."""
    rows = []
    for entry in core.references.owned.entries.values():
        call: Call | None = entry.call
        if call is None or call.entry is not entry:
            continue
        rows.append(
            {
                "task": task_name(core.identity.process_id, entry.index),
                "name": call.target.name,
                "state": call.state.value,
                "owner": core.identity.process_id,
                "attempt": call.attempt,
                "worker_id": _worker_of(call),
                "actor_id": getattr(call.place, "actor_id", ""),
                "site": f"{entry.site[0]}:{entry.site[1]}" if entry.site else "",
            }
        )
        if len(rows) >= limit:
            break
    return rows


def _worker_of(call: Call) -> str:
    return getattr(call.place, "worker_id", "") if call.state is CallState.PUSHED else ""


def _objects(core: Core, limit: int) -> list[dict[str, Any]]:
    rows = []
    for entry in core.references.owned.entries.values():
        outcome = entry.outcome
        if outcome is None:
            continue
        rows.append(
            {
                "object": f"{core.identity.process_id[:6]}-{entry.index}",
                "owner": core.identity.process_id,
                "where": type(outcome).__name__.lower(),
                "bytes": outcome.size if isinstance(outcome, m.Stored) else len(getattr(outcome, "data", b"")),
                "handles": entry.local,
                "pins": entry.pins,
                "borrowers": len(entry.borrowers or ()),
            }
        )
        if len(rows) >= limit:
            break
    return rows
