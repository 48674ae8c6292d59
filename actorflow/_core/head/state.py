"""Looking: state queries, answered from the head's own tables or by all nodes together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.state_rows import HEAD_KINDS, NODE_KINDS
from actorflow._core.head.actors import Actors
from actorflow._core.head.jobs import Jobs
from actorflow._core.head.nodes import Nodes, node_id_of
from actorflow._core.head.rows import actor_rows, job_rows, node_rows, object_rows
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.protocol.messages import StateQuery, StateReply

TIMEOUT_S_MAX = 60.0
NODE_SHARE = 0.8
"""The part of a query's time that the nodes get: an answer that names the silent has to come in time."""
HEAD_SHARE = 0.9

if TYPE_CHECKING:
    from actorflow._core.head.durable import DurableRoom
    from actorflow._core.head.groups import Groups

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Gathering:
    """One query that is under way at the nodes."""

    asker: Peer
    query: StateQuery
    waiting: dict[ProcessId, None]
    timer: asyncio.TimerHandle | None = None
    rows: list[msgspec.Raw] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    truncated: bool = False
    error: str = ""


class StateDesk:
    """Answers whoever asks what is there.

    HS-1: every query is answered once, within its time, unless its asker is gone.
    """

    def __init__(self, ports: Ports, nodes: Nodes, jobs: Jobs, actors: Actors, queries_max: int) -> None:
        self._ports = ports
        self._nodes = nodes
        self._jobs = jobs
        self._actors = actors
        self._queries_max = queries_max
        self._gatherings: dict[int, Gathering] = {}
        self._next_token = 1
        self.groups: Groups | None = None
        """The placement groups, when there are some. Set by the head."""
        self.durables: DurableRoom | None = None
        """The objects that the cluster owns, when there are some. Set by the head."""

    def stop(self) -> None:
        """No timer fires from now on."""
        for gathering in self._gatherings.values():
            if gathering.timer is not None:
                gathering.timer.cancel()
        self._gatherings.clear()

    def query(self, peer: Peer, message: StateQuery) -> None:
        """Somebody looks."""
        if message.kind in HEAD_KINDS:
            limit = max(0, message.limit)
            rows = list(islice(self._own_rows(message), limit + 1))
            peer.send(StateReply(message.token, _encode(rows[:limit]), truncated=len(rows) > limit))
        elif message.kind not in NODE_KINDS:
            known = ", ".join(HEAD_KINDS + NODE_KINDS)
            error = f"there is no kind of state {message.kind!r}: known are {known}"
            peer.send(StateReply(message.token, b"[]", error=error))
        elif len(self._gatherings) >= self._queries_max:
            error = f"{self._queries_max} state queries are under way, the limit of this head: ask again later"
            peer.send(StateReply(message.token, b"[]", error=error))
        else:
            self._ask_nodes(peer, message)

    def reply(self, peer: Peer, message: StateReply) -> None:
        """A node answers; one that answers too late, or twice, is not heard."""
        gathering = self._gatherings.get(message.token)
        node_id = node_id_of(peer)
        if gathering is None or node_id not in gathering.waiting:
            return
        del gathering.waiting[node_id]
        try:
            gathering.rows += _decode(message.rows)
        except msgspec.DecodeError as error:
            gathering.missing.append(node_id)
            gathering.error = f"node {node_id} answered with what is not JSON: {error}"
        gathering.missing += message.missing
        gathering.truncated = gathering.truncated or message.truncated
        gathering.error = gathering.error or message.error
        if not gathering.waiting:
            self._answer(message.token)

    def node_lost(self, node_id: ProcessId) -> None:
        """A node will not answer any more."""
        for token, gathering in list(self._gatherings.items()):
            if node_id in gathering.waiting:
                del gathering.waiting[node_id]
                gathering.missing.append(node_id)
                if not gathering.waiting:
                    self._answer(token)

    def _own_rows(self, message: StateQuery) -> Iterator[Mapping[str, object]]:
        offset = self._ports.wall_time() - self._ports.monotonic()
        if message.kind == "nodes":
            return node_rows(self._nodes.membership, offset)
        if message.kind == "jobs":
            return job_rows(self._jobs.table, self._actors.table, offset)
        if message.kind == "placement_groups":
            return self.groups.rows(offset) if self.groups is not None else iter(())
        return actor_rows(self._actors.table, message.actor_id, offset)

    def _ask_nodes(self, peer: Peer, message: StateQuery) -> None:
        timeout_s = min(max(message.timeout_s, 0.0), TIMEOUT_S_MAX)
        token, self._next_token = self._next_token, self._next_token + 1
        gathering = Gathering(peer, message, dict.fromkeys(self._nodes.membership.living()))
        self._gatherings[token] = gathering
        if message.kind == "objects" and self.durables is not None:
            gathering.rows += [msgspec.Raw(_encode(row)) for row in islice(object_rows(self.durables.table), max(0, message.limit) + 1)]
        if not gathering.waiting:
            self._answer(token)
            return
        question = StateQuery(token, message.kind, message.limit, timeout_s * NODE_SHARE, message.actor_id)
        for node_id in gathering.waiting:
            self._nodes.send(node_id, question)
        gathering.timer = self._ports.loop.call_later(timeout_s * HEAD_SHARE, self._answer, token)

    def _answer(self, token: int) -> None:
        gathering = self._gatherings.pop(token)
        if gathering.timer is not None:
            gathering.timer.cancel()
        limit = max(0, gathering.query.limit)
        reply = StateReply(
            gathering.query.token,
            _encode(gathering.rows[:limit]),
            [*gathering.missing, *gathering.waiting],
            gathering.truncated or len(gathering.rows) > limit,
            gathering.error,
        )
        gathering.asker.send(reply)
