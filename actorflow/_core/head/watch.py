"""The head looks after its nodes: one that says nothing for too long is lost, though its connection may seem to be there.

The policy is `policy/liveness.py`. While no node sends beats nothing happens here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.liveness import LOOK_S, Watch
from actorflow._core.protocol.messages import Beat, BeatHeard


class NodeWatch:
    """See the module. `silent(node, reason)` is told of each node that is given up."""

    def __init__(self, ports: Ports, silent: Callable[[ProcessId, str], None]) -> None:
        self._ports = ports
        self._silent = silent
        self._watch = Watch()
        self._timer: asyncio.TimerHandle | None = None

    def beat(self, node_id: ProcessId, peer: Peer, message: Beat) -> None:
        """A node says that it lives."""
        if node_id:
            self._watch.heard(node_id, self._ports.monotonic())
            peer.send_past(BeatHeard(message.number))
            if self._timer is None:
                self._look()

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
        for node_id, silence_s in self._watch.look(self._ports.monotonic()):
            self._silent(node_id, f"nothing was heard of it for {silence_s:.1f} s")
        if self._watch.empty:
            self._watch.rest()
        else:
            self._timer = self._ports.loop.call_later(LOOK_S, self._look)
