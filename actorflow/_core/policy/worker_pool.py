"""The worker processes of a node: which to use, when to start one, when to let one go. Pure.

Whoever has resources and needs a process makes a *claim* on a worker with the right key: job, environment,
devices. After any change `decide` says what to do: use this worker, start one, end one, refuse a claim.

    STARTING -> IDLE -> LEASED -> IDLE ...        the lease of a task's owner
                     -> ACTOR                     one dedicated actor, and never anything else again
                     -> HOST                      many shared actors of one job
       any state -> DYING -> gone

WP-1: a worker fulfils one claim at a time and has exactly the key that the claim asked for; a host has many.
WP-2: at most `starting_max` workers start at one time, and at most `workers_max` exist, the dying included.
WP-3: after `failures_max` starts of one key have failed in a row its claims are refused with the cause, and
      new ones at once for `failure_backoff_s`: a broken environment is not tried for ever.
WP-4: a worker for devices is not started while another that had one of them is on its way out: two processes
      would share the memory of a GPU that was meant for one.
WP-5: shared actors go to one host per job and environment until it has `actors_per_host_max`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from actorflow._core.policy.start_failures import StartFailures
from actorflow._core.policy.worker_records import (
    Claim,
    Decision,
    Host,
    HostKey,
    Purpose,
    Refuse,
    Retire,
    Spawn,
    Use,
    Worker,
    WorkerKey,
    WorkerState,
)

_STATE_FOR = {
    Purpose.LEASE: WorkerState.LEASED,
    Purpose.ACTOR: WorkerState.ACTOR,
    Purpose.HOST: WorkerState.HOST,
}


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The bounds of a pool."""

    idle_keep: int
    """So many idle workers are kept for ever (a good value: the number of CPUs)."""
    idle_timeout_s: float = 1.0
    """More than that are ended after they were idle for so long; and a host without actors."""
    register_timeout_s: float = 30.0
    """A worker that has not connected after this time is killed, and counts as failed."""
    starting_max: int = 8
    """Workers that start at one time: more only makes each of them slower."""
    workers_max: int = 4096
    failures_max: int = 3
    failure_backoff_s: float = 5.0
    actors_per_host_max: int = 50_000


class WorkerPool:
    """All workers of a node, and who waits for one."""

    __slots__ = (
        "_claims", "_dirty", "_dying", "_dying_devices", "_empty_hosts", "_failures", "_hosts", "_idle",
        "_idle_order", "_number", "_outbox", "_prestart", "_starting", "_starting_of", "_taken", "_wanting",
        "limits", "workers",
    )  # fmt: skip

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.workers: dict[str, Worker] = {}
        self._number = 0  # of the latest claim
        self._claims: dict[WorkerKey, OrderedDict[int, Claim]] = {}
        self._idle: dict[WorkerKey, OrderedDict[str, None]] = {}
        self._idle_order: OrderedDict[str, None] = OrderedDict()
        self._starting: OrderedDict[str, None] = OrderedDict()
        self._starting_of: dict[WorkerKey, int] = {}
        self._prestart: dict[WorkerKey, int] = {}
        self._wanting: OrderedDict[WorkerKey, None] = OrderedDict()
        self._failures = StartFailures(limits.failures_max, limits.failure_backoff_s)
        self._hosts: dict[HostKey, Host] = {}
        self._empty_hosts: OrderedDict[str, None] = OrderedDict()
        self._dying = 0
        self._dying_devices: dict[str, tuple[str, ...]] = {}
        self._taken = 0
        self._dirty: dict[WorkerKey, None] = {}
        self._outbox: list[Decision] = []

    # -- claims

    def claim(self, key: WorkerKey, purpose: Purpose, holder: object, *, detached: bool = False) -> Claim:
        """Ask for a worker with `key`; `decide` gives it, now or later, or refuses."""
        assert purpose is not Purpose.HOST, "WP-5: hosts are the pool's own"
        host = self._host_for(key, detached) if purpose is Purpose.SHARED else None
        claim = self._new_claim(key, purpose, holder, host)
        if host is None:
            self._queue(claim)
        elif host.worker_id:
            self._use_host(host, claim)
        else:
            host.waiting[claim.number] = claim
        return claim

    def drop(self, claim: Claim) -> None:
        """The claim is not wanted any more. A fulfilled one ends with `release` or `leave_host` instead."""
        if claim.worker_id:
            return
        if claim.host is not None:
            if claim.host.waiting.pop(claim.number, None) is not None:
                claim.host.actors -= 1
            return
        claims = self._claims.get(claim.key)
        if claims is not None and claims.pop(claim.number, None) is not None:
            self._dirty[claim.key] = None

    def leave_host(self, worker_id: str, now: float) -> None:
        """One shared actor less on this host. A host without actors is ended after `idle_timeout_s`."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.host is None:
            return
        worker.host.actors -= 1
        assert worker.host.actors >= 0, "WP-5: an actor left twice"
        if worker.host.actors == 0 and worker.state is WorkerState.HOST:
            worker.since = now
            self._empty_hosts[worker_id] = None

    def prestart(self, key: WorkerKey, count: int) -> None:
        """Have `count` workers of this key ready or starting, without a claim: a job has begun."""
        self._prestart[key] = count
        self._dirty[key] = None

    # -- what happens to workers

    def registered(self, worker_id: str, now: float) -> bool:
        """A worker is up and idle. False when the pool does not wait for it: then it must go."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.state is not WorkerState.STARTING:
            return False
        self._leave_state(worker)
        self._failures.succeeded(worker.key)
        self._make_idle(worker, now)
        return True

    def release(self, worker_id: str, now: float, *, retire: bool = False, ask: bool = False) -> None:
        """The lease on this worker is over: it is idle, or `decide` ends it. `ask`: it may stay, unused."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.state is not WorkerState.LEASED:
            return
        if retire:
            self._retire(worker, "its owner asked not to use it again", ask=ask)
        else:
            self._make_idle(worker, now)

    def doom(self, worker_id: str) -> None:
        """The worker is being ended: nobody gets it any more. Idempotent."""
        worker = self.workers.get(worker_id)
        if worker is not None and worker.state is not WorkerState.DYING:
            self._leave_state(worker)
            worker.state = WorkerState.DYING
            self._dying += 1
            if worker.key.devices:
                self._dying_devices[worker_id] = worker.key.devices

    def needed(self, worker_id: str, now: float) -> None:
        """A worker that was asked to leave stays, as others hold what it owns: it is idle again."""
        worker = self.workers.get(worker_id)
        if worker is not None and worker.state is WorkerState.DYING:
            self._leave_state(worker)
            self._dying_devices.pop(worker_id, None)
            self._make_idle(worker, now)

    def exited(self, worker_id: str, now: float, reason: str) -> None:
        """The process is gone. One that had not registered counts as a failed start, with `reason`."""
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return
        if worker.state is WorkerState.STARTING:
            self._failures.failed(worker.key, reason, now)
        self._leave_state(worker)
        self._dying_devices.pop(worker_id, None)

    def end_job(self, job_id: str) -> list[str]:
        """The job's driver is gone: the workers of the job that nobody uses. O(workers), once per job.

        Those in use go with their users: leases with their owners, actors when the head says so. Claims too.
        """
        for key in [key for key in self._prestart if key.job_id == job_id]:
            del self._prestart[key]
            self._dirty[key] = None
        self._failures.forget_job(job_id)
        unused = (WorkerState.STARTING, WorkerState.IDLE)
        ended = [w.worker_id for w in self.workers.values() if w.key.job_id == job_id and w.state in unused]
        for worker_id in ended:
            self.doom(worker_id)
        return ended

    def expire(self, now: float) -> None:
        """Let time pass: late starters, idle workers over the soft limit, empty hosts. Then `decide`."""
        limits = self.limits
        while self._starting:
            worker = self.workers[next(iter(self._starting))]
            if now - worker.since < limits.register_timeout_s:
                break
            reason = f"it did not connect to the node within {limits.register_timeout_s:g} s"
            self._failures.failed(worker.key, reason, now)
            self._retire(worker, reason, kill=True)
        while len(self._idle_order) > limits.idle_keep:
            worker = self.workers[next(iter(self._idle_order))]
            if now - worker.since < limits.idle_timeout_s:
                break
            self._retire(worker, f"idle for {limits.idle_timeout_s:g} s", ask=True)
        while self._empty_hosts:
            worker = self.workers[next(iter(self._empty_hosts))]
            if now - worker.since < limits.idle_timeout_s:
                break
            self._retire(worker, "a host without actors")

    @property
    def has_deadlines(self) -> bool:
        """True while `expire` and `decide` may have something to do later."""
        too_many = len(self._idle_order) > self.limits.idle_keep
        return bool(self._starting) or too_many or bool(self._empty_hosts) or bool(self._wanting)

    # -- deciding

    def decide(self, now: float, new_id: Callable[[], str]) -> list[Decision]:
        """What to do now, in order; `new_id` draws the id of a worker. Cheap when nothing has changed."""
        while self._dirty:
            self._match(self._dirty.popitem()[0], now)
        if self._wanting:
            self._start(now, new_id)
        decisions, self._outbox = self._outbox, []
        return decisions

    def _match(self, key: WorkerKey, now: float) -> None:
        """Give idle workers to claims; note whether more workers are wanted."""
        claims, idle = self._claims.get(key), self._idle.get(key)
        while claims and idle:
            _, claim = claims.popitem(last=False)
            self._fulfil(claim, self.workers[next(reversed(idle))], now)
        if claims is not None and not claims:
            del self._claims[key]
        wanted = max(len(claims or ()), self._prestart.get(key, 0) - len(idle or ()))
        if wanted > self._starting_of.get(key, 0):
            self._wanting[key] = None
        else:
            self._wanting.pop(key, None)
            self._prestart.pop(key, None)

    def _fulfil(self, claim: Claim, worker: Worker, now: float) -> None:
        self._leave_state(worker)
        worker.state = _STATE_FOR[claim.purpose]
        worker.since = now
        claim.worker_id = worker.worker_id
        if claim.purpose is not Purpose.LEASE:
            self._taken += 1
        if claim.host is None:
            self._outbox.append(Use(worker.worker_id, claim))
            return
        worker.host = host = claim.host
        host.worker_id = worker.worker_id
        if not host.waiting:
            self._empty_hosts[worker.worker_id] = None
        for waiting in host.waiting.values():
            self._use_host(host, waiting)
        host.waiting.clear()

    def _start(self, now: float, new_id: Callable[[], str]) -> None:
        """Start workers for the wanting keys in turns, within WP-2."""
        held_up = []
        while self._wanting and len(self._starting) < self.limits.starting_max:
            key, _ = self._wanting.popitem(last=False)
            reason = self._failures.given_up(key, now)
            if reason:
                self._refuse(key, "worker_failed", reason)
            elif key.devices and self._devices_are_busy(key):
                held_up.append(key)
            elif len(self.workers) < self.limits.workers_max:
                worker = Worker(new_id(), key, now)
                self.workers[worker.worker_id] = worker
                self._starting[worker.worker_id] = None
                self._starting_of[key] = self._starting_of.get(key, 0) + 1
                self._outbox.append(Spawn(worker.worker_id, key))
                self._match(key, now)  # still wanting? then at the end of the line
            elif self._taken >= self.limits.workers_max:
                reason = (
                    f"this node runs {len(self.workers)} worker processes, as many as it may, and actors "
                    f'have all of them. Use process="shared" for light actors, or end some'
                )
                self._refuse(key, "full", reason)
            else:
                held_up.append(key)
                self._make_room()
                break
        for key in held_up:
            self._wanting[key] = None

    def _devices_are_busy(self, key: WorkerKey) -> bool:
        """WP-4: end idle workers that had one of the devices under another key; True until they are gone."""
        wanted = set(key.devices)
        for other in [k for k in self._idle if k != key and not wanted.isdisjoint(k.devices)]:
            for worker_id in list(self._idle[other]):
                self._retire(self.workers[worker_id], "its devices went to another job")
        return any(not wanted.isdisjoint(devices) for devices in self._dying_devices.values())

    def _make_room(self) -> None:
        """WP-2: end the worker that was idle longest, unless one is on its way out."""
        if self._idle_order and not self._dying:
            oldest = self.workers[next(iter(self._idle_order))]
            self._retire(oldest, "another environment needs its place")

    def _refuse(self, key: WorkerKey, kind: str, reason: str) -> None:
        self._prestart.pop(key, None)
        for claim in self._claims.pop(key, OrderedDict[int, Claim]()).values():
            host = claim.host
            if host is None:
                self._outbox.append(Refuse(claim, kind, reason))
                continue
            self._outbox.extend(Refuse(waiting, kind, reason) for waiting in host.waiting.values())
            host.waiting.clear()
            if self._hosts.get(host.key) is host:
                del self._hosts[host.key]

    # -- bookkeeping

    def _new_claim(self, key: WorkerKey, purpose: Purpose, holder: object, host: Host | None) -> Claim:
        self._number += 1
        return Claim(self._number, key, purpose, holder, host)

    def _queue(self, claim: Claim) -> None:
        self._claims.setdefault(claim.key, OrderedDict())[claim.number] = claim
        self._dirty[claim.key] = None

    def _host_for(self, key: WorkerKey, detached: bool) -> Host:
        host_key = HostKey(key.job_id, key.env, detached)
        host = self._hosts.get(host_key)
        if host is None or host.actors >= self.limits.actors_per_host_max:
            host = self._hosts[host_key] = Host(host_key)
            self._queue(self._new_claim(key, Purpose.HOST, None, host))
        host.actors += 1
        if host.worker_id:
            self._empty_hosts.pop(host.worker_id, None)
        return host

    def _use_host(self, host: Host, claim: Claim) -> None:
        claim.worker_id = host.worker_id
        self._outbox.append(Use(host.worker_id, claim))

    def _retire(self, worker: Worker, reason: str, *, kill: bool = False, ask: bool = False) -> None:
        self.doom(worker.worker_id)
        self._outbox.append(Retire(worker.worker_id, reason, kill, ask))

    def _make_idle(self, worker: Worker, now: float) -> None:
        worker.state = WorkerState.IDLE
        worker.since = now
        self._idle.setdefault(worker.key, OrderedDict())[worker.worker_id] = None
        self._idle_order[worker.worker_id] = None
        self._dirty[worker.key] = None

    def _leave_state(self, worker: Worker) -> None:
        """Take the worker out of the lists of its present state."""
        worker_id, key = worker.worker_id, worker.key
        if worker.state is WorkerState.STARTING:
            del self._starting[worker_id]
            self._starting_of[key] -= 1
            if not self._starting_of[key]:
                del self._starting_of[key]
            self._dirty[key] = None
        elif worker.state is WorkerState.IDLE:
            del self._idle[key][worker_id], self._idle_order[worker_id]
            if not self._idle[key]:
                del self._idle[key]
        elif worker.state is WorkerState.DYING:
            self._dying -= 1
        elif worker.state is not WorkerState.LEASED:
            self._taken -= 1
            self._empty_hosts.pop(worker_id, None)
            host = worker.host
            if host is not None and self._hosts.get(host.key) is host:
                del self._hosts[host.key]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        states, limits = [worker.state for worker in self.workers.values()], self.limits
        assert states.count(WorkerState.STARTING) == len(self._starting), "WP-2: starting"
        assert len(self._starting) == sum(self._starting_of.values()), "WP-2: starting by key"
        assert len(self._starting) <= limits.starting_max, "WP-2: too many start at one time"
        assert len(self.workers) <= limits.workers_max, "WP-2: too many workers"
        idle = {worker_id for of_key in self._idle.values() for worker_id in of_key}
        assert idle == set(self._idle_order), "WP-1: idle in order"
        assert len(idle) == states.count(WorkerState.IDLE), "WP-1: idle"
        assert self._dying == states.count(WorkerState.DYING), "WP-1: dying"
        assert self._taken == states.count(WorkerState.ACTOR) + states.count(WorkerState.HOST), "WP-1: taken"
        assert all(host.actors <= limits.actors_per_host_max for host in self._hosts.values()), "WP-5"
