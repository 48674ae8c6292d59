"""Looking: state queries of the head, answered from the node's own tables or by its processes together.

NS-1: every query is answered once, within its time, unless the head is gone; who was silent is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from actorflow._core.base.state_rows import NODE_KINDS
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.node.rows import lease_rows, resource_rows, worker_rows
from actorflow._core.node.workers import Workers
from actorflow._core.protocol.messages import StateQuery, StateReply

OWN_KINDS = ("workers", "resources", "leases")
PROCESS_SHARE = 0.8
"""The part of a query's time that the processes get: an answer that names the silent has to come in time."""
NODE_SHARE = 0.9
QUERIES_MAX = 256

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Gathering:
    """One query that is under way at the processes."""

    asker: Peer
    query: StateQuery
    waiting: dict[str, None]
    timer: asyncio.TimerHandle | None = None
    rows: list[msgspec.Raw] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    truncated: bool = False
    error: str = ""


class State:
    """Answers what is here."""

    def __init__(self, context: NodeContext, workers: Workers, processes: Callable[[], Iterator[Peer]]) -> None:
        self._context = context
        self._workers = workers
        self._processes = processes
        self._gatherings: dict[int, Gathering] = {}
        self._next_token = 1

    def query(self, peer: Peer, message: StateQuery) -> None:
        """The head looks."""
        if message.kind in OWN_KINDS:
            limit = max(0, message.limit)
            rows = list(islice(self._own_rows(message.kind), limit + 1))
            peer.send(StateReply(message.token, _encode(rows[:limit]), truncated=len(rows) > limit))
        elif message.kind not in NODE_KINDS:
            error = f"a node has no state of the kind {message.kind!r}: it has {', '.join(NODE_KINDS)}"
            peer.send(StateReply(message.token, b"[]", error=error))
        elif len(self._gatherings) >= QUERIES_MAX:
            error = f"{QUERIES_MAX} state queries are under way, the limit of this node: ask again later"
            peer.send(StateReply(message.token, b"[]", error=error))
        else:
            self._ask_processes(peer, message)

    def reply(self, peer: Peer, message: StateReply) -> None:
        """A process answers; one that answers too late, or twice, is not heard."""
        gathering = self._gatherings.get(message.token)
        if gathering is None or peer.process_id not in gathering.waiting:
            return
        del gathering.waiting[peer.process_id]
        try:
            gathering.rows += _decode(message.rows)
        except msgspec.DecodeError as error:
            gathering.missing.append(peer.process_id)
            gathering.error = f"{peer.role} {peer.process_id} answered with what is not JSON: {error}"
        gathering.missing += message.missing
        gathering.truncated = gathering.truncated or message.truncated
        gathering.error = gathering.error or message.error
        if not gathering.waiting:
            self._answer(message.token)

    def process_lost(self, process_id: str) -> None:
        """A process will not answer any more."""
        for token, gathering in list(self._gatherings.items()):
            if process_id in gathering.waiting:
                del gathering.waiting[process_id]
                gathering.missing.append(process_id)
                if not gathering.waiting:
                    self._answer(token)

    def stop(self) -> None:
        """No timer fires from now on."""
        for gathering in self._gatherings.values():
            if gathering.timer is not None:
                gathering.timer.cancel()
        self._gatherings.clear()

    def _own_rows(self, kind: str) -> Iterator[Mapping[str, object]]:
        if kind == "workers":
            return worker_rows(self._context, self._workers)
        if kind == "resources":
            return resource_rows(self._context)
        return lease_rows(self._context)

    def _ask_processes(self, peer: Peer, message: StateQuery) -> None:
        timeout_s = max(message.timeout_s, 0.0)
        token, self._next_token = self._next_token, self._next_token + 1
        asked = list(self._processes())
        gathering = Gathering(peer, message, dict.fromkeys(process.process_id for process in asked))
        self._gatherings[token] = gathering
        if not asked:
            self._answer(token)
            return
        question = StateQuery(token, message.kind, message.limit, timeout_s * PROCESS_SHARE, message.actor_id)
        for process in asked:
            process.send(question)
        gathering.timer = self._context.ports.loop.call_later(timeout_s * NODE_SHARE, self._answer, token)

    def _answer(self, token: int) -> None:
        gathering = self._gatherings.pop(token)
        if gathering.timer is not None:
            gathering.timer.cancel()
        limit = max(0, gathering.query.limit)
        gathering.asker.send(
            StateReply(
                gathering.query.token,
                _encode(gathering.rows[:limit]),
                [*gathering.missing, *gathering.waiting],
                gathering.truncated or len(gathering.rows) > limit,
                gathering.error,
            )
        )
