"""The head's passes: whoever is to speak with processes of another job is given one, when that job is there.

The rules are in `security/passes.py`. Nothing is kept: a pass is derived anew for each who asks.
"""

from __future__ import annotations

from actorflow._core.head.jobs import job_of
from actorflow._core.io.peers import Peer
from actorflow._core.policy.jobs import JobTable
from actorflow._core.protocol.messages import AskPass, PassGiven
from actorflow._core.security.keys import Keyring
from actorflow._core.security.passes import issue, refusal


def answer(ring: Keyring | None, peer: Peer, message: AskPass, jobs: JobTable, living: int, wall_time: float) -> PassGiven:
    """What a process hears that is to visit a job. `ring`: None in a cluster without keys. `living`: the actors of that job."""
    host_job, visitor_job = message.job_id, job_of(peer)
    problem = refusal(visitor_job, host_job, has_driver=jobs.is_running(host_job), actors=living)
    if ring is None or not ring.roots or problem:
        return PassGiven(host_job, error=problem or "this cluster has no keys, and its processes need none")
    try:
        keys = issue(ring, peer.process_id, visitor_job, host_job, wall_time)
    except ValueError as error:
        return PassGiven(host_job, error=str(error))
    return PassGiven(host_job, visitor_job, keys[0].id.expires, [(key.id.secret_id, key.material) for key in keys])
