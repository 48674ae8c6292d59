"""What is harmed, and when: a list of faults that follows from a seed. Pure.

CS-1  The same seed and the same rates give the same faults at the same moments.
CS-2  Each kind of harm draws from a generator of its own: switching one off moves none of the others.
CS-3  Shares are counted and not drawn: of N kills exactly every so many is of a node, and of the head.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

JITTER = 0.5
"""Between two faults of a kind lies their pace, give or take this share of it."""
STOPS_OF_A_NODE = 3
"""Every so many stops are of a whole node."""
LONG_EVERY = 3
"""Every so many stops of a node, and cuts of one, last LONG_S."""
LONG_S = 12.0
"""Longer than the 9.5 s of silence after which a node is given up."""


class Kind(StrEnum):
    """Kinds of faults."""

    KILL_WORKER = "kill worker"
    """SIGKILL to one worker process, of any node."""
    KILL_NODE = "kill node"
    """SIGKILL to all processes of a node at once, as when a machine loses its power. Another one joins in its place."""
    KILL_HEAD = "kill head"
    """The same for the head."""
    STOP_WORKER = "stop worker"
    """SIGSTOP to a worker, and SIGCONT after a while."""
    STOP_NODE = "stop node"
    """The same for all processes of a node: a machine that hangs."""
    RESET = "reset"
    """Every connection to a node, and its own to the head, ends with a reset."""
    PARTITION = "partition"
    """Nothing goes through these connections for a while, and nobody is told."""


KILLS = frozenset({Kind.KILL_WORKER, Kind.KILL_NODE, Kind.KILL_HEAD})
LASTING = frozenset({Kind.STOP_WORKER, Kind.STOP_NODE, Kind.PARTITION})


class Fault(NamedTuple):
    """One fault. `at_s` counts from the beginning; `pick`, from 0 to 1, says which of those that are there at that moment."""

    number: int
    at_s: float
    kind: Kind
    pick: float
    seconds: float = 0.0
    """How long it lasts; 0 for what is over at once."""


class Rates(NamedTuple):
    """Seconds between two faults of a kind, 0 for none; and of the kills, every how manieth is of what."""

    kill_s: float = 3.0
    node_every: int = 4
    head_every: int = 0
    stop_s: float = 10.0
    reset_s: float = 8.0
    partition_s: float = 20.0
    lasting_s: float = 2.0
    """How long stops and cuts last, give or take the half."""


def schedule(seed: int, seconds: float, rates: Rates) -> list[Fault]:
    """The faults of a run of this length, in the order of their moments."""
    drawn = [*_kills(seed, seconds, rates), *_stops(seed, seconds, rates), *_cables(seed, seconds, rates)]
    drawn.sort(key=lambda fault: (fault.at_s, fault.kind))
    return [fault._replace(number=number) for number, fault in enumerate(drawn, start=1)]


def _kills(seed: int, seconds: float, rates: Rates) -> Iterator[Fault]:
    rng = random.Random(f"{seed} kills")
    for count, at_s in enumerate(_moments(rng, seconds, rates.kill_s), start=1):
        yield Fault(0, at_s, _killed(count, rates), rng.random())


def _killed(count: int, rates: Rates) -> Kind:
    if rates.head_every and count % rates.head_every == 0:
        return Kind.KILL_HEAD
    if rates.node_every and count % rates.node_every == 0:
        return Kind.KILL_NODE
    return Kind.KILL_WORKER


def _stops(seed: int, seconds: float, rates: Rates) -> Iterator[Fault]:
    rng = random.Random(f"{seed} stops")
    for count, at_s in enumerate(_moments(rng, seconds, rates.stop_s), start=1):
        pick, lasting_s = rng.random(), _about(rng, rates.lasting_s)
        if count % STOPS_OF_A_NODE:
            yield Fault(0, at_s, Kind.STOP_WORKER, pick, lasting_s)
        else:
            yield Fault(0, at_s, Kind.STOP_NODE, pick, _long(count // STOPS_OF_A_NODE, lasting_s))


def _cables(seed: int, seconds: float, rates: Rates) -> Iterator[Fault]:
    rng = random.Random(f"{seed} resets")
    for at_s in _moments(rng, seconds, rates.reset_s):
        yield Fault(0, at_s, Kind.RESET, rng.random())
    rng = random.Random(f"{seed} partitions")
    for count, at_s in enumerate(_moments(rng, seconds, rates.partition_s), start=1):
        yield Fault(0, at_s, Kind.PARTITION, rng.random(), _long(count, _about(rng, rates.lasting_s)))


def _long(count: int, lasting_s: float) -> float:
    return LONG_S if count % LONG_EVERY == 0 else lasting_s


def _moments(rng: random.Random, seconds: float, pace_s: float) -> Iterator[float]:
    at_s = 0.0
    while pace_s and (at_s := at_s + _about(rng, pace_s)) < seconds:
        yield at_s


def _about(rng: random.Random, seconds: float) -> float:
    return seconds * (1 - JITTER + 2 * JITTER * rng.random())
