"""The systems that chaos can drive, behind one face: what the program calls (`Verbs`), and what is done to the machines (`Machines`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from actorflow.testing.chaos.schedule import Kind

NAMES = ("actorflow", "ray")
TASK_CPUS = 0.25


class Verbs(Protocol):
    """What the program does in a system. `again`: calls and tasks are tried again for ever, else never."""

    errors_of: dict[str, frozenset[str]]
    """Sorts of errors, by kind of work, that this system may answer with beside those in WORK. Kinds that it lacks are not in `has`."""
    has: frozenset[str]

    async def start(self, address: str) -> None:
        """Join the cluster."""

    async def stop(self) -> list[str]:
        """Leave it; says what the program has left in it, after a while."""

    def task(self, function: Callable[..., Any], *arguments: Any, again: bool) -> Any:
        """Call it somewhere; gives a reference, which can be awaited and be an argument."""

    def stream(self, function: Callable[..., Any], *arguments: Any) -> AsyncIterator[Any]:
        """Call a generator somewhere, tried again for ever; its values."""

    async def put(self, value: Any) -> Any:
        """A reference to a value."""

    async def grouped(self, function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """Tasks that are tried again for ever, each in a bundle of a placement group of its own for this call."""

    async def actor(self, cls: type, *arguments: Any, restarts: bool, again: bool, name: str = "", kept: bool = False) -> Any:
        """A handle to a new actor; detached when it has a name, with a checkpoint after each call when it is `kept`."""

    async def find(self, name: str) -> Any:
        """A handle to a detached one."""

    def call(self, handle: Any, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method."""

    async def kill(self, handle: Any) -> None:
        """End an actor."""

    def sort(self, error: BaseException) -> str:
        """Of which sort an error is (work.py); its type, for any other."""

    async def explain(self) -> str:
        """What is under way, when something hangs."""


class Member(Protocol):
    """A node. `first`: it has the head and the program, and stays."""

    name: str
    first: bool

    def pids(self) -> list[int]:
        """All its processes."""

    def workers(self) -> list[int]:
        """Those that run what the program calls."""


class Machines(Protocol):
    """The nodes of a system on this machine, and what can be done to them."""

    can: frozenset[Kind]

    async def start(self, nodes: int, cpus: int, directory: Path) -> str:
        """Start them; gives the address for the program."""

    def members(self) -> Sequence[Member]:
        """Those that are there, in the order in which they came."""

    async def kill(self, member: Any) -> None:
        """SIGKILL to all processes of a node at once."""

    async def kill_head(self) -> int:
        """SIGKILL to the process of the head, which comes back; says which it was. Where `can` has it."""

    async def add(self) -> None:
        """Another node joins."""

    async def reset(self, member: Any) -> None:
        """End its connections with a reset."""

    async def cut(self, member: Any) -> None:
        """Nothing goes through its connections."""

    async def heal(self, member: Any) -> None:
        """It does again."""

    async def close(self) -> list[str]:
        """End all; says what did not end."""


def verbs_of(system: str) -> Verbs:
    """Those of a system. Raises ImportError where it is not installed."""
    if system == "ray":
        from actorflow.testing.chaos.systems.ray_verbs import RayVerbs

        return RayVerbs()
    from actorflow.testing.chaos.systems.actorflow_verbs import ActorflowVerbs

    return ActorflowVerbs()


def machines_of(system: str) -> Machines:
    """Those of a system. Raises ImportError where it is not installed."""
    if system == "ray":
        from actorflow.testing.chaos.systems.ray_machines import RayMachines

        return RayMachines()
    from actorflow.testing.chaos.systems.actorflow_machines import ActorflowMachines

    return ActorflowMachines()
