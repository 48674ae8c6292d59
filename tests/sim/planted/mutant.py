"""What a planted bug is: one method of the product, replaced by one that a tired programmer could have written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One planted bug: `make(original)` gives the method that replaces `owner.method`."""

    name: str
    why: str
    owner: type
    method: str
    make: Callable[[Any], Any]
    near: str = ""
    """Tests with this in their names are tried first: a hunt ends sooner where it begins near by."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within this block the bug is there."""
        original = self.owner.__dict__[self.method]
        function = original.__func__ if isinstance(original, staticmethod) else original
        changed = self.make(function)
        setattr(self.owner, self.method, staticmethod(changed) if isinstance(original, staticmethod) else changed)
        try:
            yield
        finally:
            setattr(self.owner, self.method, original)
