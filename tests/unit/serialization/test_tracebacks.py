"""Exceptions of user code on their way between processes: SEMANTICS 10, and how their tracebacks read."""

import asyncio
import contextlib
import copy
import copyreg
import gc
import linecache
import logging
import os
import pickle
import textwrap
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

import cloudpickle
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import (
    ActorDiedError,
    ActorflowError,
    GetTimeoutError,
    ProtocolError,
    TaskError,
    origin_of,
)
from actorflow._core.serialization import duals, frames, tracebacks
from actorflow._core.serialization.tracebacks import capture, restore

T = TypeVar("T")
dumps = partial(cloudpickle.dumps, protocol=5)
DEFINED_HERE = os.path.abspath(__file__)


# A call without a process -----------------------------------------------------------------------------------


def raised(exc: BaseException) -> BaseException:
    """`exc` with a traceback, raised by code that is not ours."""
    try:
        raise exc
    except BaseException as caught:
        return caught


def sent(exc: BaseException, hop: int = 1, **names: Any) -> BaseException:
    """`exc` as it arrives after a remote call that ended with it."""
    call = {
        "function_name": "work",
        "task": f"task-{hop}",
        "process_id": f"{hop:012x}",
        "pid": 4000 + hop,
    }
    return restore(capture(exc, dumps=dumps, **(call | names)), loads=pickle.loads)


def remote(hop: int, function: Callable[[], object], **names: Any) -> None:
    """Call `function` as a remote call numbered `hop`."""
    arrived = None
    try:
        function()
    except BaseException as exc:
        arrived = sent(exc, hop, function_name=function.__name__, **names)
    assert arrived is not None
    raise arrived


def text_of(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


def places(tb: TracebackType | None) -> list[str]:
    """The functions in a traceback, outermost first, without those of this file's machinery."""
    names = [entry.name for entry in traceback.extract_tb(tb)]
    return [name for name in names if name not in ("raised", "remote")]


def codes(tb: TracebackType | None) -> Iterator[tuple[str, int]]:
    while tb is not None:
        yield tb.tb_frame.f_code.co_name, tb.tb_lineno
        tb = tb.tb_next


class WithInit(Exception):
    """Its __init__ wants what args do not have, and counts."""

    made = 0

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}")
        self.code, self.detail = code, detail
        WithInit.made += 1

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.detail}"


class WithNew(Exception):
    def __new__(cls, code: int) -> "WithNew":
        assert cls is WithNew, "made by somebody else"
        return super().__new__(cls, code)


class WithSlots(WithInit):
    __slots__ = ("_hidden", "never_set", "slot")


class Registered(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no more of us")


class Final(Registered.__base__):  # type: ignore[name-defined, misc]  # an Exception
    """A metaclass that refuses."""


class Refusing(type):
    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> "Refusing":
        if any(isinstance(base, Refusing) for base in bases):
            raise TypeError(f"{name} is final")
        return super().__new__(mcs, name, bases, body)


class OfRefusing(Exception, metaclass=Refusing):
    pass


class Colliding(Exception):
    """Uses every name of ours for something else."""

    hops = "class attribute"

    def __init__(self) -> None:
        super().__init__("m")
        self.pid, self.task, self.cause, self.remote_traceback = "my pid", "my task", "my cause", 7


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Empty(Exception):
    def __len__(self) -> int:
        return 0


class AbstractError(Exception, ABC):
    @abstractmethod
    def never_written(self) -> None: ...


class GenericError(Exception, Generic[T]):
    pass


class HookedError(Exception):
    """Pickles in its own way: leaves out what cannot be pickled."""

    def __init__(self, code: int, lock: Any = "made anew") -> None:
        super().__init__(code, lock)
        self.code, self.lock = code, lock

    def __reduce__(self) -> tuple[Any, ...]:
        return HookedError, (self.code,)


class StatefulError(Exception):
    def __setstate__(self, state: dict[str, Any] | None) -> None:
        self.restored = True
        vars(self).update(state or {})


class RegisteredByCopyreg(Exception):
    pass


copyreg.pickle(RegisteredByCopyreg, lambda exc: (RegisteredByCopyreg, ("by copyreg",)))


class NoException(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("not an exception",)


class UsersTaskError(TaskError):
    pass


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Abort(BaseException):
    pass


class LoadsBadly(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return _explode, ()


def _explode() -> None:
    raise LookupError("cannot come back")


class UsersGroup(ExceptionGroup[Exception]):
    def __new__(cls, message: str, excs: list[Exception], code: int) -> "UsersGroup":
        made = super().__new__(cls, message, excs)
        made.code = code
        return made

    code: int

    def derive(self, excs: Any) -> "UsersGroup":
        return UsersGroup(self.message, excs, self.code)


# Two types at once ------------------------------------------------------------------------------------------

ORDINARY: list[BaseException] = [
    ValueError("bad"),
    KeyError("k"),
    Exception("plain"),
    Exception(),
    OSError(2, "No such file", "/x"),
    FileNotFoundError(2, "No such file", "/x", None, "/y"),
    ConnectionResetError(104, "reset"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
    SyntaxError("bad syntax", ("f.py", 3, 4, "x = = 1", 3, 5)),
    ImportError("no", name="n", path="/p"),
    ModuleNotFoundError("no", name="n"),
    AttributeError("no such attribute", name="n", obj=object()),
    NameError("no such name", name="n"),
    RecursionError("too deep"),
    MemoryError(),
    AssertionError("a", 1),
    TimeoutError("slow"),
    WithInit(3, detail="d"),
    WithNew(4),
    Colliding(),
    Frozen(5),
    Empty("e"),
    AbstractError("abstract"),
    GenericError[int]("generic"),
    HookedError(6),
    StatefulError("s"),
    RegisteredByCopyreg("by copyreg"),
    UsersTaskError("own subclass"),
    BadStr("x"),
    asyncio.QueueFull(),
    asyncio.IncompleteReadError(b"part", 10),
    pickle.PicklingError("p"),
    msgspec.ValidationError("v"),
    ActorflowError("root"),
    ActorDiedError("dead", actor="Counter(af-1)", reason="killed"),
    GetTimeoutError("waited", timeout_s=3.0),
    Abort("base"),
    ExceptionGroup("g", [ValueError("in"), KeyError("in too")]),
]


@pytest.mark.parametrize("exc", ORDINARY, ids=lambda exc: type(exc).__name__)
def test_semantics_10_a_remote_exception_is_of_both_types(exc: BaseException) -> None:
    arrived = sent(raised(exc))
    assert isinstance(arrived, type(exc))
    assert isinstance(arrived, TaskError)
    assert arrived is not exc
    assert getattr(arrived, "__notes__", []) == []


@pytest.mark.parametrize("exc", ORDINARY, ids=lambda exc: type(exc).__name__)
def test_semantics_10_it_reads_like_the_original(exc: BaseException) -> None:
    arrived = sent(raised(exc))
    assert type(arrived).__name__ == type(exc).__name__
    assert type(arrived).__qualname__ == type(exc).__qualname__
    assert type(arrived).__module__ == type(exc).__module__
    assert type(arrived).__doc__ == type(exc).__doc__
    assert traceback.format_exception_only(arrived) == traceback.format_exception_only(exc)
    if not isinstance(exc, ExceptionGroup | HookedError):
        assert repr(arrived) == repr(exc)


@pytest.mark.parametrize("exc", ORDINARY, ids=lambda exc: type(exc).__name__)
def test_semantics_10_only_one_attribute_is_ours(exc: BaseException) -> None:
    arrived = sent(raised(exc))
    ours = vars(arrived).keys() - vars(exc).keys() - {"restored"}
    assert ours == ({"__actorflow__"} - vars(exc).keys())
    assert set(vars(type(arrived))) - {"__weakref__", "__dict__", "__parameters__", "__orig_bases__"} <= {
        *vars(type(exc)),
        *("__module__", "__qualname__", "__doc__", "__reduce_ex__", "__abstractmethods__", "_abc_impl"),
        *("__hash__", "__notes__"),
    }


@pytest.mark.parametrize("exc", ORDINARY, ids=lambda exc: type(exc).__name__)
def test_semantics_10_a_dual_exception_pickles_and_is_dual_again(exc: BaseException) -> None:
    arrived = sent(raised(exc))
    again = pickle.loads(dumps([arrived]))[0]
    assert type(again) is type(arrived) or isinstance(exc, UsersTaskError)
    assert traceback.format_exception_only(again) == traceback.format_exception_only(exc)
    assert origin_of(again).hops == origin_of(arrived).hops  # type: ignore[union-attr]


@pytest.mark.parametrize("exc", ORDINARY, ids=lambda exc: type(exc).__name__)
def test_semantics_10_three_hops_change_nothing(exc: BaseException) -> None:
    arrived = raised(exc)
    for hop in (1, 2, 3):
        arrived = raised(sent(arrived, hop))
    assert isinstance(arrived, type(exc))
    assert isinstance(arrived, TaskError)
    assert traceback.format_exception_only(arrived) == traceback.format_exception_only(exc)
    assert [hop.task for hop in origin_of(arrived).hops] == ["task-3", "task-2", "task-1"]  # type: ignore[union-attr]


def test_semantics_10_both_names_catch() -> None:
    def boom() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        remote(1, boom)
    with pytest.raises(TaskError, match="bad"):
        remote(1, boom)


def test_semantics_10_the_class_is_made_once_per_type() -> None:
    assert type(sent(WithInit(1, detail="a"))) is type(sent(WithInit(2, detail="b")))


def test_semantics_10_the_users_init_is_not_called() -> None:
    exc = WithInit(3, detail="d")
    made = WithInit.made
    arrived = sent(exc)
    pickle.loads(dumps(arrived))
    assert WithInit.made == made
    assert isinstance(arrived, WithInit)
    assert (arrived.args, arrived.code, arrived.detail, str(arrived)) == (("code 3",), 3, "d", "code 3: d")


def test_semantics_10_slots_arrive_and_empty_ones_stay_empty() -> None:
    exc = WithSlots(1, detail="d")
    exc.slot, exc._hidden = [1], None
    arrived = sent(exc)
    assert isinstance(arrived, WithSlots)
    assert (arrived.slot, arrived._hidden, arrived.code) == ([1], None, 1)
    assert not hasattr(arrived, "never_set")


def test_what_builtin_exceptions_keep_outside_their_dict_arrives() -> None:
    missing = sent(FileNotFoundError(2, "No such file", "/x", None, "/y"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename, missing.filename2) == (2, "/x", "/y")
    undecoded = sent(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"))
    assert isinstance(undecoded, UnicodeDecodeError)
    assert (undecoded.object, undecoded.start, undecoded.reason) == (b"\xff", 0, "why")
    nameless = sent(AttributeError("a", name="n", obj=object()))
    assert isinstance(nameless, AttributeError)
    assert (nameless.name, nameless.obj) == ("n", None)


def test_semantics_10_the_users_attributes_win_over_ours() -> None:
    arrived = sent(Colliding())
    assert isinstance(arrived, Colliding)
    assert (arrived.pid, arrived.task, arrived.cause) == ("my pid", "my task", "my cause")
    assert (arrived.hops, arrived.remote_traceback) == ("class attribute", 7)
    assert arrived.process_id == f"{1:012x}"  # type: ignore[attr-defined]
    again = sent(pickle.loads(dumps(arrived)), 2)
    assert [hop.task for hop in origin_of(again).hops] == ["task-2", "task-1"]  # type: ignore[union-attr]


def test_it_tells_of_the_call() -> None:
    arrived = sent(ValueError("bad"), 7, function_name="Counter.add", actor="Counter(af-1)")
    assert isinstance(arrived, TaskError)
    assert (arrived.function_name, arrived.task) == ("Counter.add", "task-7")
    assert (arrived.process_id, arrived.pid, arrived.actor) == (f"{7:012x}", 4007, "Counter(af-1)")


def test_its_cause_is_the_exception_in_its_own_type() -> None:
    arrived = sent(raised(WithInit(3, detail="d")))
    assert isinstance(arrived, TaskError)
    cause = arrived.cause
    assert type(cause) is WithInit
    assert cause is not arrived.cause
    assert (cause.code, origin_of(cause)) == (3, None)
    assert cause.__traceback__ is arrived.__traceback__


def test_pickling_hooks_of_the_user_are_obeyed() -> None:
    import threading

    arrived = sent(HookedError(6, threading.Lock()))
    assert isinstance(arrived, HookedError)
    assert (arrived.code, arrived.lock) == (6, "made anew")
    assert sent(StatefulError("s")).restored  # type: ignore[attr-defined]
    assert sent(RegisteredByCopyreg("other")).args == ("by copyreg",)


def test_attributes_added_on_the_way_travel_on() -> None:
    arrived = sent(ValueError("bad"))
    arrived.seen_by = "b"  # type: ignore[attr-defined]
    assert sent(arrived, 2).seen_by == "b"  # type: ignore[attr-defined]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_dual_exception_can_be_copied(copied: Callable[[BaseException], BaseException]) -> None:
    arrived = sent(raised(WithInit(3, detail="d")))
    again = copied(arrived)
    assert type(again) is type(arrived)
    assert vars(again).keys() == vars(arrived).keys()


def test_a_dual_class_never_travels() -> None:
    payload = dumps(sent(WithInit(3, detail="d")))
    assert b"RemoteError" not in payload


def test_a_type_is_let_go_when_many_others_come() -> None:
    types = [type(f"Error{number}", (Exception,), {}) for number in range(300)]
    for made in types:
        duals.dual_type(made)
    first = weakref.ref(types[0])
    del types, made
    gc.collect()  # the dual class, then
    gc.collect()  # the type that its entry held
    assert first() is None


# Where Python refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exc", [Registered("r"), OfRefusing("o")], ids=lambda exc: type(exc).__name__)
def test_semantics_10_where_python_refuses_it_is_the_original_with_a_note(exc: Exception) -> None:
    exc.add_note("the user's")
    arrived = sent(raised(exc))
    assert type(arrived) is type(exc)
    assert arrived.args == exc.args
    ours, users = arrived.__notes__
    assert users == "the user's"
    assert ours.startswith("Raised remotely, in work (task-1, process 000000000001, pid 4001). It is not an")
    assert "Python refuses a subclass of" in ours
    assert places(arrived.__traceback__) == ["work as task-1"]


def test_semantics_10_the_note_is_one_after_many_hops() -> None:
    arrived = sent(sent(Registered("r")), 2)
    assert type(arrived) is Registered
    (note,) = arrived.__notes__
    assert note.startswith("Raised remotely, in work (task-2, ")
    assert "), then in work (task-1, " in note
    assert pickle.loads(dumps(arrived)).args == ("r",)


NEVER = [
    asyncio.CancelledError("stop"),
    StopIteration(5),
    StopAsyncIteration(),
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(3),
    type("OwnExit", (SystemExit,), {"__module__": __name__})(4),
]


@pytest.mark.parametrize("exc", NEVER, ids=lambda exc: type(exc).__name__)
def test_semantics_10_some_are_wrapped_and_never_dual(exc: BaseException) -> None:
    arrived = sent(raised(exc))
    for hop in (2, 3):
        assert type(arrived) is TaskError
        assert type(arrived.cause).__name__ == type(exc).__name__
        assert isinstance(arrived.cause, BaseException)
        assert arrived.cause.args == exc.args
        assert str(arrived).startswith("work (task-1, process 000000000001, pid 4001) raised ")
        assert type(exc).__name__ in str(arrived)
        arrived = sent(raised(arrived), hop)
    again = pickle.loads(dumps(arrived))
    assert type(again) is TaskError
    assert type(again.cause).__name__ == type(exc).__name__


def test_what_they_carry_is_in_the_cause() -> None:
    stop, leave = sent(StopIteration(5)), sent(SystemExit(3))
    assert isinstance(stop, TaskError)
    assert isinstance(stop.cause, StopIteration)
    assert stop.cause.value == 5
    assert isinstance(leave, TaskError)
    assert isinstance(leave.cause, SystemExit)
    assert leave.cause.code == 3


def test_a_wrapped_one_shows_its_frames_once() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(TaskError) as caught:
        remote(1, leave)
    assert text_of(caught.value).count("raise SystemExit(3)") == 1


# What cannot be pickled -------------------------------------------------------------------------------------


def test_what_cannot_be_pickled_arrives_as_text_with_the_reason() -> None:
    import threading

    def connect() -> None:
        error = WithInit(3, detail="d")
        error.config = {"hooks": [0, threading.Lock()]}  # type: ignore[attr-defined]
        error.add_note("while connecting")
        raise error

    with pytest.raises(TaskError) as caught:
        remote(1, connect)
    error = caught.value
    assert type(error) is TaskError
    head, why = str(error).split("\n")
    assert head == f"{__name__}.WithInit: code 3: d"
    assert why.startswith("(This is not an instance of WithInit: WithInit.config['hooks'][1]: cannot pickle")
    assert "to catch it by its type, make WithInit picklable" in why.lower().replace("withinit", "WithInit")
    assert error.__notes__ == ["while connecting"]
    assert places(error.__traceback__)[-2:] == ["connect as task-1", "connect"]
    assert "raise error" in error.remote_traceback
    assert error.cause is None


def test_it_stays_so_over_more_hops() -> None:
    import threading

    first = sent(raised(HookedError.__base__(threading.Lock())))
    second = sent(raised(first), 2)
    assert type(second) is TaskError
    assert str(second) == str(first)
    assert [hop.task for hop in second.hops] == ["task-2", "task-1"]


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (LoadsBadly("x"), "it cannot be unpickled here: LookupError: cannot come back"),
        (NoException("x"), "its __reduce__ did not give an exception"),
    ],
    ids=["loads badly", "loads as something else"],
)
def test_what_cannot_be_unpickled_arrives_as_text_with_the_reason(exc: Exception, reason: str) -> None:
    data = capture(exc, function_name="f", task="t", process_id="p", pid=1, dumps=lambda value: dumps((exc,)))
    arrived = restore(data, loads=pickle.loads)
    assert type(arrived) is TaskError
    assert reason in str(arrived)
    assert str(arrived).startswith(f"{__name__}.{type(exc).__name__}: x\n")


def test_a_module_that_is_missing_here_is_named() -> None:
    def loads(data: bytes) -> object:
        raise ModuleNotFoundError("No module named 'theirs'")

    data = capture(ValueError("x"), function_name="f", task="t", process_id="p", pid=1, dumps=dumps)
    arrived = restore(data, loads=loads)
    assert "ModuleNotFoundError: No module named 'theirs'. Make the module that defines" in str(arrived)


def test_an_exception_without_a_text_is_sent_all_the_same() -> None:
    import threading

    arrived = sent(BadStr(threading.Lock()))
    assert f"{__name__}.BadStr: <its __str__ raised RuntimeError>" in str(arrived)


def test_a_long_message_is_cut_where_it_goes_as_text() -> None:
    import threading

    arrived = sent(ValueError("x" * 100_000, threading.Lock()))
    assert len(str(arrived)) < 20_000
    assert sent(ValueError("x" * 100_000)).args == ("x" * 100_000,)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x92\xa1x", msgspec.msgpack.encode([1, 2]), b"\x92\xa1x\xa1\xff"]
)
def test_bytes_that_are_not_ours_are_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=f"^{len(data)} bytes are not a captured exception: "):
        restore(data, loads=pickle.loads)


@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_broken_bytes_raise_nothing_but_a_protocol_error(noise: bytes, at: int, cut: bool) -> None:
    exc = raised(ExceptionGroup("g", [ValueError("v")]))
    good = capture(exc, function_name="f", task="t", process_id="p", pid=1, dumps=dumps)
    data = good[:at] + noise + (b"" if cut else good[at + len(noise) :])
    with contextlib.suppress(ProtocolError):
        assert isinstance(restore(data, loads=lambda _: (ValueError, (), {}, {})), BaseException)


# How it reads -----------------------------------------------------------------------------------------------

PROGRAM = """\
import math

def root(x):
    return math.sqrt(x)

def total(call, xs):
    # the second hop
    return call(root, xs[-1])
"""


@pytest.fixture
def program(tmp_path: Any) -> Iterator[Callable[[bool], dict[str, Any]]]:
    """Load PROGRAM from a file `app.py`, which may be gone afterwards, as on another machine."""
    path = tmp_path / "app.py"

    def load(here: bool = True) -> dict[str, Any]:
        path.write_text(PROGRAM)
        namespace: dict[str, Any] = {"__name__": "app", "__file__": str(path)}
        exec(compile(PROGRAM, str(path), "exec"), namespace)
        if not here:
            linecache.getlines(str(path))
            path.unlink()
        return namespace

    yield load
    linecache.cache.pop(str(path), None)


def two_hops(namespace: dict[str, Any], forget: Callable[[], None] = lambda: None) -> BaseException:
    """A remote `root` inside a remote `total`; `forget` runs between capturing and restoring."""

    def call(function: Callable[[int], float], x: int) -> float:
        try:
            return function(x)
        except ValueError as exc:
            data = capture(exc, function_name="root", task="task-2", process_id="bb", pid=2, dumps=dumps)
        forget()
        raise restore(data, loads=pickle.loads)

    try:
        namespace["total"](call, [1, -1])
    except ValueError as exc:
        data = capture(exc, function_name="total", task="task-1", process_id="aa", pid=1, dumps=dumps)
    forget()
    return restore(data, loads=pickle.loads)


def without_carets(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip(" ^~")]


def without_this_file(lines: list[str]) -> list[str]:
    """Drop the frames of `call` and `two_hops`, which stand for the machinery of the worker."""
    kept, skipping = [], False
    for line in lines:
        if line.startswith("  File "):
            skipping = DEFINED_HERE in line
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return kept


def test_several_hops_read_as_one_traceback_outermost_first(program: Any) -> None:
    namespace = program()
    file = namespace["__file__"]
    lines = without_this_file(without_carets(text_of(two_hops(namespace))))
    assert "\n".join(lines) == textwrap.dedent(
        f"""\
        Traceback (most recent call last):
          File "<process aa, pid 1>", line 1, in total as task-1
          File "{file}", line 8, in total
            return call(root, xs[-1])
          File "<process bb, pid 2>", line 1, in root as task-2
          File "{file}", line 4, in root
            return math.sqrt(x)
        ValueError: math domain error"""
    )


def test_local_frames_come_before_the_remote_ones() -> None:
    def far() -> None:
        raise ValueError("far")

    def near() -> None:
        remote(1, far, actor="Counter(af-1)")

    with pytest.raises(ValueError, match="far") as caught:
        near()
    names = places(caught.value.__traceback__)[1:]
    assert names == ["near", "far as task-1 of Counter(af-1)", "far"]


def test_three_hops_are_one_chain() -> None:
    def c() -> None:
        raise ValueError("far")

    def b() -> None:
        remote(3, c)

    def a() -> None:
        remote(2, b)

    with pytest.raises(ValueError, match="far") as caught:
        remote(1, a)
    names = places(caught.value.__traceback__)[1:]
    assert names == ["a as task-1", "a", "b as task-2", "b", "c as task-3", "c"]
    assert text_of(caught.value).count("Traceback (most recent call last)") == 1
    assert caught.value.__cause__ is None


def test_source_lines_of_a_file_that_is_not_here_are_shown(program: Any) -> None:
    namespace = program(here=False)
    file = namespace["__file__"]
    arrived = two_hops(namespace, forget=lambda: linecache.cache.pop(file, None))
    text = text_of(arrived)
    assert f'File "{file}", line 4, in root\n    return math.sqrt(x)\n           ' in text  # and carets
    assert "remote copy" not in text


def test_a_file_that_differs_here_is_shown_as_it_was_there(program: Any) -> None:
    namespace = program()
    file = namespace["__file__"]

    exc = _error_of(lambda: namespace["root"](-1))
    data = capture(exc, function_name="root", task="task-2", process_id="bb", pid=2, dumps=dumps)
    with open(file, "w") as there:
        there.write("# another version\n" * 20)
    linecache.checkcache(file)
    text = text_of(restore(data, loads=pickle.loads))
    assert f'File "{file} (remote copy)", line 4, in root\n    return math.sqrt(x)\n' in text
    assert "another version" not in text


def test_two_other_versions_of_a_file_do_not_mix() -> None:
    def arrive(line: str) -> str:
        record = frames.FrameRecord("/no/such/file.py", 3, "f", line)
        return "".join(traceback.format_tb(frames.make_traceback([record])))

    for _ in range(2):
        assert arrive("    one = 1") == '  File "/no/such/file.py", line 3, in f\n    one = 1\n'
        assert 'file.py (remote copy)", line 3, in f\n    two = 2\n' in arrive("    two = 2")
        assert 'file.py (remote copy 2)", line 3, in f\n    three = 3\n' in arrive("    three = 3")


def test_carets_point_where_they_did(program: Any) -> None:
    namespace = program()
    try:
        namespace["root"](-1)
    except ValueError as exc:
        local = traceback.format_tb(exc.__traceback__)[-1]
        arrived = sent(exc)
    assert traceback.format_tb(arrived.__traceback__)[-1] == local


def test_a_debugger_finds_files_lines_and_no_locals(program: Any) -> None:
    namespace = program()
    tb = two_hops(namespace).__traceback__
    last = _last_entry(tb)
    assert last.tb_frame.f_code.co_filename == namespace["__file__"]
    assert (last.tb_lineno, last.tb_frame.f_code.co_firstlineno) == (4, 3)
    assert last.tb_frame.f_locals == {}
    assert last.tb_frame.f_globals["__name__"] == "app"
    assert all(entry.tb_frame.f_back is None for entry in _entries(tb))


def _entries(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def test_pytest_shows_the_source_of_the_remote_function(program: Any) -> None:
    namespace = program(here=False)
    file = namespace["__file__"]
    arrived = two_hops(namespace, forget=lambda: linecache.cache.pop(file, None))
    shown = str(pytest.ExceptionInfo.from_exception(arrived).getrepr(style="long"))
    assert "return math.sqrt(x)" in shown
    assert f"{file}:4: ValueError" in shown


def test_logging_shows_the_remote_frames(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("app").error("failed", exc_info=sent(raised(ValueError("bad"))))
    assert "in work as task-1" in caplog.text
    assert "raise exc" in caplog.text


def test_frames_of_our_own_code_are_left_out() -> None:
    internal = compile("def run(f):\n f()", frames.__file__, "exec")
    plumbing = compile("def step(f):\n f()", asyncio.tasks.__file__, "exec")
    namespace: dict[str, Any] = {}
    exec(internal, namespace)
    exec(plumbing, namespace)

    def users() -> None:
        namespace["step"](lambda: namespace["run"](deeper))

    def deeper() -> None:
        raise ValueError("bad")

    try:
        namespace["step"](partial(namespace["run"], users))
    except ValueError as exc:
        # The traceback as a worker has it: it begins inside the loop.
        arrived = sent(exc.with_traceback(_skip_this_file(exc.__traceback__)))
    assert places(arrived.__traceback__) == ["work as task-1", "users", "step", "<lambda>", "deeper"]


def _skip_this_file(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_name != "step":
        tb = tb.tb_next
    return tb


def _last_entry(tb: TracebackType | None) -> TracebackType:
    *_, last = _entries(tb)
    return last


def test_when_all_frames_are_ours_they_are_shown() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def bug():\n raise ValueError('ours')", frames.__file__, "exec"), namespace)
    exc = _error_of(namespace["bug"])
    arrived = sent(exc.with_traceback(_last_entry(exc.__traceback__)))
    assert places(arrived.__traceback__) == ["work as task-1", "bug"]


def test_an_endless_recursion_is_cut_in_the_middle() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        remote(1, deeper)
    names = places(caught.value.__traceback__)
    assert len(names) <= frames.FRAMES_MAX + 10
    assert any("frames left out" in name for name in names)


def test_a_statement_over_many_lines_is_shown_by_its_first() -> None:
    source = (
        "def f():\n    g(\n" + "        1,\n" * 20 + "    )\n\ndef g(*args):\n    raise ValueError('x')\n"
    )
    namespace: dict[str, Any] = {}
    linecache.cache["/no/such/long.py"] = (len(source), None, source.splitlines(True), "/no/such/long.py")
    exec(compile(source, "/no/such/long.py", "exec"), namespace)
    try:
        namespace["f"]()
    except ValueError as exc:
        text = text_of(sent(exc))
    assert '"/no/such/long.py", line 2, in f\n    g(\n  File' in text


@given(
    st.builds(
        frames.FrameRecord,
        filename=st.text(),
        lineno=st.integers(-(2**40), 2**40),
        name=st.text(),
        line=st.text(),
        first_lineno=st.integers(-(2**40), 2**40),
        end_lineno=st.integers(-(2**40), 2**40),
        column=st.integers(-(2**40), 2**40),
        end_column=st.integers(-(2**40), 2**40),
        module=st.text(),
    )
)
def test_any_frame_that_a_peer_may_send_can_be_shown(record: frames.FrameRecord) -> None:
    tb = frames.make_traceback([record])
    assert [name for name, _ in codes(tb)] == [record.name]


@given(st.integers(1, 10_000), st.integers(0, 50), st.integers(0, 5), st.integers(0, 80), st.integers(0, 80))
def test_positions_survive(first: int, below: int, lines: int, column: int, end_column: int) -> None:
    start = first + below
    end_column = end_column if lines else max(column, end_column)
    record = frames.FrameRecord(
        "/no/such/f.py", start, "f", "", first, start + lines, column, end_column, "m"
    )
    (again,) = frames.frames_of(frames.make_traceback([record]))
    assert again == record


def test_lines_lent_to_linecache_are_bounded() -> None:
    sources = frames._Sources()
    for number in range(sources.FILES_MAX + 10):
        sources.show(frames.FrameRecord(f"/no/such/{number}.py", 1, "f", "x = 1"))
    assert len(sources._own) == sources.FILES_MAX
    assert "/no/such/0.py" not in linecache.cache
    assert sources.show(frames.FrameRecord("/no/such/far.py", 10**9, "f", "x")) == "/no/such/far.py"
    for number in range(sources.FILES_MAX + 10):
        linecache.cache.pop(f"/no/such/{number}.py", None)


def test_text_with_lone_surrogates_can_be_sent() -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def f(): raise ValueError('\\udcff')", "/no/such/\udcff.py", "exec"), namespace)
    try:
        namespace["f"]()
    except ValueError as exc:
        exc.add_note("\udcfe")
        arrived = sent(exc)
    assert arrived.args == ("\udcff",)
    assert arrived.__notes__ == ["\\udcfe"]


# Chains and groups ------------------------------------------------------------------------------------------


def test_the_cause_arrives_with_its_frames_and_its_own_type() -> None:
    def lookup() -> None:
        try:
            {}["k"]  # type: ignore[index]
        except KeyError as error:
            raise ValueError("no such thing") from error

    with pytest.raises(ValueError, match="no such thing") as caught:
        remote(1, lookup)
    cause = caught.value.__cause__
    assert type(cause) is KeyError
    assert "lookup as task-1" in places(cause.__traceback__)
    assert "direct cause of the following exception" in text_of(caught.value)


def test_the_context_arrives_unless_it_was_suppressed() -> None:
    def handle(suppress: bool) -> None:
        try:
            raise KeyError("k")
        except KeyError:
            if suppress:
                raise ValueError("v") from None
            raise ValueError("v")  # noqa: B904

    shown, hidden = sent(_error_of(lambda: handle(False))), sent(_error_of(lambda: handle(True)))
    assert type(shown.__context__) is KeyError
    assert not shown.__suppress_context__
    assert hidden.__context__ is None
    assert hidden.__suppress_context__


def _error_of(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("it did not raise")


def test_a_remote_cause_is_dual_still_after_a_hop_as_a_cause() -> None:
    def far() -> None:
        raise KeyError("k")

    def near() -> None:
        try:
            remote(2, far)
        except KeyError as error:
            raise ValueError("v") from error

    with pytest.raises(ValueError, match="v") as caught:
        remote(1, near)
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert isinstance(cause, TaskError)
    assert [hop.task for hop in cause.hops] == ["task-2"]


def test_a_cause_that_cannot_be_pickled_does_not_spoil_the_exception() -> None:
    import threading

    exc = ValueError("v")
    exc.__cause__ = KeyError(threading.Lock())
    arrived = sent(exc)
    assert isinstance(arrived, ValueError)
    assert type(arrived.__cause__) is TaskError
    assert "cannot pickle" in str(arrived.__cause__)


def test_a_circular_chain_ends() -> None:
    a, b = ValueError("a"), KeyError("b")
    a.__context__, b.__context__ = b, a
    arrived = sent(a)
    assert isinstance(arrived.__context__, KeyError)
    assert arrived.__context__.__context__ is None


def test_an_endless_chain_is_cut() -> None:
    exc = first = ValueError("0")
    for number in range(1, 200):
        exc.__cause__ = ValueError(str(number))
        exc = exc.__cause__
    arrived, length = sent(first).__cause__, 0
    while arrived is not None:
        arrived, length = arrived.__cause__, length + 1
    assert length == tracebacks.CHAIN_MAX


def test_a_keyboard_interrupt_in_the_chain_is_only_looked_at() -> None:
    exc = ValueError("v")
    exc.__cause__ = KeyboardInterrupt()
    assert type(sent(exc).__cause__) is KeyboardInterrupt


def test_notes_arrive_once_over_many_hops() -> None:
    exc = ValueError("v")
    exc.add_note("first")
    arrived = sent(exc)
    arrived.add_note("second")
    assert sent(arrived, 2).__notes__ == ["first", "second"]


def test_the_text_of_the_remote_traceback_survives_pickling() -> None:
    exc = raised(ValueError("v"))
    exc.__cause__ = KeyError("why")
    arrived = sent(exc)
    again = pickle.loads(dumps(arrived))
    assert isinstance(arrived, TaskError)
    assert again.remote_traceback == arrived.remote_traceback
    assert "KeyError: 'why'" in again.remote_traceback
    assert places(again.__traceback__) == places(arrived.__traceback__)


def test_semantics_10_except_star_takes_groups_apart() -> None:
    def several() -> None:
        raise ExceptionGroup("g", [ValueError("v"), ExceptionGroup("h", [KeyError("k"), OSError(2, "o")])])

    caught: list[BaseExceptionGroup[Any]] = []
    try:
        remote(1, several)
    except* ValueError as group:
        caught.append(group)
    except* KeyError as group:
        caught.append(group)
    except* TaskError as group:
        caught.append(group)
    values, keys, rest = caught
    assert [type(exc).__name__ for exc in values.exceptions] == ["ValueError"]
    assert isinstance(values.exceptions[0], TaskError)
    assert isinstance(keys.exceptions[0].exceptions[0], KeyError)
    assert isinstance(rest.exceptions[0].exceptions[0], OSError)


def test_semantics_10_except_star_task_error_takes_all() -> None:
    caught = None
    try:
        raise sent(ExceptionGroup("g", [ValueError("v")]))
    except* TaskError as group:
        caught = group
    assert isinstance(caught, ExceptionGroup)


def test_semantics_10_a_group_of_base_exceptions_is_a_group_of_exceptions_here() -> None:
    arrived = sent(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("v")]))
    assert isinstance(arrived, ExceptionGroup)
    assert isinstance(arrived, TaskError)
    wrapped, value = arrived.exceptions
    assert type(wrapped) is TaskError
    assert type(wrapped.cause) is KeyboardInterrupt
    assert isinstance(value, ValueError)


def test_a_group_of_the_users_own_type_arrives_without_its_constructor() -> None:
    arrived = sent(raised(UsersGroup("g", [ValueError("v"), KeyError("k")], 5)))
    assert isinstance(arrived, UsersGroup)
    assert isinstance(arrived, TaskError)
    assert (arrived.code, arrived.message, len(arrived.exceptions)) == (5, "g", 2)
    left = arrived.subgroup(KeyError)
    assert isinstance(left, UsersGroup)
    assert type(arrived.cause) is UsersGroup


def test_a_group_that_cannot_be_pickled_keeps_its_members() -> None:
    import threading

    group = ExceptionGroup("g", [ValueError("v")])
    group.lock = threading.Lock()  # type: ignore[attr-defined]
    arrived = sent(group)
    assert isinstance(arrived, ExceptionGroup)
    assert isinstance(arrived, TaskError)
    assert isinstance(arrived.exceptions[0], ValueError)
    assert "ExceptionGroup.lock: cannot pickle" in str(arrived)


def test_members_of_a_group_that_cannot_be_pickled_do_not_spoil_the_others() -> None:
    import threading

    arrived = sent(ExceptionGroup("g", [ValueError(threading.Lock()), KeyError("k")]))
    assert isinstance(arrived, ExceptionGroup)
    spoiled, key = arrived.exceptions
    assert type(spoiled) is TaskError
    assert isinstance(key, KeyError)


# Nothing stays ----------------------------------------------------------------------------------------------


class Tracked:
    pass


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed in this test is freed by its last reference, not by the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_semantics_10_capture_keeps_nothing_of_the_frames() -> None:
    seen: list[weakref.ref[Tracked]] = []

    def work() -> None:
        local = Tracked()
        seen.append(weakref.ref(local))
        raise ValueError("bad")

    def call() -> bytes:
        try:
            work()
        except ValueError as exc:
            return capture(exc, function_name="f", task="t", process_id="p", pid=1, dumps=dumps)
        raise AssertionError

    assert call()
    assert seen[0]() is None


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "exc",
    [
        WithInit(1, detail="d"),
        SystemExit(3),
        ExceptionGroup("g", [ValueError("v")]),
        ValueError(lambda: (yield)),
        Registered("r"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_semantics_10_a_restored_exception_is_in_no_cycle(exc: BaseException) -> None:
    for kind in (sent(raised(exc)), pickle.loads(dumps(sent(raised(exc))))):
        getattr(kind, "cause", None)
        getattr(kind, "remote_traceback", None)
    del kind
    arrived = sent(raised(exc))
    gone = weakref.ref(arrived)
    del arrived
    assert gone() is None
    del exc


@pytest.mark.usefixtures("no_collector")
def test_semantics_10_restore_keeps_no_frame_of_its_caller() -> None:
    local = Tracked()
    gone = weakref.ref(local)

    def awaiting(held: Tracked) -> BaseException:
        return sent(ValueError("v"))

    kept = awaiting(local)
    del local
    assert gone() is None
    assert kept.__traceback__ is not None


# Any exception ----------------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
types_to_raise = st.sampled_from([ValueError, KeyError, OSError, WithSlots, Frozen, Colliding, RuntimeError])


@given(
    types_to_raise,
    st.lists(plain_values, max_size=4),
    st.dictionaries(st.text().filter(lambda name: not name.startswith("__")), plain_values, max_size=4),
    st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=2),
    st.integers(1, 3),
)
def test_semantics_10_args_attributes_and_notes_arrive_whatever_they_are(
    cls: type[Exception], args: list[object], attributes: dict[str, Any], notes: list[str], hops: int
) -> None:
    exc = cls.__new__(cls)
    BaseException.__setattr__(exc, "args", tuple(args))
    vars(exc).update(attributes | ({"__notes__": notes} if notes else {}))
    arrived: BaseException = exc
    for hop in range(hops):
        arrived = sent(arrived, hop)
    assert isinstance(arrived, cls)
    assert isinstance(arrived, TaskError)
    assert arrived.args == tuple(args)
    own = {name: value for name, value in vars(arrived).items() if not name.startswith("__")}
    assert own == attributes
    assert getattr(arrived, "__notes__", []) == notes
