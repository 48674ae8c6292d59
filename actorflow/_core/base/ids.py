"""Identifiers: short, random, printable, and made from the injected generator, so that a simulation repeats them."""

from __future__ import annotations

import random

ProcessId = str
"""12 hex digits: one life of one process (driver, worker, node or head). Never reused: it is its own incarnation."""

CLUSTER: ProcessId = "cluster"
"""Stands where the owner of an object stands, for those that the cluster owns: no process has such an id."""

ActorId = str
"""12 hex digits: one actor, over all of its restarts."""

GroupId = str
"""12 hex digits: one placement group, wherever its bundles are."""

FunctionId = str
"""24 hex digits: the digest of a pickled function or class."""


def new_id(rng: random.Random) -> str:
    """Return 12 hex digits drawn from `rng`."""
    return f"{rng.getrandbits(48):012x}"


def task_name(owner: ProcessId, seq: int) -> str:
    """The printable name of call number `seq` of process `owner`, as errors and the state API show it."""
    return f"task-{owner[:6]}-{seq}"
