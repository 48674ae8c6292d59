"""Looking into a run without touching the product: methods of its classes are wrapped while a run lasts, and told to whoever looks.

WT-1  a run that is watched is the run that it would have been: who looks changes nothing and draws nothing
WT-2  after the block every class is as it was before
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

Tell = Callable[[Any, tuple[Any, ...], Any], None]
"""Hears of each call that returns: the object, the arguments, the result."""


@contextmanager
def watched(owner: type, method: str, tell: Tell) -> Iterator[None]:
    """Within this block `tell` hears of each call of the method."""
    original = owner.__dict__[method]
    assert not isinstance(original, staticmethod | classmethod | property), f"{owner.__name__}.{method} is not a plain method"

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell(self, args, result)
        return result

    setattr(owner, method, wrapper)
    try:
        yield
    finally:
        setattr(owner, method, original)


@contextmanager
def watching(many: Iterable[tuple[type, str, Tell]]) -> Iterator[None]:
    """All of them."""
    with ExitStack() as stack:
        for owner, method, tell in many:
            stack.enter_context(watched(owner, method, tell))
        yield
