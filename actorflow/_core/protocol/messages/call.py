"""Calls: of functions (tasks) and of actor methods. The way of a call is in docs/internals/calls.md."""

from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.object import Failed, Outcome, RefGroup, Stored


class CallContext(Message):
    """What only some calls carry.

    `timeout_s`: the time left at sending (SEMANTICS 7). `values`: the declared context (SEMANTICS 8). `deps`: the outcomes of the
    arguments that were references, in the order of their slots. `refs`: references inside the arguments. `stored`: the arguments
    themselves, when they are too large to travel inline.
    """

    timeout_s: float | None = None
    values: dict[str, str] | None = None
    deps: list[Outcome] | None = None
    refs: list[RefGroup] | None = None
    num_returns: int = 1
    stream_window: int = 0
    name: str = ""
    group: str = ""
    stored: Stored | None = None


class TaskCall(Message, tag=10):
    """owner -> leased worker: run a function. Answered by `Reply` (or stream messages) with the same seq and attempt.

    The worker has been sent `Define(function)` on this connection before.
    """

    seq: int
    attempt: int
    lease: int
    function: str
    args: bytes
    buffers: list[bytes] | None = None
    context: CallContext | None = None


class ActorCall(Message, tag=11):
    """caller -> actor's worker: call a method. Started in order of arrival; answered like a TaskCall. `incarnation` fences restarts."""

    seq: int
    attempt: int
    actor: str
    incarnation: int
    method: str
    args: bytes
    buffers: list[bytes] | None = None
    context: CallContext | None = None


class Reply(Message, tag=12):
    """worker -> caller: the end of a call. `outcomes` has one entry per return value; `run_us` is the time the code ran.

    `borrowed`: references of the caller's own objects that the worker still holds; they become borrows before the caller lets go of
    the arguments (SEMANTICS 13). `hold`: not 0 when the sender keeps references of the result alive until `Release(hold)`.
    """

    seq: int
    attempt: int
    outcome: Outcome
    run_us: int = 0
    more: list[Outcome] | None = None
    borrowed: list[int] | None = None
    hold: int = 0


class Cancel(Message, tag=13):
    """owner -> worker: end this call. Queued: it never starts. Running: CancelledError, or a flag (docs/internals/cancellation.md).

    Answered by its Reply. `recursive`: end the calls that it has made too. Idempotent.
    """

    seq: int
    attempt: int
    reason: str = ""
    recursive: bool = True


class Define(Message, tag=14):
    """caller -> worker: the pickle of a function or an actor class, once per connection before its first use."""

    function: str
    name: str
    pickle: bytes


class GaveBack(Message, tag=16):
    """worker -> owner: these tasks were not started and will not be (also sent unasked: SEMANTICS 25)."""

    lease: int
    seqs: list[int]


class NotListening(Message, tag=18):
    """worker -> caller: this call of an actor was cancelled and goes on; `error` tells where it is. Its reply comes when it ends."""

    seq: int
    attempt: int
    error: Failed


class Release(Message, tag=17):
    """receiver of a result -> its sender: my borrows of the references in it are registered; let go of them (SEMANTICS 13)."""

    hold: int
