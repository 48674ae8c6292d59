"""Placement groups: resources that are reserved together, on one node or on many.

    async with af.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD") as group:
        await work.options(placement_group=group, bundle_index=0)()
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

from actorflow import _option_checks as check
from actorflow import _runtime
from actorflow._core.base.errors import GetTimeoutError, OptionError, PlacementGroupNotFoundError
from actorflow._core.base.resources import (
    CPU,
    DEVICE_NAMES,
    GPU,
    MEMORY,
    UNIT,
    check_device_amount,
    format_resources,
    parse_amount,
    parse_bytes,
    to_number,
)
from actorflow._core.base.texts import check_encodable
from actorflow._core.worker.core import Core

__all__ = ["PlacementGroup", "get_placement_group", "placement_group"]

PlacementStrategy: TypeAlias = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
BUNDLES_MAX = 10_000
_WHERE = "af.placement_group"
_RIGHT_NAME = {"cpu": CPU, "gpu": GPU, "tpu": "TPU", "memory": MEMORY}


class PlacementGroup:
    """A handle to a placement group: what `af.placement_group(...)` gives. It may travel to other processes.

    `async with` waits until the group is ready, and removes it at the end of the block. Dropping a handle removes nothing: a group
    lives as long as the actor that created it, else as long as the program did, or with `lifetime="detached"` until it is removed.
    """

    __slots__ = ("_bundles", "bundle_label_selector", "id", "name", "strategy")

    def __init__(
        self, group_id: str, strategy: str, bundles: list[dict[str, int]], labels: list[dict[str, str]], name: str | None
    ) -> None:
        self.id = group_id
        self.strategy = strategy
        self.name = name
        self.bundle_label_selector = labels
        self._bundles = bundles

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle has, as it was asked for; memory in bytes."""
        return [{name: to_number(units) for name, units in bundle.items()} for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self._bundles)

    async def ready(self, *, timeout: float | None = None) -> Self:
        """Return when every bundle is reserved.

        `timeout` in seconds only stops waiting, with GetTimeoutError, which says what is missing. Raises
        PlacementGroupUnschedulableError when no set of the nodes that there are can hold it, and PlacementGroupRemovedError.
        """
        groups = _core().groups
        if timeout is None:
            await groups.wait_ready(self.id)
            return self
        seconds = check.seconds("timeout", timeout)
        try:
            async with asyncio.timeout(seconds):
                await groups.wait_ready(self.id)
        except TimeoutError:
            why = groups.why_waiting(self.id) or "the head has not said why"
            raise GetTimeoutError(
                f"placement group {self.id} was not ready after {timeout:g} s: {why}. It still waits: wait again, or remove it",
                timeout_s=timeout,
            ) from None
        return self

    async def wait(self, timeout: float = 30.0) -> bool:
        """As `ready`, with its errors too; False when it was not ready after `timeout` seconds, and may be later."""
        try:
            await self.ready(timeout=timeout)
        except GetTimeoutError:
            return False
        return True

    async def remove(self) -> None:
        """Remove it, and end what runs in it: tasks with TaskPlacementGroupRemoved, actors with ActorPlacementGroupRemoved.

        Returns when that is decided; the resources are free when the processes have ended. Removing it again does nothing.
        """
        await _core().groups.remove(self.id)

    async def __aenter__(self) -> Self:
        try:
            return await self.ready()
        except BaseException:
            await self.remove()
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.remove()

    def why_not(self, demand: Mapping[str, int], index: int) -> str:
        """Why work with this demand, in units, could never run in that bundle (-1: in any); empty when it could."""
        if index >= len(self._bundles):
            last = len(self._bundles) - 1
            return f"bundle_index={index} is none of its bundles: it has {len(self._bundles)}, from 0 to {last}"
        candidates = self._bundles if index < 0 else [self._bundles[index]]
        if any(all(units <= bundle.get(name, 0) for name, units in demand.items()) for bundle in candidates):
            return ""
        nearest = min(candidates, key=lambda bundle: sum(max(0, u - bundle.get(n, 0)) / u for n, u in demand.items() if u))
        which = f"bundle {index if index >= 0 else self._bundles.index(nearest)} has {format_resources(nearest)}"
        return f"{format_resources(demand)} is asked for in one bundle, and {which}{_hint(demand, nearest)}"

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<placement group {self.id}{name}: {self.strategy} of {len(self._bundles)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.id, self.strategy, self._bundles, self.bundle_label_selector, self.name)


def placement_group(
    bundles: Sequence[Mapping[str, float | str]],
    strategy: PlacementStrategy = "PACK",
    *,
    name: str | None = None,
    namespace: str | None = None,
    lifetime: Literal["detached"] | None = None,
    bundle_label_selector: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    priority: int = 0,
) -> PlacementGroup:
    """Reserve resources for several pieces of work together; return a handle at once.

    `bundles`: what each needs, as in [{"CPU": 2, "GPU": 1}, {"memory": "4GiB", "disk": 1}]; a bundle is always on one node. `strategy`:
    PACK (few nodes) and SPREAD (many) are wishes; STRICT_PACK (one node) and STRICT_SPREAD (each bundle on a node of its own) are
    conditions. `bundle_label_selector`: labels that the nodes must have, one selector for all bundles or one for each. Groups of a higher
    `priority` are served first. Raises OptionError.
    """
    parsed = _bundles(bundles)
    labels = _labels(bundle_label_selector, len(parsed))
    try:
        if str(strategy).upper() not in STRATEGIES:
            raise check.wrong("strategy", strategy, "is no strategy", f"{', '.join(map(repr, STRATEGIES))} are right")
        checked_name = check.name_or_none("name", name)
        space = check.name_or_none("namespace", namespace)
        detached = check.one_of("detached", None)("lifetime", lifetime) == "detached"
        check.integer("priority", priority)
    except OptionError as error:
        raise type(error)(f"{_WHERE}: {error}", option=error.option) from None
    group_id = _core().groups.create(
        strategy.upper(), parsed, labels, name=checked_name or "", namespace=space or "", detached=detached, priority=priority
    )
    return PlacementGroup(group_id, strategy.upper(), parsed, labels, checked_name)


async def get_placement_group(name: str, *, namespace: str | None = None) -> PlacementGroup:
    """A handle to the placement group of this name. Raises PlacementGroupNotFoundError, which shows near names, and OptionError."""
    check.name("af.get_placement_group: name", name)
    check.name_or_none("af.get_placement_group: namespace", namespace)
    core = _core()
    found = await core.groups.find(name, namespace or "")
    if not found.group_id:
        near = f"; near names: {', '.join(map(repr, found.near))}" if found.near else ""
        space = namespace or core.identity.namespace
        raise PlacementGroupNotFoundError(f"there is no placement group named {name!r} in namespace {space!r}{near}")
    return PlacementGroup(found.group_id, found.strategy, found.bundles, found.labels, name)


def _core() -> Core:
    return cast("Core", _runtime.current())


def _bundles(bundles: Any) -> list[dict[str, int]]:
    right = 'A list of resources is right, as in [{"CPU": 1}, {"CPU": 1, "GPU": 1}]'
    if not isinstance(bundles, list | tuple):
        raise check.wrong_type(f"{_WHERE}: bundles", bundles, right)
    if not bundles:
        raise check.wrong(f"{_WHERE}: bundles", bundles, "has no bundle", right)
    if len(bundles) > BUNDLES_MAX:
        raise OptionError(f"{_WHERE}: {len(bundles)} bundles are too many, the limit is {BUNDLES_MAX}: make several placement groups")
    return [_bundle(f"{_WHERE}: bundles[{index}]", bundle, right) for index, bundle in enumerate(bundles)]


def _bundle(where: str, bundle: Any, right: str) -> dict[str, int]:
    if not isinstance(bundle, Mapping):
        raise check.wrong_type(where, bundle, right)
    parsed: dict[str, int] = {}
    for name, value in bundle.items():
        option = f"{where}[{name!r}]"
        if not isinstance(name, str) or not name:
            raise check.wrong(option, value, "has no usable name", "A name is text that is not empty")
        check_encodable(option, name)
        own = _RIGHT_NAME.get(name.lower().removeprefix("num_").removesuffix("s"))
        if own is not None and own != name:
            raise check.wrong(option, value, "is not how this resource is called", f"Write {own!r}")
        units = parse_bytes(option, value) * UNIT if name == MEMORY else parse_amount(option, value)
        if name in DEVICE_NAMES:
            check_device_amount(option, units)
        if units:
            parsed[name] = units
    if not parsed:
        raise check.wrong(where, bundle, "asks for nothing", "Give it an amount, as in {'CPU': 1}, or leave it out")
    return parsed


def _labels(selectors: Any, count: int) -> list[dict[str, str]]:
    if not selectors:
        return []
    option = f"{_WHERE}: bundle_label_selector"
    each = [selectors] * count if isinstance(selectors, Mapping) else selectors
    if not isinstance(each, list | tuple):
        raise check.wrong_type(option, selectors, "A selector is right, as in {'zone': 'a'}, or a list of one for each bundle")
    if len(each) != count:
        what = f"has {len(each)} selectors for {count} bundles"
        raise check.wrong(option, selectors, what, "Give one for each, {} where any node is right, or a single one for all")
    return [check.label_selector(f"{option}[{index}]", one) or {} for index, one in enumerate(each)]


def _hint(demand: Mapping[str, int], bundle: Mapping[str, int]) -> str:
    if CPU in demand and CPU not in bundle and all(u <= bundle.get(n, 0) for n, u in demand.items() if n != CPU):
        return ". A task takes 1 CPU unless you say num_cpus=0"
    return ". Ask for less, or make the bundle larger"
