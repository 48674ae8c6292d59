"""Who gets which certificate, and which lives of a node are admitted: the rules of the head's enrolment desk. Pure.

    key proven   may have signed                        is given
    JOIN         node/<its own id>, once for each id    the roots of nodes, an incarnation
    NODE         node/<its own id>, job/<any job>       the roots of nodes
    CLIENT       job/<its own id>                       the keys of that job
    JOB          nothing: a process of a job is enrolled by its node

    EP-1  A certificate names what its receiver has proven to be, or a job that it has a right to.
    EP-2  An id of a node is given to one process, once: who comes with a known id is refused.
    EP-3  A node that was lost is never admitted again, whatever incarnation it says it is: started anew it has another id.
"""

from __future__ import annotations

from actorflow._core.security.fences import REMOVED, Fences
from actorflow._core.security.keys import SUBJECT_BYTES_MAX, is_name
from actorflow._core.security.roles import KeyKind, Role, certified_name


def certificate_name(kind: KeyKind, process_id: str, job_id: str) -> str:
    """What a certificate for this peer names; `job_id` as in Enrol. Raises ValueError with why there is none (EP-1)."""
    if job_id and (len(job_id) > SUBJECT_BYTES_MAX or not is_name(job_id)):
        raise ValueError("that is no id of a job")
    if kind is KeyKind.NODE and job_id:
        return certified_name(Role.WORKER, job_id)
    if kind in (KeyKind.NODE, KeyKind.JOIN) and not job_id:
        return certified_name(Role.NODE, process_id)
    if kind is KeyKind.CLIENT and job_id in ("", process_id):
        return certified_name(Role.DRIVER, process_id)
    raise ValueError(f"a {kind.name} key of {process_id} gives no right to a certificate{f' for job {job_id}' if job_id else ''}")


def admit_node(fences: Fences, process_id: str) -> int:
    """The incarnation of a node that joins; what is below it is fenced at once. Raises ValueError (EP-2)."""
    if fences.oldest(process_id):
        raise ValueError(f"a node with the id {process_id} is known already, and each is admitted once: start the node anew")
    fences.raise_to(process_id, 1)
    return 1


def fence_lost_node(fences: Fences, process_id: str) -> None:
    """EP-3."""
    fences.remove(process_id)


def fence_rows(fences: Fences, rows_max: int) -> list[tuple[str, int]]:
    """The newest rows as they travel: -1 stands for a process that is never admitted again."""
    return [(process_id, -1 if oldest == REMOVED else oldest) for process_id, oldest in fences.rows()[-rows_max:]]


def take_fence_rows(fences: Fences, rows: list[tuple[str, int]]) -> None:
    """Fence what the head has fenced."""
    for process_id, oldest in rows:
        if oldest < 0:
            fences.remove(process_id)
        else:
            fences.raise_to(process_id, oldest)
