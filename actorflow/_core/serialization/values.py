"""Values as bytes: pickle protocol 5, buffers out of band, and the references inside a value returned beside it.

References are pickled as positions in a table that travels next to the pickle. So the owner, the sender and the receiver see which
references a value holds without unpickling it, and ten thousand of them cost one table.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import cloudpickle

from actorflow._core.base.errors import DeserializationError, SerializationError
from actorflow._core.serialization.diagnose import explain_unpicklable
from actorflow._core.serialization.duals import describe, text_of
from actorflow._core.serialization.slots import SlotsPickler
from actorflow._core.serialization.tensors import reduce_tensor

INLINE_BYTES_MAX = 100 * 1024
"""Values up to this size travel inside messages; larger ones through shared memory (DESIGN, section 4)."""

SIMPLE = frozenset({int, float, bool, str, bytes, type(None)})
EMPTY_ARGUMENTS = b""
"""Stands for no arguments at all: the commonest call needs no pickle."""


def is_large(value: Any) -> bool:
    """True for text or bytes (of SIMPLE types) that may not fit into a message."""
    kind = type(value)
    return (kind is bytes or kind is str) and len(value) > INLINE_BYTES_MAX // 4


class Pickled(NamedTuple):
    """A value as bytes. `refs` are the references found inside it, in the order of their positions."""

    data: bytes
    buffers: list[bytes] | list[memoryview] | None
    refs: list[Any] | None

    def size(self) -> int:
        """Bytes of the pickle and of its buffers together."""
        return len(self.data) + (sum(map(len, self.buffers)) if self.buffers else 0)


class _ThreadState(threading.local):
    """What a (un)pickling in progress on this thread knows. None while there is none."""

    sink: dict[Any, int] | None = None
    table: Sequence[Any] = ()


_state = _ThreadState()


def note_reference(ref: Any, what: str) -> int:
    """Called by a reference that is being pickled: remember it and return its position in the table.

    Raises SerializationError outside an actorflow call, where nobody would keep the object alive.
    """
    sink = _state.sink
    if sink is None:
        raise SerializationError(
            f"{what} can only travel inside actorflow calls, results and af.put, where its owner learns of the copy; "
            "plain pickle cannot carry it: pass it as an argument instead"
        )
    return sink.setdefault(ref, len(sink))


def reference_at(position: int) -> Any:
    """The inverse of `note_reference`: a name in pickles, for which `loads` takes the table itself. Called by plain pickles inside."""
    return _state.table[position]


_reducers: dict[type, Callable[[Any], Any]] = {}
"""How values of libraries are pickled that pickle themselves badly; filled when the library is there."""


class _Pickler(SlotsPickler):
    dispatch_table: ClassVar[ChainMap[Any, Any]] = ChainMap(_reducers, cloudpickle.Pickler.dispatch_table)


class _TableUnpickler(pickle.Unpickler):
    """Takes references straight out of the table: for thousands of them a Python call each would cost more than all the rest."""

    def __init__(self, data: bytes | memoryview, buffers: Sequence[Any] | None, table: Sequence[Any]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers or ())
        self._table = table

    def find_class(self, module: str, name: str) -> Any:
        if name == "reference_at" and module == __name__:
            return self._table.__getitem__
        return super().find_class(module, name)


def dumps(value: Any, name: str = "value") -> Pickled:
    """Pickle `value`. Raises SerializationError that names the path to what cannot be pickled, seen from `name`."""
    if type(value) in SIMPLE:
        return Pickled(pickle.dumps(value, 5), None, None)
    return _dump(value, name)


def dumps_in_one(value: Any, name: str) -> Pickled:
    """As `dumps`, with no buffers beside the pickle: for what is kept as bytes."""
    return _dump(value, name, out_of_band=False)


def dumps_code(value: Any, name: str) -> bytes:
    """Pickle a function or a class with all that it refers to, in one piece. Raises SerializationError, also for references in it."""
    try:
        with io.BytesIO() as file:
            _pickler(file).dump(value)
            return file.getvalue()
    except SerializationError:
        raise
    except Exception as error:
        raise SerializationError(f"cannot send {_explain(value, name, error)}") from error


def _pickler(file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None) -> Any:
    if not _reducers and (torch := sys.modules.get("torch")) is not None and hasattr(torch, "Tensor"):
        _reducers[torch.Tensor] = reduce_tensor
    return _Pickler(file, protocol=5, buffer_callback=buffer_callback)


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pickled:
    """Pickle the arguments of a call as one `(args, kwargs)` pair; EMPTY_ARGUMENTS when there are none."""
    if not kwargs:
        if not args:
            return Pickled(EMPTY_ARGUMENTS, None, None)
        for argument in args:
            if type(argument) not in SIMPLE:
                break
        else:
            return Pickled(pickle.dumps((args, kwargs), 5), None, None)
    return _dump((args, kwargs), "arguments")


def _dump(value: Any, name: str, *, out_of_band: bool = True) -> Pickled:
    sink: dict[Any, int] = {}
    buffers: list[pickle.PickleBuffer] = []
    previous, _state.sink = _state.sink, sink
    try:
        with io.BytesIO() as file:
            _pickler(file, buffers.append if out_of_band else None).dump(value)
            data = file.getvalue()
        views = [buffer.raw() for buffer in buffers] if buffers else None
    except SerializationError:
        raise
    except Exception as error:
        # Any exception may come out of a user's __reduce__ or __getstate__; all of them mean the same to the caller.
        raise SerializationError(f"cannot send {_explain(value, name, error)}") from error
    finally:
        _state.sink = previous
    return Pickled(data, views, list(sink) if sink else None)


def _explain(value: Any, name: str, error: Exception) -> str:
    previous, _state.sink = _state.sink, {}
    try:
        if name == "arguments":
            args, kwargs = value
            for key, argument in [*enumerate(args), *kwargs.items()]:
                if (text := explain_unpicklable(argument, name=f"argument {key!r}", dumps=dumps_plain)):
                    return text
        return explain_unpicklable(value, name=name, dumps=dumps_plain) or f"{name}: {text_of(error)}"
    finally:
        _state.sink = previous


def loads(data: bytes | memoryview, buffers: Sequence[Any] | None = None, table: Sequence[Any] = ()) -> Any:
    """Unpickle. `table` holds the references by position. Raises DeserializationError with the cause."""
    try:
        if table:
            return _load_with_table(data, buffers, table)
        return pickle.loads(data, buffers=buffers) if buffers else pickle.loads(data)
    except Exception as error:
        # As in dumps: a user's __setstate__ or a missing module may raise anything.
        raise DeserializationError(
            f"cannot rebuild a value of {len(data)} bytes: {describe(error)}; {_advice(error)}"
        ) from error


def _advice(error: Exception) -> str:
    """What to do about a value that cannot be rebuilt."""
    by_name = isinstance(error, AttributeError) and str(error).startswith("Can't get attribute")
    if by_name and repr(sys.modules.get("__main__")) in str(error):
        # Pickled by name, so not by us: what travels of our own pickles from `__main__` brings its class along.
        return "it was pickled by name in the main program, which is another one here: move what defines it to a module of its own"
    if by_name or isinstance(error, ImportError):
        return "the module that defines it must be importable here, and be the same as there (see working_dir= and sys.path)"
    return "what rebuilds it raised that here: look at the __reduce__, __getstate__ and __setstate__ of its classes"


def _load_with_table(data: bytes | memoryview, buffers: Sequence[Any] | None, table: Sequence[Any]) -> Any:
    previous, _state.table = _state.table, table
    try:
        return _TableUnpickler(data, buffers, table).load()
    finally:
        _state.table = previous


def load_arguments(data: bytes, buffers: Sequence[Any] | None, table: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inverse of `dump_arguments`."""
    if data == EMPTY_ARGUMENTS:
        return (), {}
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = loads(data, buffers, table)
    return arguments


def owned_bytes(pickled: Pickled) -> Pickled:
    """The same value with private copies of its buffers: what the caller changes afterwards does not matter."""
    if pickled.buffers is None:
        return pickled
    return Pickled(pickled.data, [bytes(buffer) for buffer in pickled.buffers], pickled.refs)


Dumps = Callable[[Any], bytes]


def dumps_plain(value: Any) -> bytes:
    """Pickle without out-of-band parts and without references: exceptions, functions, classes."""
    with io.BytesIO() as file:
        SlotsPickler(file, protocol=5).dump(value)
        return file.getvalue()


def loads_plain(data: bytes) -> Any:
    """The inverse of `dumps_plain`."""
    return pickle.loads(data)
