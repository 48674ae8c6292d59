"""The path to what cannot be pickled, why it cannot, and what to do instead."""

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import pickle
import queue
import socket
import sqlite3
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.serialization import diagnose
from actorflow._core.serialization.diagnose import explain_unpicklable

HERE = "test_diagnose.py"


class Stuck:
    """Its pickling hook refuses, without being of a known type."""

    def __reduce__(self) -> Any:
        raise RuntimeError("never leaves home")


STUCK = Stuck()


class Box:
    """An ordinary object."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("conn", "empty")

    def __init__(self, conn: object) -> None:
        self.conn = conn


class BoxWithSlots(Box):
    __slots__ = ("conn",)


class OwnState(Box):
    """Renames, and leaves one attribute out."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state.pop("left_out", None)
        if "hidden" in state:
            state["shown"] = [state.pop("hidden")]
        return state


class ListState(Box):
    def __getstate__(self) -> list[object]:
        return [1, self.value]  # type: ignore[attr-defined]


class OwnReduce(Box):
    def __reduce__(self) -> Any:
        return Box, (), {"inner": self.value}  # type: ignore[attr-defined]


class ReduceArgs(Box):
    def __reduce__(self) -> Any:
        return Box, (1, self.value)  # type: ignore[attr-defined]


class Point(NamedTuple):
    x: int
    conn: object


@dataclass
class Config:
    hooks: list[object] = field(default_factory=list)


class MyList(list[object]):
    pass


class MyDict(dict[str, object]):
    pass


class Noisy:
    """Any code of it that is not a pickling hook fails the test."""

    def __init__(self, value: object) -> None:
        object.__setattr__(self, "value", value)

    def _fail(self, *args: Any) -> Any:
        raise AssertionError("the user's code was called")

    __repr__ = __str__ = __hash__ = __eq__ = __len__ = __iter__ = __bool__ = _fail  # type: ignore[assignment]
    __getattr__ = __call__ = __contains__ = __setattr__ = _fail  # type: ignore[assignment]


def path_of(value: object, name: str = "value") -> str:
    """What comes before the reason."""
    text = explain_unpicklable(value, name)
    assert "never leaves home" in text, text
    return text.split(": never leaves home")[0]


# The path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, "x", [1, {2: (3,)}], len, Box, Box(a=1), lambda: 1, None], ids=lambda value: type(value).__name__)
def test_what_pickles_needs_no_explanation(value: object) -> None:
    assert explain_unpicklable(value) == ""


PATHS: list[tuple[object, str]] = [
    (STUCK, "value"),
    ([1, STUCK], "value[1]"),
    ((STUCK,), "value[0]"),
    ({"a": {"b": STUCK}}, "value['a']['b']"),
    ({3: STUCK}, "value[3]"),
    ({STUCK: 1}, "value key <tests.unit.serialization.test_diagnose.Stuck>"),
    ({("a", 1): STUCK}, "value[<tuple>]"),
    ({"k" * 100: STUCK}, f"value['{'k' * 59}...]"),
    ({STUCK}, "value{<tests.unit.serialization.test_diagnose.Stuck>}"),
    (frozenset([STUCK]), "value{<tests.unit.serialization.test_diagnose.Stuck>}"),
    (collections.deque([0, STUCK]), "value[1]"),
    (collections.OrderedDict(a=STUCK), "value['a']"),
    (collections.defaultdict(list, a=STUCK), "value['a']"),
    (MyList([1, STUCK]), "value[1]"),
    (MyDict(a=STUCK), "value['a']"),
    (Box(conn=STUCK), "value.conn"),
    (Box(config={"hooks": [0, 1, Box(conn=STUCK)]}), "value.config['hooks'][2].conn"),
    (Slotted(STUCK), "value.conn"),
    (Point(1, STUCK), "value.conn"),
    (Config([STUCK]), "value.hooks[0]"),
    (types.SimpleNamespace(a=STUCK), "value.a"),
    (OwnState(value=STUCK), "value.value"),
    (OwnState(hidden=STUCK), "value.__getstate__()['shown'][0]"),
    (ListState(value=STUCK), "value.__getstate__()[1]"),
    (OwnReduce(value=STUCK), "value.__reduce__()[2]['inner']"),
    (ReduceArgs(value=STUCK), "value.__reduce__()[1][1]"),
    (functools.partial(print, STUCK), "value.args[0]"),
    (functools.partial(print, sep=STUCK), "value.keywords['sep']"),
    (functools.partial(Box(conn=STUCK).__init__), "value.func.__self__.conn"),  # type: ignore[misc]
    (ValueError("x", STUCK), "value.args[1]"),
    (Box(a=Box(), method=Box(conn=STUCK).__eq__), "value.method"),
]


@pytest.mark.parametrize(("value", "path"), PATHS, ids=[path for _, path in PATHS])
def test_the_path_is_what_one_would_write(value: object, path: str) -> None:
    assert path_of(value).startswith(path)


def test_slots_beside_a_dict_are_found() -> None:
    box = BoxWithSlots(a=1)
    box.conn = STUCK
    assert path_of(box) == "value.conn"


def test_an_attribute_of_an_exception_is_found() -> None:
    error = ValueError("x")
    error.conn = STUCK  # type: ignore[attr-defined]
    assert path_of(error, "ValueError") == "ValueError.conn"


def test_what_a_hook_leaves_out_is_not_blamed() -> None:
    assert explain_unpicklable(OwnState(left_out=STUCK)) == ""
    assert path_of(OwnState(left_out=threading.Lock(), value=STUCK)) == "value.value"


def test_the_first_of_several_is_named() -> None:
    assert path_of([1, {"a": STUCK}, STUCK]) == "value[1]['a']"


# Functions --------------------------------------------------------------------------------------------------


def closing_over(conn: object) -> Callable[[], object]:
    return lambda: conn


def in_main(source: str, **names: object) -> Any:
    """Define `f` by `source` where nobody can import it from, with `names` as its module's globals."""
    namespace = {"__name__": "__main__", **names}
    exec(compile(source, "/somewhere/app.py", "exec"), namespace)
    return namespace["f"]


def test_a_closure_variable_is_named_with_its_function() -> None:
    line = closing_over.__code__.co_firstlineno + 1
    path = path_of(closing_over(STUCK), "argument 'callback'")
    assert path == f"argument 'callback': closure variable 'conn' of <lambda> at {HERE}:{line}"


def test_the_path_goes_on_below_a_closure_variable() -> None:
    line = closing_over.__code__.co_firstlineno + 1
    path = path_of({"hooks": [closing_over(Box(pool=[STUCK]))]})
    assert path == (f"value['hooks'][0]: closure variable 'conn' of <lambda> at {HERE}:{line}: conn.pool[0]")


def test_a_function_within_a_function_is_followed() -> None:
    line = closing_over.__code__.co_firstlineno + 1
    where = f"closure variable 'conn' of <lambda> at {HERE}:{line}"
    assert path_of(closing_over(closing_over(STUCK))) == f"value: {where}: {where}"


def test_a_global_variable_is_named_when_the_function_uses_it() -> None:
    used = in_main("def f():\n    return pool.conn", pool=Box(conn=STUCK), other=STUCK)
    assert path_of(used) == "value: global variable 'pool' of f at app.py:1: pool.conn"
    assert explain_unpicklable(in_main("def f():\n    return 1", other=STUCK)) == ""


def test_a_global_variable_used_in_an_inner_function_counts() -> None:
    used = in_main("def f():\n    def g():\n        return pool\n    return g", pool=STUCK)
    assert path_of(used) == "value: global variable 'pool' of f at app.py:1"


def test_defaults_and_attributes_of_functions_are_found() -> None:
    assert path_of(in_main("def f(a, b=1, c=conn): ...", conn=STUCK)) == (
        "value: default of parameter 'c' of f at app.py:1"
    )
    assert path_of(in_main("def f(*, key=conn): ...", conn=STUCK)) == (
        "value: default of parameter 'key' of f at app.py:1"
    )
    assert path_of(in_main("def f(): ...\nf.conn = conn", conn=STUCK)) == "value.conn"


def test_a_bound_method_leads_to_its_object() -> None:
    assert path_of(Box(conn=STUCK).__init__) == "value.__self__.conn"  # type: ignore[misc]


def test_a_class_that_is_sent_by_value_is_searched() -> None:
    made = in_main("class f:\n    conn = conn\n    def method(self): ...", conn=STUCK)
    assert path_of(made) == "value.conn"
    assert path_of(made()) == "value: its class f: f.conn"
    method = in_main("class f:\n    def method(self): return conn", conn=STUCK)
    assert path_of(method) == "value.method: global variable 'conn' of method at app.py:2"
    static = in_main("class f:\n    @staticmethod\n    def method(): return conn", conn=STUCK)
    assert path_of(static) == "value.method: global variable 'conn' of method at app.py:2"
    derived = in_main("class g:\n    conn = conn\nclass f(g): ...", conn=STUCK)
    assert path_of(derived) == "value: base class g of f: g.conn"


def test_a_property_is_searched() -> None:
    made = in_main("class f:\n    @property\n    def it(self): return conn", conn=STUCK)
    assert path_of(made) == "value.it: global variable 'conn' of it at app.py:2"


def test_a_recursive_function_ends() -> None:
    def outer() -> Callable[[], object]:
        def f() -> object:
            return f, STUCK_LOCAL

        STUCK_LOCAL = STUCK
        return f

    assert "closure variable 'STUCK_LOCAL' of f" in path_of(outer())


def test_plain_pickle_wants_functions_that_can_be_imported() -> None:
    text = explain_unpicklable({"f": lambda: 1}, dumps=pickle.dumps)
    assert text.startswith("value['f']: ")
    assert text.endswith("; define it at the top level of a module that can be imported")


# Cycles and size --------------------------------------------------------------------------------------------


def test_a_cycle_ends_and_is_not_blamed() -> None:
    parent = Box()
    parent.child = Box(parent=parent, up=[parent])  # type: ignore[attr-defined]
    parent.conn = STUCK  # type: ignore[attr-defined]
    assert path_of(parent) == "value.conn"


def test_a_cycle_through_the_culprits_neighbours_is_not_blamed() -> None:
    ring = [Box() for _ in range(10)]
    for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
        one.next = other  # type: ignore[attr-defined]
    ring[5].conn = STUCK  # type: ignore[attr-defined]
    assert path_of(ring[0]) == f"value{'.next' * 5}.conn"


def counting(calls: list[int]) -> Callable[[object], bytes]:
    def dumps(value: object) -> bytes:
        calls.append(1)
        return cloudpickle.dumps(value)

    return dumps


@pytest.mark.parametrize("at", [0, 7, 49_999, 99_999])
def test_one_in_a_hundred_thousand_is_found_by_halving(at: int) -> None:
    values: list[object] = [Box(a=1)] * 100_000
    values[at] = Box(conn=STUCK)
    calls: list[int] = []
    text = explain_unpicklable(values, dumps=counting(calls))
    assert text.startswith(f"value[{at}].conn: ")
    assert len(calls) < 100


def test_a_search_is_bounded_and_says_so() -> None:
    # Every object fails for what only the last one holds, so no halving helps.
    tangle: list[Any] = [Box() for _ in range(60)]
    for box in tangle:
        box.others = tangle
    tangle[-1].conn = STUCK
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnose, "ATTEMPTS_MAX", 30)
        text = explain_unpicklable(tangle, dumps=counting(calls))
    assert text.startswith("somewhere in value")
    assert len(calls) < 200


def test_bytes_pickled_in_vain_are_bounded() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnose, "BYTES_MAX", 1000)
        text = explain_unpicklable([Box(data="x" * 5000), Box(data="y" * 5000), Box(conn=STUCK)])
    assert text.startswith(("somewhere in value", "value[2]"))


def test_a_path_that_is_too_long_is_cut() -> None:
    value: object = STUCK
    for _ in range(100):
        value = [value]
    text = explain_unpicklable(value)
    assert text == f"somewhere in value{'[0]' * diagnose.DEPTH_MAX}: never leaves home"


def test_a_value_that_is_nested_too_deeply_says_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert explain_unpicklable(value) == "somewhere in value: it is nested too deeply for pickle"
    while value:  # freeing it in one go would be as deep
        value = value[0]


def test_a_long_reason_is_cut() -> None:
    class Wordy:
        def __reduce__(self) -> Any:
            raise ValueError("x" * 10_000)

    assert len(explain_unpicklable(Wordy())) < 1_000


# No code of the user ----------------------------------------------------------------------------------------


def test_no_code_of_the_user_is_called_but_pickling_hooks() -> None:
    noisy = Noisy(STUCK)
    assert path_of([noisy]) == "value[0].value"
    assert path_of({"a": noisy}) == "value['a'].value"


def test_a_hook_that_fails_is_the_culprit_itself() -> None:
    class BadState:
        def __getstate__(self) -> Any:
            raise KeyError("missing")

    text = explain_unpicklable({"a": BadState()})
    assert text.startswith("value['a']: 'missing'; leave it out in a __getstate__")


# What to do -------------------------------------------------------------------------------------------------


def a_generator() -> Iterator[int]:
    yield 1


async def a_coroutine() -> None: ...


@contextlib.contextmanager
def opened(kind: str) -> Iterator[object]:
    """One thing of a well-known kind, closed afterwards."""
    with contextlib.ExitStack() as stack:
        match kind:
            case "socket":
                yield stack.enter_context(socket.socket())
            case "file":
                yield stack.enter_context(open(__file__))
            case "binary file":
                yield stack.enter_context(open(__file__, "rb"))
            case "connection":
                yield stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
            case "coroutine":
                yield stack.enter_context(contextlib.closing(a_coroutine()))
            case "loop":
                yield stack.enter_context(contextlib.closing(asyncio.new_event_loop()))
            case "executor":
                yield stack.enter_context(concurrent.futures.ThreadPoolExecutor())
            case _:
                yield {
                    "lock": threading.Lock,
                    "rlock": threading.RLock,
                    "event": threading.Event,
                    "condition": threading.Condition,
                    "thread": threading.Thread,
                    "queue": queue.Queue,
                    "local": threading.local,
                    "generator": a_generator,
                    "asyncio lock": asyncio.Lock,
                    "weakref": lambda: weakref.ref(STUCK),
                    "future": concurrent.futures.Future,
                }[kind]()


KINDS = {
    "lock": ("'_thread.lock'", "locks and threads belong to one process"),
    "rlock": ("'_thread.RLock'", "locks and threads belong to one process"),
    "event": ("'threading.Event'", "locks and threads belong to one process"),
    "condition": ("'threading.Condition'", "locks and threads belong to one process"),
    "thread": ("'threading.Thread'", "locks and threads belong to one process"),
    "queue": ("'queue.Queue'", "locks and threads belong to one process"),
    "local": ("'_thread._local'", "locks and threads belong to one process"),
    "socket": ("'socket.socket'", "a socket belongs to one process"),
    "binary file": ("'_io.BufferedReader'", "send its path and open it there"),
    "connection": ("'sqlite3.Connection'", "a connection belongs to one process"),
    "generator": ("'generator'", "send list(...) of it"),
    "coroutine": ("'coroutine'", "await it first"),
    "loop": ("'asyncio.unix_events._UnixSelectorEventLoop'", "belongs to one event loop"),
    "executor": ("'concurrent.futures.thread.ThreadPoolExecutor'", "a process or pool cannot be handed on"),
    "future": ("'concurrent.futures._base.Future'", "a process or pool cannot be handed on"),
    "weakref": ("'weakref.ReferenceType'", "send the object, or its key"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_well_known_types_come_with_advice(kind: str) -> None:
    name, advice = KINDS[kind]
    with opened(kind) as thing:
        text = explain_unpicklable({"config": Box(thing=thing)})
    assert text.startswith(f"value['config'].thing: cannot pickle {name} object; ")
    assert advice in text


def test_advice_does_not_end_a_sentence_that_a_caller_goes_on_with() -> None:
    assert not explain_unpicklable(threading.Lock()).endswith(".")


class LabConnection:
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this")


def test_a_name_that_sounds_like_a_connection_gets_its_advice() -> None:
    text = explain_unpicklable(LabConnection())
    assert text.startswith(f"value: cannot pickle '{__name__}.LabConnection' object; a connection belongs")


def test_a_type_that_nobody_knows_gets_general_advice() -> None:
    assert explain_unpicklable(STUCK).endswith(
        "; leave it out in a __getstate__ or __reduce__ of its owner, and make it again where it is used"
    )


# Any value --------------------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(Box, a=inner, b=inner)
        | st.builds(Slotted, inner)
        | st.builds(functools.partial, st.just(print), inner)
        | st.builds(closing_over, inner)
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_that_pickles_has_nothing_to_explain(value: object) -> None:
    assert explain_unpicklable(value) == ""


# A step into a container, and how its path reads.
STEPS: list[tuple[Callable[[object, object], object], str]] = [
    (lambda bad, other: [other, bad], "[1]"),
    (lambda bad, other: (bad, other), "[0]"),
    (lambda bad, other: {"k": bad, "o": other}, "['k']"),
    (lambda bad, other: Box(o=other, attr=bad), ".attr"),
    (lambda bad, other: Slotted(bad), ".conn"),
    (lambda bad, other: Point(1, bad), ".conn"),
    (lambda bad, other: collections.deque([other, bad]), "[1]"),
    (lambda bad, other: functools.partial(print, other, bad), ".args[1]"),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), values), max_size=8))
def test_a_culprit_is_found_wherever_it_is_put(steps: list[tuple[Any, object]]) -> None:
    value: object = STUCK
    path = ""
    for (wrap, step), other in steps:
        value, path = wrap(value, other), step + path
    assert path_of(value) == f"value{path}"
