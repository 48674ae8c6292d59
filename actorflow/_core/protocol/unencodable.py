"""Messages that cannot be encoded: which part of one is to blame, and what is left of it when its text is made fit. Off the fast path."""

from __future__ import annotations

from typing import Any

import msgspec

from actorflow._core.base.errors import ProtocolError
from actorflow._core.base.texts import made_fit
from actorflow._core.protocol.codec import encode
from actorflow._core.protocol.messages import AnyMessage

SHOWN_CHARS_MAX = 80
"""So much of a value is shown."""

_encode = msgspec.msgpack.Encoder().encode


def can_travel(value: Any) -> bool:
    """True for what the codec takes."""
    try:
        _encode(value)
    except Exception:  # Whatever it is: who asks goes on to say which part it is.
        return False
    return True


def fits(message: AnyMessage) -> bool:
    """True for a message that can be sent."""
    try:
        encode([message])
    except Exception:  # The error is told of the message as it was.
        return False
    return True


def blame(message: AnyMessage, error: Exception) -> str:
    """In words that follow "it cannot be sent: ": the part that is to blame, why, and what to do."""
    if isinstance(error, ProtocolError):
        return str(error)  # Too large as a whole: it says what to do.
    path, value = _culprit(message, "")
    shown = ascii(value)
    if len(shown) > SHOWN_CHARS_MAX:
        shown = f"{shown[:SHOWN_CHARS_MAX]}..."
    if isinstance(value, int):
        why, next_step = "is a number of more than 64 bits", f"Give a number of at most {2**63 - 1}"
    elif isinstance(value, str):
        why, next_step = "is no text that UTF-8 can carry", "Give text without lone surrogates (a file name of undecodable bytes has them)"
    else:
        why, next_step = f"cannot be encoded ({type(error).__name__}: {error})", "Give another value"
    return f"{path or 'it'}={shown} {why}. {next_step}"


def _culprit(value: Any, path: str) -> tuple[str, Any]:
    """The innermost part that cannot be encoded, and the way to it."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            part = getattr(value, name)
            if not can_travel(part):
                return _culprit(part, f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for key, part in value.items():
            if not can_travel(key):
                return f"a name in {path}", key
            if not can_travel(part):
                return _culprit(part, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for position, part in enumerate(value):
            if not can_travel(part):
                return _culprit(part, f"{path}[{position}]")
    return path, value


def text_made_fit(value: Any) -> Any:
    """`value` with its lone surrogates written out, in all of its parts; a new one where anything had to change."""
    if isinstance(value, str):
        return made_fit(value)
    if isinstance(value, msgspec.Struct):
        return type(value)(*[text_made_fit(getattr(value, name)) for name in value.__struct_fields__])
    if isinstance(value, dict):
        return {text_made_fit(key): text_made_fit(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([text_made_fit(part) for part in value])
    return value
