"""What has to be done about objects that the cluster owns: what policy/durable_objects.py decides, and head/durable.py carries out."""

from __future__ import annotations

from dataclasses import dataclass

from actorflow._core.base.ids import ActorId, ProcessId

ObjectIndex = int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Tell this node that the extent is the cluster's."""

    node: ProcessId
    index: ObjectIndex
    extent: int
    writer: ProcessId


@dataclass(frozen=True, slots=True)
class Copy:
    """Have this node fetch and keep it, from there."""

    node: ProcessId
    index: ObjectIndex
    size: int
    home: ProcessId
    extent: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Have this node, or all (""), drop it. `names`: all the homes that it had."""

    node: ProcessId
    index: ObjectIndex
    names: tuple[tuple[ProcessId, int], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell a putter how it went."""

    process: ProcessId
    token: int
    copies: int
    error: str = ""
    full: bool = False
    over: bool = False
    """Nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Write:
    """It has changed: write it down (head/ledger.py)."""

    index: ObjectIndex


@dataclass(frozen=True, slots=True)
class Settled:
    """What was promised is there, or never will be: tell those who wait for it."""

    index: ObjectIndex


@dataclass(frozen=True, slots=True)
class EndMaker:
    """Nobody waits for what this actor makes any more. `by`: its process that has made it and was told so; empty: none."""

    actor_id: ActorId
    by: ProcessId


Step = Adopt | Copy | Drop | Answer | Write | Settled | EndMaker
