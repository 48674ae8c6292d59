"""The ports: everything a role needs from the outside world, as Protocols.

A role (head, node, worker, driver) is given one `Ports` record and touches neither sockets, processes, clocks nor random
numbers in any other way. `actorflow._core.io` holds the real adapters, `actorflow.testing` the simulated ones, and
`tests/conformance` runs one suite against both.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from actorflow._core.io.busy_poll import BusyPoll
    from actorflow._core.security.keys import Key


class Proof(NamedTuple):
    """What the process at the other end of a stream has proven to be. `job_id`: empty for nodes and heads.

    `key`: the kind of key that it has proven, in the words of `security.roles.KeyKind`. VISIT: it is of another job than this process.
    """

    role: str
    process_id: str
    job_id: str
    key: str = ""


class Stream(Protocol):
    """One side of a connected, ordered byte stream: a unix socket, TCP, TLS."""

    @property
    def lasting(self) -> bool:
        """It may break while both processes live, and they then go on by another one: see lasting_peers.py."""

    @property
    def proof(self) -> Proof | None:
        """What the other side has proven to be; None within a machine, where the kernel vouches for its user."""

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, never blocking: what the kernel does not take now is buffered and sent later. A view must stay as it is till then.

        May be called from any thread, but never by two at once (the caller holds its own lock). After the stream is lost, a no-op.
        """

    def buffered_bytes(self) -> int:
        """How many bytes wait in this process because the peer does not read fast enough."""

    def close(self) -> None:
        """Send what is buffered, then close. The handler's `connection_lost` follows exactly once."""

    def abort(self) -> None:
        """Close now and drop what is buffered."""

    def share_reads(self) -> None:
        """From now on the ports' reader may read this stream too: see Reads. A no-op where there is none."""

    def when_taken(self, fn: Callable[[], None]) -> None:
        """Call `fn` once, on the loop and not from here, when this process holds none of what was written before, or the stream is lost."""

    def hand_to(self, handler: PlacingHandler) -> None:
        """Tell `handler` of all that comes from now on, and let it say where the bytes go. On the loop; also from within a delivery."""


class StreamHandler(Protocol):
    """What a stream tells its user, on the ports' own loop; a stream that shares its reads delivers data on the reader's as well."""

    def data_received(self, data: bytes) -> None:
        """Some bytes arrived, cut anywhere."""

    def connection_lost(self, reason: str) -> None:
        """The stream ended: by the peer, by an error or by our own close. Called exactly once."""


class PlacingHandler(StreamHandler, Protocol):
    """A handler that may know the place of what comes next: then the bytes go there, without a copy, where the stream can do that."""

    def place(self) -> memoryview | None:
        """Where the next bytes belong, as many as fit. None: give them to `data_received`."""

    def placed(self, count: int) -> None:
        """So many bytes are at the beginning of the last `place`."""


class Listener(Protocol):
    """A bound address that accepts streams until it is closed."""

    def close(self) -> None:
        """Stop accepting and remove the address (a socket file is unlinked). Accepted streams live on."""


Turn = Callable[[Callable[[], None]], None]
"""Takes what reads, and calls it."""


class Reads(Protocol):
    """Lets a loop of the user's read the streams that share their reads, while it waits: no thread is then between it and the socket.

    Data is always delivered under the ports' lock.
    """

    def adopt(self, loop: asyncio.AbstractEventLoop, turn: Turn | None = None) -> None:
        """Let `loop` read, unless another one does already: by `turn(read)` when it is given. On the thread that runs it."""

    def lent(self, loop: asyncio.AbstractEventLoop) -> AbstractContextManager[None]:
        """Let `loop` read while this thread blocks in it, if nobody else does."""

    def leave_for_tick(self, fn: Callable[[], None]) -> None:
        """Call `fn` on the ports' loop within a few milliseconds, most often without waking it. Under the lock."""

    def close(self) -> None:
        """Let go of the loops. On the ports' loop."""


class Unwelcome(ConnectionRefusedError):
    """Somebody is there, and will not speak with us, nor the next time."""


class Network(Protocol):
    """Makes streams. Addresses are strings such as `unix:/path/to/a.sock`."""

    def lasts(self, address: str) -> bool:
        """True when streams to `address` are `lasting`."""

    async def listen(self, address: str, accept: Callable[[Stream], StreamHandler]) -> Listener:
        """Bind `address`; `accept` is called on the loop for every new stream and returns its handler.

        Raises OSError when the address is in use or cannot be bound.
        """

    async def connect(self, address: str, handler: StreamHandler) -> Stream:
        """Connect, within a bounded time. Raises OSError.

        ConnectionRefusedError and FileNotFoundError: nobody has that address, or (Unwelcome) who has it will not speak with us. Any other
        kind says nothing of whether somebody is there: the line broke meanwhile, there was no answer, or too much to do.
        """


class PassSource(Protocol):
    """Where a network finds the passes with which it connects to processes of other jobs (security/passes.py)."""

    async def pass_for(self, job_id: str) -> Key:
        """A pass to those of this job: one that is here, or a new one, within a bounded time. Raises OSError, of the kinds in Network."""

    def refused(self, job_id: str, key: Key) -> None:
        """This one was not accepted."""


@runtime_checkable
class VisitingNetwork(Protocol):
    """A Network between machines whose process may visit others: it belongs to a job."""

    def visit_as(self, job_id: str, passes: PassSource) -> None:
        """From now on connections to processes of other jobs than `job_id` are made with these passes."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a new worker process is told at its birth."""

    worker_id: str
    job_id: str
    node_address: str
    address: str
    env: dict[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    sys_path: tuple[str, ...] = ()
    node_id: str = ""
    access: bytes = field(default=b"", repr=False)
    """See io/cluster_access.py; empty in a local cluster."""


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a worker process ended. Either `exit_code` or `signal` is set; both None when nobody could tell."""

    worker_id: str
    pid: int
    exit_code: int | None
    signal: int | None
    peak_memory_bytes: int
    detail: str = ""
    """Why there is neither, in words: `could not be started: ...`."""

    def describe(self) -> str:
        """The end in words, for errors: `killed by SIGKILL` or `exited with code 3`."""
        if self.signal is not None:
            import signal

            known = self.signal in signal.Signals.__members__.values()
            return f"killed by {signal.Signals(self.signal).name if known else f'signal {self.signal}'}"
        if self.exit_code is not None:
            return f"exited with code {self.exit_code}"
        return self.detail or "ended, cause unknown"


class ProcessEvents(Protocol):
    """What a node is told about its worker processes, on the ports' loop."""

    def process_started(self, worker_id: str, pid: int) -> None:
        """The process exists; it still has to connect."""

    def process_exited(self, exit: ProcessExit) -> None:
        """The process is gone and reaped. Exactly once per spawned worker; also when the spawn itself failed."""

    def process_output(self, worker_id: str, stream: str, data: bytes) -> None:
        """The process wrote `data` to `stream` (`stdout` or `stderr`)."""


class Processes(Protocol):
    """Starts and ends worker processes for a node."""

    async def start(self, events: ProcessEvents) -> None:
        """Get ready to spawn (the real adapter: start the zygote)."""

    def problem_with(self, env: Mapping[str, str], working_dir: str | None) -> str:
        """Why no worker of this machine could live in such an environment, and what to do about it; empty when one could.

        Looked at before a worker is asked for, so that a call that cannot run is told so at once. Never blocks for long.
        """

    def spawn(self, spec: WorkerSpec) -> None:
        """Start a worker process. Never blocks; the outcome comes as an event."""

    def kill(self, worker_id: str, signal: int) -> None:
        """Send a signal; a no-op for a process that is gone."""

    def let_live(self, seconds: float) -> None:
        """Unless this is said again within `seconds`, all workers end then, though the node itself may stand still (LV-1)."""

    def memory_bytes(self, worker_id: str) -> int:
        """The memory that a worker has in RAM now, with the pages that it shares. 0 before its start and after its end. Never blocks."""

    async def stop(self, grace_s: float) -> None:
        """End all processes: SIGTERM, after `grace_s` SIGKILL, and wait until all are reaped."""


class Arena(Protocol):
    """The shared memory of a node: one memory file that every process of the node can map."""

    size: int

    def view(self, offset: int, size: int, *, writable: bool = False) -> memoryview:
        """Map `[offset, offset + size)`. The mapping lives until the last view of it is gone."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy `data` to `offset`. Other threads run meanwhile when it is large."""

    def skew(self, data: bytes | memoryview) -> int:
        """How far behind the start of a page a copy of `data` is to begin: a multiple of 64, below 4096."""

    def prefault(self, offset: int, size: int) -> None:
        """Make a range that is about to be written resident, in the background: the first touch is what makes a copy slow."""

    def watch(self, view: memoryview, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` (any thread, possibly inside a collection) when no view of this mapping is left."""

    def release(self, offset: int, size: int) -> None:
        """Give the pages of a range back to the system; its content is lost."""

    def close(self) -> None:
        """Forget the file. Live views stay valid."""


class SpilledFile(Protocol):
    """What was written under a number, held open: it stays readable after `delete`."""

    def read_part(self, start: int, length: int, then: Callable[[bytes, str], None]) -> None:
        """Read a part; `then(data, problem)` on the loop. Not called after the end of the SpillFiles."""

    def close(self) -> None:
        """Let go of it. Not before every `then` was called."""


class SpillFiles(Protocol):
    """Where a node puts what its arena has no room for. `then(problem)` is called on the ports' loop, with "" when all went well."""

    def write(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """Copy a range of the arena to the disk, whole or not at all; nobody writes to the range meanwhile."""

    def read(self, number: int, offset: int, size: int, then: Callable[[str], None]) -> None:
        """Copy what was written under this number into the arena."""

    def open(self, number: int) -> SpilledFile:
        """Hold what was written under this number. Raises OSError."""

    def delete(self, number: int) -> None:
        """What was written under this number is of no use any more; a no-op where there is nothing."""

    def close(self) -> None:
        """Delete everything. What was begun is not ended, and `then` may not be called."""


class Files(Protocol):
    """Durable files of one process. Paths are plain names."""

    async def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file, which is made when it does not exist, and return when that is on the disk.

        Raises OSError (ENOSPC, EIO): then nobody knows what of it is there.
        """

    def read(self, path: str) -> bytes:
        """The whole content. Raises FileNotFoundError."""

    async def sync(self, path: str) -> None:
        """Return when all that is in a file is on the disk. Raises OSError (EIO): then nobody knows what of it is."""

    async def replace(self, path: str, pieces: Iterable[bytes]) -> None:
        """Give a file a new content, durably, all or nothing. Raises OSError. The pieces may be asked for on another thread."""

    def paths(self, prefix: str) -> list[str]:
        """The paths that begin with `prefix`, sorted."""

    def remove(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError. It may come back when the machine goes down soon after."""


class Executor(Protocol):
    """The user's thread of a worker process: all user code of one worker runs there, one callable after another."""

    loop: asyncio.AbstractEventLoop
    """The loop on which the user's `async def` code runs."""
    hides_loop: bool
    """Code that runs on that thread may be kept from seeing the loop, for as long as it runs."""

    def submit(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the user's thread, in order of submission. Any thread."""

    def block(self, register: Callable[[Callable[[], None]], None], timeout_s: float | None) -> bool:
        """Block the running `def` code until woken; False after `timeout_s`.

        `register(wake)` is called once, at once; `wake` may be called from any thread. The real adapter blocks the thread; the
        simulated one switches to another greenlet.
        """

    on_interrupt: Callable[[FrameType | None], None] | None
    """Called on the user's thread, in the middle of whatever runs there, after `interrupt`; what it raises is raised there."""
    on_unraisable: Callable[[BaseException], bool] | None
    """Told of an exception that nobody could catch, such as one that was raised in a `__del__`; True: it is known, say no more."""

    def interrupt(self) -> None:
        """Have `on_interrupt(frame)` called soon, with the frame that was running. Any thread; it may happen late, or never.

        A blocking call that the system can interrupt is left for it.
        """

    def watch_tasks(self, begun: Callable[[asyncio.Task[Any], Context | None], None]) -> None:
        """Have `begun` called for each task that is made on the loop, with the context it was given, if any. On the user's thread."""

    def frame(self) -> FrameType | None:
        """What runs on the user's thread at this moment, innermost. Any thread."""


@dataclass(slots=True)
class Ports:
    """One process's view of the world. `loop` is the protocol's own loop (in a driver and a worker: a thread of its own)."""

    loop: asyncio.AbstractEventLoop
    network: Network
    rng: random.Random
    monotonic: Callable[[], float]
    wall_time: Callable[[], float]
    lock: AbstractContextManager[Any]
    """Guards the state that the user's threads and the protocol's thread share. A no-op where there is one thread."""
    in_loop_thread: Callable[[], bool]
    """True when the caller is on the protocol's thread."""
    reads: Reads | None = None
    """How a loop of the user's reads; None where the protocol's loop is the only one that does."""
    busy_poll: Callable[[asyncio.AbstractEventLoop], BusyPoll] | None = None
    """Makes what keeps a loop awake for an answer; None where that does not pay."""
