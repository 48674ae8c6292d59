"""The results of a call with num_returns: each is an object of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import SerializationError
from actorflow._core.worker import incoming as arguments

if TYPE_CHECKING:

    from actorflow._core.protocol import messages as m
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.incoming import Incoming
    from actorflow._core.worker.references import Entry


def deliver_many(host: Host, incoming: Incoming, value: Any, returns: int) -> None:
    """End a call that was to return so many values, more than one."""
    parts = list(value) if isinstance(value, (tuple, list)) else None
    if parts is None or len(parts) != returns:
        what = f"{len(parts)} values" if parts is not None else f"a {type(value).__name__}"
        error = ValueError(f"{incoming.running.name if incoming.running else ''} has num_returns={returns} but returned {what}")
        host.end(incoming, arguments.failure(host.core, incoming, error), [])
        return
    outcomes: list[m.Outcome | None] = [None] * returns
    holds: list[Entry] = []
    left = returns

    def packed(position: int, outcome: m.Outcome, hold: list[Entry]) -> None:
        nonlocal left
        outcomes[position] = outcome
        holds.extend(hold)
        left -= 1
        if not left:
            host.end(incoming, outcomes[0], holds, more=outcomes[1:])  # type: ignore[arg-type]

    for position, part in enumerate(parts):
        try:
            arguments.pack_result(host.core, incoming, part, partial(packed, position))
        except SerializationError as error:
            # This value cannot travel; the others can.
            packed(position, arguments.failure(host.core, incoming, error), [])
