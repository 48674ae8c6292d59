"""The kinds of work that the program does, and how a call of each may end beside in its value. A table, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

CRASHED = "crashed"
"""The process that ran the call is gone, or its node."""
UNAVAILABLE = "unavailable"
"""The actor was lost under the call and comes back."""
DIED = "died"
"""The actor is dead for good."""
LOST = "lost"
"""The value of a reference cannot be had any more."""


class Work(NamedTuple):
    """`lanes`: so many loops do this work, one call after the other. `errors`: the sorts of errors that its calls may end in. `once`: what
    a call runs may begin at most once. `standing`: its actors come back, and are called until they have, so it is seen when that is.
    """

    lanes: int
    errors: frozenset[str] = frozenset()
    once: bool = False
    standing: bool = False


WORK = {
    "task again": Work(2),
    "task once": Work(2, frozenset({CRASHED}), once=True),
    "chain": Work(1),
    "objects": Work(1),
    "objects once": Work(1, frozenset({CRASHED, LOST})),
    "stream": Work(2),
    "stream large": Work(1, frozenset({LOST})),
    "group": Work(1),
    "actor again": Work(4, standing=True),
    "actor once": Work(4, frozenset({UNAVAILABLE}), once=True, standing=True),
    "actor mortal": Work(1, frozenset({DIED, UNAVAILABLE}), once=True),
    "named": Work(2, standing=True),
    "kept": Work(2, frozenset({UNAVAILABLE}), once=True, standing=True),
}
"""By the name of the kind. "again": with endless retries, so nothing but the value is right. "once": without."""

COMPARABLE = frozenset(WORK) - {"kept"}
"""What Ray has a counterpart of: it takes no checkpoints of actors."""

ABOUT = {
    "task again": "tasks that are tried again",
    "task once": "tasks that are not",
    "chain": "tasks on the results of tasks",
    "objects": "objects of up to 3 MiB, made and read on different nodes, made again when they are lost",
    "objects once": "objects that are not made again",
    "stream": "generators, tried again: every item once and in order",
    "stream large": "the same with items of 200 kB, of which those on a lost node cannot be made again",
    "group": "tasks in placement groups of two bundles",
    "actor again": "actors that restart, calls tried again",
    "actor once": "actors that restart, calls not tried again",
    "actor mortal": "actors with memory and one life",
    "named": "detached actors, found by name for each call",
    "kept": "detached actors with checkpoints: what they have acknowledged stays",
}
