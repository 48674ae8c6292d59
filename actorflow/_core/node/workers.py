"""Worker processes: born, connected, asked to leave, killed, and told to those whom their end concerns.

NW-1: the end of a worker is told once to its occupant: when the process is reaped, or when it has lost
      its connection and is not reaped within `worker_silence_s`.
NW-2: tickets of a worker are released when its process is gone.
NW-3: what a dead worker has said is heard to its end, as far as others rely on it (LAST_WORDS): the news of its death may be
      faster than its connection, and who has its result believes that the node knows of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from actorflow._core.base.addresses import with_job
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Processes, ProcessExit, WorkerSpec
from actorflow._core.node.context import SIGKILL, Death, NodeContext, WorkerProcess
from actorflow._core.node.environment import device_variables, parse_env
from actorflow._core.node.jobs import Jobs
from actorflow._core.node.logs import Logs
from actorflow._core.policy.worker_records import Retire, Spawn, WorkerState
from actorflow._core.protocol.messages import Carved, FreeExtent, HandOver, Leave, Needed, ReturnLease, Shutdown
from actorflow._core.protocol.messages.base import Message

log = logging.getLogger(__name__)

RETIRED_ASKED_S = 1.0
"""How often a worker that is not used again, and owns what others hold, is asked whether they still do."""
LAST_WORDS = frozenset({Carved, HandOver, FreeExtent, ReturnLease})
"""Of these others hear by other ways, and rely on them; and a lease that was given back leaves its worker in peace (SEMANTICS 17)."""
DEAD_SHOWN = 100
"""Dead workers that the state API still shows, with the reason of their end."""


class Workers:
    """All worker processes of the node."""

    def __init__(self, context: NodeContext, processes: Processes, jobs: Jobs, logs: Logs) -> None:
        self._context = context
        self._processes = processes
        self._jobs = jobs
        self._logs = logs
        self._displays = context.config.displays()
        self._workers: dict[str, WorkerProcess] = {}
        self.on_killed: Callable[[WorkerProcess], None] | None = None
        """Told of a worker that somebody else has ended by SIGKILL, before its death is told. Set by the node."""
        self.dead: deque[tuple[WorkerProcess, str]] = deque(maxlen=DEAD_SHOWN)
        self._reaped: dict[str, WorkerProcess] = {}
        """Their processes are gone, and their connections have not ended (NW-3)."""

    # -- birth

    def problem_with(self, env: str) -> str:
        """Why no worker can have this environment, with what to do about it; empty when one can."""
        if not env:
            return ""
        wanted = parse_env(env)
        return self._processes.problem_with(wanted.env_vars, wanted.working_dir)

    def spawn(self, decision: Spawn) -> None:
        """Start a process."""
        context, key = self._context, decision.key
        address = with_job(context.config.worker_address(decision.worker_id), key.job_id)
        worker = WorkerProcess(decision.worker_id, key, address, context.now())
        self._workers[worker.worker_id] = worker
        env = parse_env(key.env)
        hides = device_variables(key.devices, self._displays)
        self._processes.spawn(
            WorkerSpec(
                worker.worker_id,
                key.job_id,
                context.config.address,
                address,
                env=hides | env.env_vars,
                working_dir=env.working_dir,
                sys_path=self._jobs.sys_path(key.job_id),
                node_id=context.node_id,
            )
        )

    def started(self, worker_id: str, pid: int) -> None:
        """The process exists."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.pid = pid

    def connected(self, peer: Peer) -> WorkerProcess | None:
        """A worker has connected. None for a stranger, or one that is to leave; it is sent away."""
        worker = self._workers.get(peer.process_id)
        if worker is None or worker.peer is not None:
            log.warning("%r is no worker of this node, or a second time: its connection is closed", peer)
            peer.close(abort=True)
            return None
        worker.peer = peer
        worker.pid = peer.pid or worker.pid
        if not self._context.pool.registered(worker.worker_id, self._context.now()):
            self.leave(worker, worker.ending or "it is not needed any more")
            return None
        return worker

    # -- end

    def retire(self, decision: Retire) -> None:
        """End a worker that nobody uses."""
        worker = self._workers[decision.worker_id]
        if decision.kill:
            self.kill(worker, decision.reason)
        else:
            self.leave(worker, decision.reason, ask=decision.ask)

    def leave(self, worker: WorkerProcess, reason: str, *, ask: bool = False) -> None:
        """Have a worker leave; kill it when it does not, or has no ears yet. `ask`: it may say that it is needed."""
        if worker.peer is None or worker.peer.lost:
            self.kill(worker, reason)
            return
        self._begin_end(worker, reason)
        worker.asked = ask
        worker.peer.send(Leave(reason) if ask else Shutdown(reason))
        if worker.timer is None:
            overdue = f"{reason}; it was asked to leave and did not"
            timeout_s = self._context.config.worker_leave_timeout_s
            worker.timer = self._context.ports.loop.call_later(timeout_s, self.kill, worker, overdue)

    def needed(self, peer: Peer, message: Needed) -> None:
        """A worker that was asked to leave owns what others hold: it stays (SEMANTICS 17)."""
        worker = self._workers.get(peer.process_id)
        if worker is None or worker.peer is not peer or not worker.asked:
            return
        worker.asked, worker.ending = False, ""
        if worker.timer is not None:
            worker.timer.cancel()
            worker.timer = None
        if worker.retired:
            # Its user code is not trusted any more; what it owns is.
            worker.timer = self._context.ports.loop.call_later(RETIRED_ASKED_S, self._ask_again, worker)
        else:
            self._context.pool.needed(worker.worker_id, self._context.now())

    def _ask_again(self, worker: WorkerProcess) -> None:
        worker.timer = None
        self.leave(worker, "it was retired, and nobody holds what it owns any more", ask=True)

    def kill(self, worker: WorkerProcess, reason: str) -> None:
        """End a worker now."""
        self._begin_end(worker, reason)
        self._processes.kill(worker.worker_id, SIGKILL)

    def _begin_end(self, worker: WorkerProcess, reason: str) -> None:
        self._context.pool.doom(worker.worker_id)
        worker.asked = False
        worker.ending = worker.ending or reason

    def disconnected(self, peer: Peer, worker: WorkerProcess, reason: str) -> None:
        """The connection is gone: most often the process is too, and its end is told in a moment."""
        if self._reaped.pop(worker.worker_id, None) is not None and worker.timer is not None:
            worker.timer.cancel()
        if self._workers.get(worker.worker_id) is not worker or worker.peer is not peer:
            return
        self._context.pool.doom(worker.worker_id)
        if worker.timer is not None:
            worker.timer.cancel()
        silence_s = self._context.config.worker_silence_s
        worker.timer = self._context.ports.loop.call_later(silence_s, self._silent, worker, reason)

    def _silent(self, worker: WorkerProcess, reason: str) -> None:
        """NW-1: the process lives and cannot be reached. That is the end of it."""
        cause = f"{worker.label()} lost its connection to its node: {reason}"
        self._tell(worker, Death(cause, self._logs.tail(worker.worker_id)))
        self.kill(worker, "it lost its connection")

    def exited(self, exit: ProcessExit) -> None:
        """The process is reaped."""
        worker = self._workers.pop(exit.worker_id, None)
        if worker is None:
            return
        if worker.timer is not None:
            worker.timer.cancel()
        worker.pid = exit.pid or worker.pid
        if self.on_killed is not None and exit.signal == SIGKILL and not worker.ending:
            self.on_killed(worker)
        death = worker.death(exit, self._logs.finish(worker))
        failed_start = self._context.pool.workers[worker.worker_id].state is WorkerState.STARTING
        if failed_start:
            log.warning("%s", death.with_log())
        self._context.pool.exited(worker.worker_id, self._context.now(), death.with_log())
        self._tell(worker, death)
        for ticket in worker.owed:
            ticket.book.release(ticket)
        worker.owed.clear()
        self.dead.append((worker, death.cause))
        if worker.peer is not None and not worker.peer.lost:
            self._reaped[worker.worker_id] = worker
            # A process that it forked may hold the connection open.
            worker.timer = self._context.ports.loop.call_later(
                self._context.config.worker_silence_s, partial(worker.peer.close, abort=True)
            )

    def hears(self, peer: Peer, message: type[Message]) -> bool:
        """False for what a process that is gone cannot have meant any more."""
        return peer.process_id not in self._reaped or message in LAST_WORDS

    def _tell(self, worker: WorkerProcess, death: Death) -> None:
        occupant, worker.occupant = worker.occupant, None
        if occupant is not None:
            occupant.worker_lost(worker, death)

    # -- jobs and looking

    def end_job(self, job_id: str, reason: str) -> None:
        """The driver is gone: so are the workers of its job that nobody uses."""
        for worker_id in self._context.pool.end_job(job_id):
            self.kill(self._workers[worker_id], reason)

    def get(self, worker_id: str) -> WorkerProcess | None:
        """A worker whose process is not reaped."""
        return self._workers.get(worker_id)

    def all(self) -> list[WorkerProcess]:
        """All workers whose processes are not reaped, oldest first."""
        return list(self._workers.values())

    def memory_bytes(self, worker: WorkerProcess) -> int:
        """What it has in RAM now: measured when somebody asks."""
        return self._processes.memory_bytes(worker.worker_id)

    def stop(self) -> None:
        """No timer fires from now on."""
        for worker in [*self._workers.values(), *self._reaped.values()]:
            if worker.timer is not None:
                worker.timer.cancel()
                worker.timer = None
