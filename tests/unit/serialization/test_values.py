"""Values as bytes: the fast path, buffers beside the pickle, references in a table, and errors that say where."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._core.base.errors import DeserializationError, SerializationError
from actorflow._core.serialization import values
from actorflow._core.serialization.values import (
    EMPTY_ARGUMENTS,
    INLINE_BYTES_MAX,
    Pickled,
    dump_arguments,
    dumps,
    load_arguments,
    loads,
    note_reference,
    owned_bytes,
    reference_at,
)


class Ref:
    """A reference as values.py sees it: pickled as its position in a table."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return reference_at, (note_reference(self, f"Ref({self.name})"),)


class Hooked:
    """Calls a function while it is pickled, and travels as what that function returns."""

    def __init__(self, hook: Callable[[], object]) -> None:
        self.hook = hook

    def __reduce__(self) -> tuple[Any, ...]:
        return identity, (self.hook(),)


class Rebuilt:
    """Calls the function it is given while it is unpickled."""

    def __init__(self, hook: Callable[[], object]) -> None:
        self.hook = hook

    def __reduce__(self) -> tuple[Any, ...]:
        return call, (self.hook,)


class Envelope:
    """Keeps its content as a pickle of its own."""

    def __init__(self, content: object) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (pickle.dumps(self.content),)


class Opener:
    """Opens another value of ours while it is unpickled."""

    def __init__(self, pickled: Pickled) -> None:
        self.data = pickled.data
        TABLES[pickled.data] = pickled.refs or []

    def __reduce__(self) -> tuple[Any, ...]:
        return open_nested, (self.data,)


TABLES: dict[bytes, list[Any]] = {}
MEETINGS: dict[str, threading.Barrier] = {}


def open_nested(data: bytes) -> object:
    return loads(data, None, TABLES[data])


def meet(where: str) -> object:
    return MEETINGS[where].wait() >= 0


class Mute(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def identity(value: object) -> object:
    return value


def call(function: Callable[[], object]) -> object:
    return function()


def fail() -> object:
    raise ZeroDivisionError("by the hook")


def fail_mutely() -> object:
    raise Mute


def there_and_back(value: object) -> Any:
    pickled = dumps(value)
    return loads(pickled.data, pickled.buffers, pickled.refs or ())


def outside() -> bool:
    """True when no (un)pickling of ours is in progress on this thread."""
    return values._state.sink is None and values._state.table == ()


# Simple values ----------------------------------------------------------------------------------------------

SIMPLE_VALUES = [0, -(2**70), 1.5, True, None, "text", "\ud800", b"bytes", "", b""]


@pytest.mark.parametrize("value", SIMPLE_VALUES, ids=repr)
def test_simple_values_are_a_plain_pickle(value: object) -> None:
    assert dumps(value) == Pickled(pickle.dumps(value, 5), None, None)
    assert there_and_back(value) == value
    assert type(there_and_back(value)) is type(value)


@pytest.mark.parametrize("value", SIMPLE_VALUES, ids=repr)
def test_simple_arguments_are_a_plain_pickle(value: object) -> None:
    pickled = dump_arguments((value, value), {})
    assert pickled == Pickled(pickle.dumps(((value, value), {}), 5), None, None)
    assert load_arguments(pickled.data, None, ()) == ((value, value), {})


def test_no_arguments_are_no_bytes() -> None:
    assert dump_arguments((), {}) == Pickled(EMPTY_ARGUMENTS, None, None)
    assert load_arguments(EMPTY_ARGUMENTS, None, ()) == ((), {})
    assert load_arguments(memoryview(b""), None, ()) == ((), {})  # type: ignore[arg-type]  # from shared memory


def test_a_subclass_of_a_simple_type_stays_what_it_is() -> None:
    class Metres(float):
        pass

    assert type(there_and_back(Metres(2.0))).__name__ == "Metres"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(value=VALUES)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    assert there_and_back(value) == value


@given(args=st.lists(VALUES, max_size=3), kwargs=st.dictionaries(st.text(), VALUES, max_size=2))
def test_arguments_come_back_as_they_were(args: list[object], kwargs: dict[str, object]) -> None:
    pickled = dump_arguments(tuple(args), kwargs)
    assert load_arguments(pickled.data, pickled.buffers, ()) == (tuple(args), kwargs)


def test_functions_travel_by_value() -> None:
    offset = 3
    assert there_and_back(lambda x: x + offset)(4) == 7


# Buffers ----------------------------------------------------------------------------------------------------


def test_an_array_travels_beside_its_pickle() -> None:
    array = np.arange(1_000, dtype=np.float64)
    pickled = dumps({"a": array, "b": array[:10]})
    assert pickled.buffers is not None
    assert [len(buffer) for buffer in pickled.buffers] == [8_000, 80]
    assert len(pickled.data) < 1_000
    assert pickled.size() == len(pickled.data) + 8_080


def test_semantics_14_what_arrives_is_read_only() -> None:
    pickled = owned_bytes(dumps([np.arange(10)]))
    [array] = loads(pickled.data, pickled.buffers)
    assert array.tolist() == list(range(10))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_semantics_14_each_opening_is_fresh_and_only_buffers_are_shared() -> None:
    pickled = owned_bytes(dumps([np.arange(10), [1]]))
    (first, inner), (second, other) = (loads(pickled.data, pickled.buffers) for _ in range(2))
    assert first is not second
    assert np.shares_memory(first, second)
    inner.append(2)
    assert other == [1]


def test_owned_bytes_do_not_follow_what_the_sender_changes() -> None:
    array = np.zeros(4)
    views = dumps(array)
    owned = owned_bytes(views)
    array[:] = 1.0
    assert loads(views.data, views.buffers).tolist() == [1.0] * 4
    assert loads(owned.data, owned.buffers).tolist() == [0.0] * 4


def test_owned_bytes_of_a_value_without_buffers_are_the_value() -> None:
    pickled = dumps([1])
    assert owned_bytes(pickled) is pickled


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.arange(12).reshape(3, 4).T, np.arange(12)[::2], np.array(["a", None], dtype=object)],
    ids=["empty", "transposed", "every second", "objects"],
)
def test_arrays_of_every_kind_come_back(array: np.ndarray[Any, Any]) -> None:
    pickled = owned_bytes(dumps(array))
    back = loads(pickled.data, pickled.buffers)
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


def test_the_inline_bound_is_that_of_the_design() -> None:
    assert INLINE_BYTES_MAX == 100 * 1024


# References -------------------------------------------------------------------------------------------------


def test_references_travel_as_positions_in_a_table() -> None:
    a, b = Ref("a"), Ref("b")
    pickled = dumps([b, {"x": a}, b])
    assert pickled.refs == [b, a]
    there = [Ref("their b"), Ref("their a")]
    first, inner, again = loads(pickled.data, pickled.buffers, there)
    assert (first, inner["x"], again) == (there[0], there[1], there[0])


def test_ten_thousand_references_are_one_table() -> None:
    """SEMANTICS 13."""
    refs = [Ref(str(number)) for number in range(10_000)]
    pickled = dumps(refs)
    assert pickled.refs == refs
    assert there_and_back(refs) == refs


def test_references_in_arguments() -> None:
    ref = Ref("a")
    pickled = dump_arguments((1, [ref]), {"key": ref})
    assert pickled.refs == [ref]
    assert load_arguments(pickled.data, None, pickled.refs) == ((1, [ref]), {"key": ref})


def test_a_value_without_references_has_no_table() -> None:
    assert dumps([1]).refs is None


def test_a_reference_does_not_travel_by_plain_pickle() -> None:
    with pytest.raises(SerializationError, match=r"Ref\(a\) can only travel inside actorflow calls, results and af\.put"):
        pickle.dumps(Ref("a"))


# Pickling inside of pickling --------------------------------------------------------------------------------


def test_a_value_pickled_by_a_hook_has_a_table_of_its_own() -> None:
    outer, inner, after = Ref("outer"), Ref("inner"), Ref("after")
    nested: list[Pickled] = []

    def hook() -> bool:
        nested.append(dumps([inner]))
        return True

    pickled = dumps([outer, Hooked(hook), after])
    assert nested[0].refs == [inner]
    assert pickled.refs == [outer, after]
    assert outside()


def test_plain_pickles_inside_of_a_value_use_the_table_around_them() -> None:
    before, inner = Ref("before"), Ref("inner")
    pickled = dumps([before, Envelope([inner]), before])
    assert pickled.refs == [before, inner]
    table = [Ref("their before"), Ref("their inner")]
    assert loads(pickled.data, None, table) == [table[0], [table[1]], table[0]]


def test_a_value_opened_by_a_hook_has_a_table_of_its_own() -> None:
    inner, outer = Ref("inner"), Ref("outer")
    pickled = dumps([outer, Opener(dumps([inner])), outer])
    assert loads(pickled.data, None, [outer]) == [outer, [inner], outer]
    assert outside()


def test_a_failed_attempt_inside_of_a_hook_leaves_no_reference_behind() -> None:
    lost, kept = Ref("lost"), Ref("kept")

    def hook() -> str:
        with pytest.raises(SerializationError):
            dumps([lost, Hooked(fail)])
        return "went on"

    pickled = dumps([Hooked(hook), kept])
    assert pickled.refs == [kept]


@pytest.mark.parametrize("value", [[Ref("a"), Hooked(fail)], Hooked(fail_mutely), threading.Lock()], ids=["hook", "mute", "lock"])
def test_a_failure_restores_the_context(value: object) -> None:
    with pytest.raises(SerializationError):
        dumps(value)
    assert outside()
    with pytest.raises(DeserializationError):
        loads(b"nonsense", None, [1])
    assert outside()


def test_threads_do_not_see_the_tables_of_one_another() -> None:
    """Both are in the middle of pickling, then in the middle of unpickling, at the same time."""
    MEETINGS["pickling"] = MEETINGS["unpickling"] = threading.Barrier(2, timeout=30)

    def work(name: str) -> list[str]:
        ref = Ref(name)
        pickled = dumps([ref, Hooked(partial(meet, "pickling")), Rebuilt(partial(meet, "unpickling")), ref])
        first, _, _, last = loads(pickled.data, None, [ref])
        return [*(found.name for found in pickled.refs or ()), first.name, last.name]

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, ["a", "b"])) == [["a", "a", "a"], ["b", "b", "b"]]


# Errors -----------------------------------------------------------------------------------------------------


def test_an_error_names_the_path_to_what_cannot_be_sent() -> None:
    with pytest.raises(SerializationError, match=r"^cannot send value\['hooks'\]\[1\]: cannot pickle '_thread.lock' object"):
        dumps({"hooks": [1, threading.Lock()]})


def test_an_error_names_the_value_as_the_caller_calls_it() -> None:
    with pytest.raises(SerializationError, match=r"^cannot send the result of f\[0\]: "):
        dumps([threading.Lock()], "the result of f")


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((1, threading.Lock()), {}, r"argument 1: "),
        (([threading.Lock()],), {}, r"argument 0\[0\]: "),
        ((1,), {"hooks": {"x": threading.Lock()}}, r"argument 'hooks'\['x'\]: "),
    ],
)
def test_an_error_names_the_argument(args: tuple[object, ...], kwargs: dict[str, object], path: str) -> None:
    with pytest.raises(SerializationError, match=rf"^cannot send {path}cannot pickle '_thread.lock' object"):
        dump_arguments(args, kwargs)


def test_an_error_of_a_hook_is_its_cause() -> None:
    with pytest.raises(SerializationError, match=r"value\[0\]: by the hook") as caught:
        dumps([Hooked(fail)])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_without_words_is_reported_all_the_same() -> None:
    with pytest.raises(SerializationError, match=r"value\[0\]: <its __str__ raised RuntimeError>"):
        dumps([Hooked(fail_mutely)])


def test_references_around_the_culprit_do_not_hide_it() -> None:
    with pytest.raises(SerializationError, match=r"argument 1: cannot pickle '_thread.lock' object"):
        dump_arguments((Ref("a"), threading.Lock()), {})


def test_a_value_that_is_too_deep_says_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="nested too deeply"):
        dumps(value)
    while value:
        value = value.pop()  # taken down by hand: its destruction would go as deep


def test_an_error_while_rebuilding_says_what_and_why() -> None:
    data = dumps(Rebuilt(fail)).data
    with pytest.raises(DeserializationError, match=rf"a value of {len(data)} bytes: ZeroDivisionError: by the hook") as caught:
        loads(data)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_without_words_while_rebuilding() -> None:
    with pytest.raises(DeserializationError, match="Mute"):
        loads(dumps(Rebuilt(fail_mutely)).data)


def test_a_module_that_is_missing_here_is_named() -> None:
    with pytest.raises(DeserializationError, match="No module named 'no_such_module'.*must be importable here"):
        loads(b"cno_such_module\nThing\n.")


@pytest.mark.parametrize("data", [b"", b"\x80", b"nonsense", b"\x80\x05K"])
def test_bytes_that_are_no_pickle(data: bytes) -> None:
    with pytest.raises(DeserializationError, match=f"a value of {len(data)} bytes"):
        loads(data)


def test_a_reference_outside_of_the_table_is_an_error() -> None:
    pickled = dumps([Ref("a")])
    with pytest.raises(DeserializationError, match="IndexError"):
        loads(pickled.data)


def test_a_buffer_that_is_missing_is_an_error() -> None:
    with pytest.raises(DeserializationError, match="buffer"):
        loads(dumps(np.arange(10)).data)


@pytest.mark.parametrize("leave", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_an_error_of_the_value(leave: type[BaseException]) -> None:
    def hook() -> object:
        raise leave

    with pytest.raises(leave):
        dumps(Hooked(hook))
    assert outside()
