"""Exceptions taken apart and put together: also as one of two types, the user's and TaskError (SEMANTICS 10).

The state of an exception is its args, attributes and slots; none of it is read or set by code of the user,
except where the user's class has pickling hooks of its own. The dual class of a type is made once.
"""

from __future__ import annotations

import copyreg
import functools
import types
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, MemberDescriptorType
from typing import Any, SupportsIndex, TypeGuard

from actorflow._core.base.errors import TREE, Origin, TaskError, Told, origin_of, traceback_text
from actorflow._core.serialization.frames import FrameRecord, clean, frames_of, make_traceback

NEVER_DUAL = (CancelledError, StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt, SystemExit)
"""They mean something to the interpreter or the loop, and would mean it on the wrong side (SEMANTICS 10)."""
TEXT_CHARS_MAX = 16_384
"""The message as text is cut here; the exception's own arguments are not."""
NOTE_START = "Raised remotely, in "
"""How our one note begins, so that the next hop replaces it instead of adding another."""

# The state of an exception ----------------------------------------------------------------------------------

State = tuple[str | type[BaseException], tuple[Any, ...], dict[str, Any], dict[str, Any]]
"""(type, or its name in our own tree; args; attributes; slots): all that an exception is by itself."""
Parts = State | tuple[BaseException]
"""What is pickled: the state, or the exception as it is when its class has pickling hooks of its own."""


def is_parts(value: object) -> TypeGuard[Parts]:
    if not isinstance(value, tuple):
        return False
    return len(value) == 4 or (len(value) == 1 and isinstance(value[0], BaseException))


def take_apart(exc: BaseException) -> Parts:
    """What to pickle of `exc`: nothing of ours, and never a dual class."""
    state = _state(exc)
    if _has_pickling_hooks(user_type(type(exc))):
        return (_build(_type_of(state), state, members_of(exc)),)
    return state


def put_together(parts: Parts, members: Sequence[BaseException], *, dual: bool) -> BaseException:
    """The reverse. With `dual` the exception is an instance of TaskError too, where its type allows it."""
    if len(parts) == 1:
        if not dual:
            return parts[0]
        members = members or members_of(parts[0])
        parts = _state(parts[0])
    kind = _group_type(_type_of(parts), members)
    found = dual_type(kind) if dual else ""
    return _build(kind if isinstance(found, str) else found, parts, members)


def _state(exc: BaseException) -> State:
    cls = user_type(type(exc))
    if isinstance(exc, BaseExceptionGroup):
        args = (vars(BaseExceptionGroup)["message"].__get__(exc, cls),)
    else:
        args = get_plainly(exc, "args")
    attributes = {k: v for k, v in attributes_of(exc).items() if k not in ("__actorflow__", "__notes__")}
    name = cls.__name__
    return (name if TREE.get(name) is cls else cls, args, attributes, _slots(exc, cls))


def _type_of(state: State) -> type[BaseException]:
    return TREE[state[0]] if isinstance(state[0], str) else state[0]


def _build(kind: type[BaseException], state: State, members: Sequence[BaseException]) -> BaseException:
    """An instance of `kind` by the interpreter's own constructor, as the user's would want its arguments."""
    _, args, attributes, slots = state
    new = _native_new(kind)
    exc: BaseException
    if issubclass(kind, BaseExceptionGroup):
        exc = new(kind, args[0], members)
    else:
        exc = new(kind)
        set_plainly(exc, "args", args)
    for cls in kind.__mro__:
        for name in slots.keys() & vars(cls).keys():
            if isinstance(descriptor := vars(cls)[name], MemberDescriptorType):
                descriptor.__set__(exc, slots[name])
    attributes_of(exc).update(attributes)
    return exc


def _native_new(kind: type) -> Callable[..., Any]:
    """The nearest `__new__` that is not written in Python."""
    cls: type = kind
    while not isinstance(new := vars(cls).get("__new__"), BuiltinFunctionType):
        cls = cls.__base__ or BaseException
    return new


def _slots(exc: BaseException, cls: type) -> dict[str, Any]:
    """Values outside `__dict__`: the user's `__slots__`; `errno`, `filename`... of builtin exceptions."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        builtin = base.__module__ == "builtins"
        for name, descriptor in vars(base).items():
            if not isinstance(descriptor, MemberDescriptorType) or name in found or name.startswith("__"):
                continue
            if builtin and name in _NOT_STATE:
                continue
            try:
                value = descriptor.__get__(exc, cls)
            except AttributeError:
                continue  # an empty slot
            if value is not None or not builtin:
                found[name] = value
    return found


_NOT_STATE = ("exceptions", "message", "obj")
"""The members of a group travel one by one; the object that an AttributeError is about does not travel."""


def _has_pickling_hooks(cls: type) -> bool:
    """True when the author of `cls` says how to pickle it; what Python and our own tree do does not count."""
    if cls in copyreg.dispatch_table:
        return True
    for hook in ("__reduce_ex__", "__reduce__", "__setstate__"):
        owner = next(base for base in cls.__mro__ if hook in vars(base))
        if owner.__module__ != "builtins" and TREE.get(owner.__name__) is not owner:
            return True
    return False


def members_of(exc: BaseException) -> Sequence[BaseException]:
    if not isinstance(exc, BaseExceptionGroup):
        return ()
    members: Sequence[BaseException] = vars(BaseExceptionGroup)["exceptions"].__get__(exc, type(exc))
    return members


def _group_type(cls: type[BaseException], members: Sequence[BaseException]) -> type[BaseException]:
    """A BaseExceptionGroup whose members all became Exceptions is an ExceptionGroup, as in Python itself."""
    if cls is BaseExceptionGroup and all(isinstance(member, Exception) for member in members):
        return ExceptionGroup
    return cls


# These go round the class of the exception, which may forbid setting attributes (a frozen dataclass).


def attributes_of(exc: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = object.__getattribute__(exc, "__dict__")
    return found


def get_plainly(exc: BaseException, name: str) -> Any:
    return vars(BaseException)[name].__get__(exc, type(exc))


def set_plainly(exc: BaseException, name: str, value: object) -> None:
    vars(BaseException)[name].__set__(exc, value)


def add_notes(exc: BaseException, notes: list[str]) -> None:
    if notes:
        attributes = attributes_of(exc)
        attributes["__notes__"] = [*attributes.get("__notes__", ()), *notes]


# The dual class ---------------------------------------------------------------------------------------------


class RemoteError(TaskError):
    """The TaskError side of a dual exception."""

    cause = Told(lambda error, _: _plain_copy(error), TaskError.cause.__doc__ or "")


_user_types: weakref.WeakKeyDictionary[type, type[BaseException]] = weakref.WeakKeyDictionary()
"""Dual class -> the user's type."""


def user_type(cls: type[BaseException]) -> type[BaseException]:
    return _user_types.get(cls, cls)


def dual_type(cls: type[BaseException]) -> type[BaseException] | str:
    """The class that is `cls` and TaskError at once, or in words why there is none.

    It goes by the name of `cls`, so that a traceback ends in `ValueError: ...`. The user's type comes
    first: its `__str__` and its attributes win over ours. The cache is bounded, as a notebook makes new
    types with each run of a cell.
    """
    if issubclass(cls, NEVER_DUAL):
        return f"{cls.__name__} is never raised on the side that awaits"
    if issubclass(cls, TaskError):
        return cls
    any_type: type = cls
    return _make_dual_type(any_type)


@functools.lru_cache(maxsize=256)
def _make_dual_type(cls: type[BaseException]) -> type[BaseException] | str:
    bases = (RemoteError,) if issubclass(RemoteError, cls) else (cls, RemoteError)
    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduce_dual,
    }
    try:
        dual = types.new_class(cls.__name__, bases, exec_body=lambda namespace: namespace.update(body))
    except Exception as error:
        return f"Python refuses a subclass of {cls.__name__} ({describe(error)})"
    if not (issubclass(dual, cls) and issubclass(dual, TaskError)):
        return f"the metaclass of {cls.__name__} made something else"
    _user_types[dual] = cls
    return dual


def _reduce_dual(exc: BaseException, protocol: SupportsIndex) -> tuple[Any, ...]:
    """Pickle a dual exception that is part of a value. It will be dual again, with its frames."""
    origin = origin_of(exc) or Origin()
    text = traceback_text(exc, origin)
    frames = list(frames_of(origin.traceback))
    return _revive, (take_apart(exc), members_of(exc), Origin(origin.hops, None, text), frames, notes_of(exc))


def _revive(
    parts: Parts,
    members: Sequence[BaseException],
    origin: Origin,
    frames: list[FrameRecord],
    notes: list[str],
) -> BaseException:
    exc = put_together(parts, members, dual=True)
    tb = make_traceback(frames)
    mark(exc, Origin(origin.hops, tb, origin.text))
    add_notes(exc, notes)
    return BaseException.with_traceback(exc, tb)


def _plain_copy(error: TaskError) -> BaseException:
    """`error` in the type it was raised with: a new object each time, as keeping it would make a cycle."""
    exc = put_together(take_apart(error), members_of(error), dual=False)
    for name in ("__cause__", "__context__", "__suppress_context__"):
        set_plainly(exc, name, get_plainly(error, name))
    add_notes(exc, notes_of(error))
    origin = origin_of(error)
    return BaseException.with_traceback(exc, origin.traceback if origin else None)


def mark(exc: BaseException, origin: Origin) -> None:
    attributes = attributes_of(exc)
    attributes["__actorflow__"] = origin
    if not isinstance(exc, TaskError):
        reason = dual_type(type(exc))
        hops = ", then in ".join(hop.describe() for hop in origin.hops)
        add_notes(exc, [f"{NOTE_START}{hops}. It is not an instance of actorflow.TaskError: {reason}."])


# Text -------------------------------------------------------------------------------------------------------


def text_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as error:
        return f"<its __str__ raised {type(error).__name__}>"
    if len(text) > TEXT_CHARS_MAX:
        text = f"{text[:TEXT_CHARS_MAX]}... ({len(text)} characters)"
    return clean(text)


def describe(error: BaseException) -> str:
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def notes_of(exc: BaseException) -> list[str]:
    """The user's notes, without ours."""
    notes = attributes_of(exc).get("__notes__", ())
    if not isinstance(notes, list | tuple):
        return []
    return [clean(note) for note in notes if isinstance(note, str) and not note.startswith(NOTE_START)]
