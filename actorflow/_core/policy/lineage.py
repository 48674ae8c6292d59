"""How a result was made, kept so that it can be made again when it is lost; and the bound on what that takes. Pure.

Invariants:
LN-1  What is kept takes at most `bytes_max`; beyond that the oldest goes first.
LN-2  What is kept for a result goes with the last reference to the result, and to results that were made of it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

RECIPE_BYTES = 600
"""What a recipe takes beside its arguments, roughly."""


class Recipe:
    """How to make a result again. `problem`: why that cannot be done, in words for an error; then the rest is of no use."""

    __slots__ = (
        "__weakref__",
        "_gone",
        "args",
        "attempt",
        "buffers",
        "cost",
        "deps",
        "options",
        "position",
        "problem",
        "retries_left",
        "returns",
        "target",
        "values",
    )  # fmt: skip

    def __init__(
        self,
        target: Any,
        options: Any,
        args: bytes = b"",
        buffers: Sequence[bytes] | None = None,
        deps: Sequence[Any] = (),
        values: Any = None,
        *,
        position: int = 0,
        returns: int = 1,
        attempt: int = 0,
        retries_left: int = 0,
        problem: str = "",
    ) -> None:
        self.target = target
        self.options = options
        self.args = args
        self.buffers = buffers
        self.deps = deps
        """The objects that were arguments themselves: small ones have their values, large ones recipes of their own (LN-2)."""
        self.values = values
        self.position = position
        """Which of the `returns` results it is."""
        self.returns = returns
        self.attempt = attempt
        self.retries_left = retries_left
        """-1: without end."""
        self.problem = problem
        self.cost = RECIPE_BYTES + len(args) + sum(len(buffer) for buffer in buffers or ())
        self._gone: deque[int] | None = None

    def __del__(self) -> None:
        # Any thread, in the middle of a collection: one append, as for references (SEMANTICS 18).
        if self._gone is not None:
            self._gone.append(self.cost)

    def forget(self, problem: str) -> None:
        """Keep nothing but the reason."""
        self.problem = problem
        self.args, self.buffers, self.deps, self.values = b"", None, (), None


class Lineage:
    """The recipes of one process. They are held by the results themselves; this only counts, and bounds."""

    __slots__ = ("_gone", "_live", "_order", "bytes", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._gone: deque[int] = deque()
        self._order: deque[weakref.ref[Recipe]] = deque()
        self._live = 0

    def keep(self, recipe: Recipe) -> None:
        """Count one more, and let the oldest go for it if need be (LN-1)."""
        assert recipe._gone is None, "LN-1: a recipe is counted once"
        self.settle()
        recipe._gone = self._gone
        self.bytes += recipe.cost
        self._live += 1
        self._order.append(weakref.ref(recipe))
        while self.bytes > self.bytes_max and self._order:
            oldest = self._order.popleft()()
            if oldest is not None:
                self._drop(oldest)
        if len(self._order) > 2 * self._live + 100:
            # What is gone between those that stay is not remembered for longer than it takes as many again to come.
            self._order = deque(ref for ref in self._order if ref() is not None)

    def settle(self) -> None:
        """Count what is gone."""
        while self._gone:
            self.bytes -= self._gone.popleft()
            self._live -= 1

    def _drop(self, recipe: Recipe) -> None:
        recipe._gone = None
        self.bytes -= recipe.cost
        self._live -= 1
        recipe.forget(
            f"how it was made is no longer known: the calls that this process remembers for that are bounded to {self.bytes_max} bytes, "
            "and this was the oldest"
        )
        self.settle()  # What only this one referred to went with it.
