"""Wrong use of what is public here, said at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow._core.node.config import NodeConfig
from actorflow.testing.errors import SimulationMisuse

if TYPE_CHECKING:
    from actorflow.testing.world import World

SCHEMES = ("unix", "tcp")


def check_main(what: str, main: Any) -> None:
    """A program is an `async def` function."""
    if isinstance(main, Coroutine):
        main.close()
        raise TypeError(f"{what}: main must be an `async def` function, not a coroutine, which runs once only: leave out the parentheses")
    if not callable(main):
        raise TypeError(f"{what}: main must be an `async def` function, not {type(main).__name__}")


def begun(main: Callable[[], Any]) -> Coroutine[Any, Any, Any]:
    """Call it."""
    coroutine = main()
    if not isinstance(coroutine, Coroutine):
        raise TypeError(f"main must be an `async def` function: {main!r} returned {type(coroutine).__name__}, which cannot be awaited")
    return coroutine


def check_cluster(scheme: str, node_options: Mapping[str, Any]) -> None:
    """The options of a SimCluster whose mistakes would show late, or never."""
    if scheme not in SCHEMES:
        raise OptionError(f'SimCluster(scheme={scheme!r}): there are "unix" and "tcp"', option="scheme")
    known = [field.name for field in fields(NodeConfig)]
    for name in node_options:
        if name not in known:
            raise OptionError(f"SimCluster(node_options={{{name!r}: ...}}): NodeConfig has {', '.join(known)}", option="node_options")


def check_moment(what: str, moment: float, now: float) -> None:
    """Nothing happens in the past."""
    if moment < now:
        raise SimulationMisuse(f"world.{what}({moment!r}, ...) is over: the world is at {now!r}")


def check_group(what: str, world: World, names: Iterable[str]) -> None:
    """Hosts, or machines that have one."""
    hosts = world.hosts.values()
    machines = {host.machine: None for host in hosts}
    for name in names:
        if name not in world.hosts and name not in machines:
            known = f"hosts are {', '.join(world.hosts)}; machines are {', '.join(machines)}"
            raise SimulationMisuse(f"fabric.{what}: there is no host or machine {name!r}; {known}")


def check_checks(history: object, checks: Iterable[object], kind: type) -> list[Any]:
    """What `check` takes."""
    if not isinstance(history, kind):
        raise OptionTypeError(f"check(history, checks): a History is needed, not {type(history).__name__}", option="history")
    if callable(checks) or isinstance(checks, str):
        raise OptionTypeError("check(history, checks): a list of checks is needed, as in [*ALWAYS, values_match(oracle)]", option="checks")
    found = list(checks)
    for one in found:
        if not callable(one):
            what = f"a check is a function of the history, as in ALWAYS, not {type(one).__name__}"
            raise OptionTypeError(f"check(history, [..., {one!r}]): {what}", option="checks")
    return found
