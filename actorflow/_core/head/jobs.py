"""The head's jobs: drivers that come and go."""

from __future__ import annotations

import logging

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.nodes import Touch, nothing
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.jobs import EndJob, JobTable, Refuse
from actorflow._core.protocol.messages import Shutdown

log = logging.getLogger(__name__)


class Jobs:
    """Which jobs there are. A driver without a job id only looks (`actorflow status`) and is none."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self.table = JobTable()
        """To be read by others, written here."""
        self.touch: Touch = nothing
        """As in Nodes."""

    def driver_ready(self, peer: Peer) -> None:
        """A driver is connected."""
        if not peer.job_id:
            return
        now = self._ports.monotonic()
        for decision in self.table.driver_connected(peer.job_id, peer.process_id, peer.namespace, peer.pid, now):
            if isinstance(decision, Refuse):
                log.warning("driver %s is refused: %s", peer.process_id, decision.reason)
                # It would come again and again: between machines it may have been cut off, and not know that it was given up.
                peer.send_past(Shutdown(decision.reason))
                peer.close()
        self.touch("job", peer.job_id)

    def driver_lost(self, job_id: str, driver_id: ProcessId, reason: str) -> EndJob | None:
        """A driver is gone; returns its job's end when it was the last one."""
        decisions = self.table.driver_lost(job_id, driver_id, reason, self._ports.monotonic())
        self.touch("job", job_id)
        ends = [decision for decision in decisions if isinstance(decision, EndJob)]
        return ends[0] if ends else None


NAMESPACE_DEFAULT = "default"


def namespace_of(jobs: Jobs, peer: Peer) -> str:
    """That of its job: only drivers say it themselves."""
    job = jobs.table.find(job_of(peer))
    return (job.namespace if job is not None else peer.namespace) or NAMESPACE_DEFAULT


def job_of(peer: Peer) -> str:
    """The job of a driver or worker: what it has proven, and within a machine what it says."""
    return (peer.proof.job_id if peer.proof is not None else "") or peer.job_id
