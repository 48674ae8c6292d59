"""What a call has returned, while it waits until the state of its actor is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import SerializationError
from actorflow._core.serialization import values
from actorflow._core.serialization.values import INLINE_BYTES_MAX, Pickled

if TYPE_CHECKING:
    from actorflow._core.worker.incoming import Incoming


def copied(incoming: Incoming, value: Any) -> tuple[Any, bool]:
    """A copy that nobody changes, for `Host.deliver`, and whether it is large. What cannot travel stays as it is, and fails there."""
    returns = incoming.context.num_returns if incoming.context is not None else 1
    if returns == 0:
        return None, False
    name = f"the result of {incoming.running.name if incoming.running else incoming.name}"
    if returns == 1 or not isinstance(value, (tuple, list)):
        copy = _copy(value, name)
        return copy, _is_large(copy)
    parts = [_copy(part, name) for part in value]
    return parts, any(map(_is_large, parts))


def _copy(value: Any, name: str) -> Any:
    if type(value) in values.SIMPLE:
        return value
    try:
        pickled = values.dumps(value, name)
    except SerializationError:
        return value
    return values.owned_bytes(pickled)


def _is_large(copy: Any) -> bool:
    return copy.size() > INLINE_BYTES_MAX if type(copy) is Pickled else values.is_large(copy)
