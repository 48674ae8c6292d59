"""Passes: how a process of one job speaks with those of another, between hosts. Pure.

A job's processes hold the key of that job and no other, so those of two jobs have nothing in common. A pass is a key that they then have:
the head derives it from the key of the *host* job, for one visitor. Whoever is visited derives it again from the key that it has anyway,
and asks nobody.

    secret --- root of JOB --- key of the host job --- pass of one visitor

PX-1: a pass is good for one visitor process, which is of one job, at one host job, and until it expires: all four are in its derivation.
PX-2: a visitor can say only what is on the list of what visitors may say (worker/visitors.py), whichever side has connected.
PX-3: a pass never makes anyone a member of the host job: its derivation goes one way, and a process accepts visitors with it, not members.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from dataclasses import dataclass

from actorflow._core.security.keys import Key, KeyId, Keyring
from actorflow._core.security.roles import KeyKind

PASS_VALID_S = 3600.0
"""How long a pass is good. It counts when a connection is made; hosts' clocks may differ by ten minutes."""
PASS_USED_S = PASS_VALID_S / 2
"""How long its visitor uses one before it asks for another, by its own clock."""
JOBS_MAX = 256
"""The passes that one process keeps; it can ask again."""

_LABEL = b"actorflow 1 pass "
_INFO = struct.Struct("!24s32s32sQ")
_VISITOR_BYTES_MAX = 24
"""Of a process id, as in a handshake (wire.NAME_BYTES_MAX)."""


def pass_key(job_key: Key, visitor: str, visitor_job: str, expires: int) -> Key:
    """The pass of a visitor, from the key of the host job (PX-1).

    One block of HKDF's expansion: workers derive it too, and do not import `cryptography`. The key of a job is uniformly random.
    """
    if job_key.id.kind is not KeyKind.JOB:
        raise ValueError(f"a pass comes from the key of a job, not from a {job_key.id.kind.name} key")
    if not 0 < len(visitor) <= _VISITOR_BYTES_MAX:
        raise ValueError(f"the process id {visitor!r} does not have 1 to {_VISITOR_BYTES_MAX} characters")
    key_id = KeyId(KeyKind.VISIT, job_key.id.secret_id, visitor_job, expires)
    info = _INFO.pack(visitor.encode(), visitor_job.encode(), job_key.id.subject.encode(), expires)
    return Key(key_id, hmac.digest(job_key.material, _LABEL + info + b"\1", "sha256"))


def key_of_visitor(ring: Keyring, key_id: KeyId, visitor: str) -> Key | None:
    """The pass that a visitor names, made by the process that it visits. None: this process cannot be visited with that.

    Only who holds the key of a job as such has visitors: nodes and the head have the root of those keys, and nobody visits them.
    """
    if key_id.kind is not KeyKind.VISIT or not key_id.expires or key_id.single_use or not (visitor and key_id.subject):
        return None
    for key in ring.keys:
        if key.id.kind is KeyKind.JOB and key.id.secret_id == key_id.secret_id and key.id.subject != key_id.subject:
            return pass_key(key, visitor, key_id.subject, key_id.expires)
    return None


def issue(ring: Keyring, visitor: str, visitor_job: str, host_job: str, wall_time: float) -> list[Key]:
    """The head's part: the pass under each secret that is valid, the one in use first. `ring` has the root of the keys of jobs."""
    expires = int(wall_time + PASS_VALID_S)
    return [pass_key(key, visitor, visitor_job, expires) for key in ring.for_job(host_job).keys]


def refusal(visitor_job: str, host_job: str, *, has_driver: bool, actors: int) -> str:
    """Why there is no pass; empty when there is one."""
    if not visitor_job:
        return "this process belongs to no job"
    if visitor_job == host_job:
        return f"it is of job {host_job} itself, and needs none"
    if not has_driver and not actors:
        return f"job {host_job} is over, and none of its actors lives"
    return ""


@dataclass(slots=True)
class _Kept:
    keys: list[Key]
    use_until: float


class PassBook:
    """The passes that one process has been given, by host job. Its `now` is any clock that goes on evenly."""

    __slots__ = ("_jobs_max", "_kept")

    def __init__(self, jobs_max: int = JOBS_MAX) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._jobs_max = jobs_max

    def find(self, host_job: str, now: float) -> Key | None:
        """The pass to connect with; None: ask for one."""
        kept = self._kept.get(host_job)
        if kept is None or now >= kept.use_until:
            return None
        self._kept.move_to_end(host_job)
        return kept.keys[0]

    def enter(self, host_job: str, keys: list[Key], now: float) -> None:
        """The head has given these, the best first."""
        self._kept[host_job] = _Kept(keys, now + PASS_USED_S)
        self._kept.move_to_end(host_job)
        if len(self._kept) > self._jobs_max:
            self._kept.popitem(last=False)

    def refused(self, host_job: str, key: Key) -> None:
        """This one was not accepted: its secret was replaced, or clocks differ more than they may. The next one, if there is any."""
        kept = self._kept.get(host_job)
        if kept is not None and key in kept.keys:
            kept.keys.remove(key)
            if not kept.keys:
                del self._kept[host_job]
