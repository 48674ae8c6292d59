"""The head looks after its nodes: one that says nothing for too long is lost, though its connection may seem to be there.

One that is heard only through others has a bad link and lives; nothing new goes there meanwhile (HV-3). The policy is `policy/liveness.py`.
While no node sends beats nothing happens here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.nodes import node_id_of
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.liveness import LOOK_S, Watch
from actorflow._core.protocol.messages import Beat, BeatHeard, BeatHeardOf, BeatOf


class Told(Protocol):
    """Whom the watch tells what it sees."""

    def node_silent(self, node_id: ProcessId, reason: str) -> None:
        """The node is given up."""

    def node_apart(self, node_id: ProcessId, reason: str) -> None:
        """It is heard only through others from now on."""

    def node_in_reach(self, node_id: ProcessId) -> None:
        """It is heard as the others are again."""


class NodeWatch:
    """See the module."""

    def __init__(self, ports: Ports, told: Told) -> None:
        self._ports = ports
        self._told = told
        self._watch = Watch()
        self._timer: asyncio.TimerHandle | None = None

    def beat(self, node_id: ProcessId, peer: Peer, message: Beat) -> None:
        """A node says that it lives."""
        if node_id:
            in_reach = self._watch.heard(node_id, self._ports.monotonic())
            peer.send_past(BeatHeard(message.number))
            if self._timer is None:
                self._look()
            if in_reach:
                self._told.node_in_reach(node_id)

    def beat_of(self, peer: Peer, message: BeatOf) -> None:
        """A node says that another one lives (LV-4)."""
        node_id, known = message.node_id, self._watch.only_through_others(message.node_id)
        if self._watch.heard_through(node_id, self._ports.monotonic()):
            peer.send_past(BeatHeardOf(node_id, message.number))
            if not known:
                self._told.node_apart(node_id, f"heard only through other nodes: node {node_id_of(peer)} passes on what it says")

    def knows_apart(self, node_id: ProcessId) -> bool:
        """The node lives, and its link with the head does not."""
        return self._watch.only_through_others(node_id)

    def lost(self, node_id: ProcessId) -> None:
        """A node is gone."""
        self._watch.forget(node_id)

    def stop(self) -> None:
        """No timer fires from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        for node_id, reason in self._watch.look(self._ports.monotonic()):
            self._told.node_silent(node_id, reason)
        if self._watch.empty:
            self._watch.rest()
        else:
            self._timer = self._ports.loop.call_later(LOOK_S, self._look)
