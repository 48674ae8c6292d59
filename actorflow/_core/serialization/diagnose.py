"""Why a value cannot be pickled: the path to the part that is to blame, and what to do about it.

`cannot pickle '_thread.lock' object` is all that pickle says of a value of a thousand parts. Here the value
is taken apart the way pickle does it, and each part is tried: the culprit is a part that cannot be pickled
although all of its own parts can.
"""

from __future__ import annotations

import copyreg
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

import cloudpickle

from actorflow._core.serialization.duals import text_of

DEPTH_MAX = 64
"""Steps of a path. What lies deeper is reported as being somewhere inside."""
ATTEMPTS_MAX = 2_000
"""Parts (or runs of parts) that are tried.

The parts of a container are halved, so a million items cost forty.
"""
BYTES_MAX = 256 * 1024 * 1024
"""Bytes that are pickled in vain before the search ends where it is."""
PARTS_MAX = 1_000_000
"""Parts of one container that are looked at."""

_SIMPLE = frozenset({int, float, complex, bool, str, bytes, bytearray, type(None), type(Ellipsis)})

Dumps = Callable[[Any], bytes]


def explain_unpicklable(value: object, name: str = "value", dumps: Dumps = cloudpickle.dumps) -> str:
    """Say which part of `value` `dumps` cannot pickle, seen from `name`, why, and what to do; "" when it can.

    For example `value.config['hooks'][2].conn: cannot pickle 'socket.socket' object; a socket belongs to
    ...`. No code of the user is called but the pickling hooks (`__reduce__`, `__getstate__`), and those
    only as pickle calls them.
    """
    search = _Search(dumps)
    error = search.attempt(value)
    if error is None:
        return ""
    path = _Path("", name)
    found = search.find(value, path, error) or _Culprit(path, value, error, certain=False)
    return found.text()


# The path ---------------------------------------------------------------------------------------------------


class _Path(NamedTuple):
    """`lead`: words up to a function; `place`: the expression from there; `fresh`: `lead` ends with it."""

    lead: str
    place: str
    fresh: bool = False

    def text(self) -> str:
        if not self.lead:
            return self.place
        return self.lead if self.fresh else f"{self.lead}: {self.place}"

    def to(self, part: _Part) -> _Path:
        if part.place:
            return _Path(f"{self.text()}: {part.step}", part.place, True)
        return _Path(self.lead, self.place + part.step)


class _Part(NamedTuple):
    """A part of a value.

    `step` continues the path (`.x`, `[0]`), or, with a `place`, is a phrase after which a new path begins.
    """

    value: object
    step: str
    place: str = ""


class _Culprit(NamedTuple):
    path: _Path
    value: object
    error: Exception
    certain: bool = True

    def text(self) -> str:
        where = self.path.text() if self.certain else f"somewhere in {self.path.text()}"
        hint = known_hint(self.value) or _guessed_hint(self.value) if self.certain else ""
        return f"{where}: {self._why()}; {hint}" if hint else f"{where}: {self._why()}"

    def _why(self) -> str:
        if _too_deep(self.error):
            return "it is nested too deeply for pickle"
        said = text_of(self.error).strip().rstrip(".")
        if self.certain and (not said or (isinstance(self.error, TypeError) and "pickle" in said)):
            return f"cannot pickle {type_name(type(self.value))!r} object"
        return said if len(said) <= 500 else f"{said[:500]}..."


def _too_deep(error: Exception) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)


# The search -------------------------------------------------------------------------------------------------


class _Search:
    """One search, depth first. A part that was looked at once is not looked at again, so cycles end."""

    def __init__(self, dumps: Dumps) -> None:
        self._dumps = dumps
        self._attempts = 0
        self._bytes = 0
        self._seen: dict[int, object] = {}  # the objects are kept, so that no id is used twice

    def _spent(self) -> bool:
        return self._attempts >= ATTEMPTS_MAX or self._bytes >= BYTES_MAX

    def attempt(self, value: object) -> Exception | None:
        """The error of pickling `value`, or None."""
        self._attempts += 1
        try:
            self._bytes += len(self._dumps(value))
        except Exception as error:  # a pickling hook may raise anything
            return error.with_traceback(None)
        return None

    def find(self, value: object, path: _Path, error: Exception, depth: int = 0) -> _Culprit | None:
        """The culprit in `value`, which fails with `error`; None when all trails lead back to seen parts."""
        self._seen[id(value)] = value
        if known_hint(value):
            return _Culprit(path, value, error)
        if depth >= DEPTH_MAX or self._spent() or _too_deep(error):
            return _Culprit(path, value, error, certain=False)
        parts = [part for part in _parts_of(value) if type(part.value) not in _SIMPLE]
        fresh = [part for part in parts if id(part.value) not in self._seen]
        failed = False
        for part, why in self._failing(fresh):
            failed = True
            if id(part.value) in self._seen:
                continue
            if found := self.find(part.value, path.to(part), why, depth + 1):
                return found
        if self._spent():
            return _Culprit(path, value, error, certain=False)
        if failed or any(self.attempt(part.value) for part in parts if id(part.value) in self._seen):
            return None
        return _Culprit(path, value, error)

    def _failing(self, parts: list[_Part]) -> Iterator[tuple[_Part, Exception]]:
        """The parts that fail, in order, by halving."""
        if not parts or self._spent():
            return
        error = self.attempt(parts[0].value if len(parts) == 1 else [part.value for part in parts])
        if error is None:
            return
        if len(parts) == 1:
            yield parts[0], error
            return
        half = len(parts) // 2
        yield from self._failing(parts[:half])
        yield from self._failing(parts[half:])


# The parts --------------------------------------------------------------------------------------------------


def _parts_of(value: object) -> Iterator[_Part]:
    if isinstance(value, FunctionType):
        return _parts_of_function(value)
    if isinstance(value, MethodType):
        return iter([_Part(value.__self__, ".__self__"), _Part(value.__func__, ".__func__")])
    if isinstance(value, functools.partial):
        return _parts_of_partial(value)
    if isinstance(value, type):
        return _parts_of_class(value)
    if isinstance(value, staticmethod | classmethod):
        return iter([_Part(value.__func__, "")])
    if isinstance(value, property):
        return iter([_Part(value.fget, ""), _Part(value.fset, ""), _Part(value.fdel, "")])
    if type(value) in (list, tuple, set, frozenset, dict, deque):
        return _parts_of_container(value)
    return _parts_of_object(value)


def _parts_of_container(value: Any) -> Iterator[_Part]:
    if isinstance(value, dict):
        yield from _items(value.items())
    elif isinstance(value, set | frozenset):
        for element in value:
            yield _Part(element, f"{{{_key(element)}}}")
    else:
        yield from _elements(value)


def _elements(values: Iterable[object]) -> Iterator[_Part]:
    for at, element in zip(range(PARTS_MAX), values, strict=False):
        yield _Part(element, f"[{at}]")


def _items(items: Iterable[tuple[object, object]]) -> Iterator[_Part]:
    for _, (key, element) in zip(range(PARTS_MAX), items, strict=False):
        yield _Part(key, f" key {_key(key)}")
        yield _Part(element, f"[{_key(key)}]")


def _key(key: object) -> str:
    """`key` as one would write it; a key of the user's own class is not asked for its repr."""
    if type(key) in _SIMPLE:
        text = repr(key)
        return text if len(text) <= 60 else f"{text[:60]}..."
    return f"<{type_name(type(key))}>"


def _parts_of_function(function: FunctionType) -> Iterator[_Part]:
    code = function.__code__
    of = f"of {code.co_name} at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _Part(cell.cell_contents, f"closure variable {name!r} {of}", name)
        except ValueError:
            continue  # an empty cell
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield _Part(default, f"default of parameter {name!r} {of}", name)
    for name, default in (function.__kwdefaults__ or {}).items():
        yield _Part(default, f"default of parameter {name!r} {of}", name)
    for name in dict.fromkeys(_names_used(code)):
        if name in function.__globals__:
            yield _Part(function.__globals__[name], f"global variable {name!r} {of}", name)
    for name, value in vars(function).items():
        yield _Part(value, f".{name}")


def _names_used(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names_used(const)


def _parts_of_partial(value: functools.partial[Any]) -> Iterator[_Part]:
    yield _Part(value.func, ".func")
    for at, argument in enumerate(value.args):
        yield _Part(argument, f".args[{at}]")
    for name, argument in value.keywords.items():
        yield _Part(argument, f".keywords[{name!r}]")


def _parts_of_class(cls: type) -> Iterator[_Part]:
    for base in cls.__bases__:
        yield _Part(base, f"base class {base.__name__} of {cls.__name__}", base.__name__)
    for name, value in vars(cls).items():
        if name not in ("__dict__", "__weakref__"):
            yield _Part(value, f".{name}")


def _parts_of_object(value: object) -> Iterator[_Part]:
    """What pickle would ask the object for, named after attributes where that is what it is."""
    reduced = _reduce(value)
    if not isinstance(reduced, tuple) or len(reduced) < 2:
        return
    make, args, state, elements, items = (*reduced, None, None, None)[:5]
    yield from _parts_of_state(value, state)
    if isinstance(value, tuple):
        yield from _parts_of_named_tuple(value)
    elif isinstance(value, BaseException) and args is value.args:
        for at, argument in enumerate(args):
            yield _Part(argument, f".args[{at}]")
    elif isinstance(args, tuple):
        for at, argument in enumerate(args):
            if argument is type(value):
                yield _Part(argument, f"its class {argument.__name__}", argument.__name__)
            else:
                yield _Part(argument, f".__reduce__()[1][{at}]")
    if elements is not None:
        yield from _elements(elements)
    if items is not None:
        yield from _items(items)
    yield _Part(make, ".__reduce__()[0]")


def _reduce(value: object) -> object:
    """What the object's pickling hook gives; None when it refuses, for then the object is its own culprit."""
    try:
        if hook := copyreg.dispatch_table.get(type(value)):
            return hook(value)
        return value.__reduce_ex__(5)
    except Exception:
        return None


def _parts_of_state(value: object, state: object) -> Iterator[_Part]:
    kind = type(value)
    if kind in copyreg.dispatch_table or not _reduces_plainly(kind):
        yield from _parts_of_custom_state(value, state, ".__reduce__()[2]")
    elif getattr(kind, "__getstate__", None) is not object.__getstate__:
        yield from _parts_of_custom_state(value, state, ".__getstate__()")
    else:
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        for name, part in {**(attributes or {}), **(slots or {})}.items():
            yield _Part(part, f".{name}")


def _reduces_plainly(kind: type) -> bool:
    hooks: Any = (kind.__reduce__, kind.__reduce_ex__)
    return bool(hooks == (object.__reduce__, object.__reduce_ex__))


def _parts_of_custom_state(value: object, state: object, step: str) -> Iterator[_Part]:
    """What a pickling hook gave, reached by `step`. Parts that are attributes go by the names they have."""
    if not isinstance(state, dict):
        yield _Part(state, step)
        return
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    for name, part in state.items():
        mine = isinstance(name, str) and own.get(name) is part
        yield _Part(part, f".{name}" if mine else f"{step}[{_key(name)}]")


def _parts_of_named_tuple(value: tuple[object, ...]) -> Iterator[_Part]:
    fields = getattr(type(value), "_fields", ())
    for at, element in enumerate(value):
        name = f".{fields[at]}" if at < len(fields) else f"[{at}]"
        yield _Part(element, name)


# What to do -------------------------------------------------------------------------------------------------

_MAKE_IT = "make it where it is used, for one in the __init__ of the actor"
_HINTS: dict[str, str] = {
    "locks and threads belong to one process": """
        _thread.lock _thread.RLock threading.Condition threading.Semaphore threading.Event threading.Barrier
        threading.Thread threading.local _thread._local queue.Queue queue.SimpleQueue _queue.SimpleQueue""",
    "a socket belongs to one process": "socket.socket ssl.SSLSocket ssl.SSLContext select.epoll select.poll",
    "a process or pool cannot be handed on": """
        subprocess.Popen multiprocessing.process.BaseProcess multiprocessing.pool.Pool
        concurrent.futures._base.Executor concurrent.futures._base.Future""",
    "an asyncio object belongs to one event loop": """
        asyncio.events.AbstractEventLoop uvloop.Loop _asyncio.Future _asyncio.Task asyncio.locks.Lock
        asyncio.locks.Event asyncio.locks.Condition asyncio.locks.Semaphore asyncio.queues.Queue
        asyncio.streams.StreamReader asyncio.streams.StreamWriter asyncio.transports.BaseTransport
        asyncio.taskgroups.TaskGroup asyncio.events.Handle contextvars.Context _contextvars.Context
        contextvars.ContextVar _contextvars.ContextVar contextvars.Token _contextvars.Token""",
    "a connection belongs to one process": """
        sqlite3.Connection sqlite3.Cursor psycopg2.extensions.connection psycopg.Connection
        psycopg.AsyncConnection asyncpg.connection.Connection asyncpg.pool.Pool sqlalchemy.engine.base.Engine
        sqlalchemy.orm.session.Session redis.client.Redis redis.asyncio.client.Redis pymongo.MongoClient
        duckdb.DuckDBPyConnection _duckdb.DuckDBPyConnection aiohttp.client.ClientSession httpx.Client
        httpx.AsyncClient botocore.client.BaseClient grpc.Channel grpc.aio._channel.Channel""",
}
_SPECIAL_HINTS: dict[str, str] = {
    "_io._IOBase": "an open file belongs to one process: send its path and open it there",
    "generator": "a generator cannot leave its process: send list(...) of it, or the function that makes it",
    "async_generator": "a generator cannot leave its process: send the function that makes it",
    "coroutine": "a coroutine runs where it was made: await it first, or send the function and its arguments",
    "module": "a module is not a value: import it in the code that uses it",
    "frame": "a frame cannot leave its process: send the text of traceback.format_exc()",
    "traceback": "a traceback cannot leave its process: send the text of traceback.format_exc()",
    "weakref.ReferenceType": "a weak reference means nothing in another process: send the object, or its key",
    "mmap.mmap": "a mapping belongs to one process: send the path, or put the bytes in a bytes object",
    "memoryview": "a view has no memory of its own: send bytes(view)",
    "mappingproxy": "a read-only view has no data of its own: send dict(view)",
    "dict_keys": "a view has no data of its own: send list(view)",
    "dict_values": "a view has no data of its own: send list(view)",
    "dict_items": "a view has no data of its own: send list(view)",
}
_TABLE = _SPECIAL_HINTS | {
    name: f"{what}: {_MAKE_IT}" for what, names in _HINTS.items() for name in names.split()
}
_LOOKS_LIKE_CONNECTION = ("Connection", "Cursor", "Client", "Session", "Engine", "Channel", "Pool")


def type_name(cls: type) -> str:
    """`socket.socket`, `Basket` in a script, `lock` for what Python itself made."""
    module, name = cls.__module__, cls.__qualname__
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def known_hint(value: object) -> str:
    """What to do instead of pickling `value`, when its type says more than its parts would; else ""."""
    for base in type(value).__mro__:
        if hint := _TABLE.get(type_name(base)):
            return hint
    return ""


def _guessed_hint(value: object) -> str:
    name = type_name(type(value))
    if isinstance(value, FunctionType):
        return "define it at the top level of a module that can be imported"
    if name.startswith("torch."):
        return f"things of one GPU stay there: send CPU tensors or a state_dict, and {_MAKE_IT}"
    if name.endswith(_LOOKS_LIKE_CONNECTION):
        return f"a connection belongs to one process: {_MAKE_IT}"
    return "leave it out in a __getstate__ or __reduce__ of its owner, and make it again where it is used"
