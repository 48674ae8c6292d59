"""Exceptions of user code, on their way from the process that raised them to the one that awaits them.

`capture` turns an exception into bytes where it was raised, `restore` makes it again where it is awaited
(SEMANTICS 10):

- The restored exception is an instance of the user's own type *and* of TaskError: its class, the dual
class, is made here
  once per type. It is built without the user's `__init__` and `__new__`, from `args`, attributes and slots.
- Its traceback is a real one. Each remote frame becomes a frame object that has the remote file, line, name
and columns and
  nothing else, so whatever prints tracebacks prints the remote part as well. A line of its own begins each
  hop:

      Traceback (most recent call last):
        File "demo.py", line 21, in main
          print(await total([1, 2, -3]))
        File "<process 41c0ffee9a21, pid 4211>", line 1, in total as task-7d01aa-1
        File "demo.py", line 14, in total
          return sum(await af.get([root(x) for x in xs]))
        File "<process 9f3a21c0ffee, pid 4212>", line 1, in root as task-41c0ff-3
        File "demo.py", line 8, in root
          return math.sqrt(x)
                 ^^^^^^^^^^^^
      ValueError: math domain error

- That line is a frame too. So a restored exception that is captured again needs no special care: the frames
of the hop
  before it are part of its traceback, and the chain stays one chain however many processes it passes.
- What cannot be sent as it is arrives as a plain TaskError, which says why and has everything that is text.

Neither side keeps frames, locals or reference cycles of the other.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actorflow._core.base.errors import Hop, Origin, ProtocolError, TaskError, origin_of
from actorflow._core.serialization.diagnose import explain_unpicklable, type_name
from actorflow._core.serialization.duals import (
    NEVER_DUAL,
    add_notes,
    attributes_of,
    describe,
    get_plainly,
    is_parts,
    mark,
    members_of,
    notes_of,
    put_together,
    set_plainly,
    take_apart,
    text_of,
    user_type,
)
from actorflow._core.serialization.frames import FrameRecord, clean, frames_of, hop_frame, make_traceback

Dumps = Callable[[object], bytes]
Loads = Callable[[bytes], object]

CHAIN_MAX = 16
"""How deep causes, contexts and groups are followed."""

# The record -------------------------------------------------------------------------------------------------


class ErrorRecord(msgspec.Struct, array_like=True):
    """One exception. `payload` is the pickle of its `Parts`; without it, `problem` says why.

    `hops`: the remote calls it passed through, outermost first. `wrapped`: the original, when this is only
    a wrapper of it.
    """

    type_name: str
    text: str
    payload: bytes = b""
    problem: str = ""
    frames: list[FrameRecord] = []
    hops: list[Hop] = []
    notes: list[str] = []
    members: list[ErrorRecord] = []
    cause: ErrorRecord | None = None
    context: ErrorRecord | None = None
    suppress_context: bool = False
    wrapped: ErrorRecord | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ErrorRecord).decode


def capture(
    exc: BaseException,
    *,
    function_name: str,
    task: str,
    process_id: str,
    pid: int,
    actor: str = "",
    dumps: Dumps,
) -> bytes:
    """Return the bytes from which `restore` makes `exc` again in another process.

    The keywords name the call that ends with `exc`. `dumps` pickles; what it cannot pickle goes as text,
    with the reason.
    """
    hop = Hop(clean(function_name), clean(task), process_id, pid, clean(actor))
    return _encode(_Capture(hop, dumps).record(exc))


def restore(data: bytes, *, loads: Loads) -> BaseException:
    """Return the exception that `capture` turned into `data`, ready to be raised.

    Raises ProtocolError when `data` is not from `capture`.
    """
    try:
        record = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{len(data)} bytes are not a captured exception: {error}") from error
    return _Restore(loads).raisable(record)


def with_cause(data: bytes, cause: bytes) -> bytes:
    """The same captured exception, with another captured one as its cause. Neither is made here, which may run code of the user's."""
    record = _decode(data)
    record.cause = _decode(cause)
    return _encode(record)


def told(data: bytes) -> str:
    """A captured exception in a line or two, as `describe` tells one."""
    record = _decode(data)
    return f"{record.type_name}: {record.text}" if record.text else record.type_name


class _Capture:
    """One capture. It remembers what it has seen, as chains of exceptions may be circular."""

    def __init__(self, hop: Hop, dumps: Dumps) -> None:
        self._hop = hop
        self._dumps = dumps
        self._seen: set[int] = set()

    def record(self, exc: BaseException, depth: int = 0, *, linked: bool = False) -> ErrorRecord:
        """`linked`: a cause or a context, which did not end the call itself."""
        self._seen.add(id(exc))
        origin = origin_of(exc)
        earlier = list(origin.hops) if origin else []
        payload, problem = self._pickle(exc)
        frames = list(frames_of(get_plainly(exc, "__traceback__")))
        suppress_context = get_plainly(exc, "__suppress_context__")
        return ErrorRecord(
            type_name=clean(type_name(user_type(type(exc)))),
            text=text_of(exc),
            payload=payload,
            problem=problem,
            frames=[hop_frame(self._hop), *frames] if frames or depth == 0 else [],
            hops=earlier if linked else [self._hop, *earlier],
            notes=notes_of(exc),
            members=[self.record(part, depth + 1) for part in members_of(exc)] if depth < CHAIN_MAX else [],
            cause=self._link(get_plainly(exc, "__cause__"), depth),
            context=None if suppress_context else self._link(get_plainly(exc, "__context__"), depth),
            suppress_context=suppress_context,
            wrapped=self._link(origin.cause, depth) if origin else None,
        )

    def _link(self, exc: BaseException | None, depth: int) -> ErrorRecord | None:
        if exc is None or id(exc) in self._seen or depth >= CHAIN_MAX:
            return None
        return self.record(exc, depth + 1, linked=True)

    def _pickle(self, exc: BaseException) -> tuple[bytes, str]:
        try:
            return self._dumps(take_apart(exc)), ""
        except Exception as error:
            name = user_type(type(exc)).__name__
            return b"", clean(explain_unpicklable(exc, name, self._dumps) or describe(error))


class _Restore:
    """One restore."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def raisable(self, record: ErrorRecord) -> BaseException:
        """What the awaiting side may raise: an instance of TaskError wherever Python allows it."""
        exc = self._make(record, dual=True)
        if isinstance(exc, NEVER_DUAL):
            where = Origin(tuple(record.hops)).outermost.describe()
            text = f"{where} raised {type_name(type(exc))}"
            exc = _wrapper(f"{text}: {record.text}" if record.text else text, exc)
        return self._finish(exc, record)

    def linked(self, record: ErrorRecord) -> BaseException:
        """A cause or a context: looked at, not raised. It keeps its own type unless it was dual already."""
        return self._finish(self._make(record, dual=bool(record.hops)), record)

    def _make(self, record: ErrorRecord, *, dual: bool) -> BaseException:
        members = [self.raisable(member) for member in record.members]
        problem = record.problem
        if record.payload:
            try:
                parts = self._loads(record.payload)
                if is_parts(parts):
                    return put_together(parts, members, dual=dual)
                problem = "its __reduce__ did not give an exception"
            except Exception as error:
                problem = f"{NOT_UNPICKLED}: {describe(error)}"
        return _stand_in(record, problem, members)

    def _finish(self, exc: BaseException, record: ErrorRecord) -> BaseException:
        """Give `exc` what is not part of its state: traceback, notes, chain and origin."""
        tb = make_traceback(record.frames)
        if record.cause is not None:
            set_plainly(exc, "__cause__", self.linked(record.cause))
        if record.context is not None:
            set_plainly(exc, "__context__", self.linked(record.context))
        set_plainly(exc, "__suppress_context__", record.suppress_context)
        if record.hops:
            known = origin_of(exc)
            cause = self.linked(record.wrapped) if record.wrapped else known.cause if known else None
            mark(exc, Origin(tuple(record.hops), tb, "", cause))
        add_notes(exc, record.notes)
        return BaseException.with_traceback(exc, tb)


def _wrapper(message: str, cause: BaseException | None = None) -> TaskError:
    error = TaskError(message)
    attributes_of(error)["__actorflow__"] = Origin(cause=cause)
    return error


def _stand_in(record: ErrorRecord, problem: str, members: list[BaseException]) -> BaseException:
    """What is raised instead of an exception that could not be sent: all of it that is text, and why.

    A group stays a group, as its members may have come well: `except*` still finds them.
    """
    head = f"{record.type_name}: {record.text}" if record.text else record.type_name
    short = record.type_name.rpartition(".")[2]
    if problem.startswith(NOT_UNPICKLED):
        if "ModuleNotFoundError: " in problem or "ImportError: " in problem:
            advice = f"Make the module that defines {short} importable here, or give it a __reduce__."
        else:
            advice = f"Give {short} a __reduce__ by which it can be made again."
    else:
        advice = f"To catch it by its type, make {short} picklable: leave that part out in a __reduce__."
    text = f"{head}\n(This is not an instance of {short}: {problem.rstrip('.')}. {advice})"
    if members:
        return put_together((ExceptionGroup, (text,), {}, {}), members, dual=True)
    return _wrapper(text)


NOT_UNPICKLED = "it cannot be unpickled here"
