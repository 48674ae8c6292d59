"""The tasks that wait in a worker behind one that runs: when that takes long, they go back to their owners (SEMANTICS 25)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorflow._core.policy.mailbox import Mailbox
from actorflow._core.protocol import messages as m

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.incoming import Incoming

LONG_CALL_S = 0.02
"""A task that runs longer, or blocks, gives back those that wait behind it."""


class WaitingTasks:
    """See the module. Under the lock."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.mailbox: Mailbox[Incoming] = Mailbox({"": 1})
        self.worn_out = False
        """A task was interrupted here: no other one is run (IR-6)."""
        self._watching = False

    def one_waits(self) -> None:
        """Look after a while whether it still does."""
        if not self._watching:
            self._watching = True
            self._host.core.later(LONG_CALL_S, self._look)

    def _look(self) -> None:
        self._watching = False
        if not self.mailbox.waiting():
            return
        now = self._host.core.ports.monotonic()
        running = [incoming for incoming in self._host.calls.values() if incoming.actor is None and incoming.started]
        if any(now - incoming.started >= LONG_CALL_S for incoming in running):
            self.give_back()
        else:
            self.one_waits()

    def wear_out(self, incoming: Incoming) -> None:
        """A task was interrupted: its owner retires this worker, and what waits here goes back (IR-6). On the user's thread."""
        assert isinstance(incoming.message, m.TaskCall)
        with self._host.core.lock:
            self.worn_out = True
            incoming.peer.send(m.WornOut(incoming.message.lease))
            self.give_back()

    def give_back(self) -> None:
        """Tasks that have not started go back to their owners."""
        by_lease: dict[tuple[Peer, int], list[int]] = {}
        for incoming in self.mailbox.take_waiting():
            del self._host.calls[incoming.key]
            assert isinstance(incoming.message, m.TaskCall)
            by_lease.setdefault((incoming.peer, incoming.message.lease), []).append(incoming.message.seq)
        for (peer, lease), seqs in by_lease.items():
            peer.send(m.GaveBack(lease, seqs))
