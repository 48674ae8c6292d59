"""The keys and certificates of a node process: its own, and those of the jobs whose workers and drivers are on its host.

    NC-1  A worker or driver has the keys of its job, and where the cluster speaks TLS its certificate: before it is born, or joins.
    NC-2  What is replaced reaches every process on this host that is registered, and those that register later.
    NC-3  A certificate is renewed after two thirds of its life, and what fails is tried again; open connections keep theirs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from actorflow._core.base.errors import ActorflowError
from actorflow._core.io.cluster_access import ClusterAccess
from actorflow._core.io.handover import HandoverServer
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.protocol.messages import ClusterKeys, Enrolled
from actorflow._core.security.enrolment import take_fence_rows
from actorflow._core.security.fences import Fences
from actorflow._core.security.keys import Keyring, Root
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.tls import Credentials, client_side, server_side

log = logging.getLogger("actorflow")

LOOK_S = 60.0
"""How often the wall clock is looked at: it goes on while a machine sleeps, and timers do not."""
RENEW_RETRY_S = 30.0
RENEW_DELAY_S_MIN = 1.0
RECIPIENTS_MAX = 8192
"""Processes that have been given keys and are not seen to be gone."""
JOBS_MAX = 1000
"""Jobs whose certificates are kept for workers to come."""


class Issuer(Protocol):
    """The enrolment desk, as far as it concerns a node."""

    def enrol(self, job_id: str = "", request: bytes = b"") -> Awaitable[Enrolled]:
        """Raises ActorflowError."""


class _Recipient(NamedTuple):
    role: Role
    job_id: str
    generation: int
    """Of the keys that it was given."""


class NodeCredentials:
    """See the module. On the node's loop. `directory`: of the session. `issuer` signs; `securities` are kept up to date."""

    def __init__(
        self,
        directory: str,
        securities: list[Security],
        fences: Fences,
        *,
        tls: bool,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._securities = securities
        self._fences = fences
        self._tls = tls
        self._wall_time = wall_time
        self._ring = Keyring()
        self._authorities = b""
        self._jobs: OrderedDict[str, Credentials] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Credentials]] = {}
        self._recipients: OrderedDict[str, _Recipient] = OrderedDict()
        self._generation = 0
        self._renew_at = 0.0
        self._ends_at = float("inf")
        self.again = ""
        """The token with which this node may join once more, when it was given up."""
        self._renewing: asyncio.Task[None] | None = None
        self._handover: HandoverServer | None = None
        self.issuer: Issuer

    # -- the node's own

    async def certify(self) -> None:
        """Get keys and a certificate for this node, and go by them. Raises ActorflowError."""
        self.certified(*await self.ask())

    async def ask(self, job_id: str = "") -> tuple[Enrolled, bytes]:
        """Have the desk sign: its answer, and the key of the certificate in it. Raises ActorflowError."""
        if not self._tls:
            return await self.issuer.enrol(job_id), b""
        from actorflow._core.security.authority import new_request

        key, request = new_request()
        return await self.issuer.enrol(job_id, request), key

    def certified(self, answer: Enrolled, key: bytes) -> None:
        """Go by the keys and the certificate in the desk's answer. Raises CredentialError."""
        from actorflow._core.security.authority import CERTIFICATE_VALID_S, RENEW_AFTER, ends_at, renew_at

        if answer.keys is not None:
            self.keys_changed(answer.keys)
        self.again = answer.again
        self._renew_at = self._wall_time() + CERTIFICATE_VALID_S * RENEW_AFTER
        if self._tls:
            mine = Credentials(self._authorities, answer.certificate, key)
            server, client = server_side(mine), client_side(mine)
            for security in self._securities:
                security.server, security.client = server, client
            self._renew_at, self._ends_at = renew_at(answer.certificate), ends_at(answer.certificate)

    @property
    def ended(self) -> bool:
        """True when the certificate could not be renewed before its end: nobody believes this node any more."""
        return self._wall_time() >= self._ends_at

    def keys_changed(self, keys: ClusterKeys) -> None:
        """The desk says what the cluster goes by from now on. Raises CredentialError."""
        take_fence_rows(self._fences, keys.fences)
        ring = Keyring(tuple(Root.load(root) for root in keys.roots))
        if ring != self._ring or keys.authorities != self._authorities:
            self._authorities = keys.authorities
            self.ring_changed(ring)
            self._renew_at = self._wall_time()  # What comes under the new secret: the token to join once more.

    def ring_changed(self, ring: Keyring) -> None:
        """Use and accept these roots from now on, here and in every process of this host (NC-2)."""
        self._ring = ring
        for security in self._securities:
            if security.terms.me.role is Role.NODE:
                security.terms.keyring = ring
                security.key = lambda name: ring.pick(KeyKind.NODE)
        self._everybody_anew()

    # -- those of jobs

    def serve(self, handover: HandoverServer) -> None:
        """Begin: renew what is to be renewed, and tell who is registered with `handover`."""
        self._handover = handover
        handover.on_registered, handover.on_gone = self._registered, self._gone
        self.keep_valid()

    def keep_valid(self) -> None:
        """Begin to renew what is to be renewed."""
        self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="renew certificates")

    def close(self) -> None:
        """Ask for nothing any more."""
        for task in (self._renewing, *self._asking.values()):
            if task is not None:
                task.cancel()

    def ready(self, job_id: str) -> bool:
        """Whether `access` for this job is there at once."""
        return not self._tls or job_id in self._jobs

    async def access(self, role: Role, process_id: str, job_id: str) -> bytes:
        """What a process of a job is given at its birth. Raises ActorflowError when there is no certificate to be had (NC-1)."""
        if not self.ready(job_id):
            task = self._asking.get(job_id)
            if task is None:
                task = self._asking[job_id] = asyncio.get_running_loop().create_task(self._ask(job_id), name=f"certify job {job_id}")
                task.add_done_callback(lambda done: self._asking.pop(job_id, None))
            await asyncio.shield(task)  # Others may wait for the same one.
        return self.access_now(role, process_id, job_id)

    def access_now(self, role: Role, process_id: str, job_id: str) -> bytes:
        """`access` where it is ready."""
        self._recipients[process_id] = _Recipient(role, job_id, self._generation)
        if len(self._recipients) > RECIPIENTS_MAX:
            self._recipients.popitem(last=False)
        return ClusterAccess.of(role, process_id, job_id, self._directory, self._ring, self._jobs.get(job_id)).to_bytes()

    async def _ask(self, job_id: str) -> Credentials:
        answer, key = await self.ask(job_id)
        mine = Credentials(self._authorities, answer.certificate, key)
        self._jobs[job_id] = mine
        self._jobs.move_to_end(job_id)
        if len(self._jobs) > JOBS_MAX:
            self._jobs.popitem(last=False)
        return mine

    def _registered(self, process_id: str) -> None:
        known = self._recipients.get(process_id)
        if known is not None and known.generation != self._generation:
            self._tell(process_id, known)

    def _gone(self, process_id: str) -> None:
        self._recipients.pop(process_id, None)

    def _everybody_anew(self) -> None:
        self._generation += 1
        if self._handover is not None:
            for process_id in self._handover.names():
                if (known := self._recipients.get(process_id)) is not None:
                    self._tell(process_id, known)

    def _tell(self, process_id: str, known: _Recipient) -> None:
        assert self._handover is not None
        self._handover.tell(process_id, self.access_now(known.role, process_id, known.job_id))

    # -- renewal

    async def _renew(self) -> None:
        """NC-3."""
        while True:
            await asyncio.sleep(min(LOOK_S, max(RENEW_DELAY_S_MIN, self._renew_at - self._wall_time())))
            if self._wall_time() < self._renew_at:
                continue
            try:
                await self.certify()
                used = {known.job_id for known in self._recipients.values()}
                for job_id in list(self._jobs):
                    if job_id in used:
                        await self._ask(job_id)
                    else:
                        del self._jobs[job_id]
                self._everybody_anew()
            except ActorflowError as error:
                log.warning("certificates cannot be renewed, next try in %s s: %s", RENEW_RETRY_S, error)
                self._renew_at = self._wall_time() + RENEW_RETRY_S
