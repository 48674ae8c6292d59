"""`af.context`: what a program declares about the calls it makes, and what travels with them (SEMANTICS 8).

Contextvars stay in their process, since nobody can know which of them mean anything in another one. What is
declared here goes with every call, and on through the calls that those make.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from types import MappingProxyType, TracebackType
from typing import overload

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.worker.context import CAPTURED, declared

BYTES_MAX = 8192
"""Keys and values of all enclosing blocks together, in UTF-8: they travel with every single call."""
SHOWN_CHARS_MAX = 40
_NOTHING: Mapping[str, str] = MappingProxyType({})


class ContextBlock:
    """One `with af.context(...)`. May be entered again when it has been left."""

    __slots__ = ("_token", "_values")

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values
        self._token: Token[dict[str, str] | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            raise RuntimeError(
                "this af.context(...) block is entered already: write af.context(...) anew for each `with`"
            )
        values = {**(declared.get() or {}), **self._values}
        _check_size(values)
        self._token = declared.set(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            declared.reset(token)


class DeclaredContext:
    """`with af.context(tenant="a"):` declares keys for all calls that are made inside, near and far.

    They travel with tasks, actor calls, streams and the construction of actors, and on through calls made by
    those. Blocks nest, the inner one wins. In the code that was called `af.context.get("tenant")` and
    `af.context.current()` read them. `traceparent` and `tracestate` are the W3C trace context.
    """

    __slots__ = ()

    def __call__(self, /, **values: str) -> ContextBlock:
        """Return the block. Raises OptionTypeError for a value that is no text; entering it, OptionError for
        more than 8 KiB in all.
        """
        return ContextBlock({_text(key, key): _text(key, value) for key, value in values.items()})

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: str) -> str: ...
    def get(self, key: str, default: str | None = None) -> str | None:
        """Return what is declared for `key`, else `default`."""
        values = declared.get()
        return default if values is None else values.get(key, default)

    def current(self) -> Mapping[str, str]:
        """Return all that is declared here, as a mapping that cannot be changed."""
        values = declared.get()
        if values is None:
            return _NOTHING
        # Not declared by anybody, but for the sake of placement groups.
        return MappingProxyType({key: value for key, value in values.items() if key != CAPTURED} if CAPTURED in values else values)

    def __repr__(self) -> str:
        return f"<af.context {dict(self.current())!r}>"


def _text(key: str, value: object) -> str:
    """Check one value, and make plain text of what is derived from it."""
    if not isinstance(value, str):
        raise OptionTypeError.explain(
            which=f"af.context: {key}={_shown(value)}",
            what=f"is of the type {type(value).__name__}, and only text travels",
            next_step=f"make text of it, as in af.context({key}=str(...)), or pass it as an argument of the call",
            option=key,
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise OptionError.explain(
            which=f"af.context: {key}={_shown(value)}",
            what="is no valid text",
            why=f"the character at {error.start} is half of a pair and has no form in UTF-8",
            next_step="decode the bytes it came from with the right encoding",
            option=key,
        ) from None
    return str.__str__(value)


def _check_size(values: dict[str, str]) -> None:
    sizes = {key: len(key.encode()) + len(value.encode()) for key, value in values.items()}
    total = sum(sizes.values())
    if total > BYTES_MAX:
        largest = max(sizes, key=sizes.__getitem__)
        raise OptionError.explain(
            which="af.context",
            what=f"holds {total} bytes with the blocks around it, at most {BYTES_MAX}",
            why=f"it travels with every call; {_shown(largest)} alone has {sizes[largest]}",
            next_step="declare a key that names the data, and pass the data itself by af.put",
            option=largest,
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 3]}..."


context = DeclaredContext()
